"""Margin modes with positions open, money between wallet and bucket, withdrawals."""

from events.commands import AdjustMargin, SetMarginMode, Withdraw
from events.events import MarginModeSet, Rejected
from events.values import Leg, MarginMode
from exchange.aggregate.modes import preview_margin_mode
from exchange.aggregate.units import AMOUNT_MAX
from exchange.decimals import DecimalError, format_fixed, lots_text, money_text, parse_money
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_PARAMETER, refusal
from exchange.intake.foldex.health import Shape
from exchange.intake.service import Intake


class LegChange(Shape, frozen=True):
    """One leg of a market before and after a switch; ratio and price are those of what it stands on."""

    position_side: str
    position_amt: str
    bucket_before: str
    bucket_after: str
    margin_ratio_before: str | None
    margin_ratio_after: str | None
    liquidation_price_before: str | None
    liquidation_price_after: str | None


class ModeSwitch(Shape, frozen=True):
    """What a switch of the margin mode moved, or with `dry_run` would move. Not `changed`: it was set."""

    symbol: str
    margin_mode: str
    changed: bool
    dry_run: bool
    wallet_before: str
    wallet_after: str
    legs: list[LegChange]


class MarginTransfer(Shape, frozen=True):
    """Where the money is after a transfer between the wallet and a position's bucket."""

    symbol: str
    position_side: str
    amount: str
    wallet: str
    bucket: str


class Withdrawal(Shape, frozen=True):
    """Money that left, and what the wallet has then."""

    amount: str
    wallet: str


async def set_margin_mode(intake: Intake, account_id: int, values: Values) -> ModeSwitch:
    """Switch a market's margin mode, with position and orders open, in one step; or show what it would do."""
    command = mode_command(intake, account_id, values)
    is_dry = values.get("dryRun", False)
    if is_dry:
        planned = preview_margin_mode(intake.state, command)
        if isinstance(planned, Rejected):
            raise refusal(planned, **intake.details(command))
        return _switch(intake, planned, is_dry=True)
    (event,) = (event for event in await intake.ask(command) if isinstance(event, MarginModeSet))
    return _switch(intake, event, is_dry=False)


def mode_command(intake: Intake, account_id: int, values: Values) -> SetMarginMode:
    """Return the command for the parameters of a switch.

    Raises:
        ApiError: -1121, or -1130 for the margin.
    """
    mode: MarginMode = values["marginMode"]
    margin = positive_amount("margin", values["margin"]) if "margin" in values else 0
    return SetMarginMode(
        account_id=account_id,
        market=intake.market(values["symbol"]).symbol,
        mode=mode,
        margin=margin,
        only_flat=False,
    )


async def transfer_margin(intake: Intake, account_id: int, values: Values) -> MarginTransfer:
    """Move money from the wallet to an isolated position's bucket; a negative amount moves it back."""
    market = intake.market(values["symbol"])
    leg: Leg = values.get("positionSide", Leg.BOTH)
    amount = signed_amount("amount", values["amount"])
    await intake.ask(AdjustMargin(account_id=account_id, market=market.symbol, amount=amount, leg=leg))
    account = intake.account(account_id)
    return MarginTransfer(
        symbol=market.symbol,
        position_side=leg.name,
        amount=money_text(amount),
        wallet=money_text(account.wallet),
        bucket=money_text(account.position(market, leg).bucket),
    )


async def withdraw(intake: Intake, account_id: int, values: Values) -> Withdrawal:
    """Take money out of the wallet, at most what is withdrawable."""
    amount = positive_amount("amount", values["amount"])
    await intake.ask(Withdraw(account_id=account_id, amount=amount))
    return Withdrawal(amount=money_text(amount), wallet=money_text(intake.account(account_id).wallet))


def positive_amount(name: str, text: str) -> int:
    """Return an amount above zero in money units.

    Raises:
        ApiError: -1130.
    """
    amount = signed_amount(name, text)
    if amount < 0:
        raise BAD_PARAMETER.error(name=name)
    return amount


def signed_amount(name: str, text: str) -> int:
    """Return an amount in money units, which is not zero.

    Raises:
        ApiError: -1130.
    """
    try:
        amount = parse_money(text, signed=True)
    except DecimalError:
        raise BAD_PARAMETER.error(name=name) from None
    if not 0 < abs(amount) <= AMOUNT_MAX:
        raise BAD_PARAMETER.error(name=name)
    return amount


def _switch(intake: Intake, event: MarginModeSet, *, is_dry: bool) -> ModeSwitch:
    spec = intake.market(event.market).spec
    return ModeSwitch(
        symbol=event.market,
        margin_mode=event.mode.name,
        changed=event.changed,
        dry_run=is_dry,
        wallet_before=money_text(event.wallet_before),
        wallet_after=money_text(event.wallet_after),
        legs=[
            LegChange(
                position_side=leg.leg.name,
                position_amt=lots_text(spec, leg.size_lots),
                bucket_before=money_text(leg.bucket_before),
                bucket_after=money_text(leg.bucket_after),
                margin_ratio_before=_text(leg.ratio_before),
                margin_ratio_after=_text(leg.ratio_after),
                liquidation_price_before=_text(leg.liquidation_price_before),
                liquidation_price_after=_text(leg.liquidation_price_after),
            )
            for leg in event.legs
        ],
    )


def _text(value: int | None) -> str | None:
    return None if value is None else format_fixed(value)
