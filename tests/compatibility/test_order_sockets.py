"""Orders over a socket, by every client that sends them so, unchanged."""

import logging
from typing import Any

import pytest

from tests.compatibility.local import BTC, REASON, SDK, Local, asynchronous, professional, soon


async def test_ccxt(there: Local) -> None:
    """ccxt.pro: placed, edited, asked for, cancelled, conditional; account, book, ticker; refused."""
    errors = pytest.importorskip("ccxt.base.errors", reason=REASON)
    ex = professional(there)
    try:
        await ex.load_markets()
        order = await soon(ex.create_order_ws(BTC, "limit", "buy", 0.01, 49_000))
        assert ("open", 49_000, 0.01) == (order["status"], order["price"], order["amount"])
        edited = await soon(ex.edit_order_ws(order["id"], BTC, "limit", "buy", 0.02, 49_100))
        assert (order["id"], 49_100, 0.02) == (edited["id"], edited["price"], edited["amount"])
        assert "open" == (await soon(ex.fetch_order_ws(order["id"], BTC)))["status"]
        assert "canceled" == (await soon(ex.cancel_order_ws(order["id"], BTC)))["status"]
        with pytest.raises(errors.OrderNotFound):
            await soon(ex.cancel_order_ws(order["id"], BTC))
        with pytest.raises(errors.InsufficientFunds):
            await soon(ex.create_order_ws(BTC, "limit", "buy", 10, 49_000))

        await there.offer("SELL", "50000", "0.1")
        await there.offer("BUY", "49900", "0.2")
        market = await soon(ex.create_order_ws(BTC, "market", "buy", 0.05))
        assert ("closed", 50_000, 0.05) == (market["status"], market["average"], market["filled"])
        stop = await soon(ex.create_order_ws(BTC, "market", "sell", 0.05, None, {"stopLossPrice": 48_000}))
        assert 48_000 == stop["triggerPrice"]
        await soon(ex.cancel_order_ws(stop["id"], BTC, {"trigger": True}))
        posted = {"postOnly": True, "clientOrderId": "mine"}
        rested = await soon(ex.create_order_ws(BTC, "limit", "buy", 0.01, 49_800, posted))
        assert (True, "mine") == (rested["postOnly"], rested["clientOrderId"])
        trailing = await soon(ex.create_order_ws(BTC, "market", "sell", 0.05, None, {"trailingPercent": 1}))
        assert "open" == trailing["status"]
        (position,) = await soon(ex.fetch_positions_ws([BTC]))
        assert ("long", 0.05) == (position["side"], position["contracts"])
        paid = 10_000 - 50_000 * 0.05 * 0.0005
        assert pytest.approx(paid) == (await soon(ex.fetch_balance_ws()))["USDT"]["total"]
        book = await soon(ex.fetch_order_book_ws(BTC, 5))
        assert ([[49_900, 0.2], [49_800, 0.01]], [[50_000, 0.05]]) == (book["bids"], book["asks"])
        best = await soon(ex.fetch_ticker_ws(BTC, {"method": "ticker.book"}))
        assert (49_900, 50_000) == (best["bid"], best["ask"])
    finally:
        await ex.close()


async def test_python_binance(there: Local) -> None:
    """AsyncClient: orders, conditional ones, account, book and prices; an error has code and text."""
    client = asynchronous(there)
    exceptions = pytest.importorskip("binance.exceptions", reason=REASON)
    symbol = {"symbol": "BTCUSDT"}
    bid = symbol | {
        "side": "BUY",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.01",
        "price": "49000",
    }
    try:
        order = await soon(client.ws_futures_create_order(**bid))
        one = symbol | {"orderId": order["orderId"]}
        assert "NEW" == (await soon(client.ws_futures_get_order(**one)))["status"]
        changed = await soon(client.ws_futures_edit_order(**one, side="BUY", quantity="0.02", price="49100"))
        assert ("49100.0", "0.020") == (changed["price"], changed["origQty"])
        assert "CANCELED" == (await soon(client.ws_futures_cancel_order(**one)))["status"]
        with pytest.raises(exceptions.BinanceAPIException) as caught:
            await soon(client.ws_futures_cancel_order(**one))
        assert (-2011, "Unknown order sent.") == (caught.value.code, caught.value.message)

        # What ccxt.pro leaves over is dropped only beside its translation.
        for leftover in ({"postOnly": True}, {"stopLossPrice": "48000"}, {"clientOrderId": "mine"}):
            with pytest.raises(exceptions.BinanceAPIException) as caught:
                await soon(client.ws_futures_create_order(**bid, **leftover, newClientOrderId=None))
            assert (-1104, next(iter(leftover))) == (caught.value.code, caught.value.message.split("'")[5])

        await there.offer("SELL", "50000", "0.1")
        market = symbol | {"side": "BUY", "type": "MARKET", "quantity": "0.05", "newOrderRespType": "RESULT"}
        assert "FILLED" == (await soon(client.ws_futures_create_order(**market)))["status"]
        stop = symbol | {"side": "SELL", "type": "STOP_MARKET", "stopPrice": "48000", "closePosition": True}
        placed = await soon(client.ws_futures_create_order(**stop))
        assert ("NEW", "48000.0") == (placed["algoStatus"], placed["triggerPrice"])
        gone = await soon(client.ws_futures_cancel_algo_order(algoId=placed["algoId"]))
        assert "200" == gone["code"]
        (position,) = await soon(client.ws_futures_v2_account_position())
        assert "0.050" == position["positionAmt"]
        assert 2 == len(await soon(client.ws_futures_account_position()))
        for name in ("ws_futures_account_status", "ws_futures_v2_account_status"):
            assert "9998.75000000" == (await soon(getattr(client, name)()))["totalWalletBalance"], name
        for name in ("ws_futures_account_balance", "ws_futures_v2_account_balance"):
            assert "9998.75000000" == (await soon(getattr(client, name)()))[0]["balance"], name
        book = await soon(client.ws_futures_get_order_book(**symbol))
        assert [["50000.0", "0.050"]] == book["asks"]
        assert "50000.0" == (await soon(client.ws_futures_get_all_tickers(**symbol)))["price"]
        assert "50000.0" == (await soon(client.ws_futures_get_order_book_ticker(**symbol)))["askPrice"]
    finally:
        await client.close_connection()


