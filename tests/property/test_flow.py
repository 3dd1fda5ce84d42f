"""What holds after every command of random trading."""

import os

import pytest

from events.events import LiquidationFinished, LiquidationStarted
from events.values import LiquidationResult, MarginMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.state import Exchange
from tests.flow import Ledger, check_state, market_venue, random_command

COMMANDS = int(os.environ.get("FOLDEX_FLOW_COMMANDS", "3000"))
SEEDS = int(os.environ.get("FOLDEX_FLOW_SEEDS", "4"))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
def test_money_contracts_and_books_always_add_up(seed: int) -> None:
    """After every command both identities hold, the state is sound, every lot that came in is filled, open or
    cancelled, no reduce-only order has opened anything, and a refusal has changed nothing.
    """
    venue, random = market_venue(seed)
    ledger = Ledger()
    liquidations = 0
    for _ in range(COMMANDS):
        events = venue.send(random_command(venue.state, random))
        ledger.follow(venue.log[-1])
        ledger.check(venue.state)
        check_state(venue.state)
        check_isolation(venue.state)
        if any(isinstance(event, LiquidationStarted) for event in events):
            liquidations += 1
            finished = next(event for event in events if isinstance(event, LiquidationFinished))
            check_liquidated(venue.state, finished, is_last=finished is events[-1])
    assert liquidations > 0
    assert venue.state.trade_count > 100
    assert venue.state.digest() == venue.replayed().digest()


def check_isolation(state: Exchange) -> None:
    """A cross position owns no bucket; a flat isolated one holds no money outside a liquidation."""
    for account_id, account in state.accounts.items():
        for position in account.positions.values():
            assert position.mode is MarginMode.ISOLATED or position.bucket == 0
            if position.size_lots == 0 and account_id >= FIRST_USER_ACCOUNT_ID:
                assert position.bucket == 0


def check_liquidated(state: Exchange, finished: LiquidationFinished, *, is_last: bool) -> None:
    """After a liquidation that was borne no bucket is below zero.

    Only when it is the last event is the state the one it left: its trades may have triggered others.
    """
    assert finished.result >= LiquidationResult.UNBORNE or finished.equity >= 0
    if not is_last:
        return
    account = state.accounts[finished.account_id]
    has_cross = any(p.size_lots and p.mode is MarginMode.CROSS for p in account.positions.values())
    assert has_cross or account.wallet >= 0


def test_flow_meets_every_kind_of_event() -> None:
    """The random trading reaches most of the language, so that the invariants mean something."""
    venue, random = market_venue(7)
    venue.checks = False
    kinds: set[str] = set()
    for _ in range(4000):
        venue.send(random_command(venue.state, random))
        kinds |= {type(event).__name__ for group in venue.log[-1] for event in group}
    assert {
        "Rejected",
        "OrderAccepted",
        "OrderAmended",
        "OrderCancelled",
        "OrderExpired",
        "TradeExecuted",
        "MarkPriceChanged",
        "LiquidationStarted",
        "PositionTakenOver",
        "LiquidationFinished",
        "LiquidationSkipped",
        "LeverageSet",
        "MarginModeSet",
        "Deposited",
        "Withdrawn",
        "ConditionalAccepted",
        "ConditionalCancelled",
        "ConditionalTriggered",
        "ConditionalRejected",
        "CountdownSet",
        "CountdownExpired",
        "PositionModeSet",
        "TickPassed",
    } <= kinds
