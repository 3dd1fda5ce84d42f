"""A market: its contract, its leverage brackets, its book and its prices.

Brackets are a step table over the position's notional. A cap belongs to the bracket it closes. The
deduction makes maintenance margin continuous at every border:

    cum_n = cum_{n−1} + floor_n × (rate_n − rate_{n−1})

Source: Binance, "Leverage and Margin of USDⓈ-M Futures", maintenance amount.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from events.values import TRADING, Bracket, MarketSpec, Side, WorkingPrice
from exchange.aggregate.book import Book
from exchange.aggregate.order import Order
from exchange.aggregate.triggers import Triggers
from exchange.aggregate.units import AMOUNT_MAX, RATE_ONE

if TYPE_CHECKING:
    from exchange.aggregate.account import Position
    from exchange.aggregate.ranking import Ranking

UNIT_SCALE = 100_000_000
LEVERAGE_MAX = 1000
# Averages of prices are in this part of a tick; they must fit 62 bits.
PRICE_SCALE = 65536
PRICE_TICKS_MAX = 1 << 45
FUNDING_INTERVAL_S_MAX = 7 * 24 * 3600


class Brackets:
    """The leverage table of a market, ready for look-ups.

    `deductions` are in 1e-8 money units, so that they are exact whatever the caps are. `caps_at` is the
    largest notional that may be held, by leverage up to the highest there is.
    """

    __slots__ = ("caps", "caps_at", "deductions", "leverages", "rates")

    def __init__(self, rows: tuple[Bracket, ...]) -> None:
        self.caps: list[int] = [row.cap for row in rows]
        self.rates: list[int] = [row.maintenance_rate for row in rows]
        self.leverages: list[int] = [row.max_leverage for row in rows]
        self.deductions: list[int] = [0]
        for n in range(1, len(rows)):
            step = self.caps[n - 1] * (self.rates[n] - self.rates[n - 1])
            self.deductions.append(self.deductions[n - 1] + step)
        self.caps_at: list[int] = [0] * (self.leverages[0] + 1)
        for cap, highest in zip(self.caps, self.leverages, strict=True):
            self.caps_at[: highest + 1] = [cap] * (highest + 1)

    def containing(self, notional: int) -> int:
        """Return the number of the bracket that holds `notional`; the last one holds all above its cap."""
        n = bisect_left(self.caps, notional)
        return n if n < len(self.caps) else n - 1

    def maintenance(self, notional: int) -> int:
        """Return the maintenance margin, ceil(notional × rate − deduction), in money units."""
        if notional <= self.caps[0]:
            return -(-notional * self.rates[0] // RATE_ONE)
        n = self.containing(notional)
        return -(-(notional * self.rates[n] - self.deductions[n]) // RATE_ONE)

    def floor(self, n: int) -> int:
        """Return the notional above which bracket `n` begins."""
        return self.caps[n - 1] if n > 0 else 0

    def cap_at(self, leverage: int) -> int:
        """Return the largest notional that may be held at `leverage`, 0 when no bracket permits it."""
        return self.caps_at[leverage] if leverage < len(self.caps_at) else 0


class Market:
    """One contract with its book and prices. Prices are ticks; 0 means that there is none yet.

    `unit` is the money one lot gains per tick: notional = |lots| × ticks × unit, exactly.
    `basis_average` is the moving average of (mid − index) in 1/65536 ticks. `index_ns` is the time of the
    last index update, `index_wait` how many must still come in time after a silence (see
    `index.index_is_stale`). `funding_rate` is the rate settled last (1e-8), `next_funding_ns` when the next
    is due (0 before the first index, or without funding), `premium_sum` and `premium_count` the premiums
    (1e-8) since. `open_interest_lots` is what all longs hold together. `holders` are the open positions by
    (account, leg), in no order that means anything; `rankings` are the orders in which the positions of a
    side (BUY: longs) are deleveraged, as far as somebody asked for one at this mark.
    `mark_triggers` and `last_triggers` hold the conditional orders that watch a price. `last_trade_id` is the
    number of the last trade; the next is one higher.
    """

    __slots__ = (
        "basis_average",
        "book",
        "brackets",
        "funding_rate",
        "holders",
        "index_ns",
        "index_ticks",
        "index_wait",
        "last_ticks",
        "last_trade_id",
        "last_triggers",
        "mark_ticks",
        "mark_triggers",
        "next_funding_ns",
        "open_interest_lots",
        "premium_count",
        "premium_sum",
        "rankings",
        "spec",
        "status",
        "symbol",
        "unit",
    )

    def __init__(self, spec: MarketSpec) -> None:
        self.spec = spec
        self.symbol: str = spec.symbol
        self.unit: int = spec.tick_size * spec.lot_size // UNIT_SCALE
        self.brackets = Brackets(spec.brackets)
        self.book: Book[Order] = Book()
        self.status = TRADING
        self.index_ticks = 0
        self.mark_ticks = 0
        self.last_ticks = 0
        self.last_trade_id = 0
        self.basis_average = 0
        self.index_ns = 0
        self.index_wait = 0
        self.funding_rate = 0
        self.next_funding_ns = 0
        self.premium_sum = 0
        self.premium_count = 0
        self.open_interest_lots = 0
        self.holders: dict[tuple[int, int], Position] = {}
        self.rankings: dict[Side, Ranking] = {}
        self.mark_triggers = Triggers()
        self.last_triggers = Triggers()

    def triggers(self, working_price: WorkingPrice) -> Triggers:
        """Return the conditional orders that watch a price."""
        return self.mark_triggers if working_price is WorkingPrice.MARK else self.last_triggers

    def working_ticks(self, working_price: WorkingPrice) -> int:
        """Return the price that conditional orders watch; the mark stands in until there was a trade."""
        if working_price is WorkingPrice.LAST and self.last_ticks:
            return self.last_ticks
        return self.mark_ticks


def value_max(spec: MarketSpec) -> int:
    """Return the largest notional that an order or a position in a contract can have, in money units."""
    most_lots = max(spec.max_lots, spec.max_position_lots, spec.max_open_interest_lots)
    return spec.max_price_ticks * most_lots * (spec.tick_size * spec.lot_size // UNIT_SCALE)


def spec_problem(spec: MarketSpec) -> str | None:
    """Say which rule a contract specification breaks, None if it keeps them all."""
    for broken, problem in (
        (not spec.symbol, "symbol: must not be empty"),
        (spec.tick_size <= 0, "tick_size: must be positive"),
        (spec.lot_size <= 0, "lot_size: must be positive"),
        (
            spec.tick_size * spec.lot_size % UNIT_SCALE != 0,
            "tick_size × lot_size: must be a whole number of 1e-8 quote",
        ),
        (
            not 0 < spec.min_price_ticks <= spec.max_price_ticks,
            "min_price_ticks: must be in 1…max_price_ticks",
        ),
        (not 0 < spec.min_lots <= spec.max_lots, "min_lots: must be in 1…max_lots"),
        (spec.min_notional < 0, "min_notional: must not be negative"),
        (not 0 <= spec.taker_fee < RATE_ONE, "taker_fee: must be in [0, 1)"),
        (abs(spec.maker_fee) > spec.taker_fee, "maker_fee: must not exceed taker_fee either way"),
        (not 0 <= spec.liquidation_fee < RATE_ONE, "liquidation_fee: must be in [0, 1)"),
        (not 0 < spec.take_bound < RATE_ONE, "take_bound: must be in (0, 1)"),
        (spec.band_up <= 0, "band_up: must be positive"),
        (not 0 < spec.band_down <= RATE_ONE, "band_down: must be in (0, 1]"),
        (not spec.min_lots <= spec.max_market_lots, "max_market_lots: must be at least min_lots"),
        (spec.max_open_orders <= 0, "max_open_orders: must be positive"),
        (spec.max_conditional_orders < 0, "max_conditional_orders: must not be negative"),
        (spec.max_position_lots < spec.min_lots, "max_position_lots: must be at least min_lots"),
        (spec.max_open_interest_lots < spec.min_lots, "max_open_interest_lots: must be at least min_lots"),
        (spec.unwind_lots <= 0, "unwind_lots: must be positive"),
        (not spec.brackets, "brackets: must not be empty"),
    ):
        if broken:
            return problem
    return _index_problem(spec) or _bracket_problem(spec)


def _index_problem(spec: MarketSpec) -> str | None:
    for broken, problem in (
        (
            not 0 <= spec.funding_interval_s <= FUNDING_INTERVAL_S_MAX,
            f"funding_interval_s: must be in 0…{FUNDING_INTERVAL_S_MAX}",
        ),
        (spec.funding_cap < 0, "funding_cap: must not be negative"),
        (abs(spec.interest_rate) > spec.funding_cap, "interest_rate: must not exceed funding_cap either way"),
        (not 0 <= spec.impact_notional <= AMOUNT_MAX, "impact_notional: must be in 0…2^62"),
        (spec.index_age_ms_max < 0, "index_age_ms_max: must not be negative"),
        (spec.index_recovery_updates < 1, "index_recovery_updates: must be at least 1"),
        (spec.source_age_ms_max < 0, "source_age_ms_max: must not be negative"),
        (spec.source_band < 0, "source_band: must not be negative"),
        (not 0 <= spec.trigger_protect < RATE_ONE, "trigger_protect: must be in [0, 1)"),
    ):
        if broken:
            return problem
    return None


def _bracket_problem(spec: MarketSpec) -> str | None:
    previous = Bracket(cap=0, maintenance_rate=0, max_leverage=LEVERAGE_MAX)
    for n, row in enumerate(spec.brackets):
        if row.cap <= previous.cap:
            return f"brackets[{n}].cap: must rise"
        if not previous.maintenance_rate < row.maintenance_rate < RATE_ONE:
            return f"brackets[{n}].maintenance_rate: must rise and stay below 1"
        if not 1 <= row.max_leverage <= previous.max_leverage:
            return f"brackets[{n}].max_leverage: must not rise and be at least 1"
        if row.maintenance_rate * row.max_leverage >= RATE_ONE:
            return f"brackets[{n}].max_leverage: initial margin must exceed maintenance margin"
        previous = row
    if not 0 <= spec.mark_band < spec.brackets[0].maintenance_rate:
        return "mark_band: must be below the lowest maintenance rate"
    if spec.funding_cap >= spec.brackets[0].maintenance_rate:
        return "funding_cap: must be below the lowest maintenance rate"
    if previous.cap > AMOUNT_MAX:
        return "brackets: caps must fit 62 bits"
    if value_max(spec) > AMOUNT_MAX:
        return "max_open_interest_lots, max_position_lots, max_lots × max_price_ticks: must fit 62 bits"
    if spec.max_price_ticks > PRICE_TICKS_MAX:
        return "max_price_ticks: must fit 45 bits"
    return None
