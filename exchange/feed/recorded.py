"""Recorded candles as a price path: CSV or CSV.gz files, one symbol each, aligned in time.

Columns `datetime` or `timestamp` (ISO 8601, UTC unless it names an offset), `open`, `high`, `low`, `close`;
others are ignored. A candle says where a price went, not when. Its path here is open, the extreme that lies
against its direction, the other extreme, close, a quarter of the candle apart: a rising candle visits its
low first. The real order within a candle is unknown, and this one makes neither extreme up.

Several files are played together over the time that all of them cover. Where one of them has no candle that
another has, its price stays where it was, and `RecordedSource.missing` says so.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import IO

import structlog

from events.values import MarketSpec
from exchange.feed.source import FeedError, Price, PricePoint, round_to_ticks

POINTS_PER_CANDLE = 4
_TIME_COLUMNS = ("datetime", "timestamp")
_PRICE_COLUMNS = ("open", "high", "low", "close")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_log = structlog.get_logger(__name__)

PricePath = tuple[Price, Price, Price, Price]


@dataclass(frozen=True, slots=True)
class CandleFile:
    """One symbol's candles: start in ms since 1970, ascending → path of four prices; and their length."""

    file: Path
    symbol: str
    interval_ms: int
    paths: Mapping[int, PricePath]
    first_ms: int
    last_ms: int


class RecordedSource:
    """Candle files played together; a `PriceSource` of four points a candle.

    `missing` tells, for each symbol, the candle starts (ms since 1970) at which it had none and kept its
    last price.
    """

    name = "recorded"

    def __init__(self, files: Sequence[CandleFile]) -> None:
        """Align the files.

        Raises:
            FeedError: no files, candles of different lengths or offsets, or no time that all files cover.
        """
        if not files:
            raise FeedError("no candle files given")
        _check_same_grid(files)
        self.symbols = tuple(file.symbol for file in files)
        self.interval_ms = files[0].interval_ms
        self._files = tuple(files)
        first_ms = max(file.first_ms for file in files)
        last_ms = min(file.last_ms for file in files)
        if first_ms > last_ms:
            spans = "; ".join(f"{f.file.name}: {_utc(f.first_ms)} to {_utc(f.last_ms)}" for f in files)
            raise FeedError(f"the candle files have no time in common: {spans}")
        starts = {start for file in files for start in file.paths if first_ms <= start <= last_ms}
        self._starts = tuple(sorted(starts))
        self.missing = {
            file.symbol: tuple(start for start in self._starts if start not in file.paths) for file in files
        }

    @property
    def length(self) -> int:
        """How many points there are."""
        return len(self._starts) * POINTS_PER_CANDLE

    def __iter__(self) -> Iterator[PricePoint]:
        """Give four points a candle, a quarter of its length apart, the first at its start."""
        closes = {file.symbol: _close_by(file, self._starts[0]) for file in self._files}
        for start in self._starts:
            paths: dict[str, PricePath] = {}
            for file in self._files:
                close = closes[file.symbol]
                paths[file.symbol] = path = file.paths.get(start, (close, close, close, close))
                closes[file.symbol] = path[-1]
            for i in range(POINTS_PER_CANDLE):
                time_ms = start + i * self.interval_ms // POINTS_PER_CANDLE
                yield PricePoint(time_ms=time_ms, prices={symbol: path[i] for symbol, path in paths.items()})


def open_recorded(arguments: Sequence[str], specs: Mapping[str, MarketSpec]) -> RecordedSource:
    """Read candle files, each given as FILE or SYMBOL=FILE, for markets of `specs` (symbol → spec).

    Without SYMBOL, the symbol is what stands before the first `_` of the file's name.

    Raises:
        FeedError: a file cannot be read, a row is bad (the message names file, line and column), a symbol
            is not listed or is given twice, or the files do not fit together.
    """
    files: list[CandleFile] = []
    for argument in arguments:
        symbol, file = _symbol_and_file(argument, specs)
        if any(symbol == other.symbol for other in files):
            raise FeedError(f"{argument}: {symbol} has another file already; give one a symbol")
        files.append(read_candles(file, symbol, specs[symbol].tick_size))
    source = RecordedSource(files)
    for symbol, starts in source.missing.items():
        if starts:
            _log.warning("candles_missing", symbol=symbol, candles=len(starts), first=_utc(starts[0]))
    return source


def read_candles(file: Path, symbol: str, tick_size: int) -> CandleFile:
    """Read one candle file; `tick_size` is 1e-8 quote.

    Raises:
        FeedError: the file cannot be read or holds a bad row; the message names file, line and column.
    """
    paths: dict[int, PricePath] = {}
    starts: list[int] = []
    try:
        with _open_text(file) as text:
            rows = csv.reader(text, strict=True)
            header = _read_header(file, next(rows, []))
            for fields in rows:
                if fields:
                    row = _Row(file, rows.line_num, fields, header)
                    start = _start_of(row, starts)
                    starts.append(start)
                    paths[start] = _path_of(row, tick_size)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise FeedError(f"{file}: cannot be read: {error}") from error
    if len(starts) < 2:
        raise FeedError(f"{file}: candles: {len(starts)}; two are needed to tell how long a candle is")
    return CandleFile(file, symbol, _interval_of(file, starts), paths, starts[0], starts[-1])


