"""The endpoint table: every call of the public listener, what it reads, who may make it, what it weighs.

Routing, parsing and validation are driven by these rows alone. Weights are Binance's; a weight of 0 belongs
to order calls, which count against the account's orders and not against the caller's address.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from events.values import Leg, MarginMode, OrderType, SelfTrade, Side, TimeInForce
from exchange.intake import accounts, market_data, trading
from exchange.intake.errors import (
    BAD_ORDER_TYPE,
    BAD_SIDE,
    BAD_TIME_IN_FORCE,
    CONDITIONAL_TYPE,
)
from exchange.intake.parameters import (
    Parameter,
    boolean,
    choice,
    client_order_id,
    decimal,
    text,
    whole,
)
from exchange.intake.service import Intake
from exchange.intake.trading import Values

# Of a request: the intake, the caller's account (0 where nobody signs), the parameters by name.
Handler = Callable[[Intake, int, Values], Awaitable[object]]


class Security(Enum):
    """Whether a call must be signed with an API key's secret."""

    NONE = 0
    SIGNED = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call."""

    method: str
    path: str
    security: Security
    weight: int
    handler: Handler
    parameters: tuple[Parameter, ...] = ()
    is_order: bool = False


_SYMBOL = Parameter("symbol", text, required=True)
_SYMBOL_OPTIONAL = Parameter("symbol", text)
_WHICH_ORDER = (_SYMBOL, Parameter("orderId", whole), Parameter("origClientOrderId", client_order_id))
_CONDITIONAL = ("STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET")

_NEW_ORDER = (
    _SYMBOL,
    Parameter("quantity", decimal),
    Parameter("price", decimal),
    Parameter("reduceOnly", boolean),
    Parameter("newClientOrderId", client_order_id),
    # Named by clients even where they leave the default; only the default is served.
    Parameter("closePosition", boolean),
    Parameter("priceProtect", boolean),
    Parameter("workingType", text),
    choice("side", {side.name: side for side in Side}, required=True, fault=BAD_SIDE),
    choice(
        "type",
        {"LIMIT": OrderType.LIMIT, "MARKET": OrderType.MARKET}
        | dict.fromkeys(_CONDITIONAL, CONDITIONAL_TYPE),
        required=True,
        fault=BAD_ORDER_TYPE,
    ),
    choice("timeInForce", {tif.name: tif for tif in TimeInForce}, fault=BAD_TIME_IN_FORCE),
    Parameter("goodTillDate", whole),
    choice("positionSide", {leg.name: leg for leg in Leg}),
    choice("newOrderRespType", {kind: kind for kind in ("ACK", "RESULT")}),
    choice("priceMatch", {"NONE": "NONE"}),
    choice("selfTradePreventionMode", {mode.name: mode for mode in SelfTrade}),
)

_NONE, _SIGNED = Security.NONE, Security.SIGNED

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/fapi/v1/ping", _NONE, 1, market_data.ping),
    Endpoint("GET", "/fapi/v1/time", _NONE, 1, market_data.server_time),
    Endpoint("GET", "/fapi/v1/exchangeInfo", _NONE, 1, market_data.exchange_info),
    Endpoint("GET", "/fapi/v1/depth", _NONE, 10, market_data.depth, (_SYMBOL, Parameter("limit", whole))),
    Endpoint("GET", "/fapi/v1/premiumIndex", _NONE, 1, market_data.premium_index, (_SYMBOL_OPTIONAL,)),
    Endpoint("POST", "/fapi/v1/order", _SIGNED, 0, trading.place_order, _NEW_ORDER, is_order=True),
    Endpoint("GET", "/fapi/v1/order", _SIGNED, 1, trading.query_order, _WHICH_ORDER),
    Endpoint("DELETE", "/fapi/v1/order", _SIGNED, 1, trading.cancel_order, _WHICH_ORDER),
    Endpoint("GET", "/fapi/v1/openOrders", _SIGNED, 1, trading.open_orders, (_SYMBOL_OPTIONAL,)),
    Endpoint("DELETE", "/fapi/v1/allOpenOrders", _SIGNED, 1, trading.cancel_all_orders, (_SYMBOL,)),
    Endpoint(
        "POST",
        "/fapi/v1/leverage",
        _SIGNED,
        1,
        trading.set_leverage,
        (_SYMBOL, Parameter("leverage", whole, required=True)),
    ),
    Endpoint(
        "POST",
        "/fapi/v1/marginType",
        _SIGNED,
        1,
        trading.set_margin_type,
        (
            _SYMBOL,
            choice(
                "marginType",
                {"ISOLATED": MarginMode.ISOLATED, "CROSSED": MarginMode.CROSS},
                required=True,
            ),
        ),
    ),
    Endpoint("GET", "/fapi/v2/account", _SIGNED, 5, accounts.account_information),
    Endpoint("GET", "/fapi/v2/positionRisk", _SIGNED, 5, accounts.position_risk, (_SYMBOL_OPTIONAL,)),
)

ROUTES: dict[tuple[str, str], Endpoint] = {(row.method, row.path): row for row in ENDPOINTS}
