"""The WebSocket front of the streams: which paths there are, what a connection may ask, what it is told.

`/ws` sends bare payloads and `/stream` wraps them with the name of their stream; so do both behind `/public`,
`/market` and `/private`. Streams are named in the path (`/ws/<name>/<name>`), in `?streams=`, as
`?listenKey=`, or in requests afterwards; any stream comes on any route. A number in the path is a client's
own counter.

A request is a JSON object with `method`, `params` and `id`. What is wrong with one is said in an answer and
changes nothing; who asks too often or too much is disconnected.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from exchange.intake.errors import BAD_REQUEST, NO_SUCH_PATH, OVERLOADED, PAST_UNREAD
from exchange.intake.gate import Call, Gate
from exchange.intake.streams.accounts import AccountStreams
from exchange.intake.streams.channel import encode
from exchange.intake.streams.connection import WRITE_BUFFER_BYTES, Backlog, Connection, StreamLimits
from exchange.intake.streams.hub import Hub

_KINDS: Final = ("ws", "stream")
_PLACES: Final = ("public", "market", "private")
# What the paths begin with.
PATHS: Final = (*_KINDS, *_PLACES)
_ROUTES: Final = tuple(
    f"{place}/{kind}" for place in ("", *(f"/{each}" for each in _PLACES)) for kind in _KINDS
)
PATH_SHOWN_CHARS_MAX: Final = 100
NAME_CHARS_MAX: Final = 200
ID_CHARS_MAX: Final = 36
CLOSE_DEADLINE_S: Final = 2.0
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

logger = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder().decode


class RequestError(Exception):
    """A request over a stream connection is not granted; the answer is `{"error": {"code", "msg"}}`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def invalid(what: str) -> RequestError:
    """Return the error for a request that is not one."""
    return RequestError(2, f"Invalid request: {what}")


