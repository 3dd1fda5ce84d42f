"""The shell of every process: connect, check the server, live until told to stop, say why it ended.

A process is one coroutine that gets a `Runtime` and returns when `stop` is set. Around it this module keeps
the promises that all of them share: SIGTERM and SIGINT ask it to stop; a dead supervisor does too; a
heartbeat in the server shows that it lives; what stops it is one log line and one exit code.
"""

import asyncio
import gc
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import redis.asyncio
import structlog
import uvloop
from redis.exceptions import RedisError

from events.appender import FrameRefusedError
from events.embedded import EmbeddedServerError, attach_or_start
from events.log import (
    CorruptLogError,
    FencedError,
    ForeignServerError,
    Log,
    LogError,
    LogRewoundError,
    LogUnavailableError,
    ServerSettingsError,
)
from events.machine import MACHINE, Machine
from events.redis import RedisLog
from events.segments import check_not_behind
from exchange import config
from exchange.fold import NO_SNAPSHOTS, Snapshots
from exchange.rules import OtherRulesError

logger = structlog.get_logger(__name__)

SUPERVISOR_POLL_S = 0.25
# A server that is being replaced, or a broken connection, may say something odd once.
FOREIGN_ANSWERS_MAX = 3
# A state is large and lives long: looking through its young objects often costs a third of a fold's time.
GC_THRESHOLD = (100_000, 50, 100)

_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptLogError, config.EXIT_CORRUPT),
    (FencedError, config.EXIT_FENCED),
    (FrameRefusedError, config.EXIT_FENCED),
    (LogRewoundError, config.EXIT_REWOUND),
    (ServerSettingsError, config.EXIT_SETTINGS),
    (OtherRulesError, config.EXIT_RULES),
    (LogError, config.EXIT_UNAVAILABLE),
    (EmbeddedServerError, config.EXIT_UNAVAILABLE),
    (OSError, config.EXIT_UNAVAILABLE),
)


