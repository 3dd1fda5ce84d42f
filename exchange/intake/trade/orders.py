"""What became of each order: a projection of the events, for answers about orders that are no longer open.

The aggregate forgets an order when it ends; a client asks about it afterwards. `OrderHistory` keeps a record
of every open order and of the last ones that ended, per account, and is fed from the entries of the fold.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from events.events import Event, OrderAccepted, OrderAmended, OrderCancelled, OrderExpired, TradeExecuted
from events.values import (
    MARKET,
    USER,
    CloseReason,
    Leg,
    MarketSpec,
    PriceMatch,
    SelfTrade,
    Side,
    TimeInForce,
)
from exchange.aggregate.account import BOTH
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import MONEY_ONE
from exchange.decimals import average_price_text, lots_text, money_text, price_text
from exchange.intake.projection import Clock, Handlers
from exchange.intake.trade.answers import OrderAnswer

# Of the orders that ended, how many are remembered of one account, and of all together (some 0.6 kB each).
ENDED_KEPT_PER_ACCOUNT = 20_000
ENDED_KEPT = 200_000
AMENDMENTS_KEPT_PER_ORDER = 100
NS_PER_MS = 1_000_000

NEW = "NEW"
PARTIALLY_FILLED = "PARTIALLY_FILLED"
FILLED = "FILLED"
CANCELED = "CANCELED"
EXPIRED = "EXPIRED"
EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"


@dataclass(frozen=True, slots=True)
class Amendment:
    """What an order's owner changed; `row_id` orders all rows of the history."""

    row_id: int
    time_ms: int
    count: int
    price_ticks: tuple[int, int]
    quantity_lots: tuple[int, int]


