"""`foldex`: one command for the whole exchange, one for each process, and those that look at a log.

Imports wait until a command runs, so that `foldex --help` and `foldex status` answer at once.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange import config
from exchange.calc.cli import app as calc
from exchange.demo.cli import demo
from exchange.intake.admin_cli import app as admin

if TYPE_CHECKING:
    from events.redis import RedisLog
    from exchange.runtime import Runtime
    from exchange.supervisor import Supervisor

NO_FEED = "none"
REQUIRED_PROCESSES = ("writer", "intake", "liquidator")
OPTIONAL_PROCESSES = ("feed", "maker")

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in config.EXIT_MEANINGS.items())

app = typer.Typer(
    name="foldex",
    help="A perpetual-futures exchange that runs on a laptop and can be rebuilt from its log.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(admin, name="admin")
app.add_typer(calc, name="calc")
app.command()(demo)


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


class Durability(StrEnum):
    """What an answer promises: kept by the server, synced every second; or on its disk already."""

    RELAXED = "relaxed"
    STRICT = "strict"


class Kind(StrEnum):
    """Which of the two streams to print."""

    COMMANDS = "commands"
    EVENTS = "events"


def _choose_server(context: typer.Context, url: str | None) -> str | None:
    """Return the address of the server to use, None for the embedded one: what was typed beats the rest.

    `up` takes both: its data directory also holds the logs of the processes and the key file.

    Raises:
        typer.BadParameter: both were typed, or the address is none.
    """
    if not url:
        return None
    if _is_typed(context, "data_dir"):
        if not _is_typed(context, "redis_url"):
            return None
        if context.info_name != "up":
            raise typer.BadParameter("--data-dir is the embedded server's; give one of the two")
    problem = _address_problem(url)
    if problem:
        source = "" if _is_typed(context, "redis_url") else f" (from {config.REDIS_URL_ENV})"
        # The address itself is not repeated: it may hold a password.
        raise typer.BadParameter(f"not an address of a server{source}: {problem}")
    return url


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _address_problem(url: str) -> str | None:
    from redis.asyncio.connection import parse_url

    if "://" not in url:
        return None if url.startswith("/") else "must be redis://, rediss:// or unix://, or a socket's path"
    try:
        parse_url(url)
    except ValueError as error:
        return str(error)
    return None


DataDir = Annotated[
    Path,
    # Eager: it is known when the server's address is looked at.
    typer.Option("--data-dir", is_eager=True, help="Directory of the embedded server; its log is there."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar=config.REDIS_URL_ENV,
        callback=_choose_server,
        help="A Redis or Valkey server (redis://, rediss://, unix://) instead of the embedded one.",
    ),
]
DurabilityOption = Annotated[
    Durability, typer.Option(help="relaxed: synced to disk every second; strict: before each answer.")
]
Speed = Annotated[
    float, typer.Option(min=0.0, help="Source seconds per real second; 0 is as fast as answers come.")
]
Seed = Annotated[int, typer.Option(help="Seed of the synthetic prices.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MoreFiles = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Further price files.")]


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
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole exchange until Ctrl-C: server, writer, intake, liquidator and feed.

    Lists BTCUSDT and ETHUSDT on the first start. `--json` prints one line when it is ready.
    """
    from exchange.supervisor import Supervisor

    sources = _feed_sources("--feed", feed, more_files, alone=(NO_FEED, "synthetic"))

    def make() -> Supervisor:
        return Supervisor(
            data_dir,
            redis_url=redis_url,
            port=port,
            feed=[] if sources == [NO_FEED] else sources,
            speed=speed,
            durability=durability.value,
            maker=maker,
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


@app.command()
def writer(
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    durability: DurabilityOption = Durability.RELAXED,
) -> None:
    """Run the writer: decides commands into events. Further ones stand by."""
    from exchange.writer import run_writer

    _run("writer", data_dir, redis_url, run_writer, strict=durability is Durability.STRICT)


@app.command()
def intake(
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    host: Annotated[str, typer.Option(help="Address of the public API.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = config.PORT_DEFAULT,
    admin_host: Annotated[str, typer.Option(help="Address of the administrator's listener.")] = "127.0.0.1",
    admin_port: Annotated[int, typer.Option(min=1, max=65535)] = config.PORT_DEFAULT + 1,
    key_file: Annotated[
        Path | None,
        typer.Option(
            envvar=config.KEY_FILE_ENV,
            help="Key that seals API secrets; made when missing.  [default: in the data directory]",
        ),
    ] = None,
) -> None:
    """Run an intake: the HTTP API, and the administrator's listener."""
    from exchange.intake.keys import KeyFileError
    from exchange.intake.process import run_intake

    async def serve(runtime: "Runtime") -> None:
        if await runtime.wait_for_log():
            await run_intake(
                runtime.log,
                host=host,
                port=port,
                admin_host=admin_host,
                admin_port=admin_port,
                key_file=key_file or data_dir / config.KEY_FILE_NAME,
                stop=runtime.stop,
                on_ready=runtime.ready,
            )

    _run("intake", data_dir, redis_url, serve, misuse=(KeyFileError,))


@app.command()
def liquidator(data_dir: DataDir = config.DATA_DIR_DEFAULT, redis_url: RedisUrl = None) -> None:
    """Run the liquidator: follows the marks and asks for liquidations."""
    from exchange.liquidator import run_liquidator

    _run("liquidator", data_dir, redis_url, run_liquidator)


@app.command()
def feed(
    more_files: MoreFiles = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="synthetic, or candle files (FILE or SYMBOL=FILE).  [default: synthetic]"),
    ] = None,
    speed: Speed = config.SPEED_DEFAULT,
    seed: Seed = 1,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
) -> None:
    """Run a feed: index prices from a generator or from recorded candles."""
    from exchange.feed import FeedError
    from exchange.feeder import run_feeder

    sources = _feed_sources("--source", source, more_files, alone=("synthetic",))

    async def play(runtime: "Runtime") -> None:
        await run_feeder(runtime, sources, speed=speed, seed=seed)

    _run("feed", data_dir, redis_url, play, misuse=(FeedError,))


def _feed_sources(
    option: str, chosen: list[str] | None, more_files: list[str] | None, *, alone: tuple[str, ...]
) -> list[str]:
    """Return the sources of a feed; those of `alone` cannot be played together with others."""
    sources = [*(chosen or ["synthetic"]), *(more_files or [])]
    for name in alone:
        if name in sources and len(sources) > 1:
            raise typer.BadParameter(f"{name} stands alone; given: {', '.join(sources)}", param_hint=option)
    return sources


@app.command()
def maker(
    url: Annotated[str, typer.Option(help="The public API.")] = f"http://127.0.0.1:{config.PORT_DEFAULT}",
    admin_url: Annotated[str, typer.Option(help="The administrator's listener.")] = (
        f"http://127.0.0.1:{config.PORT_DEFAULT + 1}"
    ),
    credentials_file: Annotated[
        Path | None,
        typer.Option(help="Where the account's key is kept between runs.  [default: a new account each run]"),
    ] = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
) -> None:
    """Run the house market maker, which trades through the API; the log only shows that it lives."""
    from exchange.maker import run_maker

    async def quote(runtime: "Runtime") -> None:
        runtime.ready(lambda: 0)
        await run_maker(url, admin_url, stop=runtime.stop, credentials_file=credentials_file)

    _run("maker", data_dir, redis_url, quote)


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
    found = _call(data_dir, redis_url, lambda url: _read_all_alive(url, asked)) if is_reachable else {}
    rows = {name: found.get(name) for name in asked}
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(rows).decode())
    else:
        for name, alive in rows.items():
            typer.echo(f"{name:<12} " + (f"alive at {alive.seq}, pid {alive.pid}" if alive else "not alive"))
    raise typer.Exit(config.EXIT_OK if all(rows[name] for name in required) else config.EXIT_NOT_ALIVE)


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
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild the state from the log alone: its digest, balances and positions, identities checked."""
    from exchange.audit.cli import run_replay

    _read(data_dir, redis_url, lambda log: run_replay(log, until=until, as_json=as_json))


@app.command("log")
def print_log(
    account: Annotated[int | None, typer.Option(min=0, help="Only what concerns this account.")] = None,
    market: Annotated[str | None, typer.Option(help="Only what concerns this market.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only these types; repeatable.")] = None,
    kind: Annotated[Kind, typer.Option(help="What was asked, or what happened.")] = Kind.EVENTS,
    after: Annotated[int, typer.Option(min=0, help="Only entries behind this one.")] = 0,
    limit: Annotated[int | None, typer.Option(min=0, help="At most this many lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more until Ctrl-C.")] = False,
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
    _read(data_dir, redis_url, lambda log: run_log(log, query, as_json=as_json))


def _run(
    name: str,
    data_dir: Path,
    redis_url: str | None,
    work: Callable[["Runtime"], Awaitable[None]],
    *,
    strict: bool = False,
    misuse: tuple[type[Exception], ...] = (),
) -> None:
    """Run a process on the log that the options name, and exit with its code."""
    from events.embedded import EmbeddedServerError
    from exchange.runtime import log_url, run_process

    try:
        with log_url(data_dir, redis_url) as url:
            code = run_process(name, url, work, strict=strict, misuse=misuse)
    except EmbeddedServerError as error:
        typer.echo(f"foldex: {error}", err=True)
        code = config.EXIT_UNAVAILABLE
    raise typer.Exit(code)


def _read(data_dir: Path, redis_url: str | None, work: Callable[["RedisLog"], Awaitable[None]]) -> None:
    """Run a command that reads a log; its errors become a message and an exit code."""
    from events.log import LogMissingError
    from events.redis import RedisLog

    place = "on that server" if redis_url else f"in {data_dir.resolve()}"

    async def with_log(url: str) -> None:
        log = RedisLog(url, shard=config.SHARD)
        try:
            if (await log.event_head()).seq == 0:
                raise LogMissingError(f"there is no log {place}")
            await work(log)
        finally:
            await log.close()

    _call(data_dir, redis_url, with_log)


def _call(data_dir: Path, redis_url: str | None, work: Callable[[str], Awaitable[Any]]) -> Any:
    from events.embedded import EmbeddedServerError
    from events.log import LogError
    from exchange.aggregate.state import IdentityError
    from exchange.audit.cli import NotInLogError
    from exchange.runtime import exit_code_of, log_url

    async def call(url: str) -> Any:
        return await work(url)

    try:
        with log_url(data_dir, redis_url) as url:
            return asyncio.run(call(url))
    except (LogError, EmbeddedServerError, IdentityError, NotInLogError) as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(
            config.EXIT_USAGE if isinstance(error, NotInLogError) else exit_code_of(error)
        ) from None
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(config.EXIT_OK) from None
    except KeyboardInterrupt:
        raise typer.Exit(config.EXIT_OK) from None


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
