"""What the commands of `foldex audit` do with a log, and how they print it."""

import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from events.log import ReadableLog
from events.snapshot import seq_of
from events.values import LiquidationResult, MarginMode, MarketSpec
from exchange.audit.account_view import View, account_view, changes
from exchange.audit.cases import CaseFilter, read_cases
from exchange.audit.chart import draw, terminal_lines
from exchange.audit.cli import PIPE_COLUMNS, FindingError, ReplayProgress, expect_many_objects
from exchange.audit.evidence import Evidence, gather
from exchange.audit.narrative import Section, describe_story, sections_of
from exchange.audit.page import page_of
from exchange.audit.printer import one_line
from exchange.audit.story import Story, tell
from exchange.audit.travel import (
    Moment,
    NotInLogError,
    Traveller,
    make_snapshots,
    seq_of_moment,
    travel,
)

_COLUMNS = (
    "liquidation_id", "seq", "time", "account_id", "market", "leg", "mode", "marks", "collateral", "equity",
    "maintenance", "loss", "result", "fund_before", "fund_after", "deleveraged",
)  # fmt: skip
_HEADS = (
    "id", "seq", "time", "account", "bucket", "mark", "equity", "maintenance", "loss", "result", "fund",
    "fund after", "deleveraged",
)  # fmt: skip
_SAYS_MOST = ("market", "side", "margin_mode", "leverage", "size", "entry_price", "open", "price", "kind")
_HEALTH = ("equity", "maintenance_margin", "margin_ratio", "available", "withdrawable")


class OutputError(Exception):
    """A file that was asked for could not be written; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which liquidations to list; None is any."""

    account_id: int | None
    market: str | None
    mode: MarginMode | None
    result: LiquidationResult | None
    since: Moment | None
    until: Moment | None


