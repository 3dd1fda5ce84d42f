"""The processes of the exchange as commands: their options, and how each becomes its process.

Imports wait until a command runs, so that a process starts with what it needs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange import config
from exchange.config import Enforce
from exchange.options import DataDir, RedisUrl, archive_of

if TYPE_CHECKING:
    from exchange.fold import Snapshots
    from exchange.runtime import Runtime


class Durability(StrEnum):
    """What an answer promises: kept by the server, synced every second; or on its disk already."""

    RELAXED = "relaxed"
    STRICT = "strict"


SnapshotDir = Annotated[
    Path | None,
    typer.Option(
        "--snapshots",
        envvar=config.SNAPSHOT_DIR_ENV,
        help="Directory of snapshots to start from.  [default: none; start from the first entry]",
    ),
]
SnapshotEvents = Annotated[
    int,
    typer.Option(
        min=1,
        envvar=config.SNAPSHOT_EVENTS_ENV,
        help="Events from one snapshot to the next; the same for every process, so that they can compare.",
    ),
]
DurabilityOption = Annotated[
    Durability, typer.Option(help="relaxed: synced to disk every second; strict: before each answer.")
]
Upgrade = Annotated[
    bool,
    typer.Option("--upgrade", help="Decide a log that is under older rules by this build's from here on."),
]
Speed = Annotated[
    float, typer.Option(min=0.0, help="Source seconds per real second; 0 is as fast as answers come.")
]
Seed = Annotated[int, typer.Option(help="Seed of the synthetic prices.")]
MoreFiles = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Further price files.")]


def writer(
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    durability: DurabilityOption = Durability.RELAXED,
    standby: Annotated[
        bool, typer.Option("--standby", help="Begin by standing by, even when no other writer is active.")
    ] = False,
    lease_ms: Annotated[
        int,
        typer.Option(
            min=100,
            envvar=config.LEASE_MS_ENV,
            help="Without a sign of life from the active writer for this long another takes over.",
        ),
    ] = config.LEASE_TTL_MS_DEFAULT,
    upgrade: Upgrade = False,
    snapshots: SnapshotDir = None,
    snapshot_events: SnapshotEvents = config.SNAPSHOT_EVENTS_DEFAULT,
) -> None:
    """Run the writer: decides commands into events. Further ones stand by."""
    from functools import partial

    from exchange.fold import Snapshots
    from exchange.writer import run_writer

    _run(
        "writer",
        data_dir,
        redis_url,
        partial(run_writer, standby=standby, lease_ms=lease_ms, upgrade=upgrade),
        strict=durability is Durability.STRICT,
        snapshots=Snapshots(directory=snapshots, every_events=snapshot_events),
    )


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
    lag_frames: Annotated[
        int,
        typer.Option(
            min=1,
            envvar=config.LAG_FRAMES_ENV,
            help="Refuse orders while this many entries wait for the writer; what cancels, at twice as many.",
        ),
    ] = config.LAG_FRAMES_DEFAULT,
    limits: Annotated[
        Enforce,
        typer.Option(
            envvar=config.LIMITS_ENV,
            help="Whom request limits bind: callers on other machines, all, or nobody.",
        ),
    ] = Enforce.REMOTE,
    weight_1m: Annotated[
        int,
        typer.Option(
            min=0, envvar=config.WEIGHT_1M_ENV, help="Request weight of an address in a minute; 0: any."
        ),
    ] = config.WEIGHT_1M_DEFAULT,
    orders_10s: Annotated[
        int,
        typer.Option(
            min=0, envvar=config.ORDERS_10S_ENV, help="Orders of an account in ten seconds; 0: any."
        ),
    ] = config.ORDERS_10S_DEFAULT,
    orders_1m: Annotated[
        int,
        typer.Option(min=0, envvar=config.ORDERS_1M_ENV, help="Orders of an account in a minute; 0: any."),
    ] = config.ORDERS_1M_DEFAULT,
    connects_5m: Annotated[
        int,
        typer.Option(
            min=0,
            envvar=config.CONNECTS_5M_ENV,
            help="WebSocket connections that an address may ask for in five minutes; 0: any.",
        ),
    ] = config.CONNECTS_5M_DEFAULT,
    connections: Annotated[
        int,
        typer.Option(
            min=0,
            envvar=config.CONNECTIONS_ENV,
            help="WebSocket connections that an address may have at a time; 0: any.",
        ),
    ] = config.CONNECTIONS_DEFAULT,
    legacy_conditional_orders: Annotated[
        bool,
        typer.Option(
            "--legacy-conditional-orders",
            envvar=config.LEGACY_CONDITIONAL_ORDERS_ENV,
            help="Take STOP, TAKE_PROFIT and TRAILING_STOP_MARKET on /fapi/v1/order, as Binance did until "
            "December 2025.",
        ),
    ] = False,
    replicas: Annotated[
        int,
        typer.Option(
            min=0,
            envvar=config.REPLICAS_ENV,
            help="Answer only what this many replicas of the server have received (WAIT).",
        ),
    ] = 0,
    snapshots: SnapshotDir = None,
    snapshot_events: SnapshotEvents = config.SNAPSHOT_EVENTS_DEFAULT,
) -> None:
    """Run an intake: the HTTP API, and the administrator's listener."""
    from exchange.fold import Snapshots
    from exchange.intake.keys import KeyFileError
    from exchange.intake.limits import Limits
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
                lag_frames=lag_frames,
                limits=Limits(
                    weight_1m=weight_1m,
                    orders_10s=orders_10s,
                    orders_1m=orders_1m,
                    connects_5m=connects_5m,
                    connections=connections,
                    enforce=limits,
                ),
                snapshots=runtime.snapshots,
                consumers=runtime.read_consumers,
                legacy_conditional_orders=legacy_conditional_orders,
                on_ready=runtime.ready,
            )

    started_from = Snapshots(directory=snapshots, every_events=snapshot_events)
    _run(
        "intake",
        data_dir,
        redis_url,
        serve,
        snapshots=started_from,
        replicas=replicas,
        misuse=(KeyFileError,),
    )


