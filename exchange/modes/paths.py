"""Price paths for a book: recorded, cut or drawn from a recording, or generated from a seed.

A path is relative: it begins at the book's own marks and moves as its source does, so that the same moves can
be tried on any book. Prices are rounded half-even to whole ticks, at least one.

- whole: the recording, as one path.
- windows: every stretch of it of a given length, evenly spaced.
- blocks: stretches of consecutive candles drawn with replacement and joined (a moving-block bootstrap). A
  block is the same for all markets, so that what moves together stays together, and it keeps what follows
  what within it. Source: H. R. Künsch, "The jackknife and the bootstrap for general stationary
  observations", 1989.
- a model: one factor that all assets follow by their beta, noise of their own, and jumps of the factor,

      d ln S_i = β_i (σ dW + J dN) + σ_i dW_i,

  so that the correlation of two assets is what their betas make it. Drift is left out: over days it is
  nothing beside the noise. Source: R. C. Merton, "Option pricing when underlying stock returns are
  discontinuous", 1976.

Chance comes from numpy's `RandomState`, whose numbers for a seed never change from version to version.
"""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from exchange.feed import FeedError, open_recorded
from exchange.feed.recorded import POINTS_PER_CANDLE
from exchange.modes.book import Book
from exchange.modes.sheet import Numbers

# Points (of one market) in memory at once.
POINTS_PER_CHUNK = 2_000_000
HORIZON_DEFAULT = 288
LOG_TICKS_MAX = math.log(1 << 52)  # up to which a float counts every tick
_YEAR_S = 365 * 86_400
_DAY_S = 86_400
Floats = NDArray[np.float64]


class Draw(StrEnum):
    """How paths are made of a recording."""

    WHOLE = "whole"
    WINDOWS = "windows"
    BLOCKS = "blocks"


class Asset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one market moves: `beta` times the factor, and `noise`, its own volatility over a year."""

    beta: float
    noise: float


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A generator of prices. `volatility` is the factor's over a year (0.6 = 60 %), `jump` the standard
    deviation of one of its jumps; a step lasts `step_s` seconds.
    """

    step_s: float
    volatility: float
    assets: dict[str, Asset]
    jumps_per_day: float = 0.0
    jump: float = 0.0


