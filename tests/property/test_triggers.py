"""Triggers against a list that looks at every order at every price."""

from random import Random
from typing import NamedTuple

import pytest

from events.events import ConditionalAccepted
from events.values import Leg, OrderType, SelfTrade, Side, TimeInForce, TriggerKind, WorkingPrice
from exchange.aggregate.triggers import Trail, Triggers, rises_to_trigger, trailing_trigger

START_TICKS = 1000
STEPS = 400
PERCENT = 10**6


def terms(
    conditional_id: int,
    kind: TriggerKind,
    side: Side,
    *,
    trigger_ticks: int = 0,
    callback_rate: int = 0,
    activation_ticks: int = 0,
) -> ConditionalAccepted:
    """Return a conditional order of which only the trigger matters."""
    return ConditionalAccepted(
        conditional_id=conditional_id,
        account_id=2,
        market="BTCUSDT",
        side=side,
        kind=kind,
        order_type=OrderType.MARKET,
        quantity_lots=1,
        trigger_ticks=trigger_ticks,
        price_ticks=0,
        working_price=WorkingPrice.LAST,
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        close_position=False,
        callback_rate=callback_rate,
        activation_ticks=activation_ticks,
        client_order_id="",
        leg=Leg.BOTH,
        self_trade=SelfTrade.NONE,
        expires_ns=0,
    )


class Waiting(NamedTuple):
    """An order of the naive list; `best_ticks` is 0 unless it is an active trailing one."""

    terms: ConditionalAccepted
    best_ticks: int


class NaiveTriggers:
    """What `Triggers` means, said plainly: every order is looked at whenever the price changes."""

    def __init__(self) -> None:
        self.waiting: dict[int, Waiting] = {}

    def add(self, order: ConditionalAccepted, price_ticks: int) -> None:
        """Let an order wait."""
        is_active = order.kind is TriggerKind.TRAILING and not order.activation_ticks
        self.waiting[order.conditional_id] = Waiting(order, price_ticks if is_active else 0)

    def reached(self, price_ticks: int) -> list[int]:
        """Take out what fires: what a rising price reaches, then a falling one; by trigger, then by age."""
        rising: list[tuple[int, int]] = []
        falling: list[tuple[int, int]] = []
        for conditional_id, (order, best_ticks) in list(self.waiting.items()):
            rises = rises_to_trigger(order.kind, order.side)
            trigger_ticks = order.trigger_ticks or order.activation_ticks
            if best_ticks:
                # An active trailing order turns the other way than it is activated.
                sign, rises = -order.side, not rises
                trigger_ticks = sign * trailing_trigger(sign * best_ticks, order.callback_rate)
            if price_ticks >= trigger_ticks if rises else price_ticks <= trigger_ticks:
                if best_ticks or order.kind is not TriggerKind.TRAILING:
                    (rising if rises else falling).append((trigger_ticks, conditional_id))
                    del self.waiting[conditional_id]
                else:
                    self.waiting[conditional_id] = Waiting(order, price_ticks)
            elif best_ticks:
                better = max if order.side is Side.SELL else min
                self.waiting[conditional_id] = Waiting(order, better(best_ticks, price_ticks))
        rising.sort()
        falling.sort(key=lambda row: (-row[0], row[1]))
        return [conditional_id for _, conditional_id in rising + falling]


def random_terms(random: Random, conditional_id: int, price_ticks: int) -> ConditionalAccepted:
    """Return an order that the price has not reached, of any kind."""
    kind, side = random.choice(tuple(TriggerKind)), random.choice(tuple(Side))
    away = random.randint(1, 60)
    reached_at = price_ticks + (away if rises_to_trigger(kind, side) else -away)
    if kind is not TriggerKind.TRAILING:
        return terms(conditional_id, kind, side, trigger_ticks=reached_at)
    return terms(
        conditional_id,
        kind,
        side,
        callback_rate=random.randint(1, 20) * PERCENT,
        activation_ticks=random.choice((0, reached_at)),
    )


@pytest.mark.parametrize("seed", range(100))
def test_triggers_agree_with_a_scan_of_all_orders(seed: int) -> None:
    """The same orders fire in the same order, and the trailing ones left have seen the same best price."""
    random = Random(seed)
    triggers, naive = Triggers(), NaiveTriggers()
    price_ticks = START_TICKS
    for step in range(STEPS):
        chance = random.random()
        if chance < 0.4:
            order = random_terms(random, step + 1, price_ticks)
            triggers.add(order, price_ticks)
            naive.add(order, price_ticks)
        elif chance < 0.5 and naive.waiting:
            gone = random.choice(list(naive.waiting))
            triggers.remove(gone)
            del naive.waiting[gone]
        else:
            price_ticks = max(100, price_ticks + random.randint(-40, 40))
            fired = triggers.reached(price_ticks)
            assert naive.reached(price_ticks) == [order.conditional_id for order in fired]
        assert naive.waiting.keys() == triggers.terms.keys()
        for conditional_id, (_, best_ticks) in naive.waiting.items():
            assert best_ticks == triggers.best_ticks(conditional_id)


def test_a_new_best_price_moves_one_crowd_however_many_orders_follow_it() -> None:
    """A thousand trailing sells share one crowd; rises move its place in the queue and none of its rows."""
    trail = Trail(1)
    for conditional_id in range(1, 1001):
        trail.add(conditional_id, 5 * PERCENT, START_TICKS)
    crowd = trail.crowd_of[1]
    rows = list(crowd.rows)

    for price_ticks in range(START_TICKS + 1, START_TICKS + 101):
        assert [] == trail.reached(price_ticks)

    assert {START_TICKS + 100: crowd} == trail.by_best
    assert [(crowd.next_trigger, START_TICKS + 100)] == trail.queue
    assert rows == crowd.rows
    assert all(crowd is trail.crowd_of[conditional_id] for conditional_id in range(1, 1001))


def test_an_order_changes_crowds_at_most_log_n_times() -> None:
    """Whatever the price does, no order of 1,024 moves more than 10 times: the smaller crowd always does."""
    random = Random(1)
    trail = Trail(1)
    price_ticks, orders = 100_000, 1024
    moves = dict.fromkeys(range(1, orders + 1), 0)
    for conditional_id in moves:
        price_ticks += random.randint(-50, 50)
        before = dict(trail.crowd_of)
        assert [] == trail.reached(price_ticks)
        for moved_id, crowd in before.items():
            moves[moved_id] += crowd is not trail.crowd_of[moved_id]
        trail.add(conditional_id, 50 * PERCENT, price_ticks)

    assert orders == len(trail.crowd_of)
    assert 1 <= max(moves.values()) <= 10


def test_only_what_fires_leaves_the_ladder() -> None:
    """The next to fire stands last, so that a price takes its orders off the end."""
    triggers = Triggers()
    for conditional_id in range(1, 1001):
        trigger_ticks = START_TICKS + conditional_id
        triggers.add(
            terms(conditional_id, TriggerKind.STOP, Side.BUY, trigger_ticks=trigger_ticks), START_TICKS
        )
    rows = list(triggers.rising.rows)

    assert [1, 2, 3] == [order.conditional_id for order in triggers.reached(START_TICKS + 3)]

    assert rows[:-3] == triggers.rising.rows
