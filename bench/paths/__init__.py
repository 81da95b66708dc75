"""The programs that are measured beside feedhandler's own processes: sinks, the floor, the alternatives."""
