"""One WebSocket connection: its subscriptions, and what waits to be sent to it.

Whoever sends never waits: messages queue here, and a task of the connection's own writes them. A reader that
is too slow, so that more waits than may, is cut off.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

WRITE_BUFFER_BYTES: Final = 64 * 1024

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How a connection is held to its bounds. The defaults are Binance's, but for what may wait unsent.

    After `life_s` it is closed. It is pinged every `ping_s`, and closed when no pong came for `pong_s`. It
    may send `messages_per_s`, of `message_bytes_max` each, and subscribe to `streams_max` streams. No more
    than `waiting_bytes_max` may wait for it to be read, and no more than `all_waiting_bytes_max` for all
    connections together.
    """

    life_s: float = 24 * 3600.0
    ping_s: float = 180.0
    pong_s: float = 600.0
    messages_per_s: int = 10
    message_bytes_max: int = 64 * 1024
    streams_max: int = 1024
    connections_max: int = 1_000
    waiting_bytes_max: int = 8 * 1024 * 1024
    all_waiting_bytes_max: int = 256 * 1024 * 1024


class Backlog:
    """The connections there are, and what waits on all of them: when it is too much, the worst is cut off."""

    def __init__(self, limits: StreamLimits) -> None:
        self.connections: dict[Connection, None] = {}
        self._limits = limits
        self._waiting_bytes = 0

    def change(self, by_bytes: int) -> None:
        """Count what waits from now on, or (negative) no longer."""
        self._waiting_bytes += by_bytes
        while self._waiting_bytes > self._limits.all_waiting_bytes_max:
            worst = max(self.connections, key=lambda each: each.waiting_bytes)
            logger.warning("slowest_reader_cut_off", waiting_bytes=worst.waiting_bytes)
            worst.cut_off()


class Connection:
    """A subscriber over a WebSocket. `names` are its streams, in the order of subscription.

    `waiting_bytes` is what waits to be sent. It must be among `backlog.connections` while it is used.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        limits: StreamLimits,
        backlog: Backlog,
        *,
        is_combined: bool,
    ) -> None:
        self.is_combined = is_combined
        self.names: dict[str, None] = {}
        self._socket = socket
        self._transport = transport
        self._limits = limits
        self._waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self._backlog = backlog
        self._has_more = asyncio.Event()
        self._is_cut_off = False
        loop = asyncio.get_running_loop()
        self._opened_s = self._pinged_s = self._ponged_s = loop.time()
        self._second_s = 0.0
        self._messages = 0

    def send(self, payload: bytes) -> None:
        """Queue a message; if too much waits, cut the connection off."""
        if self._is_cut_off:
            return
        self._waiting.append(payload)
        self._count(len(payload))
        if self.waiting_bytes > self._limits.waiting_bytes_max:
            logger.warning("slow_reader_cut_off", waiting_bytes=self.waiting_bytes, streams=len(self.names))
            self.cut_off()
        else:
            self._has_more.set()

    def cut_off(self) -> None:
        """End the connection at once, without a word: whoever does not read would not read that either."""
        self.forget()
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """Take nothing more to send, and let go of what waits."""
        self._is_cut_off = True
        self._waiting.clear()
        self._count(-self.waiting_bytes)

    async def write(self) -> None:
        """Write what is queued until cancelled, or until the connection is gone."""
        try:
            while True:
                await self._has_more.wait()
                self._has_more.clear()
                while self._waiting:
                    payload = self._waiting.popleft()
                    self._count(-len(payload))
                    await self._socket.send_frame(payload, WSMsgType.TEXT)
        except ConnectionError:
            self.forget()

    def count_message(self) -> bool:
        """Count something that came in; return whether it was too much for this second."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._second_s >= 1.0:
            self._second_s = now_s
            self._messages = 0
        self._messages += 1
        return self._messages > self._limits.messages_per_s

    def has_ponged(self) -> None:
        """Note a sign of life."""
        self._ponged_s = asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """Ping while the connection lives, and end it when it is silent, or as old as it may be."""
        limits, loop = self._limits, asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            ends_s = self._opened_s + limits.life_s
            dies_s = self._ponged_s + limits.pong_s
            if now_s >= ends_s:
                await self.end(WSCloseCode.GOING_AWAY, b"the connection is as old as it may be")
                return
            if now_s >= dies_s:
                self.cut_off()
                return
            if now_s >= self._pinged_s + limits.ping_s:
                self._pinged_s = now_s
                await self._socket.ping()
            next_s = min(ends_s, dies_s, self._pinged_s + limits.ping_s)
            await asyncio.sleep(max(0.0, next_s - now_s))

    def _count(self, by_bytes: int) -> None:
        self.waiting_bytes += by_bytes
        self._backlog.change(by_bytes)

    async def end(self, code: WSCloseCode, reason: bytes) -> None:
        """Close the connection, with a reason."""
        await self._socket.close(code=code, message=reason, drain=False)
