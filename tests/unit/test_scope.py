"""Which events `foldex log` shows for an account and a market."""

from typing import Any

from events.events import (
    Event,
    FundingSettled,
    LiquidationFinished,
    LiquidationStarted,
    TradeExecuted,
)
from exchange.audit.scope import Scope
from tests.venue import Trader, Venue, spec

BTC, ETH = "BTCUSDT", "ETHUSDT"
FREE: dict[str, Any] = {"maker_fee": 0, "taker_fee": 0}
HOUR_MS = 3_600_000


def covered(venue: Venue, account_id: int | None = None, market: str | None = None) -> list[Event]:
    """Return the events of a venue's log that are about an account and a market."""
    scope = Scope(account_id, market)
    return [event for groups in venue.log for group in groups for event in group if scope.covers(event)]


def kinds(events: list[Event]) -> set[type[Event]]:
    """Return the kinds of events."""
    return {type(event) for event in events}


def trade(buyer: Trader, seller: Trader, symbol: str, price: str) -> None:
    """Let one buy 0.1 of the other."""
    seller.sell(symbol, "0.1", price)
    buyer.buy(symbol, "0.1", price)


def test_the_end_of_a_cross_liquidation_is_shown_for_its_markets() -> None:
    """It names no market; it began in BTC, and has nothing to do with ETH."""
    venue = Venue(specs=(spec(**FREE), spec(ETH, **FREE)), fund="100000")
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    alice, bob = venue.account("260"), venue.account("10000")
    trade(alice, bob, BTC, "50000")
    venue.index(BTC, "47000")
    venue.liquidate(alice)

    assert {LiquidationStarted, LiquidationFinished, TradeExecuted} <= kinds(covered(venue, market=BTC))
    assert LiquidationFinished in kinds(covered(venue, alice.account_id, BTC))
    assert not {LiquidationStarted, LiquidationFinished} & kinds(covered(venue, market=ETH))
    assert LiquidationFinished not in kinds(covered(venue, bob.account_id))


def test_funding_is_shown_to_those_who_paid_or_received() -> None:
    """Carol holds nothing when it is settled."""
    funded: dict[str, Any] = {"funding_interval_s": 3600, "interest_rate": 10_000, "funding_cap": 300_000}
    venue = Venue(specs=(spec(**FREE, **funded), spec(ETH, **FREE)))
    venue.index(BTC, "50000")
    alice, bob, carol = (venue.account("10000") for _ in range(3))
    trade(alice, bob, BTC, "50000")
    venue.after(HOUR_MS)
    venue.index(BTC, "50000")

    assert [True, True, False] == [
        FundingSettled in kinds(covered(venue, each.account_id)) for each in (alice, bob, carol)
    ]
    assert FundingSettled in kinds(covered(venue, market=BTC))
    assert FundingSettled not in kinds(covered(venue, alice.account_id, ETH))
