"""The user-data stream: what happens to an account, told in the order of the log, each thing once.

Order and conditional messages are made while an entry is fed, event by event, behind the histories that have
just taken the event in: so the third fill of an order reads as its third. Balances and positions are told
behind the entry, once for each reason, as the state then has them: a client that takes over what it is told
has at the end of each entry what the account's own calls answer.

Nothing is made for accounts that nobody listens to.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from events.events import (
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    Deposited,
    FundingSettled,
    LeverageSet,
    LiquidationFeeCharged,
    LiquidationFinished,
    LossSocialised,
    MarginAdjusted,
    MarginModeSet,
    MarkPriceChanged,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
    Withdrawn,
)
from events.values import BUY, ISOLATED, CloseReason, Leg
from exchange.aggregate import margin
from exchange.aggregate.account import Account, Position
from exchange.aggregate.state import Exchange
from exchange.decimals import average_price_text, lots_text, money_text, price_text
from exchange.intake.projection import Handlers
from exchange.intake.streams.user_messages import (
    AccountChange,
    AccountConfigUpdate,
    AccountUpdate,
    AlgoOrderUpdate,
    AlgoUpdate,
    BalanceRow,
    ConditionalOrderTriggerReject,
    LeverageRow,
    MarginCall,
    MarginCallRow,
    OrderTradeUpdate,
    OrderUpdate,
    PositionRow,
    RejectedTrigger,
    TradeLite,
)
from exchange.intake.trade.algos import algo_answer
from exchange.intake.trade.ledger import Closure
from exchange.intake.trade.orders import OrderRecord, order_answer
from exchange.intake.trade.past import AccountPast
from exchange.intake.trade.position_prices import break_even_text, entry_price_text

ASSET = "USDT"
# A margin call goes out when a bucket's maintenance has come to this share of its equity, and again only
# after it has been below it.
CALL_PERCENT = 80

Sink = Callable[[bytes], None]

_encode = msgspec.json.Encoder().encode
_EXPIRY_REASONS = {
    CloseReason.SELF_TRADE: "1",
    CloseReason.IOC_REST: "2",
    CloseReason.REDUCE_ONLY: "4",
    CloseReason.LIQUIDATION: "5",
    CloseReason.DELEVERAGED: "5",
    CloseReason.MARKET_REST: "9",
}


class _Fill(NamedTuple):
    """One side of a trade, as an order's message tells it."""

    event: TradeExecuted
    is_maker: bool
    fee: int
    realised: int


class _Changes:
    """What has changed for an account in the entry that is being fed, by reason in the order of the log."""

    __slots__ = ("messages", "positions", "sums")

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.positions: dict[str, dict[tuple[str, Leg], None]] = {}
        self.sums: dict[str, int] = {}


