"""What every process does alike: configuration, logs, signals, files, and how it is found on this host."""
