"""The watch finds what a look at every account finds, whatever happens."""

from random import Random
from typing import get_args

import pytest

from events.commands import Deposit, SetMarketStatus
from events.events import (
    AnyEvent,
    Event,
    FundingSettled,
    LiquidationFinished,
    LiquidationStarted,
    MarginAdjusted,
    PositionDeleveraged,
    TradeExecuted,
)
from events.values import ISOLATED, Leg, LiquidationResult, MarketStatus
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import is_liquidatable
from exchange.aggregate.state import Exchange
from exchange.watch import CROSS_POOL, Bucket, Watch, alarm_ticks
from tests.flow import market_venue, random_command
from tests.full_scan import find_liquidatable
from tests.venue import NS_PER_MS, Trader, Venue, every, money, spec

BTC, ETH = "BTCUSDT", "ETHUSDT"
FLOWS = 6
COMMANDS = 2_500


@pytest.fixture
def venue() -> Venue:
    """A venue at BTC 50,000, ETH 3,000 with a fund."""
    venue = Venue(fund="100000")
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    return venue


def open_position(venue: Venue, trader: Trader, symbol: str, side: str, size: str, price: str) -> None:
    """Let a trader open a position against a rich counterparty."""
    other = venue.account("10000000")
    other.place("SELL" if side == "BUY" else "BUY", symbol, size, price)
    trader.place(side, symbol, size, price)
    assert trader.position(symbol).size_lots != 0


def eventful_venue(seed: int) -> tuple[Venue, Random]:
    """Return a venue with funding every two seconds of its time and a fund that soon has nothing left."""
    random = Random(seed)
    terms = {"funding_interval_s": 2, "interest_rate": 50_000, "funding_cap": 390_000}
    venue = Venue(specs=(spec(BTC, **terms), spec(ETH, **terms)), fund="20")
    venue.checks = False
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    for n in range(12):
        trader = venue.account(str(random.randint(200, 5_000)))
        if n % 3 == 2:
            trader.hedge()
    return venue, random


def send_random(venue: Venue, random: Random) -> None:
    """Send a random command, sometimes after a pause."""
    if random.random() < 0.01:
        venue.now_ns += 1_000 * NS_PER_MS
    venue.send(random_command(venue.state, random))


def set_status(venue: Venue, symbol: str, status: str) -> None:
    """Let an administrator change what a market accepts."""
    venue.send(SetMarketStatus(market=symbol, status=MarketStatus[status], reason="test"))


def watch_of(venue: Venue) -> Watch:
    """Return a watch that has looked once."""
    watch = Watch(venue.state)
    watch.look()
    return watch


def follow(watch: Watch, venue: Venue) -> None:
    """Tell a watch what the last command did."""
    for group in venue.log[-1]:
        for event in group:
            watch.follow(event)