class UserStreams:
    """Tells the listeners of each account what happens to it.

    `handlers` are to be fed behind those of the histories of `past`, and `flush` called behind each entry.
    """

    def __init__(self, past: AccountPast, state: Callable[[], Exchange]) -> None:
        self._orders = past.orders
        self._algos = past.algos
        self._ledger = past.ledger
        self._clock = past.clock
        self._state = state
        self._sinks: dict[int, list[Sink]] = {}
        self._changes: dict[int, _Changes] = {}
        self._called: dict[tuple[int, str, Leg | None], None] = {}
        self._algo_of_order: dict[int, int] = {}
        self._marks_moved = False
        self._realised: dict[tuple[int, str, Leg], int] = {}
        self._closures_told: dict[int, int] = {}
        self.handlers: Handlers = {
            OrderAccepted: self._accepted,
            OrderAmended: self._amended,
            OrderCancelled: self._cancelled,
            OrderExpired: self._expired,
            TradeExecuted: self._traded,
            ConditionalAccepted: self._conditional,
            ConditionalCancelled: self._conditional,
            ConditionalTriggered: self._conditional,
            ConditionalRejected: self._conditional_rejected,
            Deposited: self._deposited,
            Withdrawn: self._withdrawn,
            LeverageSet: self._leverage_set,
            MarginModeSet: self._mode_set,
            MarginAdjusted: self._margin_adjusted,
            FundingSettled: self._funded,
            LiquidationFeeCharged: self._fee_charged,
            PositionTakenOver: self._taken_over,
            PositionDeleveraged: self._deleveraged,
            LossSocialised: self._socialised,
            LiquidationFinished: self._finished,
            MarkPriceChanged: self._mark_changed,
        }

    def listen(self, account_id: int, sink: Sink) -> None:
        """Give a listener what happens to an account from the next entry on. It must not block."""
        if account_id not in self._sinks:
            closures = self._ledger.closures(account_id)
            self._closures_told[account_id] = closures[-1].row_id if closures else 0
        self._sinks.setdefault(account_id, []).append(sink)

    def leave(self, account_id: int, sink: Sink) -> None:
        """End what `listen` began."""
        sinks = self._sinks[account_id]
        sinks.remove(sink)
        if not sinks:
            del self._sinks[account_id]
            for key in [key for key in self._called if key[0] == account_id]:
                del self._called[key]

    def flush(self) -> None:
        """Tell what the entry just fed has changed."""
        for account_id, changes in self._changes.items():
            messages = changes.messages
            account = self._state().accounts[account_id]
            for reason, keys in changes.positions.items():
                messages.append(_encode(self._account_update(account, reason, keys, changes.sums[reason])))
            for sink in tuple(self._sinks.get(account_id, ())):
                for message in messages:
                    sink(message)
        self._changes.clear()
        if self._marks_moved:
            self._marks_moved = False
            for account_id in tuple(self._sinks):
                self._call_for_margin(self._state().accounts[account_id])

    # Orders

    def _accepted(self, event: OrderAccepted) -> None:
        if event.account_id in self._sinks:
            self._tell_order(self._orders.get(event.order_id), "NEW")

    def _amended(self, event: OrderAmended) -> None:
        if event.account_id in self._sinks:
            self._tell_order(self._orders.get(event.order_id), "AMENDMENT")

    def _cancelled(self, event: OrderCancelled) -> None:
        if event.account_id in self._sinks:
            self._tell_order(self._orders.get(event.order_id), "CANCELED")
            self._tell_algo_of(event.order_id)

    def _expired(self, event: OrderExpired) -> None:
        if event.account_id in self._sinks:
            reason = _EXPIRY_REASONS.get(event.reason, "0")
            self._tell_order(self._orders.get(event.order_id), "EXPIRED", expiry=reason)
            self._tell_algo_of(event.order_id)

    def _traded(self, event: TradeExecuted) -> None:
        for account_id, order_id, fill in (
            (
                event.maker_account_id,
                event.maker_order_id,
                _Fill(event, True, event.maker_fee, event.maker_realised),
            ),
            (
                event.taker_account_id,
                event.taker_order_id,
                _Fill(event, False, event.taker_fee, event.taker_realised),
            ),
        ):
            leg = self._orders.leg_of(order_id)
            self._realise(account_id, event.market, leg, fill.realised)
            if account_id not in self._sinks:
                continue
            record = self._orders.get(order_id)
            is_liquidation = bool(record.accepted.liquidation_id)
            self._tell_order(record, "CALCULATED" if is_liquidation else "TRADE", fill)
            self._tell_lite(record, fill)
            self._change(account_id, "ORDER", event.market, leg)
            if not record.is_open:
                self._tell_algo_of(order_id)

    def _tell_order(
        self, record: OrderRecord, what: str, fill: _Fill | None = None, *, expiry: str = "0"
    ) -> None:
        accepted, state = record.accepted, self._state()
        market = state.markets[accepted.market]
        spec = market.spec
        answer = order_answer(record, spec)
        position = state.accounts[accepted.account_id].position(market, accepted.leg)
        order_type = "LIQUIDATION" if accepted.liquidation_id else answer.type
        now_ms = self._clock.now_ms
        body = OrderUpdate(
            s=accepted.market,
            c=answer.client_order_id,
            S=answer.side,
            o=order_type,
            f=answer.time_in_force,
            q=answer.orig_qty,
            p=answer.price,
            ap=answer.avg_price,
            sp=answer.stop_price,
            x=what,
            X=answer.status,
            i=accepted.order_id,
            l=lots_text(spec, fill.event.quantity_lots if fill else 0),
            z=answer.executed_qty,
            L=price_text(spec, fill.event.price_ticks if fill else 0),
            N=ASSET if fill else msgspec.UNSET,
            n=money_text(fill.fee) if fill else msgspec.UNSET,
            T=now_ms,
            t=fill.event.trade_id if fill else 0,
            b=money_text(position.bid_value * market.unit),
            a=money_text(position.ask_value * market.unit),
            m=fill.is_maker if fill else False,
            R=answer.reduce_only,
            wt=answer.working_type,
            ot=order_type,
            ps=answer.position_side,
            cp=answer.close_position,
            rp=money_text(fill.realised if fill else 0),
            pP=answer.price_protect,
            si=0,
            ss=0,
            V=answer.self_trade_prevention_mode,
            pm=answer.price_match,
            gtd=answer.good_till_date,
            er=expiry,
        )
        self._tell(accepted.account_id, OrderTradeUpdate(E=now_ms, T=now_ms, o=body))

    def _tell_closures(self, account_id: int) -> None:
        """Tell what was just closed of an account's positions without an order of its own."""
        if account_id not in self._sinks:
            return
        rows: list[Closure] = []
        told = self._closures_told.get(account_id, 0)
        for closure in reversed(self._ledger.closures(account_id)):
            if closure.row_id <= told:
                break
            rows.append(closure)
        for closure in reversed(rows):
            self._tell_closure(account_id, closure)
            self._closures_told[account_id] = closure.row_id

    def _tell_closure(self, account_id: int, closure: Closure) -> None:
        market = self._state().markets[closure.symbol]
        spec = market.spec
        position = self._state().accounts[account_id].position(market, closure.leg)
        now_ms = self._clock.now_ms
        average = average_price_text(spec, closure.value, closure.lots)
        quantity = lots_text(spec, closure.lots)
        body = OrderUpdate(
            s=closure.symbol,
            c=closure.client_order_id,
            S="BUY" if closure.side is BUY else "SELL",
            o="LIQUIDATION",
            f="IOC",
            q=quantity,
            p=average,
            ap=average,
            sp=price_text(spec, 0),
            x="CALCULATED",
            X="FILLED",
            i=closure.row_id,
            l=quantity,
            z=quantity,
            L=average,
            T=now_ms,
            t=0,
            b=money_text(position.bid_value * market.unit),
            a=money_text(position.ask_value * market.unit),
            m=False,
            R=False,
            wt="CONTRACT_PRICE",
            ot="LIQUIDATION",
            ps=closure.leg.name,
            cp=False,
            rp=money_text(closure.realised),
            pP=False,
            si=0,
            ss=0,
            V="NONE",
            pm="NONE",
            gtd=0,
            er="0",
        )
        self._tell(account_id, OrderTradeUpdate(E=now_ms, T=now_ms, o=body))

    def _tell_lite(self, record: OrderRecord, fill: _Fill) -> None:
        accepted, event = record.accepted, fill.event
        spec = self._state().markets[accepted.market].spec
        now_ms = self._clock.now_ms
        answer = order_answer(record, spec)
        message = TradeLite(
            E=now_ms,
            T=now_ms,
            s=accepted.market,
            q=answer.orig_qty,
            p=answer.price,
            m=fill.is_maker,
            c=answer.client_order_id,
            S=answer.side,
            L=price_text(spec, event.price_ticks),
            l=lots_text(spec, event.quantity_lots),
            t=event.trade_id,
            i=accepted.order_id,
        )
        self._tell(accepted.account_id, message)

    # Conditional orders

    def _conditional(self, event: ConditionalAccepted | ConditionalCancelled | ConditionalTriggered) -> None:
        if event.account_id not in self._sinks:
            return
        if isinstance(event, ConditionalTriggered):
            self._algo_of_order[event.order_id] = event.conditional_id
        self._tell_algo(event.account_id, event.conditional_id)

    def _conditional_rejected(self, event: ConditionalRejected) -> None:
        if event.account_id not in self._sinks:
            return
        order_id = next((k for k, v in self._algo_of_order.items() if v == event.conditional_id), 0)
        self._algo_of_order.pop(order_id, None)
        now_ms = self._clock.now_ms
        body = RejectedTrigger(s=event.market, i=order_id, r=event.reason)
        self._tell(event.account_id, ConditionalOrderTriggerReject(E=now_ms, T=now_ms, or_=body))
        self._tell_algo(event.account_id, event.conditional_id)

    def _tell_algo_of(self, order_id: int) -> None:
        """Tell that an order which a conditional order became has ended."""
        conditional_id = self._algo_of_order.pop(order_id, 0)
        if conditional_id:
            self._tell_algo(self._orders.get(order_id).accepted.account_id, conditional_id)

    def _tell_algo(self, account_id: int, conditional_id: int) -> None:
        record = self._algos.find(account_id, conditional_id, "")
        if record is None:
            return
        answer = algo_answer(record, self._state().markets[record.accepted.market].spec)
        now_ms = self._clock.now_ms
        body = AlgoUpdate(
            caid=answer.client_algo_id,
            aid=answer.algo_id,
            at=answer.algo_type,
            o=answer.order_type,
            s=answer.symbol,
            S=answer.side,
            ps=answer.position_side,
            f=answer.time_in_force,
            q=answer.quantity,
            X=answer.algo_status,
            ai=answer.actual_order_id,
            ap=answer.actual_price,
            aq=answer.actual_qty,
            act=answer.actual_type,
            tp=answer.trigger_price,
            p=answer.price,
            V=answer.self_trade_prevention_mode,
            wt=answer.working_type,
            pm=answer.price_match,
            cp=answer.close_position,
            pP=answer.price_protect,
            R=answer.reduce_only,
            tt=answer.trigger_time,
            gtd=answer.good_till_date,
            rm=record.reason,
        )
        self._tell(account_id, AlgoOrderUpdate(E=now_ms, T=now_ms, o=body))

    # Balances and positions

    def _deposited(self, event: Deposited) -> None:
        self._change(event.account_id, "DEPOSIT", amount=event.amount)

    def _withdrawn(self, event: Withdrawn) -> None:
        self._change(event.account_id, "WITHDRAW", amount=-event.amount)

    def _leverage_set(self, event: LeverageSet) -> None:
        if event.account_id not in self._sinks:
            return
        # In hedge mode each leg has its own event, but what is told is the market's.
        if event.leg is not Leg.SHORT:
            now_ms = self._clock.now_ms
            row = LeverageRow(s=event.market, l=event.leverage)
            self._tell(event.account_id, AccountConfigUpdate(E=now_ms, T=now_ms, ac=row))
        if event.margin_moved:
            self._change(event.account_id, "MARGIN_TRANSFER", event.market, event.leg)

    def _mode_set(self, event: MarginModeSet) -> None:
        if event.changed:
            for row in event.legs:
                self._change(event.account_id, "MARGIN_TYPE_CHANGE", event.market, row.leg)

    def _margin_adjusted(self, event: MarginAdjusted) -> None:
        self._change(event.account_id, "MARGIN_TRANSFER", event.market, event.leg)

    def _funded(self, event: FundingSettled) -> None:
        if not event.rate:
            return
        for (account_id, leg), position in self._state().markets[event.market].holders.items():
            if account_id not in self._sinks:
                continue
            # A cross position's funding changes the balance alone.
            isolated = position.mode is ISOLATED
            self._change(account_id, "FUNDING_FEE", event.market if isolated else "", Leg(leg))

    def _fee_charged(self, event: LiquidationFeeCharged) -> None:
        self._change(event.account_id, "INSURANCE_CLEAR", event.market, event.leg, -event.amount)

    def _taken_over(self, event: PositionTakenOver) -> None:
        self._realise(event.account_id, event.market, event.leg, event.realised)
        self._tell_closures(event.account_id)
        self._change(event.account_id, "INSURANCE_CLEAR", event.market, event.leg)

    def _deleveraged(self, event: PositionDeleveraged) -> None:
        closed = [(row.account_id, row.leg, row.realised) for row in event.parties]
        for account_id, leg, realised in ((event.account_id, event.leg, event.realised), *closed):
            self._realise(account_id, event.market, leg, realised)
            self._tell_closures(account_id)
            self._change(account_id, "ORDER", event.market, leg)

    def _socialised(self, event: LossSocialised) -> None:
        # Whose money a shared loss took no event says: of all who listen, the balances are told, and the
        # market's buckets.
        state = self._state()
        for account_id in self._sinks:
            self._change(account_id, "INSURANCE_CLEAR")
            for position in state.accounts[account_id].positions_in(state.markets[event.market]):
                if position.mode is ISOLATED:
                    self._change(account_id, "INSURANCE_CLEAR", event.market, position.leg)

    def _finished(self, event: LiquidationFinished) -> None:
        if event.released:
            self._change(event.account_id, "MARGIN_TRANSFER", event.market, event.leg)

    def _realise(self, account_id: int, symbol: str, leg: Leg, realised: int) -> None:
        if realised:
            key = (account_id, symbol, leg)
            self._realised[key] = self._realised.get(key, 0) + realised

    def _change(
        self, account_id: int, reason: str, symbol: str = "", leg: Leg = Leg.BOTH, amount: int = 0
    ) -> None:
        """Note that an account's balances changed, and a position where `symbol` names one."""
        if account_id not in self._sinks:
            return
        changes = self._of(account_id)
        positions = changes.positions.setdefault(reason, {})
        if symbol:
            positions[symbol, leg] = None
        changes.sums[reason] = changes.sums.get(reason, 0) + amount

    def _account_update(
        self, account: Account, reason: str, keys: Iterable[tuple[str, Leg]], amount: int
    ) -> AccountUpdate:
        markets = self._state().markets
        positions = [account.position(markets[symbol], leg) for symbol, leg in keys]
        whole = account.wallet + sum(position.bucket for position in account.positions.values())
        now_ms = self._clock.now_ms
        return AccountUpdate(
            E=now_ms,
            T=now_ms,
            a=AccountChange(
                m=reason,
                B=(
                    BalanceRow(
                        a=ASSET,
                        wb=money_text(whole),
                        cw=money_text(account.wallet),
                        bc=money_text(amount),
                    ),
                ),
                P=tuple(self._position_row(account, position) for position in positions),
            ),
        )

    def _position_row(self, account: Account, position: Position) -> PositionRow:
        spec = position.market.spec
        realised = self._realised.get((account.account_id, spec.symbol, position.leg), 0)
        return PositionRow(
            s=spec.symbol,
            pa=lots_text(spec, position.size_lots),
            ep=entry_price_text(position),
            bep=break_even_text(position),
            cr=money_text(realised),
            up=money_text(margin.unrealised(position)),
            mt="isolated" if position.mode is ISOLATED else "cross",
            iw=money_text(position.bucket),
            ps=position.leg.name,
            ma=spec.quote,
        )

    # Margin calls

    def _mark_changed(self, event: MarkPriceChanged) -> None:
        self._marks_moved = True

    def _call_for_margin(self, account: Account) -> None:
        """Warn of each bucket that has come near its liquidation since it was last far from it."""
        pool = margin.survey(account)
        crossed = [position for position in account.cross_positions() if position.size_lots]
        self._call_if(account, None, crossed, pool.equity, pool.maintenance)
        for position in account.positions.values():
            if position.mode is ISOLATED:
                equity = margin.bucket_equity(account, position)
                positions = [position] if position.size_lots else []
                self._call_if(account, position, positions, equity, margin.maintenance(position))

    def _call_if(
        self,
        account: Account,
        bucket: Position | None,
        positions: list[Position],
        equity: int,
        maintenance: int,
    ) -> None:
        key = (account.account_id, bucket.market.symbol if bucket else "", bucket.leg if bucket else None)
        if not positions or maintenance * 100 < equity * CALL_PERCENT:
            self._called.pop(key, None)
            return
        if key in self._called:
            return
        self._called[key] = None
        rows = tuple(_call_row(position) for position in positions)
        wallet = msgspec.UNSET if bucket else money_text(account.wallet)
        message = _encode(MarginCall(E=self._clock.now_ms, cw=wallet, p=rows))
        for sink in tuple(self._sinks[account.account_id]):
            sink(message)

    def _of(self, account_id: int) -> _Changes:
        changes = self._changes.get(account_id)
        if changes is None:
            changes = self._changes[account_id] = _Changes()
        return changes

    def _tell(self, account_id: int, message: Any) -> None:
        self._of(account_id).messages.append(_encode(message))


def _call_row(position: Position) -> MarginCallRow:
    market = position.market
    isolated = position.mode is ISOLATED
    return MarginCallRow(
        s=market.symbol,
        ps=position.leg.name,
        pa=lots_text(market.spec, position.size_lots),
        mt="ISOLATED" if isolated else "CROSSED",
        iw=money_text(position.bucket),
        mp=price_text(market.spec, market.mark_ticks),
        up=money_text(margin.unrealised(position)),
        mm=money_text(margin.maintenance(position)),
    )