async def test_official_sdk(there: Local, caplog: pytest.LogCaptureFixture) -> None:
    """Its strict models accept every answer of every method it has."""
    sdk = pytest.importorskip(SDK, reason=REASON)
    enums = pytest.importorskip(f"{SDK.split('.')[0]}.websocket_api.models.enums", reason=REASON)
    configuration = sdk.ConfigurationWebSocketAPI(
        api_key=there.account.api_key,
        api_secret=there.account.secret,
        stream_url=f"ws://{there.host}/ws-fapi/v1",
    )
    api = await sdk.DerivativesTradingUsdsFutures(
        config_ws_api=configuration
    ).websocket_api.create_connection()

    async def do(method: str, *arguments: Any, **named: Any) -> Any:
        response = await soon(getattr(api, method)(*arguments, **named))
        data = response.data()
        return getattr(data, "actual_instance", data).result

    try:
        with caplog.at_level(logging.WARNING):
            order = await do(
                "new_order",
                "BTCUSDT",
                enums.NewOrderSideEnum["BUY"],
                enums.NewOrderTypeEnum["LIMIT"],
                quantity=0.01,
                price=49_000,
                time_in_force=enums.NewOrderTimeInForceEnum["GTC"],
            )
            one = {"order_id": order.order_id}
            assert "NEW" == (await do("query_order", "BTCUSDT", **one)).status
            changed = await do(
                "modify_order", "BTCUSDT", enums.ModifyOrderSideEnum["BUY"], 0.02, 49_100, **one
            )
            assert ("49100.0", "0.020") == (changed.price, changed.orig_qty)
            assert "CANCELED" == (await do("cancel_order", "BTCUSDT", **one)).status
            stop = await do(
                "new_algo_order",
                enums.NewAlgoOrderAlgoTypeEnum["CONDITIONAL"],
                "BTCUSDT",
                enums.NewAlgoOrderSideEnum["SELL"],
                enums.NewAlgoOrderTypeEnum["STOP_MARKET"],
                quantity=0.01,
                trigger_price=48_000,
            )
            assert "NEW" == stop.algo_status
            assert "200" == (await do("cancel_algo_order", algo_id=stop.algo_id)).code
            await there.offer("SELL", "50000", "0.1")
            await do(
                "new_order",
                "BTCUSDT",
                enums.NewOrderSideEnum["BUY"],
                enums.NewOrderTypeEnum["MARKET"],
                quantity=0.05,
            )
            assert "9998.75000000" == (await do("account_information")).total_wallet_balance
            assert "9998.75000000" == (await do("account_information_v2")).total_wallet_balance
            assert "9998.75000000" == (await do("futures_account_balance"))[0].balance
            assert "9998.75000000" == (await do("futures_account_balance_v2"))[0].balance
            assert 2 == len(await do("position_information"))
            assert "0.050" == (await do("position_information_v2"))[0].position_amt
            assert [["50000.0", "0.050"]] == (await do("order_book", "BTCUSDT")).additional_properties["asks"]
            await do("symbol_price_ticker", symbol="BTCUSDT")
            await do("symbol_order_book_ticker", symbol="BTCUSDT")
            key = (await do("start_user_data_stream")).listen_key
            assert key == (await do("keepalive_user_data_stream")).listen_key
            await soon(api.close_user_data_stream())
        complaints = [record.getMessage() for record in caplog.records if "declared" in record.getMessage()]
        assert [] == complaints
    finally:
        await api.close_connection(close_session=True)
