"""Who waits for a liquidation, found by guards, is who a look at every account finds."""

import pytest

from events.events import Event
from exchange.aggregate.state import Exchange
from exchange.audit.lateness import Lateness
from tests.flow import market_venue, pause_ns, random_command
from tests.full_scan import find_liquidatable

COMMANDS = 2_500


@pytest.mark.parametrize("seed", range(2))
def test_waiting_are_all_that_are_due_and_nobody_else(seed: int) -> None:
    """After every entry of random trading, price gaps, funding, switches of mode and halts included."""
    venue, random = market_venue(seed)
    venue.checks = False
    for _ in range(COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
    state = Exchange()
    lateness = Lateness(state, 10)
    events = due = late = 0
    for seq, groups in enumerate(venue.log, 1):
        for event in (event for group in groups for event in group):
            take(state, lateness, event)
            events += 1
        late += len(lateness.end_entry(seq, events))
        waiting = {bucket for waits in lateness.waiting.values() for bucket in waits}
        assert set(find_liquidatable(state)) == waiting, seq
        due += len(waiting)
    assert due > COMMANDS // 10
    assert late > 0  # the flow asks for some of them only


def take(state: Exchange, lateness: Lateness, event: Event) -> None:
    """Apply an event and follow it."""
    state.apply(event)
    lateness.follow(event)
