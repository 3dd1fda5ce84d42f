"""Markets, accounts, money in and out, leverage and position mode.

Each function here decides one command: it emits what becomes of it, or raises `Refused`.
"""

from events.commands import (
    AddApiKey,
    AllotInsurance,
    Checkpoint,
    CreateLog,
    Deposit,
    ListMarket,
    OpenAccount,
    RemoveApiKey,
    SetLeverage,
    SetMarketStatus,
    SetPositionMode,
    Tick,
    Withdraw,
)
from events.events import (
    AccountOpened,
    ApiKeyAdded,
    ApiKeyRemoved,
    CheckpointPassed,
    Deposited,
    InsuranceAllotted,
    LeverageSet,
    LogCreated,
    MarketListed,
    MarketStatusChanged,
    PositionModeSet,
    TickPassed,
    Withdrawn,
)
from events.values import ISOLATED, TRADING, KeyKind, KeyPermission, RejectCode
from exchange.aggregate.account import FUND_ACCOUNT_ID, Position
from exchange.aggregate.admission import check_may_leave
from exchange.aggregate.canonical import DIGEST_BYTES
from exchange.aggregate.halting import refuse_if_exchange_halted
from exchange.aggregate.margin import (
    exposure_margin,
    position_value,
    safe_margin,
    standing,
    survey,
    unrealised,
)
from exchange.aggregate.market import spec_problem, value_max
from exchange.aggregate.turn import Refused, Turn
from exchange.aggregate.units import AMOUNT_MAX, decimal_text

LABEL_CHARS_MAX = 100
KEYS_MAX = 30
KEY_CHARS_MAX = 64
NETWORKS_CHARS_MAX = 1_000
SEALED_BYTES_MAX = 256
ED25519_BYTES = 32
# What was ever deposited is a number of the digest and must fit what a message holds.
TURNOVER_MAX = (1 << 63) - 1
_ALL_PERMISSIONS = sum(permission.value for permission in KeyPermission)


def create_log(turn: Turn, command: CreateLog) -> None:
    """Name the log; only entry 1 may."""
    if turn.state.seq != 1 or turn.state.log_id:
        raise Refused(RejectCode.LOG_EXISTS, "log_id: this log has its name already")
    turn.emit(LogCreated(log_id=command.log_id, rules_version=command.rules_version))


def list_market(turn: Turn, command: ListMarket) -> None:
    """Open a market under a specification that keeps the rules."""
    refuse_if_exchange_halted(turn.state, "symbol")
    spec = command.spec
    if spec.symbol in turn.state.markets:
        raise Refused(RejectCode.MARKET_EXISTS, f"symbol: {spec.symbol} is listed already")
    problem = spec_problem(spec)
    if problem:
        raise Refused(RejectCode.BAD_SPEC, problem)
    if value_max(spec) + sum(value_max(market.spec) for market in turn.state.markets.values()) > AMOUNT_MAX:
        raise Refused(
            RejectCode.BAD_SPEC,
            "max_open_interest_lots × max_price_ticks: together with the other markets' must fit 62 bits",
        )
    turn.emit(MarketListed(spec=spec))


def set_market_status(turn: Turn, command: SetMarketStatus) -> None:
    """Open, restrict or halt a market."""
    market = turn.market(command.market)
    if command.status is TRADING:
        refuse_if_exchange_halted(turn.state, "status")
    turn.emit(MarketStatusChanged(market=market.symbol, status=command.status, reason=command.reason))


def open_account(turn: Turn, command: OpenAccount) -> None:
    """Open an account under the next number."""
    if len(command.label) > LABEL_CHARS_MAX:
        raise Refused(RejectCode.BAD_ORDER, f"label: more than {LABEL_CHARS_MAX} characters")
    turn.emit(AccountOpened(account_id=turn.state.next_account_id, label=command.label))


