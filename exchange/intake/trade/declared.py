"""What the trading calls read: parameters that several calls, or the elements of a batch, have in common."""

from events.values import Leg, PriceMatch, SelfTrade, Side, TimeInForce, WorkingPrice
from exchange.intake.errors import (
    BAD_ORDER_TYPE,
    BAD_PRICE_MATCH,
    BAD_SELF_TRADE,
    BAD_SIDE,
    BAD_TIME_IN_FORCE,
)
from exchange.intake.parameters import Parameter, boolean, choice, client_order_id, decimal, text, whole
from exchange.intake.trade.forms import OrderKind

ROWS_MAX = 1_000

SYMBOL = Parameter("symbol", text, required=True)
SYMBOL_OPTIONAL = Parameter("symbol", text)
ORDER_ID = Parameter("orderId", whole)
WHICH_ORDER = (SYMBOL, ORDER_ID, Parameter("origClientOrderId", client_order_id))
SIDE = choice("side", {side.name: side for side in Side}, required=True, fault=BAD_SIDE)
PRICE_MATCH = choice("priceMatch", {match.name: match for match in PriceMatch}, fault=BAD_PRICE_MATCH)
# Some clients name the key that the caller has anyway.
LISTEN_KEY = Parameter("listenKey", text)
LEG = choice("positionSide", {leg.name: leg for leg in Leg})


def limit(most: int = ROWS_MAX) -> Parameter:
    """Declare how many rows are wanted, 1 to `most`."""

    def parse(value: str) -> int:
        rows = whole(value)
        if not 1 <= rows <= most:
            raise ValueError(value)
        return rows

    return Parameter("limit", parse)


def span(most_rows: int = ROWS_MAX) -> tuple[Parameter, ...]:
    """Declare a span of time in ms, and how many rows of it are wanted."""
    return (Parameter("startTime", whole), Parameter("endTime", whole), limit(most_rows))


_ANY_ORDER = (
    SYMBOL,
    Parameter("quantity", decimal),
    Parameter("price", decimal),
    Parameter("reduceOnly", boolean),
    Parameter("closePosition", boolean),
    Parameter("priceProtect", boolean),
    Parameter("callbackRate", decimal),
    SIDE,
    choice("type", {kind.name: kind for kind in OrderKind}, required=True, fault=BAD_ORDER_TYPE),
    choice("timeInForce", {tif.name: tif for tif in TimeInForce}, fault=BAD_TIME_IN_FORCE),
    Parameter("goodTillDate", whole),
    LEG,
    choice("workingType", {"MARK_PRICE": WorkingPrice.MARK, "CONTRACT_PRICE": WorkingPrice.LAST}),
    choice("newOrderRespType", {kind: kind for kind in ("ACK", "RESULT")}),
    PRICE_MATCH,
    choice("selfTradePreventionMode", {mode.name: mode for mode in SelfTrade}, fault=BAD_SELF_TRADE),
)
NEW_ORDER = (
    *_ANY_ORDER,
    Parameter("newClientOrderId", client_order_id),
    Parameter("stopPrice", decimal),
    Parameter("activationPrice", decimal),
)
NEW_ALGO = (
    *_ANY_ORDER,
    choice("algoType", {"CONDITIONAL": "CONDITIONAL"}, required=True),
    Parameter("clientAlgoId", client_order_id),
    Parameter("triggerPrice", decimal),
    Parameter("activatePrice", decimal),
)
WHICH_ALGO = (Parameter("algoId", whole), Parameter("clientAlgoId", client_order_id))
AMENDMENT = (
    *WHICH_ORDER,
    Parameter("quantity", decimal),
    Parameter("price", decimal),
    Parameter("modifyId", whole),
    Parameter("reduceOnly", boolean),
    SIDE,
    PRICE_MATCH,
)
