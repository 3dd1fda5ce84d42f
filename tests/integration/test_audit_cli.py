"""`foldex audit` as a user runs it: on a log on a real server, on its archive, on one with a byte changed."""

import asyncio
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from events.embedded import EmbeddedServer
from exchange import config
from exchange.archiving import export_log
from exchange.cli import app
from tests.audited import BTC, ETH, Scene, log_of, put, scene, spoil

FEW = ("necessary", "sufficient", "orderly", "complete")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a server and directories of whoever runs the tests out of them."""
    for name in (config.REDIS_URL_ENV, config.ARCHIVE_ENV, config.SNAPSHOT_DIR_ENV):
        monkeypatch.delenv(name, raising=False)


def story() -> Scene:
    """Return a venue on which carol's short is deleveraged against alice, and bob's pool is taken over."""
    s = scene(fund="100")
    carol = s.venue.account("1000")
    carol.mode(BTC, "ISOLATED")
    carol.leverage(BTC, 10)
    s.bob.buy(BTC, "0.1", "50000")
    carol.sell(BTC, "0.1", "50000")
    s.open(ETH, "BUY", "5", "3000", mode="CROSS", leverage=20)
    s.venue.index(ETH, "2805")
    s.bob.buy(ETH, "5", "2804")
    s.venue.liquidate(s.alice)
    s.venue.index(BTC, "58000")
    s.venue.liquidate(carol, BTC)
    return s


@pytest.fixture(scope="module")
def venue() -> Scene:
    """Lend the story."""
    return story()


@pytest.fixture(scope="module")
def server(venue: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Lend a server that has the story's log."""
    with EmbeddedServer(tmp_path_factory.mktemp("audit") / "data") as server:
        asyncio.run(put(log_of(venue.venue), server.socket_path))
        yield server


def run(*arguments: object) -> Result:
    """Run `foldex audit …` in this process."""
    return CliRunner().invoke(app, ["audit", *(str(argument) for argument in arguments)])


def lines(result: Result, code: int = config.EXIT_OK) -> list[dict[str, Any]]:
    """Return what a command printed as JSON, an object a line."""
    assert code == result.exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_liquidations_are_listed_in_three_forms(server: EmbeddedServer, venue: Scene) -> None:
    """The same rows as JSON, CSV and a table; filters leave those that are meant."""
    where = ("--redis-url", server.socket_path)
    rows = lines(run("liquidations", *where, "--json"))
    table = run("liquidations", *where).stdout
    sheet = list(csv.DictReader(io.StringIO(run("liquidations", *where, "--csv").stdout)))

    assert [("pool", "cross"), (BTC, "isolated")] == [(row["market"], row["mode"]) for row in rows]
    assert [row["loss"] for row in rows] == [row["loss"] for row in sheet]
    assert "cross pool" in table
    assert "2 liquidations" in table
    (party,) = rows[1]["deleveraged"]
    assert (venue.bob.account_id, "0.100") == (party["account_id"], party["size"])
    for options, count in (
        (("--mode", "cross"), 1),
        (("--market", BTC), 1),
        (("--result", "deleveraged"), 1),
        (("--account", venue.alice.account_id), 1),
        (("--from", rows[1]["seq"]), 1),
        (("--to", rows[0]["time"]), 1),
        (("--account", 1), 0),
    ):
        assert count == len(lines(run("liquidations", *where, *options, "--json"))), options


def test_explain_tells_and_writes(server: EmbeddedServer, tmp_path: Path) -> None:
    """Text, JSON, a page, a drawing in either format; every liquidation of the log comes out equal."""
    where = ("--redis-url", server.socket_path)
    for number in (1, 2):
        page, drawing = tmp_path / "report.html", tmp_path / f"path.{('svg', 'png')[number - 1]}"
        (data,) = lines(run("explain", number, *where, "--json", "--html", page, "--chart", drawing))
        assert {"equal": True, "worksheet": "equal", "steps": "equal", "decision": "equal"} == data[
            "recomputed"
        ]
        assert f"<title>Liquidation {number}</title>" in page.read_text()
        assert drawing.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")
        text = run("explain", number, *where).stdout
        assert text.rstrip().endswith("EQUAL")
        assert data["chain_hash"] in text


def test_accounts_travel_in_time(server: EmbeddedServer, venue: Scene, tmp_path: Path) -> None:
    """Now, behind an entry, between two moments; the same with snapshots to start from."""
    where = ("--redis-url", server.socket_path)
    alice = venue.alice.account_id
    (first, _) = lines(run("liquidations", *where, "--json"))
    (made,) = lines(run("snapshots", *where, "--every", 5, "--directory", tmp_path, "--json"))
    assert len(made["entries"]) > 3

    (before,) = lines(run("account", alice, *where, "--at", first["seq"] - 1, "--json"))
    (near,) = lines(
        run("account", alice, *where, "--at", first["seq"] - 1, "--json", "--snapshots", tmp_path)
    )
    assert before == near
    assert "5.000" == before["positions"][ETH]["size"]
    assert {} == lines(run("account", alice, *where, "--json"))[0]["positions"]
    (diff,) = lines(run("account", alice, *where, "--json", "--diff", first["seq"] - 1, first["seq"]))
    assert "wallet" in {row["field"] for row in diff["changes"]}
    assert ETH in run("account", alice, *where, "--at", first["seq"] - 1).stdout
    assert "wallet" in run("account", alice, *where, "--diff", first["seq"] - 1, first["seq"]).stdout


