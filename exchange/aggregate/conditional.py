"""Conditional orders, countdowns and orders with an end: what happens later, and when its time has come.

A price or a time makes work due; it is done right after the command that brought it, a bounded amount at a
time. What is left stays in the state, in order, and is done first in the frames after, so that no price
change can stall the venue.
"""

from events.commands import (
    CancelAllConditionals,
    CancelConditional,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
)
from events.events import (
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    CountdownExpired,
    CountdownSet,
)
from events.values import (
    LIMIT,
    MARKET,
    NO_MATCH,
    CloseReason,
    RejectCode,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)
from exchange.aggregate.account import BOTH, Account, Position, reducing_side
from exchange.aggregate.admission import (
    check_leg,
    check_market_is_open,
    check_price,
    check_quantity,
    only_reduces,
    refuse_if_halted,
)
from exchange.aggregate.failing import Work, WorkError, fail_work, known_failure, refuse_if_blocked
from exchange.aggregate.market import Market
from exchange.aggregate.matching import cancel_all, expire, place_order
from exchange.aggregate.price_match import check_brings_no_price
from exchange.aggregate.state import AGGREGATE_ORDER_BASE, Exchange
from exchange.aggregate.triggers import rises_to_trigger
from exchange.aggregate.turn import EVENTS_PER_COMMAND_AIM, Refused, Turn
from exchange.aggregate.units import RATE_ONE, decimal_text

TRIGGERS_PER_COMMAND_MAX = 100
TIMERS_PER_FRAME_MAX = 100
COUNTDOWN_MS_MAX = 7 * 24 * 3_600_000
CALLBACK_RATE_MAX = RATE_ONE // 10
NS_PER_MS = 1_000_000


def place_conditional(turn: Turn, command: PlaceConditional) -> None:
    """Let an order wait for its price, or refuse."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    check_leg(account, command.leg)
    position = account.position(market, command.leg)
    check_market_is_open(market)
    _check_terms(command, market, turn.state.now_ns)
    _check_trigger(command, market)
    if command.client_order_id and command.client_order_id in account.conditional_client_ids:
        raise Refused(
            RejectCode.DUPLICATE_CLIENT_ORDER_ID,
            f"clientAlgoId: {command.client_order_id!r} is an open conditional order's",
        )
    if command.close_position:
        _check_no_other_closes(account, command)
    _check_count(account, position)
    turn.emit(
        ConditionalAccepted(
            conditional_id=turn.order_id,
            account_id=account.account_id,
            market=market.symbol,
            side=command.side,
            kind=command.kind,
            order_type=command.order_type,
            quantity_lots=command.quantity_lots,
            trigger_ticks=command.trigger_ticks,
            price_ticks=command.price_ticks,
            working_price=command.working_price,
            time_in_force=command.time_in_force,
            reduce_only=command.close_position or only_reduces(command),
            close_position=command.close_position,
            callback_rate=command.callback_rate,
            activation_ticks=_activation(command, market),
            client_order_id=command.client_order_id,
            leg=command.leg,
            self_trade=command.self_trade,
            expires_ns=command.expires_ns,
            price_match=command.price_match,
            price_protect=command.price_protect,
        )
    )


def cancel_conditional(turn: Turn, command: CancelConditional) -> None:
    """Cancel one conditional order that has not triggered, or refuse."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    asked = command.conditional_id or account.conditional_client_ids.get(command.client_order_id, 0)
    terms = account.conditionals.get(asked)
    if terms is None or terms.market != market.symbol:
        name = command.conditional_id or command.client_order_id
        raise Refused(RejectCode.UNKNOWN_ORDER, f"algoId: no conditional order {name!r} in {market.symbol}")
    refuse_if_halted(market)
    _cancel(turn, terms, CloseReason.USER)


def cancel_all_conditionals(turn: Turn, command: CancelAllConditionals) -> None:
    """Cancel every conditional order of an account in a market; none is no error."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    refuse_if_halted(market)
    for terms in [terms for terms in account.conditionals.values() if terms.market == market.symbol]:
        _cancel(turn, terms, CloseReason.USER)


def cancel_conditionals_of(turn: Turn, account: Account, position: Position) -> None:
    """Take away the conditional orders of a position that is being liquidated."""
    market, leg = position.market.symbol, position.leg
    for terms in [t for t in account.conditionals.values() if t.market == market and t.leg is leg]:
        _cancel(turn, terms, CloseReason.LIQUIDATION)


def set_countdown(turn: Turn, command: SetCountdown) -> None:
    """Start, renew or end (0 ms) the countdown after which an account's orders in a market are cancelled."""
    account = turn.customer(command.account_id)
    market = turn.market(command.market)
    if not 0 <= command.countdown_ms <= COUNTDOWN_MS_MAX:
        raise Refused(RejectCode.BAD_COUNTDOWN, f"countdownTime: must be in 0…{COUNTDOWN_MS_MAX} ms")
    deadline_ns = turn.state.now_ns + command.countdown_ms * NS_PER_MS if command.countdown_ms else 0
    turn.emit(CountdownSet(account_id=account.account_id, market=market.symbol, deadline_ns=deadline_ns))


