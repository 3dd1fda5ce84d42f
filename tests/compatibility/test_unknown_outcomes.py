"""Something is killed while clients wait for their orders' answers: what they raise, and what is true then.

Whatever was told to have been placed is there. Whoever was told nothing for certain asks by the id that he
gave the order, and it is there or -2013.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from exchange.supervisor import Supervisor
from tests.compatibility.local import REASON, call, localised
from tests.integration.processes import environment, free_ports
from tests.integration.test_supervisor import admin

pytestmark = pytest.mark.slow

ccxt = pytest.importorskip("ccxt.async_support", reason=REASON)
errors = pytest.importorskip("ccxt.base.errors", reason=REASON)
futures = pytest.importorskip("binance.um_futures", reason=REASON)
connector_errors = pytest.importorskip("binance.error", reason=REASON)
requests = pytest.importorskip("requests")

ORDERS = 60
AT_ONCE = 6
KILLED_AFTER = 15
BID = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": 0.01, "price": 2_000}
# What each raises when the outcome is unknown: an answer that says so, or no answer.
CCXT_UNKNOWN = (errors.NetworkError, errors.OperationFailed)
CONNECTOR_UNKNOWN = (connector_errors.ServerError, requests.exceptions.ConnectionError)


class Clients:
    """Both clients of one account, and what each of their orders came to: its number, or what was raised."""

    def __init__(self, url: str, account: dict[str, Any]) -> None:
        keys = {"apiKey": account["api_key"], "secret": account["secret"]}
        options = {"fetchCurrencies": False, "fetchMarkets": {"types": ["linear"]}}
        # Longer than the exchange lets anybody wait, so that its own answer comes first.
        settings = {"enableRateLimit": False, "timeout": 20_000, "options": options}
        self.ccxt = localised(ccxt.binanceusdm(keys | settings), url)
        self.connector = futures.UMFutures(key=account["api_key"], secret=account["secret"], base_url=url)
        self.came_to: dict[str, int | Exception] = {}

    async def by_ccxt(self, name: str) -> int:
        """Place an order, return its number."""
        parameters = {"newClientOrderId": name}
        order = await self.ccxt.create_order("ETH/USDT:USDT", "limit", "buy", 0.01, 2_000, parameters)
        return int(order["id"])

    async def by_connector(self, name: str) -> int:
        """Place an order, return its number."""
        order = await call(self.connector.new_order, symbol="ETHUSDT", newClientOrderId=name, **BID)
        return int(order["orderId"])

    async def place(self, name: str) -> None:
        """Place an order by the client that its name begins with, and note what it came to."""
        place, unknown = {
            "ccxt": (self.by_ccxt, CCXT_UNKNOWN),
            "connector": (self.by_connector, CONNECTOR_UNKNOWN),
        }[name.partition("-")[0]]
        try:
            self.came_to[name] = await place(name)
        except unknown as error:
            self.came_to[name] = error

    async def place_many(self, on_placed: Callable[[int], None]) -> None:
        """Place orders by both, several at once; tell after each how many have been placed."""
        names = iter(f"{client}-{n}" for n in range(ORDERS) for client in ("ccxt", "connector"))

        async def place_some() -> None:
            for name in names:
                await self.place(name)
                on_placed(len(self.placed()))

        await asyncio.gather(*(place_some() for _ in range(AT_ONCE)))

    def placed(self) -> dict[str, int]:
        """Return the orders that were acknowledged."""
        return {name: what for name, what in self.came_to.items() if isinstance(what, int)}

    async def asked(self, name: str) -> int | None:
        """Return an order's number, None for -2013; both clients say the same."""
        try:
            order = await self.ccxt.fetch_order(None, "ETH/USDT:USDT", {"clientOrderId": name})
            found = int(order["id"])
        except errors.OrderNotFound:
            found = None
        asking = call(self.connector.query_order, symbol="ETHUSDT", origClientOrderId=name)
        if found is not None:
            assert found == (await asking)["orderId"]
            return found
        with pytest.raises(connector_errors.ClientError) as caught:
            await asking
        assert -2013 == caught.value.error_code
        return None

    async def check(self) -> dict[str, int | None]:
        """Return what has become of the orders without a certain answer; those with one are as answered."""
        unknown: dict[str, int | None] = {}
        for name, what in self.came_to.items():
            found = await self.asked(name)
            if isinstance(what, int):
                assert what == found, name
            else:
                unknown[name] = found
            # -1001 says that nothing was executed.
            assert "-1001" not in str(what) or found is None, what
        rows = await call(self.connector.get_orders, symbol="ETHUSDT")
        assert len(rows) == len({row["clientOrderId"] for row in rows})
        return unknown


@pytest.fixture
async def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """Run an exchange without a feed."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    async with Supervisor(tmp_path / "data", port=free_ports()) as supervisor:
        for symbol, price in (("BTCUSDT", "50000"), ("ETHUSDT", "3000")):
            await admin(supervisor.admin_url, "POST", "index", {"symbol": symbol, "price": price})
        yield supervisor


@pytest.fixture
async def clients(supervisor: Supervisor) -> AsyncIterator[Clients]:
    """Both clients, which know the markets."""
    account = await admin(supervisor.admin_url, "POST", "account", {"deposit": "10000"})
    made = Clients(supervisor.url, account)
    await made.ccxt.load_markets()
    yield made
    await made.ccxt.close()


@pytest.mark.parametrize("victim", ["writer", "intake", "server"])
async def test_killed_while_orders_are_on_their_way(
    supervisor: Supervisor, clients: Clients, victim: str
) -> None:
    """kill -9: never a success that is none, and each of the others is there or it is not."""
    pid = supervisor.server_pid if victim == "server" else supervisor.pids[victim]
    assert pid is not None
    killed: list[int] = []

    def kill(placed: int) -> None:
        if placed >= KILLED_AFTER and not killed:
            os.kill(pid, signal.SIGKILL)
            killed.append(placed)

    await clients.place_many(kill)
    assert killed
    # The server is restarted beneath the processes, which stay; the others are others now.
    if victim != "server":
        await supervisor.wait_ready(victim)
    await clients.place("ccxt-last")
    await clients.place("connector-last")
    assert {"ccxt-last", "connector-last"} <= clients.placed().keys()
    await clients.check()


async def test_nobody_decides_for_longer_than_anybody_waits(supervisor: Supervisor, clients: Clients) -> None:
    """The writer is frozen: both are told to ask, and once it goes on the orders are there."""
    await clients.place("ccxt-first")
    writer = supervisor.pids["writer"]
    os.kill(writer, signal.SIGSTOP)
    try:
        await asyncio.gather(*(clients.place(name) for name in ("ccxt-0", "connector-0", "ccxt-1")))
    finally:
        os.kill(writer, signal.SIGCONT)
    assert isinstance(clients.came_to["ccxt-0"], errors.RequestTimeout)
    assert "-1007" in str(clients.came_to["ccxt-0"])
    assert isinstance(error := clients.came_to["connector-0"], connector_errors.ServerError)
    assert (503, True) == (error.status_code, '"code":-1007' in error.message)
    await clients.place("ccxt-last")
    unknown = await clients.check()
    assert {"ccxt-0", "connector-0", "ccxt-1"} == unknown.keys()
    assert None not in unknown.values()
