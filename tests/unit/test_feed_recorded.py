"""Recorded candles as a price path: the path within a candle, alignment, and bad files."""

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from feed_markets import SPECS

from exchange.feed.recorded import RecordedSource, open_recorded
from exchange.feed.source import FeedError, PricePoint

HEADER = "datetime,open,high,low,close,volume"
REAL = Path(__file__).parents[3] / "shared" / "data" / "prices"
needs_real_prices = pytest.mark.skipif(
    not REAL.is_dir(), reason="the recorded prices of ../shared/data/prices are not here"
)


def write(file: Path, *rows: str, header: str = HEADER) -> str:
    """Write a candle file and return its path as a user would type it."""
    file.write_text("\n".join((header, *rows)) + "\n")
    return str(file)


def raws(points: list[PricePoint], symbol: str) -> list[str]:
    """Return the texts of a symbol's prices."""
    return [point.prices[symbol].raw for point in points]


def refusal(*arguments: str) -> str:
    """Return what is said when these files are refused."""
    with pytest.raises(FeedError) as caught:
        open_recorded(arguments, SPECS)
    return str(caught.value)


@pytest.fixture
def btc(tmp_path: Path) -> str:
    """Three five-minute candles of BTCUSDT: up, down, down to the same."""
    return write(
        tmp_path / "BTCUSDT_spot_5m_day.csv",
        "2025-10-10 00:00:00,100.0,110.0,90.0,105.0,1",
        "2025-10-10 00:05:00,105.0,108.0,80.0,85.05,1",
        "2025-10-10 00:10:00,85.0,86.0,84.0,85.0,1",
    )


def test_a_candle_visits_first_the_extreme_against_its_direction(btc: str) -> None:
    """A rising candle goes open, low, high, close; a falling one open, high, low, close."""
    points = list(open_recorded([btc], SPECS))

    assert ["100.0", "90.0", "110.0", "105.0"] == raws(points[:4], "BTCUSDT")
    assert ["105.0", "108.0", "80.0", "85.05"] == raws(points[4:8], "BTCUSDT")


def test_points_are_spread_evenly_over_time(btc: str) -> None:
    """Every point comes a quarter of a candle after the one before it, in UTC."""
    source = open_recorded([btc], SPECS)
    times = [point.time_ms for point in source]

    assert 1_760_054_400_000 == times[0]
    assert {75_000} == {later - earlier for earlier, later in pairwise(times)}
    assert 12 == source.length == len(times)


def test_prices_are_ticks_and_keep_their_text(btc: str) -> None:
    """A price off tick is rounded half-even; its text stays as it was."""
    last_of_fall = list(open_recorded([btc], SPECS))[7].prices["BTCUSDT"]

    assert (850, "85.05") == (last_of_fall.price_ticks, last_of_fall.raw)


def test_iterating_again_gives_the_same_points(btc: str) -> None:
    """A source is a path, not a stream that is used up."""
    source = open_recorded([btc], SPECS)
    assert list(source) == list(source)


def test_files_are_played_over_the_time_they_share(btc: str, tmp_path: Path) -> None:
    """Candles before the latest start and after the earliest end are left out."""
    eth = write(
        tmp_path / "ETHUSDT_x.csv",
        "2025-10-10 00:05:00,10,11,9,10,1",
        "2025-10-10 00:10:00,10,11,9,10,1",
        "2025-10-10 00:15:00,10,11,9,10,1",
    )
    source = open_recorded([btc, eth], SPECS)
    points = list(source)

    assert ("BTCUSDT", "ETHUSDT") == source.symbols
    assert 8 == len(points)
    assert "105.0" == points[0].prices["BTCUSDT"].raw
    assert {"BTCUSDT": (), "ETHUSDT": ()} == source.missing


