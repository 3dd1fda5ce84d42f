"""`foldex sql`: DuckDB over the archive and what came after it.

Views, with prices, sizes and money as exact decimals (DECIMAL(28,8), of quote or base currency):

- `commands`, `events`: every message, one row each, with its fields as columns; a column that held ticks,
  lots or money units has the decimal. Amounts beyond what a decimal column holds are null.
- `orders`, `trades`, `liquidations`: what became of each, drawn together from its events.
- `balances`, `positions`: the state at the end, by folding the whole log; done only when a query asks.

Queries run in a database in memory without access to files, network or settings: whatever is asked, the log
and its archive stay as they are.
"""

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from events.archive import ArchivedLog
from events.columns import COMMAND_SCHEMA, EVENT_SCHEMA, FRAME, Answered, command_table, event_table
from events.events import MarketListed
from events.frame import GENESIS_HASH
from events.log import CommandReader, EventReader, Head, Log, ReadableLog
from events.segments import ArchivedThenLive, check_not_behind
from exchange.aggregate.account import Account, Position
from exchange.aggregate.state import Exchange
from exchange.audit.printer import MONEY_FIELDS
from exchange.audit.replay import OnProgress, replay

ENTRIES_PER_READ = 256
ENTRIES_PER_TABLE = 4_096
FOLDED_VIEWS = frozenset({"balances", "positions"})
_PIPE_COLUMNS = 200
# The schema of what the views are made of.
_HIDDEN = "internals"


class QueryError(Exception):
    """The query cannot be run; the message is DuckDB's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Rows of a query, under the names of its columns."""

    names: list[str]
    rows: list[tuple[Any, ...]]


async def query(
    sql: str, archive: ArchivedLog | None, live: Log | None, on_progress: OnProgress | None = None
) -> Result:
    """Run one SELECT over an archive and the live log behind it; either may be missing.

    Every file of the archive is compared with its checksum before: DuckDB would answer from damaged columns.
    `on_progress` is told how many segments are checked, and how many there are.

    Raises:
        QueryError: it is not one SELECT, or DuckDB refuses it.
        CorruptLogError, LogRewoundError, TrimmedError: log or archive are not what was written.
    """
    connection = duckdb.connect(":memory:", config={"enable_external_access": "false"})
    archived = archive if archive is not None and archive.head.seq else None
    try:
        wanted = _check(connection, sql)
        if archived is not None and live is not None:
            # Rows of two logs, or of two courses of one, must not be answered as if they were of one.
            await check_not_behind(live, archived.directory.url)
        if archived is not None:
            archived.check_files(on_progress)
        tail = await _read_tail(archived, live)
        _define_messages(connection, archived, tail)
        # Whoever does not read these views may want to see their names and columns.
        source = _source(archived, live) if wanted & FOLDED_VIEWS else None
        _define_folded(connection, (await replay(source)).state if source else Exchange())
        connection.execute("SET lock_configuration = true")
        cursor = connection.execute(sql)
        return Result(names=[column[0] for column in cursor.description], rows=cursor.fetchall())
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    finally:
        connection.close()


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
    """Make sure that this is one SELECT; return the names of the tables it reads."""
    statements = connection.extract_statements(sql)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise QueryError("only one SELECT can be run: logs and archives are not changed by queries")
    return frozenset(name.lower() for name in connection.get_table_names(sql))


def _source(archive: ArchivedLog | None, live: Log | None) -> ReadableLog | None:
    if archive is not None and live is not None:
        return ArchivedThenLive(archive.directory.url, live)
    return live or archive


async def _read_tail(archive: ArchivedLog | None, live: Log | None) -> tuple[pa.Table, pa.Table]:
    """Return commands and events behind the archive as tables."""
    commands, events = [COMMAND_SCHEMA.empty_table()], [EVENT_SCHEMA.empty_table()]
    batch: list[Answered] = []
    if live is not None:
        after = archive.head if archive is not None else Head(seq=0, chain_hash=GENESIS_HASH)
        target = await live.event_head()
        log_id = archive.log_id if archive is not None else None
        event_reader = EventReader(live, log_id=log_id, after=after)
        command_reader = CommandReader(live, after=after.seq)
        while event_reader.seq < target.seq:
            answers = await event_reader.read_to(target.seq, ENTRIES_PER_READ)
            while answers:
                asked = await command_reader.read(len(answers))
                batch.extend(zip(asked, answers, strict=False))
                answers = answers[len(asked) :]
            if len(batch) >= ENTRIES_PER_TABLE or event_reader.seq >= target.seq:
                commands.append(command_table(batch))
                events.append(event_table(answer for _, answer in batch))
                batch = []
    return pa.concat_tables(commands), pa.concat_tables(events)


