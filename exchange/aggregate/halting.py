"""The halt: when money or contracts do not add up, nothing goes on that could spread the fault.

Two sums must hold after every frame (see `state`). `apply` compares what it did to them as it does it, and
keeps the difference, so that the check behind a frame costs two comparisons. A full count over all accounts
backs it every 65,536 frames and with every checkpoint.

A halt restricts all markets to cancels and stops liquidation and withdrawals. An administrator ends it. A
gap does not go away by that: it is counted again, stands in the event, and is accepted from then on, so
that the next difference is noticed.
"""

from events.commands import HaltExchange, ResumeExchange
from events.events import ExchangeHalted, ExchangeResumed
from events.values import TRADING, LotsGap, MarketStatus, RejectCode
from exchange.aggregate.state import Exchange
from exchange.aggregate.turn import Refused, Turn

RECOUNT_FRAMES = 65_536


def check_sums(turn: Turn) -> None:
    """Behind a frame: halt the exchange when a sum is not what it must be, unless it is halted already."""
    state = turn.state
    is_due = turn.wants_recount or state.seq % RECOUNT_FRAMES == 0
    if not is_due and not state.has_gap():
        return
    if state.halt is not None:
        return
    money_gap, lots_gaps = state.count_gaps()
    counted = money_gap != state.accepted_money_gap or lots_gaps != state.accepted_lots_gaps
    if counted or state.has_gap():
        what = "counted" if counted else "noticed"
        _halt(turn, f"the sums do not add up: {what} behind entry {state.seq}")


def halt_exchange(turn: Turn, command: HaltExchange) -> None:
    """Halt on an administrator's word, or refuse."""
    if turn.state.halt is not None:
        raise Refused(RejectCode.EXCHANGE_HALTED, "halt: the exchange is halted already")
    _halt(turn, command.reason)


def resume_exchange(turn: Turn, command: ResumeExchange) -> None:
    """End a halt, or refuse. Markets that were restricted otherwise meanwhile stay as they are."""
    state = turn.state
    halt = state.halt
    if halt is None:
        raise Refused(RejectCode.EXCHANGE_NOT_HALTED, "resume: the exchange is not halted")
    money_gap, lots_gaps = state.count_gaps()
    turn.emit(
        ExchangeResumed(
            reason=command.reason,
            money_gap=money_gap,
            lots_gaps=_rows(lots_gaps),
            markets=tuple(
                symbol for symbol in halt.markets if state.markets[symbol].status is MarketStatus.CANCEL_ONLY
            ),
        )
    )


def refuse_if_exchange_halted(state: Exchange, what: str) -> None:
    """Refuse what must not happen while the sums are in doubt."""
    if state.halt is not None:
        raise Refused(RejectCode.EXCHANGE_HALTED, f"{what}: the exchange is halted, it must be resumed first")


def _halt(turn: Turn, reason: str) -> None:
    state = turn.state
    money_gap, lots_gaps = state.count_gaps()
    turn.emit(
        ExchangeHalted(
            reason=reason,
            money_gap=money_gap,
            lots_gaps=_rows(lots_gaps),
            markets=tuple(s for s in sorted(state.markets) if state.markets[s].status is TRADING),
        )
    )


def _rows(lots_gaps: dict[str, int]) -> tuple[LotsGap, ...]:
    return tuple(LotsGap(market=symbol, lots=lots) for symbol, lots in sorted(lots_gaps.items()))
