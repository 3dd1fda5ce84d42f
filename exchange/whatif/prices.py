"""Other prices: an index path from a file, moves made larger or smaller, a level shifted from an entry on."""

import csv
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import msgspec

from events.commands import SetIndexPrice
from events.events import Event, MarkPriceChanged
from events.values import IndexSource, MarketSpec
from exchange.decimals import parse_fixed, parse_money, price_text
from exchange.feed import round_to_ticks

ANY = "*"
NS_PER_S = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class PriceError(ValueError):
    """A price of the other run would not be one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePath:
    """A price path: at times in ns since 1970, or since the market's first recorded price; as texts."""

    is_relative: bool
    times_ns: tuple[int, ...]
    prices: tuple[str, ...]

    def at(self, time_ns: int, first_ns: int) -> str | None:
        """Return the price that holds at a time, None before the first."""
        n = bisect_right(self.times_ns, time_ns - first_ns if self.is_relative else time_ns)
        return self.prices[n - 1] if n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Every price from an entry on, by a fraction of itself or by an amount in money units."""

    fraction: Fraction
    amount: int
    from_seq: int


class Repricer:
    """Gives index updates their other prices. Maps are by market; what is under `*` holds for all others."""

    def __init__(
        self, paths: Mapping[str, PricePath], moves: Mapping[str, Fraction], shifts: Mapping[str, Shift]
    ) -> None:
        self._paths = paths
        self._moves = moves
        self._shifts = shifts
        self._first: dict[str, tuple[int, int]] = {}  # time in ns and ticks, as recorded

    def reprice(
        self, spec: MarketSpec, seq: int, now_ns: int, command: SetIndexPrice, recorded: list[Event]
    ) -> SetIndexPrice:
        """Return an index update of entry `seq` with the prices that it is to have.

        `recorded` are the events with which the recorded one was answered.

        Raises:
            PriceError: a price would not be positive.
        """
        symbol = spec.symbol
        for event in recorded:
            if isinstance(event, MarkPriceChanged):
                self._first.setdefault(symbol, (now_ns, event.index_ticks))
        if symbol not in self._first:
            return command
        first_ns, first_ticks = self._first[symbol]
        path = self._paths.get(symbol, self._paths.get(ANY))
        factor = self._moves.get(symbol, self._moves.get(ANY))
        shift = self._shifts.get(symbol, self._shifts.get(ANY))
        price = path.at(now_ns, first_ns) if path is not None else None
        sources = []
        for source in command.sources:
            ticks = Fraction(source.price_ticks)
            if price is not None:
                ticks = Fraction(round_to_ticks(price, spec.tick_size))
            if factor is not None:
                ticks = first_ticks + factor * (ticks - first_ticks)
            if shift is not None and seq >= shift.from_seq:
                ticks = ticks * (1 + shift.fraction) + Fraction(shift.amount, spec.tick_size)
            sources.append(_at(spec, source, round(ticks), seq))
        if tuple(sources) == command.sources:
            return command
        return msgspec.structs.replace(command, sources=tuple(sources))


def _at(spec: MarketSpec, source: IndexSource, price_ticks: int, seq: int) -> IndexSource:
    if price_ticks == source.price_ticks:
        return source
    if price_ticks < 1:
        raise PriceError(f"entry {seq}: the price of {spec.symbol} would not be positive")
    return msgspec.structs.replace(source, price_ticks=price_ticks, raw=price_text(spec, price_ticks))


def read_shift(value: str) -> Shift:
    """Read a shift, as in -3%@1200 or 50.

    Raises:
        ValueError: it is none.
    """
    size, at, entry = value.partition("@")
    if at and not (entry.isascii() and entry.isdigit()):
        raise ValueError("behind @ there must be the number of an entry")
    from_seq = int(entry) if at else 1
    if size.endswith("%"):
        percent = parse_fixed(size[:-1].removeprefix("+"), signed=True)
        if percent <= -100 * 10**8:
            raise ValueError("must leave a positive price")
        return Shift(fraction=Fraction(percent, 100 * 10**8), amount=0, from_seq=from_seq)
    amount = parse_money(size.removeprefix("+"), signed=True)
    return Shift(fraction=Fraction(0), amount=amount, from_seq=from_seq)


def read_path(file: str) -> PricePath:
    """Read rows of time,price: ISO times (UTC unless they say otherwise), or seconds since the first price.

    Raises:
        ValueError: a row is none; the message names the line.
        OSError: the file cannot be read.
    """
    times: list[int] = []
    prices: list[str] = []
    kinds: set[bool] = set()
    with Path(file).open(encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        if [name.strip().lower() for name in next(rows, [])] != ["time", "price"]:
            raise ValueError("line 1: the header must be time,price")
        for fields in rows:
            if not fields:
                continue
            line = rows.line_num
            if len(fields) != 2:
                raise ValueError(f"line {line}: must have two columns")
            is_relative, time_ns = _time(fields[0].strip(), line)
            kinds.add(is_relative)
            if times and time_ns <= times[-1]:
                raise ValueError(f"line {line}: time is not after the one before it")
            times.append(time_ns)
            price = fields[1].strip()
            try:
                round_to_ticks(price, 1)
            except ValueError as error:
                raise ValueError(f"line {line}: price {error}") from None
            prices.append(price)
    if not times:
        raise ValueError("has no prices")
    if len(kinds) > 1:
        raise ValueError("has both dates and seconds as times")
    return PricePath(is_relative=kinds.pop(), times_ns=tuple(times), prices=tuple(prices))


def _time(text: str, line: int) -> tuple[bool, int]:
    if _SECONDS.fullmatch(text):
        return True, int(Decimal(text) * NS_PER_S)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        what = f"{text[:40]!r} is neither a date like 2025-10-10T21:20:00 nor a number of seconds"
        raise ValueError(f"line {line}: {what}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return False, (moment - _EPOCH) // timedelta(microseconds=1) * 1_000
