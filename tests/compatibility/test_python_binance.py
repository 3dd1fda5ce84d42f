"""python-binance, unchanged: form bodies, Python's own booleans, conditional types routed by itself."""

from typing import Any

import pytest

from tests.compatibility.local import Local, call

binance = pytest.importorskip(
    "binance.client", reason="python-binance is not installed (the compatibility extra)"
)
exceptions = pytest.importorskip("binance.exceptions")

BTC = {"symbol": "BTCUSDT"}
BID = BTC | {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": 0.01, "price": 49_000}


def client_of(there: Local) -> Any:
    """Return a client of the account under test."""
    client = binance.Client(there.account.api_key, there.account.secret, ping=False)
    client.FUTURES_URL = f"{there.venue.url}/fapi"
    client.FUTURES_DATA_URL = f"{there.venue.url}/futures/data"
    return client


async def test_orders(there: Local) -> None:
    """Placed, tested, modified, batched, queried and cancelled; an error has code and text."""
    client = client_of(there)
    assert 0 == (await call(client.futures_create_test_order, **BID))["orderId"]
    order = await call(client.futures_create_order, **BID, reduceOnly=False)
    one = BTC | {"orderId": order["orderId"]}
    assert "NEW" == (await call(client.futures_get_order, **one))["status"]
    assert "NEW" == (await call(client.futures_v1_get_open_order, **one))["status"]
    changed = await call(client.futures_modify_order, **one, side="BUY", quantity=0.02, price=49_100)
    assert ("49100.0", "0.020") == (changed["price"], changed["origQty"])
    (amended,) = await call(client.futures_v1_get_order_amendment, **one)
    assert "49000.0" == amended["amendment"]["price"]["before"]
    texts = {name: str(value) for name, value in BID.items()}
    batch = await call(client.futures_place_batch_order, batchOrders=[texts, texts | {"price": "1"}])
    assert ["NEW", -4013] == [row.get("status") or row["code"] for row in batch]
    assert 2 == len(await call(client.futures_get_open_orders))
    gone = await call(client.futures_cancel_orders, **BTC, orderIdList=[batch[0]["orderId"]])
    assert ["CANCELED"] == [row["status"] for row in gone]
    assert "CANCELED" == (await call(client.futures_cancel_order, **one))["status"]
    with pytest.raises(exceptions.BinanceAPIException) as caught:
        await call(client.futures_cancel_order, **one)
    assert (-2011, "Unknown order sent.") == (caught.value.code, caught.value.message)
    assert 2 == len(await call(client.futures_get_all_orders, **BTC))
    assert 200 == (await call(client.futures_cancel_all_open_orders, **BTC))["code"]


async def test_conditional_orders(there: Local) -> None:
    """A stop placed like any order waits among the conditional ones, and triggers."""
    client = client_of(there)
    await there.offer("SELL", "50000", "0.1")
    await call(client.futures_create_order, symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.1)
    stop = await call(
        client.futures_create_order,
        symbol="BTCUSDT",
        side="SELL",
        type="STOP_MARKET",
        stopPrice=49_000,
        closePosition=True,
        workingType="MARK_PRICE",
    )
    assert ("NEW", True) == (stop["algoStatus"], stop["closePosition"])
    trailing = await call(
        client.futures_create_algo_order,
        symbol="BTCUSDT",
        side="SELL",
        type="TRAILING_STOP_MARKET",
        callbackRate=1,
        activatePrice=51_000,
        quantity=0.1,
    )
    assert ("1", "51000.0") == (trailing["callbackRate"], trailing["activatePrice"])
    waiting = await call(client.futures_get_open_algo_orders, **BTC)
    assert [stop["algoId"], trailing["algoId"]] == [row["algoId"] for row in waiting]
    assert "200" == (await call(client.futures_cancel_algo_order, algoId=trailing["algoId"]))["code"]
    await there.offer("BUY", "48950", "0.1")
    await there.price("48900")
    found = await call(client.futures_get_algo_order, algoId=stop["algoId"])
    assert ("FINISHED", "48950.00000000") == (found["algoStatus"], found["actualPrice"])
    assert 2 == len(await call(client.futures_get_all_algo_orders, **BTC))
    assert 200 == (await call(client.futures_cancel_all_algo_open_orders, **BTC))["code"]
    assert all(row["positionAmt"] == "0.000" for row in await call(client.futures_position_information))


async def test_every_conditional_type(there: Local) -> None:
    """Each waits as what it is, and all go at once."""
    client = client_of(there)
    for kind, prices in (
        ("STOP", {"stopPrice": 48_000, "price": 47_900, "timeInForce": "GTC"}),
        ("STOP_MARKET", {"stopPrice": 48_000}),
        ("TAKE_PROFIT", {"stopPrice": 52_000, "price": 52_100, "timeInForce": "GTC"}),
        ("TAKE_PROFIT_MARKET", {"stopPrice": 52_000}),
        ("TRAILING_STOP_MARKET", {"callbackRate": 0.5}),
    ):
        order = BTC | {"side": "SELL", "type": kind, "quantity": 0.01} | prices
        placed = await call(client.futures_create_order, **order)
        assert (kind, "NEW") == (placed["orderType"], placed["algoStatus"])
    assert 5 == len(await call(client.futures_get_open_algo_orders, **BTC))
    assert 200 == (await call(client.futures_cancel_all_algo_open_orders, **BTC))["code"]
    assert [] == await call(client.futures_get_open_algo_orders, **BTC)


async def test_settings_and_positions(there: Local) -> None:
    """Modes, leverage, margin, what is held and what it cost."""
    client = client_of(there)
    assert 200 == (await call(client.futures_change_margin_type, **BTC, marginType="ISOLATED"))["code"]
    with pytest.raises(exceptions.BinanceAPIException) as caught:
        await call(client.futures_change_margin_type, **BTC, marginType="ISOLATED")
    assert (-4046, "No need to change margin type.") == (caught.value.code, caught.value.message)
    assert 10 == (await call(client.futures_change_leverage, **BTC, leverage=10))["leverage"]
    assert 200 == (await call(client.futures_change_position_mode, dualSidePosition=True))["code"]
    assert (await call(client.futures_get_position_mode))["dualSidePosition"] is True
    await call(client.futures_change_position_mode, dualSidePosition=False)
    with pytest.raises(exceptions.BinanceAPIException) as caught:
        await call(client.futures_change_multi_assets_mode, multiAssetsMargin=True)
    assert -4169 == caught.value.code
    assert (await call(client.futures_get_multi_assets_mode))["multiAssetsMargin"] is False
    await there.offer("SELL", "50000")
    await call(client.futures_create_order, **BTC, side="BUY", type="MARKET", quantity=0.1)
    (position,) = await call(client.futures_position_information, **BTC)
    assert ("0.100", "BOTH") == (position["positionAmt"], position["positionSide"])
    with pytest.raises(exceptions.BinanceAPIException) as caught:
        await call(client.futures_change_leverage, **BTC, leverage=5)
    assert -4161 == caught.value.code
    moved = await call(client.futures_change_position_margin, **BTC, amount=100, type=1)
    assert 100 == moved["amount"]
    assert 50 == (await call(client.futures_change_position_margin, **BTC, amount=50, type=2))["amount"]
    assert 2 == len(await call(client.futures_position_margin_history, **BTC))
    account = await call(client.futures_account)
    assert ["BTCUSDT", "ETHUSDT"] == [row["symbol"] for row in account["positions"]]
    assert ("10", True) == (account["positions"][0]["leverage"], account["positions"][0]["isolated"])
    (balance,) = await call(client.futures_account_balance)
    assert balance["balance"] == account["totalWalletBalance"]
    assert 1 == len(await call(client.futures_account_trades, **BTC))
    assert ["TRANSFER"] == [
        row["incomeType"] for row in await call(client.futures_income_history, incomeType="TRANSFER")
    ]
    assert 2 == len(await call(client.futures_leverage_bracket))
    assert "0.0002" == (await call(client.futures_commission_rate, **BTC))["makerCommissionRate"]
    assert 2 == len(await call(client.futures_symbol_config))
    assert {"feeBurn": False} == await call(client.futures_v1_get_fee_burn)
    assert [] == await call(client.futures_liquidation_orders)
    assert 2 == len(await call(client.futures_v1_get_rate_limit_order))
    key = await call(client.futures_stream_get_listen_key)
    assert key == await call(client.futures_stream_get_listen_key)
    await call(client.futures_stream_keepalive, key)
    await call(client.futures_stream_close, key)