class StreamFront:
    """Accepts stream connections and serves their requests. `hub` has the streams.

    A ban that comes while a connection is open leaves it alone: it asks for nothing, and being told is what a
    banned address is advised to do instead of asking.
    """

    def __init__(self, gate: Gate, limits: StreamLimits | None = None) -> None:
        self._gate = gate
        self.hub = Hub(gate.intake)
        self.hub.add(AccountStreams(gate.intake, self.hub))
        self._limits = limits or StreamLimits()
        self._backlog = Backlog(self._limits)
        self._connections = self._backlog.connections

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    async def handle(self, request: web.BaseRequest, path: str, call: Call) -> web.StreamResponse:
        """Serve one connection until it ends.

        Raises:
            ApiError: it is none, there is nothing at this path, or there are too many; or as
                `Gate.connection`.
        """
        # A connection costs no weight at Binance: attempts are limited, and reading costs nothing.
        with self._gate.connection(call):
            return await self._connect(request, path)

    async def _connect(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if _route_of(path) is None:
            raise NO_SUCH_PATH.error(path=path[:PATH_SHOWN_CHARS_MAX], method=request.method)
        if not self._gate.intake.has_past:
            raise PAST_UNREAD.error()
        limits = self._limits
        socket = web.WebSocketResponse(
            timeout=CLOSE_DEADLINE_S,
            autoping=False,
            compress=False,
            max_msg_size=limits.message_bytes_max,
            writer_limit=WRITE_BUFFER_BYTES,
        )
        if not socket.can_prepare(request).ok:
            raise BAD_REQUEST.error(what="it does not ask for a WebSocket")
        if len(self._connections) >= limits.connections_max:
            raise OVERLOADED.error()
        is_combined, names = opening(request.raw_path)
        await socket.prepare(request)
        connection = Connection(socket, request.transport, limits, self._backlog, is_combined=is_combined)
        self._connections[connection] = None
        tasks = [asyncio.create_task(work) for work in (connection.write(), connection.keep())]
        try:
            self._subscribe(connection, names)
            await self._serve(connection, socket)
        except RequestError as error:
            await connection.end(WSCloseCode.POLICY_VIOLATION, str(error).encode())
        except ConnectionError:
            # It went away while it was answered; nobody is left to be told.
            pass
        finally:
            connection.forget()
            del self._connections[connection]
            self._unsubscribe(connection, tuple(connection.names))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def close(self) -> None:
        """End the connections there are; the gate lets in no more when it is closing."""
        self.hub.close()
        ends = [
            connection.end(WSCloseCode.GOING_AWAY, b"the server stops")
            for connection in tuple(self._connections)
        ]
        await asyncio.gather(*ends, return_exceptions=True)

    async def _serve(self, connection: Connection, socket: web.WebSocketResponse) -> None:
        while True:
            message = await socket.receive()
            if message.type in _ENDS:
                return
            if connection.count_message():
                raise RequestError(2, f"more than {self._limits.messages_per_s} messages a second")
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                connection.has_ponged()
            else:
                connection.send(encode(self._answer(connection, message)))

    def _answer(self, connection: Connection, message: WSMessage) -> dict[str, object]:
        request_id: object = None
        try:
            asked = _read(message.data)
            request_id = _id_of(asked)
            method = asked.get("method")
            serve = self._methods.get(method) if isinstance(method, str) else None
            if serve is None:
                shown = str(method)[:ID_CHARS_MAX]
                raise invalid(f"unknown variant {shown}, expected one of {', '.join(_METHODS)}")
            return {"result": serve(self, connection, asked.get("params")), "id": request_id}
        except RequestError as error:
            return {"error": {"code": error.code, "msg": str(error)}, "id": request_id}

    def _on_subscribe(self, connection: Connection, params: object) -> None:
        self._subscribe(connection, _names_of(params))

    def _on_unsubscribe(self, connection: Connection, params: object) -> None:
        self._unsubscribe(connection, _names_of(params))

    def _on_list(self, connection: Connection, params: object) -> list[str]:
        return list(connection.names)

    def _on_set_property(self, connection: Connection, params: object) -> None:
        name, value = params if isinstance(params, list) and len(params) == 2 else (None, None)
        _check_property(name)
        if not isinstance(value, bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        connection.is_combined = value

    def _on_get_property(self, connection: Connection, params: object) -> bool:
        _check_property(params[0] if isinstance(params, list) and len(params) == 1 else None)
        return connection.is_combined

    _methods: Mapping[str, Callable[["StreamFront", Connection, object], object]] = dict(
        zip(
            _METHODS,
            (_on_subscribe, _on_unsubscribe, _on_list, _on_set_property, _on_get_property),
            strict=True,
        )
    )

    def _subscribe(self, connection: Connection, names: tuple[str, ...]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in connection.names]
        if any(len(name) > NAME_CHARS_MAX for name in new):
            raise invalid(f"a stream's name has at most {NAME_CHARS_MAX} characters")
        if len(connection.names) + len(new) > self._limits.streams_max:
            raise invalid(f"too many streams, a connection has at most {self._limits.streams_max}")
        for name in new:
            connection.names[name] = None
            self.hub.subscribe(name, connection)

    def _unsubscribe(self, connection: Connection, names: tuple[str, ...]) -> None:
        for name in names:
            if name in connection.names:
                del connection.names[name]
                self.hub.unsubscribe(name, connection)


def opening(raw_path: str) -> tuple[bool, tuple[str, ...]]:
    """Return what a connection's address says: whether payloads are wrapped, and the streams it names."""
    path, _, query = raw_path.partition("?")
    route = _route_of(path) or ""
    names = [unquote(part) for part in path.removeprefix(route).split("/") if part and not part.isdigit()]
    asked = dict(parse_qsl(query))
    names += [name for name in asked.get("streams", "").split("/") if name]
    if listen_key := asked.get("listenKey"):
        # Which events are wanted is part of the name: it is another stream of the same account.
        events = asked.get("events")
        names.append(f"{listen_key}?events={events}" if events else listen_key)
    return route.endswith("stream"), tuple(names)


def _route_of(path: str) -> str | None:
    return next((each for each in _ROUTES if path == each or path.startswith(f"{each}/")), None)


def _read(data: Any) -> dict[str, object]:
    try:
        asked = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise RequestError(3, f"Invalid JSON: {error}") from None
    if not isinstance(asked, dict):
        raise invalid("it must be an object with method, params and id")
    return asked


def _id_of(asked: dict[str, object]) -> int | str | None:
    request_id = asked.get("id", 0.0)
    is_number = isinstance(request_id, int) and not isinstance(request_id, bool) and request_id >= 0
    is_text = isinstance(request_id, str) and len(request_id) <= ID_CHARS_MAX
    if not (is_number or is_text or request_id is None):
        raise invalid("request ID must be an unsigned integer")
    return request_id  # type: ignore[return-value]


def _names_of(params: object) -> tuple[str, ...]:
    if not isinstance(params, list) or not params:
        raise invalid("params must be a list of stream names")
    names = tuple(name for name in params if isinstance(name, str) and name)
    if len(names) < len(params):
        raise invalid("params must be a list of stream names")
    return names


def _check_property(name: object) -> None:
    if not isinstance(name, str):
        raise invalid("property name must be a string")
    if name != "combined":
        raise RequestError(0, "Unknown property")
