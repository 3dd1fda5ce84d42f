"""Streams of figures: the last 24 hours, mark prices, the list of contracts."""

from collections.abc import Callable

import msgspec

from exchange.aggregate.market import Market
from exchange.aggregate.units import MONEY_ONE, floor_div
from exchange.decimals import format_fixed
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.market.exchange_info import PERPETUAL, PERPETUAL_DELIVERY_MS, STATUS_NAMES
from exchange.intake.market.prices import premium_of, ticker_of
from exchange.intake.service import Intake
from exchange.intake.streams.channel import Channel

Payload = dict[str, object]


class Tickers(Channel):
    """The last 24 hours whenever they changed: of one market, or (`symbol` None) of all as a list.

    A list holds the markets that changed, and all when somebody is new.
    """

    def __init__(
        self,
        intake: Intake,
        name: str,
        period_s: float,
        payload: Callable[[Intake, Market], Payload],
        symbol: str | None = None,
    ) -> None:
        super().__init__(name, period_s)
        self._intake = intake
        self._payload = payload
        self._symbol = symbol
        self._sent: dict[str, object] = {}

    def flush(self) -> None:
        """Send what changed."""
        markets = self._intake.state.markets
        found: list[Payload] = []
        for market in (markets[self._symbol],) if self._symbol else tuple(markets.values()):
            day = self._intake.markets_past.of(market.symbol).day.figures(wall_clock_ms())
            now = day or market.mark_ticks
            if self._sent.get(market.symbol) != now or self.is_fresh:
                self._sent[market.symbol] = now
                found.append(self._payload(self._intake, market))
        if found:
            self.send(found[0] if self._symbol else found)


class MarkPrices(Channel):
    """Mark and index price and the funding rate, once a period: of one market, or of all as a list."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str | None = None) -> None:
        super().__init__(name, period_s)
        self._intake = intake
        self._symbol = symbol

    def flush(self) -> None:
        """Send the prices of the markets that have any."""
        markets = self._intake.state.markets
        wanted = (markets[self._symbol],) if self._symbol else tuple(markets.values())
        found = [self._update(market) for market in wanted if market.mark_ticks]
        if found:
            self.send(found[0] if self._symbol else found)

    def _update(self, market: Market) -> Payload:
        row = premium_of(self._intake, market)
        return {
            "e": "markPriceUpdate",
            "E": wall_clock_ms(),
            "s": row.symbol,
            "p": row.mark_price,
            "ap": row.mark_price,
            "P": row.estimated_settle_price,
            "i": row.index_price,
            "r": row.last_funding_rate,
            "T": row.next_funding_time,
            "st": 1,
        }


class ContractInfo(Channel):
    """A market is new or has another status; its brackets come with it."""

    def __init__(self, intake: Intake, name: str) -> None:
        super().__init__(name, 0)
        self._intake = intake
        self._known = {market.symbol: market.status for market in intake.state.markets.values()}

    def flush(self) -> None:
        """Send the markets whose status is not the known one."""
        for market in tuple(self._intake.state.markets.values()):
            if self._known.get(market.symbol) != market.status:
                self._known[market.symbol] = market.status
                self.send(self._contract(market))

    def _contract(self, market: Market) -> Payload:
        brackets = market.brackets
        return {
            "e": "contractInfo",
            "E": wall_clock_ms(),
            "s": market.symbol,
            "ps": market.symbol,
            "ct": PERPETUAL,
            "dt": PERPETUAL_DELIVERY_MS,
            "ot": self._intake.markets_past.of(market.symbol).listed_ms,
            "cs": STATUS_NAMES[market.status],
            "bks": [
                {
                    "bs": n + 1,
                    "bnf": floor_div(brackets.floor(n), MONEY_ONE),
                    "bnc": floor_div(brackets.caps[n], MONEY_ONE),
                    # A JSON number without ever being a float.
                    "mmr": msgspec.Raw(format_fixed(brackets.rates[n]).encode()),
                    "cf": floor_div(brackets.deductions[n], MONEY_ONE * MONEY_ONE),
                    "mi": brackets.leverages[n + 1] + 1 if n + 1 < len(brackets.leverages) else 1,
                    "ma": brackets.leverages[n],
                }
                for n in range(len(brackets.caps))
            ],
            "st": 1,
        }


def ticker_payload(intake: Intake, market: Market) -> Payload:
    """Return the last 24 hours as a message."""
    row = ticker_of(intake, market)
    return {
        "e": "24hrTicker",
        "E": wall_clock_ms(),
        "s": row.symbol,
        "p": row.price_change,
        "P": row.price_change_percent,
        "w": row.weighted_avg_price,
        "c": row.last_price,
        "Q": row.last_qty,
        "o": row.open_price,
        "h": row.high_price,
        "l": row.low_price,
        "v": row.volume,
        "q": row.quote_volume,
        "O": row.open_time,
        "C": row.close_time,
        "F": row.first_id,
        "L": row.last_id,
        "n": row.count,
        "ps": row.symbol,
        "st": 1,
    }


def mini_ticker_payload(intake: Intake, market: Market) -> Payload:
    """Return the prices and volumes of the last 24 hours as a message."""
    row = ticker_of(intake, market)
    return {
        "e": "24hrMiniTicker",
        "E": wall_clock_ms(),
        "s": row.symbol,
        "c": row.last_price,
        "o": row.open_price,
        "h": row.high_price,
        "l": row.low_price,
        "v": row.volume,
        "q": row.quote_volume,
        "ps": row.symbol,
        "st": 1,
    }
