"""`foldex calc`: margin by the exchange's own rules, without an exchange.

Imports wait until it runs, so that the command line answers at once.
"""

import os
import sys
from typing import Annotated

import typer

from exchange import config

app = typer.Typer(
    name="calc", help="Calculate by the exchange's own rules, without an exchange.", no_args_is_help=True
)


# A callback makes `margin` a command of its own although it is the only one.
@app.callback()
def _calc() -> None:
    pass


@app.command()
def margin(
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(
            metavar="FILE", show_default=False, help="The account, in JSON; standard input when left out."
        ),
    ] = "-",  # type: ignore[assignment]
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON on one line.")] = False,
) -> None:
    """Say what an account's margin comes to, and where it is liquidated.

    JSON in, JSON out. Numbers are decimal strings; leverages may be plain.
    A field that is unknown, of a wrong type or impossible is named on
    standard error, and the exit code is 2.

    \b
    In:
    {"markets": {"BTCUSDT": {"mark": "50000", "tick_size": "0.1",
        "lot_size": "0.001", "taker_fee": "0.0005", "brackets": [
          {"cap": "50000", "maintenance_margin_rate": "0.004",
           "max_leverage": 125}, ...]}, ...},
     "position_mode": "one_way" | "hedge", "wallet": "1000",
     "positions": [{"market": "BTCUSDT", "leg": "BOTH" | "LONG" | "SHORT",
        "size": "-0.1", "entry_price": "51000",
        "margin_mode": "cross" | "isolated", "leverage": 20,
        "bucket": "250" (isolated only)}, ...],
     "orders": [{"market", "side": "BUY" | "SELL", "leg", "price", "size",
        "reduce_only": false}, ...],
     "what_if": [{"mark": {"BTCUSDT": "49000", ...}},
        {"order": {as in orders}},
        {"set_leverage": {"market", "leverage"}},
        {"add_margin": {"market", "leg", "amount" (negative: remove)}},
        {"set_margin_mode": {"market", "margin_mode",
           "margin" (optional: what each leg gets),
           "dry_run": false}}, ...]}

    \b
    Out: equity, initial_margin, maintenance_margin, margin_ratio, available
    and withdrawable of the wallet with its cross positions; a row for each
    position (bracket 0 is the lowest); with what_if, for each step whether
    it was accepted or why not, and the result after it. A ratio is null
    without equity, a price where there is no positive one.
    See docs/calc.md.
    """
    import msgspec

    from exchange.calc.account_file import read_scenario
    from exchange.calc.report import margin_report
    from exchange.calc.shapes import AccountFileError
    from exchange.calc.what_if import read_steps, try_steps

    try:
        scenario = read_scenario(file.read())
        steps = read_steps(scenario)
    except (AccountFileError, OSError) as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None
    result = margin_report(scenario)
    if steps:
        result["what_if"] = try_steps(scenario, steps)
    encoded = msgspec.json.encode(result)
    _print_result((encoded if as_json else msgspec.json.format(encoded, indent=2)).decode())


def _print_result(text: str) -> None:
    try:
        typer.echo(text)
        sys.stdout.flush()
    except OSError as error:
        # What could not be written must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(config.EXIT_OK) from None
        typer.echo(f"foldex: standard output: {error.strerror}", err=True)
        raise typer.Exit(config.EXIT_OUTPUT) from None
