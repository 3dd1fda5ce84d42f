"""What stands behind the markets: the insurance fund, the risk of deleveraging, collateral assets."""

from typing import Final

from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.margin import bucket_equity
from exchange.aggregate.market import Market
from exchange.aggregate.units import RATE_ONE
from exchange.decimals import format_fixed, money_text
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_SYMBOL
from exchange.intake.market.answers import AdlRisk, AssetIndex, InsuranceAsset, InsuranceBalance
from exchange.intake.market.data import one_or_all
from exchange.intake.service import Intake

# The fund's part of the open interest's value (1e-8) from which the risk is low, and medium.
LOW_RISK_COVER: Final = RATE_ONE // 100
MEDIUM_RISK_COVER: Final = RATE_ONE // 500


async def insurance_balance(
    intake: Intake, account_id: int, values: Values
) -> InsuranceBalance | list[InsuranceBalance]:
    """Return what the fund has for each market, its position there included, or for one."""
    return one_or_all(intake, values, _balance)


async def adl_risk(intake: Intake, account_id: int, values: Values) -> AdlRisk | list[AdlRisk]:
    """Return how near one market, or each, is to deleveraging.

    By how much of the open interest's value the fund has for the market: 1 % is low, 0.2 % is medium.
    """
    return one_or_all(intake, values, _risk)


async def asset_index(intake: Intake, account_id: int, values: Values) -> AssetIndex | list[AssetIndex]:
    """Return what the collateral assets count for: themselves, since there is no multi-assets mode here."""
    assets = dict.fromkeys(market.spec.quote for market in intake.state.markets.values())
    rows = {f"{asset}USD": _index(f"{asset}USD", intake.now_ms) for asset in assets}
    if "symbol" not in values:
        return list(rows.values())
    row = rows.get(values["symbol"])
    if row is None:
        raise BAD_SYMBOL.error()
    return row


def _equity(intake: Intake, market: Market) -> int:
    fund = intake.state.accounts[FUND_ACCOUNT_ID]
    return bucket_equity(fund, fund.position(market))


def _balance(intake: Intake, market: Market) -> InsuranceBalance:
    asset = InsuranceAsset(
        asset=market.spec.quote,
        margin_balance=money_text(_equity(intake, market)),
        update_time=intake.now_ms,
    )
    return InsuranceBalance(symbols=[market.symbol], assets=[asset])


def _risk(intake: Intake, market: Market) -> AdlRisk:
    value = market.open_interest_lots * market.mark_ticks * market.unit
    cover = _equity(intake, market) * RATE_ONE
    if cover >= value * LOW_RISK_COVER:
        risk = "low"
    elif cover >= value * MEDIUM_RISK_COVER:
        risk = "medium"
    else:
        risk = "high"
    return AdlRisk(symbol=market.symbol, adl_risk=risk, update_time=intake.now_ms)


def _index(symbol: str, now_ms: int) -> AssetIndex:
    one, nothing = format_fixed(RATE_ONE), format_fixed(0)
    return AssetIndex(
        symbol=symbol,
        time=now_ms,
        index=one,
        bid_buffer=nothing,
        ask_buffer=nothing,
        bid_rate=one,
        ask_rate=one,
        auto_exchange_bid_buffer=nothing,
        auto_exchange_ask_buffer=nothing,
        auto_exchange_bid_rate=one,
        auto_exchange_ask_rate=one,
    )
