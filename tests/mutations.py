"""Requests that must be refused: a good one of any endpoint, with at least one thing wrong in it."""

import hashlib
import hmac
import time
from dataclasses import dataclass
from random import Random
from urllib.parse import quote, quote_from_bytes

from exchange.intake.endpoint import Endpoint
from exchange.intake.endpoints import ENDPOINTS
from exchange.intake.front import BODY_BYTES_MAX

# What a client may send under a name; other names get a number.
SAMPLES = {
    "symbol": "BTCUSDT",
    "pair": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.010",
    "price": "50000.0",
    "triggerPrice": "40000.0",
    "algoType": "CONDITIONAL",
    "marginType": "ISOLATED",
    "interval": "1m",
    "period": "5m",
    "contractType": "PERPETUAL",
    "positionSide": "BOTH",
    "reduceOnly": "false",
    "dualSidePosition": "false",
    "multiAssetsMargin": "false",
    "newClientOrderId": "mine",
    "origClientOrderId": "mine",
    "clientAlgoId": "mine",
    "amount": "1",
}
# What no parameter takes, whatever its type.
GARBAGE = (
    "",
    "NaN",
    "-Infinity",
    "1e400",
    "0x10",
    "9" * 400,
    "-" * 30,
    "1.2.3",
    " ",
    "\x00",
    "\ud800",
    "٣",
    "[" * 2_000,
    '{"a":' * 500,
    "null",
    "'; --",
    "../../etc/passwd",
    "A" * 5_000,
    "💥",
)
# Names under which any text is looked up or passed on; garbage there may be refused later, or be fine.
_FREE = frozenset(
    {"newClientOrderId", "origClientOrderId", "clientAlgoId", "listenKey", "asset", "startTime", "endTime"}
)


@dataclass(frozen=True)
class Request:
    """What is sent, byte for byte, and what was done to it."""

    method: str
    target: str
    body: bytes
    headers: dict[str, str]
    defect: str


class Mutator:
    """Makes requests in the name of an account with a key."""

    def __init__(self, seed: int, api_key: str, secret: str) -> None:
        self._random = Random(seed)
        self._api_key = api_key
        self._secret = secret
        self._defects = (
            self._repeat,
            self._unknown,
            self._garbage,
            self._garbage,
            self._tamper,
            self._stale,
            self._break_escapes,
            self._raw_bytes,
            self._huge_body,
            self._no_such_path,
        )

    def request(self) -> Request:
        """Return the next request."""
        return self._random.choice(self._defects)(self._random.choice(ENDPOINTS))

    def _pairs(self, row: Endpoint) -> list[tuple[str, str]]:
        random = self._random
        return [
            (parameter.name, SAMPLES.get(parameter.name, str(random.randrange(1, 20))))
            for parameter in row.parameters
            if parameter.required or random.random() < 0.4
        ]

    def _send(
        self,
        row: Endpoint,
        pairs: list[tuple[str, str]],
        defect: str,
        *,
        raw: str = "",
        age_ms: int = 0,
        tamper: bool = False,
        body: bytes = b"",
    ) -> Request:
        """Put a request together; what is wrong in it is signed as well as the rest."""
        if row.security.is_signed:
            pairs = [*pairs, ("timestamp", str(int(time.time() * 1000) - age_ms))]
        text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in pairs) + raw
        headers = {"X-MBX-APIKEY": self._api_key} if row.security.name != "NONE" else {}
        if row.security.is_signed:
            signature = hmac.new(self._secret.encode(), text.encode() + body, hashlib.sha256).hexdigest()
            if tamper:
                signature = signature[:-1] + ("0" if signature[-1] != "0" else "1")
            text += f"&signature={signature}"
        in_body = not body and row.method in ("POST", "PUT") and self._random.random() < 0.5
        if in_body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return Request(row.method, row.path, text.encode(), headers, defect)
        return Request(row.method, f"{row.path}?{text}", body, headers, defect)

    def _repeat(self, row: Endpoint) -> Request:
        pairs = self._pairs(row) or [("a", "1")]
        return self._send(row, [*pairs, self._random.choice(pairs)], "repeated")

    def _unknown(self, row: Endpoint) -> Request:
        return self._send(row, [*self._pairs(row), ("unknownParameter", "1")], "unknown")

    def _garbage(self, row: Endpoint) -> Request:
        random = self._random
        names = [parameter.name for parameter in row.parameters if parameter.name not in _FREE]
        if not names:
            return self._unknown(row)
        name, garbage = random.choice(names), random.choice(GARBAGE[1:])
        pairs = [(known, value) for known, value in self._pairs(row) if known != name]
        pairs.insert(random.randrange(len(pairs) + 1), (name, garbage))
        return self._send(row, pairs, f"{name}={garbage[:12]!r}")

    def _tamper(self, row: Endpoint) -> Request:
        if not row.security.is_signed:
            return self._unknown(row)
        return self._send(row, self._pairs(row), "tampered", tamper=True)

    def _stale(self, row: Endpoint) -> Request:
        if not row.security.is_signed:
            return self._repeat(row)
        return self._send(row, self._pairs(row), "stale", age_ms=self._random.choice((10**6, -(10**6))))

    def _break_escapes(self, row: Endpoint) -> Request:
        raw = self._random.choice(("&%=1", "&%zz=%", "&a=%f", "&%ff%fe=%ed%a0%80", "&=&=1"))
        return self._send(row, self._pairs(row), "escapes", raw=raw)

    def _raw_bytes(self, row: Endpoint) -> Request:
        noise = quote_from_bytes(self._random.randbytes(self._random.randrange(1, 200)), safe="")
        return self._send(row, [*self._pairs(row)], "bytes", raw=f"&{noise}")

    def _huge_body(self, row: Endpoint) -> Request:
        pairs = [*self._pairs(row), ("unknownParameter", "1")]
        size = self._random.choice((10, 1_000, BODY_BYTES_MAX + 1))
        return self._send(row, pairs, "body", body=b"{" * size)

    def _no_such_path(self, row: Endpoint) -> Request:
        wrong = self._random.choice(("PATCH", "HEAD", "TRACE", "OPTIONS"))
        return Request(wrong, row.path, b"", {}, "method")


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")
