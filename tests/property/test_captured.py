"""Recorded markets run through the aggregate: its best bid and ask are the recorded ones."""

import os
from decimal import Decimal
from pathlib import Path

import pytest

from tests.captured import Replay, read_capture
from tests.flow import check_state

# All of a capture is about 94,000 lines.
LINES = int(os.environ.get("FOLDEX_CAPTURED_LINES", "6000"))


@pytest.mark.soak
@pytest.mark.parametrize(("symbol", "tick"), [("BTCUSDT", Decimal("0.1")), ("ETHUSDT", Decimal("0.01"))])
def test_best_bid_and_ask_are_the_captured_ones(shared_data: Path, symbol: str, tick: Decimal) -> None:
    """Wherever the recorded book is fully known, the aggregate's top of the book is the recorded one."""
    path = shared_data / "ticks" / f"usdm_{symbol.lower()}_20240808.gz"
    replay = Replay(symbol, tick, read_capture(path, tick, LINES))
    result = replay.run()
    print(
        f"{symbol}: {result.commands} commands, {result.agreed} of {result.compared} tops agree, "
        f"{result.trades} trades, {result.filled_lots} of {result.traded_lots} lots filled, "
        f"{result.refused} refused; apart: {result.apart[:5]}"
    )
    assert result.compared > 100
    assert result.compared == result.agreed, result.apart[:5]
    assert {} == result.refused
    assert result.filled_lots >= 0.8 * result.traded_lots
    check_state(replay.venue.state)
    replay.venue.state.check_identities()
    book = replay.market.book
    assert {
        (order.side, order.price_ticks): order.open_lots
        for half in (book.bids, book.asks)
        for level in half.best_first()
        for order in level
    } == replay.wanted
