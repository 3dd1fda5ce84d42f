"""`foldex-sim`: many seeds, one run each, and what was found."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from exchange import config
from exchange.audit.cli import ReplayProgress
from exchange.simulation.run import COMMANDS_DEFAULT, RunResult, simulate

SEEDS_DEFAULT = 500
NOTES_SHOWN = 25

app = typer.Typer(add_completion=False)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints: the broken promises of each failed seed, and what all runs together have met.

    `digest` is of all runs, in order: equal digests, equal runs.
    """

    first_seed: int
    seeds: int
    commands: int
    seconds: float
    digest: str
    failed: list[dict[str, object]]
    counts: dict[str, int]


@app.command()
def run(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = SEEDS_DEFAULT,
    first: Annotated[int, typer.Option("--from", min=0, metavar="SEED", help="The first seed.")] = 0,
    commands: Annotated[
        int, typer.Option(min=1, help="How many commands the traders of one run send.")
    ] = COMMANDS_DEFAULT,
    notes: Annotated[bool, typer.Option("--notes", help="Print what happened in each run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run the whole exchange in one thread, with faults, once for each seed.

    Intake, writer, standby, liquidator and archiver are the real ones; the
    log between them loses, delays and repeats what they send, and they are
    killed, frozen and cut off. Time is simulated. A seed is one run, to the
    byte, on any machine: give it with --from to see it again.

    Exit code 0: every promise was kept. 1: one was not; the seeds are named.
    2: wrong usage. See docs/simulation.md.
    """
    results: list[RunResult] = []
    start_s = time.monotonic()
    with ReplayProgress("simulating") as progress:
        for seed in range(first, first + seeds):
            results.append(simulate(seed, commands=commands))
            progress.update(len(results), seeds)
            if notes:
                typer.echo("\n".join((f"seed {seed}", *results[-1].notes)))
    summary = summarise(results, commands=commands, seconds=time.monotonic() - start_s)
    if as_json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        _print(summary, results)
    if summary.failed:
        raise typer.Exit(config.EXIT_FINDING)


def summarise(results: Sequence[RunResult], *, commands: int, seconds: float) -> Summary:
    """Return what came of runs of consecutive seeds."""
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    return Summary(
        first_seed=results[0].seed,
        seeds=len(results),
        commands=commands,
        seconds=round(seconds, 1),
        digest=results[0].digest if len(results) == 1 else digest_of([result.digest for result in results]),
        failed=[
            {"seed": result.seed, "findings": result.findings, "reproduce": reproduce(result.seed, commands)}
            for result in results
            if result.findings
        ],
        counts=dict(sorted(counts.items())),
    )


def digest_of(digests: Sequence[str]) -> str:
    """Return one digest of many."""
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=16).hexdigest()


def reproduce(seed: int, commands: int) -> str:
    """Return the command line that runs a seed again and shows what happens."""
    size = "" if commands == COMMANDS_DEFAULT else f" --commands {commands}"
    return f"foldex-sim --seeds 1 --from {seed}{size} --notes"


def report(result: RunResult, commands: int = COMMANDS_DEFAULT) -> str:
    """Say what was found in a run, what happened last, and how to see it again."""
    lines = [f"seed {result.seed}: {what}" for what in result.findings]
    lines += [f"    {note}" for note in result.notes[-NOTES_SHOWN:]]
    lines += [f"    {line}" for line in result.trace]
    return "\n".join([*lines, f"to see it again: {reproduce(result.seed, commands)}"])


def _print(summary: Summary, results: Sequence[RunResult]) -> None:
    for result in results:
        if result.findings:
            typer.echo(report(result, summary.commands))
    table = Table("met", "times")
    for name, count in summary.counts.items():
        table.add_row(name, f"{count:,}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"digest {summary.digest}")
    verdict = f"{len(summary.failed)} FAILED" if summary.failed else "every promise was kept"
    console.print(f"{summary.seeds} seeds from {summary.first_seed}, {summary.seconds} s: {verdict}")
    if summary.failed:
        console.print(f"failing seeds: {', '.join(str(row['seed']) for row in summary.failed)}")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
