"""What a caller gets for a request that is not granted: code, text and HTTP status, as Binance has them.

Clients act on the codes, and some on the exact texts (ccxt knows -4046 by its text), so both are data here.
`FAULTS` are found before the log is asked. `REFUSALS` translate what the aggregate refused; a text of
"{reason}" passes the aggregate's own words on where Binance has none that fit.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from events.events import Rejected
from events.values import RejectCode


class ApiError(Exception):
    """A request is not granted; the answer is `{"code", "msg"}` with an HTTP status."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.status = status


class RefusedError(ApiError):
    """The aggregate refused the command. `rejected` is its event, with the reason in its own words."""

    def __init__(self, code: int, text: str, status: int, rejected: Rejected) -> None:
        super().__init__(code, text, status)
        self.rejected = rejected


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the tables: what to answer. `text` may name fields in braces."""

    code: int
    text: str
    status: int = 400

    def error(self, **fields: object) -> ApiError:
        """Return the error with the fields filled in."""
        return ApiError(self.code, self.text.format(**fields), self.status)


_encode = msgspec.json.Encoder().encode


def error_body(error: ApiError) -> bytes:
    """Return the body of the answer to a request that is not granted."""
    return _encode({"code": error.code, "msg": error.text})


UNKNOWN = Fault(-1000, "An unknown error occurred while processing the request.", 500)
NOT_EXECUTED = Fault(-1001, "Internal error; unable to process your request. Please try again.", 503)
LOG_FULL = Fault(
    -1001,
    "The exchange's log has no room at the moment; nothing was executed. Please try again later.",
    503,
)
TOO_MANY_REQUESTS = Fault(
    -1003,
    "Too many requests; current limit of IP({address}) is {limit} requests per minute. "
    "Please use the websocket for live updates to avoid polling the API.",
    429,
)
BANNED = Fault(
    -1003,
    "Way too many requests; IP({address}) banned until {until}. "
    "Please use the websocket for live updates to avoid bans.",
    418,
)
TOO_MANY_CONNECTS = Fault(
    -1003,
    "Too many connection attempts; current limit of IP({address}) is {limit} attempts per 5 minutes.",
    429,
)
TOO_MANY_CONNECTIONS = Fault(
    -1003,
    "Too many connections; current limit of IP({address}) is {limit} connections at a time.",
    429,
)
PAST_UNREAD = Fault(
    -1001,
    "The exchange has just started and is still reading what happened before. Please try again in a moment.",
    503,
)
# By this sentence, in an answer of 503, hummingbot knows that it must ask what became of the order, as
# Binance's documentation says; without it the order would count as refused.
_ASK = "Unknown error, please check your request or try again later."
STATUS_UNKNOWN = Fault(
    -1006,
    "An unexpected response was received from the message bus. Execution status unknown; query the order. "
    + _ASK,
    503,
)
TIMED_OUT = Fault(
    -1007,
    "Timeout waiting for response from backend server. Send status unknown; execution status unknown; "
    "query the order. " + _ASK,
    503,
)
OVERLOADED = Fault(
    -1008, "Server is currently overloaded with other requests. Please try again in a few minutes.", 503
)
TOO_MANY_ORDERS = Fault(-1015, "Too many new orders; current limit is {limit} orders per {interval}.", 429)
SHUTTING_DOWN = Fault(-1016, "This service is no longer available.", 503)
TIMESTAMP_OUTSIDE = Fault(-1021, "Timestamp for this request is outside of the recvWindow.")
TIMESTAMP_AHEAD = Fault(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
BAD_SIGNATURE = Fault(-1022, "Signature for this request is not valid.")
START_AFTER_END = Fault(-1023, "Start time is greater than end time.")
ILLEGAL_CHARACTERS = Fault(-1100, "Illegal characters found in parameter '{name}'; legal range is '{range}'.")
BODY_TOO_LARGE = Fault(-1101, "Too many parameters: the body is larger than {limit} bytes.", 413)
REPEATED = Fault(-1101, "Duplicate values for parameter '{name}' detected.")
MANDATORY = Fault(-1102, "Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
EITHER_MANDATORY = Fault(-1102, "Param '{first}' or '{second}' must be sent, but both were empty/null!")
UNREAD = Fault(
    -1104,
    "Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'. "
    "Parameter '{name}' is not known here.",
)
NOT_REQUIRED = Fault(-1106, "Parameter '{name}' sent when not required.")
PRECISION = Fault(-1111, "Precision is over the maximum defined for this asset. Parameter '{name}'.")
BAD_TIME_IN_FORCE = Fault(-1115, "Invalid timeInForce.")
BAD_ORDER_TYPE = Fault(-1116, "Invalid orderType.")
BAD_SIDE = Fault(-1117, "Invalid side.")
BAD_INTERVAL = Fault(-1120, "Invalid interval.")
BAD_SYMBOL = Fault(-1121, "Invalid symbol.")
BAD_LISTEN_KEY = Fault(-1125, "This listenKey does not exist.")
BAD_PARAMETER = Fault(-1130, "Data sent for parameter '{name}' is not valid.")
BAD_REQUEST = Fault(-1130, "The request is not valid HTTP: {what}.")
BAD_MESSAGE = Fault(-1130, "The message is no request: {what}")
NO_SUCH_METHOD = Fault(-1130, "Data sent for parameter 'method' is not valid: there is no '{method}'.")
BAD_RECV_WINDOW = Fault(-1131, "recvWindow must be less than 60000")
BAD_CALLBACK_RATE = Fault(-2007, "Invalid callBack rate")
UNKNOWN_ORDER = Fault(-2011, "Unknown order sent.")
NO_SUCH_ORDER = Fault(-2013, "Order does not exist.")
BAD_KEY_FORMAT = Fault(-2014, "API-key format invalid.", 401)
BAD_KEY = Fault(-2015, "Invalid API-key, IP, or permissions for action.", 401)
PRICE_NOT_POSITIVE = Fault(-4001, "Price less than 0.")
PRICE_ABOVE_MAX = Fault(-4002, "Price greater than max price.")
QUANTITY_NOT_POSITIVE = Fault(-4003, "Quantity less than or equal to zero.")
QUANTITY_BELOW_MIN = Fault(-4004, "Quantity less than min quantity.")
QUANTITY_ABOVE_MAX = Fault(-4005, "Quantity greater than max quantity.")
PRICE_BELOW_MIN = Fault(-4013, "Price less than min price.")
PRICE_OFF_TICK = Fault(-4014, "Price not increased by tick size.")
CLIENT_ID_TOO_LONG = Fault(-4015, "Client order id length should not be more than 36 chars")
BAD_DEPTH_LIMIT = Fault(-4021, "Invalid depth limit")
QUANTITY_OFF_STEP = Fault(-4023, "Qty not increased by step size.")
CROSS_INSUFFICIENT = Fault(-4050, "Cross balance insufficient.")
AMOUNT_NOT_POSITIVE = Fault(-4055, "Amount must be positive.")
BAD_POSITION_SIDE = Fault(-4061, "Order's position side does not match user's setting.")
BAD_BATCH_SIZE = Fault(-4082, "Invalid number of batch place orders.")
CONDITIONAL_TYPE = Fault(
    -4120,
    "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
)
BAD_CLOSE_POSITION = Fault(-4136, "Target strategy invalid for orderType {type},closePosition true")
CLOSE_POSITION_QUANTITY = Fault(-4137, "Quantity must be zero with closePosition equals true")
LEVERAGE_NOT_REDUCIBLE = Fault(
    -4161, "Leverage reduction is not supported in Isolated Margin Mode with open positions."
)
INTERVAL_TOO_LONG = Fault(-4165, "Invalid time interval. Maximum time interval is {days} days")
MULTI_ASSETS_REFUSED = Fault(
    -4169, "Unable to adjust Multi-Assets Mode with insufficient margin balance in USDⓈ-M Futures."
)
MULTI_ASSETS_UNCHANGED = Fault(
    -4171, "Adjusted asset mode is currently set and does not need to be adjusted repeatedly."
)
NO_SUCH_PATH = Fault(-5000, "Path {path}, Method {method} is invalid", 404)

BAD_PRICE_MATCH = Fault(-5037, "Invalid price match")
PRICE_MATCH_TYPE = Fault(-5038, "Price match only supports order type: LIMIT, STOP AND TAKE_PROFIT")
BAD_SELF_TRADE = Fault(-5039, "Invalid self trade prevention mode")
GOOD_TILL_DATE = Fault(
    -5040,
    "The goodTillDate timestamp must be greater than the current time plus 600 seconds and smaller than "
    "253402300799000",
)
NO_DEPTH = Fault(-5041, "No depth matches this BBO order")

REFUSALS: dict[RejectCode, Fault] = {
    RejectCode.UNKNOWN_MARKET: BAD_SYMBOL,
    RejectCode.UNKNOWN_ACCOUNT: Fault(-1130, "{reason}"),
    RejectCode.UNKNOWN_ORDER: UNKNOWN_ORDER,
    RejectCode.MARKET_EXISTS: Fault(-1130, "{reason}"),
    RejectCode.MARKET_CLOSED: Fault(-4140, "Invalid symbol status for opening position."),
    RejectCode.LOG_EXISTS: Fault(-1130, "{reason}"),
    RejectCode.KEY_EXISTS: Fault(-1130, "{reason}"),
    RejectCode.UNKNOWN_KEY: Fault(-1130, "{reason}"),
    RejectCode.BAD_KEY: Fault(-1130, "{reason}"),
    RejectCode.TOO_MANY_KEYS: Fault(-1130, "{reason}"),
    RejectCode.BAD_SPEC: Fault(-1130, "{reason}"),
    RejectCode.BAD_AMOUNT: Fault(-1130, "{reason}"),
    RejectCode.BAD_PRICE: Fault(-1130, "{reason}"),
    RejectCode.BAD_QUANTITY: Fault(-1130, "{reason}"),
    RejectCode.BAD_ORDER: Fault(-1130, "{reason}"),
    RejectCode.MIN_NOTIONAL: Fault(
        -4164, "Order's notional must be no smaller than {min_notional} (unless you choose reduce only)"
    ),
    RejectCode.NO_MARK_PRICE: Fault(-2010, "{reason}"),
    RejectCode.DUPLICATE_CLIENT_ORDER_ID: Fault(-4116, "ClientOrderId is duplicated."),
    RejectCode.TOO_MANY_ORDERS: Fault(-2025, "Reach max open order limit."),
    RejectCode.REDUCE_ONLY: Fault(-2022, "ReduceOnly Order is rejected."),
    RejectCode.INSUFFICIENT_MARGIN: Fault(-2019, "Margin is insufficient."),
    RejectCode.INSUFFICIENT_BALANCE: Fault(-2018, "Balance is insufficient."),
    RejectCode.POSITION_LIMIT: Fault(-2027, "Exceeded the maximum allowable position at current leverage."),
    RejectCode.BAD_LEVERAGE: Fault(-4028, "Leverage {leverage} is not valid"),
    RejectCode.LEVERAGE_NOT_COVERED: Fault(
        -2028, "Leverage is smaller than permitted: insufficient margin balance."
    ),
    RejectCode.MODE_UNCHANGED: Fault(-4046, "No need to change margin type."),
    RejectCode.MODE_HAS_ORDERS: Fault(-4047, "Margin type cannot be changed if there exists open orders."),
    RejectCode.MODE_HAS_POSITION: Fault(-4048, "Margin type cannot be changed if there exists position."),
    RejectCode.WOULD_NOT_FILL: Fault(
        -5021, "Due to the order could not be filled immediately, the FOK order has been rejected."
    ),
    RejectCode.WOULD_TAKE: Fault(
        -5022, "Due to the order could not be executed as maker, the Post Only order will be rejected."
    ),
    RejectCode.RESERVED_ACCOUNT: Fault(-1130, "{reason}"),
    RejectCode.PRICE_ABOVE_BAND: Fault(-4016, "Price is higher than mark price multiplier cap."),
    RejectCode.PRICE_BELOW_BAND: Fault(-4024, "Price is lower than mark price multiplier floor."),
    RejectCode.TOO_MANY_CONDITIONALS: Fault(-4045, "Reach max stop order limit."),
    RejectCode.NO_DEPTH: NO_DEPTH,
    RejectCode.PRICE_PROTECTED: Fault(-1130, "{reason}"),
    RejectCode.CLOSE_POSITION_EXISTS: Fault(
        -4130, "An open stop or take profit order with GTE and closePosition in the direction is existing."
    ),
    RejectCode.POSITION_CAP: Fault(-2027, "Exceeded the maximum allowable position at current leverage."),
    RejectCode.OPEN_INTEREST_CAP: Fault(-2010, "{reason}"),
    RejectCode.BAD_LEG: BAD_POSITION_SIDE,
    RejectCode.BAD_TRIGGER: Fault(-1130, "{reason}"),
    RejectCode.WOULD_TRIGGER: Fault(-2021, "Order would immediately trigger."),
    RejectCode.NOTHING_TO_AMEND: Fault(-5027, "No need to modify the order."),
    RejectCode.BAD_AMENDMENT: Fault(-1130, "{reason}"),
    RejectCode.TOO_MANY_AMENDMENTS: Fault(-5026, "Exceed maximum modify order limit."),
    RejectCode.POSITION_MODE_UNCHANGED: Fault(-4059, "No need to change position side."),
    RejectCode.POSITION_MODE_HAS_ORDERS: Fault(
        -4067, "Position side cannot be changed if there exists open orders."
    ),
    RejectCode.POSITION_MODE_HAS_POSITION: Fault(
        -4068, "Position side cannot be changed if there exists position."
    ),
    RejectCode.BAD_COUNTDOWN: Fault(-1130, "{reason}"),
    RejectCode.BAD_CHECKPOINT: Fault(-1130, "{reason}"),
    RejectCode.MODE_CONFLICT: Fault(-2010, "{reason}"),
    RejectCode.MODE_NOT_COVERED: Fault(-4050, "{reason}"),
    RejectCode.BAD_MARGIN: Fault(-1130, "{reason}"),
    RejectCode.NO_POSITION: Fault(-4054, "Cannot add position margin: position is 0."),
    RejectCode.NOT_ISOLATED: Fault(-4049, "Add margin only support for isolated position."),
    RejectCode.MARGIN_NOT_REMOVABLE: Fault(-4051, "Isolated balance insufficient."),
    RejectCode.IN_LIQUIDATION: Fault(-2023, "User in liquidation mode now."),
    RejectCode.STALE_INDEX: Fault(-2010, "{reason}"),
    RejectCode.ACCOUNT_BLOCKED: Fault(-4088, "User can not place order currently"),
    RejectCode.KEEPS_FAILING: Fault(-1130, "{reason}"),
    RejectCode.ACCOUNT_NOT_BLOCKED: Fault(-1130, "{reason}"),
    RejectCode.EXCHANGE_HALTED: Fault(-1130, "{reason}"),
    RejectCode.EXCHANGE_NOT_HALTED: Fault(-1130, "{reason}"),
    RejectCode.FRAME_LIMIT: Fault(-1008, "{reason}", 503),
}


def refusal(rejected: Rejected, **fields: Any) -> RefusedError:
    """Return the error for a refused command; `fields` fill in texts that name a value."""
    row = REFUSALS[rejected.code]
    text = row.text.format(reason=rejected.reason, **fields)
    return RefusedError(row.code, text, row.status, rejected)
