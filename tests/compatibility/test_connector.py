"""binance-futures-connector, unchanged: everything it sends goes in the query string."""

import time
from typing import Any

import pytest

from tests.compatibility.local import Local, call

um_futures = pytest.importorskip(
    "binance.um_futures", reason="binance-futures-connector is not installed (the compatibility extra)"
)
error = pytest.importorskip("binance.error")

BTC = {"symbol": "BTCUSDT"}
BID = BTC | {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": 0.01, "price": 49_000}


def client_of(there: Local) -> Any:
    """Return a client of the account under test."""
    return um_futures.UMFutures(
        key=there.account.api_key, secret=there.account.secret, base_url=there.venue.url
    )


async def test_orders(there: Local) -> None:
    """Placed, tested, modified, batched, queried and cancelled; an error has code and text."""
    client = client_of(there)
    assert 0 == (await call(client.new_order_test, **BID))["orderId"]
    order = await call(client.new_order, **BID)
    one = BTC | {"orderId": order["orderId"]}
    assert "NEW" == (await call(client.query_order, **one))["status"]
    assert order["orderId"] == (await call(client.get_open_orders, **one))["orderId"]
    changed = await call(client.modify_order, **one, side="BUY", quantity=0.02, price=49_100)
    assert ("49100.0", "0.020") == (changed["price"], changed["origQty"])
    for given in (
        {"timeInForce": "IOC"},
        {"timeInForce": "GTX"},
        {"timeInForce": "GTD", "goodTillDate": int(time.time() * 1000) + 700_000},
    ):
        made = await call(client.new_order, **(BID | given | {"newOrderRespType": "RESULT"}))
        assert ("EXPIRED" if given["timeInForce"] == "IOC" else "NEW") == made["status"]
        if made["status"] == "NEW":
            await call(client.cancel_order, **BTC, orderId=made["orderId"])
    texts = {name: str(value) for name, value in BID.items()}
    batch = await call(client.new_batch_order, [texts, texts | {"price": "48000"}])
    assert ["NEW", "NEW"] == [row["status"] for row in batch]
    assert 3 == len(await call(client.get_orders, **BTC))
    ids = [row["orderId"] for row in batch]
    gone = await call(client.cancel_batch_order, "BTCUSDT", orderIdList=ids, origClientOrderIdList=[])
    assert ["CANCELED", "CANCELED"] == [row["status"] for row in gone]
    assert "CANCELED" == (await call(client.cancel_order, **one))["status"]
    with pytest.raises(error.ClientError) as caught:
        await call(client.cancel_order, **one)
    assert (400, -2011, "Unknown order sent.") == (
        caught.value.status_code,
        caught.value.error_code,
        caught.value.error_message,
    )
    assert 200 == (await call(client.cancel_open_orders, **BTC))["code"]
    assert "60000" == (await call(client.countdown_cancel_order, "BTCUSDT", 60_000))["countdownTime"]
    assert 6 == len(await call(client.get_all_orders, **BTC))
    with pytest.raises(error.ClientError) as caught:
        await call(client.new_order, **(BTC | {"side": "SELL", "type": "STOP_MARKET", "stopPrice": 1}))
    assert -4120 == caught.value.error_code


async def test_settings_and_positions(there: Local) -> None:
    """Modes, leverage, margin, what is held and what it cost."""
    client = client_of(there)
    assert 200 == (await call(client.change_margin_type, symbol="BTCUSDT", marginType="ISOLATED"))["code"]
    assert 10 == (await call(client.change_leverage, symbol="BTCUSDT", leverage=10))["leverage"]
    assert (await call(client.get_position_mode))["dualSidePosition"] is False
    assert (await call(client.get_multi_asset_mode))["multiAssetsMargin"] is False
    await there.offer("SELL", "50000")
    await call(client.new_order, symbol="BTCUSDT", side="BUY", type="MARKET", quantity=0.1)
    (position,) = await call(client.get_position_risk, **BTC)
    assert ("0.100", "50000.00000000") == (position["positionAmt"], position["entryPrice"])
    moved = await call(client.modify_isolated_position_margin, symbol="BTCUSDT", amount=100, type=1)
    assert (100, 1) == (moved["amount"], moved["type"])
    await call(client.modify_isolated_position_margin, symbol="BTCUSDT", amount=50, type=2)
    moves = await call(client.get_position_margin_history, symbol="BTCUSDT")
    assert ["100.00000000", "50.00000000"] == [move["amount"] for move in moves]
    assert "BTCUSDT" == (await call(client.account))["positions"][0]["symbol"]
    assert "USDT" == (await call(client.balance))[0]["asset"]
    (trade,) = await call(client.get_account_trades, symbol="BTCUSDT")
    assert ("0.100", "BUY") == (trade["qty"], trade["side"])
    income = await call(client.get_income_history)
    assert ["TRANSFER", "COMMISSION"] == [row["incomeType"] for row in income]
    assert 10 == len((await call(client.leverage_brackets, **BTC))["brackets"])
    assert "0.0005" == (await call(client.commission_rate, symbol="BTCUSDT"))["takerCommissionRate"]
    assert [] == await call(client.force_orders)
    (adl,) = await call(client.adl_quantile)
    assert {"LONG", "SHORT", "BOTH"} == set(adl["adlQuantile"])
    assert {"SECOND", "MINUTE"} == {row["interval"] for row in await call(client.query_user_rate_limit)}
    assert "updateTime" in await call(client.api_trading_status)
    assert "ISOLATED" == (await call(client.symbol_configuration, **BTC))[0]["marginType"]
    assert (await call(client.futures_account_configuration))["canTrade"] is True


async def test_listen_keys(there: Local) -> None:
    """One key an account, kept alive, and gone when it is closed."""
    client = client_of(there)
    key = (await call(client.new_listen_key))["listenKey"]
    assert key == (await call(client.new_listen_key))["listenKey"]
    assert key == (await call(client.renew_listen_key, key))["listenKey"]
    with pytest.raises(error.ClientError):
        await call(client.close_listen_key, "x")
    assert {} == await call(client.close_listen_key, key)
    with pytest.raises(error.ClientError) as caught:
        await call(client.renew_listen_key, key)
    assert -1125 == caught.value.error_code
