"""What a book needs at many marks at once: the aggregate's margin, vectorised, exactly.

    need of a position alone = maintenance(|size × mark × unit|) − (size × mark × unit − entry cost) + 1
    need of the pool         = Σ (maintenance − unrealised) + 1

Everything is int64, so that the figures are the aggregate's own and no point is a matter of rounding. Only
N × rate does not fit 64 bits: with N = q × 10⁸ + r and the deduction D = d × 10⁸ + e

    ceil((N × rate − D) / 10⁸) = q × rate − d + ceil((r × rate − e) / 10⁸)

whose parts do. Source of the formula: `exchange.aggregate.market`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exchange.aggregate.account import Position
from exchange.aggregate.units import AMOUNT_MAX, RATE_ONE
from exchange.modes.book import Book, BookError

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Row:
    """One position: its market's place, size × unit, entry cost, and the brackets with split deductions."""

    market: int
    lot_value: int
    entry_cost: int
    caps: Numbers
    rates: Numbers
    whole: Numbers
    rest: Numbers


class Sheet:
    """A book ready for arrays of marks: ticks of the shape (…, markets)."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._rows = [_row(p, n) for p, n in zip(book.positions, book.market_of, strict=True)]

    def check_range(self, ticks: Numbers) -> None:
        """Make sure that no sum leaves 62 bits at these marks.

        Raises:
            BookError: one would.
        """
        highest = ticks.reshape(-1, ticks.shape[-1]).max(axis=0)
        total = 0
        for row in self._rows:
            total += 2 * abs(row.lot_value) * int(highest[row.market]) + abs(row.entry_cost)
        if total > AMOUNT_MAX:
            raise BookError("positions: their notional is too large on these paths")

    def profit(self, index: int, ticks: Numbers) -> Numbers:
        """Return the unrealised profit of one position, in money units, of shape (…)."""
        row = self._rows[index]
        return ticks[..., row.market] * row.lot_value - row.entry_cost

    def maintenance(self, index: int, ticks: Numbers) -> Numbers:
        """Return the maintenance margin of one position, in money units, of shape (…)."""
        row = self._rows[index]
        notional = ticks[..., row.market] * abs(row.lot_value)
        if len(row.caps) == 1 or notional.max(initial=0) <= row.caps[0]:
            return _ceil_rate(notional, row.rates[0], row.whole[0], row.rest[0])
        bracket = np.minimum(np.searchsorted(row.caps, notional, side="left"), len(row.caps) - 1)
        return _ceil_rate(notional, row.rates[bracket], row.whole[bracket], row.rest[bracket])

    def gap(self, index: int, ticks: Numbers) -> Numbers:
        """Return maintenance − profit of one position: the collateral at which it is liquidated."""
        return self.maintenance(index, ticks) - self.profit(index, ticks)


def _ceil_rate(notional: Numbers, rate: Numbers, whole: Numbers, rest: Numbers) -> Numbers:
    quotient = notional // RATE_ONE
    remainder = notional - quotient * RATE_ONE
    return quotient * rate - whole - (-(remainder * rate - rest) // RATE_ONE)


def _row(position: Position, market: int) -> _Row:
    brackets = position.market.brackets
    parts = [divmod(deduction, RATE_ONE) for deduction in brackets.deductions]
    return _Row(
        market=market,
        lot_value=position.size_lots * position.market.unit,
        entry_cost=position.entry_cost,
        caps=np.array(brackets.caps, dtype=np.int64),
        rates=np.array(brackets.rates, dtype=np.int64),
        whole=np.array([whole for whole, _ in parts], dtype=np.int64),
        rest=np.array([rest for _, rest in parts], dtype=np.int64),
    )
