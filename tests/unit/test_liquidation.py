"""The waterfall: cancel, reduce, take over. Deleveraging has its own tests."""

from events.commands import SetMarketStatus
from events.events import (
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import Bracket, CloseReason, LiquidationResult, MarketStatus
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.margin import bucket_equity
from tests.audited import scene
from tests.venue import Venue, every, money, only, spec


def test_isolated_loss_stops_at_the_bucket() -> None:
    """A price gap past bankruptcy costs the bucket and not one unit more."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "30000")  # bankruptcy was at 45,000

    events = s.venue.liquidate(s.alice, "BTCUSDT")

    assert "500" == s.alice.wallet
    assert (0, 0) == (s.alice.position("BTCUSDT").size_lots, s.alice.position("BTCUSDT").bucket)
    finished = only(LiquidationFinished, events)
    assert (LiquidationResult.TAKEN_OVER, 0) == (finished.result, finished.equity)
    assert money("1500") == finished.fund_before - finished.fund_after


def test_worksheet_holds_what_is_needed_to_check() -> None:
    """Collateral, equity, maintenance and the position's row, as at the moment it started."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45100")

    started = only(LiquidationStarted, s.venue.liquidate(s.alice, "BTCUSDT"))

    assert (money("500"), money("10"), money("18.04")) == (
        started.collateral,
        started.equity,
        started.maintenance,
    )
    (row,) = started.rows
    assert (100, money("5000"), 451_000, money("4510"), money("-490")) == (
        row.size_lots,
        row.entry_cost,
        row.mark_ticks,
        row.notional,
        row.unrealised,
    )


def test_healthy_bucket_is_left_alone() -> None:
    """A late or mistaken request is recorded and changes nothing."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    before = s.venue.state.venue_digest()

    assert "above maintenance" in only(LiquidationSkipped, s.venue.liquidate(s.alice, "BTCUSDT")).reason
    assert "no open position" in only(LiquidationSkipped, s.venue.liquidate(s.alice, "ETHUSDT")).reason
    assert "no open position" in only(LiquidationSkipped, s.venue.liquidate(s.alice)).reason
    assert before == s.venue.state.venue_digest()


def test_equality_liquidates_and_one_tick_above_does_not() -> None:
    """At equity = maintenance the bucket goes; one tick better it stays."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45180.8")
    assert only(LiquidationSkipped, s.venue.liquidate(s.alice, "BTCUSDT"))
    s.venue.index("BTCUSDT", "45180.7")

    assert only(LiquidationStarted, s.venue.liquidate(s.alice, "BTCUSDT"))


def test_reduces_in_the_book_first_and_pays_the_fee_to_the_fund() -> None:
    """Bids above the bankruptcy price take the position; fee and rest stay out of the fund's risk."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45150")
    s.bob.buy("BTCUSDT", "0.1", "45100")

    events = s.venue.liquidate(s.alice, "BTCUSDT")

    assert 451_000 == only(TradeExecuted, events).price_ticks
    assert 0 == only(TradeExecuted, events).taker_fee
    fee = only(LiquidationFeeCharged, events).amount
    assert money("10") == fee  # 0.5 % of 4,510 would be 22.55; only 10 were left
    finished = only(LiquidationFinished, events)
    assert (LiquidationResult.CLOSED, 0) == (finished.result, finished.released)
    assert [] == every(PositionTakenOver, events)
    assert "500" == s.alice.wallet


def test_what_the_fee_leaves_returns_to_the_wallet() -> None:
    """An isolated position closed whole above bankruptcy gives back what the fee left."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45150")
    s.bob.buy("BTCUSDT", "0.1", "45500")

    finished = only(LiquidationFinished, s.venue.liquidate(s.alice, "BTCUSDT"))

    assert money("50") - money("22.75") == finished.released
    assert "527.25" == s.alice.wallet


