"""The liquidator: what it asks for and when, against the real writer on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.commands import (
    AllotInsurance,
    AnyCommand,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    SetMarketStatus,
)
from events.embedded import EmbeddedServer
from events.events import Event, LiquidationFinished, LiquidationSkipped, LiquidationStarted
from events.values import IndexSource, MarginMode, MarketStatus, OrderType, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.liquidator import run_liquidator
from exchange.runtime import Runtime
from exchange.writer import run_writer
from tests.integration.processes import Client, connected
from tests.venue import money, spec
from tests.waiting import DEADLINE_S

ALICE, BOB = 2, 3
BTC = "BTCUSDT"


class Exchange:
    """A running writer, a client, and liquidators as a test wants them."""

    def __init__(self, url: str, client: Client) -> None:
        self.url = url
        self.client = client

    async def ask(self, *commands: AnyCommand) -> list[Event]:
        """Send commands one by one; return the events of the last."""
        events: list[Event] = []
        for command in commands:
            events = await self.client.ask(command)
        return events

    async def index(self, price: int) -> None:
        """Set BTC's index, in quote."""
        source = IndexSource(source="test", price_ticks=price * 10, raw=str(price))
        await self.ask(SetIndexPrice(market=BTC, sources=(source,)))

    async def set_status(self, status: MarketStatus) -> None:
        """Set what BTC accepts."""
        await self.ask(SetMarketStatus(market=BTC, status=status, reason="test"))

    async def open_long(self) -> None:
        """List BTC with a fund, and let Alice buy 0.1 of it from Bob at 50,000, isolated, at leverage 10."""
        await self.ask(
            ListMarket(spec=spec(BTC)),
            Deposit(account_id=FUND_ACCOUNT_ID, amount=money("100000")),
            AllotInsurance(market=BTC, amount=money("100000")),
        )
        for account_id in (ALICE, BOB):
            await self.ask(OpenAccount(), Deposit(account_id=account_id, amount=money("10000")))
        await self.index(50_000)
        await self.ask(
            SetMarginMode(account_id=ALICE, market=BTC, mode=MarginMode.ISOLATED),
            SetLeverage(account_id=ALICE, market=BTC, leverage=10),
            order(BOB, Side.SELL),
            order(ALICE, Side.BUY),
        )
        assert 100 == self.client.fold.state.accounts[ALICE].positions[BTC].size_lots

    @asynccontextmanager
    async def liquidator(self) -> AsyncIterator[Runtime]:
        """Run a liquidator."""
        async with running("liquidator", self.url) as runtime:
            yield runtime

    def count(self, kind: type[Event]) -> int:
        """Return how many events of a kind there were."""
        return sum(isinstance(event, kind) for event in self.client.events)

    async def reach(self, kind: type[Event], count: int) -> None:
        """Wait for the `count`-th event of a kind."""
        await self.client.reach(lambda: self.count(kind) >= count, f"{count} × {kind.__name__}")


def order(account_id: int, side: Side) -> PlaceOrder:
    """Return an order for 0.1 BTC at 50,000."""
    return PlaceOrder(
        account_id=account_id,
        market=BTC,
        side=side,
        order_type=OrderType.LIMIT,
        quantity_lots=100,
        price_ticks=500_000,
    )


@asynccontextmanager
async def running(name: str, url: str) -> AsyncIterator[Runtime]:
    """Run a process's main function in this one, with everything but its signals."""
    runtime = Runtime(name, url)
    work = run_writer(runtime) if name == "writer" else run_liquidator(runtime)
    task = asyncio.create_task(work)
    try:
        yield runtime
    finally:
        runtime.stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task
        await runtime.close()


@pytest.fixture
async def exchange(tmp_path: Path) -> AsyncIterator[Exchange]:
    """Run a writer on a server of its own, with a client."""
    with EmbeddedServer(tmp_path / "data") as server:
        async with running("writer", server.socket_path), connected(server.socket_path) as client:
            yield Exchange(server.socket_path, client)


async def test_a_fall_is_answered_with_a_liquidation(exchange: Exchange) -> None:
    """When the mark reaches a bucket's maintenance, it is liquidated because of that entry."""
    await exchange.open_long()
    async with exchange.liquidator():
        await exchange.index(44_000)
        cause_seq = exchange.client.fold.head.seq
        await exchange.reach(LiquidationFinished, 1)

    (started,) = (event for event in exchange.client.events if isinstance(event, LiquidationStarted))
    assert (ALICE, BTC) == (started.account_id, started.market)
    assert cause_seq <= started.cause_seq
    assert 0 == exchange.client.fold.state.accounts[ALICE].positions[BTC].size_lots


async def test_the_past_is_not_asked_for(exchange: Exchange) -> None:
    """A bucket that was short and recovered before the liquidator came is left alone."""
    await exchange.open_long()
    await exchange.index(44_000)
    await exchange.index(50_000)
    async with exchange.liquidator():
        await exchange.index(49_000)
        # Only the next fall is asked for; a request for the past would come before it, and be skipped.
        await exchange.index(44_000)
        await exchange.reach(LiquidationFinished, 1)
    assert (1, 0) == (exchange.count(LiquidationStarted), exchange.count(LiquidationSkipped))


async def test_what_is_due_at_the_start_is_asked_for_once(exchange: Exchange) -> None:
    """A bucket that is short when the liquidator comes is found without a new price."""
    await exchange.open_long()
    await exchange.index(44_000)
    async with exchange.liquidator():
        await exchange.reach(LiquidationFinished, 1)
    assert (1, 0) == (exchange.count(LiquidationStarted), exchange.count(LiquidationSkipped))


async def test_a_bucket_that_stays_short_is_asked_for_with_each_price(exchange: Exchange) -> None:
    """What cannot be done in a halted market is asked for with each new mark, and when it trades again."""
    await exchange.open_long()
    async with exchange.liquidator():
        await exchange.set_status(MarketStatus.HALTED)
        for n, price in enumerate((44_000, 43_900, 43_800), 1):
            await exchange.index(price)
            await exchange.reach(LiquidationSkipped, n)
        await exchange.set_status(MarketStatus.TRADING)
        await exchange.reach(LiquidationFinished, 1)

    assert (1, 3) == (exchange.count(LiquidationStarted), exchange.count(LiquidationSkipped))
    assert 0 == exchange.client.fold.state.accounts[ALICE].positions[BTC].size_lots
