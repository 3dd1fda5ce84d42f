"""Sufficient: whether every bucket at or below maintenance was asked about in time.

The liquidator is a process like any other: it may be late, dead or wrong. Here every bucket is followed
through the log, without its code: a bucket that is at or below maintenance at the end of an entry is due from
then on, until it recovers or a `Liquidate` for it is answered. One that waits for longer than so many events
is late.

The entry that a request names as its cause is one behind which its bucket was due: see `was_due`.

A wait is counted up to the command that asks, in events behind the entry after which the bucket was due; if
it recovers unasked, up to the entry in which it did.

An answer that could do nothing (the index is stale, the market halted) ends the wait until the bucket's
account, or the mark or status of one of its markets, changes.

Not every account is looked at at every price. A bucket with X above its maintenance and k positions is left
alone while no mark has moved against a position by more than X / k, divided by what a tick can cost: size ×
tick × (1 + highest rate). All of it is counted in 1e-16 quote, where formulas are whole numbers; where it
comes within a unit a position of the line, fractions decide (`facts.bucket_standing`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from events.events import (
    Deposited,
    Event,
    ExchangeResumed,
    FundingSettled,
    LeverageSet,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LossSocialised,
    MarginAdjusted,
    MarginModeSet,
    MarketListed,
    MarketStatusChanged,
    MarkPriceChanged,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
    Withdrawn,
)
from events.values import ISOLATED, Leg, LiquidationResult, MarketSpec
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position
from exchange.aggregate.state import Exchange
from exchange.audit.facts import bucket_standing, value_of

Bucket = tuple[int, str, Leg]
_ONE = 10**8
_OfAccount = (
    Deposited
    | Withdrawn
    | LeverageSet
    | MarginAdjusted
    | MarginModeSet
    | LiquidationFeeCharged
    | PositionTakenOver
)


@dataclass(slots=True)
class Wait:
    """A bucket that is due since entry `seq`; `since` counts the log's events up to then.

    `since` is None once it was answered, until something changes.
    """

    seq: int
    since: int | None
    is_late: bool = False


class _Rates:
    """A contract's brackets as (cap, rate, deduction), and what a lot costs at most per tick against it."""

    def __init__(self, spec: MarketSpec) -> None:
        self.unit = spec.tick_size * spec.lot_size // _ONE
        self.rows: list[tuple[int, int, int]] = []
        floor = rate = deduction = 0
        for row in spec.brackets:
            deduction += floor * (row.maintenance_rate - rate)
            self.rows.append((row.cap, row.maintenance_rate, deduction))
            floor, rate = row.cap, row.maintenance_rate
        self.lot_per_tick = self.unit * (_ONE + max(rate for _, rate, _ in self.rows))

    def needed(self, notional: int) -> int:
        """Return the maintenance margin before it is rounded up, in 1e-16 quote."""
        for cap, rate, deduction in self.rows:
            if notional <= cap:
                return notional * rate - deduction
        _, rate, deduction = self.rows[-1]
        return notional * rate - deduction


class _Guards:
    """The marks of a market up to which positions need no look, by (account, leg): below, above."""

    def __init__(self) -> None:
        self.lows: dict[tuple[int, Leg], int] = {}
        self.highs: dict[tuple[int, Leg], int] = {}
        # No guard is beyond these: most marks are within, and nothing is gone through for them.
        self._low_max = 0
        self._high_min = 1 << 62

    def set(self, key: tuple[int, Leg], position: Position, distance_ticks: int) -> None:
        mark_ticks = position.market.mark_ticks
        if position.size_lots > 0:
            self.highs.pop(key, None)
            self.lows[key] = low = mark_ticks - distance_ticks
            self._low_max = max(self._low_max, low)
        else:
            self.lows.pop(key, None)
            self.highs[key] = high = mark_ticks + distance_ticks
            self._high_min = min(self._high_min, high)

    def drop(self, key: tuple[int, Leg]) -> None:
        self.lows.pop(key, None)
        self.highs.pop(key, None)

    def passed(self, mark_ticks: int) -> list[int]:
        """Return the accounts whose guards a mark is beyond, and forget those guards."""
        found = []
        if mark_ticks < self._low_max:
            found += [key for key, low in self.lows.items() if mark_ticks < low]
        if mark_ticks > self._high_min:
            found += [key for key, high in self.highs.items() if mark_ticks > high]
        if found:
            for key in found:
                self.drop(key)
            self._low_max = max(self.lows.values(), default=0)
            self._high_min = min(self.highs.values(), default=1 << 62)
        return [account_id for account_id, _ in found]