def _define_messages(
    connection: duckdb.DuckDBPyConnection, archive: ArchivedLog | None, tail: tuple[pa.Table, pa.Table]
) -> None:
    connection.execute(f"CREATE SCHEMA {_HIDDEN}")
    connection.execute(
        f"CREATE MACRO {_HIDDEN}.fixed(units) AS "
        "CAST(TRY_CAST(units AS DECIMAL(19, 0)) * 0.00000001::DECIMAL(9, 8) AS DECIMAL(28, 8))"
    )
    schemas = (COMMAND_SCHEMA, EVENT_SCHEMA)
    for kind, schema, live in zip(("commands", "events"), schemas, tail, strict=True):
        _hide(connection, f"live_{kind}", live)
        parts = f"SELECT * FROM {_HIDDEN}.live_{kind}"
        if archive is not None:
            stored = ds.dataset(
                archive.tables(kind), schema=schema, filesystem=archive.directory.file_system()
            )
            _hide(connection, f"archived_{kind}", stored)
            parts = f"SELECT * FROM {_HIDDEN}.archived_{kind} UNION ALL {parts}"
        connection.execute(f"CREATE VIEW {_HIDDEN}.all_{kind} AS {parts}")
    listed = MarketListed.__struct_config__.tag
    specs = connection.execute(
        f"SELECT spec FROM {_HIDDEN}.all_events WHERE type = '{listed}' ORDER BY seq"
    ).fetchall()
    _hide(connection, "market_units", _units(text for (text,) in specs))
    for kind, schema in zip(("commands", "events"), schemas, strict=True):
        connection.execute(f"CREATE VIEW {kind} AS {_readable(kind, schema)}")
    for name, text in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {text}")


def _units(specs: Iterable[str]) -> pa.Table:
    """Return what a tick and a lot of each market are worth, from specifications as JSON."""
    rows = [msgspec.json.decode(text) for text in specs]
    names = ("symbol", "tick_size", "lot_size")
    types = (pa.string(), pa.int64(), pa.int64())
    return pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, kind in zip(names, types, strict=True)}
    )


def _readable(kind: str, schema: pa.Schema) -> str:
    """Return the query that gives messages their decimals, and leaves out what stands for whole entries."""
    columns = []
    for name in schema.names:
        if name.startswith("raw_"):
            continue
        is_number = pa.types.is_integer(schema.field(name).type)
        if is_number and name.endswith("_ticks"):
            columns.append(
                f"{_HIDDEN}.fixed(m.{name}::HUGEINT * u.tick_size) AS {name.removesuffix('_ticks')}"
            )
        elif is_number and name.endswith("_lots"):
            columns.append(f"{_HIDDEN}.fixed(m.{name}::HUGEINT * u.lot_size) AS {name.removesuffix('_lots')}")
        elif is_number and name in MONEY_FIELDS:
            columns.append(f"{_HIDDEN}.fixed(m.{name}) AS {name}")
        else:
            columns.append(f'm."{name}"')
    return (
        f"SELECT {', '.join(columns)} FROM {_HIDDEN}.all_{kind} m "
        f"LEFT JOIN {_HIDDEN}.market_units u ON m.market = u.symbol WHERE m.type <> '{FRAME}'"
    )


# An order is as large as it was last made; what of it traded is in the trades of both its sides.
_ORDERS = """
WITH fills AS (
  SELECT order_id, sum(quantity) AS filled, sum(quantity * price) AS value, max(time) AS filled_at
  FROM (
    SELECT maker_order_id AS order_id, quantity, price, time FROM events WHERE type = 'trade'
    UNION ALL
    SELECT taker_order_id, quantity, price, time FROM events WHERE type = 'trade'
  ) GROUP BY order_id
), last_amendment AS (
  SELECT order_id, arg_max(quantity, (seq, position)) AS quantity, arg_max(price, (seq, position)) AS price
  FROM events WHERE type = 'order_amended' GROUP BY order_id
), ends AS (
  SELECT order_id, type, reason, time FROM events WHERE type IN ('order_cancelled', 'order_expired')
)
SELECT
  o.order_id, o.account_id, o.market, o.side, o.order_type, o.time_in_force, o.reduce_only, o.leg,
  o.client_order_id, o.liquidation_id, coalesce(a.price, o.price) AS price,
  coalesce(a.quantity, o.quantity) AS quantity,
  CAST(coalesce(f.filled, 0) AS DECIMAL(28, 8)) AS filled,
  CAST(f.value / f.filled AS DOUBLE) AS average_price,
  CASE
    WHEN e.type = 'order_cancelled' THEN 'cancelled'
    WHEN e.type = 'order_expired' THEN 'expired'
    WHEN coalesce(f.filled, 0) >= coalesce(a.quantity, o.quantity) THEN 'filled'
    WHEN f.filled > 0 THEN 'partially_filled'
    ELSE 'open'
  END AS status,
  e.reason, o.time AS accepted_at,
  CASE
    WHEN e.type IS NOT NULL THEN e.time
    WHEN coalesce(f.filled, 0) >= coalesce(a.quantity, o.quantity) THEN f.filled_at
  END AS ended_at, o.seq
FROM (SELECT * FROM events WHERE type = 'order_accepted') o
LEFT JOIN last_amendment a USING (order_id)
LEFT JOIN fills f USING (order_id)
LEFT JOIN ends e USING (order_id)
"""

