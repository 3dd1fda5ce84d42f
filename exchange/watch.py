"""The watch: which buckets are at or below maintenance, without a look at every account at every price.

Each open position has an *alarm*: a tick of its market's mark. While the mark has not reached it and
nothing else happened to the account, its bucket is above maintenance and nobody needs to look. A mark that
moves is compared with the nearest alarms only; the accounts of those it reached are reviewed exactly, and
found short or armed anew from where the marks are now. An event that touches an account has it reviewed too.

Isolated: the alarm is the first tick at which the bucket is to be liquidated. There is one such tick: since
rates are below 1, a tick against a position takes more from its equity than from its maintenance, so what
is due at one mark is due at every worse one.

Cross: with the pool's equity E and its maintenance M = Σ MM_i, position i is armed as if it were isolated
with its share of the equity, s_i = floor(E × MM_i / M); that is, with a bucket of s_i − uPnL_i. At other
marks the pool has

    E + Σ ΔuPnL_i  ≥  Σ (s_i + ΔuPnL_i)  >  Σ MM_i

as long as each of these imagined buckets is above its own maintenance, since Σ s_i ≤ E. So the pool cannot
be due before one of its alarms was reached, whichever way the marks moved: this holds too for the legs of a
hedge, which share a mark, and across brackets. The opposite is not true: a pool whose other positions gain
what one loses is reviewed and armed anew.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

from events.events import (
    AccountBlocked,
    AccountOpened,
    AccountUnblocked,
    ApiKeyAdded,
    ApiKeyRemoved,
    CheckpointPassed,
    CommandFailed,
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    CountdownExpired,
    CountdownSet,
    DeleverageRanked,
    Deposited,
    Event,
    ExchangeHalted,
    ExchangeResumed,
    FrameHeader,
    FundingSettled,
    FundingSkipped,
    InsuranceAllotted,
    LeverageSet,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    LogCreated,
    LossSocialised,
    MarginAdjusted,
    MarginModeSet,
    MarketListed,
    MarketStatusChanged,
    MarkPriceChanged,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OriginOpened,
    PositionDeleveraged,
    PositionModeSet,
    PositionTakenOver,
    Rejected,
    RulesChanged,
    TickPassed,
    TradeExecuted,
    Withdrawn,
    WorkFailed,
)
from events.values import CROSS, Leg, LiquidationResult
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import is_liquidatable, standing
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import RATE_ONE, ceil_div, floor_div

CROSS_POOL = ""
Bucket = tuple[int, str, Leg]  # account id; market of an isolated position, or CROSS_POOL; its leg

# How many accounts that paid funding one look reviews: some 10 ms.
CHARGED_PER_LOOK = 500
# How many alarms that no longer count a market keeps beside as many as do, before it throws them out.
_STALE_ALARMS_MIN = 64


def alarm_ticks(position: Position, collateral: int) -> int:
    """Return the tick at which an open position is due on `collateral` of its own, and so beyond it.

    Beyond is below for a long and above for a short. 0: a long that no mark makes due.

    The formula is that of `liquidation_price`, for one unit less: maintenance is rounded up, so equity is at
    or below it where equity − 1 is below the exact one, strictly beyond that price. The bracket is the first
    whose answer is not above its cap.
    """
    market = position.market
    brackets = market.brackets
    size = position.size_lots
    sign = 1 if size > 0 else -1
    gap = sign * (position.entry_cost + 1 - collateral) * RATE_ONE
    n = 0
    while True:
        # In 1e-8 money units, the notional at that price is numerator / slope.
        numerator = gap - sign * brackets.deductions[n]
        slope = RATE_ONE - sign * brackets.rates[n]
        n += 1
        if n == len(brackets.caps) or numerator <= brackets.caps[n - 1] * slope:
            break
    per_tick = abs(size) * market.unit * slope
    if size > 0:
        return max(0, ceil_div(numerator, per_tick) - 1)
    return max(1, floor_div(numerator, per_tick) + 1)


class _Alarms:
    """The alarms of one market.

    `armed` maps (account, leg) to the position's alarm, negative for a long, so that in both heaps the first
    is the one that the mark reaches first. A heap entry counts as long as `armed` says the same. `short`
    are the accounts with a position here that stands on a bucket found to be due; it has no alarm.
    """

    __slots__ = ("armed", "falling", "rising", "short")

    def __init__(self) -> None:
        self.armed: dict[tuple[int, int], int] = {}
        self.falling: list[tuple[int, tuple[int, int]]] = []
        self.rising: list[tuple[int, tuple[int, int]]] = []
        self.short: dict[int, None] = {}

    def arm(self, account_id: int, position: Position, collateral: int) -> None:
        """Set the alarm of an open position."""
        ticks = alarm_ticks(position, collateral)
        signed_ticks = -ticks if position.size_lots > 0 else ticks
        key = account_id, position.leg
        if self.armed.get(key) == signed_ticks:
            return
        if signed_ticks == 0:
            self.disarm(account_id, position)
            return
        self.armed[key] = signed_ticks
        heappush(self.falling if signed_ticks < 0 else self.rising, (signed_ticks, key))
        if len(self.falling) + len(self.rising) > 2 * len(self.armed) + _STALE_ALARMS_MIN:
            self._throw_out_stale()

    def disarm(self, account_id: int, position: Position) -> None:
        """Take the alarm of a position away, if it has one."""
        self.armed.pop((account_id, position.leg), None)

    def reached(self, mark_ticks: int) -> list[int]:
        """Take away the alarms that the mark has reached; return whose they were."""
        account_ids = []
        for heap, signed_mark_ticks in ((self.falling, -mark_ticks), (self.rising, mark_ticks)):
            while heap and heap[0][0] <= signed_mark_ticks:
                signed_ticks, key = heappop(heap)
                if self.armed.get(key) == signed_ticks:
                    del self.armed[key]
                    account_ids.append(key[0])
        return account_ids

    def _throw_out_stale(self) -> None:
        self.falling = [(ticks, key) for key, ticks in self.armed.items() if ticks < 0]
        self.rising = [(ticks, key) for key, ticks in self.armed.items() if ticks > 0]
        heapify(self.falling)
        heapify(self.rising)


class Watch:
    """Knows the buckets of a state that are due, from its events.

    `follow` is told each event after the state applied it; `look` reviews what they concern. Between two
    looks the state may pass many events: only the latest marks count, as they will for the aggregate.

    `due` are, as of the last look, the buckets at or below maintenance by account: exactly those that a look
    at every account finds, once no account is left in `charged`. `touched` are the accounts, and `moved`
    the markets, that the next look is for. `charged` are accounts that paid funding: it takes little from
    each and concerns half of the exchange at once, so they are reviewed some at a time, behind all others.
    """

    def __init__(self, state: Exchange) -> None:
        self.due: dict[int, list[Bucket]] = {}
        self.touched: dict[int, None] = dict.fromkeys(state.accounts)
        self.moved: dict[str, None] = {}
        self.charged: dict[int, None] = {}
        self._state = state
        self._alarms = {symbol: _Alarms() for symbol in state.markets}
        # Accounts whose liquidation ended, with the bucket it was of, until something else touches them: the
        # next look does not return that bucket, since its liquidation did all that could be done.
        self._ended: dict[int, Bucket] = {}
        # Every kind of event is here, so that a new one cannot be forgotten.
        self.handlers: dict[type[Event], Callable[[Any], bool]] = {
            FrameHeader: self._nothing,
            OriginOpened: self._nothing,
            LogCreated: self._nothing,
            RulesChanged: self._nothing,
            Rejected: self._nothing,
            MarketListed: self._listed,
            MarketStatusChanged: self._market,
            AccountOpened: self._nothing,
            ApiKeyAdded: self._nothing,
            ApiKeyRemoved: self._nothing,
            Deposited: self._account,
            Withdrawn: self._account,
            InsuranceAllotted: self._nothing,
            LeverageSet: self._account,
            MarginModeSet: self._account,
            MarginAdjusted: self._account,
            PositionModeSet: self._account,
            OrderAccepted: self._nothing,
            OrderAmended: self._nothing,
            OrderCancelled: self._nothing,
            OrderExpired: self._nothing,
            ConditionalAccepted: self._nothing,
            ConditionalCancelled: self._nothing,
            ConditionalTriggered: self._nothing,
            ConditionalRejected: self._nothing,
            CountdownSet: self._nothing,
            CountdownExpired: self._nothing,
            TradeExecuted: self._trade,
            MarkPriceChanged: self._market,
            FundingSettled: self._funding,
            FundingSkipped: self._nothing,
            LiquidationStarted: self._nothing,
            LiquidationFeeCharged: self._account,
            PositionTakenOver: self._account,
            DeleverageRanked: self._nothing,
            PositionDeleveraged: self._deleveraged,
            LossSocialised: self._socialised,
            LiquidationFinished: self._finished,
            # A request that could do nothing is repeated when a mark or a status changes, not at once.
            LiquidationSkipped: self._nothing,
            CommandFailed: self._nothing,
            WorkFailed: self._nothing,
            AccountBlocked: self._nothing,
            AccountUnblocked: self._nothing,
            ExchangeHalted: self._nothing,
            ExchangeResumed: self._resumed,
            TickPassed: self._nothing,
            CheckpointPassed: self._nothing,
        }

    def follow(self, event: Event) -> bool:
        """Note what an event concerns; return whether it gives reason to look."""
        return self.handlers[type(event)](event)

    def look(self) -> list[Bucket]:
        """Review what the events since the last look concern; return what of it is due now.

        A bucket that stays due is returned again when its account is touched, and with each mark or status of
        a market it has a position in; but not for what its own liquidation did, which was all that could be
        done at these marks.
        """
        account_ids, self.touched = self.touched, {}
        for symbol in self.moved:
            alarms = self._alarms[symbol]
            for account_id in (*alarms.reached(self._state.markets[symbol].mark_ticks), *alarms.short):
                account_ids[account_id] = None
                self._ended.pop(account_id, None)
        self.moved.clear()
        account_ids.update(dict.fromkeys(islice(self.charged, CHARGED_PER_LOOK)))
        due: list[Bucket] = []
        for account_id in account_ids:
            self.charged.pop(account_id, None)
            if account_id >= FIRST_USER_ACCOUNT_ID:
                ended = self._ended.get(account_id)
                due.extend(b for b in self._review(self._state.accounts[account_id]) if b != ended)
        self._ended.clear()
        return due

    def _review(self, account: Account) -> list[Bucket]:
        """Arm an account's positions at the marks as they are; return its buckets that are due."""
        account_id = account.account_id
        was_due = self.due.pop(account_id, None) is not None
        due: list[Bucket] = []
        pool: list[Position] = []
        for position in account.positions.values():
            alarms = self._alarms[position.market.symbol]
            if was_due:
                alarms.short.pop(account_id, None)
            if position.size_lots == 0:
                alarms.disarm(account_id, position)
                continue
            if position.mode is CROSS:
                pool.append(position)
                continue
            known = standing(position)
            if is_liquidatable(position.bucket + known.unrealised, known.maintenance):
                due.append((account_id, position.market.symbol, position.leg))
            else:
                alarms.arm(account_id, position, position.bucket)
        if pool and self._is_pool_due(account, pool):
            due.append((account_id, CROSS_POOL, Leg.BOTH))
        if due:
            self._note_due(account, due)
        return due

    def _is_pool_due(self, account: Account, pool: list[Position]) -> bool:
        """Whether a pool with these open positions is due; arm them when it is not."""
        equity, needed = account.wallet, 0
        for position in pool:
            known = standing(position)
            equity += known.unrealised
            needed += known.maintenance
        if is_liquidatable(equity, needed):
            return True
        for position in pool:
            known = standing(position)
            share = floor_div(equity * known.maintenance, needed)
            self._alarms[position.market.symbol].arm(account.account_id, position, share - known.unrealised)
        return False

    def _note_due(self, account: Account, due: list[Bucket]) -> None:
        """Let every market that a due bucket depends on know the account."""
        account_id = account.account_id
        self.due[account_id] = due
        for position in account.positions.values():
            symbol = CROSS_POOL if position.mode is CROSS else position.market.symbol
            leg = Leg.BOTH if position.mode is CROSS else position.leg
            if position.size_lots and (account_id, symbol, leg) in due:
                alarms = self._alarms[position.market.symbol]
                alarms.disarm(account_id, position)
                alarms.short[account_id] = None

    # What events concern

    def _nothing(self, event: Event) -> bool:
        return False

    def _listed(self, event: MarketListed) -> bool:
        self._alarms[event.spec.symbol] = _Alarms()
        return False

    def _account(
        self,
        event: Deposited
        | Withdrawn
        | LeverageSet
        | MarginModeSet
        | MarginAdjusted
        | PositionModeSet
        | LiquidationFeeCharged
        | PositionTakenOver,
    ) -> bool:
        self._touch(event.account_id)
        return True

    def _trade(self, event: TradeExecuted) -> bool:
        self._touch(event.maker_account_id)
        self._touch(event.taker_account_id)
        return True

    def _funding(self, event: FundingSettled) -> bool:
        # Who received has more than his alarm was set for; it only matters to who was due.
        for (account_id, _), position in self._state.markets[event.market].holders.items():
            if position.size_lots * event.rate > 0 or account_id in self.due:
                self.charged[account_id] = None
        return True

    def _deleveraged(self, event: PositionDeleveraged) -> bool:
        self._touch(event.account_id)
        for row in event.parties:
            self._touch(row.account_id)
        return True

    def _socialised(self, event: LossSocialised) -> bool:
        # Whose position a later event of the entry closed is touched by that one.
        for hole in event.holes:
            self._touch(hole.account_id)
        if event.charged:
            for (account_id, _), position in self._state.markets[event.market].holders.items():
                if position.size_lots * event.side > 0:
                    self._touch(account_id)
        for row in event.closed:
            self._touch(row.account_id)
        return True

    def _finished(self, event: LiquidationFinished) -> bool:
        self._touch(event.account_id)
        if event.result is not LiquidationResult.CONTINUES:
            self._ended[event.account_id] = (event.account_id, event.market, event.leg)
        return True

    def _market(self, event: MarkPriceChanged | MarketStatusChanged) -> bool:
        self.moved[event.market] = None
        return True

    def _resumed(self, event: ExchangeResumed) -> bool:
        self.moved.update(dict.fromkeys(event.markets))
        return True

    def _touch(self, account_id: int) -> None:
        self.touched[account_id] = None
        self._ended.pop(account_id, None)
