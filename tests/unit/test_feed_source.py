"""Rounding of source prices to ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.feed.source import format_ticks, round_to_ticks


@pytest.mark.parametrize(
    ("ticks", "raw", "tick_size"),
    [
        (1_233_060, "123306.01", 10_000_000),
        (12_330_601, "123306.01", 1_000_000),
        (2, "0.25", 10_000_000),
        (4, "0.35", 10_000_000),
        (3, "0.2500000000000000000000000000000000001", 10_000_000),
        (2, "2.5", 100_000_000),
        (33_333_333, "0.99999999", 3),
        (1, "1e-05", 1_000),
        (7, "7", 100_000_000),
    ],
)
def test_price_rounds_half_even_to_ticks(ticks: int, raw: str, tick_size: int) -> None:
    """A source's price becomes the nearest tick, and on a tie the even one."""
    assert ticks == round_to_ticks(raw, tick_size)


@pytest.mark.parametrize(
    ("complaint", "raw"),
    [
        ("not a decimal number", ""),
        ("not a decimal number", "abc"),
        ("not a decimal number", "NaN"),
        ("not a decimal number", "Infinity"),
        ("not a decimal number", "1_000"),
        ("not a decimal number", "1,000"),
        ("not a decimal number", "١٢"),
        ("not a decimal number", "1e999999999"),
        ("not a decimal number", "1" * 41),
        ("not a positive price", "0"),
        ("not a positive price", "-1.5"),
        ("above 1e18", "1e99"),
        ("rounds to 0 ticks of 0.1", "0.05"),
    ],
)
def test_text_that_is_no_price_is_refused(complaint: str, raw: str) -> None:
    """Only a positive decimal number of at least half a tick is a price."""
    with pytest.raises(ValueError, match=complaint):
        round_to_ticks(raw, 10_000_000)


@given(st.integers(1, 10**12), st.integers(1, 10**10))
def test_a_price_in_ticks_is_read_back_as_written(ticks: int, tick_size: int) -> None:
    """Writing ticks as a decimal and rounding that to ticks changes nothing."""
    assert ticks == round_to_ticks(format_ticks(ticks, tick_size), tick_size)


def test_ticks_are_written_without_trailing_zeros() -> None:
    """A price reads as a person would write it."""
    assert "120000" == format_ticks(1_200_000, 10_000_000)
    assert "0.05" == format_ticks(5, 1_000_000)
