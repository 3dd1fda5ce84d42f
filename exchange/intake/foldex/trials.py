"""What if: an order, a leverage or a margin mode, tried on a copy of the account and decided by the rules.

The copy is a venue of its own (`aggregate.image.trial_of`); what is asked is decided there as the writer
would decide it, and the account is shown before and after. Nothing is appended, and nothing is promised: by
the time the real request is decided, marks and books may be others.
"""

from msgspec.structs import replace

from events.commands import AnyCommand, PlaceOrder, SetLeverage
from events.events import OrderAccepted, Rejected
from events.values import GTC, LIMIT, NO_MATCH
from exchange.aggregate.account import Account
from exchange.aggregate.decide import decide
from exchange.aggregate.image import trial_of
from exchange.aggregate.price_match import priced
from exchange.aggregate.state import Exchange
from exchange.aggregate.turn import Refused
from exchange.aggregate.units import AMOUNT_MAX
from exchange.intake.endpoint import Values
from exchange.intake.errors import refusal
from exchange.intake.foldex.health import AccountHealth, Shape, health_of
from exchange.intake.foldex.margin import mode_command
from exchange.intake.foldex.orders import order_with_margin
from exchange.intake.service import Intake

# Of the trial alone: whoever the order meets, and the number that the order gets.
COUNTERPART_ID = (1 << 62) - 1
FIRST_ORDER_ID = 1 << 62
COUNTERPART_WALLET = AMOUNT_MAX >> 4
LEVELS_MAX = 1_000
WHOLE, BOOK = "WHOLE", "BOOK"


class TrialRefusal(Shape, frozen=True):
    """Why it would be refused: code and text as the request itself would be answered."""

    code: int
    msg: str


class WhatIf(Shape, frozen=True):
    """The account before and after what was asked; a refusal changes nothing."""

    accepted: bool
    refusal: TrialRefusal | None
    before: AccountHealth
    after: AccountHealth


async def what_if_order(intake: Intake, account_id: int, values: Values) -> WhatIf:
    """Show what an order would make of the account: filled whole at its limit, or as the book stands."""
    fill = values.pop("fill", WHOLE)
    command = order_with_margin(intake, account_id, values)
    if command.price_match is not NO_MATCH:
        command = _priced(intake, command)
    trial = trial_of(intake.state, account_id)
    _add_counterpart(trial)
    # Where no level gave a limit nothing is offered, so that the trial refuses the order as the venue would.
    if command.price_match is NO_MATCH:
        _offer(trial, command, _levels_met(intake, command, fill))
    return _tried(intake, trial, account_id, command)


async def what_if_leverage(intake: Intake, account_id: int, values: Values) -> WhatIf:
    """Show what a leverage would make of the account."""
    command = SetLeverage(
        account_id=account_id, market=intake.market(values["symbol"]).symbol, leverage=values["leverage"]
    )
    return _tried(intake, trial_of(intake.state, account_id), account_id, command)


async def what_if_mode(intake: Intake, account_id: int, values: Values) -> WhatIf:
    """Show what a margin mode would make of the account."""
    command = mode_command(intake, account_id, values)
    return _tried(intake, trial_of(intake.state, account_id), account_id, command)


def _priced(intake: Intake, command: PlaceOrder) -> PlaceOrder:
    """Return an order with its limit, which the trial's book could not give: it has no other's orders.

    Where the book is not deep enough it stays as it is.
    """
    try:
        command = priced(intake.state.markets[command.market], command)
    except Refused:
        return command
    return replace(command, price_match=NO_MATCH)


def _tried(intake: Intake, trial: Exchange, account_id: int, command: AnyCommand) -> WhatIf:
    account, seq = trial.accounts[account_id], intake.state.seq
    before = health_of(account, seq)
    first = decide(trial, command, FIRST_ORDER_ID)[0]
    refused = refusal(first, **intake.details(command)) if isinstance(first, Rejected) else None
    return WhatIf(
        accepted=refused is None,
        refusal=None if refused is None else TrialRefusal(code=refused.code, msg=refused.text),
        before=before,
        after=health_of(account, seq),
    )


def _add_counterpart(trial: Exchange) -> None:
    counterpart = trial.accounts[COUNTERPART_ID] = Account(COUNTERPART_ID, "")
    counterpart.wallet = COUNTERPART_WALLET


def _levels_met(intake: Intake, command: PlaceOrder, fill: str) -> list[tuple[int, int]]:
    """Return what an order is to meet, (price ticks, lots): itself at its limit, or the book as it stands."""
    if fill == WHOLE and command.order_type is LIMIT:
        return [(command.price_ticks, command.quantity_lots)]
    return intake.state.markets[command.market].book.depth(command.side.opposite, LEVELS_MAX)


def _offer(trial: Exchange, command: PlaceOrder, levels: list[tuple[int, int]]) -> None:
    """Let orders stand in the trial's book that the command can meet."""
    for n, (price_ticks, lots) in enumerate(levels, 1):
        trial.apply(
            OrderAccepted(
                order_id=FIRST_ORDER_ID + n,
                account_id=COUNTERPART_ID,
                market=command.market,
                side=command.side.opposite,
                order_type=LIMIT,
                quantity_lots=lots,
                price_ticks=price_ticks,
                time_in_force=GTC,
                reduce_only=False,
                client_order_id="",
                extras=0,
            )
        )
