"""Market data by every client, unchanged: the calls, and the streams while somebody trades."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.local import (
    BTC,
    REASON,
    Local,
    asynchronous,
    call,
    connector_socket,
    local,
    professional,
    socket_manager,
    soon,
)

ETH = "ETH/USDT:USDT"


async def trade(there: Local) -> None:
    """Trade a little, again and again, until cancelled."""
    while True:
        await there.offer("SELL", "50010.0", "0.010")
        await there.account.order(quantity="0.004", price="50010.0", timeInForce="IOC")
        await there.offer("BUY", "49990.0", "0.010")
        await there.account.order(side="SELL", quantity="0.004", price="49990.0", timeInForce="IOC")
        await asyncio.sleep(0.05)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Local]:
    """Run an exchange on which two accounts trade."""
    async with local(tmp_path) as made:
        trading = asyncio.create_task(trade(made))
        try:
            yield made
        finally:
            trading.cancel()
            await asyncio.gather(trading, return_exceptions=True)


async def test_ccxt(there: Local) -> None:
    """ccxt.pro: loaded markets, candles, prices, funding; books whose diffs fit, trades, candles, tickers."""
    ex = professional(there)
    try:
        assert {BTC, ETH} == set(await ex.load_markets())
        for _ in range(8):
            book = await soon(ex.watch_order_book(BTC))
            assert book["nonce"] > 0
        trades, candles, marks, ticker, best = await soon(
            asyncio.gather(
                ex.watch_trades(BTC),
                ex.watch_ohlcv(BTC, "1m"),
                ex.watch_mark_prices([BTC], {"use1sFreq": True}),
                ex.watch_ticker(BTC),
                ex.watch_bids_asks([BTC]),
            )
        )
        assert trades[-1]["price"] in (50010.0, 49990.0)
        assert 6 == len(candles[-1])
        assert ticker["last"] in (50010.0, 49990.0)
        assert {BTC} == set(marks) == set(best)
        tickers, several, *_ = await soon(
            asyncio.gather(
                ex.watch_tickers([BTC, ETH]),
                ex.watch_trades_for_symbols([BTC, ETH]),
                ex.watch_ohlcv_for_symbols([[BTC, "1m"], [BTC, "5m"]]),
                ex.watch_order_book_for_symbols([BTC, ETH]),
                ex.watch_mark_price(ETH),
            )
        )
        assert tickers
        assert BTC == several[-1]["symbol"]
        await soon(ex.un_watch_trades_for_symbols([BTC, ETH]))
        assert {0.004} == {each["amount"] for each in await ex.fetch_trades(BTC)}
        for price in (None, "mark", "index", "premiumIndex"):
            (candle, *_) = await ex.fetch_ohlcv(BTC, "1m", params={"price": price} if price else {})
            assert 6 == len(candle)
        assert 2 == len(await ex.fetch_tickers())
        assert 2 == len(await ex.fetch_last_prices())
        assert 0.0001 == (await ex.fetch_funding_rate(BTC))["fundingRate"]
        assert "8h" == (await ex.fetch_funding_interval(BTC))["interval"]
        assert [] == await ex.fetch_funding_rate_history(BTC)
        assert (await ex.fetch_open_interest(BTC))["openInterestAmount"] >= 0
        assert 50000.0 == (await ex.fetch_mark_price(BTC))["markPrice"]
    finally:
        await ex.close()


async def test_python_binance(there: Local) -> None:
    """AsyncClient and its socket manager: calls, single and combined streams, a multiplexed socket."""
    client = asynchronous(there)
    sockets = socket_manager(client, there)
    try:

        async def hear(made: Any, kind: str | None) -> None:
            async with made as stream:
                message = await soon(stream.recv())
                message = message.get("data", message)
                assert message["e"] == kind if kind else message["e"] in ("bookTicker", "markPriceUpdate")

        sources = (
            (sockets.futures_depth_socket("BTCUSDT"), "depthUpdate"),
            (sockets.aggtrade_futures_socket("BTCUSDT"), "aggTrade"),
            (sockets.kline_futures_socket("BTCUSDT"), "continuous_kline"),
            (sockets.symbol_ticker_futures_socket("BTCUSDT"), "bookTicker"),
            (sockets.individual_symbol_ticker_futures_socket("BTCUSDT"), "24hrTicker"),
            (sockets.all_ticker_futures_socket(), "bookTicker"),
            (sockets.futures_multiplex_socket(["btcusdt@bookTicker", "btcusdt@markPrice@1s"]), None),
        )
        await asyncio.gather(*(hear(made, kind) for made, kind in sources))
        assert 2 == len((await client.futures_exchange_info())["symbols"])
        candles = await client.futures_historical_klines("BTCUSDT", "1m", "1 hour ago UTC")
        assert 12 == len(candles[-1])
        assert 2 == len(await client.futures_orderbook_ticker())
        assert "50000.0" == (await client.futures_mark_price(symbol="BTCUSDT"))["markPrice"]
        assert await client.futures_aggregate_trades(symbol="BTCUSDT")
        assert [] == await client.futures_funding_rate(symbol="BTCUSDT")
        assert 12 == len((await client.futures_mark_price_klines(symbol="BTCUSDT", interval="1m"))[-1])
        assert "openInterest" in await client.futures_open_interest(symbol="BTCUSDT")
        assert 2 == len(await client.futures_ticker())
        period = {"symbol": "BTCUSDT", "period": "5m"}
        assert isinstance(await client.futures_open_interest_hist(**period), list)
        assert await client.futures_taker_longshort_ratio(**period)
    finally:
        await client.close_connection()


async def test_connector(there: Local) -> None:
    """The older client: its calls, and its socket in a thread, to which streams are added one by one."""
    futures = pytest.importorskip("binance.um_futures", reason=REASON)
    client = futures.UMFutures(key=there.account.api_key, base_url=there.venue.url)
    socket, got = await connector_socket(there)
    try:
        await call(socket.agg_trade, symbol="BTCUSDT", id=1)
        await call(socket.diff_book_depth, symbol="BTCUSDT", speed=100, id=2)
        await call(socket.partial_book_depth, symbol="BTCUSDT", level=5, speed=100, id=3)
        await call(socket.kline, symbol="BTCUSDT", interval="1m", id=4)
        await call(socket.mark_price, symbol="BTCUSDT", speed=1, id=5)
        await call(socket.continuous_kline, pair="BTCUSDT", contractType="perpetual", interval="1m", id=6)
        await call(socket.mini_ticker, symbol="BTCUSDT", id=7)
        await call(socket.ticker, symbol="BTCUSDT", id=8)
        await call(socket.book_ticker, symbol="BTCUSDT", id=9)
        wanted = {"aggTrade", "depthUpdate", "kline", "markPriceUpdate"}
        wanted |= {"continuous_kline", "24hrMiniTicker", "24hrTicker", "bookTicker"}
        answered: set[int] = set()
        while wanted or len(answered) < 9:
            message = await soon(got.get())
            if "result" in message:
                answered.add(message["id"])
            else:
                wanted.discard(message["e"])
    finally:
        await call(socket.stop)
    assert {} == await call(client.ping)
    assert 2 == len((await call(client.exchange_info))["symbols"])
    assert 12 == len((await call(client.klines, "BTCUSDT", "1m"))[-1])
    assert 12 == len((await call(client.continuous_klines, "BTCUSDT", "PERPETUAL", "1m"))[-1])
    assert (await call(client.depth, "BTCUSDT", limit=5))["lastUpdateId"] > 0
    assert await call(client.historical_trades, "BTCUSDT", limit=5)
    assert 2 == len(await call(client.ticker_24hr_price_change))
    assert 2 == len(await call(client.ticker_price))
    assert 2 == len(await call(client.mark_price))
    assert "openInterest" in await call(client.open_interest, "BTCUSDT")
    assert 12 == len((await call(client.mark_price_klines, "BTCUSDT", "1m"))[-1])
    assert 12 == len((await call(client.index_price_klines, "BTCUSDT", "1m"))[-1])
    assert [] == await call(client.funding_rate, "BTCUSDT")
    assert await call(client.agg_trades, "BTCUSDT")
    assert 2 == len(await call(client.book_ticker))


async def follow(connection: Any, method: str, named: dict[str, object]) -> None:
    """Subscribe to a stream of the official SDK until it has told something."""
    got: asyncio.Queue[Any] = asyncio.Queue()
    stream = await getattr(connection, method)(**named)
    stream.on("message", got.put_nowait)
    assert await soon(got.get()), method
    await stream.unsubscribe()


# In two parts: a connection that sends more than ten messages in a second is closed.
SDK_STREAMS: tuple[tuple[tuple[str, dict[str, object]], ...], ...] = (
    (
        ("diff_book_depth_streams", {"symbol": "btcusdt", "update_speed": "100ms"}),
        ("partial_book_depth_streams", {"symbol": "btcusdt", "levels": 5}),
        ("aggregate_trade_streams", {"symbol": "btcusdt"}),
        ("kline_candlestick_streams", {"symbol": "btcusdt", "interval": "1m"}),
        (
            "continuous_contract_kline_candlestick_streams",
            {"pair": "btcusdt", "contract_type": "perpetual", "interval": "1m"},
        ),
        ("mark_price_stream", {"symbol": "btcusdt", "update_speed": "1s"}),
        ("individual_symbol_ticker_streams", {"symbol": "btcusdt"}),
    ),
    (
        ("individual_symbol_book_ticker_streams", {"symbol": "btcusdt"}),
        ("individual_symbol_mini_ticker_stream", {"symbol": "btcusdt"}),
        ("all_market_mini_tickers_stream", {}),
        ("all_market_tickers_streams", {}),
        ("mark_price_stream_for_all_market", {"update_speed": "1s"}),
        ("rpi_diff_book_depth_streams", {"symbol": "btcusdt"}),
    ),
)


async def test_official_sdk(there: Local, caplog: pytest.LogCaptureFixture) -> None:
    """Its strict models accept every answer and every message; streams on its public and market sockets."""
    sdk = pytest.importorskip(
        "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures", reason=REASON
    )
    from tests.compatibility.test_official_sdk import Sdk

    api = Sdk(there, caplog)
    minute = "1m"
    for method, arguments in (
        ("exchange_information", ()),
        ("order_book", ("BTCUSDT",)),
        ("recent_trades_list", ("BTCUSDT",)),
        ("old_trades_lookup", ("BTCUSDT",)),
        ("compressed_aggregate_trades_list", ("BTCUSDT",)),
        ("kline_candlestick_data", ("BTCUSDT", minute)),
        ("continuous_contract_kline_candlestick_data", ("BTCUSDT", "PERPETUAL", minute)),
        ("mark_price_kline_candlestick_data", ("BTCUSDT", minute)),
        ("index_price_kline_candlestick_data", ("BTCUSDT", minute)),
        ("premium_index_kline_data", ("BTCUSDT", minute)),
        ("mark_price", ()),
        ("mark_price", ("BTCUSDT",)),
        ("get_funding_rate_history", ()),
        ("get_funding_rate_info", ()),
        ("ticker24hr_price_change_statistics", ()),
        ("ticker24hr_price_change_statistics", ("BTCUSDT",)),
        ("symbol_price_ticker", ()),
        ("symbol_price_ticker_v2", ("BTCUSDT",)),
        ("symbol_order_book_ticker", ()),
        ("open_interest", ("BTCUSDT",)),
        ("query_index_price_constituents", ("BTCUSDT",)),
        ("query_insurance_fund_balance_snapshot", ("BTCUSDT",)),
        ("adl_risk", ("BTCUSDT",)),
        ("asset_index", ()),
        ("rpi_order_book", ("BTCUSDT",)),
        ("open_interest_statistics", ("BTCUSDT", "5m")),
        ("taker_buy_sell_volume", ("BTCUSDT", "5m")),
        ("basis", ("BTCUSDT", "PERPETUAL", "5m")),
    ):
        await api.do(method, *arguments)
    configuration = sdk.ConfigurationWebSocketStreams(stream_url=f"ws://{there.host}")
    streams = sdk.DerivativesTradingUsdsFutures(config_ws_streams=configuration).websocket_streams
    with caplog.at_level(logging.WARNING):
        for wanted in SDK_STREAMS:
            connection = await streams.create_connection()
            try:
                await asyncio.gather(*(follow(connection, method, named) for method, named in wanted))
            finally:
                await connection.close_connection(close_session=True)
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
