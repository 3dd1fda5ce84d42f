"""A writer that stands by: current when it takes over, seen in the status, and only when a log is there."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from events.commands import Deposit, OpenAccount
from events.embedded import EmbeddedServer
from events.log import FencedError, LogRewoundError
from exchange import config
from exchange.audit.replay import replay
from exchange.runtime import Runtime, heartbeat_client, read_alive
from exchange.supervisor import Supervisor
from exchange.writer import run_writer
from tests.integration.processes import Client, Process, connected, environment, foldex, free_ports
from tests.waiting import DEADLINE_S, eventually, until

pytestmark = pytest.mark.slow

LEASE_MS = 500
ACCOUNT = 2


class Writing:
    """A writer's life in this process, with everything but its signals."""

    def __init__(self, url: str, *, standby: bool) -> None:
        self.runtime = Runtime("writer", url)
        work = run_writer(self.runtime, standby=standby, lease_ms=LEASE_MS)
        self.task: asyncio.Future[None] = asyncio.ensure_future(work)

    async def end(self) -> None:
        """Stop, and raise what ended it."""
        self.runtime.stop.set()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self.task
        finally:
            await self.runtime.close()


async def heartbeat(url: str, name: str, pid: int) -> bool:
    """Tell whether the heartbeat of that name is this process's."""
    client = heartbeat_client(url)
    try:
        alive = await read_alive(client, name)
    finally:
        await client.aclose()
    return alive is not None and alive.pid == pid


def standing_by(lines: Sequence[Mapping[str, object]]) -> int:
    """Return how often a writer has said that it stands by."""
    return sum(line.get("role") == "standby" for line in lines)


async def deposit(client: Client, count: int) -> None:
    """Make `count` entries of one deposit each."""
    for amount in range(1, count + 1):
        await client.ask(Deposit(account_id=ACCOUNT, amount=amount))


async def test_a_standby_follows_and_has_little_left_to_do(server: EmbeddedServer) -> None:
    """It folds while it waits, decides behind the last entry, and says how long the take-over took."""
    url = server.socket_path
    first = Writing(url, standby=False)
    async with connected(url) as client:
        await client.ask(OpenAccount())
        with capture_logs() as lines:
            second = Writing(url, standby=True)
            await until(lambda: standing_by(lines) == 1, "standby")
            await deposit(client, 20)
            await first.end()
            await deposit(client, 5)
        (took_over,) = [line for line in lines if line["event"] == "took_over"]
        assert took_over["entries_left"] <= 2
        assert took_over["seconds"] < 5.0
        assert client.fold.state.digest() == (await replay(client.log)).state.digest()
        assert 210 + 15 == client.fold.state.accounts[ACCOUNT].wallet
        await second.end()


async def test_a_standby_waits_for_a_log(server: EmbeddedServer) -> None:
    """It creates none; when another writer did, it stands by for that one."""
    url = server.socket_path
    with capture_logs() as lines:
        second = Writing(url, standby=True)
        await until(lambda: any(line["event"] == "waiting_for_log" for line in lines), "wait")
        first = Writing(url, standby=False)
        await until(lambda: standing_by(lines) == 1, "standby")
        await first.end()
        await until(lambda: any(line["event"] == "took_over" for line in lines), "take-over")
        await second.end()
    assert 1 == sum(line["event"] == "log_created" for line in lines)


async def test_a_standby_does_not_begin_a_new_log_on_an_emptied_server(server: EmbeddedServer) -> None:
    """The lease is gone with everything else, but what it has folded is missing: both writers stop."""
    url = server.socket_path
    first = Writing(url, standby=False)
    async with connected(url) as client:
        await client.ask(OpenAccount())
    with capture_logs() as lines:
        second = Writing(url, standby=True)
        await until(lambda: standing_by(lines) == 1, "standby")
        await first.end()
        await until(lambda: any(line["event"] == "took_over" for line in lines), "take-over")
        third = Writing(url, standby=True)
        await until(lambda: standing_by(lines) == 2, "second standby")
        wipe = heartbeat_client(url)
        await wipe.flushall()
        await wipe.aclose()
        for writing in (second, third):
            with pytest.raises((LogRewoundError, FencedError)):
                async with asyncio.timeout(DEADLINE_S):
                    await writing.task
            await writing.runtime.close()
    assert 0 == sum(line["event"] == "log_created" for line in lines)


async def test_the_status_shows_who_stands_by_and_how_long_a_take_over_took(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """The standby has a line of its own; when it is the writer, its line says in how many seconds."""
    url = server.socket_path
    first = Process(tmp_path / "first.log", "writer", "--redis-url", url, "--lease-ms", str(LEASE_MS))
    second = Process(
        tmp_path / "second.log", "writer", "--redis-url", url, "--lease-ms", str(LEASE_MS), "--standby"
    )
    try:
        await eventually(lambda: heartbeat(url, "standby", second.pid), "standby's heartbeat")
        first.send(signal.SIGKILL)
        await second.line("took_over")
        await eventually(lambda: heartbeat(url, "writer", second.pid), "writer's heartbeat")
        command = foldex("status", "--redis-url", url)
        told = await asyncio.to_thread(
            subprocess.run, command, env=environment(), capture_output=True, text=True, check=False
        )
        lines = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
        assert f"pid {second.pid}, took over in " in lines["writer"]
        assert "not alive" == lines["standby"]
        second.send(signal.SIGTERM)
        assert config.EXIT_OK == await second.code()
    finally:
        first.end()
        second.end()


async def test_up_with_a_standby_survives_its_writer(tmp_path: Path) -> None:
    """One of the two decides, the other stands by, whichever was quicker; and all of it ends in order."""
    supervisor = Supervisor(tmp_path / "data", port=free_ports(), standby=True)
    async with supervisor:
        killed_pid = supervisor.pids["writer"]
        os.kill(killed_pid, signal.SIGKILL)
        async with connected(supervisor.log_url) as client:
            await client.ask(OpenAccount())
        await supervisor.wait_ready("writer")
        pids = {supervisor.pids["writer"], supervisor.pids["standby"]}
        assert killed_pid not in pids
        await eventually(lambda: have_roles(supervisor.log_url, pids), "writer and standby")
        assert {"writer": 1, "standby": 0} == {
            name: supervisor.restarts[name] for name in ("writer", "standby")
        }
    assert {} == supervisor.pids


async def have_roles(url: str, pids: set[int]) -> bool:
    """Tell whether one of two processes shows as the writer and the other as its standby."""
    client = heartbeat_client(url)
    try:
        found = [await read_alive(client, name) for name in ("writer", "standby")]
    finally:
        await client.aclose()
    return pids == {alive.pid for alive in found if alive is not None}
