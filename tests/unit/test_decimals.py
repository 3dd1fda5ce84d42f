"""Decimal strings: exact both ways, and nothing that is not one gets in."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.aggregate.units import AMOUNT_MAX
from exchange.decimals import (
    DecimalPrecisionError,
    DecimalRangeError,
    DecimalStepError,
    DecimalSyntaxError,
    average_price_text,
    format_fixed,
    format_steps,
    lots_text,
    money_text,
    parse_fixed,
    parse_lots,
    parse_money,
    parse_price,
    parse_steps,
    price_text,
    step_digits,
)
from exchange.intake.specs import DEFAULT_SPECS

BTC, ETH = DEFAULT_SPECS


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "1.", ".5", "1e3", "1E3", "NaN", "nan", "inf", "Infinity", " 1", "1 ", "1\n", "+1", "-1"),
        *("--1", "0x10", "1_000", "1,5", "1.2.3", "١", "1²", "½", "1" * 41),
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    """Exponents, names, blanks, signs, separators and digits of other scripts are no amounts."""
    with pytest.raises(DecimalSyntaxError):
        parse_fixed(text)


def test_a_sign_is_taken_only_where_allowed() -> None:
    """A minus is read where the caller says so."""
    assert -150_000_000 == parse_fixed("-1.5", signed=True)
    with pytest.raises(DecimalSyntaxError):
        parse_fixed("-", signed=True)


def test_more_digits_than_the_scale_are_refused_even_when_zero() -> None:
    """Nothing is rounded, and nothing is dropped."""
    assert 1 == parse_money("0.00000001")
    with pytest.raises(DecimalPrecisionError):
        parse_money("0.000000001")
    with pytest.raises(DecimalPrecisionError):
        parse_money("1.000000000")


def test_amounts_end_at_the_bound_of_the_aggregate() -> None:
    """The largest amount is read, one unit more is not."""
    assert AMOUNT_MAX == parse_money(money_text(AMOUNT_MAX))
    with pytest.raises(DecimalRangeError):
        parse_money(money_text(AMOUNT_MAX + 1))


def test_prices_and_sizes_are_whole_steps() -> None:
    """A price is a number of ticks, a size a number of lots, or they are refused."""
    assert 570_001 == parse_price(BTC, "57000.1")
    assert 570_001 == parse_price(BTC, "57000.10")
    assert 3 == parse_lots(BTC, "0.003")
    with pytest.raises(DecimalStepError, match=r"multiple of 0\.1"):
        parse_price(BTC, "57000.15")
    with pytest.raises(DecimalStepError, match=r"multiple of 0\.001"):
        parse_lots(BTC, "0.0005")


def test_output_has_the_digits_of_the_step() -> None:
    """Prices and sizes print like their ticks and lots, money with eight digits."""
    assert "57000.0" == price_text(BTC, 570_000)
    assert "0.0" == price_text(BTC, 0)
    assert "57000.00" == price_text(ETH, 5_700_000)
    assert "-0.003" == lots_text(BTC, -3)
    assert "-0.50000000" == money_text(-50_000_000)
    assert "120" == format_steps(12, 10 * 10**8)
    assert [1, 2, 0, 8] == [step_digits(step) for step in (10**7, 5 * 10**6, 10**9, 1)]


def test_an_average_price_is_cost_over_size() -> None:
    """Long and short of the same cost have the same entry price; no position has none."""
    cost = 3 * 100_000 * BTC.tick_size * BTC.lot_size // 10**8
    assert "10000.00000000" == average_price_text(BTC, cost, 3)
    assert "10000.00000000" == average_price_text(BTC, -cost, -3)
    assert "0.00000000" == average_price_text(BTC, 0, 0)


@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX), st.integers(0, 8))
def test_format_and_parse_are_inverse(value: int, digits: int) -> None:
    """What is printed reads back as the same integer, and says the same number as Decimal."""
    text = format_fixed(value, digits)
    assert value == parse_fixed(text, digits, signed=True)
    assert Decimal(value).scaleb(-digits) == Decimal(text)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**10))
def test_steps_read_back(count: int, step: int) -> None:
    """A number of steps survives printing, whatever the step."""
    assert count == parse_steps(format_steps(count, step), step, signed=True)
