"""The processes of the exchange as they are, in a simulated world: started, killed, frozen, restarted.

What is simulated is only what they live in (`SimulatedHost`) and who starts them again (`World`); the code is
that of `run_writer`, `run_liquidator`, `run_archiver` and of the intake behind its HTTP front.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from events.log import LogRewoundError
from events.machine import Machine
from events.memory import MemoryLog
from exchange import config
from exchange.archiver import run_archiver
from exchange.fold import Snapshots
from exchange.intake.keys import SEALING_KEY_BYTES, KeyRing
from exchange.intake.service import Intake
from exchange.liquidator import run_liquidator
from exchange.runtime import Host, exit_code_of
from exchange.simulation.audit import Auditor, Clock
from exchange.simulation.breakage import break_newest, remove_foreign
from exchange.simulation.loops import NS_PER_S, ProcessLoop, Scheduler
from exchange.simulation.plan import Plan
from exchange.simulation.requests import Request
from exchange.simulation.server import Connection, Fault, Network, Server
from exchange.writer import STANDBY, run_writer

START_NS = 1_700_000_000 * NS_PER_S
NS_PER_MS = 1_000_000
# With what a supervisor starts again who ended; whatever else ends a process is a finding.
EXITS_EXPECTED = frozenset({config.EXIT_OK, config.EXIT_FENCED, config.EXIT_UNAVAILABLE})
RESTART_S_MAX = 1.0
STOPWATCH_NS_MAX = 3_000_000
HEARTBEAT_TTL_S = config.HEARTBEAT_TTL_MS / 1000
SEGMENT_S = 2.0

Main = Callable[["Process"], Awaitable[None]]


class SimulatedHost(Host):
    """What a simulated process lives in; its heartbeat is a note in the world.

    `role` is "" until it is ready.
    """

    def __init__(self, world: "World", process: "Process", machine: Machine) -> None:
        plan = world.plan
        super().__init__(
            process.name,
            process.connection,
            Snapshots(directory=world.directory / "snapshots", every_events=plan.snapshot_events),
            archive=str(world.directory / "archive") if plan.has_archive else None,
            machine=machine,
        )
        self.role = ""
        self.stands_by = False
        self._world = world
        self._seq: Callable[[], int] = lambda: 0
        self._beating: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        """The last entry handled."""
        return self._seq()

    def ready(
        self, seq: Callable[[], int], *, role: str | None = None, took_over_s: float | None = None
    ) -> None:
        """Begin the heartbeat."""
        self.role = role or self.name
        self.stands_by = role == STANDBY
        self._seq = seq
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="heartbeat")

    async def read_consumers(self) -> dict[str, int]:
        """Return who was seen lately, and where."""
        await asyncio.sleep(0)
        now_s = self._world.scheduler.now_s
        beats = self._world.heartbeats.items()
        return {role: seq for role, (seq, at_s) in beats if now_s - at_s < HEARTBEAT_TTL_S}

    async def _beat(self) -> None:
        while True:
            self._world.heartbeats[self.role] = (self._seq(), self._world.scheduler.now_s)
            await asyncio.sleep(config.HEARTBEAT_INTERVAL_S)


class Process:
    """One life of a process. `pending` are requests of clients that it has not answered."""

    def __init__(self, world: "World", name: str, life: int) -> None:
        self.name = name
        self.life = life
        self.loop: ProcessLoop = world.scheduler.new_loop(name)
        self.connection = Connection(world.server, name, world.network, lambda: world.ended(self, None))
        self.host = SimulatedHost(world, self, world.machine(name, life))
        self.intake: Intake | None = None
        self.pending: dict[int, Request] = {}
        self._world = world

    def live(self, main: Main) -> None:
        """Begin to run."""
        self.loop.create_task(self._live(main), name=self.name)

    def stop(self) -> None:
        """Ask for an end in good order, as SIGTERM does."""
        self.host.stop.set()

    async def _live(self, main: Main) -> None:
        try:
            if await self.host.check_archive():
                await main(self)
            code = config.EXIT_OK
        except Exception as error:
            if self.loop.is_dead:
                return  # it is being killed
            code = exit_code_of(error)
            self._world.said[f"ended by {type(error).__name__}"] += 1
            if code not in EXITS_EXPECTED and not self._world.is_by_foreign_snapshot(error):
                self._world.find(f"{self.name} ended: {type(error).__name__}: {error}", error)
        self._world.ended(self, code)


class World:
    """All processes, the server between them, and what is known about the run.

    `notes` say what happened, one line each; `findings` what must not have, with the first of which the run
    `is_over`. Who is `retired` is not started again.
    """

    def __init__(
        self, plan: Plan, random: Random, directory: Path, make_store: Callable[..., MemoryLog] = MemoryLog
    ) -> None:
        self.plan = plan
        self.random = random
        self.directory = directory
        self.scheduler = Scheduler(random)
        self.findings: list[str] = []
        self.error: BaseException | None = None
        self.is_over = False
        self.notes: list[str] = []
        self.heartbeats: dict[str, tuple[int, float]] = {}
        self.processes: dict[str, Process] = {}
        self.restarts = 0
        self.said: Counter[str] = Counter()
        self.retired: set[str] = set()
        self.director = self.scheduler.new_loop("director")
        self.clients = self.scheduler.new_loop("clients")
        self._lives = count(1)
        self.network = Network(random, self.director.create_task, self._note_fault)
        self.store = make_store(clock_ms=lambda: self.scheduler.now_ns // NS_PER_MS)
        self._clocks: dict[str, Clock] = {}
        self.auditor = Auditor(
            self.store, self.find, every_events=plan.snapshot_events, clock_of=self._clock_of_writer
        )
        self.server = Server(self.store, self.auditor.look)
        self._mains: dict[str, Main] = {
            "writer": partial(_writer, standby=False, lease_ms=plan.lease_ms),
            "standby": partial(_writer, standby=True, lease_ms=plan.lease_ms),
            "liquidator": lambda process: run_liquidator(process.host),
            "archiver": lambda process: run_archiver(process.host, segment_s=SEGMENT_S),
        }
        for number in range(plan.intakes):
            self._mains[f"intake-{number}"] = partial(_intake, deadline_s=plan.answer_deadline_s)

    @property
    def names(self) -> list[str]:
        """The names of the processes that are to run."""
        return list(self._mains)

    def note(self, line: str) -> None:
        """Note what happened, with the time."""
        self.notes.append(f"{self.scheduler.now_s:.6f} {line}")

    def find(self, what: str, error: BaseException | None = None) -> None:
        """Note what must not have happened; the run is over."""
        self.note(f"FOUND {what}")
        self.findings.append(what)
        self.error = self.error or error
        self.is_over = True

    def check_said(self, event: str, seq: int, digest: str) -> None:
        """Compare the digest that a process has logged with the auditor's, where that has one."""
        self.said[event] += 1
        if event == "started_from_snapshot" and seq not in self.auditor.digests:
            self.find(f"{self.scheduler.running}: {event}: the log has no milestone at {seq}")
        state = self.auditor.state
        known = state.digest() if digest and seq == state.seq else self.auditor.digests.get(seq, b"")
        if digest and known:
            self.said["digests compared"] += 1
            if known.hex() != digest:
                self.find(f"{self.scheduler.running}: {event}: the state at {seq} is not the log's")

    def machine(self, name: str, life: int) -> Machine:
        """Return the machine of one life of a process: its clock is off by as much as the plan says."""
        skew_ns = self.plan.skew_ns(self.random)
        stopwatch_ns = 0

        def stopwatch() -> int:
            nonlocal stopwatch_ns
            stopwatch_ns += int(self.random.random() * STOPWATCH_NS_MAX)
            return stopwatch_ns

        def clock() -> int:
            return START_NS + self.scheduler.now_ns + skew_ns

        machine = Machine(
            clock_ns=clock,
            stopwatch_ns=stopwatch,
            token_hex=lambda size: self.random.randbytes(size).hex(),
            name=f"{name}-{life}",
        )
        self._clocks[machine.name] = Clock(clock(), clock)
        return machine

    def start(self, name: str) -> None:
        """Start a process, unless it runs."""
        if name in self.processes or name in self.retired:
            return
        process = Process(self, name, next(self._lives))
        self.processes[name] = process
        self.note(f"{name} starts")
        process.live(self._mains[name])

    def kill(self, name: str) -> None:
        """kill -9 a process."""
        process = self.processes.get(name)
        if process is not None:
            self.ended(process, None)

    def ended(self, process: Process, code: int | None) -> None:
        """Note the end of a process, by a signal when there is no code, and start it again later."""
        if self.processes.get(process.name) is not process:
            return
        del self.processes[process.name]
        process.connection.is_dead = True
        self.scheduler.doom(process.loop)
        self.note(f"{process.name} ended: {'killed' if code is None else code}")
        for request in list(process.pending.values()):
            request.break_off()
        process.pending.clear()
        self.restarts += 1
        self.director.call_later(self.random.random() * RESTART_S_MAX, self.start, process.name)

    def break_snapshot(self) -> bool:
        """Break the newest snapshot in one of the ways that there are; return whether there was one."""
        breakage = break_newest(self.directory / "snapshots", self.random)
        if breakage is not None:
            self.said[breakage] += 1
            self.note(breakage)
        return breakage is not None

    def is_by_foreign_snapshot(self, error: Exception) -> bool:
        """Tell whether a start ended as it must at a snapshot of another log, and remove that then.

        So it ends only when the log's first entry, which has its name, is no longer there.
        """
        is_trimmed = self.store.commands[:1] != self.auditor.commands[:1]
        return (
            is_trimmed and isinstance(error, LogRewoundError) and remove_foreign(self.directory / "snapshots")
        )

    def heal(self) -> None:
        """Let nothing fail any more, from now on."""
        self.network.intensity = 0.0
        for process in self.processes.values():
            process.loop.is_frozen = False
            process.connection.is_cut_off = False

    def _clock_of_writer(self, writer_id: str) -> Clock:
        """Return the clock of a writer, whose id begins with its machine's name."""
        return self._clocks[writer_id.rpartition("-")[0]]

    def _note_fault(self, name: str, what: str, fault: Fault) -> None:
        self.note(f"{name}: {what}: {fault}")


