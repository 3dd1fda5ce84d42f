"""What became of each conditional order: a projection of the events, and its form for clients.

A conditional order waits until its price is reached, and then an order is placed for it, or refused. From
then on its fate is that order's: TRIGGERED while that is open, FINISHED when it has ended.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import UNSET

from events.events import (
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    OrderAccepted,
    WorkFailed,
)
from events.values import BUY, LIMIT, MARKET, NO_MATCH, USER, MarketSpec, OrderType, TriggerKind, WorkingPrice
from exchange.aggregate.state import Exchange
from exchange.decimals import average_price_text, lots_text, money_text, price_text, rate_percent_text
from exchange.intake.projection import Clock, Handlers
from exchange.intake.trade.answers import AlgoOrder, OrderAnswer
from exchange.intake.trade.orders import NS_PER_MS, OrderHistory, OrderRecord

ENDED_KEPT_PER_ACCOUNT = 500

NEW = "NEW"
CANCELED = "CANCELED"
TRIGGERED = "TRIGGERED"
FINISHED = "FINISHED"
REJECTED = "REJECTED"
EXPIRED = "EXPIRED"

TYPE_NAMES = {
    (TriggerKind.STOP, OrderType.LIMIT): "STOP",
    (TriggerKind.STOP, OrderType.MARKET): "STOP_MARKET",
    (TriggerKind.TAKE_PROFIT, OrderType.LIMIT): "TAKE_PROFIT",
    (TriggerKind.TAKE_PROFIT, OrderType.MARKET): "TAKE_PROFIT_MARKET",
    (TriggerKind.TRAILING, OrderType.MARKET): "TRAILING_STOP_MARKET",
    (TriggerKind.TRAILING, OrderType.LIMIT): "TRAILING_STOP",
}


class AlgoRecord:
    """One conditional order. `order` is the one placed for it, None until then or when it was refused.

    `order_id` is that one's number, 0 before the price was reached; `reason` is why it was refused.
    """

    __slots__ = (
        "accepted",
        "created_ms",
        "order",
        "order_id",
        "reason",
        "stage",
        "triggered_ms",
        "updated_ms",
    )

    def __init__(self, accepted: ConditionalAccepted, now_ms: int) -> None:
        self.accepted = accepted
        self.created_ms = now_ms
        self.updated_ms = now_ms
        self.triggered_ms = 0
        self.stage = NEW
        self.order_id = 0
        self.order: OrderRecord | None = None
        self.reason = ""

    @property
    def status(self) -> str:
        """Where it stands, in Binance's words."""
        if self.stage == TRIGGERED and self.order is not None and not self.order.is_open:
            return FINISHED
        return self.stage


