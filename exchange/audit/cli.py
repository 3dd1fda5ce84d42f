"""The commands that look at a log: `foldex replay`, `foldex log`, `foldex verify` and `foldex head`."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from events.commands import AnyCommand
from events.events import Event, MarketListed
from events.frame import UndecodableBodyError, header_of
from events.log import (
    CommandEntry,
    CommandReader,
    CorruptLogError,
    EventReader,
    LogUnavailableError,
    ReadableLog,
    TrimmedError,
    VerifiedEvents,
    check_answer,
)
from events.values import MarketSpec, Outcome
from exchange.aggregate.state import RULES_VERSION
from exchange.audit.printer import Message, one_line, readable, type_of
from exchange.audit.replay import Replayed, describe, replay, time_text
from exchange.audit.scope import Scope
from exchange.audit.travel import NotInLogError
from exchange.audit.verify import CheckColumns, Extent, KeptHead, Report, Span, verify

QUIET_S = 2.0
ENTRIES_PER_READ = 256
FOLLOW_WAIT_MS = 500
# The state lives as long as the process: looking through its objects often only costs time.
GC_THRESHOLD = (100_000, 50, 100)
# Tables that go into a pipe are not cut to the width of a terminal.
PIPE_COLUMNS = 200


class FindingError(Exception):
    """Something is wrong with the log, and was printed."""


async def run_replay(log: ReadableLog, *, until: int | None, as_json: bool) -> None:
    """Rebuild the state and print what it is.

    Raises:
        NotInLogError: the log has no entry `until`.
        CorruptLogError, LogRewoundError: the log is not what was written.
        IdentityError: money or contracts do not add up.
    """
    expect_many_objects()
    with ReplayProgress() as progress:
        replayed = await replay(log, until=until, on_progress=progress.update)
    if until is not None and replayed.head.seq < until:
        raise NotInLogError(f"the log ends at entry {replayed.head.seq}; there is no entry {until}")
    if as_json:
        sys.stdout.write(msgspec.json.encode(describe(replayed)).decode() + "\n")
    else:
        _print_replayed(replayed)


def expect_many_objects() -> None:
    """Let the collector look seldom through a state that is about to be built."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)


class ReplayProgress:
    """A progress bar on stderr that shows up when a replay takes longer than two seconds."""

    def __init__(self, word: str = "replaying") -> None:
        self._bar = Progress(
            TextColumn(word),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(word)
        self._start_s = time.monotonic()
        self._is_shown = False

    def __enter__(self) -> "ReplayProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Take the bar away: what took long is done."""
        if self._is_shown:
            self._bar.stop()

    def update(self, seq: int, target: int) -> None:
        """Show how far a replay is."""
        if not self._is_shown and time.monotonic() - self._start_s > QUIET_S:
            self._bar.start()
            self._is_shown = True
        self._bar.update(self._task, completed=seq, total=target)


def _print_replayed(replayed: Replayed) -> None:
    summary = describe(replayed)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_COLUMNS)
    for name in ("seq", "time", "log_id", "digest", "venue_digest", "position_digest", "events"):
        console.print(f"{name:<16} {summary[name]}")
    console.print(
        f"{'identities':<16} exact: Σ wallets + Σ buckets − Σ entry costs = "
        f"{summary['deposited']} deposited − {summary['withdrawn']} withdrawn; Σ sizes = 0 in every market"
    )
    markets = Table("market", "status", "index", "mark", "last", "open interest")
    for market in summary["markets"]:
        markets.add_row(*market.values())
    accounts = Table("account", "label", "wallet", "orders", "market", "mode", "leverage", "size", "bucket")
    for account in summary["accounts"]:
        head = (str(account["account_id"]), account["label"], account["wallet"], str(account["open_orders"]))
        for position in account["positions"] or [{}]:
            cells = (str(position.get(name, "")) for name in ("market", "mode", "leverage", "size", "bucket"))
            accounts.add_row(*head, *cells)
            head = ("", "", "", "")
    console.print(markets, accounts)


