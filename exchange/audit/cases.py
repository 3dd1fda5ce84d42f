"""The liquidations of a log, a row each: read from the events alone, without the state.

A row says what `LiquidationStarted` and `LiquidationFinished` say, and between them what the bucket lost:
the profit it realised, fees, what was filled up; and whose positions were closed against it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from events.events import (
    Event,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    MarketListed,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.frame import EventEntry, Groups, UndecodableBodyError, decode_groups, header_of
from events.log import CorruptLogError, EventReader, ReadableLog, VerifiedEvents
from events.values import CROSS, LiquidationResult, MarginMode, MarketSpec
from exchange.audit.printer import type_of
from exchange.audit.replay import ENTRIES_PER_READ, OnProgress, time_text
from exchange.decimals import lots_text, money_text, price_text

POOL = "pool"
# Entries without these are not gone through event by event.
_STARTED_TAG = type_of(LiquidationStarted).encode()
_TAGS = (_STARTED_TAG, type_of(MarketListed).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFilter:
    """Which liquidations to list; None is any. Entries `first_seq` to `last_seq`."""

    account_id: int | None = None
    market: str | None = None
    mode: MarginMode | None = None
    result: LiquidationResult | None = None
    first_seq: int = 1
    last_seq: int | None = None

    def wants(self, case: "Case") -> bool:
        """Tell whether a liquidation is among them. A pool's is of every market it has a position in."""
        started = case.started
        markets = {row.market for row in started.rows}
        return (
            self.first_seq <= case.seq
            and (self.last_seq is None or case.seq <= self.last_seq)
            and self.account_id in (None, started.account_id)
            and (self.market is None or self.market in markets)
            and self.mode in (None, started.mode)
            and self.result in (None, case.finished.result)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One liquidation: entry `seq`, command `index` of its frame (−1: the frame's own), and its events."""

    seq: int
    index: int
    time_ns: int
    events: tuple[Event, ...]

    @property
    def started(self) -> LiquidationStarted:
        """How it began."""
        assert isinstance(self.events[0], LiquidationStarted), self.seq
        return self.events[0]

    @property
    def finished(self) -> LiquidationFinished:
        """How it ended."""
        assert isinstance(self.events[-1], LiquidationFinished), self.seq
        return self.events[-1]

    @property
    def loss(self) -> int:
        """What the bucket's collateral lost, in money units; negative when it gained."""
        return -sum(_gain(self.started, event) for event in self.events)

    def row(self, specs: dict[str, MarketSpec]) -> dict[str, Any]:
        """Return it as plain data, amounts as decimal text."""
        started, finished = self.started, self.finished
        return {
            "liquidation_id": started.liquidation_id,
            "seq": self.seq,
            "time": time_text(self.time_ns),
            "account_id": started.account_id,
            "market": started.market or POOL,
            "leg": started.leg.name.lower(),
            "mode": started.mode.name.lower(),
            "marks": {row.market: price_text(specs[row.market], row.mark_ticks) for row in started.rows},
            "collateral": money_text(started.collateral),
            "equity": money_text(started.equity),
            "maintenance": money_text(started.maintenance),
            "loss": money_text(self.loss),
            "result": finished.result.name.lower(),
            "fund_before": money_text(finished.fund_before),
            "fund_after": money_text(finished.fund_after),
            "deleveraged": self._parties(specs),
        }

    def _parties(self, specs: dict[str, MarketSpec]) -> list[dict[str, Any]]:
        return [
            {
                "account_id": row.account_id,
                "market": event.market,
                "leg": row.leg.name.lower(),
                "step": event.step.name.lower(),
                "place": row.place if row.place >= 0 else None,
                "size": lots_text(specs[event.market], row.quantity_lots),
            }
            for event in self.events
            if isinstance(event, PositionDeleveraged)
            for row in event.parties
        ]


def _gain(started: LiquidationStarted, event: Event) -> int:
    """Return what an event of a liquidation adds to the bucket's collateral."""
    account_id = started.account_id
    if isinstance(event, TradeExecuted):
        if event.liquidation_id != started.liquidation_id:
            return 0
        return event.taker_realised - event.taker_fee
    if isinstance(event, LiquidationFeeCharged):
        return -event.amount
    if isinstance(event, PositionTakenOver):
        return event.realised
    if isinstance(event, PositionDeleveraged):
        # Legs that share the pool: what the other one realises is the pool's too.
        own = sum(row.realised for row in event.parties if row.account_id == account_id)
        return event.realised + (own if started.mode is CROSS else 0)
    if isinstance(event, LossSocialised):
        return sum(hole.missing for hole in event.holes if hole.account_id == account_id)
    return 0


def cases_of(verified: VerifiedEvents) -> list[Case]:
    """Return the liquidations in an entry."""
    found = []
    now_ns = header_of(verified.groups).now_ns
    for index, group in enumerate(verified.groups, -1):
        start: int | None = None
        for n, event in enumerate(group):
            if isinstance(event, LiquidationStarted):
                start = n
            elif isinstance(event, LiquidationFinished) and start is not None:
                found.append(
                    Case(
                        seq=verified.entry.seq,
                        index=index,
                        time_ns=now_ns,
                        events=tuple(group[start : n + 1]),
                    )
                )
                start = None
    return found


async def find_case(log: ReadableLog, number: int, on_progress: OnProgress | None = None) -> Case | None:
    """Return liquidation `number`, None when none is found, without verifying what is before it.

    Only entries that begin a liquidation are decoded, so this takes little of the time of reading a log.

    Raises:
        CorruptLogError: an entry cannot be read.
        TrimmedError: the log no longer holds its first entries.
    """
    last, seq = (await log.event_head()).seq, 0
    while seq < last:
        entries = await log.read_events(seq, min(ENTRIES_PER_READ, last - seq))
        if not entries:
            return None
        for entry in entries:
            if _STARTED_TAG not in entry.body:
                continue
            for case in cases_of(VerifiedEvents(entry=entry, groups=_groups_of(entry))):
                if case.started.liquidation_id == number:
                    return case
        seq = entries[-1].seq
        if on_progress is not None:
            on_progress(seq, last)
    return None


def _groups_of(entry: EventEntry) -> Groups:
    try:
        return decode_groups(entry.body, entry.schema)
    except UndecodableBodyError as error:
        raise CorruptLogError(entry.seq, str(error)) from error


async def read_cases(
    log: ReadableLog, specs: dict[str, MarketSpec], on_progress: OnProgress | None = None
) -> AsyncIterator[Case]:
    """Yield the liquidations of a log in order, verifying the chain; `specs` learns the markets on the way.

    Raises:
        CorruptLogError, LogRewoundError: the log is not what was written.
        TrimmedError: the log no longer holds its first entries.
    """
    last = (await log.event_head()).seq
    reader = EventReader(log)
    while reader.seq < last:
        for verified in await reader.read_to(last, ENTRIES_PER_READ):
            if not any(tag in verified.entry.body for tag in _TAGS):
                continue
            for group in verified.groups:
                for event in group:
                    if isinstance(event, MarketListed):
                        specs[event.spec.symbol] = event.spec
            for case in cases_of(verified):
                yield case
        if on_progress is not None:
            on_progress(reader.seq, last)
