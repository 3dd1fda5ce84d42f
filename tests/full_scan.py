"""The buckets that are due, found by looking at every account: the yardstick of the watch."""

from events.values import CROSS, Leg
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.margin import bucket_equity, is_liquidatable, maintenance, survey
from exchange.aggregate.state import Exchange
from exchange.watch import CROSS_POOL, Bucket


def find_liquidatable(state: Exchange) -> list[Bucket]:
    """Return the customers' buckets at or below maintenance.

    A bucket is (account id, market of an isolated position or "" for the cross pool, leg).
    """
    buckets: list[Bucket] = []
    for account_id, account in state.accounts.items():
        if account_id < FIRST_USER_ACCOUNT_ID:
            continue
        for position in account.positions.values():
            if position.mode is not CROSS and is_liquidatable(
                bucket_equity(account, position), maintenance(position)
            ):
                buckets.append((account_id, position.market.symbol, position.leg))
        pool = survey(account)
        if is_liquidatable(pool.equity, pool.maintenance):
            buckets.append((account_id, CROSS_POOL, Leg.BOTH))
    return buckets
