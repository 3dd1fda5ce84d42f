"""The rows of the market data calls. Weights are Binance's."""

from typing import Final

from exchange.intake.endpoint import Endpoint, Security, Weigh
from exchange.intake.errors import BAD_INTERVAL
from exchange.intake.market import answers as a
from exchange.intake.market import data, fund, history, outside, prices, statistics
from exchange.intake.market.candles import INTERVALS, INTERVALS_WITH_SECONDS, Interval
from exchange.intake.market.exchange_info import exchange_info
from exchange.intake.parameters import Parameter, Parse, choice, text, whole

_NONE, _READ, _KEY = Security.NONE, Security.READ, Security.KEY
# A time further away is as good as this one: 2286.
TIME_MS_MAX: Final = 9_999_999_999_999
_CONTRACT_TYPES = {
    name: name for name in ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "TRADIFI_PERPETUAL")
}


def at_most(limit_max: int) -> Parse:
    """Return what reads a number of rows, 1 to `limit_max`."""

    def parse(value: str) -> int:
        limit = whole(value)
        if not 1 <= limit <= limit_max:
            raise ValueError(value)
        return limit

    return parse


def time_ms(value: str) -> int:
    """Read a time in ms since 1970."""
    return min(whole(value), TIME_MS_MAX)


def _one_or_all(one: int, every: int) -> Weigh:
    """Return the weight of a call about one market, or about `every` of them without a symbol."""
    return lambda values: one if "symbol" in values else every


def _limit(limit_max: int) -> Parameter:
    return Parameter("limit", at_most(limit_max))


def _interval(intervals: dict[str, Interval] = INTERVALS) -> Parameter:
    return choice("interval", intervals, required=True, fault=BAD_INTERVAL)