def test_a_symbol_without_a_candle_keeps_its_last_price(btc: str, tmp_path: Path) -> None:
    """A gap in one file holds that symbol still, and the source says when."""
    eth = write(
        tmp_path / "ETHUSDT_x.csv",
        "2025-10-10 00:00:00,10,11,9,10.5,1",
        "2025-10-10 00:10:00,12,13,11,12,1",
        "2025-10-10 00:15:00,12,13,11,12,1",
    )
    source = open_recorded([btc, eth], SPECS)

    assert ["10.5"] * 4 == raws(list(source)[4:8], "ETHUSDT")
    assert {"BTCUSDT": (), "ETHUSDT": (1_760_054_700_000,)} == source.missing


def test_a_gap_at_the_beginning_keeps_the_price_from_before(btc: str, tmp_path: Path) -> None:
    """A symbol whose candle is missing where the shared time begins has the close of its candle before."""
    eth = write(
        tmp_path / "ETHUSDT_x.csv",
        "2025-10-09 23:50:00,7,8,7,7.5,1",
        "2025-10-09 23:55:00,8,9,8,8.5,1",
        "2025-10-10 00:05:00,10,11,9,10,1",
    )
    assert ["8.5"] * 4 == raws(list(open_recorded([btc, eth], SPECS))[:4], "ETHUSDT")


def test_gzip_and_timestamp_column_are_read(tmp_path: Path) -> None:
    """A .gz file is unpacked; the time may be called timestamp and carry microseconds or an offset."""
    file = tmp_path / "BTCUSDT_1m.csv.gz"
    with gzip.open(file, "wt") as text:
        text.write("timestamp,open,high,low,close,volume\n2022-01-19 02:00:00.000000+02:00,1,1,1,1,0\n")
        text.write("2022-01-19 00:01:00.000000,2,2,2,2,0\n\n")

    points = list(open_recorded([str(file)], SPECS))

    assert ["1"] * 4 + ["2"] * 4 == raws(points, "BTCUSDT")
    assert 1_642_550_400_000 == points[0].time_ms


def test_a_file_may_be_given_its_symbol(btc: str, tmp_path: Path) -> None:
    """SYMBOL=FILE overrides what the file is called."""
    named = Path(btc).rename(tmp_path / "BTC-PERP_1m.csv")
    assert ("ETHUSDT",) == open_recorded([f"ETHUSDT={named}"], SPECS).symbols


def test_a_file_name_without_a_listed_symbol_is_refused(btc: str, tmp_path: Path) -> None:
    """The refusal tells what is listed and how to say the symbol."""
    named = str(Path(btc).rename(tmp_path / "BTC-PERP_1m.csv"))

    assert (
        f"{named}: 'BTC-PERP' is no listed symbol (listed: BTCUSDT, ETHUSDT);"
        " say which symbol the file is for with SYMBOL=FILE"
    ) == refusal(named)
    assert "'DOGEUSDT' is no listed symbol" in refusal(f"DOGEUSDT={named}")


def test_two_files_for_one_symbol_are_refused(btc: str) -> None:
    """A symbol has one price at a time."""
    assert "BTCUSDT has another file already" in refusal(btc, btc)


