"""Names of streams, addresses of connections, weights of calls: the tables, asked row by row."""

import pytest

from exchange.intake.market.data import depth_weight
from exchange.intake.market.history import candles_weight
from exchange.intake.market.past import Past
from exchange.intake.streams.front import opening
from exchange.intake.streams.market import MarketStreams
from tests.venue import Venue

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
SPEEDS = ("", "@100ms", "@250ms", "@500ms")
NAMES = (
    *(f"btcusdt@depth{speed}" for speed in SPEEDS),
    *(f"btcusdt@depth{levels}{speed}" for levels in (5, 10, 20) for speed in SPEEDS),
    *(f"btcusdt@kline_{interval}" for interval in INTERVALS),
    *(f"btcusdt_perpetual@continuousKline_{interval}" for interval in ("1s", *INTERVALS)),
    *(
        f"btcusdt@{tail}"
        for tail in ("trade", "aggTrade", "bookTicker", "ticker", "miniTicker", "forceOrder")
    ),
    *(f"btcusdt@markPrice{speed}" for speed in ("", "@1s", "@3s")),
    *(f"!{tail}@arr" for tail in ("ticker", "miniTicker", "forceOrder")),
    *(f"!markPrice@arr{speed}" for speed in ("", "@1s", "@3s")),
    "!bookTicker",
    "!contractInfo",
    "btcusdt@rpiDepth@500ms",
)
NO_NAMES = (
    "",
    "@",
    "btcusdt",
    "btcusdt@",
    "btcusdt@depth7",
    "btcusdt@depth@1s",
    "btcusdt@kline_1s",
    "btcusdt@kline_7m",
    "BTCUSDT@trade",
    "Btcusdt@trade",
    "dogeusdt@trade",
    "btcusdt@continuousKline_1m",
    "btcusdt_perpetual@kline_1m",
    "btcusdt_current_quarter@continuousKline_1m",
    "btcusdt@trade@arr",
    "!trade@arr",
)


class Reader:
    """What a channel needs to know of an intake."""

    def __init__(self, venue: Venue) -> None:
        self.state = venue.state
        self.markets_past = Past(lambda: venue.state)
        self.now_ms = 0


@pytest.mark.parametrize("name", NAMES)
def test_every_stream_has_a_channel(venue: Venue, name: str) -> None:
    """Under its own name, and a flush finds nothing wrong with a market in which nothing has happened."""
    channel = MarketStreams(Reader(venue)).channel(name)  # type: ignore[arg-type]
    assert channel is not None
    assert name == channel.name
    channel.flush()
    channel.close()


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_stream_has_none(venue: Venue, name: str) -> None:
    """Wrong case, wrong interval, wrong speed, unknown market: nothing is found."""
    assert None is MarketStreams(Reader(venue)).channel(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "is_combined", "names"),
    [
        ("/ws", False, ()),
        ("/ws/", False, ()),
        ("/stream", True, ()),
        ("/ws/a@b/c@d", False, ("a@b", "c@d")),
        ("/market/ws/12", False, ()),
        ("/market/ws/%21bookTicker/3", False, ("!bookTicker",)),
        ("/public/stream?streams=a@b/%21c", True, ("a@b", "!c")),
        ("/private/ws?listenKey=K", False, ("K",)),
        ("/private/stream?listenKey=K&events=A/B", True, ("K?events=A/B",)),
    ],
)
def test_addresses_name_streams(address: str, is_combined: bool, names: tuple[str, ...]) -> None:
    """In the path, as streams, as listen key; a client's counter is no name."""
    assert (is_combined, names) == opening(address)


def test_weights_follow_the_limit() -> None:
    """As Binance's tables have them, the default's when none is sent."""
    assert [2, 2, 2, 2, 5, 10, 20, 10, 2] == [
        depth_weight({} if limit is None else {"limit": limit})
        for limit in (5, 10, 20, 50, 100, 500, 1000, None, 7)
    ]
    assert [1, 1, 2, 2, 5, 5, 10, 10, 5] == [
        candles_weight({} if limit is None else {"limit": limit})
        for limit in (1, 99, 100, 499, 500, 1000, 1001, 1500, None)
    ]
