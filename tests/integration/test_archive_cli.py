"""Archives from the command line: moved to another directory, and putting back what a real server lost."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from events.commands import Deposit
from events.embedded import EmbeddedServer
from events.events import Deposited
from events.frame import CommandFrame, close_command_frame
from events.log import Head
from events.redis import RedisLog
from exchange import config
from exchange.archiving import export_log, import_log, opened
from exchange.cli import app
from tests.integration.test_cli import ALICE, exchange, trade
from tests.venue import money

PREFIX = "foldex:{main}:"
Stream = list[tuple[bytes, dict[bytes, bytes]]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return an archive as a tar file, and the digest of the state that its log has."""
    folder = tmp_path_factory.mktemp("exported")
    with EmbeddedServer(folder / "data") as server:
        digest = asyncio.run(trade(server.socket_path))
        result = run("archive", "export", folder / "log.tar", "--redis-url", server.socket_path)
    assert config.EXIT_OK == result.exit_code, result.output
    return folder / "log.tar", digest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a server and an archive of whoever runs the tests out of them."""
    monkeypatch.delenv(config.REDIS_URL_ENV, raising=False)
    monkeypatch.delenv(config.ARCHIVE_ENV, raising=False)
    monkeypatch.setenv(config.LOG_FORMAT_ENV, "console")
    monkeypatch.setenv(config.LOG_LEVEL_ENV, "info")


@pytest.fixture
def data_dir(exported: tuple[Path, str], tmp_path: Path) -> Path:
    """Return a data directory that has the log, and its archive."""
    data_dir = tmp_path / "data"
    ok("archive", "import", exported[0], "--data-dir", data_dir)
    ok("archive", "export", data_dir / config.ARCHIVE_DIR_NAME, "--data-dir", data_dir)
    return data_dir


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ok(*arguments: object) -> Any:
    """Run a command that must succeed, with JSON where it has that; return what it printed."""
    result = run(*arguments, "--json")
    assert config.EXIT_OK == result.exit_code, result.output
    return json.loads(result.stdout.splitlines()[0])


def refused(code: int, *arguments: object) -> str:
    """Run a command that must fail with an exit code; return what it said."""
    result = run(*arguments)
    assert code == result.exit_code, result.output
    return " ".join(result.stderr.split())


@contextmanager
def server(data_dir: Path) -> Iterator["redis.Redis[bytes]"]:
    """Lend a client of a data directory's server."""
    with EmbeddedServer(data_dir) as running:
        yield redis.Redis(unix_socket_path=running.socket_path)


def stored(client: "redis.Redis[bytes]") -> tuple[Stream, Stream, dict[bytes, bytes]]:
    """Return both streams and the head as they are stored."""
    streams = [client.xrange(PREFIX + name) for name in ("commands", "events")]
    return streams[0], streams[1], client.hgetall(PREFIX + "head")  # type: ignore[return-value]


def cut(client: "redis.Redis[bytes]", commands: int, events: int) -> None:
    """Set the log back to so many entries, as a server does that lost its last second."""
    for name, kept in (("commands", commands), ("events", events)):
        entries: Stream = client.xrange(PREFIX + name)  # type: ignore[assignment]
        client.delete(PREFIX + name)
        for entry_id, fields in entries[:kept]:
            client.xadd(PREFIX + name, fields, id=entry_id)  # type: ignore[arg-type]
        if name == "events":
            client.hset(PREFIX + "head", mapping={"seq": kept, "hash": entries[kept - 1][1][b"h"]})
    client.delete(PREFIX + "term")


def test_a_log_moves_as_a_file_and_goes_on(exported: tuple[Path, str], tmp_path: Path) -> None:
    """Imported elsewhere, it is the same to the byte, has the digest, and the exchange continues it."""
    tar, digest = exported
    there, again = tmp_path / "there", tmp_path / "again"
    restored = ok("archive", "import", tar, "--data-dir", there)
    ok("archive", "export", tmp_path / "copy", "--data-dir", there)
    ok("archive", "import", tmp_path / "copy", "--data-dir", again)

    assert digest == ok("replay", "--data-dir", there)["digest"]
    with server(there) as first, server(again) as second:
        assert stored(first) == stored(second)
        assert str(restored["seq"]).encode() == stored(first)[2][b"seq"]
    with EmbeddedServer(there) as running:

        async def deposit() -> list[str]:
            async with exchange(running.socket_path) as client:
                events = await client.ask(Deposit(account_id=ALICE, amount=money("1")))
                return [type(event).__name__ for event in events]

        assert ["Deposited"] == asyncio.run(deposit())
    assert "the server has a log" in refused(
        config.EXIT_UNAVAILABLE, "archive", "import", tar, "--data-dir", there
    )


