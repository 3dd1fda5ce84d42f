"""Where an account's money came from: its trades, its income, and the moves of its margin.

A projection of the events. Each change of an account's money (its wallet and its buckets together) is one
row of income, so that the rows add up to what it has:

    Σ income of an account = its wallet + Σ its buckets

The events name every amount but two. What a position paid for funding follows from its size, which is
followed here. And what each of those paid who shared a loss follows from all equities at that moment: it is
what the account's money has changed by that no other row explains.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from events.events import (
    Deposited,
    FundingSettled,
    LiquidationFeeCharged,
    LossSocialised,
    MarginAdjusted,
    PositionDeleveraged,
    PositionModeSet,
    PositionTakenOver,
    TradeExecuted,
    Withdrawn,
)
from events.values import BUY, SELL, DeleveragedRow, Leg, Side
from exchange.aggregate.account import BOTH, FIRST_USER_ACCOUNT_ID, Account
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import RATE_ONE
from exchange.intake.projection import Clock, Handlers
from exchange.intake.trade.orders import OrderHistory

TRADES_KEPT_PER_ACCOUNT = 1_000
INCOME_KEPT_PER_ACCOUNT = 2_000
MARGIN_MOVES_KEPT_PER_ACCOUNT = 500
CLOSURES_KEPT_PER_ACCOUNT = 200


class IncomeType(StrEnum):
    """Why an account's money changed, in Binance's words."""

    TRANSFER = "TRANSFER"
    REALIZED_PNL = "REALIZED_PNL"
    COMMISSION = "COMMISSION"
    FUNDING_FEE = "FUNDING_FEE"
    INSURANCE_CLEAR = "INSURANCE_CLEAR"


class Income(NamedTuple):
    """One change of an account's money, in money units; `trade_id` is 0 where no trade made it."""

    row_id: int
    time_ms: int
    kind: IncomeType
    symbol: str
    amount: int
    trade_id: int


class Trade(NamedTuple):
    """One side of a trade; `leg` is that of its order."""

    event: TradeExecuted
    is_maker: bool
    leg: Leg
    time_ms: int


@dataclass(frozen=True, slots=True)
class MarginMove:
    """Money that an account moved to an isolated position (negative: back)."""

    event: MarginAdjusted
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """A position, or part of it, that was closed without an order: taken over, or deleveraged.

    `side` is that of the order it would have been; `value` is its lots × price in money units, `realised` the
    profit of it.
    """

    row_id: int
    time_ms: int
    symbol: str
    leg: Leg
    side: Side
    lots: int
    value: int
    realised: int
    liquidation_id: int
    is_deleveraging: bool

    @property
    def client_order_id(self) -> str:
        """What Binance calls such an order."""
        return "adl_autoclose" if self.is_deleveraging else f"autoclose-{self.liquidation_id}"


