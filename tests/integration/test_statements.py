"""What an account is told about itself over real sockets: positions, balances, income, what was closed."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from events.appender import Appender
from events.commands import AnyCommand, Liquidate
from events.events import Event
from exchange.fold import Fold
from tests.integration.test_trading import code, get, ok, opened, post
from tests.running_venue import DEADLINE_S, Account, Venue, running_venue


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Run an exchange with BTCUSDT at 50,000 and ETHUSDT at 3,000."""
    async with running_venue(tmp_path) as made:
        yield made


async def decided(venue: Venue, command: AnyCommand) -> list[Event]:
    """Have a command decided that no call of the API makes."""
    appender = Appender(venue.log, "liquidator")
    fold = Fold(venue.log, lambda entry: appender.resolve(entry.groups))
    stop = asyncio.Event()
    folding = asyncio.create_task(fold.run(stop))
    await appender.open()
    async with asyncio.timeout(DEADLINE_S):
        events = await appender.submit(command)
    stop.set()
    await folding
    await appender.close()
    return events


async def test_versions_two_and_three_of_an_account(venue: Venue) -> None:
    """Two lists all markets, three those in use; the totals agree, and the asset has a time."""
    long, _ = await opened(venue)
    two, three = await get(long, "v2/account"), await get(long, "v3/account")
    assert ["BTCUSDT", "ETHUSDT"] == [row["symbol"] for row in two["positions"]]
    assert ["BTCUSDT"] == [row["symbol"] for row in three["positions"]]
    (asset,) = three["assets"]
    assert two["assets"] == [asset]
    assert asset["updateTime"] > 0
    assert two["totalWalletBalance"] == asset["walletBalance"] == three["totalWalletBalance"]
    # 0.1 BTC at 50,000: taker fee 0.05 %, initial margin at leverage 20.
    assert ("9997.50000000", "250.00000000") == (asset["walletBalance"], asset["positionInitialMargin"])
    assert ("20", False) == (two["positions"][0]["leverage"], two["positions"][0]["isolated"])
    assert three["positions"][0]["updateTime"] > 0

    risks = await get(long, "v2/positionRisk")
    assert [("BTCUSDT", "cross", "20"), ("ETHUSDT", "cross", "20")] == [
        (row["symbol"], row["marginType"], row["leverage"]) for row in risks
    ]
    (risk,) = await get(long, "v3/positionRisk")
    assert ("0.100", "50000.00000000", "250.00000000") == (
        risk["positionAmt"],
        risk["entryPrice"],
        risk["initialMargin"],
    )
    assert [] == await get(long, "v3/positionRisk", symbol="ETHUSDT")
    await ok(long.order(symbol="ETHUSDT", price="2900", quantity="1"))
    assert 2 == len(await get(long, "v3/positionRisk")), "an open order is enough"
    assert await get(long, "v2/balance") == await get(long, "v3/balance")


async def test_what_was_paid_is_what_is_missing(venue: Venue) -> None:
    """Income by kind and market, oldest first; its sum is the wallet."""
    long, _ = await opened(venue)
    rows = await get(long, "v1/income")
    assert [("TRANSFER", "10000.00000000", ""), ("COMMISSION", "-2.50000000", "BTCUSDT")] == [
        (row["incomeType"], row["income"], row["symbol"]) for row in rows
    ]
    assert {"USDT"} == {row["asset"] for row in rows}
    (trade,) = await get(long, "v1/userTrades", symbol="BTCUSDT")
    assert str(trade["id"]) == rows[1]["tradeId"]
    assert Decimal(rows[1]["income"]) == -Decimal(trade["commission"])
    assert rows[1:] == await get(long, "v1/income", symbol="BTCUSDT", incomeType="COMMISSION")
    assert rows[:1] == await get(long, "v1/income", limit=1, startTime=1)
    assert rows[1:] == await get(long, "v1/income", limit=1)
    assert [] == await get(long, "v1/income", incomeType="API_REBATE")
    assert -1130 == await code(long.call("GET", "/fapi/v1/income", incomeType="GIFT"))


