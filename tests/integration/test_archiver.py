"""The archiver: snapshots at the milestones, their digests in the log, and a restart from them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from events.appender import Appender
from events.commands import Checkpoint, Deposit, OpenAccount
from events.embedded import EmbeddedServer
from events.events import CheckpointPassed, Deposited
from events.log import VerifiedEvents
from events.memory import MemoryLog
from events.snapshot import KEPT, Snapshot, find, load, save
from exchange.archiver import Archiver, run_archiver
from exchange.audit.replay import replay
from exchange.fold import Fold, Snapshots
from exchange.liquidator import run_liquidator
from exchange.runtime import Runtime
from exchange.writer import run_writer
from tests.full_log import FullLog
from tests.integration.processes import Client, connected
from tests.recorded import Recorded
from tests.waiting import DEADLINE_S, until

EVERY_EVENTS = 40
ACCOUNT = 2
PROCESSES = {"writer": run_writer, "archiver": run_archiver, "liquidator": run_liquidator}


@asynccontextmanager
async def running(name: str, url: str, directory: Path) -> AsyncIterator[Runtime]:
    """Run a process's main function in this one, with everything but its signals."""
    runtime = Runtime(name, url, Snapshots(directory=directory, every_events=EVERY_EVENTS))
    work: Awaitable[None] = PROCESSES[name](runtime)
    task = asyncio.ensure_future(work)
    try:
        yield runtime
        if task.done():
            task.result()
    finally:
        runtime.stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task
        await runtime.close()


async def deposit(client: Client, count: int) -> None:
    """Make `count` entries of one deposit each."""
    for amount in range(1, count + 1):
        await client.ask(Deposit(account_id=ACCOUNT, amount=amount))


def passed(client: Client) -> list[CheckpointPassed]:
    """Return the checkpoints that are in the log."""
    return [event for event in client.events if isinstance(event, CheckpointPassed)]


async def checkpoint_after(client: Client, count: int) -> None:
    """Wait until more than `count` checkpoints are in the log."""
    await client.reach(lambda: len(passed(client)) > count, "checkpoint")


