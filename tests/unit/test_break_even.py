"""The break-even price, by hand: fees at 0.02 % and 0.05 %."""

import pytest

from exchange.intake.trade.position_prices import break_even_text, entry_price_text
from tests.venue import Trader, Venue

BTC = "BTCUSDT"


@pytest.fixture
def venue() -> Venue:
    """Make a venue with BTCUSDT at 50,000."""
    made = Venue(fund="100000")
    made.index(BTC, "50000")
    return made


def trade(taker: Trader, maker: Trader, side: str, size: str, price: str) -> None:
    """Let two accounts trade."""
    other = {"BUY": "SELL", "SELL": "BUY"}[side]
    maker.place(other, BTC, size, price)
    taker.place(side, BTC, size, price)


def test_the_fee_paid_is_in_it_and_the_one_to_come_is_not(venue: Venue) -> None:
    """A taker's long at 50,000 has to gain 25, a maker's short 10."""
    long, short = venue.account("10000"), venue.account("10000")

    trade(long, short, "BUY", "0.1", "50000")

    assert "50025.00000000" == break_even_text(long.position(BTC))
    assert "49990.00000000" == break_even_text(short.position(BTC))
    assert "50000.00000000" == entry_price_text(short.position(BTC))


def test_what_parts_were_closed_for_counts(venue: Venue) -> None:
    """Half is sold 1,000 higher; the other half has to bring what then is left of cost and fees."""
    long, short = venue.account("10000"), venue.account("10000")
    trade(long, short, "BUY", "0.2", "50000")

    trade(long, short, "SELL", "0.1", "51000")

    assert "50000.00000000" == entry_price_text(long.position(BTC))
    # (10,000 + 5 − 5,100 + 2.55) / 0.1
    assert "49075.50000000" == break_even_text(long.position(BTC))


def test_a_position_that_turned_round_starts_anew(venue: Venue) -> None:
    """Of the trade that turned it the part that opened counts, with its part of the fee."""
    one, two = venue.account("100000"), venue.account("100000")
    trade(one, two, "BUY", "0.1", "50000")

    trade(one, two, "SELL", "0.3", "51000")

    assert "50974.50000000" == break_even_text(one.position(BTC))
    trade(one, two, "BUY", "0.2", "40000")
    assert "0.00000000" == break_even_text(one.position(BTC))
    trade(one, two, "BUY", "0.1", "50000")
    assert "50025.00000000" == break_even_text(one.position(BTC))
