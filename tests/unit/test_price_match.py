"""Orders that take their limit from a level of the book, when they are placed, amended or triggered."""

import pytest

from events.events import ConditionalAccepted, ConditionalRejected, OrderAccepted, OrderAmended
from events.values import PriceMatch, RejectCode
from exchange.intake.trade.algos import algo_answer
from exchange.intake.trade.orders import order_answer
from exchange.intake.trade.past import AccountPast
from tests.venue import Trader, Venue, every, only, order_id, refusal

BTC = "BTCUSDT"


@pytest.fixture
def venue() -> Venue:
    """Make a venue with BTCUSDT at 50,000, and 5 levels a side: 49,990 … 49,950 and 50,010 … 50,050."""
    made = Venue()
    made.index(BTC, "50000")
    maker = made.account("1000000")
    for n in range(1, 6):
        maker.buy(BTC, "0.1", str(50_000 - 10 * n))
        maker.sell(BTC, "0.1", str(50_000 + 10 * n))
    return made


@pytest.fixture
def alice(venue: Venue) -> Trader:
    """Open an account with money."""
    return venue.account("100000")


@pytest.mark.parametrize(
    ("side", "match", "price_ticks"),
    [
        ("BUY", "OPPONENT", 500_100),
        ("BUY", "OPPONENT_5", 500_500),
        ("BUY", "QUEUE", 499_900),
        ("BUY", "QUEUE_5", 499_500),
        ("SELL", "OPPONENT", 499_900),
        ("SELL", "OPPONENT_5", 499_500),
        ("SELL", "QUEUE", 500_100),
        ("SELL", "QUEUE_5", 500_500),
    ],
)
def test_the_level_gives_the_limit(alice: Trader, side: str, match: str, price_ticks: int) -> None:
    """OPPONENT is a level of the other side, QUEUE of one's own; the number counts from the best."""
    accepted = only(OrderAccepted, alice.place(side, BTC, "0.01", match=match))

    assert (price_ticks, PriceMatch[match]) == (accepted.price_ticks, accepted.price_match)


def test_a_level_that_is_not_there_is_refused(alice: Trader) -> None:
    """The book is 5 levels deep."""
    for match in ("OPPONENT_10", "OPPONENT_20", "QUEUE_10", "QUEUE_20"):
        assert RejectCode.NO_DEPTH == refusal(alice.buy(BTC, "0.01", match=match))


def test_a_price_of_its_own_is_refused_beside_it(alice: Trader) -> None:
    """For an order, a conditional order and an amendment."""
    assert RejectCode.BAD_ORDER == refusal(alice.buy(BTC, "0.01", "49000", match="QUEUE"))
    stop = alice.conditional("STOP", "BUY", BTC, "0.01", "50100", price="50100", match="QUEUE")
    assert RejectCode.BAD_ORDER == refusal(stop)
    resting = order_id(alice.buy(BTC, "0.01", "49000"))
    assert RejectCode.BAD_ORDER == refusal(alice.amend(BTC, resting, "0.01", "49100", match="QUEUE"))


def test_filters_hold_for_the_price_that_was_found(venue: Venue, alice: Trader) -> None:
    """A level far from the mark is as little allowed as a limit there."""
    venue.index(BTC, "30000")

    assert RejectCode.PRICE_ABOVE_BAND == refusal(alice.buy(BTC, "0.01", match="OPPONENT"))


def test_an_amendment_takes_its_price_from_the_book(alice: Trader) -> None:
    """The order then says so; the next amendment that brings a price ends that."""
    resting = order_id(alice.buy(BTC, "0.01", "49000"))

    amended = only(OrderAmended, alice.amend(BTC, resting, "0.01", "0", match="QUEUE_5"))
    assert (499_500, PriceMatch.QUEUE_5) == (amended.price_ticks, amended.price_match)
    assert PriceMatch.QUEUE_5 is alice.order(resting).price_match
    assert RejectCode.NOTHING_TO_AMEND == refusal(alice.amend(BTC, resting, "0.01", "0", match="QUEUE_5"))

    alice.amend(BTC, resting, "0.01", "49100")
    assert PriceMatch.NONE is alice.order(resting).price_match


def test_being_trimmed_changes_nothing_about_it(venue: Venue, alice: Trader) -> None:
    """A reduce-only order that follows its position still says where its price came from."""
    alice.buy(BTC, "0.1")
    resting = order_id(alice.sell(BTC, "0.1", match="QUEUE", reduce_only=True))

    alice.sell(BTC, "0.05")

    assert (50, PriceMatch.QUEUE) == (alice.order(resting).open_lots, alice.order(resting).price_match)


def test_a_conditional_order_finds_its_price_when_it_triggers(venue: Venue, alice: Trader) -> None:
    """The book of that moment counts; where it is not deep enough the order is rejected."""
    alice.conditional("STOP", "BUY", BTC, "0.01", "50100", match="OPPONENT_5", watches="MARK")
    alice.conditional("STOP", "BUY", BTC, "0.01", "50100", match="OPPONENT_20", watches="MARK")
    venue.account("100000").sell(BTC, "0.1", "50005")

    events = venue.index(BTC, "50150")

    (accepted,) = every(OrderAccepted, events)
    assert (500_400, PriceMatch.OPPONENT_5) == (accepted.price_ticks, accepted.price_match)
    assert RejectCode.NO_DEPTH == only(ConditionalRejected, events).code


@pytest.mark.parametrize("adopted", [False, True])
def test_what_is_told_of_an_order_names_its_level(venue: Venue, alice: Trader, adopted: bool) -> None:
    """Whether the past was read or only the state is known."""
    resting = order_id(alice.buy(BTC, "0.01", match="QUEUE"))
    changed = order_id(alice.buy(BTC, "0.01", "49000"))
    alice.amend(BTC, changed, "0.01", "0", match="QUEUE_5")
    events = alice.conditional("STOP", "BUY", BTC, "0.01", "50100", match="OPPONENT", protect=True)
    waiting = only(ConditionalAccepted, events).conditional_id
    past = AccountPast(lambda symbol: venue.state.markets[symbol].unit)
    if adopted:
        past.adopt(venue.state)
    else:
        for groups in venue.log:
            past.feed(groups)
    market_spec = venue.state.markets[BTC].spec

    assert "QUEUE" == order_answer(past.orders.get(resting), market_spec).price_match
    assert "QUEUE_5" == order_answer(past.orders.get(changed), market_spec).price_match
    record = past.algos.find(alice.account_id, waiting, "")
    assert record is not None
    answer = algo_answer(record, market_spec)
    assert ("OPPONENT", True, "0.0") == (answer.price_match, answer.price_protect, answer.price)