@dataclass(frozen=True, slots=True)
class _Header:
    """Which field of a row holds which column, and how many fields a row has."""

    time_column: str
    positions: Mapping[str, int]
    width: int


class _Row:
    """The fields of one row by column, with their place, so that every complaint can name it."""

    def __init__(self, file: Path, line: int, fields: list[str], header: _Header) -> None:
        self._file = file
        self._line = line
        self._fields = fields
        self.header = header
        if len(fields) > header.width:
            # Often a thousands separator: every field after it would be taken for its neighbour.
            raise self.error(str(header.width + 1), f"the header has only {header.width} columns")

    def __getitem__(self, column: str) -> str:
        position = self.header.positions[column]
        if position >= len(self._fields):
            raise self.error(column, "the row ends before it")
        return self._fields[position].strip()

    def error(self, column: str, what: str) -> FeedError:
        """Return the error that names this row and a column of it."""
        return FeedError(f"{self._file}, line {self._line}, column {column}: {what}")


def _open_text(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _read_header(file: Path, fields: list[str]) -> _Header:
    names = [field.strip().lower() for field in fields]
    time_column = next((name for name in _TIME_COLUMNS if name in names), None)
    missing = [name for name in _PRICE_COLUMNS if name not in names]
    if time_column is None:
        missing.insert(0, " or ".join(_TIME_COLUMNS))
    if time_column is None or missing:
        found = ", ".join(names) or "none"
        raise FeedError(f"{file}, line 1: no column {', '.join(missing)}; found: {found}")
    positions = {name: names.index(name) for name in (time_column, *_PRICE_COLUMNS)}
    return _Header(time_column, positions, len(names))


def _start_of(row: _Row, starts: list[int]) -> int:
    """Read a candle's start in ms since 1970, which must come after the one before it."""
    column = row.header.time_column
    text = row[column]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise row.error(column, f"{text!r} is not a time like 2025-10-10 21:20:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    start = (moment - _EPOCH) // timedelta(milliseconds=1)
    if starts and start <= starts[-1]:
        raise row.error(column, f"{text!r} is not after the row before it ({_utc(starts[-1])})")
    return start


def _path_of(row: _Row, tick_size: int) -> PricePath:
    """Read a candle's prices in the order in which its path visits them."""
    prices: dict[str, Price] = {}
    for column in _PRICE_COLUMNS:
        try:
            prices[column] = Price(round_to_ticks(row[column], tick_size), row[column])
        except ValueError as error:
            raise row.error(column, str(error)) from error
    first, high, low, close = (prices[column] for column in _PRICE_COLUMNS)
    # Compared as written: two prices may differ and still round to the same tick.
    exact = {column: Decimal(price.raw) for column, price in prices.items()}
    for column in ("low", "open", "close"):
        if exact["high"] < exact[column]:
            raise row.error("high", f"{high.raw} is below {column} {prices[column].raw}")
        if exact[column] < exact["low"]:
            raise row.error("low", f"{low.raw} is above {column} {prices[column].raw}")
    if exact["close"] >= exact["open"]:
        return first, low, high, close
    return first, high, low, close


def _interval_of(file: Path, starts: list[int]) -> int:
    """Return the shortest step between candles, of which every other step must be a multiple."""
    steps = [later - earlier for earlier, later in pairwise(starts)]
    interval_ms = min(steps)
    for start, step in zip(starts, steps, strict=False):
        if step % interval_ms:
            raise FeedError(
                f"{file}: {step} ms from {_utc(start)} to the next candle is not a multiple of"
                f" {interval_ms} ms, the shortest step in this file"
            )
    return interval_ms


def _check_same_grid(files: Sequence[CandleFile]) -> None:
    first = files[0]
    for file in files[1:]:
        if file.interval_ms != first.interval_ms:
            raise FeedError(
                f"{file.file} has candles of {file.interval_ms} ms and {first.file} of"
                f" {first.interval_ms} ms; they must be equally long"
            )
        if (file.first_ms - first.first_ms) % first.interval_ms:
            raise FeedError(
                f"{file.file} has candles from {_utc(file.first_ms)} and {first.file} from"
                f" {_utc(first.first_ms)}; their starts never coincide"
            )


def _close_by(file: CandleFile, start: int) -> Price:
    """Return the close of the last candle that starts at `start` or before."""
    assert file.first_ms <= start <= file.last_ms, start
    path = file.paths[max(candle for candle in file.paths if candle <= start)]
    return path[-1]


def _symbol_and_file(argument: str, specs: Mapping[str, MarketSpec]) -> tuple[str, Path]:
    named, separator, rest = argument.partition("=")
    if separator and "/" not in named:
        symbol, file = named, Path(rest)
    else:
        file = Path(argument)
        symbol = file.name.split("_")[0]
    if symbol not in specs:
        listed = ", ".join(sorted(specs)) or "none"
        raise FeedError(
            f"{argument}: {symbol!r} is no listed symbol (listed: {listed});"
            " say which symbol the file is for with SYMBOL=FILE"
        )
    return symbol, file


def _utc(time_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=time_ms)).strftime("%Y-%m-%d %H:%M:%S UTC")
