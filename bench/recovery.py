"""From the start of a process to its first work, on a log that is long already.

A writer on an embedded Valkey is driven until the log has that many events, an archiver keeps a snapshot of
it and archives it, and both are stopped. Then more is decided, until nearly as many events lie behind the
snapshot as may before the next one: no start has more to fold. Now the processes are started again and again,
alone. The clock runs from the start of a process, Python's own start and the connection to the server
included; for the writer, which finds one command waiting, until the events of that command are in the log,
for the others until their heartbeat says that they are ready.

For comparison the writer starts without snapshots, from the first entry; and on a log of one entry, which is
what no snapshot could save.

    python -m bench.recovery [--events 1000000] [--every 50000] [--rounds 5] [--json]
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.pipeline import (
    FIRST_ACCOUNT_ID,
    Appender,
    free_ports,
    make_commands,
    make_frames,
    read_until,
    running,
    setup_commands,
    wait_alive,
)
from events.commands import Deposit
from events.embedded import EmbeddedServer
from events.frame import close_command_frame, new_origin
from events.redis import RedisLog
from events.snapshot import find, load
from exchange.aggregate.image import restore
from exchange.config import ARCHIVE_ENV, SNAPSHOT_EVENTS_DEFAULT

FRAME_SIZE = 256
FRAMES_PER_STEP = 64
# As many orders are cancelled as placed, so that the book stays as it is however long the log gets.
CANCELS = 0.45
RESTING = 20_000
TAIL_STEP_MAX = 20_000
POLL_S = 0.002
DEADLINE_S = 180.0
# An archiver with nothing to do uses less than so much processor time in so many seconds.
IDLE_S = 1.0
CPU_IDLE_S = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians of seconds from start to work, and what there was to recover.

    `tail_events` are those behind the snapshot, `snapshot_bytes` the size of its body. `from_snapshot_s` has
    each process by name, `slowest_s` the slowest start of each.

    `archived_per_s` are the events of the whole log by the seconds of an archiver that found all of it new,
    from its start to its end, with one snapshot; `archiver_cpu_us` is its processor time an event.
    `folded_per_s` is the same for the writer that starts from the first entry, which only folds.
    """

    events: int
    entries: int
    open_orders: int
    tail_events: int
    snapshot_bytes: int
    archived_per_s: float
    archiver_cpu_us: float
    folded_per_s: float
    from_snapshot_s: dict[str, float]
    slowest_s: dict[str, float]
    from_first_entry_s: float
    one_entry_s: float


async def decide(socket_path: str, count: int, *, with_setup: bool = False) -> int:
    """Have `count` commands decided, each of which makes an event or more; return how many that were."""
    log = RedisLog(socket_path)
    opened = await log.last_command_seq()
    origin = new_origin("bench")
    setup = make_frames(setup_commands(), 1_024, 1, origin) if with_setup else []
    first_seq = opened + len(setup) + 1
    commands = make_commands(count, FRAME_SIZE, first_seq, cancels=CANCELS, resting=RESTING)
    frames = setup + make_frames(commands, FRAME_SIZE, len(setup) + 1, origin)
    appender = Appender(socket_path)
    events, after = 0, opened
    for start in range(0, len(frames), FRAMES_PER_STEP):
        step = frames[start : start + FRAMES_PER_STEP]
        await appender.append(step)
        bodies = await read_until(log, after, after + len(step))
        events += sum(len(group) for body in bodies for group in msgspec.msgpack.decode(body))
        after += len(step)
    # Somebody else's entry would have shifted the numbers of orders, so that no cancel found its own.
    assert await log.last_command_seq() == after, "somebody else has appended"
    await log.close()
    return events


