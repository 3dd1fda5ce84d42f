"""Generated prices: correlated geometric Brownian motion with jumps, from a seed.

    d ln S_i = (μ_i − σ_i²/2) dt + σ_i dW_i + J_i dN,   corr(dW_i, dW_j) = ρ_ij

W are Brownian motions made correlated by a Cholesky factor; N is one Poisson process for the whole market,
and its jumps J are normal with the same correlations, since news that moves one coin moves them all.
Source: R. C. Merton, "Option pricing when underlying stock returns are discontinuous", 1976.

A crash adds a fixed shape to that: every seed falls by about the same amount at the same step, and only the
noise around the fall differs, so that a demonstration always has its liquidations.

Floats are fine here: what leaves this module are whole ticks, and the log keeps those. The text of a
generated price is its ticks in decimal. The same seed gives the same path.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from events.values import MarketSpec
from exchange.feed.source import FeedError, Price, PricePoint, format_ticks, round_to_ticks

STEP_MS = 1_000
CRASH_STEPS = 600
JUMPS_PER_DAY = 24.0
_YEAR_S = 365 * 86_400
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """How one symbol moves.

    `start_price` is quote; `volatility` the standard deviation of the log price over a year (0.5 = 50 %);
    `jump` that of one jump; `crash_fall` the fraction of the start price lost at the low of a crash.
    """

    symbol: str
    start_price: float
    volatility: float
    jump: float
    crash_fall: float


ASSETS = (
    Asset(symbol="BTCUSDT", start_price=120_000.0, volatility=0.45, jump=0.0015, crash_fall=0.15),
    Asset(symbol="ETHUSDT", start_price=4_300.0, volatility=0.70, jump=0.0025, crash_fall=0.22),
)
CORRELATION = ((1.0, 0.85), (0.85, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a crash: up to fraction `until` of its steps, the fall goes to `fall` of its depth.

    `power` bends the way there: 1 is straight, more begins slowly and accelerates, less the reverse.
    `noise` multiplies the volatility meanwhile.
    """

    until: float
    fall: float
    power: float
    noise: float


CRASH = (
    Segment(until=0.40, fall=-0.04, power=1.0, noise=1.0),  # a slight rise: nobody expects it
    Segment(until=0.58, fall=0.82, power=2.5, noise=3.0),  # the fall, faster and faster
    Segment(until=0.60, fall=1.00, power=1.0, noise=3.0),  # the wick
    Segment(until=0.62, fall=0.74, power=1.0, noise=3.0),  # and back from it
    Segment(until=1.00, fall=0.45, power=0.5, noise=2.0),  # a partial recovery, slower and slower
)


class SyntheticSource:
    """A generated path; a `PriceSource` with a point every `STEP_MS`; see `open_calm` and `open_crash`."""

    def __init__(
        self,
        name: str,
        assets: Sequence[tuple[Asset, MarketSpec]],
        *,
        seed: int,
        start_ticks: Mapping[str, int],
        steps: int | None,
    ) -> None:
        """Take a path of `steps` points through a crash, or an endless calm one when it is None."""
        self.name = name
        self.symbols = tuple(asset.symbol for asset, _ in assets)
        self.length = steps
        self._assets = tuple(assets)
        self._seed = seed
        self._start_ticks = dict(start_ticks)
        order = [ASSETS.index(asset) for asset, _ in assets]
        self._factor = cholesky([[CORRELATION[i][j] for j in order] for i in order])

    def __iter__(self) -> Iterator[PricePoint]:
        """Give the points; the first has the start prices."""
        dice = random.Random(self._seed)  # noqa: S311 - a path that can be repeated, not a secret
        noise = [0.0] * len(self._assets)
        step = 0
        while self.length is None or step < self.length:
            fall, loudness = (0.0, 1.0) if self.length is None else _crash_at(step / max(1, self.length - 1))
            if step > 0:
                self._walk(noise, dice, loudness)
            prices = {
                asset.symbol: self._price(asset, spec, noise[i] + fall * math.log(1.0 - asset.crash_fall))
                for i, (asset, spec) in enumerate(self._assets)
            }
            yield PricePoint(time_ms=step * STEP_MS, prices=prices)
            step += 1

    def _walk(self, noise: list[float], dice: random.Random, loudness: float) -> None:
        """Move the log prices by one step of diffusion, and by a jump when one falls into the step."""
        step_s = STEP_MS / 1_000
        diffusion = self._correlated(dice)
        for i, (asset, _) in enumerate(self._assets):
            deviation = loudness * asset.volatility * math.sqrt(step_s / _YEAR_S)
            noise[i] += deviation * diffusion[i] - deviation * deviation / 2
        if dice.random() < JUMPS_PER_DAY * step_s / _DAY_S:
            jump = self._correlated(dice)
            for i, (asset, _) in enumerate(self._assets):
                noise[i] += asset.jump * jump[i] - asset.jump * asset.jump / 2

    def _correlated(self, dice: random.Random) -> list[float]:
        """Draw standard normal numbers with the correlations of the assets."""
        independent = [dice.gauss(0.0, 1.0) for _ in self._assets]
        return [
            sum(weight * draw for weight, draw in zip(row, independent, strict=True)) for row in self._factor
        ]

    def _price(self, asset: Asset, spec: MarketSpec, log_return: float) -> Price:
        """Round to ticks, within what the market accepts: an endless path wanders anywhere in the end."""
        start = asset.start_price
        if asset.symbol in self._start_ticks:
            start = self._start_ticks[asset.symbol] * spec.tick_size / 1e8
        ticks = round_to_ticks(f"{start * math.exp(log_return):.8f}", spec.tick_size)
        ticks = min(max(ticks, spec.min_price_ticks), spec.max_price_ticks)
        return Price(ticks, format_ticks(ticks, spec.tick_size))


