"""The account file's form: JSON read strictly, its objects as typed shapes, its decimals as integers.

Whatever is wrong is an `AccountFileError` that names the field, as in "positions[0].leverage: must be a whole
number". What the user wrote is quoted and cut where it is repeated.
"""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from events.values import MarketSpec
from exchange.decimals import DecimalError, parse_price

S = TypeVar("S")

SHOWN_CHARS_MAX = 40
_PLAIN_NAME = re.compile(rf"\w{{1,{SHOWN_CHARS_MAX}}}", re.ASCII)
_FIELD_ERRORS = (
    (re.compile(r"Object missing required field `(.*)`", re.DOTALL), "is missing"),
    (re.compile(r"Object contains unknown field `(.*)`", re.DOTALL), "is not a known field"),
)
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_WORDS = (("Expected `int | str`", "must be a whole number"), ("`str`", "a string"), ("`", ""))


class AccountFileError(ValueError):
    """The description cannot be used. `field` says where, `problem` which rule it breaks."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Shape(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the objects in the file."""


class _Constant(str):
    """NaN or an infinity, which Python would read."""


def read_json(text: bytes) -> Any:
    """Return what a JSON text says; the same name twice in one object is refused, as are NaN and infinities.

    Raises:
        AccountFileError: it is no such JSON.
    """
    try:
        # Objects become tuples of pairs here, arrays lists; recursion is bounded by the reader.
        marked = json.loads(text.decode(), object_pairs_hook=tuple, parse_constant=_Constant)
        problem = _problem(marked)
        if problem is None:
            return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise AccountFileError("input", f"is not JSON: {error}") from None
    raise AccountFileError(*problem)


def shaped(field: str, data: object, kind: type[S]) -> S:
    """Return a piece of the file as one of the shapes; `field` is where it stands, "" for the whole."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        inside = place.group(1) if place else ""
        if place:
            message = message[: place.start()]
        for pattern, problem in _FIELD_ERRORS:
            known = pattern.fullmatch(message)
            if known:
                raise AccountFileError(join(field, inside, named(known.group(1))), problem) from None
        for old, new in _WORDS:
            message = message.replace(old, new)
        raise AccountFileError(join(field, inside) or "input", message[:1].lower() + message[1:]) from None


def number(field: str, parse: Callable[[], int]) -> int:
    """Return what `parse` makes of a decimal string; what is wrong with it is said of `field`."""
    try:
        return parse()
    except DecimalError as error:
        raise AccountFileError(field, str(error)) from None


def price(field: str, spec: MarketSpec, text: str) -> int:
    """Return a positive price in ticks."""
    price_ticks = number(field, lambda: parse_price(spec, text))
    if price_ticks == 0:
        raise AccountFileError(field, "must be positive")
    return price_ticks


def whole_number(field: str, value: int | str) -> int:
    """Return a positive whole number, written as one or as a string."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if value < 1:
        raise AccountFileError(field, "must be a whole number of at least 1")
    return value


def choice(field: str, text: str, kind: type[S]) -> S:
    """Return a member of an enumeration by its name; upper or lower case does not matter."""
    members: dict[str, S] = kind.__members__  # type: ignore[attr-defined]
    member = members.get(text.upper())
    if member is None:
        raise AccountFileError(field, f"must be {' or '.join(members)}")
    return member


def join(*parts: str) -> str:
    """Return the parts of a place as one: "markets", "X" and "[0]" are "markets.X[0]"."""
    return ".".join(part for part in parts if part).replace(".[", "[")


def named(name: str) -> str:
    """Return a name from the file as part of a place: quoted unless it is a plain word."""
    return name if _PLAIN_NAME.fullmatch(name) else shown(name)


def shown(text: str) -> str:
    """Return what the user wrote for a message: quoted, in one line, and cut when it is long."""
    return repr(text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…")


def _problem(marked: object) -> tuple[str, str] | None:
    """Return where and why the text has no one meaning, None if it has one."""
    waiting: list[tuple[str, object]] = [("", marked)]
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, _Constant):
            return field or "input", f"must not be {value}"
        if isinstance(value, list):
            waiting.extend((f"{field}[{n}]", each) for n, each in enumerate(value))
        elif isinstance(value, tuple):
            names: set[str] = set()
            for name, each in value:
                place = join(field, named(name))
                if name in names:
                    return place, "is given twice"
                names.add(name)
                waiting.append((place, each))
    return None
