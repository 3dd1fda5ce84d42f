"""A small client of the HTTP API: signed requests over connections that are kept alive.

It is what the house market maker and the demonstration trade through, so that they meet what any bot meets:
signatures, refusals, and answers that do not come. An `ApiRefusal` is an answer; `ApiUnavailable` says that
there was none, and that what was asked may or may not have happened.
"""

import asyncio
import hmac
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
from yarl import URL

from exchange import config
from exchange.runtime import wait_set

# The intake gives up on an answer before this; a client that gave up first would never learn which it was.
REQUEST_TIMEOUT_S = 30.0
RECV_WINDOW_MS = 60_000
# A 503 says that the venue could not answer; its codes for "may have happened" all come with it.
UNAVAILABLE_STATUS = 503
RETRY_S = 0.25

logger = structlog.get_logger(__name__)

Parameters = Mapping[str, str | int]


class ApiRefusal(Exception):
    """The exchange answered no: Binance's code and text, with the HTTP status."""

    def __init__(self, code: int, text: str, status: int) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status


class ApiUnavailable(Exception):
    """There was no answer, or one that says the outcome is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account's number and the key that acts for it. The secret does not print itself."""

    account_id: int
    api_key: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an order in a market must fit: steps and bounds, decimals in quote (`tick`) and base."""

    symbol: str
    tick: Decimal
    step: Decimal
    max_quantity: Decimal
    min_notional: Decimal

    def price_text(self, price: Decimal, side: str) -> str:
        """Return a price on the tick grid: rounded down for BUY, up for SELL, at least one tick."""
        rounding = ROUND_FLOOR if side == "BUY" else ROUND_CEILING
        ticks = (price / self.tick).to_integral_value(rounding)
        return format(max(ticks, Decimal(1)) * self.tick, "f")

    def quantity_text(self, notional: Decimal, price: Decimal) -> str | None:
        """Return the size whose value at `price` is at most `notional`, None when that is too small."""
        steps = (notional / price / self.step).to_integral_value(ROUND_FLOOR)
        quantity = min(steps * self.step, self.max_quantity)
        if quantity <= 0 or quantity * price < self.min_notional:
            return None
        return format(quantity, "f")


class Connection:
    """One listener of the exchange over a pool of kept-alive connections. A context manager.

    `local_address` is the address of this machine to call from, None: whichever the system takes.
    """

    def __init__(self, url: str, *, connections_max: int = 100, local_address: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._local = (local_address, 0) if local_address is not None else None
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections_max, keepalive_timeout=60.0, local_addr=self._local
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Any:
        """Send a request and return its decoded JSON; `query` is encoded already, `body` goes as JSON.

        Raises:
            ApiRefusal: the exchange said no.
            ApiUnavailable: no answer, or one that leaves the outcome open.
        """
        assert self._session is not None, "used outside its context"
        url = URL(f"{self._url}{path}?{query}" if query else f"{self._url}{path}", encoded=True)
        sent_headers = dict(headers or {})
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            sent_headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(method, url, headers=sent_headers, data=data) as response:
                return _answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"{method} {path}: {error or type(error).__name__}") from error


def house_connection(url: str) -> Connection:
    """Return a connection for the house's own traders, which use up nobody's limits but their own.

    Where the exchange is on another machine, or this one has no such address, it is like any other.
    """
    if URL(url).host != "127.0.0.1":
        return Connection(url)
    with socket.socket() as probe:
        try:
            probe.bind((config.HOUSE_ADDRESS, 0))
        except OSError:
            return Connection(url)
    return Connection(url, local_address=config.HOUSE_ADDRESS)


class AccountApi:
    """The calls of one account on the public listener. All raise as `Connection.request`."""

    def __init__(self, connection: Connection, credentials: Credentials) -> None:
        self.credentials = credentials
        self._connection = connection
        self._headers = {"X-MBX-APIKEY": credentials.api_key}
        self._secret = credentials.secret.encode()

    async def call(self, method: str, path: str, parameters: Parameters) -> Any:
        """Send a signed request with its parameters in the query string."""
        query = signed_query(self._secret, parameters, time.time_ns() // 1_000_000)
        return await self._connection.request(method, path, query, headers=self._headers)

    async def set_leverage(self, symbol: str, leverage: int) -> None:
        """Set the leverage of a market."""
        await self.call("POST", "/fapi/v1/leverage", {"symbol": symbol, "leverage": leverage})

    async def set_margin_type(self, symbol: str, margin_type: str) -> None:
        """Set the margin mode of a market, ISOLATED or CROSSED; the mode it has already is no error."""
        try:
            await self.call("POST", "/fapi/v1/marginType", {"symbol": symbol, "marginType": margin_type})
        except ApiRefusal as refusal:
            if refusal.code != -4046:
                raise

    async def limit_order(
        self, symbol: str, side: str, quantity: str, price: str, *, reduce_only: bool = False
    ) -> dict[str, Any]:
        """Place a limit order that stays until it is filled or cancelled; return the order."""
        return await self._order(
            {
                "symbol": symbol,
                "side": side,
                "type": "LIMIT",
                "timeInForce": "GTC",
                "quantity": quantity,
                "price": price,
                "reduceOnly": "true" if reduce_only else "false",
            }
        )

    async def market_order(
        self, symbol: str, side: str, quantity: str, *, reduce_only: bool = False
    ) -> dict[str, Any]:
        """Place a market order and return it with what it executed."""
        return await self._order(
            {
                "symbol": symbol,
                "side": side,
                "type": "MARKET",
                "quantity": quantity,
                "reduceOnly": "true" if reduce_only else "false",
                "newOrderRespType": "RESULT",
            }
        )

    async def cancel(self, symbol: str, order_id: int) -> None:
        """Cancel one order."""
        await self.call("DELETE", "/fapi/v1/order", {"symbol": symbol, "orderId": order_id})

    async def cancel_all(self, symbol: str) -> None:
        """Cancel every open order in a market; none open is no error."""
        await self.call("DELETE", "/fapi/v1/allOpenOrders", {"symbol": symbol})

    async def open_orders(self, symbol: str) -> list[dict[str, Any]]:
        """Return the account's open orders in a market."""
        found: list[dict[str, Any]] = await self.call("GET", "/fapi/v1/openOrders", {"symbol": symbol})
        return found

    async def position_size(self, symbol: str) -> str:
        """Return the signed size of the position in a market, a decimal in base."""
        rows = await self.call("GET", "/fapi/v2/positionRisk", {"symbol": symbol})
        return next((str(row["positionAmt"]) for row in rows if row["symbol"] == symbol), "0")

    async def _order(self, parameters: Parameters) -> dict[str, Any]:
        placed: dict[str, Any] = await self.call("POST", "/fapi/v1/order", parameters)
        return placed


