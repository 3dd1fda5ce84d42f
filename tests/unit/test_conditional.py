"""Conditional orders: when they fire, in which order, and what becomes of them."""

import pytest

from events.events import (
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    Event,
    OrderAccepted,
    OrderExpired,
    TradeExecuted,
)
from events.values import CloseReason, OrderType, RejectCode
from exchange.aggregate.conditional import TRIGGERS_PER_COMMAND_MAX
from exchange.aggregate.state import AGGREGATE_ORDER_BASE
from tests.venue import Trader, Venue, conditional_id, every, only, refusal, spec


class Scene:
    """A venue with BTC at 50,000, a trader whose orders wait, and two that make the last price."""

    def __init__(self) -> None:
        self.venue = Venue(specs=(spec(max_conditional_orders=200), spec("ETHUSDT")), fund="100000")
        self.venue.index("BTCUSDT", "50000")
        self.alice = self.venue.account("10000")
        self.bob = self.venue.account("1000000")
        self.carol = self.venue.account("1000000")

    def last(self, price: str) -> list[Event]:
        """Let the smallest trade happen at a price; return what it caused."""
        self.bob.sell("BTCUSDT", "0.001", price)
        return self.carol.buy("BTCUSDT", "0.001", price)

    def long(self, size: str) -> None:
        """Let alice hold a long position, bought at 50,000."""
        self.bob.sell("BTCUSDT", size, "50000")
        self.alice.buy("BTCUSDT", size, "50000")


@pytest.fixture
def scene() -> Scene:
    """The scene before anything happened."""
    return Scene()


@pytest.fixture
def alice(scene: Scene) -> Trader:
    """The trader whose orders wait."""
    return scene.alice


def fired(events: list[Event]) -> list[int]:
    """Return which conditional orders were triggered, in order."""
    return [event.conditional_id for event in every(ConditionalTriggered, events)]


@pytest.mark.parametrize(
    ("kind", "side", "trigger", "not_yet", "reached"),
    [
        ("STOP", "BUY", "50100", "50099.9", "50100"),
        ("STOP", "SELL", "49900", "49900.1", "49900"),
        ("TAKE_PROFIT", "BUY", "49900", "49900.1", "49900"),
        ("TAKE_PROFIT", "SELL", "50100", "50099.9", "50100"),
    ],
)
def test_an_order_fires_when_its_trigger_is_reached(
    scene: Scene, kind: str, side: str, trigger: str, not_yet: str, reached: str
) -> None:
    """A stop waits for the price to move against, a take-profit for it to move in favour; equality fires."""
    waiting = conditional_id(scene.alice.conditional(kind, side, "BTCUSDT", "0.01", trigger))

    assert [] == fired(scene.last(not_yet))
    assert [waiting] == fired(scene.last(reached))
    assert [] == fired(scene.last(reached))
    assert {} == scene.alice.account.conditionals


def test_a_stop_market_order_trades_at_once(scene: Scene, alice: Trader) -> None:
    """The order it becomes has a number of the exchange's own range, and meets the book."""
    scene.long("0.1")
    waiting = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "49900", reduce_only=True))
    scene.bob.buy("BTCUSDT", "0.1", "49800")

    events = scene.last("49900")

    triggered = only(ConditionalTriggered, events)
    trade = every(TradeExecuted, events)[-1]
    assert (waiting, AGGREGATE_ORDER_BASE + 1) == (triggered.conditional_id, triggered.order_id)
    assert (triggered.order_id, 498_000, 100) == (
        trade.taker_order_id,
        trade.price_ticks,
        trade.quantity_lots,
    )
    assert 0 == alice.position("BTCUSDT").size_lots


def test_a_stop_limit_order_rests_at_its_limit(scene: Scene, alice: Trader) -> None:
    """Its limit is another price than its trigger."""
    alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "50100", price="50050", client_id="mine")

    accepted = every(OrderAccepted, scene.last("50100"))[-1]

    assert (OrderType.LIMIT, 500_500, "mine") == (
        accepted.order_type,
        accepted.price_ticks,
        accepted.client_order_id,
    )
    assert 500_500 == scene.venue.state.markets["BTCUSDT"].book.best_bid_ticks


def test_it_reserves_nothing_until_it_fires(scene: Scene) -> None:
    """A trader without money may wait; the margin is asked for at the trigger."""
    poor = scene.venue.account("1")
    waiting = conditional_id(poor.conditional("STOP", "BUY", "BTCUSDT", "1", "50100"))

    events = scene.last("50100")

    rejected = only(ConditionalRejected, events)
    assert (waiting, RejectCode.INSUFFICIENT_MARGIN) == (rejected.conditional_id, rejected.code)
    assert {} == poor.account.conditionals
    assert {} == poor.account.orders


