"""One connection of the WebSocket API: requests in as they come, answers out as they are ready.

Nothing waits for another request's answer, so a caller may have many under way; their number is bounded by
not reading on. Answers that are ready in the same turn of the loop leave in one write. Who does not read
what he asked for is disconnected: the memory for it is the exchange's.

A ban of the address that comes meanwhile is the answer to each request (418); who goes on asking all the same
is disconnected.
"""

import asyncio
from functools import partial
from typing import Any

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from exchange.intake.access import Caller
from exchange.intake.auth import AUTH_PARAMETERS, check_payload, check_timestamp
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.errors import BAD_KEY, BANNED, MANDATORY, NO_SUCH_METHOD, ApiError
from exchange.intake.gate import Call, Gate
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.wsapi.leftovers import drop_leftovers
from exchange.intake.wsapi.messages import (
    Answer,
    RateLimit,
    Request,
    SessionState,
    encode,
    error_body,
    payload,
    read_request,
    texts,
)
from exchange.intake.wsapi.methods import METHODS
from exchange.intake.wsapi.stepping import Stepper

IN_FLIGHT_MAX = 1_024
UNREAD_BYTES_MAX = 1024 * 1024
# So many requests in a row are answered 418; behind them the connection ends.
BANNED_ANSWERS_MAX = 50
METHOD_SHOWN_CHARS_MAX = 40
SESSION_WEIGHT = 2
API_KEY = "apiKey"
RETURN_LIMITS = "returnRateLimits"
_TEXT_FINAL = 0x81
_LENGTH_1 = 126  # from here on two bytes of length follow, from 65,536 on eight
_LENGTH_8 = 1 << 16

_UNSET = msgspec.UNSET

logger = structlog.get_logger(__name__)


