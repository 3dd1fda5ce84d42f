"""No call about collateral brings a healthy bucket to its liquidation: only prices, fees and trades may."""

import os

import pytest

from events.events import LeverageSet, MarginAdjusted, MarginModeSet, Withdrawn
from events.values import MarginMode
from exchange.aggregate.account import Account
from exchange.aggregate.margin import bucket_equity, is_liquidatable, maintenance, survey
from tests.flow import COLLATERAL_COMMANDS, Chance, market_venue, random_command

SEQUENCES = int(os.environ.get("FOLDEX_HEALTH_SEQUENCES", "500"))
SEEDS = 4
CALLS_PER_SEQUENCE = 6
COMMANDS_BETWEEN = 10


def dying(account: Account) -> set[str]:
    """Return the buckets of an account that are due for liquidation, by name; the pool's is ""."""
    pool = survey(account)
    found = {""} if is_liquidatable(pool.equity, pool.maintenance) else set()
    for key, position in account.positions.items():
        is_isolated = position.mode is MarginMode.ISOLATED
        if is_isolated and is_liquidatable(bucket_equity(account, position), maintenance(position)):
            found.add(key)
    return found


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_call_about_collateral_makes_a_healthy_bucket_liquidatable(seed: int) -> None:
    """Withdrawals, leverage, mode switches and moves of margin in any order, with positions and orders open.

    Between the sequences there is trading at prices that jump, so that buckets are met near their end.
    """
    venue, random = market_venue(100 + seed)
    venue.checks = False
    done: dict[type, int] = {}
    for _ in range(SEQUENCES):
        for _ in range(COMMANDS_BETWEEN):
            venue.send(random_command(venue.state, random))
        chosen = Chance(venue.state, random)
        for _ in range(CALLS_PER_SEQUENCE):
            chance = Chance(venue.state, random)
            chance.account_id, chance.account = chosen.account_id, chosen.account
            before = dying(chosen.account)
            events = venue.send(random.choice(COLLATERAL_COMMANDS)(chance))
            if len(events) > 1:  # work that was due came with it
                break
            done[type(events[0])] = done.get(type(events[0]), 0) + 1
            assert dying(chosen.account) <= before, events
    assert all(done.get(kind, 0) > 20 for kind in (LeverageSet, MarginAdjusted, MarginModeSet, Withdrawn))
