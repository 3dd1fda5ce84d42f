"""A log in memory: for simulation, tests and benchmarks of the rules alone.

It keeps every promise of `events.log.Log` within one process and passes the same conformance suite as the
server. Appenders, the writer and readers share one `MemoryLog`.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

from events.frame import GENESIS_HASH, CommandFrame, EventEntry
from events.log import (
    CommandEntry,
    FencedError,
    Head,
    Lease,
    LogExistsError,
    LogMissingError,
    LogRewoundError,
    Place,
    TrimmedError,
)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class MemoryLog:
    """`Log` on two lists.

    `commands`, `events` and `connections` are open to tests that damage a log, set it back or pretend a
    reconnect. Leases expire by `clock_ms`.
    """

    def __init__(self, *, clock_ms: Callable[[], int] = _monotonic_ms) -> None:
        self.commands: list[CommandEntry] = []
        self.events: list[EventEntry] = []
        self.connections = 1
        self._clock_ms = clock_ms
        self._first_kept = 1
        self._term = 0
        self._lease: Lease | None = None
        self._lease_ends_ms = 0
        self._grown = asyncio.Event()

    async def create(self, frame: CommandFrame) -> None:
        """Append the first command entry (see `Log.create`)."""
        if self.commands:
            raise LogExistsError("the command stream is not empty")
        self._add_command(frame)

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append a command frame (see `Log.append_command`)."""
        if not self.commands:
            raise LogMissingError("the log has not been created")
        if behind is not None:
            self._check_behind(behind)
        return self._add_command(frame)

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after` (see `Log.read_commands`)."""
        await self._wait_for(lambda: bool(self.commands) and self.commands[-1].seq > after, wait_ms)
        self._check_kept(after, self.commands)
        start = bisect_right(self.commands, after, key=_seq_of)
        return self.commands[start : start + limit]

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry, 0 if there is none."""
        return self.commands[-1].seq if self.commands else 0

    async def acquire_lease(self, writer_id: str, ttl_ms: int, *, above_term: int = 0) -> Lease | None:
        """Take the lease unless another holds it (see `Log.acquire_lease`)."""
        if self._lease is not None and self._clock_ms() < self._lease_ends_ms:
            return None
        self._term = max(self._term, above_term) + 1
        self._lease = Lease(writer_id=writer_id, term=self._term)
        self._lease_ends_ms = self._clock_ms() + ttl_ms
        return self._lease

    async def renew_lease(self, lease: Lease, ttl_ms: int) -> None:
        """Hold the lease for longer (see `Log.renew_lease`)."""
        if lease.term != self._term:
            raise FencedError(f"{lease.mark} was followed by term {self._term}")
        self._lease = lease
        self._lease_ends_ms = self._clock_ms() + ttl_ms

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back (see `Log.release_lease`)."""
        if self._lease == lease:
            self._lease = None

    async def append_events(self, entries: Sequence[EventEntry], previous: Head, lease: Lease) -> None:
        """Append event entries that continue `previous` (see `Log.append_events`)."""
        for entry in entries:
            assert entry.writer == lease.mark, (entry.writer, lease.mark)
            continues = entry.seq == previous.seq + 1 and previous == self._head()
            if continues and lease.term == self._term:
                self.events.append(entry)
                self._wake()
            elif self._head().seq < previous.seq:
                raise LogRewoundError(
                    f"entry {previous.seq} was appended, and the log ends at {self._head().seq}"
                )
            elif not self._holds(entry):
                raise FencedError(
                    f"{lease.mark} may not append entry {entry.seq}: the head is {self._head().seq}, "
                    f"the term {self._term}"
                )
            previous = Head(seq=entry.seq, chain_hash=entry.chain_hash)

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return event entries behind `after` (see `Log.read_events`)."""
        await self._wait_for(lambda: bool(self.events) and self.events[-1].seq > after, wait_ms)
        self._check_kept(after, self.events)
        start = bisect_right(self.events, after, key=_seq_of)
        return self.events[start : start + limit]

    async def restore(
        self, commands: Sequence[CommandEntry], events: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        """Put back entries that were lost (see `Log.restore`)."""
        restored = [*commands, *events]
        last_command_seq = commands[-1].seq if commands else await self.last_command_seq()
        if (
            lease.term != self._term
            or previous != self._head()
            or (commands and commands[0].seq != await self.last_command_seq() + 1)
            or (events and events[-1].seq > last_command_seq)
        ):
            raise FencedError(f"{lease.mark} may not restore {len(restored)} entries behind {previous.seq}")
        self.commands.extend(commands)
        self.events.extend(events)
        self._wake()

    async def drop_unanswered(self, after: int, lease: Lease) -> None:
        """Remove commands that have no answer (see `Log.drop_unanswered`)."""
        if lease.term != self._term or self._head().seq > after:
            raise FencedError(f"{lease.mark} may not remove the command entries behind {after}")
        del self.commands[bisect_right(self.commands, after, key=_seq_of) :]

    async def trim(self, first_kept: Head) -> None:
        """Remove what is before an entry (see `Log.trim`)."""
        if first_kept.seq <= self._first_kept:
            return
        start = bisect_right(self.events, first_kept.seq - 1, key=_seq_of)
        if [first_kept] != [
            Head(seq=found.seq, chain_hash=found.chain_hash) for found in self.events[start : start + 1]
        ]:
            raise LogRewoundError(f"event entry {first_kept.seq} is not the one before which to trim")
        self._first_kept = first_kept.seq
        self.events[:] = self.events[start:]
        self.commands[:] = self.commands[bisect_right(self.commands, first_kept.seq - 1, key=_seq_of) :]

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry."""
        return self._head()

    async def close(self) -> None:
        """Do nothing: the log lives as long as the object."""

    def _check_kept(self, after: int, entries: Sequence[CommandEntry | EventEntry]) -> None:
        # An emptied log is no trimmed one.
        if entries and after + 1 < self._first_kept <= entries[0].seq:
            raise TrimmedError(after + 1, self._first_kept)

    def _head(self) -> Head:
        if not self.events:
            return Head(seq=0, chain_hash=GENESIS_HASH)
        return Head(seq=self.events[-1].seq, chain_hash=self.events[-1].chain_hash)

    def _holds(self, entry: EventEntry) -> bool:
        start = bisect_right(self.events, entry.seq - 1, key=_seq_of)
        found = self.events[start : start + 1]
        return [(entry.seq, entry.chain_hash, entry.writer)] == [
            (stored.seq, stored.chain_hash, stored.writer) for stored in found
        ]

    def _check_behind(self, behind: Place) -> None:
        start = bisect_right(self.commands, behind.seq - 1, key=_seq_of)
        found = self.commands[start : start + 1]
        is_other = bool(found) and found[0].seq == behind.seq and found[0].frame.checksum != behind.checksum
        if not found or is_other:
            raise LogRewoundError(f"command entry {behind.seq} is not the one that was seen")

    def _add_command(self, frame: CommandFrame) -> int:
        seq = self.commands[-1].seq + 1 if self.commands else 1
        self.commands.append(CommandEntry(seq=seq, frame=frame))
        self._wake()
        return seq

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def _wait_for(self, is_there: Callable[[], bool], wait_ms: int) -> None:
        if wait_ms <= 0 or is_there():
            return
        try:
            async with asyncio.timeout(wait_ms / 1000):
                while not is_there():
                    await self._grown.wait()
        except TimeoutError:
            pass


def _seq_of(entry: CommandEntry | EventEntry) -> int:
    return entry.seq
