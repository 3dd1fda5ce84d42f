"""Decimal strings to exact integers and back, for the edges: prices, sizes and money as people write them.

Inside, everything is an integer (see `events.values`); a string with more digits than its scale is refused,
never rounded, and nothing passes through a float. Output has a fixed number of digits, that of the market's
tick or lot, or eight for money, as Binance prints it: "57000.0", "0.003", "12.50000000".
"""

from functools import lru_cache

from events.values import MarketSpec
from exchange.aggregate.units import AMOUNT_MAX

SCALE_DIGITS = 8
TEXT_LENGTH_MAX = 40
NO_MONEY = "0.00000000"


class DecimalError(ValueError):
    """Base of what can be wrong with a decimal string. The message does not repeat the string."""


class DecimalSyntaxError(DecimalError):
    """Not a plain decimal number: digits, and perhaps a point between digits."""


class DecimalPrecisionError(DecimalError):
    """More digits behind the point than the scale has."""


class DecimalStepError(DecimalError):
    """Not a whole number of ticks or lots."""


class DecimalRangeError(DecimalError):
    """Too large for any amount of the exchange."""


def parse_fixed(text: str, digits: int = SCALE_DIGITS, *, signed: bool = False) -> int:
    """Return `text` × 10^`digits`, exactly. A leading "-" is allowed where `signed`.

    Raises:
        DecimalSyntaxError: exponents, names of infinities, blanks, other signs, no digits, or too long.
        DecimalPrecisionError: more than `digits` digits behind the point, zeros included.
        DecimalRangeError: the result exceeds `AMOUNT_MAX`.
    """
    if not text.isascii() or len(text) > TEXT_LENGTH_MAX:
        raise DecimalSyntaxError("must be a plain decimal number")
    negative = signed and text.startswith("-")
    whole, point, fraction = (text[1:] if negative else text).partition(".")
    if not whole.isdigit() or (point and not fraction.isdigit()):
        raise DecimalSyntaxError("must be a plain decimal number")
    if len(fraction) > digits:
        raise DecimalPrecisionError(f"must have at most {digits} digits behind the point")
    value = int(whole + fraction.ljust(digits, "0"))
    if value > AMOUNT_MAX:
        raise DecimalRangeError("is too large")
    return -value if negative else value


def parse_steps(text: str, step: int, *, signed: bool = False) -> int:
    """Return how many `step`s (in 1e-8) `text` is.

    Raises:
        DecimalError: as `parse_fixed`, and `DecimalStepError` when it is not a whole number of steps.
    """
    steps, rest = divmod(parse_fixed(text, signed=signed), step)
    if rest:
        raise DecimalStepError(f"must be a multiple of {format_steps(1, step)}")
    return steps


def format_fixed(value: int, digits: int = SCALE_DIGITS) -> str:
    """Return `value` / 10^`digits` with exactly that many digits behind the point."""
    sign = "-" if value < 0 else ""
    if digits == 0:
        return str(value)
    whole, fraction = divmod(abs(value), 10**digits)
    return f"{sign}{whole}.{fraction:0{digits}d}"


@lru_cache(maxsize=1024)
def step_digits(step: int) -> int:
    """Return how many digits behind the point a step (in 1e-8) needs: 1 for 0.1, 2 for 0.05, 0 for 10."""
    assert step > 0, step
    digits = SCALE_DIGITS
    while digits > 0 and step % 10 == 0:
        step //= 10
        digits -= 1
    return digits


# The same prices and sizes come again and again: every answer about an order prints several.
@lru_cache(maxsize=8192)
def format_steps(count: int, step: int) -> str:
    """Return `count` × `step` (in 1e-8), with the digits of the step."""
    digits = step_digits(step)
    return format_fixed(count * step // 10 ** (SCALE_DIGITS - digits), digits)


def parse_price(spec: MarketSpec, text: str, *, signed: bool = False) -> int:
    """Return a price in ticks; raises `DecimalError` as `parse_steps`."""
    return parse_steps(text, spec.tick_size, signed=signed)


def parse_lots(spec: MarketSpec, text: str, *, signed: bool = False) -> int:
    """Return a size in lots; raises `DecimalError` as `parse_steps`."""
    return parse_steps(text, spec.lot_size, signed=signed)


def parse_money(text: str, *, signed: bool = False) -> int:
    """Return an amount in money units of 1e-8 quote; raises `DecimalError` as `parse_fixed`."""
    return parse_fixed(text, signed=signed)


def price_text(spec: MarketSpec, price_ticks: int) -> str:
    """Return a price in ticks as a decimal, with the digits of the tick."""
    return format_steps(price_ticks, spec.tick_size)


def lots_text(spec: MarketSpec, lots: int) -> str:
    """Return a size in lots as a decimal, with the digits of the lot."""
    return format_steps(lots, spec.lot_size)


def money_text(amount: int) -> str:
    """Return money units as a decimal with eight digits."""
    return format_fixed(amount) if amount else NO_MONEY


def average_price_text(spec: MarketSpec, cost: int, lots: int) -> str:
    """Return money per base, cost / size, with eight digits, rounded half up; "0.00000000" for no lots.

    A figure to show: what it was derived from stays exact.
    """
    if lots == 0:
        return NO_MONEY
    if lots < 0:
        cost, lots = -cost, -lots
    base = lots * spec.lot_size
    return format_fixed((2 * cost * 10**SCALE_DIGITS + base) // (2 * base))


def rate_percent_text(rate: int) -> str:
    """Return a rate (1e-8) in percent, without zeros behind its last digit: "0.5", "1"."""
    text = format_fixed(rate, SCALE_DIGITS - 2).rstrip("0")
    return text.rstrip(".") or "0"
