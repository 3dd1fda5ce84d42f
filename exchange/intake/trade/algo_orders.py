"""Conditional orders by the calls of their own: place, cancel, and what became of them."""

from events.commands import CancelAllConditionals, CancelConditional
from events.events import ConditionalAccepted
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_ORDER_TYPE, EITHER_MANDATORY, NO_SUCH_ORDER, UNKNOWN_ORDER
from exchange.intake.service import Intake
from exchange.intake.trade.algos import AlgoRecord, algo_answer
from exchange.intake.trade.answers import AlgoCancelled, AlgoOrder, Done
from exchange.intake.trade.forms import ALGO_NAMES, OrderKind, conditional_command
from exchange.intake.trade.queries import check_times, chosen

ALL_CANCELLED = Done(code=200, msg="The operation of cancel all open order is done.")


async def place_algo(intake: Intake, account_id: int, values: Values) -> AlgoOrder:
    """Let an order wait for its price."""
    kind: OrderKind = values["type"]
    if kind.trigger is None:
        raise BAD_ORDER_TYPE.error()
    command = conditional_command(intake, account_id, values, ALGO_NAMES)
    accepted = (await intake.ask(command))[0]
    assert isinstance(accepted, ConditionalAccepted), accepted
    record = intake.past.algos.find(account_id, accepted.conditional_id, "")
    created_ms = record.created_ms if record is not None else intake.now_ms
    return algo_answer(AlgoRecord(accepted, created_ms), intake.state.markets[command.market].spec)


async def cancel_algo(intake: Intake, account_id: int, values: Values) -> AlgoCancelled:
    """Cancel a conditional order that waits."""
    record = _find(intake, account_id, values)
    if record is None:
        raise UNKNOWN_ORDER.error()
    accepted = record.accepted
    await intake.ask(
        CancelConditional(
            account_id=account_id, market=accepted.market, conditional_id=accepted.conditional_id
        )
    )
    return AlgoCancelled(
        algo_id=accepted.conditional_id, client_algo_id=accepted.client_order_id, code="200", msg="success"
    )


async def cancel_all_algos(intake: Intake, account_id: int, values: Values) -> Done:
    """Cancel every conditional order in a market."""
    symbol = intake.market(values["symbol"]).symbol
    await intake.ask(CancelAllConditionals(account_id=account_id, market=symbol))
    return ALL_CANCELLED


async def query_algo(intake: Intake, account_id: int, values: Values) -> AlgoOrder:
    """Return one conditional order, waiting or not."""
    record = _find(intake, account_id, values)
    if record is None:
        raise NO_SUCH_ORDER.error()
    return algo_answer(record, intake.state.markets[record.accepted.market].spec)


async def open_algos(intake: Intake, account_id: int, values: Values) -> list[AlgoOrder]:
    """Return the conditional orders that wait, of one market or of all."""
    symbol, algo_id = values.get("symbol"), values.get("algoId")
    waiting = intake.account(account_id).conditionals
    return [
        algo_answer(record, intake.state.markets[record.accepted.market].spec)
        for record in _of_market(intake, account_id, symbol)
        if record.accepted.conditional_id in waiting and algo_id in (None, record.accepted.conditional_id)
    ]


async def all_algos(intake: Intake, account_id: int, values: Values) -> list[AlgoOrder]:
    """Return conditional orders, waiting and past, oldest first: from a number on, or the newest ones."""
    check_times(values)
    first_id = values.get("algoId")
    records = [
        record
        for record in _of_market(intake, account_id, values["symbol"])
        if first_id is None or record.accepted.conditional_id >= first_id
    ]
    found = chosen(records, values, lambda record: record.created_ms, from_first=first_id is not None)
    return [algo_answer(record, intake.state.markets[record.accepted.market].spec) for record in found]


def _find(intake: Intake, account_id: int, values: Values) -> AlgoRecord | None:
    algo_id: int = values.get("algoId", 0)
    client_algo_id: str = values.get("clientAlgoId", "")
    if not algo_id and not client_algo_id:
        raise EITHER_MANDATORY.error(first="algoId", second="clientAlgoId")
    return intake.past.algos.find(account_id, algo_id, client_algo_id)


def _of_market(intake: Intake, account_id: int, symbol: str | None) -> list[AlgoRecord]:
    if symbol is not None:
        intake.market(symbol)
    waiting = intake.account(account_id).conditionals
    return [
        record
        for record in intake.past.algos.of_account(account_id, waiting)
        if symbol in (None, record.accepted.market)
    ]