class Alive(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a heartbeat says: which process wrote it and the last entry it has handled.

    `took_over_s` is what a writer needed from getting another's lease until it decided; None for all others.
    """

    pid: int
    seq: int
    took_over_s: float | None = None


class Host(ABC):
    """What a process lives in: its log, the snapshots it starts from, and the event that asks it to stop.

    `machine` gives it time and chance.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        snapshots: Snapshots = NO_SNAPSHOTS,
        *,
        archive: str | None = None,
        machine: Machine = MACHINE,
    ) -> None:
        self.name = name
        self.log = log
        self.snapshots = replace(snapshots, archive=archive)
        self.archive = archive
        self.machine = machine
        self.stop = asyncio.Event()

    @abstractmethod
    def ready(
        self, seq: Callable[[], int], *, role: str | None = None, took_over_s: float | None = None
    ) -> None:
        """Tell others that this process lives. `seq` gives the last entry handled.

        The process is known by its role, by default its own name. A further call changes the role.
        """

    @abstractmethod
    async def read_consumers(self) -> dict[str, int]:
        """Return the last entry handled by each process that lives, by name.

        Raises:
            LogUnavailableError: nobody can be asked.
        """

    async def check_archive(self) -> bool:
        """Make sure that the log has all that was archived; return whether that was done before `stop`.

        Raises:
            LogRewoundError: it went backwards, or is another log.
        """
        archive = self.archive
        if archive is None:
            return True
        return await until_available(lambda: check_not_behind(self.log, archive), self.stop)

    async def wait_for_log(self) -> bool:
        """Wait until the first entry of the log is answered; return whether that was before `stop`."""

        async def wait() -> None:
            is_told = False
            while (await self.log.event_head()).seq == 0:
                if not is_told:
                    logger.info("waiting_for_log", reason="a writer creates it")
                    is_told = True
                if await wait_set(self.stop, config.SERVER_RETRY_S):
                    return

        return await until_available(wait, self.stop) and not self.stop.is_set()

    async def until_available(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Run a step of the start as `until_available` does, until this process is stopped."""
        return await until_available(step, self.stop)


class Runtime(Host):
    """The host of a process on a server: a heartbeat there says that it lives."""

    log: RedisLog

    def __init__(
        self,
        name: str,
        url: str,
        snapshots: Snapshots = NO_SNAPSHOTS,
        *,
        archive: str | None = None,
        replicas: int = 0,
    ) -> None:
        log = RedisLog(url, shard=config.SHARD, replicas=replicas)
        super().__init__(name, log, snapshots, archive=archive)
        self._client = heartbeat_client(url)
        self._key = alive_key(name)
        self._seq: Callable[[], int] = lambda: 0
        self._took_over_s: float | None = None
        self._beating: asyncio.Task[None] | None = None
        self._is_closing = False
        self._wake = asyncio.Event()

    def ready(
        self, seq: Callable[[], int], *, role: str | None = None, took_over_s: float | None = None
    ) -> None:
        """Begin the heartbeat. `seq` gives the last entry handled; it is called about once a second.

        The heartbeat has the name of the process's role, by default its own. A further call changes the role.
        """
        self._key = alive_key(role or self.name)
        self._seq = seq
        self._took_over_s = took_over_s
        self._wake.set()
        gc.freeze()  # what was built for this is out of the collector's sight
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name=f"heartbeat {self.name}")
        logger.info("ready", seq=seq(), role=role or self.name)

    async def connect(self, *, strict: bool) -> bool:
        """Wait for the server and check its settings; return whether that was done before `stop`.

        Raises:
            ServerSettingsError: the settings do not keep what is acknowledged.
        """
        return await until_available(lambda: self.log.check_server(strict=strict), self.stop)

    async def read_consumers(self) -> dict[str, int]:
        """Return the last entry handled by each process that has a heartbeat, by name.

        Raises:
            LogUnavailableError: the server does not answer.
        """
        prefix = alive_key("")
        found = {}
        try:
            async for key in self._client.scan_iter(match=f"{prefix}*"):
                value = await self._client.get(key)
                if value is not None:
                    found[key.decode().removeprefix(prefix)] = msgspec.json.decode(value, type=Alive).seq
        except (RedisError, OSError) as error:
            raise LogUnavailableError(f"the server does not answer: {error}") from error
        return found

    async def close(self) -> None:
        """End the heartbeat and drop the connections."""
        if self._beating is not None:
            # Not cancelled: a cancellation that meets the client's reply can be lost in it.
            self._is_closing = True
            self._wake.set()
            await self._beating
            await self._withdraw_heartbeat(self._key)
        await self._client.aclose()
        await self.log.close()

    async def _beat(self) -> None:
        key = self._key
        while not self._is_closing:
            self._wake.clear()
            if key != self._key:
                await self._withdraw_heartbeat(key)
                key = self._key
            alive = Alive(pid=os.getpid(), seq=self._seq(), took_over_s=self._took_over_s)
            try:
                await self._client.set(key, msgspec.json.encode(alive), px=config.HEARTBEAT_TTL_MS)
            except (RedisError, OSError):
                pass  # whoever uses the log reports a server that is away; a missed beat says the rest
            await wait_set(self._wake, config.HEARTBEAT_INTERVAL_S)

    async def _withdraw_heartbeat(self, key: str) -> None:
        """Remove the heartbeat unless a successor has written its own."""
        try:
            value = await self._client.get(key)
            if value is not None and msgspec.json.decode(value, type=Alive).pid == os.getpid():
                await self._client.delete(key)
        except (RedisError, OSError, msgspec.DecodeError):
            pass  # it expires


def run_process(
    name: str,
    url: str,
    main: Callable[[Runtime], Awaitable[None]],
    *,
    strict: bool = False,
    snapshots: Snapshots = NO_SNAPSHOTS,
    archive: str | None = None,
    replicas: int = 0,
    misuse: tuple[type[Exception], ...] = (),
) -> int:
    """Run a process to its end and return its exit code (`config.EXIT_MEANINGS`).

    `strict` refuses a server that acknowledges before its disk has it. `archive` is the log's, if it has one:
    nothing is begun on a log that ends before it. Events are not read before so many `replicas` have them.
    `misuse` are the errors that say that what the process was given cannot be used.
    """

    gc.set_threshold(*GC_THRESHOLD)

    async def live() -> None:
        runtime = Runtime(name, url, snapshots, archive=archive, replicas=replicas)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, runtime.stop.set)
        watching = asyncio.create_task(_watch_supervisor(runtime.stop), name="supervisor watch")
        try:
            if await runtime.connect(strict=strict) and await runtime.check_archive():
                await main(runtime)
        finally:
            watching.cancel()
            await runtime.close()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())
    except misuse as error:
        return _report(error, config.EXIT_USAGE)
    except Exception as error:
        return _report(error, exit_code_of(error))
    logger.info("stopped")
    return config.EXIT_OK


@contextmanager
def log_url(data_dir: Path, redis_url: str | None) -> Iterator[str]:
    """Lend the address of a log: the given server's, or that of the embedded one of a data directory.

    Raises:
        EmbeddedServerError: there is no log in the directory, or its server does not answer.
    """
    if redis_url:
        yield redis_url
    else:
        with attach_or_start(data_dir) as socket_path:
            yield socket_path


def exit_code_of(error: Exception) -> int:
    """Return the exit code for what ended a process."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), config.EXIT_INTERNAL)


def alive_key(process: str) -> str:
    """Return the key of a process's heartbeat."""
    return f"foldex:{{{config.SHARD}}}:alive:{process}"


def heartbeat_client(url: str) -> redis.asyncio.Redis:
    """Return a client for heartbeats alone; the log has connections of its own."""
    address = url if "://" in url else f"unix://{url}"
    return redis.asyncio.Redis.from_url(address, socket_timeout=5.0, socket_connect_timeout=5.0)


async def read_alive(client: redis.asyncio.Redis, process: str) -> Alive | None:
    """Return a process's heartbeat, None when it has none: not ready, not running, or dead for seconds.

    Raises:
        RedisError, OSError: the server does not answer.
    """
    value = await client.get(alive_key(process))
    return None if value is None else msgspec.json.decode(value, type=Alive)


async def until_available(step: Callable[[], Awaitable[None]], stop: asyncio.Event) -> bool:
    """Run a step of a start, again while the server does not answer; False when stopped before.

    Raises:
        ForeignServerError: so often in a row that it is no accident, what answered was no log's server.
    """
    is_told = False
    count_foreign = 0
    while not stop.is_set():
        try:
            await step()
            return True
        except LogUnavailableError as error:
            count_foreign = count_foreign + 1 if isinstance(error, ForeignServerError) else 0
            if count_foreign == FOREIGN_ANSWERS_MAX:
                raise
            if not is_told:
                logger.warning("waiting_for_server", error=str(error))
            is_told = True
            await wait_set(stop, config.SERVER_RETRY_S)
    return False


async def until_one_ends(*tasks: asyncio.Task[None]) -> None:
    """Wait until one of these ends; raise what it raised. The others are cancelled and have ended, too."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def wait_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until the event is set, at most `timeout_s`; return whether it is."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _watch_supervisor(stop: asyncio.Event) -> None:
    """Ask for a stop when the supervisor that started this process is gone, however it ended."""
    if config.SUPERVISOR_PID_ENV not in os.environ:
        return
    supervisor_pid = int(os.environ[config.SUPERVISOR_PID_ENV])
    while os.getppid() == supervisor_pid:
        if await wait_set(stop, SUPERVISOR_POLL_S):
            return
    logger.warning("supervisor_gone", supervisor_pid=supervisor_pid)
    stop.set()


def _report(error: Exception, code: int) -> int:
    if code == config.EXIT_INTERNAL:
        logger.exception("failed", exit_code=code, exc_info=error)
    else:
        logger.error("stopped_by", error=str(error), kind=type(error).__name__, exit_code=code)
    return code
