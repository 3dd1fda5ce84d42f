"""The streams over real sockets: what each sends, what a connection may ask, and what ends it."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
import structlog
from structlog.testing import LogCapture

from events.commands import Liquidate, SetLeverage, SetMarketStatus
from events.frame import Groups
from events.values import MarketStatus, Side
from exchange.intake import gate
from exchange.intake.streams.channel import Channel
from exchange.intake.streams.connection import StreamLimits
from tests.streaming import Stage, streaming
from tests.waiting import until

MAKER, TAKER = 2, 3


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A running intake with BTCUSDT at 50,000."""
    async with streaming() as made:
        yield made


async def test_paths_say_how_payloads_come(stage: Stage) -> None:
    """Bare at /ws, with the stream's name at /stream, on every route; a number in the path names nothing."""
    name = "btcusdt@bookTicker"
    for path in (f"/ws/{name}", f"/market/ws/{name}/7", f"/ws/?streams={name}"):
        client = await stage.connect(path)
        assert "bookTicker" == (await client.next())["e"]
        assert [name] == (await client.ask("LIST_SUBSCRIPTIONS"))["result"]
    for path in ("/stream", "/public/stream", "/market/stream", "/private/stream"):
        client = await stage.connect(f"{path}?streams=btcusdt@bookTicker/ethusdt%40bookTicker")
        names = {(await client.next())["stream"] for _ in range(2)}
        assert {"btcusdt@bookTicker", "ethusdt@bookTicker"} == names


async def test_subscriptions_are_asked_for(stage: Stage) -> None:
    """SUBSCRIBE, LIST_SUBSCRIPTIONS and UNSUBSCRIBE are answered; what is left out comes no longer."""
    client = await stage.connect("/ws")
    assert {"result": None, "id": 7} == await client.ask("SUBSCRIBE", "btcusdt@trade", "btcusdt@bookTicker")
    assert ["btcusdt@trade", "btcusdt@bookTicker"] == (await client.ask("LIST_SUBSCRIPTIONS"))["result"]
    assert {"result": None, "id": 7} == await client.ask("UNSUBSCRIBE", "btcusdt@trade")
    await stage.order(MAKER, Side.BUY, 10, 499_000)
    await stage.order(TAKER, Side.SELL, 4, 499_000)
    ticker = await client.event("bookTicker")
    while ticker["B"] != "0.006":
        ticker = await client.next()
        assert "bookTicker" == ticker["e"]
    assert (await client.ask("GET_PROPERTY", "combined"))["result"] is False
    await client.ask("SET_PROPERTY", "combined", True)
    await stage.order(MAKER, Side.BUY, 10, 499_001)
    assert "btcusdt@bookTicker" == (await client.event("bookTicker"))["stream"]


async def test_what_nobody_reads_is_not_made(stage: Stage) -> None:
    """The last reader's leaving closes a channel, whether it asks, hangs up or breaks off."""
    hub = stage.front.hub
    one, other = await stage.connect("/ws"), await stage.connect("/ws/btcusdt@depth")
    await one.ask("SUBSCRIBE", "btcusdt@depth", "btcusdt@kline_1m")
    assert {"btcusdt@depth", "btcusdt@kline_1m"} == set(hub.open_names)
    await one.ask("UNSUBSCRIBE", "btcusdt@depth", "btcusdt@kline_1m")
    assert {"btcusdt@depth"} == set(hub.open_names)
    await other.socket.close()
    await until(lambda: not hub.open_names, "end of the streams")
    broken = await stage.connect("/ws/btcusdt@depth")
    await broken.ask("LIST_SUBSCRIPTIONS")
    broken.socket._response.connection.transport.abort()  # type: ignore[union-attr]
    await until(lambda: not hub.open_names, "end of the streams")