@pytest.mark.parametrize(
    ("column", "complaint", "row"),
    [
        ("open", "'abc' is not a decimal number", "2025-10-10 00:05:00,abc,2,1,1,1"),
        ("open", "'' is not a decimal number", "2025-10-10 00:05:00,,2,1,1,1"),
        ("low", "'0' is not a positive price", "2025-10-10 00:05:00,1,2,0,1,1"),
        ("close", "'-1' is not a positive price", "2025-10-10 00:05:00,1,2,1,-1,1"),
        ("high", "1 is below low 2", "2025-10-10 00:05:00,1,1,2,1,1"),
        ("high", "2 is below close 3", "2025-10-10 00:05:00,1,2,1,3,1"),
        ("low", "2 is above open 1", "2025-10-10 00:05:00,1,3,2,2,1"),
        ("close", "the row ends before it", "2025-10-10 00:05:00,1,2,1"),
        ("7", "the header has only 6 columns", "2025-10-10 00:05:00,1,2,1,1,000,1"),
        ("datetime", "'noon' is not a time like", "noon,1,2,1,1,1"),
        ("datetime", "is not after the row before it", "2025-10-10 00:00:00,1,2,1,1,1"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(
    column: str, complaint: str, row: str, tmp_path: Path
) -> None:
    """Whoever mends the file is told where to look and what is wrong there."""
    file = write(tmp_path / "BTCUSDT_x.csv", "2025-10-10 00:00:00,1,2,1,1,1", row)
    message = refusal(file)

    assert f"{file}, line 3, column {column}: " in message
    assert complaint in message


def test_missing_columns_are_named(tmp_path: Path) -> None:
    """A header without what is needed is refused at once, with what it has."""
    file = write(tmp_path / "BTCUSDT_x.csv", header="time,open,high,close")
    assert (
        f"{file}, line 1: no column datetime or timestamp, low; found: time, open, high, close"
    ) == refusal(file)


def test_files_that_do_not_fit_together_are_refused(btc: str, tmp_path: Path) -> None:
    """Different candle lengths, shifted candles and no shared time are each told apart."""
    minute = write(
        tmp_path / "ETHUSDT_a.csv", "2025-10-10 00:00:00,1,2,1,1,1", "2025-10-10 00:01:00,1,2,1,1,1"
    )
    shifted = write(
        tmp_path / "ETHUSDT_b.csv", "2025-10-10 00:01:00,1,2,1,1,1", "2025-10-10 00:06:00,1,2,1,1,1"
    )
    later = write(
        tmp_path / "ETHUSDT_c.csv", "2025-10-11 00:00:00,1,2,1,1,1", "2025-10-11 00:05:00,1,2,1,1,1"
    )
    uneven = write(
        tmp_path / "ETHUSDT_d.csv",
        "2025-10-10 00:00:00,1,2,1,1,1",
        "2025-10-10 00:05:00,1,2,1,1,1",
        "2025-10-10 00:12:00,1,2,1,1,1",
    )

    assert "must be equally long" in refusal(btc, minute)
    assert "their starts never coincide" in refusal(btc, shifted)
    assert "no time in common" in refusal(btc, later)
    assert "not a multiple of 300000 ms" in refusal(uneven)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """No file, a damaged archive, a truncated one, foreign bytes, too few rows: all say which file."""
    damaged = tmp_path / "BTCUSDT_a.csv.gz"
    damaged.write_bytes(b"not gzip")
    truncated = tmp_path / "BTCUSDT_b.csv.gz"
    truncated.write_bytes(gzip.compress(f"{HEADER}\n2025-10-10 00:00:00,1,2,1,1,1\n".encode())[:-4])
    foreign = tmp_path / "BTCUSDT_c.csv"
    foreign.write_bytes(b"\xff\xfe\x00")
    single = write(tmp_path / "BTCUSDT_d.csv", "2025-10-10 00:00:00,1,2,1,1,1")

    for file in (tmp_path / "BTCUSDT_none.csv", tmp_path, damaged, truncated, foreign):
        assert f"{file}: cannot be read: " in refusal(f"BTCUSDT={file}")
    assert f"{single}: candles: 1; two are needed" in refusal(single)
    assert "no candle files given" == refusal()


@needs_real_prices
def test_the_real_crash_of_october_2025_is_in_the_path() -> None:
    """Both five-minute files align without gaps and reach the lows of that night."""
    source = open_recorded([str(file) for file in sorted(REAL.glob("*_spot_5m_2025-10-09_12.csv.gz"))], SPECS)
    points = list(source)

    assert 4 * 1152 == len(points)
    assert {"BTCUSDT": (), "ETHUSDT": ()} == source.missing
    assert 1_020_000 == min(point.prices["BTCUSDT"].price_ticks for point in points)
    assert 343_500 == min(point.prices["ETHUSDT"].price_ticks for point in points)


@needs_real_prices
def test_a_real_file_under_another_name_needs_its_symbol() -> None:
    """The file of another venue plays once it is said what it stands for."""
    file = REAL / "BTC-PERP_1m_2022-01-19_25.csv.gz"
    source = open_recorded([f"BTCUSDT={file}"], SPECS)

    assert isinstance(source, RecordedSource)
    assert 4 * 10_080 == source.length
    assert "SYMBOL=FILE" in refusal(str(file))
