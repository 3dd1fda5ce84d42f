"""A server without room: refusals that say so, and everything goes on by itself when there is room."""

import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from events.appender import Appender
from events.commands import Deposit, OpenAccount
from events.embedded import EmbeddedServer
from events.frame import CommandFrame
from events.log import LogFullError, Place
from events.memory import MemoryLog
from exchange.client import ApiUnavailable, Connection
from tests.integration.processes import Client, Process, connected, free_ports
from tests.waiting import eventually, until, within

ACCOUNT = 2


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """Lend a plain client, for what only an operator does."""
    client = redis.asyncio.Redis(unix_socket_path=server.socket_path)
    yield client
    await client.aclose()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Collect processes; each ends with the test."""
    started: list[Process] = []
    yield started
    for process in started:
        process.end()


@pytest.mark.slow
async def test_a_full_memory_refuses_and_recovers(
    server: EmbeddedServer, raw: redis.asyncio.Redis, processes: list[Process], tmp_path: Path
) -> None:
    """The API answers 503 with a text; with room again it works, and no process had to be started again."""
    url, port = server.socket_path, free_ports()
    ports = ("--port", str(port), "--admin-port", str(port + 1), "--key-file", str(tmp_path / "key"))
    processes.append(Process(tmp_path / "writer.log", "writer", "--redis-url", url))
    processes.append(Process(tmp_path / "intake.log", "intake", "--redis-url", url, *ports))
    processes.append(Process(tmp_path / "liquidator.log", "liquidator", "--redis-url", url))
    for process in processes:
        await process.line("ready")
    async with Connection(f"http://127.0.0.1:{port + 1}") as admin:
        account = await admin.request("POST", "/admin/v1/account", body={"deposit": "5"})
        body = {"account_id": account["account_id"], "amount": "7"}
        await raw.config_set("maxmemory", "1")
        with pytest.raises(ApiUnavailable, match="no room"):
            await admin.request("POST", "/admin/v1/deposit", body=body)
        await raw.config_set("maxmemory", "0")
        wallet = await admin.request("POST", "/admin/v1/deposit", body=body)
    assert "12.00000000" == wallet["wallet"]
    for process in processes:
        process.send(signal.SIGTERM)
        assert 0 == await process.code()


def limit_files(pid: int, count: int) -> None:
    """Let no file of a process grow beyond a size: what it is told is what a full disk tells."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (count, hard))


@pytest.mark.slow
async def test_a_full_disk_refuses_and_recovers(tmp_path: Path, processes: list[Process]) -> None:
    """The server stops taking writes when its file cannot grow; with room again everything goes on."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with SturdyServer(tmp_path / "data") as server:
            processes.append(Process(tmp_path / "writer.log", "writer", "--redis-url", server.socket_path))
            async with connected(server.socket_path) as client:
                await client.ask(OpenAccount())
                (path,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
                limit_files(server.pid, path.stat().st_size + 100)
                # Refused is either a command or, if it got in before the limit, the writer's answer to it.
                first = client.appender.submit(Deposit(account_id=ACCOUNT, amount=1))
                await until(lambda: first.done() or is_told(processes[0], "log_full"), "refusal")
                second = client.appender.submit(Deposit(account_id=ACCOUNT, amount=10))
                with pytest.raises(LogFullError, match="MISCONF"):
                    await within(second)
                limit_files(server.pid, resource.RLIM_INFINITY)
                await eventually(lambda: is_taken(client), "room")
                taken = 0 if first.exception() else 1
                assert 100 + taken == client.fold.state.accounts[ACCOUNT].wallet
            processes[0].send(signal.SIGTERM)
            assert 0 == await processes[0].code()
    finally:
        signal.signal(signal.SIGXFSZ, before)


def is_told(process: Process, event: str) -> bool:
    """Tell whether a process has written such a line."""
    return any(line.get("event") == event for line in process.lines())


async def is_taken(client: Client) -> bool:
    """Try a deposit; tell whether it was taken."""
    try:
        await client.ask(Deposit(account_id=ACCOUNT, amount=100))
    except LogFullError:
        return False
    return True


class SturdyServer(EmbeddedServer):
    """A server that learns of a file's limit by an error instead of a signal, as it would of a full disk."""

    def _spawn(self, lock: int) -> "subprocess.Popen[bytes]":
        popen = subprocess.Popen

        def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
            return popen(*arguments, **options, restore_signals=False)  # type: ignore[call-overload,no-any-return]

        subprocess.Popen = start  # type: ignore[assignment,misc]
        try:
            return super()._spawn(lock)
        finally:
            subprocess.Popen = popen  # type: ignore[misc]


class FullAtFirst(MemoryLog):
    """A log that has room from the second attempt on."""

    refusals = 0

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        if self.refusals == 0:
            self.refusals += 1
            raise LogFullError("no room")
        return 2


async def test_an_origin_waits_for_room() -> None:
    """A process that starts while the server is full does not end, and goes on when there is room."""
    log = FullAtFirst()
    appender = Appender(log, "test")
    await within(appender.open())
    assert (1, 2) == (log.refusals, appender.appended_seq)
    await appender.close()
