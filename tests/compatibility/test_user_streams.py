"""What an account's own stream tells every client, unchanged: orders, trades, positions, balances."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.compatibility.local import (
    BTC,
    REASON,
    SDK,
    Local,
    asynchronous,
    call,
    connector_socket,
    professional,
    socket_manager,
    soon,
)

KINDS = {"ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE", "TRADE_LITE", "ALGO_UPDATE", "ACCOUNT_CONFIG_UPDATE"}
STOP = {
    "algoType": "CONDITIONAL",
    "symbol": "BTCUSDT",
    "side": "SELL",
    "type": "STOP_MARKET",
    "triggerPrice": "48000",
    "closePosition": "true",
}


async def act(there: Local) -> None:
    """Let the account set its leverage, buy 0.1 BTC at 50,000, leave a bid at 49,000 and a stop."""
    await there.offer("SELL", "50000", "0.1")
    for method, path, named in (
        ("POST", "/fapi/v1/leverage", {"symbol": "BTCUSDT", "leverage": 10}),
        ("POST", "/fapi/v1/algoOrder", STOP),
    ):
        status, body = await there.account.call(method, path, parameters=named)
        assert 200 == status, body
    for price in ("50000", "49000"):
        status, body = await there.account.order(price=price, quantity="0.1")
        assert 200 == status, body


async def told(read: Callable[[], Awaitable[dict[str, Any]]]) -> None:
    """Read until every kind of message has come, and the bid rests; check what they say."""
    found: dict[str, dict[str, Any]] = {}
    while KINDS - set(found) or found["ORDER_TRADE_UPDATE"]["o"]["p"] != "49000.0":
        message = await soon(read())
        if "e" in message:
            found[message["e"]] = message
    assert ("BTCUSDT", 10) == tuple(found["ACCOUNT_CONFIG_UPDATE"]["ac"][name] for name in ("s", "l"))
    assert ("STOP_MARKET", "NEW", "48000.0") == tuple(
        found["ALGO_UPDATE"]["o"][name] for name in ("o", "X", "tp")
    )
    change = found["ACCOUNT_UPDATE"]["a"]
    assert ("ORDER", "9997.50000000") == (change["m"], change["B"][0]["wb"])
    assert [("BTCUSDT", "0.100")] == [(row["s"], row["pa"]) for row in change["P"]]
    assert ("50000.0", "0.100") == tuple(found["TRADE_LITE"][name] for name in ("L", "l"))


async def test_ccxt(there: Local) -> None:
    """ccxt.pro: orders, trades, positions and balance are watched, and are what the calls answer."""
    ex = professional(there)
    seen: dict[str, list[Any]] = {"orders": [], "my_trades": [], "positions": [], "balance": []}
    changed = asyncio.Event()

    async def watch(what: str, *arguments: Any) -> None:
        while True:
            update = await getattr(ex, f"watch_{what}")(*arguments)
            seen[what] += update if isinstance(update, list) else [update]
            changed.set()

    def complete() -> bool:
        limits = [order for order in seen["orders"] if order["type"] == "limit"]
        held = [row for row in seen["positions"] if row["contracts"]]
        return {"open", "closed"} <= {order["status"] for order in limits} and bool(
            held and seen["my_trades"] and seen["balance"]
        )

    await ex.load_markets()
    watching = [
        asyncio.create_task(watch("orders", BTC)),
        asyncio.create_task(watch("my_trades", BTC)),
        asyncio.create_task(watch("positions", [BTC])),
        asyncio.create_task(watch("balance")),
    ]
    try:
        # ccxt has no event for it.
        while not any(client.connected.done() for client in ex.clients.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await act(there)
        while not complete():
            changed.clear()
            await soon(changed.wait())
        assert ("buy", 50_000, 0.1, "taker") == tuple(
            seen["my_trades"][-1][name] for name in ("side", "price", "amount", "takerOrMaker")
        )
        (asked,) = await ex.fetch_positions([BTC])
        for name in ("side", "contracts", "entryPrice", "marginMode"):
            assert asked[name] == seen["positions"][-1][name], name
        assert pytest.approx(10_000 - 2.5) == seen["balance"][-1]["USDT"]["total"]
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await ex.close()


async def test_python_binance(there: Local) -> None:
    """Its account socket makes a listen key and follows it."""
    client = asynchronous(there)
    try:
        async with socket_manager(client, there).futures_user_socket() as stream:
            # How often its reader looks whether it is to end.
            stream.TIMEOUT = 0.2
            await act(there)
            await told(stream.recv)
    finally:
        await client.close_connection()


async def test_connector(there: Local) -> None:
    """A listen key is subscribed to by its name."""
    futures = pytest.importorskip("binance.um_futures", reason=REASON)
    client = futures.UMFutures(key=there.account.api_key, base_url=there.venue.url)
    key = (await call(client.new_listen_key))["listenKey"]
    socket, got = await connector_socket(there)
    try:
        await call(socket.user_data, key, id=1)
        assert {"id": 1, "result": None} == await soon(got.get())
        await act(there)
        await told(got.get)
    finally:
        await call(socket.stop)


async def test_official_sdk(there: Local, caplog: pytest.LogCaptureFixture) -> None:
    """Its strict models of each user event accept what comes on its private socket."""
    sdk = pytest.importorskip(SDK, reason=REASON)
    from tests.compatibility.test_official_sdk import Sdk

    key = (await Sdk(there, caplog).do("start_user_data_stream")).listen_key
    configuration = sdk.ConfigurationWebSocketStreams(stream_url=f"ws://{there.host}")
    connection = await sdk.DerivativesTradingUsdsFutures(
        config_ws_streams=configuration
    ).websocket_streams.create_connection()
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def read() -> dict[str, Any]:
        event = (await got.get()).actual_instance
        kind = re.sub("(?<!^)(?=[A-Z])", "_", type(event).__name__).upper()
        message: dict[str, Any] = event.model_dump(by_alias=True)
        return message | {"e": kind}

    try:
        with caplog.at_level(logging.WARNING):
            stream = await connection.user_data(key)
            stream.on("message", got.put_nowait)
            await act(there)
            await told(read)
        assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    finally:
        await connection.close_connection(close_session=True)