class AlgoHistory:
    """Records of waiting conditional orders and of the last that ended, for each account.

    Must be fed what `orders` is fed, behind it.
    """

    def __init__(self, orders: OrderHistory, clock: Clock) -> None:
        self._orders = orders
        self._clock = clock
        self._records: dict[int, AlgoRecord] = {}
        self._by_client_id: dict[tuple[int, str], int] = {}
        self._of_account: dict[int, deque[int]] = {}
        self._placing: dict[int, AlgoRecord] = {}
        self.handlers: Handlers = {
            ConditionalAccepted: self._accepted,
            ConditionalCancelled: self._cancelled,
            ConditionalTriggered: self._triggered,
            ConditionalRejected: self._rejected,
            OrderAccepted: self._order_accepted,
            WorkFailed: self._work_failed,
        }

    def adopt(self, state: Exchange) -> None:
        """Know of every conditional order that waits in `state`, whatever was not fed; its times are 0."""
        for account in state.accounts.values():
            for conditional_id, terms in account.conditionals.items():
                if conditional_id not in self._records:
                    self._know(terms, now_ms=0)

    def find(self, account_id: int, algo_id: int, client_algo_id: str) -> AlgoRecord | None:
        """Return an account's conditional order by its id, or by its client id (the newest) if that is 0."""
        wanted = algo_id or self._by_client_id.get((account_id, client_algo_id), 0)
        record = self._records.get(wanted)
        return record if record is not None and record.accepted.account_id == account_id else None

    def of_account(self, account_id: int, waiting_ids: Iterable[int]) -> list[AlgoRecord]:
        """Return what is known of an account's conditional orders, those waiting included, by number."""
        ids = {*self._of_account.get(account_id, ()), *waiting_ids}
        return [self._records[algo_id] for algo_id in sorted(ids) if algo_id in self._records]

    def _know(self, accepted: ConditionalAccepted, now_ms: int) -> None:
        self._records[accepted.conditional_id] = AlgoRecord(accepted, now_ms)
        if accepted.client_order_id:
            self._by_client_id[accepted.account_id, accepted.client_order_id] = accepted.conditional_id

    def _accepted(self, event: ConditionalAccepted) -> None:
        self._know(event, self._clock.now_ms)

    def _cancelled(self, event: ConditionalCancelled) -> None:
        self._leave(event.conditional_id, CANCELED if event.reason is USER else EXPIRED)

    def _triggered(self, event: ConditionalTriggered) -> None:
        record = self._leave(event.conditional_id, TRIGGERED)
        if record is not None:
            record.triggered_ms = self._clock.now_ms
            record.order_id = event.order_id
            self._placing[event.order_id] = record

    def _rejected(self, event: ConditionalRejected) -> None:
        record = self._records.get(event.conditional_id)
        if record is not None:
            self._placing.pop(record.order_id, None)
            record.stage = REJECTED
            record.order_id = 0
            record.reason = event.reason

    def _order_accepted(self, event: OrderAccepted) -> None:
        if self._placing:
            record = self._placing.pop(event.order_id, None)
            if record is not None:
                record.order = self._orders.get(event.order_id)

    def _work_failed(self, event: WorkFailed) -> None:
        if event.number in self._records:
            record = self._leave(event.number, REJECTED)
            if record is not None:
                record.reason = event.reason

    def _leave(self, conditional_id: int, stage: str) -> AlgoRecord | None:
        """Note that a conditional order waits no longer; the oldest of its account may be forgotten."""
        record = self._records.get(conditional_id)
        if record is None:
            return None
        record.stage = stage
        record.updated_ms = self._clock.now_ms
        account_id = record.accepted.account_id
        ended = self._of_account.get(account_id)
        if ended is None:
            ended = self._of_account[account_id] = deque()
        ended.append(conditional_id)
        if len(ended) > ENDED_KEPT_PER_ACCOUNT:
            oldest = self._records.pop(ended.popleft()).accepted
            key = (account_id, oldest.client_order_id)
            if self._by_client_id.get(key) == oldest.conditional_id:
                del self._by_client_id[key]
        return record


def algo_answer(record: AlgoRecord, spec: MarketSpec) -> AlgoOrder:
    """Return a conditional order as every client can read it: the fields of all answers about them."""
    accepted, order = record.accepted, record.order
    is_limit = accepted.order_type is LIMIT
    trigger = accepted.trigger_ticks or accepted.activation_ticks
    return AlgoOrder(
        algo_id=accepted.conditional_id,
        client_algo_id=accepted.client_order_id,
        algo_type="CONDITIONAL",
        order_type=TYPE_NAMES[accepted.kind, accepted.order_type],
        symbol=accepted.market,
        side="BUY" if accepted.side is BUY else "SELL",
        position_side=accepted.leg.name,
        time_in_force=accepted.time_in_force.name if is_limit else "GTC",
        quantity=lots_text(spec, accepted.quantity_lots),
        algo_status=record.status,
        actual_order_id=str(record.order_id) if record.order_id else "",
        actual_price=_actual_price(order, spec),
        actual_type=("MARKET" if accepted.order_type is MARKET else "LIMIT") if order is not None else "",
        actual_qty=lots_text(spec, order.executed_lots if order is not None else 0),
        trigger_price=price_text(spec, trigger),
        price=price_text(spec, _limit_ticks(record)),
        iceberg_quantity=None,
        tp_trigger_price=price_text(spec, 0),
        tp_price=price_text(spec, 0),
        sl_trigger_price=price_text(spec, 0),
        sl_price=price_text(spec, 0),
        tp_order_type="",
        self_trade_prevention_mode=accepted.self_trade.name,
        working_type=working_type(accepted.working_price),
        price_match=accepted.price_match.name,
        close_position=accepted.close_position,
        price_protect=accepted.price_protect,
        reduce_only=accepted.reduce_only,
        activate_price=price_text(spec, accepted.activation_ticks),
        callback_rate=rate_percent_text(accepted.callback_rate),
        create_time=record.created_ms,
        update_time=max(record.updated_ms, order.updated_ms if order is not None else 0),
        trigger_time=record.triggered_ms,
        good_till_date=accepted.expires_ns // NS_PER_MS,
        rm=record.reason or UNSET,
    )


