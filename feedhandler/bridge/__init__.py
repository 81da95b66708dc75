"""The bridge: the merger's stream, published to NATS."""
