"""What time brings: the end of an order, and the countdown that cancels them all."""

import pytest

from events.events import CountdownExpired, CountdownSet, OrderCancelled, OrderExpired
from events.values import CloseReason, RejectCode
from tests.venue import NS_PER_MS, Trader, Venue, every, only, order_id, refusal


@pytest.fixture
def venue() -> Venue:
    """A venue with BTC at 50,000 and ETH at 3,000."""
    venue = Venue()
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    return venue


def buy_until(alice: Trader, expires_ns: int) -> int:
    """Place a good-till-date buy order below the price; return its id."""
    return order_id(alice.buy("BTCUSDT", "0.1", "49000", tif="GTD", expires_ns=expires_ns))


def test_an_order_ends_at_its_time_and_not_before(venue: Venue, alice: Trader) -> None:
    """The first frame at or past its end takes the order away."""
    ends_ns = venue.now_ns + 1000 * NS_PER_MS
    ending = buy_until(alice, ends_ns)

    assert [] == venue.after(998)
    assert ends_ns - NS_PER_MS == venue.state.now_ns
    expired = only(OrderExpired, venue.after(1))

    assert (ending, CloseReason.GOOD_TILL_DATE) == (expired.order_id, expired.reason)
    assert {} == alice.account.orders


def test_orders_end_in_the_order_of_their_times(venue: Venue, alice: Trader) -> None:
    """One frame may be late for several."""
    later = buy_until(alice, venue.now_ns + 200 * NS_PER_MS)
    sooner = buy_until(alice, venue.now_ns + 100 * NS_PER_MS)

    assert [sooner, later] == [event.order_id for event in every(OrderExpired, venue.after(1000))]


def test_the_end_of_an_order_that_is_gone_is_passed_over(venue: Venue, alice: Trader) -> None:
    """A cancelled order cannot expire."""
    gone = buy_until(alice, venue.now_ns + 1000 * NS_PER_MS)
    alice.cancel("BTCUSDT", gone)

    assert [] == venue.after(2000)
    assert [] == venue.state.timers


def test_an_end_is_in_the_future_and_of_gtd_orders_only(venue: Venue, alice: Trader) -> None:
    """Anything else is refused."""
    past = alice.buy("BTCUSDT", "0.1", "49000", tif="GTD", expires_ns=venue.now_ns)
    other = alice.buy("BTCUSDT", "0.1", "49000", tif="GTC", expires_ns=venue.now_ns + 10**9)

    assert RejectCode.BAD_ORDER == refusal(past)
    assert RejectCode.BAD_ORDER == refusal(other)


@pytest.mark.parametrize("past_ns", [1, 10**9])
def test_a_conditional_order_has_an_end_only_when_it_is_gtd(
    venue: Venue, alice: Trader, past_ns: int
) -> None:
    """An end in the past on another order is refused at entry, not at the trigger."""
    refused = alice.conditional("STOP", "BUY", "BTCUSDT", "0.1", "51000", price="51000", expires_ns=past_ns)

    assert RejectCode.BAD_ORDER == refusal(refused)


def test_a_countdown_cancels_all_orders_of_its_market(venue: Venue, alice: Trader) -> None:
    """When it runs out the market's orders go, and those of others stay."""
    alice.buy("BTCUSDT", "0.1", "49000")
    alice.sell("BTCUSDT", "0.1", "51000")
    alice.buy("ETHUSDT", "0.1", "2900")
    alice.countdown("BTCUSDT", 1000)

    assert [] == venue.after(999)
    events = venue.after(1)

    assert only(CountdownExpired, events)
    assert [CloseReason.COUNTDOWN] * 2 == [event.reason for event in every(OrderCancelled, events)]
    assert 1 == len(alice.account.orders)
    assert {} == alice.account.countdowns


def test_a_renewed_countdown_starts_again(venue: Venue, alice: Trader) -> None:
    """The earlier end no longer counts."""
    alice.buy("BTCUSDT", "0.1", "49000")
    alice.countdown("BTCUSDT", 1000)
    venue.after(900)
    alice.countdown("BTCUSDT", 1000)

    assert [] == venue.after(999)
    assert only(CountdownExpired, venue.after(1))


def test_a_countdown_of_0_ends_it(venue: Venue, alice: Trader) -> None:
    """Nothing is cancelled after that."""
    alice.buy("BTCUSDT", "0.1", "49000")
    alice.countdown("BTCUSDT", 1000)

    assert 0 == only(CountdownSet, alice.countdown("BTCUSDT", 0)).deadline_ns
    assert [] == venue.after(2000)
    assert RejectCode.BAD_COUNTDOWN == refusal(alice.countdown("BTCUSDT", -1))
