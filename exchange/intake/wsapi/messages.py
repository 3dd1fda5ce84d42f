"""The WebSocket API's own messages: a request taken apart, an answer put together."""

from typing import Any

import msgspec

from exchange.intake.errors import BAD_MESSAGE, BAD_PARAMETER
from exchange.intake.limits import LimitError

ID_CHARS_MAX = 36

Id = int | str | None


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a caller sends. Numbers with a point arrive as they were written."""

    id: Id = None
    method: str = ""
    params: dict[str, Any] | None = None


class RateLimit(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """How much of a limit is used."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int
    count: int


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is wrong; `data` says when to come back, for who asked too much."""

    code: int
    msg: str
    data: dict[str, int] | None = None


class Answer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """The answer to the request with that id: a result or an error, and what was used of the limits."""

    id: Id
    status: int
    result: Any = msgspec.UNSET
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET
    rate_limits: list[RateLimit] | msgspec.UnsetType = msgspec.UNSET


class SessionState(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Who is logged on over a connection (null: nobody), and since when (ms)."""

    api_key: str | None
    authorized_since: int | None
    connected_since: int
    return_rate_limits: bool
    server_time: int
    user_data_stream: bool = False


_AS_IN_PYTHON = {"true": "True", "false": "False"}
_decoder = msgspec.json.Decoder(Request, float_hook=str)
encode = msgspec.json.Encoder().encode


def read_request(text: str) -> Request:
    """Return the request in a message.

    Raises:
        ApiError: -1130, it is none.
    """
    try:
        request = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BAD_MESSAGE.error(what=str(error)) from None
    if isinstance(request.id, str) and len(request.id) > ID_CHARS_MAX:
        raise BAD_MESSAGE.error(what=f"id: more than {ID_CHARS_MAX} characters")
    return request


def texts(parameters: dict[str, Any]) -> dict[str, str]:
    """Return parameters as the texts that a query string would have; those that are null are not there.

    Raises:
        ApiError: -1130, one of them is a list or an object.
    """
    found = {}
    for name, value in parameters.items():
        if type(value) is str:
            found[name] = value
        elif value is True or value is False:
            found[name] = "true" if value else "false"
        elif isinstance(value, int | float):
            found[name] = str(value)
        elif value is not None:
            raise BAD_PARAMETER.error(name=name[:ID_CHARS_MAX])
    return found


def payload(parameters: dict[str, str], *, python_booleans: bool = False) -> bytes:
    """Return what a signature covers: all other parameters, sorted by name.

    With `python_booleans` they read True and False, as python-binance signs what it then sends as true and
    false.
    """
    signed = [
        f"{name}={_AS_IN_PYTHON.get(value, value) if python_booleans else value}"
        for name, value in sorted(parameters.items())
        if name != "signature"
    ]
    return "&".join(signed).encode("utf-8", "replace")


def error_body(error: Exception, code: int, text: str, now_ms: int) -> ErrorBody:
    """Return an error as it is answered."""
    if isinstance(error, LimitError):
        data = {"serverTime": now_ms, "retryAfter": now_ms + error.retry_s * 1_000}
        return ErrorBody(code, text, data)
    return ErrorBody(code, text)
