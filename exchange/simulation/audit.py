"""What is looked at while the exchange runs: every entry, the moment the log has it.

The auditor is part of the simulated server, not of any process: nothing that fails a process can keep an
entry from it. It keeps all that was ever in the log, trimmed or not, and a state of its own, built by `apply`
from the stored bytes. Of every entry it asks whether the chain goes on, whether it answers its command,
whether a later writer was there already, whether its time is one that its writer may propose, whether its
origin's frames run in order and once, and whether money and contracts add up. Whether somebody was to be
liquidated it works out from the positions, in fractions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import TypeVar

from events.events import CheckpointPassed, LiquidationFinished, LiquidationStarted, TradeExecuted
from events.frame import EventEntry, Groups, header_of
from events.log import CommandEntry, EventReader
from events.memory import MemoryLog
from events.values import CROSS, Bracket, Outcome
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position
from exchange.aggregate.state import Exchange

E = TypeVar("E", CommandEntry, EventEntry)
UNIT = Fraction(1, 10**8)
# How far the exchange's time may be ahead of its writer's clock: the design's bound.
LEAD_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock of one life of a process, ns since 1970: what it showed at the start, and shows now."""

    started_ns: int
    now_ns: Callable[[], int]


class Auditor:
    """Reads a store as it grows and tells `find` what does not hold.

    `commands` are all command entries, `groups` the events of each in the same order. `digests` are those of
    the auditor's own state at the milestones of `every_events`. `clock_of` returns the clock of a writer.
    """

    def __init__(
        self,
        store: MemoryLog,
        find: Callable[[str], None],
        *,
        every_events: int,
        clock_of: Callable[[str], Clock],
    ) -> None:
        self.state = Exchange()
        self.commands: list[CommandEntry] = []
        self.groups: list[Groups] = []
        self.event_bytes: list[tuple[bytes, bytes, str, bytes]] = []
        self.digests: dict[int, bytes] = {}
        self.trades = 0
        self.liquidations: list[str] = []
        self.terms: dict[int, str] = {}
        self.outcomes = dict.fromkeys(Outcome, 0)
        self._store = store
        self._find = find
        self._clock_of = clock_of
        self._every_events = every_events
        self._events = 0
        self._reader = EventReader(store)
        self._ran: dict[str, int] = {}

    @property
    def last_command_seq(self) -> int:
        """The last command entry that the log ever had."""
        return self.commands[-1].seq if self.commands else 0

    def look(self) -> None:
        """Take in what came since the last look."""
        for command in _behind(self._store.commands, self.last_command_seq):
            self.commands.append(command)
        for entry in _behind(self._store.events, self._reader.seq):
            try:
                verified = self._reader.verify(entry)
                self.event_bytes.append((entry.body, entry.chain_hash, entry.writer, entry.timing))
                self.groups.append(verified.groups)
                self._check_writer(entry.seq, entry.writer)
                self._check_header(entry.seq, verified.groups)
                self._check_time(entry.seq, entry.writer, verified.groups)
                self._apply(entry.seq, verified.groups)
            except Exception as error:
                self._find(f"entry {entry.seq}: {type(error).__name__}: {error}")
                return

    def due(self) -> list[str]:
        """Return the customers' buckets that are at or below maintenance now."""
        return [
            f"account {account.account_id}, {symbol or 'cross'}"
            for account in self.state.accounts.values()
            if account.account_id >= FIRST_USER_ACCOUNT_ID
            for symbol in ("", *self.state.markets)
            if is_due(*exact_standing(account, symbol))
        ]

    def _check_writer(self, seq: int, mark: str) -> None:
        writer_id, _, number = mark.rpartition(":")
        term = int(number)
        if self.terms and term < max(self.terms):
            self._find(f"entry {seq} was written by {mark} behind term {max(self.terms)}")
        if self.terms.setdefault(term, writer_id) != writer_id:
            self._find(f"term {term} belongs to {self.terms[term]} and to {writer_id}")

    def _check_header(self, seq: int, groups: Groups) -> None:
        header = header_of(groups)
        frame = self.commands[seq - 1].frame
        if (header.origin, header.frame_n, header.checksum) != (frame.origin, frame.n, frame.checksum):
            self._find(f"entry {seq} does not answer its command")
        self.outcomes[header.outcome] += 1
        if header.outcome is not Outcome.EXECUTED:
            return
        last_n = self._ran.get(header.origin, 0)
        if header.frame_n != last_n + 1:
            self._find(f"entry {seq} runs frame {header.frame_n} of {header.origin} behind frame {last_n}")
        self._ran[header.origin] = header.frame_n

    def _check_time(self, seq: int, mark: str, groups: Groups) -> None:
        """The exchange's time is the frame's, but never back and never far ahead of the writer's clock.

        That clock was read between the writer's start and now, and does not go back itself.
        """
        previous_ns, now_ns = self.state.now_ns, header_of(groups).now_ns
        time_ns = self.commands[seq - 1].frame.time_ns
        clock = self._clock_of(mark.rpartition(":")[0])
        least_ns = max(previous_ns, min(time_ns, clock.started_ns + LEAD_NS))
        most_ns = max(previous_ns, min(time_ns, clock.now_ns() + LEAD_NS))
        if not least_ns <= now_ns <= most_ns:
            self._find(f"entry {seq}: the exchange's time is {now_ns}, not from {least_ns} to {most_ns}")

    def _apply(self, seq: int, groups: Groups) -> None:
        state = self.state
        events = self._events
        for group in groups:
            events += len(group)
            for event in group:
                if type(event) is LiquidationStarted:
                    self._check_liquidation(seq, event)
                state.apply(event)
                if type(event) is TradeExecuted:
                    self.trades += 1
                elif type(event) is LiquidationFinished:
                    self.liquidations.append(event.result.name)
                elif type(event) is CheckpointPassed and self.digests.get(event.seq) != event.digest:
                    self._find(f"entry {seq}: the checkpoint of entry {event.seq} has another digest")
        state.check_identities()
        if state.has_gap():
            self._find(f"entry {seq}: the running sums say that something is missing")
        if events // self._every_events > self._events // self._every_events:
            self.digests[seq] = state.digest()
        self._events = events

    def _check_liquidation(self, seq: int, event: LiquidationStarted) -> None:
        account = self.state.accounts[event.account_id]
        equity, maintenance = exact_standing(account, event.market)
        if (equity, maintenance) != (event.equity * UNIT, event.maintenance * UNIT):
            self._find(
                f"entry {seq}: the worksheet of account {event.account_id} is not what the account has"
            )
        if event.account_id >= FIRST_USER_ACCOUNT_ID and not is_due(equity, maintenance):
            self._find(f"entry {seq}: account {event.account_id} was healthy and is liquidated")


