"""Snapshots that are not what a start should find: damaged files, an older build's, another log's.

A start must pass over what it cannot use, and take the one before, or the log. There is one thing that it
must not pass over: a newer snapshot of another log, where its own log no longer says which one it is. It ends
as it does on a log that went backwards, and somebody has to look.
"""

import hashlib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from random import Random

import msgspec

from events import snapshot as files
from events.snapshot import Snapshot
from exchange.aggregate.image import restore, take_image

_OTHER_LOG_ID = "f" * 32


class Breakage(StrEnum):
    """What may be done to the newest snapshot."""

    FLIPPED = "snapshot with a flipped bit"
    TRUNCATED = "snapshot cut short"
    OLDER = "snapshot of an older build"
    FOREIGN = "snapshot of another log"


def break_newest(directory: Path, random: Random) -> Breakage | None:
    """Break the newest good snapshot, or put one of another log beside it; None when there is none."""
    for path in files.find(directory):
        try:
            snapshot = files.load(path)
        except files.SnapshotError:
            continue
        breakage = random.choice(tuple(Breakage))
        if breakage is Breakage.FOREIGN:
            files.save(directory, _adopted(snapshot))
        else:
            path.write_bytes(_BREAK[breakage](path.read_bytes(), random))
        return breakage
    return None


def remove_foreign(directory: Path) -> bool:
    """Remove the snapshots of the other log, as an operator does; return whether there was one."""
    found = files.find(directory, _OTHER_LOG_ID)
    for path in found:
        path.unlink()
    return bool(found)


def _flipped(content: bytes, random: Random) -> bytes:
    flipped = bytearray(content)
    flipped[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _aged(content: bytes, random: Random) -> bytes:
    """Return one of the schema before, whole in itself."""
    magic, schema, length = files.HEAD.unpack_from(content)
    whole = files.HEAD.pack(magic, schema - 1, length) + content[files.HEAD.size : -files.CHECKSUM_BYTES]
    return whole + hashlib.blake2b(whole, digest_size=files.CHECKSUM_BYTES).digest()


def _adopted(snapshot: Snapshot) -> Snapshot:
    """Return one that is good in itself, an entry further on, and of another log."""
    state = restore(snapshot.body)
    state.log_id = _OTHER_LOG_ID
    state.seq += 1
    image = take_image(state)
    return msgspec.structs.replace(
        snapshot,
        log_id=state.log_id,
        seq=state.seq,
        chain_hash=hashlib.blake2b(snapshot.chain_hash, digest_size=len(snapshot.chain_hash)).digest(),
        digest=image.digest,
        body=image.body,
    )


_BREAK: dict[Breakage, Callable[[bytes, Random], bytes]] = {
    Breakage.FLIPPED: _flipped,
    Breakage.TRUNCATED: _cut,
    Breakage.OLDER: _aged,
}
