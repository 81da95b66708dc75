"""The merger: the records of all feeds, under canonical symbols and with sequence numbers, for all subscribers."""
