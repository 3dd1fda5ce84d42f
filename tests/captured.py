"""Recorded order books and trades as order flow for the aggregate.

A capture is a raw feed: a line is the local time in ns, a space, and JSON: depth differences, best bid and
ask, trades, and one depth snapshot. One account quotes every price level with one order; a changed level
becomes a place, an amend or a cancel. Every trade is an immediate-or-cancel order of another account.

A depth difference is a batch that ends at update `u`: between two of them the book is not known. So best bid
and ask are compared where one ends, with the last bookTicker whose own update is not after it. Trades carry
no update number but a time; those not after a difference's are sent before it, and the levels that they
touched are then set to what the capture says, with the changed ones.
"""

import gzip
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from events.commands import AmendOrder, AnyCommand, CancelOrder, PlaceOrder, SetIndexPrice
from events.events import Event, OrderCancelled, OrderExpired, Rejected, TradeExecuted
from events.values import Bracket, IndexSource, MarketSpec, OrderType, SelfTrade, Side, TimeInForce
from tests.venue import Venue, money, order_id, spec

LOT = Decimal("0.001")
INDEX_EVERY = 100
PRICE_TICKS_MAX = 10_000_000
Ticker = tuple[int, int, int]  # update, best bid and ask in ticks


@dataclass
class Capture:
    """The messages of one capture, in the order of arrival; tickers in the order of their updates."""

    snapshot: dict[str, Any]
    depths: list[dict[str, Any]]
    trades: list[dict[str, Any]]
    tickers: list[Ticker]


@dataclass
class Agreement:
    """What was compared. `apart` holds (update, ours, the capture's) where best bid or ask differ."""

    commands: int = 0
    compared: int = 0
    agreed: int = 0
    trades: int = 0
    traded_lots: int = 0
    filled_lots: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    apart: list[tuple[int, tuple[int, int], tuple[int, int]]] = field(default_factory=list)


def read_capture(path: Path, tick: Decimal, lines: int) -> Capture:
    """Read the first `lines` of a capture."""
    capture = Capture(snapshot={}, depths=[], trades=[], tickers=[])
    with gzip.open(path, "rt") as file:
        for line in islice(file, lines):
            message = json.loads(line.partition(" ")[2])
            if "lastUpdateId" in message:
                capture.snapshot = message
                continue
            data = message["data"]
            if data["e"] == "depthUpdate":
                capture.depths.append(data)
            elif data["e"] == "trade":
                capture.trades.append(data)
            else:
                ticker = (data["u"], units(data["b"], tick), units(data["a"], tick))
                capture.tickers.append(ticker)
    capture.tickers.sort()
    return capture


def units(text: str, unit: Decimal) -> int:
    """Return a decimal in whole units, exactly."""
    count = Decimal(text) / unit
    assert count == int(count), text
    return int(count)


def wide_spec(symbol: str, tick: Decimal) -> MarketSpec:
    """Return a contract whose filters let every recorded order pass: amounts may reach 62 bits."""
    most_lots = 4 * 10**18 // (PRICE_TICKS_MAX * int(tick * LOT * 10**8))
    return spec(
        symbol,
        tick_size=int(tick * 10**8),
        max_price_ticks=PRICE_TICKS_MAX,
        max_lots=10_000_000,
        max_market_lots=10_000_000,
        max_position_lots=most_lots,
        max_open_interest_lots=most_lots,
        min_notional=0,
        band_up=10**11,
        band_down=10**8,
        max_open_orders=100_000,
        brackets=(Bracket(cap=money("10000000000"), maintenance_rate=400_000, max_leverage=125),),
    )