async def test_an_unknown_stream_delivers_when_it_exists(stage: Stage) -> None:
    """A name that means nothing is taken, as at Binance; a market that is listed later begins to deliver."""
    client = await stage.connect("/ws")
    assert {"result": None, "id": 7} == await client.ask(
        "SUBSCRIBE", "solusdt@bookTicker", "nonsense", "BTCUSDT@trade", "btcusdt@kline_7m"
    )
    await stage.list_market("SOLUSDT")
    assert "SOLUSDT" == (await client.event("bookTicker"))["s"]
    await client.ask("UNSUBSCRIBE", "nonsense")
    assert 3 == len((await client.ask("LIST_SUBSCRIPTIONS"))["result"])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 3),
        ('{"method": "SUBSCRIBE", "params": ["\\ud800"], "id": 1}', 3),
        ('{"method": "SUBSCRIBE", "params": [NaN], "id": 1}', 3),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1e400}', 3),
        ("[" * 10_000, 3),
        ("[]", 2),
        ("{}", 2),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"]}', 2),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": -1}', 2),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1.5}', 2),
        ('{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": true}', 2),
        ('{"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 1}', 2),
        ('{"method": "SUBSCRIBE", "params": [1], "id": 1}', 2),
        ('{"method": "SUBSCRIBE", "params": [""], "id": 1}', 2),
        ('{"method": "SUBSCRIBE", "params": [], "id": 1}', 2),
        ('{"method": "SUBSCRIBE", "id": 1}', 2),
        ('{"method": "DELETE", "id": 1}', 2),
        ('{"method": ["SUBSCRIBE"], "id": 1}', 2),
        ('{"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}', 1),
        ('{"method": "SET_PROPERTY", "params": ["colour", true], "id": 1}', 0),
        ('{"method": "GET_PROPERTY", "params": [1], "id": 1}', 2),
        (json.dumps({"method": "SUBSCRIBE", "params": ["x" * 201], "id": 1}), 2),
        (json.dumps({"method": "SUBSCRIBE", "params": [f"s{n}" for n in range(1025)], "id": 1}), 2),
    ],
)
async def test_a_bad_request_is_refused_and_changes_nothing(stage: Stage, text: str, code: int) -> None:
    """The answer has an error with code and text; the connection lives on, without any subscription."""
    client = await stage.connect("/ws")
    answer = await client.say(text)
    assert code == answer["error"]["code"]
    assert answer["error"]["msg"]
    assert [] == (await client.ask("LIST_SUBSCRIPTIONS"))["result"]


async def test_a_huge_message_ends_the_connection(stage: Stage) -> None:
    """1009, message too big; so do more messages than ten a second (1008), and no upgrade is plain HTTP's."""
    client = await stage.connect("/ws")
    await client.socket.send_str("x" * 70_000)
    assert 1009 == await client.closed()
    client = await stage.connect("/ws")
    for _ in range(11):
        await client.socket.send_str('{"method": "LIST_SUBSCRIPTIONS", "id": 1}')
    assert 1008 == await client.closed()
    async with stage.session.get(f"{stage.url}/ws/btcusdt@trade") as response:
        assert (400, -1130) == (response.status, (await response.json())["code"])
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await stage.connect("/nowhere")