_TRADES = """
SELECT
  trade_id, time, seq, market, price, quantity, CAST(price * quantity AS DECIMAL(38, 8)) AS value, taker_side,
  maker_account_id, taker_account_id, maker_order_id, taker_order_id, maker_fee, taker_fee,
  maker_realised, taker_realised, liquidation_id
FROM events WHERE type = 'trade'
"""

_LIQUIDATIONS = """
WITH fees AS (
  SELECT liquidation_id, sum(amount) AS fee FROM events WHERE type = 'liquidation_fee' GROUP BY liquidation_id
), ends AS (
  SELECT liquidation_id, time, result, equity, fund_before, fund_after FROM events
  WHERE type = 'liquidation_finished'
)
SELECT
  s.liquidation_id, s.account_id, nullif(s.market, '') AS market, s.mode, s.leg, s.time AS started_at,
  e.time AS finished_at, s.collateral, s.equity, s.maintenance, e.result, e.equity AS equity_after,
  CAST(coalesce(f.fee, 0) AS DECIMAL(28, 8)) AS fee, e.fund_before, e.fund_after, s.cause_seq, s.seq
FROM (SELECT * FROM events WHERE type = 'liquidation_started') s
LEFT JOIN ends e USING (liquidation_id)
LEFT JOIN fees f USING (liquidation_id)
"""

VIEWS = {"orders": _ORDERS, "trades": _TRADES, "liquidations": _LIQUIDATIONS}


def _define_folded(connection: duckdb.DuckDBPyConnection, state: Exchange) -> None:
    """Define the views of the state at the end of the log."""
    accounts = [account for _, account in sorted(state.accounts.items())]
    held = [
        (account.account_id, symbol, position)
        for account in accounts
        for symbol, position in _positions(account)
    ]
    balances = {
        "account_id": pa.array([account.account_id for account in accounts], pa.int64()),
        "label": pa.array([account.label for account in accounts], pa.string()),
        "wallet": pa.array([account.wallet for account in accounts], pa.int64()),
        "buckets": pa.array(
            [sum(position.bucket for _, position in _positions(account)) for account in accounts], pa.int64()
        ),
        "open_orders": pa.array([len(account.orders) for account in accounts], pa.int64()),
    }
    positions = {
        "account_id": pa.array([account_id for account_id, _, _ in held], pa.int64()),
        "market": pa.array([symbol for _, symbol, _ in held], pa.string()),
        "leg": pa.array([position.leg.name.lower() for _, _, position in held], pa.string()),
        "mode": pa.array([position.mode.name.lower() for _, _, position in held], pa.string()),
        "leverage": pa.array([position.leverage for _, _, position in held], pa.int64()),
        "size_lots": pa.array([position.size_lots for _, _, position in held], pa.int64()),
        "entry_cost": pa.array([position.entry_cost for _, _, position in held], pa.int64()),
        "bucket": pa.array([position.bucket for _, _, position in held], pa.int64()),
    }
    _hide(connection, "folded_balances", pa.table(balances))
    _hide(connection, "folded_positions", pa.table(positions))
    fixed = f"{_HIDDEN}.fixed"
    connection.execute(
        f"CREATE VIEW balances AS SELECT account_id, label, {fixed}(wallet) AS wallet, "
        f"{fixed}(buckets) AS buckets, open_orders FROM {_HIDDEN}.folded_balances"
    )
    connection.execute(
        "CREATE VIEW positions AS SELECT account_id, market, leg, mode, leverage, "
        f"{fixed}(size_lots::HUGEINT * lot_size) AS size, {fixed}(entry_cost) AS entry_cost, "
        f"{fixed}(bucket) AS bucket "
        f"FROM {_HIDDEN}.folded_positions JOIN {_HIDDEN}.market_units ON market = symbol"
    )


def _hide(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | ds.Dataset) -> None:
    """Give rows a name among what SHOW TABLES does not list: what is registered would be in every schema."""
    connection.execute(f"USE {_HIDDEN}")
    connection.from_arrow(rows).create_view(name)
    connection.execute("USE main")


def _positions(account: Account) -> list[tuple[str, Position]]:
    """Return the positions that hold contracts or money, by market."""
    kept = ((symbol, position) for symbol, position in sorted(account.positions.items()))
    return [
        (position.market.symbol, position) for _, position in kept if position.size_lots or position.bucket
    ]


def write(result: Result, form: str) -> None:
    """Print rows as a "table", as "json" lines or as "csv"."""
    _WRITERS[form](result)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: exact decimals and times as text, times in UTC."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _text(value: Any) -> str:
    return "" if value is None else str(_plain(value))


def _write_json(result: Result) -> None:
    for row in result.rows:
        line = {name: _plain(value) for name, value in zip(result.names, row, strict=True)}
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")


def _write_csv(result: Result) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(result.names)
    writer.writerows([_text(value) for value in row] for row in result.rows)


def _write_table(result: Result) -> None:
    table = Table(*result.names)
    for row in result.rows:
        table.add_row(*(_text(value) for value in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    console.print(table)


_WRITERS: dict[str, Callable[[Result], None]] = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
}
