"""The archiver's second half, beside a log that grows: segments without a gap, trimming within limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events import snapshot as files
from events.archive import ArchivedLog
from events.commands import Checkpoint
from events.log import Head, LogFullError, LogRewoundError, LogUnavailableError
from events.memory import MemoryLog
from events.segments import ArchivedThenLive, check_not_behind
from events.snapshot import Snapshot
from exchange.aggregate.image import take_image
from exchange.archiving import verify_archive
from exchange.audit.replay import replay
from exchange.fold import Fold, Snapshots
from exchange.segmenter import Segmenter
from tests.recorded import Recorded
from tests.waiting import until


async def recorded(entries: int = 30) -> tuple[MemoryLog, Recorded]:
    """Return a log with some trading, and who writes it."""
    log = MemoryLog()
    course = Recorded(log)
    await course.begin()
    await course.trade(entries)
    return log, course


async def checkpoint(course: Recorded, directory: Path) -> int:
    """Save a snapshot of the state as it is, put its digest into the log, and return its place."""
    image = take_image(course.state)
    seq = course.head.seq
    snapshot = Snapshot(
        log_id=course.state.log_id,
        seq=seq,
        events=1,
        chain_hash=course.head.chain_hash,
        command_checksum=bytes(32),
        digest=image.digest,
        rules_version=course.state.rules_version,
        body=image.body,
    )
    files.save(directory, snapshot)
    await course.send(Checkpoint(seq=seq, digest=image.digest, rules_version=course.state.rules_version))
    return seq


class Process:
    """An archiver's second half in this process; `alive` is what the heartbeats say."""

    def __init__(self, log: MemoryLog, path: Path) -> None:
        self.alive: dict[str, int] = {}
        self.segmenter = Segmenter(
            log,
            str(path / "archive"),
            snapshots=path / "snapshots",
            read_consumers=self._read_consumers,
            flush_s=0.0,
        )

    async def _read_consumers(self) -> dict[str, int]:
        return self.alive

    async def reach(self, seq: int) -> None:
        """Wait until an entry is archived."""
        await until(lambda: self.segmenter.archived_seq >= seq, f"entry {seq} in the archive")


@asynccontextmanager
async def running(log: MemoryLog, path: Path) -> AsyncIterator[Process]:
    """Run the segmenter on a log."""
    process = Process(log, path)
    stop = asyncio.Event()
    task = asyncio.create_task(process.segmenter.run(stop))
    try:
        yield process
    finally:
        stop.set()
        await asyncio.wait([task])
        task.result()


async def test_everything_is_archived_and_a_restart_continues(tmp_path: Path) -> None:
    """Segments follow each other over restarts; the state from the archive alone is the live one."""
    log, course = await recorded()
    async with running(log, tmp_path) as process:
        await process.reach(course.head.seq)
        await course.trade(20)
        await process.reach(course.head.seq)
    await course.trade(20)
    async with running(log, tmp_path) as process:
        await process.reach(course.head.seq)

    archive = ArchivedLog(tmp_path / "archive")
    assert course.head == await verify_archive(archive)
    assert course.state.digest() == (await replay(archive)).state.digest()
    assert len(archive.segments) > 2
    assert 1 == log.events[0].seq, "without snapshots nothing is trimmed"


async def test_what_was_read_is_archived_at_the_end(tmp_path: Path) -> None:
    """A stop does not wait for the time of a segment, and leaves nothing in memory."""
    log, course = await recorded()
    process = Process(log, tmp_path)
    process.segmenter._flush_s = 1e9
    stop = asyncio.Event()
    task = asyncio.create_task(process.segmenter.run(stop))
    await until(lambda: process.segmenter._events.seq == course.head.seq, "end of the log")
    assert 0 == process.segmenter.archived_seq
    stop.set()
    await task

    assert course.head == ArchivedLog(tmp_path / "archive").head


async def test_what_the_fold_has_read_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered from the first entry on, everything is archived without one read of events."""
    log, course = await recorded()

    async def refuse(*_: object) -> object:
        raise AssertionError("events were read twice")

    process = Process(log, tmp_path)
    fold = Fold(log, process.segmenter.offer)
    await fold.catch_up()
    stop = asyncio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(log, "read_events", refuse)
        task = asyncio.create_task(process.segmenter.run(stop))
        await process.reach(course.head.seq)
        stop.set()
        await task
    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))


async def test_what_there_was_no_room_for_is_read_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is offered faster than it is archived some is left out, and found again without a gap."""
    monkeypatch.setattr("exchange.segmenter.OFFERED_BYTES_MAX", 2_000)
    log, course = await recorded()
    process = Process(log, tmp_path)
    fold = Fold(log, process.segmenter.offer)
    await fold.catch_up()
    offered = len(process.segmenter._offered)
    assert 0 < offered < course.head.seq
    stop = asyncio.Event()
    task = asyncio.create_task(process.segmenter.run(stop))
    await process.reach(offered + 1)
    for _ in range(5):
        await course.trade(10)
        await fold.catch_up()
    await process.reach(course.head.seq)
    stop.set()
    await task
    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))


