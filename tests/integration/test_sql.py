"""`foldex sql`: queries over an archive, a live log, and both."""

import asyncio
import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from events.archive import ArchivedLog, SegmentWriter
from events.log import CorruptLogError, LogRewoundError
from events.memory import MemoryLog
from exchange import config
from exchange.cli import app
from exchange.sql import QueryError, query
from tests.traded import LOG_ID, LoggedVenue, answered, traded


async def archive_of(path: Path, log: MemoryLog, entries: int) -> ArchivedLog:
    """Archive the first entries of a log."""
    writer = SegmentWriter(path)
    for command, verified in (await answered(log))[:entries]:
        writer.add(command, verified, LOG_ID)
    writer.flush()
    writer.close()
    return ArchivedLog(path)


async def rows(sql: str, archive: ArchivedLog | None, live: MemoryLog | None) -> list[tuple[Any, ...]]:
    """Run a query; decimals as they are printed."""
    return [
        tuple(f"{value:f}" if isinstance(value, Decimal) else value for value in row)
        for row in (await query(sql, archive, live)).rows
    ]


@pytest.fixture(params=["live", "both", "archive"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ArchivedLog | None, MemoryLog | None]:
    """The same log: not archived, archived up to the trade and trimmed, and moved here as an archive."""
    whole = traded().as_log()
    if request.param == "live":
        return None, whole
    if request.param == "archive":
        return await archive_of(tmp_path, whole, 12), None
    archive = await archive_of(tmp_path, whole, 9)
    await whole.trim(archive.head)
    return archive, whole


Both = tuple[ArchivedLog | None, MemoryLog | None]


async def test_messages_have_their_fields_in_decimals(log: Both) -> None:
    """Each event once, wherever it is stored; amounts in quote, prices and sizes of their market."""
    assert [(12, 12)] == await rows("SELECT count(*), count(DISTINCT seq) FROM commands", *log)
    assert [(5, 2, "1000.00000000"), (7, 3, "1000.00000000")] == await rows(
        "SELECT seq, account_id, amount FROM events WHERE type = 'deposited' ORDER BY seq", *log
    )
    assert [("sell", "50000.50000000", "0.01000000", "first")] == await rows(
        "SELECT side, price, quantity, client_order_id FROM commands WHERE type = 'place_order' AND seq = 9",
        *log,
    )
    assert [(11, "insufficient_balance")] == await rows(
        "SELECT seq, code FROM events WHERE type = 'rejected'", *log
    )


async def test_orders_are_what_became_of_them(log: Both) -> None:
    """Two that filled in one trade, one that rests, with what they were filled at."""
    assert [
        (2, "sell", "0.01000000", "0.01000000", 50000.5, "filled"),
        (3, "buy", "0.01000000", "0.01000000", 50000.5, "filled"),
        (2, "sell", "0.00300000", "0.00000000", None, "open"),
    ] == await rows(
        "SELECT account_id, side, quantity, filled, average_price, status FROM orders ORDER BY order_id", *log
    )


async def test_trades_and_balances_agree(log: Both) -> None:
    """0.01 × 50,000.5 = 500.005; the fees of 0.02 % and 0.05 % are what the wallets miss."""
    assert [("500.00500000", "0.10000100", "0.25000250", 2, 3)] == await rows(
        "SELECT value, maker_fee, taker_fee, maker_account_id, taker_account_id FROM trades", *log
    )
    assert [(2, "999.89999900", 1), (3, "999.74999750", 0)] == await rows(
        "SELECT account_id, wallet, open_orders FROM balances WHERE account_id > 1 ORDER BY 1", *log
    )
    assert [("2000.00000000",)] == await rows("SELECT sum(wallet) FROM Balances", *log)
    assert [(2, "-0.01000000", "-500.00500000"), (3, "0.01000000", "500.00500000")] == await rows(
        "SELECT account_id, size, entry_cost FROM positions ORDER BY 1", *log
    )


async def test_orders_end_in_every_way() -> None:
    """Cancelled, expired, amended and partly filled orders show as that."""
    venue = LoggedVenue()
    alice, bob = venue.account("1000"), venue.account("1000")
    venue.index("BTCUSDT", "50000")
    for size, client_id in (("0.003", "cancelled"), ("0.004", "amended"), ("0.005", "partly")):
        alice.sell("BTCUSDT", size, "50010", client_id=client_id)
    alice.cancel("BTCUSDT", client_id="cancelled")
    alice.amend("BTCUSDT", 0, "0.002", "50005", side="SELL", client_id="amended")
    bob.buy("BTCUSDT", "0.003", "50010", client_id="bob")
    bob.buy("BTCUSDT", "0.001", "40000", tif="IOC", client_id="expired")

    assert [
        ("amended", "50005.00000000", "0.00200000", "0.00200000", "filled"),
        ("bob", "50010.00000000", "0.00300000", "0.00300000", "filled"),
        ("cancelled", "50010.00000000", "0.00300000", "0.00000000", "cancelled"),
        ("expired", "40000.00000000", "0.00100000", "0.00000000", "expired"),
        ("partly", "50010.00000000", "0.00500000", "0.00100000", "partially_filled"),
    ] == await rows(
        "SELECT client_order_id, price, quantity, filled, status FROM orders ORDER BY 1", None, venue.as_log()
    )


async def test_liquidations_have_their_beginning_and_end() -> None:
    """One row a liquidation: what was there, what was charged, how it ended."""
    venue = LoggedVenue()
    alice, bob = venue.account("300"), venue.account("100000")
    venue.index("BTCUSDT", "50000")
    alice.leverage("BTCUSDT", 20)
    bob.sell("BTCUSDT", "0.1", "50000")
    alice.buy("BTCUSDT", "0.1", "50000")
    bob.buy("BTCUSDT", "1", "47100")
    venue.index("BTCUSDT", "47100")
    venue.liquidate(alice)

    ((liquidation_id, account_id, market, mode, result),) = await rows(
        "SELECT liquidation_id, account_id, market, mode, result FROM liquidations", None, venue.as_log()
    )
    assert (1, 2, None, "cross") == (liquidation_id, account_id, market, mode)
    assert result is not None
    assert [(1,)] == await rows("SELECT count(*) FROM trades WHERE liquidation_id > 0", None, venue.as_log())


async def test_rows_of_two_logs_are_not_mixed(tmp_path: Path) -> None:
    """A live log that ends before its archive, or is another one, is refused instead of queried with it."""
    archive = await archive_of(tmp_path, traded().as_log(), 12)
    shorter = traded().as_log()
    del shorter.commands[8:], shorter.events[8:]
    for live in (traded().as_log(), shorter):
        with pytest.raises(LogRewoundError):
            await query("SELECT count(*) FROM trades", archive, live)


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_damaged_archive_is_not_the_querys_fault(tmp_path: Path, is_gone: bool) -> None:
    """A missing or truncated segment is named as damage; a wrong query on an intact archive is not."""
    archive = await archive_of(tmp_path, traded().as_log(), 12)
    (events,) = (tmp_path / "events").iterdir()
    if is_gone:
        events.unlink()
    else:
        events.write_bytes(events.read_bytes()[:-100])

    with pytest.raises(CorruptLogError, match="the archive's file events/"):
        await query("SELECT count(*) FROM events", archive, None)


def test_what_is_answered_was_compared_with_its_checksum(tmp_path: Path) -> None:
    """A flipped bit anywhere in a file is found, also where no column that the query reads is touched."""
    asyncio.run(archive_of(tmp_path, traded().as_log(), 12))
    (commands,) = (tmp_path / "commands").iterdir()
    whole = commands.read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 20):
        commands.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        result = run("sql", "SELECT count(*) FROM trades", "--archive", tmp_path)
        assert config.EXIT_CORRUPT == result.exit_code
        assert f"the archive's file commands/{commands.name} does not match" in result.stderr


