"""The contracts and their rules, as clients read them when they start."""

from typing import Final

import msgspec

from events.values import MarketSpec, MarketStatus
from exchange.aggregate.amendment import AMENDMENTS_MAX
from exchange.aggregate.market import Market
from exchange.aggregate.units import RATE_ONE
from exchange.decimals import format_fixed, lots_text, money_text, price_text, step_digits
from exchange.intake.endpoint import Values
from exchange.intake.market.answers import Asset, Contract, ExchangeInfo, Filter, RateLimit
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.service import Intake

PERPETUAL: Final = "PERPETUAL"
PERPETUAL_DELIVERY_MS: Final = 4_133_404_800_000
STATUS_NAMES: Final = {
    MarketStatus.TRADING: "TRADING",
    MarketStatus.CANCEL_ONLY: "PENDING_TRADING",
    MarketStatus.HALTED: "BREAK",
}
_ORDER_TYPES = [
    "LIMIT",
    "MARKET",
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
]
_TIMES_IN_FORCE = ["GTC", "IOC", "FOK", "GTX", "GTD"]


async def exchange_info(intake: Intake, account_id: int, values: Values) -> ExchangeInfo:
    """Return the contracts and their filters."""
    markets = intake.state.markets.values()
    return ExchangeInfo(
        timezone="UTC",
        server_time=wall_clock_ms(),
        futures_type="U_MARGINED",
        rate_limits=[msgspec.convert(row, RateLimit) for row in intake.limits.rows()],
        exchange_filters=[],
        assets=[
            Asset(asset=asset, margin_available=True, auto_asset_exchange="0")
            for asset in dict.fromkeys(market.spec.quote for market in markets)
        ],
        symbols=[_contract(market, intake.markets_past.of(market.symbol).listed_ms) for market in markets],
    )


def _contract(market: Market, listed_ms: int) -> Contract:
    spec = market.spec
    lowest = spec.brackets[0]
    return Contract(
        symbol=spec.symbol,
        pair=spec.symbol,
        contract_type=PERPETUAL,
        delivery_date=PERPETUAL_DELIVERY_MS,
        onboard_date=listed_ms,
        status=STATUS_NAMES[market.status],
        maint_margin_percent=format_fixed(lowest.maintenance_rate, 6),
        required_margin_percent=format_fixed(10_000 * 100 // lowest.max_leverage, 4),
        base_asset=spec.base,
        quote_asset=spec.quote,
        margin_asset=spec.quote,
        price_precision=step_digits(spec.tick_size),
        quantity_precision=step_digits(spec.lot_size),
        base_asset_precision=8,
        quote_precision=8,
        underlying_type="COIN",
        underlying_sub_type=[],
        settle_plan=0,
        trigger_protect=format_fixed(spec.trigger_protect),
        liquidation_fee=format_fixed(spec.liquidation_fee),
        market_take_bound=format_fixed(spec.take_bound),
        max_move_order_limit=AMENDMENTS_MAX,
        filters=_filters(spec),
        order_types=_ORDER_TYPES,
        time_in_force=_TIMES_IN_FORCE,
    )


def _filters(spec: MarketSpec) -> list[Filter]:
    min_qty, step_size = lots_text(spec, spec.min_lots), lots_text(spec, 1)
    return [
        Filter(
            filter_type="PRICE_FILTER",
            min_price=price_text(spec, spec.min_price_ticks),
            max_price=price_text(spec, spec.max_price_ticks),
            tick_size=price_text(spec, 1),
        ),
        Filter(
            filter_type="LOT_SIZE",
            min_qty=min_qty,
            max_qty=lots_text(spec, spec.max_lots),
            step_size=step_size,
        ),
        Filter(
            filter_type="MARKET_LOT_SIZE",
            min_qty=min_qty,
            max_qty=lots_text(spec, spec.max_market_lots),
            step_size=step_size,
        ),
        Filter(filter_type="MIN_NOTIONAL", notional=money_text(spec.min_notional)),
        Filter(filter_type="MAX_NUM_ORDERS", limit=spec.max_open_orders),
        Filter(filter_type="MAX_NUM_ALGO_ORDERS", limit=spec.max_conditional_orders),
        Filter(
            filter_type="PERCENT_PRICE",
            multiplier_up=money_text(RATE_ONE + spec.band_up),
            multiplier_down=money_text(RATE_ONE - spec.band_down),
            multiplier_decimal="4",
        ),
    ]