def test_reduce_only_without_a_position_is_rejected_at_the_trigger(scene: Scene, alice: Trader) -> None:
    """It may wait for a position that never came."""
    alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "49900", reduce_only=True)

    assert RejectCode.REDUCE_ONLY == only(ConditionalRejected, scene.last("49900")).code


def test_mark_and_last_are_watched_apart(scene: Scene, alice: Trader) -> None:
    """A trade moves only what watches the last price, an index update only what watches the mark."""
    scene.last("50000")
    by_last = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100"))
    by_mark = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100", watches="MARK"))

    assert [by_last] == fired(scene.last("50100"))
    assert [by_mark] == fired(scene.venue.index("BTCUSDT", "50200"))


def test_a_trigger_that_is_reached_already_is_refused(scene: Scene, alice: Trader) -> None:
    """An order that would fire at once is an order to place, not to wait with."""
    scene.last("50000")

    assert RejectCode.WOULD_TRIGGER == refusal(alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "50000"))
    assert RejectCode.WOULD_TRIGGER == refusal(alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "50000"))
    assert conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "50000.1"))


def test_a_trailing_stop_follows_the_price_and_fires_on_the_turn(scene: Scene, alice: Trader) -> None:
    """1 % below the best price since it was placed: 49,500 at first, 50,490 after 51,000."""
    scene.last("50000")
    waiting = conditional_id(alice.conditional("TRAILING", "SELL", "BTCUSDT", "0.01", callback="1"))

    assert [] == fired(scene.last("49500.1"))
    assert [] == fired(scene.last("51000"))
    assert [] == fired(scene.last("50490.1"))
    assert [waiting] == fired(scene.last("50490"))


def test_a_trailing_buy_follows_the_price_down(scene: Scene, alice: Trader) -> None:
    """The mirror image: 1 % above the lowest price, 49,490 after 49,000."""
    scene.last("50000")
    waiting = conditional_id(alice.conditional("TRAILING", "BUY", "BTCUSDT", "0.01", callback="1"))

    assert [] == fired(scene.last("49000"))
    assert [] == fired(scene.last("49489.9"))
    assert [waiting] == fired(scene.last("49490"))


def test_a_trailing_stop_sleeps_until_its_activation(scene: Scene, alice: Trader) -> None:
    """A fall before 51,000 does not count; from there on 1 % below the best does."""
    scene.last("50000")
    waiting = conditional_id(
        alice.conditional("TRAILING", "SELL", "BTCUSDT", "0.01", callback="1", activation="51000")
    )

    assert [] == fired(scene.last("49000"))
    assert [] == fired(scene.last("51000"))
    assert [] == fired(scene.last("50490.1"))
    assert [waiting] == fired(scene.last("50490"))


def test_an_activation_price_that_is_reached_counts_as_none(scene: Scene, alice: Trader) -> None:
    """The order is active at once."""
    scene.last("50000")

    events = alice.conditional("TRAILING", "SELL", "BTCUSDT", "0.01", callback="1", activation="49000")

    assert 0 == only(ConditionalAccepted, events).activation_ticks


@pytest.mark.parametrize("callback", ["0", "10.1"])
def test_a_callback_rate_is_above_0_and_at_most_10_percent(alice: Trader, callback: str) -> None:
    """Other rates are refused."""
    refused = alice.conditional("TRAILING", "SELL", "BTCUSDT", "0.01", callback=callback)

    assert RejectCode.BAD_TRIGGER == refusal(refused)


def test_the_price_fires_in_its_own_order_then_by_age(scene: Scene, alice: Trader) -> None:
    """What a rising price reaches first comes first; of one trigger, the older."""
    far = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.001", "50200"))
    older = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.001", "50100"))
    newer = conditional_id(alice.conditional("TAKE_PROFIT", "SELL", "BTCUSDT", "0.001", "50100"))

    assert [older, newer, far] == fired(scene.last("50300"))


def test_a_falling_price_fires_the_higher_trigger_first(scene: Scene, alice: Trader) -> None:
    """The order of firing is that of the movement."""
    far = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.001", "49800"))
    near = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.001", "49900"))

    assert [near, far] == fired(scene.last("49700"))


def test_a_fired_order_can_fire_others(scene: Scene, alice: Trader) -> None:
    """Its trade is a new last price, and what that reaches follows in the same group."""
    scene.long("0.1")
    first = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.01", "49900"))
    second = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.01", "49800"))
    scene.carol.buy("BTCUSDT", "1", "49800")

    assert [first, second] == fired(scene.bob.sell("BTCUSDT", "0.001", "49800"))