async def test_only_what_is_for_queries_is_listed(log: Both) -> None:
    """SHOW TABLES names the seven views, and none of what they are made of; each says its columns."""
    views = ["balances", "commands", "events", "liquidations", "orders", "positions", "trades"]

    assert [(name,) for name in views] == await rows("SHOW TABLES", *log)
    for name in views:
        assert await rows(f"DESCRIBE {name}", *log)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("COPY events TO 'x.csv'", "only one SELECT"),
        ("CREATE TABLE t (a INTEGER)", "only one SELECT"),
        ("SET enable_external_access = true", "only one SELECT"),
        ("SELECT 1; SELECT 2", "only one SELECT"),
        ("", "only one SELECT"),
        ("SELECT * FROM read_csv('x.csv')", "disabled by configuration"),
        ("SELECT * FROM 'x.parquet'", "x.parquet"),
        ("SELECT nothing FROM events", "nothing"),
        ("SELEC 1", "syntax error"),
    ],
)
async def test_only_questions_are_answered(sql: str, said: str) -> None:
    """What would change something, or read anything else, is refused in DuckDB's words."""
    with pytest.raises(QueryError, match=said):
        await query(sql, None, traded().as_log())


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, CSV or a table; decimals keep their digits; errors are one line and an exit code."""
    monkeypatch.delenv(config.REDIS_URL_ENV, raising=False)
    monkeypatch.setenv(config.LOG_FORMAT_ENV, "console")
    asyncio.run(archive_of(tmp_path, traded().as_log(), 12))
    sql = "SELECT trade_id, price, time, NULL AS nothing FROM trades"
    time = "2023-11-14T22:13:20.010000"

    as_json = json.loads(run("sql", sql, "--archive", tmp_path, "--json").stdout)
    assert {"trade_id": 1, "price": "50000.50000000", "time": time, "nothing": None} == as_json
    as_csv = list(csv.reader(run("sql", sql, "--archive", tmp_path, "--csv").stdout.splitlines()))
    assert [["trade_id", "price", "time", "nothing"], ["1", "50000.50000000", time, ""]] == as_csv
    assert "50000.50000000" in run("sql", sql, "--archive", tmp_path).stdout

    wrong = run("sql", "SELECT x FROM trades", "--archive", tmp_path)
    assert (config.EXIT_USAGE, True) == (wrong.exit_code, "foldex: Binder Error" in wrong.stderr)
    assert config.EXIT_UNAVAILABLE == run("sql", sql, "--archive", tmp_path / "none").exit_code
    assert config.EXIT_UNAVAILABLE == run("sql", sql, "--data-dir", tmp_path / "none").exit_code
    assert config.EXIT_USAGE == run("sql", sql, "--archive", tmp_path, "--json", "--csv").exit_code
