"""The index: which sources make it, what their median is, and when it is too old to act on."""

import pytest

from events.commands import SetIndexPrice
from events.events import (
    ConditionalRejected,
    Event,
    LiquidationSkipped,
    LiquidationStarted,
    MarkPriceChanged,
)
from events.values import IndexSource, LeftOutSource, RejectCode, SourceFault
from exchange.aggregate.index import index_is_stale
from tests.venue import NS_PER_MS, Trader, Venue, only, order_id, refusal, refused_by, spec

BTC = "BTCUSDT"
SECOND = 1_000


def quote(name: str, price_ticks: int, time_ns: int = 0) -> IndexSource:
    """Return one source's price."""
    return IndexSource(source=name, price_ticks=price_ticks, raw="", time_ns=time_ns)


def report(venue: Venue, *sources: IndexSource) -> list[Event]:
    """Report several sources' prices at once."""
    return venue.send(SetIndexPrice(market=BTC, sources=sources))


def market(**changes: object) -> Venue:
    """Return a venue with one market."""
    return Venue(specs=(spec(BTC, **changes),))


def is_stale(venue: Venue) -> bool:
    """Whether the index is too old at the venue's time."""
    return index_is_stale(venue.state.markets[BTC], venue.state.now_ns)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [((500,), 500), ((500, 400), 450), ((500, 401), 450), ((1, 500, 900), 500), ((9, 1, 6, 2), 4)],
)
def test_the_index_is_the_median(prices: tuple[int, ...], expected: int) -> None:
    """The middle price; of an even count the mean of the middle two, rounded down."""
    sources = [quote(str(n), price) for n, price in enumerate(prices)]
    changed = only(MarkPriceChanged, report(market(), *sources))

    assert expected == changed.index_ticks
    assert (tuple(sources), ()) == (changed.sources, changed.left_out)


def test_a_source_that_stopped_is_left_out() -> None:
    """A source older than allowed is named and not used; at the limit, or without a time, it counts."""
    venue = market(source_age_ms_max=5 * SECOND)
    now_ns = venue.now_ns + NS_PER_MS
    at_limit = quote("at limit", 500, now_ns - 5 * SECOND * NS_PER_MS)
    too_old = quote("too old", 900, at_limit.time_ns - 1)
    timeless = quote("timeless", 700)

    changed = only(MarkPriceChanged, report(venue, at_limit, too_old, timeless))

    assert now_ns == venue.state.now_ns
    assert (600, (at_limit, timeless)) == (changed.index_ticks, changed.sources)
    assert (LeftOutSource(source=too_old, fault=SourceFault.STALE),) == changed.left_out


def test_without_a_limit_no_source_is_too_old() -> None:
    """A limit of 0 uses every source, whatever time it gives."""
    changed = only(MarkPriceChanged, report(market(), quote("a", 400, 1), quote("b", 600, -1)))

    assert (500, ()) == (changed.index_ticks, changed.left_out)


def test_an_outlier_is_left_out() -> None:
    """A price further than the band from the median is not used; one at the band's edge is."""
    venue = market(source_band=1_000_000)
    edge, middle, beyond = quote("edge", 9_900), quote("middle", 10_000), quote("beyond", 10_101)

    changed = only(MarkPriceChanged, report(venue, edge, middle, beyond))

    assert (9_950, (edge, middle)) == (changed.index_ticks, changed.sources)
    assert (LeftOutSource(source=beyond, fault=SourceFault.OUTLYING),) == changed.left_out


def test_stale_sources_do_not_say_who_is_an_outlier() -> None:
    """Two stopped sources cannot outvote the living one."""
    venue = market(source_band=1_000_000, source_age_ms_max=SECOND)

    changed = only(MarkPriceChanged, report(venue, quote("a", 500, 1), quote("b", 500, 1), quote("c", 900)))

    assert 900 == changed.index_ticks
    assert [SourceFault.STALE] * 2 == [left.fault for left in changed.left_out]


def test_no_usable_source_is_refused_with_the_rule() -> None:
    """Where every source is left out there is no index, and the refusal names the limit."""
    venue = market(source_band=1_000_000, source_age_ms_max=SECOND)

    assert (
        RejectCode.BAD_PRICE,
        "sources: all are older than source_age_ms_max 1000",
    ) == refused_by(report(venue, quote("a", 500, 1)))
    assert (
        RejectCode.BAD_PRICE,
        "sources: none is within source_band 1000000 of their median 700 ticks",
    ) == refused_by(report(venue, quote("a", 500), quote("b", 900)))


