"""Order flow for the benchmark of the book: the same messages for every book, run and machine.

Of the messages half are new orders (15 % of them immediate-or-cancel), 41 % cancel and 9 % modify an open
order. Limit orders are placed around a mid that stands nearly still, swings, or falls through 20,000 bids
that nobody cancels and comes back. Cancels and modifications name open orders: those that the mid has
passed first, since their owners are in a hurry, otherwise each as likely as another. To know them, the
generator trades its own messages in a reference book.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop
from math import log, pi, sin

from bench.reference_book import ReferenceBook, Trade
from events.values import BUY, SELL, Side

# The last two take an order out; a modification then places it anew.
NEW, IOC, CANCEL, MODIFY = range(4)
# What, order id, side, price in ticks, lots. A cancel needs the first two only, and has the order's others.
Message = tuple[int, int, Side, int, int]

SEED = 1907
NEW_SHARE, CANCEL_SHARE, IOC_SHARE = 0.50, 0.41, 0.15
MID_TICKS = 100_000
DISTANCE_TICKS = 25.0  # mean, of a limit order from the mid
REACH_TICKS = 10  # how far beyond the mid an immediate order may trade
LOTS_MAX = 100
IOC_LOTS_MAX = 8
FIRST_ORDERS = 2_000
SWING_TICKS, SWINGS = 300.0, 4
WALL_ORDERS, WALL_TICKS = 20_000, 4_000
CRASH_START, CRASH_END, RECOVERY_END = 0.50, 0.52, 0.60  # of the messages
CRASH_LOTS_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A named course of the mid over the run, which goes from 0 to 1, and what stands in the book before."""

    name: str
    mid: Callable[[float], float]
    has_wall: bool = False


def _steady(progress: float) -> float:
    return MID_TICKS + 2 * sin(2 * pi * 50 * progress)


def _swinging(progress: float) -> float:
    return MID_TICKS + SWING_TICKS * sin(2 * pi * SWINGS * progress)


def _crashing(progress: float) -> float:
    depth_ticks = WALL_TICKS + DISTANCE_TICKS
    if CRASH_START <= progress < CRASH_END:
        return MID_TICKS - depth_ticks * (progress - CRASH_START) / (CRASH_END - CRASH_START)
    if CRASH_END <= progress < RECOVERY_END:
        return MID_TICKS - depth_ticks * (RECOVERY_END - progress) / (RECOVERY_END - CRASH_END)
    return MID_TICKS


SCENARIOS = (
    Scenario(name="steady mid", mid=_steady),
    Scenario(name="swinging mid", mid=_swinging),
    Scenario(name="flash crash", mid=_crashing, has_wall=True),
)


def messages(scenario: Scenario, count: int) -> list[Message]:
    """Return the messages of a scenario: those that fill its book first, then `count`."""
    flow = Flow(scenario)
    flow.fill_book()
    for n in range(count):
        flow.step(n / count)
    return flow.messages


class Flow:
    """Messages under construction, with the book that they make.

    `ids` are those of orders that may be cancelled; those that were filled go when they are drawn.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.messages: list[Message] = []
        self.book = ReferenceBook()
        self.trades: list[Trade] = []
        self.ids: list[int] = []
        self.sides: dict[int, Side] = {}
        self.next_id = 1
        self.wall_orders = WALL_ORDERS if scenario.has_wall else 0
        self.random = random.Random(f"{SEED} {scenario.name}").random

    def fill_book(self) -> None:
        """Place the wall, which is never cancelled, and some orders that may be."""
        for _ in range(self.wall_orders):
            self._place(NEW, BUY, MID_TICKS - 1 - int(self.random() * WALL_TICKS), self._lots(LOTS_MAX))
        for _ in range(FIRST_ORDERS):
            self.ids.append(self._place_limit(self.scenario.mid(0.0)))

    def step(self, progress: float) -> None:
        """Make one message."""
        mid = self.scenario.mid(progress)
        kind = self.random()
        if kind < NEW_SHARE:
            if self.random() < IOC_SHARE:
                self._place_immediate(mid, progress)
            else:
                self.ids.append(self._place_limit(mid))
            return
        order_id = self._endangered(mid) or self._draw()
        if order_id is None:
            # Nothing is open: a cancel that comes too late.
            self.messages.append((CANCEL, self.next_id - 1, BUY, 0, 0))
            return
        side = self.sides[order_id]
        self.book.cancel(order_id)
        if kind < NEW_SHARE + CANCEL_SHARE:
            self.messages.append((CANCEL, order_id, side, 0, 0))
        else:
            price_ticks, lots = self._limit_price(side, mid), self._lots(LOTS_MAX)
            self.book.place(order_id, side, price_ticks, lots, True, self.trades)
            self.messages.append((MODIFY, order_id, side, price_ticks, lots))

    def _place_limit(self, mid: float) -> int:
        side = self._side()
        return self._place(NEW, side, self._limit_price(side, mid), self._lots(LOTS_MAX))

    def _place_immediate(self, mid: float, progress: float) -> None:
        if self.scenario.has_wall and CRASH_START <= progress < CRASH_END:
            side, lots = SELL, self._lots(CRASH_LOTS_MAX)
        else:
            side, lots = self._side(), self._lots(IOC_LOTS_MAX)
        self._place(IOC, side, int(mid) + side * REACH_TICKS, lots)

    def _place(self, kind: int, side: Side, price_ticks: int, lots: int) -> int:
        order_id = self.next_id
        self.next_id += 1
        self.sides[order_id] = side
        self.book.place(order_id, side, price_ticks, lots, kind == NEW, self.trades)
        self.messages.append((kind, order_id, side, price_ticks, lots))
        return order_id

    def _endangered(self, mid: float) -> int | None:
        """Return the first order that the mid has passed, if it is one that may be cancelled."""
        book = self.book
        for heap, queues, mid_key in ((book.bid_heap, book.bids, -mid), (book.ask_heap, book.asks, mid)):
            while heap and heap[0] <= mid_key:
                for order_id in queues[heap[0]]:
                    return order_id if order_id > self.wall_orders else None
                del queues[heappop(heap)]
        return None

    def _draw(self) -> int | None:
        """Return any open order that may be cancelled, None when there is none."""
        ids = self.ids
        while ids:
            n = int(self.random() * len(ids))
            order_id = ids[n]
            if order_id in self.book.orders:
                return order_id
            ids[n] = ids[-1]
            ids.pop()
        return None

    def _side(self) -> Side:
        return BUY if self.random() < 0.5 else SELL

    def _lots(self, lots_max: int) -> int:
        return 1 + int(self.random() * lots_max)

    def _limit_price(self, side: Side, mid: float) -> int:
        distance_ticks = 1 + int(-log(1 - self.random()) * DISTANCE_TICKS)
        return int(mid) - side * distance_ticks
