"""Do every fault as often as asked and print what held: `python -m tests.faults [--small] [NAME …]`.

Exit code 0 only when every row held. Each row runs on servers and processes of its own, which are ended by
their ids; nothing listens on anything but unix sockets and 127.0.0.1.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import msgspec
import structlog
from rich.console import Console
from rich.table import Table

from tests.faults import others, repeats, servers, writers
from tests.faults.rig import Row


@dataclass(frozen=True)
class Driver:
    """A row: how it is done, how often in full, and how often where there is little time."""

    run: Callable[[int], Awaitable[Row]]
    full: int
    small: int


DRIVERS = {
    "writer-killed": Driver(writers.writer_killed, 100, 3),
    "append-killed": Driver(writers.killed_behind_append, 20, 3),
    "rename-killed": Driver(others.killed_before_rename, 20, 2),
    "server-relaxed": Driver(lambda count: servers.server_killed(count, "relaxed"), 20, 3),
    "server-strict": Driver(lambda count: servers.server_killed(count, "strict"), 20, 2),
    "writer-frozen": Driver(writers.writer_frozen, 50, 1),
    "writer-cut-off": Driver(writers.writer_cut_off, 10, 1),
    "file-cut": Driver(servers.file_cut, 200, 10),
    "seconds-lost": Driver(servers.seconds_lost, 30, 2),
    "clock-off": Driver(others.clock_off, 10, 2),
    "repeated-and-lost": Driver(repeats.repeated_and_lost, 20_000, 1_000),
    "interpreters": Driver(others.other_interpreters, 9, 1),
}


def main() -> int:
    """Run the rows that were named, all by default; return the exit code."""
    parser = argparse.ArgumentParser(prog="tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*DRIVERS, []], metavar="NAME", help=", ".join(DRIVERS))
    parser.add_argument("--small", action="store_true", help="few of each, as in the tests")
    parser.add_argument("--count", type=int, help="so many of each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    rows: list[Row] = []
    for name in chosen.names or DRIVERS:
        driver = DRIVERS[name]
        count = chosen.count or (driver.small if chosen.small else driver.full)
        rows.append(asyncio.run(_run(driver, count)))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    if chosen.json:
        print(msgspec.json.encode([asdict(row) | {"holds": row.holds} for row in rows]).decode())
    else:
        _print_table(rows)
    return 0 if all(row.holds for row in rows) else 1


async def _run(driver: Driver, count: int) -> Row:
    return await driver.run(count)


def _line(row: Row) -> str:
    return f"{row.fault}: {row.passed} of {row.count}, {row.seconds} s; {'; '.join(row.notes)}"


def _print_table(rows: list[Row]) -> None:
    table = Table("fault", "count", "held", "seconds", "notes")
    for row in rows:
        held = str(row.passed) if row.holds else f"{row.passed}  FAILED"
        table.add_row(row.fault, str(row.count), held, f"{row.seconds:.1f}", "\n".join(row.notes))
    Console(width=140 if not sys.stdout.isatty() else None).print(table)


if __name__ == "__main__":
    sys.exit(main())