def test_more_than_one_command_may_fire_wait_for_the_next_frames(scene: Scene, alice: Trader) -> None:
    """The rest stays in its order and runs first in the frames that follow, whatever these ask for."""
    more = TRIGGERS_PER_COMMAND_MAX + 50
    waiting = [
        conditional_id(
            alice.conditional("STOP", "BUY", "BTCUSDT", "0.001", "50100", tif="IOC", price="40000")
        )
        for _ in range(more)
    ]

    assert waiting[:TRIGGERS_PER_COMMAND_MAX] == fired(scene.last("50100"))
    assert waiting[TRIGGERS_PER_COMMAND_MAX:] == list(scene.venue.state.due)

    refused = alice.withdraw("1000000")
    assert RejectCode.INSUFFICIENT_BALANCE == refusal(refused)
    assert waiting[TRIGGERS_PER_COMMAND_MAX:] == fired(scene.venue.done_first)
    assert {} == scene.venue.state.due
    assert scene.venue.replayed().digest() == scene.venue.state.digest()


def test_an_order_whose_turn_has_not_come_can_be_cancelled(scene: Scene, alice: Trader) -> None:
    """A frame runs a first part of what is due, then its command, then a second part: not what that took."""
    waiting = []
    for trader in (alice, scene.venue.account("10000")):
        for _ in range(TRIGGERS_PER_COMMAND_MAX + 5):
            events = trader.conditional("STOP", "BUY", "BTCUSDT", "0.001", "50100", tif="IOC", price="40000")
            waiting.append(conditional_id(events))
    scene.last("50100")

    events = trader.cancel_conditional("BTCUSDT", waiting[-1])

    assert waiting[-1] == only(ConditionalCancelled, events).conditional_id
    assert waiting[100:200] == fired(scene.venue.done_first)
    assert waiting[200:-1] == fired(events)


def test_close_position_closes_what_there_is_then(scene: Scene, alice: Trader) -> None:
    """The size is that of the position when the price is reached."""
    scene.long("0.1")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0", "49900", close_position=True)
    scene.long("0.05")
    scene.bob.buy("BTCUSDT", "1", "49800")

    trades = every(TradeExecuted, scene.bob.sell("BTCUSDT", "0.001", "49800", self_trade="NONE"))

    assert [1, 150] == [trade.quantity_lots for trade in trades]
    assert 0 == alice.position("BTCUSDT").size_lots


def test_close_position_names_no_size(alice: Trader) -> None:
    """Neither quantity nor reduce-only nor a limit go with it."""
    for size, options in (("0.1", {}), ("0", {"reduce_only": True}), ("0", {"price": "49000"})):
        refused = alice.conditional(
            "STOP",
            "SELL",
            "BTCUSDT",
            size,
            "49900",
            close_position=True,
            **options,
        )
        assert RejectCode.BAD_ORDER == refusal(refused)


def test_one_order_of_a_kind_closes_a_position(scene: Scene, alice: Trader) -> None:
    """A second stop on the same side is refused; a take-profit, the other side and another leg are not."""
    first = conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0", "49900", close_position=True))

    again = alice.conditional("STOP", "SELL", "BTCUSDT", "0", "49000", watches="MARK", close_position=True)
    assert RejectCode.CLOSE_POSITION_EXISTS == refusal(again)

    for kind, side, trigger in (
        ("TAKE_PROFIT", "SELL", "50100"),
        ("STOP", "BUY", "50100"),
        ("TAKE_PROFIT", "BUY", "49900"),
    ):
        assert conditional_id(alice.conditional(kind, side, "BTCUSDT", "0", trigger, close_position=True))
    assert conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "49000"))
    alice.cancel_conditional("BTCUSDT", first)
    assert conditional_id(alice.conditional("STOP", "SELL", "BTCUSDT", "0", "49000", close_position=True))


@pytest.mark.parametrize(("last", "is_placed"), [("47620", True), ("47619", False), ("53000", False)])
def test_protection_holds_back_an_order_while_mark_and_last_price_differ(last: str, is_placed: bool) -> None:
    """At a mark of 50,000 and a bound of 5 % of the last price, 47,620 is near enough and 47,619 is not."""
    venue = Venue(specs=(spec(trigger_protect=5_000_000),))
    venue.index("BTCUSDT", "50000")
    alice, bob, carol = (venue.account("100000") for _ in range(3))
    kind, side = ("STOP", "SELL") if last < "50000" else ("TAKE_PROFIT", "SELL")
    waiting = conditional_id(alice.conditional(kind, side, "BTCUSDT", "0.01", last, price=last, protect=True))
    unprotected = conditional_id(alice.conditional(kind, side, "BTCUSDT", "0.01", last, price=last))
    bob.sell("BTCUSDT", "0.001", last)

    events = carol.buy("BTCUSDT", "0.001", last)

    assert [waiting, unprotected] == fired(events)
    rejected = {event.conditional_id: event.code for event in every(ConditionalRejected, events)}
    assert ({} if is_placed else {waiting: RejectCode.PRICE_PROTECTED}) == rejected
    assert (2 if is_placed else 1) == len(alice.account.orders)
    assert {} == alice.account.conditionals


