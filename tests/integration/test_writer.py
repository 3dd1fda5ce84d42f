"""The writer as a process: killed, frozen, starved and replaced, it neither loses nor doubles a command."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from events.commands import Deposit, OpenAccount
from events.embedded import EmbeddedServer
from events.events import Deposited, FrameHeader
from events.redis import RedisLog
from events.values import Outcome
from exchange import config
from exchange.audit.replay import replay
from tests.integration.processes import Client, Process, connected
from tests.waiting import eventually, until

pytestmark = pytest.mark.slow

ACCOUNT = 2


@pytest.fixture
def start_writer(server: EmbeddedServer, tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Start writers by name; each ends with the test."""
    started: list[Process] = []

    def start(name: str) -> Process:
        output = tmp_path / f"{name}.log"
        started.append(Process(output, "writer", "--redis-url", server.socket_path))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
async def raw(server: EmbeddedServer) -> AsyncIterator[redis.asyncio.Redis]:
    """Lend a plain client, for what only an operator or a fault does."""
    client = redis.asyncio.Redis(unix_socket_path=server.socket_path)
    yield client
    await client.aclose()


async def deposit_many(client: Client, count: int) -> "asyncio.Future[list[list[object]]]":
    """Open the account and submit deposits of 1 to `count` units, a few at a time so that frames are many."""
    await client.ask(OpenAccount())
    answers = []
    for amount in range(1, count + 1):
        answers.append(client.appender.submit(Deposit(account_id=ACCOUNT, amount=amount)))
        if amount % 5 == 0:
            await asyncio.sleep(0)
    return asyncio.gather(*answers)  # type: ignore[return-value]


async def is_longer(log: RedisLog, last: int) -> bool:
    """Tell whether the command stream has grown behind `last`."""
    return await log.last_command_seq() > last


async def test_a_killed_writer_loses_and_doubles_nothing(
    server: EmbeddedServer, start_writer: Callable[[str], Process]
) -> None:
    """After kill -9 amid a load, a new writer goes on, and each command is answered exactly once."""
    first = start_writer("first")
    async with connected(server.socket_path) as client:
        answers = await deposit_many(client, 1_000)
        await client.reach(lambda: any(isinstance(e, Deposited) for e in client.events), "deposits")
        first.send(signal.SIGKILL)
        await first.code()
        # More arrives while there is no writer.
        late = client.appender.submit(Deposit(account_id=ACCOUNT, amount=1_000_000))
        second = start_writer("second")
        async with asyncio.timeout(30):
            await answers
            await late

        assert 500_500 + 1_000_000 == client.fold.state.accounts[ACCOUNT].wallet
        assert 1_001 == sum(isinstance(event, Deposited) for event in client.events)
        assert await client.log.last_command_seq() == (await client.log.event_head()).seq
        client.fold.state.check_identities()
    second.send(signal.SIGTERM)
    assert config.EXIT_OK == await second.code()


async def test_a_standby_takes_over_at_once_from_a_writer_that_stops(
    server: EmbeddedServer, start_writer: Callable[[str], Process]
) -> None:
    """A stopped writer gives its lease back; the standby goes on behind the last entry."""
    first = start_writer("first")
    await first.line("ready")
    second = start_writer("second")
    await second.line("standing_by")
    async with connected(server.socket_path) as client:
        await client.ask(OpenAccount())
        first.send(signal.SIGTERM)
        assert config.EXIT_OK == await first.code()
        written = await first.line("written")
        answered = client.fold.head.seq

        await client.ask(Deposit(account_id=ACCOUNT, amount=7))

        assert written["digest"] == (await second.line("rebuilt"))["digest"]
        assert answered + 1 == client.fold.head.seq
        assert 7 == client.fold.state.accounts[ACCOUNT].wallet


