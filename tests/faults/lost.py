"""A log that loses its last seconds while every process lives on: all see it, and nobody goes on from there.

It is lost in three ways: the server's file is cut back to where it was some time before, as a power cut does
in relaxed mode; FLUSHALL; a replica that lacks the last entries is promoted. The trading goes on meanwhile.

In every second case the log is archived. Then no process starts until `foldex recover` has put back what the
archive has, and the exchange goes on behind that. In the others a snapshot is all that tells of the loss:
nobody starts, and there is nothing to put back.
"""

import asyncio
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis.asyncio

from events.log import LogRewoundError
from events.redis import RedisLog
from exchange import config
from exchange.audit.replay import replay
from tests.faults.replica import Replica
from tests.faults.rig import Load, Rig, Row, loaded, rigged, row, settle
from tests.faults.servers import log_file
from tests.integration.processes import Process, environment, foldex
from tests.waiting import until

SNAPSHOT_EVENTS = 100
GONE_BACK = (config.EXIT_REWOUND, config.EXIT_FENCED)


@dataclass
class Tally:
    """What all losses together came to."""

    ways: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    put_back: int = 0
    lost: int = 0

    @property
    def notes(self) -> list[str]:
        """Say it."""
        ways = ", ".join(f"{way} {count}" for way, count in self.ways.items())
        return [
            f"{ways}; seen by every process in each",
            f"{self.put_back} entries put back from archives; {self.lost} acknowledged were in none",
            f"{self.refused} refused for want of an archive",
        ]


async def seconds_lost(count: int) -> Row:
    """Set the log back while every process lives on."""

    async def work(result: Row) -> None:
        tally = Tally()
        for n in range(count):
            with rigged() as rig:
                way = list(WAYS)[n % len(WAYS)]
                failure = await _lose(rig, way, tally, is_archived=n % 2 == 0)
            if failure:
                result.notes.append(f"loss {n + 1}, {way}: {failure}")
                return
            result.passed = n + 1
            result.tick()
        result.notes += tally.notes

    return await row("the log loses its last seconds, processes live on", count, work)


async def _lose(rig: Rig, way: str, tally: Tally, *, is_archived: bool) -> str:
    """Let a whole exchange live through a loss; return "" or what does not hold."""
    if is_archived:
        rig.settings[config.ARCHIVE_ENV] = str(rig.directory / "archive")
    prepared = WAYS[way](rig)
    await prepared.start()
    processes = await _whole_exchange(rig)
    async with loaded(rig.url) as load:
        for name, process in processes.items():
            await process.line("standing_by" if name == "standby" else "ready")
        await load.more(60)
        await prepared.mark()
        # Asked behind the mark, since entries come while it is made.
        kept_seq, _ = await _ends(rig)
        archiver = processes["archiver"]
        await until(lambda: _snapshot_seq(archiver) > kept_seq, "snapshot of what will be lost")
        await load.more(20)
        await prepared.lose()
        codes = {name: await process.code() for name, process in processes.items()}
        if any(code not in GONE_BACK for code in codes.values()):
            return f"ended with {codes}"
        failure = await _is_seen(load) or await _nobody_starts(rig, sum(tally.ways.values()))
        if failure:
            return failure
        tally.ways[way] += 1
        if is_archived:
            return await _put_back(rig, load, tally)
        tally.refused += 1
        return await _nothing_put_back(rig)


async def _whole_exchange(rig: Rig) -> dict[str, Process]:
    """Start one of each process."""
    snapshots = _snapshots(rig)
    writer = rig.writer(*snapshots)
    await writer.line("ready")
    key_file = ("--key-file", str(rig.directory / "key"))
    return {
        "writer": writer,
        "standby": rig.writer("--standby", *snapshots),
        "archiver": rig.process("archiver", *snapshots),
        "liquidator": rig.process("liquidator", *snapshots),
        "intake": rig.process("intake", *rig.ports(), *key_file, *snapshots),
        "feed": rig.process("feed", "--speed", "10", *snapshots),
    }


def _snapshots(rig: Rig) -> tuple[str, ...]:
    return ("--snapshots", str(rig.directory / "snapshots"), "--snapshot-events", str(SNAPSHOT_EVENTS))


def _snapshot_seq(archiver: Process) -> int:
    """Return the entry of the newest snapshot that an archiver has saved."""
    lines = [line for line in archiver.lines() if line.get("event") == "snapshot_saved"]
    return int(str(lines[-1]["seq"])) if lines else 0


async def _is_seen(load: Load) -> str:
    """Make sure that who followed live sees the loss."""
    load.is_paused = True
    try:
        await load.fold.catch_up()
    except LogRewoundError:
        return ""
    return "who followed live does not see the loss"


