"""Parameters of requests: taken apart, checked against an endpoint's declaration, turned into values.

A parameter may come in the query string or in a form body; the query string wins. One sent twice in the same
place is refused, since it cannot be told which was meant. Checks run in the order clients see at Binance:
what must be there and is malformed, then enumerations, then what nobody knows.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from exchange.intake.errors import (
    BAD_PARAMETER,
    CLIENT_ID_TOO_LONG,
    ILLEGAL_CHARACTERS,
    MANDATORY,
    REPEATED,
    UNREAD,
    ApiError,
    Fault,
)

NAME_CHARS_MAX = 40
CLIENT_ID_CHARS_MAX = 36
CLIENT_ID_RANGE = "^[\\.A-Z\\:/a-z0-9_-]{1,36}$"

_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]+", re.ASCII)
_BOOLEANS = {"true": True, "false": False}

# Reads a value; raises ValueError when it is malformed, which becomes the parameter's fault.
Parse = Callable[[str], Any]


class FaultyValueError(ValueError):
    """A malformed value that has a fault of its own, whatever the parameter is called."""

    def __init__(self, fault: Fault, **fields: object) -> None:
        super().__init__(fault.text)
        self.fault = fault
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Parameter:
    """What an endpoint reads under a name.

    `parse` turns the text into a value, raising `ValueError` for a malformed one, which is answered with
    `fault`, or as a malformed parameter when there is none. An enumeration has its own fault, and is looked
    at after all others; `values` are then its texts.
    """

    name: str
    parse: Parse
    required: bool = False
    fault: Fault | None = None
    is_choice: bool = False
    values: tuple[str, ...] = ()


def split_form(text: str) -> dict[str, str]:
    """Return the parameters of a query string or a form body.

    Raises:
        ApiError: -1101, one of them is there twice.
    """
    found: dict[str, str] = {}
    for piece in text.split("&"):
        if not piece:
            continue
        if "%" in piece or "+" in piece:
            name, _, value = (unquote_plus(part) for part in piece.partition("="))
        else:
            name, _, value = piece.partition("=")
        if name in found:
            raise REPEATED.error(name=_shown(name))
        found[name] = value
    return found


def parse_parameters(declared: Iterable[Parameter], sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the parameters that were sent, by name.

    Raises:
        ApiError: the first fault, in the order of the module's preamble.
    """
    values: dict[str, Any] = {}
    choices: list[Parameter] = []
    known = 0
    for parameter in declared:
        text = sent.get(parameter.name)
        if text is None:
            if parameter.required:
                raise MANDATORY.error(name=parameter.name)
            continue
        known += 1
        if not text and parameter.required:
            raise MANDATORY.error(name=parameter.name)
        if parameter.is_choice:
            choices.append(parameter)
        else:
            values[parameter.name] = _parse(parameter, text)
    for parameter in choices:
        values[parameter.name] = _parse(parameter, sent[parameter.name])
    if known < len(sent):
        _refuse_unread(declared, sent)
    return values


class Reader:
    """Reads the parameters of one endpoint, most of which a request does not send."""

    __slots__ = ("_by_name", "_declared", "_required")

    def __init__(self, declared: Iterable[Parameter]) -> None:
        self._declared = tuple(declared)
        self._by_name = {parameter.name: parameter for parameter in self._declared}
        self._required = [parameter.name for parameter in self._declared if parameter.required]

    def read(self, sent: Mapping[str, str]) -> dict[str, Any]:
        """Return what `parse_parameters` does; raises as it does.

        What is all right is read by what was sent. Anything else is left to the order of checks.
        """
        by_name = self._by_name
        values: dict[str, Any] = {}
        try:
            for name, text in sent.items():
                parameter = by_name[name]
                if not text and parameter.required:
                    break
                values[name] = parameter.parse(text)
            else:
                if all(name in values for name in self._required):
                    return values
        except (KeyError, ValueError, ApiError):
            pass
        return parse_parameters(self._declared, sent)


def text(value: str) -> str:
    """Take any text; what it names is looked up later."""
    return value


def whole(value: str) -> int:
    """Read a whole number of up to 18 digits."""
    if not _WHOLE.fullmatch(value):
        raise ValueError(value)
    return int(value)


def decimal(value: str) -> str:
    """Check that a text is a plain decimal number; the market's scale makes it a value."""
    if not _DECIMAL.fullmatch(value):
        raise ValueError(value)
    return value


def boolean(value: str) -> bool:
    """Read true or false, in any case and also in quotes, as clients send them."""
    try:
        return _BOOLEANS[value.strip('"').lower()]
    except KeyError:
        raise ValueError(value) from None


def client_order_id(value: str) -> str:
    """Check a client's order id: 1…36 of letters, digits and ``. : / _ -``."""
    if len(value) > CLIENT_ID_CHARS_MAX:
        raise FaultyValueError(CLIENT_ID_TOO_LONG)
    if not _CLIENT_ID.fullmatch(value):
        raise FaultyValueError(ILLEGAL_CHARACTERS, range=CLIENT_ID_RANGE)
    return value


def choice(
    name: str, values: Mapping[str, Any], *, required: bool = False, fault: Fault | None = None
) -> Parameter:
    """Declare an enumeration: its texts and what each stands for. A value that is a fault is answered so."""

    def parse(value: str) -> Any:
        found = values.get(value)
        if found is None:
            raise ValueError(value)
        if isinstance(found, Fault):
            raise found.error(name=name)
        return found

    taken = tuple(text for text, value in values.items() if not isinstance(value, Fault))
    return Parameter(name, parse, required, fault, is_choice=True, values=taken)


def _parse(parameter: Parameter, value: str) -> Any:
    try:
        return parameter.parse(value)
    except FaultyValueError as error:
        raise error.fault.error(name=parameter.name, **error.fields) from None
    except ValueError:
        fault = parameter.fault or (MANDATORY if parameter.required else BAD_PARAMETER)
        raise fault.error(name=parameter.name) from None


def _refuse_unread(declared: Iterable[Parameter], sent: Mapping[str, str]) -> None:
    names = {parameter.name for parameter in declared}
    unread = [name for name in sent if name not in names]
    if unread:
        raise UNREAD.error(read=len(sent) - len(unread), sent=len(sent), name=_shown(unread[0]))


def _shown(name: str) -> str:
    """Return a name as it may stand in an answer: what a caller sent, but not all of it."""
    return name[:NAME_CHARS_MAX]
