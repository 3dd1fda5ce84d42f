"""The recipes in docs/clients.md: every Python snippet is run, word for word but for the address."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.local import REASON, Local, call, local

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """Return the page's snippets in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def stir(there: Local) -> None:
    """Let the account's stream have something to tell: python-binance's reader ends behind a message."""
    leverage = 20
    while True:
        leverage = 41 - leverage
        await there.account.call("POST", "/fapi/v1/leverage", symbol="ETHUSDT", leverage=leverage)
        await asyncio.sleep(0.2)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Local]:
    """Run an exchange."""
    async with local(tmp_path) as made:
        await made.offer("BUY", "49900")
        stirring = asyncio.create_task(stir(made))
        try:
            yield made
        finally:
            stirring.cancel()
            await asyncio.gather(stirring, return_exceptions=True)


async def test_python(there: Local) -> None:
    """They run one behind the other, as a reader would paste them."""
    for package in ("ccxt", "binance.um_futures", "binance.ws.streams", "binance_common"):
        pytest.importorskip(package, reason=REASON)
    names: dict[str, Any] = {"API_KEY": there.account.api_key, "SECRET": there.account.secret}
    snippets = blocks("python")
    assert 7 == len(snippets)
    for snippet in snippets:
        assert ADDRESS in snippet or "localised(" in snippet
        await call(exec, snippet.replace(ADDRESS, there.host), names)
    status, orders = await there.account.call("GET", "/fapi/v1/openOrders")
    # One each of ccxt, ccxt.pro and python-binance's two; the connector cancels its own.
    assert (200, 4) == (status, len(orders))


async def test_freqtrade(there: Local) -> None:
    """What its JSON gives to ccxt is enough for its start, and for an order."""
    ccxt = pytest.importorskip("ccxt", reason=REASON)
    (text,) = blocks("json")
    settings = json.loads(text.replace(ADDRESS, there.host))["exchange"]
    exchange = ccxt.binance(
        settings["ccxt_config"] | {"apiKey": there.account.api_key, "secret": there.account.secret}
    )
    await call(exchange.load_markets)
    assert set(settings["pair_whitelist"]) == set(exchange.symbols)
    pair = settings["pair_whitelist"][0]
    await call(exchange.set_margin_mode, "isolated", pair)
    await call(exchange.fetch_leverage_tiers)
    order = await call(exchange.create_order, pair, "limit", "buy", 0.01, 49_000)
    assert "open" == order["status"]
