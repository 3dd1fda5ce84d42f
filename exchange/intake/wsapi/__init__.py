"""The WebSocket API: the same calls as over HTTP, many at a time over one connection."""
