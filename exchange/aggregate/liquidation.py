"""The liquidation waterfall: cancel, reduce, take over, deleverage.

The liquidator only asks; here the request is checked again at the aggregate's own marks, so that a late or
repeated one is harmless. Each step is an event, and the first holds the whole worksheet.

 1. Cancel the bucket's open orders, so that nothing grows while it shrinks.
 2. Reduce: immediate-or-cancel orders at the bankruptcy price, the largest maintenance first, one bracket
    down at a time, until equity is above maintenance. The fee goes to the insurance fund.
 3. What does not fill is taken over by the fund, in money: the bucket gives up exactly its equity. The fund
    bears at most what it was allotted for the market.
 4. Where it cannot, the position is closed against the other side (`deleverage`), quantity for quantity: at
    its bankruptcy price, and where nobody can take more at that, at mark, with what is missing filled up.
 5. `LiquidationFinished`: the bucket's equity is not below zero, and nothing outside it was lost.

A position in a market that is halted or whose index is stale stands where it is. It does not shield the
others: they go through all steps, with their shares of the equity.

The fund's own position has no step but the last one, once its allotment is spent at an index update. Until
then it is traded back at each update, a bounded part at a time.
"""

from events.commands import Liquidate
from events.events import (
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    OrderAccepted,
    PositionTakenOver,
)
from events.values import (
    BUY,
    CROSS,
    IOC,
    ISOLATED,
    LIQUIDATION,
    SELL,
    CloseReason,
    Leg,
    LiquidationResult,
    MarketStatus,
    SelfTrade,
    Side,
    WorksheetRow,
)
from exchange.aggregate.account import BOTH, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.conditional import cancel_conditionals_of
from exchange.aggregate.deleverage import Deleveraging, other_side
from exchange.aggregate.fills import realise
from exchange.aggregate.index import index_is_stale
from exchange.aggregate.liquidation_price import bankruptcy_price
from exchange.aggregate.margin import (
    bucket_equity,
    is_liquidatable,
    maintenance,
    position_value,
    unrealised,
)
from exchange.aggregate.market import Market
from exchange.aggregate.matching import cancel, match
from exchange.aggregate.state import AGGREGATE_ORDER_BASE
from exchange.aggregate.turn import EVENTS_PER_COMMAND_AIM, Turn
from exchange.aggregate.units import RATE_ONE, ceil_div, charge, floor_div


class _Case:
    """A liquidation under way: whose, of which bucket, under which number.

    `isolated` is the position whose bucket it is, None for the cross pool.
    """

    __slots__ = ("account", "isolated", "leg", "liquidation_id", "market_symbol", "turn")

    def __init__(self, turn: Turn, account: Account, market_symbol: str, leg: Leg) -> None:
        self.turn = turn
        self.account = account
        self.market_symbol = market_symbol
        self.leg = leg
        self.isolated: Position | None = None
        if market_symbol:
            self.isolated = account.position(turn.market(market_symbol), leg)
        self.liquidation_id = turn.state.liquidation_count + 1

    def positions(self) -> list[Position]:
        """The bucket's open positions, the largest maintenance first."""
        return open_positions(self.account, self.isolated)

    def equity(self) -> int:
        """The bucket's equity at mark."""
        if self.isolated is not None:
            return bucket_equity(self.account, self.isolated)
        return self.account.wallet + sum(unrealised(position) for position in self.positions())

    def is_restored(self) -> bool:
        """Whether the bucket is above maintenance, or has nothing left to liquidate."""
        return not is_liquidatable(self.equity(), sum(maintenance(p) for p in self.positions()))


def liquidate(turn: Turn, command: Liquidate) -> None:
    """Run the waterfall for a bucket that is at or below maintenance, or record why not."""
    account = turn.customer(command.account_id)
    case = _Case(turn, account, command.market, command.leg)
    reason = _reason_to_skip(case)
    if reason:
        turn.emit(
            LiquidationSkipped(
                account_id=account.account_id,
                market=command.market,
                cause_seq=command.cause_seq,
                reason=reason,
                leg=command.leg,
            )
        )
        return
    fund_before = fund_equity(turn)
    _start(case, command.cause_seq)
    _cancel_orders(case)
    result = _reduce_all(case)
    if result is None:
        result = _pass_on_all(case)
    _finish(case, result, fund_before)


