"""The price path of a demonstration fits its time and holds the crash."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest

from exchange.demo.prices import POINTS_PER_S, describe_path, first_of_stretch, open_path, speed_of
from exchange.feed import FeedError, Price, PricePoint
from exchange.intake.specs import DEFAULT_SPECS

SPECS = {spec.symbol: spec for spec in DEFAULT_SPECS}
CANDLES = 400
CRASH_CANDLE = 250


def _write_candles(folder: Path, symbol: str, price: float) -> str:
    """Write candles of 5 minutes that stand still but for one, which loses a tenth."""
    rows = ["datetime,open,high,low,close"]
    for candle in range(CANDLES):
        day, minute = divmod(candle * 5, 24 * 60)
        close = price * 0.9 if candle == CRASH_CANDLE else price
        rows.append(
            f"2025-10-{9 + day:02d} {minute // 60:02d}:{minute % 60:02d}:00,{price},{price},{close},{close}"
        )
        price = close
    file = folder / f"{symbol}_5m.csv.gz"
    file.write_bytes(gzip.compress("\n".join(rows).encode()))
    return str(file)


def _points(*btc_ticks: int) -> list[PricePoint]:
    return [
        PricePoint(time_ms=1_000 * i, prices={"BTCUSDT": Price(ticks, str(ticks))})
        for i, ticks in enumerate(btc_ticks)
    ]


def test_generated_path_has_the_points_that_fit_its_time() -> None:
    """Twelve points a second, whatever the duration."""
    path = open_path(SPECS, [], seed=1, duration_s=20)

    assert 20 * POINTS_PER_S == path.length == len(list(path))


def test_generated_path_is_repeated_by_its_seed() -> None:
    """The same seed gives the same prices, another seed others."""
    first, again, other = (list(open_path(SPECS, [], seed=seed, duration_s=10)) for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_short_time_keeps_the_wick() -> None:
    """A path never has fewer points than the crash needs to show its wick."""
    assert 100 == open_path(SPECS, [], seed=1, duration_s=1).length


def test_recorded_path_is_the_stretch_around_the_steepest_fall(tmp_path: Path) -> None:
    """Of files longer than the time, the part with the crash is played, every point of it."""
    files = [_write_candles(tmp_path, "BTCUSDT", 100_000), _write_candles(tmp_path, "ETHUSDT", 4_000)]

    path = open_path(SPECS, files, seed=1, duration_s=25)
    points = list(path)

    assert 25 * POINTS_PER_S == path.length == len(points)
    assert {75_000} == {after.time_ms - before.time_ms for before, after in pairwise(points)}
    assert {"100000", "90000.0"} == {point.prices["BTCUSDT"].raw for point in points}


def test_short_recorded_files_are_played_whole(tmp_path: Path) -> None:
    """Files with fewer points than the time has room for are not cut."""
    files = [_write_candles(tmp_path, "BTCUSDT", 100_000), _write_candles(tmp_path, "ETHUSDT", 4_000)]

    assert 4 * CANDLES == open_path(SPECS, files, seed=1, duration_s=1_000).length


def test_every_market_needs_a_file(tmp_path: Path) -> None:
    """With a file for one market only the other would stand still; that is refused by name."""
    with pytest.raises(FeedError, match="ETHUSDT"):
        open_path(SPECS, [_write_candles(tmp_path, "BTCUSDT", 100_000)], seed=1, duration_s=10)


def test_stretch_stays_within_the_points() -> None:
    """A fall at the very end leaves the last points, one at the beginning the first."""
    late = _points(*[1_000] * 90, *[500] * 10)
    early = _points(1_000, *[500] * 99)

    assert 60 == first_of_stretch(late, 40)
    assert 0 == first_of_stretch(early, 40)


def test_speed_plays_a_path_in_its_duration() -> None:
    """100 points a second apart last 99 s of their own time; in 10 s that is 9.9 times as fast."""
    path = open_path(SPECS, [], seed=1, duration_s=1)

    assert 9.9 == pytest.approx(speed_of(path, 10.0))


def test_description_tells_how_far_prices_fall(tmp_path: Path) -> None:
    """The line shown to people has the dates of recorded prices and the fall of each symbol."""
    files = [_write_candles(tmp_path, "BTCUSDT", 100_000), _write_candles(tmp_path, "ETHUSDT", 4_000)]

    text = describe_path(open_path(SPECS, files, seed=1, duration_s=1_000))

    assert "BTCUSDT 10.0%, ETHUSDT 10.0%" in text
    assert "2025-10-09 00:00 to 2025-10-10 09:18 UTC" in text