class Ledger:
    """Rows of trades, income and margin moves, the last ones of each account.

    Must be fed what `orders` is fed, behind it. Where what is fed does not begin with the log's first entry
    there is no funding until `adopt`: nobody knows what was held.
    """

    def __init__(self, orders: OrderHistory, unit_by_symbol: Callable[[str], int], clock: Clock) -> None:
        self._orders = orders
        self._unit_by_symbol = unit_by_symbol
        self._clock = clock
        self._trades: dict[int, deque[Trade]] = {}
        self._income: dict[int, deque[Income]] = {}
        self._margin_moves: dict[int, deque[MarginMove]] = {}
        self._closures: dict[int, deque[Closure]] = {}
        self._changed_ms: dict[tuple[int, str, Leg], int] = {}
        self._sizes: dict[str, dict[tuple[int, Leg], int]] = {}
        self._money: dict[int, int] = {}
        self._accounts: dict[int, Account] | None = None
        self._is_whole: bool | None = None
        self._shared: LossSocialised | None = None
        self.handlers: Handlers = {
            TradeExecuted: self._traded,
            Deposited: self._deposited,
            Withdrawn: self._withdrawn,
            FundingSettled: self._funded,
            LiquidationFeeCharged: self._liquidation_fee,
            PositionTakenOver: self._taken_over,
            PositionDeleveraged: self._deleveraged,
            LossSocialised: self._socialised,
            MarginAdjusted: self._margin_adjusted,
            PositionModeSet: self._mode_set,
        }

    def trades(self, account_id: int) -> Iterable[Trade]:
        """Return an account's trades, oldest first."""
        return self._trades.get(account_id, ())

    def income(self, account_id: int) -> Iterable[Income]:
        """Return what changed an account's money, oldest first."""
        return self._income.get(account_id, ())

    def margin_moves(self, account_id: int) -> Iterable[MarginMove]:
        """Return the margin an account moved, oldest first."""
        return self._margin_moves.get(account_id, ())

    def closures(self, account_id: int) -> Sequence[Closure]:
        """Return what was closed for an account without orders, oldest first."""
        return self._closures.get(account_id, ())

    def money_changed_ms(self, account_id: int) -> int:
        """Return when an account's money changed last, 0 when that is not known."""
        rows = self._income.get(account_id)
        return rows[-1].time_ms if rows else 0

    def position_changed_ms(self, account_id: int, symbol: str, leg: Leg) -> int:
        """Return when the size of a position changed last, 0 when that is not known."""
        return self._changed_ms.get((account_id, symbol, leg), 0)

    def begin(self) -> None:
        """Take note that another entry begins."""
        if self._is_whole is None:
            self._is_whole = self._clock.seq == 1

    def end(self) -> None:
        """Take note that an entry has been fed whole."""
        if self._shared is not None and self._accounts is not None:
            self._explain(self._accounts, self._shared)
            self._shared = None

    def adopt(self, state: Exchange) -> None:
        """Go on from a state that stands behind the last entry fed, whatever was not fed.

        From here on the state is asked whenever a loss was shared.
        """
        self._accounts = state.accounts
        if not self._is_whole and state.seq:
            self._sizes.clear()
            for market in state.markets.values():
                self._sizes[market.symbol] = {
                    (account_id, Leg(leg)): position.size_lots
                    for (account_id, leg), position in market.holders.items()
                }
            self._money = {account.account_id: _money_of(account) for account in state.accounts.values()}
            self._is_whole = True
            self._shared = None
        self.end()

    def _add(self, account_id: int, kind: IncomeType, symbol: str, amount: int, trade_id: int = 0) -> None:
        if not amount or account_id < FIRST_USER_ACCOUNT_ID:
            return
        clock = self._clock
        rows = self._income.get(account_id)
        if rows is None:
            rows = self._income[account_id] = deque(maxlen=INCOME_KEPT_PER_ACCOUNT)
        rows.append(Income(clock.next_row_id(), clock.now_ms, kind, symbol, amount, trade_id))
        self._money[account_id] = self._money.get(account_id, 0) + amount

    def _resize(self, account_id: int, symbol: str, leg: Leg, lots: int) -> None:
        sizes = self._sizes.get(symbol)
        if sizes is None:
            sizes = self._sizes[symbol] = {}
        key = (account_id, leg)
        size = sizes.get(key, 0) + lots
        if size:
            sizes[key] = size
        else:
            sizes.pop(key, None)
        self._changed_ms[account_id, symbol, leg] = self._clock.now_ms

    def _traded(self, event: TradeExecuted) -> None:
        symbol, trade_id = event.market, event.trade_id
        lots = event.quantity_lots if event.taker_side is BUY else -event.quantity_lots
        self._fill(event, event.maker_account_id, event.maker_order_id, -lots, is_maker=True)
        self._fill(event, event.taker_account_id, event.taker_order_id, lots, is_maker=False)
        self._add(event.maker_account_id, _REALIZED, symbol, event.maker_realised, trade_id)
        self._add(event.maker_account_id, _COMMISSION, symbol, -event.maker_fee, trade_id)
        self._add(event.taker_account_id, _REALIZED, symbol, event.taker_realised, trade_id)
        self._add(event.taker_account_id, _COMMISSION, symbol, -event.taker_fee, trade_id)

    def _fill(
        self, event: TradeExecuted, account_id: int, order_id: int, lots: int, *, is_maker: bool
    ) -> None:
        leg = self._orders.leg_of(order_id)
        self._resize(account_id, event.market, leg, lots)
        if account_id < FIRST_USER_ACCOUNT_ID:
            return
        rows = self._trades.get(account_id)
        if rows is None:
            rows = self._trades[account_id] = deque(maxlen=TRADES_KEPT_PER_ACCOUNT)
        rows.append(Trade(event, is_maker, leg, self._clock.now_ms))

    def _deposited(self, event: Deposited) -> None:
        self._add(event.account_id, IncomeType.TRANSFER, "", event.amount)

    def _withdrawn(self, event: Withdrawn) -> None:
        self._add(event.account_id, IncomeType.TRANSFER, "", -event.amount)

    def _funded(self, event: FundingSettled) -> None:
        if not event.rate or not self._is_whole:
            return
        gain_of_lot = -event.mark_ticks * self._unit_by_symbol(event.market) * event.rate
        for (account_id, _), lots in self._sizes.get(event.market, {}).items():
            self._add(account_id, IncomeType.FUNDING_FEE, event.market, lots * gain_of_lot // RATE_ONE)

    def _liquidation_fee(self, event: LiquidationFeeCharged) -> None:
        self._add(event.account_id, IncomeType.INSURANCE_CLEAR, event.market, -event.amount)

    def _taken_over(self, event: PositionTakenOver) -> None:
        self._resize(event.account_id, event.market, event.leg, -event.size_lots)
        self._resize(0, event.market, BOTH, event.size_lots)
        self._add(event.account_id, _REALIZED, event.market, event.realised)
        value = event.entry_cost + event.realised
        self._close(event, event, event.size_lots, value, is_deleveraging=False)

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        symbol = event.market
        self._resize(event.account_id, symbol, event.leg, -event.size_lots)
        self._add(event.account_id, _REALIZED, symbol, event.realised)
        self._close(event, event, event.size_lots, event.value, is_deleveraging=False)
        for row in event.parties:
            lots = row.quantity_lots if event.size_lots > 0 else -row.quantity_lots
            self._resize(row.account_id, symbol, row.leg, lots)
            self._add(row.account_id, _REALIZED, symbol, row.realised)
            self._close(event, row, -lots, -row.value, is_deleveraging=True)

    def _close(
        self,
        event: PositionTakenOver | PositionDeleveraged,
        party: PositionTakenOver | PositionDeleveraged | DeleveragedRow,
        closed_lots: int,
        value: int,
        *,
        is_deleveraging: bool,
    ) -> None:
        """Note that `closed_lots` (signed as the position) of a party went for `value` (signed alike)."""
        account_id = party.account_id
        if account_id < FIRST_USER_ACCOUNT_ID:
            return
        rows = self._closures.get(account_id)
        if rows is None:
            rows = self._closures[account_id] = deque(maxlen=CLOSURES_KEPT_PER_ACCOUNT)
        is_long = closed_lots > 0
        rows.append(
            Closure(
                row_id=self._clock.next_row_id(),
                time_ms=self._clock.now_ms,
                symbol=event.market,
                leg=party.leg,
                side=SELL if is_long else BUY,
                lots=abs(closed_lots),
                value=value if is_long else -value,
                realised=party.realised,
                liquidation_id=event.liquidation_id,
                is_deleveraging=is_deleveraging,
            )
        )

    def _socialised(self, event: LossSocialised) -> None:
        for hole in event.holes:
            self._add(hole.account_id, IncomeType.INSURANCE_CLEAR, event.market, hole.missing)
        if event.charged:
            self._shared = event

    def _explain(self, accounts: dict[int, Account], event: LossSocialised) -> None:
        """Add what those paid who shared a loss: all of their money that no other row accounts for."""
        for account in accounts.values():
            unexplained = _money_of(account) - self._money.get(account.account_id, 0)
            self._add(account.account_id, IncomeType.INSURANCE_CLEAR, event.market, unexplained)

    def _margin_adjusted(self, event: MarginAdjusted) -> None:
        rows = self._margin_moves.get(event.account_id)
        if rows is None:
            rows = self._margin_moves[event.account_id] = deque(maxlen=MARGIN_MOVES_KEPT_PER_ACCOUNT)
        rows.append(MarginMove(event, self._clock.now_ms))

    def _mode_set(self, event: PositionModeSet) -> None:
        """Forget the legs of the other mode; they are flat."""
        for key in [key for key in self._changed_ms if key[0] == event.account_id]:
            del self._changed_ms[key]


def _money_of(account: Account) -> int:
    return account.wallet + sum(position.bucket for position in account.positions.values())


_REALIZED = IncomeType.REALIZED_PNL
_COMMISSION = IncomeType.COMMISSION
