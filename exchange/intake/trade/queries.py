"""Questions about orders and what they did: one, the open ones, all, their amendments and their trades."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from events.values import BUY, MarketSpec
from exchange.aggregate.state import AGGREGATE_ORDER_BASE
from exchange.decimals import average_price_text, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.errors import INTERVAL_TOO_LONG, NO_SUCH_ORDER, START_AFTER_END
from exchange.intake.service import Intake
from exchange.intake.trade.algos import AlgoRecord, classic_answer
from exchange.intake.trade.answers import (
    AmendmentChange,
    AmendmentRow,
    BeforeAfter,
    ForceOrder,
    OrderAnswer,
    UserTrade,
)
from exchange.intake.trade.ledger import Closure, Trade
from exchange.intake.trade.orders import OrderRecord, order_answer, unit_of
from exchange.intake.trade.trading import which_order

R = TypeVar("R")

ROWS_DEFAULT = 500
AMENDMENT_ROWS_DEFAULT = 50
FORCE_ROWS_DEFAULT = 50
DAY_MS = 24 * 3_600_000
LOOKUP_DAYS_MAX = 7


async def query_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Return one order, open or not."""
    order_id, client_order_id = which_order(values)
    market = intake.market(values["symbol"])
    record = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    if record is not None:
        return order_answer(record, market.spec)
    waiting = _waiting(intake, account_id, market.symbol, order_id, client_order_id)
    if waiting is None:
        raise NO_SUCH_ORDER.error()
    return classic_answer(waiting, market.spec)


async def query_open_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Return one order that is open."""
    order_id, client_order_id = which_order(values)
    market = intake.market(values["symbol"])
    record = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    if record is not None and record.is_open:
        return order_answer(record, market.spec)
    waiting = _waiting(intake, account_id, market.symbol, order_id, client_order_id)
    if waiting is None or waiting.accepted.conditional_id not in intake.account(account_id).conditionals:
        raise NO_SUCH_ORDER.error()
    return classic_answer(waiting, market.spec)


async def open_orders(intake: Intake, account_id: int, values: Values) -> list[OrderAnswer]:
    """Return the open orders, of one market or of all, in the order of acceptance."""
    symbol = values.get("symbol")
    if symbol is not None:
        intake.market(symbol)
    markets, account = intake.state.markets, intake.account(account_id)
    rows = [
        order_answer(intake.orders.get(order.order_id), markets[order.terms.market].spec)
        for order in account.orders.values()
        if symbol is None or order.terms.market == symbol
    ]
    if intake.legacy_conditional_orders:
        rows += [
            classic_answer(record, markets[record.accepted.market].spec)
            for record in intake.past.algos.of_account(account_id, account.conditionals)
            if record.accepted.conditional_id in account.conditionals
            and symbol in (None, record.accepted.market)
        ]
    return rows


async def all_orders(intake: Intake, account_id: int, values: Values) -> list[OrderAnswer]:
    """Return orders, open and ended, oldest first: from a number on, or the newest ones."""
    check_times(values)
    symbol = values.get("symbol")
    if symbol is not None:
        intake.market(symbol)
    records = [
        record
        for record in intake.orders.of_account(account_id, intake.account(account_id).orders)
        if symbol is None or record.accepted.market == symbol
    ]
    first_id = values.get("orderId")
    if first_id is None:
        # Orders that the exchange makes are numbered above all others, whenever that was.
        records.sort(key=lambda record: (record.accepted_ms, record.accepted.order_id))
    else:
        records = [record for record in records if record.accepted.order_id >= first_id]
    found = chosen(records, values, lambda record: record.accepted_ms, from_first=first_id is not None)
    markets = intake.state.markets
    return [order_answer(record, markets[record.accepted.market].spec) for record in found]


async def order_amendments(intake: Intake, account_id: int, values: Values) -> list[AmendmentRow]:
    """Return how an order was changed by its owner, newest first as at Binance."""
    check_times(values)
    order_id, client_order_id = which_order(values)
    market = intake.market(values["symbol"])
    record = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    if record is None:
        raise NO_SUCH_ORDER.error()
    made = list(record.amendments or ())
    found = chosen(made, values, lambda row: row.time_ms, rows_default=AMENDMENT_ROWS_DEFAULT)
    spec, accepted = market.spec, record.accepted
    return [
        AmendmentRow(
            amendment_id=row.row_id,
            symbol=accepted.market,
            pair=accepted.market,
            order_id=accepted.order_id,
            client_order_id=accepted.client_order_id,
            time=row.time_ms,
            amendment=AmendmentChange(
                price=BeforeAfter(
                    before=price_text(spec, row.price_ticks[0]), after=price_text(spec, row.price_ticks[1])
                ),
                orig_qty=BeforeAfter(
                    before=lots_text(spec, row.quantity_lots[0]), after=lots_text(spec, row.quantity_lots[1])
                ),
                count=row.count,
                modify_id=0,
            ),
        )
        for row in reversed(found)
    ]


async def user_trades(intake: Intake, account_id: int, values: Values) -> list[UserTrade]:
    """Return an account's trades in a market, oldest first: from a number on, or the newest ones."""
    check_times(values)
    market = intake.market(values["symbol"])
    order_id, first_id = values.get("orderId"), values.get("fromId")
    trades = [
        trade
        for trade in intake.past.ledger.trades(account_id)
        if trade.event.market == market.symbol
        and (first_id is None or trade.event.trade_id >= first_id)
        and (order_id is None or order_id == _order_of(trade))
    ]
    found = chosen(trades, values, lambda trade: trade.time_ms, from_first=first_id is not None)
    return [_trade_row(trade, market.spec) for trade in found]


