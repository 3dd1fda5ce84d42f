"""For whatever book and prices the sheet is the aggregate; and a change to what is there changes nothing."""

import asyncio
import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from events.memory import MemoryLog
from exchange.modes.book import Book, read_book
from exchange.modes.sheet import Sheet
from exchange.modes.survival import share_out
from exchange.whatif.changes import read_changes
from exchange.whatif.course import run_again
from tests.recorded import Recorded

SYMBOLS = ("AAA", "BBB", "CCC")


@st.composite
def brackets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A leverage table of up to four steps, with caps and rates of any digits."""
    count = draw(st.integers(1, 4))
    caps = sorted(draw(st.sets(st.integers(1, 10**16), min_size=count, max_size=count)))
    rates = sorted(draw(st.sets(st.integers(1, 19_999_999), min_size=count, max_size=count)))
    return [
        {"cap": fixed(cap), "maintenance_margin_rate": fixed(rate), "max_leverage": 5}
        for cap, rate in zip(caps, rates, strict=True)
    ]


def fixed(units: int) -> str:
    """Return 1e-8 units as a decimal."""
    return f"{units // 10**8}.{units % 10**8:08d}"


@st.composite
def books(draw: st.DrawFn) -> Book:
    """Up to three positions, in markets of their own, of any size and side."""
    markets, positions = {}, []
    for symbol in SYMBOLS[: draw(st.integers(1, 3))]:
        markets[symbol] = {
            "mark": f"{draw(st.integers(1, 10**6))}",
            "tick_size": "0.01",
            "lot_size": "0.001",
            "taker_fee": "0",
            "brackets": draw(brackets()),
        }
        lots = draw(st.integers(1, 10**6)) * draw(st.sampled_from((1, -1)))
        positions.append(
            {
                "market": symbol,
                "size": f"{'-' if lots < 0 else ''}{abs(lots) // 1000}.{abs(lots) % 1000:03d}",
                "entry_price": fixed(draw(st.integers(1, 10**14))),
                "margin_mode": "isolated",
                "leverage": 5,
                "bucket": fixed(draw(st.integers(1, 10**12))),
            }
        )
    file = {"markets": markets, "wallet": "0", "positions": positions}
    return read_book(json.dumps(file).encode())


@given(books(), st.data())
def test_the_sheet_is_the_aggregate(book: Book, data: st.DataObject) -> None:
    """At any marks every need is equal to the last unit, and one unit less drains the pool."""
    marks = st.lists(st.integers(1, 10**8), min_size=len(book.symbols), max_size=len(book.symbols))
    points = data.draw(st.lists(marks, min_size=1, max_size=20))
    sheet = Sheet(book)
    ticks = np.array(points, dtype=np.int64)

    gaps = [sheet.gap(n, ticks) for n in range(len(book.positions))]

    for number, point in enumerate(points):
        needs = book.needs(point)
        assert needs.alone == tuple(int(gap[number]) + 1 for gap in gaps)
        assert needs.pooled == sum(int(gap[number]) for gap in gaps) + 1
        assert sum(needs.alone) - needs.pooled == len(book.positions) - 1
        assert book.is_drained(point, needs.pooled - 1)
        assert not book.is_drained(point, needs.pooled)


@given(st.integers(0, 10**18), st.lists(st.integers(1, 10**12), min_size=1, max_size=20))
def test_what_is_shared_out_is_never_more(collateral: int, split: list[int]) -> None:
    """The parts are within the whole, and short of it by less than one unit each."""
    parts = share_out(collateral, split)
    assert 0 <= collateral - sum(parts) < len(split)


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_a_change_to_what_is_there_changes_nothing(seed: int) -> None:
    """Moves times 1, prices shifted by nothing, no more money: the recorded run, event for event."""

    async def course_of(seed: int) -> bool:
        log = MemoryLog()
        recorded = Recorded(log, seed=seed)
        await recorded.begin()
        await recorded.trade(150)
        changes = read_changes(moves=["BTCUSDT=1"], shift=["*=0%"], wallet=["2=+0"], fund=[])
        return (await run_again(log, changes)).is_reproduced

    assert asyncio.run(course_of(seed))