def test_steps_one_bracket_down_and_stops_when_restored() -> None:
    """A position in the second bracket is reduced to the first one's cap, which is enough here."""
    s = scene()
    rich = s.venue.account("5000")
    rich.mode("BTCUSDT", "ISOLATED")
    rich.leverage("BTCUSDT", 100)
    s.bob.sell("BTCUSDT", "2", "50000")
    rich.buy("BTCUSDT", "2", "50000")
    s.venue.index("BTCUSDT", "49725")  # equity 450, maintenance 447.25
    s.venue.index("BTCUSDT", "49723")
    s.bob.buy("BTCUSDT", "2", "49723")

    events = s.venue.liquidate(rich, "BTCUSDT")

    finished = only(LiquidationFinished, events)
    assert LiquidationResult.CLOSED == finished.result
    assert [995, 1005] == [trade.quantity_lots for trade in every(TradeExecuted, events)]


def test_cross_cancels_cross_orders_and_isolated_opening_orders() -> None:
    """All orders whose margin sits in the pool go before anything is sold."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.3", "50000", mode="CROSS", leverage=20)
    s.alice.mode("ETHUSDT", "ISOLATED")
    s.alice.buy("ETHUSDT", "0.1", "2000")
    s.alice.sell("BTCUSDT", "0.1", "60000")
    s.venue.index("BTCUSDT", "46800")

    events = s.venue.liquidate(s.alice)

    reasons = {each.reason for each in every(OrderCancelled, events)}
    assert (2, {CloseReason.LIQUIDATION}) == (len(every(OrderCancelled, events)), reasons)
    assert {} == s.alice.account.orders


def test_cross_takeover_empties_the_pool_exactly() -> None:
    """Two positions pass to the fund with their shares of the equity; the wallet ends at zero."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="CROSS", leverage=20)
    s.open("ETHUSDT", "BUY", "1", "3000", mode="CROSS", leverage=20)
    s.venue.index("BTCUSDT", "44000")
    s.venue.index("ETHUSDT", "2620")

    events = s.venue.liquidate(s.alice)

    assert 2 == len(every(PositionTakenOver, events))
    assert "0" == s.alice.wallet
    fund = s.venue.state.accounts[FUND_ACCOUNT_ID]
    assert (100, 1000) == tuple(fund.positions[m].size_lots for m in ("BTCUSDT", "ETHUSDT"))


def test_profitable_hedge_keeps_a_cross_account_alive() -> None:
    """The same long that dies alone lives beside a short that gains what it loses."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="CROSS", leverage=20)
    s.open("ETHUSDT", "SELL", "1.6", "3000", mode="CROSS", leverage=20)
    s.venue.index("BTCUSDT", "40000")
    s.venue.index("ETHUSDT", "2400")

    assert only(LiquidationSkipped, s.venue.liquidate(s.alice))


def test_fund_that_cannot_bear_leaves_the_position_to_the_other_side() -> None:
    """Without an allotment the other side closes it at the bankruptcy price, and trading goes on."""
    s = scene(fund="0")
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "44000")

    events = s.venue.liquidate(s.alice, "BTCUSDT")

    assert LiquidationResult.DELEVERAGED == only(LiquidationFinished, events).result
    assert (0, 0) == (s.alice.position("BTCUSDT").size_lots, s.bob.position("BTCUSDT").size_lots)
    assert "500" == s.alice.wallet
    assert only(OrderAccepted, s.bob.buy("BTCUSDT", "0.1", "44000"))


def test_fund_can_always_take_over_what_still_has_equity() -> None:
    """A takeover above bankruptcy brings the fund equity, so that an empty fund can bear it."""
    s = scene(fund="0")
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45100")

    finished = only(LiquidationFinished, s.venue.liquidate(s.alice, "BTCUSDT"))

    assert LiquidationResult.TAKEN_OVER == finished.result
    assert money("10") == finished.fund_after - finished.fund_before


def test_fund_unwinds_near_the_mark() -> None:
    """On an index update the fund sells a bounded part of what it took over."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index("BTCUSDT", "45100")
    s.venue.liquidate(s.alice, "BTCUSDT")
    s.bob.buy("BTCUSDT", "0.04", "45100")

    events = s.venue.index("BTCUSDT", "45100")

    assert 40 == only(TradeExecuted, events).quantity_lots
    assert 60 == s.venue.state.accounts[FUND_ACCOUNT_ID].positions["BTCUSDT"].size_lots