class Replay:
    """A capture at work on a venue: `quoter` keeps the levels, `taker` trades."""

    def __init__(self, symbol: str, tick: Decimal, capture: Capture) -> None:
        self.symbol = symbol
        self.tick = tick
        self.capture = capture
        self.venue = Venue(specs=(wide_spec(symbol, tick),))
        self.market = self.venue.state.markets[symbol]
        middle = units(capture.snapshot["bids"][0][0], tick)
        self.result = Agreement()
        self.venue.checks = False
        self._send(self._index(middle))
        self.quoter = self.venue.account("10000000000").account_id
        self.taker = self.venue.account("10000000000").account_id
        self.quotes: dict[tuple[Side, int], int] = {}
        self.wanted: dict[tuple[Side, int], int] = {}
        self.touched: set[tuple[Side, int]] = set()

    def run(self) -> Agreement:
        """Send the whole capture and compare after every depth difference."""
        snapshot = self.capture.snapshot
        self._set_levels(self._levels(snapshot["bids"], snapshot["asks"]))
        trades = iter([trade for trade in self.capture.trades if trade["T"] > snapshot["T"]])
        trade = next(trades, None)
        previous = 0
        for number, depth in enumerate(self._after_snapshot()):
            assert not previous or depth["pu"] == previous, "the capture has a gap"
            previous = depth["u"]
            while trade is not None and trade["T"] <= depth["T"]:
                self._trade(trade)
                trade = next(trades, None)
            self._set_levels(self._levels(depth["b"], depth["a"]))
            self._compare(depth["u"])
            if number % INDEX_EVERY == 0:
                book = self.market.book
                self._send(self._index((book.best_bid_ticks + book.best_ask_ticks) // 2))
        return self.result

    def _after_snapshot(self) -> Iterator[dict[str, Any]]:
        """Yield the differences that are not wholly within the snapshot; the first overlaps its end."""
        last = self.capture.snapshot["lastUpdateId"]
        for depth in self.capture.depths:
            if depth["u"] >= last:
                yield depth

    def _levels(self, bids: list[list[str]], asks: list[list[str]]) -> dict[tuple[Side, int], int]:
        levels = {}
        for side, rows in ((Side.BUY, bids), (Side.SELL, asks)):
            for price, size in rows:
                levels[side, units(price, self.tick)] = units(size, LOT)
        return levels

    def _set_levels(self, levels: dict[tuple[Side, int], int]) -> None:
        """Let the quoter's orders become these; what shrinks goes first, so that nothing ever crosses."""
        self.wanted.update(levels)
        changed = {key: self.wanted.get(key, 0) for key in self.touched | levels.keys()}
        self.touched.clear()
        for key, lots in sorted(changed.items(), key=lambda row: (row[1] > 0, row[0])):
            self._set_level(key, lots)
            if not lots:
                del self.wanted[key]

    def _set_level(self, key: tuple[Side, int], lots: int) -> None:
        side, price_ticks = key
        known = self.quotes.get(key, 0)
        order = self.venue.state.accounts[self.quoter].orders.get(known)
        if order is None and lots:
            place = self._limit(self.quoter, side, lots, price_ticks, TimeInForce.GTX)
            events = self._send(place)
            if not isinstance(events[0], Rejected):
                self.quotes[key] = order_id(events)
        elif order is not None and not lots:
            self._send(CancelOrder(account_id=self.quoter, market=self.symbol, order_id=known))
            del self.quotes[key]
        elif order is not None and order.open_lots != lots:
            whole_lots = lots + order.quantity_lots - order.open_lots
            self._send(
                AmendOrder(
                    account_id=self.quoter,
                    market=self.symbol,
                    side=side,
                    quantity_lots=whole_lots,
                    price_ticks=price_ticks,
                    order_id=known,
                )
            )

    def _trade(self, trade: dict[str, Any]) -> None:
        side = Side.SELL if trade["m"] else Side.BUY
        lots = units(trade["q"], LOT)
        price_ticks = units(trade["p"], self.tick)
        if not lots or not price_ticks:
            return
        events = self._send(self._limit(self.taker, side, lots, price_ticks, TimeInForce.IOC))
        self.result.trades += 1
        self.result.traded_lots += lots
        for event in events:
            if isinstance(event, TradeExecuted):
                self.result.filled_lots += event.quantity_lots
                self.touched.add((side.opposite, event.price_ticks))

    def _compare(self, update: int) -> None:
        at = bisect_right(self.capture.tickers, (update, 1 << 62, 0))
        if at == 0 or at == len(self.capture.tickers):
            return  # no ticker before, or none after that says that this one is the last before
        _, bid, ask = self.capture.tickers[at - 1]
        book = self.market.book
        ours = (book.best_bid_ticks, book.best_ask_ticks)
        self.result.compared += 1
        if ours == (bid, ask):
            self.result.agreed += 1
        else:
            self.result.apart.append((update, ours, (bid, ask)))

    def _limit(
        self, account_id: int, side: Side, lots: int, price_ticks: int, tif: TimeInForce
    ) -> PlaceOrder:
        return PlaceOrder(
            account_id=account_id,
            market=self.symbol,
            side=side,
            order_type=OrderType.LIMIT,
            quantity_lots=lots,
            price_ticks=price_ticks,
            time_in_force=tif,
            self_trade=SelfTrade.NONE,
        )

    def _index(self, price_ticks: int) -> SetIndexPrice:
        source = IndexSource(source="capture", price_ticks=price_ticks, raw="")
        return SetIndexPrice(market=self.symbol, sources=(source,))

    def _send(self, command: AnyCommand) -> list[Event]:
        self.venue.log.clear()
        events = self.venue.send(command)
        self.result.commands += 1
        for event in events:
            if isinstance(event, Rejected):
                self.result.refused[event.code] = self.result.refused.get(event.code, 0) + 1
            # Of the quoter nothing but its own commands may take an order away.
            if isinstance(event, OrderExpired):
                assert event.account_id == self.taker, event
            if isinstance(event, OrderCancelled):
                assert isinstance(command, CancelOrder), (command, event)
        return events
