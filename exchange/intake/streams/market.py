"""The market streams: which names there are, and what is sent under each.

A name is `<symbol>@<tail>` with the symbol in lower case, `<pair>_perpetual@continuousKline_<interval>`, or
one that begins with "!" and is about all markets. `_OF_MARKET` and `_OF_ALL` are all the names there are.
"""

from collections.abc import Callable
from typing import Final

from events.frame import Groups
from exchange.intake.market.candles import INTERVALS, INTERVALS_WITH_SECONDS, Interval
from exchange.intake.service import Intake
from exchange.intake.streams.books import BestPrices, DiffDepth, LevelTracker, PartialDepth
from exchange.intake.streams.channel import Channel
from exchange.intake.streams.tickers import (
    ContractInfo,
    MarkPrices,
    Tickers,
    mini_ticker_payload,
    ticker_payload,
)
from exchange.intake.streams.trading import AggregateTrades, ForceOrders, Klines, Trades

SOON: Final = 0.0
KLINE_S: Final = 0.25
CONTRACT_SUFFIX: Final = "_perpetual"


class MarketStreams:
    """Makes the channels of the market streams, and keeps the trackers of the books that they need."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self._trackers: dict[str, LevelTracker] = {}

    def channel(self, name: str) -> Channel | None:
        """Return a new channel for a name; None: there is no such stream, or not yet."""
        make = _OF_ALL.get(name)
        if make is not None:
            return make(self, name)
        stem, at, tail = name.partition("@")
        is_continuous = tail.startswith("continuousKline_") and stem.endswith(CONTRACT_SUFFIX)
        if is_continuous:
            stem = stem.removesuffix(CONTRACT_SUFFIX)
        symbol = stem.upper()
        make_one = _OF_MARKET.get((tail, is_continuous))
        if not at or make_one is None or stem != symbol.lower() or symbol not in self.intake.state.markets:
            return None
        return make_one(self, name, symbol)

    def feed(self, groups: Groups) -> None:
        """Note what an entry changed in the books whose diffs somebody reads."""
        trackers = self._trackers
        if not trackers:
            return
        for group in groups:
            for event in group:
                tracker = trackers.get(getattr(event, "market", ""))
                if tracker is not None:
                    handler = tracker.handlers.get(type(event))
                    if handler is not None:
                        handler(event)

    def diff_depth(self, name: str, symbol: str, period_s: float) -> Channel:
        """Return a channel of diffs, with a tracker on its book."""
        tracker = self._trackers.get(symbol)
        if tracker is None:
            tracker = self._trackers[symbol] = LevelTracker(self.intake, symbol)
        return DiffDepth(self.intake, name, symbol, period_s, tracker)

    def tidy(self) -> None:
        """Forget the trackers that nobody reads any more."""
        self._trackers = {symbol: tracker for symbol, tracker in self._trackers.items() if tracker.is_read}


_MakeOne = Callable[[MarketStreams, str, str], Channel]
_MakeAll = Callable[[MarketStreams, str], Channel]


def _diff(period_s: float) -> _MakeOne:
    return lambda streams, name, symbol: streams.diff_depth(name, symbol, period_s)


def _partial(period_s: float, levels: int) -> _MakeOne:
    return lambda streams, name, symbol: PartialDepth(streams.intake, name, symbol, period_s, levels)


def _klines(interval: Interval, *, is_continuous: bool) -> _MakeOne:
    return lambda streams, name, symbol: Klines(
        streams.intake, name, KLINE_S, symbol, interval, is_continuous=is_continuous
    )


def _mark(period_s: float) -> _MakeOne:
    return lambda streams, name, symbol: MarkPrices(streams.intake, name, period_s, symbol)


def _marks(period_s: float) -> _MakeAll:
    return lambda streams, name: MarkPrices(streams.intake, name, period_s)


_SPEEDS: Final = (("@100ms", 0.1), ("", 0.25), ("@250ms", 0.25), ("@500ms", 0.5))
# By what follows the "@", and whether the name is that of a contract of a pair.
_OF_MARKET: Final[dict[tuple[str, bool], _MakeOne]] = {
    **{(f"depth{speed}", False): _diff(period_s) for speed, period_s in _SPEEDS},
    # There are no orders here that only retail traders meet: their book is the book.
    ("rpiDepth@500ms", False): _diff(0.5),
    **{
        (f"depth{levels}{speed}", False): _partial(period_s, levels)
        for levels in (5, 10, 20)
        for speed, period_s in _SPEEDS
    },
    ("bookTicker", False): lambda streams, name, symbol: BestPrices(streams.intake, name, SOON, symbol),
    ("trade", False): lambda streams, name, symbol: Trades(streams.intake, name, SOON, symbol),
    ("aggTrade", False): lambda streams, name, symbol: AggregateTrades(streams.intake, name, 0.1, symbol),
    **{(f"kline_{each}", False): _klines(i, is_continuous=False) for each, i in INTERVALS.items()},
    **{
        (f"continuousKline_{each}", True): _klines(i, is_continuous=True)
        for each, i in INTERVALS_WITH_SECONDS.items()
    },
    ("ticker", False): lambda streams, name, symbol: Tickers(
        streams.intake, name, 2.0, ticker_payload, symbol
    ),
    ("miniTicker", False): lambda streams, name, symbol: Tickers(
        streams.intake, name, 2.0, mini_ticker_payload, symbol
    ),
    ("markPrice", False): _mark(3.0),
    ("markPrice@3s", False): _mark(3.0),
    ("markPrice@1s", False): _mark(1.0),
    ("forceOrder", False): lambda streams, name, symbol: ForceOrders(streams.intake, name, 1.0, symbol),
}
_OF_ALL: Final[dict[str, _MakeAll]] = {
    "!bookTicker": lambda streams, name: BestPrices(streams.intake, name, 5.0),
    "!ticker@arr": lambda streams, name: Tickers(streams.intake, name, 1.0, ticker_payload),
    "!miniTicker@arr": lambda streams, name: Tickers(streams.intake, name, 1.0, mini_ticker_payload),
    "!markPrice@arr": _marks(3.0),
    "!markPrice@arr@3s": _marks(3.0),
    "!markPrice@arr@1s": _marks(1.0),
    "!forceOrder@arr": lambda streams, name: ForceOrders(streams.intake, name, 1.0),
    "!contractInfo": lambda streams, name: ContractInfo(streams.intake, name),
}
