"""Mutated bytes: requests that are no HTTP any more, messages and frames of the WebSocket API.

Whatever comes in, there is no 500, no change of the state, no growing memory. `make soak` sends 100,000 of
each.
"""

import asyncio
import json
import os
import re
import resource
import time
from collections import Counter
from random import Random

import aiohttp
import pytest

from exchange.client import signed_query
from exchange.intake.limits import PACE_BURST
from tests.running_venue import DEADLINE_S, Account, Venue, own_address

COUNT = int(os.environ.get("FOLDEX_MUTATED_FRAMES", "500"))
AT_ONCE = 100
# What waits for the rest of a request is not answered; it is given up after this.
ANSWER_S = 0.5
GROWTH_MAX_KB = 150_000
NASTY = [
    b"NaN", b"1e400", b"-0", b"9" * 5_000, b"%00", b"%ED%A0%80", b"\xed\xa0\x80", b"\x00", b"[" * 2_000,
    b"{" * 2_000, b"&symbol=ETHUSDT", b"'", b'"', b"\r\n", b"\r\n\r\n", b"\xff\xfe", b"true", b"null",
    b"1.7976931348623159e308", b"Infinity", b"\\ud800", b"a" * 9_000, b"=", b"&&&", b"%", b"../..",
    b"${jndi}", b"-9223372036854775809",
]  # fmt: skip
STATUS = re.compile(rb"HTTP/[0-9]\.[0-9] (\d{3}) ")


def mutated(random: Random, whole: bytes) -> bytes:
    """Return bytes with one to three things wrong: cut, changed, doubled, put in, left out."""
    for _ in range(random.randint(1, 3)):
        here, there = sorted(random.randrange(len(whole) + 1) for _ in range(2))
        whole = random.choice(
            (
                lambda w, a, b: w[:b],
                lambda w, a, b: w[:a] + random.choice(NASTY) + w[a:],
                lambda w, a, b: w[:a] + random.choice(NASTY) + w[b:],
                lambda w, a, b: w[:a] + w[a:b] * 2 + w[b:],
                lambda w, a, b: w[:a] + w[b:],
                lambda w, a, b: w[:a] + random.randbytes(1) + w[a + 1 :],
            )
        )(whole, here, there)
    return whole


def request(account: Account, random: Random) -> bytes:
    """Return an order's request as bytes, signed by another secret than the account's."""
    parameters = {
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
        "quantity": "0.010", "price": "50000.0", "newClientOrderId": "mine",
    }  # fmt: skip
    text = signed_query(b"not the secret", parameters, time.time_ns() // 1_000_000)
    query, body = (text, "") if random.random() < 0.5 else ("", text)
    return (
        f"{random.choice(('POST', 'GET', 'DELETE', 'PUT'))} /fapi/v1/order?{query} HTTP/1.1\r\n"
        f"Host: localhost\r\nX-MBX-APIKEY: {account.api_key}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n{body}"
    ).encode()


async def send_raw(number: int, host: str, port: int, content: bytes) -> int:
    """Send bytes over a connection of their own; return the status of the answer, 0 without one."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=own_address(number))
    answer = b""
    try:
        writer.write(content)
        async with asyncio.timeout(ANSWER_S):
            answer = await reader.read(1_000)
    except (ConnectionError, TimeoutError):
        pass  # closed on us while we still wrote, or it waits for more
    finally:
        writer.close()
    found = STATUS.match(answer)
    assert found or not answer, answer[:200]
    return int(found[1]) if found else 0


@pytest.mark.soak
async def test_mutated_requests_change_nothing(venue: Venue) -> None:
    """Each is answered in form, or its connection closed; the log stays as it was."""
    alice, random = await venue.account(), Random(6)
    host, port = venue.url.removeprefix("http://").split(":")
    before = venue.commands()
    seen: Counter[int] = Counter()
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(0, COUNT, AT_ONCE):
        batch = [mutated(random, request(alice, random)) for _ in range(AT_ONCE)]
        calls = (send_raw(n, host, int(port), content) for n, content in enumerate(batch))
        seen.update(await asyncio.gather(*calls))
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown_kb
    assert not [status for status in seen if status >= 500], seen
    assert seen[400] + seen[401] > COUNT // 4, seen
    assert before == venue.commands()
    assert grown_kb < GROWTH_MAX_KB, f"{grown_kb} kB more"


@pytest.mark.soak
async def test_mutated_messages_change_nothing(venue: Venue) -> None:
    """Of messages and of raw frames alike: answered, or the connection ends; nobody is placed an order."""
    alice, random = await venue.account(), Random(7)
    before = venue.commands()
    url = f"{venue.url.replace('http', 'ws')}/ws-fapi/v1"
    params = {
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.010",
        "price": "50000.0", "apiKey": alice.api_key, "timestamp": time.time_ns() // 1_000_000,
        "recvWindow": 60_000, "signature": "0" * 64,
    }  # fmt: skip
    whole = json.dumps({"id": 1, "method": "order.place", "params": params}).encode()
    statuses: Counter[int] = Counter()
    sent = 0
    while sent < COUNT:
        connector = aiohttp.TCPConnector(local_addr=own_address(sent // PACE_BURST))
        async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect(url) as socket:
            for _ in range(PACE_BURST):
                sent += 1
                text = mutated(random, whole).decode("utf-8", "replace")
                await socket.send_str(text)
                message = await socket.receive(timeout=DEADLINE_S)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break  # too long
                statuses[json.loads(message.data)["status"]] += 1
    assert not [status for status in statuses if status >= 500], statuses
    assert statuses[400] > COUNT // 2, statuses
    assert before == venue.commands()


@pytest.mark.soak
async def test_broken_frames_end_the_connection(venue: Venue) -> None:
    """Random bytes instead of frames: the connection is closed, and others are served."""
    random = Random(8)
    host, port = venue.url.removeprefix("http://").split(":")
    hello = (
        b"GET /ws-fapi/v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for n in range(COUNT // 10):
        assert 101 == await send_raw(n, host, int(port), hello + random.randbytes(random.randint(1, 300)))
    assert (200, {}) == await venue.send("GET", "/fapi/v1/ping")
