"""A whole exchange stopped and started again under its clients: what they come back to, and are told.

Each client reconnects in the way that is its own. What it then shows is what the calls answer; what was
acknowledged is there; and the past reads as before.
"""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from exchange import config
from exchange.intake.process import run_intake
from tests.compatibility.local import (
    BTC,
    REASON,
    Local,
    asynchronous,
    call,
    local,
    localised,
    socket_manager,
    soon,
)
from tests.integration.processes import free_ports
from tests.integration.test_supervisor import Up, admin
from tests.integration.test_wsapi import Wire, signed
from tests.running_venue import Account, Venue

RESTART_DEADLINE_S = 30.0
FAR_BID = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
# What no client changes while the exchange is being stopped: all they then do is to bid in ETHUSDT.
# What no client changes while the exchange is being stopped: all they then do is to bid in ETHUSDT.
PAST: tuple[tuple[str, dict[str, object]], ...] = (
    ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m"}),
    ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1d"}),
    ("/fapi/v1/trades", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/aggTrades", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/fundingRate", {"symbol": "BTCUSDT"}),
)
OWN_PAST: tuple[tuple[str, dict[str, object]], ...] = (
    ("/fapi/v1/allOrders", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/allAlgoOrders", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/openOrders", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/userTrades", {"symbol": "BTCUSDT"}),
    ("/fapi/v1/income", {}),
    ("/fapi/v1/positionMargin/history", {"symbol": "BTCUSDT"}),
    ("/fapi/v3/positionRisk", {"symbol": "BTCUSDT"}),
)


async def until(is_there: Callable[[], bool], what: str) -> None:
    """Wait for what a client shows; clients have no events for it."""
    deadline_s = time.monotonic() + RESTART_DEADLINE_S
    while not is_there():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.02)


class Pro:
    """ccxt.pro, watching as its manual says: again and again, and on after what is a network's fault."""

    def __init__(self, venue: Venue, account: Account) -> None:
        self.errors = pytest.importorskip("ccxt.base.errors", reason=REASON)
        pro = pytest.importorskip("ccxt.pro", reason=REASON)
        keys = {"apiKey": account.api_key, "secret": account.secret, "enableRateLimit": False}
        options = {"fetchCurrencies": False, "fetchMarkets": {"types": ["linear"]}}
        self.exchange = localised(pro.binanceusdm(keys | {"options": options}), venue.url)
        self.told: dict[str, Any] = {}
        self.lost = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Watch the book, orders, positions and the balance."""
        await self.exchange.load_markets()
        watched: tuple[tuple[str, Any], ...] = (("order_book", BTC), ("orders", BTC), ("positions", [BTC]))
        self._tasks = [asyncio.create_task(self._watch(what, argument)) for what, argument in watched]
        self._tasks.append(asyncio.create_task(self._watch("balance")))
        await until(lambda: "order_book" in self.told and self.listens(), "ccxt.pro's connections")

    def listens(self) -> bool:
        """Tell whether it has a connection for the account's stream."""
        return any("listenKey" in url and client.isConnected for url, client in self.exchange.clients.items())

    def states(self) -> dict[str, str]:
        """Return the state it has of each order."""
        return {order["id"]: order["status"] for order in self.exchange.orders}

    async def _watch(self, what: str, *arguments: Any) -> None:
        while True:
            try:
                self.told[what] = await getattr(self.exchange, f"watch_{what}")(*arguments)
            except self.errors.NetworkError:
                self.lost += 1
                self.told.pop(what, None)
                await asyncio.sleep(0.05)

    async def is_as_answered(self) -> None:
        """Assert that book, orders, positions and balance are what the calls answer."""
        ex = self.exchange
        book = await ex.fetch_order_book(BTC)
        await until(lambda: ex.orderbooks[BTC]["nonce"] >= book["nonce"], "the book's last change")
        assert [book[side] for side in ("bids", "asks")] == [
            [list(level) for level in ex.orderbooks[BTC][side]] for side in ("bids", "asks")
        ]
        for order in ex.orders:
            asked = await ex.fetch_order(order["id"], order["symbol"])
            assert (asked["status"], asked["filled"]) == (order["status"], order["filled"])
        (asked,) = await ex.fetch_positions([BTC])
        (shown,) = (row for row in self.told["positions"] if row["symbol"] == BTC)
        for name in ("side", "contracts", "entryPrice", "marginMode"):
            assert asked[name] == shown[name], name
        assert self.told["balance"]["USDT"]["total"] == pytest.approx(
            float((await ex.fetch_balance())["info"]["totalWalletBalance"])
        )

    async def close(self) -> None:
        """End its tasks and connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.exchange.close()


class Connector:
    """The connector's socket in a thread. It does not reconnect: who has it makes another when it ends."""

    def __init__(self, venue: Venue, account: Account) -> None:
        futures = pytest.importorskip("binance.um_futures", reason=REASON)
        self._sockets = pytest.importorskip("binance.websocket.um_futures.websocket_client", reason=REASON)
        self._client = futures.UMFutures(key=account.api_key, base_url=venue.url)
        self._url = venue.url.replace("http", "ws")
        self.listen_keys: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self.ends: list[str] = []

    async def start(self) -> None:
        """Ask for the listen key and follow it."""
        self.listen_keys.append((await call(self._client.new_listen_key))["listenKey"])
        self._socket = await call(
            self._sockets.UMFuturesWebsocketClient,
            stream_url=self._url,
            on_message=lambda _, text: self.messages.append(json.loads(text)),
            on_close=lambda _: self.ends.append("close"),
            on_error=lambda _, error: self.ends.append(type(error).__name__),
        )
        answers = sum("result" in message for message in self.messages)
        await call(self._socket.user_data, self.listen_keys[-1], id=1)
        await until(
            lambda: sum("result" in message for message in self.messages) > answers, "its subscription"
        )

    def states(self) -> dict[int, str]:
        """Return the last state it was told of each order."""
        updates = [message["o"] for message in self.messages if message.get("e") == "ORDER_TRADE_UPDATE"]
        return {update["i"]: update["X"] for update in updates}

    async def close(self) -> None:
        """Close it."""
        await call(self._socket.stop)


