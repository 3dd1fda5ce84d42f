"""What a fill does to one of its two sides, and whether that side may take it.

Marks move after an order was accepted, so both sides are checked again at each fill: the opening part of a
taker needs initial margin, a maker that opens must be above maintenance afterwards, and no reducing fill
may leave the bucket's equity below zero. So nobody can push a loss onto the insurance fund by trading with
himself far from the mark.

A fill changes equity by signed lots × (mark − price) and by the fee, whatever part of it opens or closes.
A maker's rebate is paid only out of the taker fee of the same trade.
"""

from events.values import ISOLATED, LIQUIDATION
from exchange.aggregate.account import Account, Position
from exchange.aggregate.margin import Survey, requirement_of, standing, survey
from exchange.aggregate.order import Order, extras_of, margin_of
from exchange.aggregate.units import AMOUNT_MAX, ceil_div, charge, floor_div


class Fill:
    """One side's consequences of a trade: realised profit, fee, and what moves to the bucket."""

    __slots__ = ("fee", "margin_moved", "realised")

    def __init__(self, realised: int, fee: int, margin_moved: int) -> None:
        self.realised = realised
        self.fee = fee
        self.margin_moved = margin_moved


def realise(size_lots: int, entry_cost: int, signed_lots: int, cost: int) -> int:
    """Return the profit that trading `signed_lots` for `cost` realises on a position, in money units.

    Only the part that closes realises. It takes ceil(entry cost × closed / size) of the cost with it, the
    rest stays; of a flip, the closing part bears its share of `cost`.
    """
    if size_lots * signed_lots >= 0:
        return 0
    closed = min(abs(size_lots), abs(signed_lots))
    closed_cost = ceil_div(entry_cost * closed, abs(size_lots))
    return -ceil_div(cost * closed, abs(signed_lots)) - closed_cost


def may_reduce(equity: int, maintenance: int, equity_after: int, maintenance_after: int) -> bool:
    """Whether a fill that only reduces may happen: it must not bring its bucket nearer to the fund.

    Equity may not fall below zero. What stays open must be above maintenance, or its margin ratio no worse
    than before; otherwise an owner could sell his own position cheaply to himself down to no equity at all,
    and leave the rest to the fund.
    """
    if equity_after < 0:
        return False
    if maintenance_after == 0 or equity_after > maintenance_after:
        return True
    return equity_after * maintenance >= equity * maintenance_after


def plan_fill(
    account: Account,
    position: Position,
    order: Order,
    lots: int,
    price_ticks: int,
    fee_rate: int,
    rebate_max: int = AMOUNT_MAX,
) -> Fill | None:
    """Work out a fill of `order` for `account`, None when the account may not take it.

    An order that can rest holds the reserve it was accepted with, so that it needs to stand above
    maintenance only; one that never rests holds none, and needs initial margin here. A negative fee is a
    rebate, at most `rebate_max`.
    """
    if order.terms.order_type is LIQUIDATION:
        signed_lots = order.side * lots
        cost = signed_lots * price_ticks * position.market.unit
        return Fill(realise(position.size_lots, position.entry_cost, signed_lots, cost), 0, 0)
    if position.mode is ISOLATED:
        return _plan_isolated(account, position, order, lots, price_ticks, fee_rate, rebate_max)
    return _plan_cross(account, position, order, lots, price_ticks, fee_rate, rebate_max)


