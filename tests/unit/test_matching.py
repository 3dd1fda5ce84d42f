"""What is accepted, and how it trades."""

import pytest
from msgspec.structs import replace

from events.commands import SetMarketStatus
from events.events import (
    LeverageSet,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    TradeExecuted,
)
from events.values import CloseReason, MarketStatus, RejectCode
from exchange.aggregate.state import Exchange
from tests.venue import Trader, Venue, every, money, only, order_id, refusal


@pytest.fixture
def venue() -> Venue:
    """A venue with BTC at 50,000 and ETH at 3,000."""
    venue = Venue(fund="100000")
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    return venue


@pytest.fixture
def bob(venue: Venue) -> Trader:
    """Another trader with 10,000."""
    return venue.account("10000")


def test_a_trade_happens_at_the_makers_price(alice: Trader, bob: Trader) -> None:
    """A taker with a better limit gets the maker's price; each pays its own fee."""
    alice.sell("BTCUSDT", "0.1", "50000")

    trade = only(TradeExecuted, bob.buy("BTCUSDT", "0.1", "50100"))

    assert 500_000 == trade.price_ticks
    assert (money("1"), money("2.5")) == (trade.maker_fee, trade.taker_fee)
    assert (-100, 100) == (alice.position("BTCUSDT").size_lots, bob.position("BTCUSDT").size_lots)
    assert ("9999", "9997.5") == (alice.wallet, bob.wallet)


def test_better_price_then_older_order_trades_first(venue: Venue, alice: Trader, bob: Trader) -> None:
    """Price-time priority over two levels and two orders at one."""
    carol = venue.account("10000")
    worse = order_id(alice.sell("BTCUSDT", "0.1", "50010"))
    older = order_id(alice.sell("BTCUSDT", "0.1", "50000"))
    newer = order_id(carol.sell("BTCUSDT", "0.1", "50000"))

    trades = every(TradeExecuted, bob.buy("BTCUSDT", "0.25", "50010"))

    assert [(older, 100), (newer, 100), (worse, 50)] == [
        (trade.maker_order_id, trade.quantity_lots) for trade in trades
    ]


def test_rest_of_a_limit_order_rests(venue: Venue, alice: Trader, bob: Trader) -> None:
    """What a GTC order cannot fill stays in the book at its limit."""
    alice.sell("BTCUSDT", "0.1", "50000")

    bob.buy("BTCUSDT", "0.3", "50000")

    assert 500_000 == venue.state.markets["BTCUSDT"].book.best_bid_ticks
    assert 200 == bob.position("BTCUSDT").bid_lots


def test_ioc_rest_expires(alice: Trader, bob: Trader) -> None:
    """An immediate-or-cancel order never rests."""
    alice.sell("BTCUSDT", "0.1", "50000")

    expired = only(OrderExpired, bob.buy("BTCUSDT", "0.3", "50000", tif="IOC"))

    assert (200, CloseReason.IOC_REST) == (expired.open_lots, expired.reason)
    assert {} == bob.account.orders


def test_fok_fills_whole_or_not_at_all(alice: Trader, bob: Trader) -> None:
    """A fill-or-kill order that the book cannot fill is refused before it trades."""
    alice.sell("BTCUSDT", "0.1", "50000")

    assert RejectCode.WOULD_NOT_FILL == refusal(bob.buy("BTCUSDT", "0.2", "50000", tif="FOK"))
    assert 100 == only(TradeExecuted, bob.buy("BTCUSDT", "0.1", "50000", tif="FOK")).quantity_lots


def test_post_only_never_takes(alice: Trader, bob: Trader) -> None:
    """A GTX order that would trade at once is refused; one that would not rests."""
    alice.sell("BTCUSDT", "0.1", "50000")

    assert RejectCode.WOULD_TAKE == refusal(bob.buy("BTCUSDT", "0.1", "50000", tif="GTX"))
    assert only(OrderAccepted, bob.buy("BTCUSDT", "0.1", "49999.9", tif="GTX"))


def test_trades_are_numbered_in_each_market(venue: Venue, alice: Trader, bob: Trader) -> None:
    """From 1 and without gaps, whatever is traded elsewhere; a log whose numbers skip is replayed too."""
    venue.index("ETHUSDT", "3000")
    numbers = []
    for symbol, price in (("BTCUSDT", "50000"), ("ETHUSDT", "3000"), ("BTCUSDT", "50000")):
        alice.sell(symbol, "0.1", price)
        numbers.append(only(TradeExecuted, bob.buy(symbol, "0.1", price)).trade_id)

    assert [1, 1, 2] == numbers
    state = Exchange()
    for event in (event for groups in venue.log for group in groups for event in group):
        is_trade = isinstance(event, TradeExecuted)
        state.apply(replace(event, trade_id=event.trade_id * 5) if is_trade else event)
    assert 10 == state.markets["BTCUSDT"].last_trade_id


