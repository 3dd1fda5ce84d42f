"""The liquidator: which buckets it finds, and when it asks; against the real writer on a real server."""

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
)
from events.embedded import EmbeddedServer
from events.events import Event, LiquidationFinished, LiquidationSkipped, LiquidationStarted
from events.values import IndexSource, Leg, LiquidationResult, MarginMode, OrderType, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.liquidator import CROSS_POOL, find_liquidatable, run_liquidator
from exchange.runtime import Runtime
from exchange.writer import run_writer
from tests.integration.processes import DEADLINE_S, Client, connected
from tests.venue import Trader, Venue, money, spec

ALICE, BOB = 2, 3
BTC = "BTCUSDT"


@pytest.fixture
def venue() -> Venue:
    """A venue at BTC 50,000, ETH 3,000 with a fund."""
    venue = Venue(fund="100000")
    venue.index(BTC, "50000")
    venue.index("ETHUSDT", "3000")
    return venue


def open_long(venue: Venue, mode: str, leverage: int, deposit: str, size: str) -> Trader:
    """Open a long in BTC against a rich counterparty."""
    trader, other = venue.account(deposit), venue.account("1000000")
    trader.mode(BTC, mode)
    trader.leverage(BTC, leverage)
    other.sell(BTC, size, "50000")
    trader.buy(BTC, size, "50000")
    assert trader.position(BTC).size_lots > 0
    return trader


def test_an_isolated_bucket_is_found_by_its_market(venue: Venue) -> None:
    """A ten times leveraged long is healthy at 46,000 and found at 44,000, whatever else is in the wallet."""
    alice = open_long(venue, "ISOLATED", 10, "100000", "0.1")
    venue.index(BTC, "46000")
    assert [] == find_liquidatable(venue.state, {BTC})
    venue.index(BTC, "44000")
    assert [(alice.account_id, BTC, Leg.BOTH)] == find_liquidatable(venue.state, {BTC})


def test_a_cross_pool_is_found_by_any_of_its_markets(venue: Venue) -> None:
    """A pool whose equity fell to maintenance is found once, as the pool, not as a market."""
    alice = open_long(venue, "CROSS", 10, "600", "0.1")
    venue.index(BTC, "44000")
    assert [(alice.account_id, CROSS_POOL, Leg.BOTH)] == find_liquidatable(venue.state, {BTC, "ETHUSDT"})
    assert [] == find_liquidatable(venue.state, {"ETHUSDT"})


def test_the_fund_and_the_fee_account_are_never_found(venue: Venue) -> None:
    """The insurance fund holds what it took over, at whatever loss; nobody asks for it."""
    alice = open_long(venue, "ISOLATED", 100, "1000", "1")
    venue.index(BTC, "49000")
    venue.liquidate(alice, BTC)
    assert venue.state.accounts[FUND_ACCOUNT_ID].positions[BTC].size_lots > 0
    venue.index(BTC, "1000")
    assert [] == [bucket for bucket in find_liquidatable(venue.state, {BTC}) if bucket[0] < ALICE]


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

    async def open_long(self, leverage: int = 10, fund: str = "100000") -> None:
        """List BTC with a fund, and let Alice buy 0.1 of it from Bob at 50,000, isolated."""
        await self.ask(ListMarket(spec=spec(BTC)))
        if fund != "0":
            await self.ask(
                Deposit(account_id=FUND_ACCOUNT_ID, amount=money(fund)),
                AllotInsurance(market=BTC, amount=money(fund)),
            )
        for account_id in (ALICE, BOB):
            await self.ask(OpenAccount(), Deposit(account_id=account_id, amount=money("10000")))
        await self.index(50_000)
        await self.ask(
            SetMarginMode(account_id=ALICE, market=BTC, mode=MarginMode.ISOLATED),
            SetLeverage(account_id=ALICE, market=BTC, leverage=leverage),
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
    """A liquidation that nobody can bear is asked for again when, and only when, a new mark comes."""
    await exchange.open_long(leverage=50, fund="0")
    async with exchange.liquidator():
        await exchange.index(40_000)
        await exchange.reach(LiquidationFinished, 1)
        for n, price in enumerate((39_900, 39_800, 39_700), 1):
            await exchange.index(price)
            await exchange.reach(LiquidationSkipped, n)

    (finished,) = (event for event in exchange.client.events if isinstance(event, LiquidationFinished))
    assert LiquidationResult.UNBORNE is finished.result
    assert 3 == exchange.count(LiquidationSkipped)