def liquidator(
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    snapshots: SnapshotDir = None,
    snapshot_events: SnapshotEvents = config.SNAPSHOT_EVENTS_DEFAULT,
) -> None:
    """Run the liquidator: follows the marks and asks for liquidations."""
    from exchange.fold import Snapshots
    from exchange.liquidator import run_liquidator

    started_from = Snapshots(directory=snapshots, every_events=snapshot_events)
    _run("liquidator", data_dir, redis_url, run_liquidator, snapshots=started_from)


def archiver(
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    snapshots: Annotated[
        Path | None,
        typer.Option(
            "--snapshots",
            envvar=config.SNAPSHOT_DIR_ENV,
            help="Directory of snapshots.  [default: in the data directory]",
        ),
    ] = None,
    snapshot_events: SnapshotEvents = config.SNAPSHOT_EVENTS_DEFAULT,
) -> None:
    """Run the archiver: keeps snapshots, from which the others start, and puts their digests into the log."""
    from exchange.archiver import run_archiver
    from exchange.fold import Snapshots

    directory = snapshots or data_dir / config.SNAPSHOT_DIR_NAME
    kept = Snapshots(directory=directory, every_events=snapshot_events)
    _run("archiver", data_dir, redis_url, run_archiver, snapshots=kept)


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
    snapshots: SnapshotDir = None,
    snapshot_events: SnapshotEvents = config.SNAPSHOT_EVENTS_DEFAULT,
) -> None:
    """Run a feed: index prices from a generator or from recorded candles."""
    from exchange.feed import FeedError
    from exchange.feeder import run_feeder
    from exchange.fold import Snapshots

    sources = feed_sources("--source", source, more_files, alone=("synthetic",))

    async def play(runtime: "Runtime") -> None:
        await run_feeder(runtime, sources, speed=speed, seed=seed)

    started_from = Snapshots(directory=snapshots, every_events=snapshot_events)
    _run("feed", data_dir, redis_url, play, snapshots=started_from, misuse=(FeedError,))


def feed_sources(
    option: str, chosen: list[str] | None, more_files: list[str] | None, *, alone: tuple[str, ...]
) -> list[str]:
    """Return the sources of a feed; those of `alone` cannot be played together with others."""
    sources = [*(chosen or ["synthetic"]), *(more_files or [])]
    for name in alone:
        if name in sources and len(sources) > 1:
            raise typer.BadParameter(f"{name} stands alone; given: {', '.join(sources)}", param_hint=option)
    return sources


def maker(
    url: Annotated[str, typer.Option(help="The public API.")] = f"http://127.0.0.1:{config.PORT_DEFAULT}",
    admin_url: Annotated[str, typer.Option(help="The administrator's listener.")] = (
        f"http://127.0.0.1:{config.PORT_DEFAULT + 1}"
    ),
    credentials_file: Annotated[
        Path | None,
        typer.Option(
            help="Where the maker's key is kept between runs; the taker's is beside it, its name ending in "
            ".taker.  [default: new accounts each run]"
        ),
    ] = None,
    trades_per_s: Annotated[
        float,
        typer.Option(min=0, max=100, help="Market orders a second of the house taker, in all; 0: none."),
    ] = config.TRADES_PER_S_DEFAULT,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
) -> None:
    """Run the house market maker and a taker, through the API; the log only shows that they live."""
    from exchange.maker import run_maker
    from exchange.taker import run_taker

    async def trade(runtime: "Runtime") -> None:
        runtime.ready(lambda: 0)
        stop = runtime.stop
        house = [run_maker(url, admin_url, stop=stop, credentials_file=credentials_file)]
        if trades_per_s:
            keys = credentials_file.with_suffix(".taker") if credentials_file is not None else None
            house.append(
                run_taker(url, admin_url, trades_per_s=trades_per_s, stop=stop, credentials_file=keys)
            )
        await asyncio.gather(*house)

    _run("maker", data_dir, redis_url, trade)


def _run(
    name: str,
    data_dir: Path,
    redis_url: str | None,
    work: Callable[["Runtime"], Awaitable[None]],
    *,
    strict: bool = False,
    snapshots: "Snapshots | None" = None,
    replicas: int = 0,
    misuse: tuple[type[Exception], ...] = (),
) -> None:
    """Run a process on the log that the options name, and exit with its code."""
    from events.embedded import EmbeddedServerError
    from exchange.fold import NO_SNAPSHOTS
    from exchange.runtime import log_url, run_process

    started_from = snapshots or NO_SNAPSHOTS
    try:
        with log_url(data_dir, redis_url) as url:
            code = run_process(
                name,
                url,
                work,
                strict=strict,
                snapshots=started_from,
                archive=archive_of(data_dir, redis_url),
                replicas=replicas,
                misuse=misuse,
            )
    except EmbeddedServerError as error:
        typer.echo(f"foldex: {error}", err=True)
        code = config.EXIT_UNAVAILABLE
    raise typer.Exit(code)
