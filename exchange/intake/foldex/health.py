"""How far each bucket of an account is from being liquidated. All of it from `aggregate.margin`.

Money has eight digits and is exact; ratios are rounded up, prices that a bucket dies at half-even to eight
digits. Distances are from the mark: negative below it, positive above.
"""

import msgspec

from events.values import CROSS, ISOLATED
from exchange.aggregate.account import Account, Position
from exchange.aggregate.liquidation_price import Fraction, liquidation_price_of, price_amount
from exchange.aggregate.margin import (
    Survey,
    initial_margin,
    maintenance,
    margin_ratio,
    position_value,
    survey,
    unrealised,
)
from exchange.aggregate.units import RATE_ONE, round_half_even
from exchange.decimals import format_fixed, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.service import Intake
from exchange.intake.trade.position_prices import entry_price_text

PERCENT = 100


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the answers: frozen, decimals as strings."""


class PositionHealth(Shape, frozen=True):
    """An open position. Without a price at which it is liquidated the last three are null."""

    symbol: str
    position_side: str
    position_amt: str
    leverage: int
    entry_price: str
    mark_price: str
    notional: str
    unrealized_profit: str
    initial_margin: str
    maint_margin: str
    liquidation_price: str | None
    distance: str | None
    distance_percent: str | None


class BucketHealth(Shape, frozen=True):
    """What a loss of its positions can reach: the wallet (CROSS), or one position's own margin (ISOLATED).

    At a `margin_ratio` of 1 it is liquidated; null where there is no equity.
    """

    margin_mode: str
    wallet: str
    equity: str
    maint_margin: str
    margin_ratio: str | None
    positions: list[PositionHealth]


class AccountHealth(Shape, frozen=True):
    """An account's buckets, the wallet's first, as of entry `seq`; what orders may use, what may leave."""

    seq: int
    available_balance: str
    withdrawable: str
    buckets: list[BucketHealth]


async def margin_health(intake: Intake, account_id: int, values: Values) -> AccountHealth:
    """Return how far each bucket is from being liquidated, in equity, price and percent."""
    return health_of(intake.account(account_id), intake.state.seq)


def health_of(account: Account, seq: int) -> AccountHealth:
    """Return the health of an account."""
    pool = survey(account)
    held = [position for position in account.positions.values() if position.size_lots]
    cross = BucketHealth(
        margin_mode="CROSS",
        wallet=money_text(account.wallet),
        equity=money_text(pool.equity),
        maint_margin=money_text(pool.maintenance),
        margin_ratio=_ratio_text(pool.equity, pool.maintenance),
        positions=[_row(account, position, pool) for position in held if position.mode is CROSS],
    )
    own = [_own_bucket(account, position, pool) for position in held if position.mode is ISOLATED]
    return AccountHealth(
        seq=seq,
        available_balance=money_text(max(0, pool.free)),
        withdrawable=money_text(max(0, pool.transferable)),
        buckets=[cross, *own],
    )


def _own_bucket(account: Account, position: Position, pool: Survey) -> BucketHealth:
    equity = position.bucket + unrealised(position)
    return BucketHealth(
        margin_mode="ISOLATED",
        wallet=money_text(position.bucket),
        equity=money_text(equity),
        maint_margin=money_text(maintenance(position)),
        margin_ratio=_ratio_text(equity, maintenance(position)),
        positions=[_row(account, position, pool)],
    )


def _row(account: Account, position: Position, pool: Survey) -> PositionHealth:
    market = position.market
    price = liquidation_price_of(account, position, pool)
    is_mortal = price is not None and price[0] > 0
    return PositionHealth(
        symbol=market.symbol,
        position_side=position.leg.name,
        position_amt=lots_text(market.spec, position.size_lots),
        leverage=position.leverage,
        entry_price=entry_price_text(position),
        mark_price=price_text(market.spec, market.mark_ticks),
        notional=money_text(position_value(position)),
        unrealized_profit=money_text(unrealised(position)),
        initial_margin=money_text(initial_margin(position)),
        maint_margin=money_text(maintenance(position)),
        liquidation_price=_amount_text(price, market.spec.tick_size) if is_mortal else None,
        distance=_amount_text(_from_mark(price, market.mark_ticks), market.spec.tick_size)
        if is_mortal
        else None,
        distance_percent=_percent_text(price, market.mark_ticks) if is_mortal else None,
    )


def _from_mark(price: Fraction | None, mark_ticks: int) -> Fraction:
    assert price is not None
    return price[0] - mark_ticks * price[1], price[1]


def _amount_text(price: Fraction | None, tick_size: int) -> str:
    assert price is not None
    return format_fixed(price_amount(price, tick_size))


def _percent_text(price: Fraction | None, mark_ticks: int) -> str:
    ticks, denominator = _from_mark(price, mark_ticks)
    return format_fixed(round_half_even(ticks * PERCENT * RATE_ONE, denominator * mark_ticks))


def _ratio_text(equity: int, maintenance_margin: int) -> str | None:
    ratio = margin_ratio(equity, maintenance_margin)
    return None if ratio is None else format_fixed(ratio)
