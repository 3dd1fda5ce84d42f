"""`foldex audit`: the evidence behind every liquidation, and the state at any moment.

Imports wait until a command runs, so that the command line answers at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from exchange import config
from exchange.options import (
    ArchiveToRead,
    AsJson,
    DataDir,
    RedisUrl,
    moment_of,
    read_log,
    snapshot_directories,
)

app = typer.Typer(
    name="audit",
    help="Show and prove what was liquidated and why; show any account at any moment.",
    no_args_is_help=True,
)

Snapshots = Annotated[
    Path | None,
    typer.Option(
        "--snapshots",
        envvar=config.SNAPSHOT_DIR_ENV,
        help="Directory of snapshots to start near.  [default: those in the data directory]",
    ),
]


class Mode(StrEnum):
    """Which margin mode a liquidated bucket had."""

    CROSS = "cross"
    ISOLATED = "isolated"


class ResultName(StrEnum):
    """How a liquidation ended."""

    RESTORED = "restored"
    CLOSED = "closed"
    TAKEN_OVER = "taken_over"
    DELEVERAGED = "deleveraged"
    SOCIALISED = "socialised"
    UNBORNE = "unborne"
    CONTINUES = "continues"


@app.command()
def liquidations(
    account: Annotated[int | None, typer.Option(min=0, help="Only this account's.")] = None,
    market: Annotated[str | None, typer.Option(help="Only of buckets with a position there.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="Only of this margin mode.")] = None,
    result: Annotated[ResultName | None, typer.Option(help="Only those that ended so.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="SEQ|TIME", help="Not before.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="SEQ|TIME", help="Not after.")] = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """List the liquidations: who, where, at which mark, what was lost, who paid.

    --json prints one object a line. A loss is what the bucket's collateral lost; amounts are exact decimals.
    Times are UTC unless they say otherwise: 2025-10-10T21:18:03.
    """
    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    from events.values import LiquidationResult, MarginMode
    from exchange.audit.audit_run import Wanted, run_liquidations

    wanted = Wanted(
        account_id=account,
        market=market,
        mode=MarginMode[mode.name] if mode else None,
        result=LiquidationResult[result.name] if result else None,
        since=moment_of(since, "--from"),
        until=moment_of(until, "--to"),
    )
    form = "json" if as_json else "csv" if as_csv else "table"
    read_log(data_dir, redis_url, lambda log: run_liquidations(log, wanted, form), archive)


@app.command()
def explain(
    number: Annotated[
        int, typer.Argument(metavar="ID", min=1, help="The liquidation, as liquidations lists it.")
    ],
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw its path: .svg or .png (foldex[audit]).")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as one file for a browser.")
    ] = None,
    snapshots: Snapshots = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Tell the story of one liquidation, and compute it again from the log alone.

    Exits with 1 when what comes out is not what is stored.
    """
    from exchange.audit.audit_run import OutputError, run_explain
    from exchange.audit.chart import FORMATS, ChartError
    from exchange.audit.cli import FindingError

    if chart is not None and chart.suffix.lower().removeprefix(".") not in FORMATS:
        raise typer.BadParameter(f"{chart} is neither .svg nor .png", param_hint="--chart")
    directories = snapshot_directories(data_dir, snapshots)
    try:
        read_log(
            data_dir,
            redis_url,
            lambda log: run_explain(log, number, directories, chart=chart, html=html, as_json=as_json),
            archive,
        )
    except ChartError as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None
    except OutputError as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_OUTPUT) from None
    except FindingError:
        raise typer.Exit(config.EXIT_FINDING) from None


@app.command()
def account(
    account_id: Annotated[int, typer.Argument(metavar="ID", min=0, help="The account.")],
    at: Annotated[
        str | None, typer.Option(metavar="SEQ|TIME", help="Behind which entry, or when.  [default: now]")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="What changed between two moments.")
    ] = None,
    snapshots: Snapshots = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show an account as it was: balances, positions, orders, and the margin health of each bucket."""
    from exchange.audit.audit_run import run_account, run_diff

    if at is not None and diff is not None:
        raise typer.BadParameter("give one of --at and --diff")
    directories = snapshot_directories(data_dir, snapshots)
    if diff is not None:
        one, other = (moment_of(text, "--diff") for text in diff)
        read_log(
            data_dir,
            redis_url,
            lambda log: run_diff(log, account_id, one, other, directories, as_json=as_json),
            archive,
        )
        return
    moment = moment_of(at, "--at")
    read_log(
        data_dir,
        redis_url,
        lambda log: run_account(log, account_id, moment, directories, as_json=as_json),
        archive,
    )


@app.command()
def verify(
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="SEQ|TIME", help="Begin behind the newest snapshot before it."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="SEQ|TIME", help="Stop behind it.")] = None,
    late_events: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="A bucket due for more events than this without a request is a finding."
        ),
    ] = config.LATE_EVENTS_DEFAULT,
    snapshots: Snapshots = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Derive every liquidation again, by a second implementation; exit 1 and name the entries if it differs.

    \b
    necessary   the bucket was at or below maintenance, at marks that are what their inputs make
    sufficient  no bucket stayed there for more than N events unasked
    orderly     steps, prices, fees, shares and the deleveraging order are those of the rules
    complete    no step made or lost money; nothing isolated lost more than its bucket
    chain       the log is what was written
    """
    from exchange.audit.audit_run import run_audit
    from exchange.audit.cli import FindingError

    first, last = moment_of(since, "--from"), moment_of(until, "--to")
    directories = snapshot_directories(data_dir, snapshots)
    try:
        read_log(
            data_dir,
            redis_url,
            lambda log: run_audit(log, first, last, directories, late_events, as_json=as_json),
            archive,
        )
    except FindingError:
        raise typer.Exit(config.EXIT_FINDING) from None
    except typer.Exit as ended:
        # Damage may be so great that nothing can be opened; and who stops early was told nothing.
        codes = {config.EXIT_CORRUPT: config.EXIT_FINDING, config.EXIT_OK: config.EXIT_INTERRUPTED}
        raise typer.Exit(codes.get(ended.exit_code, ended.exit_code)) from None


@app.command("snapshots")
def make_snapshots(
    every: Annotated[
        int, typer.Option(min=1, metavar="EVENTS", help="How many events apart.")
    ] = config.SNAPSHOT_EVENTS_DEFAULT,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            metavar="DIR",
            help="Where to; needed with --archive.  [default: in the data directory]",
        ),
    ] = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Write a snapshot for every so many events, so that every moment of a long log is near one.

    The archiver keeps only its newest few, to start processes from. These stay until somebody deletes them.
    """
    from exchange.audit.audit_run import run_snapshots

    if archive is not None and directory is None:
        message = "must be given with --archive: no data directory belongs to an archive"
        raise typer.BadParameter(message, param_hint="--directory")
    target = directory or data_dir / config.AUDIT_SNAPSHOT_DIR_NAME
    read_log(data_dir, redis_url, lambda log: run_snapshots(log, target, every, as_json=as_json), archive)
