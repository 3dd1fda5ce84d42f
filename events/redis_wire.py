"""The wire to a Redis or Valkey server: connections lent to one exchange at a time, and what failures mean.

Connections are taken one by one from redis-py instead of through its client and pool. A blocked read must
never delay an append, a request is never resent by the library (the caller resends the same (origin, n),
which the aggregate runs once), and readers must see every reconnect, because it may lead to a server that
has lost its tail.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import hiredis
from redis import exceptions as server_errors
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    UnixDomainSocketConnection,
    parse_url,
)

from events.log import (
    ForeignServerError,
    LogError,
    LogFullError,
    LogUnavailableError,
    ServerSettingsError,
)

REPLY_TIMEOUT_S = 10.0

# Replies that mean "not now": the request had no effect, or its effect is unknown.
_PASSING_CODES = frozenset(
    ("LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS", "UNBLOCKED")
)
_FULL_CODES = ("OOM", "MISCONF")
_REFUSED_CODES = ("NOAUTH", "NOPERM", "WRONGPASS")

Reply = Any  # what hiredis makes of a RESP2 reply: bytes, int, list, None, or an error object


class Wire:
    """Connections to one server, each lent to one exchange at a time. `made` counts those ever made."""

    def __init__(self, url: str) -> None:
        self.made = 0
        self._class, self._arguments = _connection_arguments(url)
        # Without the password that the address may hold.
        host, port = self._arguments.get("host", "localhost"), self._arguments.get("port", 6379)
        self._place = self._arguments.get("path", f"{host}:{port}")
        self._idle: list[AbstractConnection] = []
        self._busy: set[AbstractConnection] = set()
        # Those over which a `first` was answered.
        self._checked: WeakSet[AbstractConnection] = WeakSet()
        self._is_closed = False

    async def exchange(
        self, packed: Sequence[bytes], wait_s: float = 0.0, *, first: Callable[[], bytes] | None = None
    ) -> list[Reply]:
        """Send packed commands at once and return their replies, refusals as error objects.

        What `first` packs is sent instead over a connection that has not carried one yet. The server may
        take `wait_s` longer than usual. When it cannot be reached, does not answer in time or the caller is
        cancelled, the connection is dropped, since replies may still be on their way.

        Raises:
            LogUnavailableError: no answer; ServerSettingsError: the server does not let this user in.
        """
        connection = await self._borrow()
        self._busy.add(connection)
        is_first = first is not None and connection not in self._checked
        if first is not None and is_first:
            packed = [first()]
        is_reusable = False
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S + wait_s):
                await connection.send_packed_command(packed, check_health=False)
                replies = [await _reply(connection) for _ in packed]
            if is_first and not isinstance(replies[0], server_errors.ResponseError):
                self._checked.add(connection)
            # A former master: only a new connection can lead to its successor.
            is_demoted = any(isinstance(reply, server_errors.ReadOnlyError) for reply in replies)
            if is_demoted:
                await self._drop_idle()
            is_reusable = not is_demoted
        except (server_errors.RedisError, TimeoutError, OSError) as error:
            # The other idle connections went to the same server: when it went away, so did they.
            await self._drop_idle()
            raise _translate(error, self._place) from error
        finally:
            self._busy.discard(connection)
            if is_reusable and not self._is_closed:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
        return replies

    async def close(self) -> None:
        """Drop all connections; exchanges under way fail with `LogUnavailableError`."""
        self._is_closed = True
        await self._drop_idle()
        for connection in list(self._busy):
            await connection.disconnect(nowait=True)

    async def _borrow(self) -> AbstractConnection:
        if self._is_closed:
            raise LogUnavailableError("this handle was closed")
        if self._idle:
            return self._idle.pop()
        connection = self._class(**self._arguments)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (server_errors.RedisError, OSError) as error:
            # Over a unix socket redis-py wraps a refused login as if nobody had listened.
            cause = error.__cause__
            is_wrapped = isinstance(cause, server_errors.RedisError)
            raise _translate(cause if is_wrapped else error, self._place) from error
        self.made += 1
        return connection

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def pack(*command: str | bytes | int) -> bytes:
    """Return a command as the server reads it."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


def expect_answer(reply: Reply) -> Reply:
    """Return a reply that is not a refusal.

    Raises:
        LogError: the refusal, as the kind of it that says what may be done.
    """
    if isinstance(reply, server_errors.RedisError):
        raise _translate(reply) from reply
    return reply


def _connection_arguments(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    arguments: dict[str, Any] = dict(parse_url(url)) if "://" in url else {"path": url}
    default_class = UnixDomainSocketConnection if "path" in arguments else Connection
    connection_class = arguments.pop("connection_class", default_class)
    # Timeouts are set around whole exchanges, which is cheaper than redis-py's around each read and write.
    arguments |= {
        "socket_timeout": None,
        "socket_connect_timeout": REPLY_TIMEOUT_S,
        "protocol": 2,
        "driver_info": None,
    }
    return connection_class, arguments


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response()
    except server_errors.ResponseError as refusal:
        return refusal


def _translate(error: BaseException | None, place: str = "") -> LogError:
    """Say in the log's terms what a failure means for who asked the server at a `place`."""
    is_refusal = isinstance(error, server_errors.ResponseError)
    # redis-py cuts off the codes that it knows and leaves the others at the head of the text.
    known_code = getattr(error, "status_code", None)
    code = known_code or (str(error).partition(" ")[0] if is_refusal else "")
    text = f"{known_code} {error}" if known_code else str(error) or repr(error)
    if isinstance(error, server_errors.AuthenticationError) or code in _REFUSED_CODES:
        return ServerSettingsError(f"the server refuses this user: {text}")
    if code in _FULL_CODES:
        return LogFullError(text)
    if isinstance(error, server_errors.InvalidResponse):
        return ForeignServerError(f"what answers at {place} is no Redis or Valkey server: {text}")
    if not is_refusal or code in _PASSING_CODES:
        return LogUnavailableError(text)
    return LogError(text)