def test_the_other_positions_of_an_isolated_trader_are_untouched() -> None:
    """Liquidating one isolated position leaves the next bucket as it was, to the unit."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.05", "50000", mode="ISOLATED", leverage=10)
    s.open("ETHUSDT", "BUY", "1", "3000", mode="ISOLATED", leverage=10)
    before = bucket_equity(s.alice.account, s.alice.position("ETHUSDT"))
    s.venue.index("BTCUSDT", "40000")

    s.venue.liquidate(s.alice, "BTCUSDT")

    assert before == bucket_equity(s.alice.account, s.alice.position("ETHUSDT"))
    assert "450" == s.alice.wallet


def test_a_worksheet_of_the_highest_bracket_fits_an_event() -> None:
    """The deduction of a large position is exact and can be written, in money units and their rest."""
    brackets = (
        Bracket(cap=money("3000000"), maintenance_rate=1_000_001, max_leverage=50),
        Bracket(cap=money("9000000000"), maintenance_rate=30_000_000, max_leverage=3),
    )
    venue = Venue(specs=(spec(brackets=brackets, max_lots=2_000_000),), fund="100000000")
    venue.index("BTCUSDT", "50000")
    whale, other = venue.account("40000000"), venue.account("90000000")
    for trader in (whale, other):
        trader.leverage("BTCUSDT", 3)
    other.sell("BTCUSDT", "1500", "50000")
    whale.buy("BTCUSDT", "1500", "50000")
    venue.index("BTCUSDT", "30000")

    (row,) = only(LiquidationStarted, venue.liquidate(whale)).rows

    assert 1 == row.bracket
    exact = row.deduction * 10**8 + row.deduction_rest
    assert money("3000000") * (30_000_000 - 1_000_001) == exact
    assert -(-(row.notional * row.maintenance_rate - exact) // 10**8) == row.maintenance


def test_a_halted_market_does_not_shield_the_others() -> None:
    """A cross pool with a position in a halted market loses its other positions all the same."""
    s = scene()
    s.open("ETHUSDT", "BUY", "0.01", "3000", mode="CROSS", leverage=20)
    s.open("BTCUSDT", "BUY", "0.3", "50000", mode="CROSS", leverage=20)
    s.venue.send(SetMarketStatus(market="ETHUSDT", status=MarketStatus.HALTED, reason="test"))
    s.venue.index("BTCUSDT", "46000")

    events = s.venue.liquidate(s.alice)

    assert "BTCUSDT" == only(PositionTakenOver, events).market
    assert LiquidationResult.UNBORNE == only(LiquidationFinished, events).result
    assert "halted" in only(LiquidationSkipped, s.venue.liquidate(s.alice)).reason


def test_nobody_can_sell_himself_cheap_and_leave_the_rest_to_the_fund() -> None:
    """A reducing fill far from the mark may not bring what stays open nearer to the fund."""
    s = scene()
    s.open("BTCUSDT", "BUY", "0.3", "50000", mode="CROSS", leverage=20)
    s.bob.buy("BTCUSDT", "0.05", "30200")

    events = s.alice.sell("BTCUSDT", "0.05", "30200", tif="IOC")

    assert [] == every(TradeExecuted, events)
    assert CloseReason.MARGIN == only(OrderExpired, events).reason
    s.bob.buy("BTCUSDT", "0.05", "49900")
    assert only(TradeExecuted, s.alice.sell("BTCUSDT", "0.05", "49900", tif="IOC"))