async def open_account(admin: Connection, *, deposit: str, label: str) -> Credentials:
    """Open an account with a deposit through the administrators' listener."""
    made = await admin.request("POST", "/admin/v1/account", body={"deposit": deposit, "label": label})
    return Credentials(account_id=made["account_id"], api_key=made["api_key"], secret=made["secret"])


def save_credentials(file: Path, credentials: Credentials) -> None:
    """Write credentials to a file that its owner alone may read, in place of what was there.

    Raises:
        OSError: it cannot be written.
    """
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(msgspec.json.encode(credentials))
    draft.replace(file)


def load_credentials(file: Path) -> Credentials | None:
    """Return the credentials in a file, None when it is absent or holds something else.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Credentials)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


async def until_answered(connection: Connection, path: str, *, stop: asyncio.Event, pause_s: float) -> Any:
    """Ask again every `pause_s` until there is an answer, and return it; None when `stop` was set before.

    Raises:
        ApiRefusal: the answer is no.
    """
    while not stop.is_set():
        try:
            return await connection.request("GET", path)
        except ApiUnavailable:
            await wait_set(stop, pause_s)
    return None


async def until_listed(connection: Connection, stop: asyncio.Event) -> dict[str, Contract]:
    """Wait for the exchange and for markets to be listed; return them, none when `stop` was set first."""
    while await until_answered(connection, "/fapi/v1/ping", stop=stop, pause_s=RETRY_S) is not None:
        try:
            listed = await contracts(connection)
        except ApiUnavailable:
            listed = {}
        if listed:
            return listed
        await wait_set(stop, RETRY_S)
    return {}


async def house_account(
    connection: Connection, admin: Connection, file: Path | None, deposit: Decimal, label: str
) -> AccountApi:
    """Return the account of an earlier run, whose key is in `file`, or a new one, whose key is put there.

    A key that the exchange does not know is replaced.

    Raises:
        ApiRefusal: the administrators' listener refuses to open an account.
        ApiUnavailable: it does not answer.
        OSError: the file cannot be read or written.
    """
    credentials = load_credentials(file) if file is not None else None
    if credentials is not None:
        account = AccountApi(connection, credentials)
        try:
            await account.call("GET", "/fapi/v1/openOrders", {})
        except ApiRefusal as refusal:
            logger.warning("house_key_refused", account_id=credentials.account_id, error=str(refusal))
        else:
            return account
    credentials = await open_account(admin, deposit=str(deposit), label=label)
    if file is not None:
        save_credentials(file, credentials)
    return AccountApi(connection, credentials)


async def contracts(connection: Connection) -> dict[str, Contract]:
    """Return the listed contracts by symbol."""
    info = await connection.request("GET", "/fapi/v1/exchangeInfo")
    return {row["symbol"]: _contract(row) for row in info["symbols"]}


async def index_prices(connection: Connection) -> dict[str, Decimal]:
    """Return the index price of every market that has one, in quote."""
    rows = await connection.request("GET", "/fapi/v1/premiumIndex")
    prices = {row["symbol"]: Decimal(row["indexPrice"]) for row in rows}
    return {symbol: price for symbol, price in prices.items() if price > 0}


def signed_query(secret: bytes, parameters: Parameters, now_ms: int) -> str:
    """Return the encoded query string of a signed request: parameters, timestamp, window, signature."""
    query = urlencode({**parameters, "recvWindow": RECV_WINDOW_MS, "timestamp": now_ms})
    return f"{query}&signature={hmac.digest(secret, query.encode(), 'sha256').hex()}"


def _contract(row: Mapping[str, Any]) -> Contract:
    filters = {each["filterType"]: each for each in row["filters"]}
    return Contract(
        symbol=row["symbol"],
        tick=Decimal(filters["PRICE_FILTER"]["tickSize"]),
        step=Decimal(filters["LOT_SIZE"]["stepSize"]),
        max_quantity=Decimal(filters["MARKET_LOT_SIZE"]["maxQty"]),
        min_notional=Decimal(filters["MIN_NOTIONAL"]["notional"]),
    )


def _answer(status: int, body: bytes) -> Any:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"status {status} with a body that is not JSON") from error
    if status < 400:
        return answer
    code, text = (answer.get("code", 0), answer.get("msg", "")) if isinstance(answer, dict) else (0, "")
    if status >= UNAVAILABLE_STATUS:
        raise ApiUnavailable(f"{code}: {text}")
    raise ApiRefusal(code, text, status)
