"""`foldex whatif`. Imports wait until it runs, so that the command line answers at once."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from exchange import config
from exchange.options import ArchiveToRead, AsJson, DataDir, RedisUrl, read_log

if TYPE_CHECKING:
    from events.log import ReadableLog
    from exchange.whatif.changes import Changes

EXIT_FAILED = 1
PIPE_COLUMNS = 160
Texts = list[str] | None


def whatif(
    mode: Annotated[
        Texts, typer.Option(metavar="ACCOUNT:MARKET=cross|isolated", help="Another margin mode.")
    ] = None,
    leverage: Annotated[Texts, typer.Option(metavar="ACCOUNT:MARKET=N", help="Another leverage.")] = None,
    bucket: Annotated[
        Texts,
        typer.Option(metavar="ACCOUNT:MARKET=AMOUNT", help="What an isolated position has when it opens."),
    ] = None,
    wallet: Annotated[
        Texts, typer.Option(metavar="ACCOUNT=[+|-]AMOUNT", help="Another first deposit, or more, or less.")
    ] = None,
    fund: Annotated[
        Texts, typer.Option(metavar="MARKET=AMOUNT", help="Another insurance fund for a market.")
    ] = None,
    brackets: Annotated[
        Texts, typer.Option(metavar="MARKET=FILE", help="Another leverage table (JSON, docs/market.md).")
    ] = None,
    prices: Annotated[
        Texts, typer.Option(metavar="MARKET=FILE", help="Another index path: CSV with the header time,price.")
    ] = None,
    moves: Annotated[
        Texts, typer.Option(metavar="MARKET=FACTOR", help="All moves from the first price, times this.")
    ] = None,
    shift: Annotated[
        Texts,
        typer.Option(metavar="MARKET=SIZE[%][@ENTRY]", help="All prices, from an entry on, by that much."),
    ] = None,
    account: Annotated[
        list[int] | None, typer.Option(min=2, help="Show these accounts, not all that fared differently.")
    ] = None,
    until: Annotated[int | None, typer.Option(min=1, help="Stop behind this entry.")] = None,
    example: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Only write the log of docs/whatif.md there, as an archive."),
    ] = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run a recorded log again with something changed, and compare what became of everybody.

    All options that change something may be given several times; * stands for every customer or market.
    Without a change the run must be the recorded one, event for event: exit 1 if it is not.

    Liquidation requests are found anew; all other commands are as recorded. See docs/whatif.md.
    """
    from exchange.whatif.changes import ChangeError, read_changes

    if example is not None:
        _write_example(example)
        return
    try:
        changes = read_changes(
            mode=mode or (),
            leverage=leverage or (),
            bucket=bucket or (),
            wallet=wallet or (),
            fund=fund or (),
            brackets=brackets or (),
            prices=prices or (),
            moves=moves or (),
            shift=shift or (),
        )
        read_log(
            data_dir,
            redis_url,
            lambda log: _run(log, changes, until, account or [], as_json=as_json),
            archive,
        )
    except ChangeError as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None


def _write_example(target: str) -> None:
    import asyncio

    from exchange.options import reporting
    from exchange.whatif.example import write_example

    with reporting():
        last_seq = asyncio.run(write_example(target))
    typer.echo(f"foldex: {last_seq} entries are in {target}", err=True)


async def _run(
    log: "ReadableLog", changes: "Changes", until: int | None, account_ids: list[int], *, as_json: bool
) -> None:

    import msgspec
    from rich.console import Console

    from exchange.audit.cli import ReplayProgress, expect_many_objects
    from exchange.audit.travel import NotInLogError
    from exchange.whatif.course import WhatIfError, run_again
    from exchange.whatif.report import plain, print_report

    expect_many_objects()
    with ReplayProgress("running again") as progress:
        try:
            course = await run_again(log, changes, until=until, on_progress=progress.update)
        except WhatIfError as error:
            typer.echo(f"foldex: {error}", err=True)
            raise typer.Exit(EXIT_FAILED) from None
    if until is not None and course.entries < until:
        raise NotInLogError(f"the log ends at entry {course.entries}; there is no entry {until}")
    missing = [each for each in account_ids if each not in course.then.accounts]
    if missing:
        raise NotInLogError(f"there is no account {missing[0]} in this log")
    report = plain(course, changes, account_ids)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        console = Console(highlight=False)
        print_report(console if console.is_terminal else Console(width=PIPE_COLUMNS), report)
    sys.stdout.flush()
    if not changes.described and not course.is_reproduced:
        typer.echo("foldex: the unchanged run is not the recorded one", err=True)
        raise typer.Exit(EXIT_FAILED)