async def test_streams_are_trimmed_to_what_is_needed(tmp_path: Path) -> None:
    """To the second-newest checkpointed snapshot, unless a consumer is slower; nothing is missing."""
    log, course = await recorded()
    async with running(log, tmp_path) as process:
        first = await checkpoint(course, tmp_path / "snapshots")
        await process.reach(course.head.seq)
        assert 1 == log.events[0].seq, "one snapshot is none to fall back to"
        await course.trade(10)
        second = await checkpoint(course, tmp_path / "snapshots")
        process.alive = {"intake": first - 5, "maker": 0}
        await process.reach(course.head.seq)
        await until(lambda: log.events[0].seq == first - 5, "trimming to the consumer")
        process.alive = {"intake": second}
        await course.trade(10)
        await process.reach(course.head.seq)
        await until(lambda: log.events[0].seq == first, "trimming to the snapshot")

    both = ArchivedThenLive(tmp_path / "archive", log)
    assert course.state.digest() == (await replay(both)).state.digest()
    fold = Fold(log, lambda _: None, Snapshots(archive=str(tmp_path / "archive")))
    await fold.catch_up()
    assert course.state.digest() == fold.state.digest(), "whoever has no snapshot starts from the archive"


async def test_a_snapshot_that_is_damaged_or_disagrees_does_not_count(tmp_path: Path) -> None:
    """Only those that load and have the digest of their checkpoint let anything go."""
    log, course = await recorded()
    snapshots = tmp_path / "snapshots"
    async with running(log, tmp_path) as process:
        await checkpoint(course, snapshots)
        await course.trade(5)
        await checkpoint(course, snapshots)
        newest = files.find(snapshots)[0]
        content = newest.read_bytes()
        newest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        await process.reach(course.head.seq)
        assert [] != process.segmenter._good_snapshots()
    assert 1 == log.events[0].seq


async def test_a_log_behind_its_archive_is_noticed(tmp_path: Path) -> None:
    """On the start, by anyone who asks, and by the archiver itself; a new log in its place too."""
    log, course = await recorded()
    async with running(log, tmp_path) as process:
        await process.reach(course.head.seq)
    await check_not_behind(log, tmp_path / "archive")
    await course.trade(5)
    await check_not_behind(log, tmp_path / "archive")
    del log.events[20:], log.commands[20:]

    with pytest.raises(LogRewoundError, match="it went backwards; foldex recover puts back"):
        await check_not_behind(log, tmp_path / "archive")
    stop = asyncio.Event()
    with pytest.raises(LogRewoundError):
        await Process(log, tmp_path).segmenter.run(stop)
    other, _ = await recorded(60)
    with pytest.raises(LogRewoundError, match="another one"):
        await check_not_behind(other, tmp_path / "archive")


async def test_what_a_log_has_lost_is_archived_if_it_was_read(tmp_path: Path) -> None:
    """Entries that wait for their segment are in no log any more: they are written at once."""
    log, course = await recorded()
    process = Process(log, tmp_path)
    process.segmenter._flush_s = 600.0
    task = asyncio.create_task(process.segmenter.run(asyncio.Event()))
    await until(lambda: process.segmenter._writer.pending == course.head, "entries that wait")
    assert 0 == process.segmenter.archived_seq
    del log.events[20:], log.commands[20:]

    with pytest.raises(LogRewoundError):
        await task
    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))


async def test_a_full_disk_stops_nothing_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that cannot be written is tried again; nothing is skipped."""
    monkeypatch.setattr("exchange.segmenter.FLUSH_RETRY_S", 0.0)
    log, course = await recorded()
    async with running(log, tmp_path) as process:
        failures = 0
        write = process.segmenter._writer.directory.write

        def refuse(name: str, content: bytes) -> None:
            nonlocal failures
            failures += 1
            if failures < 5:
                raise OSError(28, "No space left on device")
            write(name, content)

        monkeypatch.setattr(process.segmenter._writer.directory, "write", refuse)
        await process.reach(course.head.seq)

    assert failures >= 5
    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))


async def test_a_server_without_room_stops_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trim that is refused is tried again behind the next segment; archiving goes on."""
    log, course = await recorded()
    trim, refused = log.trim, 0

    async def refuse(first_kept: Head) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise LogFullError("MISCONF: no room on the disk")
        await trim(first_kept)

    monkeypatch.setattr(log, "trim", refuse)
    async with running(log, tmp_path) as process:
        kept = await checkpoint(course, tmp_path / "snapshots")
        await checkpoint(course, tmp_path / "snapshots")
        await process.reach(course.head.seq)
        await until(lambda: refused == 1, "trim that is refused")
        await course.trade(5)
        await process.reach(course.head.seq)
        await until(lambda: log.events[0].seq == kept, "trim")

    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading events and reading their commands too."""
    log, course = await recorded()
    read, calls = log.read_commands, 0

    async def flaky(after: int, limit: int, wait_ms: int = 0) -> object:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise LogUnavailableError("gone for a moment")
        return await read(after, limit, wait_ms)

    monkeypatch.setattr(log, "read_commands", flaky)
    async with running(log, tmp_path) as process:
        await process.reach(course.head.seq)

    monkeypatch.undo()
    assert course.head == await verify_archive(ArchivedLog(tmp_path / "archive"))
