"""The rows of the calls an account makes for itself. Weights are Binance's."""

from events.values import Leg, MarginMode, OrderType, SelfTrade, Side, TimeInForce
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.errors import BAD_ORDER_TYPE, BAD_SIDE, BAD_TIME_IN_FORCE, CONDITIONAL_TYPE
from exchange.intake.parameters import Parameter, boolean, choice, client_order_id, decimal, text, whole
from exchange.intake.trade import accounts, trading

_READ, _TRADE = Security.READ, Security.TRADE
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

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", "/fapi/v1/order", _TRADE, 0, trading.place_order, _NEW_ORDER, is_order=True),
    Endpoint("GET", "/fapi/v1/order", _READ, 1, trading.query_order, _WHICH_ORDER),
    Endpoint("DELETE", "/fapi/v1/order", _TRADE, 1, trading.cancel_order, _WHICH_ORDER),
    Endpoint("GET", "/fapi/v1/openOrders", _READ, 1, trading.open_orders, (_SYMBOL_OPTIONAL,)),
    Endpoint("DELETE", "/fapi/v1/allOpenOrders", _TRADE, 1, trading.cancel_all_orders, (_SYMBOL,)),
    Endpoint(
        "POST",
        "/fapi/v1/leverage",
        _TRADE,
        1,
        trading.set_leverage,
        (_SYMBOL, Parameter("leverage", whole, required=True)),
    ),
    Endpoint(
        "POST",
        "/fapi/v1/marginType",
        _TRADE,
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
    Endpoint("GET", "/fapi/v2/account", _READ, 5, accounts.account_information),
    Endpoint("GET", "/fapi/v2/positionRisk", _READ, 5, accounts.position_risk, (_SYMBOL_OPTIONAL,)),
)
