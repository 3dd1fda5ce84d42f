"""Orders: placed, matched, cancelled.

An accepted order that may rest joins the book and its owner's exposure at once; one that never rests
(immediate-or-cancel, fill-or-kill, market) is matched without either. Then it meets the other side, best
price first and oldest first, until it is filled, finds no price within its limit, or may not go on.

A market order is an immediate-or-cancel order whose limit is the market's bound around the mark.
"""

from collections.abc import Iterator

import msgspec

from events.commands import CancelAllOrders, CancelOrder, PlaceOrder
from events.events import OrderAccepted, OrderAmended, OrderCancelled, OrderExpired, TradeExecuted
from events.values import (
    BUY,
    FOK,
    GTD,
    GTX,
    IOC,
    LIMIT,
    MARKET,
    NO_MATCH,
    TRADING,
    USER,
    CloseReason,
    RejectCode,
    SelfTrade,
    Side,
)
from exchange.aggregate.account import BOTH, Account, Position
from exchange.aggregate.admission import (
    admit,
    check_count,
    check_filters,
    check_form,
    check_leg,
    check_margin_asked,
    check_market_is_open,
    check_reducible,
    mode_wanted,
    only_reduces,
    refuse_if_halted,
)
from exchange.aggregate.fills import Fill, plan_fill
from exchange.aggregate.market import Market
from exchange.aggregate.modes import plan_margin_mode
from exchange.aggregate.order import Order, extras_of
from exchange.aggregate.price_match import priced
from exchange.aggregate.scratch import copy_account, fill_copy, set_copy_mode
from exchange.aggregate.turn import EVENTS_PER_COMMAND_AIM, Refused, Turn
from exchange.aggregate.units import RATE_ONE, decimal_text, floor_div

# How many resting orders one order may meet at most, so that no entry can grow beyond what can be appended.
MEETINGS_PER_ORDER_MAX = 1000


def place_order(turn: Turn, command: PlaceOrder, order_id: int = 0, *, closes: bool = False) -> None:
    """Accept an order and match it, or refuse it.

    Its number is the command's unless `order_id` is given. One that `closes` a whole position is as large as
    that is, whatever the lot size filters say. One that may only reduce is cut to what the position is.
    """
    account = turn.customer(command.account_id)
    market = turn.markets.get(command.market) or turn.market(command.market)
    leg = command.leg
    if account.hedge is (leg is BOTH):
        check_leg(account, leg)
    position = account.positions.get(market.symbol) if leg is BOTH else None
    if position is None:
        position = account.position(market, leg)
    if command.price_match is not NO_MATCH:
        command = priced(market, command)
    mode = None
    if command.margin_mode is not None:
        mode = mode_wanted(account, position, command)
        if mode is not None:
            # Nothing is open there: the order is judged on a record that has the mode already.
            position = Position(market, leg, mode, position.leverage)
    price_ticks, side, tif = command.price_ticks, command.side, command.time_in_force
    is_market = command.order_type is MARKET
    reduces = command.reduce_only or (leg is not BOTH and only_reduces(command))
    extras = _admit_order(account, position, command, turn.state.now_ns, reduces=reduces, closes=closes)
    lots = command.quantity_lots
    if reduces:
        lots = min(lots, position.reducible_lots(side))
    limit_ticks = price_ticks or market_order_bound(market, side)
    if tif is GTX and crosses(market, side, limit_ticks):
        raise Refused(RejectCode.WOULD_TAKE, "timeInForce: GTX would trade at once")
    terms = OrderAccepted(
        order_id=order_id or turn.order_id,
        account_id=command.account_id,
        market=command.market,
        side=side,
        order_type=command.order_type,
        quantity_lots=lots,
        price_ticks=limit_ticks,
        time_in_force=IOC if is_market and tif is not FOK else tif,
        reduce_only=reduces,
        client_order_id=command.client_order_id,
        extras=extras,
        leg=leg,
        self_trade=command.self_trade,
        expires_ns=command.expires_ns,
        margin=command.margin,
    )
    if command.price_match is not NO_MATCH:
        # Not above: a message made of more than 15 named fields takes twice as long as one of 15.
        terms = msgspec.structs.replace(terms, price_match=command.price_match)
    if tif is FOK:
        _check_fillable(turn, account, Order(terms, position))
    if mode is not None:
        turn.emit(plan_margin_mode(account, market, mode))
    turn.emit(terms)
    order = account.orders[terms.order_id]
    best = (market.book.asks if side is BUY else market.book.bids).best
    if not order.rests or (best is not None and best.key >= -order.key):
        match(turn, market, order)


