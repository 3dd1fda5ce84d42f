"""What a price source is: points in time, each with a price of every symbol it covers.

A source gives prices in whole ticks *and* the text they were read from. The text goes into the log beside
the ticks, so that whoever doubts an index price can go back to what the source said.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Protocol

RAW_CHARACTERS_MAX = 40
_PRICE_MAX = Decimal(10) ** 18
# An exponent has two digits at most: a price of 1e999999999 would take minutes to turn into an integer.
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", re.ASCII)
# 40 digits times 1e8 fit exactly; should that ever not hold, an error is better than a rounded quotient.
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation])


class FeedError(Exception):
    """A price source cannot be used as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Price:
    """One price: whole ticks of its market, and the decimal text it was rounded from.

    `time_ns` is when it was the price by the source's own account (ns since 1970), for sources that follow
    the present; 0 when they do not say, or play a past.
    """

    price_ticks: int
    raw: str
    time_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PricePoint:
    """The prices of all symbols of a source at one moment.

    `time_ms` is on the source's own clock: ms since 1970 for recorded prices, since its first point for
    generated ones. Only differences matter to whoever paces a feed.
    """

    time_ms: int
    prices: Mapping[str, Price]


class PriceSource(Protocol):
    """A path of prices. Iterating starts at its beginning and gives the same points every time."""

    @property
    def name(self) -> str:
        """How the log names this source."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that every point has a price for."""
        ...

    @property
    def length(self) -> int | None:
        """How many points there are; None when the path has no end."""
        ...

    def __iter__(self) -> Iterator[PricePoint]:
        """Give the points, `time_ms` ascending."""
        ...


def round_to_ticks(raw: str, tick_size: int) -> int:
    """Round a decimal price half-even to whole ticks of `tick_size` (1e-8 quote).

    Raises:
        ValueError: the text is not a decimal number, or the price is not positive, above 1e18, or rounds
            to no tick at all.
    """
    assert tick_size > 0, tick_size
    if len(raw) > RAW_CHARACTERS_MAX or _NUMBER.fullmatch(raw) is None:
        raise ValueError(f"{raw[:RAW_CHARACTERS_MAX]!r} is not a decimal number")
    price = Decimal(raw)
    if price <= 0:
        raise ValueError(f"{raw!r} is not a positive price")
    if price > _PRICE_MAX:
        raise ValueError(f"{raw!r} is above 1e18")
    tick = Decimal(tick_size)
    money = _EXACT.scaleb(price, 8)
    # The nearest remainder leaves the nearest multiple of a tick, and on a tie the even one.
    nearest = _EXACT.subtract(money, _EXACT.remainder_near(money, tick))
    ticks = int(_EXACT.divide(nearest, tick))
    if ticks == 0:
        raise ValueError(f"{raw!r} rounds to 0 ticks of {format_ticks(1, tick_size)}")
    return ticks


def format_ticks(price_ticks: int, tick_size: int) -> str:
    """Write a price in ticks of `tick_size` (1e-8 quote) as a plain decimal, without trailing zeros."""
    whole, fraction = divmod(price_ticks * tick_size, 10**8)
    return f"{whole}.{fraction:08d}".rstrip("0").rstrip(".")