class OrderRecord:
    """One order and how far it came. `quote` is money units: Σ price × lots of its fills, but for
    `unpriced_lots`, fills of unknown price (see `OrderHistory.adopt`).

    `price_ticks`, `price_match` and `quantity_lots` are as amended, the rest of its terms as `accepted`.
    `amendments` are the last ones made by its owner, of `amendment_count`; None until there is one.
    """

    __slots__ = (
        "accepted",
        "accepted_ms",
        "amendment_count",
        "amendments",
        "executed_lots",
        "price_match",
        "price_ticks",
        "quantity_lots",
        "quote",
        "status",
        "unpriced_lots",
        "updated_ms",
    )

    def __init__(self, accepted: OrderAccepted, now_ms: int) -> None:
        self.accepted = accepted
        self.accepted_ms = now_ms
        self.updated_ms = now_ms
        self.price_ticks = accepted.price_ticks
        self.price_match = accepted.price_match
        self.quantity_lots = accepted.quantity_lots
        self.executed_lots = 0
        self.unpriced_lots = 0
        self.quote = 0
        self.status = NEW
        self.amendment_count = 0
        self.amendments: deque[Amendment] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the order may still trade."""
        return self.status in (NEW, PARTIALLY_FILLED)

    def fill(self, lots: int, quote: int, now_ms: int) -> None:
        """Count a trade of this order."""
        self.executed_lots += lots
        self.quote += quote
        self.updated_ms = now_ms
        assert self.executed_lots <= self.quantity_lots, self.accepted.order_id
        self.status = FILLED if self.executed_lots == self.quantity_lots else PARTIALLY_FILLED

    def amend(self, event: OrderAmended, clock: Clock) -> None:
        """Take over another price and size."""
        now_ms = clock.now_ms
        if event.reason is USER:
            if self.amendments is None:
                self.amendments = deque(maxlen=AMENDMENTS_KEPT_PER_ORDER)
            self.amendment_count += 1
            self.amendments.append(
                Amendment(
                    clock.next_row_id(),
                    now_ms,
                    self.amendment_count,
                    (self.price_ticks, event.price_ticks),
                    (self.quantity_lots, event.quantity_lots),
                )
            )
        self.price_ticks = event.price_ticks
        self.price_match = event.price_match
        self.quantity_lots = event.quantity_lots
        self.updated_ms = now_ms

    def end(self, status: str, now_ms: int) -> None:
        """Record that the order left unfilled or partly filled."""
        self.status = status
        self.updated_ms = now_ms


def unit_of(spec: MarketSpec) -> int:
    """Return the money one lot gains per tick."""
    return spec.tick_size * spec.lot_size // MONEY_ONE


def record_of_answer(
    accepted: OrderAccepted, events: Iterable[Event], spec: MarketSpec, now_ms: int
) -> OrderRecord:
    """Return an order as the events of its own command left it.

    The projection may be further already: entries behind the answer are folded before a waiting request
    runs again.
    """
    record = OrderRecord(accepted, now_ms)
    for event in events:
        if isinstance(event, TradeExecuted):
            if accepted.order_id in (event.taker_order_id, event.maker_order_id):
                record.fill(event.quantity_lots, _quote(event, unit_of(spec)), now_ms)
        elif isinstance(event, OrderExpired) and event.order_id == accepted.order_id:
            record.end(_expiry_status(event.reason), now_ms)
    return record


class OrderHistory:
    """Records of open orders and of the last that ended: `ended_kept` of each account, `ENDED_KEPT` in all.

    `unit_by_symbol` gives the money one lot of a market gains per tick, `clock` the time of what is fed.
    That may begin in the middle of a log: events of orders accepted before say nothing, until `adopt` makes
    the open ones known.
    """

    def __init__(
        self,
        unit_by_symbol: Callable[[str], int],
        clock: Clock,
        *,
        ended_kept: int = ENDED_KEPT_PER_ACCOUNT,
    ) -> None:
        self._unit_by_symbol = unit_by_symbol
        self._clock = clock
        self._ended_kept = ended_kept
        self._records: dict[int, OrderRecord] = {}
        self._by_client_id: dict[tuple[int, str], int] = {}
        self._ended: dict[int, deque[int]] = {}
        self._ended_by_all: deque[int] = deque()
        self.handlers: Handlers = {
            OrderAccepted: self._accepted,
            OrderAmended: self._amended,
            TradeExecuted: self._traded,
            OrderCancelled: self._cancelled,
            OrderExpired: self._expired,
        }

    def adopt(self, state: Exchange) -> None:
        """Know of every order that is open in `state`, behind the last entry fed, whatever was not fed.

        Of one that is not known, prices and sizes are right. The state holds neither when it was accepted nor
        what its fills cost: its times are 0 until it changes, and its average price is that of later fills.
        """
        for account in state.accounts.values():
            for order in account.orders.values():
                if order.order_id in self._records:
                    continue
                record = self._know(order.terms, now_ms=0)
                record.price_ticks = order.price_ticks
                record.price_match = order.price_match
                record.quantity_lots = order.quantity_lots
                record.executed_lots = record.unpriced_lots = order.quantity_lots - order.open_lots
                record.status = PARTIALLY_FILLED if record.executed_lots else NEW

    def find(self, account_id: int, symbol: str, order_id: int, client_order_id: str) -> OrderRecord | None:
        """Return an account's order by its id, or by its client id (the newest) when the id is 0."""
        wanted = order_id or self._by_client_id.get((account_id, client_order_id), 0)
        record = self._records.get(wanted)
        if record is None or record.accepted.account_id != account_id or record.accepted.market != symbol:
            return None
        return record

    def of_account(self, account_id: int, open_ids: Iterable[int]) -> list[OrderRecord]:
        """Return what is known of an account's orders, `open_ids` being those open now, by number."""
        ids = {*self._ended.get(account_id, ()), *open_ids}
        return [self._records[order_id] for order_id in sorted(ids) if order_id in self._records]

    def leg_of(self, order_id: int) -> Leg:
        """Return the leg of an order whose event has just been read, BOTH where it is not known."""
        record = self._records.get(order_id)
        return record.accepted.leg if record is not None else BOTH

    def get(self, order_id: int) -> OrderRecord:
        """Return the record of an open order, or of one whose event has just been read.

        Raises:
            KeyError: it ended too long ago.
        """
        return self._records[order_id]

    def _accepted(self, event: OrderAccepted) -> None:
        self._know(event, self._clock.now_ms)

    def _know(self, accepted: OrderAccepted, now_ms: int) -> OrderRecord:
        record = self._records[accepted.order_id] = OrderRecord(accepted, now_ms)
        if accepted.client_order_id:
            self._by_client_id[accepted.account_id, accepted.client_order_id] = accepted.order_id
        return record

    def _traded(self, event: TradeExecuted) -> None:
        quote = _quote(event, self._unit_by_symbol(event.market))
        for order_id in (event.maker_order_id, event.taker_order_id):
            record = self._records.get(order_id)
            if record is None:
                continue
            record.fill(event.quantity_lots, quote, self._clock.now_ms)
            if record.status == FILLED:
                self._keep_ended(record.accepted)

    def _amended(self, event: OrderAmended) -> None:
        if event.order_id in self._records:
            self._records[event.order_id].amend(event, self._clock)

    def _cancelled(self, event: OrderCancelled) -> None:
        self._end(event.order_id, CANCELED)

    def _expired(self, event: OrderExpired) -> None:
        self._end(event.order_id, _expiry_status(event.reason))

    def _end(self, order_id: int, status: str) -> None:
        record = self._records.get(order_id)
        if record is not None:
            record.end(status, self._clock.now_ms)
            self._keep_ended(record.accepted)

    def _keep_ended(self, accepted: OrderAccepted) -> None:
        ended = self._ended.get(accepted.account_id)
        if ended is None:
            ended = self._ended[accepted.account_id] = deque()
        ended.append(accepted.order_id)
        if len(ended) > self._ended_kept:
            self._forget(ended.popleft())
        everyones = self._ended_by_all
        everyones.append(accepted.order_id)
        if len(everyones) > ENDED_KEPT:
            oldest = self._records.get(everyones.popleft())
            if oldest is not None:
                # Of its own account it is the oldest too.
                self._forget(self._ended[oldest.accepted.account_id].popleft())

    def _forget(self, order_id: int) -> None:
        accepted = self._records.pop(order_id).accepted
        key = (accepted.account_id, accepted.client_order_id)
        if self._by_client_id.get(key) == accepted.order_id:
            del self._by_client_id[key]


