"""What if: steps that the account tries one after the other, decided by the aggregate itself.

Each step is an object with one name:

    {"mark": {"BTCUSDT": "49000", …}}                          the marks move
    {"order": {…}}                                             a limit order, as in `orders`
    {"set_leverage": {"market", "leverage"}}
    {"add_margin": {"market", "leg", "amount"}}                a negative amount removes margin
    {"set_margin_mode": {"market", "margin_mode", "margin"}}   margin (may be left out): what each leg gets

A step that is refused changes nothing. Nobody is liquidated: a margin ratio of 1 or more says that the
account would be.
"""

from collections.abc import Callable
from typing import Any

from events.commands import AdjustMargin, AnyCommand, PlaceOrder, SetLeverage, SetMarginMode
from events.events import Rejected
from events.values import LIMIT, MarginMode
from exchange.aggregate.decide import decide
from exchange.calc.account_file import (
    AccountFileError,
    OrderShape,
    OrderTerms,
    Scenario,
    Shape,
    choice,
    leg_of,
    number,
    price,
    set_mark,
    shaped,
    whole_number,
)
from exchange.calc.report import collateral_report, margin_report
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


Marks = dict[str, int]
Step = AnyCommand | Marks

# Above the numbers of the orders that the file gives, below those that the aggregate makes.
_ORDER_ID_FIRST = 1 << 40


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
            **_outcome(_take(scenario, step, n)),
            **collateral_report(scenario),
            "result": margin_report(scenario),
        }
        for n, (data, step) in enumerate(zip(scenario.steps, steps, strict=True))
    ]


def _take(scenario: Scenario, step: Step, n: int) -> Rejected | None:
    """Take one step; return the refusal if there is one."""
    if isinstance(step, dict):
        for symbol, mark_ticks in step.items():
            set_mark(scenario.state.markets[symbol], mark_ticks)
        return None
    first = decide(scenario.state, step, _ORDER_ID_FIRST + n)[0]
    return first if isinstance(first, Rejected) else None


def _outcome(refusal: Rejected | None) -> dict[str, Any]:
    if refusal is None:
        return {"accepted": True, "refusal": None}
    return {"accepted": False, "refusal": {"code": refusal.code.value, "reason": refusal.reason}}


def _read_marks(scenario: Scenario, data: object, field: str) -> Marks:
    texts = shaped(field, data, dict[str, str])
    if not texts:
        raise AccountFileError(field, "must name a market")
    return {
        symbol: price(f"{field}.{symbol}", scenario.market(symbol, f"{field}.{symbol}").spec, text)
        for symbol, text in texts.items()
    }


def _read_order(scenario: Scenario, data: object, field: str) -> PlaceOrder:
    terms = OrderTerms(scenario, shaped(field, data, OrderShape), field)
    return PlaceOrder(
        account_id=scenario.account.account_id,
        market=terms.market.symbol,
        side=terms.side,
        order_type=LIMIT,
        quantity_lots=terms.lots,
        price_ticks=terms.price_ticks,
        reduce_only=terms.reduce_only,
        leg=terms.leg,
    )


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


def _read_mode(scenario: Scenario, data: object, field: str) -> SetMarginMode:
    shape = shaped(field, data, ModeShape)
    return SetMarginMode(
        account_id=scenario.account.account_id,
        market=scenario.market(shape.market, f"{field}.market").symbol,
        mode=choice(f"{field}.margin_mode", shape.margin_mode, MarginMode),
        margin=number(f"{field}.margin", lambda: parse_money(shape.margin)),
        only_flat=False,
    )


_READERS: dict[str, Callable[[Scenario, object, str], Step]] = {
    "mark": _read_marks,
    "order": _read_order,
    "set_leverage": _read_leverage,
    "add_margin": _read_margin,
    "set_margin_mode": _read_mode,
}
