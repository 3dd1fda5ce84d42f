"""Orders: what is accepted, and how it trades.

An accepted order that may rest joins the book and its owner's exposure at once; one that never rests
(immediate-or-cancel, fill-or-kill, market) is matched without either. Then it meets the other side, best
price first and oldest first, until it is filled, finds no price within its limit, or may not go on.

A market order is an immediate-or-cancel order whose limit is the market's bound around the mark.
"""

from events.commands import CancelAllOrders, CancelOrder, PlaceOrder
from events.events import OrderAccepted, OrderCancelled, OrderExpired, TradeExecuted
from events.values import (
    BUY,
    FOK,
    GTX,
    IOC,
    ISOLATED,
    LIMIT,
    MARKET,
    SELL,
    TRADING,
    CloseReason,
    MarketStatus,
    RejectCode,
    Side,
)
from exchange.aggregate.account import Account, Position
from exchange.aggregate.book import Order
from exchange.aggregate.fills import plan_fill
from exchange.aggregate.margin import order_extras, standing, survey
from exchange.aggregate.market import Market
from exchange.aggregate.turn import Refused, Turn
from exchange.aggregate.units import RATE_ONE, ceil_div, floor_div

# What one command may cause at most, so that no entry can grow beyond what can be appended.
FILLS_PER_ORDER_MAX = 1000


def place_order(turn: Turn, command: PlaceOrder) -> None:
    """Accept an order and match it, or refuse it."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    position = account.position(market)
    _check_form(command, market)
    _check_place(command, account, market, position)
    extras = _check_margin(command, account, position)
    limit_ticks = command.price_ticks or market_order_bound(market, command.side)
    if command.time_in_force is GTX and _crosses(market, command.side, limit_ticks):
        raise Refused(RejectCode.WOULD_TAKE, "timeInForce: GTX would trade at once")
    if command.time_in_force is FOK:
        _check_fillable(turn, command, market, limit_ticks)
    is_market = command.order_type is MARKET
    turn.emit(
        OrderAccepted(
            order_id=turn.order_id,
            account_id=account.account_id,
            market=market.symbol,
            side=command.side,
            order_type=command.order_type,
            quantity_lots=command.quantity_lots,
            price_ticks=limit_ticks,
            time_in_force=IOC if is_market else command.time_in_force,
            reduce_only=command.reduce_only,
            client_order_id=command.client_order_id,
            extras=extras,
        )
    )
    match(turn, account, market, account.orders[turn.order_id])


def cancel_order(turn: Turn, command: CancelOrder) -> None:
    """Cancel one open order of the account, or refuse."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    order_id = command.order_id or account.client_ids.get(command.client_order_id, 0)
    order = account.orders.get(order_id)
    if order is None or order.market != market.symbol:
        asked = command.order_id or command.client_order_id
        raise Refused(RejectCode.UNKNOWN_ORDER, f"orderId: no open order {asked!r} in {market.symbol}")
    _refuse_if_halted(market)
    cancel(turn, order, CloseReason.USER)


def cancel_all_orders(turn: Turn, command: CancelAllOrders) -> None:
    """Cancel every open order of the account in a market; none open is no error."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    _refuse_if_halted(market)
    for order in [order for order in account.orders.values() if order.market == market.symbol]:
        cancel(turn, order, CloseReason.USER)


def cancel(turn: Turn, order: Order, reason: CloseReason) -> None:
    """Take an open order away."""
    turn.emit(
        OrderCancelled(
            order_id=order.order_id,
            account_id=order.account_id,
            market=order.market,
            open_lots=order.open_lots,
            reason=reason,
        )
    )


def market_order_bound(market: Market, side: Side) -> int:
    """Return the worst price a market order may trade at: the mark ± the market's bound, at least 1."""
    width = floor_div(market.mark_ticks * market.spec.take_bound, RATE_ONE)
    return max(1, market.mark_ticks + side * width)


