"""The archive: a log as Parquet segments in a directory, to keep, to move, to query and to read as a log.

A segment holds consecutive entries of both streams: one Parquet file of commands, one of events (see
`events.columns` for what is in them), and a manifest, which is written last: a segment without one does not
exist. The manifest names both files with their BLAKE2b checksums and says which piece of the chain they are;
its own checksum is its second line. So a changed bit anywhere is found without trusting the Parquet reader,
and the chain inside says at which entry.

The directory is a path or any `pyarrow` file system URL. Local files are written under a temporary name,
synced and renamed. One `SegmentWriter` at a time may have a directory; on a local one a lock sees to it.
"""

import asyncio
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from events.columns import (
    COMMAND_SCHEMA,
    EVENT_SCHEMA,
    FRAME,
    RAW_COMMAND_COLUMNS,
    RAW_EVENT_COLUMNS,
    Answered,
    command_entries,
    command_table,
    event_entries,
    event_table,
)
from events.frame import GENESIS_HASH, EventEntry, chain_hash, decode_groups, header_of
from events.log import (
    CommandEntry,
    CorruptLogError,
    Head,
    VerifiedEvents,
)
from events.segments import (
    FORMAT,
    MANIFESTS,
    ArchiveError,
    ArchiveMismatchError,
    Directory,
    Segment,
    checksum_of,
    last_seq_of,
    manifest_name,
    range_name,
    read_segments,
)

SEGMENT_ENTRIES_MAX = 65_536
SEGMENT_BYTES_AIM = 64 * 1024 * 1024
# Where damage is too great for the chain to tell, it is narrowed down to one group of rows.
ENTRIES_PER_ROW_GROUP = 4_096
ROWS_PER_ROW_GROUP = 65_536
# Rows are made of entries while these are in the processor's cache: many at once cost half as much again.
ROWS_PER_TABLE = 8_192
# A reader of both streams goes through them side by side.
CACHED_FILES = 4
_COMMANDS, _EVENTS = "commands", "events"
_LOCK_NAME = "archive.lock"
_Entries = Sequence[CommandEntry] | Sequence[EventEntry]
_RAW_NAMES = {"raw_body", "raw_checksum", "raw_chain_hash", "raw_timing"}