def test_market_order_stops_at_its_bound(alice: Trader, bob: Trader) -> None:
    """A market order trades no further from the mark than the market's bound, 5 % here."""
    alice.sell("BTCUSDT", "0.1", "52500")
    alice.sell("BTCUSDT", "0.1", "52500.1")

    events = bob.buy("BTCUSDT", "0.2")

    assert 525_000 == only(TradeExecuted, events).price_ticks
    assert CloseReason.MARKET_REST == only(OrderExpired, events).reason


def test_own_orders_do_not_trade_with_each_other(alice: Trader) -> None:
    """The resting order of the same account expires and the newer one goes on."""
    resting = order_id(alice.sell("BTCUSDT", "0.1", "50000"))

    events = alice.buy("BTCUSDT", "0.1", "50000")

    expired = only(OrderExpired, events)
    assert (resting, CloseReason.SELF_TRADE) == (expired.order_id, expired.reason)
    assert [] == every(TradeExecuted, events)


def test_reduce_only_needs_a_position_to_reduce(alice: Trader, bob: Trader) -> None:
    """Without a position, or on its own side, a reduce-only order is refused."""
    assert RejectCode.REDUCE_ONLY == refusal(alice.sell("BTCUSDT", "0.1", "50000", reduce_only=True))
    alice.sell("BTCUSDT", "0.1", "50000")
    bob.buy("BTCUSDT", "0.1", "50000")
    assert RejectCode.REDUCE_ONLY == refusal(alice.sell("BTCUSDT", "0.1", "50000", reduce_only=True))


@pytest.mark.parametrize(
    ("price", "tif"), [("", "IOC"), ("49990", "GTC"), ("49990", "IOC"), ("49990", "FOK")]
)
def test_a_reduce_only_order_is_cut_to_the_position(alice: Trader, bob: Trader, price: str, tif: str) -> None:
    """Whatever its type: it fills what closes the position, is done then, and never turns it round."""
    alice.sell("BTCUSDT", "0.2", "50000")
    bob.buy("BTCUSDT", "0.2", "50000")
    alice.buy("BTCUSDT", "0.5", "49990")

    events = bob.sell("BTCUSDT", "0.3", price, tif=tif, reduce_only=True)

    assert 200 == only(OrderAccepted, events).quantity_lots
    assert 200 == only(TradeExecuted, events).quantity_lots
    assert [] == every(OrderExpired, events)
    assert 0 == bob.position("BTCUSDT").size_lots
    assert {} == bob.account.orders


def test_a_reduce_only_order_that_rests_is_cut_to_the_position(alice: Trader, bob: Trader) -> None:
    """It waits with what it can reduce."""
    alice.sell("BTCUSDT", "0.2", "50000")
    bob.buy("BTCUSDT", "0.2", "50000")

    resting = only(OrderAccepted, bob.sell("BTCUSDT", "5", "50010", reduce_only=True))

    assert 200 == resting.quantity_lots
    assert 200 == bob.position("BTCUSDT").ask_lots


def test_resting_reduce_only_orders_shrink_with_the_position(
    venue: Venue, alice: Trader, bob: Trader
) -> None:
    """A resting reduce-only order is never larger than the position, and expires with it."""
    alice.sell("BTCUSDT", "0.2", "50000")
    bob.buy("BTCUSDT", "0.2", "50000")
    resting = order_id(bob.sell("BTCUSDT", "0.2", "50010", reduce_only=True))
    alice.buy("BTCUSDT", "0.2", "49990")

    amended = only(OrderAmended, bob.sell("BTCUSDT", "0.15", "49990"))
    assert (resting, 50, True) == (amended.order_id, amended.open_lots, amended.keeps_place)

    expired = only(OrderExpired, bob.sell("BTCUSDT", "0.05", "49990"))
    assert (resting, CloseReason.REDUCE_ONLY) == (expired.order_id, expired.reason)
    assert 0 == bob.position("BTCUSDT").size_lots


def test_client_order_id_is_unique_among_open_orders(alice: Trader) -> None:
    """An id can be used again once its order is gone."""
    alice.sell("BTCUSDT", "0.1", "51000", client_id="mine")

    assert RejectCode.DUPLICATE_CLIENT_ORDER_ID == refusal(
        alice.sell("BTCUSDT", "0.1", "51000", client_id="mine")
    )
    assert CloseReason.USER == only(OrderCancelled, alice.cancel("BTCUSDT", client_id="mine")).reason
    assert only(OrderAccepted, alice.sell("BTCUSDT", "0.1", "51000", client_id="mine"))


def test_order_id_names_entry_and_place(venue: Venue, alice: Trader) -> None:
    """An order's id is its entry's number × 4096 + its place in the frame."""
    assert (venue.state.seq + 1) * 4096 == order_id(alice.sell("BTCUSDT", "0.1", "51000"))


