"""What a book needs on each path, and what becomes of it on a given collateral, in both modes.

Alone: position i on path p needs the most that maintenance − profit comes to on the way, and one unit more,
since equality liquidates. Isolated is then the sum over the positions, each with what it needs; that is
hindsight, so that the figure beside it is for a split that is fixed before: the least sum of which every
position's share is enough. Cross needs the most that Σ (maintenance − profit) comes to, which is never more
than isolated: losses that do not come at the same time, or that another position's profit covers, need no
money of their own.

Whoever falls to maintenance counts as having lost all it stood on: what a liquidation may leave is not
counted, nor are fees and funding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exchange.aggregate.units import AMOUNT_MAX, ceil_div
from exchange.modes.book import Book
from exchange.modes.paths import Paths
from exchange.modes.sheet import Numbers, Sheet

NEVER = -1
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Where a position is to be closed: prices in ticks, None for none."""

    stop_ticks: int | None = None
    target_ticks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCourse:
    """How one position fared on its way to its stop or target; arrays are by path.

    `needs` is what it needs alone until it is closed, or to the end of the path.
    """

    position: int
    died: NDArray[np.bool_]
    stopped: NDArray[np.bool_]
    reached: NDArray[np.bool_]
    needs: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """A book on all paths; money is units of 1e-8 quote.

    `alone` (paths, positions) and `pooled` (paths) are what is needed, at least 0. `buckets` are the given
    `collateral` as it is split, `profits` (paths, positions) the unrealised profit at the end of the paths.
    `drained_at` is the point at which the given collateral, pooled, is liquidated (−1: never), with the
    marks there in `drained_ticks`; `worst_at` and `worst_ticks` are those at which the pool needs most.
    """

    collateral: int
    buckets: tuple[int, ...]
    alone: Numbers
    pooled: Numbers
    profits: Numbers
    drained_at: Numbers
    drained_ticks: Numbers
    worst_at: Numbers
    worst_ticks: Numbers
    moves: NDArray[np.float64]
    exits: tuple[ExitCourse, ...]

    @property
    def isolated(self) -> Numbers:
        """What is needed when each position has exactly its own need, by path."""
        total: Numbers = self.alone.sum(axis=1)
        return total

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Which positions die in their bucket, by path and position."""
        died: NDArray[np.bool_] = self.alone > np.array(self.buckets)
        return died

    @property
    def is_drained(self) -> NDArray[np.bool_]:
        """Whether the pool dies on the given collateral, by path."""
        died: NDArray[np.bool_] = self.pooled > self.collateral
        return died

    def split_needs(self, split: Sequence[int]) -> Numbers:
        """Return what is needed when the collateral is split in these proportions, by path.

        Each position's share, rounded down, has to be enough. Bounded by what an amount may be.
        """
        total = sum(split)
        needs = [
            min(AMOUNT_MAX, max(ceil_div(need * total, part) for need, part in zip(path, split, strict=True)))
            for path in self.alone.tolist()
        ]
        return np.array(needs, dtype=np.int64)

    def left(self) -> tuple[Numbers, Numbers]:
        """Return what is left at the end of each path: isolated, and cross."""
        alive: Numbers = np.where(self.dead, 0, np.array(self.buckets) + self.profits).sum(axis=1)
        pool: Numbers = np.where(self.is_drained, 0, self.collateral + self.profits.sum(axis=1))
        return alive, pool


def share_out(collateral: int, split: Sequence[int]) -> tuple[int, ...]:
    """Return a collateral in the proportions of `split`, rounded down."""
    total = sum(split)
    return tuple(collateral * part // total for part in split)


def survive(
    book: Book,
    paths: Paths,
    collateral: int,
    exits: Mapping[str, Exit],
    on_progress: OnProgress | None = None,
) -> Survival:
    """Take a book along all paths. `exits` are by market.

    `on_progress` is told how many paths are done, and of how many.

    Raises:
        BookError: the amounts on the paths leave 62 bits.
    """
    buckets = share_out(collateral, book.split)
    sheet = Sheet(book)
    parts: dict[str, list[Numbers]] = {}
    courses: dict[int, list[ExitCourse]] = {}
    steps = np.empty(0)
    done = 0
    for ticks in paths:
        sheet.check_range(ticks)
        for name, values in _along(book, sheet, ticks, collateral).items():
            parts.setdefault(name, []).append(values)
        for n, position in enumerate(book.positions):
            exit_ = exits.get(position.market.symbol)
            if exit_ is not None:
                prices = ticks[..., book.market_of[n]]
                left = _leave(position.size_lots, exit_, sheet.gap(n, ticks), prices, buckets[n], n)
                courses.setdefault(n, []).append(left)
        if paths.count == 1:
            steps = np.diff(np.log(ticks[0].astype(np.float64)), axis=0)
        done += len(ticks)
        if on_progress is not None:
            on_progress(done, paths.count)
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    ends = joined.pop("ends")
    # Of one path the moves from point to point stand for those of paths like it.
    is_one = paths.count == 1
    marks = np.array(book.marks, dtype=np.float64)
    return Survival(
        collateral=collateral,
        buckets=buckets,
        moves=steps * math.sqrt(len(steps)) if is_one else np.log(ends / marks),
        exits=tuple(_joined(course) for course in courses.values()),
        **joined,
    )


def _along(book: Book, sheet: Sheet, ticks: Numbers, collateral: int) -> dict[str, Numbers]:
    """Take a book along some paths; return the arrays of `Survival`, and the last marks as `ends`."""
    rows = np.arange(len(ticks))
    pool = np.zeros(ticks.shape[:2], dtype=np.int64)
    alone = np.empty((len(ticks), len(book.positions)), dtype=np.int64)
    profits = np.empty_like(alone)
    for n in range(len(book.positions)):
        gaps = sheet.gap(n, ticks)
        pool += gaps
        worst = gaps.argmax(axis=1)
        alone[:, n] = gaps[rows, worst] + 1
        profits[:, n] = sheet.profit(n, ticks[:, -1, :])
        _check_alone(book, n, ticks[rows, worst, book.market_of[n]], alone[:, n])
    worst = pool.argmax(axis=1)
    pooled = pool[rows, worst] + 1
    _check_pooled(book, ticks[rows, worst], pooled)
    is_over = pool >= collateral
    drained_at = np.where(is_over.any(axis=1), is_over.argmax(axis=1), NEVER)
    return {
        "alone": np.maximum(alone, 0),
        "pooled": np.maximum(pooled, 0),
        "profits": profits,
        "drained_at": drained_at,
        "drained_ticks": ticks[rows, drained_at],
        "worst_at": worst,
        "worst_ticks": ticks[rows, worst],
        "ends": ticks[:, -1, :],
    }


def quantile(needs: Numbers, share: float) -> int:
    """Return the least collateral that is enough on a share of the paths: an order statistic."""
    place = max(1, math.ceil(share * len(needs) - 1e-9))
    return int(np.sort(needs)[place - 1])


def _check_alone(book: Book, index: int, marks: Numbers, needs: Numbers) -> None:
    """Let the aggregate decide again where a position needs most: there one unit is life or death."""
    for mark_ticks, need in zip(marks.tolist(), needs.tolist(), strict=True):
        assert book.need_alone(index, mark_ticks) == need, (book.name(index), mark_ticks, need)


def _check_pooled(book: Book, ticks: Numbers, needs: Numbers) -> None:
    for marks, need in zip(ticks.tolist(), needs.tolist(), strict=True):
        assert book.needs(marks).pooled == need, (marks, need)


def _leave(
    size_lots: int, exit_: Exit, gaps: Numbers, prices: Numbers, bucket: int, index: int
) -> ExitCourse:
    """Follow a position until its bucket, its stop or its target is reached, in this order at one point."""
    side = 1 if size_lots > 0 else -1
    last = prices.shape[1] - 1
    nowhere = np.zeros(prices.shape, dtype=np.bool_)
    stop, target = exit_.stop_ticks, exit_.target_ticks
    stop_at = _first(nowhere if stop is None else side * (prices - stop) <= 0)
    target_at = _first(nowhere if target is None else side * (prices - target) >= 0)
    dead_at = _first(gaps >= bucket)
    left_at = np.minimum(np.minimum(stop_at, target_at), last)
    highest = np.maximum.accumulate(gaps, axis=1)
    died = (dead_at <= left_at) & (dead_at <= last)
    stopped = ~died & (stop_at <= target_at) & (stop_at <= last)
    return ExitCourse(
        position=index,
        died=died,
        stopped=stopped,
        reached=~died & ~stopped & (target_at <= last),
        needs=np.maximum(highest[np.arange(len(prices)), left_at] + 1, 0),
    )


def _first(is_so: NDArray[np.bool_]) -> Numbers:
    """Return the first point at which something is so on each path; behind the last where it never is."""
    points: Numbers = np.where(is_so.any(axis=1), is_so.argmax(axis=1), is_so.shape[1])
    return points


def _joined(courses: list[ExitCourse]) -> ExitCourse:
    return ExitCourse(
        position=courses[0].position,
        died=np.concatenate([each.died for each in courses]),
        stopped=np.concatenate([each.stopped for each in courses]),
        reached=np.concatenate([each.reached for each in courses]),
        needs=np.concatenate([each.needs for each in courses]),
    )
