"""The README's first trade, run as it is but for the port."""

import re
from pathlib import Path

import pytest

from tests.compatibility.local import REASON, Local, call

README = Path(__file__).resolve().parents[2] / "README.md"


async def test_the_first_trade_is_filled(there: Local, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever pastes the lines has bought 0.01 BTC of what somebody offers."""
    pytest.importorskip("ccxt", reason=REASON)
    (snippet,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert "127.0.0.1:8000" in snippet
    await there.offer("SELL", "50000")
    names = {"API_KEY": there.account.api_key, "SECRET": there.account.secret}
    await call(exec, snippet.replace("127.0.0.1:8000", there.host), names)
    assert "closed 50000.0" in capsys.readouterr().out.splitlines()
