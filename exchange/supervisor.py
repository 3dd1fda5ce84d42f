"""The supervisor: starts a whole exchange as child processes, keeps it running, and ends it in order.

Children run in sessions of their own, so that a Ctrl-C reaches the supervisor alone and it can stop them in
an order that loses no answer: who asks first, who decides last, then the server. Should the supervisor be
killed, each child sees that its parent is gone and stops; only the server may stay, and the next start stops
it and starts its own.

A process that ends is started again, later and later if it ends early. An end that would repeat itself, or
must not be covered up (a damaged log, wrong settings), ends the exchange.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from events.embedded import STOP_DEADLINE_S as SERVER_STOP_DEADLINE_S
from events.embedded import DataDirInUseError, Durability, EmbeddedServer, EmbeddedServerError
from events.log import LogError
from events.redis import RedisLog
from exchange import config
from exchange.client import ApiRefusal, ApiUnavailable, Connection
from exchange.decimals import parse_money
from exchange.intake.specs import DEFAULT_FORMS
from exchange.runtime import exit_code_of, heartbeat_client, read_alive, until_available, wait_set

logger = structlog.get_logger(__name__)


READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.05
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
# Who lived this long gets a prompt restart again.
STEADY_S = 10.0
LOG_TAIL_BYTES = 2_000
# Quote, for each market, on the first start.
INSURANCE_AMOUNT = "1000000"
# Where this code is, installed or not.
SOURCE_ROOT = Path(__file__).resolve().parents[1]
STOP_ORDER = ("feed", "maker", "liquidator", "intake", "archiver", "standby", "writer")
# Who of the writers is active, and has the heartbeat of that name, changes whenever one takes over.
WRITERS = frozenset({"writer", "standby"})
# These may come to an end of their own, with exit code 0.
FINITE = frozenset({"feed"})


class _ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `server.json` says about the embedded server that runs on a data directory."""

    pid: int
    starter_pid: int
    socket: str


