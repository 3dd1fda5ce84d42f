"""Snapshots: a state as a file, from which a process starts without reading the whole log.

A file is a magic line, the version of its schema, the length of what follows, the snapshot as msgpack, and
the BLAKE2b-256 of all before. It is written under another name, flushed, and renamed, so that a file with a
snapshot's name is whole unless somebody damaged it; one that is not is skipped for the one before it.

A snapshot is no part of the log, only a shorter way through it: its place is an entry's number and chain
hash, which the reader that starts behind it checks against the log.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import TypeVar

import msgspec
import structlog

SCHEMA_VERSION = 1
KEPT = 3
_MAGIC = b"foldex snapshot\n"
HEAD = Struct(">16sIQ")
CHECKSUM_BYTES = 32
_NAME = re.compile(r"(?P<seq>[0-9]{16})-(?P<log_id>[0-9a-f]{32})\.snapshot")
_PARTIAL = ".partial"

logger = structlog.get_logger(__name__)

T = TypeVar("T")


class SnapshotError(Exception):
    """A file is not a snapshot that can be used; the message says why."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A state behind entry `seq` of the log `log_id`, of chain hash `chain_hash`.

    `events` counts all events up to there. `command_checksum` is that of the command entry `seq`. `digest`
    is the state's, under the rules of `rules_version`; `body` is its image, whose meaning is not known here.
    """

    log_id: str
    seq: int
    events: int
    chain_hash: bytes
    command_checksum: bytes
    digest: bytes
    rules_version: int
    body: bytes


_decoder: msgspec.msgpack.Decoder[Snapshot] = msgspec.msgpack.Decoder(Snapshot)


def save(directory: Path, snapshot: Snapshot, *, kept: int = KEPT) -> Path:
    """Write a snapshot to disk, whole or not at all; delete all but the newest `kept` of its log.

    One process at a time writes to a directory. The file is on disk when this returns.

    Raises:
        OSError: it could not be written. A part of it may be left under another name, until the next save.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{snapshot.seq:016d}-{snapshot.log_id}.snapshot"
    partial = path.with_suffix(_PARTIAL)
    body = msgspec.msgpack.encode(snapshot)
    head = HEAD.pack(_MAGIC, SCHEMA_VERSION, len(body))
    with partial.open("wb") as file:
        for part in (head, body, _checksum(head, body)):
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync(directory)
    for old in (*find(directory, snapshot.log_id)[kept:], *directory.glob(f"*{_PARTIAL}")):
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> Snapshot:
    """Read a snapshot.

    Raises:
        SnapshotError: the file is not whole, not as it was written, or of an unknown schema version.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if len(content) < HEAD.size or not content.startswith(_MAGIC):
        raise SnapshotError("it is not a snapshot")
    _, schema, length = HEAD.unpack_from(content)
    if schema != SCHEMA_VERSION:
        raise SnapshotError(f"schema version {schema} is unknown; this build reads {SCHEMA_VERSION}")
    head, body = content[: HEAD.size], content[HEAD.size : -CHECKSUM_BYTES]
    if len(body) != length:
        raise SnapshotError(f"it holds {len(body)} bytes of {length}")
    if _checksum(head, body) != content[-CHECKSUM_BYTES:]:
        raise SnapshotError("its checksum does not match its content")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"its content does not decode: {error}") from error


def find(directory: Path, log_id: str | None = None) -> list[Path]:
    """Return the files of snapshots of a log, or of any, the newest first. A missing directory has none."""
    if not directory.is_dir():
        return []
    named = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    chosen = [path for match, path in named if log_id is None or match["log_id"] == log_id]
    return sorted(chosen, key=lambda path: path.name, reverse=True)


def seq_of(path: Path) -> int:
    """Return the entry whose state a file that `find` returned holds, or held when it was written."""
    return int(path.name.partition("-")[0])


def load_newest(
    directory: Path, restore: Callable[[Snapshot], T], *, log_id: str | None = None
) -> tuple[Snapshot, T] | None:
    """Return the newest snapshot that can be used, with what `restore` makes of it; None when there is none.

    What cannot be used is skipped with a warning: a snapshot of another log than `log_id`, a file that is
    not whole or not readable, one for which `restore` raises `SnapshotError`.
    """
    for path in find(directory):
        try:
            snapshot = load(path)
            if log_id is not None and snapshot.log_id != log_id:
                raise SnapshotError(f"it is of the log {snapshot.log_id}, not of {log_id}")
            return snapshot, restore(snapshot)
        except FileNotFoundError:
            continue  # deleted since it was found, as older ones are
        except (SnapshotError, OSError) as error:
            logger.warning("snapshot_skipped", path=str(path), reason=str(error))
    return None


def _checksum(head: bytes, body: bytes) -> bytes:
    hashed = hashlib.blake2b(head, digest_size=CHECKSUM_BYTES)
    hashed.update(body)
    return hashed.digest()


def _sync(directory: Path) -> None:
    """Put the directory's entries on disk: a rename is lost with them."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
