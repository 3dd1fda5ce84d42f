"""Orders, leverage and margin mode: the calls that become commands, and questions about orders."""

import itertools
import secrets

from events.commands import CancelAllOrders, CancelOrder, PlaceOrder, SetLeverage, SetMarginMode
from events.events import OrderAccepted, OrderCancelled
from events.values import Leg, MarketSpec, OrderType, SelfTrade, TimeInForce
from exchange.decimals import (
    DecimalPrecisionError,
    DecimalRangeError,
    DecimalStepError,
    money_text,
    parse_lots,
    parse_price,
)
from exchange.intake.endpoint import Values
from exchange.intake.errors import (
    BAD_PARAMETER,
    EITHER_MANDATORY,
    MANDATORY,
    NO_SUCH_ORDER,
    NOT_REQUIRED,
    PRECISION,
    PRICE_ABOVE_MAX,
    PRICE_BELOW_MIN,
    PRICE_NOT_POSITIVE,
    PRICE_OFF_TICK,
    QUANTITY_ABOVE_MAX,
    QUANTITY_BELOW_MIN,
    QUANTITY_NOT_POSITIVE,
    QUANTITY_OFF_STEP,
)
from exchange.intake.service import Intake
from exchange.intake.trade.orders import NS_PER_MS, order_object, record_of_answer

_own_ids = itertools.count(1)
_own_id_prefix = f"fx-{secrets.token_hex(6)}-"


async def place_order(intake: Intake, account_id: int, values: Values) -> object:
    """Place an order; the answer is the order as its own events left it.

    ACK and RESULT are answered alike: when the acceptance has been read back, so have its fills.
    """
    command = order_command(intake, account_id, values)
    events = await intake.ask(command)
    accepted = events[0]
    assert isinstance(accepted, OrderAccepted), accepted
    spec = intake.market(command.market).spec
    stored = intake.orders.find(account_id, command.market, accepted.order_id, "")
    accepted_ms = stored.accepted_ms if stored is not None else intake.now_ms
    return order_object(record_of_answer(accepted, events, spec, accepted_ms), spec)


def order_command(intake: Intake, account_id: int, values: Values) -> PlaceOrder:
    """Return the command for an order's parameters.

    Raises:
        ApiError: what is wrong with them, in the order: parameters of the type, symbol, filters, position
            side.
    """
    is_market = values["type"] is OrderType.MARKET
    for name in ("price", "timeInForce"):
        if is_market and name in values:
            raise NOT_REQUIRED.error(name=name)
        if not is_market and name not in values:
            raise MANDATORY.error(name=name)
    is_dated = values.get("timeInForce") is TimeInForce.GTD
    if is_dated is not ("goodTillDate" in values):
        raise (MANDATORY if is_dated else NOT_REQUIRED).error(name="goodTillDate")
    if "quantity" not in values:
        raise MANDATORY.error(name="quantity")
    for name in ("closePosition", "priceProtect"):
        if values.get(name):
            raise BAD_PARAMETER.error(name=name)
    spec = intake.market(values["symbol"]).spec
    price_ticks = 0 if is_market else _price_ticks(spec, values["price"])
    quantity_lots = _quantity_lots(spec, values["quantity"])
    return PlaceOrder(
        account_id=account_id,
        market=spec.symbol,
        side=values["side"],
        order_type=values["type"],
        quantity_lots=quantity_lots,
        price_ticks=price_ticks,
        time_in_force=TimeInForce.IOC if is_market else values["timeInForce"],
        reduce_only=values.get("reduceOnly", False),
        client_order_id=values.get("newClientOrderId") or f"{_own_id_prefix}{next(_own_ids):x}",
        leg=values.get("positionSide", Leg.BOTH),
        self_trade=values.get("selfTradePreventionMode", SelfTrade.EXPIRE_MAKER),
        expires_ns=values.get("goodTillDate", 0) * NS_PER_MS,
    )


async def cancel_order(intake: Intake, account_id: int, values: Values) -> object:
    """Cancel an open order; the answer is the order as it ended."""
    order_id, client_order_id = _which_order(values)
    market = intake.market(values["symbol"])
    known = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    events = await intake.ask(
        CancelOrder(
            account_id=account_id, market=market.symbol, order_id=order_id, client_order_id=client_order_id
        )
    )
    (cancelled,) = (event for event in events if isinstance(event, OrderCancelled))
    # The record looked up before is kept current by the fold; one of another intake was unknown then.
    if known is None or known.accepted.order_id != cancelled.order_id:
        known = intake.orders.get(cancelled.order_id)
    return order_object(known, market.spec)


async def cancel_all_orders(intake: Intake, account_id: int, values: Values) -> object:
    """Cancel every open order in a market."""
    market = intake.market(values["symbol"])
    await intake.ask(CancelAllOrders(account_id=account_id, market=market.symbol))
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


async def query_order(intake: Intake, account_id: int, values: Values) -> object:
    """Return one order, open or not."""
    order_id, client_order_id = _which_order(values)
    market = intake.market(values["symbol"])
    record = intake.orders.find(account_id, market.symbol, order_id, client_order_id)
    if record is None:
        raise NO_SUCH_ORDER.error()
    return order_object(record, market.spec)


async def open_orders(intake: Intake, account_id: int, values: Values) -> object:
    """Return the open orders, of one market or of all, in the order of acceptance."""
    symbol = values.get("symbol")
    if symbol is not None:
        intake.market(symbol)
    return [
        order_object(intake.orders.get(order.order_id), intake.market(order.terms.market).spec)
        for order in intake.account(account_id).orders.values()
        if symbol is None or order.terms.market == symbol
    ]


async def set_leverage(intake: Intake, account_id: int, values: Values) -> object:
    """Set the leverage in a market."""
    market = intake.market(values["symbol"])
    leverage: int = values["leverage"]
    await intake.ask(SetLeverage(account_id=account_id, market=market.symbol, leverage=leverage))
    return {
        "symbol": market.symbol,
        "leverage": leverage,
        "maxNotionalValue": money_text(market.brackets.cap_at(leverage)),
    }


async def set_margin_type(intake: Intake, account_id: int, values: Values) -> object:
    """Set the margin mode in a market."""
    market = intake.market(values["symbol"])
    await intake.ask(
        SetMarginMode(account_id=account_id, market=market.symbol, mode=values["marginType"], only_flat=True)
    )
    return {"code": 200, "msg": "success"}


def _which_order(values: Values) -> tuple[int, str]:
    order_id: int = values.get("orderId", 0)
    client_order_id: str = values.get("origClientOrderId", "")
    if not order_id and not client_order_id:
        raise EITHER_MANDATORY.error(first="origClientOrderId", second="orderId")
    return order_id, client_order_id


def _price_ticks(spec: MarketSpec, text: str) -> int:
    try:
        price_ticks = parse_price(spec, text, signed=True)
    except DecimalPrecisionError:
        raise PRECISION.error(name="price") from None
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


def _quantity_lots(spec: MarketSpec, text: str) -> int:
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
    if quantity_lots > spec.max_lots:
        raise QUANTITY_ABOVE_MAX.error()
    return quantity_lots