def add_api_key(turn: Turn, command: AddApiKey) -> None:
    """Let a key act for a customer's account."""
    account = turn.customer(command.account_id)
    problem = _key_problem(command)
    if problem:
        raise Refused(RejectCode.BAD_KEY, problem)
    if command.api_key in turn.state.key_owners:
        raise Refused(RejectCode.KEY_EXISTS, "api_key: in use already")
    if len(account.api_keys) >= KEYS_MAX:
        raise Refused(RejectCode.TOO_MANY_KEYS, f"account_id: has {KEYS_MAX} keys already")
    turn.emit(
        ApiKeyAdded(
            account_id=account.account_id,
            api_key=command.api_key,
            kind=command.kind,
            sealed_secret=command.sealed_secret,
            public_key=command.public_key,
            permissions=command.permissions,
            networks=command.networks,
        )
    )


def remove_api_key(turn: Turn, command: RemoveApiKey) -> None:
    """End what a key of a customer's account may do."""
    account = turn.customer(command.account_id)
    if command.api_key not in account.api_keys:
        raise Refused(RejectCode.UNKNOWN_KEY, f"api_key: account {account.account_id} has no such key")
    turn.emit(ApiKeyRemoved(account_id=account.account_id, api_key=command.api_key))


def _key_problem(command: AddApiKey) -> str:
    """Say what is wrong with a key, "" when nothing is. What a network is, only an intake can tell."""
    if not 1 <= len(command.api_key) <= KEY_CHARS_MAX:
        return f"api_key: must have 1 to {KEY_CHARS_MAX} characters"
    if not 0 < command.permissions <= _ALL_PERMISSIONS:
        return f"permissions: must be in 1…{_ALL_PERMISSIONS}"
    if command.kind is KeyKind.ED25519:
        if command.sealed_secret or len(command.public_key) != ED25519_BYTES:
            return f"public_key: an Ed25519 key has {ED25519_BYTES} bytes, and no secret"
    elif command.public_key or not 0 < len(command.sealed_secret) <= SEALED_BYTES_MAX:
        return f"sealed_secret: an HMAC key has one of up to {SEALED_BYTES_MAX} bytes, and no public key"
    if len(command.networks) > NETWORKS_CHARS_MAX:
        return f"networks: at most {NETWORKS_CHARS_MAX} characters in all"
    return ""


def deposit(turn: Turn, command: Deposit) -> None:
    """Bring money in."""
    account = turn.account(command.account_id)
    _check_amount(command.amount)
    state = turn.state
    if state.deposited - state.withdrawn + command.amount > AMOUNT_MAX:
        raise Refused(RejectCode.BAD_AMOUNT, f"amount: the exchange holds at most {decimal_text(AMOUNT_MAX)}")
    if state.deposited + command.amount > TURNOVER_MAX:
        raise Refused(RejectCode.BAD_AMOUNT, "amount: all deposits ever made must fit 63 bits")
    turn.emit(Deposited(account_id=account.account_id, amount=command.amount))


def withdraw(turn: Turn, command: Withdraw) -> None:
    """Take money out, at most what is withdrawable: unrealised profit never is."""
    account = turn.account(command.account_id)
    refuse_if_exchange_halted(turn.state, "amount")
    _check_amount(command.amount)
    check_may_leave(account.cross_positions(), turn.state.now_ns)
    withdrawable = max(0, survey(account).transferable)
    if command.amount > withdrawable:
        raise Refused(
            RejectCode.INSUFFICIENT_BALANCE, f"amount: {decimal_text(withdrawable)} can be withdrawn"
        )
    turn.emit(Withdrawn(account_id=account.account_id, amount=command.amount))


def allot_insurance(turn: Turn, command: AllotInsurance) -> None:
    """Move the fund's money to or from its allotment for a market."""
    market = turn.market(command.market)
    fund = turn.account(FUND_ACCOUNT_ID)
    own = fund.position(market)
    if command.amount == 0:
        raise Refused(RejectCode.BAD_AMOUNT, "amount: must not be 0")
    if command.amount > max(0, fund.wallet):
        raise Refused(
            RejectCode.INSUFFICIENT_BALANCE, f"amount: the fund's wallet holds {decimal_text(fund.wallet)}"
        )
    if command.amount < 0 and -command.amount > max(0, own.bucket + min(0, unrealised(own))):
        raise Refused(RejectCode.INSUFFICIENT_BALANCE, "amount: the allotment is needed for the position")
    turn.emit(InsuranceAllotted(market=market.symbol, amount=command.amount))