def open_calm(
    specs: Mapping[str, MarketSpec], *, seed: int, start_ticks: Mapping[str, int] | None = None
) -> SyntheticSource:
    """Return an endless ordinary market for the symbols of `specs` (symbol → spec) that are in `ASSETS`.

    `start_ticks` (symbol → price in ticks) takes the path up where an earlier run left the market, which
    would otherwise jump back to the built-in prices.

    Raises:
        FeedError: none of the symbols is in `ASSETS`.
    """
    return SyntheticSource(
        "synthetic", _assets_of(specs), seed=seed, start_ticks=start_ticks or {}, steps=None
    )


def open_crash(specs: Mapping[str, MarketSpec], *, seed: int, steps: int = CRASH_STEPS) -> SyntheticSource:
    """Return a market that rises a little, crashes with a wick, and recovers half-way, in `steps` points.

    Raises:
        FeedError: none of the symbols is in `ASSETS`, or there are too few steps to show the wick.
    """
    if steps < 100:
        raise FeedError(f"a crash needs at least 100 steps to show its wick, not {steps}")
    return SyntheticSource("synthetic-crash", _assets_of(specs), seed=seed, start_ticks={}, steps=steps)


def cholesky(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Factor a correlation matrix: the lower triangle L with L·Lᵀ = matrix.

    Raises:
        ValueError: the matrix is not positive definite, so nothing can be correlated that way.
    """
    factor: list[list[float]] = []
    for i, row in enumerate(matrix):
        line: list[float] = []
        for j in range(i + 1):
            before = sum(a * b for a, b in zip(line, factor[j] if j < i else line, strict=False))
            if j < i:
                line.append((row[j] - before) / factor[j][j])
            elif row[i] - before > 0.0:
                line.append(math.sqrt(row[i] - before))
            else:
                raise ValueError(f"correlation matrix is not positive definite at row {i}")
        factor.append(line + [0.0] * (len(matrix) - i - 1))
    return factor


def _assets_of(specs: Mapping[str, MarketSpec]) -> list[tuple[Asset, MarketSpec]]:
    assets = [(asset, specs[asset.symbol]) for asset in ASSETS if asset.symbol in specs]
    if not assets:
        known = ", ".join(asset.symbol for asset in ASSETS)
        listed = ", ".join(sorted(specs)) or "none"
        raise FeedError(f"there are generated prices for {known}, and none of them is listed ({listed})")
    return assets


def _crash_at(progress: float) -> tuple[float, float]:
    """Return (share of the crash's depth, loudness of the noise) at a fraction of its steps."""
    begin, fall = 0.0, 0.0
    for segment in CRASH:
        if progress <= segment.until:
            way = ((progress - begin) / (segment.until - begin)) ** segment.power
            return fall + (segment.fall - fall) * way, segment.noise
        begin, fall = segment.until, segment.fall
    raise AssertionError(f"a crash is over at 1, asked for {progress}")
