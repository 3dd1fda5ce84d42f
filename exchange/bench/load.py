"""Callers for the benches: connections to an API that send requests and tell when each was answered."""

import asyncio
import hmac
import time
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
import msgspec
from yarl import URL

from exchange.client import Credentials, signed_query
from exchange.intake.wsapi.stepping import Stepper

OK_STATUS = 200
FAILED_STATUS = 0
NS_PER_MS = 1_000_000
_ROUTES = {
    "ping": ("GET", "/fapi/v1/ping"),
    "order.place": ("POST", "/fapi/v1/order"),
    "order.cancel": ("DELETE", "/fapi/v1/order"),
}

# Called with the number of a request and the status of its answer, as soon as it is there.
Answered = Callable[[int, int], None]
Parameters = dict[str, Any]


class Caller(Protocol):
    """Sends requests of one account over connections of its own."""

    def send(self, number: int, method: str, parameters: Parameters) -> None:
        """Send a request, now; its answer is told by its number."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...


class _Head(msgspec.Struct, gc=False):
    id: int
    status: int


_head = msgspec.json.Decoder(_Head)
_encode = msgspec.json.Encoder().encode


class SocketCaller:
    """One WebSocket connection. With credentials it logs on once, and then signs nothing."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, answered: Answered) -> None:
        self._socket = socket
        self._answered = answered
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, session: aiohttp.ClientSession, url: str, answered: Answered, credentials: Credentials | None
    ) -> "SocketCaller":
        """Return a connection that is ready to send."""
        caller = cls(await session.ws_connect(url, compress=0), answered)
        if credentials is not None:
            parameters: Parameters = {"apiKey": credentials.api_key, "timestamp": _now_ms()}
            payload = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
            secret = credentials.secret.encode()
            parameters["signature"] = hmac.digest(secret, payload.encode(), "sha256").hex()
            await caller._socket.send_str(_message(0, "session.logon", parameters))
            head = _head.decode(await caller._socket.receive_str())
            assert head.status == OK_STATUS, head
        caller._reading = asyncio.create_task(caller._read())
        return caller

    def send(self, number: int, method: str, parameters: Parameters) -> None:
        """Send a request."""
        parameters["timestamp"] = _now_ms()
        if method == "ping":
            parameters = {}
        Stepper(self._socket.send_str(_message(number, method, parameters)), _look_at)()

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        async for message in self._socket:
            head = _head.decode(message.data)
            self._answered(head.id, head.status)


class HttpCaller:
    """A pool of kept-alive connections; each request is signed."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, answered: Answered, credentials: Credentials | None
    ) -> None:
        self._session = session
        self._url = url
        self._answered = answered
        self._secret = credentials.secret.encode() if credentials is not None else b""
        self._headers = {"X-MBX-APIKEY": credentials.api_key} if credentials is not None else {}
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, number: int, method: str, parameters: Parameters) -> None:
        """Send a request."""
        task = asyncio.create_task(self._call(number, method, parameters))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Nothing of its own is open: the session is the bench's."""

    async def _call(self, number: int, method: str, parameters: Parameters) -> None:
        verb, path = _ROUTES[method]
        query = "" if method == "ping" else f"?{signed_query(self._secret, parameters, _now_ms())}"
        url = URL(f"{self._url}{path}{query}", encoded=True)
        try:
            async with self._session.request(verb, url, headers=self._headers) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError):
            status = FAILED_STATUS
        self._answered(number, status)


def order_request(number: int, prefix: str) -> tuple[str, Parameters]:
    """Return an account's request of that number: by turns an order that rests, and an older one's cancel.

    Orders stand away from the market, so that nothing trades; what is cancelled was placed long before.
    """
    if number % 2 and number > CANCEL_BEHIND:
        client_id = f"{prefix}{number - 1 - CANCEL_BEHIND}"
        return "order.cancel", {"symbol": "BTCUSDT", "origClientOrderId": client_id}
    return "order.place", {
        "symbol": "BTCUSDT",
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.003",
        "price": f"{40_000 + number % 500}.0",
        "newClientOrderId": f"{prefix}{number}",
    }


# So many requests lie between an order and its cancel: it has been acknowledged by then.
CANCEL_BEHIND = 128


def _message(number: int, method: str, parameters: Parameters) -> str:
    return _encode({"id": number, "method": method, "params": parameters}).decode()


def _now_ms() -> int:
    return time.time_ns() // NS_PER_MS


def _look_at(_: Any, error: Exception | None) -> None:
    """A connection that broke tells its reader; nothing is left to do for who wrote to it."""
