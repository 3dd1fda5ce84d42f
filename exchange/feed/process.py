"""Walking a price source: each point becomes one `SetIndexPrice` a symbol, paced, one point at a time.

The next point waits for the answers to the last, so a slow exchange slows the feed down; points never pile
up. Time lost that way is not made up for: a burst of old prices after a pause would show a market that
nobody could have traded in.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from events.appender import Answer
from events.commands import AnyCommand, SetIndexPrice
from events.events import Rejected
from events.log import LogFullError
from events.values import IndexSource, MarketSpec
from exchange.feed.source import FeedError, PricePoint, PriceSource

FULL_RETRY_S = 1.0

Submit = Callable[[AnyCommand], asyncio.Future[Answer]]
OnPoint = Callable[[int, PricePoint], None]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSummary:
    """What a feed did: points answered, prices refused among them, and whether the source was used up."""

    points: int
    rejected: int
    finished: bool


async def run_feed(
    submit: Submit,
    specs: Mapping[str, MarketSpec],
    source: PriceSource,
    *,
    speed: float | None,
    on_point: OnPoint | None = None,
    stop: asyncio.Event,
) -> FeedSummary:
    """Submit the prices of `source` until it ends or `stop` is set.

    `speed` is source seconds per real second; 0 or None goes as fast as answers come. `specs` holds the
    listed markets (symbol → spec). `on_point` is called after each answered point, with how many there
    were. A point that a server without room refuses is left out. When `stop` is set, answers under way are
    no longer waited for; whoever owns `submit` sees that what was submitted is sent.

    Raises:
        FeedError: the source has a symbol that is not listed; nothing was submitted.
        ValueError: the speed is negative.
        Exception: what `submit` raised, or failed an answer with, goes on to the caller.
    """
    if speed is not None and speed < 0:
        raise ValueError(f"speed must not be negative, got {speed}")
    unlisted = [symbol for symbol in source.symbols if symbol not in specs]
    if unlisted:
        raise FeedError(f"source {source.name}: not listed: {', '.join(unlisted)}")
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        return await _walk(submit, source, _Pace(speed), on_point, stopped)
    finally:
        stopped.cancel()


class _Pace:
    """Tells when a point is due: as long after the one before it as the source says, or at once."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._due_s: float | None = None
        self._time_ms = 0

    def wait_s(self, time_ms: int) -> float:
        """Return the seconds to wait for the point at `time_ms` of the source's clock."""
        if not self._speed:
            return 0.0
        now_s = asyncio.get_running_loop().time()
        if self._due_s is None:
            self._due_s = now_s
        else:
            self._due_s = max(now_s, self._due_s + (time_ms - self._time_ms) / 1_000 / self._speed)
        self._time_ms = time_ms
        return self._due_s - now_s


async def _walk(
    submit: Submit,
    source: PriceSource,
    pace: _Pace,
    on_point: OnPoint | None,
    stopped: asyncio.Future[Any],
) -> FeedSummary:
    points = rejected = 0
    for point in source:
        wait_s = pace.wait_s(point.time_ms)
        if wait_s > 0:
            await asyncio.wait({stopped}, timeout=wait_s)
        if stopped.done():
            break
        answers = asyncio.gather(*(submit(_command(source.name, point, symbol)) for symbol in source.symbols))
        answers.add_done_callback(_take_error)
        either: set[asyncio.Future[Any]] = {stopped, answers}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            break
        try:
            rejected += _count_rejected(source, answers.result(), rejected)
        except LogFullError as error:
            _log.error("log_full", error=str(error), retry_s=FULL_RETRY_S)
            await asyncio.wait({stopped}, timeout=FULL_RETRY_S)
            continue
        points += 1
        if on_point is not None:
            on_point(points, point)
    else:
        return FeedSummary(points=points, rejected=rejected, finished=True)
    return FeedSummary(points=points, rejected=rejected, finished=False)


def _take_error(answers: asyncio.Future[Any]) -> None:
    """Look at the outcome of answers that nobody waits for after a stop, so that no error counts as lost."""
    if not answers.cancelled():
        answers.exception()


def _command(source_name: str, point: PricePoint, symbol: str) -> SetIndexPrice:
    price = point.prices[symbol]
    return SetIndexPrice(
        market=symbol,
        sources=(
            IndexSource(
                source=source_name, price_ticks=price.price_ticks, raw=price.raw, time_ns=price.time_ns
            ),
        ),
    )


def _count_rejected(source: PriceSource, answers: list[Answer], before: int) -> int:
    """Count refused prices and report the first: a market that refuses one usually refuses them all."""
    count = 0
    for symbol, events in zip(source.symbols, answers, strict=True):
        for event in events:
            if isinstance(event, Rejected):
                if before + count == 0:
                    _log.warning("price_rejected", market=symbol, code=event.code.value, reason=event.reason)
                count += 1
    return count
