"""A state as bytes, and back: what a snapshot holds.

The image is the tree that the digest hashes (`canonical`), so that one list says what the state is: what is
missing there is missing here, and a state restored from its image has the same digest or is not used. What
follows from the rest is built again rather than read: books, sums over open orders, holders of positions,
look-ups by a client's id, the timers' heap. The tree lists such sums too, so that the digest of a restored
state checks them.

A row below is what the function of the same subject in `canonical` lists, field by field.
"""

from heapq import heapify
from typing import Final

import msgspec

from events.events import ApiKeyAdded, ConditionalAccepted, ExchangeHalted, OrderAccepted
from events.values import BUY, Leg, MarginMode, MarketSpec, MarketStatus, PriceMatch, RankRow, Side
from exchange.aggregate.account import Account, Position, position_key
from exchange.aggregate.canonical import (
    canonical_trial,
    digest_of,
    encode_position,
    encode_venue,
    position_digest_of,
    venue_digest_of,
)
from exchange.aggregate.market import Market
from exchange.aggregate.order import Order
from exchange.aggregate.origins import Origin
from exchange.aggregate.posting import hold
from exchange.aggregate.ranking import Ranking
from exchange.aggregate.state import Exchange, Timer

HalfRow = list[tuple[int, int, list[int]]]
RankingRow = tuple[Side, list[RankRow], list[int], list[tuple[int, int]]]
MarketRow = tuple[
    MarketSpec,
    MarketStatus,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    list[RankingRow],
    HalfRow,
    HalfRow,
]
OrderRow = tuple[OrderAccepted, int, int, int, int, int, int, PriceMatch]
ConditionalRow = tuple[ConditionalAccepted, int]
PositionRow = tuple[str, Leg, MarginMode, int, int, int, int, int, int, int, int, int, int, int, int]
AccountRow = tuple[
    int,
    str,
    bool,
    int,
    int,
    list[ApiKeyAdded],
    list[OrderRow],
    list[ConditionalRow],
    list[tuple[str, int]],
    list[PositionRow],
]
VenueRow = tuple[
    str,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    list[tuple[int, int]],
    list[Timer],
    list[int],
    list[tuple[tuple[str, int, str], int]],
    ExchangeHalted | None,
    int,
    list[tuple[str, int]],
    int,
    list[tuple[str, int]],
    list[MarketRow],
    list[AccountRow],
]
OriginRow = tuple[str, str, list[tuple[int, int]], list[str]]
PlaceRow = tuple[int, int, list[OriginRow]]

_parts_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes])
_venue_decoder: Final = msgspec.msgpack.Decoder(VenueRow)
_place_decoder: Final = msgspec.msgpack.Decoder(PlaceRow)


class ImageError(ValueError):
    """Bytes that are no image of a state."""


class Image:
    """A state as bytes, and its digest."""

    __slots__ = ("body", "digest")

    def __init__(self, body: bytes, digest: bytes) -> None:
        self.body = body
        self.digest = digest


def take_image(state: Exchange) -> Image:
    """Return the image of a state between two entries. The digest costs no second encoding."""
    venue, position = encode_venue(state), encode_position(state)
    digest = digest_of(venue_digest_of(venue), position_digest_of(position))
    return Image(msgspec.msgpack.encode((venue, position)), digest)


def restore(body: bytes) -> Exchange:
    """Return the state that an image shows. Whoever restores compares its digest.

    Raises:
        ImageError: the bytes are no image, or what they show cannot be.
    """
    state = Exchange()
    try:
        venue, place = _parts_decoder.decode(body)
        _restore_place(state, _place_decoder.decode(place))
        _restore_venue(state, _venue_decoder.decode(venue))
    except (msgspec.DecodeError, UnicodeDecodeError, AssertionError, LookupError) as error:
        raise ImageError(f"not the image of a state: {error!r}") from error
    return state


def _restore_venue(state: Exchange, row: VenueRow) -> None:
    (
        state.log_id,
        state.rules_version,
        state.next_account_id,
        state.trade_count,
        state.liquidation_count,
        state.aggregate_order_count,
        state.deposited,
        state.withdrawn,
        due,
        overdue,
        blocked,
        keeps_failing,
        state.halt,
        state.money_gap,
        lots_gaps,
        state.accepted_money_gap,
        accepted_lots_gaps,
        markets,
        accounts,
    ) = row
    state.blocked = dict.fromkeys(blocked)
    state.failing = dict(keeps_failing)
    state.lots_gaps = dict(lots_gaps)
    state.accepted_lots_gaps = dict(accepted_lots_gaps)
    state.due = dict(due)
    state.overdue = dict.fromkeys(overdue)
    for market_row in markets:
        _restore_market(state, market_row)
    orders: dict[int, Order] = {}
    for account_row in accounts:
        _restore_account(state, account_row, orders)
    for market_row in markets:
        _restore_book(state.markets[market_row[0].symbol], market_row, orders)
    heapify(state.timers)


