"""One seed, one run: start everything, disturb it, let it recover, and ask whether every promise was kept."""

import asyncio
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from traceback import format_exception
from typing import Any

import structlog

from events.memory import MemoryLog
from exchange.simulation.clients import Clients
from exchange.simulation.plan import Plan
from exchange.simulation.processes import World
from exchange.simulation.verdict import check_end, check_read_models

COMMANDS_DEFAULT = 80
# A run takes some 10 to 60 s of its time. One that is not at rest by then never will be.
RUN_S_MAX = 150.0
POLL_S = 0.1
# Longer than anything that a process does on its own: ticks, segments, another writer's lease.
QUIET_S = 1.5
# How often somebody is killed when the newest snapshot has just been broken.
BREAKAGE_SHARE = 0.3
FREEZE_S_MAX = 4.0
CUT_OFF_S_MAX = 3.0
# What processes say that is worth a note; their other words are for operators.
_NOTED = ("seq", "digest", "writer", "role")

MakeStore = Callable[..., MemoryLog]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What became of a run.

    `digest` covers all bytes of both streams, every file, and the order in which everything was done.
    `findings` are the promises that were broken, `trace` is of the exception that the first of them was, if
    it was one; `notes` say what happened, a line each. `counts` tell what the run has met.
    """

    seed: int
    digest: str
    findings: tuple[str, ...]
    counts: dict[str, int]
    notes: tuple[str, ...]
    trace: tuple[str, ...]


def simulate(seed: int, *, commands: int = COMMANDS_DEFAULT, make_store: MakeStore = MemoryLog) -> RunResult:
    """Run the exchange under a seed, with so many commands of its clients."""
    random = Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="foldex-sim-", dir=_memory_directory()))
    try:
        world = World(Plan.draw(random, commands), random, directory, make_store)
        with _told(world):
            clients = _run(world)
        return _outcome(seed, world, clients)
    finally:
        shutil.rmtree(directory)


def _memory_directory() -> str | None:
    """Return a directory in memory, where flushing a file costs nothing, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


def _run(world: World) -> Clients:
    clients = Clients(world)
    for name in world.names:
        world.start(name)
    world.network.intensity = world.plan.intensity
    directing = world.director.create_task(_direct(world, clients))
    try:
        world.scheduler.run_until(lambda: world.is_over or directing.done() or bool(world.scheduler.failures))
        for name, failure in world.scheduler.failures:
            world.find(f"{name}: {type(failure).__name__}: {failure}", failure)
        if directing.done():
            directing.result()
    except Exception as error:
        world.find(f"{type(error).__name__}: {error}", error)
    finally:
        world.scheduler.end()
    return clients


async def _direct(world: World, clients: Clients) -> None:
    """Disturb the run while the clients trade, then see it end."""
    trading = world.clients.create_task(clients.run())
    if world.plan.intensity:
        await _disturb(world, trading)
    while not trading.done():
        await _pause(world)
    trading.result()
    world.heal()
    await _come_to_rest(world)
    check_read_models(world)
    await _stop_everything(world)
    await check_end(world, clients.requests)


async def _disturb(world: World, trading: "asyncio.Task[None]") -> None:
    random = world.random
    while not trading.done():
        await asyncio.sleep(random.expovariate(1 / world.plan.disturbance_s))
        name = random.choice((*world.processes, "writer", "standby"))
        process = world.processes.get(name)
        if process is None or trading.done():
            continue
        is_broken = random.random() < BREAKAGE_SHARE and world.break_snapshot()
        what = "kill" if is_broken else random.choice(("kill", "freeze", "cut off", "stop"))
        world.note(f"{what} {name}")
        if what == "kill":
            world.kill(name)
        elif what == "stop":
            process.stop()
        elif what == "freeze":
            process.loop.is_frozen = True
            await asyncio.sleep(random.random() * FREEZE_S_MAX)
            process.loop.is_frozen = False
        else:
            process.connection.is_cut_off = True
            await asyncio.sleep(random.random() * CUT_OFF_S_MAX)
            process.connection.is_cut_off = False
        await _pause(world)