@dataclass
class Session:
    """A session of the WebSocket API which sends bids without waiting for their answers."""

    venue: Venue
    account: Account
    acknowledged: dict[str, int] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def logged_on(self) -> AsyncIterator[Wire]:
        """Connect, as often as it takes, and log on."""
        address = f"{self.venue.url.replace('http', 'ws')}/ws-fapi/v1"
        async with asyncio.timeout(RESTART_DEADLINE_S):
            while True:
                try:
                    socket = await self.venue.session.ws_connect(address)
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        async with socket:
            wire = Wire(socket)
            answer = await wire.ask("session.logon", signed(self.account))
            assert 200 == answer["status"], answer
            yield wire

    async def send_until_it_ends(self) -> int | None:
        """Send bids until the other side ends the connection; return the code that it gave."""
        async with self.logged_on() as wire:
            reading = asyncio.create_task(self._read(wire))
            for number in range(10_000):
                if reading.done():
                    break
                order = FAR_BID | {"price": f"{2000 + number % 100}", "newClientOrderId": f"socket-{number}"}
                order |= {"timestamp": int(time.time() * 1000)}
                try:
                    self.sent.append(f"socket-{number}")
                    text = {"id": f"socket-{number}", "method": "order.place", "params": order}
                    await wire.socket.send_str(json.dumps(text))
                except ConnectionError:
                    break
                await asyncio.sleep(0.02)
            await soon(reading)
            return wire.socket.close_code

    async def _read(self, wire: Wire) -> None:
        async for message in wire.socket:
            answer = json.loads(message.data)
            # Whoever is refused while the exchange stops is told so; that is not an order.
            if answer["status"] == 200:
                self.acknowledged[answer["id"]] = answer["result"]["orderId"]


async def past(venue: Venue, account: Account) -> dict[str, Any]:
    """Return what the calls answer about what has been."""
    found: dict[str, Any] = {}
    for path, named in PAST:
        query = "&".join(f"{name}={value}" for name, value in named.items())
        found[f"{path}?{query}"] = (await venue.send("GET", path, query))[1]
    for path, named in OWN_PAST:
        status, found[path] = await account.call("GET", path, parameters=named)
        assert 200 == status, path
    for row in found["/fapi/v3/positionRisk"]:
        assert row.pop("updateTime") > 0
    return found


@asynccontextmanager
async def exchange_at(directory: Path, port: int) -> AsyncIterator[Venue]:
    """Run `foldex up`, as a user starts it, and stop it as a user does."""
    up = Up(directory / "data", "--feed", "none", "--port", str(port))
    # The clients are connected until the exchange ends their connections.
    async with aiohttp.ClientSession() as session:
        try:
            ready = await up.ready()
            yield Venue(
                url=ready["url"],
                admin_url=ready["admin_url"],
                session=session,
                **dict.fromkeys(("log", "stop", "intake", "writer", "key_file")),  # type: ignore[arg-type]
            )
        finally:
            up.process.send_signal(signal.SIGINT)
            code, said = await up.end()
    assert config.EXIT_OK == code, said


async def account_of(venue: Venue, deposit: str) -> Account:
    """Open an account."""
    made = await admin(venue.admin_url, "POST", "account", {"deposit": deposit})
    return Account(venue, made["account_id"], made["api_key"], made["secret"])


