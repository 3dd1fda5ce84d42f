"""Orders: the calls that place, change and end one, and those that end many."""

import asyncio

import msgspec

from events.commands import (
    AmendOrder,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    SetCountdown,
)
from events.events import (
    ConditionalAccepted,
    Event,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    Rejected,
)
from events.values import NO_MATCH, PriceMatch, RejectCode
from exchange.aggregate.decide import first_event_of
from exchange.intake.endpoint import Values
from exchange.intake.errors import (
    BAD_PARAMETER,
    EITHER_MANDATORY,
    MANDATORY,
    NO_SUCH_ORDER,
    NOT_REQUIRED,
    RefusedError,
)
from exchange.intake.service import Intake
from exchange.intake.trade.algos import AlgoRecord, classic_answer
from exchange.intake.trade.answers import Countdown, Done, OrderAnswer
from exchange.intake.trade.forms import (
    any_order_command,
    price_ticks_of,
    quantity_lots_of,
)
from exchange.intake.trade.orders import OrderRecord, order_answer, record_of_answer

ALL_CANCELLED = Done(code=200, msg="The operation of cancel all open order is done.")


async def place_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Place an order; the answer is the order as accepted, or with RESULT as its own events left it."""
    command = any_order_command(intake, account_id, values)
    return placed_answer(intake, await intake.ask(command), values)


def placed_answer(intake: Intake, events: list[Event], values: Values) -> OrderAnswer:
    """Return the answer to an order that was accepted."""
    accepted = events[0]
    assert isinstance(accepted, OrderAccepted | ConditionalAccepted), accepted
    spec = intake.state.markets[accepted.market].spec
    if isinstance(accepted, ConditionalAccepted):
        return classic_answer(AlgoRecord(accepted, intake.now_ms), spec)
    stored = intake.orders.find(accepted.account_id, accepted.market, accepted.order_id, "")
    accepted_ms = stored.accepted_ms if stored is not None else intake.now_ms
    if values.get("newOrderRespType") == "RESULT":
        record = record_of_answer(accepted, events, spec, accepted_ms)
    else:
        record = OrderRecord(accepted, accepted_ms)
    return order_answer(record, spec)


async def check_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Say what would become of an order, as of the last entry read, and do nothing.

    The aggregate's own rules are asked, so that what passes here fails only if something changes meanwhile.
    """
    command = any_order_command(intake, account_id, values)
    accepted = first_event_of(intake.state, command)
    if isinstance(accepted, Rejected):
        intake.refuse(command, accepted)
    spec = intake.state.markets[command.market].spec
    if isinstance(accepted, ConditionalAccepted):
        return classic_answer(AlgoRecord(accepted, intake.now_ms), spec)
    assert isinstance(accepted, OrderAccepted), accepted
    return order_answer(OrderRecord(accepted, intake.now_ms), spec)


async def modify_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Change an open order's price and size; it keeps its number and loses its place in the queue."""
    command = amend_command(intake, account_id, values)
    known = intake.orders.find(account_id, command.market, command.order_id, command.client_order_id)
    try:
        events = await intake.ask(command)
    except RefusedError as error:
        raise modify_error(error) from None
    return amended_answer(intake, known, events, values)


def amend_command(intake: Intake, account_id: int, values: Values) -> AmendOrder:
    """Return the command for an amendment's parameters. Whether the order only reduces stays as it is.

    Raises:
        ApiError: what is wrong with them.
    """
    order_id, client_order_id = which_order(values)
    match: PriceMatch = values.get("priceMatch", NO_MATCH)
    is_matched = match is not NO_MATCH
    if is_matched and "price" in values:
        raise NOT_REQUIRED.error(name="price")
    for name in ("quantity",) if is_matched else ("quantity", "price"):
        if name not in values:
            raise MANDATORY.error(name=name)
    market = intake.market(values["symbol"])
    known = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    if known is not None and values.get("reduceOnly", known.accepted.reduce_only) is not (
        known.accepted.reduce_only
    ):
        raise BAD_PARAMETER.error(name="reduceOnly")
    return AmendOrder(
        account_id=account_id,
        market=market.symbol,
        side=values["side"],
        quantity_lots=quantity_lots_of(market.spec, values["quantity"]),
        price_ticks=0 if is_matched else price_ticks_of(market.spec, values["price"]),
        order_id=order_id,
        client_order_id=client_order_id,
        yields_priority=True,
        price_match=match,
    )


