"""What the stories play on: three markets without trading fees, a house that takes every other side, and a
liquidator that asks for every bucket after every price.

The insurance fund is large, so that a liquidation never needs more than it. Nobody rests in the books, so
that a liquidated bucket loses all it holds.
"""

from typing import Any

from events.values import MarginMode
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.margin import survey, unrealised
from tests.venue import Trader, Venue, plain, spec

BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
OPENING_PRICES = {BTC: "50000", ETH: "2500", SOL: "100"}
FREE: dict[str, Any] = {"maker_fee": 0, "taker_fee": 0, "liquidation_fee": 0}


class Stage:
    """BTC at 50,000, ETH at 2,500, SOL at 100; everybody has a leverage of 10."""

    def __init__(self) -> None:
        self.venue = Venue(specs=tuple(spec(symbol, **FREE) for symbol in OPENING_PRICES), fund="1000000")
        self.house = self.venue.account("10000000")
        self.traders: list[Trader] = []
        for symbol, price in OPENING_PRICES.items():
            self.venue.index(symbol, price)

    def trader(self, deposit: str) -> Trader:
        """Let somebody come in with money in the wallet."""
        trader = self.venue.account(deposit)
        for symbol in OPENING_PRICES:
            trader.leverage(symbol, 10)
        self.traders.append(trader)
        return trader

    def open(self, trader: Trader, symbol: str, side: str, size: str, mode: str, margin: str = "0") -> None:
        """Let a trader open a position at mark against the house."""
        market = self.venue.state.markets[symbol]
        price = plain(market.mark_ticks * market.spec.tick_size)
        self.house.place("SELL" if side == "BUY" else "BUY", symbol, size, price)
        trader.place(side, symbol, size, price, margin_mode=mode, margin=margin)
        assert trader.position(symbol).size_lots != 0, symbol

    def prices(self, **prices: str) -> None:
        """Let index and mark move, by base asset; then the liquidator looks at every bucket."""
        for base, price in prices.items():
            self.venue.index(f"{base}USDT", price)
        for trader in self.traders:
            for bucket in ("", *OPENING_PRICES):
                self.venue.liquidate(trader, bucket)


def is_open(trader: Trader, symbol: str) -> bool:
    """Whether a position is open."""
    return trader.position(symbol).size_lots != 0


def bucket(trader: Trader, symbol: str) -> str:
    """The collateral of an isolated position."""
    return plain(trader.position(symbol).bucket)


def worth(trader: Trader) -> str:
    """What a trader owns at mark: wallet, buckets and unrealised profit."""
    positions = trader.account.positions.values()
    isolated = sum(p.bucket + unrealised(p) for p in positions if p.mode is MarginMode.ISOLATED)
    return plain(survey(trader.account).equity + isolated)


def fund_worth(stage: Stage) -> str:
    """What the insurance fund owns at mark."""
    return worth(Trader(stage.venue, FUND_ACCOUNT_ID))
