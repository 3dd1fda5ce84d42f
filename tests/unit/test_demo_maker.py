"""The house market maker's ladder: both sides around the index, leaning against its inventory."""

from decimal import Decimal

from exchange.client import Contract
from exchange.maker import MakerSettings, Quote, ladder

CONTRACT = Contract(
    symbol="BTCUSDT",
    tick=Decimal("0.1"),
    step=Decimal("0.001"),
    max_quantity=Decimal(1_000),
    min_notional=Decimal(50),
)
SETTINGS = MakerSettings(
    levels=2,
    level_notional=Decimal(10_000),
    half_spread=Decimal("0.001"),
    level_gap=Decimal("0.001"),
    lean_max=Decimal("0.01"),
    inventory_max=Decimal(1_000_000),
)
INDEX = Decimal(100_000)


def _prices(quotes: tuple[Quote, ...], side: str) -> list[Decimal]:
    return [Decimal(quote.price) for quote in quotes if quote.side == side]


def test_flat_maker_quotes_evenly_around_the_index() -> None:
    """Without inventory, bids and asks are the same distances from the index and of the same worth."""
    assert (
        Quote("BUY", "99900.0", "0.100"),
        Quote("BUY", "99800.0", "0.100"),
        Quote("SELL", "100100.0", "0.099"),
        Quote("SELL", "100200.0", "0.099"),
    ) == ladder(CONTRACT, INDEX, Decimal(0), SETTINGS)


def test_long_maker_leans_down_and_buys_less() -> None:
    """Half of the inventory bound held long: half the lean down, half the size of bids, asks in full."""
    quotes = ladder(CONTRACT, INDEX, Decimal(5), SETTINGS)

    assert [Decimal("99400.5"), Decimal("99301.0")] == _prices(quotes, "BUY")
    assert [Decimal("99599.5"), Decimal("99699.0")] == _prices(quotes, "SELL")
    assert ["0.050", "0.050", "0.100", "0.100"] == [quote.quantity for quote in quotes]


def test_maker_at_its_bound_adds_nothing() -> None:
    """At the bound and beyond it only the side that brings inventory home is quoted."""
    for inventory in (Decimal(-10), Decimal(-50)):
        quotes = ladder(CONTRACT, INDEX, inventory, SETTINGS)
        assert {"BUY"} == {quote.side for quote in quotes}


def test_prices_keep_off_the_index_when_rounded() -> None:
    """Bids round down and asks up to the tick."""
    quotes = ladder(CONTRACT, Decimal("100000.07"), Decimal(0), SETTINGS)

    assert Decimal("99900.0") == _prices(quotes, "BUY")[0]
    assert Decimal("100100.1") == _prices(quotes, "SELL")[0]


def test_size_below_the_contract_is_left_out() -> None:
    """A level that is worth less than the smallest order is not quoted."""
    tiny = MakerSettings(level_notional=Decimal(60))

    assert () == ladder(CONTRACT, INDEX, Decimal(0), tiny)
