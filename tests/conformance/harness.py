"""What the suite needs of a log implementation besides the `Log` protocol: to damage it, and to wait."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import redis

from events.commands import CreateLog, Deposit
from events.embedded import EmbeddedServer
from events.events import Event, FrameHeader, LogCreated
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    EventEntry,
    chain_hash,
    close_command_frame,
    encode_groups,
)
from events.log import CommandEntry, Head, Lease, Log
from events.memory import MemoryLog
from events.redis import RedisLog
from events.values import Outcome
from exchange.simulation.server import Connection, Server
from tests.waiting import until

LOG_ID = "0123456789abcdef0123456789abcdef"
ORIGIN = "test:" + 32 * "0"
LEASE_MS = 60_000
SHORT_LEASE_MS = 50


class Harness(Protocol):
    """One stored log, which several handles may use."""

    async def open(self) -> Log:
        """Return a handle; the harness closes it."""
        ...

    def replace_commands(self, entries: Iterable[CommandEntry]) -> None:
        """Make the command stream hold just these, as if the disk had."""
        ...

    def replace_events(self, entries: Iterable[EventEntry]) -> None:
        """Make the event stream and its head hold just these."""
        ...

    def wipe(self) -> None:
        """Forget everything: streams, lease and terms."""
        ...

    def drop_connections(self) -> None:
        """Cut every handle's connections."""
        ...

    async def let_lease_expire(self) -> None:
        """Return when the lease taken for `SHORT_LEASE_MS` has run out."""
        ...

    async def close(self) -> None:
        """Close the handles."""
        ...


class MemoryHarness:
    """All handles are one `MemoryLog`, whose clock moves when told."""

    def __init__(self) -> None:
        self._now_ms = 0
        self._log = MemoryLog(clock_ms=lambda: self._now_ms)

    async def open(self) -> Log:
        return self._log

    def replace_commands(self, entries: Iterable[CommandEntry]) -> None:
        self._log.commands[:] = entries

    def replace_events(self, entries: Iterable[EventEntry]) -> None:
        self._log.events[:] = entries

    def wipe(self) -> None:
        self.replace_commands([])
        self.replace_events([])

    def drop_connections(self) -> None:
        self._log.connections += 1

    async def let_lease_expire(self) -> None:
        self._now_ms += SHORT_LEASE_MS

    async def close(self) -> None:
        await self._log.close()


class SimulatedHarness(MemoryHarness):
    """Each handle is a simulated connection without faults, to one `MemoryLog`."""

    def __init__(self) -> None:
        super().__init__()
        self._server = Server(self._log)
        self._handles: list[Connection] = []

    async def open(self) -> Log:
        self._handles.append(Connection(self._server))
        return self._handles[-1]

    def drop_connections(self) -> None:
        for handle in self._handles:
            handle.connections += 1


class ServerHarness:
    """Each handle is a `RedisLog`; damage is done over a connection of its own."""

    PREFIX = "foldex:{main}:"

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.admin = redis.Redis(unix_socket_path=server.socket_path)
        self._handles: list[RedisLog] = []

    async def open(self) -> RedisLog:
        handle = RedisLog(self.server.socket_path)
        self._handles.append(handle)
        return handle

    def replace_commands(self, entries: Iterable[CommandEntry]) -> None:
        self.admin.delete(self.PREFIX + "commands")
        for entry in entries:
            frame = entry.frame
            fields = {
                "v": frame.schema,
                "o": frame.origin,
                "n": frame.n,
                "t": frame.time_ns,
                "b": frame.body,
                "c": frame.checksum,
            }
            self.store("commands", entry.seq, fields)

    def replace_events(self, entries: Iterable[EventEntry]) -> None:
        self.admin.delete(self.PREFIX + "events", self.PREFIX + "head")
        for entry in entries:
            fields = {
                "v": entry.schema,
                "b": entry.body,
                "h": entry.chain_hash,
                "w": entry.writer,
                "x": entry.timing,
            }
            self.store("events", entry.seq, fields)
            self.admin.hset(self.PREFIX + "head", mapping={"seq": entry.seq, "hash": entry.chain_hash})

    def store(self, stream: str, seq: int, fields: Mapping[str, object]) -> None:
        """Add an entry with any fields to a stream."""
        self.admin.xadd(self.PREFIX + stream, fields, id=f"0-{seq}")  # type: ignore[arg-type]

    def wipe(self) -> None:
        self.admin.flushall()

    def drop_connections(self) -> None:
        self.admin.client_kill_filter(_type="normal", skipme=True)

    async def let_lease_expire(self) -> None:
        await until(lambda: not self.admin.exists(self.PREFIX + "lease"), "end of the lease")

    async def until_blocked(self) -> None:
        """Return when a client waits on the server for an entry."""
        await until(lambda: self.admin.info("clients")["blocked_clients"] > 0, "blocked reader")

    def restart(self) -> None:
        """Stop the server in good order and start it on the same directory."""
        self.server.stop()
        self.server.start()

    async def close(self) -> None:
        for handle in self._handles:
            await handle.close()
        self.admin.close()