async def run_liquidations(log: ReadableLog, wanted: Wanted, form: str) -> None:
    """Print the liquidations of a log as "table", "json" (an object a line) or "csv".

    Raises:
        NotInLogError: the log has no such moment or market, or the end is before the beginning.
    """
    first_seq, last_seq = await _range_of(log, wanted.since, wanted.until)
    chosen = CaseFilter(
        account_id=wanted.account_id,
        market=wanted.market,
        mode=wanted.mode,
        result=wanted.result,
        first_seq=first_seq,
        last_seq=last_seq,
    )
    specs: dict[str, MarketSpec] = {}
    with ReplayProgress("reading") as progress:
        rows = [
            case.row(specs) async for case in read_cases(log, specs, progress.update) if chosen.wants(case)
        ]
    if wanted.market and wanted.market not in specs:
        raise NotInLogError(
            f"{wanted.market} is not listed in this log; listed: {', '.join(specs) or 'none'}"
        )
    if form == "json":
        _write_json(rows)
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_cells(row) for row in rows)
    else:
        _print_table(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print what fits a screen: money to the cent."""
    table = Table()
    for head in _HEADS:
        table.add_column(head, no_wrap=head in ("id", "seq", "time"))
    for row in rows:
        cells = dict(zip(row, _cells(row), strict=True))
        leg = "" if row["leg"] == "both" else f" {row['leg']}"
        money = ("equity", "maintenance", "loss", "fund_before", "fund_after")
        cells |= {name: f"{Decimal(row[name]):.2f}" for name in money}
        cells["time"] = row["time"][:-5] + "Z"
        cells["bucket"] = f"{row['mode']} {row['market']}{leg}"
        order = ("liquidation_id", "seq", "time", "account_id", "bucket", "marks", *money[:3], "result")
        table.add_row(*(cells[name] for name in (*order, *money[3:], "deleveraged")))
    console = _console()
    console.print(table)
    console.print(f"{len(rows)} liquidations")


async def _range_of(log: ReadableLog, since: Moment | None, until: Moment | None) -> tuple[int, int]:
    """Return the first and the last entry of a range; between two times there may be none.

    Raises:
        NotInLogError: the log has no such moment, or the end is before the beginning.
    """
    first_seq = await _first_seq(log, since)
    last_seq = await seq_of_moment(log, until)
    # The end of a range without an entry is the one in front of it, which a number does not name.
    is_numbered = since is not None and since.seq is not None
    if since is not None and first_seq > last_seq + (not is_numbered):
        raise NotInLogError(f"--to is entry {last_seq}, and --from entry {first_seq} is behind it")
    return first_seq, last_seq


async def _first_seq(log: ReadableLog, since: Moment | None) -> int:
    """Return the first entry not before a moment."""
    if since is None:
        return 1
    if since.time_ns is None:
        return await seq_of_moment(log, since)
    try:
        return await seq_of_moment(log, Moment(time_ns=since.time_ns - 1)) + 1
    except NotInLogError:
        return 1


def _cells(row: dict[str, Any]) -> list[str]:
    marks = ", ".join(f"{symbol} {mark}" for symbol, mark in row["marks"].items())
    parties = ", ".join(
        f"{each['account_id']}: {each['size']} {each['market']}" for each in row["deleveraged"]
    )
    return [str(value) for value in (row | {"marks": marks, "deleveraged": parties}).values()]


async def run_explain(
    log: ReadableLog,
    number: int,
    directories: Sequence[Path],
    *,
    chart: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Print the story of a liquidation; write its chart and its page where that is asked for.

    Raises:
        NotInLogError: there is none of that number.
        FindingError: computed again it is not what is stored.
        ChartError: no chart can be drawn.
        OutputError: a file could not be written.
    """
    expect_many_objects()
    with ReplayProgress() as progress:
        story = await tell(log, directories, number, progress.update)
    _write_files(story, chart, html)
    if as_json:
        _write_json([describe_story(story)])
    else:
        first, *rest = sections_of(story)
        for section in (first, Section(title="Mark and ratio", lines=tuple(terminal_lines(story))), *rest):
            _print_section(section)
    if not story.recomputed.is_equal:
        raise FindingError(f"liquidation {number} is not what the rules make of it")


def _write_files(story: Story, chart: Path | None, html: Path | None) -> None:
    contents: list[tuple[Path, bytes]] = []
    if chart is not None:
        contents.append((chart, draw(story, chart.suffix.lower().removeprefix("."))))
    if html is not None:
        contents.append((html, page_of(story).encode()))
    for path, content in contents:
        try:
            path.write_bytes(content)
        except OSError as error:
            raise OutputError(f"{path} could not be written: {error.strerror}") from error


def _print_section(section: Section) -> None:
    console = _console()
    console.print(f"\n[bold]{section.title}[/bold]")
    for line in section.lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if section.head:
        table = Table(*section.head)
        for row in section.rows:
            table.add_row(*row)
        console.print(table)


async def run_account(
    log: ReadableLog, account_id: int, at: Moment | None, directories: Sequence[Path], *, as_json: bool
) -> None:
    """Print an account as it was at a moment.

    Raises:
        NotInLogError: the log has no such moment, or no such account then.
    """
    traveller = await _travel(log, directories, await seq_of_moment(log, at))
    view = account_view(traveller.state, account_id)
    if as_json:
        _write_json([view])
    else:
        _print_view(view)


async def run_diff(
    log: ReadableLog,
    account_id: int,
    one: Moment | None,
    other: Moment | None,
    directories: Sequence[Path],
    *,
    as_json: bool,
) -> None:
    """Print what changed of an account between two moments.

    Raises:
        NotInLogError: the log has no such moment, or no such account then.
    """
    seqs = [await seq_of_moment(log, moment) for moment in (one, other)]
    traveller, views = await _travel(log, directories, min(seqs)), {}
    for seq in sorted(seqs):
        with ReplayProgress() as progress:
            await traveller.go(seq, progress.update)
        views[seq] = account_view(traveller.state, account_id)
    before, after = (views[seq] for seq in seqs)
    found = changes(before, after)
    if as_json:
        _write_json([{"before": before, "after": after, "changes": found}])
        return
    table = Table("field", f"entry {before['seq']}", f"entry {after['seq']}", "change")
    for row in found:
        table.add_row(*(_brief(value) for value in row.values()))
    _console().print(table)


async def _travel(log: ReadableLog, directories: Sequence[Path], seq: int) -> Traveller:
    expect_many_objects()
    with ReplayProgress() as progress:
        return await travel(log, directories, seq, progress.update)


def _print_view(view: View) -> None:
    console = _console()
    label = f" ({view['label']})" if view["label"] else ""
    console.print(f"account {view['account_id']}{label}, entry {view['seq']}, {view['time']}", markup=False)
    console.print(f"wallet {view['wallet']}, {view['position_mode']}{', blocked' if view['blocked'] else ''}")
    buckets = Table("bucket", *_HEALTH, "liquidation price")
    pool = view["pool"]
    buckets.add_row("cross pool", *(_text(pool[name]) for name in _HEALTH), "")
    names = ("market", "leg", "margin_mode", "leverage", "size", "entry_price", "mark", "unrealized_pnl")
    positions = Table(*names)
    for position in view["positions"].values():
        positions.add_row(*(_text(position[name]) for name in names))
        is_isolated = position["bucket"] is not None
        health = (_text(position.get(name)) if is_isolated else "" for name in _HEALTH)
        buckets.add_row(
            f"{position['market']} {position['leg']}" + ("" if is_isolated else ", on the pool"),
            *health,
            _text(position["liquidation_price"]),
        )
    console.print(buckets)
    if view["positions"]:
        console.print(positions)
    _print_rows(console, "order", view["orders"])
    _print_rows(console, "conditional order", view["conditional_orders"])


def _print_rows(console: Console, head: str, rows: dict[str, View]) -> None:
    if not rows:
        return
    names = list(next(iter(rows.values())))
    table = Table(head, *names)
    for number, row in rows.items():
        table.add_row(number, *(_text(row[name]) for name in names))
    console.print(table)


async def run_audit(
    log: ReadableLog,
    since: Moment | None,
    until: Moment | None,
    directories: Sequence[Path],
    late_events: int,
    *,
    as_json: bool,
) -> None:
    """Verify the liquidations of a log and print what was found.

    Raises:
        FindingError: something was.
        NotInLogError: the log has no such moment, or the end is before the beginning.
    """
    first_seq, last_seq = await _range_of(log, since, until)
    expect_many_objects()
    with ReplayProgress("auditing") as progress:
        evidence = await gather(
            log,
            directories if since is not None else (),
            first_seq=first_seq,
            last_seq=last_seq if until is not None else None,
            late_events_max=late_events,
            on_progress=progress.update,
        )
    if as_json:
        _write_json([_plain(evidence)])
    else:
        _print_evidence(evidence)
    if evidence.findings:
        raise FindingError(evidence.findings[0].what)


def _plain(evidence: Evidence) -> dict[str, Any]:
    plain = asdict(evidence)
    head = evidence.head
    return {"clean": not evidence.findings, **plain, "head": {"seq": head.seq, "hash": head.chain_hash.hex()}}


def _print_evidence(evidence: Evidence) -> None:
    of_fund = f", {evidence.of_fund} of the fund's own" if evidence.of_fund else ""
    lines = [
        ("entries", f"{evidence.first_seq} to {evidence.head.seq}, {evidence.events:,} events"),
        ("liquidations", f"{evidence.liquidations:,}{of_fund}, each derived again"),
        (
            "waiting",
            f"{evidence.longest_wait:,} events at most until a bucket was asked about, "
            f"{evidence.late_events_max:,} allowed; {evidence.waiting} due at the end",
        ),
        ("head", f"{evidence.head.seq}:{evidence.head.chain_hash.hex()}"),
    ]
    for name, value in lines:
        sys.stdout.write(f"{name:<13} {value}\n")
    for finding in evidence.findings:
        number = f" liquidation {finding.liquidation_id}:" if finding.liquidation_id else ""
        sys.stdout.write(f"NOT {finding.rule}: entry {finding.seq}:{number} {finding.what}\n")
    if not evidence.findings:
        sys.stdout.write("necessary, sufficient, orderly, complete\n")


async def run_snapshots(log: ReadableLog, directory: Path, every: int, *, as_json: bool) -> None:
    """Write snapshots of a log and say which there are."""
    expect_many_objects()
    with ReplayProgress("snapshots") as progress:
        paths = await make_snapshots(log, directory, every, progress.update)
    entries = sorted(map(seq_of, paths))
    if as_json:
        _write_json([{"directory": str(directory), "entries": entries}])
    else:
        sys.stdout.write(f"{len(entries)} snapshots in {directory}, of entries {_text(entries)}\n")


def _console() -> Console:
    """Return a console; what goes into a pipe is not cut to the width of a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_COLUMNS)


def _brief(value: object) -> str:
    """Return a field of a change; of a whole row what says most."""
    if isinstance(value, dict):
        return one_line({name: value[name] for name in _SAYS_MOST if name in value})
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "" if value is None else str(value)


def _write_json(rows: Iterable[object]) -> None:
    for row in rows:
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