class Socket:
    """A caller's connection. `session` is who logged on, until he logs out or his key is removed."""

    def __init__(self, gate: Gate, remote: str, socket: web.WebSocketResponse, *, tells_limits: bool) -> None:
        self.session: Caller | None = None
        self.session_since_ms = 0
        self.connected_ms = wall_clock_ms()
        self.remote = remote
        self.gate = gate
        self._socket = socket
        self._tells_limits = tells_limits
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._in_flight = 0
        self._banned_answers = 0
        self._room = asyncio.Event()
        self._room.set()

    async def serve(self, transport: asyncio.Transport) -> None:
        """Answer requests until the other side closes."""
        self._transport = transport
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                await self._socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"text only")
                break
            is_granted = self.receive(message.data)
            if self._banned_answers > BANNED_ANSWERS_MAX:
                self._flush()
                await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"the address is banned")
                break
            if not is_granted:
                await self.gate.pace(self.remote, transport)
            if self._in_flight >= IN_FLIGHT_MAX:
                self._room.clear()
                await self._room.wait()

    async def close(self) -> None:
        """Wait for the answers under way, then say goodbye."""
        while self._in_flight and not self._socket.closed:
            self._room.clear()
            await self._room.wait()
        self._flush()
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the exchange stops")

    def receive(self, text: str) -> bool:
        """Begin to answer a message; return whether it passed the gate."""
        call = self.gate.call(self.remote)
        request = Request()
        tells_limits = self._tells_limits
        try:
            try:
                request = read_request(text)
                parameters = texts(request.params or {})
            except ApiError:
                self.gate.usage.charge(self.gate.check_address(call), 1, call.now_ms)
                raise
            if RETURN_LIMITS in parameters:
                tells_limits = parameters[RETURN_LIMITS].lower() != "false"
            finish = partial(self._finish, call, request, tells_limits)
            endpoint = METHODS.get(request.method)
            if endpoint is None:
                finish(self._session_call(call, request.method, parameters), None)
                return True
            call.name = f"ws {request.method}"
            values = self.gate.admit(
                call, endpoint, lambda: parameters, partial(self._authenticate, call, endpoint)
            )
        except Exception as error:
            self._finish(call, request, tells_limits, None, error)
            return False
        self._in_flight += 1
        Stepper(
            endpoint.handler(self.gate.intake, call.account_id, values),  # type: ignore[arg-type]
            partial(self._end, finish),
        )()
        return True

    def _authenticate(self, call: Call, endpoint: Endpoint, parameters: dict[str, str]) -> Caller | None:
        security = endpoint.security
        caller = None
        if security is not Security.NONE:
            caller = self.caller(call, security, parameters)
        for name in (API_KEY, RETURN_LIMITS, *AUTH_PARAMETERS):
            parameters.pop(name, None)
        drop_leftovers(endpoint, parameters)
        return caller

    def _session_call(self, call: Call, method: str, parameters: dict[str, str]) -> SessionState:
        """Log on, out, or say who is logged on.

        Raises:
            ApiError: no such method, or the request to log on is not signed as it must be.
        """
        use = self.gate.check_address(call)
        self.gate.usage.charge(use, SESSION_WEIGHT, call.now_ms)
        if method == "session.logon":
            if API_KEY not in parameters:
                raise MANDATORY.error(name=API_KEY)
            self.session = self.caller(call, Security.READ, parameters)
            self.session_since_ms = call.now_ms
        elif method == "session.logout":
            self.session = None
        elif method != "session.status":
            raise NO_SUCH_METHOD.error(method=method[:METHOD_SHOWN_CHARS_MAX])
        try:
            session = self._logged_on(Security.READ)
        except ApiError:
            session = None
        return SessionState(
            api_key=session.api_key if session is not None else None,
            authorized_since=self.session_since_ms if session is not None else None,
            connected_since=self.connected_ms,
            return_rate_limits=self._tells_limits,
            server_time=call.now_ms,
        )

    def caller(self, call: Call, security: Security, parameters: dict[str, str]) -> Caller:
        """Return who signed a request, or else who logged on.

        Raises:
            ApiError: nobody did; the key may not; out of time; the signature is wrong.
        """
        api_key = parameters.get(API_KEY)
        if api_key is None:
            caller = self._logged_on(security)
            if caller is None:
                raise MANDATORY.error(name=API_KEY)
            if security.is_signed:
                check_timestamp(parameters, call.now_ms)
            return caller
        caller = self.gate.access.caller(self.gate.intake.state, api_key, self.remote, security)
        if security.is_signed:
            check_timestamp(parameters, call.now_ms)
            _check_signature(caller, parameters)
        return caller

    def _logged_on(self, security: Security) -> Caller | None:
        """Return who logged on, None if nobody did or he logged out.

        Raises:
            ApiError: -2015, his key is not what it was, or may not make calls of that kind.
        """
        session = self.session
        if session is None:
            return None
        caller = self.gate.access.caller(self.gate.intake.state, session.api_key, self.remote, security)
        if caller.added is not session.added:
            # Removed, and added again under other terms or for somebody else: nobody has logged on with that.
            raise BAD_KEY.error()
        return caller

    def _end(self, finish: Any, result: Any, error: Exception | None) -> None:
        self._in_flight -= 1
        self._room.set()
        finish(result, error)

    def _finish(
        self, call: Call, request: Request, tells_limits: bool, result: Any, error: Exception | None
    ) -> None:
        gate, method = self.gate, request.method
        limits = self._limits(call, method) if tells_limits and call.use is not None else _UNSET
        if error is None:
            self._banned_answers = 0
            gate.answered(call, method)
            self._send(Answer(request.id, 200, result, _UNSET, limits))
            return
        if not isinstance(error, ApiError):
            failure = gate.failed(call, method, error)
        else:
            failure = error
            gate.refused(call, method, failure)
        self._banned_answers = self._banned_answers + 1 if failure.status == BANNED.status else 0
        body = error_body(failure, failure.code, failure.text, call.now_ms)
        self._send(Answer(request.id, failure.status, _UNSET, body, limits))

    def _limits(self, call: Call, method: str) -> list[RateLimit]:
        limits = self.gate.usage.limits
        assert call.use is not None
        rows = [RateLimit("REQUEST_WEIGHT", "MINUTE", 1, limits.weight_1m, call.use.weight)]
        endpoint = METHODS.get(method)
        if endpoint is not None and endpoint.is_order and call.account_id:
            in_10s, in_1m = self.gate.usage.orders(call.account_id, call.now_ms)
            rows.append(RateLimit("ORDERS", "SECOND", 10, limits.orders_10s, in_10s))
            rows.append(RateLimit("ORDERS", "MINUTE", 1, limits.orders_1m, in_1m))
        return rows

    def _send(self, answer: Answer) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        body = encode(answer)
        self._out.append(_header(len(body)))
        self._out.append(body)

    def _flush(self) -> None:
        transport = self._transport
        if not self._out or transport is None:
            return
        data = b"".join(self._out)
        self._out.clear()
        if transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            logger.warning("slow_reader_disconnected", remote=self.remote)
            transport.abort()


def _header(length: int) -> bytes:
    """Return what stands before a text message of so many bytes: RFC 6455, section 5.2, not masked."""
    if length < _LENGTH_1:
        return bytes((_TEXT_FINAL, length))
    if length < _LENGTH_8:
        return bytes((_TEXT_FINAL, 126)) + length.to_bytes(2)
    return bytes((_TEXT_FINAL, 127)) + length.to_bytes(8)


def _check_signature(caller: Caller, parameters: dict[str, str]) -> None:
    signature, signed = parameters.get("signature", ""), payload(parameters)
    try:
        check_payload(caller.verify, signature, signed)
    except ApiError:
        signed_in_python = payload(parameters, python_booleans=True)
        if signed_in_python == signed:
            raise
        check_payload(caller.verify, signature, signed_in_python)
