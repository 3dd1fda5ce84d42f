"""The archive: a log as Parquet segments in a directory, to keep, to move, to query and to read as a log.

A segment holds consecutive entries of both streams: one Parquet file of commands, one of events (see
`events.columns` for what is in them), and a manifest, which is written last: a segment without one does not
exist. The manifest names both files with their BLAKE2b checksums and says which piece of the chain they are;
its own checksum is its second line. So a changed bit anywhere is found without trusting the Parquet reader,
and the chain inside says at which entry.

The directory is a path or any `pyarrow` file system URL. Local files are written under a temporary name,
synced and renamed. One `SegmentWriter` at a time may have a directory; on a local one a lock sees to it.
"""

import fcntl
import hashlib
import os
import posixpath
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

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
    Log,
    LogError,
    LogRewoundError,
    TrimmedError,
    VerifiedEvents,
)

FORMAT = 1
SEGMENT_ENTRIES_MAX = 65_536
SEGMENT_BYTES_AIM = 64 * 1024 * 1024
# Where damage is too great for the chain to tell, it is narrowed down to one group of rows.
ENTRIES_PER_ROW_GROUP = 4_096
# A reader of both streams goes through them side by side.
CACHED_FILES = 4
_MANIFESTS, _COMMANDS, _EVENTS = "segments", "commands", "events"
_LOCK_NAME = "archive.lock"
_Entries = Sequence[CommandEntry] | Sequence[EventEntry]
_RAW_NAMES = {"raw_body", "raw_checksum", "raw_chain_hash", "raw_timing"}


class ArchiveError(LogError):
    """The directory cannot be used as an archive: it is in use, or its address is none."""


