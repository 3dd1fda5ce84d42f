"""What a command costs when there is more of everything: orders, accounts, price levels.

Each table varies one of the three and keeps the others. All exchanges of a table are built first, with a
position in every account and as many waiting conditional orders as resting ones, and then measured in turns,
so that a machine that slows down slows all rows alike. A figure is the median time to decide and apply one
command, beside it the ratio to the smallest exchange of its table.

- *cancel*: place an order that opens a price level somewhere in the book, and cancel it (two commands)
- *trade*: a market order that meets one resting order
- *mark*: a new index price that moves the mark and triggers nothing
- *trigger*: a new index price whose mark triggers one stop order, which trades

A new level in a book of n levels costs a search of log n steps and the moving of, on average, n / 4 list
elements of 8 bytes; the last table shows where that begins to be felt.

    python -m bench.scaling [--samples 1000] [--rounds 5] [--json]
"""

import argparse
import gc
import json
import statistics
import time
from dataclasses import dataclass
from random import Random

from msgspec.structs import replace

from events.commands import (
    AnyCommand,
    CancelOrder,
    CreateLog,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceConditional,
    PlaceOrder,
    SetIndexPrice,
)
from events.events import ConditionalTriggered, Event, MarkPriceChanged, Rejected, TradeExecuted
from events.frame import close_command_frame
from events.values import IndexSource, OrderType, Side, TimeInForce, TriggerKind, WorkingPrice
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.decide import decide, decide_frame
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.aggregate.units import MONEY_ONE, RATE_ONE
from exchange.intake.specs import DEFAULT_SPECS
from exchange.runtime import GC_THRESHOLD

