"""How messages are shown: nothing that has a unit is shown as a bare integer."""

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec

from events.commands import AnyCommand
from events.events import AnyEvent, MarginModeSet
from events.values import Leg, MarginMode, ModeChange
from exchange.audit.printer import readable
from tests.venue import money, spec

# Numbers of things, counts, and times whose name has their unit.
PLAIN = frozenset(
    {
        "account_id", "bracket", "buckets", "cause_seq", "conditional_id", "count", "countdown_ms",
        "duplicate_of", "frame_n", "funding_interval_s", "index_age_ms_max", "index_recovery_updates",
        "index_wait", "leverage", "liquidation_id", "maker_account_id", "maker_order_id",
        "max_conditional_orders", "max_leverage", "max_open_orders", "order_id", "place", "premium_count",
        "rules_version", "seq", "source_age_ms_max", "failures", "index", "lots", "number", "repeats",
        "replaced", "taker_account_id", "taker_order_id", "trade_id",
    }
)  # fmt: skip


def kinds_within(hint: Any) -> Iterator[Any]:
    """Yield the types that a type hint is made of."""
    inside = get_args(hint)
    if not inside:
        yield hint
    for each in inside:
        yield from kinds_within(each)


def integer_fields() -> set[tuple[type[msgspec.Struct], str]]:
    """Return every integer field of commands, events and the values in them."""
    found, seen, waiting = set(), set(), [*get_args(AnyCommand), *get_args(AnyEvent)]
    while waiting:
        kind = waiting.pop()
        seen.add(kind)
        for name, hint in get_type_hints(kind).items():
            for part in kinds_within(hint):
                if part is int:
                    found.add((kind, name))
                elif isinstance(part, type) and issubclass(part, msgspec.Struct) and part not in seen:
                    waiting.append(part)
    return found


def test_every_integer_is_shown_in_its_unit_or_is_a_plain_count() -> None:
    """A field that is added is written as a decimal, or named here."""
    specs = {"BTCUSDT": spec()}
    bare = set()
    for kind, name in integer_fields():
        place = {"market": "BTCUSDT"} if "market" in kind.__struct_fields__ else {}
        alone = msgspec.defstruct("Alone", [*place, name])(**place, **{name: 7})
        is_shown_bare = 7 in readable(alone, specs).values()
        if is_shown_bare and not (name.endswith(("_ticks", "_lots")) and not place):
            bare.add(name)

    assert PLAIN == bare


def test_a_switched_mode_is_shown_in_decimals() -> None:
    """Money, ratios and prices of the legs."""
    leg = ModeChange(
        leg=Leg.BOTH,
        size_lots=100,
        bucket_before=0,
        bucket_after=money("500"),
        ratio_before=None,
        ratio_after=4_000_000,
        liquidation_price_before=None,
        liquidation_price_after=money("45000"),
    )
    done = MarginModeSet(
        account_id=2,
        market="BTCUSDT",
        mode=MarginMode.ISOLATED,
        changed=True,
        wallet_before=money("1000"),
        wallet_after=money("500"),
        legs=(leg,),
    )

    shown = readable(done, {"BTCUSDT": spec()})

    assert ("1000.00000000", "500.00000000") == (shown["wallet_before"], shown["wallet_after"])
    assert {
        "leg": "both",
        "size": "0.100",
        "bucket_before": "0.00000000",
        "bucket_after": "500.00000000",
        "ratio_before": None,
        "ratio_after": "0.04000000",
        "liquidation_price_before": None,
        "liquidation_price_after": "45000.00000000",
    } == shown["legs"][0]
