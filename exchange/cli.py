"""`foldex`: one command for the whole exchange, one for each process, and those that look at a log.

Imports wait until a command runs, so that `foldex --help` and `foldex status` answer at once.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from exchange import config
from exchange.lazy import LazyGroup
from exchange.options import ArchiveToRead, AsJson, DataDir, RedisUrl, archive_of, call, read_log
from exchange.process_cli import (
    Durability,
    DurabilityOption,
    MoreFiles,
    Speed,
    Upgrade,
    archiver,
    feed,
    feed_sources,
    intake,
    liquidator,
    maker,
    writer,
)

if TYPE_CHECKING:
    from events.log import ReadableLog
    from exchange.audit.verify import KeptHead
    from exchange.runtime import Alive
    from exchange.supervisor import Supervisor

NO_FEED = "none"
REQUIRED_PROCESSES = ("writer", "intake", "liquidator")
OPTIONAL_PROCESSES = ("standby", "archiver", "feed", "maker")

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in config.EXIT_MEANINGS.items())


class _Commands(LazyGroup):
    elsewhere: ClassVar[Mapping[str, str]] = {
        "admin": "exchange.intake.admin_cli:app",
        "archive": "exchange.archive_cli:app",
        "bench": "exchange.bench.cli:app",
        "recover": "exchange.archive_cli:recover",
        "sql": "exchange.archive_cli:sql",
        "audit": "exchange.audit.audit_cli:app",
        "calc": "exchange.calc.cli:app",
        "demo": "exchange.demo.cli:demo",
        "whatif": "exchange.whatif.cli:whatif",
        "modes": "exchange.modes.cli:modes",
    }


app = typer.Typer(
    name="foldex",
    cls=_Commands,
    help="A perpetual-futures exchange that runs on a laptop and can be rebuilt from its log.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class LogFormat(StrEnum):
    """How log lines are written."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least serious log line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Kind(StrEnum):
    """Which of the two streams to print."""

    COMMANDS = "commands"
    EVENTS = "events"


@app.callback()
def configure(
    context: typer.Context,
    log_format: Annotated[LogFormat, typer.Option(envvar=config.LOG_FORMAT_ENV)] = LogFormat.CONSOLE,
    log_level: Annotated[LogLevel, typer.Option(envvar=config.LOG_LEVEL_ENV)] = LogLevel.INFO,
) -> None:
    """Set up logging, for commands that log."""
    # Children of a supervisor write as it does.
    os.environ[config.LOG_FORMAT_ENV] = log_format.value
    os.environ[config.LOG_LEVEL_ENV] = log_level.value
    from exchange.telemetry import configure_logging

    name = context.invoked_subcommand or "foldex"
    configure_logging(name, pid=os.getpid(), as_json=log_format is LogFormat.JSON, level=log_level.value)


