"""Admission: which orders the contract and the account allow.

Two questions are asked of every order. Does it keep the contract's filters, whoever asks? And does the
account hold what it could open? Refusals (`Refused` is raised) name the field, and the filter by the
exchange's own name for it.
"""

from events.commands import PlaceConditional, PlaceOrder
from events.values import (
    BUY,
    GTD,
    GTX,
    ISOLATED,
    LIMIT,
    MARKET,
    TRADING,
    Leg,
    MarginMode,
    MarketStatus,
    RejectCode,
    Side,
)
from exchange.aggregate.account import BOTH, Account, Position, reducing_side
from exchange.aggregate.index import index_is_stale
from exchange.aggregate.margin import exposure_margin, order_extras, room, standing
from exchange.aggregate.market import Market
from exchange.aggregate.turn import Refused
from exchange.aggregate.units import AMOUNT_MAX, RATE_ONE, ceil_div, decimal_text


def check_leg(account: Account, leg: Leg) -> None:
    """Refuse an order that does not say which position it means, as the account's position mode needs."""
    if account.hedge is (leg is BOTH):
        needed = "LONG or SHORT in hedge mode" if account.hedge else "BOTH in one-way mode"
        raise Refused(RejectCode.BAD_LEG, f"positionSide: must be {needed}")


def only_reduces(command: PlaceOrder | PlaceConditional) -> bool:
    """Whether an order may never open anything: on request, or because its side closes a hedge leg."""
    if command.leg is BOTH:
        return command.reduce_only
    return command.reduce_only or command.side is reducing_side(command.leg)


def check_market_is_open(market: Market) -> None:
    """Refuse new orders in a market that is not trading, or has no mark price yet."""
    if market.status is not TRADING:
        raise Refused(RejectCode.MARKET_CLOSED, f"market: {market.symbol} is {market.status.name.lower()}")
    if market.mark_ticks == 0:
        raise Refused(RejectCode.NO_MARK_PRICE, f"market: {market.symbol} has no mark price yet")


def check_index(market: Market, now_ns: int) -> None:
    """Refuse to open anything at an index that nobody has confirmed for too long."""
    if index_is_stale(market, now_ns):
        raise Refused(RejectCode.STALE_INDEX, f"market: the index of {market.symbol} is stale")


def check_may_leave(positions: list[Position], now_ns: int) -> None:
    """Refuse to take collateral from open positions that nobody could liquidate now."""
    for position in positions:
        if position.size_lots:
            refuse_if_halted(position.market)
            check_index(position.market, now_ns)


def refuse_if_halted(market: Market) -> None:
    """Refuse even to cancel in a halted market."""
    if market.status is MarketStatus.HALTED:
        raise Refused(RejectCode.MARKET_CLOSED, f"market: {market.symbol} is halted")


def check_form(command: PlaceOrder, now_ns: int) -> None:
    """Refuse a type, limit and time in force that do not go together."""
    tif, order_type = command.time_in_force, command.order_type
    if order_type is MARKET:
        if command.price_ticks != 0:
            raise Refused(RejectCode.BAD_ORDER, "price: a market order has none")
        if tif is GTX or tif is GTD:
            raise Refused(RejectCode.BAD_ORDER, "timeInForce: a market order cannot rest")
    elif order_type is not LIMIT:
        raise Refused(RejectCode.BAD_ORDER, "type: only LIMIT and MARKET can be placed")
    if tif is GTD:
        if command.expires_ns <= now_ns:
            raise Refused(RejectCode.BAD_ORDER, "goodTillDate: must be in the future")
    elif command.expires_ns:
        raise Refused(RejectCode.BAD_ORDER, "goodTillDate: only a GTD order has one")


def check_price(market: Market, price_ticks: int) -> None:
    """PRICE_FILTER: a limit or trigger must be within the contract's range."""
    spec = market.spec
    if not spec.min_price_ticks <= price_ticks <= spec.max_price_ticks:
        bounds = f"{_price_text(market, spec.min_price_ticks)}…{_price_text(market, spec.max_price_ticks)}"
        raise Refused(
            RejectCode.BAD_PRICE,
            f"price: {_price_text(market, price_ticks)} is outside PRICE_FILTER {bounds}",
        )


def check_quantity(market: Market, lots: int, *, is_market: bool) -> None:
    """LOT_SIZE and MARKET_LOT_SIZE: the size of one order."""
    spec = market.spec
    if not spec.min_lots <= lots <= (spec.max_market_lots if is_market else spec.max_lots):
        name = "MARKET_LOT_SIZE" if is_market else "LOT_SIZE"
        most = spec.max_market_lots if is_market else spec.max_lots
        bounds = f"{_size_text(market, spec.min_lots)}…{_size_text(market, most)}"
        raise Refused(
            RejectCode.BAD_QUANTITY, f"quantity: {_size_text(market, lots)} is outside {name} {bounds}"
        )