def _admit_order(
    account: Account, position: Position, command: PlaceOrder, now_ns: int, *, reduces: bool, closes: bool
) -> int:
    """Refuse what the contract or the account does not allow; return the extras to reserve.

    What nearly always holds is asked here, before the function that would say what is wrong is called.
    """
    market = position.market
    lots, price_ticks, side = command.quantity_lots, command.price_ticks, command.side
    is_market = command.order_type is MARKET
    if is_market or command.time_in_force is GTD or command.expires_ns or command.order_type is not LIMIT:
        check_form(command, now_ns)
    if not closes:
        check_filters(market, side, lots, price_ticks, is_market=is_market, reduces=reduces)
    elif lots == 0:
        raise Refused(RejectCode.REDUCE_ONLY, "closePosition: there is no position to close")
    else:
        check_market_is_open(market)
    if reduces:
        check_reducible(position, side)
    client_order_id = command.client_order_id
    if client_order_id and client_order_id in account.client_ids:
        raise Refused(
            RejectCode.DUPLICATE_CLIENT_ORDER_ID,
            f"newClientOrderId: {client_order_id!r} is an open order's",
        )
    if account.hedge or position.order_count >= market.spec.max_open_orders:
        check_count(account, position)
    if command.margin:
        check_margin_asked(position, command, reduces=reduces)
    return 0 if reduces else admit(account, position, side, lots, price_ticks, now_ns, command.margin)


def cancel_order(turn: Turn, command: CancelOrder) -> None:
    """Cancel one open order of the account, or refuse."""
    account = turn.customer(command.account_id)
    market = turn.markets.get(command.market) or turn.market(command.market)
    order = find_order(account, market, command.order_id, command.client_order_id)
    if market.status is not TRADING:
        refuse_if_halted(market)
    cancel(turn, order, USER)


def cancel_all_orders(turn: Turn, command: CancelAllOrders) -> None:
    """Cancel every open order of the account in a market; none open is no error."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    refuse_if_halted(market)
    cancel_all(turn, account, market, USER)


def cancel_all(turn: Turn, account: Account, market: Market, reason: CloseReason) -> None:
    """Take every open order of an account in a market away."""
    for order in [order for order in account.orders.values() if order.terms.market == market.symbol]:
        cancel(turn, order, reason)


def find_order(account: Account, market: Market, order_id: int, client_order_id: str) -> Order:
    """Return an open order of the account by its id, or by the client's when that is 0, or refuse."""
    order = account.orders.get(order_id or account.client_ids.get(client_order_id, 0))
    if order is None or order.terms.market != market.symbol:
        asked = order_id or client_order_id
        raise Refused(RejectCode.UNKNOWN_ORDER, f"orderId: no open order {asked!r} in {market.symbol}")
    return order


def cancel(turn: Turn, order: Order, reason: CloseReason) -> None:
    """Take an open order away."""
    turn.emit(
        OrderCancelled(
            order_id=order.order_id,
            account_id=order.account_id,
            market=order.terms.market,
            open_lots=order.open_lots,
            reason=reason,
        )
    )


def expire(turn: Turn, order: Order, reason: CloseReason) -> None:
    """End an order under its own conditions."""
    turn.emit(
        OrderExpired(
            order_id=order.order_id,
            account_id=order.account_id,
            market=order.terms.market,
            open_lots=order.open_lots,
            reason=reason,
        )
    )


def market_order_bound(market: Market, side: Side) -> int:
    """Return the worst price a market order may trade at: the mark ± the market's bound, at least 1."""
    width = floor_div(market.mark_ticks * market.spec.take_bound, RATE_ONE)
    return max(1, market.mark_ticks + side * width)


def crosses(market: Market, side: Side, limit_ticks: int) -> bool:
    """Whether a limit would trade at once."""
    if side is BUY:
        return 0 < market.book.best_ask_ticks <= limit_ticks
    return market.book.best_bid_ticks >= limit_ticks


def match(turn: Turn, market: Market, taker: Order) -> CloseReason | None:
    """Trade an accepted order against the book, then let its rest rest or expire.

    Returns why the rest expired, None when it rests or nothing is left. Reduce-only orders follow their
    positions once, when all trades are done.
    """
    shrunk: dict[tuple[int, int], Position] = {}
    stop = _meet_all(turn, market, taker, shrunk)
    if stop is None and taker.open_lots and not taker.rests:
        stop = CloseReason.MARKET_REST if taker.terms.order_type is MARKET else CloseReason.IOC_REST
    if stop is not None:
        expire(turn, taker, stop)
    for position in shrunk.values():
        trim_reducers(turn, position)
    return stop