def match(turn: Turn, account: Account, market: Market, taker: Order) -> None:
    """Trade an accepted order against the book, then let its rest rest or expire."""
    position = account.positions[market.symbol]
    book = market.book
    fills = 0
    while taker.open_lots:
        maker = book.best(SELL if taker.side is BUY else BUY)
        if maker is None or taker.side * (taker.price_ticks - maker.price_ticks) < 0:
            break
        if maker.account_id == taker.account_id:
            _expire(turn, maker, CloseReason.SELF_TRADE)
            continue
        if fills == FILLS_PER_ORDER_MAX:
            _expire(turn, taker, CloseReason.EVENT_LIMIT)
            return
        stop = _trade(turn, position, taker, maker)
        if stop is not None:
            _expire(turn, taker, stop)
            return
        fills += 1
    if taker.open_lots and not taker.rests:
        is_market = taker.order_type is MARKET
        _expire(turn, taker, CloseReason.MARKET_REST if is_market else CloseReason.IOC_REST)


def _trade(turn: Turn, position: Position, taker: Order, maker: Order) -> CloseReason | None:
    """Let two orders trade once; return why the taker cannot go on, None if it can.

    A maker that may not trade expires, and the taker goes on with the next.
    """
    market = position.market
    other = turn.state.accounts[maker.account_id]
    maker_position = other.positions[market.symbol]
    lots = min(taker.open_lots, maker.open_lots)
    if taker.reduce_only:
        lots = min(lots, position.reducible_lots(taker.side))
        if lots == 0:
            return CloseReason.REDUCE_ONLY
    if maker.reduce_only:
        lots = min(lots, maker_position.reducible_lots(maker.side))
        if lots == 0:
            _expire(turn, maker, CloseReason.REDUCE_ONLY)
            return None
    price_ticks = maker.price_ticks
    given = plan_fill(other, maker_position, maker, lots, price_ticks, market.spec.maker_fee)
    if given is None:
        _expire(turn, maker, CloseReason.MARGIN)
        return None
    account = turn.state.accounts[taker.account_id]
    taken = plan_fill(account, position, taker, lots, price_ticks, market.spec.taker_fee)
    if taken is None:
        return CloseReason.MARGIN
    turn.emit(
        TradeExecuted(
            trade_id=turn.state.trade_count + 1,
            market=market.symbol,
            price_ticks=price_ticks,
            quantity_lots=lots,
            taker_side=taker.side,
            maker_order_id=maker.order_id,
            taker_order_id=taker.order_id,
            maker_account_id=maker.account_id,
            taker_account_id=taker.account_id,
            # A rebate is paid only out of the taker fee of the same trade.
            maker_fee=max(given.fee, -taken.fee),
            taker_fee=taken.fee,
            maker_realised=given.realised,
            taker_realised=taken.realised,
            maker_margin_moved=given.margin_moved,
            taker_margin_moved=taken.margin_moved,
            liquidation_id=taker.liquidation_id,
        )
    )
    return None


def _expire(turn: Turn, order: Order, reason: CloseReason) -> None:
    turn.emit(
        OrderExpired(
            order_id=order.order_id,
            account_id=order.account_id,
            market=order.market,
            open_lots=order.open_lots,
            reason=reason,
        )
    )


def _crosses(market: Market, side: Side, limit_ticks: int) -> bool:
    if side is BUY:
        return 0 < market.book.best_ask_ticks <= limit_ticks
    return market.book.best_bid_ticks >= limit_ticks


def _refuse_if_halted(market: Market) -> None:
    if market.status is MarketStatus.HALTED:
        raise Refused(RejectCode.MARKET_CLOSED, f"market: {market.symbol} is halted")


def _check_form(command: PlaceOrder, market: Market) -> None:
    """Refuse what the contract's own limits forbid, whoever asks."""
    spec = market.spec
    lots, price_ticks = command.quantity_lots, command.price_ticks
    if not spec.min_lots <= lots <= spec.max_lots:
        raise Refused(
            RejectCode.BAD_QUANTITY, f"quantity: {lots} lots is outside {spec.min_lots}…{spec.max_lots}"
        )
    if command.order_type is LIMIT:
        if not spec.min_price_ticks <= price_ticks <= spec.max_price_ticks:
            bounds = f"{spec.min_price_ticks}…{spec.max_price_ticks}"
            raise Refused(RejectCode.BAD_PRICE, f"price: {price_ticks} ticks is outside {bounds}")
    elif command.order_type is not MARKET:
        raise Refused(RejectCode.BAD_ORDER, "type: only LIMIT and MARKET can be placed")
    elif price_ticks != 0:
        raise Refused(RejectCode.BAD_ORDER, "price: a market order has none")
    elif command.time_in_force is GTX:
        raise Refused(RejectCode.BAD_ORDER, "timeInForce: a market order cannot be post-only")
    if market.status is not TRADING:
        raise Refused(RejectCode.MARKET_CLOSED, f"market: {market.symbol} is {market.status.name.lower()}")
    if market.mark_ticks == 0:
        raise Refused(RejectCode.NO_MARK_PRICE, f"market: {market.symbol} has no mark price yet")
    notional = market.notional(lots, price_ticks or market.mark_ticks)
    if notional < spec.min_notional and not command.reduce_only:
        raise Refused(RejectCode.MIN_NOTIONAL, f"quantity: notional {notional} is below {spec.min_notional}")


