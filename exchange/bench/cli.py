"""`foldex bench`. Imports wait until it runs, so that the command line answers at once."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer

from exchange import config

app = typer.Typer(
    help="Measure a whole exchange from its callers' side. Starts one of its own, in a temporary directory.",
    no_args_is_help=True,
)


class Api(StrEnum):
    """Over what orders are sent."""

    WS = "ws"
    REST = "rest"


class Kept(StrEnum):
    """What an answer promises."""

    RELAXED = "relaxed"
    STRICT = "strict"


ApiOption = Annotated[Api, typer.Option(help="The WebSocket API, or HTTP.")]
Seconds = Annotated[float, typer.Option(min=0.5, max=3_600.0, help="How long to measure.")]
Durable = Annotated[Kept, typer.Option(help="relaxed: synced every second; strict: before each answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")]


@app.command("latency")
def latency(
    rate: Annotated[float, typer.Option(min=1.0, max=100_000.0, help="Requests a second.")] = 500.0,
    seconds: Seconds = 20.0,
    api: ApiOption = Api.WS,
    durability: Durable = Kept.RELAXED,
    bad_rate: Annotated[
        float,
        typer.Option(min=0.0, max=100_000.0, help="Measure again beside so many bad requests a second."),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Order to answer at a steady rate, counted from when each was to be sent.

    Beside it the same load through an echo: the same sockets, streams and number of processes, without an
    exchange. And where the time of an order goes, from its frame's own marks.
    """
    from exchange.bench.latency import Asked, measure_latency

    asked = Asked(api=api.value, rate=rate, seconds=seconds, durability=_kept(durability), bad_rate=bad_rate)
    found = _run(lambda progress: measure_latency(asked, progress))
    if as_json:
        _print_json(found)
        return
    rows = ("orders", "echo", "ping", "orders_quiet", "orders_beside_bad")
    _print_rows({name.replace("_", " "): found[name] for name in rows if name in found})
    if bad := found.get("bad"):
        over = found["beside_bad_over_quiet"]
        typer.echo(
            f"bad requests: {bad['sent']} sent, {bad['answered']} answered, {bad['refused']} of them refused"
        )
        typer.echo(f"beside them over quiet: p50 {over['p50']}, p99 {over['p99']}")
    typer.echo(f"orders over echo, p50: {found['p50_over_echo']}")
    stages = found["stages"]
    typer.echo(f"frames: {stages['frames']}, commands in each: {stages['commands_per_frame']}")
    for name in ("frame_closed_to_read_by_writer", "read_to_appended_by_writer"):
        spread = stages[name]
        typer.echo(f"{name.replace('_', ' ')}: mean {spread['mean_ms']} ms, p99 {spread['p99_ms']} ms")
    typer.echo(f"the rest (client, intake, reading back): mean {stages['rest_mean_ms']} ms")


@app.command("throughput")
def throughput(
    seconds: Seconds = 10.0,
    api: ApiOption = Api.WS,
    in_flight: Annotated[int, typer.Option(min=1, max=10_000, help="Orders always under way.")] = 256,
    durability: Durable = Kept.RELAXED,
    as_json: AsJson = False,
) -> None:
    """Acknowledged orders a second, with so many always under way."""
    from exchange.bench.latency import Asked, measure_throughput

    asked = Asked(api=api.value, rate=0.0, seconds=seconds, durability=_kept(durability))
    found = _run(lambda progress: measure_throughput(asked, in_flight, progress))
    if as_json:
        _print_json(found)
    else:
        _print_rows({"orders": found["orders"]})


def _run(measure: Callable[[Callable[[str, float], None]], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Measure with a progress bar on a terminal; what fails becomes a message and an exit code."""
    import uvloop
    from rich.console import Console
    from rich.progress import Progress

    from events.embedded import EmbeddedServerError
    from exchange.client import ApiRefusal, ApiUnavailable
    from exchange.supervisor import SupervisorError
    from exchange.telemetry import configure_logging

    configure_logging("bench", pid=os.getpid(), as_json=False, level="error")
    console = Console(stderr=True)
    with Progress(console=console, disable=not sys.stderr.isatty(), transient=True) as bars:
        bar = bars.add_task("starting", total=1.0)

        async def work() -> dict[str, Any]:
            return await measure(lambda what, done: bars.update(bar, description=what, completed=done))

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(work())
        except (SupervisorError, EmbeddedServerError, OSError) as error:
            typer.echo(f"bench: {error}", err=True)
            raise typer.Exit(config.EXIT_UNAVAILABLE) from error
        except (ApiRefusal, ApiUnavailable) as error:
            typer.echo(f"bench: {error}", err=True)
            raise typer.Exit(config.EXIT_FINDING) from error
        except KeyboardInterrupt:
            raise typer.Exit(config.EXIT_INTERRUPTED) from None


def _print_json(found: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(found).decode())


def _print_rows(rows: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("")
    names = next(iter(rows.values()))
    for name in names:
        table.add_column(name, justify="right")
    for title, row in rows.items():
        table.add_row(title, *(f"{row[name]:,}" for name in names))
    Console(width=200).print(table)


def _kept(durability: Kept) -> Literal["relaxed", "strict"]:
    return "strict" if durability is Kept.STRICT else "relaxed"