def _plan_cross(
    account: Account,
    position: Position,
    order: Order,
    lots: int,
    price_ticks: int,
    fee_rate: int,
    rebate_max: int,
) -> Fill | None:
    market = position.market
    unit, mark_ticks = market.unit, market.mark_ticks
    signed_lots = order.side * lots
    cost = signed_lots * price_ticks * unit
    size = position.size_lots
    closes = size * signed_lots < 0
    realised = realise(size, position.entry_cost, signed_lots, cost) if closes else 0
    fee = charge(abs(cost), fee_rate)
    if fee < -rebate_max:
        fee = -rebate_max
    pool = survey(account)
    equity = pool.wallet + pool.unrealised + signed_lots * mark_ticks * unit - cost
    value = abs(size + signed_lots) * mark_ticks * unit
    maintenance = pool.maintenance - standing(position).maintenance
    if value:
        maintenance += market.brackets.maintenance(value)
    if closes and lots <= abs(size):
        if not may_reduce(pool.equity, pool.maintenance, equity, maintenance):
            return None
        return Fill(realised, min(fee, equity), 0)
    equity -= fee
    if equity <= maintenance:
        return None
    if not order.rests and equity < _required_after(pool, position, signed_lots):
        return None
    return Fill(realised, fee, 0)


def _required_after(pool: Survey, position: Position, signed_lots: int) -> int:
    """Return what the pool must hold once a taker that never rests has traded."""
    after = requirement_of(
        position,
        position.size_lots + signed_lots,
        position.leverage,
        position.bid_value,
        position.ask_value,
        position.extras,
    )
    return pool.required + pool.reserved - standing(position).required + after


def _plan_isolated(
    account: Account,
    position: Position,
    order: Order,
    lots: int,
    price_ticks: int,
    fee_rate: int,
    rebate_max: int,
) -> Fill | None:
    market = position.market
    unit, mark_ticks = market.unit, market.mark_ticks
    size = position.size_lots
    signed_lots = order.side * lots
    cost = signed_lots * price_ticks * unit
    realised = realise(size, position.entry_cost, signed_lots, cost)
    closed = min(lots, abs(size)) if size * signed_lots < 0 else 0
    opened = lots - closed

    released = 0
    closing_fee = 0
    before = equity = position.bucket + size * mark_ticks * unit - position.entry_cost
    if closed:
        equity += order.side * closed * (mark_ticks - price_ticks) * unit
        left_value = (abs(size) - closed) * mark_ticks * unit
        left = market.brackets.maintenance(left_value) if left_value else 0
        if not may_reduce(before, standing(position).maintenance, equity, left):
            return None
        closing_fee = min(max(charge(closed * price_ticks * unit, fee_rate), -rebate_max), equity)
        share = floor_div(position.bucket * closed, abs(size))
        # A bucket that funding brought below zero keeps what it gains, up to nothing.
        released = max(0, min(share + realised, equity) - closing_fee)
    if not opened:
        return Fill(realised, closing_fee, -released)

    rebate_left = rebate_max + min(0, closing_fee)
    opening_fee = max(charge(opened * price_ticks * unit, fee_rate), -rebate_left)
    open_loss = max(0, order.side * opened * (price_ticks - mark_ticks) * unit)
    margin = ceil_div(opened * mark_ticks * unit, position.leverage)
    if order.terms.margin:
        margin = max(margin, margin_of(order, opened))
    moved = margin + open_loss + opening_fee
    equity += order.side * opened * (mark_ticks - price_ticks) * unit
    equity += moved - released - closing_fee - opening_fee
    if equity <= market.brackets.maintenance(abs(size + signed_lots) * mark_ticks * unit):
        return None
    if _transferable_after(account, position, order, lots) < moved - released:
        return None
    return Fill(realised, closing_fee + opening_fee, moved - released)


def _transferable_after(account: Account, position: Position, order: Order, lots: int) -> int:
    """Return what may leave the pool once the reserve of these lots is free again."""
    pool = survey(account)
    bid_value, ask_value, extras = position.bid_value, position.ask_value, position.extras
    if order.rests:
        value = 0 if order.reduce_only else lots * order.price_ticks
        if order.side > 0:
            bid_value -= value
        else:
            ask_value -= value
        if order.extras:
            extras -= extras_of(order, order.open_lots) - extras_of(order, order.open_lots - lots)
    after = requirement_of(
        position, position.size_lots + order.side * lots, position.leverage, bid_value, ask_value, extras
    )
    return pool.transferable + standing(position).required - after