def _check_place(command: PlaceOrder, account: Account, market: Market, position: Position) -> None:
    """Refuse what does not fit the account's open orders and position."""
    if command.reduce_only:
        reducible = position.reducible_lots(command.side)
        if command.quantity_lots > reducible:
            raise Refused(
                RejectCode.REDUCE_ONLY, f"reduceOnly: the position can be reduced by {reducible} lots"
            )
    if command.client_order_id and command.client_order_id in account.client_ids:
        raise Refused(
            RejectCode.DUPLICATE_CLIENT_ORDER_ID,
            f"newClientOrderId: {command.client_order_id!r} is an open order's",
        )
    if position.order_count >= market.spec.max_open_orders:
        raise Refused(
            RejectCode.TOO_MANY_ORDERS, f"market: {market.spec.max_open_orders} orders are open already"
        )


def _check_margin(command: PlaceOrder, account: Account, position: Position) -> int:
    """Refuse what the account cannot hold; return the extras to reserve, in money units.

    An order that only reduces, together with the account's others on its side, needs no margin. A market
    order is judged at the price it would start to trade at; each of its fills is judged again.
    """
    market, side, lots = position.market, command.side, command.quantity_lots
    if position.open_lots(side) + lots <= position.reducible_lots(side):
        return 0
    price_ticks = command.price_ticks or _expected_price(market, side)
    extras = order_extras(position, side, lots, price_ticks)
    known = standing(position)
    value = position.size_lots * market.mark_ticks * market.unit
    if side is BUY:
        worst = abs(value + (position.bid_value + lots * price_ticks) * market.unit)
    else:
        worst = abs(value - (position.ask_value + lots * price_ticks) * market.unit)
    # An order can only widen the worst-side exposure, so the other side need not be looked at.
    increase = extras
    if worst > known.exposure:
        base = abs(value) if position.mode is ISOLATED else 0
        leverage = position.leverage
        increase += ceil_div(worst - base, leverage) - ceil_div(known.exposure - base, leverage)
    if increase > 0:
        pool = survey(account)
        room = max(0, pool.transferable if position.mode is ISOLATED else pool.free)
        if increase > room:
            raise Refused(
                RejectCode.INSUFFICIENT_MARGIN, f"quantity: needs {increase} of margin, {room} is available"
            )
    cap = market.brackets.cap_at(position.leverage)
    if worst > known.exposure and worst > cap:
        raise Refused(
            RejectCode.POSITION_LIMIT,
            f"quantity: exposure {worst} exceeds {cap}, the most at leverage {position.leverage}",
        )
    return extras


def _expected_price(market: Market, side: Side) -> int:
    """Return the price at which a market order is judged: the mark or the best opposite, the worse one."""
    if side is BUY:
        return max(market.mark_ticks, market.book.best_ask_ticks)
    best = market.book.best_bid_ticks
    return min(market.mark_ticks, best) if best else market.mark_ticks


def _check_fillable(turn: Turn, command: PlaceOrder, market: Market, limit_ticks: int) -> None:
    """Refuse a fill-or-kill order that the book cannot fill whole within its limit."""
    wanted = command.quantity_lots
    for level in market.book.half(command.side.opposite).best_first():
        price_ticks = abs(level.key)
        if command.side * (limit_ticks - price_ticks) < 0:
            break
        for maker in level:
            if maker.account_id != command.account_id:
                wanted -= _lots_to_give(turn, maker)
                if wanted <= 0:
                    return
    raise Refused(RejectCode.WOULD_NOT_FILL, f"timeInForce: FOK, and {wanted} lots would stay unfilled")


def _lots_to_give(turn: Turn, maker: Order) -> int:
    if not maker.reduce_only:
        return maker.open_lots
    position = turn.state.accounts[maker.account_id].positions[maker.market]
    return min(maker.open_lots, position.reducible_lots(maker.side))
