"""The state as a tree of lists in a fixed order: what the digest hashes.

Everything that can influence a later decision is in it, queues in their order of priority included.
Dictionaries are listed by sorted key, so that the way a state was reached leaves no trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.aggregate.account import Account, Position
from exchange.aggregate.book import Half, Order
from exchange.aggregate.market import Market
from exchange.aggregate.origins import Origin

if TYPE_CHECKING:
    from exchange.aggregate.state import Exchange

Tree = list[object]


def canonical_venue(state: Exchange) -> Tree:
    """List the venue: counters, totals, markets with their books, accounts with all they hold."""
    return [
        state.log_id,
        state.rules_version,
        state.next_account_id,
        state.trade_count,
        state.liquidation_count,
        state.aggregate_order_count,
        state.deposited,
        state.withdrawn,
        [_market(state.markets[symbol]) for symbol in sorted(state.markets)],
        [_account(state.accounts[account_id]) for account_id in sorted(state.accounts)],
    ]


def canonical_origins(origins: dict[str, Origin]) -> Tree:
    """List the origins with the frames of them that ran."""
    return [
        [name, origin.incarnation, list(origin.ran.items()), list(origin.closed)]
        for name, origin in sorted(origins.items())
    ]


def _market(market: Market) -> Tree:
    return [
        market.spec,
        market.status,
        market.index_ticks,
        market.mark_ticks,
        market.last_ticks,
        market.basis_average,
        _half(market.book.bids),
        _half(market.book.asks),
    ]


def _half(half: Half) -> Tree:
    return [[level.key, level.lots, [_order(order) for order in level]] for level in half.best_first()]


def _order(order: Order) -> Tree:
    return [
        order.order_id,
        order.account_id,
        order.side,
        order.order_type,
        order.time_in_force,
        order.price_ticks,
        order.quantity_lots,
        order.open_lots,
        order.reduce_only,
        order.client_order_id,
        order.extras,
        order.liquidation_id,
    ]


def _account(account: Account) -> Tree:
    return [
        account.account_id,
        account.label,
        account.wallet,
        sorted(account.api_keys.items()),
        list(account.orders),
        [_position(account.positions[symbol]) for symbol in sorted(account.positions)],
    ]


def _position(position: Position) -> Tree:
    return [
        position.market.symbol,
        position.leg,
        position.mode,
        position.leverage,
        position.size_lots,
        position.entry_cost,
        position.bucket,
        position.bid_lots,
        position.ask_lots,
        position.bid_value,
        position.ask_value,
        position.extras,
        position.order_count,
    ]
