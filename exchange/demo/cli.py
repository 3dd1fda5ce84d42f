"""`foldex demo`. Imports wait until it runs, so that the command line answers at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange import config

if TYPE_CHECKING:
    from exchange.demo.outcome import Outcome
    from exchange.demo.run import DemoOptions

ACCOUNTS_DEFAULT = 300
DURATION_DEFAULT_S = 45.0
SEED_DEFAULT = 10
INSURANCE_FUND_DEFAULT = "1000000"
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def demo(
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--prices",
            metavar="[SYMBOL=]FILE",
            help="Recorded candles (CSV or CSV.gz), one file a market; the stretch with the steepest fall is "
            "played. More files may follow the first. Default: a generated crash.",
        ),
    ] = None,
    more_prices: Annotated[list[str] | None, typer.Argument(metavar="FILE", show_default=False)] = None,
    accounts: Annotated[int, typer.Option(min=2, max=5_000, help="How many traders.")] = ACCOUNTS_DEFAULT,
    duration: Annotated[
        float, typer.Option(min=5.0, max=3_600.0, metavar="SECONDS", help="How long the price path takes.")
    ] = DURATION_DEFAULT_S,
    seed: Annotated[int, typer.Option(help="Repeats a generated path, and the traders.")] = SEED_DEFAULT,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Where to leave the log. Default: .foldex-demo-<time>, kept."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65_534, help="The API's port; the administrator's is the next.")
    ] = config.PORT_DEFAULT,
    insurance_fund: Annotated[
        str,
        typer.Option(
            metavar="AMOUNT",
            help="What the insurance fund has for each market, in USDT, or 0. With little, others are "
            "deleveraged.",
        ),
    ] = INSURANCE_FUND_DEFAULT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and only that.")
    ] = False,
) -> None:
    """Drive a whole exchange through a crash, then prove that its log holds all of it.

    Starts the real processes, opens accounts that trade through the HTTP API, half in isolated margin and
    half in cross, plays the prices, and rebuilds the state from the log in a fresh process. Exits with 0 when
    both states are the same.
    """
    import msgspec
    from rich.console import Console

    from exchange.demo.outcome import explore_commands, print_outcome
    from exchange.demo.run import DemoOptions

    options = DemoOptions(
        accounts=accounts,
        duration_s=duration,
        seed=seed,
        files=(*(prices or ()), *(more_prices or ())),
        data_dir=_fresh_directory(data_dir),
        port=port,
        insurance_fund=_amount(insurance_fund),
    )
    outcome = _run(options)
    if as_json:
        sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
    else:
        print_outcome(Console(), outcome, explore_commands(outcome))
    if not outcome.is_proved:
        raise typer.Exit(EXIT_FAILED)


def _run(options: "DemoOptions") -> "Outcome":
    import structlog
    import uvloop
    from rich.console import Console

    from events.embedded import EmbeddedServerError
    from events.log import LogError
    from exchange.aggregate.state import IdentityError
    from exchange.client import ApiRefusal, ApiUnavailable
    from exchange.demo.run import DemoError, path_of, run_demo
    from exchange.demo.table import open_display
    from exchange.feed import FeedError
    from exchange.supervisor import SupervisorError
    from exchange.telemetry import configure_logging

    try:
        path = path_of(options)
    except FeedError as error:
        raise typer.BadParameter(str(error), param_hint="--prices") from error
    logs = options.data_dir / "logs"
    options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    logs.mkdir(mode=0o700)
    display = open_display(Console(stderr=True))
    # The terminal belongs to the table; what this process logs goes where its children's lines go.
    with (logs / "demo.log").open("a") as log_file:
        configure_logging("demo", pid=os.getpid(), as_json=True)
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=log_file))
        try:
            with display, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_until_terminated(run_demo(options, path, display)))
        except (
            DemoError,
            SupervisorError,
            EmbeddedServerError,
            LogError,
            IdentityError,
            ApiRefusal,
            ApiUnavailable,
        ) as error:
            typer.echo(f"demo: {error}", err=True)
            raise typer.Exit(getattr(error, "exit_code", EXIT_FAILED)) from error
        except (asyncio.CancelledError, KeyboardInterrupt):
            typer.echo("demo: stopped before its end", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


async def _until_terminated(work: Coroutine[Any, Any, "Outcome"]) -> "Outcome":
    """Do the work; a SIGTERM cancels it as a Ctrl-C does, so that the processes are stopped."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _fresh_directory(data_dir: Path | None) -> Path:
    if data_dir is None:
        data_dir = Path(f".foldex-demo-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise typer.BadParameter(f"{data_dir} is not an empty directory", param_hint="--data-dir")
    return data_dir.resolve()


def _amount(text: str) -> str:
    from exchange.decimals import DecimalError, parse_money

    try:
        parse_money(text)
    except DecimalError as error:
        raise typer.BadParameter(str(error), param_hint="--insurance-fund") from error
    return text
