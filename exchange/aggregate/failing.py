"""What becomes of a command that the exchange itself cannot carry out.

An exception in deciding, applying or encoding is a fault of ours, and the state is worthless after it. So
`decide_frame` only says what failed, by raising; its caller restores the state from before the frame and has
the frame decided again with the failure known. What is known to fail is not tried but recorded: a command
in its own group, and what was due by price or time where it would have been done. Recorded failures are
part of the log, and whoever decides old frames again takes them as given (`failures_of`).

Nobody may stop the venue with the same fault for ever. Three failures of an account's own commands block
it: it may only cancel until an administrator has looked. What prices, time or a liquidation need and cannot
have done leaves the markets concerned to cancels only. What nobody is blocked for is refused once it has
failed three times for the same account and market: each attempt would cost the venue a restored state.
"""

from events.commands import (
    AddApiKey,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    Command,
    Deposit,
    Liquidate,
    RemoveApiKey,
    SetIndexPrice,
    Tick,
    UnblockAccount,
)
from events.events import (
    AccountBlocked,
    AccountUnblocked,
    CommandFailed,
    ConditionalTriggered,
    CountdownExpired,
    Event,
    MarketStatusChanged,
    OrderExpired,
    WorkFailed,
)
from events.frame import Groups
from events.values import CROSS, TRADING, CloseReason, MarketStatus, RejectCode
from exchange.aggregate.turn import Refused, Turn

FAILURES_MAX = 3
# An account, the number of its conditional order, of its order or (a countdown) 0, and the market.
Work = tuple[int, int, str]

_CANCELS = (CancelOrder, CancelAllOrders, CancelConditional, CancelAllConditionals)
# They name an account that did not ask for them.
_ABOUT_ACCOUNT = (AddApiKey, Deposit, Liquidate, RemoveApiKey, UnblockAccount)


class CommandError(Exception):
    """The command at `index` of a frame failed; the cause says how. The state must not be used any more."""

    def __init__(self, index: int) -> None:
        super().__init__(f"command {index}")
        self.index = index


class WorkError(Exception):
    """Something due failed; the cause says how. The state must not be used any more."""

    def __init__(self, work: Work) -> None:
        super().__init__(f"account {work[0]}, number {work[1]} in {work[2]}")
        self.work = work


class Failure:
    """Why something failed: the kind of exception, and where it arose."""

    __slots__ = ("error", "reason")

    def __init__(self, error: str, reason: str) -> None:
        self.error = error
        self.reason = reason


class Failures:
    """What is known to fail in a frame: commands by index, and what is due."""

    __slots__ = ("commands", "work")

    def __init__(self) -> None:
        self.commands: dict[int, Failure] = {}
        self.work: dict[Work, Failure] = {}


def failures_of(groups: Groups) -> Failures | None:
    """Return the failures that an entry records, None when there are none: to decide its frame again."""
    found = Failures()
    for group in groups:
        for event in group:
            if isinstance(event, CommandFailed):
                found.commands[event.index] = Failure(event.error, event.reason)
            elif isinstance(event, WorkFailed):
                work = (event.account_id, event.number, event.market)
                found.work[work] = Failure(event.error, event.reason)
    return found if found.commands or found.work else None


def culprit(groups: Groups, group: int, place: int) -> CommandError | WorkError | None:
    """Say what caused the event at `place` of a group: what was due last before it, or else the command.

    None when it is neither: the frame's own events.
    """
    for event in reversed(groups[group][: place + 1]):
        work = _work_of(event)
        if work is not None:
            return WorkError(work)
    return CommandError(group - 1) if group else None


def _work_of(event: Event) -> Work | None:
    if isinstance(event, ConditionalTriggered):
        return (event.account_id, event.conditional_id, event.market)
    if isinstance(event, CountdownExpired):
        return (event.account_id, 0, event.market)
    if isinstance(event, OrderExpired) and event.reason is CloseReason.GOOD_TILL_DATE:
        return (event.account_id, event.order_id, event.market)
    return None