def _price_text(market: Market, price_ticks: int) -> str:
    return decimal_text(price_ticks * market.spec.tick_size)


def _size_text(market: Market, lots: int) -> str:
    return decimal_text(lots * market.spec.lot_size)


def check_filters(
    market: Market, side: Side, lots: int, price_ticks: int, *, is_market: bool, reduces: bool
) -> None:
    """Every filter of the contract: sizes, prices, MIN_NOTIONAL and PERCENT_PRICE, in a market that is open.

    `price_ticks` 0 is a market order's, judged at mark. This runs for every order, so that what nearly
    always holds is asked here before the function that would say what is wrong is called.
    """
    spec, mark_ticks = market.spec, market.mark_ticks
    if is_market or not spec.min_lots <= lots <= spec.max_lots:
        check_quantity(market, lots, is_market=is_market)
    if not is_market and not spec.min_price_ticks <= price_ticks <= spec.max_price_ticks:
        check_price(market, price_ticks)
    if market.status is not TRADING or not mark_ticks:
        check_market_is_open(market)
    if lots * (price_ticks or mark_ticks) * market.unit < spec.min_notional and not reduces:
        _refuse_notional(market, lots * (price_ticks or mark_ticks) * market.unit)
    if side is BUY:
        if price_ticks > mark_ticks:
            _check_band_up(market, price_ticks)
    elif 0 < price_ticks < mark_ticks:
        _check_band_down(market, price_ticks)


def _refuse_notional(market: Market, notional: int) -> None:
    raise Refused(
        RejectCode.MIN_NOTIONAL,
        f"quantity: notional {decimal_text(notional)} is below MIN_NOTIONAL "
        f"{decimal_text(market.spec.min_notional)}",
    )


def _check_band_up(market: Market, price_ticks: int) -> None:
    highest = market.mark_ticks + market.mark_ticks * market.spec.band_up // RATE_ONE
    if price_ticks > highest:
        raise Refused(
            RejectCode.PRICE_ABOVE_BAND,
            f"price: {_price_text(market, price_ticks)} is above PERCENT_PRICE "
            f"{_price_text(market, highest)}",
        )


def _check_band_down(market: Market, price_ticks: int) -> None:
    lowest = market.mark_ticks - market.mark_ticks * market.spec.band_down // RATE_ONE
    if price_ticks < lowest:
        raise Refused(
            RejectCode.PRICE_BELOW_BAND,
            f"price: {_price_text(market, price_ticks)} is below PERCENT_PRICE {_price_text(market, lowest)}",
        )


def check_reducible(position: Position, side: Side) -> None:
    """Refuse a reduce-only order where there is nothing that its side would reduce."""
    if position.reducible_lots(side) == 0:
        raise Refused(RejectCode.REDUCE_ONLY, f"reduceOnly: there is no position that a {side.name} reduces")


def check_count(account: Account, position: Position) -> None:
    """MAX_NUM_ORDERS: open orders of an account in a market."""
    market = position.market
    most = market.spec.max_open_orders
    count = position.order_count
    if account.hedge:
        count = sum(each.order_count for each in account.positions_in(market))
    if count >= most:
        raise Refused(
            RejectCode.TOO_MANY_ORDERS, f"market: MAX_NUM_ORDERS {most} of {market.symbol} are open already"
        )


def check_caps(position: Position, side: Side, lots: int) -> None:
    """MAX_POSITION and MAX_OPEN_INTEREST, for an order that can open `lots` or part of them."""
    market = position.market
    spec = market.spec
    size_lots = position.size_lots
    if side is BUY:
        worst = abs(size_lots + position.bid_lots + lots)
        opened = lots + size_lots if size_lots < 0 else lots
    else:
        worst = abs(size_lots - position.ask_lots - lots)
        opened = lots - size_lots if size_lots > 0 else lots
    if worst > spec.max_position_lots and worst > abs(size_lots):
        raise Refused(
            RejectCode.POSITION_CAP,
            f"quantity: the position could reach {_size_text(market, worst)}, "
            f"MAX_POSITION is {_size_text(market, spec.max_position_lots)}",
        )
    check_open_interest(market, opened)


def check_open_interest(market: Market, opened_lots: int) -> None:
    """MAX_OPEN_INTEREST: what a taker opens adds to what all accounts hold."""
    most = market.spec.max_open_interest_lots
    if market.open_interest_lots + opened_lots > most:
        raise Refused(
            RejectCode.OPEN_INTEREST_CAP,
            f"quantity: open interest is {_size_text(market, market.open_interest_lots)}, "
            f"MAX_OPEN_INTEREST is {_size_text(market, most)}",
        )


