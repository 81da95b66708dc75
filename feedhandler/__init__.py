"""feedhandler: crypto market data, from exchange WebSockets to ZeroMQ subscribers."""

__version__ = "0.1.0"
