"""The log: two streams with one numbering, a lease for the single writer, and readers that verify.

`Log` is what memory and Redis implement; `tests/conformance` holds the suite that each must pass.
Command entry `seq` has exactly one event entry, under the same number. Numbers have no gaps, start at 1,
and the last entry of each stream is never trimmed.

Two kinds of failure. `LogUnavailableError` passes: nobody answered, or nobody answered in time; whether
an append happened is unknown, and the same frame may be sent again. Everything else says that the world is
not as promised, and stops the process that meets it.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from events import upcast
from events.frame import (
    GENESIS_HASH,
    CommandFrame,
    EventEntry,
    Groups,
    UndecodableBodyError,
    chain_hash,
    decode_groups,
    header_of,
    log_id_of,
)


class LogError(Exception):
    """Base of all that goes wrong with a log."""


class LogUnavailableError(LogError):
    """The server did not answer. An append under way may or may not have happened."""


class ForeignServerError(LogUnavailableError):
    """What answers there does not speak the protocol of a log's server; it may be another kind of server."""


class LogFullError(LogError):
    """The server refuses writes for want of memory or disk; nothing was appended."""


class LogMissingError(LogError):
    """There is no log yet: its first entry, which names it, has not been appended."""


class LogExistsError(LogError):
    """A log is already there; it is never created twice."""


class FencedError(LogError):
    """This writer may no longer append: another one holds the lease, or the head is not as it left it."""


class LogRewoundError(LogError):
    """The log no longer holds what this process has read: it went backwards. State must be rebuilt."""


class TrimmedError(LogError):
    """The entries asked for were removed from the streams; the archive has them.

    `first_kept` is the first entry that is still there.
    """

    def __init__(self, seq: int, first_kept: int) -> None:
        super().__init__(
            f"entry {seq} was trimmed: the log keeps entries from {first_kept} on; "
            "earlier ones are in the archive (--archive DIR)"
        )
        self.seq = seq
        self.first_kept = first_kept


class ServerSettingsError(LogError):
    """The server's settings do not keep what is acknowledged; the message says which one to change."""


class CorruptLogError(LogError):
    """Stored bytes are not what was written. `seq` is the entry at which that shows."""

    def __init__(self, seq: int, what: str) -> None:
        super().__init__(f"entry {seq}: {what}")
        self.seq = seq


class CommandEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A command frame at its place in the log."""

    seq: int
    frame: CommandFrame


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last event entry: its number and chain hash; (0, 32 zero bytes) before the first."""

    seq: int
    chain_hash: bytes


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A command entry that somebody has seen: its number and checksum."""

    seq: int
    checksum: bytes


class Lease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The right to append events. A later term fences every earlier one."""

    writer_id: str
    term: int

    @property
    def mark(self) -> str:
        """What is stored beside each entry: "writer id:term"."""
        return f"{self.writer_id}:{self.term}"


class ReadableLog(Protocol):
    """What readers need of a log: a server, memory, or an archive. All may raise `LogUnavailableError`."""

    @property
    def connections(self) -> int:
        """How often a connection was made. A reader that sees it grow checks its place again."""
        ...

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return up to `limit` command entries with seq > `after`, in order.

        With none there yet, wait up to `wait_ms` for the first. Entries are as stored: `CommandReader`
        verifies them.

        Raises:
            TrimmedError: the entry behind `after` was removed because it is in the archive.
        """
        ...

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry, 0 if there is none."""
        ...

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return up to `limit` event entries with seq > `after`, as stored, like `read_commands`."""
        ...

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry."""
        ...

    async def close(self) -> None:
        """Drop the connection. The log stays."""
        ...


