"""The public listener's connections: how many there may be, and how long one may take over a request.

Whoever connects costs a file and memory before anything is known of him. So the connections are bounded below
what the process may open; when that many are there, the ones that have been idle longest make room, and only
while none is idle a new one is turned away. The head of a request is bounded in bytes and in time, and so is
a request as a whole, until its answer has been taken. WebSocket connections have bounds of their own.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from heapq import nsmallest
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from exchange.intake.errors import (
    BAD_REQUEST,
    OVERLOADED,
    TOO_MANY_CONNECTIONS,
    UNKNOWN,
    ApiError,
    error_body,
)
from exchange.intake.limits import AddressUse, Usage

# Where the system allows it: room for all WebSocket connections that there may be, and three times as many
# for requests.
CONNECTIONS_MAX = 8_192
# Of the files that the process may open, the part that connections may be: the rest is for the log, snapshots
# and the administrator's listener.
FILES_SHARE = 0.75
HEADERS_MAX = 64
HEAD_BYTES_MAX = 32 * 1024
# So many make room at a time: looking for them among thousands is not done for each that comes.
MADE_ROOM = 64

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """What a listener's connections are held to.

    Of `connections_max` an address whom limits bind may have one in `address_share`. A request's head must be
    there `head_s` after its first byte, and its answer taken `request_s` after the head. Looked at every
    `look_s`.
    """

    connections_max: int = CONNECTIONS_MAX
    address_share: int = 4
    head_s: float = 10.0
    request_s: float = 60.0
    look_s: float = 2.0


def connections_max() -> int:
    """Return for how many connections this process may open files, after letting it open more if it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = round(CONNECTIONS_MAX / FILES_SHARE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            logger.warning("open_files_not_raised", limit=soft, wanted=wanted, error=str(error))
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, int(soft * FILES_SHARE))


class FrontServer(web.Server):
    """The server for `Front.handle`, which answers even what is not HTTP in the form of all answers.

    `usage` tells whom limits bind; `settings` are those of aiohttp's server.
    """

    def __init__(
        self, handler: Handler, usage: Usage, limits: ListenerLimits | None = None, **settings: Any
    ) -> None:
        super().__init__(handler, request_factory=self._take_up, max_headers=HEADERS_MAX, **settings)
        self.limits = limits or ListenerLimits()
        self._usage = usage
        self._open: dict[_FrontProtocol, str] = {}
        self._by_address: Counter[str] = Counter()
        self._is_looking = False

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _FrontProtocol(self, loop=self._loop, **self._kwargs)

    def enter(self, protocol: "_FrontProtocol", transport: asyncio.Transport) -> None:
        """Count a new connection.

        Raises:
            ApiError: 503 or 429, there are too many, or too many of its address. It is not counted.
        """
        limits, use = self.limits, self._peer(transport)
        share = limits.connections_max // limits.address_share
        if use.is_bound and self._by_address[use.name] >= share:
            raise TOO_MANY_CONNECTIONS.error(address=use.name, limit=share)
        if len(self._open) >= limits.connections_max and not self._make_room():
            raise OVERLOADED.error()
        self._open[protocol] = use.name
        self._by_address[use.name] += 1
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(limits.look_s, self._look)

    def leave(self, protocol: "_FrontProtocol") -> None:
        """Count a connection no longer, if it still counts."""
        name = self._open.pop(protocol, None)
        if name is None:
            return
        self._by_address[name] -= 1
        if not self._by_address[name]:
            del self._by_address[name]

    def _peer(self, transport: asyncio.Transport) -> AddressUse:
        peer = transport.get_extra_info("peername")
        return self._usage.peer(str(peer[0]) if isinstance(peer, tuple) else "")

    def _make_room(self) -> bool:
        """End the connections that have been idle longest; return whether there were any."""
        idle = nsmallest(
            MADE_ROOM, (each for each in self._open if not each.is_busy), key=lambda each: each.began_s
        )
        for protocol in idle:
            # Its file is closed in the next turn of the loop; the rest of the files covers that.
            self.leave(protocol)
            protocol.force_close()
        return bool(idle)

    def _look(self) -> None:
        """End the connections that take too long, and look again later while there are any."""
        now_s = self._loop.time()
        late = [protocol for protocol in self._open if protocol.is_late(now_s)]
        for protocol in late:
            protocol.cut_off()
        if late:
            logger.debug("late_connections_ended", connections=len(late))
        self._is_looking = bool(self._open)
        if self._is_looking:
            self._loop.call_later(self.limits.look_s, self._look)

    def _take_up(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        assert isinstance(protocol, _FrontProtocol)
        protocol.began_s = self._loop.time()
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)


class _FrontProtocol(web.RequestHandler):
    """One connection. `began_s` is when it came, and then when its last request began to be answered."""

    __slots__ = ("_head_began_s", "_head_bytes", "_server", "began_s")

    def __init__(self, server: FrontServer, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._server = server
        self._head_bytes = 0
        self._head_began_s = 0.0
        self.began_s = self._loop.time()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered, or the connection is a WebSocket's."""
        return self._request_in_progress or bool(self._messages)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve the connection, or turn it away."""
        # What uvloop makes is one, though not by its class.
        self.transport = cast(asyncio.Transport, transport)
        try:
            self._server.enter(self, self.transport)
        except ApiError as error:
            self._turn_away(error)
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection no longer."""
        self._server.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, as long as it is not too much for the head of a request."""
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._head_bytes = 0
            self._let_go_of_error()
        elif data and (count == 0 or self._waiter is not None):
            if not self._head_bytes:
                self._head_began_s = self._loop.time()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._turn_away(BAD_REQUEST.error(what=f"its head is longer than {HEAD_BYTES_MAX} bytes"))

    def _let_go_of_error(self) -> None:
        """Read no further behind what the parser could not read, and keep nothing of it.

        Each further read would be one more error, and an error's traceback holds what was read until the
        collector comes by, which is seldom: without this, megabytes for each connection.
        """
        error = getattr(self._messages[-1][0], "exc", None) if self._messages else None
        if isinstance(error, BaseException):
            error.__traceback__ = None
            if self.transport is not None:
                self.transport.pause_reading()

    def is_late(self, now_s: float) -> bool:
        """Tell whether the other side takes too long to send a head or a body, or to take an answer."""
        limits = self._server.limits
        if self._payload_parser is not None:
            return False  # a WebSocket's
        if self.is_busy:
            return now_s - self.began_s > limits.request_s
        return self._head_bytes > 0 and now_s - self._head_began_s > limits.head_s

    def cut_off(self) -> None:
        """End the connection at once, whatever waits to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser could not read, or a defect outside `Front.handle`."""
        if status >= 500:
            logger.error("connection_failed", exc_info=exc)
            error = UNKNOWN.error()
        else:
            error = BAD_REQUEST.error(what=type(exc).__name__)
        response = web.Response(body=error_body(error), status=status, content_type="application/json")
        response.force_close()
        return response

    def _turn_away(self, error: ApiError) -> None:
        """Say why, without waiting for a request, and end the connection."""
        body = error_body(error)
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        if self.transport is not None:
            self.transport.write(head.encode() + body)
        self.force_close()