def open_positions(account: Account, isolated: Position | None) -> list[Position]:
    """Return the open positions of a bucket, the largest maintenance first, then by market and leg.

    Without an `isolated` position the bucket is the account's cross pool.
    """
    if isolated is not None:
        return [isolated] if isolated.size_lots != 0 and isolated.mode is ISOLATED else []
    found = [p for p in account.positions.values() if p.size_lots != 0 and p.mode is CROSS]
    return sorted(found, key=lambda p: (-maintenance(p), p.market.symbol, p.leg))


def fund_equity(turn: Turn) -> int:
    """Return what the insurance fund is worth at mark: wallet, allotments and their positions."""
    fund = turn.state.accounts[FUND_ACCOUNT_ID]
    return fund.wallet + sum(p.bucket + unrealised(p) for p in fund.positions.values())


def unwind_fund(turn: Turn, market: Market) -> None:
    """Let the fund trade a bounded part of its position back, within the maker fee of the mark.

    Whoever takes the other side pays that fee, so nobody gains on the fund by standing there. A position
    whose allotment is spent is deleveraged.
    """
    fund = turn.state.accounts[FUND_ACCOUNT_ID]
    own = fund.position(market)
    size_lots = own.size_lots
    if size_lots == 0 or _block(turn, market):
        return
    if own.bucket + unrealised(own) < 0:
        _deleverage_fund(turn, market, own)
        return
    side = SELL if size_lots > 0 else BUY
    width = floor_div(market.mark_ticks * max(0, market.spec.maker_fee), RATE_ONE)
    limit_ticks = max(1, market.mark_ticks - side * width)
    best = market.book.best(side.opposite)
    if best is None or side * (limit_ticks - best.price_ticks) < 0:
        return
    lots = min(abs(size_lots), market.spec.unwind_lots)
    _trade_at_once(turn, fund, own, side, lots, limit_ticks, 0)


def _deleverage_fund(turn: Turn, market: Market, own: Position) -> None:
    """Close the fund's position against the other side: the market's loss is the fund's no longer."""
    case = _Case(turn, turn.state.accounts[FUND_ACCOUNT_ID], market.symbol, BOTH)
    fund_before = fund_equity(turn)
    _start(case, turn.state.seq)
    result = Deleveraging(turn, case.account, case.liquidation_id).close(own, case.equity())
    _finish(case, result, fund_before)


def _reason_to_skip(case: _Case) -> str:
    positions = case.positions()
    if not positions:
        return "no open position"
    if case.is_restored():
        return "equity is above maintenance"
    blocks = [_block(case.turn, position.market) for position in positions]
    return "" if "" in blocks else "; ".join(blocks)


def _block(turn: Turn, market: Market) -> str:
    """Say why no position can be liquidated in a market, "" if they can."""
    if turn.state.halt is not None:
        return "the exchange is halted"
    if market.status is MarketStatus.HALTED:
        return f"{market.symbol} is halted"
    if index_is_stale(market, turn.state.now_ns):
        return f"the index of {market.symbol} is stale"
    return ""


def _start(case: _Case, cause_seq: int) -> None:
    rows = [_worksheet_row(position) for position in case.positions()]
    case.turn.emit(
        LiquidationStarted(
            liquidation_id=case.liquidation_id,
            account_id=case.account.account_id,
            market=case.market_symbol,
            mode=CROSS if case.isolated is None else ISOLATED,
            cause_seq=cause_seq,
            collateral=_collateral(case),
            equity=case.equity(),
            maintenance=sum(row.maintenance for row in rows),
            rows=tuple(rows),
            leg=case.leg,
        )
    )


def _worksheet_row(position: Position) -> WorksheetRow:
    market = position.market
    notional = abs(position_value(position))
    bracket = market.brackets.containing(notional)
    deduction, deduction_rest = divmod(market.brackets.deductions[bracket], RATE_ONE)
    return WorksheetRow(
        market=market.symbol,
        leg=position.leg,
        size_lots=position.size_lots,
        entry_cost=position.entry_cost,
        mark_ticks=market.mark_ticks,
        index_ticks=market.index_ticks,
        last_ticks=market.last_ticks,
        notional=notional,
        bracket=bracket,
        maintenance_rate=market.brackets.rates[bracket],
        deduction=deduction,
        deduction_rest=deduction_rest,
        unrealised=unrealised(position),
        maintenance=maintenance(position),
    )


