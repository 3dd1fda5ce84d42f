"""Weights and order counts over real sockets: what is told, what is refused, what still passes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import msgspec
import pytest
from yarl import URL

import exchange.intake.gate
from exchange.config import Enforce
from exchange.intake.limits import PACE_BURST, REFUSALS_MAX, Limits
from exchange.intake.wsapi.socket import BANNED_ANSWERS_MAX
from tests.running_venue import DEADLINE_S, Account, Venue, start_intake
from tests.waiting import eventually

DEPTH = "symbol=BTCUSDT&limit=100"
DEPTH_WEIGHT = 5
WINDOW = {"recvWindow": 60_000}
FLOOD_REQUESTS = 5_000


@asynccontextmanager
async def limited(
    venue: Venue, monkeypatch: pytest.MonkeyPatch, window_ms: int, **limits: int
) -> AsyncIterator[Venue]:
    """Lend a second intake of the venue that limits everybody; its clock begins a window now."""
    ahead_ms = window_ms - time.time_ns() // 1_000_000 % window_ms
    monkeypatch.setattr(exchange.intake.gate, "wall_clock_ms", lambda: time.time_ns() // 1_000_000 + ahead_ms)
    stop = asyncio.Event()
    wanted = Limits(enforce=Enforce.ALL, **limits)
    task, url, admin_url = await start_intake(venue.log, venue.key_file, stop, limits=wanted)
    yield replace(venue, url=url, admin_url=admin_url, stop=stop, intake=task)
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await task


async def test_too_much_is_429_then_418(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight used is told with every answer; who goes on is banned, with Retry-After all the while."""
    async with limited(venue, monkeypatch, 60_000, weight_1m=4 * DEPTH_WEIGHT) as small:
        url = f"{small.url}/fapi/v1/depth?{DEPTH}"
        for n in range(1, 5):
            async with small.session.get(url) as response:
                assert (200, str(n * DEPTH_WEIGHT)) == (
                    response.status,
                    response.headers["X-MBX-USED-WEIGHT-1M"],
                )
        for status in [429] * REFUSALS_MAX + [418] * 2:
            async with small.session.get(url) as response:
                error = await response.json()
                assert (status, -1003) == (response.status, error["code"]), error
                assert 0 < int(response.headers["Retry-After"]) <= 120
        async with small.session.get(f"{small.url}/fapi/v1/nowhere") as response:
            assert 418 == response.status
        async with small.session.get(f"{small.url}/ws-fapi/v1") as response:
            assert 418 == response.status