def _meet_all(
    turn: Turn, market: Market, taker: Order, shrunk: dict[tuple[int, int], Position]
) -> CloseReason | None:
    """Let an order trade for as long as it may; return why it has to end, None when it need not.

    Notes in `shrunk` the positions whose resting reduce-only orders may be too large now.
    """
    other = market.book.asks if taker.side is BUY else market.book.bids
    worst_key = -taker.key
    meetings = events = 0
    while taker.open_lots:
        best = other.best
        if best is None or best.key < worst_key:
            return None
        if meetings == MEETINGS_PER_ORDER_MAX or events >= EVENTS_PER_COMMAND_AIM:
            return CloseReason.EVENT_LIMIT
        meetings += 1
        events += 1
        maker = best.first
        assert isinstance(maker, Order), maker
        if maker.account_id == taker.account_id and taker.terms.self_trade is not SelfTrade.NONE:
            if taker.terms.self_trade is not SelfTrade.EXPIRE_TAKER:
                expire(turn, maker, CloseReason.SELF_TRADE)
            if taker.terms.self_trade is not SelfTrade.EXPIRE_MAKER:
                return CloseReason.SELF_TRADE
            continue
        stop = _trade(turn, market, taker, maker)
        if stop is not None:
            return stop
        for order in (maker, taker):
            position = order.position
            if position.reducers and (order.account_id, position.leg) not in shrunk:
                shrunk[order.account_id, position.leg] = position
                events += len(position.reducers)
    return None


def _trade(turn: Turn, market: Market, taker: Order, maker: Order) -> CloseReason | None:
    """Let two orders trade once; return why the taker cannot go on, None if it can.

    A maker that may not trade expires, and the taker goes on with the next.
    """
    lots = taker.open_lots if taker.open_lots < maker.open_lots else maker.open_lots
    if taker.reduce_only:
        lots = min(lots, taker.position.reducible_lots(taker.side))
        if lots == 0:
            return CloseReason.REDUCE_ONLY
    if maker.reduce_only:
        lots = min(lots, maker.position.reducible_lots(maker.side))
        if lots == 0:
            expire(turn, maker, CloseReason.REDUCE_ONLY)
            return None
    giver = turn.state.accounts[maker.account_id]
    receiver = turn.state.accounts[taker.account_id]
    given, taken = _plan_trade(giver, maker.position, maker, receiver, taker.position, taker, lots)
    if given is None:
        expire(turn, maker, CloseReason.MARGIN)
        return None
    if taken is None:
        return CloseReason.MARGIN
    turn.emit(
        TradeExecuted(
            trade_id=market.last_trade_id + 1,
            market=market.symbol,
            price_ticks=maker.price_ticks,
            quantity_lots=lots,
            taker_side=taker.side,
            maker_order_id=maker.order_id,
            taker_order_id=taker.order_id,
            maker_account_id=maker.account_id,
            taker_account_id=taker.account_id,
            maker_fee=given.fee,
            taker_fee=taken.fee,
            maker_realised=given.realised,
            taker_realised=taken.realised,
            maker_margin_moved=given.margin_moved,
            taker_margin_moved=taken.margin_moved,
            liquidation_id=taker.terms.liquidation_id,
        )
    )
    return None


def _plan_trade(
    giver: Account,
    giving: Position,
    maker: Order,
    receiver: Account,
    taking: Position,
    taker: Order,
    lots: int,
) -> tuple[Fill | None, Fill | None]:
    """Work out both sides of a trade; None where a side may not take it (a taker without maker is not asked).

    A rebate is paid only out of the taker fee of the same trade. An account that trades with itself has its
    taker's side worked out after its maker's, and without the rebate, which that side decides.
    """
    market, price_ticks = giving.market, maker.price_ticks
    maker_fee, taker_fee = market.spec.maker_fee, market.spec.taker_fee
    given = plan_fill(giver, giving, maker, lots, price_ticks, maker_fee)
    if given is not None and giver is receiver:
        bare = given if given.fee >= 0 else plan_fill(giver, giving, maker, lots, price_ticks, maker_fee, 0)
        if bare is None:
            return None, None
        receiver = copy_account(giver)
        fill_copy(receiver, receiver.position(market, giving.leg), maker, lots, price_ticks, bare)
        taking = receiver.position(market, taking.leg)
    if given is None:
        return None, None
    taken = plan_fill(receiver, taking, taker, lots, price_ticks, taker_fee)
    if taken is not None and -given.fee > taken.fee:
        given = plan_fill(giver, giving, maker, lots, price_ticks, maker_fee, taken.fee)
    return given, taken


