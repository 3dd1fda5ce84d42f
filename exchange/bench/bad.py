"""Bad requests at speed, for the bench that sends good ones beside them.

What is measured is what they cost the exchange, so they cost their sender as little as can be: each is put
together from bytes that were made before and written to a socket; of an answer only the status is looked at.
"""

import asyncio
import hmac
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import urlsplit

import uvloop

from exchange.client import Credentials

CONNECTIONS = 16
PAUSE_S_MAX = 0.01
# Refusals are answered at a pace of their own, far below that of their sending.
ANSWERS_DEADLINE_S = 60.0
# Who sends bad requests has a machine of his own: his should not take the processors from the exchange.
NICE = 19
OLD_MS = 60_000
NS_PER_MS = 1_000_000
_ANSWER = b"HTTP/1.1 "
_REFUSED = b"HTTP/1.1 4"
_ORDER = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity={quantity}&price=40000&timestamp={time}"
_WRONG_SIGNATURE = "0" * 64


def send_bad(url: str, owner: Credentials, rate: float, seconds: float) -> dict[str, int]:
    """Send bad requests at a steady rate; return how many were sent, answered and refused.

    By turns: signed with another secret, a timestamp of a minute ago, a key that nobody has, a quantity that
    is no number (and rightly signed), a path that does not exist.
    """
    if os.nice(0) < NICE:
        os.nice(NICE)
    return uvloop.run(_Sender(url, owner).run(rate, seconds))


class _Sender:
    def __init__(self, url: str, owner: Credentials) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._owner = owner
        self._connections: list[_Connection] = []

    async def run(self, rate: float, seconds: float) -> dict[str, int]:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
            self._connections.append(connection)
        requests, writers = self._requests(), itertools.cycle(self._connections)
        count, gap_ns = int(rate * seconds), 1e9 / rate
        start_ns = time.perf_counter_ns()
        for n in range(count):
            # The next request's time is what is waited for.
            while (early_ns := start_ns + n * gap_ns - time.perf_counter_ns()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(min(early_ns / 1e9, PAUSE_S_MAX))
            next(writers).write(next(requests))
        deadline_s = time.monotonic() + ANSWERS_DEADLINE_S
        while self._count("answered") < count and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S_MAX)
        for connection in self._connections:
            connection.close()
        return {"sent": count, "answered": self._count("answered"), "refused": self._count("refused")}

    def _count(self, name: str) -> int:
        return sum(getattr(connection, name) for connection in self._connections)

    def _requests(self) -> Iterator[bytes]:
        secret = self._owner.secret.encode()

        def order(api_key: str, signature: str, **fields: object) -> bytes:
            query = _ORDER.format(**{"quantity": "0.003"} | fields)
            signed = signature or hmac.digest(secret, query.encode(), "sha256").hex()
            return self._request("POST", f"/fapi/v1/order?{query}&signature={signed}", api_key)

        api_key = self._owner.api_key
        kinds: tuple[Callable[[int], bytes], ...] = (
            lambda now_ms: order(api_key, _WRONG_SIGNATURE, time=now_ms),
            lambda now_ms: order(api_key, _WRONG_SIGNATURE, time=now_ms - OLD_MS),
            lambda now_ms: order("x" * len(api_key), _WRONG_SIGNATURE, time=now_ms),
            lambda now_ms: order(api_key, "", time=now_ms, quantity="NaN"),
            lambda now_ms: self._request("GET", f"/fapi/v9/order?timestamp={now_ms}", api_key),
        )
        for kind in itertools.cycle(kinds):
            yield kind(time.time_ns() // NS_PER_MS)

    def _request(self, method: str, target: str, api_key: str) -> bytes:
        head = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\nX-MBX-APIKEY: {api_key}\r\n\r\n"
        return head.encode()


class _Connection(asyncio.Protocol):
    """Counts answers by where each begins; they arrive whole, being small."""

    def __init__(self) -> None:
        self.answered = 0
        self.refused = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.answered += data.count(_ANSWER)
        self.refused += data.count(_REFUSED)

    def write(self, request: bytes) -> None:
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
