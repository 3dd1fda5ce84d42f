"""Margin modes and moves of collateral: what stands behind a position, changed while it is open.

A mode is switched in one event, with positions and orders open. The rule is the same both ways: nobody may
be worse protected by it than the pool's own requirements ask. So the switch is made on a copy of the account
first, and the copy is judged: to isolated, what leaves the pool must be transferable there (unrealised profit
never leaves); to cross, the pool must be free of debt with the position in it. The same plan answers a dry
run.

What stays in a bucket is always more than its maintenance margin, since equality liquidates.
"""

from events.commands import AdjustMargin, SetMarginMode
from events.events import MarginAdjusted, MarginModeSet, Rejected
from events.values import CROSS, ISOLATED, MarginMode, ModeChange, RejectCode
from exchange.aggregate.account import Account, Position
from exchange.aggregate.admission import check_leg, check_may_leave
from exchange.aggregate.liquidation_price import liquidation_price_of, price_amount
from exchange.aggregate.margin import (
    bucket_equity,
    is_liquidatable,
    maintenance,
    margin_ratio,
    position_value,
    safe_margin,
    standing,
    survey,
    unrealised,
)
from exchange.aggregate.market import Market
from exchange.aggregate.posting import move_margin
from exchange.aggregate.scratch import copy_account, set_copy_mode
from exchange.aggregate.state import Exchange
from exchange.aggregate.turn import Refused, Turn
from exchange.aggregate.units import AMOUNT_MAX, ceil_div, decimal_text

# Removing margin leaves at least this share of the notional: 10 %.
REMOVAL_KEEPS_DIVISOR = 10


def set_margin_mode(turn: Turn, command: SetMarginMode) -> None:
    """Set the margin mode of (account, market) with what is open there, or refuse."""
    turn.emit(_plan(turn, command))


def preview_margin_mode(state: Exchange, command: SetMarginMode) -> MarginModeSet | Rejected:
    """Return the event that the command would give at this state, which stays as it is: a dry run."""
    try:
        return _plan(Turn(state), command)
    except Refused as refused:
        return Rejected(account_id=command.account_id, code=refused.code, reason=refused.reason)


def adjust_margin(turn: Turn, command: AdjustMargin) -> None:
    """Move money between the wallet and an isolated position's bucket, or refuse.

    What is added must be transferable. What is removed leaves the initial margin and 10 % of the notional,
    counting losses but no unrealised profit.
    """
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    check_leg(account, command.leg)
    position = account.position(market, command.leg)
    amount = command.amount
    if amount == 0:
        raise Refused(RejectCode.BAD_MARGIN, "amount: must not be 0")
    if position.mode is not ISOLATED:
        raise Refused(RejectCode.NOT_ISOLATED, f"market: {market.symbol} is in cross margin")
    if position.size_lots == 0:
        raise Refused(RejectCode.NO_POSITION, f"market: no position in {market.symbol}")
    if amount > 0:
        check_may_leave(account.cross_positions(), turn.state.now_ns)
        transferable = max(0, survey(account).transferable)
        if amount > transferable:
            raise Refused(
                RejectCode.INSUFFICIENT_BALANCE, f"amount: {decimal_text(transferable)} can be added"
            )
    else:
        check_may_leave([position], turn.state.now_ns)
        removable = removable_margin(position)
        if -amount > removable:
            raise Refused(
                RejectCode.MARGIN_NOT_REMOVABLE, f"amount: {decimal_text(removable)} can be removed"
            )
    turn.emit(
        MarginAdjusted(account_id=account.account_id, market=market.symbol, amount=amount, leg=position.leg)
    )


def removable_margin(position: Position) -> int:
    """Return what may leave the bucket of an isolated position, in money units.

    bucket + min(0, unrealised) − max(initial margin, 10 % of the notional), and it stays above maintenance.
    """
    tenth = ceil_div(abs(position_value(position)), REMOVAL_KEEPS_DIVISOR)
    kept = max(safe_margin(position, position.leverage), tenth)
    return max(0, position.bucket + min(0, unrealised(position)) - kept)


def plan_margin_mode(account: Account, market: Market, mode: MarginMode, margin: int = 0) -> MarginModeSet:
    """Return the event that sets a margin mode, or refuse what the account cannot bear.

    `margin` is what each open leg is to have in its bucket at least. Changes nothing.
    """
    copy = copy_account(account)
    changed = account.positions_in(market)[0].mode is not mode
    if changed:
        _check_nothing_is_dying(account, market, mode)
        _switch(copy, market, mode, margin)
    return MarginModeSet(
        account_id=account.account_id,
        market=market.symbol,
        mode=mode,
        changed=changed,
        wallet_before=account.wallet,
        wallet_after=copy.wallet,
        legs=tuple(
            _change(account, before, copy, after)
            for before, after in zip(account.positions_in(market), copy.positions_in(market), strict=True)
        ),
    )


