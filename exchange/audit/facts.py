"""What a state says, without what the exchange makes of it: sizes, costs, money and marks, as fractions.

This is where the second implementation of margin (`exact`) gets its figures. Sizes, entry costs, wallets,
buckets and marks are facts of the log: `apply` adds up what the events say. Everything that is computed from
them, profit, maintenance, equity, prices, is computed here and in `exact` anew.
"""

from fractions import Fraction

from events.values import ISOLATED, Leg
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.audit.exact import UNIT, Contract, Holding, Tier, Wealth

Key = tuple[str, str]
_SCALE = 10**8


def key_of(position: Position) -> Key:
    """Return market and leg of a position, as `Wealth` names its holdings."""
    return position.market.symbol, position.leg.name


def contract_of(market: Market) -> Contract:
    """Return a market at its mark."""
    tiers = tuple(
        Tier(cap=row.cap * UNIT, rate=row.maintenance_rate * UNIT, max_leverage=row.max_leverage)
        for row in market.spec.brackets
    )
    return Contract(
        mark=market.mark_ticks * market.spec.tick_size * UNIT,
        taker_fee=market.spec.taker_fee * UNIT,
        tiers=tiers,
    )


def wealth_of(account: Account) -> Wealth:
    """Return an account with its open positions."""
    holdings = {}
    for position in account.positions.values():
        if position.size_lots:
            holdings[key_of(position)] = Holding(
                contract=contract_of(position.market),
                size=position.size_lots * position.market.spec.lot_size * UNIT,
                cost=position.entry_cost * UNIT,
                leverage=position.leverage,
                isolated=position.mode is ISOLATED,
                bucket=position.bucket * UNIT,
            )
    return Wealth(wallet=account.wallet * UNIT, holdings=holdings)


def bucket_keys(account: Account, market: str, leg: Leg) -> list[Key]:
    """Return the open positions of a bucket: that of an isolated position, or, market "", the cross pool."""
    found = []
    for position in account.positions.values():
        if position.size_lots == 0:
            continue
        if market:
            is_meant = position.mode is ISOLATED and key_of(position) == (market, leg.name)
        else:
            is_meant = position.mode is not ISOLATED
        if is_meant:
            found.append(key_of(position))
    return found


def bucket_standing(account: Account, market: str, leg: Leg) -> tuple[Fraction, Fraction]:
    """Return equity and maintenance of a bucket in quote; without open positions its money, and 0."""
    keys = bucket_keys(account, market, leg)
    if keys:
        wealth = wealth_of(account)
        return wealth.bucket_equity(keys[0]), wealth.bucket_maintenance(keys[0])
    if not market:
        return account.wallet * UNIT, Fraction(0)
    own = next((p for p in account.positions.values() if key_of(p) == (market, leg.name)), None)
    return (own.bucket if own is not None else 0) * UNIT, Fraction(0)


def value_of(position: Position) -> int:
    """Return size × mark in money units, signed."""
    spec = position.market.spec
    return position.size_lots * position.market.mark_ticks * (spec.tick_size * spec.lot_size // _SCALE)


def fund_worth(state: Exchange) -> int:
    """Return what the insurance fund is worth at mark, in money units: wallet, allotments, positions."""
    fund = state.accounts[FUND_ACCOUNT_ID]
    return fund.wallet + sum(p.bucket + value_of(p) - p.entry_cost for p in fund.positions.values())


def units_of(amount: Fraction) -> int:
    """Return quote as money units; it must be a whole number of them."""
    units = amount / UNIT
    assert units.denominator == 1, amount
    return units.numerator
