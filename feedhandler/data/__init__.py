"""What everybody shares: bytes, symbols, errors, JSON documents. Pure, and imports no other room."""
