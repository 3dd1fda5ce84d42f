"""One bit flipped in what is stored: in an entry on a server, in a file of an archive, in a snapshot.

Of an entry any field but `w` and `x`, which nothing covers by design, its value or its name. Whoever meets
the damage must stop there: the reader that every process reads with, and `verify`, which names the entry.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import redis.asyncio
from msgspec.structs import replace

from events.archive import ArchivedLog
from events.log import CommandReader, CorruptLogError, EventReader, ReadableLog
from events.redis import RedisLog
from events.snapshot import SnapshotError, load, save
from exchange.archiving import export_log
from exchange.audit.verify import Extent, verify
from tests.faults.rig import Row, rigged, row
from tests.fixtures.recorder import Recorder, flip, traded

PREFIX = "foldex:{main}:"
UNPROTECTED = (b"w", b"x")
FRAMES = 40
ALL_AT_ONCE = 1_000
Entries = list[tuple[bytes, dict[bytes, bytes]]]
Flip = Callable[[Random], Awaitable[str]]


async def bits_flipped(count: int) -> Row:
    """Flip one random bit `count` times, in all kinds of storage in turn; each must be detected."""

    async def work(result: Row) -> None:
        random = Random(count)
        found: Counter[str] = Counter()
        recorder = traded(FRAMES)
        with rigged() as rig:
            client = redis.asyncio.Redis(unix_socket_path=rig.url)
            log = RedisLog(rig.url)
            stored = Stored(client, log)
            await stored.put(recorder)
            archive, snapshots = rig.directory / "archive", rig.directory / "snapshots"
            await export_log(recorder.log, str(archive))
            kinds: dict[str, Flip] = {
                "commands": lambda random: stored.flip("commands", random),
                "events": lambda random: stored.flip("events", random),
                "segments": lambda random: _flip_segment(archive, recorder, random),
                "snapshots": lambda random: _flip_snapshot(snapshots, recorder, random),
            }
            try:
                for n in range(count):
                    kind = list(kinds)[n % len(kinds)]
                    missed = await kinds[kind](random)
                    if missed:
                        result.notes.append(f"flip {n + 1}, {kind}: {missed}")
                        return
                    found[kind] += 1
                    result.passed += 1
                    result.tick()
                if (await verify(log, Extent())).finding or (
                    await verify(ArchivedLog(archive), Extent())
                ).finding:
                    result.passed = 0
                    result.notes.append("what was put back as it was is not intact")
            finally:
                await client.aclose()
                await log.close()
        result.notes.append("detected: " + ", ".join(f"{number} in {kind}" for kind, number in found.items()))

    return await row("flip one bit in what is stored", count, work)


class Stored:
    """The two streams of a log on a server, in which bits are flipped and put right again."""

    def __init__(self, client: "redis.asyncio.Redis", log: RedisLog) -> None:
        self._client = client
        self._log = log
        self._entries: dict[str, Entries] = {}

    async def put(self, recorder: Recorder) -> None:
        """Put a whole log on the server."""
        lease = await self._log.acquire_lease("test", 600_000)
        assert lease is not None
        first, *others = recorder.log.commands
        await self._log.create(first.frame)
        for entry in others:
            await self._log.append_command(entry.frame)
        events = [replace(entry, writer=lease.mark) for entry in recorder.log.events]
        await self._log.append_events(events, await self._log.event_head(), lease)
        for name in ("commands", "events"):
            found: Any = await self._client.xrange(PREFIX + name)
            self._entries[name] = found

    async def flip(self, name: str, random: Random) -> str:
        """Flip a bit in an entry of a stream and put it right again; return "" or who missed it."""
        entries = [(entry_id, dict(fields)) for entry_id, fields in self._entries[name]]
        at = random.randrange(len(entries))
        fields = entries[at][1]
        field = random.choice([each for each in fields if each not in UNPROTECTED])
        if random.random() < 0.9:
            fields[field] = flip(fields[field], random)
        else:
            changed = flip(field, random)
            entries[at] = (
                entries[at][0],
                {changed if key == field else key: value for key, value in fields.items()},
            )
        await self._rewrite(name, entries)
        try:
            finding = (await verify(self._log, Extent())).finding
            if finding is None or finding.seq != at + 1:
                return f"field {field!r} of entry {at + 1}: verify says {finding}"
            reader = await _stops_at(self._log, name)
            return (
                ""
                if reader == at + 1
                else f"field {field!r} of entry {at + 1}: the reader stopped at {reader}"
            )
        finally:
            await self._rewrite(name, self._entries[name])

    async def _rewrite(self, name: str, entries: Entries) -> None:
        pipe = self._client.pipeline()
        pipe.delete(PREFIX + name)
        for entry_id, fields in entries:
            pipe.xadd(PREFIX + name, fields, id=entry_id)  # type: ignore[arg-type]
        await pipe.execute()


async def _stops_at(log: ReadableLog, name: str) -> int:
    """Return the entry at which a process that reads a stream stops, 0 if it goes through."""
    reader = CommandReader(log) if name == "commands" else EventReader(log)
    try:
        while await reader.read(ALL_AT_ONCE):
            pass
    except CorruptLogError as error:
        return error.seq
    return 0


def _files(archive: Path) -> list[Path]:
    """Return the files that hold a log: two of Parquet and a manifest for each segment."""
    return sorted(path for path in archive.rglob("*") if path.is_file() and path.suffix != ".lock")


async def _flip_segment(archive: Path, recorder: Recorder, random: Random) -> str:
    """Flip a bit in one of the files of an archive."""
    path = random.choice(_files(archive))
    content = path.read_bytes()
    path.write_bytes(flip(content, random))
    try:
        finding = (await verify(ArchivedLog(archive), Extent())).finding
        seq = finding.seq if finding else 0
    except CorruptLogError as error:
        seq = error.seq
    finally:
        path.write_bytes(content)
    return "" if 1 <= seq <= recorder.head.seq else f"{path.name} passes"


async def _flip_snapshot(directory: Path, recorder: Recorder, random: Random) -> str:
    """Flip a bit in a snapshot: nobody starts from it, and `verify` names its entry."""
    path = save(directory, recorder.snapshot())
    path.write_bytes(flip(path.read_bytes(), random))
    try:
        load(path)
    except SnapshotError:
        pass
    else:
        return "it is loaded"
    finding = (await verify(recorder.log, Extent(directory=directory))).finding
    return "" if finding is not None and finding.seq == recorder.head.seq else f"verify says {finding}"
