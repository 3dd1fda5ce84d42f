"""Real processes for tests: started as a user starts them, waited for with deadlines, ended by their ids."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom

import msgspec

from events.appender import Appender
from events.commands import AddApiKey, AnyCommand
from events.events import Event
from events.redis import RedisLog
from exchange import config
from exchange.fold import Fold
from tests.waiting import DEADLINE_S, eventually, until, within

# Below those that systems give to outgoing connections.
UNASSIGNED_PORTS = (10_000, 32_000)
ROOT = Path(__file__).resolve().parents[2]
SECRET = b"never to be printed"


def foldex(*arguments: str, module: str = "exchange.cli") -> list[str]:
    """Return the command line of a `foldex` command, by another `module` if it needs one."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a process: this project's code, logs as JSON."""
    kept = {name: value for name, value in os.environ.items() if name != config.REDIS_URL_ENV}
    return kept | {"PYTHONPATH": str(ROOT), config.LOG_FORMAT_ENV: "json"}


class Process:
    """A `foldex` process whose output goes to a file; `settings` are added to its environment."""

    def __init__(
        self,
        output: Path,
        *arguments: str,
        module: str = "exchange.cli",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.output = output
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                foldex(*arguments, module=module),
                env=environment() | dict(settings or {}),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def lines(self) -> list[dict[str, object]]:
        """Return the log lines written so far."""
        complete = self.output.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line) for line in complete.splitlines() if line.startswith(b"{")]

    async def line(self, event: str, count: int = 1) -> dict[str, object]:
        """Wait for the `count`-th log line of that event, and return it."""

        def found() -> list[dict[str, object]]:
            return [line for line in self.lines() if line.get("event") == event]

        try:
            await until(
                lambda: len(found()) >= count or self._process.poll() is not None,
                f"{event} in {self.output}",
            )
            return found()[count - 1]
        except (AssertionError, IndexError) as error:
            said = self.output.read_text()[-1500:]
            raise AssertionError(f"no {event} from {self._process.args}, which said: {said}") from error

    async def code(self) -> int:
        """Wait for the end of the process and return its exit code."""
        await until(lambda: self._process.poll() is not None, f"end of {self.output}")
        return self._process.returncode

    def end(self) -> None:
        """Kill the process if it lives."""
        self._process.kill()
        self._process.wait()


def is_running(pid: int) -> bool:
    """Tell whether a process lives; one that ended and was not waited for does not."""
    return _status(pid) not in ("", "Z")


def is_frozen(pid: int) -> bool:
    """Tell whether a process was stopped by a signal."""
    return _status(pid) == "T"


def _status(pid: int) -> str:
    """Return the letter that the kernel has for what a process does, "" when there is none of that id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def free_ports() -> int:
    """Return a port that is free, as is the next, and that the system gives to no connection meanwhile."""
    while True:
        port = SystemRandom().randrange(*UNASSIGNED_PORTS)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class Client:
    """Asks an exchange directly over its log, and folds the answers."""

    def __init__(self, log: RedisLog) -> None:
        self.log = log
        self.appender = Appender(log, "test")
        self.events: list[Event] = []
        self.fold = Fold(log, self._on_entry)

    def _on_entry(self, verified: object) -> None:
        groups = verified.groups  # type: ignore[attr-defined]
        self.events.extend(event for group in groups for event in group)
        self.appender.resolve(groups)

    async def ask(self, command: AnyCommand) -> list[Event]:
        """Send a command and return the events of its answer."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.appender.submit(command)

    async def reach(self, is_there: Callable[[], bool], what: str) -> None:
        """Wait until the folded events show something."""
        await until(is_there, what)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Lend a client of the log at `url`, once that log exists."""
    log = RedisLog(url)
    stop = asyncio.Event()
    await eventually(lambda: has_events(log), "log")
    client = Client(log)
    folding = asyncio.create_task(client.fold.run(stop))
    try:
        await within(client.appender.open())
        yield client
    finally:
        await client.appender.close()
        stop.set()
        await folding
        await log.close()


async def has_events(log: RedisLog) -> bool:
    """Tell whether the log was created."""
    return (await log.event_head()).seq > 0


def secret_key(account_id: int) -> AddApiKey:
    """Return the command that gives an account a key with a secret that no output may show."""
    return AddApiKey(account_id=account_id, api_key=f"key-{account_id}", sealed_secret=SECRET)