class ArchiveMismatchError(LogRewoundError):
    """The archive and the log are of different logs, or of one that went two ways."""


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a manifest says: which entries these are, and the files that hold them.

    Hashes are hex. `previous_hash` is the chain hash before `first_seq`, `last_hash` that of `last_seq`;
    `commands` and `events` count messages.
    """

    format: int
    log_id: str
    first_seq: int
    last_seq: int
    previous_hash: str
    last_hash: str
    commands: int
    events: int
    bytes: int
    commands_file: str
    commands_checksum: str
    events_file: str
    events_checksum: str

    @property
    def head(self) -> Head:
        """The last entry."""
        return Head(seq=self.last_seq, chain_hash=bytes.fromhex(self.last_hash))


class Directory:
    """The files of an archive, local or not. Names are relative, with "/" between parts."""

    def __init__(self, url: str | Path) -> None:
        """Name the directory; it need not exist.

        Raises:
            ArchiveError: the URL names no file system.
        """
        try:
            if "://" in str(url):
                self.files, self._root = fs.FileSystem.from_uri(str(url))
            else:
                self.files, self._root = fs.LocalFileSystem(), str(Path(url).resolve())
        except (pa.ArrowException, ValueError, OSError) as error:
            raise ArchiveError(f"not the address of an archive: {error}") from error
        self.url = str(url)
        self.local = Path(self._root) if isinstance(self.files, fs.LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Return a file's path in its file system."""
        return posixpath.join(self._root, name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder, sorted; none when it does not exist."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        return sorted(
            f"{folder}/{info.base_name}"
            for info in self.files.get_file_info(selector)
            if info.type == fs.FileType.File
        )

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self.files.open_input_file(self.path(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file: afterwards it is there as given and on disk, or it is not there."""
        self.files.create_dir(posixpath.dirname(self.path(name)), recursive=True)
        if self.local is None:
            with self.files.open_output_stream(self.path(name)) as stream:  # object stores publish on close
                stream.write(content)
            return
        final = self.local / name
        draft = final.with_name(final.name + ".new")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def delete(self, name: str) -> None:
        """Remove a file."""
        self.files.delete_file(self.path(name))


def read_segments(directory: Directory, known: Sequence[Segment] = ()) -> list[Segment]:
    """Return the segments of an archive in order, from entry 1 on; those that are `known` are not read again.

    Raises:
        CorruptLogError: a manifest is damaged, or a segment is missing.
    """
    by_name = {_manifest_name(segment.first_seq, segment.last_seq): segment for segment in known}
    names = (name for name in directory.names(_MANIFESTS) if name.endswith(".json"))
    segments = [by_name.get(name) or _read_manifest(directory, name) for name in names]
    if segments and segments[0].first_seq != 1:
        raise CorruptLogError(1, f"the archive begins with entry {segments[0].first_seq}")
    if segments and segments[0].previous_hash != GENESIS_HASH.hex():
        raise CorruptLogError(1, "the archive's first segment does not begin a chain")
    for before, after in pairwise(segments):
        if after.first_seq != before.last_seq + 1:
            raise CorruptLogError(
                before.last_seq + 1, f"the archive's next segment begins at {after.first_seq}"
            )
        if (after.log_id, after.previous_hash) != (before.log_id, before.last_hash):
            raise CorruptLogError(
                after.first_seq, "the archive's segment does not continue the one before it"
            )
    return segments


def _manifest_name(first_seq: int, last_seq: int) -> str:
    return f"{_MANIFESTS}/{_range(first_seq, last_seq)}.json"


def _range(first_seq: int, last_seq: int) -> str:
    return f"{first_seq:012d}-{last_seq:012d}"


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _read_manifest(directory: Directory, name: str) -> Segment:
    first = posixpath.basename(name).partition("-")[0]
    seq = int(first) if first.isdecimal() else 0
    line, _, checksum = directory.read(name).partition(b"\n")
    if checksum != _checksum(line).encode():
        raise CorruptLogError(seq, f"the manifest {name} does not match its checksum")
    try:
        segment = msgspec.json.decode(line, type=Segment)
    except msgspec.DecodeError as error:
        raise CorruptLogError(seq, f"the manifest {name}: {error}") from error
    if segment.format != FORMAT:
        raise CorruptLogError(seq, f"archive format {segment.format} is unknown; this build reads {FORMAT}")
    if name != _manifest_name(segment.first_seq, segment.last_seq):
        raise CorruptLogError(seq, f"the manifest {name} is of another segment")
    return segment


class SegmentWriter:
    """Adds entries to an archive, which is made if need be.

    `head` is the last entry archived, `pending` the last one added; entries between them are in memory. Not
    async: writing takes time on a processor and a disk, so a process calls `flush` in a thread and adds
    nothing meanwhile.
    """

    def __init__(self, url: str | Path) -> None:
        """Open an archive and remove what an interrupted write has left.

        Raises:
            ArchiveError: another process writes to it.
            CorruptLogError: a manifest is damaged, or a segment is missing.
        """
        self.directory = Directory(url)
        self._lock = self._take_lock()
        self._segments = read_segments(self.directory)
        self._remove_leftovers()
        last = self._segments[-1] if self._segments else None
        self.log_id = last.log_id if last else None
        self.head = last.head if last else Head(seq=0, chain_hash=GENESIS_HASH)
        self.pending = self.head
        self._answered: list[Answered] = []
        self._bytes = 0

    @property
    def archived_seq(self) -> int:
        """The last entry that is in a segment, 0 before the first."""
        return self.head.seq

    @property
    def is_full(self) -> bool:
        """Whether what was added is enough for a segment."""
        return len(self._answered) >= SEGMENT_ENTRIES_MAX or self._bytes >= SEGMENT_BYTES_AIM

    def add(self, command: CommandEntry, verified: VerifiedEvents, log_id: str) -> None:
        """Add a command entry and the event entry that answers it.

        Raises:
            ArchiveMismatchError: the entry does not continue the archive: it is of another log, or of another
                course of this one.
        """
        entry, header = verified.entry, header_of(verified.groups)
        assert entry.seq == command.seq == self.pending.seq + 1, (entry.seq, command.seq, self.pending.seq)
        assert header.checksum == command.frame.checksum, entry.seq
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
        self._bytes += len(command.frame.body) + len(entry.body)

    def flush(self) -> Segment | None:
        """Write what was added as a segment and return it, None when nothing was added.

        Raises:
            OSError: it could not be written; what was added is still here, and the next call tries again.
        """
        if not self._answered:
            return None
        assert self.log_id is not None
        numbers = _range(self.head.seq + 1, self.pending.seq)
        files = {kind: f"{kind}/{numbers}.parquet" for kind in (_COMMANDS, _EVENTS)}
        commands, command_count = _parquet(COMMAND_SCHEMA, self._tables(_COMMANDS))
        events, event_count = _parquet(EVENT_SCHEMA, self._tables(_EVENTS))
        segment = Segment(
            format=FORMAT,
            log_id=self.log_id,
            first_seq=self.head.seq + 1,
            last_seq=self.pending.seq,
            previous_hash=self.head.chain_hash.hex(),
            last_hash=self.pending.chain_hash.hex(),
            commands=command_count,
            events=event_count,
            bytes=len(commands) + len(events),
            commands_file=files[_COMMANDS],
            commands_checksum=_checksum(commands),
            events_file=files[_EVENTS],
            events_checksum=_checksum(events),
        )
        self.directory.write(segment.commands_file, commands)
        self.directory.write(segment.events_file, events)
        manifest = msgspec.json.encode(segment)
        name = _manifest_name(segment.first_seq, segment.last_seq)
        self.directory.write(name, manifest + b"\n" + _checksum(manifest).encode())
        self._segments.append(segment)
        self.head = self.pending
        self._answered = []
        self._bytes = 0
        return segment

    def close(self) -> None:
        """Let another process write. What was added and not flushed is dropped."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _tables(self, kind: str) -> Iterator[pa.Table]:
        for start in range(0, len(self._answered), ENTRIES_PER_ROW_GROUP):
            part = self._answered[start : start + ENTRIES_PER_ROW_GROUP]
            if kind == _COMMANDS:
                yield command_table(part)
            else:
                yield event_table(verified for _, verified in part)

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

    def _remove_leftovers(self) -> None:
        kept = {name for segment in self._segments for name in (segment.commands_file, segment.events_file)}
        kept.update(_manifest_name(segment.first_seq, segment.last_seq) for segment in self._segments)
        for folder in (_COMMANDS, _EVENTS, _MANIFESTS):
            for name in self.directory.names(folder):
                if name not in kept:
                    self.directory.delete(name)


def _parquet(schema: pa.Schema, tables: Iterator[pa.Table]) -> tuple[bytes, int]:
    """Return tables as one Parquet file, a group of rows each, and how many messages they hold."""
    names = [name for name in schema.names if name not in _RAW_NAMES]
    sink = pa.BufferOutputStream()
    count = 0
    with pq.ParquetWriter(
        sink, schema, compression="zstd", use_dictionary=names, write_statistics=names
    ) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            count += table.num_rows - table.column("raw_body").drop_null().length()
    content: bytes = sink.getvalue().to_pybytes()
    return content, count


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
        """Return command entries behind `after` (see `Log.read_commands`), without ever waiting.

        Raises:
            CorruptLogError: their segment is damaged; names the first entry that is not as it was written.
        """
        segment = self._segment_of(after + 1)
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
        segment = self._segment_of(after + 1)
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

    def tables(self, kind: str) -> list[str]:
        """Return the paths of the Parquet files of "commands" or "events", in their file system."""
        assert kind in (_COMMANDS, _EVENTS), kind
        is_commands = kind == _COMMANDS
        names = (segment.commands_file if is_commands else segment.events_file for segment in self.segments)
        return [self.directory.path(name) for name in names]

    def _segment_of(self, seq: int) -> Segment | None:
        if seq > self.head.seq:
            self.refresh()
        # Segments are few: each holds thousands of entries.
        return next((found for found in self.segments if found.first_seq <= seq <= found.last_seq), None)

    def _load(self, segment: Segment, name: str) -> _Entries:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        is_commands = name == segment.commands_file
        checksum = segment.commands_checksum if is_commands else segment.events_checksum
        try:
            content = self.directory.read(name)
        except FileNotFoundError as error:
            raise CorruptLogError(segment.first_seq, f"the archive's file {name} is missing") from error
        if _checksum(content) != checksum:
            seq, what = _find_damage(segment, content, is_commands=is_commands)
            raise CorruptLogError(seq, f"the archive's file {name} does not match its checksum: {what}")
        file = pq.ParquetFile(pa.BufferReader(content))
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
                    header = header_of(decode_groups(entry.body))
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


class ArchivedThenLive:
    """A log to read whose trimmed beginning comes from its archive.

    Readers verify the chain across the joint, so an archive of another log cannot slip in.
    """

    def __init__(self, archive: ArchivedLog, live: Log) -> None:
        self._archive = archive
        self._live = live

    @property
    def connections(self) -> int:
        """How often a connection was made to the live log."""
        return self._live.connections

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after` (see `Log.read_commands`)."""
        try:
            return await self._live.read_commands(after, limit, wait_ms)
        except TrimmedError:
            found = await self._archive.read_commands(after, limit)
            if not found:
                raise
            return found

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry of the live log."""
        return await self._live.last_command_seq()

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return event entries behind `after`, like `read_commands`."""
        try:
            return await self._live.read_events(after, limit, wait_ms)
        except TrimmedError:
            found = await self._archive.read_events(after, limit)
            if not found:
                raise
            return found

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry of the live log."""
        return await self._live.event_head()

    async def close(self) -> None:
        """Drop the connections of the live log."""
        await self._live.close()
