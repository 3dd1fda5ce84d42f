"""The supervisor: a whole exchange started, broken and stopped; nothing is lost and nothing stays behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from events.archive import ArchivedLog
from events.commands import OpenAccount
from events.embedded import EmbeddedServer
from events.redis import RedisLog
from exchange import config
from exchange.archiving import recover
from exchange.client import Connection
from exchange.supervisor import Supervisor, SupervisorError
from tests.integration.processes import connected, environment, foldex, free_ports, is_running
from tests.waiting import DEADLINE_S, until

pytestmark = pytest.mark.slow


@pytest.fixture
async def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """Run an exchange without a feed."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    async with Supervisor(tmp_path / "data", port=free_ports()) as supervisor:
        yield supervisor


class Up:
    """A `foldex up` process."""

    def __init__(self, data_dir: Path, *arguments: str, server: str = "") -> None:
        self.port = free_ports()
        place = ("--redis-url", server) if server else ("--data-dir", str(data_dir))
        options = (*place, "--port", str(self.port), "--json", *arguments)
        self.process = subprocess.Popen(
            foldex("up", *options),
            env=environment(),
            # With a server of its own it keeps its files where it is started.
            cwd=data_dir.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def ready(self) -> dict[str, Any]:
        """Wait for the line that says that it is ready."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, self.process.stderr
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said."""
        async with asyncio.timeout(DEADLINE_S):
            _, said = await asyncio.to_thread(self.process.communicate)
        return self.process.returncode, said


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory; a server that is left on it is ended by the id it wrote down."""
    yield tmp_path / "data"
    record = tmp_path / "data" / "server.json"
    if record.exists():
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)


async def admin(url: str, method: str, path: str, body: object = None) -> Any:
    """Call the administrator's listener."""
    async with Connection(url) as connection:
        return await connection.request(method, f"/admin/v1/{path}", body=body)


async def test_a_killed_writer_is_started_again_and_goes_on(supervisor: Supervisor) -> None:
    """After kill -9 of the writer a request that waits is answered, once, by its successor."""
    account = await admin(supervisor.admin_url, "POST", "account", {"deposit": "100"})
    killed_pid = supervisor.pids["writer"]
    os.kill(killed_pid, signal.SIGKILL)
    body = {"account_id": account["account_id"], "amount": "11"}
    wallet = await admin(supervisor.admin_url, "POST", "deposit", body)
    await supervisor.wait_ready("writer")

    assert "111.00000000" == wallet["wallet"]
    assert killed_pid != supervisor.pids["writer"]
    assert {"writer": 1, "intake": 0, "liquidator": 0, "archiver": 0} == supervisor.restarts


async def test_a_killed_server_is_started_again_with_its_log(supervisor: Supervisor) -> None:
    """After kill -9 of the embedded server everything goes on from the log on disk."""
    before = await admin(supervisor.admin_url, "POST", "account", {"deposit": "5"})
    server_pid = supervisor.server_pid
    assert server_pid is not None
    os.kill(server_pid, signal.SIGKILL)
    after = await admin(supervisor.admin_url, "POST", "account", {"deposit": "6"})

    assert before["account_id"] + 1 == after["account_id"]
    assert {0} == set(supervisor.restarts.values())


async def test_markets_and_fund_are_there_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start lists and funds two markets, the second finds them and changes nothing."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    states = []
    for _ in range(2):
        async with Supervisor(data_dir, port=free_ports()) as supervisor:
            states.append(await admin(supervisor.admin_url, "GET", "state"))

    assert ["BTCUSDT", "ETHUSDT"] == [row["symbol"] for row in states[1]["markets"]]
    assert states[0]["insurance_fund"] == states[1]["insurance_fund"]
    assert "2000000.00000000" == states[1]["deposited"]


async def test_a_fund_may_begin_with_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `foldex demo --insurance-fund 0` asks: the markets are there, and no money is."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    async with Supervisor(data_dir, port=free_ports(), insurance_amount="0") as supervisor:
        state = await admin(supervisor.admin_url, "GET", "state")

    assert (["BTCUSDT", "ETHUSDT"], "0.00000000") == (
        [row["symbol"] for row in state["markets"]],
        state["deposited"],
    )


async def test_ctrl_c_stops_everything_and_the_log_rebuilds_the_state(data_dir: Path) -> None:
    """SIGINT ends `foldex up` with 0 and leaves no process; a replay has the digest of the live state."""
    up = Up(data_dir, "--feed", "none")
    ready = await up.ready()
    await admin(ready["admin_url"], "POST", "account", {"deposit": "100"})
    live = await admin(ready["admin_url"], "GET", "state")
    up.process.send_signal(signal.SIGINT)
    code, said = await up.end()

    assert (config.EXIT_OK, True) == (code, "stopped" in said)
    assert [] == [pid for pid in (*ready["pids"].values(), ready["server_pid"]) if is_running(pid)]
    command = foldex("replay", "--data-dir", str(data_dir), "--json")
    replayed = await asyncio.to_thread(subprocess.check_output, command, env=environment())
    assert live["digest"] == json.loads(replayed)["digest"]
    assert [] == [path for path in (data_dir / "server.json",) if path.exists()]


async def test_the_feed_moves_the_marks(data_dir: Path) -> None:
    """With the synthetic feed both markets get index prices, and a mark from them."""
    up = Up(data_dir, "--feed", "synthetic", "--speed", "100")
    ready = await up.ready()
    assert {"writer", "intake", "liquidator", "archiver", "feed"} == set(ready["pids"])
    marks: set[str] = set()
    async with asyncio.timeout(DEADLINE_S):
        while len(marks) < 3:
            state = await admin(ready["admin_url"], "GET", "state")
            marks.add(state["markets"][0]["mark"])
    up.process.send_signal(signal.SIGINT)
    assert config.EXIT_OK == (await up.end())[0]


async def test_after_a_killed_supervisor_the_next_start_takes_over(data_dir: Path) -> None:
    """After kill -9 the children stop by themselves; the next start stops the server that stayed."""
    up = Up(data_dir, "--feed", "none")
    ready = await up.ready()
    before = await admin(ready["admin_url"], "GET", "state")
    up.process.kill()
    await up.end()
    pids = ready["pids"].values()
    await until(lambda: not any(is_running(pid) for pid in pids), "end of the orphans")

    successor = Up(data_dir, "--feed", "none")
    again = await successor.ready()
    assert not is_running(ready["server_pid"])
    state = await admin(again["admin_url"], "GET", "state")
    assert before["log_id"] == state["log_id"]
    successor.process.send_signal(signal.SIGINT)
    code, said = await successor.end()
    assert config.EXIT_OK == code
    stopping = [line for line in said.splitlines() if "stopping_server" in line]
    assert [ready["server_pid"]] == [json.loads(line)["orphan_pid"] for line in stopping]


async def test_a_server_whose_starter_lives_is_left_alone(data_dir: Path) -> None:
    """`foldex up` on a directory in use is refused, and names who uses it."""
    with EmbeddedServer(data_dir) as server:
        code, said = await Up(data_dir, "--feed", "none").end()
        assert server.is_running()
    assert config.EXIT_UNAVAILABLE == code
    assert f"started by process {os.getpid()}" in said


async def test_up_says_that_it_waits_for_a_server(data_dir: Path) -> None:
    """A server that is not there yet is waited for aloud; the exchange starts once it is."""
    up = Up(data_dir, "--feed", "none", server=f"unix://{data_dir}/other/server.sock")
    assert up.process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        line = await asyncio.to_thread(up.process.stderr.readline)
    assert "waiting_for_server" == json.loads(line)["event"]
    with EmbeddedServer(data_dir / "other"):
        assert (await up.ready())["ready"]
        up.process.send_signal(signal.SIGINT)
        assert config.EXIT_OK == (await up.end())[0]


async def test_a_feed_without_its_file_ends_the_exchange(data_dir: Path) -> None:
    """The message names the feed and the file, and nothing is left running."""
    code, said = await Up(data_dir, "--feed", "BTCUSDT=nofile.csv").end()
    assert config.EXIT_USAGE == code
    assert "feed ended" in said
    assert "nofile.csv: cannot be read" in said
    assert not (data_dir / "server.json").exists()


async def test_a_port_in_use_is_named(data_dir: Path) -> None:
    """When the API's port is taken, `foldex up` says so and leaves nothing running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = Up(data_dir, "--feed", "none", "--port", str(taken.getsockname()[1]))
        code, said = await up.end()
    assert config.EXIT_UNAVAILABLE == code
    assert "address already in use" in said
    assert not (data_dir / "server.json").exists()


async def test_nobody_goes_on_from_what_is_left_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However quickly all are restarted, the archiver was quicker; put back, they go on, unasked."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer(tmp_path / "server") as server:
        url, data_dir = server.socket_path, tmp_path / "data"
        async with Supervisor(data_dir, redis_url=url, port=free_ports()) as supervisor:
            (path,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
            kept_bytes = path.stat().st_size
            async with connected(url) as client:
                kept_seq = client.fold.head.seq
                for _ in range(10):
                    await client.ask(OpenAccount())
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: not server.is_running(), "end of the server")
            os.truncate(path, kept_bytes)
            await asyncio.to_thread(server.start)
            names = ("writer", "intake", "liquidator", "archiver")
            await until(lambda: all(supervisor.restarts[name] for name in names), "restarts")
            await until(lambda: not supervisor.pids, "refusal of all of them")

            log = RedisLog(url)
            restored = await recover(log, ArchivedLog(data_dir / config.ARCHIVE_DIR_NAME))
            await log.close()
            assert kept_seq < restored.seq
            async with connected(url) as client:
                await client.ask(OpenAccount())
                assert len(client.fold.state.accounts) > 2
            await supervisor.wait_ready("intake")


async def test_a_damaged_log_is_not_restarted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that meets a damaged log ends the exchange with the exit code for that."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with EmbeddedServer(tmp_path / "other") as server:
        url = f"unix://{server.socket_path}"
        supervisor = Supervisor(tmp_path / "data", redis_url=url, port=free_ports())
        async with supervisor:
            client = redis.asyncio.Redis(unix_socket_path=server.socket_path)
            fields = {"v": 1, "o": "x:1", "n": 1, "t": 1, "b": b"\x90", "c": bytes(32)}
            await client.xadd("foldex:{main}:commands", fields, id="0-*")  # type: ignore[arg-type]
            await client.aclose()
            async with asyncio.timeout(DEADLINE_S):
                error = await supervisor.failed
    assert isinstance(error, SupervisorError)
    assert config.EXIT_CORRUPT == error.exit_code
    assert 0 == supervisor.restarts["writer"]
