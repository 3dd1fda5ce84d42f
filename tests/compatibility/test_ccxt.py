"""ccxt, unchanged but for its addresses: what a bot does between its start and its stop."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.intake.specs import DEFAULT_FORMS
from tests.compatibility.local import BTC, Local, call, ccxt_settings, local, localised

ccxt = pytest.importorskip("ccxt", reason="ccxt is not installed (pip install -e '.[compatibility]')")


class Bot:
    """A client of its account, and the exchange around it; `do` calls one of ccxt's methods."""

    def __init__(self, there: Local) -> None:
        self.there = there
        self.exchange = localised(ccxt.binanceusdm(ccxt_settings(there)), there.venue.url)

    async def do(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of ccxt."""
        return await call(getattr(self.exchange, method), *arguments, **named)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """A bot that has loaded the markets."""
    async with local(tmp_path) as there:
        made = Bot(there)
        await made.do("load_markets")
        yield made


async def test_markets_and_settings(bot: Bot) -> None:
    """Contracts with their limits; margin mode, leverage, position mode; a mode set already is an error."""
    market = bot.exchange.market(BTC)
    assert (True, True, 0.1, 0.001) == (
        market["swap"],
        market["linear"],
        market["precision"]["price"],
        market["precision"]["amount"],
    )
    await bot.do("set_margin_mode", "isolated", BTC)
    with pytest.raises(ccxt.MarginModeAlreadySet):
        await bot.do("fapiPrivatePostMarginType", {"symbol": "BTCUSDT", "marginType": "ISOLATED"})
    assert 10 == int((await bot.do("set_leverage", 10, BTC))["leverage"])
    leverage = await bot.do("fetch_leverage", BTC)
    assert ("isolated", 10, 10) == (
        leverage["marginMode"],
        leverage["longLeverage"],
        leverage["shortLeverage"],
    )
    assert "isolated" == (await bot.do("fetch_margin_mode", BTC))["marginMode"]
    await bot.do("set_position_mode", True)
    assert (await bot.do("fetch_position_mode"))["hedged"] is True
    await bot.do("set_position_mode", False)
    tiers = (await bot.do("fetch_leverage_tiers", [BTC]))[BTC]
    assert (125, 0.004, 0, 300_000) == (
        tiers[0]["maxLeverage"],
        tiers[0]["maintenanceMarginRate"],
        tiers[0]["minNotional"],
        tiers[0]["maxNotional"],
    )


async def test_orders_from_acceptance_to_their_end(bot: Bot) -> None:
    """Limit, market, post-only, immediate-or-cancel, fill-or-kill; fetched, edited, cancelled, refused."""
    limit = await bot.do("create_order", BTC, "limit", "buy", 0.01, 49_000)
    assert ("open", "limit", 49_000, 0.01) == (
        limit["status"],
        limit["type"],
        limit["price"],
        limit["amount"],
    )
    edited = await bot.do("edit_order", limit["id"], BTC, "limit", "buy", 0.02, 49_100)
    assert (limit["id"], 49_100, 0.02) == (edited["id"], edited["price"], edited["amount"])
    assert [limit["id"]] == [order["id"] for order in await bot.do("fetch_open_orders", BTC)]
    assert [limit["id"]] == [order["id"] for order in await bot.do("fetch_open_orders")]
    assert "canceled" == (await bot.do("cancel_order", limit["id"], BTC))["status"]
    with pytest.raises(ccxt.OrderNotFound):
        await bot.do("cancel_order", limit["id"], BTC)
    assert "canceled" == (await bot.do("fetch_order", limit["id"], BTC))["status"]

    await bot.there.offer("SELL", "50000")
    market = await bot.do("create_order", BTC, "market", "buy", 0.01)
    assert ("closed", 50_000, 0.01) == (market["status"], market["average"], market["filled"])
    with pytest.raises(ccxt.InvalidOrder):
        await bot.do("create_order", BTC, "limit", "buy", 0.01, 50_000, {"postOnly": True})
    posted = await bot.do("create_order", BTC, "limit", "buy", 0.01, 49_900, {"postOnly": True})
    assert (True, "open") == (posted["postOnly"], posted["status"])
    ioc = await bot.do("create_order", BTC, "limit", "buy", 0.01, 49_950, {"timeInForce": "IOC"})
    assert ("expired", 0) == (ioc["status"], ioc["filled"])
    fok = await bot.do("create_order", BTC, "limit", "buy", 0.01, 50_000, {"timeInForce": "FOK"})
    assert "closed" == fok["status"]
    until_ms = int(time.time() * 1000) + 700_000
    dated = {"timeInForce": "GTD", "goodTillDate": until_ms}
    assert "open" == (await bot.do("create_order", BTC, "limit", "buy", 0.01, 49_000, dated))["status"]
    closing = await bot.do("create_order", BTC, "limit", "sell", 0.02, 50_500, {"reduceOnly": True})
    assert closing["reduceOnly"] is True
    with pytest.raises(ccxt.InsufficientFunds):
        await bot.do("create_order", BTC, "limit", "buy", 10, 49_000)
    await bot.do("cancel_all_orders", BTC)
    assert [] == await bot.do("fetch_open_orders", BTC)
    known = await bot.do("fetch_orders", BTC)
    assert {limit["id"], market["id"], posted["id"], ioc["id"], fok["id"], closing["id"]} <= {
        order["id"] for order in known
    }
    assert [market["id"], fok["id"]] == [order["id"] for order in await bot.do("fetch_closed_orders", BTC)]


async def test_conditional_orders(bot: Bot) -> None:
    """Stops, profits and trailing stops go to the calls of their own, and are found and cancelled there."""
    await bot.there.offer("SELL", "50000", "0.1")
    await bot.do("create_order", BTC, "market", "buy", 0.1)
    stop = await bot.do("create_order", BTC, "market", "sell", 0.1, None, {"stopLossPrice": 48_000})
    profit = await bot.do(
        "create_order", BTC, "limit", "sell", 0.05, 52_100, {"takeProfitPrice": 52_000, "reduceOnly": True}
    )
    trigger = await bot.do("create_order", BTC, "market", "buy", 0.01, None, {"triggerPrice": 53_000})
    trailing = await bot.do("create_order", BTC, "market", "sell", 0.1, None, {"trailingPercent": 1})
    guard = {"stopLossPrice": 47_500, "reduceOnly": True}
    limit = await bot.do("create_order", BTC, "limit", "sell", 0.05, 47_400, guard)
    gain = await bot.do("create_order", BTC, "market", "sell", 0.1, None, {"takeProfitPrice": 54_000})
    ids = [order["id"] for order in (stop, profit, trigger, trailing, limit, gain)]
    waiting = await bot.do("fetch_open_orders", BTC, None, None, {"trigger": True})
    assert ids == [order["id"] for order in waiting]
    assert [48_000, 52_000, 53_000] == [order["triggerPrice"] for order in waiting[:3]]
    await bot.do("cancel_order", profit["id"], BTC, {"trigger": True})
    assert "canceled" == (await bot.do("fetch_order", profit["id"], BTC, {"trigger": True}))["status"]
    await bot.do("cancel_all_orders", BTC, {"trigger": True})
    assert [] == await bot.do("fetch_open_orders", BTC, None, None, {"trigger": True})


async def test_several_orders_at_once(bot: Bot) -> None:
    """Batches of orders, of edits and of cancellations."""
    orders = await bot.do(
        "create_orders",
        [
            {"symbol": BTC, "type": "limit", "side": "buy", "amount": 0.01, "price": 49_000},
            {"symbol": BTC, "type": "limit", "side": "buy", "amount": 0.01, "price": 48_000},
        ],
    )
    assert ["open", "open"] == [order["status"] for order in orders]
    edited = await bot.do(
        "edit_orders",
        [
            {
                "id": order["id"],
                "symbol": BTC,
                "type": "limit",
                "side": "buy",
                "amount": 0.02,
                "price": 47_000,
            }
            for order in orders
        ],
    )
    assert [47_000, 47_000] == [order["price"] for order in edited]
    gone = await bot.do("cancel_orders", [order["id"] for order in orders], BTC)
    assert ["canceled", "canceled"] == [order["status"] for order in gone]


async def test_positions_balance_and_what_was_paid(bot: Bot) -> None:
    """An isolated position from its opening to its end, its margin, its trades and every change of money."""
    await bot.do("set_margin_mode", "isolated", BTC)
    await bot.do("set_leverage", 10, BTC)
    assert [] == await bot.do("fetch_positions", [BTC])
    await bot.there.offer("SELL", "50000", "0.1")
    await bot.do("create_order", BTC, "market", "buy", 0.1)
    (position,) = await bot.do("fetch_positions", [BTC])
    assert ("long", 0.1, 50_000, "isolated", 10) == (
        position["side"],
        position["contracts"],
        position["entryPrice"],
        position["marginMode"],
        position["leverage"],
    )
    assert 40_000 < position["liquidationPrice"] < 50_000

    added = await bot.do("add_margin", BTC, 100)
    assert ("add", 100) == (added["type"], added["amount"])
    await bot.do("reduce_margin", BTC, 50)
    history = await bot.do("fetch_margin_adjustment_history", BTC)
    assert [("add", 100), ("reduce", 50)] == [(row["type"], row["amount"]) for row in history]
    with pytest.raises(ccxt.ExchangeError, match="-4051"):
        await bot.do("reduce_margin", BTC, 5_000)

    await bot.there.offer("BUY", "50100", "0.1")
    await bot.do("create_order", BTC, "market", "sell", 0.1, None, {"reduceOnly": True})
    assert [] == await bot.do("fetch_positions", [BTC])
    balance = await bot.do("fetch_balance")
    fees = 0.1 * (50_000 + 50_100) * 0.0005
    assert pytest.approx(10_000 + 10 - fees) == balance["USDT"]["total"]
    trades = await bot.do("fetch_my_trades", BTC)
    assert [("buy", "taker"), ("sell", "taker")] == [(row["side"], row["takerOrMaker"]) for row in trades]
    assert pytest.approx(fees) == sum(row["fee"]["cost"] for row in trades)
    ledger = await bot.do("fetch_ledger", "USDT")
    assert pytest.approx(balance["USDT"]["total"]) == sum(
        row["amount"] if row["direction"] == "in" else -row["amount"] for row in ledger
    )
    assert [] == await bot.do("fetch_funding_history", BTC)
    assert 0.0005 == (await bot.do("fetch_trading_fee", BTC))["taker"]


async def test_market_data(bot: Bot) -> None:
    """Book, trades, candles of every price, tickers, rates, open interest: of a market that has traded."""
    await bot.there.offer("SELL", "50000", "0.1")
    await bot.there.offer("BUY", "49900", "0.2")
    await bot.do("create_order", BTC, "market", "buy", 0.05)
    book = await bot.do("fetch_order_book", BTC, 5)
    assert ([[49_900, 0.2]], [[50_000, 0.05]]) == (book["bids"], book["asks"])
    (trade,) = await bot.do("fetch_trades", BTC)
    assert (50_000, 0.05, "buy") == (trade["price"], trade["amount"], trade["side"])
    for price in (None, "mark", "index"):
        candles = await bot.do("fetch_ohlcv", BTC, "1m", None, 5, {"price": price} if price else {})
        assert [50_000] * 4 == candles[-1][1:5], price
    ticker = await bot.do("fetch_ticker", BTC)
    assert (50_000, 0.05) == (ticker["last"], ticker["baseVolume"])
    assert 49_900 == (await bot.do("fetch_bids_asks", [BTC]))[BTC]["bid"]
    assert 50_000 == (await bot.do("fetch_last_prices", [BTC]))[BTC]["price"]
    assert 50_000 == (await bot.do("fetch_mark_prices", [BTC]))[BTC]["markPrice"]
    assert {BTC, "ETH/USDT:USDT"} == set(await bot.do("fetch_tickers"))
    rate = await bot.do("fetch_funding_rate", BTC)
    assert (50_000, 50_000) == (rate["markPrice"], rate["indexPrice"])
    assert {BTC, "ETH/USDT:USDT"} == set(await bot.do("fetch_funding_rates"))
    assert "8h" == (await bot.do("fetch_funding_intervals", [BTC]))[BTC]["interval"]
    assert [] == await bot.do("fetch_funding_rate_history", BTC)
    assert 0.05 == (await bot.do("fetch_open_interest", BTC))["openInterestAmount"]
    assert abs(await bot.do("fetch_time") - time.time() * 1000) < 5_000


async def test_funding_is_paid_and_told(bot: Bot) -> None:
    """In a market that settles every second: what was paid is in the history, and nowhere else."""
    form = DEFAULT_FORMS[1]
    form = msgspec.structs.replace(form, symbol="SOLUSDT", base="SOL", funding_interval_s=1)
    venue, other = bot.there.venue, bot.there.other
    status, body = await venue.admin("market", msgspec.to_builtins(form))
    assert 200 == status, body
    await bot.there.price("100", "SOLUSDT")
    await bot.do("load_markets", True)
    sol = "SOL/USDT:USDT"
    sell = {"symbol": "SOLUSDT", "side": "SELL", "price": "100", "quantity": "10"}
    assert 200 == (await other.order(**sell))[0]
    await bot.do("create_order", sol, "market", "buy", 10)
    deadline_s = time.monotonic() + 20
    while not (paid := await bot.do("fetch_funding_history", sol)):
        assert time.monotonic() < deadline_s
        await bot.there.price("100", "SOLUSDT")
    (settled, *_) = await bot.do("fetch_funding_rate_history", sol)
    # Longs pay size × mark × rate, here the interest alone.
    assert (0.0001, pytest.approx(-0.1)) == (settled["fundingRate"], paid[0]["amount"])