def _cancel_orders(case: _Case) -> None:
    """Isolated: that position's orders. Cross: all cross orders, and isolated ones that open.

    The margin of isolated opening orders sits in the wallet, which is the pool's. Conditional orders of the
    positions concerned go with them.
    """
    account = case.account
    for order in list(account.orders.values()):
        position = order.position
        if case.isolated is not None:
            concerned = position is case.isolated
        else:
            only_reduces = position.open_lots(order.side) <= position.reducible_lots(order.side)
            concerned = position.mode is CROSS or not only_reduces
        if concerned:
            cancel(case.turn, order, CloseReason.LIQUIDATION)
    # By key: the order in which positions came to be is not part of the digest.
    crossed = [p for _, p in sorted(account.positions.items()) if p.mode is CROSS]
    for position in crossed if case.isolated is None else [case.isolated]:
        if position.conditional_count:
            cancel_conditionals_of(case.turn, account, position)


def _reduce_all(case: _Case) -> LiquidationResult | None:
    """Trade positions down in the book; return the result when that is enough, None when it is not."""
    for position in case.positions():
        while position.size_lots != 0 and not _block(case.turn, position.market):
            wanted = _lots_of_bracket(position)
            closed, is_cut_short = _reduce(case, position, wanted)
            if case.is_restored():
                return LiquidationResult.RESTORED if case.positions() else LiquidationResult.CLOSED
            if is_cut_short or len(case.turn.events) > EVENTS_PER_COMMAND_AIM:
                return LiquidationResult.CONTINUES
            if closed < wanted:
                break
    return None


def _lots_of_bracket(position: Position) -> int:
    """Return how many lots bring the position down to the next lower bracket; the lowest closes whole."""
    market = position.market
    notional = abs(position_value(position))
    floor = market.brackets.floor(market.brackets.containing(notional))
    if floor == 0:
        return abs(position.size_lots)
    return min(abs(position.size_lots), ceil_div(notional - floor, market.mark_ticks * market.unit))


def _reduce(case: _Case, position: Position, lots: int) -> tuple[int, bool]:
    """Trade `lots` at the bankruptcy price or better and charge the fee.

    Returns the lots that traded, and whether there would have been more, but not in one command.
    """
    market = position.market
    share = _equity_share(case, position)
    numerator, denominator = bankruptcy_price(position, share)
    side = SELL if position.size_lots > 0 else BUY
    rounded = ceil_div(numerator, denominator) if side is SELL else floor_div(numerator, denominator)
    # A short without equity may be bankrupt below any price: nothing in the book is good enough.
    best = market.book.best(side.opposite)
    limit_ticks = max(1, rounded) if side is SELL else rounded
    if best is None or side * (limit_ticks - best.price_ticks) < 0:
        return 0, False
    size_before, cost_before, realised_before = position.size_lots, position.entry_cost, _collateral(case)
    stop = _trade_at_once(case.turn, case.account, position, side, lots, limit_ticks, case.liquidation_id)
    closed = abs(size_before - position.size_lots)
    # entry cost changes by signed quantity × price + realised, and the collateral by realised
    value = abs(position.entry_cost - cost_before - (_collateral(case) - realised_before))
    fee = min(charge(value, market.spec.liquidation_fee), max(0, case.equity()))
    if fee:
        case.turn.emit(
            LiquidationFeeCharged(
                liquidation_id=case.liquidation_id,
                account_id=case.account.account_id,
                market=market.symbol,
                amount=fee,
                leg=position.leg,
            )
        )
    return closed, stop is CloseReason.EVENT_LIMIT


def _collateral(case: _Case) -> int:
    return case.account.wallet if case.isolated is None else case.isolated.bucket


def _trade_at_once(
    turn: Turn,
    account: Account,
    position: Position,
    side: Side,
    lots: int,
    limit_ticks: int,
    liquidation_id: int,
) -> CloseReason | None:
    """Place an immediate-or-cancel order; return why its rest expired, None if nothing was left."""
    market = position.market
    order_id = AGGREGATE_ORDER_BASE + turn.state.aggregate_order_count + 1
    turn.emit(
        OrderAccepted(
            order_id=order_id,
            account_id=account.account_id,
            market=market.symbol,
            side=side,
            order_type=LIQUIDATION,
            quantity_lots=lots,
            price_ticks=limit_ticks,
            time_in_force=IOC,
            reduce_only=True,
            client_order_id="",
            extras=0,
            liquidation_id=liquidation_id,
            leg=position.leg,
            self_trade=SelfTrade.EXPIRE_MAKER,
        )
    )
    return match(turn, market, account.orders[order_id])