@app.command()
def up(
    more_files: MoreFiles = None,
    port: Annotated[int, typer.Option(min=1, max=65534, help="Of the API; the next is the admin's.")] = (
        config.PORT_DEFAULT
    ),
    feed: Annotated[
        list[str] | None,
        typer.Option(help="synthetic, none, or candle files (FILE or SYMBOL=FILE).  [default: synthetic]"),
    ] = None,
    speed: Speed = config.SPEED_DEFAULT,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    durability: DurabilityOption = Durability.RELAXED,
    maker: Annotated[bool, typer.Option("--maker", help="Run a house market maker.")] = False,
    standby: Annotated[bool, typer.Option("--standby", help="Run a second writer that stands by.")] = False,
    upgrade: Upgrade = False,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole exchange until Ctrl-C: server, writer, intake, liquidator, archiver and feed.

    Lists BTCUSDT and ETHUSDT on the first start. `--json` prints one line when it is ready.
    """
    from exchange.supervisor import Supervisor

    sources = feed_sources("--feed", feed, more_files, alone=(NO_FEED, "synthetic"))

    def make() -> Supervisor:
        return Supervisor(
            data_dir,
            redis_url=redis_url,
            port=port,
            feed=[] if sources == [NO_FEED] else sources,
            speed=speed,
            durability=durability.value,
            maker=maker,
            standby=standby,
            upgrade=upgrade,
        )

    raise typer.Exit(asyncio.run(_up(make, as_json)))


async def _up(make: Callable[[], "Supervisor"], as_json: bool) -> int:
    """Start, wait for a signal or a failure, stop; return the exit code."""
    import signal

    from events.embedded import EmbeddedServerError
    from exchange.supervisor import SupervisorError

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    supervisor = make()
    starting: asyncio.Future[Any] = asyncio.ensure_future(supervisor.start())
    try:
        await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _print_ready(supervisor, as_json)
            either: set[asyncio.Future[Any]] = {stopped, supervisor.failed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if supervisor.failed.done():
            raise supervisor.failed.result()
    except (SupervisorError, EmbeddedServerError) as error:
        typer.echo(f"foldex: {error}", err=True)
        return getattr(error, "exit_code", config.EXIT_UNAVAILABLE)
    finally:
        starting.cancel()
        await asyncio.wait({starting})
        await supervisor.stop()
        stopped.cancel()
    typer.echo("foldex: stopped", err=True)
    return config.EXIT_OK


def _print_ready(supervisor: "Supervisor", as_json: bool) -> None:
    if as_json:
        import msgspec

        ready = {
            "ready": True,
            "url": supervisor.url,
            "admin_url": supervisor.admin_url,
            "log_url": supervisor.log_url,
            "data_dir": str(supervisor.data_dir),
            "pids": supervisor.pids,
            "server_pid": supervisor.server_pid,
        }
        typer.echo(msgspec.json.encode(ready).decode())
        return
    typer.echo(
        f"foldex: the API is at {supervisor.url}, the administrator's at {supervisor.admin_url}", err=True
    )
    typer.echo(f"foldex: data and logs are in {supervisor.data_dir}; Ctrl-C stops", err=True)


for _process in (writer, intake, liquidator, archiver, feed, maker):
    app.command()(_process)


@app.command("openapi")
def describe_api(
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File to write instead of the terminal.")
    ] = None,
) -> None:
    """Print the description of the API (OpenAPI 3.1), as GET /foldex/v1/openapi.json answers it."""
    import msgspec

    from exchange.intake.endpoints import ENDPOINTS
    from exchange.intake.openapi import describe

    text = msgspec.json.format(msgspec.json.encode(describe(ENDPOINTS)), indent=2).decode()
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n")
    except OSError as error:
        typer.echo(f"foldex: {output}: {error.strerror}", err=True)
        raise typer.Exit(config.EXIT_OUTPUT) from None


@app.command()
def status(
    process: Annotated[str | None, typer.Option(help="One process; otherwise all.")] = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say which processes are alive; exit 0 only when the one asked for is, or all that are needed."""
    asked = [process] if process else [*REQUIRED_PROCESSES, *OPTIONAL_PROCESSES]
    required = [process] if process else list(REQUIRED_PROCESSES)
    # A directory without a running server is not worth starting one for: nothing can be alive there.
    is_reachable = redis_url is not None or (data_dir / "server.json").exists()
    found = call(data_dir, redis_url, lambda url: _read_all_alive(url, asked)) if is_reachable else {}
    rows = {name: found.get(name) for name in asked}
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(rows).decode())
    else:
        for name, alive in rows.items():
            typer.echo(f"{name:<12} {_describe(alive)}")
    raise typer.Exit(config.EXIT_OK if all(rows[name] for name in required) else config.EXIT_NOT_ALIVE)


def _describe(alive: "Alive | None") -> str:
    if alive is None:
        return "not alive"
    took_over = "" if alive.took_over_s is None else f", took over in {alive.took_over_s:.3f} s"
    return f"alive at {alive.seq}, pid {alive.pid}{took_over}"


async def _read_all_alive(url: str, names: list[str]) -> dict[str, Any]:
    from redis.exceptions import RedisError

    from events.log import LogUnavailableError
    from exchange.runtime import heartbeat_client, read_alive

    client = heartbeat_client(url)
    try:
        return {name: await read_alive(client, name) for name in names}
    except (RedisError, OSError) as error:
        raise LogUnavailableError(f"the server does not answer: {error}") from error
    finally:
        await client.aclose()