async def test_a_frozen_writer_is_fenced_and_stops(
    server: EmbeddedServer, start_writer: Callable[[str], Process]
) -> None:
    """A writer that wakes up after another took the lease adds nothing and ends with its own exit code."""
    frozen = start_writer("frozen")
    async with connected(server.socket_path) as client:
        await client.ask(OpenAccount())
        frozen.send(signal.SIGSTOP)
        successor = start_writer("successor")
        await client.ask(Deposit(account_id=ACCOUNT, amount=1))
        frozen.send(signal.SIGCONT)
        assert config.EXIT_FENCED == await frozen.code()

        await client.ask(Deposit(account_id=ACCOUNT, amount=2))
        assert 3 == client.fold.state.accounts[ACCOUNT].wallet
    assert [] == [line for line in successor.lines() if line["level"] == "error"]


async def test_a_writer_waits_out_a_server_that_is_killed_and_comes_back(
    server: EmbeddedServer, start_writer: Callable[[str], Process]
) -> None:
    """kill -9 of the server amid a load: once it is back, all is answered, by the same writer."""
    writer = start_writer("writer")
    async with connected(server.socket_path) as client:
        answers = await deposit_many(client, 300)
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: not server.is_running(), "end of the server")
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(30):
            await answers

        assert 45_150 == client.fold.state.accounts[ACCOUNT].wallet
        headers = [event for event in client.events if isinstance(event, FrameHeader)]
        assert {Outcome.EXECUTED, Outcome.DUPLICATE} >= {header.outcome for header in headers}
    writer.send(signal.SIGTERM)
    assert config.EXIT_OK == await writer.code()


def signal_server(pid: int) -> None:
    """Kill the test's own server by its id."""
    import os

    os.kill(pid, signal.SIGKILL)


async def test_a_writer_retries_while_the_server_is_full(
    server: EmbeddedServer, start_writer: Callable[[str], Process], raw: redis.asyncio.Redis
) -> None:
    """Without memory the append is refused; it is repeated, and goes through when there is room."""
    writer = start_writer("writer")
    async with connected(server.socket_path) as client:
        await client.ask(OpenAccount())
        writer.send(signal.SIGSTOP)
        before = await client.log.last_command_seq()
        answer = client.appender.submit(Deposit(account_id=ACCOUNT, amount=5))
        await eventually(lambda: is_longer(client.log, before), "command")
        await raw.config_set("maxmemory", "1")
        writer.send(signal.SIGCONT)
        await writer.line("log_full")
        assert not answer.done()

        await raw.config_set("maxmemory", "0")
        async with asyncio.timeout(10):
            await answer
        assert 5 == client.fold.state.accounts[ACCOUNT].wallet


async def test_a_writer_stops_at_a_damaged_command(
    server: EmbeddedServer, start_writer: Callable[[str], Process], raw: redis.asyncio.Redis
) -> None:
    """A command entry that is not what was written ends the writer, which names the entry."""
    writer = start_writer("writer")
    await writer.line("ready")
    async with connected(server.socket_path) as client:
        await client.ask(OpenAccount())
        head = await client.log.last_command_seq()
        fields = {"v": 1, "o": "x:1", "n": 1, "t": 1, "b": b"\x90", "c": bytes(32)}
        await raw.xadd("foldex:{main}:commands", fields, id="0-*")  # type: ignore[arg-type]

        assert config.EXIT_CORRUPT == await writer.code()
        assert f"entry {head + 1}:" in str((await writer.line("stopped_by"))["error"])
        assert head == (await client.log.event_head()).seq


async def test_a_writer_refuses_a_log_that_was_emptied(
    server: EmbeddedServer, start_writer: Callable[[str], Process], raw: redis.asyncio.Redis
) -> None:
    """A log that goes backwards under a live writer ends it; nothing is continued."""
    writer = start_writer("writer")
    await writer.line("ready")
    await raw.flushall()
    assert config.EXIT_REWOUND == await writer.code()


async def test_replay_has_the_digest_of_the_writer(
    server: EmbeddedServer, start_writer: Callable[[str], Process]
) -> None:
    """The state rebuilt from the events alone equals the one that decided them."""
    writer = start_writer("writer")
    async with connected(server.socket_path) as client:
        await (await deposit_many(client, 200))
        writer.send(signal.SIGTERM)
        written = await writer.line("written")
    log = RedisLog(server.socket_path)
    replayed = await replay(log)
    await log.close()
    assert written["digest"] == replayed.state.digest().hex()
    assert written["seq"] == replayed.head.seq