async def test_tables_are_numbers_and_fees_are_texts(venue: Venue) -> None:
    """leverageBracket has JSON numbers; one market is an object, all of them a list."""
    alice = await venue.account()
    one = await get(alice, "v1/leverageBracket", symbol="BTCUSDT")
    assert {
        "bracket": 2,
        "initialLeverage": 100,
        "notionalCap": 1_000_000,
        "notionalFloor": 300_000,
        "maintMarginRatio": 0.005,
        "cum": 300,
    } == one["brackets"][1]
    assert one == (await get(alice, "v1/leverageBracket"))[0]
    fees = await get(alice, "v1/commissionRate", symbol="BTCUSDT")
    assert ("0.0002", "0.0005") == (fees["makerCommissionRate"], fees["takerCommissionRate"])
    await post(alice, "v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    changed = await post(alice, "v1/leverage", symbol="BTCUSDT", leverage=100)
    assert ("1000000.00000000", 100) == (changed["maxNotionalValue"], changed["leverage"])
    config = await get(alice, "v1/symbolConfig")
    assert [("ISOLATED", 100), ("CROSSED", 20)] == [(row["marginType"], row["leverage"]) for row in config]
    assert (await get(alice, "v1/accountConfig"))["dualSidePosition"] is False
    limits = await get(alice, "v1/rateLimit/order")
    assert [("ORDERS", "SECOND", 10), ("ORDERS", "MINUTE", 1)] == [
        (row["rateLimitType"], row["interval"], row["intervalNum"]) for row in limits
    ]


async def test_margin_is_moved(venue: Venue) -> None:
    """To an isolated position and back, within bounds, and remembered; a number is answered with a number."""
    long, _ = await opened(venue, "0.1")
    move = {"symbol": "BTCUSDT", "amount": "10", "type": 1}
    margin = "/fapi/v1/positionMargin"
    assert -4049 == await code(long.call("POST", margin, parameters=move))
    await post(long, "v1/marginType", symbol="ETHUSDT", marginType="ISOLATED")
    await post(long, "v1/leverage", symbol="ETHUSDT", leverage=5)
    other = await venue.account()
    await ok(other.order(symbol="ETHUSDT", side="SELL", price="3000", quantity="1"))
    await ok(long.order(symbol="ETHUSDT", price="3000", quantity="1"))
    eth = move | {"symbol": "ETHUSDT"}
    answer = await ok(long.call("POST", margin, parameters=eth))
    assert {"amount": 10.0, "code": 200, "msg": "Successfully modify position margin.", "type": 1} == answer
    await ok(long.call("POST", margin, parameters=eth | {"amount": "4", "type": 2}))
    assert -4050 == await code(long.call("POST", margin, parameters=eth | {"amount": "99999"}))
    assert -4051 == await code(long.call("POST", margin, parameters=eth | {"amount": "999", "type": 2}))
    assert -4055 == await code(long.call("POST", margin, parameters=eth | {"amount": "0"}))
    assert -4055 == await code(long.call("POST", margin, parameters=eth | {"amount": "-1"}))
    assert -1130 == await code(long.call("POST", margin, parameters=eth | {"type": 3}))
    assert -1111 == await code(long.call("POST", margin, parameters=eth | {"amount": "0.000000001"}))
    rows = await get(long, "v1/positionMargin/history", symbol="ETHUSDT")
    assert [(1, "10.00000000"), (2, "4.00000000")] == [(row["type"], row["amount"]) for row in rows]
    assert rows[1:] == await get(long, "v1/positionMargin/history", symbol="ETHUSDT", type=2)
    assert -4161 == await code(long.call("POST", "/fapi/v1/leverage", symbol="ETHUSDT", leverage=2))


async def ruined(venue: Venue) -> tuple[Account, Account]:
    """Return an account whose isolated long was liquidated against nobody's bid, and its counterparty."""
    long, short = await venue.account(), await venue.account()
    await post(long, "v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    await post(long, "v1/leverage", symbol="BTCUSDT", leverage=100)
    await ok(short.order(side="SELL", quantity="0.1"))
    await ok(long.order(quantity="0.1"))
    await venue.admin("index", {"symbol": "BTCUSDT", "price": "49400"})
    await decided(venue, Liquidate(account_id=long.account_id, market="BTCUSDT", cause_seq=1))
    return long, short


async def test_what_the_waterfall_closed_is_told(venue: Venue) -> None:
    """Nobody bids and the fund is empty: the position is deleveraged, and both sides are told."""
    long, short = await ruined(venue)
    assert [] == await get(long, "v3/positionRisk")
    rows = await get(long, "v1/forceOrders")
    assert {("SELL", "BTCUSDT", "LIMIT")} == {(row["side"], row["symbol"], row["type"]) for row in rows}
    assert all(row["clientOrderId"].startswith("autoclose-") for row in rows)
    assert "0.100" == rows[-1]["executedQty"]
    (gave,) = await get(short, "v1/forceOrders", autoCloseType="ADL")
    assert ("adl_autoclose", "BUY", "FILLED", "0.100") == (
        gave["clientOrderId"],
        gave["side"],
        gave["status"],
        gave["executedQty"],
    )
    assert rows[-1]["avgPrice"] == gave["avgPrice"], "quantity for quantity, at one price"
    assert [] == await get(short, "v1/forceOrders", autoCloseType="LIQUIDATION")
    for account in (long, short):
        total = sum(Decimal(row["income"]) for row in await get(account, "v1/income"))
        assert total == Decimal((await get(account, "v3/account"))["totalWalletBalance"])


async def test_quantiles_of_deleveraging(venue: Venue) -> None:
    """Alone on its side a position is first; a flat market has no row."""
    long, short = await opened(venue)
    assert [{"symbol": "BTCUSDT", "adlQuantile": {"LONG": 0, "SHORT": 0, "BOTH": 4}}] == await get(
        long, "v1/adlQuantile"
    )
    assert 4 == (await get(short, "v3/positionRisk"))[0]["adl"]
    assert [] == await get(long, "v1/adlQuantile", symbol="ETHUSDT")


async def test_several_assets_and_burnt_fees_are_not_offered(venue: Venue) -> None:
    """Asking says no; asking for no changes nothing."""
    alice = await venue.account()
    assert {"multiAssetsMargin": False} == await get(alice, "v1/multiAssetsMargin")
    multi = "/fapi/v1/multiAssetsMargin"
    assert -4169 == await code(alice.call("POST", multi, multiAssetsMargin="true"))
    assert -4171 == await code(alice.call("POST", multi, multiAssetsMargin="false"))
    assert {"feeBurn": False} == await get(alice, "v1/feeBurn")
    assert 200 == (await post(alice, "v1/feeBurn", feeBurn="false"))["code"]
    assert -1130 == await code(alice.call("POST", "/fapi/v1/feeBurn", feeBurn="true"))
    assert {"indicators", "updateTime"} == set(await get(alice, "v1/apiTradingStatus"))


async def test_a_countdown_longer_than_a_week_is_refused(venue: Venue) -> None:
    """And 0 ends one."""
    alice = await venue.account()
    countdown: dict[str, Any] = {"symbol": "BTCUSDT", "countdownTime": 10**10}
    assert -1130 == await code(alice.call("POST", "/fapi/v1/countdownCancelAll", parameters=countdown))
    ended = await post(alice, "v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=0)
    assert {"symbol": "BTCUSDT", "countdownTime": "0"} == ended
