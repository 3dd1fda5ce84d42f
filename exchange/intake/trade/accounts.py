"""What an account holds: positions with their margin, and the totals. All of it from `aggregate.margin`."""

from typing import Any

from events.values import MarginMode
from exchange.aggregate import margin
from exchange.aggregate.account import Account, Position
from exchange.aggregate.liquidation_price import liquidation_price_of
from exchange.aggregate.units import ceil_div, floor_div
from exchange.decimals import average_price_text, lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.service import Intake

ASSET_DEFAULT = "USDT"


async def position_risk(intake: Intake, account_id: int, values: Values) -> object:
    """Return the position of one market, or of every market, flat ones too."""
    account = intake.account(account_id)
    symbol = values.get("symbol")
    markets = [intake.market(symbol)] if symbol is not None else list(intake.state.markets.values())
    return [_risk_row(account, account.position(market), intake.now_ms) for market in markets]


async def account_information(intake: Intake, account_id: int, values: Values) -> object:
    """Return an account's totals, its asset and its positions."""
    account = intake.account(account_id)
    markets = intake.state.markets.values()
    positions = [account.position(market) for market in markets]
    totals = _Totals(account, positions)
    asset = next((market.spec.quote for market in markets), ASSET_DEFAULT)
    now_ms = intake.now_ms
    return {
        "feeTier": 0,
        "feeBurn": False,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": True,
        "updateTime": 0,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
        "totalInitialMargin": money_text(totals.position_initial + totals.order_initial),
        "totalMaintMargin": money_text(totals.maintenance),
        "totalWalletBalance": money_text(totals.wallet),
        "totalUnrealizedProfit": money_text(totals.unrealised),
        "totalMarginBalance": money_text(totals.wallet + totals.unrealised),
        "totalPositionInitialMargin": money_text(totals.position_initial),
        "totalOpenOrderInitialMargin": money_text(totals.order_initial),
        "totalCrossWalletBalance": money_text(account.wallet),
        "totalCrossUnPnl": money_text(totals.pool.unrealised),
        "availableBalance": money_text(max(0, totals.pool.free)),
        "maxWithdrawAmount": money_text(max(0, totals.pool.transferable)),
        "assets": [totals.asset_row(asset, account, now_ms)],
        "positions": [_account_row(position, now_ms) for position in positions],
    }


class _Totals:
    """The sums of an account over all its positions, in money units."""

    def __init__(self, account: Account, positions: list[Position]) -> None:
        self.pool = margin.survey(account)
        self.wallet = account.wallet + sum(position.bucket for position in positions)
        self.unrealised = sum(map(margin.unrealised, positions))
        self.maintenance = sum(map(margin.maintenance, positions))
        self.position_initial = sum(map(margin.initial_margin, positions))
        self.order_initial = sum(map(_order_margin, positions))

    def asset_row(self, asset: str, account: Account, now_ms: int) -> dict[str, Any]:
        """Return the row of the one asset there is. Clients skip assets that never changed."""
        return {
            "asset": asset,
            "walletBalance": money_text(self.wallet),
            "unrealizedProfit": money_text(self.unrealised),
            "marginBalance": money_text(self.wallet + self.unrealised),
            "maintMargin": money_text(self.maintenance),
            "initialMargin": money_text(self.position_initial + self.order_initial),
            "positionInitialMargin": money_text(self.position_initial),
            "openOrderInitialMargin": money_text(self.order_initial),
            "crossWalletBalance": money_text(account.wallet),
            "crossUnPnl": money_text(self.pool.unrealised),
            "availableBalance": money_text(max(0, self.pool.free)),
            "maxWithdrawAmount": money_text(max(0, self.pool.transferable)),
            "marginAvailable": True,
            "updateTime": now_ms,
        }


def _order_margin(position: Position) -> int:
    """Return what the open orders of a market add to its requirement."""
    with_none = margin.requirement_of(position, position.size_lots, position.leverage, 0, 0, 0)
    return margin.standing(position).required - with_none


def _account_row(position: Position, now_ms: int) -> dict[str, Any]:
    market = position.market
    initial, orders = margin.initial_margin(position), _order_margin(position)
    return {
        "symbol": market.symbol,
        "initialMargin": money_text(initial + orders),
        "maintMargin": money_text(margin.maintenance(position)),
        "unrealizedProfit": money_text(margin.unrealised(position)),
        "positionInitialMargin": money_text(initial),
        "openOrderInitialMargin": money_text(orders),
        "leverage": str(position.leverage),
        "isolated": position.mode is MarginMode.ISOLATED,
        "entryPrice": average_price_text(market.spec, position.entry_cost, position.size_lots),
        "breakEvenPrice": average_price_text(market.spec, position.entry_cost, position.size_lots),
        "maxNotional": money_text(market.brackets.cap_at(position.leverage)),
        "bidNotional": money_text(position.bid_value * market.unit),
        "askNotional": money_text(position.ask_value * market.unit),
        "positionSide": position.leg.name,
        "positionAmt": lots_text(market.spec, position.size_lots),
        "notional": money_text(margin.position_value(position)),
        "isolatedWallet": money_text(position.bucket),
        "updateTime": now_ms if position.size_lots else 0,
    }


def _risk_row(account: Account, position: Position, now_ms: int) -> dict[str, Any]:
    market = position.market
    isolated = position.mode is MarginMode.ISOLATED
    entry = average_price_text(market.spec, position.entry_cost, position.size_lots)
    return {
        "symbol": market.symbol,
        "positionAmt": lots_text(market.spec, position.size_lots),
        "entryPrice": entry,
        "breakEvenPrice": entry,
        "markPrice": price_text(market.spec, market.mark_ticks),
        "unRealizedProfit": money_text(margin.unrealised(position)),
        "liquidationPrice": liquidation_price_text(account, position),
        "leverage": str(position.leverage),
        "maxNotionalValue": money_text(market.brackets.cap_at(position.leverage)),
        "marginType": "isolated" if isolated else "cross",
        "isolatedMargin": money_text(margin.bucket_equity(account, position) if isolated else 0),
        "isAutoAddMargin": "false",
        "positionSide": position.leg.name,
        "notional": money_text(margin.position_value(position)),
        "isolatedWallet": money_text(position.bucket),
        "updateTime": now_ms if position.size_lots else 0,
    }


def liquidation_price_text(account: Account, position: Position) -> str:
    """Return the mark at which a position is liquidated, to the tick on the side that comes first; or "0"."""
    price = liquidation_price_of(account, position)
    if price is None:
        return "0"
    numerator, denominator = price
    divide = ceil_div if numerator < position.market.mark_ticks * denominator else floor_div
    return price_text(position.market.spec, divide(numerator, denominator))
