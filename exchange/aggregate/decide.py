"""Decide: commands in, events out.

`decide_frame` is the one path from a command frame to its groups of events, shared by the writer, by
verification and by simulation: it judges the frame's origin, decides each command, and applies every event
as it is emitted. A refused command gives one `Rejected` event and changes nothing else.
"""

from collections.abc import Callable
from typing import Any

from events.commands import (
    AddApiKey,
    AdjustMargin,
    AllotInsurance,
    AmendOrder,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    Checkpoint,
    Command,
    CreateLog,
    Deposit,
    HaltExchange,
    Liquidate,
    ListMarket,
    OpenAccount,
    PlaceConditional,
    PlaceOrder,
    RemoveApiKey,
    ResumeExchange,
    SetCountdown,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    SetMarketStatus,
    SetPositionMode,
    Tick,
    UnblockAccount,
    Withdraw,
)
from events.events import Event, FrameHeader, OriginOpened, Rejected, RulesChanged
from events.frame import CommandFrame, Groups, UndecodableBodyError
from events.values import Outcome, RejectCode
from exchange.aggregate import administration, conditional, failing, halting, modes
from exchange.aggregate.amendment import amend_order
from exchange.aggregate.failing import CommandError, Failure, Failures, WorkError
from exchange.aggregate.liquidation import liquidate, unwind_fund
from exchange.aggregate.mark import set_index_price
from exchange.aggregate.matching import cancel_all_orders, cancel_order, place_order
from exchange.aggregate.origins import judge
from exchange.aggregate.state import ORDERS_PER_FRAME, RULES_VERSION, Exchange
from exchange.aggregate.turn import Refused, Turn

# How far a frame's own time may run ahead of the writer's clock before it is cut.
CLOCK_LEAD_NS = 2_000_000_000
# When a frame has caused so many events, its other commands are refused: about 30 MB in one entry.
EVENTS_PER_FRAME_AIM = 200_000


def _set_index_price_and_unwind(turn: Turn, command: SetIndexPrice) -> None:
    set_index_price(turn, command)
    unwind_fund(turn, turn.state.markets[command.market])


_DECIDERS: dict[type[Command], Callable[[Turn, Any], None]] = {
    CreateLog: administration.create_log,
    ListMarket: administration.list_market,
    SetMarketStatus: administration.set_market_status,
    OpenAccount: administration.open_account,
    AddApiKey: administration.add_api_key,
    RemoveApiKey: administration.remove_api_key,
    Deposit: administration.deposit,
    Withdraw: administration.withdraw,
    AllotInsurance: administration.allot_insurance,
    SetLeverage: administration.set_leverage,
    SetMarginMode: modes.set_margin_mode,
    AdjustMargin: modes.adjust_margin,
    SetPositionMode: administration.set_position_mode,
    PlaceOrder: place_order,
    AmendOrder: amend_order,
    PlaceConditional: conditional.place_conditional,
    CancelConditional: conditional.cancel_conditional,
    CancelAllConditionals: conditional.cancel_all_conditionals,
    SetCountdown: conditional.set_countdown,
    CancelOrder: cancel_order,
    CancelAllOrders: cancel_all_orders,
    SetIndexPrice: _set_index_price_and_unwind,
    Liquidate: liquidate,
    Tick: administration.tick,
    UnblockAccount: failing.unblock_account,
    HaltExchange: halting.halt_exchange,
    ResumeExchange: halting.resume_exchange,
    Checkpoint: administration.checkpoint,
}


def propose_now(previous_now_ns: int, frame_time_ns: int, clock_ns: int) -> int:
    """Return the exchange's time for a frame: its own, never back, never 2 s ahead of the writer's clock."""
    return max(previous_now_ns, min(frame_time_ns, clock_ns + CLOCK_LEAD_NS))


def decide(state: Exchange, command: AnyCommand, order_id: int) -> list[Event]:
    """Decide one command at the state's time, applying what it emits.

    `order_id` is the number that an order placed by it gets. Returns the events, one `Rejected` when the
    command asked for something it may not have. Conditional orders that it made due are placed with it.
    """
    turn = Turn(state)
    _decide(turn, command, order_id)
    return turn.events


class _WouldEmitError(Exception):
    """A command was not refused."""


