"""`foldex whatif` and `foldex modes` as a user runs them: what they print, and how they end."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from events.embedded import EmbeddedServer
from exchange import config
from exchange.cli import app
from exchange.whatif.example import write_example
from tests.integration.test_cli import ALICE, trade

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
MODEL = ("--model", EXAMPLES / "prices-3.json", "--horizon", 20, "--paths", 50)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a server and an archive of whoever runs the tests out of them."""
    for name in (config.REDIS_URL_ENV, config.ARCHIVE_ENV):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the story of the documentation as an archive."""
    path = tmp_path_factory.mktemp("story") / "archive"
    asyncio.run(write_example(str(path)))
    return path


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """Return what a command prints as JSON."""
    result = run(*arguments, "--json")
    assert config.EXIT_OK == result.exit_code, result.output
    line: dict[str, Any] = json.loads(result.stdout)
    return line


def test_the_unchanged_run_in_json(story: Path) -> None:
    """Reproduced, with the digest that `replay` finds, and nobody fared differently."""
    report = answer("whatif", "--archive", story)

    assert report["reproduced"] is True
    assert report["digest"] == report["digest_recorded"] == answer("replay", "--archive", story)["digest"]
    assert [] == report["accounts"] == report["refused"]


def test_a_changed_run_in_json(story: Path) -> None:
    """Before and after of the account, and of the venue."""
    report = answer("whatif", "--archive", story, "--mode", "3:BTCUSDT=cross")

    (ida,) = report["accounts"]
    assert (True, False) == (ida["before"]["liquidated"], ida["after"]["liquidated"])
    assert ("2000.00000000", "2700.00000000") == (ida["before"]["equity"], ida["after"]["equity"])
    assert "1.20400000" == ida["before"]["worst_margin_ratio"]
    assert {"recorded": 3, "kept": 2, "left_out": 1, "added_at_answer": 0, "added_at_lag": 0} == report[
        "requests"
    ]
    venue = report["venue"]
    assert (2, 1) == tuple(venue[side]["liquidations"]["isolated"] for side in ("before", "after"))
    assert "as recorded" in report["note"]


def test_accounts_that_are_asked_for(story: Path) -> None:
    """Only these are shown, changed or not."""
    report = answer("whatif", "--archive", story, "--mode", "3:BTCUSDT=cross", "--account", "4")
    assert [4] == [each["account_id"] for each in report["accounts"]]


def test_a_run_that_stops_early(story: Path) -> None:
    """Behind entry 30 nobody has died yet."""
    report = answer("whatif", "--archive", story, "--until", "30")
    assert (30, True, 0) == (
        report["entries"],
        report["reproduced"],
        report["venue"]["before"]["accounts_liquidated"],
    )


def test_a_tar_file_is_read_as_well(story: Path, tmp_path: Path) -> None:
    """The story as a .tar gives the same run."""
    assert config.EXIT_OK == run("whatif", "--example", tmp_path / "story.tar").exit_code
    report = answer("whatif", "--archive", tmp_path / "story.tar")
    assert report["digest"] == answer("whatif", "--archive", story)["digest"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "3:BTCUSDT=both"), "--mode 3:BTCUSDT=both: must be cross or isolated"),
        (("--wallet", "99=5"), "there is no account 99 in this log"),
        (("--moves", "DOGEUSDT=2"), "DOGEUSDT is not listed in this log"),
        (("--shift", "BTCUSDT=-60000"), "the price of BTCUSDT would not be positive"),
        (("--until", "99"), "the log ends at entry 46; there is no entry 99"),
        (("--account", "99"), "there is no account 99 in this log"),
    ],
)
def test_what_cannot_be_is_exit_code_2(arguments: tuple[str, ...], message: str, story: Path) -> None:
    """One line on standard error that names it, and nothing on standard output."""
    result = run("whatif", "--archive", story, *arguments)

    assert config.EXIT_USAGE == result.exit_code
    assert message in result.stderr
    assert "" == result.stdout


def test_no_log_is_exit_code_3(tmp_path: Path) -> None:
    """An archive that is not there."""
    assert config.EXIT_UNAVAILABLE == run("whatif", "--archive", tmp_path / "nowhere").exit_code


def test_a_server_s_log_is_run_again(tmp_path: Path) -> None:
    """What an appender and a writer made on a real server comes out again; alice's wallet can be another."""
    with EmbeddedServer(tmp_path / "data") as server:
        digest = asyncio.run(trade(server.socket_path))
    place = ("--data-dir", tmp_path / "data")

    assert (digest, True) == tuple(answer("whatif", *place)[name] for name in ("digest", "reproduced"))
    (alice,) = answer("whatif", *place, "--wallet", f"{ALICE}=+50")["accounts"]
    gain = float(alice["after"]["equity"]) - float(alice["before"]["equity"])
    assert 50.0 == round(gain, 8)