def set_leverage(turn: Turn, command: SetLeverage) -> None:
    """Set the leverage of (account, market), with what that moves to isolated buckets.

    Lowering it tops up an isolated position from the wallet; raising it releases nothing by itself.
    """
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    leverage, brackets = command.leverage, market.brackets
    if not 1 <= leverage <= brackets.leverages[0]:
        raise Refused(RejectCode.BAD_LEVERAGE, f"leverage: {leverage} is outside 1…{brackets.leverages[0]}")
    positions = account.positions_in(market)
    if leverage > positions[0].leverage:
        check_may_leave(positions, turn.state.now_ns)
    top_ups = [_top_up(position, leverage) for position in positions]
    increase = sum(top_ups)
    if increase:
        check_may_leave(account.cross_positions(), turn.state.now_ns)
    for position in positions:
        known = standing(position)
        if known.exposure > brackets.cap_at(leverage):
            raise Refused(
                RejectCode.BAD_LEVERAGE,
                f"leverage: {leverage} permits {decimal_text(brackets.cap_at(leverage))}, "
                f"exposure is {decimal_text(known.exposure)}",
            )
        margin = exposure_margin(position, position_value(position), known.exposure, leverage)
        increase += margin + position.extras - known.required
    pool = survey(account)
    room = pool.transferable if positions[0].mode is ISOLATED else pool.free
    if increase > max(0, room):
        raise Refused(
            RejectCode.LEVERAGE_NOT_COVERED,
            f"leverage: needs {decimal_text(increase)} more, {decimal_text(max(0, room))} is available",
        )
    for position, moved in zip(positions, top_ups, strict=True):
        turn.emit(
            LeverageSet(
                account_id=account.account_id,
                market=market.symbol,
                leverage=leverage,
                margin_moved=moved,
                leg=position.leg,
            )
        )


def set_position_mode(turn: Turn, command: SetPositionMode) -> None:
    """Choose one-way or hedge mode for an account that is flat and has no orders."""
    account = turn.customer(command.account_id)
    if account.hedge is command.hedge:
        raise Refused(RejectCode.POSITION_MODE_UNCHANGED, "dualSidePosition: is so already")
    if account.orders or account.conditionals:
        raise Refused(RejectCode.POSITION_MODE_HAS_ORDERS, "dualSidePosition: orders are open")
    if any(position.size_lots for position in account.positions.values()):
        raise Refused(RejectCode.POSITION_MODE_HAS_POSITION, "dualSidePosition: positions are open")
    turn.emit(PositionModeSet(account_id=account.account_id, hedge=command.hedge))


def tick(turn: Turn, command: Tick) -> None:
    """Let time pass."""
    turn.emit(TickPassed())


def checkpoint(turn: Turn, command: Checkpoint) -> None:
    """Record a digest of an earlier state; the one of this moment cannot be known yet."""
    state = turn.state
    if not 0 < command.seq < state.seq:
        raise Refused(RejectCode.BAD_CHECKPOINT, f"seq: {command.seq} is outside 1…{state.seq - 1}")
    if len(command.digest) != DIGEST_BYTES:
        raise Refused(RejectCode.BAD_CHECKPOINT, f"digest: must have {DIGEST_BYTES} bytes")
    if not 0 < command.rules_version <= state.rules_version:
        raise Refused(RejectCode.BAD_CHECKPOINT, f"rules_version: must be in 1…{state.rules_version}")
    turn.ask_for_recount()
    turn.emit(CheckpointPassed(seq=command.seq, digest=command.digest, rules_version=command.rules_version))


def _check_amount(amount: int) -> None:
    if not 0 < amount <= AMOUNT_MAX:
        raise Refused(
            RejectCode.BAD_AMOUNT,
            f"amount: {decimal_text(amount)} is outside {decimal_text(1)}…{decimal_text(AMOUNT_MAX)}",
        )


def _top_up(position: Position, leverage: int) -> int:
    """Return what an isolated bucket lacks for its initial margin at a lower leverage."""
    if position.mode is not ISOLATED or position.size_lots == 0 or leverage >= position.leverage:
        return 0
    target = safe_margin(position, leverage) + max(0, -unrealised(position))
    return max(0, target - position.bucket)
