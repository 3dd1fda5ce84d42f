"""The market data calls over a real socket: what each answers, and what it refuses."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from events.values import Side
from exchange.intake.endpoint import Security
from exchange.intake.market.rows import ENDPOINTS
from tests.streaming import Stage, streaming

MAKER, TAKER = 2, 3


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A running intake with BTCUSDT at 50,000 and trades of 4 and 3 lots, and of 1 at another price."""
    async with streaming() as made:
        await made.order(MAKER, Side.BUY, 4, 499_000)
        await made.order(MAKER, Side.BUY, 3, 499_000)
        await made.order(MAKER, Side.BUY, 10, 498_900)
        await made.order(TAKER, Side.SELL, 8, 498_900)
        yield made


async def test_books_and_their_limits(stage: Stage) -> None:
    """Depth as of an entry, the best prices, and only the limits there are."""
    depth = await stage.get("/fapi/v1/depth", symbol="BTCUSDT", limit=5)
    assert ([["49890.0", "0.009"]], [], stage.record.state.seq) == (
        depth["bids"],
        depth["asks"],
        depth["lastUpdateId"],
    )
    best = await stage.get("/fapi/v1/ticker/bookTicker", symbol="BTCUSDT")
    assert ("49890.0", "0.009", "0.0", "0.000") == tuple(
        best[name] for name in ("bidPrice", "bidQty", "askPrice", "askQty")
    )
    assert -4021 == (await stage.get("/fapi/v1/depth", symbol="BTCUSDT", limit=7))["code"]
    assert depth["bids"] == (await stage.get("/fapi/v1/rpiDepth", symbol="BTCUSDT"))["bids"]
    assert -4021 == (await stage.get("/fapi/v1/rpiDepth", symbol="BTCUSDT", limit=5))["code"]


