"""Contract specifications as people write them, and the two that a new exchange lists.

A form holds decimal strings; `market_spec` turns it into the integers of a `MarketSpec`. The numbers of
BTCUSDT and ETHUSDT are our own, in the range of what large venues use.
"""

import re

import msgspec

from events.values import Bracket, MarketSpec
from exchange.aggregate.market import spec_problem
from exchange.decimals import (
    DecimalError,
    parse_fixed,
    parse_steps,
)

# What fields of a specification are called in a form, which has no ticks and lots.
_FORM_FIELDS = {
    "min_price_ticks": "min_price",
    "max_price_ticks": "max_price",
    "min_lots": "min_quantity",
    "max_lots": "max_quantity",
    "max_market_lots": "max_market_quantity",
    "max_position_lots": "max_position",
    "max_open_interest_lots": "max_open_interest",
    "unwind_lots": "unwind_quantity",
}
_FIELD_OF_SPEC = re.compile(rf"\b({'|'.join(_FORM_FIELDS)})\b")


class SpecError(ValueError):
    """A specification breaks a rule; the message names the field."""


class BracketForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of the leverage table: for notionals up to `cap` quote."""

    cap: str
    maintenance_rate: str
    max_leverage: int


class MarketForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A contract in decimals: prices and money in quote, sizes in base, fees, rates and bounds as fractions.

    What is left out below the brackets is off: no funding, an index and sources that never grow stale, and
    triggers that no distance between mark and last price holds back.
    """

    symbol: str
    base: str
    quote: str
    tick_size: str
    lot_size: str
    min_price: str
    max_price: str
    min_quantity: str
    max_quantity: str
    min_notional: str
    maker_fee: str
    taker_fee: str
    liquidation_fee: str
    mark_band: str
    take_bound: str
    band_up: str
    band_down: str
    max_market_quantity: str
    max_open_orders: int
    max_conditional_orders: int
    max_position: str
    max_open_interest: str
    unwind_quantity: str
    brackets: list[BracketForm]
    funding_interval_s: int = 0
    interest_rate: str = "0"
    funding_cap: str = "0"
    impact_notional: str = "0"
    index_age_ms_max: int = 0
    index_recovery_updates: int = 1
    source_age_ms_max: int = 0
    source_band: str = "0"
    trigger_protect: str = "0"


def market_spec(form: MarketForm) -> MarketSpec:
    """Return the specification a form describes.

    Raises:
        SpecError: a field is no decimal of its scale, or the whole breaks a rule of contracts.
    """
    tick_size = _scaled("tick_size", form.tick_size)
    lot_size = _scaled("lot_size", form.lot_size)
    if tick_size <= 0 or lot_size <= 0:
        raise SpecError("tick_size, lot_size: must be positive")
    spec = MarketSpec(
        symbol=form.symbol,
        base=form.base,
        quote=form.quote,
        tick_size=tick_size,
        lot_size=lot_size,
        min_price_ticks=_steps("min_price", form.min_price, tick_size),
        max_price_ticks=_steps("max_price", form.max_price, tick_size),
        min_lots=_steps("min_quantity", form.min_quantity, lot_size),
        max_lots=_steps("max_quantity", form.max_quantity, lot_size),
        min_notional=_scaled("min_notional", form.min_notional),
        maker_fee=_scaled("maker_fee", form.maker_fee),
        taker_fee=_scaled("taker_fee", form.taker_fee),
        liquidation_fee=_scaled("liquidation_fee", form.liquidation_fee),
        mark_band=_scaled("mark_band", form.mark_band),
        take_bound=_scaled("take_bound", form.take_bound),
        band_up=_scaled("band_up", form.band_up),
        band_down=_scaled("band_down", form.band_down),
        max_market_lots=_steps("max_market_quantity", form.max_market_quantity, lot_size),
        max_open_orders=form.max_open_orders,
        max_conditional_orders=form.max_conditional_orders,
        max_position_lots=_steps("max_position", form.max_position, lot_size),
        max_open_interest_lots=_steps("max_open_interest", form.max_open_interest, lot_size),
        unwind_lots=_steps("unwind_quantity", form.unwind_quantity, lot_size),
        brackets=tuple(_bracket(n, row) for n, row in enumerate(form.brackets)),
        funding_interval_s=form.funding_interval_s,
        interest_rate=_scaled("interest_rate", form.interest_rate),
        funding_cap=_scaled("funding_cap", form.funding_cap),
        impact_notional=_scaled("impact_notional", form.impact_notional),
        index_age_ms_max=form.index_age_ms_max,
        index_recovery_updates=form.index_recovery_updates,
        source_age_ms_max=form.source_age_ms_max,
        source_band=_scaled("source_band", form.source_band),
        trigger_protect=_scaled("trigger_protect", form.trigger_protect),
    )
    problem = spec_problem(spec)
    if problem:
        raise SpecError(_FIELD_OF_SPEC.sub(lambda found: _FORM_FIELDS[found.group()], problem))
    return spec