def mode_wanted(account: Account, position: Position, command: PlaceOrder) -> MarginMode | None:
    """Return the margin mode that is to be set with an order, None when it is set already, or refuse."""
    wanted = command.margin_mode
    if wanted is None or wanted is position.mode:
        return None
    for leg in account.positions_in(position.market):
        if leg.size_lots or leg.order_count or leg.conditional_count:
            raise Refused(
                RejectCode.MODE_CONFLICT,
                f"marginMode: is {position.mode.name}, and something is open in {position.market.symbol}",
            )
    return wanted


def check_margin_asked(position: Position, command: PlaceOrder, *, reduces: bool) -> None:
    """Refuse collateral with an order that cannot bring any, or less than its initial margin."""
    margin, market = command.margin, position.market
    if not 0 < margin <= AMOUNT_MAX:
        raise Refused(
            RejectCode.BAD_MARGIN, f"margin: must be above 0 and at most {decimal_text(AMOUNT_MAX)}"
        )
    if position.mode is not ISOLATED or reduces or only_closes(position, command.side, command.quantity_lots):
        raise Refused(RejectCode.BAD_MARGIN, "margin: only an isolated order that can open brings its own")
    price_ticks = command.price_ticks or _expected_price(market, command.side)
    least = ceil_div(command.quantity_lots * price_ticks * market.unit, position.leverage)
    if margin < least:
        raise Refused(
            RejectCode.BAD_MARGIN,
            f"margin: {decimal_text(margin)} is less than the initial margin {decimal_text(least)}",
        )


def only_closes(position: Position, side: Side, lots: int) -> bool:
    """Whether an order, together with the account's others on its side, can only reduce the position."""
    return position.open_lots(side) + lots <= position.reducible_lots(side)


def admit(
    account: Account,
    position: Position,
    side: Side,
    lots: int,
    price_ticks: int,
    now_ns: int,
    margin: int = 0,
) -> int:
    """Refuse what the account cannot hold; return the extras to reserve, in money units.

    An order that only reduces, together with the account's others on its side, needs no margin. A market
    order (`price_ticks` 0) is judged at the price it would start to trade at; its fills are judged again.
    """
    market = position.market
    size_lots = position.size_lots
    resting_lots = position.bid_lots if side is BUY else position.ask_lots
    if resting_lots + lots <= abs(size_lots) and only_closes(position, side, lots):
        return 0
    spec = market.spec
    if spec.index_age_ms_max:
        check_index(market, now_ns)
    if position.mode is ISOLATED:
        check_may_leave(account.cross_positions(), now_ns)
    if (
        abs(size_lots) + resting_lots + lots > spec.max_position_lots
        or market.open_interest_lots + lots > spec.max_open_interest_lots
    ):
        check_caps(position, side, lots)
    price_ticks = price_ticks or _expected_price(market, side)
    extras = order_extras(position, side, lots, price_ticks, margin)
    known = position.standing
    if known.required < 0 or known.mark_ticks != market.mark_ticks:
        known = standing(position)
    unit = market.unit
    value = size_lots * market.mark_ticks * unit
    if side is BUY:
        worst = abs(value + (position.bid_value + lots * price_ticks) * unit)
    else:
        worst = abs(value - (position.ask_value + lots * price_ticks) * unit)
    # An order can only widen the worst-side exposure, so the other side need not be looked at.
    increase = extras
    if worst > known.exposure:
        increase += exposure_margin(position, value, worst, position.leverage) + position.extras
        increase -= known.required
    if increase > 0 and increase > room(account, position.mode):
        check_margin(account, position, increase)
    if worst > market.brackets.caps_at[position.leverage]:
        check_exposure(position, worst)
    return extras


def check_margin(account: Account, position: Position, increase: int, *, takes: bool = False) -> None:
    """Refuse what takes more from the wallet than is free: available in cross, transferable in isolated.

    What takes nothing is not refused, even in an account that is short, unless it is to trade at once
    (`takes`).
    """
    if increase <= 0 and not takes:
        return
    available = room(account, position.mode)
    if increase > available:
        raise Refused(
            RejectCode.INSUFFICIENT_MARGIN,
            f"quantity: needs {decimal_text(increase)} of margin, "
            f"{decimal_text(max(0, available))} is available",
        )


def check_exposure(position: Position, worst: int) -> None:
    """Refuse an exposure beyond the highest bracket that permits the leverage, unless it is not wider."""
    cap = position.market.brackets.caps_at[position.leverage]
    if worst > cap and worst > standing(position).exposure:
        raise Refused(
            RejectCode.POSITION_LIMIT,
            f"quantity: exposure {decimal_text(worst)} exceeds {decimal_text(cap)}, "
            f"the most at leverage {position.leverage}",
        )


def _expected_price(market: Market, side: Side) -> int:
    """Return the price at which a market order is judged: the mark or the best opposite, the worse one."""
    if side is BUY:
        return max(market.mark_ticks, market.book.best_ask_ticks)
    best = market.book.best_bid_ticks
    return min(market.mark_ticks, best) if best else market.mark_ticks
