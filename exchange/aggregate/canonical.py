"""The state as a tree of lists in a fixed order: what the digest hashes, and a snapshot holds.

Everything that can influence a later decision is in it, queues in their order of priority included.
Dictionaries are listed by sorted key, so that the way a state was reached leaves no trace. `image` reads the
tree back: what is listed here is read there, in the same order.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from events.events import ConditionalAccepted
from events.values import Side
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position
from exchange.aggregate.book import Half
from exchange.aggregate.market import Market
from exchange.aggregate.order import Order
from exchange.aggregate.origins import Origin
from exchange.aggregate.ranking import Ranking

if TYPE_CHECKING:
    from exchange.aggregate.state import Exchange

DIGEST_BYTES = 32

Tree = list[object]


def canonical_venue(state: Exchange) -> Tree:
    """List the venue: counters, totals, markets with their books, accounts with all they hold."""
    return [
        *canonical_counters(state),
        list(state.due.items()),
        list(state.overdue),
        sorted(state.blocked),
        sorted(state.failing.items()),
        state.halt,
        state.money_gap,
        sorted(state.lots_gaps.items()),
        state.accepted_money_gap,
        sorted(state.accepted_lots_gaps.items()),
        [_market(state.markets[symbol]) for symbol in sorted(state.markets)],
        [_account(state.accounts[account_id], state.markets) for account_id in sorted(state.accounts)],
    ]


def canonical_counters(state: Exchange) -> Tree:
    """List the name of the log, its rules, and how much there was of everything."""
    return [
        state.log_id,
        state.rules_version,
        state.next_account_id,
        state.trade_count,
        state.liquidation_count,
        state.aggregate_order_count,
        state.deposited,
        state.withdrawn,
    ]


def canonical_position(state: Exchange) -> Tree:
    """List the place in the log: sequence number, clock, origins."""
    return [state.seq, state.now_ns, canonical_origins(state.origins)]


def canonical_trial(state: Exchange, account_id: int) -> Tree:
    """List a venue that has only one customer of this one, his orders, and the exchange's own accounts.

    Nothing is due there, and nobody is ranked: both would name who is not there.
    """
    account = state.accounts[account_id]
    own = [state.accounts[n] for n in range(FIRST_USER_ACCOUNT_ID)]
    return [
        *canonical_counters(state),
        [],
        [],
        sorted(state.blocked),
        sorted(state.failing.items()),
        state.halt,
        state.money_gap,
        sorted(state.lots_gaps.items()),
        state.accepted_money_gap,
        sorted(state.accepted_lots_gaps.items()),
        [_quiet_market(state.markets[symbol], account) for symbol in sorted(state.markets)],
        [_account(each, state.markets) for each in (*own, account)],
    ]


def encode_venue(state: Exchange) -> bytes:
    """Encode the venue's tree."""
    return msgspec.msgpack.encode(canonical_venue(state))


def encode_position(state: Exchange) -> bytes:
    """Encode the tree of the place in the log."""
    return msgspec.msgpack.encode(canonical_position(state))


def venue_digest_of(encoded: bytes) -> bytes:
    """Hash an encoded venue."""
    return blake2b(b"foldex venue\x00" + encoded, digest_size=DIGEST_BYTES).digest()


def position_digest_of(encoded: bytes) -> bytes:
    """Hash an encoded place in the log."""
    return blake2b(b"foldex position\x00" + encoded, digest_size=DIGEST_BYTES).digest()


def digest_of(venue_digest: bytes, position_digest: bytes) -> bytes:
    """Hash both parts of a state."""
    return blake2b(venue_digest + position_digest, digest_size=DIGEST_BYTES).digest()


def canonical_origins(origins: dict[str, Origin]) -> Tree:
    """List the origins with the frames of them that ran."""
    return [
        [name, origin.incarnation, list(origin.ran.items()), list(origin.closed)]
        for name, origin in sorted(origins.items())
    ]


def _market(market: Market) -> Tree:
    return [
        *_terms_and_prices(market),
        [_ranking(side, market.rankings[side]) for side in sorted(market.rankings)],
        _half(market.book.bids),
        _half(market.book.asks),
    ]


def _quiet_market(market: Market, account: Account) -> Tree:
    """List a market in whose book only one account's orders stand."""
    orders = [order for order in account.orders.values() if order.terms.market == market.symbol]
    orders.sort(key=lambda order: -order.key)
    halves: Tree = [
        [[order.key, order.open_lots, [order.order_id]] for order in orders if order.side is side]
        for side in (Side.BUY, Side.SELL)
    ]
    return [*_terms_and_prices(market), [], *halves]


def _terms_and_prices(market: Market) -> Tree:
    return [
        market.spec,
        market.status,
        market.index_ticks,
        market.mark_ticks,
        market.last_ticks,
        market.last_trade_id,
        market.basis_average,
        market.index_ns,
        market.index_wait,
        market.funding_rate,
        market.next_funding_ns,
        market.premium_sum,
        market.premium_count,
        market.open_interest_lots,
    ]


def _ranking(side: Side, ranking: Ranking) -> Tree:
    return [side, ranking.rows, ranking.known(), sorted(ranking.joined)]


def _half(half: Half) -> Tree:
    return [[level.key, level.lots, [order.order_id for order in level]] for level in half.best_first()]


def _order(order: Order) -> Tree:
    return [
        order.terms,
        order.price_ticks,
        order.quantity_lots,
        order.open_lots,
        order.extras,
        order.extras_lots,
        order.amendments,
        order.price_match,
    ]


def _account(account: Account, markets: dict[str, Market]) -> Tree:
    return [
        account.account_id,
        account.label,
        account.hedge,
        account.failures,
        account.wallet,
        [account.api_keys[key] for key in sorted(account.api_keys)],
        [_order(order) for order in account.orders.values()],
        [_conditional(terms, markets[terms.market]) for terms in account.conditionals.values()],
        sorted(account.countdowns.items()),
        [_position(account.positions[key]) for key in sorted(account.positions)],
    ]


def _conditional(terms: ConditionalAccepted, market: Market) -> Tree:
    triggers = market.triggers(terms.working_price)
    waits = terms.conditional_id in triggers.terms
    return [terms, triggers.best_ticks(terms.conditional_id) if waits else 0]


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
        position.conditional_count,
        position.break_even_cost,
    ]