def do_overdue(turn: Turn) -> None:
    """End the orders whose time has come, and run out the countdowns, oldest first.

    Raises:
        WorkError: one of them cannot be done, which is a fault of the exchange (see `failing`).
    """
    state = turn.state
    for _ in range(TIMERS_PER_FRAME_MAX):
        timer = next(iter(state.overdue), None)
        if timer is None:
            return
        work = (timer[1], timer[2], timer[3])
        failure = known_failure(turn, work)
        if failure is not None:
            fail_work(turn, work, failure)
            continue
        try:
            _end(turn, work)
        except Exception as error:
            raise WorkError(work) from error


def _end(turn: Turn, work: Work) -> None:
    """End an order, or run out a countdown."""
    account_id, order_id, symbol = work
    account = turn.state.accounts[account_id]
    if order_id:
        expire(turn, account.orders[order_id], CloseReason.GOOD_TILL_DATE)
    else:
        turn.emit(CountdownExpired(account_id=account_id, market=symbol))
        cancel_all(turn, account, turn.state.markets[symbol], CloseReason.COUNTDOWN)


def do_due(turn: Turn) -> None:
    """Place the orders of conditional orders whose price was reached, in the order of firing.

    Raises:
        WorkError: one of them cannot be done, which is a fault of the exchange (see `failing`).
    """
    state = turn.state
    for _ in range(TRIGGERS_PER_COMMAND_MAX):
        if not state.due or len(turn.events) > EVENTS_PER_COMMAND_AIM:
            return
        conditional_id, account_id = next(iter(state.due.items()))
        terms = state.accounts[account_id].conditionals[conditional_id]
        work = (account_id, conditional_id, terms.market)
        failure = known_failure(turn, work)
        if failure is not None:
            fail_work(turn, work, failure)
            continue
        try:
            _fire(turn, terms)
        except Exception as error:
            raise WorkError(work) from error


def _fire(turn: Turn, terms: ConditionalAccepted) -> None:
    state = turn.state
    order_id = AGGREGATE_ORDER_BASE + state.aggregate_order_count + 1
    turn.emit(
        ConditionalTriggered(
            conditional_id=terms.conditional_id,
            account_id=terms.account_id,
            market=terms.market,
            order_id=order_id,
        )
    )
    try:
        refuse_if_blocked(turn, terms.account_id)
        if terms.price_protect:
            _check_protection(state.markets[terms.market])
        place_order(turn, _order_of(state, terms), order_id, closes=terms.close_position)
    except Refused as refused:
        turn.emit(
            ConditionalRejected(
                conditional_id=terms.conditional_id,
                account_id=terms.account_id,
                market=terms.market,
                code=refused.code,
                reason=refused.reason,
            )
        )


def _order_of(state: Exchange, terms: ConditionalAccepted) -> PlaceOrder:
    lots = terms.quantity_lots
    if terms.close_position:
        position = state.accounts[terms.account_id].position(state.markets[terms.market], terms.leg)
        lots = position.reducible_lots(terms.side)
    return PlaceOrder(
        account_id=terms.account_id,
        market=terms.market,
        side=terms.side,
        order_type=terms.order_type,
        quantity_lots=lots,
        price_ticks=terms.price_ticks,
        time_in_force=terms.time_in_force,
        reduce_only=terms.reduce_only,
        client_order_id=terms.client_order_id,
        leg=terms.leg,
        self_trade=terms.self_trade,
        expires_ns=terms.expires_ns,
        price_match=terms.price_match,
    )


def _check_protection(market: Market) -> None:
    """Refuse to place a protected order while mark and last price are too far apart.

    Source: Binance, "How to Enable the Price Protection Function", where the distance is one from the last
    price.
    """
    bound = market.spec.trigger_protect
    mark_ticks, last_ticks = market.mark_ticks, market.working_ticks(WorkingPrice.LAST)
    if bound and abs(mark_ticks - last_ticks) * RATE_ONE > bound * last_ticks:
        tick_size = market.spec.tick_size
        raise Refused(
            RejectCode.PRICE_PROTECTED,
            f"priceProtect: mark {decimal_text(mark_ticks * tick_size)} and last price "
            f"{decimal_text(last_ticks * tick_size)} are further apart than {decimal_text(bound)}",
        )


