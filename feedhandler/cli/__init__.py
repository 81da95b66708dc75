"""The command line: one module for a group of commands, and what they print."""
