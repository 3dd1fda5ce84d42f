"""What one position takes: a trade, money, collateral. For `apply` alone, and for copies (`scratch`).

Money goes to the bucket that the position stands on: its own in isolated, the account's wallet in cross.
"""

from events.values import ISOLATED
from exchange.aggregate.account import Account, Position
from exchange.aggregate.market import Market
from exchange.aggregate.units import ceil_div


def long_lots(position: Position) -> int:
    """Return what a position adds to the open interest."""
    return position.size_lots if position.size_lots > 0 else 0


def worth(account: Account, position: Position) -> int:
    """Return wallet + bucket − entry cost of a position and its account."""
    return account.wallet + position.bucket - position.entry_cost


def worth_of(one: Account, of_one: Position, other: Account, of_other: Position) -> int:
    """Return wallets + buckets − entry costs of two positions and their accounts, each counted once."""
    total = one.wallet + of_one.bucket - of_one.entry_cost
    if other is not one:
        total += other.wallet
    if of_other is not of_one:
        total += of_other.bucket - of_other.entry_cost
    return total


def lots_of(one: Position, other: Position) -> int:
    """Return the sizes of two positions together, each counted once."""
    return one.size_lots if other is one else one.size_lots + other.size_lots


def post(account: Account, position: Position, signed_lots: int, cost: int, realised: int, fee: int) -> None:
    """Let a position trade `signed_lots` for `cost`; profit and fee go to the bucket it stands on."""
    position.standing.mark_ticks = -1
    size_lots = position.size_lots
    position.size_lots = left_lots = size_lots + signed_lots
    if left_lots * size_lots < 0:
        # Turned round: what is left was opened by this trade, for its share of cost and fee.
        position.break_even_cost = ceil_div((cost + fee) * abs(left_lots), abs(signed_lots))
    elif left_lots:
        position.break_even_cost += cost + fee
    else:
        position.break_even_cost = 0
    position.entry_cost += cost + realised
    assert left_lots != 0 or position.entry_cost == 0, (account.account_id, position.entry_cost)
    if position.mode is ISOLATED:
        position.bucket += realised - fee
    else:
        account.wallet += realised - fee


def credit(account: Account, position: Position, amount: int) -> None:
    """Let the bucket that a position stands on receive money (negative: pay)."""
    if position.mode is ISOLATED:
        position.bucket += amount
    else:
        account.wallet += amount


def hold(market: Market, account: Account, position: Position) -> None:
    """Note whether a position whose size may have changed is open."""
    if position.size_lots:
        market.holders[account.account_id, position.leg] = position
    else:
        market.holders.pop((account.account_id, position.leg), None)


def move_margin(account: Account, position: Position, amount: int) -> None:
    """Move money from the wallet to the bucket of an isolated position (negative: back)."""
    assert position.mode is ISOLATED, account.account_id
    position.bucket += amount
    account.wallet -= amount
