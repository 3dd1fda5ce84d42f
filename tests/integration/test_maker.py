"""The house market maker on a running exchange: quotes, follows the index, survives its own death, leaves."""

import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from events.embedded import attach_or_start
from events.redis import RedisLog
from exchange.audit.replay import replay
from exchange.client import AccountApi, Connection, house_connection, open_account
from exchange.maker import MakerSettings
from exchange.supervisor import Supervisor
from tests.integration.processes import ROOT, free_ports
from tests.waiting import eventually

pytestmark = pytest.mark.slow

BTC = "BTCUSDT"
PREMIUM_INDEX_WEIGHT = 10


@pytest.fixture
async def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """An exchange with a maker, and an index of 100,000 for BTC."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    async with Supervisor(tmp_path / "log", port=free_ports(), maker=True) as supervisor:
        await _set_index(supervisor, "100000")
        yield supervisor


async def _set_index(supervisor: Supervisor, price: str) -> None:
    async with Connection(supervisor.admin_url) as admin:
        await admin.request("POST", "/admin/v1/index", body={"symbol": BTC, "price": price})


async def _state(supervisor: Supervisor) -> dict[str, Any]:
    async with Connection(supervisor.admin_url) as admin:
        state: dict[str, Any] = await admin.request("GET", "/admin/v1/state")
        return state


async def _depth(supervisor: Supervisor) -> tuple[list[Decimal], list[Decimal]]:
    async with Connection(supervisor.url) as public:
        book = await public.request("GET", "/fapi/v1/depth", f"symbol={BTC}&limit=20")
    return [Decimal(row[0]) for row in book["bids"]], [Decimal(row[0]) for row in book["asks"]]


async def _quotes_around(supervisor: Supervisor, index: int) -> None:
    """Wait until the book is the maker's whole ladder around an index."""
    levels = MakerSettings().levels

    async def is_quoted() -> bool:
        bids, asks = await _depth(supervisor)
        if (levels, levels) != (len(bids), len(asks)):
            return False
        return index * Decimal("0.995") < bids[-1] < index < asks[-1] < index * Decimal("1.005")

    await eventually(is_quoted, f"ladder around {index}")


async def _has_trades(public: Connection) -> bool:
    return bool(await public.request("GET", "/fapi/v1/trades", f"symbol={BTC}"))


async def test_the_house_taker_makes_candles(exchange: Supervisor) -> None:
    """Prices print without any trader, so that there are candles to look at."""
    async with Connection(exchange.url) as public:
        await eventually(lambda: _has_trades(public), "trades of the house taker")
        (*_, candle) = await public.request("GET", "/fapi/v1/klines", f"symbol={BTC}&interval=1m")
        assert candle[8] > 0


async def test_limits_on_this_machine_spare_the_house(exchange: Supervisor) -> None:
    """The house calls from an address of its own, so that a bot that is shut out does not stop the market."""
    async with house_connection(exchange.url) as house, aiohttp.ClientSession() as bot:
        await house.request("GET", "/fapi/v1/premiumIndex")
        async with bot.get(f"{exchange.url}/fapi/v1/time") as response:
            assert int(response.headers["X-MBX-USED-WEIGHT-1M"]) < PREMIUM_INDEX_WEIGHT


async def test_the_ladder_follows_the_index(exchange: Supervisor) -> None:
    """All levels on both sides around the index, and again after it has moved."""
    await _quotes_around(exchange, 100_000)

    await _set_index(exchange, "97000")

    await _quotes_around(exchange, 97_000)


async def test_what_is_taken_is_quoted_again(exchange: Supervisor) -> None:
    """A trader who buys the best level finds the ladder whole again, though the index stands still."""
    await _quotes_around(exchange, 100_000)
    async with Connection(exchange.admin_url) as admin, Connection(exchange.url) as public:
        trader = AccountApi(public, await open_account(admin, deposit="1000000", label="trader"))
        bought = await trader.market_order(BTC, "BUY", "1.000")
        assert ("FILLED", "1.000") == (bought["status"], await trader.position_size(BTC))

    await _quotes_around(exchange, 100_000)


async def test_a_killed_maker_trades_on_for_its_account(exchange: Supervisor) -> None:
    """After kill -9 it is the same account that quotes, and the old orders are gone."""
    await _quotes_around(exchange, 100_000)
    os.kill(exchange.pids["maker"], signal.SIGKILL)

    await _set_index(exchange, "105000")

    await _quotes_around(exchange, 105_000)
    async with Connection(exchange.url) as public:
        await eventually(lambda: _has_trades(public), "trades of the house taker")
    assert 2 == (await _state(exchange))["accounts"], "one maker, one taker"
    assert 0o600 == (exchange.data_dir / "maker.key").stat().st_mode & 0o777


async def test_a_stopped_maker_leaves_no_order(tmp_path: Path, exchange: Supervisor) -> None:
    """The exchange stops the maker before all others, and it takes its ladder with it."""
    await _quotes_around(exchange, 100_000)

    await exchange.stop()

    with attach_or_start(tmp_path / "log") as socket_path:
        log = RedisLog(socket_path)
        state = (await replay(log)).state
        await log.close()
    assert {} == state.accounts[2].orders == state.accounts[3].orders
