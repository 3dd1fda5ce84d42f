"""What every driver works with: a server, writers by id, a load that knows what was promised, and the proof.

The load sends random trading through an appender of its own and keeps every future it was given. At the end
the whole log is read back: each command that was sent is in it once, in order, and each answer that was
given is the one in the log. Replay by `apply` alone must lead to the state of whoever followed live.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from events.appender import Appender
from events.commands import AnyCommand, Deposit, ListMarket, OpenAccount, SetIndexPrice
from events.embedded import Durability, EmbeddedServer
from events.events import Event
from events.frame import header_of
from events.log import CommandEntry, CommandReader, EventReader, Log, VerifiedEvents
from events.redis import RedisLog
from events.values import IndexSource, Outcome
from exchange.audit.replay import replay
from exchange.fold import Fold
from tests.flow import SPECS, random_command
from tests.integration.processes import Process, free_ports, has_events
from tests.venue import money
from tests.waiting import eventually, until

LEASE_MS = 500
ENTRIES_PER_READ = 256
UNANSWERED_MAX = 64
# About 400 commands a second: what a start has to fold stays short.
BURST_MAX = 16
PAUSE_S = 0.02
ACCOUNTS = 8
ANSWERS_DEADLINE_S = 120.0
ROW_DEADLINE_S = 3_600.0


_on_progress: ContextVar[Callable[[int], None]] = ContextVar("on_progress", default=lambda done: None)


@contextmanager
def watching(on_progress: Callable[[int], None]) -> Iterator[None]:
    """Be told how many of a row were done, as they are."""
    token = _on_progress.set(on_progress)
    try:
        yield
    finally:
        _on_progress.reset(token)


@dataclass
class Row:
    """One row of the table: what was done how often, how often it held, and what else is worth saying."""

    fault: str
    count: int
    passed: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    done: int = 0

    def tick(self, count: int = 1) -> None:
        """Tell that so many more were done; whether they held may show only at the end."""
        self.done += count
        _on_progress.get()(self.done)

    @property
    def holds(self) -> bool:
        """Tell whether every one of them held."""
        return self.passed == self.count


class Rig:
    """A server on a directory of its own, and the processes started on it. Use `rigged`."""

    def __init__(self, directory: Path, durability: Durability = "relaxed") -> None:
        self.directory = directory
        self.server = EmbeddedServer(directory / "data", durability)
        self.durability = durability
        # Where clients connect when the server at the address may change; else it is the server's socket.
        self.address: Path | None = None
        self.settings: dict[str, str] = {}
        self._started: list[Process] = []
        self._others: list[EmbeddedServer] = []

    @property
    def url(self) -> str:
        """Where the processes connect."""
        return self.server.socket_path if self.address is None else str(self.address)

    def another_server(self, name: str) -> EmbeddedServer:
        """Return a further server, which ends with the rig."""
        self._others.append(EmbeddedServer(self.directory / name, self.durability))
        return self._others[-1]

    def writer(self, *options: str, url: str | None = None) -> Process:
        """Start a writer."""
        given = ("--durability", self.durability, "--lease-ms", str(LEASE_MS))
        return self.process("writer", *given, *options, url=url)

    def process(self, name: str, *options: str, url: str | None = None) -> Process:
        """Start a process of the exchange."""
        output = self.directory / f"{len(self._started):03d}-{name}.log"
        process = Process(output, name, "--redis-url", url or self.url, *options, settings=self.settings)
        self._started.append(process)
        return process

    def ports(self) -> tuple[str, ...]:
        """Return the options that give an intake two free ports."""
        port = free_ports()
        return ("--port", str(port), "--admin-port", str(port + 1))

    async def kill_server(self) -> None:
        """kill -9 the server, and start it again on what it left."""
        os.kill(self.server.pid, signal.SIGKILL)
        await until(lambda: not self.server.is_running(), "end of the server")
        await asyncio.to_thread(self.server.start)

    def end(self) -> None:
        """End everything that was started, by its id."""
        for process in self._started:
            process.end()
        for server in (self.server, *self._others):
            server.stop()


@contextmanager
def rigged(durability: Durability = "relaxed") -> Iterator[Rig]:
    """Lend a rig with a running server; everything is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="foldex-faults-"))
    rig = Rig(directory, durability)
    try:
        rig.server.start()
        yield rig
    finally:
        rig.end()
        shutil.rmtree(directory)