def test_a_directory_is_replayed_without_a_server(
    exported: tuple[Path, str], data_dir: Path, tmp_path: Path
) -> None:
    """Replay, log, verify and list read an archive, packed or not."""
    tar, digest = exported
    for source in (tar, data_dir / config.ARCHIVE_DIR_NAME):
        assert digest == ok("replay", "--archive", source)["digest"]
        assert "log_created" == ok("log", "--archive", source, "--type", "log_created")["type"]
        verified = ok("verify", "--archive", source, "--data-dir", tmp_path / "none")
        assert (True, digest, 1) == (verified["intact"], verified["digest"], verified["segments"])
        assert ok("archive", "list", source)["last_hash"] == verified["head"].split(":")[1]
    assert "there is no archive" in refused(
        config.EXIT_UNAVAILABLE, "replay", "--archive", tar.parent / "none"
    )


async def test_what_is_moved_tells_how_far_it_is(data_dir: Path, tmp_path: Path) -> None:
    """Export, packing, unpacking and import get to their end in steps: there is a bar for who waits."""
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        assert 0 < done <= total
        told.append((done, total))

    tar = str(tmp_path / "again.tar")
    with EmbeddedServer(data_dir) as here, EmbeddedServer(tmp_path / "there") as there:
        log, target = RedisLog(here.socket_path), RedisLog(there.socket_path)
        last = (await log.event_head()).seq
        await export_log(log, tar, tell)
        assert [(last, last), *((n, 6) for n in range(1, 7))] == told  # three folders with a file each
        told.clear()
        with opened(tar, tell) as archive:
            assert (6, 6) == told[-1]
            told.clear()
            await import_log(target, archive, tell)
        assert 2 * [(last, last)] == told  # checked, put back
        await log.close()
        await target.close()


@pytest.mark.parametrize(("commands", "events"), [(6, 6), (9, 4)])
def test_what_a_server_lost_is_put_back(data_dir: Path, commands: int, events: int) -> None:
    """Cut back, commands less than events or as far: nobody begins on it; recovered to the byte, once."""
    with server(data_dir) as client:
        before = stored(client)
        cut(client, commands, events)
    for process in ("writer", "liquidator", "archiver"):
        assert config.EXIT_REWOUND == run(process, "--data-dir", data_dir).exit_code, process
    restored = ok("recover", "--data-dir", data_dir)

    count = len(before[0])
    assert (count - commands, count - events) == (restored["commands"], restored["events"])
    with server(data_dir) as client:
        assert before == stored(client)
        # The writers that there have been stay fenced.
        assert int(client.get(PREFIX + "term") or 0) > 1
    assert 0 == ok("recover", "--data-dir", data_dir)["events"]
    result = run("recover", "--data-dir", data_dir)
    assert f"nothing to put back: the log ends at entry {count}, not before its archive" in result.stdout


PROCESSES = ("writer", "intake", "liquidator", "archiver", "feed", "maker")


def test_a_log_that_is_gone_is_put_back(data_dir: Path) -> None:
    """After FLUSHALL no process begins, and the whole log comes from the archive."""
    with server(data_dir) as client:
        before = stored(client)
        client.flushall()
    for process in PROCESSES:
        said = refused(config.EXIT_REWOUND, process, "--data-dir", data_dir)
        assert "the log ends at entry 0" in said, process
        assert "foldex recover" in said, process
    with server(data_dir) as client:
        assert ([], [], {}) == stored(client), "a new log in its place"
    restored = ok("recover", "--data-dir", data_dir)

    assert len(before[1]) == restored["events"] == restored["commands"]
    with server(data_dir) as client:
        assert before == stored(client)