# Which mode


def test_modes_in_json() -> None:
    """Least collateral by share of paths, the given one's fate, and the need of every path."""
    report = answer("modes", EXAMPLES / "offsetting.json", *MODEL)

    assert (50, 21) == (report["paths"]["count"], report["paths"]["points"])
    assert 50 == len(report["each"]["cross"]) == len(report["each"]["isolated"])
    assert [0.5, 0.75, 0.9, 0.95, 0.99, 1.0] == [row["survive"] for row in report["least"]]
    assert "3000.00000000" == report["given"]["collateral"]
    assert {"BTCUSDT falls", "all fall alike"} <= {each["name"] for each in report["pool"]["shocks"]}


def test_the_same_seed_prints_the_same() -> None:
    """And another one something else."""
    first, second = (run("modes", EXAMPLES / "one-way.json", *MODEL) for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout != run("modes", EXAMPLES / "one-way.json", *MODEL, "--seed", 2).stdout


@pytest.mark.parametrize("moment", ["30", "2025-10-10T21:20:30", "2025-10-10T23:20:30.5+02:00"])
def test_the_positions_of_an_account_of_a_log(story: Path, moment: str) -> None:
    """Carl's three positions as they were behind entry 30, by number or by time, on 1,500."""
    report = answer("modes", "--archive", story, "--account", 4, "--at", moment, *MODEL)

    assert ["BTCUSDT", "ETHUSDT", "SOLUSDT"] == [each["market"] for each in report["book"]["positions"]]
    assert "1500.00000000" == report["book"]["collateral"]
    assert "48000.00" == report["book"]["positions"][0]["mark"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--at", "99"), "the log ends at entry 46; there is no entry 99"),
        (("--at", "2020-01-01"), "the log begins after 2020-01-01"),
        (("--at", "noon"), "must be a sequence number or a time like"),
        (("--at", "9"), "there is no account 4 at entry 9"),
        (("--at", "20"), "the book has none"),
    ],
)
def test_a_moment_without_the_positions_is_named(
    story: Path, arguments: tuple[str, ...], message: str
) -> None:
    """Before the account, before its positions, behind the log's end: exit code 2 and why."""
    result = run("modes", "--archive", story, "--account", 4, *arguments, *MODEL)

    assert config.EXIT_USAGE == result.exit_code
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a BOOK, or --account and a log"),
        ((EXAMPLES / "one-way.json",), "give --prices, or --model"),
        ((EXAMPLES / "prices-3.json", *MODEL), "step_s: is not a known field"),
        ((EXAMPLES / "nowhere.json", *MODEL), "No such file"),
        ((EXAMPLES / "hedged-20.json", *MODEL), "the model has no asset"),
        ((EXAMPLES / "one-way.json", *MODEL, "--collateral", "much"), "must be a plain decimal number"),
        ((EXAMPLES / "one-way.json", *MODEL, "--stop", "DOGE=1"), "must be MARKET=PRICE with one of BTCUSDT"),
        ((EXAMPLES / "one-way.json", *MODEL, "--target", "BTCUSDT=0.01"), "must be a multiple of 0.1"),
        ((EXAMPLES / "one-way.json", "--prices", "BTCUSDT=nowhere.csv"), "nowhere.csv"),
        ((EXAMPLES / "one-way.json", "--prices", "x.csv", "--draw", "cards"), "must be one of whole"),
    ],
)
def test_what_modes_cannot_use_is_exit_code_2(arguments: tuple[object, ...], message: str) -> None:
    """A message that names it."""
    result = run("modes", *arguments)

    assert config.EXIT_USAGE == result.exit_code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