async def run_verify(
    log: ReadableLog, extent: Extent, *, as_json: bool, check_columns: CheckColumns | None = None
) -> None:
    """Verify a log and print what was verified and what was found; `check_columns` as for `verify`.

    Raises:
        FindingError: something was.
        NotInLogError: the log has no entry `extent.last_seq`.
        TrimmedError: the log no longer holds the entries.
    """
    head = await log.event_head()
    if extent.last_seq is not None and head.seq < extent.last_seq:
        raise NotInLogError(f"the log ends at entry {head.seq}; there is no entry {extent.last_seq}")
    expect_many_objects()
    start_s = time.perf_counter()
    with ReplayProgress("verifying") as progress:
        report = await verify(log, extent, progress.update, check_columns=check_columns)
    seconds = time.perf_counter() - start_s
    if as_json:
        sys.stdout.write(msgspec.json.encode(_plain_report(report, seconds)).decode() + "\n")
    else:
        _print_report(report, seconds)
    if report.finding is not None:
        raise FindingError(report.finding.what)


def _plain_report(report: Report, seconds: float) -> dict[str, Any]:
    return {
        "intact": report.finding is None,
        "finding": report.finding,
        "from": report.first_seq,
        "to": report.head.seq,
        "head": report.head.token,
        "digest": report.digest.hex(),
        "entries": report.entries,
        "commands": report.commands,
        "events": report.events,
        "waiting": report.waiting,
        "checkpoints": report.checkpoints,
        "snapshots": report.snapshots,
        "segments": report.segments,
        "rules": report.spans,
        "failures": report.failures,
        "seconds": round(seconds, 3),
    }


def _print_report(report: Report, seconds: float) -> None:
    place = f"{report.first_seq} to {report.head.seq}"
    lines = [
        ("entries", f"{place}, {report.entries:,} verified in {seconds:.1f} s"),
        ("commands", f"{report.commands:,}, and {report.waiting:,} entries not answered yet"),
        ("events", f"{report.events:,}"),
        ("digests", f"{report.checkpoints:,} checkpoints and {report.snapshots:,} snapshots agree"),
    ]
    if report.segments:
        lines.append(("columns", f"of {report.segments:,} segments say what their entries say"))
    for span in report.spans:
        lines.append(("rules", _span_text(span)))
    lines += [("failure", f"in {failure.seq}: {failure.what}") for failure in report.failures]
    if report.digest:
        lines.append(("digest", report.digest.hex()))
    lines.append(("head", report.head.token))
    for name, value in lines:
        sys.stdout.write(f"{name:<10} {value}\n")
    if report.finding is None:
        sys.stdout.write("intact\n")
    else:
        sys.stdout.write(f"NOT intact: entry {report.finding.seq}: {report.finding.what}\n")


def _span_text(span: Span) -> str:
    place = f"version {span.rules_version} in {span.first_seq} to {span.last_seq}"
    if span.is_decided:
        return f"{place}, decided again"
    if span.rules_version == RULES_VERSION:
        return f"{place}, applied; --decide decides them again"
    return f"{place}, applied; to be decided again by a build of that version, this one has {RULES_VERSION}"


