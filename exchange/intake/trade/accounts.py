"""What an account holds: positions with their margin, and the totals. All of it from `aggregate.margin`."""

from typing import Any

from events.values import ISOLATED, SELL, Side
from exchange.aggregate import margin
from exchange.aggregate.account import Account, Position
from exchange.aggregate.liquidation_price import liquidation_price_of
from exchange.aggregate.units import ceil_div, floor_div
from exchange.decimals import lots_text, money_text, price_text
from exchange.intake.endpoint import Values
from exchange.intake.service import Intake
from exchange.intake.trade.answers import (
    AccountAsset,
    AccountConfig,
    AccountPositionV2,
    AccountPositionV3,
    AccountV2,
    AccountV3,
    AdlRow,
    BalanceRow,
    PositionRiskV2,
    PositionRiskV3,
)
from exchange.intake.trade.position_prices import break_even_text, entry_price_text

ASSET_DEFAULT = "USDT"
QUANTILES = 5


async def position_risk_v2(intake: Intake, account_id: int, values: Values) -> list[PositionRiskV2]:
    """Return the positions of one market, or of every market, flat ones too."""
    account = intake.account(account_id)
    return [_risk_v2(intake, account, position) for position in _positions(intake, account, values)]


async def position_risk_v3(intake: Intake, account_id: int, values: Values) -> list[PositionRiskV3]:
    """Return the positions that are open or have orders, of one market or of all."""
    account = intake.account(account_id)
    return [
        _risk_v3(intake, account, position)
        for position in _positions(intake, account, values)
        if _is_used(position)
    ]


async def account_v2(intake: Intake, account_id: int, values: Values) -> AccountV2:
    """Return an account's totals, its asset and its positions in every market."""
    account = intake.account(account_id)
    positions = _positions(intake, account, {})
    totals = _Totals(intake, account, positions)
    return AccountV2(
        **totals.fields(),
        fee_tier=0,
        fee_burn=False,
        can_trade=account_id not in intake.state.blocked,
        can_deposit=True,
        can_withdraw=True,
        update_time=0,
        multi_assets_margin=False,
        trade_group_id=-1,
        positions=[_account_row_v2(intake, position, account_id) for position in positions],
    )


async def account_v3(intake: Intake, account_id: int, values: Values) -> AccountV3:
    """Return an account's totals, its asset and the positions that are open or have orders."""
    account = intake.account(account_id)
    positions = _positions(intake, account, {})
    totals = _Totals(intake, account, positions)
    return AccountV3(
        **totals.fields(),
        positions=[
            _account_row_v3(intake, account, position) for position in positions if _is_used(position)
        ],
    )


async def balances(intake: Intake, account_id: int, values: Values) -> list[BalanceRow]:
    """Return what an account has of its one asset."""
    account = intake.account(account_id)
    asset = _Totals(intake, account, _positions(intake, account, {})).asset
    return [
        BalanceRow(
            account_alias=f"foldex-{account_id}",
            asset=asset.asset,
            balance=asset.wallet_balance,
            cross_wallet_balance=asset.cross_wallet_balance,
            cross_un_pnl=asset.cross_un_pnl,
            available_balance=asset.available_balance,
            max_withdraw_amount=asset.max_withdraw_amount,
            margin_available=asset.margin_available,
            update_time=asset.update_time,
        )
    ]


async def account_config(intake: Intake, account_id: int, values: Values) -> AccountConfig:
    """Return what an account may do, and its modes."""
    return AccountConfig(
        fee_tier=0,
        can_trade=account_id not in intake.state.blocked,
        can_deposit=True,
        can_withdraw=True,
        dual_side_position=intake.account(account_id).hedge,
        update_time=0,
        multi_assets_margin=False,
        trade_group_id=-1,
    )


async def adl_quantiles(intake: Intake, account_id: int, values: Values) -> list[AdlRow]:
    """Return where an account's open positions stand in the order of deleveraging, 4 being first.

    In hedge mode HEDGE only says that this is the mode, as at Binance.
    """
    account = intake.account(account_id)
    rows: dict[str, dict[str, int]] = {}
    for position in _positions(intake, account, values):
        if position.size_lots:
            row = rows.setdefault(position.market.symbol, {})
            row[position.leg.name] = adl_quantile(intake, account, position)
    if account.hedge:
        rows = {symbol: {"LONG": 0, "SHORT": 0, "HEDGE": 0} | row for symbol, row in rows.items()}
    else:
        rows = {symbol: {"LONG": 0, "SHORT": 0, "BOTH": 0} | row for symbol, row in rows.items()}
    return [AdlRow(symbol=symbol, adl_quantile=row) for symbol, row in rows.items()]