async def _writer(process: Process, *, standby: bool, lease_ms: int) -> None:
    await run_writer(process.host, standby=standby, lease_ms=lease_ms)


async def _intake(process: Process, *, deadline_s: float) -> None:
    """Live as an intake without listeners: `intake.process.run_intake` otherwise."""
    host = process.host
    if not await host.wait_for_log():
        return
    keys = KeyRing(bytes(SEALING_KEY_BYTES))
    intake = Intake(
        host.log, host.name, keys, deadline_s=deadline_s, snapshots=host.snapshots, machine=host.machine
    )
    if not await host.until_available(intake.catch_up):
        return
    folding = asyncio.create_task(intake.run(), name="intake fold")
    opening = asyncio.create_task(intake.open(), name="intake open")
    stopping = asyncio.create_task(host.stop.wait(), name="intake stop")
    reading = asyncio.create_task(host.until_available(intake.read_past), name="intake past")
    ends = (stopping, folding)
    try:
        await asyncio.wait((opening, *ends), return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            timing = asyncio.create_task(intake.keep_time(), name="intake time")
            process.intake = intake
            host.ready(lambda: intake.state.seq)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            process.intake = None
            timing.cancel()
    finally:
        await intake.close()
        stopping.cancel()
        folding.cancel()
        reading.cancel()
        await asyncio.wait((opening, reading, *ends))
    for task in (folding, reading):
        if not task.cancelled():
            task.result()
