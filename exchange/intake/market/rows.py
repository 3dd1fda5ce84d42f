"""The rows of the market data calls. Weights are Binance's."""

from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.market import data
from exchange.intake.parameters import Parameter, text, whole

_NONE = Security.NONE
_SYMBOL = Parameter("symbol", text, required=True)
_SYMBOL_OPTIONAL = Parameter("symbol", text)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/fapi/v1/ping", _NONE, 1, data.ping),
    Endpoint("GET", "/fapi/v1/time", _NONE, 1, data.server_time),
    Endpoint("GET", "/fapi/v1/exchangeInfo", _NONE, 1, data.exchange_info),
    Endpoint("GET", "/fapi/v1/depth", _NONE, 10, data.depth, (_SYMBOL, Parameter("limit", whole))),
    Endpoint("GET", "/fapi/v1/premiumIndex", _NONE, 1, data.premium_index, (_SYMBOL_OPTIONAL,)),
)
