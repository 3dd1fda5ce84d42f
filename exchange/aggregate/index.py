"""The index: what the underlying costs elsewhere, and whether that is known well enough to act on.

    index = median of the sources that are neither stale nor outlying

A source that has stopped keeps its last price for ever, and one that is broken says anything; both are left
out before the median is taken, and the event names them. Age comes first: a source that stopped must not
help to decide which of the living ones is an outlier.

An index that is older than its market allows is *stale*: nobody is liquidated by it and nobody may open
anything at it, until enough updates have come in time again. Reducing and cancelling go on.

Source: Binance, "Mark Price and Price Index", protective measures.
"""

from events.values import IndexSource, LeftOutSource, RejectCode, SourceFault
from exchange.aggregate.market import Market
from exchange.aggregate.turn import Refused
from exchange.aggregate.units import RATE_ONE, floor_div

SOURCES_MAX = 32
NS_PER_MS = 1_000_000


class Index:
    """An index price in ticks, the sources it is the median of, and those left out."""

    __slots__ = ("left_out", "ticks", "used")

    def __init__(self, ticks: int, used: list[IndexSource], left_out: list[LeftOutSource]) -> None:
        self.ticks = ticks
        self.used = used
        self.left_out = left_out


def index_of(market: Market, sources: tuple[IndexSource, ...], now_ns: int) -> Index:
    """Return the index that source prices make at a time, or refuse them.

    Refused are too many or no sources, a price outside the market's range, and sources that are all left out.
    """
    _check_sources(market, sources)
    spec = market.spec
    used: list[IndexSource] = []
    left_out: list[LeftOutSource] = []
    for source in sources:
        if _is_old(source, spec.source_age_ms_max, now_ns):
            left_out.append(LeftOutSource(source=source, fault=SourceFault.STALE))
        else:
            used.append(source)
    if not used:
        raise Refused(
            RejectCode.BAD_PRICE, f"sources: all are older than source_age_ms_max {spec.source_age_ms_max}"
        )
    if spec.source_band:
        fresh, used = used, []
        middle = median([source.price_ticks for source in fresh])
        for source in fresh:
            if abs(source.price_ticks - middle) * RATE_ONE > middle * spec.source_band:
                left_out.append(LeftOutSource(source=source, fault=SourceFault.OUTLYING))
            else:
                used.append(source)
        if not used:
            raise Refused(
                RejectCode.BAD_PRICE,
                f"sources: none is within source_band {spec.source_band} of their median {middle} ticks",
            )
    return Index(median([source.price_ticks for source in used]), used, left_out)


def median(values: list[int]) -> int:
    """Return the middle value; of an even count, the mean of the middle two, rounded down."""
    assert values, "no values"
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return floor_div(ordered[half - 1] + ordered[half], 2)


def index_is_stale(market: Market, now_ns: int) -> bool:
    """Whether nobody may open anything or be liquidated at a market's index.

    So it is once the index is older than `index_age_ms_max`, and until `index_recovery_updates` have come in
    time. A market without an index has no mark either; it is not stale.
    """
    age_ms_max = market.spec.index_age_ms_max
    if age_ms_max == 0 or market.index_ns == 0:
        return False
    return market.index_wait > 0 or now_ns - market.index_ns > age_ms_max * NS_PER_MS


def wait_after_update(market: Market, now_ns: int) -> int:
    """Return how many updates must still come in time after one at `now_ns`, 0 when the index is good.

    The update that ends a silence shows only that there was one. An update at the very time of the one
    before it does not count either: a source that comes back may send all it has missed at once.
    """
    age_ms_max = market.spec.index_age_ms_max
    if age_ms_max == 0 or market.index_ns == 0:
        return 0
    age_ns = now_ns - market.index_ns
    if age_ns > age_ms_max * NS_PER_MS:
        return market.spec.index_recovery_updates
    return market.index_wait - 1 if market.index_wait and age_ns else market.index_wait


def _is_old(source: IndexSource, age_ms_max: int, now_ns: int) -> bool:
    """Whether a source that says when its price was does not follow the present any more."""
    return age_ms_max > 0 and source.time_ns != 0 and now_ns - source.time_ns > age_ms_max * NS_PER_MS


def _check_sources(market: Market, sources: tuple[IndexSource, ...]) -> None:
    spec = market.spec
    if not 1 <= len(sources) <= SOURCES_MAX:
        raise Refused(RejectCode.BAD_PRICE, f"sources: {len(sources)} given, 1…{SOURCES_MAX} allowed")
    for source in sources:
        if not spec.min_price_ticks <= source.price_ticks <= spec.max_price_ticks:
            bounds = f"{spec.min_price_ticks}…{spec.max_price_ticks}"
            raise Refused(
                RejectCode.BAD_PRICE,
                f"sources: {source.source!r} says {source.price_ticks} ticks, outside {bounds}",
            )
