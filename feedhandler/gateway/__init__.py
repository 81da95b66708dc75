"""The gateway's rooms: what it serves over HTTP and to browsers, and what it does on its own. Shell: aiohttp."""
