"""Commands and events as people read them: decimals for integers, names for numbers, no secrets.

How a field is written follows from its name, since names carry units; those that do not are in the tables
below, and what is in none is a plain number. What needs a market's tick or lot is written as an integer with
its unit when the market is unknown.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_args

import msgspec

from events.commands import AnyCommand
from events.events import AnyEvent
from events.values import MarketSpec, Value, permission_names
from exchange.audit.replay import time_text
from exchange.decimals import format_fixed, lots_text, money_text, price_text
from exchange.telemetry import REDACTED

Message = msgspec.Struct
Specs = Mapping[str, MarketSpec]

MONEY_FIELDS = frozenset(
    {
        "amount", "cap", "collateral", "deduction", "entry_cost", "equity", "extras", "fund_after",
        "fund_before", "fund_realised", "maintenance", "maker_fee", "maker_margin_moved",
        "maker_realised", "margin_moved", "min_notional", "notional", "realised", "released",
        "paid", "received", "residue", "impact_notional", "taker_fee", "taker_margin_moved",
        "taker_realised", "unrealised", "value", "missing", "from_allotment", "from_wallet", "charged",
        "unpaid", "money_gap", "wallet_before", "wallet_after", "bucket_before", "bucket_after", "margin",
    }
)  # fmt: skip
# Rates and prices in 1e-8.
_FIXED = frozenset(
    {
        "band_down",
        "band_up",
        "callback_rate",
        "funding_cap",
        "funding_rate",
        "interest_rate",
        "liquidation_fee",
        "liquidation_price_after",
        "liquidation_price_before",
        "lot_size",
        "maintenance_rate",
        "mark_band",
        "premium",
        "premium_average",
        "rate",
        "ratio_after",
        "ratio_before",
        "source_band",
        "trigger_protect",
        "take_bound",
        "tick_size",
    }
)
# In a specification these are rates, in a trade money.
_RATES_OF_SPEC = frozenset({"maker_fee", "taker_fee"})
_NAMED: dict[str, Callable[[int], str]] = {
    "now_ns": time_text,
    "expires_ns": lambda value: time_text(value) if value else "",
    "deadline_ns": lambda value: time_text(value) if value else "",
    "deduction_rest": lambda value: format_fixed(value, 16),
    "basis_average": lambda value: f"{value}/65536 ticks",
    "impact_bid": lambda value: f"{value}/65536 ticks" if value else "",
    "impact_ask": lambda value: f"{value}/65536 ticks" if value else "",
    "boundary_ns": time_text,
    "permissions": lambda value: ",".join(permission_names(value)),
    "next_funding_ns": lambda value: time_text(value) if value else "",
    "time_ns": lambda value: time_text(value) if value else "",
}
_RENAMED = {
    "now_ns": "time",
    "min_lots": "min_quantity",
    "max_lots": "max_quantity",
    "unwind_lots": "unwind_quantity",
}
_HIDDEN = frozenset({"sealed_secret"})
_UNITS: tuple[tuple[str, Callable[[MarketSpec, int], str]], ...] = (
    ("_ticks", price_text),
    ("_lots", lots_text),
)


def type_of(message: Message | type[Message]) -> str:
    """Return the tag of a command or event: what `--type` names."""
    return str(message.__struct_config__.tag)


def known_types(*, commands: bool) -> list[str]:
    """Return the tags that commands, or else events, can have, sorted."""
    return sorted(type_of(kind) for kind in get_args(AnyCommand if commands else AnyEvent))


def readable(message: Message, specs: Specs) -> dict[str, Any]:
    """Return a message's fields as plain data, prices, sizes and money as decimal text.

    `specs` (symbol → spec) gives the market's units; fields lose their unit from their name with it.
    """
    return _fields(message, specs, None)


def one_line(fields: Mapping[str, Any]) -> str:
    """Return readable fields as "name=value" words; rows of tables in brackets."""
    return " ".join(f"{name}={_word(value)}" for name, value in fields.items())


def _fields(message: Message, specs: Specs, spec: MarketSpec | None) -> dict[str, Any]:
    if isinstance(message, MarketSpec):
        spec = message
    spec = specs.get(getattr(message, "market", ""), spec)
    fields = {}
    for name in message.__struct_fields__:
        shown_name, value = _field(message, name, specs, spec)
        fields[shown_name] = value
    return fields


def _field(message: Message, name: str, specs: Specs, spec: MarketSpec | None) -> tuple[str, Any]:
    value = getattr(message, name)
    if name in _HIDDEN:
        return name, REDACTED
    if isinstance(value, Enum):
        return name, value.name.lower()
    if isinstance(value, bytes):
        return name, value.hex()
    if isinstance(value, tuple):
        return name, [_fields(row, specs, spec) for row in value]
    if isinstance(value, Value):
        return name, _fields(value, specs, spec)
    if isinstance(value, int) and not isinstance(value, bool):
        return _number(name, value, spec, is_spec=isinstance(message, MarketSpec))
    return name, value


def _number(name: str, value: int, spec: MarketSpec | None, *, is_spec: bool) -> tuple[str, Any]:
    for suffix, text in _UNITS:
        if name.endswith(suffix):
            if spec is None:
                return name, value
            return _RENAMED.get(name, name.removesuffix(suffix)), text(spec, value)
    if name in _NAMED:
        return _RENAMED.get(name, name), _NAMED[name](value)
    if name in _FIXED or (is_spec and name in _RATES_OF_SPEC):
        return name, format_fixed(value)
    if name in MONEY_FIELDS:
        return name, money_text(value)
    return name, value


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + one_line(value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_word(row) for row in value) + "]"
    if isinstance(value, str):
        return f'"{value}"' if not value or " " in value else value
    return str(value)