async def _nobody_starts(rig: Rig, turn: int) -> str:
    """Make sure that neither a writer nor another process, in turn, begins on what is left or touches it."""
    before = await _ends(rig)
    other = ("standby", "liquidator", "feed")[turn % 3]
    options = ("--standby",) if other == "standby" else ()
    beside = rig.process("writer" if options else other, *options, *_snapshots(rig))
    codes = {"writer": await rig.writer(*_snapshots(rig)).code()}
    if before[0] == 0 and not rig.settings:
        # Where there is no log, and no archive of one, it waits for a writer to create it.
        await beside.line("waiting_for_log")
        beside.end()
    else:
        codes[other] = await beside.code()
    if any(code != config.EXIT_REWOUND for code in codes.values()):
        return f"starts on what is left ended with {codes}"
    after = await _ends(rig)
    return "" if before == after else f"what is left went on from {before} to {after}"


async def _ends(rig: Rig) -> tuple[int, int]:
    """Return the last event entry and the last command entry."""
    log = RedisLog(rig.url)
    try:
        return (await log.event_head()).seq, await log.last_command_seq()
    finally:
        await log.close()


async def _recover(rig: Rig, archive: Path) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run,
        foldex("recover", "--redis-url", rig.url, "--archive", str(archive), "--json"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


async def _nothing_put_back(rig: Rig) -> str:
    """Make sure that without an archive `recover` says so and touches nothing."""
    before = await _ends(rig)
    done = await _recover(rig, rig.directory / "none")
    if done.returncode != config.EXIT_UNAVAILABLE or "there is no archive" not in done.stderr:
        return f"recover ended with {done.returncode}: {done.stderr}"
    return "" if before == await _ends(rig) else "recover without an archive touched the log"


async def _put_back(rig: Rig, load: Load, tally: Tally) -> str:
    """Recover, and let the exchange go on from there; return "" or what does not hold."""
    done = await _recover(rig, rig.directory / "archive")
    if done.returncode != config.EXIT_OK:
        return f"recover ended with {done.returncode}: {done.stderr}"
    restored = msgspec.json.decode(done.stdout)
    if restored["events"] == 0:
        return "nothing was put back"
    tally.put_back += restored["events"]
    tally.lost += max(0, load.fold.head.seq - restored["seq"])
    log = RedisLog(rig.url)
    try:
        common_seq = min(restored["seq"], load.fold.head.seq)
        replayed = await replay(log, until=common_seq)
    finally:
        await log.close()
    # Equal hashes say that every entry up to there is what it was, and so every answer in them.
    if replayed.head.chain_hash != load.hashes[common_seq - 1]:
        return f"entry {common_seq} is not the one that was there before"
    if common_seq == load.fold.head.seq and replayed.state.digest() != load.fold.state.digest():
        return "another state than the live one"
    rig.writer(*_snapshots(rig))
    async with loaded(rig.url, seed=2) as next_load:
        await next_load.more(20)
        return await settle(next_load) or await _verify(rig)


async def _verify(rig: Rig) -> str:
    command = foldex(
        "verify", "--decide", "--redis-url", rig.url, "--snapshots", str(rig.directory / "snapshots")
    )
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment(), capture_output=True, text=True, check=False
    )
    return "" if done.returncode == config.EXIT_OK else f"verify: {done.stdout}{done.stderr}"


class CutBack:
    """The server dies and loses what it wrote since `mark`, as in a power cut between two syncs."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._kept_bytes = 0

    async def start(self) -> None:
        """Nothing is needed."""

    async def mark(self) -> None:
        """From here on everything will be lost."""
        self._kept_bytes = log_file(self._rig.server).stat().st_size

    async def lose(self) -> None:
        """Lose it, and start again."""
        server = self._rig.server
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: not server.is_running(), "end of the server")
        os.truncate(log_file(server), self._kept_bytes)
        await asyncio.to_thread(server.start)


class Flush(CutBack):
    """FLUSHALL: everything is gone, and the server goes on."""

    async def lose(self) -> None:
        """Lose it."""
        client = redis.asyncio.Redis(unix_socket_path=self._rig.url)
        await client.flushall()
        await client.aclose()


class Promotion:
    """A replica is cut off at `mark`; the primary dies, and the replica takes its place."""

    def __init__(self, rig: Rig) -> None:
        self._replica = Replica(rig)

    async def start(self) -> None:
        """Start replication."""
        await self._replica.start()

    async def mark(self) -> None:
        """From here on nothing reaches the replica."""
        await self._replica.cut_off()

    async def lose(self) -> None:
        """Fail over."""
        await self._replica.take_over()


WAYS: dict[str, Callable[[Rig], CutBack | Promotion]] = {
    "file cut back": CutBack,
    "FLUSHALL": Flush,
    "replica promoted short": Promotion,
}
