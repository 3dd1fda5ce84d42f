"""An exchange for clients that know nothing of it but an address, a key and a secret."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from tests.running_venue import Account, Venue, running_venue

T = TypeVar("T")

REASON = "the clients are not installed (pip install -e '.[compatibility]')"
SDK = "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures"
DEADLINE_S = 15.0
BTC = "BTC/USDT:USDT"


@dataclass
class Local:
    """A running exchange, the account that the client under test acts for, and one that trades against it."""

    venue: Venue
    account: Account
    other: Account

    @property
    def host(self) -> str:
        """Host and port, without a scheme."""
        return self.venue.url.removeprefix("http://")

    async def price(self, price: str, symbol: str = "BTCUSDT") -> None:
        """Let the index, and with it the mark, be another."""
        status, body = await self.venue.admin("index", {"symbol": symbol, "price": price})
        assert 200 == status, body

    async def offer(self, side: str, price: str, quantity: str = "1") -> None:
        """Let the other account's order rest in BTCUSDT."""
        status, body = await self.other.order(side=side, price=price, quantity=quantity)
        assert 200 == status, body


@asynccontextmanager
async def local(directory: Path) -> AsyncIterator[Local]:
    """Run an exchange with BTCUSDT at 50,000, and two accounts."""
    async with running_venue(directory) as venue:
        yield Local(venue, await venue.account("10000"), await venue.account("1000000"))


async def call(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call a client that waits for its answer, beside the exchange that gives it."""
    return await asyncio.to_thread(function, *arguments, **named)


async def soon(awaitable: Awaitable[T]) -> T:
    """Return what comes, which must be soon."""
    async with asyncio.timeout(DEADLINE_S):
        return await awaitable


def localised(exchange: Any, base: str) -> Any:
    """Return an exchange of ccxt or ccxt.pro all of whose addresses are at `base`.

    It knows the error codes of futures, which ccxt only reads where the host is Binance's.
    """
    sockets = base.replace("http", "ws", 1)
    api: dict[str, Any] = {
        name: base + urlsplit(url).path for name, url in exchange.urls["api"].items() if name != "ws"
    }
    if "ws" in exchange.urls["api"]:
        nowhere = f"{sockets}/unsupported"
        api["ws"] = dict.fromkeys(exchange.urls["api"]["ws"], nowhere)
        api["ws"]["linear"] = f"{sockets}/ws"
        api["ws"]["ws-api"] = {
            "linear": f"{sockets}/ws-fapi/v1",
            "spot": nowhere,
            "inverse": nowhere,
        }
    exchange.urls["api"] = api
    exchange.exceptions["exact"].update(exchange.exceptions["linear"]["exact"])
    return exchange


def professional(there: Local) -> Any:
    """Return ccxt.pro for the account under test."""
    pro = pytest.importorskip("ccxt.pro", reason=REASON)
    return localised(pro.binanceusdm(ccxt_settings(there)), there.venue.url)


def ccxt_settings(there: Local) -> dict[str, Any]:
    """Return the settings of ccxt, and of ccxt.pro, for the account under test."""
    return {
        "apiKey": there.account.api_key,
        "secret": there.account.secret,
        "enableRateLimit": False,
        "options": {
            "fetchCurrencies": False,
            "fetchMarkets": {"types": ["linear"]},
            "fetchOpenOrders": {"warnWithoutSymbol": False},
        },
    }


def asynchronous(there: Local) -> Any:
    """Return python-binance's AsyncClient for the account under test."""
    pytest.importorskip("binance.ws.websocket_api", reason=REASON)
    from binance.async_client import AsyncClient  # type: ignore[import-not-found]
    from binance.ws.websocket_api import WebsocketAPI  # type: ignore[import-not-found]

    client = AsyncClient(there.account.api_key, there.account.secret)
    client.FUTURES_URL = f"{there.venue.url}/fapi"
    client.FUTURES_DATA_URL = f"{there.venue.url}/futures/data"
    client.ws_future = WebsocketAPI(url=f"ws://{there.host}/ws-fapi/v1")
    return client


def socket_manager(client: Any, there: Local) -> Any:
    """Return python-binance's manager of streams."""
    from binance.ws.streams import BinanceSocketManager  # type: ignore[import-not-found]

    sockets = BinanceSocketManager(client)
    sockets.FSTREAM_URL = f"ws://{there.host}/"
    return sockets


async def connector_socket(
    there: Local, *, is_combined: bool = False
) -> tuple[Any, asyncio.Queue[dict[str, Any]]]:
    """Return a socket of the older connector, which reads in a thread, and the messages as they come."""
    sockets = pytest.importorskip("binance.websocket.um_futures.websocket_client", reason=REASON)
    got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def on_message(_: object, text: str) -> None:
        loop.call_soon_threadsafe(got.put_nowait, json.loads(text))

    named = {"stream_url": f"ws://{there.host}", "on_message": on_message, "is_combined": is_combined}
    return await call(sockets.UMFuturesWebsocketClient, **named), got