def order_answer(record: OrderRecord, spec: MarketSpec) -> OrderAnswer:
    """Return an order as every client can read it: the fields of all answers about orders together."""
    accepted = record.accepted
    is_market = accepted.order_type is MARKET
    # Binance shows the waterfall's orders as limit orders with an id of this form.
    order_type = "MARKET" if is_market else "LIMIT"
    client_order_id = accepted.client_order_id
    if accepted.liquidation_id and not client_order_id:
        client_order_id = f"autoclose-{accepted.liquidation_id}"
    executed = lots_text(spec, record.executed_lots)
    return OrderAnswer(
        order_id=accepted.order_id,
        symbol=accepted.market,
        pair=accepted.market,
        status=record.status,
        client_order_id=client_order_id,
        price=price_text(spec, 0 if is_market else record.price_ticks),
        avg_price=average_price_text(spec, record.quote, record.executed_lots - record.unpriced_lots),
        orig_qty=lots_text(spec, record.quantity_lots),
        executed_qty=executed,
        cum_qty=executed,
        cum_quote=money_text(record.quote),
        cum_base=executed,
        time_in_force=_TIF_NAMES[TimeInForce.GTC if is_market else accepted.time_in_force],
        type=order_type,
        orig_type=order_type,
        reduce_only=accepted.reduce_only,
        close_position=False,
        side="BUY" if accepted.side is Side.BUY else "SELL",
        position_side=_LEG_NAMES[accepted.leg],
        stop_price=price_text(spec, 0),
        working_type="CONTRACT_PRICE",
        price_protect=False,
        price_match=_MATCH_NAMES[record.price_match],
        self_trade_prevention_mode=_STP_NAMES[accepted.self_trade],
        good_till_date=accepted.expires_ns // NS_PER_MS,
        time=record.accepted_ms,
        update_time=record.updated_ms,
    )


# Looking a member's name up through its class costs more than all else of an answer.
_TIF_NAMES = {tif: tif.name for tif in TimeInForce}
_LEG_NAMES = {leg: leg.name for leg in Leg}
_STP_NAMES = {mode: mode.name for mode in SelfTrade}
_MATCH_NAMES = {match: match.name for match in PriceMatch}


def _quote(event: TradeExecuted, unit: int) -> int:
    return event.quantity_lots * event.price_ticks * unit


def _expiry_status(reason: CloseReason) -> str:
    return EXPIRED_IN_MATCH if reason is CloseReason.SELF_TRADE else EXPIRED