def _equity_share(case: _Case, position: Position) -> int:
    """Return a position's share of the bucket's equity: E × MM_i / Σ MM, rounded down."""
    if case.isolated is not None:
        return case.equity()
    total = sum(maintenance(other) for other in case.positions())
    return floor_div(case.equity() * maintenance(position), total)


def _can_bear(case: _Case, position: Position, share: int) -> bool:
    """Whether the fund's allotment covers its position after taking this one over with its share."""
    own = case.turn.state.accounts[FUND_ACCOUNT_ID].position(position.market)
    return own.bucket + unrealised(own) + share >= 0


def _pass_on_all(case: _Case) -> LiquidationResult:
    """Pass what is left to the fund or to the other side, each position with its share of the equity.

    The last one takes the rounding.
    """
    deleveraging = Deleveraging(case.turn, case.account, case.liquidation_id)
    result = LiquidationResult.TAKEN_OVER
    if case.isolated is None and _net_legs(case, deleveraging):
        if case.is_restored():
            return LiquidationResult.DELEVERAGED
        result = LiquidationResult.DELEVERAGED
    positions = case.positions()
    shares = [_equity_share(case, position) for position in positions]
    shares[-1] += case.equity() - sum(shares)
    sides = [other_side(position) for position in positions]
    for position, share, side in zip(positions, shares, sides, strict=True):
        if _block(case.turn, position.market):
            step = LiquidationResult.UNBORNE
        elif position.size_lots == 0:  # the other leg of its hedge was closed against it
            step = _fill_up_flat(case, deleveraging, position, share, side)
        elif _can_bear(case, position, share):
            _take_over(case, position, share)
            step = LiquidationResult.TAKEN_OVER
        else:
            step = deleveraging.close(position, share)
        result = max(result, step)
    return result


def _fill_up_flat(
    case: _Case, deleveraging: Deleveraging, position: Position, share: int, side: Side
) -> LiquidationResult:
    missing = min(-share, -case.equity())
    if missing <= 0:
        return LiquidationResult.DELEVERAGED
    deleveraging.fill_up(case.account, position, missing, side)
    return LiquidationResult.SOCIALISED


def _net_legs(case: _Case, deleveraging: Deleveraging) -> bool:
    """Net the hedges of a cross pool of which the fund cannot bear some position; return whether it did.

    Two legs of the same size leave nothing to close. A pool that is nothing but such hedges keeps them: with
    no equity left it needs somebody on the other side.
    """
    hedged: dict[str, Position] = {}
    is_borne = True
    is_all_matched = True
    for position in case.positions():
        legs = case.account.positions_in(position.market)
        is_all_matched = is_all_matched and sum(leg.size_lots for leg in legs) == 0
        if _block(case.turn, position.market):
            continue
        is_borne = is_borne and _can_bear(case, position, _equity_share(case, position))
        if all(leg.size_lots for leg in legs) and len(legs) > 1:
            hedged.setdefault(position.market.symbol, position)  # the larger leg
    if is_borne or not hedged or (is_all_matched and case.equity() < 0):
        return False
    for position in hedged.values():
        deleveraging.net_legs(position)
    return True


def _take_over(case: _Case, position: Position, share: int) -> None:
    realised = unrealised(position) - share
    fund = case.turn.state.accounts[FUND_ACCOUNT_ID].position(position.market)
    case.turn.emit(
        PositionTakenOver(
            liquidation_id=case.liquidation_id,
            account_id=case.account.account_id,
            market=position.market.symbol,
            size_lots=position.size_lots,
            entry_cost=position.entry_cost,
            realised=realised,
            fund_realised=realise(
                fund.size_lots, fund.entry_cost, position.size_lots, position.entry_cost + realised
            ),
            leg=position.leg,
        )
    )


def _finish(case: _Case, result: LiquidationResult, fund_before: int) -> None:
    released = 0
    own = case.isolated
    if own is not None and own.size_lots == 0 and case.account.account_id != FUND_ACCOUNT_ID:
        released = own.bucket
        assert released >= 0, released
    if result < LiquidationResult.UNBORNE:
        assert case.equity() >= 0, case.equity()
    case.turn.emit(
        LiquidationFinished(
            liquidation_id=case.liquidation_id,
            account_id=case.account.account_id,
            market=case.market_symbol,
            result=result,
            equity=case.equity(),
            released=released,
            fund_before=fund_before,
            fund_after=fund_equity(case.turn),
            leg=case.leg,
        )
    )