async def force_orders(intake: Intake, account_id: int, values: Values) -> list[ForceOrder]:
    """Return what the waterfall closed for an account: by orders, by takeover, by deleveraging."""
    check_times(values)
    symbol, kind = values.get("symbol"), values.get("autoCloseType")
    if symbol is not None:
        intake.market(symbol)
    markets = intake.state.markets
    rows: list[ForceOrder] = []
    if kind != "ADL":
        rows += [
            _forced_order(record, markets[record.accepted.market].spec)
            for record in intake.orders.of_account(account_id, intake.account(account_id).orders)
            if record.accepted.liquidation_id and symbol in (None, record.accepted.market)
        ]
    rows += [
        _closure_row(closure, markets[closure.symbol].spec)
        for closure in intake.past.ledger.closures(account_id)
        if symbol in (None, closure.symbol)
        and kind in (None, "ADL" if closure.is_deleveraging else "LIQUIDATION")
    ]
    rows.sort(key=lambda row: (row.time, row.order_id))
    return chosen(rows, values, lambda row: row.time, rows_default=FORCE_ROWS_DEFAULT)


def check_times(values: Values) -> None:
    """Refuse a span of time that ends before it begins, or is longer than a question may be about.

    Raises:
        ApiError: -1023, -4165.
    """
    start_ms, end_ms = values.get("startTime"), values.get("endTime")
    if start_ms is None or end_ms is None:
        return
    if start_ms > end_ms:
        raise START_AFTER_END.error()
    if end_ms - start_ms > LOOKUP_DAYS_MAX * DAY_MS:
        raise INTERVAL_TOO_LONG.error(days=LOOKUP_DAYS_MAX)


def chosen(
    rows: Sequence[R],
    values: Values,
    time_ms: Callable[[R], int],
    *,
    rows_default: int = ROWS_DEFAULT,
    from_first: bool = False,
) -> list[R]:
    """Return the rows of the span asked for, oldest first: the first if it has a beginning, else the last.

    `from_first` says that a beginning was asked for by number.
    """
    start_ms, end_ms = values.get("startTime"), values.get("endTime")
    found = [
        row
        for row in rows
        if (start_ms is None or time_ms(row) >= start_ms) and (end_ms is None or time_ms(row) <= end_ms)
    ]
    limit: int = values.get("limit", rows_default)
    return found[:limit] if from_first or start_ms is not None else found[-limit:]


def _waiting(
    intake: Intake, account_id: int, symbol: str, order_id: int, client_order_id: str
) -> AlgoRecord | None:
    """Return a conditional order, where the order calls know of them."""
    if not intake.legacy_conditional_orders or order_id >= AGGREGATE_ORDER_BASE:
        return None
    record = intake.past.algos.find(account_id, order_id, client_order_id)
    return record if record is not None and record.accepted.market == symbol else None


def _order_of(trade: Trade) -> int:
    return trade.event.maker_order_id if trade.is_maker else trade.event.taker_order_id


def _trade_row(trade: Trade, spec: MarketSpec) -> UserTrade:
    event, is_maker = trade.event, trade.is_maker
    is_buyer = (event.taker_side is BUY) is not is_maker
    quantity = lots_text(spec, event.quantity_lots)
    return UserTrade(
        symbol=event.market,
        pair=event.market,
        id=event.trade_id,
        order_id=_order_of(trade),
        side="BUY" if is_buyer else "SELL",
        position_side=trade.leg.name,
        price=price_text(spec, event.price_ticks),
        qty=quantity,
        quote_qty=money_text(event.quantity_lots * event.price_ticks * unit_of(spec)),
        base_qty=quantity,
        realized_pnl=money_text(event.maker_realised if is_maker else event.taker_realised),
        commission=money_text(event.maker_fee if is_maker else event.taker_fee),
        commission_asset=spec.quote,
        margin_asset=spec.quote,
        buyer=is_buyer,
        maker=is_maker,
        time=trade.time_ms,
    )


def _forced_order(record: OrderRecord, spec: MarketSpec) -> ForceOrder:
    answer = order_answer(record, spec)
    return ForceOrder(**{name: getattr(answer, name) for name in ForceOrder.__struct_fields__})


def _closure_row(closure: Closure, spec: MarketSpec) -> ForceOrder:
    """Return a position that was closed without an order as the order it would have been."""
    average = average_price_text(spec, closure.value, closure.lots)
    quantity = lots_text(spec, closure.lots)
    return ForceOrder(
        order_id=closure.row_id,
        symbol=closure.symbol,
        pair=closure.symbol,
        status="FILLED",
        client_order_id=closure.client_order_id,
        price=average,
        avg_price=average,
        orig_qty=quantity,
        executed_qty=quantity,
        cum_quote=money_text(closure.value),
        cum_base=quantity,
        time_in_force="IOC",
        type="LIMIT",
        reduce_only=False,
        close_position=False,
        side="BUY" if closure.side is BUY else "SELL",
        position_side=closure.leg.name,
        stop_price=price_text(spec, 0),
        working_type="CONTRACT_PRICE",
        orig_type="LIMIT",
        time=closure.time_ms,
        update_time=closure.time_ms,
    )
