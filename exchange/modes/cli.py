"""`foldex modes`. Imports wait until it runs, so that the command line answers at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange import config
from exchange.options import (
    ArchiveToRead,
    AsJson,
    DataDir,
    RedisUrl,
    moment_of,
    read_log,
    reporting,
    snapshot_directories,
)

if TYPE_CHECKING:
    from events.log import ReadableLog
    from exchange.modes.book import Book
    from exchange.modes.paths import Paths
    from exchange.modes.survival import Exit

PATHS_DEFAULT = 1_000
PATHS_MAX = 100_000
PIPE_COLUMNS = 150
Texts = list[str] | None


def modes(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BOOK]",
            show_default=False,
            help="The positions, as an account file of `foldex calc margin`.",
        ),
    ] = None,
    account: Annotated[
        int | None, typer.Option(min=2, help="Take the positions of this account of a log instead.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="ENTRY|TIME", help="As they were behind it. [default: at the end]")
    ] = None,
    prices: Annotated[
        Texts, typer.Option(metavar="[SYMBOL=]FILE", help="Recorded candles, a file for each market.")
    ] = None,
    draw: Annotated[
        str,
        typer.Option(
            metavar="whole|windows|blocks",
            help="The recording as one path, stretches of it, or blocks of it drawn and joined.",
        ),
    ] = "whole",
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Generate prices by this model instead (JSON).")
    ] = None,
    paths: Annotated[int, typer.Option(min=1, max=PATHS_MAX, help="How many paths.")] = PATHS_DEFAULT,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Candles, or steps of the model, a path. [default: 288]")
    ] = None,
    block: Annotated[int, typer.Option(min=1, help="Candles a block.")] = 24,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 32) - 1, help="Repeats what is drawn.")] = 1,
    collateral: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="What to try. [default: that of the book]")
    ] = None,
    stop: Annotated[Texts, typer.Option(metavar="MARKET=PRICE", help="Close positions there.")] = None,
    target: Annotated[Texts, typer.Option(metavar="MARKET=PRICE", help="Close positions there.")] = None,
    probability: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="How often a position may die before its stop or target."),
    ] = 0.05,
    archive: ArchiveToRead = None,
    data_dir: DataDir = config.DATA_DIR_DEFAULT,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Isolated or cross? Say what a book needs on price paths in either mode, and what kills it.

    The paths are recorded prices (--prices), or generated ones (--model). They begin at the book's own marks.
    Margin is the exchange's own; see docs/margin-modes.md.
    """
    import msgspec
    from rich.console import Console

    from exchange.audit.cli import ReplayProgress
    from exchange.calc.shapes import AccountFileError
    from exchange.feed import FeedError
    from exchange.modes.book import BookError, read_book
    from exchange.modes.report import plain, print_report
    from exchange.modes.survival import survive

    if (file is None) == (account is None):
        raise typer.BadParameter("give a BOOK, or --account and a log")
    if (model is None) == (not prices):
        raise typer.BadParameter("give --prices, or --model")
    try:
        book = (
            read_book(file.read_bytes())
            if file
            else _book_of_log(account or 0, at, data_dir, redis_url, archive)
        )
        source = _paths(book, prices or [], model, draw, paths, horizon, block, seed)
        amount = _collateral(book, collateral)
        exits = _exits(book, stop or [], target or [])
        with ReplayProgress("trying paths") as progress:
            survival = survive(book, source, amount, exits, progress.update)
        report = plain(book, source, survival, probability)
    except (AccountFileError, BookError, FeedError, OSError) as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None
    with reporting():
        if as_json:
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        else:
            console = Console(highlight=False)
            print_report(console if console.is_terminal else Console(width=PIPE_COLUMNS), report)
        sys.stdout.flush()


def _book_of_log(
    account_id: int, at: str | None, data_dir: Path, redis_url: str | None, archive: str | None
) -> "Book":
    from exchange.audit.cli import ReplayProgress
    from exchange.audit.travel import seq_of_moment, travel
    from exchange.modes.book import book_of

    books: list[Book] = []
    moment = moment_of(at, "--at")

    async def read(log: "ReadableLog") -> None:
        seq = await seq_of_moment(log, moment)
        with ReplayProgress() as progress:
            traveller = await travel(log, snapshot_directories(data_dir), seq, progress.update)
        books.append(book_of(traveller.state, account_id))

    read_log(data_dir, redis_url, read, archive)
    return books[0]


def _paths(
    book: "Book",
    files: list[str],
    model: Path | None,
    draw: str,
    count: int,
    horizon: int | None,
    block: int,
    seed: int,
) -> "Paths":
    from exchange.modes.paths import HORIZON_DEFAULT, Draw, GeneratedPaths, read_model, recorded_paths

    if model is not None:
        steps = horizon or HORIZON_DEFAULT
        return GeneratedPaths(book, read_model(model.read_bytes(), book), count=count, steps=steps, seed=seed)
    if draw not in {each.value for each in Draw}:
        raise typer.BadParameter(f"must be one of {', '.join(Draw)}", param_hint="--draw")
    if draw == Draw.WHOLE and horizon is not None:
        raise typer.BadParameter("is for --draw windows and blocks, or a model", param_hint="--horizon")
    candles = None if draw == Draw.WHOLE else horizon or HORIZON_DEFAULT
    return recorded_paths(book, files, Draw(draw), count=count, candles=candles, block=block, seed=seed)


def _collateral(book: "Book", text: str | None) -> int:
    from exchange.decimals import DecimalError, parse_money

    if text is None:
        if book.collateral <= 0:
            raise typer.BadParameter("the book has none; say how much to try", param_hint="--collateral")
        return book.collateral
    try:
        amount = parse_money(text)
    except DecimalError as error:
        raise typer.BadParameter(str(error), param_hint="--collateral") from None
    if amount == 0:
        raise typer.BadParameter("must be positive", param_hint="--collateral")
    return amount


def _exits(book: "Book", stops: list[str], targets: list[str]) -> "dict[str, Exit]":
    from exchange.calc.shapes import AccountFileError, price
    from exchange.modes.survival import Exit

    levels: dict[str, dict[str, int]] = {}
    for option, texts in (("stop", stops), ("target", targets)):
        for text in texts:
            symbol, _, value = text.partition("=")
            if symbol not in book.symbols:
                known = ", ".join(book.symbols)
                raise AccountFileError(f"--{option} {text}", f"must be MARKET=PRICE with one of {known}")
            name = f"{option}_ticks"
            if name in levels.setdefault(symbol, {}):
                raise AccountFileError(f"--{option} {text}", "the market has one already")
            levels[symbol][name] = price(f"--{option} {text}", book.specs[symbol], value)
    return {symbol: Exit(**each) for symbol, each in levels.items()}
