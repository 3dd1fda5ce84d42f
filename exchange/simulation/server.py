"""The log between the processes: one store, and to each process a connection that fails.

A `Connection` is a `Log`. Without faults it keeps every promise of one, and passes the conformance suite;
with them it does at each call what a network and a server can do to one:

- the request is lost: nothing happened, and the caller cannot know that;
- the reply is lost: it happened, and the caller cannot know that;
- the request is late: the caller has given it up, and it arrives while he does something else, or is dead;
- it arrives twice;
- it, or its reply, takes long; a reader gets less than there is;
- there is no room;
- the caller is killed, just before it or just after.

After a lost request or reply the next call makes a new connection.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from random import Random
from typing import Any, TypeVar

from events.frame import CommandFrame, EventEntry
from events.log import CommandEntry, Head, Lease, LogError, LogFullError, LogUnavailableError, Place
from events.memory import MemoryLog

T = TypeVar("T")

TRAVEL_S_MAX = 0.002
SLOW_S_MAX = 1.5
# When a caller gives up on a request, and when that arrives for all that.
GIVEN_UP_S = 0.3
LATE_S_MAX = 2.0


class Fault(StrEnum):
    """What may go wrong with one call."""

    REQUEST_LOST = "request lost"
    REPLY_LOST = "reply lost"
    LATE = "late"
    TWICE = "twice"
    SLOW = "slow"
    SHORT = "short"
    FULL = "full"
    KILLED_BEFORE = "killed before"
    KILLED_BEHIND = "killed behind"
    CUT_OFF = "cut off"


# How often in 10,000 calls at an intensity of 1.
RATES = {
    Fault.REQUEST_LOST: 120,
    Fault.REPLY_LOST: 120,
    Fault.LATE: 60,
    Fault.TWICE: 60,
    Fault.SLOW: 200,
    Fault.SHORT: 300,
    Fault.FULL: 20,
    Fault.KILLED_BEFORE: 10,
    Fault.KILLED_BEHIND: 15,
}
_WRITES = frozenset({Fault.LATE, Fault.TWICE, Fault.FULL})


@dataclass
class Network:
    """The faults between a server and those who use it, and a count of those that came about.

    `intensity` 0: none. `run_late` runs what arrives when nobody waits for it any more. `note` is told of
    each fault: whose call, which, and what became of it.
    """

    random: Random
    run_late: Callable[[Coroutine[Any, Any, None]], object]
    note: Callable[[str, str, Fault], None]
    intensity: float = 0.0

    def __post_init__(self) -> None:
        self.counts: Counter[Fault] = Counter()
        self._faults = tuple(RATES)
        self._weights = tuple(RATES.values())
        self._rate = sum(self._weights) / 10_000

    def draw(self, *, is_write: bool) -> Fault | None:
        """Return what is to happen to a call."""
        random = self.random
        if random.random() >= self._rate * self.intensity:
            return None
        (fault,) = random.choices(self._faults, self._weights)
        if is_write == (fault is Fault.SHORT) or (not is_write and fault in _WRITES):
            return None
        return fault


class Stream(Enum):
    """Which of the two streams a reader waits for."""

    COMMANDS = "commands"
    EVENTS = "events"


class Server:
    """A store and those who wait for it to grow. `on_append` is called whenever it may have grown."""

    def __init__(self, store: MemoryLog, on_append: Callable[[], None] = lambda: None) -> None:
        self.store = store
        self._on_append = on_append
        self._waiting: dict[Stream, list[asyncio.Future[None]]] = {stream: [] for stream in Stream}

    def grew(self, *streams: Stream) -> None:
        """Wake who waits for entries."""
        self._on_append()
        for stream in streams:
            waiting, self._waiting[stream] = self._waiting[stream], []
            for future in waiting:
                _wake(future)

    async def wait(self, stream: Stream, timeout_s: float) -> None:
        """Return when a stream has grown, or after a time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[stream].append(future)
        timer = loop.call_later(timeout_s, _wake, future)
        try:
            await future
        finally:
            timer.cancel()


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Connection:
    """One process's way to the server: a `Log`, with the faults of a network when there is one.

    `kill` ends the process behind the call that is being made. While `is_cut_off` nothing gets through. From
    one that `is_dead` no call is made: what reaches for it is code that a killed process does not run.
    """

    def __init__(
        self,
        server: Server,
        name: str = "",
        network: Network | None = None,
        kill: Callable[[], None] = lambda: None,
    ) -> None:
        self.connections = 1
        self.is_cut_off = False
        self.is_dead = False
        self._server = server
        self._store = server.store
        self._name = name
        self._network = network
        self._kill = kill

    # The protocol: see `Log`

    async def create(self, frame: CommandFrame) -> None:
        """Append the first command entry."""

        async def create() -> None:
            await self._store.create(frame)
            self._server.grew(Stream.COMMANDS)

        await self._write("create", create)

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append a command frame."""

        async def append() -> int:
            seq = await self._store.append_command(frame, behind=behind)
            self._server.grew(Stream.COMMANDS)
            return seq

        return await self._write("append command", append)

    async def append_events(self, entries: Sequence[EventEntry], previous: Head, lease: Lease) -> None:
        """Append event entries."""

        async def append() -> None:
            try:
                await self._store.append_events(entries, previous, lease)
            finally:
                self._server.grew(Stream.EVENTS)

        await self._write("append events", append)

    async def restore(
        self, commands: Sequence[CommandEntry], events: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        """Put back entries."""

        async def restore() -> None:
            await self._store.restore(commands, events, previous, lease)
            self._server.grew(*Stream)

        await self._write("restore", restore)

    async def drop_unanswered(self, after: int, lease: Lease) -> None:
        """Remove commands that have no answer."""
        await self._write("drop unanswered", lambda: self._store.drop_unanswered(after, lease))

    async def acquire_lease(self, writer_id: str, ttl_ms: int, *, above_term: int = 0) -> Lease | None:
        """Take the lease."""
        return await self._write(
            "acquire lease", lambda: self._store.acquire_lease(writer_id, ttl_ms, above_term=above_term)
        )

    async def renew_lease(self, lease: Lease, ttl_ms: int) -> None:
        """Hold the lease for longer."""
        await self._write("renew lease", lambda: self._store.renew_lease(lease, ttl_ms))

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back."""
        await self._write("release lease", lambda: self._store.release_lease(lease))

    async def trim(self, first_kept: Head) -> None:
        """Remove what is before an entry."""
        await self._write("trim", lambda: self._store.trim(first_kept))

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after`."""
        return await self._read_entries(Stream.COMMANDS, self._store.read_commands, after, limit, wait_ms)

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return event entries behind `after`."""
        return await self._read_entries(Stream.EVENTS, self._store.read_events, after, limit, wait_ms)

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry."""
        return await self._read("last command", self._store.last_command_seq)

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry."""
        return await self._read("event head", self._store.event_head)

    async def close(self) -> None:
        """Do nothing: the store lives on."""

    # What happens on the way

    async def _write(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        network = self._network
        if network is None:
            return await call()
        fault = await self._leave(network, what, is_write=True)
        if fault is Fault.LATE:
            network.run_late(self._arrive_late(network, call))
            await asyncio.sleep(GIVEN_UP_S)
            self._lose_connection(what)
        if fault is Fault.FULL:
            raise LogFullError("simulated: no room")
        result = await call()
        if fault is Fault.TWICE:
            network.run_late(self._arrive_late(network, call))
        await self._return(network, what, fault)
        return result

    async def _read(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        network = self._network
        if network is None:
            return await call()
        fault = await self._leave(network, what, is_write=False)
        result = await call()
        await self._return(network, what, fault)
        return result

    async def _read_entries(
        self,
        stream: Stream,
        read: Callable[[int, int], Awaitable[list[T]]],
        after: int,
        limit: int,
        wait_ms: int,
    ) -> list[T]:
        network = self._network
        what = f"read {stream.value}"
        fault = None
        if network is not None:
            fault = await self._leave(network, what, is_write=False)
            if fault is Fault.SHORT:
                limit = min(limit, network.random.randint(1, 2))
        entries = await read(after, limit)
        if wait_ms > 0:
            loop = asyncio.get_running_loop()
            end_s = loop.time() + wait_ms / 1000
            while not entries and loop.time() < end_s:
                await self._server.wait(stream, end_s - loop.time())
                entries = await read(after, limit)
        if network is not None:
            await self._return(network, what, fault)
        return entries

    async def _leave(self, network: Network, what: str, *, is_write: bool) -> Fault | None:
        """Bring a request to the server, or not; return what else is to happen to it."""
        if self.is_dead:
            await self._die()
        fault = network.draw(is_write=is_write)
        if fault is not None:
            self._note(network, what, fault)
        await asyncio.sleep(network.random.random() * TRAVEL_S_MAX)
        if self.is_cut_off:
            network.counts[Fault.CUT_OFF] += 1
            await asyncio.sleep(GIVEN_UP_S)
            self._lose_connection(what)
        if fault is Fault.SLOW and network.random.random() < 0.5:
            await asyncio.sleep(network.random.random() * SLOW_S_MAX)
        if fault is Fault.REQUEST_LOST:
            self._lose_connection(what)
        if fault is Fault.KILLED_BEFORE:
            await self._die()
        return fault

    async def _return(self, network: Network, what: str, fault: Fault | None) -> None:
        """Bring the reply back, or not."""
        if self.is_cut_off:
            await asyncio.sleep(GIVEN_UP_S)
            self._lose_connection(what)
        if fault is Fault.KILLED_BEHIND:
            await self._die()
        if fault is Fault.SLOW:
            await asyncio.sleep(network.random.random() * SLOW_S_MAX)
        if fault is Fault.REPLY_LOST:
            self._lose_connection(what)

    async def _arrive_late(self, network: Network, call: Callable[[], Awaitable[T]]) -> None:
        await asyncio.sleep(network.random.random() * LATE_S_MAX)
        try:
            await call()
        except LogError:
            pass  # nobody is there to hear it

    def _lose_connection(self, what: str) -> None:
        self.connections += 1
        raise LogUnavailableError(f"simulated: {what}: no reply")

    async def _die(self) -> None:
        self._kill()
        await asyncio.get_running_loop().create_future()

    def _note(self, network: Network, what: str, fault: Fault) -> None:
        network.counts[fault] += 1
        network.note(self._name, what, fault)