class SupervisorError(Exception):
    """The exchange could not be started, or one of its processes ended for good.

    `exit_code` is that process's, or `config.EXIT_UNAVAILABLE`.
    """

    def __init__(self, message: str, exit_code: int = config.EXIT_UNAVAILABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Child:
    """One process of the exchange, restarted until told to stop."""

    def __init__(self, name: str, log_file: Path, archive: str) -> None:
        self.name = name
        self.log_file = log_file
        self._archive = archive
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.was_ready = False
        self.is_finished = False
        self.stopping = asyncio.Event()
        # A process that is being started when the stop comes is not missed by it.
        self._changing = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The id of the process that lives, None while there is none."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None

    async def spawn(self, arguments: Sequence[str]) -> None:
        """Start the process, unless it is told to stop; its output is appended to its log file."""
        # -P: a folder named "events" where the user happens to be must not be taken for ours.
        command = (sys.executable, "-P", "-m", "exchange.cli", *arguments)
        paths = (str(SOURCE_ROOT), os.environ.get("PYTHONPATH", ""))
        environment = os.environ | {
            config.SUPERVISOR_PID_ENV: str(os.getpid()),
            config.ARCHIVE_ENV: self._archive,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
        async with self._changing:
            if self.stopping.is_set():
                return
            with self.log_file.open("ab") as output:
                self.process = await asyncio.create_subprocess_exec(
                    *command,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def log_tail(self) -> str:
        """Return the end of the process's log."""
        return self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    async def end(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Stop the process and do not start it again; kill it if it does not stop in time."""
        self.stopping.set()
        async with self._changing:
            process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(deadline_s):
                await process.wait()
        except TimeoutError:
            logger.error("killed", name=self.name, pid=process.pid, after_s=deadline_s)
            process.kill()
            await process.wait()


class Supervisor:
    """A whole exchange on a data directory, or on a server that is there already.

    `feed` holds the feed's sources ("synthetic", or files), none for no feed; `speed` its pace. The public
    API listens on `port`, the administrator's on `admin_port`, by default the next one, both on loopback.
    `durability` "strict" syncs to disk before each answer. With `standby` a second writer follows the first
    and takes over when it dies. With `upgrade` a log under older rules is decided by this build's from here
    on. `insurance_amount` is what a new exchange's insurance fund gets for each market, in quote. `failed`
    gets the error when a process ends for good.
    Made and used within one event loop; a context manager that starts on entry and stops on exit.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        redis_url: str | None = None,
        port: int = config.PORT_DEFAULT,
        admin_port: int | None = None,
        feed: Sequence[str] = (),
        speed: float = config.SPEED_DEFAULT,
        durability: Durability = "relaxed",
        maker: bool = False,
        standby: bool = False,
        upgrade: bool = False,
        insurance_amount: str = INSURANCE_AMOUNT,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port
        self.admin_port = port + 1 if admin_port is None else admin_port
        self.failed: asyncio.Future[SupervisorError] = asyncio.get_running_loop().create_future()
        self._feed = tuple(feed)
        self._speed = speed
        self._durability: Durability = durability
        self._has_maker = maker
        self._has_standby = standby
        self._upgrades = upgrade
        self._insurance_amount = insurance_amount
        self._server = None if redis_url else EmbeddedServer(self.data_dir, durability)
        self._log_url = redis_url or ""
        self._children: dict[str, Child] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._is_stopped = asyncio.Event()

    @property
    def url(self) -> str:
        """The address of the public API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """The address of the administrator's listener."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def log_url(self) -> str:
        """Where the log is: a server's URL, or the embedded server's socket."""
        return self._log_url

    @property
    def archive(self) -> str:
        """Where the log's archive is: a directory or a URL."""
        return os.environ.get(config.ARCHIVE_ENV) or str(self.data_dir / config.ARCHIVE_DIR_NAME)

    @property
    def pids(self) -> dict[str, int]:
        """The ids of the processes that live, by name."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    @property
    def server_pid(self) -> int | None:
        """The id of the embedded server's process, None with a server of its own."""
        return self._server.pid if self._server is not None else None

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again."""
        return {name: child.restarts for name, child in self._children.items()}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and return when it is ready; a new exchange has its markets and its fund.

        On an error or cancellation whatever was started is stopped again.

        Raises:
            SupervisorError: a process ended or is not ready in time; the message holds the end of its log.
            EmbeddedServerError: the server did not start, or another one uses the data directory.
        """
        (self.data_dir / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if self._server is not None:
                await _start_server(self._server)
                self._log_url = self._server.socket_path
                self._watch(self._watch_server(self._server))
            else:
                await _wait_for_server(self._log_url)
            await self._launch("writer")
            if self._has_standby:
                await self._launch("standby")
            await self._launch("intake", "liquidator", "archiver")
            await list_default_markets(self.admin_url, self._insurance_amount)
            if self._feed:
                await self._launch("feed")
            if self._has_maker:
                await self._launch("maker")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the processes in order, then the server. Nothing is left running."""
        for name in STOP_ORDER:
            if name in self._children:
                await self._children[name].end()
        self._is_stopped.set()
        await asyncio.gather(*self._watches)
        self._watches.clear()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    async def wait_ready(self, name: str, deadline_s: float = READY_DEADLINE_S) -> None:
        """Wait until the process of that name that lives now shows its heartbeat.

        Raises:
            SupervisorError: it ended for good, or is not ready in time.
        """
        child = self._children[name]
        client = heartbeat_client(self._log_url)
        try:
            async with asyncio.timeout(deadline_s):
                while not await _is_alive(client, child):
                    if self.failed.done():
                        raise self.failed.result()
                    if child.is_finished:
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            message = f"{name} is not ready after {deadline_s} s; its log ends with:\n{child.log_tail()}"
            raise SupervisorError(message) from None
        finally:
            await client.aclose()
        child.was_ready = True

    async def _launch(self, *names: str) -> None:
        """Start processes side by side and wait until they are ready."""
        for name in names:
            child = self._children[name] = Child(name, self.data_dir / "logs" / f"{name}.log", self.archive)
            await child.spawn(self._arguments(name))
            self._watch(self._keep(child))
        for name in names:
            await self.wait_ready(name)

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        self._watches.append(asyncio.create_task(work))

    def _arguments(self, name: str) -> list[str]:
        log = ["--redis-url", self._log_url]
        fold = [*log, "--snapshots", str(self.data_dir / config.SNAPSHOT_DIR_NAME)]
        decide = [*fold, "--durability", self._durability, *(["--upgrade"] if self._upgrades else [])]
        return {
            "writer": ["writer", *decide],
            "standby": ["writer", *decide, "--standby"],
            "liquidator": ["liquidator", *fold],
            "archiver": ["archiver", *fold],
            "intake": [
                "intake", *fold, "--port", str(self.port), "--admin-port", str(self.admin_port),
                "--key-file", str(self.data_dir / config.KEY_FILE_NAME),
            ],
            "feed": ["feed", *fold, "--speed", str(self._speed)]
            + [part for source in self._feed for part in ("--source", source)],
            "maker": [
                "maker", *log, "--url", self.url, "--admin-url", self.admin_url,
                "--credentials-file", str(self.data_dir / "maker.key"),
            ],
        }[name]  # fmt: skip

    async def _keep(self, child: Child) -> None:
        """Start a child again whenever it ends, until it is told to stop or there is no sense in it."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            assert child.process is not None
            started_s = time.monotonic()
            code = await child.process.wait()
            if child.stopping.is_set():
                return
            if code == config.EXIT_OK and child.name in FINITE:
                logger.info("finished", name=child.name)
                child.is_finished = True
                return
            if code in config.EXITS_FINAL or not child.was_ready:
                self._fail(child, code)
                return
            if time.monotonic() - started_s > STEADY_S:
                backoff_s = BACKOFF_FIRST_S
            logger.warning("restarting", name=child.name, ended_with=_meaning(code), after_s=backoff_s)
            if code == config.EXIT_REWOUND:
                await self._archiver_ends(child)
            if await wait_set(child.stopping, backoff_s):
                return
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            child.restarts += 1
            await child.spawn(self._arguments(child.name))

    async def _archiver_ends(self, child: Child) -> None:
        """Wait until the archiver has seen what `child` has: that the log went backwards.

        It ends of itself, and writes out before what the log has lost. Until then a start would not be
        refused, and could go on from what is left.
        """
        archiver = self._children.get("archiver")
        if archiver is None or archiver is child or archiver.pid is None:
            return
        process = archiver.process
        assert process is not None
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(child.stopping.wait())
        await asyncio.wait({ended, stopping}, timeout=STOP_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopping):
            task.cancel()

    def _fail(self, child: Child, code: int) -> None:
        message = (
            f"{child.name} ended: {_meaning(code)}; its log {child.log_file} ends with:\n{child.log_tail()}"
        )
        if not self.failed.done():
            self.failed.set_result(SupervisorError(message, max(code, config.EXIT_NOT_ALIVE)))

    async def _watch_server(self, server: EmbeddedServer) -> None:
        """Start the server again when it ends; the processes wait for it."""
        while not await wait_set(self._is_stopped, POLL_S):
            if server.is_running():
                continue
            logger.warning("restarting", name="server")
            try:
                await asyncio.to_thread(server.start)
            except EmbeddedServerError as error:
                if not self.failed.done():
                    self.failed.set_result(SupervisorError(str(error)))
                return
            if server.socket_path != self._log_url:
                # Its directory's path is too long for a socket, so that each start has another place for it.
                self._log_url = server.socket_path
                for pid in self.pids.values():
                    os.kill(pid, signal.SIGTERM)


async def list_default_markets(admin_url: str, insurance_amount: str = INSURANCE_AMOUNT) -> None:
    """List the markets of a new exchange and fund their insurance; what is there already stays as it is.

    `insurance_amount` is quote for each market; with 0 the fund begins with nothing.

    Raises:
        SupervisorError: the administrator's listener does not answer, or refuses.
    """
    try:
        async with Connection(admin_url) as admin:
            state = await admin.request("GET", "/admin/v1/state")
            listed = {row["symbol"] for row in state["markets"]}
            insured = {row["symbol"] for row in state["insurance_fund"]["markets"]}
            for form in DEFAULT_FORMS:
                if form.symbol not in listed:
                    await admin.request("POST", "/admin/v1/market", body=msgspec.to_builtins(form))
                if form.symbol not in insured and parse_money(insurance_amount):
                    body = {"symbol": form.symbol, "amount": insurance_amount}
                    await admin.request("POST", "/admin/v1/insurance", body=body)
    except (ApiRefusal, ApiUnavailable) as error:
        raise SupervisorError(f"the markets could not be listed: {error}") from error


async def _wait_for_server(url: str) -> None:
    """Wait until a server of the user's answers, and say on stderr that this is being waited for.

    Raises:
        SupervisorError: it does not in time, or not to us.
    """
    log = RedisLog(url, shard=config.SHARD)

    async def ask() -> None:
        await log.event_head()

    try:
        async with asyncio.timeout(READY_DEADLINE_S):
            await until_available(ask, asyncio.Event())
    except TimeoutError:
        message = f"the server of --redis-url does not answer after {READY_DEADLINE_S} s"
        raise SupervisorError(message) from None
    except LogError as error:
        raise SupervisorError(str(error), exit_code_of(error)) from error
    finally:
        await log.close()


async def _start_server(server: EmbeddedServer) -> None:
    """Start the server, after stopping one that a killed starter left on its data directory.

    Raises:
        EmbeddedServerError: it did not start, or another one is in use: its starter lives.
    """
    try:
        await asyncio.to_thread(server.start)
        return
    except DataDirInUseError:
        pid = await asyncio.to_thread(_orphan_pid, server.data_dir)
        if pid is None:
            raise
    logger.warning("stopping_server", orphan_pid=pid, why="the process that started it is gone")
    # SIGTERM lets it write out its log; whoever still uses it meets its successor at the same place.
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + SERVER_STOP_DEADLINE_S
    while True:
        try:
            await asyncio.to_thread(server.start)
            return
        except DataDirInUseError:
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(POLL_S)


def _orphan_pid(data_dir: Path) -> int | None:
    """Return the id of the server that `server.json` names, None unless its starter is gone.

    An id may have passed to a stranger since it was written, so the server is asked whether it is its own.
    """
    try:
        record = msgspec.json.decode((data_dir / "server.json").read_bytes(), type=_ServerRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    try:
        os.kill(record.starter_pid, 0)
    except ProcessLookupError:
        return record.pid if _server_pid(record.socket) == record.pid else None
    except PermissionError:
        pass  # it lives, as somebody else's
    return None


def _server_pid(socket_path: str) -> int | None:
    """Return the id that the server at a socket says it has, None when none answers there."""
    try:
        with redis.Redis(unix_socket_path=socket_path, socket_timeout=5.0) as client:
            information: Any = client.info("server")
    except (RedisError, OSError):
        return None
    return int(information["process_id"])


async def _is_alive(client: redis.asyncio.Redis, child: Child) -> bool:
    names = WRITERS if child.name in WRITERS else {child.name}
    try:
        found = [await read_alive(client, name) for name in sorted(names)]
    except (RedisError, OSError):
        return False
    return any(alive is not None and alive.pid == child.pid for alive in found)


def _meaning(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}, {config.EXIT_MEANINGS.get(code, 'unknown')}"
