"""What an account sets and moves: leverage, margin mode, position mode, the margin of a position."""

from events.commands import AdjustMargin, SetLeverage, SetMarginMode, SetPositionMode
from events.values import ISOLATED, Leg, RejectCode
from exchange.aggregate.units import AMOUNT_MAX
from exchange.decimals import DecimalError, DecimalPrecisionError, money_text, parse_money
from exchange.intake.endpoint import Values
from exchange.intake.errors import (
    AMOUNT_NOT_POSITIVE,
    BAD_PARAMETER,
    CROSS_INSUFFICIENT,
    LEVERAGE_NOT_REDUCIBLE,
    MULTI_ASSETS_REFUSED,
    MULTI_ASSETS_UNCHANGED,
    PRECISION,
    RefusedError,
)
from exchange.intake.service import Intake
from exchange.intake.trade.answers import (
    Done,
    FeeBurn,
    LeverageSet,
    MarginMoved,
    MarginRow,
    MultiAssets,
    PositionMode,
    SymbolConfig,
)
from exchange.intake.trade.queries import chosen

SUCCESS = Done(code=200, msg="success")
ADDED, REMOVED = 1, 2


async def set_leverage(intake: Intake, account_id: int, values: Values) -> LeverageSet:
    """Set the leverage in a market.

    Lowering it under an open isolated position is refused as at Binance, though the exchange itself could
    top that up.
    """
    market = intake.market(values["symbol"])
    leverage: int = values["leverage"]
    for position in intake.account(account_id).positions_in(market):
        if position.mode is ISOLATED and position.size_lots and 0 < leverage < position.leverage:
            raise LEVERAGE_NOT_REDUCIBLE.error()
    await intake.ask(SetLeverage(account_id=account_id, market=market.symbol, leverage=leverage))
    return LeverageSet(
        symbol=market.symbol,
        leverage=leverage,
        max_notional_value=money_text(market.brackets.cap_at(leverage)),
    )


async def set_margin_type(intake: Intake, account_id: int, values: Values) -> Done:
    """Set the margin mode in a market, where nothing is open."""
    symbol = intake.market(values["symbol"]).symbol
    await intake.ask(
        SetMarginMode(account_id=account_id, market=symbol, mode=values["marginType"], only_flat=True)
    )
    return SUCCESS


async def symbol_config(intake: Intake, account_id: int, values: Values) -> list[SymbolConfig]:
    """Return margin mode and leverage, of one market or of all."""
    symbol = values.get("symbol")
    markets = [intake.market(symbol)] if symbol is not None else intake.state.markets.values()
    account = intake.account(account_id)
    rows = [(market, account.positions_in(market)[0]) for market in markets]
    return [
        SymbolConfig(
            symbol=market.symbol,
            margin_type="ISOLATED" if position.mode is ISOLATED else "CROSSED",
            is_auto_add_margin=False,
            leverage=position.leverage,
            max_notional_value=money_text(market.brackets.cap_at(position.leverage)),
        )
        for market, position in rows
    ]


async def move_margin(intake: Intake, account_id: int, values: Values) -> MarginMoved:
    """Add margin to an isolated position, or remove some."""
    kind: int = values["type"]
    if kind not in (ADDED, REMOVED):
        raise BAD_PARAMETER.error(name="type")
    symbol = intake.market(values["symbol"]).symbol
    amount = _amount(values["amount"])
    command = AdjustMargin(
        account_id=account_id,
        market=symbol,
        amount=amount if kind == ADDED else -amount,
        leg=values.get("positionSide", Leg.BOTH),
    )
    try:
        await intake.ask(command)
    except RefusedError as error:
        if error.rejected.code is RejectCode.INSUFFICIENT_BALANCE:
            raise CROSS_INSUFFICIENT.error() from None
        raise
    return MarginMoved(
        amount=float(values["amount"]),
        code=200,
        msg="Successfully modify position margin.",
        type=kind,
    )


async def margin_history(intake: Intake, account_id: int, values: Values) -> list[MarginRow]:
    """Return the margin an account moved in a market, oldest first."""
    market = intake.market(values["symbol"])
    kind = values.get("type")
    moves = [
        move
        for move in intake.past.ledger.margin_moves(account_id)
        if move.event.market == market.symbol and kind in (None, ADDED if move.event.amount > 0 else REMOVED)
    ]
    return [
        MarginRow(
            symbol=market.symbol,
            type=ADDED if move.event.amount > 0 else REMOVED,
            delta_type="USER_ADJUST",
            amount=money_text(abs(move.event.amount)),
            asset=market.spec.quote,
            time=move.time_ms,
            position_side=move.event.leg.name,
        )
        for move in chosen(moves, values, lambda move: move.time_ms)
    ]


async def position_mode(intake: Intake, account_id: int, values: Values) -> PositionMode:
    """Return whether the account holds two legs a market."""
    return PositionMode(dual_side_position=intake.account(account_id).hedge)


async def set_position_mode(intake: Intake, account_id: int, values: Values) -> Done:
    """Choose between one position a market and two legs."""
    await intake.ask(SetPositionMode(account_id=account_id, hedge=values["dualSidePosition"]))
    return SUCCESS


async def multi_assets(intake: Intake, account_id: int, values: Values) -> MultiAssets:
    """Return that there is one asset."""
    return MultiAssets(multi_assets_margin=False)


async def set_multi_assets(intake: Intake, account_id: int, values: Values) -> Done:
    """Refuse to use several assets together: there is one."""
    raise (MULTI_ASSETS_REFUSED if values["multiAssetsMargin"] else MULTI_ASSETS_UNCHANGED).error()


async def fee_burn(intake: Intake, account_id: int, values: Values) -> FeeBurn:
    """Return that fees are paid in the asset of the market."""
    return FeeBurn(fee_burn=False)


async def set_fee_burn(intake: Intake, account_id: int, values: Values) -> Done:
    """Refuse to pay fees in another asset; asking not to changes nothing and succeeds."""
    if values["feeBurn"]:
        raise BAD_PARAMETER.error(name="feeBurn")
    return SUCCESS


def _amount(text: str) -> int:
    try:
        amount = parse_money(text, signed=True)
    except DecimalPrecisionError:
        raise PRECISION.error(name="amount") from None
    except DecimalError:
        raise BAD_PARAMETER.error(name="amount") from None
    if not 0 < amount <= AMOUNT_MAX:
        raise AMOUNT_NOT_POSITIVE.error()
    return amount
