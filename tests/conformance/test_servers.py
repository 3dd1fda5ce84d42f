"""What only a real server can do to a log: restart, run full, hold entries of strangers, be set wrongly."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import redis

from events.embedded import Durability, EmbeddedServer
from events.frame import GENESIS_HASH
from events.log import (
    CommandReader,
    CorruptLogError,
    EventReader,
    FencedError,
    ForeignServerError,
    Head,
    LogFullError,
    LogUnavailableError,
    ServerSettingsError,
)
from events.redis import RedisLog
from tests.integration.processes import free_ports
from tests.page_cache import unwritten_pages
from tests.waiting import until

from .harness import ServerHarness, answered, answers_for, command_frame, filled

GOOD_COMMAND: dict[str, object] = {"v": 1, "o": "a:b", "n": 1, "t": 1, "b": b"\x90", "c": b"c"}
GOOD_EVENT: dict[str, object] = {"v": 1, "b": b"\x90", "h": b"h", "w": "w:1", "x": b""}


@pytest.mark.parametrize(
    "change",
    [{"b": None}, {"n": "ten"}, {"n": -1}, {"n": 2**64}, {"v": 2**32}, {"t": ""}, {"o": b"\xff"}],
    ids=str,
)
async def test_a_malformed_command_entry_is_named(server: ServerHarness, change: dict[str, object]) -> None:
    """A field that is missing or is no number of its kind is damage at that entry."""
    log = await filled(server, 2)
    changed = {name: value for name, value in (GOOD_COMMAND | change).items() if value is not None}
    server.store("commands", 3, changed)

    with pytest.raises(CorruptLogError, match="entry 3: ") as caught:
        await CommandReader(log).read(10)

    assert caught.value.seq == 3


@pytest.mark.parametrize("change", [{"h": None}, {"v": "x"}, {"v": -1}, {"w": b"\xff"}, {"y": 1}], ids=str)
async def test_a_malformed_event_entry_is_named(server: ServerHarness, change: dict[str, object]) -> None:
    """The same for events; a field too many is not ours either."""
    log = await answered(server, 2)
    changed = {name: value for name, value in (GOOD_EVENT | change).items() if value is not None}
    server.store("events", 3, changed)

    with pytest.raises(CorruptLogError, match="entry 3: ") as caught:
        await EventReader(log).read(10)

    assert caught.value.seq == 3


async def test_an_entry_numbered_by_a_stranger_is_named(server: ServerHarness) -> None:
    """An id that is not 0-seq was not given by us."""
    log = await filled(server, 2)
    server.admin.xadd("foldex:{main}:commands", {"v": 1}, id="5-1")

    with pytest.raises(CorruptLogError, match="entry 3: its id is 5-1, not 0-3"):
        await log.read_commands(0, 10)


async def test_a_restart_loses_nothing_and_everyone_goes_on(server: ServerHarness) -> None:
    """Readers, appender and writer reconnect to the restarted server; its scripts are loaded again."""
    log = await filled(server, 3)
    answers = await answers_for(log)
    start = answers.head
    await log.append_events(answers.take(2), start, answers.lease)
    commands, events = CommandReader(log), EventReader(log)
    await commands.read(10)
    await events.read(10)
    before = log.connections

    server.restart()

    with pytest.raises(LogUnavailableError):
        await log.append_command(command_frame(3))
    assert await log.append_command(command_frame(3)) == 4
    assert before < log.connections
    previous = answers.head
    await log.append_events(answers.take(2), previous, answers.lease)
    assert [4] == [entry.seq for entry in await commands.read(10)]
    assert [3, 4] == [verified.entry.seq for verified in await events.read(10)]


async def test_what_was_acknowledged_survives_kill_9(server: ServerHarness) -> None:
    """A killed server has handed its log to the system with each answer; the next one loads it."""
    log = await answered(server, 4)
    head = await log.event_head()

    os.kill(server.server.pid, signal.SIGKILL)
    server.restart()

    reopened = await server.open()
    assert await reopened.last_command_seq() == 4
    assert head == await reopened.event_head()
    reader = EventReader(reopened)
    await reader.read(10)
    assert head == reader.head


async def _unwritten_when_told(durability: Durability, directory: Path) -> list[int]:
    """Append with a reader waiting; return how much of the file was in memory alone when either was told."""
    found: list[int] = []
    with EmbeddedServer(directory, durability) as running:
        log, reading = RedisLog(running.socket_path), RedisLog(running.socket_path)
        await log.create(command_frame(0))
        (path,) = await asyncio.to_thread(lambda: list((directory / "appendonlydir").glob("*.incr.aof")))

        def look() -> None:
            pages = unwritten_pages(path)
            if pages is None:
                pytest.skip("this kernel does not tell what a file has in memory alone")
            found.append(pages)

        async def read(seq: int) -> None:
            assert [seq] == [entry.seq for entry in await reading.read_commands(seq - 1, 1, wait_ms=5_000)]
            look()

        for n in range(1, 41):
            waiting = asyncio.create_task(read(n + 1))
            await asyncio.sleep(0)
            await log.append_command(command_frame(n))
            look()
            await waiting
        await log.close()
        await reading.close()
    return found


async def test_in_strict_mode_what_is_told_is_on_disk(tmp_path: Path) -> None:
    """The kernel has nothing left to write when an append is confirmed, nor when a reader is given an entry;
    with the other setting it mostly has, so it would be seen.
    """
    relaxed = await _unwritten_when_told("relaxed", tmp_path / "relaxed")
    if sum(pages > 0 for pages in relaxed) < len(relaxed) // 2:
        pytest.skip("this file system does not keep what is written in memory first")

    assert 80 * [0] == await _unwritten_when_told("strict", tmp_path / "strict")


async def test_a_waiting_reader_is_told_when_the_server_goes(server: ServerHarness) -> None:
    """It does not wait on for an answer that cannot come, and the handle reconnects when used again."""
    log = await filled(server, 1)
    waiting = asyncio.create_task(log.read_commands(1, 10, wait_ms=60_000))
    await server.until_blocked()

    server.restart()

    async with asyncio.timeout(10):
        with pytest.raises(LogUnavailableError):
            await waiting
    assert [1] == [entry.seq for entry in await log.read_commands(0, 10)]


async def test_closing_a_handle_ends_its_waits(server: ServerHarness) -> None:
    """After `close` nothing hangs, and the handle is not used again."""
    log = await filled(server, 1)
    waiting = asyncio.create_task(log.read_commands(1, 10, wait_ms=60_000))
    await server.until_blocked()

    await log.close()

    async with asyncio.timeout(10):
        with pytest.raises(LogUnavailableError):
            await waiting
    with pytest.raises(LogUnavailableError):
        await log.append_command(command_frame(1))


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Nobody listening is a passing failure, too."""
    log = RedisLog("unix:///nowhere/server.sock")

    with pytest.raises(LogUnavailableError):
        await log.last_command_seq()
    assert log.connections == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_a_server_of_another_kind_is_named(answer: bytes) -> None:
    """Its place is, without the password of the address; it may pass, as any server that is unavailable."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        log = RedisLog(f"redis://user:secret@127.0.0.1:{port}/0")
        with pytest.raises(ForeignServerError, match=f"at 127.0.0.1:{port} is no Redis") as caught:
            await log.check_server()
        assert isinstance(caught.value, LogUnavailableError)
        assert "secret" not in str(caught.value)
        await log.close()


async def test_scripts_forgotten_between_entries_are_loaded_again(server: ServerHarness) -> None:
    """A server that lost its script cache appends each entry once."""
    log = await filled(server, 4)
    answers = await answers_for(log)
    start = answers.head
    await log.append_events(answers.take(2), start, answers.lease)
    server.admin.script_flush()
    previous = answers.head

    await log.append_events(answers.take(2), previous, answers.lease)

    assert [1, 2, 3, 4] == [entry.seq for entry in await log.read_events(0, 10)]


async def test_a_lost_event_stream_is_not_continued_with_a_hole(server: ServerHarness) -> None:
    """Where the head is known but the stream is gone, nothing more is appended."""
    log = await filled(server, 2)
    answers = await answers_for(log)
    start = answers.head
    await log.append_events(answers.take(1), start, answers.lease)
    server.admin.delete("foldex:{main}:events")
    previous = answers.head

    with pytest.raises(FencedError, match="may not append entry 2"):
        await log.append_events(answers.take(1), previous, answers.lease)

    assert not server.admin.exists("foldex:{main}:events")


async def test_a_full_server_refuses_and_goes_on_when_there_is_room(server: ServerHarness) -> None:
    """Out of memory, commands and events are refused whole; the same frames pass once there is room."""
    log = await filled(server, 2)
    answers = await answers_for(log)
    start = answers.head
    entries = answers.take(1)
    server.admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(LogFullError):
            await log.append_command(command_frame(2))
        with pytest.raises(LogFullError):
            await log.append_events(entries, start, answers.lease)
        assert await log.last_command_seq() == 2
        assert await log.event_head() == Head(seq=0, chain_hash=GENESIS_HASH)
    finally:
        server.admin.config_set("maxmemory", 0)

    assert await log.append_command(command_frame(2)) == 3
    await log.append_events(entries, start, answers.lease)


async def test_events_are_read_when_enough_replicas_have_them(server: ServerHarness) -> None:
    """Not without a replica, and not while it receives nothing; with a current one at once."""
    await answered(server, 2)
    log = RedisLog(server.server.socket_path, replicas=1)
    with EmbeddedServer(server.server.data_dir.with_name("replica")) as replica:
        with pytest.raises(LogUnavailableError, match="0 replicas have what was read, of 1 to wait for"):
            await log.read_events(0, 10)
        port = free_ports()
        server.admin.execute_command(
            "CONFIG", "SET", "bind", "127.0.0.1", "port", port, "repl-diskless-sync-delay", 0
        )
        follower = redis.Redis(unix_socket_path=replica.socket_path)
        try:
            follower.replicaof("127.0.0.1", port)
            await until(
                lambda: follower.info("replication")["master_link_status"] == "up", "link to the master"
            )
            assert [1, 2] == [entry.seq for entry in await log.read_events(0, 10)]
            os.kill(replica.pid, signal.SIGSTOP)
            with pytest.raises(LogUnavailableError, match="0 replicas"):
                await log.read_events(0, 10)
            os.kill(replica.pid, signal.SIGCONT)
            assert [1, 2] == [entry.seq for entry in await log.read_events(0, 10)]
        finally:
            server.admin.config_set("port", 0)
            follower.close()
            await log.close()


async def test_an_embedded_server_has_the_settings(server: ServerHarness) -> None:
    """A server started by us passes the check for relaxed durability, and says what strict needs."""
    log = await server.open()

    await log.check_server()
    with pytest.raises(ServerSettingsError, match="appendfsync is everysec, set appendfsync always"):
        await log.check_server(strict=True)


@pytest.mark.parametrize(
    ("name", "good", "bad", "advice"),
    [
        ("appendonly", "yes", "no", "set appendonly yes"),
        ("appendfsync", "everysec", "no", "set appendfsync everysec"),
        ("maxmemory-policy", "noeviction", "allkeys-lru", "set maxmemory-policy noeviction"),
        ("proto-max-bulk-len", str(512 * 1024 * 1024), "1048576", "set proto-max-bulk-len 68157440"),
    ],
)
async def test_a_wrong_setting_is_named(
    server: ServerHarness, name: str, good: str, bad: str, advice: str
) -> None:
    """The message holds the setting, its value and what to set."""
    log = await server.open()
    server.admin.config_set(name, bad)
    try:
        with pytest.raises(ServerSettingsError, match=f"{name} is {bad}, {advice}"):
            await log.check_server()
    finally:
        server.admin.config_set(name, good)


async def test_a_replica_is_refused(server: ServerHarness) -> None:
    """Who appends must be connected to the master."""
    log = await server.open()
    server.admin.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(ServerSettingsError, match="its role is slave, connect to the master"):
            await log.check_server()
    finally:
        server.admin.replicaof("no", "one")


async def test_a_demoted_master_is_left_for_a_new_connection(server: ServerHarness) -> None:
    """A refusal to write passes: the address may lead to the new master when asked again."""
    log = await filled(server, 1)
    before = log.connections
    server.admin.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(LogUnavailableError, match="READONLY"):
            await log.append_command(command_frame(1))
    finally:
        server.admin.replicaof("no", "one")

    assert await log.append_command(command_frame(1)) == 2
    assert before < log.connections


async def test_a_user_without_permission_is_told(server: ServerHarness) -> None:
    """A refused password is not something to wait out."""
    log = RedisLog(f"unix://nobody:wrong@{server.server.socket_path}")

    with pytest.raises(ServerSettingsError, match="refuses this user"):
        await log.last_command_seq()
