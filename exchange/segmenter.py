"""The archiver's second half: it puts both streams into segments, and trims them.

It reads the log on its own, from where the archive ends, so that a restart continues the archive without a
gap. A segment is written when enough has come, or when what came has waited long enough; the writing is done
in a thread, and nothing is read meanwhile. After each segment the streams are trimmed as far as nobody needs
them (see `trimming`).

Without room on the disk nothing is lost: what is not archived stays in the log, and the next try is near.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from events import snapshot as files
from events.archive import ArchivedLog, SegmentWriter
from events.events import CheckpointPassed
from events.log import (
    CommandReader,
    CorruptLogError,
    EventReader,
    Log,
    LogFullError,
    LogUnavailableError,
    VerifiedEvents,
)
from exchange import config
from exchange.trimming import Consumers, first_to_keep, trim

logger = structlog.get_logger(__name__)

ENTRIES_PER_READ = 256
READ_WAIT_MS = 500
FLUSH_RETRY_S = 1.0

ReadConsumers = Callable[[], Awaitable[dict[str, int]]]


class Segmenter:
    """Archives what the log gains. `archived_seq` is the last entry that is in a segment.

    `snapshots` is the directory whose snapshots a restart may need; `read_consumers` tells the last entry
    that each process has handled. `flush_s` is how long entries wait for their segment.
    """

    def __init__(
        self,
        log: Log,
        url: str,
        *,
        snapshots: Path,
        read_consumers: ReadConsumers,
        flush_s: float = config.SEGMENT_S,
    ) -> None:
        """Open the archive.

        Raises:
            ArchiveError: another process writes to it, or it cannot be used.
            CorruptLogError: it is damaged.
        """
        self._log = log
        self._url = url
        self._snapshots = snapshots
        self._read_consumers = read_consumers
        self._flush_s = flush_s
        self._writer = SegmentWriter(url)
        after = self._writer.head if self._writer.archived_seq else None
        self._events = EventReader(log, log_id=self._writer.log_id, after=after)
        self._commands = CommandReader(log, after=self._writer.archived_seq)
        self._answers: list[VerifiedEvents] = []
        self._consumers = Consumers()
        self._checkpoints: dict[int, bytes] = {}
        self._waiting_since_s = 0.0

    @property
    def archived_seq(self) -> int:
        """The last entry that is in a segment."""
        return self._writer.archived_seq

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set, and then what was read.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was, or not the archive's.
            TrimmedError: the log no longer holds what follows the archive.
        """
        try:
            while not stop.is_set():
                try:
                    await self._step()
                except LogUnavailableError as error:
                    logger.warning("log_unavailable", error=str(error), seq=self._events.seq)
                    await asyncio.sleep(config.SERVER_RETRY_S)
            await self._flush()
        finally:
            self.close()

    def close(self) -> None:
        """Let another process archive. What was read and is in no segment is dropped."""
        self._writer.close()

    async def _step(self) -> None:
        if self._writer.is_full or self._is_due():
            # Looked at before the segment is written: under load newer ones replace them meanwhile, whose
            # checkpoints are still to be read.
            good = await asyncio.to_thread(self._good_snapshots)
            if not await self._flush():
                await asyncio.sleep(FLUSH_RETRY_S)
                return
            await self._trim(good)
        await self._read()

    def _is_due(self) -> bool:
        has_waited = asyncio.get_running_loop().time() - self._waiting_since_s >= self._flush_s
        return self._writer.pending.seq > self._writer.archived_seq and has_waited

    async def _read(self) -> None:
        if not self._answers:
            self._answers = await self._events.read(ENTRIES_PER_READ, READ_WAIT_MS)
            if not self._answers:
                return
        asked = await self._commands.read(len(self._answers))
        if not asked:
            raise CorruptLogError(self._commands.seq + 1, "command entry is missing; its events are there")
        answers, self._answers = self._answers[: len(asked)], self._answers[len(asked) :]
        if self._writer.pending.seq == self._writer.archived_seq:
            self._waiting_since_s = asyncio.get_running_loop().time()
        for command, answer in zip(asked, answers, strict=True):
            assert self._events.log_id is not None
            self._writer.add(command, answer, self._events.log_id)
            for group in answer.groups:
                for event in group:
                    if type(event) is CheckpointPassed:
                        self._checkpoints[event.seq] = event.digest

    async def _flush(self) -> bool:
        """Write a segment of what was read; return whether that is done."""
        try:
            segment = await asyncio.to_thread(self._writer.flush)
        except OSError as error:
            logger.error("segment_not_written", seq=self._writer.archived_seq + 1, error=str(error))
            return False
        if segment is not None:
            logger.info(
                "segment_written", first_seq=segment.first_seq, seq=segment.last_seq, bytes=segment.bytes
            )
        return True

    async def _trim(self, good: list[int]) -> None:
        """Remove what nobody needs."""
        self._consumers.note(await self._read_consumers(), asyncio.get_running_loop().time())
        first_kept = first_to_keep(
            archived_seq=self.archived_seq, snapshot_seqs=good, consumer_seqs=self._consumers.seqs
        )
        try:
            await trim(self._log, ArchivedLog(self._url), first_kept)
        except LogFullError as error:
            # A disk without room refuses this too; the next segment tries again.
            logger.error("log_full", error=str(error), seq=self.archived_seq)

    def _good_snapshots(self) -> list[int]:
        """Return the snapshots that can be loaded and have the digest of their checkpoint in the log.

        A checkpoint that passed before this process started is not known; then more is kept for a while.
        """
        good = []
        for path in files.find(self._snapshots, self._writer.log_id):
            try:
                snapshot = files.load(path)
            except (files.SnapshotError, OSError):
                continue  # damaged, or deleted since it was found
            if self._checkpoints.get(snapshot.seq) == snapshot.digest:
                good.append(snapshot.seq)
        self._checkpoints = {
            seq: digest for seq, digest in self._checkpoints.items() if seq >= min(good, default=0)
        }
        return good
