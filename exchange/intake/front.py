"""The public listener: one HTTP request to one row of the endpoint table and back to one JSON answer.

It runs on aiohttp's low-level server: every order passes here, and neither sessions nor middlewares nor
pattern routes are needed. What begins with the path of a socket is handed over to whoever answers it there.
No answer allows a page of another origin to read it.
"""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
from aiohttp import web

from exchange.intake.access import Caller
from exchange.intake.auth import AUTH_PARAMETERS, check_signature, check_timestamp
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.endpoints import ROUTES
from exchange.intake.errors import BAD_REQUEST, BODY_TOO_LARGE, NO_SUCH_PATH, ApiError, error_body
from exchange.intake.gate import Call, Gate
from exchange.intake.limits import LimitError
from exchange.intake.parameters import split_form

BODY_BYTES_MAX = 64 * 1024
PATH_SHOWN_CHARS_MAX = 100
API_KEY_HEADER = "X-MBX-APIKEY"

# What each call is counted under.
_NAMES = {row: " ".join(row) for row in ROUTES}
# Answers a request whose path begins with the socket's, given the whole path without the query string and the
# call that it is. Until it has answered, an `ApiError` may come out of it.
Socket = Callable[[web.BaseRequest, str, Call], Awaitable[web.StreamResponse]]

logger = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class Front:
    """Answers the requests of the public listener. `sockets` are found by the first part of the path."""

    def __init__(self, gate: Gate, sockets: Mapping[str, Socket] | None = None) -> None:
        self._gate = gate
        self._sockets = dict(sockets or {})

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; nothing but an answer comes out of here."""
        path, _, query = request.raw_path.partition("?")
        endpoint = ROUTES.get((request.method, path))
        gate = self._gate
        call = gate.call(request.remote or "")
        headers = {"X-Request-Id": call.request_id}
        try:
            if endpoint is None:
                first = path[1:].partition("/")[0]
                socket = self._sockets.get(first)
                if socket is not None:
                    # What follows may be a listen key, which is not for the log.
                    whole, path = path, f"/{first}"
                    return await socket(request, whole, call)
                gate.usage.charge(gate.check_address(call), 1, call.now_ms)
                raise NO_SUCH_PATH.error(path=path[:PATH_SHOWN_CHARS_MAX], method=request.method)
            call.name = _NAMES[request.method, path]
            status, body = 200, _encode(await self._call(call, endpoint, request, query))
            gate.answered(call, path)
        except ApiError as error:
            status, body = error.status, error_body(error)
            gate.refused(call, path, error)
            if not call.is_admitted:
                # Until it is answered, the connection's next request is not looked at.
                await gate.pace(call.remote, request.transport)
            if isinstance(error, LimitError):
                headers["Retry-After"] = str(error.retry_s)
        except Exception as error:
            failure = gate.failed(call, path, error)
            status, body = failure.status, error_body(failure)
        self._tell_usage(headers, call, endpoint)
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    async def _call(self, call: Call, endpoint: Endpoint, request: web.BaseRequest, query: str) -> object:
        body = await _read_body(request) if request.body_exists else b""

        def sent() -> dict[str, str]:
            if not query.isascii():
                raise BAD_REQUEST.error(what="the query string has characters that must be percent-encoded")
            found = split_form(query)
            # The query string wins.
            return split_form(body.decode("utf-8", "replace")) | found if body else found

        def authenticate(parameters: dict[str, str]) -> Caller | None:
            caller = None
            security = endpoint.security
            if security is not Security.NONE:
                api_key = request.headers.get(API_KEY_HEADER, "")
                caller = self._gate.access.caller(self._gate.intake.state, api_key, call.remote, security)
                if security.is_signed:
                    check_timestamp(parameters, call.now_ms)
                    check_signature(caller.verify, query.encode(), body, parameters.get("signature", ""))
            for name in AUTH_PARAMETERS:
                parameters.pop(name, None)
            return caller

        values = self._gate.admit(call, endpoint, sent, authenticate)
        return await endpoint.handler(self._gate.intake, call.account_id, values)

    def _tell_usage(self, headers: dict[str, str], call: Call, endpoint: Endpoint | None) -> None:
        headers["X-MBX-USED-WEIGHT-1M"] = str(call.use.weight if call.use is not None else 0)
        if endpoint is not None and endpoint.is_order and call.account_id:
            in_10s, in_1m = self._gate.usage.orders(call.account_id, call.now_ms)
            headers["X-MBX-ORDER-COUNT-10S"] = str(in_10s)
            headers["X-MBX-ORDER-COUNT-1M"] = str(in_1m)


async def _read_body(request: web.BaseRequest) -> bytes:
    """Read a body, but not more than is ever needed.

    Raises:
        ApiError: -1101, it is longer; -1130, it breaks off.
    """
    declared = request.content_length
    if declared is not None and declared > BODY_BYTES_MAX:
        raise BODY_TOO_LARGE.error(limit=BODY_BYTES_MAX)
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise BODY_TOO_LARGE.error(limit=BODY_BYTES_MAX)
    except (ConnectionError, web.RequestPayloadError):
        raise BAD_REQUEST.error(what="its body breaks off") from None
    return bytes(body)