def test_a_market_without_a_bound_protects_from_nothing(scene: Scene, alice: Trader) -> None:
    """Then mark and last price may be any distance apart."""
    alice.conditional("STOP", "SELL", "BTCUSDT", "0.01", "40000", price="40000", protect=True)

    assert [] == every(ConditionalRejected, scene.last("40000"))
    assert 1 == len(alice.account.orders)


def test_cancelling_takes_it_away_for_good(scene: Scene, alice: Trader) -> None:
    """By id or by the client's; what is gone cannot fire, nor be cancelled again."""
    by_id = conditional_id(alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100"))
    alice.conditional("TRAILING", "SELL", "BTCUSDT", "0.01", callback="1", client_id="mine")

    assert CloseReason.USER == only(ConditionalCancelled, alice.cancel_conditional("BTCUSDT", by_id)).reason
    assert only(ConditionalCancelled, alice.cancel_conditional("BTCUSDT", client_id="mine"))
    assert RejectCode.UNKNOWN_ORDER == refusal(alice.cancel_conditional("BTCUSDT", by_id))
    assert [] == fired(scene.last("50100"))
    assert [] == fired(scene.last("40000"))


def test_cancel_all_takes_one_market_and_leaves_orders(scene: Scene, alice: Trader) -> None:
    """Orders are not conditional orders, and other markets stay."""
    scene.venue.index("ETHUSDT", "3000")
    alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0.01", "49900")
    alice.conditional("STOP", "BUY", "ETHUSDT", "0.01", "3100")
    alice.buy("BTCUSDT", "0.01", "49000")

    assert 2 == len(every(ConditionalCancelled, alice.cancel_all_conditionals("BTCUSDT")))
    assert (1, 1) == (len(alice.account.conditionals), len(alice.account.orders))


def test_liquidation_takes_conditional_orders_away(scene: Scene, alice: Trader) -> None:
    """The position they were to protect is the exchange's business now."""
    alice.mode("BTCUSDT", "ISOLATED")
    scene.long("0.1")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0", "40000", close_position=True)
    scene.venue.index("BTCUSDT", "47000")

    cancelled = only(ConditionalCancelled, scene.venue.liquidate(alice, "BTCUSDT"))

    assert CloseReason.LIQUIDATION == cancelled.reason
    assert {} == alice.account.conditionals


def test_client_ids_are_unique_among_conditional_orders(scene: Scene, alice: Trader) -> None:
    """An order may have the id of a waiting one; then that one is rejected when it fires."""
    alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100", client_id="mine")
    refused = alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100", client_id="mine")
    assert RejectCode.DUPLICATE_CLIENT_ORDER_ID == refusal(refused)
    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.01", "49000", client_id="mine"))

    assert RejectCode.DUPLICATE_CLIENT_ORDER_ID == only(ConditionalRejected, scene.last("50100")).code


def test_a_good_till_date_end_may_pass_before_the_trigger(scene: Scene, alice: Trader) -> None:
    """Then the order has no time left and is rejected."""
    ends_ns = scene.venue.now_ns + 10**9
    alice.conditional("STOP", "BUY", "BTCUSDT", "0.01", "50100", price="50000", tif="GTD", expires_ns=ends_ns)
    scene.venue.after(2000)

    events = scene.last("50100")

    assert RejectCode.BAD_ORDER == only(ConditionalRejected, events).code
    assert [] == every(OrderExpired, events)


def test_a_close_position_stop_closes_more_than_one_market_order_may() -> None:
    """A position larger than MARKET_LOT_SIZE is closed whole all the same; without one it is refused."""
    venue = Venue(specs=(spec(max_market_lots=100),), fund="100000")
    venue.index("BTCUSDT", "50000")
    alice, bob = venue.account("100000"), venue.account("100000")
    bob.sell("BTCUSDT", "0.3", "50000")
    alice.buy("BTCUSDT", "0.3", "50000")
    bob.buy("BTCUSDT", "0.3", "49000")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0", "49500", watches="MARK", close_position=True)
    alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "49500", watches="MARK", reduce_only=True)

    events = venue.index("BTCUSDT", "49400")

    assert 300 == only(TradeExecuted, events).quantity_lots
    assert RejectCode.REDUCE_ONLY == only(ConditionalRejected, events).code
    first, second = every(ConditionalTriggered, events)
    assert first.order_id + 1 == second.order_id
