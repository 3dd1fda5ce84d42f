"""Reading a log again: replay, verification, audit and time travel, from a real server.

The commands of `bench.decide` are decided once and stored on an embedded Valkey as a writer would have left
them, frames of 64. Then, each in the same process:

- replay: events applied per second, the chain verified (`foldex replay`);
- verify --decide: commands per second decided again and compared;
- audit verify: events per second with every liquidation and every bucket followed;
- time travel: seconds to the state at random entries, with a snapshot every so many events.

Two yardsticks from the same run: applying the same events when they are already decoded, in memory; and
deciding the same frames without a log.

    python -m bench.replay [--commands 200000] [--every 100000] [--rounds 3] [--json]
"""

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from bench.decide import make_frames
from events.embedded import EmbeddedServer
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    EventEntry,
    Groups,
    chain_hash,
    decode_groups,
    encode_groups,
    header_of,
)
from events.log import CommandEntry, Head
from events.redis import RedisLog
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import Exchange
from exchange.audit.cli import GC_THRESHOLD
from exchange.audit.evidence import gather
from exchange.audit.replay import replay
from exchange.audit.travel import make_snapshots, travel
from exchange.audit.verify import Extent, verify
from exchange.config import SNAPSHOT_EVENTS_DEFAULT

LOG_ID = "0" * 32
ENTRIES_PER_RESTORE = 64
JOURNEYS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians. Rates are per second, times in seconds."""

    commands: int
    events: int
    entries: int
    apply_only: int
    decide_only: int
    replayed: int
    decided_again: int
    audited: int
    snapshots: int
    travel_s: float
    travel_s_max: float


def decided(frames: list[CommandFrame]) -> tuple[list[EventEntry], float]:
    """Decide the frames as a writer does; return the event entries and how long deciding alone took."""
    state = Exchange()
    entries: list[EventEntry] = []
    previous = GENESIS_HASH
    elapsed_s = 0.0
    for seq, frame in enumerate(frames, 1):
        started_s = time.perf_counter()
        body = encode_groups(decide_frame(state, seq, frame, frame.time_ns))
        elapsed_s += time.perf_counter() - started_s
        previous = chain_hash(LOG_ID, previous, seq, SCHEMA_VERSION, frame.checksum, body)
        entries.append(
            EventEntry(seq=seq, schema=SCHEMA_VERSION, body=body, chain_hash=previous, writer="bench:1")
        )
    return entries, elapsed_s


async def store(log: RedisLog, frames: list[CommandFrame], entries: list[EventEntry]) -> None:
    """Put both streams onto a server."""
    lease = await log.acquire_lease("bench", 600_000)
    assert lease is not None
    previous = Head(seq=0, chain_hash=GENESIS_HASH)
    for start in range(0, len(frames), ENTRIES_PER_RESTORE):
        part = entries[start : start + ENTRIES_PER_RESTORE]
        commands = [
            CommandEntry(seq=entry.seq, frame=frame)
            for entry, frame in zip(part, frames[start : start + ENTRIES_PER_RESTORE], strict=True)
        ]
        await log.restore(commands, part, previous, lease)
        previous = Head(seq=part[-1].seq, chain_hash=part[-1].chain_hash)


def apply_s(decoded: list[Groups]) -> float:
    """Return how long applying decoded events takes."""
    state = Exchange()
    started_s = time.perf_counter()
    for groups in decoded:
        for group in groups:
            for event in group:
                state.apply(event)
    return time.perf_counter() - started_s


async def timed(rounds: int, work: Callable[[], Awaitable[object]]) -> float:
    """Return the median of the seconds that something takes."""
    found = []
    for _ in range(rounds):
        gc.collect()
        started_s = time.perf_counter()
        await work()
        found.append(time.perf_counter() - started_s)
    return statistics.median(found)


async def measure(count: int, every: int, rounds: int, directory: Path) -> Result:
    """Build the log and measure everything on it."""
    frames, _, _ = make_frames(count)
    entries, decide_s = decided(frames)
    decoded = [decode_groups(entry.body) for entry in entries]
    events = sum(len(group) for groups in decoded for group in groups)
    commands = sum(len(groups) - 1 for groups in decoded)
    assert all(header_of(groups).seq == seq for seq, groups in enumerate(decoded, 1))
    alone_s = statistics.median(apply_s(decoded) for _ in range(rounds))
    del decoded
    with EmbeddedServer(directory / "server") as server:
        log = RedisLog(server.socket_path)
        await store(log, frames, entries)
        del frames, entries
        replay_s = await timed(rounds, lambda: replay(log))
        decide_again_s = await timed(rounds, lambda: _verify(log))
        audit_s = await timed(rounds, lambda: gather(log, ()))
        snapshots = await make_snapshots(log, directory / "snapshots", every)
        head = await log.event_head()
        random = Random(1)
        journeys = [
            await timed(1, lambda seq=seq: travel(log, [directory / "snapshots"], seq))  # type: ignore[misc]
            for seq in [head.seq] + [random.randrange(1, head.seq) for _ in range(JOURNEYS - 1)]
        ]
        await log.close()
    return Result(
        commands=commands,
        events=events,
        entries=head.seq,
        apply_only=round(events / alone_s),
        decide_only=round(commands / decide_s),
        replayed=round(events / replay_s),
        decided_again=round(commands / decide_again_s),
        audited=round(events / audit_s),
        snapshots=len(snapshots),
        travel_s=round(statistics.median(journeys), 3),
        travel_s_max=round(max(journeys), 3),
    )


async def _verify(log: RedisLog) -> None:
    report = await verify(log, Extent(decide=True))
    assert report.finding is None, report.finding


def report(row: Result) -> None:
    """Print the figures, with their ratios to the yardsticks."""
    print(f"{row.commands:,} commands, {row.events:,} events, {row.entries:,} entries")
    lines = (
        ("apply, already decoded", f"{row.apply_only:>10,} events/s"),
        ("replay", f"{row.replayed:>10,} events/s", row.replayed / row.apply_only),
        ("audit verify", f"{row.audited:>10,} events/s", row.audited / row.apply_only),
        ("decide, without a log", f"{row.decide_only:>10,} commands/s"),
        ("verify --decide", f"{row.decided_again:>10,} commands/s", row.decided_again / row.decide_only),
    )
    for name, figure, *ratio in lines:
        print(f"{name:<24}{figure}" + (f"   {ratio[0]:.2f} of that" if ratio else ""))
    print(f"time travel: median {row.travel_s} s, worst {row.travel_s_max} s, {row.snapshots} snapshots")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=SNAPSHOT_EVENTS_DEFAULT, help="events a snapshot")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    with tempfile.TemporaryDirectory() as directory:
        row = asyncio.run(measure(options.commands, options.every, options.rounds, Path(directory)))
    if options.json:
        print(json.dumps(asdict(row)))
    else:
        report(row)


if __name__ == "__main__":
    main()
