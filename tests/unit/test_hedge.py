"""Hedge mode: two legs of a market, margined separately."""

import pytest

from events.events import LeverageSet, LiquidationFinished, OrderAccepted, TradeExecuted
from events.values import LiquidationResult, MarginMode, RejectCode
from exchange.aggregate.margin import survey
from tests.venue import Trader, Venue, every, money, only, plain, refusal


@pytest.fixture
def venue() -> Venue:
    """A venue with BTC at 50,000 and a fund."""
    venue = Venue(fund="100000")
    venue.index("BTCUSDT", "50000")
    venue.index("ETHUSDT", "3000")
    return venue


@pytest.fixture
def alice(venue: Venue) -> Trader:
    """A hedging trader with 10,000."""
    alice = venue.account("10000")
    alice.hedge()
    return alice


@pytest.fixture
def bob(venue: Venue) -> Trader:
    """A one-way trader with 1,000,000."""
    return venue.account("1000000")


def open_both(alice: Trader, bob: Trader, *, long: str, short: str) -> None:
    """Let alice hold both legs, opened at 50,000."""
    bob.sell("BTCUSDT", long, "50000")
    alice.buy("BTCUSDT", long, "50000", leg="LONG")
    bob.buy("BTCUSDT", short, "50000")
    alice.sell("BTCUSDT", short, "50000", leg="SHORT")


def test_an_order_names_its_leg(alice: Trader, bob: Trader) -> None:
    """LONG or SHORT in hedge mode, BOTH in one-way mode."""
    assert RejectCode.BAD_LEG == refusal(alice.buy("BTCUSDT", "0.1", "50000"))
    assert RejectCode.BAD_LEG == refusal(bob.buy("BTCUSDT", "0.1", "50000", leg="LONG"))
    assert only(OrderAccepted, alice.buy("BTCUSDT", "0.1", "50000", leg="LONG"))


def test_legs_are_held_and_margined_apart(alice: Trader, bob: Trader) -> None:
    """Opposite legs do not net: each needs its margin, 0.2 and 0.1 at 50,000 and 20×."""
    open_both(alice, bob, long="0.2", short="0.1")

    assert 200 == alice.position("BTCUSDT", "LONG").size_lots
    assert -100 == alice.position("BTCUSDT", "SHORT").size_lots
    assert money("500") + money("250") == survey(alice.account).required


def test_the_closing_side_of_a_leg_only_reduces(alice: Trader, bob: Trader) -> None:
    """A sell of the LONG leg closes it and can never turn it round: it is cut to what the leg is."""
    assert RejectCode.REDUCE_ONLY == refusal(alice.sell("BTCUSDT", "0.1", "50000", leg="LONG"))
    assert RejectCode.REDUCE_ONLY == refusal(alice.buy("BTCUSDT", "0.1", "50000", leg="SHORT"))
    open_both(alice, bob, long="0.2", short="0.1")

    accepted = only(OrderAccepted, alice.sell("BTCUSDT", "0.201", "50000", leg="LONG"))
    assert (True, 0, 200) == (accepted.reduce_only, accepted.extras, accepted.quantity_lots)


def test_closing_one_leg_leaves_the_other(alice: Trader, bob: Trader) -> None:
    """A fill belongs to the leg its order named."""
    open_both(alice, bob, long="0.2", short="0.1")
    bob.buy("BTCUSDT", "0.2", "50000")

    alice.sell("BTCUSDT", "0.2", leg="LONG")

    assert 0 == alice.position("BTCUSDT", "LONG").size_lots
    assert -100 == alice.position("BTCUSDT", "SHORT").size_lots


def test_leverage_and_margin_mode_are_those_of_both_legs(alice: Trader) -> None:
    """They are set per market."""
    assert 2 == len(every(LeverageSet, alice.leverage("BTCUSDT", 10)))
    alice.mode("BTCUSDT", "ISOLATED")

    for leg in ("LONG", "SHORT"):
        position = alice.position("BTCUSDT", leg)
        assert (10, MarginMode.ISOLATED) == (position.leverage, position.mode)


def test_liquidating_an_isolated_leg_leaves_the_other(venue: Venue, alice: Trader, bob: Trader) -> None:
    """The long dies of a fall; the short's bucket, position and orders are another's business."""
    alice.mode("BTCUSDT", "ISOLATED")
    open_both(alice, bob, long="0.2", short="0.1")
    alice.conditional("STOP", "BUY", "BTCUSDT", "0", "60000", close_position=True, leg="SHORT")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0", "40000", close_position=True, leg="LONG")
    bucket = plain(alice.position("BTCUSDT", "SHORT").bucket)
    venue.index("BTCUSDT", "47000")

    finished = only(LiquidationFinished, venue.liquidate(alice, "BTCUSDT", "LONG"))

    assert LiquidationResult.TAKEN_OVER == finished.result
    assert (0, 0) == (
        alice.position("BTCUSDT", "LONG").size_lots,
        alice.position("BTCUSDT", "LONG").bucket,
    )
    assert -100 == alice.position("BTCUSDT", "SHORT").size_lots
    assert bucket == plain(alice.position("BTCUSDT", "SHORT").bucket)
    assert ["SHORT"] == [terms.leg.name for terms in alice.account.conditionals.values()]


def test_the_position_mode_changes_only_when_flat_and_without_orders(alice: Trader, bob: Trader) -> None:
    """Orders, conditional orders and positions each stand in the way."""
    assert RejectCode.POSITION_MODE_UNCHANGED == refusal(alice.hedge())
    alice.buy("BTCUSDT", "0.1", "50000", leg="LONG")
    assert RejectCode.POSITION_MODE_HAS_ORDERS == refusal(alice.hedge(False))
    bob.sell("BTCUSDT", "0.1", "50000")
    assert RejectCode.POSITION_MODE_HAS_POSITION == refusal(alice.hedge(False))
    bob.buy("BTCUSDT", "0.1", "50000")
    alice.sell("BTCUSDT", "0.1", leg="LONG")
    alice.conditional("STOP", "SELL", "BTCUSDT", "0.1", "49000", leg="LONG")
    assert RejectCode.POSITION_MODE_HAS_ORDERS == refusal(alice.hedge(False))
    alice.cancel_all_conditionals("BTCUSDT")

    assert [] != alice.hedge(False)
    assert ["BTCUSDT"] == list(alice.account.positions)


def test_the_settings_of_a_market_survive_a_change_of_position_mode(alice: Trader) -> None:
    """Leverage and margin mode belong to the market, not to a leg."""
    alice.leverage("BTCUSDT", 7)
    alice.mode("BTCUSDT", "ISOLATED")

    alice.hedge(False)

    position = alice.position("BTCUSDT")
    assert (7, MarginMode.ISOLATED) == (position.leverage, position.mode)


def test_both_legs_can_close_against_each_other(alice: Trader, bob: Trader) -> None:
    """With self-trade prevention off, one trade closes both legs and open interest with them."""
    open_both(alice, bob, long="0.1", short="0.1")
    alice.sell("BTCUSDT", "0.1", "50000", leg="LONG")

    events = alice.buy("BTCUSDT", "0.1", "50000", leg="SHORT", self_trade="NONE")

    assert 100 == only(TradeExecuted, events).quantity_lots
    for leg in ("LONG", "SHORT"):
        assert 0 == alice.position("BTCUSDT", leg).size_lots
    assert 0 == alice.venue.state.markets["BTCUSDT"].open_interest_lots
