"""From the start of a writer to the first command it processes, on a log that is long already.

A writer on an embedded Valkey is driven until the log has that many events, an archiver keeps a snapshot of
it, and both are stopped. Then the writer is started again and again, each time with one command waiting: the
clock runs from the start of the process, Python's own start and the connection to the server included, until
the events of that command are in the log. It starts from the newest snapshot, and, for comparison, from the
first entry; how long it takes on a log of one entry is what no snapshot could save.

    python -m bench.recovery [--events 1000000] [--every 100000] [--rounds 3] [--json]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from bench.pipeline import (
    FIRST_ACCOUNT_ID,
    Appender,
    make_commands,
    make_frames,
    read_until,
    running,
    setup_commands,
    wait_alive,
)
from events.commands import AnyCommand, Deposit
from events.embedded import EmbeddedServer
from events.frame import close_command_frame, new_origin
from events.redis import RedisLog
from events.snapshot import Snapshot, find, load
from exchange.aggregate.image import restore
from exchange.config import SNAPSHOT_EVENTS_DEFAULT

FRAME_SIZE = 256
FRAMES_PER_STEP = 64
# As many orders are cancelled as placed, so that the book stays as it is however long the log gets.
CANCELS = 0.45
RESTING = 20_000
POLL_S = 0.002
DEADLINE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians of seconds to the first command, and what there was to recover.

    `tail_events` are those behind the snapshot, `snapshot_bytes` the size of its body.
    """

    events: int
    entries: int
    open_orders: int
    tail_events: int
    snapshot_bytes: int
    from_snapshot_s: float
    from_first_entry_s: float
    one_entry_s: float


async def build(socket_path: str, count: int) -> int:
    """Have `count` commands decided, each of which makes an event or more; return how many that were."""
    log = RedisLog(socket_path)
    opened = await log.last_command_seq()
    origin = new_origin("bench")
    setup = make_frames(setup_commands(), 1_024, 1, origin)
    first_seq = opened + len(setup) + 1
    load_commands = make_commands(count, FRAME_SIZE, first_seq, cancels=CANCELS, resting=RESTING)
    frames = setup + make_frames(load_commands, FRAME_SIZE, len(setup) + 1, origin)
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


async def archive(socket_path: str, directory: Path) -> None:
    """Wait until the archiver has read all there is and kept a snapshot."""
    log = RedisLog(socket_path)
    await wait_alive(socket_path, ("archiver",), (await log.event_head()).seq)
    async with asyncio.timeout(DEADLINE_S):
        # Another process's file; nothing here could be waited for.
        while not find(directory):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
    await log.close()


async def first_command_s(socket_path: str, command: AnyCommand, *options: str) -> float:
    """Start a writer on a log with one command waiting; return the seconds until that has its events."""
    log = RedisLog(socket_path)
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


def median_s(socket_path: str, rounds: int, *options: str) -> float:
    """Return the median of several starts."""
    command = Deposit(account_id=FIRST_ACCOUNT_ID, amount=1)
    return statistics.median(
        asyncio.run(first_command_s(socket_path, command, *options)) for _ in range(rounds)
    )


def measure_one_entry(rounds: int) -> float:
    """Measure starts on a log that has just been created."""
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
    ):
        with running("writer", "--redis-url", server.socket_path):
            asyncio.run(wait_alive(server.socket_path, ("writer",)))
        return median_s(server.socket_path, rounds)


def newest(directory: Path) -> Snapshot:
    """Return the newest snapshot that the archiver kept."""
    return load(find(directory)[0])


def measure(count: int, every: int, rounds: int) -> Result:
    """Build a log, and restart its writer with and without snapshots."""
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
    ):
        snapshots = Path(directory) / "snapshots"
        log = ("--redis-url", server.socket_path)
        kept = ("--snapshots", str(snapshots), "--snapshot-events", str(every))
        with running("writer", *log, *kept):
            asyncio.run(wait_alive(server.socket_path, ("writer",)))
            events = asyncio.run(build(server.socket_path, count))
            with running("archiver", *log, *kept):
                asyncio.run(archive(server.socket_path, snapshots))
        snapshot = newest(snapshots)
        state = restore(snapshot.body)
        return Result(
            events=events,
            entries=state.seq,
            open_orders=sum(len(account.orders) for account in state.accounts.values()),
            tail_events=events - snapshot.events,
            snapshot_bytes=len(snapshot.body),
            from_snapshot_s=median_s(server.socket_path, rounds, *kept),
            from_first_entry_s=median_s(server.socket_path, rounds),
            one_entry_s=measure_one_entry(rounds),
        )


def report(result: Result) -> None:
    """Print what was recovered, and how long it took."""
    print(
        f"{result.events:,} events in {result.entries:,} entries up to the snapshot, "
        f"{result.open_orders:,} open orders; snapshot of {result.snapshot_bytes / 1e6:.1f} MB, "
        f"{result.tail_events:,} events behind it"
    )
    print("restart to first processed command, median:")
    for name, seconds in (
        ("log of one entry", result.one_entry_s),
        ("from the newest snapshot", result.from_snapshot_s),
        ("from the first entry", result.from_first_entry_s),
    ):
        print(f"  {name:<26} {seconds:>7.2f} s  {seconds / result.one_entry_s:>6.2f} ×")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From a writer's start to the first command it processes.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=SNAPSHOT_EVENTS_DEFAULT)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.events, arguments.every, arguments.rounds)
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        report(result)


if __name__ == "__main__":
    main()
