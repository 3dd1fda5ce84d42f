"""The price path of a demonstration: a crash, generated or recorded, made to fit its time.

A few points a second are what traders and market maker can follow. A recorded file has far more than fit,
so the stretch around its steepest fall is played, in full detail and at one speed; nothing is thinned out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

from events.values import MarketSpec
from exchange.feed import FeedError, PricePoint, PriceSource, open_crash, open_recorded

POINTS_PER_S = 12
STEPS_MIN = 100
# How many points a fall takes when the steepest is looked for, and where in the stretch it ends.
FALL_POINTS = 16
FALL_AT = 0.6


class Stretch:
    """`count` points of a finite source from number `first` on; a `PriceSource`."""

    def __init__(self, source: PriceSource, first: int, count: int) -> None:
        self.name = source.name
        self.symbols = source.symbols
        self.length = count
        self._source = source
        self._first = first

    def __iter__(self) -> Iterator[PricePoint]:
        """Give the points, on the source's own clock."""
        return islice(iter(self._source), self._first, self._first + self.length)


def open_path(
    specs: Mapping[str, MarketSpec], files: Sequence[str], *, seed: int, duration_s: float
) -> PriceSource:
    """Return a path of about `POINTS_PER_S` × `duration_s` points: from candle files, else the seeded crash.

    Raises:
        FeedError: a file cannot be used (see `open_recorded`), or the files lack a listed market.
    """
    count = max(STEPS_MIN, round(duration_s * POINTS_PER_S))
    if not files:
        return open_crash(specs, seed=seed, steps=count)
    source = open_recorded(files, specs)
    missing = sorted(set(specs) - set(source.symbols))
    if missing:
        raise FeedError(f"the demo needs prices of every market; there is no file for {', '.join(missing)}")
    points = list(source)
    if len(points) <= count:
        return source
    return Stretch(source, first_of_stretch(points, count), count)


def first_of_stretch(points: Sequence[PricePoint], count: int) -> int:
    """Return where a stretch of `count` points begins that has the steepest fall at `FALL_AT` of it.

    The fall is that of all symbols together, Σ ln(price / price `FALL_POINTS` before).
    """
    levels = [sum(math.log(price.price_ticks) for price in point.prices.values()) for point in points]
    if len(points) <= FALL_POINTS:
        return 0
    end = min(range(FALL_POINTS, len(points)), key=lambda i: levels[i] - levels[i - FALL_POINTS])
    return max(0, min(len(points) - count, end - round(count * FALL_AT)))


def speed_of(source: PriceSource, duration_s: float) -> float:
    """Return the source seconds per real second that play a finite path in `duration_s`."""
    points = list(source)
    return (points[-1].time_ms - points[0].time_ms) / 1_000 / duration_s


def describe_path(source: PriceSource) -> str:
    """Say in a line what a finite path is: where from, how many points, how far each symbol falls."""
    points = list(source)
    falls = ", ".join(
        f"{symbol} {_fall([point.prices[symbol].price_ticks for point in points]):.1%}"
        for symbol in source.symbols
    )
    start, end = points[0].time_ms, points[-1].time_ms
    when = ""
    # A generated path counts from zero; a recorded one has dates.
    if start > 0:
        begin, finish = (datetime.fromtimestamp(ms / 1_000, UTC) for ms in (start, end))
        when = f", {begin:%Y-%m-%d %H:%M} to {finish:%Y-%m-%d %H:%M} UTC"
    return f"{source.name}, {len(points)} points{when}; falls from its peak by {falls}"


def _fall(ticks: Sequence[int]) -> float:
    """Return the largest fall from a peak to a later low, as a fraction of the peak."""
    peak, deepest = ticks[0], 0.0
    for price_ticks in ticks:
        peak = max(peak, price_ticks)
        deepest = max(deepest, 1 - price_ticks / peak)
    return deepest
