"""Marks, derived a second time: index, views and mark of every index update, from what the log has of them.

    index = median of the sources that are neither too old nor outlying
    mark  = median(index × (1 + rate × time left / interval), index + average(mid − index), last trade),
            within index ± band; a missing input is replaced by the index, prices are rounded down to ticks

(see DESIGN, mark price). Given are the prices that the sources said, and the facts of the state: the best
prices of the book, the last trade, the funding rate settled last, the average before.
"""

from fractions import Fraction
from math import floor

from events.events import MarkPriceChanged
from events.values import IndexSource, MarketSpec, SourceFault
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.audit.ranks import require

_RATE_UNIT = Fraction(1, 10**8)
_AVERAGE_UNIT = Fraction(1, 65_536)
_AVERAGE_UPDATES = 30
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


class Marks:
    """Checks the marks of a state. `wrong` are the entries of those that are not what they should be, now."""

    def __init__(self, state: Exchange) -> None:
        self.wrong: dict[str, int] = {}
        self._state = state

    def check(self, event: MarkPriceChanged) -> None:
        """Check an update against the state it meets.

        Raises:
            BreachError: index or mark are not what their inputs make, or an input is not the state's.
        """
        self.wrong[event.market] = self._state.seq
        _check_sources(event, self._state.markets[event.market].spec, self._state.now_ns)
        _check_views(event, self._state.markets[event.market], self._state.now_ns)
        del self.wrong[event.market]


def _check_sources(event: MarkPriceChanged, spec: MarketSpec, now_ns: int) -> None:
    """Check which sources were left out, and that the index is the median of the others."""
    said: list[tuple[IndexSource, SourceFault | None]] = [(source, None) for source in event.sources]
    said += [(row.source, row.fault) for row in event.left_out]
    fresh = [source for source, _ in said if not _is_old(source, spec, now_ns)]
    middle = _median([source.price_ticks for source in fresh])
    for source, fault in said:
        made = None
        if _is_old(source, spec, now_ns):
            made = SourceFault.STALE
        elif spec.source_band and abs(source.price_ticks - middle) > middle * spec.source_band * _RATE_UNIT:
            made = SourceFault.OUTLYING
        what = f"{event.market}: source {source.source!r} is {_named(fault)}, it should be {_named(made)}"
        require(fault is made, what, "necessary")
    _equal(event, "index", event.index_ticks, _median([source.price_ticks for source in event.sources]))


def _check_views(event: MarkPriceChanged, market: Market, now_ns: int) -> None:
    """Check the three views and what is made of them."""
    spec, index = market.spec, event.index_ticks
    bid, ask = market.book.best_bid_ticks, market.book.best_ask_ticks
    _equal(event, "best bid", event.bid_ticks, bid)
    _equal(event, "best ask", event.ask_ticks, ask)
    _equal(event, "funding rate", event.funding_rate, market.funding_rate)
    interval_ns = spec.funding_interval_s * _NS_PER_S
    boundary_ns = market.next_funding_ns
    if not boundary_ns and interval_ns:
        boundary_ns = (now_ns // interval_ns + 1) * interval_ns
    _equal(event, "next funding", event.next_funding_ns, boundary_ns)
    left = Fraction(max(0, boundary_ns - now_ns), interval_ns) if interval_ns else Fraction(0)
    view = max(1, floor(index * (1 + market.funding_rate * _RATE_UNIT * left)))
    _equal(event, "funding view", event.funding_ticks, view)
    basis = (Fraction(bid + ask, 2) - index) / _AVERAGE_UNIT if bid and ask else Fraction(0)
    average = market.basis_average + floor((basis - market.basis_average) / _AVERAGE_UPDATES)
    _equal(event, "average basis", event.basis_average, average)
    _equal(event, "basis view", event.basis_ticks, max(1, index + floor(average * _AVERAGE_UNIT)))
    _equal(event, "last trade", event.last_ticks, market.last_ticks or index)
    width = floor(index * spec.mark_band * _RATE_UNIT)
    middle = _median([event.funding_ticks, event.basis_ticks, event.last_ticks])
    _equal(event, "mark", event.mark_ticks, min(max(middle, index - width), index + width))


def _equal(event: MarkPriceChanged, name: str, said: int, made: int) -> None:
    require(said == made, f"{event.market}: the {name} is {said}, its inputs make {made}", "necessary")


def _is_old(source: IndexSource, spec: MarketSpec, now_ns: int) -> bool:
    age_ns_max = spec.source_age_ms_max * _NS_PER_MS
    return age_ns_max > 0 and source.time_ns != 0 and now_ns - source.time_ns > age_ns_max


def _median(prices: list[int]) -> int:
    """Return the middle price, of an even number the mean of the middle two, rounded down; 0 of none."""
    if not prices:
        return 0
    ordered = sorted(prices)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


def _named(fault: SourceFault | None) -> str:
    return "used" if fault is None else f"left out as {fault.name.lower()}"