def exact_standing(account: Account, symbol: str) -> tuple[Fraction, Fraction]:
    """Return equity and maintenance margin of a one-way account's bucket in a market, "" for cross, in quote.

    Both are zero for an isolated bucket without a position.

    Source: the design's table of margins; nothing is taken from `exchange.aggregate.margin`.
    """
    chosen = [
        position
        for position in account.positions.values()
        if position.size_lots
        and (position.mode is CROSS if symbol == "" else position.market.symbol == symbol)
        and (position.mode is CROSS) == (symbol == "")
    ]
    collateral = account.wallet if symbol == "" else sum(position.bucket for position in chosen)
    equity = collateral * UNIT + sum((_profit(position) for position in chosen), start=Fraction(0))
    return equity, sum((_maintenance(position) for position in chosen), start=Fraction(0))


def is_due(equity: Fraction, maintenance: Fraction) -> bool:
    """Tell whether a bucket is to be liquidated: equality liquidates, and nothing open never does."""
    return maintenance > 0 and equity <= maintenance


def _notional(position: Position) -> Fraction:
    spec = position.market.spec
    size = position.size_lots * spec.lot_size * UNIT
    return size * position.market.mark_ticks * spec.tick_size * UNIT


def _profit(position: Position) -> Fraction:
    return _notional(position) - position.entry_cost * UNIT


def _maintenance(position: Position) -> Fraction:
    """ceil(N × rate − cum), with the first bracket whose cap is not below N."""
    notional = abs(_notional(position))
    brackets: tuple[Bracket, ...] = position.market.spec.brackets
    cum, found = Fraction(0), brackets[0]
    for lower, upper in pairwise(brackets):
        if notional <= lower.cap * UNIT:
            break
        cum += lower.cap * UNIT * (upper.maintenance_rate - lower.maintenance_rate) * UNIT
        found = upper
    return ceil((notional * found.maintenance_rate * UNIT - cum) / UNIT) * UNIT


def _behind(entries: list[E], seq: int) -> list[E]:
    """Return the entries behind a number; there are few of them, at the end."""
    first = len(entries)
    while first and entries[first - 1].seq > seq:
        first -= 1
    return entries[first:]