class Load:
    """Sends random trading and keeps every answer it was given."""

    def __init__(self, log: Log, *, seed: int = 1) -> None:
        self.log = log
        self.fold = Fold(log, self._on_entry)
        self.appender = Appender(log, "load")
        self.answers: list[asyncio.Future[list[Event]]] = []
        self.answered = 0
        self.is_paused = False
        # The chain hash of every entry that was read, from the first on.
        self.hashes: list[bytes] = []
        self._random = Random(seed)

    def _on_entry(self, verified: VerifiedEvents) -> None:
        self.hashes.append(verified.entry.chain_hash)
        self.appender.resolve(verified.groups)

    def send(self, command: AnyCommand) -> "asyncio.Future[list[Event]]":
        """Send one command."""
        answer = self.appender.submit(command)
        answer.add_done_callback(self._on_answer)
        self.answers.append(answer)
        return answer

    def _on_answer(self, answer: "asyncio.Future[list[Event]]") -> None:
        self.answered += 1
        # Whoever closes the load early leaves answers that nobody waits for.
        if not answer.cancelled():
            answer.exception()

    async def prepare(self) -> None:
        """Open the origin and set up an exchange to trade on."""
        await self.appender.open()
        for spec, price_ticks in zip(SPECS, (500_000, 30_000), strict=True):
            self.send(ListMarket(spec=spec))
            source = IndexSource(source="load", price_ticks=price_ticks, raw="")
            self.send(SetIndexPrice(market=spec.symbol, sources=(source,)))
        first = self.fold.state.next_account_id
        for account_id in range(first, first + ACCOUNTS):
            self.send(OpenAccount())
            self.send(Deposit(account_id=account_id, amount=money("5000")))
        await self.all_answered()

    async def trade(self) -> None:
        """Send random commands in bursts until cancelled, a bounded number without an answer at a time."""
        while True:
            if not self.is_paused:
                for _ in range(self._random.randint(1, BURST_MAX)):
                    if len(self.answers) - self.answered < UNANSWERED_MAX:
                        self.send(random_command(self.fold.state, self._random))
                        if self._random.random() < 0.5:
                            await asyncio.sleep(0)  # so that frames have every size
            await asyncio.sleep(PAUSE_S)

    async def more(self, count: int = 20) -> None:
        """Wait until that many more commands were answered."""
        target = self.answered + count
        await until(lambda: self.answered >= target, f"{count} more answers", ANSWERS_DEADLINE_S)

    async def all_answered(self) -> None:
        """Wait for every answer.

        Raises:
            Exception: a command failed.
        """
        async with asyncio.timeout(ANSWERS_DEADLINE_S):
            await asyncio.gather(*self.answers)

    async def prove(self) -> str:
        """Compare what was sent and answered with the log; return "" or what does not hold."""
        stored = await self._groups_in_log()
        if isinstance(stored, str):
            return stored
        if len(stored) != len(self.answers):
            return f"{len(self.answers)} commands were sent, {len(stored)} were executed"
        wrong = sum(answer.result() != group for answer, group in zip(self.answers, stored, strict=True))
        if wrong:
            return f"{wrong} answers are not those in the log"
        replayed = await replay(self.log)
        await until(lambda: self.fold.head.seq >= replayed.head.seq, "last entry")
        if replayed.state.digest() != self.fold.state.digest():
            return "the replayed state is not the live one"
        replayed.state.check_identities()
        return ""

    async def _is_decided(self) -> bool:
        return (await self.log.event_head()).seq == await self.log.last_command_seq()

    async def _groups_in_log(self) -> list[list[Event]] | str:
        """Return the answers to this load's commands in the order of sending, or what is wrong."""
        await eventually(self._is_decided, "answer to the last command")
        commands, entries = await read_all(self.log)
        if [entry.seq for entry in commands] != [entry.entry.seq for entry in entries]:
            return f"{len(commands)} command entries have {len(entries)} event entries"
        terms = [int(entry.entry.writer.rpartition(":")[2]) for entry in entries]
        if terms != sorted(terms):
            return "an earlier writer has appended behind a later one"
        ran: Counter[tuple[str, int]] = Counter()
        stored: list[list[Event]] = []
        last_n = 0
        for command, entry in zip(commands, entries, strict=True):
            header = header_of(entry.groups)
            if header.checksum != command.frame.checksum:
                return f"entry {command.seq} does not answer its command"
            if header.outcome is not Outcome.EXECUTED:
                continue
            ran[header.origin, header.frame_n] += 1
            if header.origin == self.appender.origin:
                if header.frame_n != last_n + 1:
                    return f"frame {header.frame_n} ran behind {last_n}"
                last_n = header.frame_n
                stored += entry.groups[1:]
        doubled = [key for key, count in ran.items() if count > 1]
        return f"{len(doubled)} frames ran twice" if doubled else stored


