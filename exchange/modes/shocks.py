"""Moves that drain a pool: of one market, of all together, and the likeliest one.

With the exposures e (signed notionals) and the covariance C of the markets' moves over a path, the pool's
profit has the variance eᵀCe; of all joint moves that lose the same, the likeliest is

    r = −C e / √(eᵀCe)          per standard deviation of the pool's profit

Source: G. Studer, "Maximum Loss for Measurement of Market Risk", 1997. That is so as long as profit is
linear in the moves; how far the pool then lives is found by following that direction with the aggregate's own
margin, brackets included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exchange.modes.book import Book

# A direction is followed until some price is 20 times as high, or a twentieth.
LOG_MOVE_MAX = math.log(20)
SCAN_STEPS = 1_000
BISECTIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Shock:
    """The first joint move along a direction that drains the pool.

    `moves` are by market as fractions of the price; `size` is how far along the direction. `starts` is the
    position that the liquidation reduces first, `loser` the one that has lost most.
    """

    name: str
    size: float
    ticks: tuple[int, ...]
    moves: tuple[float, ...]
    starts: int
    loser: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The likeliest draining move: `direction` is by market, in logarithms, per standard deviation.

    `deviation` is that of the pool's profit, in money units; `shock` None: it does not drain the pool.
    """

    direction: tuple[float, ...]
    deviation: float
    shock: Shock | None


def find_shock(book: Book, collateral: int, name: str, direction: Sequence[float]) -> Shock | None:
    """Return the nearest move along a direction (in logarithms) that drains the pool, None if none does."""
    steepest = max(abs(each) for each in direction)
    if steepest == 0.0:
        return None
    step = LOG_MOVE_MAX / steepest / SCAN_STEPS
    high = next(
        (
            n * step
            for n in range(1, SCAN_STEPS + 1)
            if book.is_drained(_moved(book, direction, n * step), collateral)
        ),
        None,
    )
    if high is None:
        return None
    low = high - step
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if book.is_drained(_moved(book, direction, middle), collateral):
            high = middle
        else:
            low = middle
    return shock_at(book, name, high, _moved(book, direction, high))


def shock_at(book: Book, name: str, size: float, ticks: Sequence[int]) -> Shock:
    """Say of marks how far they are from the book's own, and what goes first there."""
    return Shock(
        name=name,
        size=size,
        ticks=tuple(ticks),
        moves=tuple(now / mark - 1 for now, mark in zip(ticks, book.marks, strict=True)),
        starts=book.starts_cascade(ticks),
        loser=book.largest_loser(ticks),
    )


def single_shocks(book: Book, collateral: int) -> list[tuple[str, Shock | None]]:
    """Return the draining moves of each market alone and of all together, down and up."""
    shocks = []
    for n, symbol in enumerate(book.symbols):
        for word, sign in (("falls", -1.0), ("rises", 1.0)):
            direction = [sign if m == n else 0.0 for m in range(len(book.symbols))]
            shocks.append((f"{symbol} {word}", find_shock(book, collateral, symbol, direction)))
    if len(book.symbols) > 1:
        for word, sign in (("fall", -1.0), ("rise", 1.0)):
            together = find_shock(book, collateral, word, [sign] * len(book.symbols))
            shocks.append((f"all {word} alike", together))
    return shocks


def worst_shock(book: Book, collateral: int, moves: NDArray[np.float64]) -> Worst | None:
    """Return the likeliest move that drains the pool, given moves (in logarithms) of paths or points.

    None where the moves leave the pool's profit as it is.
    """
    exposures = np.array(book.exposures(), dtype=np.float64)
    covariance = moves.T @ moves / len(moves)
    variance = float(exposures @ covariance @ exposures)
    if not variance > 0.0:
        return None
    deviation = math.sqrt(variance)
    direction = tuple((-(covariance @ exposures) / deviation).tolist())
    return Worst(
        direction=direction,
        deviation=deviation,
        shock=find_shock(book, collateral, "likeliest", direction),
    )


def _moved(book: Book, direction: Sequence[float], size: float) -> tuple[int, ...]:
    return tuple(
        max(1, round(mark * math.exp(size * each))) for mark, each in zip(book.marks, direction, strict=True)
    )
