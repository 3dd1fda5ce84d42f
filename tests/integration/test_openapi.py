"""The API's description against the API: generated requests for every call, valid and not.

Whatever is generated, there is no 500, no status that the description does not name, and every answer has
the form that it says. `make soak` runs many more of them.
"""

import asyncio
import hashlib
import hmac
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from exchange.intake.endpoint import Endpoint
from exchange.intake.endpoints import ENDPOINTS
from exchange.intake.openapi import describe
from tests.running_venue import Account, Venue

EXAMPLES = int(os.environ.get("FOLDEX_API_EXAMPLES", "2"))
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
_SIGNED = ("timestamp", "recvWindow", "signature")
# Asked in the place of generated texts now and then, so that answers are not all refusals.
_KNOWN = {"symbol": "BTCUSDT", "pair": "BTCUSDT", "price": "50000", "quantity": "0.01", "limit": "5"}


def query_of(case: Any, account: Account, *, is_signed: bool, is_known: bool) -> str:
    """Return the query string of a generated request, signed."""
    sent = {name: value for name, value in (case.query or {}).items() if name not in _SIGNED}
    if is_known:
        sent |= {name: value for name, value in _KNOWN.items() if name in sent}
    if is_signed:
        sent["timestamp"] = time.time_ns() // 1_000_000
    text = urlencode(sent, doseq=True, errors="replace")
    if is_signed:
        text += "&signature=" + hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return text


class Prober:
    """Sends generated requests and holds the answers against the description."""

    def __init__(self, url: str, account: Account, session: requests.Session) -> None:
        self.seen: Counter[int] = Counter()
        self._url = url
        self._account = account
        self._session = session
        self._sent = 0

    def probe(self, row: Endpoint, case: Any) -> None:
        """Send one request of a row."""
        self._sent += 1
        is_signed, is_known = row.security.is_signed, self._sent % 2 == 0
        query = query_of(case, self._account, is_signed=is_signed, is_known=is_known)
        answer = self._session.request(row.method, f"{self._url}{row.path}?{query}", timeout=20)
        assert answer.status_code < 500, f"{row.method} {row.path}?{query}: {answer.text}"
        self.seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    def probe_all(self) -> None:
        """Send generated requests to every call."""
        rows = {(row.method, row.path): row for row in ENDPOINTS}
        asked = settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        for result in schemathesis.openapi.from_dict(describe(ENDPOINTS)).get_all_operations():
            operation = result.ok()
            row = rows[operation.method.upper(), operation.path]
            for mode in GenerationMode:
                if mode is GenerationMode.NEGATIVE and not row.parameters:
                    continue
                generated = given(case=operation.as_strategy(generation_mode=mode))
                asked(generated(_check_of(self, row)))()


def _check_of(prober: Prober, row: Endpoint) -> Callable[..., None]:
    def check(case: Any) -> None:
        prober.probe(row, case)

    return check


@pytest.mark.soak
async def test_answers_are_as_described(venue: Venue) -> None:
    """Every row of the table, with generated parameters and an account that may do everything."""
    alice, bob = await venue.account(), await venue.account()
    # Something to tell about: a trade, open orders, a position on either side.
    await bob.order(side="SELL", quantity="0.02")
    await alice.order(quantity="0.01")
    _, made = await venue.admin(
        "key",
        {"account_id": alice.account_id, "permissions": ["read", "trade", "withdraw", "administer"]},
    )
    whole = Account(venue, alice.account_id, made["api_key"], made["secret"])
    with requests.Session() as session:
        session.headers["X-MBX-APIKEY"] = whole.api_key
        prober = Prober(venue.url, whole, session)
        await asyncio.to_thread(prober.probe_all)
    seen = prober.seen
    assert seen[200] > len(ENDPOINTS) // 2, seen
    assert {200, 400} <= set(seen), seen


async def test_the_description_is_served(venue: Venue) -> None:
    """As the command prints it, with every call in it."""
    status, document = await venue.send("GET", "/foldex/v1/openapi.json")
    assert (200, "3.1.0") == (status, document["openapi"])
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(row.method, row.path) for row in ENDPOINTS} == described
    order = document["paths"]["/fapi/v1/order"]["post"]
    sides = next(row["schema"] for row in order["parameters"] if row["name"] == "side")
    assert (["BUY", "SELL"], "trade", 0) == (sides["enum"], order["x-permission"], order["x-weight"])