@app.command()
def replay(
    until: Annotated[int | None, typer.Option(min=1, help="Stop behind this entry.")] = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild the state from the log alone: its digest, balances and positions, identities checked."""
    from exchange.audit.cli import run_replay

    read_log(data_dir, redis_url, lambda log: run_replay(log, until=until, as_json=as_json), archive)


@app.command()
def verify(
    from_seq: Annotated[
        int, typer.Option("--from", min=1, help="Begin behind the newest snapshot before this entry.")
    ] = 1,
    to_seq: Annotated[int | None, typer.Option("--to", min=1, help="Stop behind this entry.")] = None,
    decide: Annotated[
        bool, typer.Option("--decide", help="Decide every command again and compare the events.")
    ] = False,
    head: Annotated[
        str | None, typer.Option("--head", help="An end of the log that `foldex head` printed earlier.")
    ] = None,
    snapshots: Annotated[
        Path | None,
        typer.Option(
            "--snapshots",
            envvar=config.SNAPSHOT_DIR_ENV,
            help="Directory of snapshots, which are verified too.  [default: in the data directory]",
        ),
    ] = None,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Verify that the log is what was written and decided; exit 1 and name the first entry if it is not.

    Of an --archive also every file, and the columns that `foldex sql` queries.
    """
    from exchange.audit.cli import FindingError, run_verify
    from exchange.audit.verify import Extent

    scope = Extent(
        first_seq=from_seq,
        last_seq=to_seq,
        decide=decide,
        kept_head=_head_to_verify(head, from_seq, to_seq),
        directory=snapshots or data_dir / config.SNAPSHOT_DIR_NAME,
        archive=None if archive else archive_of(data_dir, redis_url),
    )

    async def check(log: "ReadableLog") -> None:
        if archive is None:
            await run_verify(log, scope, as_json=as_json)
        else:
            from functools import partial

            from events.archive import ArchivedLog
            from exchange.archiving import verify_columns

            assert isinstance(log, ArchivedLog), log
            await run_verify(log, scope, as_json=as_json, check_columns=partial(verify_columns, log))

    try:
        read_log(data_dir, redis_url, check, archive)
    except FindingError:
        raise typer.Exit(config.EXIT_FINDING) from None
    except typer.Exit as ended:
        # Damage may be so great that an archive cannot be opened; and who stops early was told nothing.
        codes = {config.EXIT_CORRUPT: config.EXIT_FINDING, config.EXIT_OK: config.EXIT_INTERRUPTED}
        raise typer.Exit(codes.get(ended.exit_code, ended.exit_code)) from None


def _head_to_verify(token: str | None, from_seq: int, to_seq: int | None) -> "KeptHead | None":
    """Return the end of the log that a token names; it and the borders must go together."""
    from exchange.audit.verify import BadTokenError, KeptHead

    try:
        kept_head = KeptHead.parse(token) if token is not None else None
    except BadTokenError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    if to_seq is not None and to_seq < from_seq:
        raise typer.BadParameter(f"is before --from, entry {from_seq}", param_hint="--to")
    if kept_head is not None and not from_seq <= kept_head.seq <= (to_seq or kept_head.seq):
        message = f"entry {kept_head.seq} is not among those to verify"
        raise typer.BadParameter(message, param_hint="--head")
    return kept_head


@app.command("head")
def print_head(
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print where the log ends, as a token: kept elsewhere, it shows later that nothing was taken away."""
    from exchange.audit.cli import run_head

    read_log(data_dir, redis_url, lambda log: run_head(log, as_json=as_json), archive)


@app.command("log")
def print_log(
    account: Annotated[int | None, typer.Option(min=0, help="Only what concerns this account.")] = None,
    market: Annotated[str | None, typer.Option(help="Only what concerns this market.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only these types; repeatable.")] = None,
    kind: Annotated[Kind, typer.Option(help="What was asked, or what happened.")] = Kind.EVENTS,
    after: Annotated[int, typer.Option(min=0, help="Only entries behind this one.")] = 0,
    limit: Annotated[int | None, typer.Option(min=0, help="At most this many lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more until Ctrl-C.")] = False,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the commands or events of the log, decoded, in decimals; secrets stay hidden."""
    from exchange.audit.cli import LogQuery, run_log
    from exchange.audit.printer import known_types

    known = known_types(commands=kind is Kind.COMMANDS)
    unknown = [name for name in types or () if name not in known]
    if unknown:
        message = f"{unknown[0]} is no type of the {kind.value}; known: {', '.join(known)}"
        raise typer.BadParameter(message, param_hint="--type")
    query = LogQuery(
        commands=kind is Kind.COMMANDS,
        account_id=account,
        market=market,
        types=frozenset(types or ()),
        after=after,
        limit=limit,
        follow=follow,
    )
    read_log(data_dir, redis_url, lambda log: run_log(log, query, as_json=as_json), archive)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