def trim_reducers(turn: Turn, position: Position) -> None:
    """Let resting reduce-only orders shrink to what the position still is, or expire with it."""
    # By number: an amended order moves to the end of the dictionary, whose order is not part of the digest.
    for order_id in sorted(position.reducers):
        order = position.reducers[order_id]
        reducible = position.reducible_lots(order.side)
        if order.open_lots <= reducible:
            continue
        if reducible == 0:
            expire(turn, order, CloseReason.REDUCE_ONLY)
            continue
        turn.emit(
            OrderAmended(
                order_id=order.order_id,
                account_id=order.account_id,
                market=order.terms.market,
                price_ticks=order.price_ticks,
                quantity_lots=order.quantity_lots - order.open_lots + reducible,
                open_lots=reducible,
                extras=extras_of(order, reducible),
                keeps_place=True,
                reason=CloseReason.REDUCE_ONLY,
                price_match=order.price_match,
            )
        )


def _check_fillable(turn: Turn, account: Account, taker: Order) -> None:
    """Refuse a fill-or-kill order unless a rehearsal on copies fills it whole."""
    market, leg = taker.position.market, taker.terms.leg
    own = copy_account(account)
    mine = own.stored_position(market, leg)
    if mine.mode is not taker.position.mode:
        set_copy_mode(mine, taker.position.mode)
    copies = {account.account_id: own}
    wanted = taker.open_lots
    meetings = events = 0
    shrunk = {(account.account_id, leg): mine}
    for maker in _makers_within(market, taker):
        if meetings == MEETINGS_PER_ORDER_MAX or events >= EVENTS_PER_COMMAND_AIM:
            break
        meetings += 1
        events += 1
        if (maker.account_id, maker.position.leg) not in shrunk:
            shrunk[maker.account_id, maker.position.leg] = maker.position
            events += len(maker.position.reducers)
        giver = copies.get(maker.account_id)
        if giver is None:
            giver = copies[maker.account_id] = copy_account(turn.state.accounts[maker.account_id])
        if giver is own and taker.terms.self_trade is not SelfTrade.NONE:
            if taker.terms.self_trade is not SelfTrade.EXPIRE_MAKER:
                raise Refused(RejectCode.WOULD_NOT_FILL, "timeInForce: FOK, and it would meet itself")
            own.position(market, maker.terms.leg).shrink_order(maker, maker.open_lots)
            continue
        wanted -= _rehearse(giver, maker, own, mine, taker, wanted)
        if wanted == 0:
            return
    unfilled = decimal_text(wanted * market.spec.lot_size)
    raise Refused(RejectCode.WOULD_NOT_FILL, f"timeInForce: FOK, and {unfilled} would stay unfilled")


def _makers_within(market: Market, taker: Order) -> Iterator[Order]:
    """Yield the resting orders that an order meets within its limit, best price and oldest first."""
    for level in market.book.half(taker.side.opposite).best_first():
        if -level.key > taker.key:
            return
        for maker in level:
            assert isinstance(maker, Order), maker
            yield maker


def _rehearse(giver: Account, maker: Order, own: Account, mine: Position, taker: Order, wanted: int) -> int:
    """Let copies trade up to `wanted` lots; return how many did, 0 for a maker that would expire."""
    price_ticks = maker.price_ticks
    giving = giver.position(mine.market, maker.terms.leg)
    lots = min(wanted, maker.open_lots)
    if maker.reduce_only:
        lots = min(lots, giving.reducible_lots(maker.side))
    if lots == 0:
        return 0
    given, taken = _plan_trade(giver, giving, maker, own, mine, taker, lots)
    if given is None:
        giving.shrink_order(maker, maker.open_lots)
        return 0
    if taken is None:
        raise Refused(RejectCode.INSUFFICIENT_MARGIN, "timeInForce: FOK, and the margin would not do")
    fill_copy(giver, giving, maker, lots, price_ticks, given)
    fill_copy(own, mine, taker, lots, price_ticks, taken)
    return lots