def fail_command(turn: Turn, index: int, command: AnyCommand, failure: Failure) -> None:
    """Record that a command failed, and what follows from that."""
    account_id: int = getattr(command, "account_id", 0)
    is_own = not isinstance(command, _ABOUT_ACCOUNT) and account_id not in turn.state.blocked
    counted_id = account_id if is_own else 0
    failures = _count(turn, counted_id)
    key = _key(command)
    turn.emit(
        CommandFailed(
            index=index,
            command=key[0],
            account_id=account_id,
            market=key[2],
            error=failure.error,
            reason=failure.reason,
            failures=failures,
            repeats=0 if failures else turn.state.failing.get(key, 0) + 1,
        )
    )
    _block(turn, counted_id, failures)
    for symbol in _markets_concerned(turn, command):
        _restrict(turn, symbol, f"{type(command).__name__} failed: {failure.error}")


def fail_work(turn: Turn, work: Work, failure: Failure) -> None:
    """Record that something due failed, and what follows from that.

    A conditional order counts as a command of its owner. An order or a countdown that cannot be ended in
    time leaves the market to cancels.
    """
    account_id, number, symbol = work
    is_conditional = number in turn.state.due
    failures = _count(turn, account_id) if is_conditional else 0
    turn.emit(
        WorkFailed(
            account_id=account_id,
            market=symbol,
            number=number,
            error=failure.error,
            reason=failure.reason,
            failures=failures,
        )
    )
    if is_conditional:
        _block(turn, account_id, failures)
    else:
        _restrict(turn, symbol, f"what was due failed: {failure.error}")


def known_failure(turn: Turn, work: Work) -> Failure | None:
    """Return why something due is known to fail, None when it is to be tried."""
    return turn.failures.work.get(work) if turn.failures is not None else None


def refuse_what_fails(turn: Turn, command: Command) -> None:
    """Refuse what has failed too often, and what a blocked account asks for, unless it cancels."""
    if turn.state.failing.get(_key(command), 0) >= FAILURES_MAX:
        raise Refused(
            RejectCode.KEEPS_FAILING,
            f"this has failed {FAILURES_MAX} times, and is not tried again until a market is opened, the "
            "exchange resumed or an account unblocked",
        )
    if not isinstance(command, _CANCELS + _ABOUT_ACCOUNT):
        refuse_if_blocked(turn, getattr(command, "account_id", 0))


def refuse_if_blocked(turn: Turn, account_id: int) -> None:
    """Refuse to do anything for a blocked account."""
    if account_id in turn.state.blocked:
        raise Refused(
            RejectCode.ACCOUNT_BLOCKED,
            f"account_id: {account_id} is blocked after {FAILURES_MAX} failed commands, and may only cancel",
        )


def unblock_account(turn: Turn, command: UnblockAccount) -> None:
    """Let a blocked account trade again, or refuse."""
    account = turn.customer(command.account_id)
    if account.account_id not in turn.state.blocked:
        raise Refused(
            RejectCode.ACCOUNT_NOT_BLOCKED, f"account_id: {account.account_id} is not blocked, nothing to do"
        )
    turn.emit(AccountUnblocked(account_id=account.account_id, reason=command.reason))


def _key(command: Command) -> tuple[str, int, str]:
    """Return the tag of a command with the account and the market that it names."""
    tag = str(type(command).__struct_config__.tag)
    return tag, getattr(command, "account_id", 0), getattr(command, "market", "")


def _count(turn: Turn, account_id: int) -> int:
    """Return how many failures an account has with one more, 0 when there is nobody to count them."""
    account = turn.state.accounts.get(account_id) if account_id else None
    return account.failures + 1 if account is not None else 0


def _block(turn: Turn, account_id: int, failures: int) -> None:
    if failures >= FAILURES_MAX and account_id not in turn.state.blocked:
        turn.emit(AccountBlocked(account_id=account_id, failures=failures))


def _markets_concerned(turn: Turn, command: AnyCommand) -> list[str]:
    """Return the markets that cannot go on without what has failed.

    The price's; all of them when time cannot pass; those of the bucket that cannot be liquidated.
    """
    if isinstance(command, SetIndexPrice):
        return [command.market]
    if isinstance(command, Tick):
        return sorted(turn.state.markets)
    if not isinstance(command, Liquidate):
        return []
    if command.market:
        return [command.market]
    account = turn.state.accounts.get(command.account_id)
    positions = account.positions.values() if account is not None else ()
    held = {p.market.symbol: None for p in positions if p.size_lots and p.mode is CROSS}
    return sorted(held)


def _restrict(turn: Turn, symbol: str, reason: str) -> None:
    market = turn.state.markets.get(symbol)
    if market is not None and market.status is TRADING:
        turn.emit(MarketStatusChanged(market=symbol, status=MarketStatus.CANCEL_ONLY, reason=reason))