SYMBOL = "BTCUSDT"
NOW_NS = 1_700_000_000 * 10**9
INDEX_TICKS = 500_000
# Levels stand on every second tick from here outwards, so that a new one fits between any two.
NEAREST_TICKS = 1_000
INDEX_STEP_TICKS = 20
TRIGGER_TICKS = 8
LOTS = 2
HOUSE_LOTS = 300_000
HOUSE_ID = FIRST_USER_ACCOUNT_ID
DEPOSIT = 100_000 * MONEY_ONE
# Wide enough for 50,000 levels on each side, and for a few accounts to hold all the orders.
SPEC = replace(
    DEFAULT_SPECS[0],
    band_up=RATE_ONE // 2,
    band_down=RATE_ONE // 2,
    max_open_orders=1_000,
    max_conditional_orders=1_000,
)
OPERATIONS = ("cancel", "trade", "mark", "trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is: resting orders (and as many conditional ones), accounts, price levels."""

    orders: int
    accounts: int
    levels: int


TABLES: dict[str, tuple[Size, ...]] = {
    "orders": tuple(Size(orders=n, accounts=1_000, levels=1_000) for n in (1_000, 10_000, 100_000)),
    "accounts": tuple(Size(orders=10_000, accounts=n, levels=1_000) for n in (1_000, 10_000, 100_000)),
    "levels": tuple(Size(orders=100_000, accounts=1_000, levels=n) for n in (1_000, 10_000, 100_000)),
}


class World:
    """An exchange of a size, and its samples: ns by operation."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.samples: dict[str, list[int]] = {name: [] for name in OPERATIONS}
        self._state = Exchange()
        self._random = Random(1)
        self._order_id = 0
        self._build()

    def measure(self, samples: int) -> None:
        """Add samples of every operation."""
        for name, operation in (
            ("cancel", self._place_and_cancel),
            ("trade", self._trade),
            ("mark", self._move_mark),
            ("trigger", self._trigger),
        ):
            self.samples[name] += [operation() for _ in range(samples)]

    def _build(self) -> None:
        size = self.size
        genesis = CreateLog(log_id="0" * 32, rules_version=RULES_VERSION)
        decide_frame(self._state, 1, close_command_frame("genesis:bench", 1, NOW_NS, [genesis]), NOW_NS)
        self._decide(ListMarket(spec=SPEC))
        self._decide(self._index(INDEX_TICKS))
        for n in range(size.accounts + 1):
            self._decide(OpenAccount())
            self._decide(Deposit(account_id=HOUSE_ID + n, amount=DEPOSIT * (100 if n == 0 else 1)))
        for side in (Side.BUY, Side.SELL):
            self._decide(self._order(HOUSE_ID, side, INDEX_TICKS - side, HOUSE_LOTS))
        for n in range(size.accounts):
            self._decide(self._market_order(HOUSE_ID + 1 + n, Side.BUY if n % 2 else Side.SELL))
        for n in range(size.orders):
            account_id = HOUSE_ID + 1 + n % size.accounts
            side = Side.BUY if n % 2 else Side.SELL
            away_ticks = NEAREST_TICKS + 2 * (n // 2 % (size.levels // 2))
            self._decide(self._order(account_id, side, INDEX_TICKS - side * away_ticks))
            self._decide(self._stop(account_id, side, INDEX_TICKS + side * away_ticks))
        book = self._state.markets[SYMBOL].book
        assert len(book.bids.keys) == len(book.asks.keys) == size.levels // 2 + 1

    def _place_and_cancel(self) -> int:
        side = self._side()
        away_ticks = NEAREST_TICKS + 1 + 2 * self._random.randrange(self.size.levels // 2)
        account_id = self._account_id()
        order_id = self._order_id + 1
        placed_ns, _ = self._timed(self._order(account_id, side, INDEX_TICKS - side * away_ticks))
        cancel = CancelOrder(account_id=account_id, market=SYMBOL, order_id=order_id)
        return placed_ns + self._timed(cancel)[0]

    def _trade(self) -> int:
        elapsed_ns, events = self._timed(self._market_order(self._account_id(), self._side()))
        assert sum(isinstance(event, TradeExecuted) for event in events) == 1
        return elapsed_ns

    def _move_mark(self) -> int:
        market = self._state.markets[SYMBOL]
        mark_ticks = market.mark_ticks
        is_down = market.index_ticks == INDEX_TICKS
        elapsed_ns, events = self._timed(self._index(INDEX_TICKS + is_down * INDEX_STEP_TICKS))
        (event,) = events
        assert isinstance(event, MarkPriceChanged)
        assert event.mark_ticks != mark_ticks
        return elapsed_ns

    def _trigger(self) -> int:
        self._decide(self._index(INDEX_TICKS))
        mark_ticks = self._state.markets[SYMBOL].mark_ticks
        self._decide(self._stop(self._account_id(), Side.BUY, mark_ticks + TRIGGER_TICKS))
        elapsed_ns, events = self._timed(self._index(INDEX_TICKS + INDEX_STEP_TICKS))
        assert sum(isinstance(event, ConditionalTriggered) for event in events) == 1
        assert sum(isinstance(event, TradeExecuted) for event in events) == 1
        return elapsed_ns

    def _timed(self, command: AnyCommand) -> tuple[int, list[Event]]:
        self._order_id += 1
        started_ns = time.perf_counter_ns()
        events = decide(self._state, command, self._order_id)
        elapsed_ns = time.perf_counter_ns() - started_ns
        assert not isinstance(events[0], Rejected), events
        return elapsed_ns, events

    def _decide(self, command: AnyCommand) -> None:
        self._timed(command)

    def _account_id(self) -> int:
        return HOUSE_ID + 1 + self._random.randrange(self.size.accounts)

    def _side(self) -> Side:
        return self._random.choice((Side.BUY, Side.SELL))

    def _index(self, price_ticks: int) -> SetIndexPrice:
        return SetIndexPrice(
            market=SYMBOL, sources=(IndexSource(source="bench", price_ticks=price_ticks, raw=""),)
        )

    def _order(self, account_id: int, side: Side, price_ticks: int, lots: int = LOTS) -> PlaceOrder:
        return PlaceOrder(
            account_id=account_id,
            market=SYMBOL,
            side=side,
            order_type=OrderType.LIMIT,
            quantity_lots=lots,
            price_ticks=price_ticks,
        )

    def _market_order(self, account_id: int, side: Side) -> PlaceOrder:
        return PlaceOrder(
            account_id=account_id,
            market=SYMBOL,
            side=side,
            order_type=OrderType.MARKET,
            quantity_lots=LOTS,
            time_in_force=TimeInForce.IOC,
        )

    def _stop(self, account_id: int, side: Side, trigger_ticks: int) -> PlaceConditional:
        return PlaceConditional(
            account_id=account_id,
            market=SYMBOL,
            side=side,
            kind=TriggerKind.STOP,
            order_type=OrderType.MARKET,
            quantity_lots=LOTS,
            trigger_ticks=trigger_ticks,
            working_price=WorkingPrice.MARK,
        )


def measure(sizes: tuple[Size, ...], samples: int, rounds: int) -> list[dict[str, float]]:
    """Return a row for each size: what it is, and the median µs of each operation."""
    worlds = [World(size) for size in sizes]
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for world in worlds:
            world.measure(samples // rounds)
    gc.unfreeze()
    return [
        {"orders": world.size.orders, "accounts": world.size.accounts, "levels": world.size.levels}
        | {f"{name}_us": statistics.median(world.samples[name]) / 1_000 for name in OPERATIONS}
        for world in worlds
    ]


def report(varied: str, rows: list[dict[str, float]]) -> None:
    """Print one table."""
    fixed = ", ".join(f"{rows[0][name]:,} {name}" for name in TABLES if name != varied)
    print(f"\n{varied}, with {fixed}: µs and ratio to the first row")
    print(f"{varied:>10}" + "".join(f"{name:>16}" for name in OPERATIONS))
    for row in rows:
        cells = (f"{row[f'{n}_us']:>10.1f} {row[f'{n}_us'] / rows[0][f'{n}_us']:>5.2f}" for n in OPERATIONS)
        print(f"{row[varied]:>10,}" + "".join(cells), flush=True)


def main() -> None:
    """Measure every table and print it."""
    parser = argparse.ArgumentParser(description="What a command costs when there is more of everything.")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    results = {}
    for varied, sizes in TABLES.items():
        results[varied] = measure(sizes, arguments.samples, arguments.rounds)
        if not arguments.json:
            report(varied, results[varied])
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