async def decide_tail(socket_path: str, count: int) -> int:
    """Have commands decided until they made about `count` events, rather fewer; return how many."""
    events = 0
    while (missing := count - events) > FRAME_SIZE * 2:
        # A command makes 1.3 events.
        events += await decide(socket_path, min(missing * 2 // 3, TAIL_STEP_MAX))
    return events


def archive(socket_path: str, snapshots: Path, *kept: str) -> tuple[float, float]:
    """Run an archiver until all is in a snapshot and in segments; return its seconds, and its processor's."""
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with running("archiver", "--redis-url", socket_path, *kept) as pid:
        asyncio.run(_snapshot_there(socket_path, snapshots))
        # It has read everything when it has nothing more to do; the last segment is written when it stops.
        busy_s, idle_since_s = cpu_of(pid), time.perf_counter()
        while time.perf_counter() - idle_since_s < IDLE_S:
            time.sleep(POLL_S)
            if cpu_of(pid) > busy_s + CPU_IDLE_S:
                busy_s, idle_since_s = cpu_of(pid), time.perf_counter()
        stopped_s = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    elapsed_s = time.perf_counter() - started_s - (stopped_s - idle_since_s)
    return elapsed_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def _snapshot_there(socket_path: str, snapshots: Path) -> None:
    log = RedisLog(socket_path)
    await wait_alive(socket_path, ("archiver",), (await log.event_head()).seq)
    async with asyncio.timeout(DEADLINE_S):
        # Another process's file; nothing here could be waited for.
        while not find(snapshots):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    await log.close()


def cpu_of(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def first_command_s(socket_path: str, *options: str) -> float:
    """Start a writer on a log with one command waiting; return the seconds until that has its events."""
    log = RedisLog(socket_path)
    command = Deposit(account_id=FIRST_ACCOUNT_ID, amount=1)
    frame = close_command_frame(new_origin("bench-restart"), 1, time.time_ns(), [command])
    seq = await log.append_command(frame)
    started_s = time.perf_counter()
    with running("writer", "--redis-url", socket_path, *options):
        while (await log.event_head()).seq < seq:
            await asyncio.sleep(POLL_S)
            assert time.perf_counter() < started_s + DEADLINE_S, "the writer does not process it"
        elapsed_s = time.perf_counter() - started_s
    await log.close()
    return elapsed_s


async def ready_s(name: str, socket_path: str, *options: str) -> float:
    """Start a process; return the seconds until it says that it is ready."""
    started_s = time.perf_counter()
    with running(name, "--redis-url", socket_path, *options):
        await wait_alive(socket_path, (name,))
        return time.perf_counter() - started_s


def measure_one_entry(rounds: int) -> float:
    """Measure starts on a log that has just been created."""
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
    ):
        with running("writer", "--redis-url", server.socket_path):
            asyncio.run(wait_alive(server.socket_path, ("writer",)))
        return statistics.median(asyncio.run(first_command_s(server.socket_path)) for _ in range(rounds))


def measure_starts(socket_path: str, data_dir: Path, rounds: int, *kept: str) -> dict[str, list[float]]:
    """Start each process again and again."""
    port, admin_port = free_ports(2)
    serving = ("--port", str(port), "--admin-port", str(admin_port), "--key-file", str(data_dir / "key"))
    options = {"liquidator": kept, "intake": (*kept, *serving), "archiver": kept}
    found = {"writer": [asyncio.run(first_command_s(socket_path, *kept)) for _ in range(rounds)]}
    for name, given in options.items():
        found[name] = [asyncio.run(ready_s(name, socket_path, *given)) for _ in range(rounds)]
    return found


def measure(count: int, every: int, rounds: int) -> Result:
    """Build a log, and restart its processes with and without snapshots."""
    one_entry_s = measure_one_entry(rounds)
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
    ):
        os.environ[ARCHIVE_ENV] = str(Path(directory) / "archive")
        snapshots = Path(directory) / "snapshots"
        socket_path = server.socket_path
        log = ("--redis-url", socket_path)
        kept = ("--snapshots", str(snapshots), "--snapshot-events", str(every))
        with running("writer", *log):
            asyncio.run(wait_alive(socket_path, ("writer",)))
            events = asyncio.run(decide(socket_path, count, with_setup=True))
            first_events = events
        from_first_entry_s = asyncio.run(first_command_s(socket_path))
        archiving_s, cpu_s = archive(socket_path, snapshots, *kept)
        snapshot = load(find(snapshots)[0])
        with running("writer", *log, *kept):
            asyncio.run(wait_alive(socket_path, ("writer",)))
            events += asyncio.run(decide_tail(socket_path, every - (events - snapshot.events)))
        found = measure_starts(socket_path, Path(directory), rounds, *kept)
        state = restore(snapshot.body)
        return Result(
            events=events,
            entries=state.seq,
            open_orders=sum(len(account.orders) for account in state.accounts.values()),
            tail_events=events - snapshot.events,
            snapshot_bytes=len(snapshot.body),
            archived_per_s=first_events / archiving_s,
            archiver_cpu_us=cpu_s / first_events * 1e6,
            folded_per_s=first_events / from_first_entry_s,
            from_snapshot_s={name: statistics.median(seconds) for name, seconds in found.items()},
            slowest_s={name: max(seconds) for name, seconds in found.items()},
            from_first_entry_s=from_first_entry_s,
            one_entry_s=one_entry_s,
        )


def report(result: Result) -> None:
    """Print what was recovered, and how long it took."""
    print(
        f"{result.events:,} events, {result.entries:,} entries up to the snapshot, "
        f"{result.open_orders:,} open orders; snapshot of {result.snapshot_bytes / 1e6:.1f} MB, "
        f"{result.tail_events:,} events behind it"
    )
    print(
        f"archiver, from the first entry: {result.archived_per_s:,.0f} events/s, "
        f"{result.archiver_cpu_us:.1f} µs of processor time an event; "
        f"{result.archived_per_s / result.folded_per_s:.2f} × the writer that folds them alone"
    )
    print("writer, start to first processed command:")
    print(f"  {'log of one entry':<26} {result.one_entry_s:>7.2f} s")
    print(f"  {'from the first entry':<26} {result.from_first_entry_s:>7.2f} s")
    print("from the newest snapshot, median (slowest):")
    for name, seconds in result.from_snapshot_s.items():
        print(f"  {name:<26} {seconds:>7.2f} s  ({result.slowest_s[name]:.2f} s)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From a process's start to its first work.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=SNAPSHOT_EVENTS_DEFAULT)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.events, arguments.every, arguments.rounds)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        report(result)


if __name__ == "__main__":
    main()
