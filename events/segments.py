"""Segments of an archive: their manifests, and the directory that holds their files.

What needs no Parquet is here: every process makes sure on its start that the log has not gone backwards
since it was archived, and few ever read a segment.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from events.frame import GENESIS_HASH, EventEntry
from events.log import (
    CommandEntry,
    CorruptLogError,
    Head,
    LogError,
    LogRewoundError,
    ReadableLog,
    TrimmedError,
)

FORMAT = 1
MANIFESTS = "segments"
_OUR_NAME = re.compile(r"[0-9]{12,}-([0-9]{12,})\.(parquet|json)(\.new)?")


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
        self.url = str(url)
        self._remote: Any = None
        if "://" not in self.url:
            self._root = str(Path(url).resolve())
        else:
            from pyarrow import fs  # takes a while, and most archives are local

            try:
                files, self._root = fs.FileSystem.from_uri(self.url)
            except (ValueError, OSError) as error:
                raise ArchiveError(f"not the address of an archive: {error}") from error
            if not isinstance(files, fs.LocalFileSystem):
                self._remote = files
        self.local = None if self._remote else Path(self._root)

    def file_system(self) -> Any:
        """Return the `pyarrow` file system."""
        from pyarrow import fs

        return self._remote or fs.LocalFileSystem()

    def path(self, name: str) -> str:
        """Return a file's path in its file system."""
        return posixpath.join(self._root, name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder, sorted; none when it does not exist."""
        if self.local is not None:
            found = (self.local / folder).iterdir() if (self.local / folder).is_dir() else ()
            return sorted(f"{folder}/{path.name}" for path in found)
        from pyarrow import fs

        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        return sorted(
            f"{folder}/{info.base_name}"
            for info in self._remote.get_file_info(selector)
            if info.type == fs.FileType.File
        )

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        with self._remote.open_input_file(self.path(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file: afterwards it is there as given and on disk, or it is not there."""
        if self.local is None:
            self._remote.create_dir(posixpath.dirname(self.path(name)), recursive=True)
            with self._remote.open_output_stream(self.path(name)) as stream:  # object stores publish on close
                stream.write(content)
            return
        final = self.local / name
        final.parent.mkdir(parents=True, exist_ok=True)
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
        """Remove a file; a local one may be gone already."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
        else:
            self._remote.delete_file(self.path(name))


def read_segments(directory: Directory, known: Sequence[Segment] = ()) -> list[Segment]:
    """Return the segments of an archive in order, from entry 1 on; those that are `known` are not read again.

    Raises:
        CorruptLogError: a manifest is damaged, or a segment is missing.
    """
    by_name = {manifest_name(segment.first_seq, segment.last_seq): segment for segment in known}
    names = (name for name in directory.names(MANIFESTS) if name.endswith(".json"))
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


def manifest_name(first_seq: int, last_seq: int) -> str:
    """Return the name of a segment's manifest."""
    return f"{MANIFESTS}/{range_name(first_seq, last_seq)}.json"


def range_name(first_seq: int, last_seq: int) -> str:
    """Return what files of a segment are named after."""
    return f"{first_seq:012d}-{last_seq:012d}"


def last_seq_of(name: str) -> int | None:
    """Return the last entry of a segment's file, or of the draft of one, by its name; None of any other."""
    match = _OUR_NAME.fullmatch(posixpath.basename(name))
    return int(match[1]) if match else None


def checksum_of(content: bytes) -> str:
    """Return the BLAKE2b-256 of a file, hex."""
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _read_manifest(directory: Directory, name: str) -> Segment:
    first = posixpath.basename(name).partition("-")[0]
    seq = int(first) if first.isdecimal() else 0
    line, _, checksum = directory.read(name).partition(b"\n")
    if checksum != checksum_of(line).encode():
        raise CorruptLogError(seq, f"the manifest {name} does not match its checksum")
    try:
        segment = msgspec.json.decode(line, type=Segment)
    except msgspec.DecodeError as error:
        raise CorruptLogError(seq, f"the manifest {name}: {error}") from error
    if segment.format != FORMAT:
        raise CorruptLogError(seq, f"archive format {segment.format} is unknown; this build reads {FORMAT}")
    if name != manifest_name(segment.first_seq, segment.last_seq):
        raise CorruptLogError(seq, f"the manifest {name} is of another segment")
    return segment


class ArchivedThenLive:
    """A log to read whose trimmed beginning comes from its archive, which is opened when it is needed.

    Readers verify the chain across the joint, so an archive of another log cannot slip in.
    """

    def __init__(self, url: str | Path, live: ReadableLog) -> None:
        self._url = url
        self._live = live
        self._opened: ReadableLog | None = None

    @property
    def connections(self) -> int:
        """How often a connection was made to the live log."""
        return self._live.connections

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after` (see `Log.read_commands`)."""
        try:
            return await self._live.read_commands(after, limit, wait_ms)
        except TrimmedError:
            found = await self._archive().read_commands(after, limit)
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
            found = await self._archive().read_events(after, limit)
            if not found:
                raise
            return found

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry of the live log."""
        return await self._live.event_head()

    async def close(self) -> None:
        """Drop the connections of the live log."""
        await self._live.close()

    def _archive(self) -> ReadableLog:
        if self._opened is None:
            from events.archive import ArchivedLog  # what reads Parquet takes a while

            self._opened = ArchivedLog(self._url)
        return self._opened


async def check_not_behind(log: ReadableLog, url: str | Path) -> None:
    """Make sure that a log has not gone backwards since it was archived. For whoever starts on it.

    Raises:
        LogRewoundError: it ends before its archive.
        ArchiveMismatchError: it is another log than the archive's, or one that went on after it was lost.
        ArchiveError, CorruptLogError: the archive cannot be used.
    """
    directory = Directory(url)
    segments = read_segments(directory)  # first: the log only grows meanwhile
    if not segments:
        return
    archived, head = segments[-1].head, await log.event_head()
    if head.seq < archived.seq:
        raise LogRewoundError(
            f"the log ends at entry {head.seq}, its archive {directory.url} at {archived.seq}: it went "
            "backwards; foldex recover puts back what was lost"
        )
    try:
        found = await log.read_events(archived.seq - 1, 1)
    except TrimmedError:
        return  # the archive had it when it was trimmed
    if not found or found[0].chain_hash != archived.chain_hash:
        raise ArchiveMismatchError(mismatch(archived.seq, directory, segments[-1].log_id))


def mismatch(seq: int, directory: Directory, log_id: str) -> str:
    """Say that log and archive disagree on an entry."""
    return (
        f"entry {seq} of the log is not the one in the archive {directory.url}, which is of log {log_id}: "
        "the log is another one, or it was lost and went on"
    )
