"""The answers of the trading and account calls have every field that Binance documents for them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchange.intake.trade.rows import ENDPOINTS

CATALOGUE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "fapi.md"
CALL = re.compile(r"^\*\*(\w+) (/\S+)\*\*.*?^- response: (.*?)$", re.MULTILINE | re.DOTALL)
# Named by example: markets as keys, and a book of indicators that nobody is judged by.
BY_MARKET = {("GET", "/fapi/v1/apiTradingStatus"): {"indicators", "updateTime"}}


def documented() -> Iterator[tuple[str, str, str]]:
    """Yield method, path and answer of every call of the catalogue."""
    if CATALOGUE.exists():
        for method, path, answer in CALL.findall(CATALOGUE.read_text()):
            yield method, path, answer.strip().strip("`")


def names_in(answer: str) -> set[str]:
    """Return all field names of a documented answer, those inside included."""
    return set(re.findall(r"(\w+):", answer.replace("str:Any", "")))


def names_of(kind: Any) -> set[str]:
    """Return all field names that an answer type can have, those inside included."""
    schemas = msgspec.json.schema_components([kind])[1]
    return {name for schema in schemas.values() for name in schema.get("properties", {})} | {
        inner
        for schema in schemas.values()
        for prop in schema.get("properties", {}).values()
        for inner in prop.get("properties", {})
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method} {row.path}")
def test_no_documented_field_is_missing(endpoint: Any) -> None:
    """Whatever a client reads from an answer at Binance, it finds here."""
    answers = {(method, path): answer for method, path, answer in documented()}
    if not answers:
        pytest.skip(f"the catalogue of the API is not beside the project ({CATALOGUE})")
    call = (endpoint.method, endpoint.path)
    wanted = BY_MARKET.get(call) or names_in(answers[call])
    if call == ("GET", "/fapi/v1/adlQuantile"):
        wanted -= {"LONG", "SHORT", "HEDGE", "BOTH"}
    assert set() == wanted - names_of(endpoint.response)


def test_every_documented_call_of_an_account_is_served_or_known_to_be_left_out() -> None:
    """Calls that are not served answer 404, and this list says which those are."""
    text = CATALOGUE.read_text() if CATALOGUE.exists() else ""
    if not text:
        pytest.skip(f"the catalogue of the API is not beside the project ({CATALOGUE})")
    part = text[text.index("#### REST: Trade") : text.index("#### WebSocket market streams")]
    calls = {(method, path) for method, path, _ in CALL.findall(part)}
    served = {(row.method, row.path) for row in ENDPOINTS}
    left_out = {path for method, path in calls - served}
    assert {
        "/fapi/v1/income/asyn",
        "/fapi/v1/income/asyn/id",
        "/fapi/v1/order/asyn",
        "/fapi/v1/order/asyn/id",
        "/fapi/v1/trade/asyn",
        "/fapi/v1/trade/asyn/id",
        "/fapi/v1/stock/contract",
    } == left_out