def command_frame(n: int, origin: str = ORIGIN) -> CommandFrame:
    """Return frame `n` of an origin: one deposit of n units, or the log's creation for n = 0."""
    if n == 0:
        return close_command_frame(origin, 0, 0, [CreateLog(log_id=LOG_ID, rules_version=1)])
    return close_command_frame(origin, n, n, [Deposit(account_id=7, amount=n)])


async def filled(harness: Harness, count: int) -> Log:
    """Return a handle on a log of `count` command entries."""
    log = await harness.open()
    await log.create(command_frame(0))
    for n in range(1, count):
        await log.append_command(command_frame(n))
    return log


class Answers:
    """Answers command entries as the writer does: a header each, chained; under a lease of its own."""

    def __init__(self, lease: Lease, head: Head | None = None) -> None:
        self.lease = lease
        self.head = head or Head(seq=0, chain_hash=GENESIS_HASH)

    def next(self, frame: CommandFrame, timing: bytes = b"") -> EventEntry:
        """Return the entry that answers the next frame, and move behind it."""
        seq = self.head.seq + 1
        header = FrameHeader(
            seq=seq,
            origin=frame.origin,
            frame_n=frame.n,
            now_ns=frame.time_ns,
            checksum=frame.checksum,
            outcome=Outcome.EXECUTED,
        )
        group: list[Event] = [LogCreated(log_id=LOG_ID, rules_version=1)] if seq == 1 else []
        body = encode_groups([[header], group])
        chained = chain_hash(LOG_ID, self.head.chain_hash, seq, SCHEMA_VERSION, frame.checksum, body)
        self.head = Head(seq=seq, chain_hash=chained)
        return EventEntry(
            seq=seq,
            schema=SCHEMA_VERSION,
            body=body,
            chain_hash=chained,
            writer=self.lease.mark,
            timing=timing,
        )

    def take(self, count: int) -> list[EventEntry]:
        """Return the entries that answer the next `count` frames of `command_frame`."""
        return [self.next(command_frame(self.head.seq)) for _ in range(count)]


async def answers_for(log: Log, writer_id: str = "w") -> Answers:
    """Take the lease and return what answers from the log's head on."""
    return Answers(await lease_of(log, writer_id), await log.event_head())


async def lease_of(log: Log, writer_id: str = "w", ttl_ms: int = LEASE_MS) -> Lease:
    """Take the lease, which must be free."""
    lease = await log.acquire_lease(writer_id, ttl_ms)
    assert lease is not None, "the lease is taken"
    return lease


async def answered(harness: Harness, count: int) -> Log:
    """Return a handle on a log of `count` command entries and as many event entries; the lease is free."""
    log = await filled(harness, count)
    answers = await answers_for(log)
    previous = answers.head
    await log.append_events(answers.take(count), previous, answers.lease)
    await log.release_lease(answers.lease)
    return log
