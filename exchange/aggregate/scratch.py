"""What would be: an account that can be changed without changing the state.

Needed where one command's fills depend on each other before any of them may become an event: a fill-or-kill
order, which trades whole or not at all, and an account that trades with itself. And where an account is to
be judged as it will stand: with another margin mode.
"""

from events.values import MarginMode
from exchange.aggregate.account import Account, Position
from exchange.aggregate.fills import Fill
from exchange.aggregate.order import Order
from exchange.aggregate.posting import move_margin, post


def copy_account(account: Account) -> Account:
    """Return a copy of an account's wallet and positions; orders are shared and must not be changed."""
    copy = Account(account.account_id, account.label)
    copy.hedge = account.hedge
    copy.wallet = account.wallet
    copy.orders = account.orders
    copy.positions = {key: _copy_position(position) for key, position in account.positions.items()}
    return copy


def fill_copy(
    account: Account, position: Position, order: Order, lots: int, price_ticks: int, fill: Fill
) -> None:
    """Let a copied account and its position take a fill, as the trade's event would."""
    if order.level is not None:
        position.shrink_order(order, lots)
    signed_lots = order.side * lots
    cost = signed_lots * price_ticks * position.market.unit
    post(account, position, signed_lots, cost, fill.realised, fill.fee)
    if fill.margin_moved:
        move_margin(account, position, fill.margin_moved)


def set_copy_mode(position: Position, mode: MarginMode) -> None:
    """Let a copied position have a margin mode, as the event that sets it would; its bucket stays."""
    position.mode = mode
    position.standing.mark_ticks = -1


def _copy_position(position: Position) -> Position:
    copy = Position(position.market, position.leg, position.mode, position.leverage)
    copy.size_lots = position.size_lots
    copy.entry_cost = position.entry_cost
    copy.break_even_cost = position.break_even_cost
    copy.bucket = position.bucket
    copy.bid_lots = position.bid_lots
    copy.ask_lots = position.ask_lots
    copy.bid_value = position.bid_value
    copy.ask_value = position.ask_value
    copy.extras = position.extras
    copy.order_count = position.order_count
    copy.conditional_count = position.conditional_count
    copy.reducers = dict(position.reducers)
    return copy
