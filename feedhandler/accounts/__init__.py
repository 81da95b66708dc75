"""What accounts hold, and what is to be watched of it. An exchange may have none."""