def adl_quantile(intake: Intake, account: Account, position: Position) -> int:
    """Return the fifth of its side that a position stands in, 4 being deleveraged first, 0 when flat."""
    if not position.size_lots:
        return 0
    side = Side.BUY if position.size_lots > 0 else SELL
    place, count = intake.places.of(intake.state, position.market, side, (account.account_id, position.leg))
    return QUANTILES - 1 - place * QUANTILES // count if count else 0


def liquidation_price_text(account: Account, position: Position) -> str:
    """Return the mark at which a position is liquidated, to the tick on the side that comes first; or "0"."""
    price = liquidation_price_of(account, position)
    if price is None:
        return "0"
    numerator, denominator = price
    divide = ceil_div if numerator < position.market.mark_ticks * denominator else floor_div
    return price_text(position.market.spec, divide(numerator, denominator))


class _Totals:
    """The sums of an account over all its positions, in money units."""

    def __init__(self, intake: Intake, account: Account, positions: list[Position]) -> None:
        pool = margin.survey(account)
        wallet = account.wallet + sum(position.bucket for position in positions)
        unrealised = sum(map(margin.unrealised, positions))
        initial = sum(map(margin.initial_margin, positions))
        orders = sum(map(_order_margin, positions))
        self.asset = AccountAsset(
            asset=next((position.market.spec.quote for position in positions), ASSET_DEFAULT),
            wallet_balance=money_text(wallet),
            unrealized_profit=money_text(unrealised),
            margin_balance=money_text(wallet + unrealised),
            maint_margin=money_text(sum(map(margin.maintenance, positions))),
            initial_margin=money_text(initial + orders),
            position_initial_margin=money_text(initial),
            open_order_initial_margin=money_text(orders),
            cross_wallet_balance=money_text(account.wallet),
            cross_un_pnl=money_text(pool.unrealised),
            available_balance=money_text(max(0, pool.free)),
            max_withdraw_amount=money_text(max(0, pool.transferable)),
            margin_available=True,
            # Clients skip assets that never changed.
            update_time=intake.past.ledger.money_changed_ms(account.account_id) or intake.now_ms,
        )

    def fields(self) -> dict[str, Any]:
        """Return the totals by field: those of the one asset there is."""
        asset = self.asset
        return {
            "total_initial_margin": asset.initial_margin,
            "total_maint_margin": asset.maint_margin,
            "total_wallet_balance": asset.wallet_balance,
            "total_unrealized_profit": asset.unrealized_profit,
            "total_margin_balance": asset.margin_balance,
            "total_position_initial_margin": asset.position_initial_margin,
            "total_open_order_initial_margin": asset.open_order_initial_margin,
            "total_cross_wallet_balance": asset.cross_wallet_balance,
            "total_cross_un_pnl": asset.cross_un_pnl,
            "available_balance": asset.available_balance,
            "max_withdraw_amount": asset.max_withdraw_amount,
            "assets": [asset],
        }


def _positions(intake: Intake, account: Account, values: Values) -> list[Position]:
    """Return an account's records in the market asked for, or in all: one a leg of its position mode."""
    symbol = values.get("symbol")
    markets = [intake.market(symbol)] if symbol is not None else intake.state.markets.values()
    return [position for market in markets for position in account.positions_in(market)]


def _is_used(position: Position) -> bool:
    return position.size_lots != 0 or position.order_count != 0


def _order_margin(position: Position) -> int:
    """Return what the open orders of a market add to its requirement."""
    with_none = margin.requirement_of(position, position.size_lots, position.leverage, 0, 0, 0)
    return margin.standing(position).required - with_none


def _isolated_margin(account: Account, position: Position) -> int:
    return margin.bucket_equity(account, position) if position.mode is ISOLATED else 0


def _updated_ms(intake: Intake, account_id: int, position: Position) -> int:
    known = intake.past.ledger.position_changed_ms(account_id, position.market.symbol, position.leg)
    return known or (intake.now_ms if position.size_lots else 0)


