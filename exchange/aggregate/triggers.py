"""Conditional orders waiting for a price, so that a price change costs what it triggers.

A *ladder* holds fixed triggers that one direction of movement reaches, sorted so that the next to fire is
last. A *trail* holds trailing triggers, which move with the best price since their activation. Those that
share a best price form a *crowd*, and a new best price pours every crowd it passes into one, the smaller
into the larger. So a price change moves one crowd's place in the queue, however many orders are in it, and
an order changes crowds at most log n times.

Orders that one price fires come out by trigger price, then by age: what the price reached first comes first.
"""

from bisect import bisect_left, insort

from events.events import ConditionalAccepted
from events.values import BUY, Side, TriggerKind
from exchange.aggregate.units import RATE_ONE

Fired = tuple[int, int]  # trigger in ticks, id


class Ladder:
    """Fixed triggers reached by a rising (`sign` 1) or a falling (−1) price.

    Rows are (−sign × trigger, −id): the last is the next to fire, the older first at equal triggers.
    """

    __slots__ = ("rows", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.rows: list[tuple[int, int]] = []

    def add(self, conditional_id: int, trigger_ticks: int) -> None:
        """Let an order wait for its trigger."""
        insort(self.rows, (-self.sign * trigger_ticks, -conditional_id))

    def remove(self, conditional_id: int, trigger_ticks: int) -> None:
        """Let an order wait no longer."""
        row = (-self.sign * trigger_ticks, -conditional_id)
        at = bisect_left(self.rows, row)
        assert self.rows[at] == row, conditional_id
        del self.rows[at]

    def reached(self, price_ticks: int) -> list[Fired]:
        """Take out what the price reaches, in the order of firing."""
        rows, bound = self.rows, -self.sign * price_ticks
        fired = []
        while rows and rows[-1][0] >= bound:
            key, negative_id = rows.pop()
            fired.append((-self.sign * key, -negative_id))
        return fired


class Crowd:
    """Trailing orders with one best price (signed as in `Trail`).

    `rows` are (−callback rate, −id), ascending: the last is the next to fire.
    """

    __slots__ = ("best", "rows")

    def __init__(self, best: int) -> None:
        self.best = best
        self.rows: list[tuple[int, int]] = []

    @property
    def next_trigger(self) -> int:
        """The signed price at which the next of its orders fires."""
        return trailing_trigger(self.best, -self.rows[-1][0])


class Trail:
    """Trailing triggers of sells (`sign` 1: the best price is the highest) or of buys (−1: the lowest).

    Prices inside are sign × ticks, so that "best" is "greatest" for both. `crowds` are listed by falling
    best price; `queue` holds (next trigger, best) of each, ascending: the last is the next to fire.
    """

    __slots__ = ("by_best", "crowd_of", "negated_bests", "queue", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.by_best: dict[int, Crowd] = {}
        self.crowd_of: dict[int, Crowd] = {}
        self.negated_bests: list[int] = []
        self.queue: list[tuple[int, int]] = []

    def add(self, conditional_id: int, callback_rate: int, price_ticks: int) -> None:
        """Activate an order at the current price, which every crowd has seen."""
        best = self.sign * price_ticks
        crowd = self.by_best.get(best)
        if crowd is None:
            crowd = Crowd(best)
            insort(self.negated_bests, -best)
            self.by_best[best] = crowd
        else:
            self._unqueue(crowd)
        insort(crowd.rows, (-callback_rate, -conditional_id))
        self.crowd_of[conditional_id] = crowd
        self._queue(crowd)

    def remove(self, conditional_id: int, callback_rate: int) -> None:
        """Let an active order wait no longer."""
        crowd = self.crowd_of.pop(conditional_id)
        self._unqueue(crowd)
        row = (-callback_rate, -conditional_id)
        at = bisect_left(crowd.rows, row)
        assert crowd.rows[at] == row, conditional_id
        del crowd.rows[at]
        self._queue_or_drop(crowd)

    def reached(self, price_ticks: int) -> list[Fired]:
        """Take out what the price fires, and let a new best price move the others' triggers."""
        price = self.sign * price_ticks
        fired = []
        while self.queue and self.queue[-1][0] >= price:
            crowd = self.by_best[self.queue[-1][1]]
            self._unqueue(crowd)
            while crowd.rows and crowd.next_trigger >= price:
                trigger = crowd.next_trigger
                conditional_id = -crowd.rows.pop()[1]
                del self.crowd_of[conditional_id]
                fired.append((self.sign * trigger, conditional_id))
            self._queue_or_drop(crowd)
        self._follow(price)
        return fired

    def best_ticks(self, conditional_id: int) -> int:
        """Return the best price since an order's activation, in ticks."""
        return self.sign * self.crowd_of[conditional_id].best

    def _follow(self, price: int) -> None:
        """Pour every crowd whose best price is passed into one."""
        merged: Crowd | None = None
        while self.negated_bests and -self.negated_bests[-1] < price:
            crowd = self.by_best[-self.negated_bests[-1]]
            self._unqueue(crowd)
            self._drop(crowd)
            merged = crowd if merged is None else self._pour(merged, crowd)
        if merged is None:
            return
        known = self.by_best.get(price)
        if known is not None:
            self._unqueue(known)
            self._drop(known)
            merged = self._pour(merged, known)
        merged.best = price
        self.by_best[price] = merged
        insort(self.negated_bests, -price)
        self._queue(merged)

    def _pour(self, one: Crowd, other: Crowd) -> Crowd:
        """Move the orders of the smaller crowd into the larger and return that."""
        small, large = (one, other) if len(one.rows) < len(other.rows) else (other, one)
        for row in small.rows:
            insort(large.rows, row)
            self.crowd_of[-row[1]] = large
        return large

    def _queue(self, crowd: Crowd) -> None:
        insort(self.queue, (crowd.next_trigger, crowd.best))

    def _unqueue(self, crowd: Crowd) -> None:
        entry = (crowd.next_trigger, crowd.best)
        at = bisect_left(self.queue, entry)
        assert self.queue[at] == entry, entry
        del self.queue[at]

    def _queue_or_drop(self, crowd: Crowd) -> None:
        if crowd.rows:
            self._queue(crowd)
        else:
            self._drop(crowd)

    def _drop(self, crowd: Crowd) -> None:
        del self.by_best[crowd.best]
        at = bisect_left(self.negated_bests, -crowd.best)
        assert self.negated_bests[at] == -crowd.best, crowd.best
        del self.negated_bests[at]


class Triggers:
    """All conditional orders of a market that watch one price.

    A trailing order with an activation price stands on a ladder until that is reached, then on a trail.
    """

    __slots__ = ("falling", "rising", "terms", "trailing_buys", "trailing_sells")

    def __init__(self) -> None:
        self.rising = Ladder(1)
        self.falling = Ladder(-1)
        self.trailing_sells = Trail(1)
        self.trailing_buys = Trail(-1)
        self.terms: dict[int, ConditionalAccepted] = {}

    def add(self, terms: ConditionalAccepted, price_ticks: int) -> None:
        """Let a conditional order wait; `price_ticks` is the current price of the kind it watches."""
        self.terms[terms.conditional_id] = terms
        if terms.kind is not TriggerKind.TRAILING:
            self._ladder(terms).add(terms.conditional_id, terms.trigger_ticks)
        elif terms.activation_ticks:
            self._ladder(terms).add(terms.conditional_id, terms.activation_ticks)
        else:
            self._trail(terms.side).add(terms.conditional_id, terms.callback_rate, price_ticks)

    def restore(self, terms: ConditionalAccepted, best_ticks: int) -> None:
        """Let a conditional order wait as it did when `best_ticks` was its answer from that function."""
        if best_ticks:
            self.terms[terms.conditional_id] = terms
            self._trail(terms.side).add(terms.conditional_id, terms.callback_rate, best_ticks)
        else:
            self.add(terms, best_ticks)

    def remove(self, conditional_id: int) -> None:
        """Let a conditional order wait no longer."""
        terms = self.terms.pop(conditional_id)
        trail = self._trail(terms.side)
        if conditional_id in trail.crowd_of:
            trail.remove(conditional_id, terms.callback_rate)
        else:
            trigger_ticks = terms.trigger_ticks or terms.activation_ticks
            self._ladder(terms).remove(conditional_id, trigger_ticks)

    def reached(self, price_ticks: int) -> list[ConditionalAccepted]:
        """Take out what a new price fires; return it by trigger price in its direction, then by age."""
        rising = self.trailing_buys.reached(price_ticks)
        falling = self.trailing_sells.reached(price_ticks)
        rising += self._activate(self.rising.reached(price_ticks), price_ticks)
        falling += self._activate(self.falling.reached(price_ticks), price_ticks)
        falling.sort(key=lambda row: (-row[0], row[1]))
        rising.sort()
        return [self.terms.pop(conditional_id) for _, conditional_id in rising + falling]

    def best_ticks(self, conditional_id: int) -> int:
        """Return the best price since a trailing order's activation, 0 when it is not active or none."""
        trail = self._trail(self.terms[conditional_id].side)
        return trail.best_ticks(conditional_id) if conditional_id in trail.crowd_of else 0

    def _activate(self, rows: list[Fired], price_ticks: int) -> list[Fired]:
        """Pass on what fires; put what only becomes active on its trail."""
        fired = []
        for row in rows:
            terms = self.terms[row[1]]
            if terms.kind is TriggerKind.TRAILING:
                self._trail(terms.side).add(terms.conditional_id, terms.callback_rate, price_ticks)
            else:
                fired.append(row)
        return fired

    def _trail(self, side: Side) -> Trail:
        return self.trailing_buys if side is BUY else self.trailing_sells

    def _ladder(self, terms: ConditionalAccepted) -> Ladder:
        return self.rising if rises_to_trigger(terms.kind, terms.side) else self.falling


def rises_to_trigger(kind: TriggerKind, side: Side) -> bool:
    """Whether a rising price reaches the trigger of a STOP or TAKE_PROFIT, or activates a TRAILING order.

    A buying stop and a selling take-profit are above the price; a trailing sell is activated above it.
    """
    return (kind is TriggerKind.STOP) == (side is BUY)


def trailing_trigger(best: int, callback_rate: int) -> int:
    """Return the signed price at which an order that trails `best` fires: the rate away, at least a tick."""
    return best - max(1, abs(best) * callback_rate // RATE_ONE)
