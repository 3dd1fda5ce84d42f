"""What anybody may ask: the time, the contracts, the books, the prices."""

import time
from typing import Any

from events.values import MarketSpec, MarketStatus, Side
from exchange.aggregate.market import Market
from exchange.aggregate.units import RATE_ONE
from exchange.decimals import format_fixed, lots_text, money_text, price_text, step_digits
from exchange.intake.endpoint import Values
from exchange.intake.errors import BAD_DEPTH_LIMIT
from exchange.intake.service import Intake
from exchange.intake.trade.orders import NS_PER_MS

DEPTH_LIMITS = (5, 10, 20, 50, 100, 500, 1000)
DEPTH_LIMIT_DEFAULT = 500
PERPETUAL_DELIVERY_MS = 4_133_404_800_000
_STATUS = {
    MarketStatus.TRADING: "TRADING",
    MarketStatus.CANCEL_ONLY: "PENDING_TRADING",
    MarketStatus.HALTED: "BREAK",
}


def wall_clock_ms() -> int:
    """Return the server's own time, by which requests are dated."""
    return time.time_ns() // NS_PER_MS


async def ping(intake: Intake, account_id: int, values: Values) -> object:
    """Answer, to show that someone is there."""
    return {}


async def server_time(intake: Intake, account_id: int, values: Values) -> object:
    """Return the server's clock."""
    return {"serverTime": wall_clock_ms()}


async def exchange_info(intake: Intake, account_id: int, values: Values) -> object:
    """Return the contracts and their filters."""
    markets = intake.state.markets.values()
    return {
        "timezone": "UTC",
        "serverTime": wall_clock_ms(),
        "futuresType": "U_MARGINED",
        "rateLimits": [],
        "exchangeFilters": [],
        "assets": [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "0"}
            for asset in dict.fromkeys(market.spec.quote for market in markets)
        ],
        "symbols": [_symbol_row(market) for market in markets],
    }


async def depth(intake: Intake, account_id: int, values: Values) -> object:
    """Return the best levels of a book."""
    limit = values.get("limit", DEPTH_LIMIT_DEFAULT)
    if limit not in DEPTH_LIMITS:
        raise BAD_DEPTH_LIMIT.error()
    market = intake.market(values["symbol"])
    return {
        "lastUpdateId": intake.state.seq,
        "E": wall_clock_ms(),
        "T": intake.now_ms,
        "bids": _levels(market, Side.BUY, limit),
        "asks": _levels(market, Side.SELL, limit),
    }


async def premium_index(intake: Intake, account_id: int, values: Values) -> object:
    """Return mark and index prices, of one market or of all."""
    symbol = values.get("symbol")
    if symbol is not None:
        return _premium_row(intake.market(symbol), intake.now_ms)
    return [_premium_row(market, intake.now_ms) for market in intake.state.markets.values()]


def _levels(market: Market, side: Side, limit: int) -> list[list[str]]:
    spec = market.spec
    return [
        [price_text(spec, price_ticks), lots_text(spec, lots)]
        for price_ticks, lots in market.book.depth(side, limit)
    ]


def _premium_row(market: Market, now_ms: int) -> dict[str, Any]:
    """The rate is the one settled last; without funding the next time is 0."""
    index = price_text(market.spec, market.index_ticks)
    return {
        "symbol": market.symbol,
        "markPrice": price_text(market.spec, market.mark_ticks),
        "indexPrice": index,
        "estimatedSettlePrice": index,
        "lastFundingRate": format_fixed(market.funding_rate),
        "interestRate": format_fixed(market.spec.interest_rate),
        "nextFundingTime": market.next_funding_ns // NS_PER_MS,
        "time": now_ms,
    }


def _symbol_row(market: Market) -> dict[str, Any]:
    spec = market.spec
    lowest = spec.brackets[0]
    return {
        "symbol": spec.symbol,
        "pair": spec.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": PERPETUAL_DELIVERY_MS,
        "onboardDate": 0,
        "status": _STATUS[market.status],
        "maintMarginPercent": format_fixed(lowest.maintenance_rate, 6),
        "requiredMarginPercent": format_fixed(10_000 * 100 // lowest.max_leverage, 4),
        "baseAsset": spec.base,
        "quoteAsset": spec.quote,
        "marginAsset": spec.quote,
        "pricePrecision": step_digits(spec.tick_size),
        "quantityPrecision": step_digits(spec.lot_size),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "settlePlan": 0,
        "triggerProtect": format_fixed(0, 4),
        "liquidationFee": format_fixed(spec.liquidation_fee),
        "marketTakeBound": format_fixed(spec.take_bound),
        "filters": _filters(spec),
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def _filters(spec: MarketSpec) -> list[dict[str, Any]]:
    sizes = {
        "minQty": lots_text(spec, spec.min_lots),
        "maxQty": lots_text(spec, spec.max_lots),
        "stepSize": lots_text(spec, 1),
    }
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": price_text(spec, spec.min_price_ticks),
            "maxPrice": price_text(spec, spec.max_price_ticks),
            "tickSize": price_text(spec, 1),
        },
        {"filterType": "LOT_SIZE", **sizes},
        {"filterType": "MARKET_LOT_SIZE", **sizes, "maxQty": lots_text(spec, spec.max_market_lots)},
        {"filterType": "MIN_NOTIONAL", "notional": money_text(spec.min_notional)},
        {"filterType": "MAX_NUM_ORDERS", "limit": spec.max_open_orders},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": spec.max_conditional_orders},
        {
            "filterType": "PERCENT_PRICE",
            "multiplierUp": money_text(RATE_ONE + spec.band_up),
            "multiplierDown": money_text(RATE_ONE - spec.band_down),
            "multiplierDecimal": "4",
        },
    ]
