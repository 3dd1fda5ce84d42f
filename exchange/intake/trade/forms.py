"""From an order's parameters to its command: what goes with which type, filters.

Only what cannot change with the log is refused here, with one exception that has no refusal of its own in the
aggregate: reduceOnly in hedge mode. It follows the read model, which may lag.
"""

import itertools
import secrets
import time
from collections.abc import Mapping
from enum import Enum

from events.commands import PlaceConditional, PlaceOrder
from events.values import (
    GTC,
    GTD,
    IOC,
    LIMIT,
    MARKET,
    NO_MATCH,
    Leg,
    MarketSpec,
    OrderType,
    PriceMatch,
    SelfTrade,
    TriggerKind,
    WorkingPrice,
)
from exchange.decimals import (
    DecimalError,
    DecimalPrecisionError,
    DecimalRangeError,
    DecimalStepError,
    parse_fixed,
    parse_lots,
    parse_price,
)
from exchange.intake.endpoint import Values
from exchange.intake.errors import (
    BAD_CALLBACK_RATE,
    BAD_CLOSE_POSITION,
    BAD_PARAMETER,
    CLOSE_POSITION_QUANTITY,
    CONDITIONAL_TYPE,
    GOOD_TILL_DATE,
    MANDATORY,
    NOT_REQUIRED,
    PRECISION,
    PRICE_ABOVE_MAX,
    PRICE_BELOW_MIN,
    PRICE_MATCH_TYPE,
    PRICE_NOT_POSITIVE,
    PRICE_OFF_TICK,
    QUANTITY_ABOVE_MAX,
    QUANTITY_BELOW_MIN,
    QUANTITY_NOT_POSITIVE,
    QUANTITY_OFF_STEP,
)
from exchange.intake.service import Intake
from exchange.intake.trade.orders import NS_PER_MS

GOOD_TILL_MS_MIN = 600_000
GOOD_TILL_MS_MAX = 253_402_300_799_000
# What an event can hold; an order until the year 2262 is one that does not end.
EXPIRES_S_MAX = (1 << 63) // 1_000_000_000
# symbol, side, type, quantity, price, timeInForce: with no others there is nothing to refuse.
LIMIT_ORDER_PARAMETERS = 6
CALLBACK_RATE_MIN = 100_000
CALLBACK_RATE_MAX = 10_000_000
PERCENT_DIGITS = 6

_own_ids = itertools.count(1)
_own_id_prefix = f"fx-{secrets.token_hex(6)}-"


class OrderKind(Enum):
    """The order types of the API: when one becomes an order (at once: None), and how that is priced."""

    LIMIT = (None, OrderType.LIMIT)
    MARKET = (None, OrderType.MARKET)
    STOP = (TriggerKind.STOP, OrderType.LIMIT)
    STOP_MARKET = (TriggerKind.STOP, OrderType.MARKET)
    TAKE_PROFIT = (TriggerKind.TAKE_PROFIT, OrderType.LIMIT)
    TAKE_PROFIT_MARKET = (TriggerKind.TAKE_PROFIT, OrderType.MARKET)
    TRAILING_STOP_MARKET = (TriggerKind.TRAILING, OrderType.MARKET)

    def __init__(self, trigger: TriggerKind | None, order_type: OrderType) -> None:
        self.trigger = trigger
        self.order_type = order_type


# What a condition's parameters are called: by the calls of their own, and by the order calls.
ALGO_NAMES = {"trigger": "triggerPrice", "activation": "activatePrice", "id": "clientAlgoId"}
CLASSIC_NAMES = {"trigger": "stopPrice", "activation": "activationPrice", "id": "newClientOrderId"}


def any_order_command(intake: Intake, account_id: int, values: Values) -> PlaceOrder | PlaceConditional:
    """Return the command for the parameters of the order calls, whose types may include conditional ones.

    Raises:
        ApiError: -4120 for those where the venue does not take them here; else as `order_command`.
    """
    kind: OrderKind = values["type"]
    if kind.trigger is None:
        return order_command(intake, account_id, values)
    if not intake.legacy_conditional_orders:
        raise CONDITIONAL_TYPE.error()
    return conditional_command(intake, account_id, values, CLASSIC_NAMES)