@asynccontextmanager
async def loaded(url: str, *, seed: int = 1, replicas: int = 0) -> AsyncIterator[Load]:
    """Lend a load on a log that a writer has created; it trades until this is left.

    What it has read, and so every answer that it was given, so many `replicas` have received.
    """
    log = RedisLog(url, replicas=replicas)
    await eventually(lambda: has_events(log), "log")
    load = Load(log, seed=seed)
    stop = asyncio.Event()
    folding = asyncio.create_task(load.fold.run(stop))
    try:
        await load.prepare()
        trading = asyncio.create_task(load.trade())
        try:
            yield load
        finally:
            trading.cancel()
            await asyncio.wait({trading})
    finally:
        stop.set()
        await asyncio.wait({folding})
        folding.exception()  # where a log is set back, the rows look for themselves who saw it
        await load.appender.close()
        await log.close()


async def read_all(log: Log) -> tuple[list[CommandEntry], list[VerifiedEvents]]:
    """Return all that is in a log, verified entry by entry."""
    commands: list[CommandEntry] = []
    events: list[VerifiedEvents] = []
    command_reader, event_reader = CommandReader(log), EventReader(log)
    while entries := await command_reader.read(ENTRIES_PER_READ):
        commands += entries
    while verified := await event_reader.read(ENTRIES_PER_READ):
        events += verified
    return commands, events


async def settle(load: Load) -> str:
    """Stop the trading, wait for every answer, and prove; return "" or what does not hold."""
    load.is_paused = True
    await load.all_answered()
    return await load.prove()


async def settled(load: Load, result: Row) -> bool:
    """Settle, with a note of what does not hold or of what was acknowledged; return whether all holds."""
    failure = await settle(load)
    result.notes.append(failure or f"{len(load.answers)} commands acknowledged, lost 0, doubled 0")
    return not failure


async def row(fault: str, count: int, work: Callable[[Row], Awaitable[None]]) -> Row:
    """Run a driver and time it; what it raises is a note, and so is that it took far too long."""
    result = Row(fault, count)
    start_s = time.monotonic()
    try:
        async with asyncio.timeout(ROW_DEADLINE_S):
            await work(result)
    except Exception as error:
        result.passed = min(result.passed, count - 1)
        result.notes.append(f"{type(error).__name__}: {error}"[:1000])
    result.seconds = round(time.monotonic() - start_s, 1)
    return result
