"""What if: steps that the account tries one after the other, decided by the aggregate itself.

Each step is an object with one name:

    {"mark": {"BTCUSDT": "49000", …}}                          the marks move
    {"order": {…}}                                             a limit order, as in `orders`
    {"set_leverage": {"market", "leverage"}}
    {"add_margin": {"market", "leg", "amount"}}                a negative amount removes margin
    {"set_margin_mode": {"market", "margin_mode", …}}          "margin": what each leg gets; "dry_run"

A step that is refused changes nothing. An order that would meet one of the account's own is refused, since on
an exchange one of the two would disappear. Nobody is liquidated: a margin ratio of 1 or more says that the
account would be.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from events.commands import AdjustMargin, AnyCommand, PlaceOrder, SetLeverage, SetMarginMode
from events.events import Event, MarginModeSet, Rejected
from events.values import MarginMode
from exchange.aggregate.decide import decide
from exchange.aggregate.modes import preview_margin_mode
from exchange.calc.account_file import (
    STEP_ORDER_ID_FIRST,
    Scenario,
    crossing,
    leg_of,
    read_order,
    set_mark,
)
from exchange.calc.report import change_report, collateral_report, margin_report
from exchange.calc.shapes import (
    AccountFileError,
    Shape,
    choice,
    named,
    number,
    price,
    shaped,
    whole_number,
)
from exchange.decimals import parse_money


class LeverageShape(Shape):
    """The leverage that a market is to have."""

    market: str
    leverage: int | str


class MarginShape(Shape):
    """Money from the wallet to an isolated position's bucket, or back."""

    market: str
    amount: str
    leg: str | None = None


class ModeShape(Shape):
    """The margin mode that a market is to have."""

    market: str
    margin_mode: str
    margin: str = "0"
    dry_run: bool = False


class DryRun(msgspec.Struct, frozen=True):
    """A switch of the margin mode that is only to be looked at."""

    command: SetMarginMode


Marks = dict[str, int]
Step = AnyCommand | DryRun | Marks

SELF_TRADE = "SELF_TRADE"
# The file's names for the fields that refusals name as the API does.
_FIELDS = {"quantity": "size", "marginMode": "margin_mode", "reduceOnly": "reduce_only"}


def read_steps(scenario: Scenario) -> list[Step]:
    """Return the steps that the file asks to try, in the exchange's words.

    Raises:
        AccountFileError: a step has not exactly one of the known names, or its values are impossible.
    """
    steps = []
    for n, data in enumerate(scenario.steps):
        field = f"what_if[{n}]"
        if not isinstance(data, dict) or len(data) != 1 or not data.keys() <= _READERS.keys():
            raise AccountFileError(field, f"must have one of the names {', '.join(_READERS)}")
        ((name, values),) = data.items()
        steps.append(_READERS[name](scenario, values, f"{field}.{name}"))
    return steps


def try_steps(scenario: Scenario, steps: list[Step]) -> list[dict[str, Any]]:
    """Take the steps in order; return for each whether it was accepted, and what the account is after it."""
    return [
        {
            "step": data,
            **_take(scenario, step, n),
            **collateral_report(scenario),
            "result": margin_report(scenario),
        }
        for n, (data, step) in enumerate(zip(scenario.steps, steps, strict=True))
    ]


def _take(scenario: Scenario, step: Step, n: int) -> dict[str, Any]:
    """Take one step; return what became of it."""
    if isinstance(step, dict):
        for symbol, mark_ticks in step.items():
            set_mark(scenario.state.markets[symbol], mark_ticks)
        return _accepted()
    if isinstance(step, DryRun):
        return _outcome(scenario, preview_margin_mode(scenario.state, step.command))
    if isinstance(step, PlaceOrder):
        crosses = crossing(scenario, step)
        if crosses:
            return _refused(SELF_TRADE, f"price: {crosses}")
    return _outcome(scenario, decide(scenario.state, step, STEP_ORDER_ID_FIRST + n)[0])


def _outcome(scenario: Scenario, event: Event) -> dict[str, Any]:
    if isinstance(event, Rejected):
        field, colon, problem = event.reason.partition(": ")
        return _refused(event.code.value, f"{_FIELDS.get(field, field)}{colon}{problem}")
    if isinstance(event, MarginModeSet):
        return {**_accepted(), "change": change_report(scenario, event)}
    return _accepted()


def _accepted() -> dict[str, Any]:
    return {"accepted": True, "refusal": None}


def _refused(code: str, reason: str) -> dict[str, Any]:
    return {"accepted": False, "refusal": {"code": code, "reason": reason}}


def _read_marks(scenario: Scenario, data: object, field: str) -> Marks:
    texts = shaped(field, data, dict[str, Any])
    if not texts:
        raise AccountFileError(field, "must name a market")
    marks = {}
    for symbol, text in texts.items():
        place = f"{field}.{named(symbol)}"
        marks[symbol] = price(place, scenario.market(symbol, place).spec, shaped(place, text, str))
    return marks


def _read_leverage(scenario: Scenario, data: object, field: str) -> SetLeverage:
    shape = shaped(field, data, LeverageShape)
    return SetLeverage(
        account_id=scenario.account.account_id,
        market=scenario.market(shape.market, f"{field}.market").symbol,
        leverage=whole_number(f"{field}.leverage", shape.leverage),
    )


def _read_margin(scenario: Scenario, data: object, field: str) -> AdjustMargin:
    shape = shaped(field, data, MarginShape)
    return AdjustMargin(
        account_id=scenario.account.account_id,
        market=scenario.market(shape.market, f"{field}.market").symbol,
        amount=number(f"{field}.amount", lambda: parse_money(shape.amount, signed=True)),
        leg=leg_of(scenario, shape.leg, f"{field}.leg"),
    )


def _read_mode(scenario: Scenario, data: object, field: str) -> SetMarginMode | DryRun:
    shape = shaped(field, data, ModeShape)
    command = SetMarginMode(
        account_id=scenario.account.account_id,
        market=scenario.market(shape.market, f"{field}.market").symbol,
        mode=choice(f"{field}.margin_mode", shape.margin_mode, MarginMode),
        margin=number(f"{field}.margin", lambda: parse_money(shape.margin)),
        only_flat=False,
    )
    return DryRun(command) if shape.dry_run else command


_READERS: dict[str, Callable[[Scenario, object, str], Step]] = {
    "mark": _read_marks,
    "order": read_order,
    "set_leverage": _read_leverage,
    "add_margin": _read_margin,
    "set_margin_mode": _read_mode,
}
