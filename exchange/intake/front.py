"""The public listener: one HTTP request to one row of the endpoint table and back to one JSON answer.

It runs on aiohttp's low-level server: every order passes here, and neither sessions nor middlewares nor
pattern routes are needed. The order of checks is the one clients see at Binance: key, timestamp, signature,
then parameters, then what the call itself finds.
"""

import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
from aiohttp import web

from exchange.intake.auth import API_KEY, AUTH_PARAMETERS, check_signature, check_timestamp
from exchange.intake.endpoint import Endpoint
from exchange.intake.endpoints import ROUTES
from exchange.intake.errors import (
    BAD_KEY,
    BAD_KEY_FORMAT,
    BAD_REQUEST,
    BODY_TOO_LARGE,
    NO_SUCH_PATH,
    SHUTTING_DOWN,
    UNKNOWN,
    ApiError,
)
from exchange.intake.keys import UnsealError
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.parameters import parse_parameters, split_form
from exchange.intake.service import Intake

BODY_BYTES_MAX = 64 * 1024
PATH_SHOWN_CHARS_MAX = 100
API_KEY_HEADER = "X-MBX-APIKEY"
MS_PER_MINUTE = 60_000
MS_PER_10_S = 10_000

logger = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode

# Takes a request over as a WebSocket and serves it to its end.
Upgrade = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Front:
    """Answers the requests of the public listener. Set `closing` to refuse whatever comes from then on.

    `upgrades` are the WebSockets by the path they begin at, or the beginning of it up to a slash.
    """

    def __init__(self, intake: Intake, upgrades: Mapping[str, Upgrade]) -> None:
        self._upgrades = upgrades
        self.closing = False
        self._intake = intake
        # Bound once: the proxy would be set up anew for every line, even for those that are not written.
        self._log = logger.bind()
        self._usage = Usage()
        self._request_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; nothing but an answer comes out of here."""
        path, _, query = request.raw_path.partition("?")
        endpoint = ROUTES.get((request.method, path))
        if endpoint is None and request.method == "GET":
            for prefix, upgrade in self._upgrades.items():
                if path == prefix or path.startswith(f"{prefix}/"):
                    return await upgrade(request)
        call = _Call(f"{self._request_prefix}-{next(self._request_numbers)}", request.remote or "")
        try:
            if endpoint is None:
                raise NO_SUCH_PATH.error(path=path[:PATH_SHOWN_CHARS_MAX], method=request.method)
            status, body = 200, _encode(await self._call(call, endpoint, request, query))
        except ApiError as error:
            status, body = error.status, _error_body(error)
            log = self._log.warning if status >= 500 else self._log.debug
            log(
                "request_refused",
                request=call.request_id,
                path=path,
                account=call.account_id,
                seq=self._intake.state.seq,
                code=error.code,
                message=error.text,
            )
        except Exception:
            status, body = UNKNOWN.status, _error_body(UNKNOWN.error())
            self._log.exception("request_failed", request=call.request_id, path=path, account=call.account_id)
        else:
            self._log.debug(
                "request_answered",
                request=call.request_id,
                path=path,
                account=call.account_id,
                seq=self._intake.state.seq,
            )
        is_order = endpoint is not None and endpoint.is_order
        headers = self._usage.headers(call, is_order=is_order, now_ms=wall_clock_ms())
        headers["X-Request-Id"] = call.request_id
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    async def _call(self, call: "_Call", endpoint: Endpoint, request: web.BaseRequest, query: str) -> object:
        if self.closing:
            raise SHUTTING_DOWN.error()
        if not query.isascii():
            raise BAD_REQUEST.error(what="the query string has characters that must be percent-encoded")
        body = await _read_body(request) if request.body_exists else b""
        signed = endpoint.security.is_signed
        sealed = self._key_owner(call, request.headers.get(API_KEY_HEADER, "")) if signed else None
        sent = split_form(query)
        if body:
            # The query string wins.
            sent = split_form(body.decode("utf-8", "replace")) | sent
        if sealed is not None:
            api_key, sealed_secret = sealed
            check_timestamp(sent, wall_clock_ms())
            try:
                secret = self._intake.keys.unseal(api_key, sealed_secret)
            except UnsealError as error:
                self._log.warning("secret_not_unsealed", account=call.account_id, error=str(error))
                raise BAD_KEY.error() from None
            check_signature(secret, query.encode(), body, sent.get("signature", ""))
        for name in AUTH_PARAMETERS:
            sent.pop(name, None)
        values = parse_parameters(endpoint.parameters, sent)
        weight = endpoint.weight
        call.weight = weight if isinstance(weight, int) else weight(values)
        return await endpoint.handler(self._intake, call.account_id, values)

    def _key_owner(self, call: "_Call", api_key: str) -> tuple[str, bytes]:
        """Note whose key it is; return it with its sealed secret.

        Raises:
            ApiError: -2014 for what cannot be a key, -2015 for one that nobody has.
        """
        if not API_KEY.fullmatch(api_key):
            raise BAD_KEY_FORMAT.error()
        state = self._intake.state
        account_id = state.key_owners.get(api_key)
        if account_id is None:
            raise BAD_KEY.error()
        call.account_id = account_id
        return api_key, state.accounts[account_id].api_keys[api_key]


class Usage:
    """Counts, per address and account, what clients expect to read in the headers of each answer."""

    def __init__(self) -> None:
        self._minute = 0
        self._weights: Counter[str] = Counter()
        self._orders: Counter[int] = Counter()
        self._ten_seconds = 0
        self._orders_10s: Counter[int] = Counter()

    def headers(self, call: "_Call", *, is_order: bool, now_ms: int) -> dict[str, str]:
        """Count a request and return the headers that say what has been used."""
        self._turn(now_ms)
        account_id = call.account_id
        self._weights[call.remote] += call.weight
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._weights[call.remote])}
        if is_order and account_id:
            self._orders[account_id] += 1
            self._orders_10s[account_id] += 1
            headers["X-MBX-ORDER-COUNT-10S"] = str(self._orders_10s[account_id])
            headers["X-MBX-ORDER-COUNT-1M"] = str(self._orders[account_id])
        return headers

    def _turn(self, now_ms: int) -> None:
        minute, ten_seconds = now_ms // MS_PER_MINUTE, now_ms // MS_PER_10_S
        if minute != self._minute:
            self._minute = minute
            self._weights.clear()
            self._orders.clear()
        if ten_seconds != self._ten_seconds:
            self._ten_seconds = ten_seconds
            self._orders_10s.clear()


class FrontServer(web.Server):
    """The server for `Front.handle`, which answers even what is not HTTP in the form of all answers."""

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _FrontProtocol(self, loop=self._loop, **self._kwargs)


class _FrontProtocol(web.RequestHandler):
    __slots__ = ()

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
        response = web.Response(body=_error_body(error), status=status, content_type="application/json")
        response.force_close()
        return response


class _Call:
    """Who is asking; `account_id` is 0 until a key says whose it is, `weight` 1 until it is known."""

    __slots__ = ("account_id", "remote", "request_id", "weight")

    def __init__(self, request_id: str, remote: str) -> None:
        self.request_id = request_id
        self.remote = remote
        self.account_id = 0
        self.weight = 1


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


def _error_body(error: ApiError) -> bytes:
    body: Mapping[str, object] = {"code": error.code, "msg": error.text}
    return _encode(body)
