"""`foldex verify` and `foldex head` as a user runs them, on archives, snapshots and servers; and upgrades."""

import asyncio
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from events.archive import ArchivedLog
from events.commands import Deposit
from events.embedded import EmbeddedServer
from events.events import Deposited, RulesChanged
from events.snapshot import save
from exchange import config
from exchange.aggregate.state import RULES_VERSION
from exchange.archiving import export_log
from exchange.cli import app
from tests.fixtures.make_schema_v1 import OTHER_RULES, record
from tests.fixtures.recorder import Recorder, flip, traded
from tests.integration.other_rules import OTHER_VERSION
from tests.integration.processes import Process, connected
from tests.integration.test_cli import trade
from tests.unit.test_archive import lie_about_amounts
from tests.venue import money
from tests.waiting import within

NEWER = "tests.integration.other_rules"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a server and directories of whoever runs the tests out of them."""
    for name in (config.REDIS_URL_ENV, config.ARCHIVE_ENV, config.SNAPSHOT_DIR_ENV):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(config.LOG_FORMAT_ENV, "console")
    monkeypatch.setenv(config.LOG_LEVEL_ENV, "info")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Return a log with every kind of event, the last of them decided under other rules."""
    return record(1, tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="module")
def archive(recorded: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return that log as an archive."""
    archive = tmp_path_factory.mktemp("exported") / "archive"
    asyncio.run(export_log(recorded.log, str(archive)))
    return archive


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(result: Result, code: int = config.EXIT_OK) -> dict[str, Any]:
    """Return what a command printed as JSON."""
    assert code == result.exit_code, result.output
    line: dict[str, Any] = json.loads(result.stdout)
    return line


def test_an_archive_is_verified_and_decided_again(archive: Path, recorded: Recorder, tmp_path: Path) -> None:
    """Exit code 0; the digest is the writer's; what other rules decided is applied and named."""
    nowhere = tmp_path / "nowhere"
    line = answer(run("verify", "--decide", "--archive", archive, "--data-dir", nowhere, "--json"))

    assert (True, None, recorded.head.seq) == (line["intact"], line["finding"], line["entries"])
    assert (recorded.state.digest().hex(), 1) == (line["digest"], line["checkpoints"])
    assert [(RULES_VERSION, True), (OTHER_RULES, False)] == [
        (span["rules_version"], span["is_decided"]) for span in line["rules"]
    ]
    assert line["failures"]

    text = run("verify", "--archive", archive, "--data-dir", nowhere).stdout
    assert text.endswith("intact\n")
    assert f"to be decided again by a build of that version, this one has {RULES_VERSION}\n" in text


def test_a_finding_is_exit_code_1_and_names_the_entry(tmp_path: Path) -> None:
    """With and without --json."""
    recorder = traded(3)
    asyncio.run(export_log(recorder.log, str(tmp_path / "archive")))
    snapshots = tmp_path / "snapshots"
    path = save(snapshots, recorder.snapshot())
    path.write_bytes(flip(path.read_bytes(), Random(1)))
    command = ("verify", "--archive", tmp_path / "archive", "--snapshots", snapshots)

    line = answer(run(*command, "--json"), config.EXIT_FINDING)
    assert (False, recorder.head.seq) == (line["intact"], line["finding"]["seq"])
    result = run(*command)
    assert config.EXIT_FINDING == result.exit_code
    assert f"NOT intact: entry {recorder.head.seq}: its snapshot" in result.stdout


def test_an_archive_too_damaged_to_be_opened_is_a_finding(tmp_path: Path) -> None:
    """A manifest with a flipped bit: exit code 1, the entry on stderr."""
    asyncio.run(export_log(traded(3).log, str(tmp_path / "archive")))
    (manifest,) = (tmp_path / "archive" / "segments").iterdir()
    manifest.write_bytes(flip(manifest.read_bytes(), Random(1)))

    result = run("verify", "--archive", tmp_path / "archive")

    assert config.EXIT_FINDING == result.exit_code
    assert "foldex: entry 1: the manifest" in result.output


def test_a_column_that_lies_is_a_finding(tmp_path: Path) -> None:
    """What queries would read is compared with the entries, which are intact."""
    asyncio.run(export_log(traded(3).log, str(tmp_path)))
    (segment,) = ArchivedLog(tmp_path).segments
    lie_about_amounts(tmp_path, segment)

    line = answer(run("verify", "--archive", tmp_path, "--json"), config.EXIT_FINDING)

    assert "the archive's column amount does not say what the entry says" == line["finding"]["what"]


def test_an_interrupted_verification_does_not_say_intact(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is neither success nor a finding."""

    async def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exchange.audit.cli.verify", interrupt)

    assert config.EXIT_INTERRUPTED == run("verify", "--archive", archive).exit_code


def test_a_head_is_found_again_or_missed(archive: Path, recorded: Recorder) -> None:
    """A token of the end is good for the log; one of another end is a finding."""
    token = run("head", "--archive", archive).stdout.strip()
    last = recorded.head
    assert f"{last.seq}:{last.chain_hash.hex()}:{'1' * 32}" == token

    assert answer(run("verify", "--archive", archive, "--head", token, "--json"))["intact"]
    longer = token.replace(f"{last.seq}:", f"{last.seq + 1}:", 1)
    line = answer(run("verify", "--archive", archive, "--head", longer, "--json"), config.EXIT_FINDING)
    assert last.seq + 1 == line["finding"]["seq"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--head", "12"), "must be SEQ:HASH"),
        (("--head", "7:" + "00" * 32, "--to", "6"), "entry 7 is not among those to verify"),
        (("--to", "9999"), "there is no entry 9999"),
        (("--from", "4", "--to", "2"), "is before --from, entry 4"),
    ],
)
def test_what_cannot_be_verified_is_wrong_usage(archive: Path, options: tuple[str, ...], said: str) -> None:
    """A token that is none, a range that leaves it out, an entry that is not there."""
    result = run("verify", "--archive", archive, *options)
    assert config.EXIT_USAGE == result.exit_code
    assert said in " ".join(result.output.replace("│", " ").split())


def test_verify_of_a_server_with_a_range(tmp_path: Path) -> None:
    """The log of a data directory, as `foldex up` leaves it; its head is in it later, with more behind it."""
    data_dir = tmp_path / "data"
    with EmbeddedServer(data_dir) as server:
        digest = asyncio.run(trade(server.socket_path))
        token = run("head", "--redis-url", server.socket_path).stdout.strip()
        line = answer(run("verify", "--decide", "--head", token, "--redis-url", server.socket_path, "--json"))
        part = answer(run("verify", "--to", "3", "--redis-url", server.socket_path, "--json"))

    assert (digest, token) == (line["digest"], line["head"])
    assert (1, 3) == (part["from"], part["to"])
    assert config.EXIT_UNAVAILABLE == run("verify", "--data-dir", tmp_path / "none").exit_code


@pytest.mark.slow
async def test_newer_rules_decide_only_when_told_to(server: EmbeddedServer, tmp_path: Path) -> None:
    """A newer build that stands by waits; with --upgrade it announces its rules; an older one refuses."""
    url = server.socket_path

    with ExitStack() as stack:

        def start(name: str, *options: str, module: str = "exchange.cli") -> Process:
            process = Process(tmp_path / name, "writer", "--redis-url", url, *options, module=module)
            stack.callback(process.end)
            return process

        older = start("older")
        await older.line("ready")
        waiting = start("waiting", "--standby", module=NEWER)
        await waiting.line("waiting_for_upgrade")
        async with connected(url) as client:
            older.send(signal.SIGTERM)
            assert config.EXIT_OK == await older.code()

            refusing = start("refusing", module=NEWER)
            assert config.EXIT_RULES == await refusing.code()
            assert "with --upgrade" in str((await refusing.line("stopped_by"))["error"])

            upgrading = start("upgrading", "--upgrade", module=NEWER)
            await upgrading.line("upgrading_rules")
            # Nobody decides before there is something to decide, so nothing is announced before.
            await within(client.ask(Deposit(account_id=0, amount=money("1"))))
            changed = [event for event in client.events if isinstance(event, RulesChanged)]
            assert [RulesChanged(rules_version=OTHER_VERSION, replaced=RULES_VERSION)] == changed

            # The rules are its own now: who waited takes over when the other one dies.
            upgrading.end()
            await waiting.line("took_over")
            (deposited,) = await client.ask(Deposit(account_id=0, amount=money("2")))
            assert isinstance(deposited, Deposited)

            outdated = start("outdated", "--standby")
            assert config.EXIT_RULES == await outdated.code()
            assert "use a newer build" in str((await outdated.line("stopped_by"))["error"])
            waiting.send(signal.SIGTERM)
            assert config.EXIT_OK == await waiting.code()

        line = answer(await asyncio.to_thread(run, "verify", "--decide", "--redis-url", url, "--json"))
        assert [(RULES_VERSION, True), (OTHER_VERSION, False)] == [
            (span["rules_version"], span["is_decided"]) for span in line["rules"]
        ]
