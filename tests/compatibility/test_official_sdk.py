"""The official derivatives SDK, unchanged: its models are strict, and say so when an answer is not theirs."""

import logging
from typing import Any

import pytest

from tests.compatibility.local import Local, call

sdk = pytest.importorskip(
    "binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures",
    reason="the official SDK is not installed (the compatibility extra)",
)
enums = pytest.importorskip("binance_sdk_derivatives_trading_usds_futures.rest_api.models.enums")
common = pytest.importorskip("binance_common.errors")


class Sdk:
    """A client of the account under test, which complains about every answer that is not as declared."""

    def __init__(self, there: Local, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        configuration = sdk.ConfigurationRestAPI(
            api_key=there.account.api_key,
            api_secret=there.account.secret,
            base_path=there.venue.url,
            timeout=10_000,
        )
        self._api = sdk.DerivativesTradingUsdsFutures(config_rest_api=configuration).rest_api

    async def do(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Make a call and return its data, as the SDK's own model of it."""
        with self._caplog.at_level(logging.WARNING):
            response = await call(getattr(self._api, method), *arguments, **named)
            data = await call(response.data)
        complaints = [
            record.getMessage() for record in self._caplog.records if "declared" in record.getMessage()
        ]
        assert [] == complaints, method
        return data


@pytest.fixture
def api(there: Local, caplog: pytest.LogCaptureFixture) -> Sdk:
    """Return a client."""
    return Sdk(there, caplog)


BUY = enums.NewOrderSideEnum.BUY
LIMIT = enums.NewOrderTypeEnum.LIMIT
GTC = enums.NewOrderTimeInForceEnum.GTC


async def test_orders(api: Sdk) -> None:
    """Placed, modified, queried, cancelled; an order that is gone raises what its status says."""
    order = await api.do("new_order", "BTCUSDT", BUY, LIMIT, quantity=0.01, price=49_000, time_in_force=GTC)
    assert ("NEW", "0.010") == (order.status, order.orig_qty)
    changed = await api.do("modify_order", "BTCUSDT", "BUY", 0.02, 49_100, order_id=order.order_id)
    assert "49100.0" == changed.price
    assert 1 == len(await api.do("get_order_modify_history", "BTCUSDT", order_id=order.order_id))
    assert "NEW" == (await api.do("query_order", "BTCUSDT", order_id=order.order_id)).status
    assert 1 == len(await api.do("current_all_open_orders", symbol="BTCUSDT"))
    assert "CANCELED" == (await api.do("cancel_order", "BTCUSDT", order_id=order.order_id)).status
    with pytest.raises(common.BadRequestError, match="Unknown order sent"):
        await api.do("cancel_order", "BTCUSDT", order_id=order.order_id)
    assert 1 == len(await api.do("all_orders", "BTCUSDT"))
    tested = await api.do("test_order", "BTCUSDT", BUY, LIMIT, quantity=0.01, price=49_000, time_in_force=GTC)
    assert "NEW" == tested.status
    bid = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": 49_000}
    batch = await api.do("place_multiple_orders", [bid | {"quantity": 0.01}, bid | {"quantity": 0}])
    assert ["NEW", None] == [row.status for row in batch]
    assert -4003 == batch[1].code
    edit = {"symbol": "BTCUSDT", "side": "BUY", "orderId": batch[0].order_id, "quantity": 0.02}
    (edited,) = await api.do("modify_multiple_orders", [edit | {"price": 48_000}])
    assert "48000.0" == edited.price
    (gone,) = await api.do("cancel_multiple_orders", "BTCUSDT", order_id_list=[batch[0].order_id])
    assert "CANCELED" == gone.status
    assert "60000" == (await api.do("auto_cancel_all_open_orders", "BTCUSDT", 60_000)).countdown_time
    assert 200 == (await api.do("cancel_all_open_orders", "BTCUSDT")).code


async def test_conditional_orders(api: Sdk) -> None:
    """Placed, listed and cancelled."""
    for kind, named in (
        ("STOP", {"trigger_price": 49_000, "price": 48_900, "time_in_force": "GTC"}),
        ("TAKE_PROFIT", {"trigger_price": 52_000, "price": 52_100, "time_in_force": "GTC"}),
        ("TAKE_PROFIT_MARKET", {"trigger_price": 52_000}),
        ("TRAILING_STOP_MARKET", {"callback_rate": 0.5}),
        ("STOP_MARKET", {"trigger_price": 49_000}),
    ):
        placed = await api.do(
            "new_algo_order",
            enums.NewAlgoOrderAlgoTypeEnum.CONDITIONAL,
            "BTCUSDT",
            enums.NewAlgoOrderSideEnum.SELL,
            enums.NewAlgoOrderTypeEnum[kind],
            quantity=0.01,
            **named,
        )
        assert ("NEW", kind) == (placed.algo_status, placed.order_type)
    assert 5 == len(await api.do("current_all_algo_open_orders"))
    assert "NEW" == (await api.do("query_algo_order", algo_id=placed.algo_id)).algo_status
    assert "200" == (await api.do("cancel_algo_order", algo_id=placed.algo_id)).code
    rows = await api.do("query_all_algo_orders", "BTCUSDT")
    assert {"NEW", "CANCELED"} == {row.algo_status for row in rows}
    assert 200 == (await api.do("cancel_all_algo_open_orders", "BTCUSDT")).code


async def test_settings_and_positions(there: Local, api: Sdk) -> None:
    """Modes, leverage, margin, what is held and what it cost."""
    assert 200 == (await api.do("change_margin_type", "BTCUSDT", "ISOLATED")).code
    assert 10 == (await api.do("change_initial_leverage", "BTCUSDT", 10)).leverage
    assert (await api.do("get_current_position_mode")).dual_side_position is False
    await there.offer("SELL", "50000")
    await api.do("new_order", "BTCUSDT", BUY, enums.NewOrderTypeEnum.MARKET, quantity=0.1)
    (position,) = await api.do("position_information_v3", symbol="BTCUSDT")
    assert "0.100" == position.position_amt
    assert 2 == len(await api.do("position_information_v2"))
    assert 100 == (await api.do("modify_isolated_position_margin", "BTCUSDT", 100, 1)).amount
    assert 50 == (await api.do("modify_isolated_position_margin", "BTCUSDT", 50, 2)).amount
    assert 2 == len(await api.do("get_position_margin_change_history", "BTCUSDT"))
    account = await api.do("account_information_v3")
    assert "USDT" == account.assets[0].asset
    assert 2 == len((await api.do("account_information_v2")).positions)
    assert 1 == len(await api.do("futures_account_balance_v3"))
    assert 1 == len(await api.do("futures_account_balance_v2"))
    assert 1 == len(await api.do("account_trade_list", "BTCUSDT"))
    assert 2 == len(await api.do("get_income_history"))
    assert "0.0005" == (await api.do("user_commission_rate", "BTCUSDT")).taker_commission_rate
    assert (await api.do("futures_account_configuration")).can_trade is True
    assert 2 == len(await api.do("symbol_configuration"))
    assert 2 == len(await api.do("query_user_rate_limit"))
    assert 1 == len(await api.do("position_adl_quantile_estimation"))
    assert [] == await api.do("users_force_orders")
    await api.do("notional_and_leverage_brackets")
    assert (await api.do("get_bnb_burn_status")).fee_burn is False
    assert (await api.do("get_current_multi_assets_mode")).multi_assets_margin is False
    assert (await api.do("start_user_data_stream")).listen_key
    assert (await api.do("keepalive_user_data_stream")).listen_key
    await api.do("close_user_data_stream")
