"""A liquidation, and a change of the list of markets, as clients hear of them, unchanged."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from events.commands import Liquidate
from exchange.intake.specs import DEFAULT_FORMS
from tests.compatibility.local import BTC, REASON, SDK, Local, call, connector_socket, professional, soon
from tests.integration.test_statements import decided


async def liquidate(there: Local) -> None:
    """Let the account's isolated long be liquidated against a bid at 49,590."""
    mine = there.account
    await mine.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    await mine.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=100)
    await there.offer("SELL", "50000", "0.1")
    status, body = await mine.order(quantity="0.1")
    assert 200 == status, body
    await there.price("49600")
    await there.offer("BUY", "49590", "0.1")
    await there.price("49540")
    command = Liquidate(account_id=mine.account_id, market="BTCUSDT", cause_seq=1)
    await decided(there.venue, command)
    _, rows = await mine.call("GET", "/fapi/v3/positionRisk", symbol="BTCUSDT")
    assert [] == rows


async def list_solana(there: Local) -> None:
    """List one more market."""
    form = msgspec.structs.replace(DEFAULT_FORMS[1], symbol="SOLUSDT", base="SOL")
    status, body = await there.venue.admin("market", msgspec.to_builtins(form))
    assert 200 == status, body
    await there.price("100", "SOLUSDT")


async def test_ccxt(there: Local) -> None:
    """ccxt.pro hears the liquidation in the market, in any of several, and that it was its own."""
    ex = professional(there)
    try:
        await ex.load_markets()
        watching = [
            asyncio.create_task(ex.watch_liquidations(BTC)),
            asyncio.create_task(ex.watch_liquidations_for_symbols([BTC, "ETH/USDT:USDT"])),
            asyncio.create_task(ex.watch_my_liquidations(BTC)),
        ]
        # Without it the first change of a balance ends ccxt's reading of that connection, whoever sent it.
        balance = asyncio.create_task(ex.watch_balance())
        # A connection sends what it subscribes to as soon as it is there, which is before the next request.
        while sum(each.isConnected for each in ex.clients.values()) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await liquidate(there)
        one, several, mine = await soon(asyncio.gather(*watching))
        for told in (one[-1], several[-1]):
            assert (BTC, "sell", 0.1, 49_590) == tuple(
                told[name] for name in ("symbol", "side", "contracts", "price")
            )
        assert (BTC, "sell") == (mine[-1]["symbol"], mine[-1]["side"])
        assert (await soon(balance))["USDT"]["total"] < 10_000
    finally:
        await ex.close()


async def test_connector(there: Local) -> None:
    """One market's stream, that of all, and the contracts': the liquidation's order, and the new market."""
    socket, got = await connector_socket(there, is_combined=True)
    try:
        await call(socket.liquidation_order, symbol="BTCUSDT", id=1)
        await call(socket.subscribe, ["!forceOrder@arr", "!contractInfo"], id=2)
        assert {1, 2} == {(await soon(got.get()))["id"] for _ in range(2)}
        await liquidate(there)
        told = [await soon(got.get()) for _ in range(2)]
        assert {"btcusdt@forceOrder", "!forceOrder@arr"} == {message["stream"] for message in told}
        for message in told:
            assert ("BTCUSDT", "SELL", "0.100", "0.100", "FILLED") == tuple(
                message["data"]["o"][name] for name in ("s", "S", "q", "z", "X")
            )
        await list_solana(there)
        message = await soon(got.get())
        assert ("!contractInfo", "contractInfo", "SOLUSDT", "TRADING") == (
            message["stream"],
            *(message["data"][name] for name in ("e", "s", "cs")),
        )
        body = {"symbol": "SOLUSDT", "status": "HALTED", "reason": "a test"}
        status, answer = await there.venue.admin("market/status", body)
        assert 200 == status, answer
        message = await soon(got.get())
        assert ("SOLUSDT", "TRADING") != (message["data"]["s"], message["data"]["cs"])
    finally:
        await call(socket.stop)


async def test_official_sdk(there: Local, caplog: pytest.LogCaptureFixture) -> None:
    """Its strict models accept the three streams."""
    sdk = pytest.importorskip(SDK, reason=REASON)
    configuration = sdk.ConfigurationWebSocketStreams(stream_url=f"ws://{there.host}")
    api = sdk.DerivativesTradingUsdsFutures(config_ws_streams=configuration)
    connection = await api.websocket_streams.create_connection()
    got: asyncio.Queue[Any] = asyncio.Queue()
    try:
        with caplog.at_level(logging.WARNING):
            for stream in (
                await connection.liquidation_order_streams(symbol="btcusdt"),
                await connection.all_market_liquidation_order_streams(),
                await connection.contract_info_stream(),
            ):
                stream.on("message", got.put_nowait)
            await liquidate(there)
            for _ in range(2):
                assert ("BTCUSDT", "SELL") == ((told := await soon(got.get())).o.s, told.o.S)
            await list_solana(there)
            assert "SOLUSDT" == (await soon(got.get())).s
        assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    finally:
        await connection.close_connection(close_session=True)
