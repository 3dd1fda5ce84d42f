"""A process's own copy of the state, kept current from the event stream by `apply` alone.

Writer, intake, liquidator and every other consumer hold one. They see what was decided, in order, with the
chain verified; none of them computes a balance in a second way.

A fold starts from the newest snapshot that can be used, when there is a directory of them, and otherwise
from the first entry. Snapshots are due by number of events, counted from the log's first: an entry is a
*milestone* when the count passes a multiple of `every_events` in it. So all who fold the log with the same
setting agree on the milestones, wherever they started. At each of them a fold takes the digest of its state
and remembers it; when the log later holds a checkpoint of that entry, the two must agree. What a process
decides itself it does not fold: the active writer compares only what it folds when it starts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from events.events import CheckpointPassed
from events.frame import header_of
from events.log import (
    CorruptLogError,
    EventReader,
    Head,
    LogRewoundError,
    LogUnavailableError,
    ReadableLog,
    TrimmedError,
    VerifiedEvents,
)
from events.segments import ArchivedThenLive
from events.snapshot import Snapshot, SnapshotError, load_newest
from exchange.aggregate.image import ImageError, restore, take_image
from exchange.aggregate.state import Exchange

ENTRIES_PER_READ = 256
# Of the past, which is read while others wait for the event loop.
PAST_ENTRIES_PER_READ = 16
WAIT_MS = 500
RETRY_S = 0.1
# A checkpoint follows its milestone within seconds; who lags further behind than this compares no more.
DIGESTS_REMEMBERED = 64

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """Where snapshots are (None: nowhere, start from the first entry), and how far apart the milestones are.

    `archive` has what was trimmed from the log, for whoever has no snapshot to start from.
    `every_events` 0: no milestones, so no digests are taken, and no checkpoint is compared.
    """

    directory: Path | None = None
    every_events: int = 0
    archive: str | None = None


NO_SNAPSHOTS: Final = Snapshots()


class Fold:
    """State built from the log, and the calls that tell the process about each entry after applying it.

    `on_entry` gets every entry behind the start, in order, once; what it raises ends the fold. `on_milestone`
    gets the snapshot of each milestone, before `on_entry` gets its entry. `events` counts the log's events up
    to here, `command_checksum` is that of the last entry's command, None before the first.
    """

    def __init__(
        self,
        log: ReadableLog,
        on_entry: Callable[[VerifiedEvents], None],
        snapshots: Snapshots = NO_SNAPSHOTS,
        *,
        on_milestone: Callable[[Snapshot], None] | None = None,
    ) -> None:
        self.state = Exchange()
        self.events = 0
        self.command_checksum: bytes | None = None
        self.started_from: Snapshot | None = None
        # What follows a snapshot may be trimmed as well, while a process takes long to start from it.
        self._whole_log = ArchivedThenLive(snapshots.archive, log) if snapshots.archive else log
        self._reader = EventReader(self._whole_log)
        self._log = log
        self._on_entry = on_entry
        self._snapshots = snapshots
        self._on_milestone = on_milestone
        self._is_started = snapshots.directory is None
        self._digests: dict[int, bytes] = {}

    @property
    def head(self) -> Head:
        """The last entry applied."""
        return self._reader.head

    async def start(self) -> None:
        """Start from the newest snapshot that can be used, once; `catch_up` and `run` do it too.

        Raises:
            LogRewoundError: the log ends before the newest usable snapshot, or is another one there. An
                older snapshot would only hide that.
            TrimmedError: neither the log nor an archive holds what follows that snapshot.
        """
        if self._is_started:
            return
        assert self._snapshots.directory is not None
        log_id = await self._name_of_log()
        found = load_newest(self._snapshots.directory, restore_snapshot, log_id=log_id)
        if found is not None:
            await self._place(*found)
        self._is_started = True

    async def catch_up(self) -> None:
        """Fold everything that is in the log now.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was; see `EventReader.read`, `start`.
        """
        await self.start()
        target = await self._log.event_head()
        if target.seq <= self._reader.seq:
            # Nothing to read, so nothing that would show a log set back since the last entry.
            await self._reader.check_place()
        while self._reader.seq < target.seq:
            self._take(await self._reader.read_to(target.seq, ENTRIES_PER_READ))

    async def run(self, stop: asyncio.Event) -> None:
        """Fold what comes until `stop` is set; wait out a server that does not answer.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was; see `EventReader.read`, `start`.
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

    async def past(self) -> AsyncIterator[VerifiedEvents]:
        """Yield what log and archive hold of the entries up to the snapshot that this fold started from.

        They are verified and not applied. Of a trimmed log without archive the oldest entry is left out: its
        own place in the chain cannot be verified any more.

        Raises:
            CorruptLogError, LogRewoundError: the log is not what it was; see `EventReader.read`.
        """
        snapshot = self.started_from
        if snapshot is None:
            return
        reader = await self._oldest()
        while reader.seq < snapshot.seq:
            for verified in await reader.read_to(snapshot.seq, PAST_ENTRIES_PER_READ):
                yield verified
        if reader.seq == snapshot.seq and reader.chain_hash != snapshot.chain_hash:
            raise CorruptLogError(snapshot.seq, "the entries before the snapshot do not lead to it")

    async def _name_of_log(self) -> str | None:
        """Return the log's name, None when the log is empty or no longer holds the entry that has it."""
        reader = EventReader(self._log)
        try:
            await reader.read(1)
        except TrimmedError:
            return None
        return reader.log_id

    async def _place(self, snapshot: Snapshot, state: Exchange) -> None:
        after = Head(seq=snapshot.seq, chain_hash=snapshot.chain_hash)
        reader = EventReader(self._whole_log, log_id=snapshot.log_id, after=after)
        try:
            await reader.check_place()
        except LogRewoundError as error:
            message = f"the snapshot of entry {snapshot.seq} of log {snapshot.log_id}: {error}"
            raise LogRewoundError(message) from error
        self._reader = reader
        self.state = state
        self.events = snapshot.events
        self.command_checksum = snapshot.command_checksum
        self.started_from = snapshot
        self._digests = {snapshot.seq: snapshot.digest}
        logger.info("started_from_snapshot", seq=snapshot.seq, digest=snapshot.digest.hex())

    async def _oldest(self) -> EventReader:
        """Return a reader of the oldest entries that can be verified."""
        try:
            await self._whole_log.read_events(0, 1)
            return EventReader(self._whole_log)
        except TrimmedError as error:
            (first,) = await self._log.read_events(error.first_kept - 1, 1)
            after = Head(seq=first.seq, chain_hash=first.chain_hash)
            return EventReader(self._log, log_id=self.state.log_id, after=after)

    async def _step(self, wait_ms: int) -> None:
        await self.start()
        self._take(await self._reader.read(ENTRIES_PER_READ, wait_ms))

    def _take(self, entries: list[VerifiedEvents]) -> None:
        apply = self.state.apply
        every_events = self._snapshots.every_events
        for verified in entries:
            events = self.events
            for group in verified.groups:
                events += len(group)
                for event in group:
                    apply(event)
                    if type(event) is CheckpointPassed:
                        self._compare(event)
            self.command_checksum = header_of(verified.groups).checksum
            is_milestone = every_events and events // every_events > self.events // every_events
            self.events = events
            if is_milestone:
                self._pass_milestone(verified)
            self._on_entry(verified)

    def _pass_milestone(self, verified: VerifiedEvents) -> None:
        """Take the digest of the state here, and the snapshot if somebody wants it."""
        seq = verified.entry.seq
        image = take_image(self.state)
        self._digests[seq] = image.digest
        if len(self._digests) > DIGESTS_REMEMBERED:
            del self._digests[next(iter(self._digests))]
        if self._on_milestone is None:
            return
        assert self.command_checksum is not None, seq
        self._on_milestone(
            Snapshot(
                log_id=self.state.log_id,
                seq=seq,
                events=self.events,
                chain_hash=verified.entry.chain_hash,
                command_checksum=self.command_checksum,
                digest=image.digest,
                rules_version=self.state.rules_version,
                body=image.body,
            )
        )

    def _compare(self, checkpoint: CheckpointPassed) -> None:
        digest = self._digests.get(checkpoint.seq)
        if digest is not None and digest != checkpoint.digest:
            raise CorruptLogError(
                checkpoint.seq,
                f"the state here has the digest {digest.hex()}, its checkpoint {checkpoint.digest.hex()}",
            )


def restore_snapshot(snapshot: Snapshot) -> Exchange:
    """Return the state of a snapshot.

    Raises:
        SnapshotError: its body is no state, or another one than it says.
    """
    try:
        state = restore(snapshot.body)
    except ImageError as error:
        raise SnapshotError(str(error)) from error
    named = (snapshot.log_id, snapshot.seq, snapshot.rules_version, snapshot.digest)
    if named != (state.log_id, state.seq, state.rules_version, state.digest()):
        raise SnapshotError("the state in it is not the one that it names")
    return state