class _AskingTurn(Turn):
    """A turn that ends at the first event: a command is refused before it emits anything."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        self.events.append(event)
        raise _WouldEmitError


def first_event_of(state: Exchange, command: AnyCommand) -> Event | None:
    """Return the first event of a command at this state and its time, a `Rejected` if it would be refused.

    An order that it would place has the number 0. None: it would change nothing. This changes nothing itself
    and needs no copy: what may be refused is settled before the first event.
    """
    turn = _AskingTurn(state)
    try:
        if state.blocked or state.failing:
            failing.refuse_what_fails(turn, command)
        _DECIDERS[type(command)](turn, command)
    except _WouldEmitError:
        return turn.events[0]
    except Refused as refused:
        account_id = getattr(command, "account_id", 0)
        return Rejected(account_id=account_id, code=refused.code, reason=refused.reason)
    return None


def _decide(turn: Turn, command: AnyCommand, order_id: int) -> None:
    turn.begin(order_id)
    try:
        if turn.state.blocked or turn.state.failing:
            failing.refuse_what_fails(turn, command)
        _DECIDERS[type(command)](turn, command)
    except Refused as refused:
        assert not turn.events, "a command is refused before it emits anything"
        account_id = getattr(command, "account_id", 0)
        turn.emit(Rejected(account_id=account_id, code=refused.code, reason=refused.reason))
        return
    if turn.state.due:
        conditional.do_due(turn)


def decide_frame(
    state: Exchange, seq: int, frame: CommandFrame, now_ns: int, failures: Failures | None = None
) -> Groups:
    """Decide a command frame at entry `seq` and time `now_ns`, applying everything to `state`.

    What is among the `failures` is not tried but recorded. Returns the groups of the event entry: the
    frame's own, then one per command when it was executed.

    Raises:
        CommandError, WorkError: deciding or applying failed. `state` is worthless then: restore it from
            before the frame, and decide that again with this one failure more.
    """
    outcome, duplicate_of = judge(state.origins, frame.origin, frame.n)
    commands: list[AnyCommand] = []
    opens = False
    if outcome is Outcome.EXECUTED:
        name, _, incarnation = frame.origin.partition(":")
        known = state.origins.get(name)
        opens = known is None or known.incarnation != incarnation
        try:
            commands = frame.commands()
        except UndecodableBodyError:
            outcome = Outcome.REJECTED_FRAME
    turn = Turn(state, failures)
    turn.emit(
        FrameHeader(
            seq=seq,
            origin=frame.origin,
            frame_n=frame.n,
            now_ns=now_ns,
            checksum=frame.checksum,
            outcome=outcome,
            duplicate_of=duplicate_of,
        )
    )
    # In front of all that it decides; that it may is for its caller to make sure of.
    if state.rules_version not in (0, RULES_VERSION):
        turn.emit(RulesChanged(rules_version=RULES_VERSION, replaced=state.rules_version))
    if opens:
        replaced = known.incarnation if known is not None else ""
        turn.emit(OriginOpened(name=name, incarnation=incarnation, frame_n=frame.n, replaced=replaced))
    if outcome is Outcome.EXECUTED:
        if state.overdue:
            conditional.do_overdue(turn)
        if state.due:
            conditional.do_due(turn)
    groups = [turn.events]
    groups += _decide_each(turn, commands, seq * ORDERS_PER_FRAME, failures)
    halting.check_sums(turn)
    return groups


def _decide_each(turn: Turn, commands: list[AnyCommand], first_id: int, failures: Failures | None) -> Groups:
    """Decide a frame's commands in order, the first under the order id `first_id`; a group for each."""
    groups: Groups = []
    order_id = first_id
    count = 0
    for command in commands:
        try:
            if count > EVENTS_PER_FRAME_AIM:
                _refuse_rest(turn, command)
            elif failures is None:
                _decide(turn, command, order_id)
            else:
                _decide_or_record(turn, command, order_id, failures.commands.get(order_id - first_id))
        except WorkError:
            raise
        except Exception as error:
            raise CommandError(order_id - first_id) from error
        groups.append(turn.events)
        count += len(turn.events)
        order_id += 1
    return groups


def _decide_or_record(turn: Turn, command: AnyCommand, order_id: int, failure: Failure | None) -> None:
    if failure is None:
        _decide(turn, command, order_id)
        return
    turn.begin(order_id)
    failing.fail_command(turn, order_id % ORDERS_PER_FRAME, command, failure)
    if turn.state.due:
        conditional.do_due(turn)


def _refuse_rest(turn: Turn, command: AnyCommand) -> None:
    """Refuse a command whose frame has caused as many events as an entry can hold."""
    turn.begin(0)
    account_id = getattr(command, "account_id", 0)
    reason = f"frame: the commands before this one have caused {EVENTS_PER_FRAME_AIM} events; send it again"
    turn.emit(Rejected(account_id=account_id, code=RejectCode.FRAME_LIMIT, reason=reason))