async def test_snapshots_are_taken_and_their_digests_logged(tmp_path: Path) -> None:
    """The newest ones are on disk, each with a checkpoint behind it that every process passes."""
    directory = tmp_path / "snapshots"
    with EmbeddedServer(tmp_path / "data") as server:
        url = server.socket_path
        async with running("writer", url, directory), connected(url) as client:
            async with running("archiver", url, directory), running("liquidator", url, directory):
                await client.ask(OpenAccount())
                for _ in range(KEPT + 1):
                    before = len(passed(client))
                    await deposit(client, EVERY_EVENTS // 2)
                    await checkpoint_after(client, before)
            state = (await replay(client.log)).state
            assert state.digest() == client.fold.state.digest()
            snapshots = {load(path).seq: load(path) for path in find(directory)}
            assert KEPT == len(snapshots)
            for event in passed(client):
                if event.seq in snapshots:
                    assert snapshots[event.seq].digest == event.digest
                assert (await replay(client.log, until=event.seq)).state.digest() == event.digest
            assert set(snapshots) <= {event.seq for event in passed(client)}


async def test_everything_restarts_from_a_snapshot(tmp_path: Path) -> None:
    """Writer, archiver and liquidator start behind it and go on; the log replays to the same state."""
    directory = tmp_path / "snapshots"
    with EmbeddedServer(tmp_path / "data") as server:
        url = server.socket_path
        first = running("writer", url, directory)
        async with first, connected(url) as client, running("archiver", url, directory):
            await client.ask(OpenAccount())
            await deposit(client, 2 * EVERY_EVENTS)
            await checkpoint_after(client, 0)
        count = len(passed(client))
        with capture_logs() as lines:
            async with running("writer", url, directory), connected(url) as again:
                async with running("archiver", url, directory), running("liquidator", url, directory):
                    await deposit(again, EVERY_EVENTS)
                    await checkpoint_after(again, count)
                assert again.fold.state.digest() == (await replay(again.log)).state.digest()
                assert again.fold.state.accounts[ACCOUNT].wallet == sum(
                    event.amount for event in again.events if isinstance(event, Deposited)
                )
    assert 3 == sum(line["event"] == "started_from_snapshot" for line in lines)


async def snapshot_of(record: Recorded) -> Snapshot:
    """Return the newest snapshot that folding a log gives."""
    milestones: list[Snapshot] = []
    every = Snapshots(every_events=EVERY_EVENTS)
    await Fold(record.log, lambda entry: None, every, on_milestone=milestones.append).catch_up()
    return milestones[-1]


async def test_a_checkpoint_that_a_crash_prevented_is_made_up_for(tmp_path: Path) -> None:
    """A snapshot renamed by an archiver that died before it could append: the next start appends it, once."""
    directory = tmp_path / "snapshots"
    with EmbeddedServer(tmp_path / "data") as server:
        url = server.socket_path
        async with running("writer", url, directory), connected(url) as client:
            await client.ask(OpenAccount())
            await deposit(client, EVERY_EVENTS)
            milestones: list[Snapshot] = []
            every = Snapshots(every_events=EVERY_EVENTS)
            await Fold(client.log, lambda entry: None, every, on_milestone=milestones.append).catch_up()
            save(directory, milestones[-1])
            for _ in range(2):
                async with running("archiver", url, directory):
                    await checkpoint_after(client, 0)
            assert [milestones[-1].seq] == [event.seq for event in passed(client)]
            assert [milestones[-1].digest] == [event.digest for event in passed(client)]


# Its loop, without a server


class Keeping:
    """An archiver that keeps snapshots as a test lets it, on a log that nobody decides."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.appender = Appender(log, "archiver")
        self.archiver = Archiver(self.appender, self._save)
        self.saved: list[int] = []
        self.may_save = asyncio.Event()
        self.may_save.set()
        self.error: OSError | None = None

    async def _save(self, snapshot: Snapshot) -> None:
        self.saved.append(snapshot.seq)
        await self.may_save.wait()
        if self.error is not None:
            raise self.error

    def checkpoints(self) -> list[int]:
        """Return the entries that the appended checkpoints name."""
        commands = [command for entry in self.log.commands for command in entry.frame.commands()]
        return [command.seq for command in commands if isinstance(command, Checkpoint)]


@asynccontextmanager
async def keeping(record: Recorded, started_from: Snapshot | None = None) -> AsyncIterator[Keeping]:
    """Run the archiver's loop."""
    assert isinstance(record.log, MemoryLog)
    kept = Keeping(record.log)
    await kept.appender.open()
    task = asyncio.create_task(kept.archiver.keep(started_from))
    try:
        yield kept
    finally:
        task.cancel()
        await asyncio.wait([task])
        await kept.appender.close()


@pytest.fixture
async def record() -> Recorded:
    """Return a log of random trading with a few milestones."""
    record = Recorded(MemoryLog())
    await record.begin()
    await record.trade(60)
    return record


async def test_a_snapshot_is_check_pointed_when_it_is_saved(record: Recorded) -> None:
    """Not before: what is not on disk is promised to nobody."""
    snapshot = await snapshot_of(record)
    async with keeping(record) as kept:
        kept.may_save.clear()
        kept.archiver.on_milestone(snapshot)
        await until(lambda: bool(kept.saved), "save")
        assert [] == kept.checkpoints()
        kept.may_save.set()
        await until(lambda: bool(kept.checkpoints()), "checkpoint")
    assert [snapshot.seq] == kept.checkpoints()


async def test_only_the_newest_of_waiting_marks_is_kept(record: Recorded) -> None:
    """While one is being saved two more come: the first of these is passed over."""
    first = await snapshot_of(record)
    await record.trade(60)
    second = await snapshot_of(record)
    await record.trade(60)
    third = await snapshot_of(record)
    assert first.seq < second.seq < third.seq
    async with keeping(record) as kept:
        kept.error = OSError(28, "No space left on device")
        kept.may_save.clear()
        kept.archiver.on_milestone(first)
        await until(lambda: bool(kept.saved), "save")
        kept.archiver.on_milestone(second)
        kept.archiver.on_milestone(third)
        kept.may_save.set()
        await until(lambda: len(kept.saved) == 2, "second save")
    assert [first.seq, third.seq] == kept.saved


async def test_a_full_disk_is_said_and_the_next_mark_tries_again(record: Recorded) -> None:
    """No checkpoint of what is not there; when there is room again, everything goes on."""
    first = await snapshot_of(record)
    await record.trade(60)
    second = await snapshot_of(record)
    async with keeping(record) as kept:
        kept.error = OSError(28, "No space left on device")
        with capture_logs() as lines:
            kept.archiver.on_milestone(first)
            await until(lambda: bool(lines), "log line")
        kept.error = None
        kept.archiver.on_milestone(second)
        await until(lambda: bool(kept.checkpoints()), "checkpoint")
    assert ("snapshot_not_saved", first.seq) == (lines[0]["event"], lines[0]["seq"])
    assert [second.seq] == kept.checkpoints()


async def test_a_full_server_costs_the_checkpoint_only() -> None:
    """The snapshot is kept; the next one is check-pointed again when there is room."""
    log = FullLog()
    record = Recorded(log)
    await record.begin()
    await record.trade(60)
    snapshot = await snapshot_of(record)
    async with keeping(record) as kept:
        log.is_full = True
        with capture_logs() as lines:
            kept.archiver.on_milestone(snapshot)
            await until(lambda: len(lines) == 2, "log lines")
        log.is_full = False
        kept.archiver.on_milestone(snapshot)
        await until(lambda: bool(kept.checkpoints()), "checkpoint")
    assert ["snapshot_saved", "checkpoint_not_appended"] == [line["event"] for line in lines]


async def test_a_checkpoint_that_is_in_the_log_is_not_repeated(record: Recorded) -> None:
    """The snapshot that the fold started from, and whose checkpoint it then read, is settled."""
    snapshot = await snapshot_of(record)
    await record.send(Checkpoint(seq=snapshot.seq, digest=snapshot.digest, rules_version=1))
    kept = Keeping(record.log)  # type: ignore[arg-type]
    entries: list[VerifiedEvents] = []
    await Fold(record.log, entries.append).catch_up()
    kept.archiver.on_entry(entries[-1])
    await kept.appender.open()
    task = asyncio.create_task(kept.archiver.keep(snapshot))
    kept.archiver.on_milestone(snapshot)
    await until(lambda: len(kept.checkpoints()) == 2, "checkpoint of the milestone")
    assert [snapshot.seq] == kept.saved
    task.cancel()
    await asyncio.wait([task])
    await kept.appender.close()