def _cancel(turn: Turn, terms: ConditionalAccepted, reason: CloseReason) -> None:
    turn.emit(
        ConditionalCancelled(
            conditional_id=terms.conditional_id,
            account_id=terms.account_id,
            market=terms.market,
            reason=reason,
        )
    )


def _check_terms(command: PlaceConditional, market: Market, now_ns: int) -> None:
    """Refuse an order that could not be placed whatever the price does."""
    is_market = command.order_type is MARKET
    if command.price_match is not NO_MATCH:
        if is_market:
            raise Refused(
                RejectCode.BAD_ORDER, "priceMatch: only a limit order takes its price from the book"
            )
        check_brings_no_price(command.price_ticks)
    elif command.order_type is LIMIT:
        check_price(market, command.price_ticks)
    elif not is_market:
        raise Refused(RejectCode.BAD_ORDER, "type: only LIMIT and MARKET can be placed")
    elif command.price_ticks:
        raise Refused(RejectCode.BAD_ORDER, "price: a market order has none")
    elif command.time_in_force in (TimeInForce.GTX, TimeInForce.GTD):
        raise Refused(RejectCode.BAD_ORDER, "timeInForce: a market order cannot rest")
    is_gtd = command.time_in_force is TimeInForce.GTD
    if command.expires_ns <= now_ns if is_gtd else command.expires_ns:
        raise Refused(RejectCode.BAD_ORDER, "goodTillDate: a GTD order has one, in the future, and no other")
    if not command.close_position:
        check_quantity(market, command.quantity_lots, is_market=is_market)
        return
    if command.quantity_lots or command.reduce_only or not is_market:
        raise Refused(RejectCode.BAD_ORDER, "closePosition: a market order without quantity and reduceOnly")
    if command.leg is not BOTH and command.side is not reducing_side(command.leg):
        raise Refused(RejectCode.BAD_LEG, f"side: {command.side.name} does not close {command.leg.name}")


def _check_trigger(command: PlaceConditional, market: Market) -> None:
    """Refuse a trigger that makes no sense, or is reached already."""
    if command.kind is TriggerKind.TRAILING:
        if command.trigger_ticks:
            raise Refused(RejectCode.BAD_TRIGGER, "triggerPrice: a trailing stop has none")
        if not 0 < command.callback_rate <= CALLBACK_RATE_MAX:
            raise Refused(RejectCode.BAD_TRIGGER, "callbackRate: must be above 0 and at most 10 %")
        if command.activation_ticks:
            check_price(market, command.activation_ticks)
        return
    if command.callback_rate or command.activation_ticks:
        raise Refused(RejectCode.BAD_TRIGGER, "callbackRate, activatePrice: only a trailing stop has them")
    check_price(market, command.trigger_ticks)
    price_ticks = market.working_ticks(command.working_price)
    rises = rises_to_trigger(command.kind, command.side)
    if command.trigger_ticks <= price_ticks if rises else command.trigger_ticks >= price_ticks:
        raise Refused(
            RejectCode.WOULD_TRIGGER,
            f"triggerPrice: the price is {decimal_text(price_ticks * market.spec.tick_size)}, "
            "it would trigger at once",
        )


def _activation(command: PlaceConditional, market: Market) -> int:
    """Return the price that activates a trailing stop, 0 when it is reached already."""
    price_ticks = market.working_ticks(command.working_price)
    rises = rises_to_trigger(command.kind, command.side)
    wanted = command.activation_ticks
    return wanted if (wanted > price_ticks if rises else 0 < wanted < price_ticks) else 0


def _check_no_other_closes(account: Account, command: PlaceConditional) -> None:
    """Refuse a second order that closes the same position on the same side when the same happens."""
    wanted = (command.market, command.leg, command.side, command.kind)
    for terms in account.conditionals.values():
        if terms.close_position and (terms.market, terms.leg, terms.side, terms.kind) == wanted:
            raise Refused(
                RejectCode.CLOSE_POSITION_EXISTS,
                f"closePosition: {terms.kind.name} order {terms.conditional_id} closes this position already",
            )


def _check_count(account: Account, position: Position) -> None:
    """MAX_NUM_ALGO_ORDERS: conditional orders of an account in a market."""
    market = position.market
    most = market.spec.max_conditional_orders
    if sum(each.conditional_count for each in account.positions_in(market)) >= most:
        raise Refused(
            RejectCode.TOO_MANY_CONDITIONALS,
            f"market: MAX_NUM_ALGO_ORDERS {most} of {market.symbol} are open already",
        )