def modify_error(error: RefusedError) -> Exception:
    """Return what an amendment that was refused is answered with: an order that is gone has a code here."""
    return NO_SUCH_ORDER.error() if error.rejected.code is RejectCode.UNKNOWN_ORDER else error


def amended_answer(
    intake: Intake, known: OrderRecord | None, events: list[Event], values: Values
) -> OrderAnswer:
    """Return the answer to an amendment; one that left nothing open has cancelled the order."""
    (changed,) = (event for event in events[:1] if isinstance(event, OrderAmended | OrderCancelled))
    answer = _ended_or_changed(intake, known, changed)
    if "modifyId" in values:
        answer = msgspec.structs.replace(answer, modify_id=values["modifyId"])
    return answer


async def cancel_order(intake: Intake, account_id: int, values: Values) -> OrderAnswer:
    """Cancel an open order; the answer is the order as it ended."""
    command = cancel_command(intake, account_id, values)
    known = intake.orders.find(account_id, command.market, command.order_id, command.client_order_id)
    if known is None and intake.legacy_conditional_orders:
        waiting = intake.past.algos.find(account_id, command.order_id, command.client_order_id)
        if waiting is not None and waiting.accepted.market == command.market:
            return await _cancel_waiting(intake, waiting)
    return cancelled_answer(intake, known, await intake.ask(command))


def cancel_command(intake: Intake, account_id: int, values: Values) -> CancelOrder:
    """Return the command that cancels the order that is named; raises `ApiError` when none is."""
    order_id, client_order_id = which_order(values)
    symbol = intake.market(values["symbol"]).symbol
    return CancelOrder(
        account_id=account_id, market=symbol, order_id=order_id, client_order_id=client_order_id
    )


def cancelled_answer(intake: Intake, known: OrderRecord | None, events: list[Event]) -> OrderAnswer:
    """Return the answer to a cancellation; `known` is the order's record from before."""
    (cancelled,) = (event for event in events if isinstance(event, OrderCancelled))
    return _ended_or_changed(intake, known, cancelled)


def _ended_or_changed(
    intake: Intake, known: OrderRecord | None, event: OrderAmended | OrderCancelled
) -> OrderAnswer:
    # The record looked up before is kept current by the fold; one of another intake was unknown then.
    if known is None or known.accepted.order_id != event.order_id:
        known = intake.orders.get(event.order_id)
    return order_answer(known, intake.state.markets[event.market].spec)


async def _cancel_waiting(intake: Intake, waiting: AlgoRecord) -> OrderAnswer:
    """Cancel a conditional order, or the order it has become."""
    accepted = waiting.accepted
    command: AnyCommand
    if waiting.order_id:
        command = CancelOrder(
            account_id=accepted.account_id, market=accepted.market, order_id=waiting.order_id
        )
    else:
        command = CancelConditional(
            account_id=accepted.account_id, market=accepted.market, conditional_id=accepted.conditional_id
        )
    await intake.ask(command)
    return classic_answer(waiting, intake.state.markets[accepted.market].spec)


async def cancel_all_orders(intake: Intake, account_id: int, values: Values) -> Done:
    """Cancel every open order in a market."""
    symbol = intake.market(values["symbol"]).symbol
    commands: list[AnyCommand] = [CancelAllOrders(account_id=account_id, market=symbol)]
    if intake.legacy_conditional_orders:
        commands.append(CancelAllConditionals(account_id=account_id, market=symbol))
    await asyncio.gather(*map(intake.ask, commands))
    return ALL_CANCELLED


async def set_countdown(intake: Intake, account_id: int, values: Values) -> Countdown:
    """Have all orders in a market cancelled unless this is asked again in time; 0 ends that."""
    symbol = intake.market(values["symbol"]).symbol
    countdown_ms: int = values["countdownTime"]
    await intake.ask(SetCountdown(account_id=account_id, market=symbol, countdown_ms=countdown_ms))
    return Countdown(symbol=symbol, countdown_time=str(countdown_ms))


def which_order(values: Values) -> tuple[int, str]:
    """Return the number, or 0 and the client id, of the order that is named.

    Raises:
        ApiError: -1102, neither is.
    """
    order_id: int = values.get("orderId", 0)
    client_order_id: str = values.get("origClientOrderId", "")
    if not order_id and not client_order_id:
        raise EITHER_MANDATORY.error(first="origClientOrderId", second="orderId")
    return order_id, client_order_id
