"""Random trading, seeded: commands of every kind at prices that jump, for invariants and comparisons."""

from random import Random

from events.commands import (
    AnyCommand,
    CancelAllOrders,
    CancelOrder,
    Deposit,
    Liquidate,
    PlaceOrder,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    Withdraw,
)
from events.values import IndexSource, MarginMode, OrderType, Side, TimeInForce
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Position
from exchange.aggregate.order import Order, extras_of
from exchange.aggregate.state import Exchange
from tests.venue import Venue, money

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def market_venue(seed: int, accounts: int = 12) -> tuple[Venue, Random]:
    """Return a venue with funded accounts and prices, and the seeded source of chance."""
    random = Random(seed)
    venue = Venue(fund="20000")
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    for _ in range(accounts):
        venue.account(str(random.randint(200, 20_000)))
    return venue, random


def random_command(state: Exchange, random: Random) -> AnyCommand:
    """Return a command that a user, an administrator, a feed or a liquidator might send."""
    symbol = random.choice(SYMBOLS)
    market = state.markets[symbol]
    account_id = random.randrange(FIRST_USER_ACCOUNT_ID, state.next_account_id)
    chance = random.random()
    if chance < 0.55:
        return _order(state, random, account_id, symbol)
    if chance < 0.70:
        open_ids = list(state.accounts[account_id].orders) or [1]
        return CancelOrder(account_id=account_id, market=symbol, order_id=random.choice(open_ids))
    if chance < 0.73:
        return CancelAllOrders(account_id=account_id, market=symbol)
    if chance < 0.83:
        step = random.choice((0.001, 0.001, 0.01, 0.3))
        drift = 1 + random.uniform(-step, step)
        price_ticks = max(1_000, min(9_000_000, int(market.index_ticks * drift)))
        source = IndexSource(source="flow", price_ticks=price_ticks, raw="")
        return SetIndexPrice(market=symbol, sources=(source,))
    if chance < 0.92:
        bucket = random.choice((symbol, ""))
        return Liquidate(account_id=account_id, market=bucket, cause_seq=state.seq)
    if chance < 0.94:
        leverage = random.choice((1, 2, 5, 10, 20, 50, 100, 125))
        return SetLeverage(account_id=account_id, market=symbol, leverage=leverage)
    if chance < 0.96:
        mode = random.choice((MarginMode.CROSS, MarginMode.ISOLATED))
        return SetMarginMode(account_id=account_id, market=symbol, mode=mode)
    amount = random.randint(1, money("2000"))
    if chance < 0.98:
        return Deposit(account_id=account_id, amount=amount)
    return Withdraw(account_id=account_id, amount=amount)


def _order(state: Exchange, random: Random, account_id: int, symbol: str) -> PlaceOrder:
    market = state.markets[symbol]
    is_market = random.random() < 0.2
    offset = int(random.gauss(0, 0.002) * market.mark_ticks)
    return PlaceOrder(
        account_id=account_id,
        market=symbol,
        side=random.choice((Side.BUY, Side.SELL)),
        order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
        quantity_lots=random.choice((1, 10, 50, 200, 1000)),
        price_ticks=0 if is_market else max(1, market.mark_ticks + offset),
        time_in_force=random.choice(tuple(TimeInForce)) if not is_market else TimeInForce.IOC,
        reduce_only=random.random() < 0.15,
        client_order_id=random.choice(("", "", f"c{random.randint(0, 50)}")),
    )


def check_books(state: Exchange) -> None:
    """Assert what holds between commands: never crossed, levels and exposures equal their orders' sums."""
    for market in state.markets.values():
        book = market.book
        assert not book.best_ask_ticks or book.best_bid_ticks < book.best_ask_ticks, "crossed"
        for half in (book.bids, book.asks):
            assert half.keys == sorted(half.levels), "keys"
            for level in half.best_first():
                orders = list(level)
                assert level.lots == sum(order.open_lots for order in orders) > 0
                assert all(order.level is level and order.open_lots > 0 for order in orders)
    for account in state.accounts.values():
        for position in account.positions.values():
            _check_exposure(position, [o for o in account.orders.values() if o.position is position])


def _check_exposure(position: Position, orders: list[Order]) -> None:
    bids = [order for order in orders if order.side is Side.BUY]
    asks = [order for order in orders if order.side is Side.SELL]
    assert position.order_count == len(orders)
    assert position.bid_lots == sum(order.open_lots for order in bids)
    assert position.ask_lots == sum(order.open_lots for order in asks)
    assert position.bid_value == sum(o.open_lots * o.price_ticks for o in bids if not o.reduce_only)
    assert position.ask_value == sum(o.open_lots * o.price_ticks for o in asks if not o.reduce_only)
    assert list(position.reducers) == [order.order_id for order in orders if order.reduce_only]
    for order in position.reducers.values():
        assert 0 < order.open_lots <= position.reducible_lots(order.side), "a reduce-only order could open"
    assert position.extras == sum(extras_of(order, order.open_lots) for order in orders)