def _account_row_v2(intake: Intake, position: Position, account_id: int) -> AccountPositionV2:
    market = position.market
    initial, orders = margin.initial_margin(position), _order_margin(position)
    return AccountPositionV2(
        symbol=market.symbol,
        initial_margin=money_text(initial + orders),
        maint_margin=money_text(margin.maintenance(position)),
        unrealized_profit=money_text(margin.unrealised(position)),
        position_initial_margin=money_text(initial),
        open_order_initial_margin=money_text(orders),
        leverage=str(position.leverage),
        isolated=position.mode is ISOLATED,
        entry_price=entry_price_text(position),
        break_even_price=break_even_text(position),
        max_notional=money_text(market.brackets.cap_at(position.leverage)),
        bid_notional=money_text(position.bid_value * market.unit),
        ask_notional=money_text(position.ask_value * market.unit),
        position_side=position.leg.name,
        position_amt=lots_text(market.spec, position.size_lots),
        notional=money_text(margin.position_value(position)),
        isolated_wallet=money_text(position.bucket),
        update_time=_updated_ms(intake, account_id, position),
    )


def _account_row_v3(intake: Intake, account: Account, position: Position) -> AccountPositionV3:
    initial, orders = margin.initial_margin(position), _order_margin(position)
    return AccountPositionV3(
        symbol=position.market.symbol,
        position_side=position.leg.name,
        position_amt=lots_text(position.market.spec, position.size_lots),
        unrealized_profit=money_text(margin.unrealised(position)),
        isolated_margin=money_text(_isolated_margin(account, position)),
        notional=money_text(margin.position_value(position)),
        isolated_wallet=money_text(position.bucket),
        initial_margin=money_text(initial + orders),
        maint_margin=money_text(margin.maintenance(position)),
        update_time=_updated_ms(intake, account.account_id, position),
        leverage=str(position.leverage),
        isolated=position.mode is ISOLATED,
    )


def _risk_v2(intake: Intake, account: Account, position: Position) -> PositionRiskV2:
    market = position.market
    return PositionRiskV2(
        symbol=market.symbol,
        position_amt=lots_text(market.spec, position.size_lots),
        entry_price=entry_price_text(position),
        break_even_price=break_even_text(position),
        mark_price=price_text(market.spec, market.mark_ticks),
        un_realized_profit=money_text(margin.unrealised(position)),
        liquidation_price=liquidation_price_text(account, position),
        leverage=str(position.leverage),
        max_notional_value=money_text(market.brackets.cap_at(position.leverage)),
        margin_type=_mode_name(position),
        isolated_margin=money_text(_isolated_margin(account, position)),
        is_auto_add_margin="false",
        position_side=position.leg.name,
        notional=money_text(margin.position_value(position)),
        isolated_wallet=money_text(position.bucket),
        update_time=_updated_ms(intake, account.account_id, position),
    )


def _risk_v3(intake: Intake, account: Account, position: Position) -> PositionRiskV3:
    market = position.market
    initial, orders = margin.initial_margin(position), _order_margin(position)
    return PositionRiskV3(
        symbol=market.symbol,
        position_side=position.leg.name,
        position_amt=lots_text(market.spec, position.size_lots),
        entry_price=entry_price_text(position),
        break_even_price=break_even_text(position),
        mark_price=price_text(market.spec, market.mark_ticks),
        un_realized_profit=money_text(margin.unrealised(position)),
        liquidation_price=liquidation_price_text(account, position),
        isolated_margin=money_text(_isolated_margin(account, position)),
        notional=money_text(margin.position_value(position)),
        margin_asset=market.spec.quote,
        isolated_wallet=money_text(position.bucket),
        initial_margin=money_text(initial + orders),
        maint_margin=money_text(margin.maintenance(position)),
        position_initial_margin=money_text(initial),
        open_order_initial_margin=money_text(orders),
        adl=adl_quantile(intake, account, position),
        bid_notional=money_text(position.bid_value * market.unit),
        ask_notional=money_text(position.ask_value * market.unit),
        update_time=_updated_ms(intake, account.account_id, position),
        leverage=str(position.leverage),
        margin_type=_mode_name(position),
    )


def _mode_name(position: Position) -> str:
    return "isolated" if position.mode is ISOLATED else "cross"