def classic_answer(record: AlgoRecord, spec: MarketSpec) -> OrderAnswer:
    """Return a conditional order in the form of the order calls, from before it had calls of its own.

    It keeps its number when its order is placed, and shows how far that came.
    """
    accepted, order = record.accepted, record.order
    kind = TYPE_NAMES[accepted.kind, accepted.order_type]
    is_trailing = accepted.kind is TriggerKind.TRAILING
    executed = lots_text(spec, order.executed_lots if order is not None else 0)
    status = order.status if order is not None else record.status
    return OrderAnswer(
        order_id=accepted.conditional_id,
        symbol=accepted.market,
        pair=accepted.market,
        status=EXPIRED if status == REJECTED else status,
        client_order_id=accepted.client_order_id,
        price=price_text(spec, _limit_ticks(record)),
        avg_price=_actual_price(order, spec),
        orig_qty=lots_text(spec, accepted.quantity_lots),
        executed_qty=executed,
        cum_qty=executed,
        cum_quote=money_text(order.quote if order is not None else 0),
        cum_base=executed,
        time_in_force=accepted.time_in_force.name if accepted.order_type is LIMIT else "GTC",
        type=kind if order is None else ("MARKET" if accepted.order_type is MARKET else "LIMIT"),
        orig_type=kind,
        reduce_only=accepted.reduce_only,
        close_position=accepted.close_position,
        side="BUY" if accepted.side is BUY else "SELL",
        position_side=accepted.leg.name,
        stop_price=price_text(spec, accepted.trigger_ticks),
        working_type=working_type(accepted.working_price),
        price_protect=accepted.price_protect,
        price_match=accepted.price_match.name,
        self_trade_prevention_mode=accepted.self_trade.name,
        good_till_date=accepted.expires_ns // NS_PER_MS,
        time=record.created_ms,
        update_time=max(record.updated_ms, order.updated_ms if order is not None else 0),
        activate_price=price_text(spec, accepted.activation_ticks) if is_trailing else UNSET,
        price_rate=rate_percent_text(accepted.callback_rate) if is_trailing else UNSET,
    )


def working_type(price: WorkingPrice) -> str:
    """Return Binance's name of the price that is watched."""
    return "MARK_PRICE" if price is WorkingPrice.MARK else "CONTRACT_PRICE"


def _limit_ticks(record: AlgoRecord) -> int:
    """Return the limit of the order, 0 of a market order and while the book has yet to give it."""
    accepted, order = record.accepted, record.order
    if accepted.price_match is not NO_MATCH and order is not None:
        return order.price_ticks
    return accepted.price_ticks


def _actual_price(order: OrderRecord | None, spec: MarketSpec) -> str:
    if order is None:
        return average_price_text(spec, 0, 0)
    return average_price_text(spec, order.quote, order.executed_lots - order.unpriced_lots)