async def test_orders_are_limited_and_cancels_are_not_among_them(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-1015 with the counts in the headers; what takes orders back passes."""
    alice = await venue.account()
    async with limited(venue, monkeypatch, 10_000, orders_10s=3, weight_1m=10) as small:
        there = Account(small, alice.account_id, alice.api_key, alice.secret)
        for n in range(3):
            assert 200 == (await there.order(newClientOrderId=f"order-{n}", **WINDOW))[0]
        status, error = await there.order(**WINDOW)
        assert (429, -1015) == (status, error["code"])
        assert "3 orders per 10 SECOND" in error["msg"]
        while (await small.send("GET", "/fapi/v1/depth", DEPTH))[0] == 200:
            pass
        for n in range(3):
            status, _ = await there.call(
                "DELETE", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId=f"order-{n}", **WINDOW
            )
            assert 200 == status


async def test_a_socket_is_told_when_to_come_back(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WebSocket API answers 429 with the time at which the window is over."""
    async with (
        limited(venue, monkeypatch, 60_000, weight_1m=10) as small,
        small.session.ws_connect(f"{small.url.replace('http', 'ws')}/ws-fapi/v1") as socket,
    ):
        for n, status in enumerate([200] * 5 + [429], 1):
            await socket.send_str(f'{{"id": {n}, "method": "ping"}}')
            answer = msgspec.json.decode(await socket.receive_str())
            assert status == answer["status"], answer
        error = answer["error"]
        assert -1003 == error["code"]
        assert 0 < error["data"]["retryAfter"] - error["data"]["serverTime"] <= 60_000
        (weight,) = answer["rateLimits"]
        assert (10, 11) == (weight["limit"], weight["count"])


async def use_up(venue: Venue) -> None:
    """Ask until the address is banned."""
    while (await venue.send("GET", "/fapi/v1/depth", DEPTH))[0] != 418:
        pass


async def test_a_ban_meets_open_connections(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request over the WebSocket API is 418, and who goes on is disconnected; a stream is told on."""
    async with (
        limited(venue, monkeypatch, 60_000, weight_1m=20) as small,
        small.session.ws_connect(f"{small.url}/ws/btcusdt@markPrice@1s") as stream,
        small.session.ws_connect(f"{small.url}/ws-fapi/v1") as socket,
    ):
        await use_up(small)
        for n in range(BANNED_ANSWERS_MAX + 1):
            await socket.send_str(f'{{"id": {n}, "method": "{("ping", "session.status")[n % 2]}"}}')
            answer = msgspec.json.decode(await socket.receive_str(timeout=DEADLINE_S))
            assert (418, -1003) == (answer["status"], answer["error"]["code"])
            times = answer["error"]["data"]
            assert 0 < times["retryAfter"] - times["serverTime"] <= 120_000
        await socket.receive(timeout=DEADLINE_S)
        assert 1008 == socket.close_code
        await venue.admin("index", {"symbol": "BTCUSDT", "price": "50001"})
        told = msgspec.json.decode(await stream.receive_str(timeout=DEADLINE_S))
        while not told["i"].startswith("50001"):
            told = msgspec.json.decode(await stream.receive_str(timeout=DEADLINE_S))
        assert 418 == (await refusal(small, "/ws"))[0]


SOCKETS = ("/ws", "/stream", "/public/ws", "/market/stream", "/private/ws", "/ws-fapi/v1")


async def refusal(venue: Venue, path: str) -> tuple[int, int]:
    """Ask for a WebSocket that is not granted; return the status, and the seconds of Retry-After."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await venue.session.ws_connect(f"{venue.url}{path}")
    assert caught.value.headers is not None
    return caught.value.status, int(caught.value.headers.get("Retry-After", 0))


async def test_connection_attempts_are_limited(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """All paths of sockets count together, with what is no handshake; then 429, at last 418 everywhere."""
    async with limited(venue, monkeypatch, 300_000, connects_5m=len(SOCKETS) + 1) as small:
        for path in SOCKETS:
            async with small.session.ws_connect(f"{small.url}{path}"):
                pass
        async with small.session.get(f"{small.url}/ws") as response:
            assert (400, "5") == (response.status, response.headers["X-MBX-USED-WEIGHT-1M"])
        async with small.session.get(f"{small.url}/ws/nothing") as response:
            assert (429, -1003) == (response.status, (await response.json())["code"])
        for n in range(REFUSALS_MAX - 1):
            status, retry_s = await refusal(small, SOCKETS[n % len(SOCKETS)])
            assert 429 == status
            assert 0 < retry_s <= 300
        assert 418 == (await refusal(small, "/ws"))[0]
        for path in SOCKETS:
            status, retry_s = await refusal(small, path)
            assert 418 == status
            assert 0 < retry_s <= 120
        async with small.session.get(f"{small.url}/fapi/v1/ping") as response:
            assert 418 == response.status


async def test_connections_at_a_time_are_limited(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of streams and of the WebSocket API together; when one is closed there is room."""
    async with limited(venue, monkeypatch, 60_000, connections=2) as small:
        stream = await small.session.ws_connect(f"{small.url}/ws/btcusdt@trade")
        async with small.session.ws_connect(f"{small.url}/ws-fapi/v1"):
            for path in SOCKETS:
                assert (429, 0) == await refusal(small, path)
            await stream.close()

            async def is_let_in() -> bool:
                try:
                    async with small.session.ws_connect(f"{small.url}/ws"):
                        return True
                except aiohttp.WSServerHandshakeError:
                    return False

            await eventually(is_let_in, "room for another connection")
        async with small.session.get(f"{small.url}/fapi/v1/ping") as response:
            assert 200 == response.status


async def test_exchange_info_tells_the_numbers(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused by is what is told."""
    async with limited(venue, monkeypatch, 60_000, weight_1m=77, orders_10s=5, orders_1m=6) as small:
        _, info = await small.send("GET", "/fapi/v1/exchangeInfo")
    told = {(row["rateLimitType"], row["interval"]): row["limit"] for row in info["rateLimits"]}
    assert {("REQUEST_WEIGHT", "MINUTE"): 77, ("ORDERS", "SECOND"): 5, ("ORDERS", "MINUTE"): 6} == told


async def test_no_page_of_another_origin_may_read(venue: Venue) -> None:
    """There is no CORS: neither an answer nor a preflight allows it."""
    origin = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        async with venue.session.request(method, f"{venue.url}/fapi/v1/ping", headers=origin) as response:
            assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_an_empty_json_body_is_no_body(venue: Venue) -> None:
    """A client that says JSON and puts its parameters into the query string is understood."""
    alice = await venue.account()
    headers = {"X-MBX-APIKEY": alice.api_key, "Content-Type": "application/json;charset=utf-8"}
    async with venue.session.get(f"{venue.url}/fapi/v1/depth?{DEPTH}", headers=headers, data=b"") as response:
        assert 200 == response.status
    async with venue.session.get(
        f"{venue.url}/fapi/v1/depth", headers=headers, data=b'{"symbol":"BTCUSDT"}'
    ) as response:
        assert (400, -1102) == (response.status, (await response.json())["code"])


async def test_bad_requests_at_speed_wait_and_good_ones_do_not(venue: Venue) -> None:
    """Every request of a flood is refused as it must be; an order sent after it is served before its end."""
    account, count = await venue.account(), PACE_BURST + 100
    host, port = URL(venue.url).host, URL(venue.url).port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /fapi/v1/account HTTP/1.1\r\nHost: a\r\n\r\n" * count)

    async def read_answers() -> list[int]:
        codes = []
        for _ in range(count):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            codes.append(msgspec.json.decode(await reader.readexactly(length))["code"])
        return codes

    async with asyncio.timeout(DEADLINE_S):
        flood = asyncio.create_task(read_answers())
        status, order = await account.order()
        assert (200, "NEW") == (status, order["status"])
        assert not flood.done()
        assert [-5000] * count == await flood
    writer.close()


async def test_bad_messages_at_speed_wait_and_good_sockets_do_not(venue: Venue) -> None:
    """A connection's messages are read at the pace of its refusals, and another connection's are not."""
    url, count = f"{venue.url}/ws-fapi/v1", PACE_BURST + 100
    async with venue.session.ws_connect(url) as bad, venue.session.ws_connect(url) as good:
        for n in range(count):
            await bad.send_json({"id": n, "method": "account.status", "params": {"timestamp": 1}})
        await good.send_json({"id": "good", "method": "ping"})
        async with asyncio.timeout(DEADLINE_S):
            answer = await good.receive_json()
            assert ("good", 200) == (answer["id"], answer["status"])
            refusals = [await bad.receive_json() for _ in range(count)]
    assert list(range(count)) == [each["id"] for each in refusals]
    assert {-1102} == {each["error"]["code"] for each in refusals}


async def test_what_a_flood_sends_beyond_its_pace_stays_with_its_sender(venue: Venue) -> None:
    """A connection that is refused faster than it is answered is not read, so that nothing piles up here."""
    host, port = URL(venue.url).host, URL(venue.url).port
    reader, writer = await asyncio.open_connection(host, port)
    request = b"GET /fapi/v1/nowhere HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4_000 + b"\r\n\r\n"
    writer.write(request * FLOOD_REQUESTS)
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(PACE_BURST + 100):
            await reader.readuntil(b"}")
    # The rest is the kernel's, whose buffers between two sockets take some megabytes.
    unsent = writer.transport.get_write_buffer_size()
    assert unsent > len(request) * FLOOD_REQUESTS // 2
    writer.transport.abort()
