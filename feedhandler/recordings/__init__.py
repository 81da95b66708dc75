"""Recordings: the traffic of an exchange as it was, read and decoded anew."""