_SYMBOL = Parameter("symbol", text, required=True)
_PAIR = Parameter("pair", text, required=True)
_SYMBOL_OPTIONAL = Parameter("symbol", text)
_SPAN = (Parameter("startTime", time_ms), Parameter("endTime", time_ms))
_CONTRACT_TYPE = choice("contractType", _CONTRACT_TYPES, required=True)
_CANDLES = (*_SPAN, _limit(1_500), _interval())
_STATISTICS = (*_SPAN, _limit(500), choice("period", statistics.PERIODS, required=True))
_TRADES = (_SYMBOL, _limit(1_000))
_OLD_TRADES = (_SYMBOL, _limit(500), Parameter("fromId", whole))
_AGGREGATES = (_SYMBOL, Parameter("fromId", whole), *_SPAN, _limit(1_000))
_DEPTH = (_SYMBOL, Parameter("limit", whole))
_ONE = (_SYMBOL_OPTIONAL,)
_WEIGH = history.candles_weight
_KLINES = list[a.KlineRow]


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/fapi/v1/ping", _NONE, 1, data.ping, response=a.Nothing),
    Endpoint("GET", "/fapi/v1/time", _NONE, 1, data.server_time, response=a.ServerTime),
    Endpoint("GET", "/fapi/v1/exchangeInfo", _NONE, 1, exchange_info, response=a.ExchangeInfo),
    Endpoint("GET", "/fapi/v1/depth", _NONE, data.depth_weight, data.depth, _DEPTH, a.Depth),
    Endpoint("GET", "/fapi/v1/rpiDepth", _NONE, 20, data.rpi_depth, _DEPTH, a.Depth),
    Endpoint("GET", "/fapi/v1/trades", _NONE, 5, history.trades, _TRADES, list[a.TradeRow], needs_past=True),
    Endpoint(
        "GET",
        "/fapi/v1/historicalTrades",
        _KEY,
        200,
        history.trades,
        _OLD_TRADES,
        list[a.TradeRow],
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/aggTrades",
        _NONE,
        20,
        history.aggregate_trades,
        _AGGREGATES,
        list[a.AggregateRow],
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/klines",
        _NONE,
        _WEIGH,
        history.klines,
        (_SYMBOL, *_CANDLES),
        _KLINES,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/continuousKlines",
        _NONE,
        _WEIGH,
        history.continuous_klines,
        (_PAIR, *_SPAN, _limit(1_500), _CONTRACT_TYPE, _interval(INTERVALS_WITH_SECONDS)),
        _KLINES,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/indexPriceKlines",
        _NONE,
        _WEIGH,
        history.index_klines,
        (_PAIR, *_CANDLES),
        _KLINES,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/markPriceKlines",
        _NONE,
        _WEIGH,
        history.mark_klines,
        (_SYMBOL, *_CANDLES),
        _KLINES,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/premiumIndexKlines",
        _NONE,
        _WEIGH,
        history.premium_klines,
        (_SYMBOL, *_CANDLES),
        _KLINES,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/premiumIndex",
        _NONE,
        _one_or_all(1, 10),
        prices.premium_index,
        _ONE,
        a.PremiumIndex | list[a.PremiumIndex],
    ),
    Endpoint(
        "GET",
        "/fapi/v1/fundingRate",
        _NONE,
        1,
        prices.funding_rates,
        (_SYMBOL_OPTIONAL, *_SPAN, _limit(1_000)),
        list[a.FundingRow],
        needs_past=True,
    ),
    Endpoint("GET", "/fapi/v1/fundingInfo", _NONE, 0, prices.funding_info, response=list[a.FundingInfo]),
    Endpoint(
        "GET",
        "/fapi/v1/ticker/24hr",
        _NONE,
        _one_or_all(1, 40),
        prices.day_ticker,
        _ONE,
        a.Ticker | list[a.Ticker],
        needs_past=True,
    ),
    *(
        Endpoint(
            "GET",
            f"/fapi/{version}/ticker/price",
            _NONE,
            _one_or_all(1, 2),
            prices.price_ticker,
            _ONE,
            a.PriceTicker | list[a.PriceTicker],
            needs_past=True,
        )
        for version in ("v1", "v2")
    ),
    Endpoint(
        "GET",
        "/fapi/v1/ticker/bookTicker",
        _NONE,
        _one_or_all(2, 5),
        data.book_ticker,
        _ONE,
        a.BookTicker | list[a.BookTicker],
    ),
    Endpoint(
        "GET", "/fapi/v1/openInterest", _NONE, 1, prices.open_interest, (_SYMBOL,), a.OpenInterestAnswer
    ),
    Endpoint(
        "GET",
        "/fapi/v1/constituents",
        _NONE,
        2,
        prices.constituents,
        (_SYMBOL,),
        a.Constituents,
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/fapi/v1/insuranceBalance",
        _NONE,
        1,
        fund.insurance_balance,
        _ONE,
        a.InsuranceBalance | list[a.InsuranceBalance],
    ),
    Endpoint("GET", "/fapi/v1/symbolAdlRisk", _NONE, 1, fund.adl_risk, _ONE, a.AdlRisk | list[a.AdlRisk]),
    Endpoint(
        "GET",
        "/fapi/v1/assetIndex",
        _NONE,
        _one_or_all(1, 10),
        fund.asset_index,
        _ONE,
        a.AssetIndex | list[a.AssetIndex],
    ),
    Endpoint(
        "GET",
        "/futures/data/openInterestHist",
        _NONE,
        0,
        statistics.open_interest_history,
        (_SYMBOL, *_STATISTICS),
        list[a.OpenInterestRow],
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/futures/data/takerlongshortRatio",
        _NONE,
        0,
        statistics.taker_ratio,
        (_SYMBOL, *_STATISTICS),
        list[a.TakerRatioRow],
        needs_past=True,
    ),
    Endpoint(
        "GET",
        "/futures/data/basis",
        _NONE,
        0,
        statistics.basis,
        (_PAIR, *_STATISTICS, _CONTRACT_TYPE),
        list[a.BasisRow],
        needs_past=True,
    ),
    *outside.ENDPOINTS,
)