def test_cancel_all_takes_one_market_only(alice: Trader) -> None:
    """Orders of other markets stay."""
    alice.sell("BTCUSDT", "0.01", "51000")
    alice.buy("BTCUSDT", "0.01", "49000")
    alice.buy("ETHUSDT", "0.1", "2900")

    assert 2 == len(every(OrderCancelled, alice.cancel_all("BTCUSDT")))
    assert 1 == len(alice.account.orders)
    position = alice.position("BTCUSDT")
    assert (0, 0, 0, 0) == (position.bid_value, position.ask_value, position.extras, position.order_count)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (("0.0", "50000", {}), RejectCode.BAD_QUANTITY),
        (("1001", "50000", {}), RejectCode.BAD_QUANTITY),
        (("0.1", "1000000.1", {}), RejectCode.BAD_PRICE),
        (("0.001", "4000", {}), RejectCode.MIN_NOTIONAL),
        (("5", "50000", {}), RejectCode.INSUFFICIENT_MARGIN),
    ],
)
def test_refusals_name_their_rule(
    alice: Trader, order: tuple[str, str, dict[str, object]], code: RejectCode
) -> None:
    """Each limit of the contract and of the account refuses with its own code."""
    size, price, options = order
    assert code == refusal(alice.buy("BTCUSDT", size, price, **options))


def test_strangers_orders_are_unknown(alice: Trader, bob: Trader) -> None:
    """Nobody can cancel another account's order, nor learn that it exists."""
    resting = order_id(alice.sell("BTCUSDT", "0.1", "51000"))

    assert RejectCode.UNKNOWN_ORDER == refusal(bob.cancel("BTCUSDT", resting))
    assert RejectCode.UNKNOWN_ORDER == refusal(alice.cancel("ETHUSDT", resting))


def test_position_limit_follows_leverage(venue: Venue) -> None:
    """The exposure may not exceed the cap of the highest bracket that permits the leverage."""
    whale = venue.account("1000000")
    whale.leverage("BTCUSDT", 125)

    assert RejectCode.POSITION_LIMIT == refusal(whale.buy("BTCUSDT", "1.001", "50000"))
    assert only(OrderAccepted, whale.buy("BTCUSDT", "1", "50000"))
    assert RejectCode.BAD_LEVERAGE == refusal(whale.leverage("BTCUSDT", 126))


def test_no_mark_no_trading() -> None:
    """Before the first index price a market takes no orders."""
    venue = Venue()

    assert RejectCode.NO_MARK_PRICE == refusal(venue.account("1000").buy("BTCUSDT", "0.1", "50000"))


def test_a_maker_that_cannot_hold_the_fill_expires(venue: Venue, alice: Trader, bob: Trader) -> None:
    """Marks move after acceptance: a maker below maintenance after the fill gives way to the next."""
    poor = venue.account("600")
    poor.leverage("BTCUSDT", 100)
    poor.sell("BTCUSDT", "1", "50000")
    venue.index("BTCUSDT", "51000")
    good = order_id(alice.sell("BTCUSDT", "0.1", "51000"))

    events = bob.buy("BTCUSDT", "0.6", "51000", tif="IOC")

    assert CloseReason.MARGIN == every(OrderExpired, events)[0].reason
    assert good == only(TradeExecuted, events).maker_order_id


def test_lower_leverage_needs_more_margin(alice: Trader, bob: Trader) -> None:
    """Lowering leverage is refused when the pool cannot cover the requirement."""
    alice.sell("BTCUSDT", "0.5", "50000")
    bob.buy("BTCUSDT", "0.5", "50000")

    assert RejectCode.LEVERAGE_NOT_COVERED == refusal(bob.leverage("BTCUSDT", 2))
    assert 5 == only(LeverageSet, bob.leverage("BTCUSDT", 5)).leverage


def test_mode_cannot_change_with_position_or_orders(alice: Trader, bob: Trader) -> None:
    """The margin mode is set while flat and without orders."""
    assert RejectCode.MODE_UNCHANGED == refusal(alice.mode("BTCUSDT", "CROSS"))
    alice.sell("BTCUSDT", "0.1", "50000")
    assert RejectCode.MODE_HAS_ORDERS == refusal(alice.mode("BTCUSDT", "ISOLATED"))
    bob.buy("BTCUSDT", "0.1", "50000")
    assert RejectCode.MODE_HAS_POSITION == refusal(alice.mode("BTCUSDT", "ISOLATED"))


def test_unrealised_profit_is_never_withdrawn(venue: Venue, alice: Trader, bob: Trader) -> None:
    """Profit at mark widens what can be traded, not what can be taken out."""
    alice.sell("BTCUSDT", "0.1", "50000")
    bob.buy("BTCUSDT", "0.1", "50000")
    venue.index("BTCUSDT", "60000")

    assert RejectCode.INSUFFICIENT_BALANCE == refusal(bob.withdraw("9999"))
    assert [] != bob.withdraw("9000")


def test_restricted_market_takes_no_orders_but_cancels(venue: Venue, alice: Trader) -> None:
    """In cancel-only an order can be taken away and none placed."""
    resting = order_id(alice.sell("BTCUSDT", "0.1", "51000"))
    venue.send(SetMarketStatus(market="BTCUSDT", status=MarketStatus.CANCEL_ONLY, reason="test"))

    assert RejectCode.MARKET_CLOSED == refusal(alice.sell("BTCUSDT", "0.1", "51000"))
    assert only(OrderCancelled, alice.cancel("BTCUSDT", resting))