async def _pause(world: World) -> None:
    """Let others go on, but not for ever."""
    await asyncio.sleep(POLL_S)
    if world.scheduler.now_s > RUN_S_MAX:
        where = {name: process.host.seq for name, process in world.processes.items()}
        world.find(f"does not come to an end: {world.auditor.last_command_seq} commands, read: {where}")


async def _come_to_rest(world: World) -> None:
    """Wait until everything asked is answered, everybody has read it, and nothing more comes."""
    quiet_since_s, place = world.scheduler.now_s, (0, 0)
    while world.scheduler.now_s - quiet_since_s < QUIET_S:
        now = (world.auditor.last_command_seq, world.auditor.state.seq)
        if now != place or now[0] != now[1] or not _has_everybody_read(world, now[1]):
            quiet_since_s, place = world.scheduler.now_s, now
        await _pause(world)


def _has_everybody_read(world: World, seq: int) -> bool:
    """Whether all processes live and are at an entry, and of the two writers one stands by."""
    hosts = [process.host for process in world.processes.values()]
    return (
        len(hosts) == len(world.names)
        and all(host.role and host.seq == seq for host in hosts)
        and sum(host.stands_by for host in hosts) == 1
    )


async def _stop_everything(world: World) -> None:
    """Stop one process after the other; the active writer last but one, so that the other takes over."""
    writers = sorted(("writer", "standby"), key=lambda name: world.processes[name].host.stands_by)
    for name in [*(name for name in world.names if name not in writers), *writers]:
        while name not in world.processes:
            await _pause(world)  # it has just lost its lease, and is started again
        process = world.processes[name]
        while name == writers[1] and process.host.stands_by:
            await _pause(world)
        world.retired.add(name)
        process.stop()
        while name in world.processes:
            await _pause(world)


@contextmanager
def _told(world: World) -> Iterator[None]:
    """Take what the processes log: into the notes, and to whoever compares digests."""

    def take(_logger: Any, _method: str, line: Any) -> str:
        said = {key: line[key] for key in _NOTED if key in line}
        world.note(f"{world.scheduler.running}: {line['event']} {said}")
        world.check_said(line["event"], line.get("seq", 0), line.get("digest", ""))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[take], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _outcome(seed: int, world: World, clients: Clients) -> RunResult:
    counts: Counter[str] = Counter({fault.value: n for fault, n in world.network.counts.items()})
    auditor = world.auditor
    counts |= Counter(world.said)
    counts |= Counter(f"client told {request.told.name.lower()}" for request in clients.requests)
    counts |= Counter({f"frame {outcome.name.lower()}": n for outcome, n in auditor.outcomes.items()})
    counts |= Counter(f"liquidation {result.lower()}" for result in auditor.liquidations)
    counts |= {"entries": auditor.state.seq, "trades": auditor.trades, "starts again": world.restarts}
    counts["trimmed"] += world.store.commands[:1] != auditor.commands[:1]
    counts |= {"calls": len(world.scheduler.schedule), "virtual seconds": int(world.scheduler.now_s)}
    return RunResult(
        seed=seed,
        digest=_digest(world),
        findings=tuple(world.findings),
        counts=dict(sorted(counts.items())),
        notes=tuple(world.notes),
        trace=tuple(format_exception(world.error)) if world.error else (),
    )


def _digest(world: World) -> str:
    """Hash all that there is of a run."""
    hashed = hashlib.blake2b(digest_size=16)

    def add(part: bytes) -> None:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)

    add(bytes(world.scheduler.schedule))
    for note in world.notes:
        add(note.encode())
    for command in world.auditor.commands:
        add(f"{command.seq} {command.frame.origin} {command.frame.n} {command.frame.time_ns}".encode())
        add(command.frame.body)
    for body, chained, writer, timing in world.auditor.event_bytes:
        for part in (body, chained, writer.encode(), timing):
            add(part)
    for path in sorted(path for path in world.directory.rglob("*") if path.is_file()):
        add(str(path.relative_to(world.directory)).encode())
        add(path.read_bytes())
    return hashed.hexdigest()
