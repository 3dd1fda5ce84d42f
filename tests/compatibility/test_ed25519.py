"""Clients that sign with an Ed25519 key, unchanged, of which the exchange has the public part alone.

python-binance, ccxt, ccxt.pro and the official SDK can; binance-futures-connector has HMAC and RSA.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.compatibility.local import BTC, REASON, SDK, Local, call, local, localised, soon

BID = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "49000"}


@dataclass
class Signer:
    """An exchange, and a key of the account under test: its name, and its private part as PEM."""

    there: Local
    api_key: str
    pem: str


@pytest.fixture
async def signer(tmp_path: Path) -> AsyncIterator[Signer]:
    """Run an exchange, and give the account a key as README says."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    async with local(tmp_path) as there:
        body = {
            "account_id": there.account.account_id,
            "permissions": ["read", "trade"],
            "public_key": public,
        }
        status, made = await there.venue.admin("key", body)
        assert 200 == status, made
        yield Signer(there, made["api_key"], pem)


def settings(signer: Signer) -> dict[str, Any]:
    """Return what ccxt is made with: the PEM stands where the secret does."""
    options = {"fetchCurrencies": False, "fetchMarkets": {"types": ["linear"]}}
    return {"apiKey": signer.api_key, "secret": signer.pem, "enableRateLimit": False, "options": options}


async def test_ccxt(signer: Signer) -> None:
    """In the query string and in the body: placed, asked for, cancelled, several at once; the balance."""
    ccxt = pytest.importorskip("ccxt", reason=REASON)
    ex = localised(ccxt.binanceusdm(settings(signer)), signer.there.venue.url)
    order = await call(ex.create_order, BTC, "limit", "buy", 0.01, 49_000, {"clientOrderId": "a/b:c"})
    assert "open" == (await call(ex.fetch_order, order["id"], BTC))["status"]
    assert "canceled" == (await call(ex.cancel_order, order["id"], BTC))["status"]
    two = [{"symbol": BTC, "type": "limit", "side": "buy", "amount": 0.01, "price": 48_000}] * 2
    orders = await call(ex.create_orders, two)
    gone = await call(ex.cancel_orders, [order["id"] for order in orders], BTC)
    assert ["canceled", "canceled"] == [order["status"] for order in gone]
    assert 10_000 == (await call(ex.fetch_balance))["USDT"]["total"]


async def test_ccxt_pro(signer: Signer) -> None:
    """Its requests over a socket, and the account's stream."""
    pro = pytest.importorskip("ccxt.pro", reason=REASON)
    ex = localised(pro.binanceusdm(settings(signer)), signer.there.venue.url)
    try:
        await ex.load_markets()
        watching = asyncio.create_task(ex.watch_orders(BTC))
        while not any("listenKey" in url and each.isConnected for url, each in ex.clients.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        order = await soon(ex.create_order_ws(BTC, "limit", "buy", 0.01, 49_000))
        assert order["id"] == (await soon(watching))[-1]["id"]
        assert "open" == (await soon(ex.fetch_order_ws(order["id"], BTC)))["status"]
        assert "canceled" == (await soon(ex.cancel_order_ws(order["id"], BTC)))["status"]
    finally:
        await ex.close()


async def test_python_binance(signer: Signer) -> None:
    """Calls and requests over a socket: placed, asked for, cancelled."""
    clients = pytest.importorskip("binance.client", reason=REASON)
    asynchronous = pytest.importorskip("binance.async_client", reason=REASON)
    sockets = pytest.importorskip("binance.ws.websocket_api", reason=REASON)
    there, symbol = signer.there, {"symbol": "BTCUSDT"}
    client = clients.Client(signer.api_key, private_key=signer.pem, ping=False)
    client.FUTURES_URL = f"{there.venue.url}/fapi"
    order = await call(client.futures_create_order, **symbol, **BID, newClientOrderId="a/b:c")
    one = symbol | {"orderId": order["orderId"]}
    assert "NEW" == (await call(client.futures_get_order, **one))["status"]
    assert "CANCELED" == (await call(client.futures_cancel_order, **one))["status"]
    assert "10000.00000000" == (await call(client.futures_account))["totalWalletBalance"]

    over_socket = asynchronous.AsyncClient(signer.api_key, private_key=signer.pem)
    over_socket.ws_future = sockets.WebsocketAPI(url=f"ws://{there.host}/ws-fapi/v1")
    try:
        order = await soon(over_socket.ws_futures_create_order(**symbol, **BID))
        one = symbol | {"orderId": order["orderId"]}
        assert "NEW" == (await soon(over_socket.ws_futures_get_order(**one)))["status"]
        assert "CANCELED" == (await soon(over_socket.ws_futures_cancel_order(**one)))["status"]
    finally:
        await over_socket.close_connection()


async def test_official_sdk(signer: Signer, tmp_path: Path) -> None:
    """Calls with the key read from a file; over a socket signed one by one, and behind `session.logon`."""
    sdk = pytest.importorskip(SDK, reason=REASON)
    enums = pytest.importorskip(f"{SDK.split('.')[0]}.rest_api.models.enums")
    socket_enums = pytest.importorskip(f"{SDK.split('.')[0]}.websocket_api.models.enums")
    signature = pytest.importorskip("binance_common.signature")
    path = tmp_path / "key.pem"
    path.write_text(signer.pem)
    keys = {"api_key": signer.api_key, "private_key": str(path)}
    configuration = sdk.ConfigurationRestAPI(**keys, base_path=signer.there.venue.url, timeout=10_000)
    api = sdk.DerivativesTradingUsdsFutures(config_rest_api=configuration).rest_api
    side, kind, gtc = enums.NewOrderSideEnum.BUY, enums.NewOrderTypeEnum.LIMIT, "GTC"
    bid: dict[str, Any] = {"quantity": 0.01, "price": 49_000, "time_in_force": gtc}
    order = (await call(api.new_order, "BTCUSDT", side, kind, **bid)).data()
    assert "NEW" == (await call(api.query_order, "BTCUSDT", order_id=order.order_id)).data().status
    assert "CANCELED" == (await call(api.cancel_order, "BTCUSDT", order_id=order.order_id)).data().status

    configuration = sdk.ConfigurationWebSocketAPI(**keys, stream_url=f"ws://{signer.there.host}/ws-fapi/v1")
    sockets = sdk.DerivativesTradingUsdsFutures(config_ws_api=configuration).websocket_api
    connection = await sockets.create_connection()
    try:
        side, kind = socket_enums.NewOrderSideEnum["BUY"], socket_enums.NewOrderTypeEnum["LIMIT"]
        placed = (await soon(connection.new_order("BTCUSDT", side, kind, **bid))).data().result
        one = {"order_id": placed.order_id}
        assert "NEW" == (await soon(connection.query_order("BTCUSDT", **one))).data().result.status
        assert "CANCELED" == (await soon(connection.cancel_order("BTCUSDT", **one))).data().result.status
        logon = {"method": "session.logon", "params": {}}
        sign = signature.Signers.get_signer(str(path), None)
        answer = await soon(connection.send_signed_message(logon, sign, api_key=True, session_logon=True))
        assert (200, signer.api_key) == (answer.data()["status"], answer.data()["result"]["apiKey"])
        # From here on it signs nothing.
        placed = (await soon(connection.new_order("BTCUSDT", side, kind, **bid))).data().result
        one = {"order_id": placed.order_id}
        assert "CANCELED" == (await soon(connection.cancel_order("BTCUSDT", **one))).data().result.status
    finally:
        await connection.close_connection(close_session=True)
