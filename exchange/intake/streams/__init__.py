"""WebSocket streams: what happens is sent to whoever has subscribed to it."""