def test_the_audit_is_clean_and_a_changed_byte_is_named(venue: Scene, tmp_path: Path) -> None:
    """Server and archive; then one byte of one stored event is another, and its entry is named."""
    log = log_of(venue.venue)
    archive = tmp_path / "archive"
    asyncio.run(export_log(log, str(archive)))
    with EmbeddedServer(tmp_path / "data") as server:
        asyncio.run(put(log, server.socket_path))
        for where in (("--redis-url", server.socket_path), ("--archive", archive)):
            (report,) = lines(run("verify", *where, "--json"))
            assert (True, 2, []) == (report["clean"], report["liquidations"], report["findings"])
            assert run("verify", *where).stdout.endswith(f"{', '.join(FEW)}\n")

        seq = spoil(server.socket_path, 0.5)
        (report,) = lines(run("verify", "--redis-url", server.socket_path, "--json"), config.EXIT_FINDING)
        result = run("verify", "--redis-url", server.socket_path)

    assert (seq, "chain", False) == (
        report["findings"][0]["seq"],
        report["findings"][0]["rule"],
        report["is_complete"],
    )
    assert f"NOT chain: entry {seq}: " in result.stdout


def test_a_bucket_nobody_asked_about_is_a_finding(tmp_path: Path) -> None:
    """Exit code 1, the entry where it became due, and how long was allowed."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "30000")
    due = len(s.venue.log)
    for _ in range(5):
        s.venue.after(1)
    archive = tmp_path / "archive"
    asyncio.run(export_log(log_of(s.venue), str(archive)))

    assert lines(run("verify", "--archive", archive, "--json"))[0]["clean"]
    (report,) = lines(run("verify", "--archive", archive, "--json", "--late-events", 3), config.EXIT_FINDING)
    (finding,) = report["findings"]
    assert (due, "sufficient") == (finding["seq"], finding["rule"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", 9), "there is no liquidation 9; the last one is 2"),
        (("explain", 1, "--chart", "path.pdf"), "path.pdf is neither .svg nor .png"),
        (("account", 99), "there is no account 99"),
        (("account", 2, "--at", "tomorrow"), "must be a sequence number or a time like"),
        (("account", 2, "--at", 9999), "there is no entry 9999"),
        (("account", 2, "--at", 1, "--diff", 1, 2), "give one of --at and --diff"),
        (("liquidations", "--json", "--csv"), "give one of --json and --csv"),
        (("liquidations", "--market", "DOGEUSDT"), "DOGEUSDT is not listed in this log"),
        (("verify", "--to", "2001-01-01"), "the log begins after 2001-01-01"),
        (("verify", "--from", 4, "--to", 2), "--to is entry 2, and --from entry 4 is behind it"),
        (("liquidations", "--from", 3, "--to", 2), "--to is entry 2, and --from entry 3 is behind it"),
    ],
)
def test_wrong_usage_is_said(server: EmbeddedServer, arguments: tuple[object, ...], said: str) -> None:
    """Exit code 2, and what is wrong."""
    result = run(*arguments, "--redis-url", server.socket_path)

    assert config.EXIT_USAGE == result.exit_code, result.output
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_report_that_cannot_be_written_is_said(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is not there: exit code 74; no Matplotlib: exit code 2 and what to install."""
    where = ("--redis-url", server.socket_path)
    result = run("explain", 1, *where, "--html", tmp_path / "none" / "report.html")
    assert config.EXIT_OUTPUT == result.exit_code
    assert "report.html could not be written" in result.output

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("explain", 1, *where, "--chart", tmp_path / "path.svg")
    assert config.EXIT_USAGE == result.exit_code
    assert "foldex[audit]" in result.output


def test_without_a_log_nothing_is_said_to_be_clean(tmp_path: Path) -> None:
    """No server there: exit code 3."""
    assert config.EXIT_UNAVAILABLE == run("verify", "--data-dir", tmp_path / "none").exit_code


def test_the_snapshots_of_an_archive_go_where_it_is_said(venue: Scene, tmp_path: Path) -> None:
    """No data directory belongs to an archive, and none is made: without --directory nothing is written."""
    archive, directory = tmp_path / "archive", tmp_path / "near"
    asyncio.run(export_log(log_of(venue.venue), str(archive)))

    refused = run("snapshots", "--archive", archive, "--data-dir", tmp_path / "data")
    (made,) = lines(run("snapshots", "--archive", archive, "--every", 5, "--directory", directory, "--json"))

    assert config.EXIT_USAGE == refused.exit_code
    assert "--directory" in refused.stderr
    assert not (tmp_path / "data").exists()
    assert str(directory) == made["directory"]
    assert list(directory.iterdir())