def trading(**changes: object) -> tuple[Venue, Trader, Trader]:
    """Return a venue whose index may be 10 s old and needs 2 updates to recover; alice is long, bob short."""
    venue = market(index_age_ms_max=10 * SECOND, index_recovery_updates=2, **changes)
    venue.index(BTC, "50000")
    alice, bob = venue.account("100000"), venue.account("100000")
    alice.buy(BTC, "1", "50000")
    bob.sell(BTC, "1", "50000")
    return venue, alice, bob


def test_an_index_grows_stale_and_recovers() -> None:
    """After a silence two updates must come in time; the one that ends the silence is not one of them."""
    venue, _, _ = trading()
    assert not is_stale(venue)

    venue.after(11 * SECOND)
    assert is_stale(venue)
    found = []
    for _ in range(3):
        changed = only(MarkPriceChanged, venue.index(BTC, "50000"))
        found.append((changed.index_wait, is_stale(venue)))

    assert [(2, True), (1, True), (0, False)] == found


def test_a_second_silence_starts_the_count_again() -> None:
    """Recovery needs updates in a row, each within the age of the one before."""
    venue, _, _ = trading()
    venue.after(11 * SECOND)
    venue.index(BTC, "50000")
    venue.index(BTC, "50000")
    venue.after(11 * SECOND)

    assert 2 == only(MarkPriceChanged, venue.index(BTC, "50000")).index_wait


def test_an_index_at_the_limit_is_not_stale() -> None:
    """The age allowed is still in time."""
    venue, _, _ = trading()
    since_ns = venue.state.now_ns - venue.state.markets[BTC].index_ns

    venue.after(10 * SECOND - since_ns // NS_PER_MS)
    assert not is_stale(venue)
    venue.after(1)
    assert is_stale(venue)


def test_a_limit_of_zero_never_grows_stale() -> None:
    """A price set by hand stays good for as long as nobody sets another."""
    venue = market()
    venue.index(BTC, "50000")
    venue.after(1_000_000 * SECOND)

    assert not is_stale(venue)


def test_a_stale_index_blocks_what_opens_and_nothing_else() -> None:
    """Opening and growing are refused; reducing and cancelling go on, by either side."""
    venue, alice, bob = trading()
    resting = order_id(alice.buy(BTC, "0.1", "49000"))
    venue.after(11 * SECOND)

    assert RejectCode.STALE_INDEX == refusal(alice.buy(BTC, "0.1", "50000"))
    assert RejectCode.STALE_INDEX == refusal(alice.sell(BTC, "1.1", "50000"))
    assert RejectCode.STALE_INDEX == refusal(alice.amend(BTC, resting, "0.2", "49000"))

    offered = order_id(alice.sell(BTC, "0.5", "50000"))
    bob.buy(BTC, "0.5", "50000", reduce_only=True)
    alice.cancel(BTC, resting)

    assert offered not in alice.account.orders
    assert (500, -500) == (alice.position(BTC).size_lots, bob.position(BTC).size_lots)
    assert not alice.account.orders


def test_nobody_is_liquidated_at_a_stale_index() -> None:
    """A long that the update after a silence ruins is asked for in vain, until two more updates have come."""
    venue, _, bob = trading()
    carol = venue.account("1000")
    carol.buy(BTC, "0.1", "50000")
    bob.sell(BTC, "0.1", "50000")
    venue.after(11 * SECOND)
    venue.index(BTC, "40000")

    assert "the index of BTCUSDT is stale" == only(LiquidationSkipped, venue.liquidate(carol)).reason

    venue.index(BTC, "40000")
    venue.index(BTC, "40000")
    assert carol.account_id == only(LiquidationStarted, venue.liquidate(carol)).account_id


def test_a_stop_that_triggers_at_a_stale_index_opens_nothing() -> None:
    """The update that ends a silence triggers what it reaches; an order that would open is refused then."""
    venue, alice, _ = trading()
    alice.conditional("STOP", "BUY", BTC, "0.1", "50500", watches="MARK")
    venue.after(11 * SECOND)

    refused = only(ConditionalRejected, venue.index(BTC, "51000"))

    assert (RejectCode.STALE_INDEX, "market: the index of BTCUSDT is stale") == (refused.code, refused.reason)


def test_the_way_to_a_state_does_not_matter() -> None:
    """Replaying the events gives the same digest, the staleness of the index included."""
    venue, _, _ = trading()
    venue.after(11 * SECOND)
    venue.index(BTC, "50000")

    assert venue.state.digest() == venue.replayed().digest()
    assert is_stale(venue)
