"""What an account's margin comes to, as decimal strings.

Money has eight digits and is exact. Prices are fractions, rounded half-even to eight digits; ratios are
rounded up. The rules themselves use neither.
"""

from collections.abc import Sequence
from typing import Any

from events.events import MarginModeSet
from events.values import ISOLATED
from exchange.aggregate.account import Account, Position
from exchange.aggregate.liquidation_price import (
    Fraction,
    bankruptcy_price,
    liquidation_price_of,
    price_amount,
)
from exchange.aggregate.margin import (
    Survey,
    initial_margin,
    maintenance,
    margin_ratio,
    position_value,
    survey,
    unrealised,
)
from exchange.calc.account_file import Scenario
from exchange.decimals import format_fixed, lots_text, money_text


def margin_report(scenario: Scenario) -> dict[str, Any]:
    """Return the figures of the account that a file describes."""
    return margin_figures(scenario.account, scenario.open_positions)


def margin_figures(account: Account, open_positions: Sequence[Position]) -> dict[str, Any]:
    """Return the cross pool's figures, and a row for each open position.

    equity = wallet + cross uPnL; initial_margin is what cross positions, their orders and the orders of
    isolated markets require of it, maintenance_margin that of the cross positions.
    """
    pool = survey(account)
    return {
        "equity": money_text(pool.equity),
        "initial_margin": money_text(pool.required + pool.reserved),
        "maintenance_margin": money_text(pool.maintenance),
        "margin_ratio": _fixed_text(margin_ratio(pool.equity, pool.maintenance)),
        "available": money_text(max(0, pool.free)),
        "withdrawable": money_text(max(0, pool.transferable)),
        "positions": [_row(account, position, pool) for position in open_positions],
    }


def collateral_report(scenario: Scenario) -> dict[str, Any]:
    """Return where the money lies: the wallet, and what each open position has."""
    return {
        "wallet": money_text(scenario.account.wallet),
        "buckets": [
            {
                "market": position.market.symbol,
                "leg": position.leg.name,
                "margin_mode": position.mode.name.lower(),
                "leverage": position.leverage,
                "bucket": money_text(position.bucket) if position.mode is ISOLATED else None,
            }
            for position in scenario.open_positions
        ],
    }


def change_report(scenario: Scenario, event: MarginModeSet) -> dict[str, Any]:
    """Return what a switch of the margin mode moves, or would: the wallet and each leg before and after.

    `margin_ratio` and `liquidation_price` are those of what the leg stands on, its bucket or the pool.
    """
    spec = scenario.state.markets[event.market].spec
    return {
        "wallet_before": money_text(event.wallet_before),
        "wallet_after": money_text(event.wallet_after),
        "legs": [
            {
                "leg": leg.leg.name,
                "size": lots_text(spec, leg.size_lots),
                "bucket_before": money_text(leg.bucket_before),
                "bucket_after": money_text(leg.bucket_after),
                "margin_ratio_before": _fixed_text(leg.ratio_before),
                "margin_ratio_after": _fixed_text(leg.ratio_after),
                "liquidation_price_before": _fixed_text(leg.liquidation_price_before),
                "liquidation_price_after": _fixed_text(leg.liquidation_price_after),
            }
            for leg in event.legs
        ],
    }


def _row(account: Account, position: Position, pool: Survey) -> dict[str, Any]:
    market = position.market
    notional = abs(position_value(position))
    equity, total = pool.equity, pool.maintenance
    if position.mode is ISOLATED:
        equity, total = position.bucket + unrealised(position), maintenance(position)
    # The share of the bucket's equity that is the position's, E × MM_i / Σ MM.
    bankruptcy = bankruptcy_price(position, equity * maintenance(position), total)
    return {
        "market": market.symbol,
        "leg": position.leg.name,
        "notional": money_text(notional),
        "bracket": market.brackets.containing(notional),
        "unrealized_pnl": money_text(unrealised(position)),
        "initial_margin": money_text(initial_margin(position)),
        "maintenance_margin": money_text(maintenance(position)),
        "margin_ratio": _fixed_text(margin_ratio(equity, total)),
        "liquidation_price": _price_text(
            liquidation_price_of(account, position, pool), market.spec.tick_size
        ),
        "bankruptcy_price": _price_text(bankruptcy, market.spec.tick_size),
    }


def _fixed_text(value: int | None) -> str | None:
    return None if value is None else format_fixed(value)


def _price_text(price: Fraction | None, tick_size: int) -> str | None:
    if price is None or price[0] <= 0:
        return None
    return format_fixed(price_amount(price, tick_size))