def _bracket(n: int, row: BracketForm) -> Bracket:
    return Bracket(
        cap=_scaled(f"brackets[{n}].cap", row.cap),
        maintenance_rate=_scaled(f"brackets[{n}].maintenance_rate", row.maintenance_rate),
        max_leverage=row.max_leverage,
    )


def _scaled(name: str, text: str) -> int:
    try:
        return parse_fixed(text, signed=True)
    except DecimalError as error:
        raise SpecError(f"{name}: {error}") from None


def _steps(name: str, text: str, step: int) -> int:
    try:
        return parse_steps(text, step)
    except DecimalError as error:
        raise SpecError(f"{name}: {error}") from None


def _brackets(*rows: tuple[int, str, str]) -> list[BracketForm]:
    return [
        BracketForm(cap=cap, maintenance_rate=rate, max_leverage=leverage) for leverage, cap, rate in rows
    ]


DEFAULT_FORMS: tuple[MarketForm, ...] = (
    MarketForm(
        symbol="BTCUSDT",
        base="BTC",
        quote="USDT",
        tick_size="0.1",
        lot_size="0.001",
        min_price="100",
        max_price="500000",
        min_quantity="0.001",
        max_quantity="1000",
        min_notional="50",
        maker_fee="0.0002",
        taker_fee="0.0005",
        liquidation_fee="0.005",
        mark_band="0.003",
        take_bound="0.05",
        band_up="0.15",
        band_down="0.15",
        max_market_quantity="120",
        max_open_orders=200,
        max_conditional_orders=10,
        max_position="5000",
        max_open_interest="10000",
        unwind_quantity="2",
        brackets=_brackets(
            (125, "300000", "0.004"),
            (100, "1000000", "0.005"),
            (75, "3000000", "0.0065"),
            (50, "12000000", "0.01"),
            (25, "60000000", "0.02"),
            (20, "100000000", "0.025"),
            (10, "250000000", "0.05"),
            (5, "500000000", "0.1"),
            (2, "1000000000", "0.25"),
            (1, "2000000000", "0.5"),
        ),
        funding_interval_s=8 * 3600,
        interest_rate="0.0001",
        funding_cap="0.003",
        impact_notional="25000",
        trigger_protect="0.05",
    ),
    MarketForm(
        symbol="ETHUSDT",
        base="ETH",
        quote="USDT",
        tick_size="0.01",
        lot_size="0.001",
        min_price="10",
        max_price="50000",
        min_quantity="0.001",
        max_quantity="10000",
        min_notional="20",
        maker_fee="0.0002",
        taker_fee="0.0005",
        liquidation_fee="0.005",
        mark_band="0.003",
        take_bound="0.05",
        band_up="0.15",
        band_down="0.15",
        max_market_quantity="2000",
        max_open_orders=200,
        max_conditional_orders=10,
        max_position="100000",
        max_open_interest="200000",
        unwind_quantity="40",
        brackets=_brackets(
            (125, "200000", "0.004"),
            (100, "800000", "0.005"),
            (75, "2500000", "0.0065"),
            (50, "10000000", "0.01"),
            (25, "50000000", "0.02"),
            (20, "80000000", "0.025"),
            (10, "200000000", "0.05"),
            (5, "400000000", "0.1"),
            (2, "800000000", "0.25"),
            (1, "1500000000", "0.5"),
        ),
        funding_interval_s=8 * 3600,
        interest_rate="0.0001",
        funding_cap="0.003",
        impact_notional="25000",
        trigger_protect="0.05",
    ),
)
DEFAULT_SPECS: tuple[MarketSpec, ...] = tuple(market_spec(form) for form in DEFAULT_FORMS)