async def filled(buyer: Account, seller: Account, price: str, quantity: str) -> None:
    """Let one account buy from the other."""
    for account, side in ((seller, "SELL"), (buyer, "BUY")):
        status, body = await account.order(side=side, price=price, quantity=quantity)
        assert 200 == status, body


@pytest.mark.slow
async def test_the_whole_exchange_is_restarted_under_its_clients(tmp_path: Path) -> None:
    """ccxt.pro, the connector and a session come back to what they left, and lose nothing they were told."""
    port = free_ports()
    async with exchange_at(tmp_path, port) as venue:
        for symbol, price in (("BTCUSDT", "50000"), ("ETHUSDT", "3000")):
            await admin(venue.admin_url, "POST", "index", {"symbol": symbol, "price": price})
        mine, other = await account_of(venue, "10000"), await account_of(venue, "1000000")
        await mine.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
        pro, connector, session = Pro(venue, mine), Connector(venue, mine), Session(venue, mine)
        await pro.start()
        await connector.start()
        await filled(mine, other, "50000", "0.1")
        await mine.call("POST", "/fapi/v1/positionMargin", symbol="BTCUSDT", amount="10", type=1)
        _, bid = await mine.order(price="49000")
        await until(lambda: {"balance", "positions"} <= pro.told.keys(), "what ccxt.pro is told")
        await pro.is_as_answered()
        before = await past(venue, mine)
        sending = asyncio.create_task(session.send_until_it_ends())
        await until(lambda: len(session.acknowledged) > 5, "acknowledged orders")
    assert aiohttp.WSCloseCode.GOING_AWAY == await soon(sending)
    await until(lambda: bool(connector.ends), "the end of the connector's socket")

    async with exchange_at(tmp_path, port) as venue:
        for each in (mine, other, session):
            each.venue = venue
        assert before == await past(venue, mine)
        _, rows = await mine.call("GET", "/fapi/v1/openOrders", symbol="ETHUSDT")
        placed = {row["clientOrderId"]: row["orderId"] for row in rows}
        assert placed.items() >= session.acknowledged.items()
        assert placed.keys() <= set(session.sent)
        await until(lambda: "order_book" in pro.told and pro.listens(), "ccxt.pro's return")
        assert pro.lost >= 4
        async with session.logged_on() as wire:
            which = {"symbol": "BTCUSDT", "orderId": bid["orderId"], "timestamp": int(time.time() * 1000)}
            assert "NEW" == (await wire.ask("order.status", which))["result"]["status"]
        assert ["close"] == connector.ends
        await connector.start()
        assert connector.listen_keys[0] == connector.listen_keys[1]

        await filled(other, mine, "49500", "0.04")
        await mine.call("DELETE", "/fapi/v1/order", symbol="BTCUSDT", orderId=bid["orderId"])
        await until(lambda: "CANCELED" == connector.states().get(bid["orderId"]), "the connector's stream")
        await until(
            lambda: "canceled" == pro.states().get(str(bid["orderId"])),
            "ccxt.pro's orders",
        )
        await pro.is_as_answered()
        await pro.close()
        await connector.close()


async def restart_intake(there: Local) -> None:
    """End the intake and start the next one on its addresses."""
    venue = there.venue
    venue.stop.set()
    await soon(venue.intake)
    venue.stop.clear()
    listening = asyncio.Event()
    venue.intake = asyncio.create_task(
        run_intake(
            venue.log,
            host="127.0.0.1",
            port=int(venue.url.rpartition(":")[2]),
            admin_host="127.0.0.1",
            admin_port=int(venue.admin_url.rpartition(":")[2]),
            key_file=venue.key_file,
            stop=venue.stop,
            on_ready=lambda seq: listening.set(),
        )
    )
    await soon(listening.wait())


async def test_python_binance_hears_its_account_again(tmp_path: Path) -> None:
    """Its account socket reconnects by itself, with the listen key that it has, and hears what comes."""
    async with local(tmp_path) as there:
        client = asynchronous(there)
        try:
            async with socket_manager(client, there).futures_user_socket() as stream:
                stream.TIMEOUT = 0.2
                await restart_intake(there)
                errors = [await soon(stream.recv()) for _ in range(2)]
                assert [("error", "ConnectionClosedOK"), ("error", "BinanceWebsocketClosed")] == [
                    (error["e"], error["type"]) for error in errors
                ]
                await until(lambda: "STREAMING" == stream.ws_state.name, "its return")
                _, order = await there.account.order(price="49000")
                told = await soon(stream.recv())
                assert ("ORDER_TRADE_UPDATE", order["orderId"]) == (told["e"], told["o"]["i"])
        finally:
            await client.close_connection()
