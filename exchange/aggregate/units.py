"""Fixed-point arithmetic. Each helper names the direction in which it rounds.

Prices are ticks, sizes lots, money 1e-8 quote, rates 1e-8. Charges and requirements round up, credits
down, so that rounding never makes money and never lets an account hold what it cannot.
"""

RATE_ONE = 100_000_000
MONEY_ONE = 100_000_000
AMOUNT_MAX = 1 << 62


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide toward +∞. The denominator must be positive."""
    assert denominator > 0, denominator
    return -(-numerator // denominator)


def floor_div(numerator: int, denominator: int) -> int:
    """Divide toward −∞. The denominator must be positive."""
    assert denominator > 0, denominator
    return numerator // denominator


def trunc_div(numerator: int, denominator: int) -> int:
    """Divide toward zero. The denominator must be positive."""
    assert denominator > 0, denominator
    return numerator // denominator if numerator >= 0 else -(-numerator // denominator)


def round_half_even(numerator: int, denominator: int) -> int:
    """Divide to the nearest, halves to the even one: for figures to show. The denominator is positive."""
    assert denominator > 0, denominator
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def decimal_text(amount: int) -> str:
    """Return an amount of 1e-8 as a decimal without trailing zeros: for the words of a refusal."""
    whole, rest = divmod(abs(amount), MONEY_ONE)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{rest:08d}".rstrip("0").rstrip(".")


def charge(amount: int, rate: int) -> int:
    """Return `amount` × `rate` rounded up: a charge is never too small, a rebate never too large."""
    return -(-amount * rate // RATE_ONE)
