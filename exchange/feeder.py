"""The feed process: plays price sources into the log, through the rules of `exchange.feed`."""

import asyncio
from collections.abc import Sequence

import structlog

from events.appender import Appender
from events.events import MarketListed
from events.log import VerifiedEvents
from events.values import MarketSpec
from exchange.aggregate.state import Exchange
from exchange.feed import PriceSource, open_calm, open_recorded, run_feed
from exchange.fold import Fold
from exchange.runtime import Runtime, until_one_ends

logger = structlog.get_logger(__name__)

SYNTHETIC = "synthetic"


class Feeder:
    """Plays `sources` (one "synthetic", or candle files) for the markets that are listed.

    Waits for the first market. A generated path takes the prices up where the log left them, and starts
    again with a market that is listed while it runs; recorded files need all their markets from the start.
    """

    def __init__(self, runtime: Runtime, sources: Sequence[str], *, speed: float, seed: int) -> None:
        self._runtime = runtime
        self._sources = sources
        self._speed = speed
        self._seed = seed
        self._listed = asyncio.Event()
        self._appender = Appender(runtime.log, "feed")
        self.fold = Fold(runtime.log, self._on_entry, runtime.snapshots)

    async def run(self) -> None:
        """Feed until stopped or, with files, until they are played.

        Raises:
            FeedError: a source cannot be used; see `open_recorded` and `open_calm`.
            LogError, FrameRefusedError: prices can no longer be sent.
        """
        await self._appender.open()
        following = asyncio.create_task(self.fold.run(self._runtime.stop), name="fold")
        feeding = asyncio.create_task(self._feed(), name="feed")
        try:
            await until_one_ends(feeding, following)
        finally:
            await self._appender.close()

    def _on_entry(self, verified: VerifiedEvents) -> None:
        self._appender.resolve(verified.groups)
        if any(isinstance(event, MarketListed) for group in verified.groups for event in group):
            self._listed.set()

    async def _feed(self) -> None:
        state = self.fold.state
        if not state.markets:
            logger.info("waiting_for_markets")
        while not self._runtime.stop.is_set():
            if not state.markets:
                await self._listed.wait()
            self._listed.clear()
            specs = {symbol: market.spec for symbol, market in state.markets.items()}
            source = self._open(specs, state)
            is_played = await self._play(source, specs)
            if is_played:
                return

    def _open(self, specs: dict[str, MarketSpec], state: Exchange) -> PriceSource:
        if list(self._sources) != [SYNTHETIC]:
            return open_recorded(self._sources, specs)
        start_ticks = {
            symbol: market.index_ticks for symbol, market in state.markets.items() if market.index_ticks
        }
        return open_calm(specs, seed=self._seed, start_ticks=start_ticks)

    async def _play(self, source: PriceSource, specs: dict[str, MarketSpec]) -> bool:
        """Play a source until it ends, the process stops, or a market is added; return whether it ended."""
        halt = asyncio.Event()
        interrupts = [asyncio.create_task(self._runtime.stop.wait())]
        if source.length is None:
            interrupts.append(asyncio.create_task(self._listed.wait()))
        for task in interrupts:
            task.add_done_callback(lambda _: halt.set())
        logger.info("feeding", source=source.name, symbols=source.symbols, speed=self._speed)
        try:
            summary = await run_feed(self._appender.submit, specs, source, speed=self._speed, stop=halt)
        finally:
            for task in interrupts:
                task.cancel()
        logger.info("fed", points=summary.points, rejected=summary.rejected, finished=summary.finished)
        return summary.finished


async def run_feeder(runtime: Runtime, sources: Sequence[str], *, speed: float, seed: int) -> None:
    """Live as the feed; see `Feeder.run`."""
    if not await runtime.wait_for_log():
        return
    feeder = Feeder(runtime, sources, speed=speed, seed=seed)
    if not await runtime.until_available(feeder.fold.catch_up):
        return
    runtime.ready(lambda: feeder.fold.head.seq)
    await feeder.run()
