"""The past of the markets: what is folded from the events, and that nothing else is needed for it."""

from events.values import SELL
from exchange.intake.market.candles import INTERVALS
from exchange.intake.market.past import MarketPast, Past
from tests.flow import market_venue, pause_ns, random_command
from tests.venue import Trader, Venue, spec

BTC = "BTCUSDT"
MONTH = INTERVALS["1M"]
COMMANDS = 1_500


def past_of(venue: Venue, symbol: str = BTC) -> MarketPast:
    """Return what a process knows that reads the whole log only now: the state is ahead of all it is fed."""
    past = Past(lambda: venue.state)
    for groups in venue.log:
        past.feed(groups)
    return past.of(symbol)


def test_what_a_liquidation_closed_is_remembered(venue: Venue, bob: Trader) -> None:
    """By an order in the book with what it filled, or taken over by the fund for the whole of its size."""
    alice, carol = venue.account("600"), venue.account("600")
    bob.sell(BTC, "2", "50000")
    for trader in (alice, carol):
        trader.leverage(BTC, 100)
        trader.buy(BTC, "1", "50000")
    bob.buy(BTC, "0.4", "49500")
    venue.index(BTC, "49500")

    for trader in (alice, carol):
        venue.liquidate(trader)

    by_order, *outside = past_of(venue).force_orders.rows
    assert (SELL, 1_000, 400) == (by_order.side, by_order.lots, by_order.executed_lots)
    assert 400 * 495_000 * venue.state.markets[BTC].unit == by_order.quote
    assert [600, 1_000] == [closed.lots for closed in outside]
    for closed in outside:
        assert (SELL, closed.lots) == (closed.side, closed.executed_lots)
        assert 494_000 <= closed.price_ticks <= 495_000
    assert [1, 2, 3] == [closed.number for closed in past_of(venue).force_orders.rows]


def test_fills_of_one_order_at_one_price_are_one_aggregate(venue: Venue, bob: Trader) -> None:
    """Another price, and another order, begin another; its number is that of its first trade."""
    alice = venue.account("100000")
    for price in ("49990", "49990", "49980"):
        bob.buy(BTC, "1", price)
    alice.sell(BTC, "0.5", "49980")
    alice.sell(BTC, "2", "49980")
    rows = past_of(venue).aggregates.rows
    assert [(1, 1, 500), (2, 3, 1_500), (4, 4, 500)] == [
        (row.first_id, row.last_id, row.lots) for row in rows
    ]
    assert [False, False, False] == [row.taker_buys for row in rows]


def test_open_interest_is_sampled_once_a_period() -> None:
    """From the state as of the same entry, at updates of the mark; what is read later cannot be sampled."""
    venue = Venue(specs=(spec(),))
    past = Past(lambda: venue.state)
    alice, bob = venue.account("100000"), venue.account("100000")
    fed = 0

    def catch_up() -> list[int]:
        nonlocal fed
        for groups in venue.log[fed:]:
            past.feed(groups)
        fed = len(venue.log)
        return [row.lots for row in past.of(BTC).open_interests.rows]

    venue.index(BTC, "50000")
    assert [0] == catch_up()
    alice.buy(BTC, "1", "50000")
    bob.sell(BTC, "1", "50000")
    catch_up()
    venue.index(BTC, "50000")
    assert [0] == catch_up()
    venue.after(5 * 60_000)
    venue.index(BTC, "50000")
    assert [0, 1_000] == catch_up()
    late = past_of(venue).open_interests.rows
    assert [1_000] == [row.lots for row in late]


def test_random_trading_adds_up() -> None:
    """Trades, aggregates, candles and the day say the same of what was traded."""
    venue, random = market_venue(seed=5)
    venue.checks = False
    for _ in range(COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
    for symbol, market in venue.state.markets.items():
        past = past_of(venue, symbol)
        trades = past.trades.rows
        assert trades
        lots = sum(trade.lots for trade in trades)
        quote = sum(trade.lots * trade.price_ticks for trade in trades) * market.unit
        day = past.day.figures(venue.state.now_ns // 10**6)
        assert day is not None
        assert (lots, quote, len(trades)) == (day.lots, day.quote, day.count)
        assert lots == sum(row.lots for row in past.aggregates.rows)
        assert market.last_ticks == trades[-1].price_ticks == day.close
        (whole,) = past.traded.select(MONTH, None, None, 1, day.open_ms)
        bought = sum(trade.lots for trade in trades if trade.taker_buys)
        assert (lots, quote, bought) == (whole.lots, whole.quote, whole.taker_lots)
        assert all(row.executed_lots <= row.lots for row in past.force_orders.rows)
