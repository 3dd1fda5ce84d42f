"""A process's own copy of the state, kept current from the event stream by `apply` alone.

Intake, liquidator and every other consumer hold one. They see what the writer decided, in order, with the
chain verified; none of them computes a balance in a second way.
"""

import asyncio
from collections.abc import Callable

import structlog

from events.log import EventReader, Head, Log, LogUnavailableError, VerifiedEvents
from exchange.aggregate.state import Exchange

ENTRIES_PER_READ = 256
WAIT_MS = 500
RETRY_S = 0.1

logger = structlog.get_logger(__name__)


class Fold:
    """State built from the log, and the call that tells the process about each entry after applying it.

    `on_entry` gets every entry, in order, once; what it raises ends the fold.
    """

    def __init__(self, log: Log, on_entry: Callable[[VerifiedEvents], None]) -> None:
        self.state = Exchange()
        self._reader = EventReader(log)
        self._log = log
        self._on_entry = on_entry

    @property
    def head(self) -> Head:
        """The last entry applied."""
        return self._reader.head

    async def catch_up(self) -> None:
        """Fold everything that is in the log now.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was; see `EventReader.read`.
        """
        target = await self._log.event_head()
        while self._reader.seq < target.seq:
            await self._step(wait_ms=0)

    async def run(self, stop: asyncio.Event) -> None:
        """Fold what comes until `stop` is set; wait out a server that does not answer.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was; see `EventReader.read`.
        """
        was_away = False
        while not stop.is_set():
            try:
                await self._step(WAIT_MS)
            except LogUnavailableError as error:
                if not was_away:
                    logger.warning("log_unavailable", error=str(error), seq=self._reader.seq)
                was_away = True
                await asyncio.sleep(RETRY_S)
                continue
            if was_away:
                logger.info("log_available", seq=self._reader.seq)
                was_away = False

    async def _step(self, wait_ms: int) -> None:
        apply = self.state.apply
        for verified in await self._reader.read(ENTRIES_PER_READ, wait_ms):
            for group in verified.groups:
                for event in group:
                    apply(event)
            self._on_entry(verified)
