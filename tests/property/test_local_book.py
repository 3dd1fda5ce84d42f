"""A client's own book, kept from a snapshot and the diffs that follow, is the exchange's book."""

import asyncio
import os
from typing import Any

import pytest

from exchange.aggregate.state import Exchange
from exchange.decimals import lots_text, price_text
from tests.flow import SYMBOLS
from tests.streaming import Socket, Stage, streaming
from tests.waiting import until

EVENTS = int(os.environ.get("FOLDEX_BOOK_EVENTS", "2500"))
COMMANDS_AT_ONCE = 4
SPEEDS = ("", "@100ms", "@500ms")

# Sizes by price of both sides, as text.
Sides = tuple[dict[str, str], dict[str, str]]


class LocalBook:
    """A book as Binance tells clients to keep one; `checked` counts the updates that were right."""

    def __init__(self, symbol: str, truth: dict[int, dict[str, Sides]]) -> None:
        self.symbol = symbol
        self.truth = truth
        self.update_id = 0
        self.checked = 0
        self.sides: Sides = ({}, {})
        self._has_diff = False

    def start(self, snapshot: dict[str, Any]) -> None:
        """Take the answer of `/depth`."""
        self.sides = dict(map(tuple, snapshot["bids"])), dict(map(tuple, snapshot["asks"]))
        self.update_id = snapshot["lastUpdateId"]
        self.check()

    def apply(self, diff: dict[str, Any]) -> None:
        """Take a diff, or drop one that ended before the snapshot."""
        if diff["u"] < self.update_id:
            assert not self._has_diff
            return
        if self._has_diff:
            assert diff["pu"] == self.update_id
        else:
            assert diff["U"] <= self.update_id <= diff["u"]
            self._has_diff = True
        for side, levels in zip(self.sides, (diff["b"], diff["a"]), strict=True):
            for price, size in levels:
                if float(size) == 0:
                    side.pop(price, None)
                else:
                    side[price] = size
        self.update_id = diff["u"]
        self.check()

    def check(self) -> None:
        """The book is what the exchange's was behind that entry."""
        assert self.truth[self.update_id][self.symbol] == self.sides
        self.checked += 1


def sides_of(state: Exchange, symbol: str) -> Sides:
    """Return the whole book of the one who decides."""
    market = state.markets[symbol]
    bids, asks = (
        {
            price_text(market.spec, abs(key)): lots_text(market.spec, level.lots)
            for key, level in half.levels.items()
        }
        for half in (market.book.bids, market.book.asks)
    )
    return bids, asks


async def trade(stage: Stage, truth: dict[int, dict[str, Sides]], events: int) -> None:
    """Trade at random until there are so many more events; remember the books behind each entry."""
    record = stage.record
    end = record.events + events
    while record.events < end:
        for _ in range(COMMANDS_AT_ONCE):
            await record.trade(1)
            truth[record.state.seq] = {symbol: sides_of(record.state, symbol) for symbol in SYMBOLS}
        await stage.caught_up()


async def follow(client: Socket, book: LocalBook) -> None:
    """Apply diffs until cancelled."""
    while True:
        book.apply(await client.next())


@pytest.mark.soak
async def test_a_local_book_is_the_exchanges_book() -> None:
    """At every update id, through random trading, for each speed, from a snapshot taken at any time."""
    truth: dict[int, dict[str, Sides]] = {}
    async with streaming() as stage:
        await trade(stage, truth, EVENTS // 10)
        books: list[LocalBook] = []
        tasks: list[asyncio.Task[None]] = []
        for n, (speed, symbol) in enumerate((speed, symbol) for speed in SPEEDS for symbol in SYMBOLS):
            client = await stage.connect("/ws")
            assert None is (await client.ask("SUBSCRIBE", f"{symbol.lower()}@depth{speed}"))["result"]
            if n % 2:
                await trade(stage, truth, EVENTS // 50)
            book = LocalBook(symbol, truth)
            book.start(await stage.get("/fapi/v1/depth", symbol=symbol, limit=1000))
            books.append(book)
            tasks.append(asyncio.create_task(follow(client, book)))
        await trade(stage, truth, EVENTS)
        state = stage.record.state
        await until(
            lambda: (
                any(task.done() for task in tasks)
                or all(book.sides == sides_of(state, book.symbol) for book in books)
            ),
            "end of the books",
        )
        for task, book in zip(tasks, books, strict=True):
            assert not task.done(), task.exception()
            snapshot = await stage.get("/fapi/v1/depth", symbol=book.symbol, limit=1000)
            assert state.seq == snapshot["lastUpdateId"]
            assert book.sides == (dict(map(tuple, snapshot["bids"])), dict(map(tuple, snapshot["asks"])))
            assert book.checked > 1
        print(f"{stage.record.events} events, {sum(book.checked for book in books)} books compared")
        for task in tasks:
            task.cancel()
