"""Do every fault as often as asked and print what held: `python -m tests.faults [--small] [NAME …]`.

Exit code 0 only when every row held, 1 when one did not. Each row runs on servers and processes of its own,
which are ended by their ids, also when this is stopped; nothing listens on anything but unix sockets and
127.0.0.1. Every row has a bound in time, and the same count has the same seeds.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from exchange import config
from tests.faults import flips, lost, repeats, servers, surroundings, writers
from tests.faults.rig import Row, watching

PIPE_COLUMNS = 140


@dataclass(frozen=True)
class Driver:
    """A row: how it is done, how often in full, and how often where there is little time: 5 % or more."""

    run: Callable[[int], Awaitable[Row]]
    full: int
    small: int


DRIVERS = {
    "writer-killed": Driver(writers.writer_killed, 100, 5),
    "append-killed": Driver(writers.killed_behind_append, 20, 2),
    "rename-killed": Driver(surroundings.killed_before_rename, 20, 2),
    "server-relaxed": Driver(lambda count: servers.server_killed(count, "relaxed"), 20, 3),
    "server-strict": Driver(lambda count: servers.server_killed(count, "strict"), 20, 2),
    "failover": Driver(servers.failed_over, 20, 1),
    "writer-frozen": Driver(writers.writer_frozen, 50, 3),
    "writer-overtaken": Driver(writers.writer_overtaken, 20, 2),
    "writer-cut-off": Driver(writers.writer_cut_off, 20, 2),
    "file-cut": Driver(servers.file_cut, 200, 10),
    "bits-flipped": Driver(flips.bits_flipped, 1_000, 100),
    "seconds-lost": Driver(lost.seconds_lost, 30, 3),
    "clock-off": Driver(surroundings.clock_off, 10, 2),
    "repeated-and-lost": Driver(repeats.repeated_and_lost, 20_000, 1_000),
    "interpreters": Driver(surroundings.other_interpreters, 9, 3),
}


def main() -> int:
    """Run the rows that were named, all by default; return the exit code."""
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*DRIVERS, []], metavar="NAME", help=", ".join(DRIVERS))
    parser.add_argument("--small", action="store_true", help="few of each, as in the tests")
    parser.add_argument("--count", type=int, help="so many of each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if chosen.count is not None and chosen.count < 1:
        parser.error("--count: must be 1 or more")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("critical"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    signal.signal(signal.SIGTERM, _interrupt)
    rows: list[Row] = []
    try:
        for name in chosen.names or DRIVERS:
            driver = DRIVERS[name]
            count = chosen.count or (driver.small if chosen.small else driver.full)
            with _progress(name, count):
                rows.append(asyncio.run(_run(driver, count)))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("faults: stopped before it was done", file=sys.stderr)
        return config.EXIT_INTERRUPTED
    if chosen.json:
        print(msgspec.json.encode(_plain(rows)).decode())
    else:
        _print_table(rows)
    return config.EXIT_OK if all(row.holds for row in rows) else config.EXIT_FINDING


def _interrupt(number: int, _: Any) -> None:
    """End what was started, as Ctrl-C does."""
    raise KeyboardInterrupt


async def _run(driver: Driver, count: int) -> Row:
    return await driver.run(count)


@contextmanager
def _progress(name: str, count: int) -> Iterator[None]:
    """Show on stderr, if that is a terminal, how far a row is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=count)
        with watching(lambda done: bar.update(task, completed=done)):
            yield


def _total(rows: list[Row]) -> Row:
    return Row(
        "total",
        sum(row.count for row in rows),
        passed=sum(row.passed for row in rows),
        seconds=round(sum(row.seconds for row in rows), 1),
        notes=[f"{sum(row.holds for row in rows)} of {len(rows)} rows held"],
    )


def _plain(rows: list[Row]) -> dict[str, Any]:
    lines = [_fields(row) for row in (*rows, _total(rows))]
    return {"rows": lines[:-1], "total": lines[-1]}


def _fields(row: Row) -> dict[str, Any]:
    fields = asdict(row) | {"holds": row.holds}
    del fields["done"]
    return fields


def _line(row: Row) -> str:
    held = "held" if row.holds else "FAILED"
    return f"{held}  {row.fault}: {row.passed} of {row.count}, {row.seconds} s; {'; '.join(row.notes)}"


def _print_table(rows: list[Row]) -> None:
    table = Table("fault", "count", "held", "seconds", "figures")
    for row in (*rows, _total(rows)):
        held = str(row.passed) if row.holds else f"{row.passed}  FAILED"
        if row.fault == "total":
            table.add_section()
        table.add_row(row.fault, str(row.count), held, f"{row.seconds:.1f}", "\n".join(row.notes))
    Console(width=PIPE_COLUMNS if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    sys.exit(main())
