"""Streams of the books: diffs, the best levels, the best prices.

The update id of a book is the number of the log's last entry that is in it, as in `/depth`. A diff holds the
levels touched since the diff before, with their sizes now. It names in `pu` the update the diff before ended
with, in `u` the one it ends with itself. `U` is `pu` and not the number after it: sizes are absolute, so a
diff fits every snapshot taken at or after the update before it, and a client that joined in a quiet market
and insists on U ≤ lastUpdateId ≤ u finds its first diff as well.

To know which levels changed, a tracker keeps the prices of a market's resting orders, while somebody reads
its diffs: the events that end an order do not name its price.
"""

from collections.abc import Callable
from typing import Any

from events.events import Event, OrderAccepted, OrderAmended, OrderCancelled, OrderExpired, TradeExecuted
from events.values import Side
from exchange.aggregate.market import Market
from exchange.aggregate.order import RESTING
from exchange.decimals import lots_text, price_text
from exchange.intake.market.answers import Level
from exchange.intake.market.data import levels_of, wall_clock_ms
from exchange.intake.service import Intake
from exchange.intake.streams.channel import Channel

# A price, negated for asks, as in the book.
Key = int


class LevelTracker:
    """Notes which price levels of a market's book change, for each of its readers.

    It is fed with every event of the market from the entry behind its making on.
    """

    def __init__(self, intake: Intake, symbol: str) -> None:
        self._intake = intake
        self._accounts = intake.state.accounts
        self._keys: dict[int, Key] = {}
        self._readers: list[dict[Key, None]] = []
        book = intake.state.markets[symbol].book
        for half in (book.bids, book.asks):
            for level in half.levels.values():
                for order in level:
                    self._keys[order.order_id] = order.key
        self.handlers: dict[type[Event], Callable[[Any], None]] = {
            OrderAccepted: self._accepted,
            OrderAmended: self._amended,
            OrderCancelled: self._ended,
            OrderExpired: self._ended,
            TradeExecuted: self._traded,
        }

    @property
    def is_read(self) -> bool:
        """Whether anybody reads what is noted."""
        return bool(self._readers)

    def add(self, changed: dict[Key, None]) -> None:
        """Note changes into `changed` from now on."""
        self._readers.append(changed)

    def remove(self, changed: dict[Key, None]) -> None:
        """Note changes into `changed` no longer."""
        self._readers = [reader for reader in self._readers if reader is not changed]

    def _note(self, key: Key) -> None:
        for changed in self._readers:
            changed[key] = None

    def _accepted(self, event: OrderAccepted) -> None:
        if event.time_in_force in RESTING:
            key = self._keys[event.order_id] = event.price_ticks * event.side
            self._note(key)

    def _amended(self, event: OrderAmended) -> None:
        old = self._keys.get(event.order_id)
        if old is None:
            # It ended later in the same entry, and was forgotten at its trade.
            return
        self._note(old)
        key = self._keys[event.order_id] = event.price_ticks if old > 0 else -event.price_ticks
        self._note(key)

    def _ended(self, event: OrderCancelled | OrderExpired) -> None:
        key = self._keys.pop(event.order_id, None)
        if key is not None:
            self._note(key)

    def _traded(self, event: TradeExecuted) -> None:
        self._note(-event.taker_side * event.price_ticks)
        # Events do not say that an order is filled: the state, which is at the end of the entry, does.
        if event.maker_order_id not in self._accounts[event.maker_account_id].orders:
            self._keys.pop(event.maker_order_id, None)
        if event.taker_order_id not in self._accounts[event.taker_account_id].orders:
            self._keys.pop(event.taker_order_id, None)


