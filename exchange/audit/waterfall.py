"""Every liquidation of a log, checked step by step against the rules, with margin computed a second time.

`Waterfall` is told each event before and after the state applied it. For a liquidation it checks:

- necessary: the worksheet's figures are those of the state, equity is at or below maintenance (for the
  insurance fund: below zero), and each mark is what index, book and last trade make of it (see `marks`).
- orderly: orders are cancelled first, then positions are reduced, the largest maintenance first, one bracket
  down at a time, at the bankruptcy price; then the fund takes over what it can bear, and only what it
  cannot is deleveraged, in the order of the ranking; each position ends with exactly its share.
- complete: no step makes or loses money or contracts, the fund's figures are right, nothing is left in an
  isolated bucket and nothing outside it was lost.

Prices, shares, fees and sizes are computed here from the design's table (see `exact`), not by the
exchange's own code.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import ceil, floor
from typing import Any

from events.events import (
    ConditionalCancelled,
    DeleverageRanked,
    Event,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    MarkPriceChanged,
    OrderAccepted,
    OrderCancelled,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import (
    ISOLATED,
    CloseReason,
    DeleverageStep,
    Leg,
    LiquidationResult,
    Side,
    TimeInForce,
    WorksheetRow,
)
from exchange.aggregate.account import FEE_ACCOUNT_ID, FUND_ACCOUNT_ID, Position
from exchange.aggregate.state import Exchange
from exchange.audit.exact import UNIT, Wealth, down, up
from exchange.audit.facts import (
    Key,
    bucket_keys,
    bucket_standing,
    fund_worth,
    key_of,
    units_of,
    value_of,
    wealth_of,
)
from exchange.audit.marks import Marks
from exchange.audit.ranks import (
    Part,
    Ranks,
    check_parties,
    check_ranking,
    check_realised,
    rank_anew,
    require,
)
from exchange.decimals import money_text

_CANCELLING, _REDUCING, _PASSING_ON = range(3)
WATCHED = frozenset((LiquidationStarted, MarkPriceChanged))
_TABLES = ("parties", "closed", "holes")


class Waterfall:
    """Checks the liquidations of a state that is built from a log. `count` is how many it has seen end.

    While none is under way only events of `WATCHED` need to be told.
    """

    def __init__(self, state: Exchange) -> None:
        self.count = 0
        self._state = state
        # The number of the liquidation under way, 0 if there is none.
        self.open_case = 0
        self._case: _Case | None = None
        self._ranks: dict[tuple[str, Side], Ranks] = {}
        self._marks = Marks(state)
        self._worth: tuple[list[int], int, int] = ([], 0, 0)

    def drop(self) -> None:
        """Forget a liquidation that has not ended."""
        self._case = None
        self.open_case = 0

    def before(self, event: Event) -> None:
        """Check an event against the state it meets.

        Raises:
            BreachError: the rules do not lead to it.
        """
        if isinstance(event, LiquidationStarted):
            require(self._case is None, "it begins before the one before it has ended")
            self._case = _Case(self._state, event, self._ranks, self._marks)
            self.open_case = event.liquidation_id
        elif isinstance(event, MarkPriceChanged):
            for side in Side:
                self._ranks.pop((event.market, side), None)
            self._marks.check(event)
        if self._case is not None:
            named = self._named(event)
            self._worth = (named, *self._sums(named))
            self._case.before(event)

    def after(self, event: Event) -> None:
        """Check what an event made of the state.

        Raises:
            BreachError: it made or lost money or contracts, or the liquidation did not end as it says.
        """
        if self._case is None:
            return
        if isinstance(event, PositionDeleveraged):
            ranks = self._ranks.get((event.market, Side.SELL if event.size_lots > 0 else Side.BUY))
            if ranks is not None:
                ranks.note(self._state, event)
        named, money, lots = self._worth
        require((money, lots) == self._sums(named), f"{_tag(event)} makes or loses money", "complete")
        if isinstance(event, LiquidationFinished):
            case = self._case
            self.drop()
            self.count += 1
            case.end(event)

    def _named(self, event: Event) -> list[int]:
        """Return the accounts whose money an event may move."""
        if isinstance(event, LossSocialised):
            return list(self._state.accounts)
        fields = event.__struct_fields__
        named = {FUND_ACCOUNT_ID, FEE_ACCOUNT_ID}
        named.update(getattr(event, name) for name in fields if name.endswith("account_id"))
        for table in _TABLES:
            if table in fields:
                named.update(row.account_id for row in getattr(event, table))
        return sorted(named)

    def _sums(self, named: Iterable[int]) -> tuple[int, int]:
        """Return Σ wallets + Σ buckets − Σ entry costs of accounts, and Σ sizes over all markets."""
        money = lots = 0
        for account_id in named:
            account = self._state.accounts[account_id]
            money += account.wallet
            for position in account.positions.values():
                money += position.bucket - position.entry_cost
                lots += position.size_lots
        return money, lots


class _Case:
    """One liquidation under way."""

    def __init__(
        self, state: Exchange, event: LiquidationStarted, ranks: dict[tuple[str, Side], Ranks], marks: Marks
    ) -> None:
        self.event = event
        self._state = state
        self._ranks = ranks
        self._marks = marks
        self._account = state.accounts[event.account_id]
        self._is_fund = event.account_id == FUND_ACCOUNT_ID
        self._wallet = self._account.wallet
        self._fund_before = fund_worth(state)
        self._phase = _CANCELLING
        # Positions to reduce, in order, and how far that is; the trades of an order whose fee is to come.
        self._queue: list[Key] = []
        self._at = 0
        self._limit: OrderAccepted | None = None
        self._traded = Fraction(0)
        # What is left of each position's share once nothing more is traded in the book.
        self._shares: dict[Key, int] | None = None
        self._steps: set[str] = set()
        self._passed: set[Key] = set()
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            LiquidationStarted: self._started,
            OrderCancelled: self._cancelled,
            ConditionalCancelled: self._cancelled,
            OrderAccepted: self._ordered,
            TradeExecuted: self._trade,
            LiquidationFeeCharged: self._fee,
            PositionTakenOver: self._taken_over,
            DeleverageRanked: self._ranked,
            PositionDeleveraged: self._deleveraged,
            LossSocialised: self._socialised,
            LiquidationFinished: self._finished,
        }

    def before(self, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # Necessary

    def _started(self, event: LiquidationStarted) -> None:
        wealth = wealth_of(self._account)
        keys = self._ordered_keys(wealth)
        require(bool(keys), "there is no open position", "necessary")
        require(
            [(row.market, row.leg.name) for row in event.rows] == keys,
            "its positions are others",
            "necessary",
        )
        for row in event.rows:
            self._check_row(wealth, row)
        equity, maintenance = wealth.bucket_equity(keys[0]), wealth.bucket_maintenance(keys[0])
        said = (event.equity * UNIT, event.maintenance * UNIT)
        what = "the worksheet says equity {}, maintenance {}; it is {}, {}".format(
            *(money_text(units_of(each)) for each in (*said, equity, maintenance))
        )
        require(said == (equity, maintenance), what, "necessary")
        require(event.collateral == self._collateral(), "its collateral is another", "necessary")
        if self._is_fund:
            require(equity < 0, f"the fund could bear its position: equity {equity}", "necessary")
        else:
            what = f"equity {float(equity)} is above maintenance {float(maintenance)}"
            require(equity <= maintenance, what, "necessary")
        for row in event.rows:
            wrong_seq = self._marks.wrong.get(row.market)
            what = f"{row.market}: its mark, of entry {wrong_seq}, is not what its inputs make"
            require(wrong_seq is None, what, "necessary")

    def _check_row(self, wealth: Wealth, row: WorksheetRow) -> None:
        holding = wealth.holdings[row.market, row.leg.name]
        contract = holding.contract
        bracket = contract.bracket(holding.notional)
        market = self._state.markets[row.market]
        position = self._account.position(market, row.leg)
        said = (row.size_lots, row.entry_cost, row.mark_ticks, row.index_ticks, row.last_ticks, row.bracket)
        are = (
            position.size_lots,
            position.entry_cost,
            market.mark_ticks,
            market.index_ticks,
            market.last_ticks,
            bracket,
        )
        require(said == are, f"{row.market}: the worksheet says {said}, the state has {are}", "necessary")
        deduction = row.deduction * UNIT + row.deduction_rest * UNIT**2
        require(
            (row.maintenance_rate * UNIT, deduction)
            == (contract.tiers[bracket].rate, contract.cums[bracket]),
            f"{row.market}: rate or deduction are not those of bracket {bracket}",
            "necessary",
        )
        require(
            (row.notional, row.unrealised, row.maintenance)
            == tuple(map(units_of, (holding.notional, holding.profit, holding.maintenance))),
            f"{row.market}: notional, profit or maintenance are others",
            "necessary",
        )

    # Orderly: cancel

    def _cancelled(self, event: OrderCancelled | ConditionalCancelled) -> None:
        if event.reason is CloseReason.LIQUIDATION:
            require(self._phase == _CANCELLING, "an order is cancelled after positions were reduced")
            require(event.account_id == self.event.account_id, "somebody else's order is cancelled for it")

    def _end_cancelling(self) -> None:
        if self._phase != _CANCELLING or self._is_fund:
            return
        for order in self._account.orders.values():
            position = order.position
            if self.event.market:
                is_concerned = key_of(position) == (self.event.market, self.event.leg.name)
            else:
                opposite = max(0, -order.side * position.size_lots)
                resting = position.bid_lots if order.side > 0 else position.ask_lots
                is_concerned = position.mode is not ISOLATED or resting > opposite
            require(not is_concerned, f"order {order.order_id} was left open")

    # Orderly: reduce

    def _ordered(self, event: OrderAccepted) -> None:
        if event.liquidation_id != self.event.liquidation_id:
            return
        self._settle_fee()
        require(self._phase != _PASSING_ON, "a position is reduced after others were passed on")
        wealth = wealth_of(self._account)
        if self._phase == _CANCELLING:
            self._end_cancelling()
            self._queue = self._ordered_keys(wealth)
            self._phase = _REDUCING
        key = (event.market, event.leg.name)
        require(key in self._queue[self._at :], f"{event.market} is reduced out of its turn")
        self._at = self._queue.index(key)
        self._require_due("reduced")
        self._check_order(event, wealth, key)
        self._limit, self._traded = event, Fraction(0)
        self._steps.add("reduced")

    def _check_order(self, event: OrderAccepted, wealth: Wealth, key: Key) -> None:
        """Check side, size and limit: one bracket down, at the price at which the share is used up."""
        holding, spec = wealth.holdings[key], self._state.markets[event.market].spec
        contract = holding.contract
        tick, lot = spec.tick_size * UNIT, spec.lot_size * UNIT
        price = holding.exhausted_at(down(wealth.share(key)))
        is_long = holding.size > 0
        limit_ticks = max(1, ceil(price / tick)) if is_long else floor(price / tick)
        require(event.side is (Side.SELL if is_long else Side.BUY), "it trades the wrong way")
        require(event.reduce_only and event.time_in_force is TimeInForce.IOC, "it may open or rest")
        what = f"{event.market}: reduced at {event.price_ticks} ticks, the bankruptcy price is {limit_ticks}"
        require(event.price_ticks == limit_ticks, what)
        bracket = contract.bracket(holding.notional)
        lots = whole = int(abs(holding.size) / lot)
        if bracket:
            lots = min(
                whole, ceil((holding.notional - contract.tiers[bracket - 1].cap) / (contract.mark * lot))
            )
        what = f"{event.market}: {event.quantity_lots} lots are reduced, one bracket down is {lots}"
        require(event.quantity_lots == lots, what)

    def _trade(self, event: TradeExecuted) -> None:
        order = self._limit
        if event.liquidation_id != self.event.liquidation_id or order is None:
            return
        require(event.taker_fee == 0, "a taker fee is charged")
        require(order.side * (order.price_ticks - event.price_ticks) >= 0, "it trades beyond its limit")
        spec = self._state.markets[event.market].spec
        price, size = event.price_ticks * spec.tick_size * UNIT, event.quantity_lots * spec.lot_size * UNIT
        self._traded += price * size
        position = self._account.position(self._state.markets[event.market], order.leg)
        signed_lots = event.quantity_lots * order.side
        check_realised(position, signed_lots, units_of(price * size) * order.side, event.taker_realised, "it")

    def _fee_due(self) -> Fraction:
        """Return the liquidation fee on what was traded: at most the equity left."""
        if self._limit is None:
            return Fraction(0)
        rate = self._state.markets[self._limit.market].spec.liquidation_fee * UNIT
        return min(up(self._traded * rate), max(Fraction(0), self._standing()[0]))

    def _fee(self, event: LiquidationFeeCharged) -> None:
        due = self._fee_due()
        require(event.amount * UNIT == due, f"the fee is {event.amount}, it should be {due / UNIT}")
        self._limit = None

    def _settle_fee(self) -> None:
        """Make sure that no fee was left out."""
        require(self._fee_due() == 0, "a liquidation fee was left out")
        self._limit = None

    # Orderly: pass on

    def _pass_on(self) -> None:
        self._settle_fee()
        if self._phase != _PASSING_ON:
            self._end_cancelling()
            self._phase = _PASSING_ON
            self._require_due("passed on")

    def _left_share(self, key: Key) -> int:
        """Return what is left of a position's share; shares are fixed when the first is needed."""
        if self._shares is None:
            wealth = wealth_of(self._account)
            keys = self._ordered_keys(wealth)
            self._shares = {each: units_of(down(wealth.share(each))) for each in keys}
            rest = units_of(wealth.bucket_equity(keys[-1])) - sum(self._shares.values())
            self._shares[keys[-1]] += rest
        require(key in self._shares, f"{key[0]} is none of its positions")
        return self._shares[key]

    def _set_share(self, key: Key, share: int) -> None:
        assert self._shares is not None, key
        self._shares[key] = share

    def _can_bear(self, position: Position, share: int) -> bool:
        own = self._state.accounts[FUND_ACCOUNT_ID].position(position.market)
        return own.bucket + value_of(own) - own.entry_cost + share >= 0

    def _require_unbearable(self, position: Position, share: int) -> None:
        """Nobody else is asked for what the fund can bear; looked at once for each position."""
        key = key_of(position)
        if key not in self._passed and not self._is_fund:
            self._passed.add(key)
            require(not self._can_bear(position, share), f"{key[0]}: the fund could have borne it")

    def _taken_over(self, event: PositionTakenOver) -> None:
        self._pass_on()
        key = (event.market, event.leg.name)
        share = self._left_share(key)
        position = self._account.position(self._state.markets[event.market], event.leg)
        require(
            (event.size_lots, event.entry_cost) == (position.size_lots, position.entry_cost),
            "the fund took another position",
        )
        profit = value_of(position) - position.entry_cost
        what = f"{event.market}: realised {event.realised}, what leaves it its share is {profit - share}"
        require(event.realised == profit - share, what)
        require(self._can_bear(position, share), f"{event.market}: the fund could not bear it")
        own = self._state.accounts[FUND_ACCOUNT_ID].position(position.market)
        cost = event.entry_cost + event.realised
        check_realised(own, event.size_lots, cost, event.fund_realised, "the fund")
        self._steps.add("taken over")

    def _ranked(self, event: DeleverageRanked) -> None:
        self._pass_on()
        ranks = rank_anew(self._state, self._state.markets[event.market], event.side)
        check_ranking(event, ranks)
        self._ranks[event.market, event.side] = ranks

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        self._pass_on()
        market = self._state.markets[event.market]
        position = self._account.position(market, event.leg)
        key = (event.market, event.leg.name)
        side = Side.SELL if position.size_lots > 0 else Side.BUY
        if event.step is DeleverageStep.OWN_LEG and position.mode is not ISOLATED:
            share = 0
        else:
            share = self._left_share(key)
            self._require_unbearable(position, share)
        if event.step is DeleverageStep.AT_MARK:
            require(share >= 0, f"{event.market}: closed at mark while {share} of its share is not filled up")
            share = 0
        part = Part(abs(position.size_lots), share)
        check_parties(self._state, event, position, part, self._ranks.get((event.market, side)))
        if self._shares is not None and event.step is not DeleverageStep.AT_MARK:
            self._set_share(key, part.share)
        self._steps.add("deleveraged")

    def _socialised(self, event: LossSocialised) -> None:
        self._pass_on()
        fund = self._state.accounts[FUND_ACCOUNT_ID]
        own = fund.position(self._state.markets[event.market])
        missing = sum(hole.missing for hole in event.holes)
        require(event.missing == missing, "what is missing is not what its holes are")
        from_allotment = min(missing, max(0, own.bucket + min(0, value_of(own) - own.entry_cost)))
        from_wallet = min(missing - from_allotment, max(0, fund.wallet))
        rest = missing - from_allotment - from_wallet
        require(
            (event.from_allotment, event.from_wallet) == (from_allotment, from_wallet),
            "the fund did not pay down to zero first",
        )
        require(event.charged == min(rest, event.equity), "the other side paid another sum")
        require(event.charged + event.unpaid == rest, "part of the loss is nobody's")
        ranks = self._ranks.get((event.market, event.side))
        if ranks is not None:
            ranks.share(event.charged, event.equity)
        for hole in event.holes:
            key = (event.market, hole.leg.name)
            if hole.account_id == self.event.account_id:
                position = self._account.position(own.market, hole.leg)
                if position.size_lots:
                    self._require_unbearable(position, self._left_share(key))
                    self._set_share(key, 0)
        self._steps.add("socialised")

    # How it ends

    def _finished(self, event: LiquidationFinished) -> None:
        self._settle_fee()
        require(event.liquidation_id == self.event.liquidation_id, "another liquidation ends")
        equity, maintenance = self._standing()
        is_open = bool(bucket_keys(self._account, event.market, event.leg))
        require(
            event.equity * UNIT == equity,
            f"equity after it is {money_text(units_of(equity))}, not {money_text(event.equity)}",
        )
        result = event.result
        require(self._fits(result, is_open), f"it ended as {result.name.lower()}, its steps do not")
        is_restored = equity > maintenance
        if result is LiquidationResult.RESTORED:
            require(is_restored, "it ended as restored at or below maintenance")
        if result < LiquidationResult.UNBORNE and not self._is_fund:
            require(equity >= 0, "the bucket's equity is below zero", "complete")
            require(is_restored or not is_open, "positions are left at or below maintenance")
        what = "the fund's figures before and after are others"
        require((event.fund_before, event.fund_after) == (self._fund_before, fund_worth(self._state)), what)
        if event.market and not is_open and not self._is_fund:
            left = self._account.position(self._state.markets[event.market], event.leg).bucket
            require(
                event.released == left, f"{left} is left in the bucket, {event.released} released", "complete"
            )

    def _fits(self, result: LiquidationResult, is_open: bool) -> bool:
        """Whether a result is what the steps taken lead to."""
        steps = self._steps
        is_passed_on = self._phase == _PASSING_ON
        return {
            LiquidationResult.RESTORED: is_open and not is_passed_on,
            LiquidationResult.CLOSED: not is_open and not is_passed_on,
            LiquidationResult.TAKEN_OVER: "taken over" in steps and not {"deleveraged", "socialised"} & steps,
            LiquidationResult.DELEVERAGED: "deleveraged" in steps and "socialised" not in steps,
            LiquidationResult.SOCIALISED: "socialised" in steps,
            LiquidationResult.UNBORNE: is_open,
            LiquidationResult.CONTINUES: is_open,
        }[result]

    def end(self, event: LiquidationFinished) -> None:
        """Check what is left behind the last event."""
        if event.market and not self._is_fund:
            lost = self._wallet - self._account.wallet
            require(lost <= 0, f"{lost} units of the wallet were lost to an isolated position", "complete")

    # What all of them need

    def _ordered_keys(self, wealth: Wealth) -> list[Key]:
        """Return the bucket's open positions, the largest maintenance first, then by market and leg."""
        keys = bucket_keys(self._account, self.event.market, self.event.leg)
        return sorted(keys, key=lambda key: (-wealth.holdings[key].maintenance, key[0], Leg[key[1]]))

    def _standing(self) -> tuple[Fraction, Fraction]:
        return bucket_standing(self._account, self.event.market, self.event.leg)

    def _require_due(self, what: str) -> None:
        equity, maintenance = self._standing()
        limit = Fraction(0) if self._is_fund else maintenance
        require(equity <= limit, f"a position is {what} while equity is above maintenance")

    def _collateral(self) -> int:
        if not self.event.market:
            return self._account.wallet
        return self._account.position(self._state.markets[self.event.market], self.event.leg).bucket


def _tag(event: Event) -> str:
    return str(event.__struct_config__.tag)
