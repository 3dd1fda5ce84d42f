"""The aggregate against a naive reference: the same fills, the same book, the same ends of orders."""

import os
from random import Random
from time import monotonic

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from events.commands import (
    AmendOrder,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
    SetIndexPrice,
    SetPositionMode,
    Tick,
)
from events.events import (
    Event,
    MarkPriceChanged,
    OrderAccepted,
    OrderAmended,
    Rejected,
)
from events.values import (
    CloseReason,
    IndexSource,
    Leg,
    OrderType,
    PriceMatch,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.state import ORDERS_PER_FRAME
from tests.flow import Ledger, check_state
from tests.naive_book import Happening, NaiveBook, Row, closes, happening, in_one_order
from tests.venue import Venue, money, spec

COMMANDS = int(os.environ.get("FOLDEX_NAIVE_COMMANDS", "10000"))
SEEDS = 4
STEPS = 50
DIGEST_EVERY = 10
SYMBOL = "BTCUSDT"
ACCOUNTS = 6
HEDGERS = {FIRST_USER_ACCOUNT_ID + 4, FIRST_USER_ACCOUNT_ID + 5}
INDEX_TICKS = 1000
LOTS = (3, 5, 8, 10, 10, 10, 20, 40, 60, 100, 300)
TIMES_IN_FORCE = (*TimeInForce, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTC)


class Comparison:
    """The aggregate and the reference, given the same commands."""

    def __init__(self) -> None:
        contract = spec(
            SYMBOL,
            max_open_orders=20,
            max_lots=250,
            max_market_lots=200,
            min_notional=money("0.4"),
            trigger_protect=2_000_000,
        )
        self.venue = Venue(specs=(contract,))
        self.venue.index(SYMBOL, "100")
        for _ in range(ACCOUNTS):
            self.venue.account("100000000")
        for account_id in HEDGERS:
            self.venue.send(SetPositionMode(account_id=account_id, hedge=True))
        self.venue.checks = False
        self.market = self.venue.state.markets[SYMBOL]
        self.naive = NaiveBook(contract, HEDGERS)
        self.naive.do_mark(self.market.mark_ticks, self.venue.now_ns)
        self.ledger = Ledger()
        self.ages: dict[int, int] = {}
        self.commands = 0
        self.events = 0
        self.seen: dict[str, int] = {}

    def do(self, command: AnyCommand) -> None:
        """Let both run a command and compare everything."""
        state = self.venue.state
        self.commands += 1
        new_id = (state.seq + 1) * ORDERS_PER_FRAME
        before = state.venue_digest() if self.commands % DIGEST_EVERY == 0 else b""
        self.venue.log.clear()
        events = self.venue.send(command)
        first, *_ = groups = self.venue.log[-1]
        if before and events and isinstance(events[0], Rejected) and len(first) == 1:
            assert before == state.venue_digest(), "a refused command changed the venue"
        every = [event for group in groups for event in group]
        marks = [event.mark_ticks for event in every if isinstance(event, MarkPriceChanged)]
        if marks:
            expected = self.naive.do_mark(marks[0], state.now_ns)
        else:
            expected = self.naive.do(command, new_id, state.now_ns)
        happenings = [said for event in every if (said := happening(event)) is not None]
        assert in_one_order(expected) == in_one_order(happenings), command
        self._compare_state()
        self.ledger.follow(groups)
        self._grow_older(every)
        self._check_invariants()
        self._count(happenings)

    def _compare_state(self) -> None:
        book = self.market.book
        for side in Side:
            levels = [
                (abs(level.key), [(order.order_id, order.open_lots) for order in level])
                for level in book.half(side).best_first()
            ]
            assert self.naive.depth(side) == levels
        assert (self.naive.last_ticks or 0) == self.market.last_ticks
        accounts = self.venue.state.accounts
        for (account_id, leg), size_lots in self.naive.sizes.items():
            assert size_lots == accounts[account_id].position(self.market, leg).size_lots
        for account_id in range(FIRST_USER_ACCOUNT_ID, FIRST_USER_ACCOUNT_ID + ACCOUNTS):
            account = accounts[account_id]
            rows = [row for row in self.naive.orders if row["position"][0] == account_id]
            assert {row["id"]: (row["lots"], row["open"], row["price"]) for row in rows} == {
                order.order_id: (order.quantity_lots, order.open_lots, order.price_ticks)
                for order in account.orders.values()
            }
            assert {row["client"] for row in rows if row["client"]} == set(account.client_ids)
            waiting = [row["id"] for row in self.naive.conditionals if row["account"] == account_id]
            assert waiting == list(account.conditionals)

    def _check_invariants(self) -> None:
        check_state(self.venue.state)
        self.ledger.check(self.venue.state)
        book = self.market.book
        for half in (book.bids, book.asks):
            for level in half.best_first():
                ages = [self.ages[order.order_id] for order in level]
                assert ages == sorted(ages), "a younger order stands before an older one"

    def _grow_older(self, events: list[Event]) -> None:
        """Note when each order last took its place at the end of a queue, as its events say."""
        for event in events:
            self.events += 1
            takes_place = isinstance(event, OrderAmended) and not event.keeps_place
            if isinstance(event, OrderAccepted) or takes_place:
                self.ages[event.order_id] = self.events  # type: ignore[attr-defined]
        if len(self.ages) > 1000:
            self.ages = {order_id: self.ages[order_id] for order_id in self.ledger.open}

    def _count(self, happenings: list[Happening]) -> None:
        for each in happenings:
            why = each[-1]
            name = f"{each[0]} {why.name}" if isinstance(why, CloseReason | RejectCode) else each[0]
            self.seen[name] = self.seen.get(name, 0) + 1


class Chance:
    """The choices of a seeded source of chance."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def command(self, comparison: Comparison) -> AnyCommand:
        """Return a command of any kind, most of them orders near the middle of the book."""
        random = self.random
        account_id = FIRST_USER_ACCOUNT_ID + random.randrange(ACCOUNTS)
        chance = random.random()
        if chance < 0.6:
            return self._place(account_id, comparison)
        if chance < 0.76:
            return self._amend(account_id, comparison)
        if chance < 0.82:
            return self._cancel(account_id, comparison)
        if chance < 0.825:
            return CancelAllOrders(account_id=account_id, market=SYMBOL)
        if chance < 0.92:
            return self._conditional(account_id, comparison)
        if chance < 0.94:
            ids = [row["id"] for row in comparison.naive.conditionals if row["account"] == account_id]
            return CancelConditional(
                account_id=account_id,
                market=SYMBOL,
                conditional_id=random.choice([*ids, 1]) if random.random() < 0.8 else 0,
                client_order_id=f"s{random.randrange(4)}",
            )
        if chance < 0.945:
            return CancelAllConditionals(account_id=account_id, market=SYMBOL)
        if chance < 0.965:
            return set_index(INDEX_TICKS + random.randint(-30, 30))
        if chance < 0.97:
            return SetCountdown(account_id=account_id, market=SYMBOL, countdown_ms=random.choice((0, 5, 90)))
        return Tick()

    def _place(self, account_id: int, comparison: Comparison) -> PlaceOrder:
        random = self.random
        is_market = random.random() < 0.1
        tif = random.choice(TIMES_IN_FORCE)
        side = random.choice(tuple(Side))
        price_ticks = INDEX_TICKS + round(random.gauss(-2 * side, 6))
        if random.random() < 0.01:
            # One fault at a time: which of two a refusal names is not promised.
            price_ticks, tif = random.choice((0, 300, 2000)), TimeInForce.GTC
        match = self._match()
        if is_market or match is not PriceMatch.NONE:
            price_ticks = 0 if random.random() < 0.95 else price_ticks
        leg, lots = self._leg(account_id), random.choice(LOTS)
        reduces = random.random() < 0.25 or closes(leg, side)
        if reduces and random.random() < 0.8:
            lots = min(lots, comparison.naive.reducible((account_id, leg), side) or lots)
        return PlaceOrder(
            account_id=account_id,
            market=SYMBOL,
            side=side,
            order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
            quantity_lots=lots,
            price_ticks=price_ticks,
            time_in_force=tif,
            reduce_only=reduces,
            client_order_id=random.choice(("", "", f"c{random.randrange(9)}")),
            leg=leg,
            self_trade=random.choice(tuple(SelfTrade)),
            expires_ns=self._end(tif, comparison),
            price_match=match,
        )

    def _amend(self, account_id: int, comparison: Comparison) -> AmendOrder:
        random = self.random
        rows = [row for row in comparison.naive.orders if row["position"][0] == account_id]
        nothing: Row = {"id": 1, "side": Side.BUY, "price": INDEX_TICKS, "lots": 5}
        row = random.choice(rows or [nothing])
        change = random.choice((0, 0, 0, 1, -1, 4, -4, 9, -9))
        lots = random.choice((row["lots"], row["lots"] - random.randint(0, 5), *LOTS))
        match = self._match()
        return AmendOrder(
            account_id=account_id,
            market=SYMBOL,
            side=row["side"] if random.random() < 0.97 else row["side"].opposite,
            quantity_lots=lots,
            price_ticks=row["price"] + change if match is PriceMatch.NONE else 0,
            order_id=row["id"],
            yields_priority=random.random() < 0.2,
            price_match=match,
        )

    def _cancel(self, account_id: int, comparison: Comparison) -> CancelOrder:
        random = self.random
        ids = [row["id"] for row in comparison.naive.orders if row["position"][0] == account_id]
        if random.random() < 0.2:
            name = f"c{random.randrange(9)}"
            return CancelOrder(account_id=account_id, market=SYMBOL, client_order_id=name)
        order_id = random.choice(ids) if ids else 1
        return CancelOrder(account_id=account_id, market=SYMBOL, order_id=order_id)

    def _conditional(self, account_id: int, comparison: Comparison) -> PlaceConditional:
        random = self.random
        closing = random.random() < 0.15
        others = [row["terms"] for row in comparison.naive.conditionals if row["terms"].close_position]
        if closing and others and random.random() < 0.3:
            again: PlaceConditional = random.choice(others)
            return replace(again, client_order_id="")
        is_market = closing or random.random() < 0.5
        kind = random.choice(tuple(TriggerKind))
        trails = kind is TriggerKind.TRAILING
        tif = random.choice(TIMES_IN_FORCE)
        near_ticks = INDEX_TICKS + round(random.gauss(0, 6))
        match = PriceMatch.NONE if is_market else self._match()
        is_priced = not is_market and match is PriceMatch.NONE
        return PlaceConditional(
            account_id=account_id,
            market=SYMBOL,
            side=random.choice(tuple(Side)),
            kind=kind,
            order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
            quantity_lots=0 if closing else random.choice(LOTS),
            trigger_ticks=0 if trails else near_ticks,
            price_ticks=near_ticks + random.randint(-4, 4) if is_priced else 0,
            working_price=random.choice((WorkingPrice.LAST, WorkingPrice.LAST, WorkingPrice.MARK)),
            time_in_force=TimeInForce.GTC if is_market else tif,
            reduce_only=not closing and random.random() < 0.3,
            close_position=closing,
            callback_rate=random.choice((100_000, 300_000, 1_000_000)) if trails else 0,
            activation_ticks=near_ticks if trails and random.random() < 0.5 else 0,
            client_order_id=random.choice(("", f"s{random.randrange(4)}")),
            leg=self._leg(account_id),
            self_trade=random.choice(tuple(SelfTrade)),
            expires_ns=0 if is_market else self._end(tif, comparison),
            price_match=match,
            price_protect=random.random() < 0.3,
        )

    def _match(self) -> PriceMatch:
        return self.random.choice(tuple(PriceMatch)) if self.random.random() < 0.1 else PriceMatch.NONE

    def _leg(self, account_id: int) -> Leg:
        if self.random.random() < 0.01:
            return self.random.choice(tuple(Leg))
        return self.random.choice((Leg.LONG, Leg.SHORT)) if account_id in HEDGERS else Leg.BOTH

    def _end(self, tif: TimeInForce, comparison: Comparison) -> int:
        if tif is not TimeInForce.GTD:
            return 0
        return comparison.venue.now_ns + self.random.choice((0, 3, 40, 400)) * 1_000_000


def set_index(price_ticks: int) -> SetIndexPrice:
    """Return an index price."""
    source = IndexSource(source="test", price_ticks=price_ticks, raw="")
    return SetIndexPrice(market=SYMBOL, sources=(source,))


class NaiveMachine(RuleBasedStateMachine):
    """Commands chosen by hypothesis, so that a difference shrinks to the shortest way there."""

    def __init__(self) -> None:
        super().__init__()
        self.comparison = Comparison()

    accounts = st.integers(FIRST_USER_ACCOUNT_ID, FIRST_USER_ACCOUNT_ID + 3)
    sides = st.sampled_from(Side)
    prices = st.integers(INDEX_TICKS - 4, INDEX_TICKS + 4)
    lots = st.sampled_from((5, 10, 40))
    self_trades = st.sampled_from(SelfTrade)

    @rule(
        account_id=accounts,
        side=sides,
        price_ticks=prices,
        lots=lots,
        tif=st.sampled_from((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTX)),
        reduce_only=st.booleans(),
        self_trade=self_trades,
    )
    def place(
        self,
        account_id: int,
        side: Side,
        price_ticks: int,
        lots: int,
        tif: TimeInForce,
        reduce_only: bool,
        self_trade: SelfTrade,
    ) -> None:
        """Place a limit order."""
        self.comparison.do(
            PlaceOrder(
                account_id=account_id,
                market=SYMBOL,
                side=side,
                order_type=OrderType.LIMIT,
                quantity_lots=lots,
                price_ticks=price_ticks,
                time_in_force=tif,
                reduce_only=reduce_only,
                self_trade=self_trade,
            )
        )

    @rule(account_id=accounts, side=sides, price_ticks=prices, lots=lots)
    def rest(self, account_id: int, side: Side, price_ticks: int, lots: int) -> None:
        """Place an ordinary limit order, so that there is a book."""
        self.place(account_id, side, price_ticks, lots, TimeInForce.GTC, False, SelfTrade.EXPIRE_MAKER)

    @rule(account_id=accounts, side=sides, lots=lots, self_trade=self_trades)
    def place_market(self, account_id: int, side: Side, lots: int, self_trade: SelfTrade) -> None:
        """Place a market order."""
        self.comparison.do(
            PlaceOrder(
                account_id=account_id,
                market=SYMBOL,
                side=side,
                order_type=OrderType.MARKET,
                quantity_lots=lots,
                self_trade=self_trade,
            )
        )

    @rule(pick=st.integers(0, 30), price_ticks=prices, lots=lots, yields=st.booleans())
    def amend(self, pick: int, price_ticks: int, lots: int, yields: bool) -> None:
        """Amend one of the open orders."""
        rows = self.comparison.naive.orders
        if rows:
            row = rows[pick % len(rows)]
            self.comparison.do(
                AmendOrder(
                    account_id=row["position"][0],
                    market=SYMBOL,
                    side=row["side"],
                    quantity_lots=lots,
                    price_ticks=row["price"] if pick % 3 == 0 else price_ticks,
                    order_id=row["id"],
                    yields_priority=yields,
                )
            )

    @rule(pick=st.integers(0, 30))
    def cancel(self, pick: int) -> None:
        """Cancel one of the open orders."""
        rows = self.comparison.naive.orders
        if rows:
            row = rows[pick % len(rows)]
            self.comparison.do(CancelOrder(account_id=row["position"][0], market=SYMBOL, order_id=row["id"]))

    @rule(account_id=accounts)
    def cancel_all(self, account_id: int) -> None:
        """Cancel all orders of an account."""
        self.comparison.do(CancelAllOrders(account_id=account_id, market=SYMBOL))

    @rule(
        account_id=accounts,
        side=sides,
        kind=st.sampled_from((TriggerKind.STOP, TriggerKind.TAKE_PROFIT)),
        trigger_ticks=prices,
        lots=lots,
        reduce_only=st.booleans(),
        is_limit=st.booleans(),
    )
    def place_conditional(
        self,
        account_id: int,
        side: Side,
        kind: TriggerKind,
        trigger_ticks: int,
        lots: int,
        reduce_only: bool,
        is_limit: bool,
    ) -> None:
        """Place a stop or a take-profit on the last price."""
        self.comparison.do(
            PlaceConditional(
                account_id=account_id,
                market=SYMBOL,
                side=side,
                kind=kind,
                order_type=OrderType.LIMIT if is_limit else OrderType.MARKET,
                quantity_lots=lots,
                trigger_ticks=trigger_ticks,
                price_ticks=trigger_ticks if is_limit else 0,
                reduce_only=reduce_only,
            )
        )

    @invariant()
    def is_never_crossed(self) -> None:
        """The best bid is below the best ask."""
        book = self.comparison.market.book
        assert not book.best_ask_ticks or book.best_bid_ticks < book.best_ask_ticks


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_commands_do_what_the_naive_reference_says(seed: int) -> None:
    """A long seeded run of commands of every type gives no difference, and meets every kind of outcome."""
    comparison = Comparison()
    chance = Chance(Random(seed))
    started = monotonic()
    for _ in range(COMMANDS // SEEDS):
        comparison.do(chance.command(comparison))
    seconds = monotonic() - started
    print(f"{comparison.commands} commands in {seconds:.0f} s: {comparison.seen}")
    comparison.venue.state.check_identities()
    assert {
        "trade",
        "triggered",
        "countdown",
        "conditional cancelled",
        "expired IOC_REST",
        "expired SELF_TRADE",
        "expired REDUCE_ONLY",
        "expired GOOD_TILL_DATE",
        "cancelled AMENDED",
        "cancelled COUNTDOWN",
        "amended REDUCE_ONLY",
        "rejected WOULD_NOT_FILL",
        "rejected WOULD_TAKE",
        "rejected REDUCE_ONLY",
        "rejected WOULD_TRIGGER",
        "conditional rejected REDUCE_ONLY",
        "rejected CLOSE_POSITION_EXISTS",
        "rejected NO_DEPTH",
        "conditional rejected PRICE_PROTECTED",
    } <= set(comparison.seen) or COMMANDS < 4000
    assert not {"expired MARGIN", "rejected INSUFFICIENT_MARGIN"} & set(comparison.seen), (
        "accounts are not rich"
    )


@pytest.mark.soak
def test_chosen_commands_do_what_the_naive_reference_says() -> None:
    """Commands that hypothesis chooses give no difference either."""
    run_state_machine_as_test(
        NaiveMachine,
        settings=settings(
            max_examples=max(4, COMMANDS // (10 * STEPS)),
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