def note_reviews(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by an account's id whenever the watch reviews it."""
    review, reviewed = watch._review, []

    def counting(account: Account) -> list[Bucket]:
        reviewed.append(account.account_id)
        return review(account)

    monkeypatch.setattr(watch, "_review", counting)
    return reviewed


def ended_in(venue: Venue) -> set[Bucket]:
    """Return the buckets whose liquidation ended in the last frame."""
    events = (event for group in venue.log[-1] for event in group)
    return {(e.account_id, e.market, e.leg) for e in events if isinstance(e, LiquidationFinished)}


def buckets_of(watch: Watch) -> list[Bucket]:
    """Return all buckets that a watch knows to be due."""
    return sorted(bucket for due in watch.due.values() for bucket in due)


# The whole against the full scan


@pytest.mark.parametrize("seed", range(FLOWS))
def test_the_watch_agrees_with_a_full_scan_in_random_trading(seed: int) -> None:
    """After any commands, with a look after each or after many, it knows exactly the buckets that are due.

    It returned each that became due, unless a liquidation of it came and went meanwhile.
    """
    venue, random = eventful_venue(seed)
    watch = watch_of(venue)
    known: set[Bucket] = set()
    ended: set[Bucket] = set()
    found = 0
    for _ in range(COMMANDS):
        send_random(venue, random)
        follow(watch, venue)
        ended |= ended_in(venue)
        if random.random() < 0.5:
            due = watch.look()
            while watch.charged:
                due += watch.look()
            expected = set(find_liquidatable(venue.state))
            assert sorted(expected) == buckets_of(watch)
            assert set(due) <= expected
            assert expected - known - ended <= set(due), "a bucket that became due was kept back"
            found += len(expected - known)
            known, ended = expected, set()
    assert found > 5


@pytest.mark.parametrize("seed", range(3))
def test_alarms_hold_through_long_walks_of_the_marks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small moves without any trade: nothing is found late, and few accounts are reviewed at all."""
    venue, random = market_venue(seed, accounts=40)
    venue.checks = False
    for _ in range(1_500):
        command = random_command(venue.state, random)
        if type(command).__name__ not in ("SetIndexPrice", "Liquidate"):
            venue.send(command)
    watch = watch_of(venue)
    reviewed = note_reviews(watch, monkeypatch)
    reviews = 0
    prices = {BTC: 500_000, ETH: 30_000}
    fallen = False
    for n in range(1_500):
        symbol = random.choice((BTC, ETH))
        drift = 0.0003 if n > 750 else -0.0003
        prices[symbol] = int(prices[symbol] * (1 + random.gauss(drift, 0.002)))
        venue.index(symbol, f"{prices[symbol] / 10:.1f}")
        follow(watch, venue)
        watch.look()
        expected = sorted(find_liquidatable(venue.state))
        assert expected == buckets_of(watch)
        # Those that are due are looked at with each mark.
        reviews += len(set(reviewed) - watch.due.keys())
        reviewed.clear()
        fallen = fallen or bool(expected)
    assert fallen
    assert reviews < 1_500 * 40 // 10


def fingerprint(account: Account) -> tuple[list[int], list[object]]:
    """Return all that an account's margin depends on beside the marks: money, and positions."""
    held = [(key, p) for key, p in account.positions.items() if p.size_lots or p.bucket]
    return [account.wallet, *(p.bucket for _, p in held)], [
        (key, p.mode, p.size_lots, p.entry_cost) for key, p in held
    ]


def is_less(amounts: list[int], than: list[int]) -> bool:
    """Whether any of the amounts fell."""
    return any(now < before for now, before in zip(amounts, than, strict=True))


@pytest.mark.parametrize("seed", range(2))
def test_an_event_that_changes_an_account_touches_it(seed: int) -> None:
    """Whose wallet, position, mode or bucket an event changed is looked at; only gains may be passed over."""
    venue, random = eventful_venue(seed)
    for _ in range(COMMANDS):
        send_random(venue, random)
    state = Exchange()
    watch = Watch(state)
    kinds: set[type[Event]] = set()
    before: dict[int, tuple[list[int], list[object]]] = {}
    for event in (event for groups in venue.log for group in groups for event in group):
        state.apply(event)
        watch.touched.clear()
        watch.follow(event)
        after = {i: fingerprint(a) for i, a in state.accounts.items() if i >= FIRST_USER_ACCOUNT_ID}
        changed = {i for i in after if i in before and after[i] != before[i]}
        if isinstance(event, FundingSettled):
            changed = {
                i for i in changed if any(n < m for n, m in zip(after[i][0], before[i][0], strict=True))
            }
        assert changed <= watch.touched.keys() | watch.charged.keys(), event
        before = after
        kinds.add(type(event))
    assert {TradeExecuted, FundingSettled, PositionDeleveraged, MarginAdjusted} <= kinds


def test_every_kind_of_event_is_classified() -> None:
    """The watch says of each event of the language whom it concerns."""
    assert set(get_args(AnyEvent)) == set(Watch(Exchange()).handlers)


# Alarms


def is_due_at(venue: Venue, position: Position, collateral: int, mark_ticks: int) -> bool:
    """Whether a position is due on its own collateral at a mark, from the rule itself."""
    market = position.market
    value = position.size_lots * mark_ticks * market.unit
    needed = market.brackets.maintenance(abs(value))
    return is_liquidatable(collateral + value - position.entry_cost, needed)


@pytest.mark.parametrize("seed", range(4))
def test_an_alarm_is_the_first_tick_that_is_due(seed: int) -> None:
    """At the alarm a position is due and one tick before it is not: all sizes, costs and brackets."""
    venue, random = Venue(), Random(seed)
    market = venue.state.markets[BTC]
    for _ in range(3_000):
        position = Position(market, Leg.BOTH, ISOLATED, 10)
        position.size_lots = random.choice((1, -1)) * random.choice((1, 7, 990, 1_000, 11_999, 180_000))
        entry_ticks = random.choice((2, 1_000, 500_000, 8_000_000))
        value = position.size_lots * entry_ticks * market.unit
        position.entry_cost = value + random.randint(-5, 5)
        collateral = random.choice((-1, 0, 1, abs(value) // 100, abs(value) // 3, 2 * abs(value)))
        ticks = alarm_ticks(position, collateral)
        if position.size_lots > 0:
            assert not is_due_at(venue, position, collateral, ticks + 1)
            assert ticks == 0 or is_due_at(venue, position, collateral, ticks)
        else:
            assert is_due_at(venue, position, collateral, ticks)
            assert ticks == 1 or not is_due_at(venue, position, collateral, ticks - 1)


def test_equality_sets_off_the_alarm(venue: Venue) -> None:
    """A long of 1 BTC from 50,000 with a bucket of 5,180 is due at 45,000: 180 are left, which is 0.4 %."""
    market = venue.state.markets[BTC]
    position = Position(market, Leg.BOTH, ISOLATED, 10)
    position.size_lots, position.entry_cost = 1_000, money("50000")
    assert 450_000 == alarm_ticks(position, money("5180"))
    assert 449_999 == alarm_ticks(position, money("5180") + 1)


def test_a_flip_moves_the_alarm_to_the_other_side(venue: Venue) -> None:
    """A long that became a short is found when the mark rises, and not when it falls."""
    alice = venue.account("600")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    watch = watch_of(venue)
    open_position(venue, alice, BTC, "SELL", "0.2", "50000")
    follow(watch, venue)
    assert [] == watch.look()
    venue.index(BTC, "30000")
    follow(watch, venue)
    assert [] == watch.look()
    venue.index(BTC, "60000")
    follow(watch, venue)
    assert [(alice.account_id, CROSS_POOL, Leg.BOTH)] == watch.look()


def test_alarms_that_no_longer_count_are_thrown_out(venue: Venue) -> None:
    """A thousand deposits each set a pool's alarm anew; the index does not grow with them."""
    venue.checks = False
    alice = venue.account("600")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    watch = watch_of(venue)
    for _ in range(1_000):
        venue.send(Deposit(account_id=alice.account_id, amount=money("1")))
        follow(watch, venue)
        watch.look()
    alarms = watch._alarms[BTC]
    assert len(alarms.falling) + len(alarms.rising) <= 70


# What is found, and when again


def test_an_isolated_bucket_is_found_by_its_mark(venue: Venue) -> None:
    """A ten times leveraged long is healthy at 46,000 and due at 44,000, whatever else is in the wallet."""
    alice = venue.account("100000")
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 10)
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    watch = watch_of(venue)
    venue.index(BTC, "46000")
    follow(watch, venue)
    assert [] == watch.look()
    venue.index(BTC, "44000")
    follow(watch, venue)
    assert [(alice.account_id, BTC, Leg.BOTH)] == watch.look() == find_liquidatable(venue.state)


def test_a_pool_whose_gains_cover_its_losses_is_armed_anew(venue: Venue) -> None:
    """Long BTC, short ETH: both fall by 40 %, alarm after alarm is reached, and nothing is due."""
    alice = venue.account("1000")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    open_position(venue, alice, ETH, "SELL", "1.666", "3000")
    watch = watch_of(venue)
    for percent in range(99, 59, -1):
        venue.index(ETH, str(30 * percent))
        follow(watch, venue)
        venue.index(BTC, str(500 * percent))
        follow(watch, venue)
        assert [] == watch.look()
    venue.index(ETH, "3000")
    follow(watch, venue)
    assert [(alice.account_id, CROSS_POOL, Leg.BOTH)] == watch.look() == find_liquidatable(venue.state)


def test_a_bucket_that_stays_due_comes_back_with_a_mark_or_a_status(venue: Venue) -> None:
    """It is returned once, and again when its market's mark or status changes; other markets do not count."""
    alice = venue.account("600")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    watch = watch_of(venue)
    due = [(alice.account_id, CROSS_POOL, Leg.BOTH)]
    venue.index(BTC, "44000")
    follow(watch, venue)
    assert due == watch.look()
    assert [] == watch.look()
    venue.index(ETH, "3001")
    follow(watch, venue)
    assert [] == watch.look()
    set_status(venue, BTC, "HALTED")
    follow(watch, venue)
    assert due == watch.look()
    venue.liquidate(alice)  # is skipped: the market is halted
    follow(watch, venue)
    assert [] == watch.look()
    set_status(venue, BTC, "TRADING")
    follow(watch, venue)
    assert due == watch.look()
    venue.index(BTC, "50000")
    follow(watch, venue)
    assert [] == watch.look() == buckets_of(watch)


def test_what_a_liquidation_left_due_waits_for_another_mark(venue: Venue) -> None:
    """The end of a bucket's own liquidation is no reason to ask for it again."""
    alice = venue.account("600")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    open_position(venue, alice, ETH, "BUY", "0.1", "3000")
    watch = watch_of(venue)
    venue.index(BTC, "40000")
    set_status(venue, BTC, "HALTED")
    watch.moved[BTC] = None
    assert [(alice.account_id, CROSS_POOL, Leg.BOTH)] == watch.look()
    assert any(isinstance(event, LiquidationStarted) for event in venue.liquidate(alice))
    follow(watch, venue)
    assert [] == watch.look()
    assert [(alice.account_id, CROSS_POOL, Leg.BOTH)] == buckets_of(watch)


def test_a_liquidation_that_continues_is_asked_for_at_once(venue: Venue) -> None:
    """One that stopped because a command may cause only so much is not left waiting for a mark."""
    alice = venue.account("600")
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    watch = watch_of(venue)
    venue.index(BTC, "40000")
    follow(watch, venue)
    due = [(alice.account_id, CROSS_POOL, Leg.BOTH)]
    assert due == watch.look()
    for result, found in ((LiquidationResult.UNBORNE, []), (LiquidationResult.CONTINUES, due)):
        watch.follow(
            LiquidationFinished(
                liquidation_id=1,
                account_id=alice.account_id,
                market="",
                result=result,
                equity=0,
                released=0,
                fund_before=0,
                fund_after=0,
            )
        )
        assert found == watch.look()


def test_who_paid_funding_is_reviewed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that 2.26 of funding brings to maintenance is found, though not before all others.

    0.1 BTC from 50,000 on 500 have 20 left at 45,200, where maintenance is 18.08; the rate is 0.05 %.
    """
    monkeypatch.setattr("exchange.watch.CHARGED_PER_LOOK", 1)
    rate = 50_000
    funded = spec(BTC, funding_interval_s=3600, interest_rate=rate, funding_cap=rate)
    venue = Venue(specs=(funded,), fund="100000")
    venue.index(BTC, "50000")
    bob, alice = (venue.account("10000") for _ in range(2))
    open_position(venue, bob, BTC, "BUY", "0.1", "50000")
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 10)
    open_position(venue, alice, BTC, "BUY", "0.1", "50000")
    venue.index(BTC, "45200")
    watch = watch_of(venue)
    assert {} == watch.due
    venue.after(3_600_000)
    assert every(FundingSettled, venue.index(BTC, "45200"))
    follow(watch, venue)
    assert [bob.account_id, alice.account_id] == list(watch.charged)
    assert [] == watch.look()
    assert [(alice.account_id, BTC, Leg.BOTH)] == watch.look() == find_liquidatable(venue.state)
    assert {} == watch.charged


def test_the_fund_is_never_found(venue: Venue) -> None:
    """The insurance fund holds what it took over, at whatever loss; nobody asks for it."""
    alice = venue.account("1000")
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 100)
    open_position(venue, alice, BTC, "BUY", "1", "50000")
    venue.index(BTC, "49000")
    venue.liquidate(alice, BTC)
    assert venue.state.accounts[FUND_ACCOUNT_ID].positions[BTC].size_lots > 0
    watch = watch_of(venue)
    venue.index(BTC, "1000")
    follow(watch, venue)
    assert [] == watch.look()