class Paths:
    """`count` paths of `length` points each, the first of which are the book's marks.

    Iterating gives arrays of ticks of the shape (paths, points, markets), which together are all paths, in
    order and always the same. `step_s` is the time between two points.
    """

    def __init__(self, book: Book, *, count: int, length: int, step_s: float, describe: str) -> None:
        self.count = count
        self.length = length
        self.step_s = step_s
        self.describe = describe
        self._marks = np.array(book.marks, dtype=np.float64)

    def __iter__(self) -> Iterator[Numbers]:
        """Give all paths, some at a time.

        Raises:
            FeedError: a price is too large.
        """
        per_chunk = max(1, POINTS_PER_CHUNK // (self.length * len(self._marks)))
        for first in range(0, self.count, per_chunk):
            count = min(per_chunk, self.count - first)
            levels = self._levels(first, count)
            if not (np.log(self._marks) + levels).max() <= LOG_TICKS_MAX:  # also where it is not a number
                raise FeedError("prices on the paths grow beyond what can be counted in ticks")
            ticks = np.rint(self._marks * np.exp(levels)).astype(np.int64)
            ticks[:, 0, :] = self._marks.astype(np.int64)
            yield np.maximum(ticks, 1)

    def _levels(self, first: int, count: int) -> Floats:
        """Return the logarithms of price / first price of some paths, of shape (paths, points, markets)."""
        raise NotImplementedError


class RecordedPaths(Paths):
    """Stretches of a recording; see `Draw`."""

    def __init__(
        self, book: Book, levels: Floats, starts: Sequence[int], *, length: int, step_s: float, describe: str
    ) -> None:
        super().__init__(book, count=len(starts), length=length, step_s=step_s, describe=describe)
        self._recorded = levels
        self._starts = starts

    def _levels(self, first: int, count: int) -> Floats:
        starts = self._starts[first : first + count]
        return np.stack([self._recorded[s : s + self.length] - self._recorded[s] for s in starts])


class DrawnPaths(Paths):
    """Blocks of a recording, drawn and joined."""

    def __init__(
        self, book: Book, levels: Floats, *, count: int, candles: int, block: int, seed: int, step_s: float,
        describe: str,
    ) -> None:  # fmt: skip
        length = candles * POINTS_PER_CANDLE + 1
        super().__init__(book, count=count, length=length, step_s=step_s, describe=describe)
        self._moves = np.diff(levels, axis=0)
        blocks = math.ceil(candles / block)
        last = (len(levels) - 1) // POINTS_PER_CANDLE - block
        drawn = np.random.RandomState(seed).randint(0, last + 1, size=(count, blocks))
        self._starts = drawn * POINTS_PER_CANDLE
        self._per_block = block * POINTS_PER_CANDLE

    def _levels(self, first: int, count: int) -> Floats:
        starts = self._starts[first : first + count]
        places = (starts[:, :, None] + np.arange(self._per_block)).reshape(count, -1)[:, : self.length - 1]
        return _summed(self._moves[places])


class GeneratedPaths(Paths):
    """Paths of a model."""

    def __init__(self, book: Book, model: Model, *, count: int, steps: int, seed: int) -> None:
        what = f"generated, seed {seed}, steps of {model.step_s:g} s"
        super().__init__(book, count=count, length=steps + 1, step_s=model.step_s, describe=what)
        assets = [model.assets[symbol] for symbol in book.symbols]
        self._betas = np.array([asset.beta for asset in assets])
        self._noise = np.array([asset.noise for asset in assets]) * math.sqrt(model.step_s / _YEAR_S)
        self._model = model
        self._seed = seed

    def _levels(self, first: int, count: int) -> Floats:
        model, steps = self._model, self.length - 1
        factor = np.empty((count, steps))
        noise = np.empty((count, steps, len(self._betas)))
        for n in range(count):
            # One source a path: what a path is does not depend on how many are in memory at once.
            dice = np.random.RandomState((self._seed, first + n))
            factor[n] = dice.standard_normal(steps) * model.volatility * math.sqrt(model.step_s / _YEAR_S)
            jumps = dice.poisson(model.jumps_per_day * model.step_s / _DAY_S, steps)
            factor[n] += dice.standard_normal(steps) * np.sqrt(jumps) * model.jump
            noise[n] = dice.standard_normal((steps, len(self._betas)))
        return _summed(factor[:, :, None] * self._betas + noise * self._noise)


def _summed(moves: Floats) -> Floats:
    levels = np.zeros((moves.shape[0], moves.shape[1] + 1, moves.shape[2]))
    np.cumsum(moves, axis=1, out=levels[:, 1:, :])
    return levels


def recorded_paths(
    book: Book,
    files: Sequence[str],
    draw: Draw,
    *,
    count: int,
    candles: int | None,
    block: int,
    seed: int,
) -> Paths:
    """Return paths made of candle files, one for each market of the book.

    `candles` is the length of a path (None: the whole recording); `count`, `block` and `seed` are for the
    kinds of `draw` that use them.

    Raises:
        FeedError: a file cannot be used, a market has none, or the recording is too short.
    """
    source = open_recorded(files, book.specs)
    missing = sorted(set(book.symbols) - set(source.symbols))
    if missing:
        raise FeedError(f"there is no price file for {', '.join(missing)}")
    levels = np.log(
        np.array([[point.prices[s].price_ticks for s in book.symbols] for point in source], dtype=np.float64)
    )
    there = len(levels) // POINTS_PER_CANDLE
    step_s = source.interval_ms / POINTS_PER_CANDLE / 1_000
    wanted = there if candles is None or draw is Draw.WHOLE else candles
    if wanted > there:
        raise FeedError(f"a path of {wanted} candles is longer than the recording, which has {there}")
    if draw is Draw.BLOCKS:
        if not 1 <= block < there:
            raise FeedError(f"a block of {block} candles does not fit into a recording of {there}")
        what = f"drawn from the recording in blocks of {block} candles, seed {seed}"
        return DrawnPaths(
            book, levels, count=count, candles=wanted, block=block, seed=seed, step_s=step_s, describe=what
        )
    length = wanted * POINTS_PER_CANDLE
    last = there - wanted
    spaces = min(count, last + 1) if draw is Draw.WINDOWS else 1
    starts = [round(n * last / max(1, spaces - 1)) * POINTS_PER_CANDLE for n in range(spaces)]
    what = "the recording" if draw is Draw.WHOLE else "stretches of the recording"
    return RecordedPaths(book, levels, starts, length=length, step_s=step_s, describe=what)


def read_model(text: bytes, book: Book) -> Model:
    """Return a generator read from JSON that knows every market of the book.

    Raises:
        FeedError: it is none, or lacks a market.
    """
    try:
        model = msgspec.json.decode(text, type=Model)
    except msgspec.DecodeError as error:
        raise FeedError(f"the model: {error}") from None
    missing = sorted(set(book.symbols) - set(model.assets))
    if missing:
        raise FeedError(f"the model has no asset {', '.join(missing)}")
    if not model.step_s > 0:
        raise FeedError("the model: step_s must be positive")
    numbers = {"volatility": model.volatility, "jump": model.jump, "jumps_per_day": model.jumps_per_day}
    for symbol, asset in model.assets.items():
        numbers[f"assets.{symbol}.noise"] = asset.noise
    for name, number in numbers.items():
        if not 0 <= number < 1_000:
            raise FeedError(f"the model: {name} must be in 0…1000")
    return model