class Lateness:
    """Follows all buckets of a state. `waiting` are those due by account; `longest` the longest wait so far.

    `follow` is told each event after the state applied it, `end_entry` when an entry is through. Only events
    with a handler in `followers` matter. `events` counts the log's events up to the command at hand; whoever
    follows sets it before each.
    """

    def __init__(self, state: Exchange, events_max: int) -> None:
        self.waiting: dict[int, dict[Bucket, Wait]] = {}
        self.longest = 0
        self.events = 0
        self._state = state
        self._events_max = events_max
        self._rates: dict[str, _Rates] = {}
        self._guards: dict[str, _Guards] = {}
        for symbol, market in state.markets.items():
            self._list(symbol, market.spec)
        self._started_seq = state.seq
        # Since which entry buckets are due, by account; and from which to which they were, before.
        self._due_since: dict[int, dict[Bucket, int]] = {}
        self._was_due: dict[Bucket, list[tuple[int, int]]] = {}
        self._touched: dict[int, None] = dict.fromkeys(state.accounts)
        self._moved: dict[str, None] = {}
        # Buckets that were asked about in this entry, and whether there is more to do at once.
        self._asked: dict[Bucket, bool] = {}
        # Waits that were too long when they ended, in this entry; and the log's events up to it.
        self._ended_late: list[tuple[Bucket, Wait]] = []
        self._events_before = 0
        # What concerns no bucket's margin is not here.
        self.followers: dict[type[Event], Callable[[Any], None]] = {
            TradeExecuted: self._trade,
            Deposited: self._account,
            Withdrawn: self._account,
            LeverageSet: self._account,
            MarginAdjusted: self._account,
            MarginModeSet: self._account,
            LiquidationFeeCharged: self._account,
            PositionTakenOver: self._account,
            MarkPriceChanged: self._market,
            MarketStatusChanged: self._market,
            FundingSettled: self._holders,
            LossSocialised: self._holders,
            PositionDeleveraged: self._deleveraged,
            LiquidationFinished: self._answered,
            LiquidationSkipped: self._answered,
            MarketListed: self._listed,
            ExchangeResumed: self._resumed,
        }

    def follow(self, event: Event) -> None:
        """Note what an event concerns."""
        handler = self.followers.get(type(event))
        if handler is not None:
            handler(event)

    def _trade(self, event: TradeExecuted) -> None:
        self._touched[event.maker_account_id] = None
        self._touched[event.taker_account_id] = None

    def _account(self, event: _OfAccount) -> None:
        self._touched[event.account_id] = None

    def _market(self, event: MarkPriceChanged | MarketStatusChanged) -> None:
        self._moved[event.market] = None

    def _holders(self, event: FundingSettled | LossSocialised) -> None:
        for account_id, _ in self._state.markets[event.market].holders:
            self._touched[account_id] = None
        if isinstance(event, LossSocialised):
            self._touched.update(dict.fromkeys(hole.account_id for hole in event.holes))
            self._touched.update(dict.fromkeys(row.account_id for row in event.closed))

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        self._touched[event.account_id] = None
        self._touched.update(dict.fromkeys(row.account_id for row in event.parties))

    def _answered(self, event: LiquidationFinished | LiquidationSkipped) -> None:
        is_more = isinstance(event, LiquidationFinished) and event.result is LiquidationResult.CONTINUES
        bucket = (event.account_id, event.market, event.leg)
        self._asked[bucket] = is_more
        wait = self.waiting.get(event.account_id, {}).get(bucket)
        if wait is not None:
            self._end_wait(bucket, wait, self.events)
            wait.since = None

    def _listed(self, event: MarketListed) -> None:
        self._list(event.spec.symbol, event.spec)

    def _resumed(self, event: ExchangeResumed) -> None:
        self._moved.update(dict.fromkeys(event.markets))

    def end_entry(self, seq: int, events: int) -> list[tuple[Bucket, Wait]]:
        """Look at what an entry concerned; return the buckets that have waited too long now, each once.

        `events` counts the log's events up to here.
        """
        account_ids, self._touched = self._touched, {}
        for symbol in self._moved:
            mark_ticks = self._state.markets[symbol].mark_ticks
            account_ids.update(dict.fromkeys(self._guards[symbol].passed(mark_ticks)))
            account_ids.update(dict.fromkeys(self._waiting_in(symbol)))
        self._moved.clear()
        for account_id in account_ids:
            if account_id >= FIRST_USER_ACCOUNT_ID:
                self._review(self._state.accounts[account_id], seq, events)
        for bucket, is_more in self._asked.items():
            wait = self.waiting.get(bucket[0], {}).get(bucket)
            if wait is not None:
                wait.since = events if is_more else None
        self._asked.clear()
        self._events_before = events
        found, self._ended_late = self._ended_late, []
        return found + self._late(events) if self.waiting else found

    def was_due(self, bucket: Bucket, seq: int) -> bool:
        """Tell whether a bucket was due behind an entry; of entries that were not followed it is believed."""
        if 0 < seq <= self._started_seq:
            return True
        since = self._due_since.get(bucket[0], {}).get(bucket)
        if since is not None and since <= seq:
            return True
        return any(first <= seq <= last for first, last in self._was_due.get(bucket, ()))

    def _late(self, events: int) -> list[tuple[Bucket, Wait]]:
        found = []
        for waits in self.waiting.values():
            for bucket, wait in waits.items():
                if wait.since is None or wait.is_late or events - wait.since <= self._events_max:
                    continue
                wait.is_late = True
                found.append((bucket, wait))
        return found

    def _waiting_in(self, symbol: str) -> list[int]:
        """Return the accounts with a due bucket that a market's mark or status concerns."""
        return [
            account_id
            for account_id, waits in self.waiting.items()
            if any(market in ("", symbol) for _, market, _ in waits)
        ]

    def _review(self, account: Account, seq: int, events: int) -> None:
        """Look at an account's buckets: note those that are due, guard the others."""
        account_id = account.account_id
        pool: list[Position] = []
        due: list[Bucket] = []
        for position in account.positions.values():
            if position.size_lots == 0:
                self._guards[position.market.symbol].drop((account_id, position.leg))
            elif position.mode is not ISOLATED:
                pool.append(position)
            elif not self._is_safe(account, [position], position.bucket):
                due.append((account_id, position.market.symbol, position.leg))
        if pool and not self._is_safe(account, pool, account.wallet):
            due.append((account_id, "", Leg.BOTH))
        self._note_due(account_id, due, seq)
        old = self.waiting.pop(account_id, {})
        waits: dict[Bucket, Wait] = {}
        for bucket in due:
            wait = waits[bucket] = old.pop(bucket) if bucket in old else Wait(seq, events)
            if wait.since is None:
                wait.seq, wait.since, wait.is_late = seq, events, False
        for bucket, wait in old.items():
            self._end_wait(bucket, wait, self._events_before)
        if waits:
            self.waiting[account_id] = waits

    def _note_due(self, account_id: int, due: list[Bucket], seq: int) -> None:
        """Note which buckets are due behind entry `seq`, and until when the others were."""
        old = self._due_since.pop(account_id, {})
        if due:
            self._due_since[account_id] = {bucket: old.pop(bucket, seq) for bucket in due}
        for bucket, since in old.items():
            self._was_due.setdefault(bucket, []).append((since, seq - 1))

    def _end_wait(self, bucket: Bucket, wait: Wait, events: int) -> None:
        """Note how long a wait was that ends when the log has so many events, and whether too long."""
        if wait.since is None:
            return
        waited = events - wait.since
        self.longest = max(self.longest, waited)
        if waited > self._events_max and not wait.is_late:
            # The wait itself goes on, from another entry, if the bucket is still due.
            self._ended_late.append((bucket, Wait(wait.seq, wait.since)))
            wait.is_late = True

    def _is_safe(self, account: Account, positions: list[Position], collateral: int) -> bool:
        """Tell whether a bucket is above maintenance, and guard its positions if it is."""
        count = len(positions)
        excess = collateral
        needed = 0
        for position in positions:
            value = value_of(position)
            excess += value - position.entry_cost
            needed += self._rates[position.market.symbol].needed(abs(value))
        # Rounding up adds less than a unit for each position.
        excess = (excess - count) * _ONE - needed
        if excess < 0:
            first = positions[0]
            market = first.market.symbol if first.mode is ISOLATED else ""
            equity, maintenance = bucket_standing(account, market, first.leg)
            if equity <= maintenance:
                return False
            excess = 0
        for position in positions:
            symbol = position.market.symbol
            per_tick = abs(position.size_lots) * self._rates[symbol].lot_per_tick
            key = (account.account_id, position.leg)
            self._guards[symbol].set(key, position, excess // (count * per_tick))
        return True

    def _list(self, symbol: str, spec: MarketSpec) -> None:
        self._rates[symbol] = _Rates(spec)
        self._guards[symbol] = _Guards()
