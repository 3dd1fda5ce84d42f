"""Amending an open limit order: another price, another size, the same number.

Filters and margin are asked as of a new order with the old one gone; a refusal leaves the old one as it was.
"""

from events.commands import AmendOrder
from events.events import OrderAmended
from events.values import BUY, GTX, ISOLATED, NO_MATCH, USER, CloseReason, RejectCode
from exchange.aggregate.account import Account
from exchange.aggregate.admission import (
    check_caps,
    check_exposure,
    check_filters,
    check_index,
    check_margin,
    check_may_leave,
    check_open_interest,
)
from exchange.aggregate.margin import exposure_margin, exposure_with, order_extras, position_value, standing
from exchange.aggregate.matching import cancel, crosses, find_order, match
from exchange.aggregate.order import Order, extras_of, margin_of
from exchange.aggregate.price_match import check_brings_no_price, matched_ticks
from exchange.aggregate.turn import Refused, Turn

AMENDMENTS_MAX = 10_000


def amend_order(turn: Turn, command: AmendOrder) -> None:
    """Change an open order, or refuse.

    It is cancelled instead when the new size is no more than what is filled, or when it is post-only and
    the new price would trade at once. A new price that crosses makes it the taker. What stays open of a
    reduce-only order is cut to what the position is.
    """
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    order = find_order(account, market, command.order_id, command.client_order_id)
    price_ticks = command.price_ticks
    if command.price_match is not NO_MATCH:
        check_brings_no_price(price_ticks)
        price_ticks = matched_ticks(market, order.side, command.price_match)
    filled = order.quantity_lots - order.open_lots
    open_lots = command.quantity_lots - filled
    if order.reduce_only:
        open_lots = min(open_lots, order.position.reducible_lots(order.side))
    _check_change(command, order, price_ticks, filled + open_lots)
    check_filters(
        market,
        order.side,
        command.quantity_lots,
        price_ticks,
        is_market=False,
        reduces=order.reduce_only or open_lots <= 0,
    )
    if open_lots <= 0:
        cancel(turn, order, CloseReason.AMENDED)
        return
    takes = crosses(market, order.side, price_ticks)
    extras = _admit_change(account, order, open_lots, price_ticks, turn.state.now_ns, takes=takes)
    if takes and order.terms.time_in_force is GTX:
        cancel(turn, order, CloseReason.AMENDED)
        return
    keeps_place = (
        price_ticks == order.price_ticks and open_lots < order.open_lots and not command.yields_priority
    )
    turn.emit(
        OrderAmended(
            order_id=order.order_id,
            account_id=account.account_id,
            market=market.symbol,
            price_ticks=price_ticks,
            quantity_lots=filled + open_lots,
            open_lots=open_lots,
            extras=extras,
            keeps_place=keeps_place,
            reason=USER,
            price_match=command.price_match,
        )
    )
    if takes:
        match(turn, market, order)


def _check_change(command: AmendOrder, order: Order, price_ticks: int, quantity_lots: int) -> None:
    if command.side is not order.side:
        raise Refused(RejectCode.BAD_AMENDMENT, f"side: the order is a {order.side.name}")
    if price_ticks == order.price_ticks and quantity_lots == order.quantity_lots:
        raise Refused(RejectCode.NOTHING_TO_AMEND, "price, quantity: both are the order's already")
    if order.amendments >= AMENDMENTS_MAX:
        raise Refused(RejectCode.TOO_MANY_AMENDMENTS, f"orderId: amended {AMENDMENTS_MAX} times already")


def _admit_change(
    account: Account, order: Order, open_lots: int, price_ticks: int, now_ns: int, *, takes: bool
) -> int:
    """Refuse what the account cannot hold in place of the order; return the extras to reserve.

    An order that `takes` at its new price needs all of its margin, as a new one would.
    """
    position, side = order.position, order.side
    if order.reduce_only:
        return 0
    others = position.open_lots(side) - order.open_lots
    if others + open_lots <= position.reducible_lots(side):
        return 0
    check_index(position.market, now_ns)
    if position.mode is ISOLATED:
        check_may_leave(account.cross_positions(), now_ns)
    if open_lots > order.open_lots:
        check_caps(position, side, open_lots - order.open_lots)
    if takes:
        check_open_interest(position.market, open_lots - position.reducible_lots(side))
    margin = margin_of(order, open_lots) if order.terms.margin else 0
    extras = order_extras(position, side, open_lots, price_ticks, margin)
    change = open_lots * price_ticks - order.open_lots * order.price_ticks
    bid_value, ask_value = position.bid_value, position.ask_value
    if side is BUY:
        bid_value += change
    else:
        ask_value += change
    worst = exposure_with(position, bid_value, ask_value)
    value = position_value(position)
    known = standing(position)
    freed = extras_of(order, order.open_lots) if order.extras else 0
    needed = exposure_margin(position, value, worst, position.leverage) + position.extras - freed + extras
    check_margin(account, position, needed - known.required, takes=takes)
    check_exposure(position, worst)
    return extras
