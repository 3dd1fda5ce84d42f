"""Several orders in one request: the commands go into one frame, each is answered on its own, in order."""

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from events.commands import AnyCommand
from events.events import Event
from exchange.intake.auth import AUTH_PARAMETERS
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_BATCH_SIZE, EITHER_MANDATORY, ApiError, RefusedError
from exchange.intake.parameters import Parameter, parse_parameters, whole
from exchange.intake.service import Intake
from exchange.intake.trade.answers import OrderAnswer, Refusal
from exchange.intake.trade.declared import AMENDMENT, NEW_ORDER
from exchange.intake.trade.forms import any_order_command
from exchange.intake.trade.trading import (
    amend_command,
    amended_answer,
    cancel_command,
    cancelled_answer,
    modify_error,
    placed_answer,
)

PLACED_MAX = 5
CANCELLED_MAX = 10
EXPONENT_MAX = 40

Answers = list[OrderAnswer | Refusal]
T = TypeVar("T")


async def place_orders(intake: Intake, account_id: int, values: Values) -> Answers:
    """Place up to five orders."""
    forms = _forms(values["batchOrders"], NEW_ORDER)
    plans = [_tried(any_order_command, intake, account_id, form) for form in forms]
    return [
        outcome
        if isinstance(outcome, Refusal)
        else placed_answer(intake, outcome, form if isinstance(form, dict) else {})
        for form, outcome in zip(forms, await _ask_all(intake, plans), strict=True)
    ]


async def modify_orders(intake: Intake, account_id: int, values: Values) -> Answers:
    """Change up to five orders."""
    forms = _forms(values["batchOrders"], AMENDMENT)
    plans = [_tried(amend_command, intake, account_id, form) for form in forms]
    known = [
        None
        if isinstance(plan, ApiError)
        else intake.orders.find(account_id, plan.market, plan.order_id, plan.client_order_id)
        for plan in plans
    ]
    return [
        outcome
        if isinstance(outcome, Refusal)
        else amended_answer(intake, record, outcome, form if isinstance(form, dict) else {})
        for form, record, outcome in zip(
            forms, known, await _ask_all(intake, plans, modify_error), strict=True
        )
    ]


async def cancel_orders(intake: Intake, account_id: int, values: Values) -> Answers:
    """Cancel up to ten orders, named by numbers or by client ids."""
    order_ids: list[int] = values.get("orderIdList") or values.get("orderidlist") or []
    client_ids: list[str] = values.get("origClientOrderIdList") or values.get("origclientorderidlist") or []
    if not order_ids and not client_ids:
        raise EITHER_MANDATORY.error(first="orderIdList", second="origClientOrderIdList")
    symbol = intake.market(values["symbol"]).symbol
    named: list[Values | ApiError] = [{"symbol": symbol, "orderId": order_id} for order_id in order_ids]
    named = named or [{"symbol": symbol, "origClientOrderId": client_id} for client_id in client_ids]
    _check_size(named, CANCELLED_MAX)
    plans = [_tried(cancel_command, intake, account_id, form) for form in named]
    known = [
        None
        if isinstance(plan, ApiError)
        else intake.orders.find(account_id, symbol, plan.order_id, plan.client_order_id)
        for plan in plans
    ]
    return [
        outcome if isinstance(outcome, Refusal) else cancelled_answer(intake, record, outcome)
        for record, outcome in zip(known, await _ask_all(intake, plans), strict=True)
    ]


def json_objects(text: str) -> list[dict[str, Any]]:
    """Read a JSON list of objects, with numbers as they are written."""
    return _decoded(_OBJECTS, text)


def json_texts(text: str) -> list[str]:
    """Read a JSON list of texts and whole numbers, as texts."""
    return [str(value) for value in _decoded(_TEXTS, text)]


def json_numbers(text: str) -> list[int]:
    """Read a JSON list of whole numbers, in quotes or not."""
    return [whole(value) for value in json_texts(text)]


def _forms(objects: list[dict[str, Any]], declared: Sequence[Parameter]) -> list[Values | ApiError]:
    """Return the parameters of each element, or what is wrong with them."""
    _check_size(objects, PLACED_MAX)
    return [_tried(_form, one, declared) for one in objects]


def _form(sent: dict[str, Any], declared: Sequence[Parameter]) -> Values:
    texts = {
        name: _text(value)
        for name, value in sent.items()
        if name not in AUTH_PARAMETERS and value is not None
    }
    return parse_parameters(declared, texts)


def _text(value: Any) -> str:
    """Return a JSON value as it would stand in a query string; what is no plain value is nothing valid."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _check_size(elements: Sequence[object], most: int) -> None:
    if not 1 <= len(elements) <= most:
        raise BAD_BATCH_SIZE.error()


def _tried(make: Callable[..., T], *arguments: Any) -> T | ApiError:
    """Return what a function makes of its arguments, or the error of one of them, or its own."""
    for argument in arguments:
        if isinstance(argument, ApiError):
            return argument
    try:
        return make(*arguments)
    except ApiError as error:
        return error


async def _ask_all(
    intake: Intake,
    plans: Sequence[AnyCommand | ApiError],
    translated: Callable[[RefusedError], Exception] = lambda error: error,
) -> list[list[Event] | Refusal]:
    """Have commands decided together: asked in one go, they are sent in one frame."""
    asked = await asyncio.gather(
        *(intake.ask(plan) for plan in plans if not isinstance(plan, ApiError)), return_exceptions=True
    )
    answers = iter(asked)
    outcomes: list[list[Event] | Refusal] = []
    for plan in plans:
        outcome = plan if isinstance(plan, ApiError) else next(answers)
        if isinstance(outcome, RefusedError):
            outcome = translated(outcome)
        if isinstance(outcome, ApiError):
            outcomes.append(Refusal(code=outcome.code, msg=outcome.text))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            outcomes.append(outcome)
    return outcomes


def _plain(text: str) -> str:
    """Return a number without exponent; one that is out of all bounds stays as it is, and is refused."""
    if "e" not in text and "E" not in text:
        return text
    number = Decimal(text)
    return format(number, "f") if abs(number.adjusted()) <= EXPONENT_MAX else text


_OBJECTS = msgspec.json.Decoder(list[dict[str, Any]], float_hook=_plain)
_TEXTS = msgspec.json.Decoder(list[str | int])


def _decoded(decoder: msgspec.json.Decoder[T], text: str) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, ArithmeticError, RecursionError) as error:
        raise ValueError("no such JSON") from error
