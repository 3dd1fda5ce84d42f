"""Shared by unit tests: a venue without fees, a trader, and somebody on the other side."""

import pytest

from tests.venue import Trader, Venue, spec


@pytest.fixture
def venue() -> Venue:
    """A venue without fees, with BTC at 50,000 and ETH at 3,000."""
    specs = tuple(spec(symbol, maker_fee=0, taker_fee=0) for symbol in ("BTCUSDT", "ETHUSDT"))
    venue = Venue(specs=specs, fund="100000")
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    return venue


@pytest.fixture
def alice(venue: Venue) -> Trader:
    """A trader with 10,000."""
    return venue.account("10000")


@pytest.fixture
def bob(venue: Venue) -> Trader:
    """Whoever is needed on the other side."""
    return venue.account("100000")
