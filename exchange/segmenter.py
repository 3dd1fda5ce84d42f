"""The archiver's second half: it puts both streams into segments, and trims them.

It continues the archive without a gap, from where that ends. What the fold beside it has read, decoded and
verified anyway, it is offered and need not read again; whatever it missed of that, because it started further
behind or had no room, it reads from the log.

A segment is written when enough has come, or when what came has waited long enough. Encoding and writing are
done in a thread, and nothing is taken in meanwhile. After each segment the streams are trimmed as far as
nobody needs them (see `trimming`).

Without room on the disk nothing is lost: what is not archived stays in the log, and the next try is near.
When the log went backwards it is the other way round: what was read and is not archived yet is in no log any
more, and is written before this process ends, so that `foldex recover` can put it back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from events import snapshot as files
from events.archive import ArchivedLog, SegmentWriter
from events.events import CheckpointPassed
from events.frame import log_id_of
from events.log import (
    CommandReader,
    CorruptLogError,
    EventReader,
    Head,
    Log,
    LogFullError,
    LogRewoundError,
    LogUnavailableError,
    VerifiedEvents,
)
from exchange import config
from exchange.runtime import wait_set
from exchange.trimming import Consumers, first_to_keep, trim

logger = structlog.get_logger(__name__)

ENTRIES_PER_READ = 256
READ_WAIT_MS = 500
# What is offered beyond this is read from the log later; so much comes while a segment is being written.
OFFERED_BYTES_MAX = 8 * 1024 * 1024
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
        self._offered: deque[VerifiedEvents] = deque()
        self._offered_bytes = 0
        self._offered_seq: int | None = None
        self._arrived = asyncio.Event()
        self._consumers = Consumers()
        self._checkpoints: dict[int, bytes] = {}
        self._waiting_since_s = 0.0

    @property
    def archived_seq(self) -> int:
        """The last entry that is in a segment."""
        return self._writer.archived_seq

    def offer(self, verified: VerifiedEvents) -> None:
        """Take an entry that was read and verified, in the order of the log; what is not offered is read."""
        self._offered_seq = verified.entry.seq
        if self._offered_bytes < OFFERED_BYTES_MAX:
            self._offered.append(verified)
            self._offered_bytes += len(verified.entry.body)
        self._arrived.set()

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
                except LogRewoundError:
                    # What was read is no longer in the log, and nowhere else.
                    await self._flush()
                    raise
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
        elif self._writer.can_pack:
            await asyncio.to_thread(self._writer.pack)
        await self._read()

    def _is_due(self) -> bool:
        has_waited = asyncio.get_running_loop().time() - self._waiting_since_s >= self._flush_s
        return self._writer.pending.seq > self._writer.archived_seq and has_waited

    async def _read(self) -> None:
        if not self._answers:
            self._answers = await self._next_answers()
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

    async def _next_answers(self) -> list[VerifiedEvents]:
        """Return the next entries, none after a while without one."""
        seq = self._events.seq
        while self._offered and self._offered[0].entry.seq <= seq:
            self._take_offered()
        if self._offered and self._offered[0].entry.seq == seq + 1:
            return self._take_all_offered()
        if self._offered_seq is None:
            return await self._events.read(ENTRIES_PER_READ, READ_WAIT_MS)
        if self._offered_seq > seq:
            return await self._events.read(ENTRIES_PER_READ)
        self._arrived.clear()
        await wait_set(self._arrived, READ_WAIT_MS / 1000)
        return []

    def _take_all_offered(self) -> list[VerifiedEvents]:
        """Take what was offered, up to a gap, and move the reader behind it."""
        answers = [self._take_offered()]
        while (
            self._offered
            and len(answers) < ENTRIES_PER_READ
            and self._offered[0].entry.seq == answers[-1].entry.seq + 1
        ):
            answers.append(self._take_offered())
        last = answers[-1].entry
        log_id = self._events.log_id or log_id_of(answers[0].groups)
        after = Head(seq=last.seq, chain_hash=last.chain_hash)
        self._events = EventReader(self._log, log_id=log_id, after=after)
        return answers

    def _take_offered(self) -> VerifiedEvents:
        verified = self._offered.popleft()
        self._offered_bytes -= len(verified.entry.body)
        return verified

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
