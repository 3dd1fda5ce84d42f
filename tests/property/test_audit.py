"""What the audit says of random trading, price gaps, funding, switches of mode and halts included."""

from functools import cache

import pytest

from events.events import LiquidationFinished
from events.log import VerifiedEvents
from exchange.aggregate.state import Exchange
from exchange.audit.cases import cases_of
from exchange.audit.lateness import Lateness
from tests.audited import log_of
from tests.flow import market_venue, pause_ns, random_command
from tests.full_scan import find_liquidatable
from tests.venue import Venue

COMMANDS = 2_500
SEEDS = range(2)


@cache
def traded(seed: int) -> Venue:
    """Return a venue after random trading."""
    venue, random = market_venue(seed)
    venue.checks = False
    for _ in range(COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
    return venue


@pytest.mark.parametrize("seed", SEEDS)
def test_waiting_are_all_that_are_due_and_nobody_else(seed: int) -> None:
    """Who waits for a liquidation, found by guards, is who a look at every account finds, at every entry."""
    state = Exchange()
    lateness = Lateness(state, 10)
    events = due = late = 0
    for seq, groups in enumerate(traded(seed).log, 1):
        for group in groups:
            lateness.events = events
            for event in group:
                state.apply(event)
                lateness.follow(event)
            events += len(group)
        late += len(lateness.end_entry(seq, events))
        waiting = {bucket for waits in lateness.waiting.values() for bucket in waits}
        assert set(find_liquidatable(state)) == waiting, seq
        due += len(waiting)
    assert due > COMMANDS // 10
    assert late > 0  # the flow asks for some of them only


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_what_the_collateral_lost(seed: int) -> None:
    """Read from the events alone it is the difference that the state shows, whatever the steps were."""
    venue, state, seen = traded(seed), Exchange(), 0
    for entry, groups in zip(log_of(venue).events, venue.log, strict=True):
        left: dict[int, int] = {}
        for event in (event for group in groups for event in group):
            if isinstance(event, LiquidationFinished):
                left[event.liquidation_id] = collateral(state, event)
            state.apply(event)
        for case in cases_of(VerifiedEvents(entry=entry, groups=groups)):
            assert case.started.collateral - left[case.started.liquidation_id] == case.loss, case.seq
            seen += 1
    assert seen > 0


def collateral(state: Exchange, event: LiquidationFinished) -> int:
    """Return what the bucket of a liquidation has, before anything is released."""
    account = state.accounts[event.account_id]
    if not event.market:
        return account.wallet
    return account.position(state.markets[event.market], event.leg).bucket