async def test_a_listen_key_in_a_path_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is refused is logged by the beginning of its path alone."""
    lines = LogCapture()
    monkeypatch.setattr(
        gate, "logger", structlog.wrap_logger(None, processors=[lines], wrapper_class=structlog.BoundLogger)
    )
    async with (
        streaming() as stage,
        stage.session.get(f"{stage.url}/ws/a-listen-key") as response,
    ):
        assert 400 == response.status
        assert "a-listen-key" not in await response.text()
    assert [("request_refused", "/ws")] == [(line["event"], line["path"]) for line in lines.entries]
    assert "a-listen-key" not in str(lines.entries)


async def test_there_are_only_so_many_connections() -> None:
    """One more is refused until another ends."""
    async with streaming(limits=StreamLimits(connections_max=1)) as stage:
        first = await stage.connect("/ws")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await stage.connect("/ws")
        await first.socket.close()
        await until(lambda: not stage.front.connection_count, "end of the connection")
        await stage.connect("/ws")


async def test_too_many_streams_in_the_address_end_the_connection(stage: Stage) -> None:
    """There is no request that could be refused."""
    client = await stage.connect("/stream?streams=" + "/".join(f"s{n}" for n in range(1025)))
    assert 1008 == await client.closed()


class Noise:
    """A source of one stream, which a test sends on by itself."""

    def __init__(self) -> None:
        self.made = Channel("noise", None)

    def channel(self, name: str) -> Channel | None:
        return self.made if name == self.made.name else None

    def feed(self, groups: Groups) -> None:
        """Nothing comes from the log."""

    def tidy(self) -> None:
        """Nothing is kept."""


async def test_a_slow_reader_is_cut_off_and_the_others_go_on() -> None:
    """Who does not read is disconnected when too much waits for him; the others miss nothing meanwhile."""
    async with streaming(limits=StreamLimits(waiting_bytes_max=200_000)) as stage:
        noise = Noise()
        stage.front.hub.add(noise)
        reader, slow = await stage.connect("/stream?streams=noise"), await stage.connect("/ws/noise")
        await reader.ask("LIST_SUBSCRIPTIONS")
        await slow.ask("LIST_SUBSCRIPTIONS")
        transport = slow.socket.get_extra_info("socket")
        assert transport is not None
        slow.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        assert 2 == len(noise.made.subscribers)
        sent = 0
        while len(noise.made.subscribers) == 2:
            assert sent < 2_000, "the slow reader is still there"
            noise.made.send({"n": sent, "text": "x" * 50_000})
            assert sent == (await reader.next())["data"]["n"]
            sent += 1
        noise.made.send({"n": "last"})
        assert "last" == (await reader.next())["data"]["n"]


async def test_slow_readers_are_bounded_together() -> None:
    """When too much waits for all of them, the one with most waiting is cut off; who reads stays."""
    async with streaming(limits=StreamLimits(all_waiting_bytes_max=1_000_000)) as stage:
        noise = Noise()
        stage.front.hub.add(noise)
        reader = await stage.connect("/ws/noise")
        slow = [await stage.connect("/ws/noise") for _ in range(3)]
        for client in (reader, *slow):
            await client.ask("LIST_SUBSCRIPTIONS")
        for client in slow:
            client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        sent = 0
        while len(noise.made.subscribers) > 1:
            assert sent < 5_000, "the slow readers are still there"
            noise.made.send({"n": sent, "text": "x" * 50_000})
            assert sent == (await reader.next())["n"]
            sent += 1
            waiting = [each.waiting_bytes for each in stage.front._connections]
            assert sum(waiting) <= 1_000_000


async def test_a_connection_has_an_end() -> None:
    """It is closed when it is as old as it may be; a client that does not answer pings is cut off before."""
    async with streaming(limits=StreamLimits(life_s=0.3)) as stage:
        client = await stage.connect("/ws")
        assert 1001 == await client.closed()
    async with streaming(limits=StreamLimits(ping_s=0.1, pong_s=0.4)) as stage:
        deaf = await stage.session.ws_connect(f"{stage.url}/ws", autoping=False)
        async with asyncio.timeout(20):
            assert aiohttp.WSMsgType.PING == (await deaf.receive()).type
            while (await deaf.receive()).type is aiohttp.WSMsgType.PING:
                pass
        assert deaf.closed
        client = await stage.connect("/ws")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.9):
                await client.socket.receive()
        assert not client.socket.closed


async def test_trades_and_aggregate_trades(stage: Stage) -> None:
    """One trade for each maker; one aggregate trade for each price that a taker met."""
    client = await stage.connect("/ws")
    await client.ask("SUBSCRIBE", "btcusdt@trade", "btcusdt@aggTrade")
    for price_ticks in (499_000, 499_000, 498_990):
        await stage.order(MAKER, Side.BUY, 10, price_ticks)
    await stage.order(TAKER, Side.SELL, 25, 498_990)
    trades = [await client.event("trade") for _ in range(3)]
    assert [("49900.0", "0.010"), ("49900.0", "0.010"), ("49899.0", "0.005")] == [
        (trade["p"], trade["q"]) for trade in trades
    ]
    assert all(trade["m"] and trade["s"] == "BTCUSDT" for trade in trades)
    first, second = await client.event("aggTrade"), await client.event("aggTrade")
    ids = [trade["t"] for trade in trades]
    assert ("49900.0", "0.020", ids[0], ids[1]) == (first["p"], first["q"], first["f"], first["l"])
    assert ("49899.0", "0.005", ids[2], ids[2]) == (second["p"], second["q"], second["f"], second["l"])
    rows = await stage.get("/fapi/v1/aggTrades", symbol="BTCUSDT")
    assert [{**row, "e": "aggTrade"} for row in rows] == [
        {name: each[name] for name in (*rows[0], "e")} for each in (first, second)
    ]


async def test_candles(stage: Stage) -> None:
    """The present candle whenever it changes, and a complete one when its interval is over."""
    await stage.order(MAKER, Side.BUY, 10, 499_000)
    await stage.order(TAKER, Side.SELL, 4, 499_000)
    client = await stage.connect("/ws/btcusdt@kline_1m/btcusdt_perpetual@continuousKline_1s")
    candle = (await client.event("kline"))["k"]
    assert ("1m", "49900.0", "0.004", 1, "199.60000000") == tuple(candle[name] for name in "icvnq")
    assert not candle["x"]
    await stage.order(TAKER, Side.SELL, 5, 499_000)
    changed = await client.event("kline")
    assert "0.009" == changed["k"]["v"] or changed["k"]["t"] > candle["t"]
    continuous = await client.event("continuous_kline")
    while not continuous["k"]["x"]:
        continuous = await client.event("continuous_kline")
    assert ("BTCUSDT", "PERPETUAL") == (continuous["ps"], continuous["ct"])
    assert 999 == continuous["k"]["T"] - continuous["k"]["t"]


async def test_figures_of_one_market_and_of_all(stage: Stage) -> None:
    """Tickers, mini tickers and mark prices come alone, and as lists for all markets."""
    await stage.order(MAKER, Side.BUY, 10, 499_000)
    await stage.order(TAKER, Side.SELL, 4, 499_000)
    names = (
        "btcusdt@ticker",
        "btcusdt@miniTicker",
        "btcusdt@markPrice@1s",
        "!ticker@arr",
        "!miniTicker@arr",
        "!markPrice@arr@1s",
        "btcusdt@depth5@100ms",
    )
    client = await stage.connect("/stream?streams=" + "/".join(names))
    found: dict[str, object] = {}
    while len(found) < len(names):
        message = await client.next()
        found.setdefault(message["stream"], message["data"])
    ticker, mini, mark = (found[name] for name in names[:3])
    assert ("49900.0", "0.004", 1) == (ticker["c"], ticker["v"], ticker["n"])  # type: ignore[index]
    assert ("49900.0", "0.004") == (mini["c"], mini["v"])  # type: ignore[index]
    assert ("50000.0", "50000.0") == (mark["p"], mark["i"])  # type: ignore[index]
    for name in names[3:6]:
        assert ["BTCUSDT", "ETHUSDT"] == [row["s"] for row in found[name]]  # type: ignore[attr-defined]
    assert [["49900.0", "0.006"]] == found["btcusdt@depth5@100ms"]["b"]  # type: ignore[index]


async def test_a_market_that_closes_or_is_listed_is_told(stage: Stage) -> None:
    """With its status and its brackets, whose rates are exact numbers."""
    client = await stage.connect("/ws/!contractInfo")
    await client.ask("LIST_SUBSCRIPTIONS")
    await stage.send(SetMarketStatus(market="BTCUSDT", status=MarketStatus.CANCEL_ONLY, reason="test"))
    closed = await client.event("contractInfo")
    assert ("BTCUSDT", "PENDING_TRADING") == (closed["s"], closed["cs"])
    await stage.list_market("SOLUSDT")
    listed = await client.event("contractInfo")
    assert ("SOLUSDT", "TRADING", 1, 0, 50_000, 0.004, 0, 101, 125) == (
        listed["s"],
        listed["cs"],
        *(listed["bks"][0][name] for name in ("bs", "bnf", "bnc", "mmr", "cf", "mi", "ma")),
    )


async def test_liquidations_are_told(stage: Stage) -> None:
    """What a liquidation closed comes once, on the market's stream and on that of all markets."""
    client = await stage.connect("/stream?streams=btcusdt@forceOrder/!forceOrder@arr")
    await client.ask("LIST_SUBSCRIPTIONS")
    await stage.send(SetLeverage(account_id=TAKER, market="BTCUSDT", leverage=100))
    await stage.order(MAKER, Side.BUY, 1_000, 500_000)
    await stage.order(TAKER, Side.SELL, 1_000, 500_000)
    await stage.order(MAKER, Side.SELL, 1_000, 547_000)
    await stage.index("BTCUSDT", 548_000)
    await stage.send(Liquidate(account_id=TAKER, market="", cause_seq=stage.record.state.seq))
    found = [await client.event("forceOrder") for _ in range(2)]
    assert {"btcusdt@forceOrder", "!forceOrder@arr"} == {each["stream"] for each in found}
    order = found[0]["data"]["o"]
    assert ("BTCUSDT", "BUY", "FILLED") == (order["s"], order["S"], order["X"])
    assert order["q"] == order["z"]