def _plan(turn: Turn, command: SetMarginMode) -> MarginModeSet:
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    if not 0 <= command.margin <= AMOUNT_MAX:
        raise Refused(RejectCode.BAD_MARGIN, f"margin: must be in 0…{decimal_text(AMOUNT_MAX)}")
    if command.margin and command.mode is CROSS:
        raise Refused(RejectCode.BAD_MARGIN, "margin: only an isolated position has its own")
    if command.only_flat:
        _check_is_flat(account, market, command.mode)
    legs = account.positions_in(market)
    if legs[0].mode is not command.mode and any(leg.size_lots or leg.order_count for leg in legs):
        check_may_leave([*account.cross_positions(), *legs], turn.state.now_ns)
    return plan_margin_mode(account, market, command.mode, command.margin)


def _check_is_flat(account: Account, market: Market, mode: MarginMode) -> None:
    """Refuse as Binance does: the mode that is set, or one that open orders or a position stand in."""
    positions = account.positions_in(market)
    if positions[0].mode is mode:
        raise Refused(RejectCode.MODE_UNCHANGED, f"marginType: is {mode.name} already")
    if any(position.order_count or position.conditional_count for position in positions):
        raise Refused(RejectCode.MODE_HAS_ORDERS, f"marginType: orders are open in {market.symbol}")
    if any(position.size_lots for position in positions):
        raise Refused(RejectCode.MODE_HAS_POSITION, f"marginType: a position is open in {market.symbol}")


def _check_nothing_is_dying(account: Account, market: Market, mode: MarginMode) -> None:
    """Refuse while a bucket that the switch takes from or adds to is due for liquidation."""
    legs = account.positions_in(market)
    if not any(leg.size_lots or leg.order_count for leg in legs):
        return
    pool = survey(account)
    if is_liquidatable(pool.equity, pool.maintenance):
        raise Refused(RejectCode.IN_LIQUIDATION, "marginMode: the cross pool is at or below maintenance")
    if mode is CROSS and any(is_liquidatable(bucket_equity(account, p), maintenance(p)) for p in legs):
        raise Refused(
            RejectCode.IN_LIQUIDATION,
            f"marginMode: the position in {market.symbol} is at or below maintenance",
        )


def _switch(copy: Account, market: Market, mode: MarginMode, margin: int) -> None:
    """Let a copied account have the mode, or refuse when its pool does not cover that.

    The market's orders are margined anew with it. Where nothing is open, there is nothing to cover.
    """
    legs = [copy.stored_position(market, leg) for leg in copy.legs]
    for leg in legs:
        if leg.bucket:
            move_margin(copy, leg, -leg.bucket)
        set_copy_mode(leg, mode)
    pool = survey(copy)
    required = sum(standing(leg).required for leg in legs)
    moved = [_margin_to_move(leg, margin) if mode is ISOLATED else 0 for leg in legs]
    needed = required + sum(moved)
    available = (pool.transferable if mode is ISOLATED else pool.free) + required
    is_open = any(leg.size_lots or leg.order_count for leg in legs)
    if is_open and needed > available:
        raise Refused(
            RejectCode.MODE_NOT_COVERED,
            f"marginMode: {mode.name} needs {decimal_text(needed)} in {market.symbol}, "
            f"{decimal_text(max(0, available))} is available",
        )
    for leg, amount in zip(legs, moved, strict=True):
        if amount:
            move_margin(copy, leg, amount)


def _margin_to_move(position: Position, margin: int) -> int:
    """Return what a leg's new bucket gets: its margin with its loss made good, or what was asked for."""
    if position.size_lots == 0:
        return 0
    return max(safe_margin(position, position.leverage) + max(0, -unrealised(position)), margin)


def _change(account: Account, before: Position, copy: Account, after: Position) -> ModeChange:
    return ModeChange(
        leg=before.leg,
        size_lots=before.size_lots,
        bucket_before=before.bucket,
        bucket_after=after.bucket,
        ratio_before=_ratio(account, before),
        ratio_after=_ratio(copy, after),
        liquidation_price_before=_liquidation_price(account, before),
        liquidation_price_after=_liquidation_price(copy, after),
    )


def _ratio(account: Account, position: Position) -> int | None:
    """Return maintenance / equity of the bucket a position stands on, in 1e-8; None when it is flat."""
    if position.size_lots == 0:
        return None
    if position.mode is ISOLATED:
        return margin_ratio(bucket_equity(account, position), maintenance(position))
    pool = survey(account)
    return margin_ratio(pool.equity, pool.maintenance)


def _liquidation_price(account: Account, position: Position) -> int | None:
    """Return where the bucket a position stands on meets maintenance, in 1e-8 quote; None if nowhere."""
    price = liquidation_price_of(account, position)
    if price is None:
        return None
    amount = price_amount(price, position.market.spec.tick_size)
    return amount if amount <= AMOUNT_MAX else None
