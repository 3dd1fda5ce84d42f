"""The commands for archives: `foldex archive`, `foldex recover` and `foldex sql`.

Imports wait until a command runs, so that `foldex --help` answers at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer

from exchange import config
from exchange.options import (
    ArchiveOfLog,
    ArchiveToRead,
    AsJson,
    DataDir,
    RedisUrl,
    archive_of,
    call,
    read_log,
    reporting,
)

if TYPE_CHECKING:
    from events.archive import ArchivedLog
    from events.log import Head, ReadableLog
    from events.redis import RedisLog
    from exchange.archiving import Restored
    from exchange.sql import Result

app = typer.Typer(
    help="Export, import and list logs as archives: directories of Parquet files. "
    "foldex verify --archive checks them.",
    no_args_is_help=True,
)

R = TypeVar("R")

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header line.")]


@app.command("export")
def export_archive(
    target: Annotated[str, typer.Argument(help="A directory, a new .tar file, or a file system URL.")],
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write a whole log as an archive, to move it to another machine or keep it.

    Command entries that are not answered yet are not part of it. A directory that has the log's archive
    already is continued.
    """

    async def export(log: "ReadableLog") -> None:
        from exchange.archiving import export_log
        from exchange.audit.cli import ReplayProgress

        with ReplayProgress("exporting") as progress:
            head = await export_log(log, target, progress.update)
        waiting = await log.last_command_seq() - head.seq
        if waiting > 0:
            typer.echo(f"foldex: {waiting} command entries are not answered yet and were left out", err=True)
        _print_head(head, f"exported to {target}", as_json)

    read_log(data_dir, redis_url, export)


@app.command("import")
def import_archive(
    source: Annotated[str, typer.Argument(help="A directory, a .tar file, or a file system URL.")],
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Put an archive's log into a server that has none, byte for byte, so that it can go on there.

    A data directory is made if need be.
    """
    from exchange.archiving import import_log
    from exchange.audit.cli import ReplayProgress

    with reporting(), _unpacked(source) as archive:
        _require(archive.head.seq, f"no archive in {source}")
        if not redis_url and not (data_dir / "appendonlydir").is_dir():
            _make_server(data_dir)

        async def put(url: str) -> None:
            with ReplayProgress("importing") as progress:
                restored = await _put(url, lambda log: import_log(log, archive, progress.update))
            _print_restored(restored, as_json)

        call(data_dir, redis_url, put)


@app.command("list")
def list_segments(
    source: Annotated[str | None, typer.Argument(help="A directory, a .tar file, or a URL.")] = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List the segments of an archive.  [default: that of the data directory]"""
    url = source or str(data_dir / config.ARCHIVE_DIR_NAME)
    with reporting(), _unpacked(url) as archive:
        _require(archive.head.seq, f"no archive in {url}")
        for segment in archive.segments:
            if as_json:
                typer.echo(msgspec.json.encode(segment).decode())
            else:
                typer.echo(
                    f"{segment.first_seq:>12} {segment.last_seq:>12}  {segment.commands:>9} commands "
                    f"{segment.events:>9} events {segment.bytes:>12} bytes  {segment.last_hash}"
                )


def recover(
    archive: ArchiveOfLog = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Put back what a log lost and its archive has; refuse when the archive does not continue it.

    Commands that came since and were not answered follow behind that; if any were, it is refused.

    Stop the exchange before: nobody may append meanwhile.
    """
    from exchange import archiving
    from exchange.audit.cli import ReplayProgress

    source = archive or archive_of(data_dir, redis_url)
    if source is None:
        raise typer.BadParameter("which archive? --archive is needed with --redis-url")

    async def put_back(url: str) -> None:
        with _unpacked(source) as stored, ReplayProgress("recovering") as progress:
            restored = await _put(url, lambda log: archiving.recover(log, stored, progress.update))
        _print_restored(restored, as_json)

    call(data_dir, redis_url, put_back)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT, in DuckDB's SQL.")],
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Query archive and live log. Views: commands, events, orders, trades, liquidations, balances, positions.

    Prices, sizes and money are exact decimals. --json prints one object a line, decimals as text.
    Every file of the archive is compared with its checksum before; damage ends it with exit code 10.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    from exchange.sql import QueryError

    form = "json" if as_json else "csv" if as_csv else "table"
    try:
        if archive is not None:
            with reporting():
                asyncio.run(_query_archive(query, archive, form))
        else:
            stored = archive_of(data_dir, redis_url)
            call(data_dir, redis_url, lambda url: _query_server(query, url, stored, form))
    except QueryError as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None


async def _query_archive(query: str, url: str, form: str) -> None:
    from exchange import sql
    from exchange.audit.cli import ReplayProgress

    with _unpacked(url) as archive:
        _require(archive.head.seq, f"no archive in {url}")
        with ReplayProgress("checking") as progress:
            result = await sql.query(query, archive, None, progress.update)
        sql.write(result, form)


async def _query_server(query: str, url: str, archive: str | None, form: str) -> None:
    from events.archive import ArchivedLog
    from exchange import sql
    from exchange.audit.cli import ReplayProgress

    async def ask(log: "RedisLog") -> "Result":
        _require((await log.event_head()).seq, "no log on that server")
        with ReplayProgress("checking") as progress:
            return await sql.query(query, ArchivedLog(archive) if archive else None, log, progress.update)

    sql.write(await _on_server(url, ask), form)


@contextmanager
def _unpacked(source: str) -> "Iterator[ArchivedLog]":
    """Lend an archive; a .tar file is unpacked, with a progress bar if that takes long."""
    from exchange.archiving import opened
    from exchange.audit.cli import ReplayProgress

    with ReplayProgress("unpacking") as progress, opened(source, progress.update) as archive:
        progress.end()
        yield archive


async def _on_server(url: str, work: Callable[["RedisLog"], Awaitable[R]]) -> R:
    from events.redis import RedisLog

    log = RedisLog(url, shard=config.SHARD)
    try:
        return await work(log)
    finally:
        await log.close()


async def _put(url: str, work: Callable[["RedisLog"], Awaitable[R]]) -> R:
    """Write to a server, unless it would not keep what is written."""

    async def check_and_work(log: "RedisLog") -> R:
        await log.check_server(strict=False)
        return await work(log)

    return await _on_server(url, check_and_work)


def _make_server(data_dir: Path) -> None:
    from events.embedded import EmbeddedServer

    with EmbeddedServer(data_dir):
        pass  # the first start makes its files


def _require(seq: int, what: str) -> None:
    from events.log import LogMissingError

    if seq == 0:
        raise LogMissingError(f"there is {what}")


def _print_head(head: "Head", what: str, as_json: bool) -> None:
    if as_json:
        line = {"seq": head.seq, "chain_hash": head.chain_hash.hex()}
        typer.echo(msgspec.json.encode(line).decode())
    else:
        typer.echo(f"foldex: {what}, up to entry {head.seq}, {head.chain_hash.hex()}")


def _print_restored(restored: "Restored", as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(restored).decode())
    elif restored.events == 0:
        # Whether something is missing that is not archived either, nobody here can know.
        typer.echo(
            f"foldex: nothing to put back: the log ends at entry {restored.seq}, not before its archive"
        )
    else:
        typer.echo(
            f"foldex: put back {restored.commands} command entries and {restored.events} event entries "
            f"of log {restored.log_id}, up to entry {restored.seq}"
        )
        if restored.moved:
            typer.echo(f"foldex: {restored.moved} command entries, not answered yet, now follow behind them")