class _ParquetFile:
    """A Parquet file in the making. Tables wait in memory until a group of rows is made of them."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = pa.BufferOutputStream()
        names = [name for name in schema.names if name not in _RAW_NAMES]
        self._writer = pq.ParquetWriter(
            self._sink, schema, compression="zstd", use_dictionary=names, write_statistics=names
        )
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        self.rows += table.num_rows

    def pack(self) -> None:
        """Make a group of rows of the tables that wait."""
        tables, self._waiting = self._waiting, []
        if tables:
            table = pa.concat_tables(tables)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> bytes:
        """Return the file."""
        self.pack()
        self._writer.close()
        content: bytes = self._sink.getvalue().to_pybytes()
        return content


class SegmentWriter:
    """Adds entries to an archive, which is made if need be.

    `head` is the last entry archived, `pending` the last one added; entries between them are in memory. Not
    async: encoding and writing take time on a processor and a disk, so a process calls `pack` and `flush` in
    a thread and adds nothing meanwhile.
    """

    def __init__(self, url: str | Path) -> None:
        """Open an archive. What an interrupted write has left is removed once its entries are archived.

        Raises:
            ArchiveError: another process writes to it.
            CorruptLogError: a manifest is damaged, or a segment is missing.
        """
        self.directory = Directory(url)
        self._lock = self._take_lock()
        self._segments = read_segments(self.directory)
        self._leftovers = self._find_leftovers()
        last = self._segments[-1] if self._segments else None
        self.log_id = last.log_id if last else None
        self.head = last.head if last else Head(seq=0, chain_hash=GENESIS_HASH)
        self.pending = self.head
        # Closed and not on disk yet: writing it failed.
        self._unwritten: tuple[Segment, bytes, bytes] | None = None
        self._begin()

    @property
    def archived_seq(self) -> int:
        """The last entry that is in a segment, 0 before the first."""
        return self.head.seq

    @property
    def is_full(self) -> bool:
        """Whether what was added is enough for a segment."""
        return self.pending.seq - self.head.seq >= SEGMENT_ENTRIES_MAX or self._bytes >= SEGMENT_BYTES_AIM

    @property
    def can_pack(self) -> bool:
        """Whether what was added since `pack` is enough for a group of rows."""
        entries = self.pending.seq - self._packed_seq
        return entries >= ENTRIES_PER_ROW_GROUP or self._unpacked_rows >= ROWS_PER_ROW_GROUP

    def add(self, command: CommandEntry, verified: VerifiedEvents, log_id: str) -> None:
        """Add a command entry and the event entry that answers it; not while a segment waits to be written.

        Raises:
            ArchiveMismatchError: the entry does not continue the archive: it is of another log, or of another
                course of this one.
            CorruptLogError: the events answer another command entry.
        """
        assert self._unwritten is None, "flush comes first"
        entry, header = verified.entry, header_of(verified.groups)
        assert entry.seq == command.seq == self.pending.seq + 1, (entry.seq, command.seq, self.pending.seq)
        if header.checksum != command.frame.checksum:
            what = "the command entry is another than the one its events answer"
            raise CorruptLogError(entry.seq, what)
        if self.log_id is not None and self.log_id != log_id:
            raise ArchiveMismatchError(f"the archive is of log {self.log_id}, this is log {log_id}")
        previous = self.pending.chain_hash
        expected = chain_hash(log_id, previous, entry.seq, entry.schema, header.checksum, entry.body)
        if expected != entry.chain_hash:
            raise ArchiveMismatchError(
                f"entry {entry.seq} does not continue the archive, which ends before it"
            )
        self.log_id = log_id
        self.pending = Head(seq=entry.seq, chain_hash=entry.chain_hash)
        self._answered.append((command, verified))
        self._answered_rows += sum(map(len, verified.groups))
        self._bytes += len(command.frame.body) + len(entry.body)
        if self._answered_rows >= ROWS_PER_TABLE:
            self._make_rows()

    def pack(self) -> None:
        """Encode what was added, so that less is left to do for `flush`."""
        self._make_rows()
        self._commands.pack()
        self._events.pack()
        self._packed_seq = self.pending.seq
        self._unpacked_rows = 0

    def flush(self) -> Segment | None:
        """Write what was added as a segment and return it, None when nothing was added.

        Raises:
            OSError: it could not be written; what was added is still here, and the next call tries again.
        """
        if self._unwritten is None:
            if self.pending == self.head:
                return None
            self._unwritten = self._close_segment()
        segment, commands, events = self._unwritten
        self.directory.write(segment.commands_file, commands)
        self.directory.write(segment.events_file, events)
        manifest = msgspec.json.encode(segment)
        name = manifest_name(segment.first_seq, segment.last_seq)
        self.directory.write(name, manifest + b"\n" + checksum_of(manifest).encode())
        self._unwritten = None
        self._segments.append(segment)
        self.head = self.pending
        self._begin()
        self._remove_leftovers()
        return segment

    def _begin(self) -> None:
        """Begin a segment."""
        self._commands, self._events = _ParquetFile(COMMAND_SCHEMA), _ParquetFile(EVENT_SCHEMA)
        self._answered: list[Answered] = []
        self._answered_rows = 0
        self._unpacked_rows = 0
        self._packed_seq = self.pending.seq
        self._bytes = 0

    def _make_rows(self) -> None:
        """Turn entries into rows."""
        answered, self._answered = self._answered, []
        self._unpacked_rows += self._answered_rows
        self._answered_rows = 0
        if answered:
            self._commands.add(command_table(answered))
            self._events.add(event_table(verified for _, verified in answered))

    def _close_segment(self) -> tuple[Segment, bytes, bytes]:
        assert self.log_id is not None
        self.pack()
        commands, events = self._commands.close(), self._events.close()
        entries = self.pending.seq - self.head.seq
        numbers = range_name(self.head.seq + 1, self.pending.seq)
        segment = Segment(
            format=FORMAT,
            log_id=self.log_id,
            first_seq=self.head.seq + 1,
            last_seq=self.pending.seq,
            previous_hash=self.head.chain_hash.hex(),
            last_hash=self.pending.chain_hash.hex(),
            # Of each entry one row is its frame's.
            commands=self._commands.rows - entries,
            events=self._events.rows - entries,
            bytes=len(commands) + len(events),
            commands_file=f"{_COMMANDS}/{numbers}.parquet",
            commands_checksum=checksum_of(commands),
            events_file=f"{_EVENTS}/{numbers}.parquet",
            events_checksum=checksum_of(events),
        )
        return segment, commands, events

    def close(self) -> None:
        """Let another process write. What was added and not flushed is dropped."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int | None:
        local = self.directory.local
        if local is None:
            return None
        local.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(local / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ArchiveError(f"another process writes to the archive {local}") from None
        return lock

    def _find_leftovers(self) -> dict[str, int]:
        """Return the files named as ours that belong to no segment, and the last entry each is to hold."""
        kept = {name for segment in self._segments for name in (segment.commands_file, segment.events_file)}
        kept.update(manifest_name(segment.first_seq, segment.last_seq) for segment in self._segments)
        return {
            name: last_seq
            for folder in (_COMMANDS, _EVENTS, MANIFESTS)
            for name in self.directory.names(folder)
            # Somebody else's directory may have folders of these names, with what is dear to him.
            if name not in kept and (last_seq := last_seq_of(name)) is not None
        }

    def _remove_leftovers(self) -> None:
        """Remove the leftovers whose entries are in segments by now.

        Not before: a segment whose manifest was lost looks like a write that was interrupted, and its entries
        may be trimmed from the log. Then the archive cannot go on, and it stays for whoever puts it right.
        """
        segment = self._segments[-1]
        written = {segment.commands_file, segment.events_file}
        written.add(manifest_name(segment.first_seq, segment.last_seq))
        for name, last_seq in list(self._leftovers.items()):
            if last_seq <= self.head.seq:
                del self._leftovers[name]
                if name not in written:
                    self.directory.delete(name)


class ArchivedLog:
    """An archive as a log to read. Segments that are added while it is open are found at its end."""

    connections = 1

    def __init__(self, url: str | Path) -> None:
        """Open an archive; one without segments is an empty log.

        Raises:
            ArchiveError: the URL names no file system.
            CorruptLogError: a manifest is damaged, or a segment is missing.
        """
        self.directory = Directory(url)
        self.segments = read_segments(self.directory)
        self._cache: OrderedDict[str, _Entries] = OrderedDict()

    @property
    def log_id(self) -> str | None:
        """The name of the log, None while the archive is empty."""
        return self.segments[0].log_id if self.segments else None

    @property
    def head(self) -> Head:
        """The last entry."""
        return self.segments[-1].head if self.segments else Head(seq=0, chain_hash=GENESIS_HASH)

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after` (see `Log.read_commands`).

        Raises:
            CorruptLogError: their segment is damaged; names the first entry that is not as it was written.
        """
        segment = await self._segment_of(after + 1, wait_ms)
        if segment is None:
            return []
        entries = self._load(segment, segment.commands_file)
        start = after + 1 - segment.first_seq
        return list(entries[start : start + limit])  # type: ignore[arg-type]

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry, 0 if there is none."""
        return (await self.event_head()).seq

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return event entries behind `after`, like `read_commands`."""
        segment = await self._segment_of(after + 1, wait_ms)
        if segment is None:
            return []
        entries = self._load(segment, segment.events_file)
        start = after + 1 - segment.first_seq
        return list(entries[start : start + limit])  # type: ignore[arg-type]

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry."""
        self.refresh()
        return self.head

    async def close(self) -> None:
        """Do nothing: files are open only while they are read."""

    def refresh(self) -> None:
        """Look for new segments."""
        self.segments = read_segments(self.directory, self.segments)

    def table(self, name: str) -> pa.Table:
        """Return a file with all its columns."""
        return pq.read_table(pa.BufferReader(self.directory.read(name)))

    def tables(self, kind: str) -> list[str]:
        """Return the paths of the Parquet files of "commands" or "events", in their file system."""
        assert kind in (_COMMANDS, _EVENTS), kind
        is_commands = kind == _COMMANDS
        names = (segment.commands_file if is_commands else segment.events_file for segment in self.segments)
        return [self.directory.path(name) for name in names]

    async def _segment_of(self, seq: int, wait_ms: int) -> Segment | None:
        if seq > self.head.seq:
            self.refresh()
        if seq > self.head.seq and wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)  # segments are minutes apart
            self.refresh()
        # Segments are few: each holds thousands of entries.
        return next((found for found in self.segments if found.first_seq <= seq <= found.last_seq), None)

    def check_files(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Compare every file with its checksum, several at once. For whoever reads them past this class.

        `on_progress` is told how many segments are checked, and how many there are.

        Raises:
            CorruptLogError: names the first file that is not as it was written, and the entry.
        """

        def check(segment: Segment) -> None:
            for name in (segment.commands_file, segment.events_file):
                self._content_of(segment, name)

        segments = self.segments
        # Hashing and reading let other threads run.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for count, _ in enumerate(threads.map(check, segments), 1):
                if on_progress is not None:
                    on_progress(count, len(segments))

    def _content_of(self, segment: Segment, name: str) -> bytes:
        """Return a file of a segment, if it is as it was written."""
        is_commands = name == segment.commands_file
        checksum = segment.commands_checksum if is_commands else segment.events_checksum
        try:
            content = self.directory.read(name)
        except FileNotFoundError as error:
            raise CorruptLogError(segment.first_seq, f"the archive's file {name} is missing") from error
        if checksum_of(content) != checksum:
            seq, what = _find_damage(segment, content, is_commands=is_commands)
            raise CorruptLogError(seq, f"the archive's file {name} does not match its checksum: {what}")
        return content

    def _load(self, segment: Segment, name: str) -> _Entries:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        is_commands = name == segment.commands_file
        file = pq.ParquetFile(pa.BufferReader(self._content_of(segment, name)))
        entries: _Entries = [  # type: ignore[assignment]
            entry
            for group in range(file.num_row_groups)
            for entry in _read_group(file, group, is_commands=is_commands)
        ]
        if [entry.seq for entry in entries] != list(range(segment.first_seq, segment.last_seq + 1)):
            raise CorruptLogError(
                segment.first_seq, f"the archive's file {name} holds other entries than it says"
            )
        self._cache[name] = entries
        if len(self._cache) > CACHED_FILES:
            self._cache.popitem(last=False)
        return entries


def _read_group(file: pq.ParquetFile, group: int, *, is_commands: bool) -> _Entries:
    names = RAW_COMMAND_COLUMNS if is_commands else RAW_EVENT_COLUMNS
    table = file.read_row_group(group, columns=["type", *names])
    frames = table.filter(pc.equal(table.column("type"), FRAME))
    return command_entries(frames) if is_commands else event_entries(frames)


def _find_damage(segment: Segment, content: bytes, *, is_commands: bool) -> tuple[int, str]:
    """Return the first entry of a damaged file that cannot be trusted, and why."""
    seq = segment.first_seq
    previous = bytes.fromhex(segment.previous_hash)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        for group in range(file.num_row_groups):
            for entry in _read_group(file, group, is_commands=is_commands):
                if isinstance(entry, CommandEntry):
                    if entry.seq != seq or not entry.frame.is_intact():
                        return seq, "the entry is not what was written"
                else:
                    header = header_of(decode_groups(entry.body, entry.schema))
                    expected = chain_hash(
                        segment.log_id, previous, seq, entry.schema, header.checksum, entry.body
                    )
                    if entry.seq != seq or expected != entry.chain_hash:
                        return seq, "the entry is not what was written"
                    previous = entry.chain_hash
                seq += 1
    except Exception as error:
        return seq, f"it cannot be read from there on ({type(error).__name__})"
    return segment.first_seq, "its entries are what was written, its other columns or its structure are not"