async def test_trades_by_number_and_time(stage: Stage) -> None:
    """The newest last; aggregate trades join what one order met at one price."""
    trades = await stage.get("/fapi/v1/trades", symbol="BTCUSDT")
    assert ["0.004", "0.003", "0.001"] == [row["qty"] for row in trades]
    assert ["199.60000000", "149.70000000", "49.89000000"] == [row["quoteQty"] for row in trades]
    assert all(row["isBuyerMaker"] for row in trades)
    assert trades[2:] == await stage.get("/fapi/v1/trades", symbol="BTCUSDT", limit=1)
    sums = await stage.get("/fapi/v1/aggTrades", symbol="BTCUSDT")
    assert [("49900.0", "0.007"), ("49890.0", "0.001")] == [(row["p"], row["q"]) for row in sums]
    assert [(row["f"], row["l"]) for row in sums] == [
        (trades[0]["id"], trades[1]["id"]),
        (trades[2]["id"], trades[2]["id"]),
    ]
    assert sums[1:] == await stage.get("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=sums[1]["a"])
    assert [] == await stage.get("/fapi/v1/aggTrades", symbol="BTCUSDT", startTime=sums[1]["T"] + 1)
    assert sums == await stage.get("/fapi/v1/aggTrades", symbol="BTCUSDT", endTime=sums[1]["T"])


async def test_candles_of_trades_and_prices(stage: Stage) -> None:
    """Twelve values each; index, mark and premium have no amounts."""
    (row,) = await stage.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1h", limit=1)
    assert 12 == len(row)
    assert ["49900.0", "49900.0", "49890.0", "49890.0", "0.008"] == row[1:6]
    assert (3_599_999, "399.19000000", 3, "0.000") == (row[6] - row[0], row[7], row[8], row[9])
    same = await stage.get(
        "/fapi/v1/continuousKlines", pair="BTCUSDT", contractType="PERPETUAL", interval="1h", limit=1
    )
    assert [row] == same
    (second, *_) = await stage.get(
        "/fapi/v1/continuousKlines", pair="BTCUSDT", contractType="PERPETUAL", interval="1s"
    )
    assert 999 == second[6] - second[0]
    (mark,) = await stage.get("/fapi/v1/markPriceKlines", symbol="BTCUSDT", interval="1d", limit=1)
    assert ["50000.0"] * 4 == mark[1:5]
    (index,) = await stage.get("/fapi/v1/indexPriceKlines", pair="BTCUSDT", interval="1M", limit=1)
    assert ["50000.0"] * 4 == index[1:5]
    (premium,) = await stage.get("/fapi/v1/premiumIndexKlines", symbol="BTCUSDT", interval="1w", limit=1)
    assert ["0.00000000"] * 4 == premium[1:5]


async def test_figures_of_the_day(stage: Stage) -> None:
    """One market or all; a market without trades shows its mark price and no amounts."""
    day = await stage.get("/fapi/v1/ticker/24hr", symbol="BTCUSDT")
    assert ("-10.0", "-0.020", "49898.75000000", "49890.0", "0.001", "0.008", 3) == tuple(
        day[name]
        for name in (
            "priceChange",
            "priceChangePercent",
            "weightedAvgPrice",
            "lastPrice",
            "lastQty",
            "volume",
            "count",
        )
    )
    assert ("49900.0", "49900.0", "49890.0") == (day["openPrice"], day["highPrice"], day["lowPrice"])
    _, eth = await stage.get("/fapi/v1/ticker/24hr")
    assert ("ETHUSDT", "3000.0", "0.000", 0) == (eth["symbol"], eth["lastPrice"], eth["volume"], eth["count"])
    for version in ("v1", "v2"):
        rows = await stage.get(f"/fapi/{version}/ticker/price")
        assert [("BTCUSDT", "49890.0"), ("ETHUSDT", "3000.0")] == [(r["symbol"], r["price"]) for r in rows]


async def test_what_stands_behind_a_market(stage: Stage) -> None:
    """Open interest, the index's sources, the fund, the risk of deleveraging, collateral."""
    assert "0.008" == (await stage.get("/fapi/v1/openInterest", symbol="BTCUSDT"))["openInterest"]
    sources = await stage.get("/fapi/v1/constituents", symbol="BTCUSDT")
    assert [("test", "50000.0", "1.00000000")] == [
        (row["exchange"], row["price"], row["weight"]) for row in sources["constituents"]
    ]
    assert (
        "0.00000000"
        == (await stage.get("/fapi/v1/insuranceBalance", symbol="BTCUSDT"))["assets"][0]["marginBalance"]
    )
    risks = await stage.get("/fapi/v1/symbolAdlRisk")
    assert [("BTCUSDT", "high"), ("ETHUSDT", "low")] == [(row["symbol"], row["adlRisk"]) for row in risks]
    assert "USDTUSD" == (await stage.get("/fapi/v1/assetIndex", symbol="USDTUSD"))["symbol"]
    await stage.index("BTCUSDT", 501_000)
    statistics: dict[str, Any] = {"symbol": "BTCUSDT", "period": "5m"}
    (row,) = await stage.get("/futures/data/openInterestHist", **statistics)
    assert row["sumOpenInterest"] in ("0.000", "0.008")
    (ratio,) = await stage.get("/futures/data/takerlongshortRatio", **statistics)
    assert ("0.000", "0.008", "0.0000") == (ratio["buyVol"], ratio["sellVol"], ratio["buySellRatio"])
    (basis,) = await stage.get(
        "/futures/data/basis", pair="BTCUSDT", contractType="PERPETUAL", period="1h", limit=1
    )
    assert ("-210.0", "-0.00419161") == (basis["basis"], basis["basisRate"])


async def test_funding_that_was_settled(stage: Stage) -> None:
    """Each settlement with its time, rate and mark; the terms of the markets that have any."""
    rules = {"funding_interval_s": 3_600, "interest_rate": 10_000, "funding_cap": 300_000}
    await stage.list_market("SOLUSDT", **rules)
    for price_ticks in (1_000, 1_001, 1_002):
        await stage.index("SOLUSDT", price_ticks)
        stage.record.wait(3_600_000)
    rows = await stage.get("/fapi/v1/fundingRate", symbol="SOLUSDT")
    assert [("0.00010000", "100.1"), ("0.00010000", "100.2")] == [
        (row["fundingRate"], row["markPrice"]) for row in rows
    ]
    assert 3_600_000 == rows[1]["fundingTime"] - rows[0]["fundingTime"]
    assert 0 == rows[0]["fundingTime"] % 3_600_000
    assert rows[1:] == await stage.get("/fapi/v1/fundingRate", limit=1)
    assert rows[:1] == await stage.get("/fapi/v1/fundingRate", endTime=rows[0]["fundingTime"])
    assert rows[:1] == await stage.get("/fapi/v1/fundingRate", startTime=rows[0]["fundingTime"], limit=1)
    (terms,) = await stage.get("/fapi/v1/fundingInfo")
    assert ("SOLUSDT", "0.00300000", "-0.00300000", 1) == tuple(
        terms[name]
        for name in (
            "symbol",
            "adjustedFundingRateCap",
            "adjustedFundingRateFloor",
            "fundingIntervalHours",
        )
    )
    premium = await stage.get("/fapi/v1/premiumIndex", symbol="SOLUSDT")
    assert rows[1]["fundingTime"] + 3_600_000 == premium["nextFundingTime"]


@pytest.mark.parametrize(
    ("path", "parameters", "code"),
    [
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT"}, -1102),
        ("/fapi/v1/klines", {"symbol": "NONE", "interval": "1m"}, -1121),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, -1130),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, -1130),
        ("/fapi/v1/klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
        ("/fapi/v1/trades", {"symbol": "BTCUSDT", "limit": 1001}, -1130),
        ("/fapi/v1/trades", {"symbol": "BTCUSDT", "limit": "1e400"}, -1130),
        ("/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": "NaN"}, -1130),
        ("/fapi/v1/openInterest", {}, -1102),
        ("/fapi/v1/ticker/24hr", {"symbol": "btcusdt"}, -1121),
        ("/fapi/v1/ping", {"more": 1}, -1104),
    ],
)
async def test_bad_questions_are_refused(
    stage: Stage, path: str, parameters: dict[str, object], code: int
) -> None:
    """With the code for the parameter that is wrong."""
    assert code == (await stage.get(path, **parameters))["code"]


@pytest.mark.parametrize("name", ["startTime", "endTime"])
@pytest.mark.parametrize("interval", ["1m", "1M"])
async def test_times_far_away_are_no_trouble(stage: Stage, name: str, interval: str) -> None:
    """The largest number that can be sent, and 0."""
    for value in (0, 10**18 - 1):
        parameters = {"symbol": "BTCUSDT", "interval": interval, name: value}
        assert isinstance(await stage.get("/fapi/v1/klines", **parameters), list)


async def test_answers_are_what_the_rows_declare(stage: Stage) -> None:
    """Every unsigned call, asked as simply as it can be, answers what its row says."""
    simple = {
        "symbol": "BTCUSDT",
        "pair": "BTCUSDT",
        "interval": "5m",
        "period": "5m",
        "contractType": "PERPETUAL",
    }
    for row in ENDPOINTS:
        if row.security is Security.NONE:
            needed = {each.name: simple[each.name] for each in row.parameters if each.required}
            answer = await stage.get(row.path, **needed)
            msgspec.convert(answer, row.response)