def test_no_log_is_begun_on_a_fresh_server_beside_an_archive(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never had the log, and a setting that names its archive: refused, until recovered."""
    monkeypatch.setenv(config.ARCHIVE_ENV, str(data_dir / config.ARCHIVE_DIR_NAME))
    with EmbeddedServer(tmp_path / "fresh") as fresh:
        url = fresh.socket_path
        for arguments in (("writer",), ("writer", "--standby"), *((name,) for name in PROCESSES[1:])):
            assert "foldex recover" in refused(config.EXIT_REWOUND, *arguments, "--redis-url", url), arguments
        with redis.Redis(unix_socket_path=url) as client:
            assert ([], [], {}) == stored(client)
        assert 0 < ok("recover", "--redis-url", url)["events"]


def test_what_was_asked_after_the_loss_follows_behind(data_dir: Path) -> None:
    """Commands that have no answer make room for the lost ones, and are decided after them, once."""
    frame = close_command_frame("late:" + "5" * 32, 1, 1, [Deposit(account_id=ALICE, amount=money("3"))])
    with server(data_dir) as client:
        before = stored(client)
        cut(client, 9, 6)
    with EmbeddedServer(data_dir) as running:
        asyncio.run(append(running.socket_path, frame))
    restored = ok("recover", "--data-dir", data_dir)

    count = len(before[0])
    assert (count - 9, count - 6, 1) == (restored["commands"], restored["events"], restored["moved"])
    with server(data_dir) as client:
        commands, events, head = stored(client)
        assert before == (commands[:-1], events, head)
        assert frame.body == commands[-1][1][b"b"]
    with EmbeddedServer(data_dir) as running:

        async def answers() -> list[int]:
            async with exchange(running.socket_path) as client:
                await client.ask(Deposit(account_id=ALICE, amount=money("4")))
                return [event.amount for event in client.events if isinstance(event, Deposited)]

        assert [money("3"), money("4")] == asyncio.run(answers())[-2:]


async def append(url: str, frame: CommandFrame) -> None:
    """Append one frame."""
    log = RedisLog(url)
    await log.append_command(frame)
    await log.close()


def test_what_was_lost_is_missed(data_dir: Path) -> None:
    """`verify` finds that the log ends before the archive beside it, and `sql` does not answer from both."""
    ok("verify", "--data-dir", data_dir)
    with server(data_dir) as client:
        cut(client, 6, 6)

    found = run("verify", "--data-dir", data_dir)

    assert config.EXIT_FINDING == found.exit_code
    assert "NOT intact: entry 7: the log ends at entry 6" in found.stdout
    refused(config.EXIT_REWOUND, "sql", "SELECT 1", "--data-dir", data_dir)


def test_what_is_no_archive_leaves_no_directory(tmp_path: Path) -> None:
    """`import` of a missing or an unreadable archive makes no server on the data directory."""
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    for source in ("none", "bad.tar"):
        refused(
            config.EXIT_UNAVAILABLE, "archive", "import", tmp_path / source, "--data-dir", tmp_path / "data"
        )
    assert not (tmp_path / "data").exists()


def test_what_was_decided_after_the_loss_is_never_overwritten(data_dir: Path) -> None:
    """A log that went on, or a new one in place of the lost one: refused, and nothing is touched."""
    with server(data_dir) as client:
        cut(client, 6, 6)
    with EmbeddedServer(data_dir) as running:

        async def deposit() -> None:
            async with exchange(running.socket_path) as client:
                await client.ask(Deposit(account_id=ALICE, amount=money("1")))

        asyncio.run(deposit())
    with server(data_dir) as client:
        before = stored(client)
    said = refused(config.EXIT_REWOUND, "recover", "--data-dir", data_dir)
    assert "it was lost and went on" in said
    with server(data_dir) as client:
        assert before == stored(client)
        client.flushall()
    with EmbeddedServer(data_dir) as running:
        asyncio.run(trade(running.socket_path))
    said = refused(config.EXIT_REWOUND, "recover", "--data-dir", data_dir)
    assert "the log is another one" in said


def test_a_damaged_archive_puts_nothing_back(data_dir: Path) -> None:
    """The damage is found and named before the first entry is written."""
    with server(data_dir) as client:
        cut(client, 6, 6)
        before = stored(client)
    (segment,) = (data_dir / config.ARCHIVE_DIR_NAME / "events").iterdir()
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)

    assert "does not match its checksum" in refused(config.EXIT_CORRUPT, "recover", "--data-dir", data_dir)
    with server(data_dir) as client:
        assert before == stored(client)


def test_nothing_is_put_back_beside_a_writer(data_dir: Path) -> None:
    """While the lease is held, recovery is refused."""
    with server(data_dir) as client:
        cut(client, 6, 6)
        client.set(PREFIX + "lease", "w", ex=600)
        said = refused(config.EXIT_FENCED, "recover", "--data-dir", data_dir)
    assert "a writer holds the lease" in said


def test_a_trimmed_log_is_read_with_its_archive(exported: tuple[Path, str], data_dir: Path) -> None:
    """What the streams no longer hold comes from the archive beside them; without it the error says so."""

    async def trim(url: str) -> None:
        log = RedisLog(url)
        (entry,) = await log.read_events(7, 1)
        await log.trim(Head(seq=8, chain_hash=entry.chain_hash))
        await log.close()

    with EmbeddedServer(data_dir) as running:
        asyncio.run(trim(running.socket_path))

    assert exported[1] == ok("replay", "--data-dir", data_dir)["digest"]
    (data_dir / config.ARCHIVE_DIR_NAME).rename(data_dir / "elsewhere")
    assert "the log keeps entries from 8 on" in refused(
        config.EXIT_UNAVAILABLE, "replay", "--data-dir", data_dir
    )