def order_command(intake: Intake, account_id: int, values: Values) -> PlaceOrder:
    """Return the command for an order's parameters.

    Raises:
        ApiError: what is wrong with them, in the order: parameters of the type, symbol, filters, position
            mode.
    """
    is_market = values["type"] is OrderKind.MARKET
    match: PriceMatch = values.get("priceMatch", NO_MATCH)
    is_matched = match is not NO_MATCH
    if is_market or is_matched or len(values) > LIMIT_ORDER_PARAMETERS:
        _check_order_parameters(values, is_market=is_market, is_matched=is_matched)
    if not is_market:
        for name in ("timeInForce",) if is_matched else ("price", "timeInForce"):
            if name not in values:
                raise MANDATORY.error(name=name)
    if "quantity" not in values:
        raise MANDATORY.error(name="quantity")
    tif = IOC if is_market else values["timeInForce"]
    expires_ns = good_till_ns(values) if tif is GTD or "goodTillDate" in values else 0
    spec = intake.market(values["symbol"]).spec
    price_ticks = 0 if is_market or is_matched else price_ticks_of(spec, values["price"])
    reduce_only: bool | None = values.get("reduceOnly")
    command = PlaceOrder(
        account_id=account_id,
        market=spec.symbol,
        side=values["side"],
        order_type=MARKET if is_market else LIMIT,
        quantity_lots=quantity_lots_of(spec, values["quantity"], is_market=is_market),
        price_ticks=price_ticks,
        time_in_force=tif,
        reduce_only=reduce_only or False,
        client_order_id=values.get("newClientOrderId") or own_id(),
        leg=values.get("positionSide", Leg.BOTH),
        self_trade=values.get("selfTradePreventionMode", SelfTrade.EXPIRE_MAKER),
        expires_ns=expires_ns,
        price_match=match,
    )
    if reduce_only is not None:
        check_reduce_only(intake, account_id)
    return command


def conditional_command(
    intake: Intake, account_id: int, values: Values, names: Mapping[str, str]
) -> PlaceConditional:
    """Return the command for a conditional order's parameters, of which some are called as `names` says.

    Raises:
        ApiError: what is wrong with them, in the same order.
    """
    kind: OrderKind = values["type"]
    assert kind.trigger is not None, kind
    closes = values.get("closePosition", False)
    _check_conditional_parameters(values, kind, names, closes=closes)
    expires_ns = good_till_ns(values) if values.get("timeInForce") is GTD or "goodTillDate" in values else 0
    spec = intake.market(values["symbol"]).spec
    is_trailing = kind.trigger is TriggerKind.TRAILING
    is_limit = kind.order_type is LIMIT
    match: PriceMatch = values.get("priceMatch", NO_MATCH)
    activation = values.get(names["activation"])
    command = PlaceConditional(
        account_id=account_id,
        market=spec.symbol,
        side=values["side"],
        kind=kind.trigger,
        order_type=kind.order_type,
        quantity_lots=0
        if closes
        else quantity_lots_of(spec, values["quantity"], is_market=kind.order_type is MARKET),
        trigger_ticks=0 if is_trailing else price_ticks_of(spec, values[names["trigger"]], names["trigger"]),
        price_ticks=price_ticks_of(spec, values["price"]) if is_limit and match is NO_MATCH else 0,
        working_price=values.get("workingType", WorkingPrice.LAST),
        time_in_force=values.get("timeInForce", GTC) if is_limit else IOC,
        reduce_only=values.get("reduceOnly", False),
        close_position=closes,
        callback_rate=callback_rate_of(values["callbackRate"]) if is_trailing else 0,
        activation_ticks=price_ticks_of(spec, activation, names["activation"]) if activation else 0,
        client_order_id=values.get(names["id"]) or own_id(),
        leg=values.get("positionSide", Leg.BOTH),
        self_trade=values.get("selfTradePreventionMode", SelfTrade.EXPIRE_MAKER),
        expires_ns=expires_ns,
        price_match=match,
        price_protect=values.get("priceProtect", False),
    )
    if "reduceOnly" in values:
        check_reduce_only(intake, account_id)
    return command


def _check_order_parameters(values: Values, *, is_market: bool, is_matched: bool) -> None:
    """Refuse what does not belong to an order that is placed at once."""
    if is_market:
        for name in ("price", "timeInForce"):
            if name in values:
                raise NOT_REQUIRED.error(name=name)
    if is_matched:
        if is_market:
            raise PRICE_MATCH_TYPE.error()
        if "price" in values:
            raise NOT_REQUIRED.error(name="price")
    for name in ("stopPrice", "activationPrice", "callbackRate"):
        if name in values:
            raise NOT_REQUIRED.error(name=name)
    if values.get("closePosition"):
        raise BAD_CLOSE_POSITION.error(type=values["type"].name)
    if values.get("priceProtect"):
        raise BAD_PARAMETER.error(name="priceProtect")


