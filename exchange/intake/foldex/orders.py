"""The order that names its margin mode, and brings its own margin to an isolated position."""

import msgspec

from events.commands import PlaceOrder
from events.events import MarginModeSet
from exchange.intake.endpoint import Values
from exchange.intake.foldex.margin import positive_amount
from exchange.intake.service import Intake
from exchange.intake.trade.answers import OrderAnswer
from exchange.intake.trade.forms import order_command
from exchange.intake.trade.trading import placed_answer


async def place_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Place an order as `POST /fapi/v1/order` does, with a margin mode and an isolated position's margin."""
    command = order_with_margin(intake, account_id, values)
    events = await intake.ask(command)
    # The mode is set first, where it was another one.
    first = 1 if isinstance(events[0], MarginModeSet) else 0
    return placed_answer(intake, events[first:], values)


def order_with_margin(intake: Intake, account_id: int, values: Values) -> PlaceOrder:
    """Return the command for an order's parameters, margin mode and margin with it.

    Raises:
        ApiError: as `order_command`, and -1130 for the margin.
    """
    mode = values.pop("marginMode", None)
    margin = values.pop("margin", None)
    command = order_command(intake, account_id, values)
    amount = 0 if margin is None else positive_amount("margin", margin)
    return msgspec.structs.replace(command, margin_mode=mode, margin=amount)