def _restore_market(state: Exchange, row: MarketRow) -> None:
    spec = row[0]
    market = state.markets[spec.symbol] = Market(spec)
    (
        _,
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
        rankings,
        _,
        _,
    ) = row
    for side, rows, known, joined in rankings:
        if len(known) != len(rows):
            raise ImageError(f"a ranking of {len(rows)} rows knows of {len(known)}")
        ranking = market.rankings[side] = Ranking([(0, (row.account_id, row.leg), row) for row in rows])
        ranking.restore(known, joined)


def _restore_book(market: Market, row: MarketRow, orders: dict[int, Order]) -> None:
    """Let the orders queue again. The worst price comes first: then each new level is the best."""
    insert = market.book.insert
    for half in (row[-2], row[-1]):
        for _, _, order_ids in reversed(half):
            for order_id in order_ids:
                insert(orders[order_id])


def _restore_account(state: Exchange, row: AccountRow, orders: dict[int, Order]) -> None:
    account_id, label, hedge, failures, wallet, keys, order_rows, conditionals, countdowns, positions = row
    account = state.accounts[account_id] = Account(account_id, label)
    account.hedge = hedge
    account.failures = failures
    account.wallet = wallet
    for added in keys:
        account.api_keys[added.api_key] = added
        state.key_owners[added.api_key] = account_id
    for position_row in positions:
        _restore_position(state, account, position_row)
    for order_row in order_rows:
        order = _restore_order(account, order_row)
        orders[order.order_id] = order
        if order.terms.expires_ns:
            _wait(state, (order.terms.expires_ns, account_id, order.order_id, order.terms.market))
    for terms, best_ticks in conditionals:
        _restore_conditional(state, account, terms, best_ticks)
    for market, deadline_ns in countdowns:
        account.countdowns[market] = deadline_ns
        _wait(state, (deadline_ns, account_id, 0, market))


def _restore_position(state: Exchange, account: Account, row: PositionRow) -> None:
    """Bring back what is not the sum of open orders; these count themselves."""
    market, leg = state.markets[row[0]], row[1]
    position = Position(market, leg, row[2], row[3])
    position.size_lots, position.entry_cost, position.bucket = row[4], row[5], row[6]
    position.break_even_cost = row[14]
    account.positions[position_key(market.symbol, leg)] = position
    hold(market, account, position)


def _restore_order(account: Account, row: OrderRow) -> Order:
    terms = row[0]
    position = account.positions[position_key(terms.market, terms.leg)]
    order = Order(terms, position)
    (
        _,
        order.price_ticks,
        order.quantity_lots,
        order.open_lots,
        order.extras,
        order.extras_lots,
        order.amendments,
        order.price_match,
    ) = row
    order.key = order.price_ticks if order.side is BUY else -order.price_ticks
    account.orders[order.order_id] = order
    if terms.client_order_id:
        account.client_ids[terms.client_order_id] = order.order_id
    position.add_order(order)
    return order


def _restore_conditional(
    state: Exchange, account: Account, terms: ConditionalAccepted, best_ticks: int
) -> None:
    conditional_id = terms.conditional_id
    account.conditionals[conditional_id] = terms
    if terms.client_order_id:
        account.conditional_client_ids[terms.client_order_id] = conditional_id
    account.positions[position_key(terms.market, terms.leg)].conditional_count += 1
    if conditional_id not in state.due:
        state.markets[terms.market].triggers(terms.working_price).restore(terms, best_ticks)


def _wait(state: Exchange, timer: Timer) -> None:
    """Set a timer whose time has not come; the caller makes a heap of them.

    One whose time is over and that is not overdue has failed, and is due no longer.
    """
    if timer[0] > state.now_ns:
        state.timers.append(timer)


def _restore_place(state: Exchange, row: PlaceRow) -> None:
    state.seq, state.now_ns, origins = row
    for name, incarnation, ran, closed in origins:
        origin = state.origins[name] = Origin()
        origin.incarnation = incarnation
        origin.ran = dict(ran)
        origin.closed = closed


def trial_of(state: Exchange, account_id: int) -> Exchange:
    """Return a venue of its own that has one customer of this one, as he stands, and no other's orders.

    Markets keep their marks, their totals and his orders; the exchange's own accounts come along. What is
    tried there leaves this state as it is. Costs what he holds, not what the venue does.
    """
    tree = canonical_trial(state, account_id)
    trial = Exchange()
    trial.seq, trial.now_ns = state.seq, state.now_ns
    _restore_venue(trial, _venue_decoder.decode(msgspec.msgpack.encode(tree)))
    return trial