def _check_conditional_parameters(
    values: Values, kind: OrderKind, names: Mapping[str, str], *, closes: bool
) -> None:
    """Refuse a conditional order without what its type needs, or with what it cannot have."""
    is_trailing = kind.trigger is TriggerKind.TRAILING
    is_limit = kind.order_type is LIMIT
    needed = ["callbackRate" if is_trailing else names["trigger"]]
    unwanted = [] if is_trailing else ["callbackRate", names["activation"]]
    if is_trailing:
        unwanted.append(names["trigger"])
    is_matched = values.get("priceMatch", NO_MATCH) is not NO_MATCH
    if is_matched and not is_limit:
        raise PRICE_MATCH_TYPE.error()
    (needed if is_limit and not is_matched else unwanted).append("price")
    if closes:
        if is_trailing or is_limit:
            raise BAD_CLOSE_POSITION.error(type=kind.name)
        if "quantity" in values:
            raise CLOSE_POSITION_QUANTITY.error()
        unwanted.append("reduceOnly")
    else:
        needed.append("quantity")
    for name in needed:
        if name not in values:
            raise MANDATORY.error(name=name)
    for name in unwanted:
        if name in values:
            raise NOT_REQUIRED.error(name=name)


def check_reduce_only(intake: Intake, account_id: int) -> None:
    """Refuse a reduceOnly parameter of an account in hedge mode, whose legs say what an order does."""
    if intake.account(account_id).hedge:
        raise NOT_REQUIRED.error(name="reduceOnly")


def own_id() -> str:
    """Return a client order id for an order that brought none."""
    return f"{_own_id_prefix}{next(_own_ids):x}"


def good_till_ns(values: Values) -> int:
    """Return when a GTD order ends, in ns since 1970, to the second as at Binance.

    Raises:
        ApiError: it has no end, another order has one, or it is too soon or too late.
    """
    is_dated = values.get("timeInForce") is GTD
    if is_dated is not ("goodTillDate" in values):
        raise (MANDATORY if is_dated else NOT_REQUIRED).error(name="goodTillDate")
    ends_ms: int = values["goodTillDate"]
    if not int(time.time() * 1000) + GOOD_TILL_MS_MIN < ends_ms < GOOD_TILL_MS_MAX:
        raise GOOD_TILL_DATE.error()
    return min(ends_ms // 1_000, EXPIRES_S_MAX) * 1_000 * NS_PER_MS


def price_ticks_of(spec: MarketSpec, text: str, name: str = "price") -> int:
    """Return a price in ticks that keeps PRICE_FILTER.

    Raises:
        ApiError: what it breaks.
    """
    try:
        price_ticks = parse_price(spec, text, signed=True)
    except DecimalPrecisionError:
        raise PRECISION.error(name=name) from None
    except DecimalStepError:
        raise PRICE_OFF_TICK.error() from None
    except DecimalRangeError:
        raise (PRICE_NOT_POSITIVE if text.startswith("-") else PRICE_ABOVE_MAX).error() from None
    if price_ticks <= 0:
        raise PRICE_NOT_POSITIVE.error()
    if price_ticks < spec.min_price_ticks:
        raise PRICE_BELOW_MIN.error()
    if price_ticks > spec.max_price_ticks:
        raise PRICE_ABOVE_MAX.error()
    return price_ticks


def quantity_lots_of(spec: MarketSpec, text: str, *, is_market: bool = False) -> int:
    """Return a quantity in lots that keeps LOT_SIZE, or MARKET_LOT_SIZE.

    Raises:
        ApiError: what it breaks.
    """
    try:
        quantity_lots = parse_lots(spec, text, signed=True)
    except DecimalPrecisionError:
        raise PRECISION.error(name="quantity") from None
    except DecimalStepError:
        raise QUANTITY_OFF_STEP.error() from None
    except DecimalRangeError:
        raise (QUANTITY_NOT_POSITIVE if text.startswith("-") else QUANTITY_ABOVE_MAX).error() from None
    if quantity_lots <= 0:
        raise QUANTITY_NOT_POSITIVE.error()
    if quantity_lots < spec.min_lots:
        raise QUANTITY_BELOW_MIN.error()
    if quantity_lots > (spec.max_market_lots if is_market else spec.max_lots):
        raise QUANTITY_ABOVE_MAX.error()
    return quantity_lots


def callback_rate_of(text: str) -> int:
    """Return the rate (1e-8) of a percentage from 0.1 to 10.

    Raises:
        ApiError: -2007, it is no such percentage.
    """
    try:
        rate = parse_fixed(text, PERCENT_DIGITS)
    except DecimalError:
        raise BAD_CALLBACK_RATE.error() from None
    if not CALLBACK_RATE_MIN <= rate <= CALLBACK_RATE_MAX:
        raise BAD_CALLBACK_RATE.error()
    return rate