class Log(ReadableLog, Protocol):
    """Commands in, events out. All methods may raise `LogUnavailableError`."""

    async def create(self, frame: CommandFrame) -> None:
        """Append the first command entry.

        Raises:
            LogExistsError: the command stream is not empty.
        """
        ...

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append a command frame; return its sequence number.

        `behind` is an entry that the caller has seen. Every first append over a connection makes sure, in one
        step with the append, that the log still holds it, unless it was trimmed: a log that went backwards
        gets nothing from those who have seen more of it.

        Raises:
            LogRewoundError: the log does not hold that entry; nothing was appended.
            LogMissingError: the log has not been created.
            LogFullError: the server has no room.
        """
        ...

    async def acquire_lease(self, writer_id: str, ttl_ms: int, *, above_term: int = 0) -> Lease | None:
        """Take the writer's lease with a new term, or return None while another holds it.

        The term is above `above_term`: who puts back a lost log knows terms that the server has forgotten.
        """
        ...

    async def renew_lease(self, lease: Lease, ttl_ms: int) -> None:
        """Hold the lease for another `ttl_ms`.

        Raises:
            FencedError: another writer has a later term.
        """
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back, so that a successor need not wait. A lease lost already is no error."""
        ...

    async def append_events(self, entries: Sequence[EventEntry], previous: Head, lease: Lease) -> None:
        """Append event entries that continue `previous`, in order, each under its own `seq`.

        An entry that is found stored already with the same hash and writer mark counts as appended: its
        reply had been lost.

        Raises:
            FencedError: the lease's term is not the current one, or the head is not `previous`. Entries
                before the refused one may have been appended.
            LogRewoundError: the log ends before `previous`.
            LogFullError: the server has no room; the head tells how many were appended.
        """
        ...

    async def restore(
        self, commands: Sequence[CommandEntry], events: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        """Put back entries that the log had and lost, as they were, in one step: all of them or none.

        `events` continue `previous`; `commands`, which may be none, are to continue the command stream and
        may not leave it behind the events. An entry keeps its writer's mark, whoever holds the lease.

        Raises:
            FencedError: the term is not the current one, or a stream does not end where that continues.
            LogFullError: the server has no room.
        """
        ...

    async def drop_unanswered(self, after: int, lease: Lease) -> None:
        """Remove the command entries behind `after`, none of which has an answer, as if they had never come.

        For whoever puts back what the log had in their place.

        Raises:
            FencedError: the term is not the current one, or there is an answer behind `after`.
        """
        ...

    async def trim(self, first_kept: Head) -> None:
        """Remove the entries before `first_kept` from both streams; it stays, and so the last entry does.

        Nothing happens when they are gone already. Reading them raises `TrimmedError` from then on.

        Raises:
            LogRewoundError: the log does not hold that entry with that hash; nothing was removed.
        """
        ...


class CommandReader:
    """Reads command frames in order and stops at the first that is not as it was written.

    After a new connection, and whenever there was nothing to read, it makes sure that the log still holds
    what it read last: a log emptied or set back under a live connection looks like one that is idle.

    `seq` is the last entry returned; `checksum` its checksum, None before the first read from `after`.
    """

    def __init__(self, log: ReadableLog, *, after: int = 0, checksum: bytes | None = None) -> None:
        self._log = log
        self.seq = after
        self.checksum = checksum
        self._connections = -1

    async def read(self, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return the next entries, none after `wait_ms` without one.

        Raises:
            CorruptLogError: a gap, a checksum that does not match, or an unknown schema version.
            LogRewoundError: the entry read last is no longer there, or is another one.
        """
        # Counted before the read: a connection made while it ran is checked by the next one.
        connections = self._log.connections
        entries = await self._log.read_commands(self.seq, limit, wait_ms)
        if self._log.connections != self._connections or not entries:
            await self.check_place()
            self._connections = connections
        try:
            for entry in entries:
                self.verify(entry)
        except CorruptLogError:
            # A log that was set back and grew again past our place looks damaged; say what it is.
            await self.check_place()
            raise
        return entries

    def verify(self, entry: CommandEntry) -> None:
        """Check that `entry` is the next one and as it was written, and move behind it.

        Raises:
            CorruptLogError: it is not.
        """
        if entry.seq != self.seq + 1:
            raise CorruptLogError(self.seq + 1, f"command entry is missing; the next is {entry.seq}")
        _check_schema(entry.seq, entry.frame.schema)
        if not entry.frame.is_intact():
            raise CorruptLogError(entry.seq, "command checksum does not match its content")
        self.seq = entry.seq
        self.checksum = entry.frame.checksum

    async def check_place(self) -> None:
        """Make sure that the log still holds the entry read last.

        Raises:
            LogRewoundError: it does not.
        """
        if self.seq == 0:
            return
        found = await self._log.read_commands(self.seq - 1, 1)
        if not found or found[0].seq != self.seq:
            raise LogRewoundError(f"command entry {self.seq} was read and is no longer in the log")
        if self.checksum is not None and found[0].frame.checksum != self.checksum:
            raise LogRewoundError(f"command entry {self.seq} is not the one that was read")


class VerifiedEvents(msgspec.Struct, frozen=True, kw_only=True):
    """An event entry whose place in the chain was verified, with its decoded groups."""

    entry: EventEntry
    groups: Groups


class EventReader:
    """Reads event entries in order and verifies the hash chain; checks its place as `CommandReader` does.

    Starts from the beginning, or behind an entry whose number and hash the caller kept (a snapshot).
    """

    def __init__(self, log: ReadableLog, *, log_id: str | None = None, after: Head | None = None) -> None:
        self._log = log
        self.log_id = log_id
        self.seq = after.seq if after else 0
        self.chain_hash = after.chain_hash if after else GENESIS_HASH
        self._connections = -1

    @property
    def head(self) -> Head:
        """The entry read last."""
        return Head(seq=self.seq, chain_hash=self.chain_hash)

    async def read(self, limit: int, wait_ms: int = 0) -> list[VerifiedEvents]:
        """Return the next entries, none after `wait_ms` without one.

        Raises:
            CorruptLogError: a gap, a broken chain, an undecodable body or an unknown schema version.
            LogRewoundError: the entry read last is no longer there, or is another one.
        """
        connections = self._log.connections
        entries = await self._log.read_events(self.seq, limit, wait_ms)
        if self._log.connections != self._connections or not entries:
            await self.check_place()
            self._connections = connections
        try:
            return [self.verify(entry) for entry in entries]
        except CorruptLogError:
            await self.check_place()
            raise

    async def read_to(self, last_seq: int, limit: int) -> list[VerifiedEvents]:
        """Return the next entries of those up to `last_seq`, which the log is known to have; at least one.

        Raises:
            CorruptLogError: as `read`, and when the next entry is not there.
            LogRewoundError: as `read`.
        """
        assert self.seq < last_seq, (self.seq, last_seq)
        entries = await self.read(min(limit, last_seq - self.seq))
        if not entries:
            raise CorruptLogError(self.seq + 1, f"event entry is missing; the log ends at {last_seq}")
        return entries

    def verify(self, entry: EventEntry) -> VerifiedEvents:
        """Check that `entry` continues the chain and move behind it.

        Raises:
            CorruptLogError: it does not.
        """
        if entry.seq != self.seq + 1:
            raise CorruptLogError(self.seq + 1, f"event entry is missing; the next is {entry.seq}")
        _check_schema(entry.seq, entry.schema)
        try:
            groups = decode_groups(entry.body, entry.schema)
        except UndecodableBodyError as error:
            raise CorruptLogError(entry.seq, f"event body does not decode: {error}") from error
        log_id = self.log_id or log_id_of(groups)
        if log_id is None or len(log_id) != 32:
            raise CorruptLogError(entry.seq, "the log has no name: entry 1 does not hold it")
        header = header_of(groups)
        if header.seq != entry.seq or len(header.checksum) != 32:
            raise CorruptLogError(entry.seq, f"frame header says entry {header.seq}")
        expected = chain_hash(log_id, self.chain_hash, entry.seq, entry.schema, header.checksum, entry.body)
        if expected != entry.chain_hash:
            raise CorruptLogError(entry.seq, "hash does not continue the chain")
        self.log_id = log_id
        self.seq = entry.seq
        self.chain_hash = entry.chain_hash
        return VerifiedEvents(entry=entry, groups=groups)

    async def check_place(self) -> None:
        """Make sure that the log still holds the entry read last.

        Raises:
            LogRewoundError: it does not.
        """
        if self.seq == 0:
            return
        found = await self._log.read_events(self.seq - 1, 1)
        if not found or found[0].seq != self.seq:
            raise LogRewoundError(f"event entry {self.seq} was read and is no longer in the log")
        if found[0].chain_hash != self.chain_hash:
            raise LogRewoundError(f"event entry {self.seq} is not the one that was read")


def check_answer(command: CommandEntry, answer: VerifiedEvents) -> None:
    """Make sure that an event entry answers the command entry of its number; the chain vouches for which.

    Raises:
        CorruptLogError: it answers another one.
    """
    if header_of(answer.groups).checksum != command.frame.checksum:
        raise CorruptLogError(command.seq, "the command entry is another than the one its events answer")


def _check_schema(seq: int, schema: int) -> None:
    language = upcast.LANGUAGE
    if not language.reads(schema):
        reads = f"1 to {language.version}" if language.version > 1 else "1"
        raise CorruptLogError(seq, f"schema version {schema} is unknown; this build reads {reads}")
