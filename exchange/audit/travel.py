"""Time travel: the state as it was behind any entry of a log, or at any time.

Who asks for a moment starts from the newest snapshot before it and applies the events between. Snapshots
are found where the archiver keeps its newest few, and where `make_snapshots` puts one for every so many
events, so that no moment of a long log is far from one. A snapshot is only used where the log has its entry.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from events.frame import decode_groups, header_of
from events.log import (
    CorruptLogError,
    EventReader,
    Head,
    LogRewoundError,
    ReadableLog,
    TrimmedError,
    VerifiedEvents,
)
from events.snapshot import Snapshot, SnapshotError, find, load, save, seq_of
from exchange.aggregate.image import take_image
from exchange.aggregate.state import Exchange
from exchange.audit.replay import ENTRIES_PER_READ, OnProgress, apply_entry, time_text
from exchange.fold import restore_snapshot

Accept = Callable[[Exchange], bool]
_KEEP_ALL = 1 << 30

logger = structlog.get_logger(__name__)


class NotInLogError(Exception):
    """The log has no such entry, moment, market, account or liquidation."""


class BadMomentError(ValueError):
    """A text is neither a sequence number nor a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A point of a log: behind entry `seq`, or behind the last entry at or before a time (ns since 1970)."""

    seq: int | None = None
    time_ns: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Moment":
        """Read a sequence number, or a time as ISO 8601 writes it (UTC unless it says otherwise).

        Raises:
            BadMomentError: it is neither.
        """
        if text.isascii() and text.isdigit():
            if not 1 <= len(text) <= 18 or int(text) == 0:
                raise BadMomentError(f"the first entry is 1: {text}")
            return cls(seq=int(text))
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            message = f"must be a sequence number or a time like 2025-10-10T21:18:03.5Z: {text!r}"
            raise BadMomentError(message) from None
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        since = time - datetime(1970, 1, 1, tzinfo=UTC)
        time_ns = ((since.days * 86_400 + since.seconds) * 10**6 + since.microseconds) * 1_000
        if time_ns < 0:
            raise BadMomentError(f"is before 1970: {text!r}")
        return cls(time_ns=time_ns)


async def seq_of_moment(log: ReadableLog, moment: Moment | None) -> int:
    """Return the entry that a moment is behind; None is the end of the log.

    Looks for a time by halving, since time never goes back.

    Raises:
        NotInLogError: the log ends before that entry, or begins after that time.
    """
    last = (await log.event_head()).seq
    if moment is None:
        return last
    if moment.seq is not None:
        if moment.seq > last:
            raise NotInLogError(f"the log ends at entry {last}; there is no entry {moment.seq}")
        return moment.seq
    assert moment.time_ns is not None
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        try:
            (entry,) = await log.read_events(middle - 1, 1)
        except TrimmedError as error:
            low = error.first_kept - 1
            if low >= high:
                raise
            continue
        if header_of(decode_groups(entry.body, entry.schema)).now_ns <= moment.time_ns:
            low = middle
        else:
            high = middle - 1
    if low == 0:
        raise NotInLogError(f"the log begins after {time_text(moment.time_ns)}")
    return low


class Traveller:
    """A state on its way through a log. `events` counts all of the log's events up to here."""

    def __init__(self, reader: EventReader, state: Exchange, events: int) -> None:
        self.state = state
        self.events = events
        self._reader = reader

    @property
    def head(self) -> Head:
        """The last entry applied."""
        return self._reader.head

    def apply(self, verified: VerifiedEvents) -> None:
        """Apply an entry that `entries` yielded.

        Raises:
            CorruptLogError: an event does not fit the state it meets.
        """
        self.events += apply_entry(self.state, verified)

    async def go(self, seq: int, on_progress: OnProgress | None = None) -> None:
        """Apply the entries up to `seq`, or to the end.

        Raises:
            CorruptLogError: an entry is not what was written, or does not fit the state it meets.
        """
        async for verified in self.entries(seq, on_progress):
            self.apply(verified)

    async def entries(self, seq: int, on_progress: OnProgress | None = None) -> AsyncIterator[VerifiedEvents]:
        """Yield the entries up to `seq` without applying them: whoever asks does that."""
        while self._reader.seq < seq:
            batch = await self._reader.read_to(seq, ENTRIES_PER_READ)
            for verified in batch:
                yield verified
            if on_progress is not None:
                on_progress(self._reader.seq, seq)


async def start_before(
    log: ReadableLog, directories: Sequence[Path], seq: int, accept: Accept | None = None
) -> Traveller:
    """Return a traveller at the newest usable snapshot of at most entry `seq`, else before the first entry.

    `accept` may ask for an earlier one by the state in it.
    """
    log_id = await _name_of_log(log)
    paths = [path for directory in directories for path in find(directory, log_id) if seq_of(path) <= seq]
    for path in sorted(paths, key=seq_of, reverse=True):
        traveller = await _start_from(log, path, accept)
        if traveller is not None:
            return traveller
    return Traveller(EventReader(log), Exchange(), 0)


async def _start_from(log: ReadableLog, path: Path, accept: Accept | None) -> Traveller | None:
    try:
        snapshot = load(path)
        state = restore_snapshot(snapshot)
    except FileNotFoundError:
        return None  # older ones are deleted while newer ones are written
    except (SnapshotError, OSError) as error:
        logger.warning("snapshot_skipped", path=str(path), reason=str(error))
        return None
    if accept is not None and not accept(state):
        return None
    after = Head(seq=snapshot.seq, chain_hash=snapshot.chain_hash)
    reader = EventReader(log, log_id=snapshot.log_id, after=after)
    try:
        await reader.check_place()
    except LogRewoundError as error:
        logger.warning("snapshot_skipped", path=str(path), reason=str(error))
        return None
    return Traveller(reader, state, snapshot.events)


async def _name_of_log(log: ReadableLog) -> str | None:
    """Return the log's name, None when the entry that holds it was trimmed or is damaged."""
    reader = EventReader(log)
    try:
        await reader.read(1)
    except (TrimmedError, CorruptLogError):
        return None
    return reader.log_id


async def travel(
    log: ReadableLog, directories: Sequence[Path], seq: int, on_progress: OnProgress | None = None
) -> Traveller:
    """Return the state behind entry `seq`.

    Raises:
        CorruptLogError: an entry on the way is not what was written, or does not fit.
        TrimmedError: the log no longer holds the entries on the way.
    """
    traveller = await start_before(log, directories, seq)
    await traveller.go(seq, on_progress)
    return traveller


async def make_snapshots(
    log: ReadableLog, directory: Path, every_events: int, on_progress: OnProgress | None = None
) -> list[Path]:
    """Write a snapshot for every so many events of a log into a directory; return the files there are now.

    Goes on behind the newest one that is there already.

    Raises:
        CorruptLogError: an entry is not what was written, or does not fit.
        OSError: a file could not be written.
    """
    last = (await log.event_head()).seq
    traveller = await start_before(log, [directory], last)
    state = traveller.state
    async for verified in traveller.entries(last, on_progress):
        events = traveller.events
        traveller.apply(verified)
        if events // every_events == traveller.events // every_events:
            continue
        image = take_image(state)
        snapshot = Snapshot(
            log_id=state.log_id,
            seq=verified.entry.seq,
            events=traveller.events,
            chain_hash=verified.entry.chain_hash,
            command_checksum=header_of(verified.groups).checksum,
            digest=image.digest,
            rules_version=state.rules_version,
            body=image.body,
        )
        save(directory, snapshot, kept=_KEEP_ALL)
    return find(directory, state.log_id or None)