class BookChannel(Channel):
    """Base of the streams of one book."""

    def __init__(self, intake: Intake, name: str, symbol: str, period_s: float) -> None:
        super().__init__(name, period_s)
        self.intake = intake
        self.market: Market = intake.state.markets[symbol]
        self.last_seq = intake.state.seq

    def depth_update(self, bids: list[Level], asks: list[Level]) -> dict[str, object]:
        """Return levels as a message, as of the last entry; the next one goes on from there."""
        seq, before = self.intake.state.seq, self.last_seq
        self.last_seq = seq
        return {
            "e": "depthUpdate",
            "E": wall_clock_ms(),
            "T": self.intake.now_ms,
            "s": self.market.symbol,
            "U": before,
            "u": seq,
            "pu": before,
            "b": bids,
            "a": asks,
            "ps": self.market.symbol,
            "st": 1,
        }


class DiffDepth(BookChannel):
    """The levels that changed, with their sizes; 0 is a level that is gone."""

    def __init__(
        self, intake: Intake, name: str, symbol: str, period_s: float, tracker: LevelTracker
    ) -> None:
        super().__init__(intake, name, symbol, period_s)
        self._tracker = tracker
        self._changed: dict[Key, None] = {}
        tracker.add(self._changed)

    def close(self) -> None:
        """Let the tracker forget this reader."""
        self._tracker.remove(self._changed)

    def flush(self) -> None:
        """Send the levels touched since the last flush, if there are any."""
        if not self._changed:
            return
        spec, book = self.market.spec, self.market.book
        bids: list[Level] = []
        asks: list[Level] = []
        for key in self._changed:
            levels, side = (book.bids.levels, bids) if key > 0 else (book.asks.levels, asks)
            level = levels.get(key)
            side.append((price_text(spec, abs(key)), lots_text(spec, level.lots if level else 0)))
        self._changed.clear()
        self.send(self.depth_update(bids, asks))


class PartialDepth(BookChannel):
    """The best levels of both sides, whenever they are not what was sent last."""

    def __init__(self, intake: Intake, name: str, symbol: str, period_s: float, levels: int) -> None:
        super().__init__(intake, name, symbol, period_s)
        self._levels = levels
        self._sent: object = None

    def flush(self) -> None:
        """Send the best levels if they changed, or if somebody is new."""
        book = self.market.book
        now = book.depth(Side.BUY, self._levels), book.depth(Side.SELL, self._levels)
        if now == self._sent and not self.is_fresh:
            return
        self._sent = now
        bids, asks = (levels_of(self.market, side, self._levels) for side in (Side.BUY, Side.SELL))
        self.send(self.depth_update(bids, asks))


class BestPrices(Channel):
    """The best prices of markets, whenever they are not what was sent last; `symbols` None: of all."""

    def __init__(self, intake: Intake, name: str, period_s: float, symbol: str | None = None) -> None:
        super().__init__(name, period_s)
        self._intake = intake
        self._symbol = symbol
        self._sent: dict[str, object] = {}

    def flush(self) -> None:
        """Send what changed; to who is new, everything."""
        markets = self._intake.state.markets
        for market in (markets[self._symbol],) if self._symbol else tuple(markets.values()):
            book = market.book
            now = book.depth(Side.BUY, 1), book.depth(Side.SELL, 1)
            if self._sent.get(market.symbol) != now or self.is_fresh:
                self._sent[market.symbol] = now
                self.send(self._ticker(market, *now))

    def _ticker(
        self, market: Market, bids: list[tuple[int, int]], asks: list[tuple[int, int]]
    ) -> dict[str, object]:
        spec = market.spec
        bid_ticks, bid_lots = bids[0] if bids else (0, 0)
        ask_ticks, ask_lots = asks[0] if asks else (0, 0)
        return {
            "e": "bookTicker",
            "u": self._intake.state.seq,
            "E": wall_clock_ms(),
            "T": self._intake.now_ms,
            "s": market.symbol,
            "ps": market.symbol,
            "b": price_text(spec, bid_ticks),
            "B": lots_text(spec, bid_lots),
            "a": price_text(spec, ask_ticks),
            "A": lots_text(spec, ask_lots),
            "st": 1,
        }