async def run_head(log: ReadableLog, *, as_json: bool) -> None:
    """Print the end of the log as a token to keep elsewhere.

    Raises:
        CorruptLogError: the entry that names the log is damaged.
    """
    head = await log.event_head()
    reader = EventReader(log)
    try:
        await reader.read(1)
    except TrimmedError:
        pass  # the name is in an entry that is gone, and the hash covers it
    kept = KeptHead(seq=head.seq, chain_hash=head.chain_hash, log_id=reader.log_id or "")
    if as_json:
        line = {"token": kept.token, "seq": kept.seq, "hash": kept.chain_hash.hex(), "log_id": kept.log_id}
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    else:
        sys.stdout.write(kept.token + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which part of a log to print. None is any; `types` empty is all; `after` is a sequence number."""

    commands: bool = False
    account_id: int | None = None
    market: str | None = None
    types: frozenset[str] = frozenset()
    after: int = 0
    limit: int | None = None
    follow: bool = False

    def wants(self, message: Message) -> bool:
        """Tell whether messages of this type are asked for."""
        return not self.types or type_of(message) in self.types


@dataclass(slots=True)
class _Units:
    """The specifications met so far: a log is always read from its start, so they are all there in time."""

    specs: dict[str, MarketSpec] = field(default_factory=dict)

    def learn(self, verified: VerifiedEvents) -> None:
        for group in verified.groups:
            for event in group:
                if isinstance(event, MarketListed):
                    self.specs[event.spec.symbol] = event.spec


async def run_log(log: ReadableLog, query: LogQuery, *, as_json: bool) -> None:
    """Print the messages that `query` asks for, one a line, verifying the chain from the start.

    Commands are printed once they have been decided. With `follow`, wait for more until interrupted. That
    the market asked for is not listed by the end of the log is said on stderr.

    Raises:
        NotInLogError: for want of that market there was nothing to print.
        CorruptLogError, LogRewoundError: the log is not what was written.
    """
    units = _Units()
    write: Callable[[dict[str, Any]], None] = _write_json if as_json else _write_line
    count = 0
    if query.limit == 0:
        return
    last = (await log.event_head()).seq
    scope = Scope(query.account_id, query.market)
    async for verified, commands in _entries(log, query, last):
        units.learn(verified)
        numbered: list[tuple[int, Message]]
        if commands is None:
            numbered = [(n, event) for n, event in _numbered_events(verified) if scope.covers(event)]
        else:
            numbered = [(n, each) for n, each in enumerate(commands) if scope.covers_command(each)]
        if query.follow and verified.entry.seq == last and query.market and query.market not in units.specs:
            sys.stderr.write(f"foldex: {_not_listed(query.market, units)}; it may come\n")
        if verified.entry.seq <= query.after:
            continue
        header = header_of(verified.groups)
        place = {"seq": verified.entry.seq, "time": time_text(header.now_ns)}
        for index, message in numbered:
            if not query.wants(message):
                continue
            fields = readable(message, units.specs)
            write(place | {"index": index, "type": type_of(message), "fields": fields})
            count += 1
            if count == query.limit:
                sys.stdout.flush()
                return
    sys.stdout.flush()
    if query.market and query.market not in units.specs:
        if count == 0:
            raise NotInLogError(_not_listed(query.market, units))
        # Somebody asked for it all the same, and that is in the log.
        sys.stderr.write(f"foldex: {_not_listed(query.market, units)}\n")


def _not_listed(symbol: str, units: _Units) -> str:
    return f"{symbol} is not listed in this log; listed: {', '.join(units.specs) or 'none'}"


def _numbered_events(verified: VerifiedEvents) -> list[tuple[int, Event]]:
    """Number events by the command they answer; −1 for those of the frame as a whole."""
    return [(i - 1, event) for i, group in enumerate(verified.groups) for event in group]


async def _entries(
    log: ReadableLog, query: LogQuery, last: int
) -> AsyncIterator[tuple[VerifiedEvents, list[AnyCommand] | None]]:
    """Give the decided entries up to `last`, or on and on, with their commands when those are asked for."""
    events = EventReader(log)
    reader = CommandReader(log)
    while query.follow or events.seq < last:
        try:
            batch = await events.read(ENTRIES_PER_READ, FOLLOW_WAIT_MS if query.follow else 0)
        except LogUnavailableError:
            if not query.follow:
                raise
            await asyncio.sleep(FOLLOW_WAIT_MS / 1000)
            continue
        commands = await _commands_of(batch, reader) if query.commands else [None] * len(batch)
        for verified, asked in zip(batch, commands, strict=True):
            yield verified, asked
        sys.stdout.flush()


async def _commands_of(batch: list[VerifiedEvents], reader: CommandReader) -> list[list[AnyCommand] | None]:
    """Read the commands that event entries answer; none where a body does not decode.

    Raises:
        CorruptLogError: they are missing, damaged, or not those that the chain vouches for.
    """
    entries: list[CommandEntry] = []
    while len(entries) < len(batch):
        read = await reader.read(len(batch) - len(entries))
        if not read:
            raise CorruptLogError(reader.seq + 1, "command entry is missing; its events are there")
        entries.extend(read)
    return [_decoded(entry, answer) for entry, answer in zip(entries, batch, strict=True)]


def _decoded(entry: CommandEntry, answer: VerifiedEvents) -> list[AnyCommand]:
    check_answer(entry, answer)
    try:
        return entry.frame.commands()
    except UndecodableBodyError:
        assert header_of(answer.groups).outcome is not Outcome.EXECUTED, entry.seq
        return []


def _write_json(line: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")


def _write_line(line: dict[str, Any]) -> None:
    words = one_line(line["fields"])
    place = f"{line['seq']}.{line['index']}" if line["index"] >= 0 else f"{line['seq']}"
    sys.stdout.write(f"{place:<10} {line['time']} {line['type']:<20} {words}\n")
