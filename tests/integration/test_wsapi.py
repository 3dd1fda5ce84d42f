"""The WebSocket API over a real socket: sessions, signatures, many requests at once, limits, slow readers."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs
from yarl import URL

import exchange.intake.wsapi.server
import exchange.intake.wsapi.socket
from events.commands import AddApiKey
from events.values import KeyPermission
from exchange.intake.endpoint import Security
from exchange.intake.keys import KeyRing, Secret, load_key_file
from exchange.intake.wsapi.methods import METHODS
from exchange.intake.wsapi.socket import Socket
from tests.integration.test_statements import decided
from tests.running_venue import DEADLINE_S, NOBODY, Account, Venue
from tests.waiting import eventually

# Of SO_LINGER: closing is a reset.
RESET = struct.pack("ii", 1, 0)
ORDER = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.010",
    "price": "50000.0",
}


def handshake(path: str) -> bytes:
    """Return a request for a WebSocket."""
    return (
        f"GET /{path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def now_ms() -> int:
    """Return the time for a request."""
    return int(time.time() * 1000)


def payload(params: dict[str, Any]) -> bytes:
    """Return what a signature covers."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params)).encode()


def signed(account: Account, **params: Any) -> dict[str, Any]:
    """Return parameters with key, time and HMAC signature."""
    params = {**params, "apiKey": account.api_key, "timestamp": now_ms()}
    signature = hmac.new(account.secret.encode(), payload(params), hashlib.sha256).hexdigest()
    return {**params, "signature": signature}


class Wire:
    """A connection to the API."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def ask(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> Any:
        """Send a request and return the next answer."""
        await self.socket.send_str(json.dumps({"id": id, "method": method, "params": params or {}}))
        return await self.answer()

    async def answer(self) -> Any:
        """Return the next answer."""
        return json.loads(await self.socket.receive_str(timeout=DEADLINE_S))


@asynccontextmanager
async def connected(venue: Venue, query: str = "") -> AsyncIterator[Wire]:
    """Lend a connection."""
    url = f"{venue.url.replace('http', 'ws')}/ws-fapi/v1{query}"
    async with venue.session.ws_connect(url) as socket:
        yield Wire(socket)


async def test_signed_orders_without_a_session(venue: Venue) -> None:
    """Place, ask, cancel: each request signs itself, and the answers are those of the HTTP calls."""
    alice = await venue.account()
    async with connected(venue) as wire:
        placed = await wire.ask("order.place", signed(alice, **ORDER), "a")
        assert ("a", 200, "NEW") == (placed["id"], placed["status"], placed["result"]["status"])
        limits = {(row["rateLimitType"], row["interval"]): row["count"] for row in placed["rateLimits"]}
        assert {("REQUEST_WEIGHT", "MINUTE"), ("ORDERS", "SECOND"), ("ORDERS", "MINUTE")} == set(limits)
        assert 1 == limits["ORDERS", "MINUTE"]
        which = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
        asked = await wire.ask("order.status", signed(alice, **which))
        _, over_http = await alice.call("GET", "/fapi/v1/order", parameters=which)
        assert over_http == asked["result"]
        ended = await wire.ask("order.cancel", signed(alice, **which, returnRateLimits="false"))
        assert ("CANCELED", False) == (ended["result"]["status"], "rateLimits" in ended)
        again = await wire.ask("order.cancel", signed(alice, **which))
        assert (400, {"code": -2011, "msg": "Unknown order sent."}) == (again["status"], again["error"])


async def test_numbers_may_be_numbers(venue: Venue) -> None:
    """A decimal is taken as it was written, and never passes through a binary fraction."""
    alice = await venue.account()
    params = {**ORDER, "quantity": 0.010, "price": 50000.1, "reduceOnly": "false"}
    async with connected(venue) as wire:
        placed = await wire.ask("order.place", signed(alice, **params))
        assert ("0.010", "50000.1") == (placed["result"]["origQty"], placed["result"]["price"])


async def test_a_price_match_and_a_break_even_price_over_a_socket(venue: Venue) -> None:
    """Placed, changed and asked for as over HTTP; so is the position that came of it."""
    alice, bob = await venue.account(), await venue.account()
    await bob.order(side="SELL", price="50100", quantity="0.1")
    matched = {"symbol": "BTCUSDT", "side": "BUY", "quantity": "0.1"}
    async with connected(venue) as wire:
        order = matched | {"type": "LIMIT", "timeInForce": "GTC"}
        refused = await wire.ask("order.place", signed(alice, **order, priceMatch="QUEUE"))
        assert -5041 == refused["error"]["code"]
        placed = await wire.ask("order.place", signed(alice, **order, price="50000"))
        which = matched | {"orderId": placed["result"]["orderId"]}
        changed = await wire.ask("order.modify", signed(alice, **which, priceMatch="OPPONENT"))
        assert ("OPPONENT", "50100.0") == (changed["result"]["priceMatch"], changed["result"]["price"])
        params = {"symbol": "BTCUSDT", "orderId": which["orderId"]}
        asked = await wire.ask("order.status", signed(alice, **params))
        assert ("FILLED", "OPPONENT") == (asked["result"]["status"], asked["result"]["priceMatch"])
        for method in ("account.position", "v2/account.position"):
            held = (await wire.ask(method, signed(alice, symbol="BTCUSDT")))["result"][0]
            assert ("50100.00000000", "50125.05000000") == (held["entryPrice"], held["breakEvenPrice"])


@pytest.mark.parametrize("kind", ["hmac", "ed25519"])
async def test_a_session_signs_once(venue: Venue, kind: str) -> None:
    """After the logon neither key nor signature is needed, until the logout; a removed key ends it."""
    alice = await venue.account()
    api_key, params = alice.api_key, signed(alice)
    if kind == "ed25519":
        private = Ed25519PrivateKey.generate()
        public = base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        _, made = await venue.admin("key", {"account_id": alice.account_id, "public_key": public})
        api_key = made["api_key"]
        assert "secret" not in made
        params = {"apiKey": api_key, "timestamp": now_ms()}
        params["signature"] = base64.b64encode(private.sign(payload(params))).decode()
    async with connected(venue) as wire:
        before = await wire.ask("session.status")
        assert (200, None) == (before["status"], before["result"]["apiKey"])
        stranger = await wire.ask("account.position", {"timestamp": now_ms()})
        assert -1102 == stranger["error"]["code"]
        logged_on = await wire.ask("session.logon", params)
        assert (200, api_key) == (logged_on["status"], logged_on["result"]["apiKey"])
        placed = await wire.ask("order.place", {**ORDER, "timestamp": now_ms()})
        assert 200 == placed["status"], placed
        stale = await wire.ask("order.place", {**ORDER, "timestamp": now_ms() - 6_000})
        assert -1021 == stale["error"]["code"]
        await wire.ask("session.logout")
        assert -1102 == (await wire.ask("order.place", {**ORDER, "timestamp": now_ms()}))["error"]["code"]
        await wire.ask("session.logon", params)
        await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": api_key})
        gone = await wire.ask("order.place", {**ORDER, "timestamp": now_ms()})
        assert (401, -2015) == (gone["status"], gone["error"]["code"])


async def test_a_session_is_over_with_its_key(venue: Venue) -> None:
    """A removed key is refused as over HTTP, the session says nobody is logged on, and a logon is refused."""
    alice = await venue.account()
    async with connected(venue) as wire:
        await wire.ask("session.logon", signed(alice))
        status = (await wire.ask("session.status"))["result"]
        assert (alice.api_key, True) == (status["apiKey"], status["authorizedSince"] > 0)
        await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": alice.api_key})
        status = (await wire.ask("session.status"))["result"]
        assert (None, None) == (status["apiKey"], status["authorizedSince"])
        for method in ("order.place", "account.status", "userDataStream.start"):
            asked = await wire.ask(method, {"timestamp": now_ms(), **(ORDER if "order" in method else {})})
            over_http = await alice.call(METHODS[method].method, METHODS[method].path)
            assert (401, -2015) == (asked["status"], asked["error"]["code"])
            assert (401, asked["error"]) == over_http
        assert -2015 == (await wire.ask("session.logon", signed(alice)))["error"]["code"]
        logged_out = await wire.ask("session.logout")
        assert (200, None) == (logged_out["status"], logged_out["result"]["apiKey"])
        assert -1102 == (await wire.ask("order.place", {**ORDER, "timestamp": now_ms()}))["error"]["code"]


@pytest.mark.parametrize("change", ["permissions", "networks", "owner", "nothing"])
async def test_a_session_is_over_when_its_key_changes(venue: Venue, change: str) -> None:
    """Terms change by a new key of the same text: who logged on with the old one did not with the new."""
    alice, bob = await venue.account(), await venue.account()
    terms: dict[str, Any] = {
        "permissions": {"permissions": KeyPermission.READ.value},
        "networks": {"networks": "10.0.0.0/8"},
        "owner": {"account_id": bob.account_id},
        "nothing": {},
    }[change]
    ring, api_key = KeyRing(load_key_file(venue.key_file)), alice.api_key
    sealed = ring.seal(api_key, Secret(alice.secret.encode()))
    added = {"account_id": alice.account_id, "api_key": api_key, "sealed_secret": sealed} | terms
    async with connected(venue) as wire:
        await wire.ask("session.logon", signed(alice))
        await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": api_key})
        await decided(venue, AddApiKey(**added))

        async def is_read() -> bool:
            _, found = await venue.admin("key/list", {"account_id": added["account_id"]})
            return api_key in {row["api_key"] for row in found["keys"]}

        await eventually(is_read, "key of the same text")
        assert (await wire.ask("session.status"))["result"]["apiKey"] is None
        for method, params in (("order.place", ORDER), ("account.status", {})):
            asked = await wire.ask(method, {**params, "timestamp": now_ms()})
            assert (401, -2015) == (asked["status"], asked["error"]["code"])
        again = await wire.ask("session.logon", signed(alice))
        assert (401 if change == "networks" else 200) == again["status"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"apiKey": "short"}, 401, -2014),
        ({"apiKey": NOBODY}, 401, -2015),
        ({"timestamp": "soon"}, 400, -1102),
        ({"timestamp": 1}, 400, -1021),
        ({"price": "50000.2"}, 400, -1022),
        ({"signature": "0"}, 400, -1022),
        ({"signature": None}, 400, -1102),
        ({"signature": "\ud800"}, 400, -1130),
    ],
)
async def test_requests_that_nobody_signed(
    venue: Venue, changes: dict[str, Any], status: int, code: int
) -> None:
    """Key, time, signature; what is wrong reaches no log."""
    alice = await venue.account()
    before = venue.commands()
    async with connected(venue) as wire:
        refused = await wire.ask("order.place", signed(alice, **ORDER) | changes)
        assert (status, code) == (refused["status"], refused["error"]["code"]), refused
    assert before == venue.commands()


@pytest.mark.parametrize(
    ("message", "id_"),
    [
        ("", None),
        ("{", None),
        ("[]", None),
        ('"x"', None),
        ('{"id": 1.5, "method": "ping"}', None),
        ('{"id": 7, "method": "nothing"}', 7),
        ('{"id": 7, "method": "ping", "params": []}', None),
        ('{"id": "%s", "method": "ping"}' % ("x" * 37), None),
        ('{"id": 7, "method": "depth", "params": {"symbol": ["BTCUSDT"]}}', 7),
        ('{"id": 7, "method": "depth", "params": {"symbol": "BTCUSDT", "limit": 1e400}}', 7),
        ('{"id": 7, "method": "depth", "params": {"symbol": "BTCUSDT", "limit": NaN}}', None),
        ('{"id": 7, "method": "depth", "params": {"symbol": "BTCUSDT", "limit": %s}}' % ("9" * 400), 7),
        ('{"id": 7, "method": "depth", "params": {"symbol": "BTCUSDT", "other": 1}}', 7),
        ("[" * 5_000, None),
    ],
)
async def test_what_is_no_request_is_answered(venue: Venue, message: str, id_: int | None) -> None:
    """400 with the id where there is one, and the connection stays."""
    async with connected(venue) as wire:
        await wire.socket.send_str(message)
        refused = await wire.answer()
        assert 400 == refused["status"], refused
        assert id_ is None or id_ == refused["id"]
        assert 200 == (await wire.ask("ping"))["status"]


async def test_long_and_binary_messages_end_the_connection(venue: Venue) -> None:
    """Both are closed with the code that says why."""
    for send, code in (("send_str", 1009), ("send_bytes", 1003)):
        async with connected(venue) as wire:
            content = "x" * 20_000 if send == "send_str" else b"{}"
            await getattr(wire.socket, send)(content)
            await wire.socket.receive(timeout=DEADLINE_S)
            assert code == wire.socket.close_code


async def test_answers_come_as_they_are_ready(venue: Venue) -> None:
    """A hundred orders are on their way at once; each answer has its request's id."""
    alice = await venue.account()
    async with connected(venue, "?returnRateLimits=false") as wire:
        await wire.ask("session.logon", signed(alice))
        for n in range(100):
            params = {**ORDER, "timestamp": now_ms(), "newClientOrderId": f"order-{n}", "quantity": "0.002"}
            await wire.socket.send_str(json.dumps({"id": n, "method": "order.place", "params": params}))
        answers = [await wire.answer() for _ in range(100)]
    assert set(range(100)) == {answer["id"] for answer in answers}
    assert all(f"order-{answer['id']}" == answer["result"]["clientOrderId"] for answer in answers)
    assert not any("rateLimits" in answer for answer in answers)


async def test_who_does_not_read_is_disconnected(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody takes are not kept for ever; others are served all the while."""
    monkeypatch.setattr(exchange.intake.wsapi.socket, "UNREAD_BYTES_MAX", 100_000)
    host, port = venue.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1_000)
    writer.write(
        f"GET /ws-fapi/v1 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    message = json.dumps({"id": "x" * 36, "method": "depth", "params": {"symbol": "BTCUSDT"}}).encode()
    frame = bytes((0x81, 0x80 | len(message), 0, 0, 0, 0)) + message
    assert len(message) < 126

    async def ask_for_ever() -> None:
        while True:
            writer.write(frame * 100)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(ask_for_ever(), DEADLINE_S)
    writer.close()
    async with connected(venue) as wire:
        assert 200 == (await wire.ask("ping"))["status"]


async def test_stopping_finishes_what_is_under_way(venue: Venue) -> None:
    """An open connection is closed as going away, and does not keep the intake from ending."""
    async with connected(venue) as wire:
        await wire.ask("ping")
        started_s = time.monotonic()
        venue.stop.set()
        await wire.socket.receive(timeout=DEADLINE_S)
        assert 1001 == wire.socket.close_code
        await asyncio.wait([venue.intake], timeout=DEADLINE_S)
        assert time.monotonic() - started_s < 5
    assert venue.intake.done()


async def test_a_plain_request_is_told_so(venue: Venue) -> None:
    """Who asks for no WebSocket gets an error as from everywhere else."""
    for path, status in (("/ws-fapi/v1", 400), ("/ws-fapi/v2", 404)):
        async with venue.session.get(f"{venue.url}{path}") as response:
            assert status == response.status
            assert "code" in await response.json()


async def test_every_method_answers(venue: Venue) -> None:
    """All that Binance's API has is there, and gives what its HTTP call gives."""
    alice = await venue.account()
    btc = {"symbol": "BTCUSDT"}
    async with connected(venue) as wire:

        async def result(method: str, **params: Any) -> Any:
            is_public = METHODS[method].security is Security.NONE
            answer = await wire.ask(method, params if is_public else signed(alice, **params))
            assert 200 == answer["status"], (method, answer)
            return answer["result"]

        placed = await result("order.place", **ORDER, newClientOrderId="mine")
        changed = await result(
            "order.modify", **btc, side="BUY", quantity="0.02", price="49000", orderId=placed["orderId"]
        )
        assert (placed["orderId"], "0.020") == (changed["orderId"], changed["origQty"])
        algo = await result(
            "algoOrder.place",
            **btc,
            algoType="CONDITIONAL",
            side="SELL",
            type="STOP_MARKET",
            quantity="0.01",
            triggerPrice="40000",
        )
        assert "200" == (await result("algoOrder.cancel", algoId=algo["algoId"]))["code"]
        for method in ("account.balance", "account.status", "account.position"):
            for name in (method, f"v2/{method}"):
                row = METHODS[name]
                _, over_http = await alice.call(row.method, row.path)
                assert shape(over_http) == shape(await result(name)), name
        assert [["49000.0", "0.020"]] == (await result("depth", **btc))["bids"]
        assert "49000.0" == (await result("ticker.book", **btc))["bidPrice"]
        assert "BTCUSDT" == (await result("ticker.price", **btc))["symbol"]
        assert {} == await result("ping")
        assert abs((await result("time"))["serverTime"] - now_ms()) < DEADLINE_S * 1_000
        listen_key = (await result("userDataStream.start"))["listenKey"]
        assert listen_key == (await result("userDataStream.ping"))["listenKey"]
        assert {} == await result("userDataStream.stop")
    assert 20 == len(METHODS)


def shape(answer: Any) -> Any:
    """Return an answer's fields without their values."""
    if isinstance(answer, dict):
        return {name: shape(value) for name, value in answer.items()}
    return [shape(value) for value in answer] if isinstance(answer, list) else type(answer)


async def test_only_so_many_connections(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than there may be is told to come back; when another ends there is room."""
    monkeypatch.setattr(exchange.intake.wsapi.server, "CONNECTIONS_MAX", 1)
    url = f"{venue.url.replace('http', 'ws')}/ws-fapi/v1"
    async with connected(venue) as wire:
        await wire.ask("ping")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await venue.session.ws_connect(url)
        assert 503 == caught.value.status

    async def is_let_in() -> bool:
        try:
            async with connected(venue) as again:
                return 200 == (await again.ask("ping"))["status"]
        except aiohttp.WSServerHandshakeError:
            return False

    await eventually(is_let_in, "room for another connection")


@pytest.mark.parametrize("path", ["ws", "ws-fapi/v1"])
async def test_a_handshake_of_somebody_who_is_gone_is_no_defect(
    venue: Venue, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged as a failure, which anybody could make pages of."""
    host, port = URL(venue.url).host, URL(venue.url).port
    with capture_logs() as lines:
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, port)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.write(handshake(path))
            writer.transport.abort()
        # Handled after all of those.
        async with venue.session.get(f"{venue.url}/fapi/v1/ping") as response:
            assert 200 == response.status
    assert [] == [line for line in lines if line["log_level"] == "error"]
    assert [] == caplog.records


async def test_who_only_pings_is_disconnected(venue: Venue) -> None:
    """A few are answered, and pongs are taken; what costs no weight is bounded by the second."""
    async with venue.session.ws_connect(f"{venue.url}/ws-fapi/v1", autoping=False) as socket:
        await socket.pong(b"alive")
        await socket.ping(b"there?")
        answer = await socket.receive(timeout=DEADLINE_S)
        assert (aiohttp.WSMsgType.PONG, b"there?") == (answer.type, answer.data)
        await socket.send_json({"id": 1, "method": "ping"})
        assert 200 == (await socket.receive_json(timeout=DEADLINE_S))["status"]
        # Too many for one second, wherever among them the next one begins.
        for _ in range(2 * exchange.intake.wsapi.socket.CONTROLS_PER_S_MAX + 1):
            await socket.ping()
        async with asyncio.timeout(DEADLINE_S):
            while (await socket.receive()).type is aiohttp.WSMsgType.PONG:
                pass
        assert aiohttp.WSCloseCode.POLICY_VIOLATION == socket.close_code


async def test_others_have_their_turn_while_one_sends(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of messages that came together a few are taken in each turn of the loop."""
    taken, worst, count = 0, 0, 3_000
    receive = Socket.receive

    def counted(socket: Socket, text: str) -> bool:
        nonlocal taken
        taken += 1
        return receive(socket, text)

    monkeypatch.setattr(Socket, "receive", counted)
    host, port = URL(venue.url).host, URL(venue.url).port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(handshake("ws-fapi/v1"))
    await reader.readuntil(b"\r\n\r\n")
    text = b'{"id":1,"method":"ping"}'
    writer.write((bytes((0x81, 0x80 | len(text))) + bytes(4) + text) * count)
    async with asyncio.timeout(DEADLINE_S):
        while taken < count:
            before = taken
            await asyncio.sleep(0)
            worst = max(worst, taken - before)
    writer.transport.abort()
    assert worst <= 2 * exchange.intake.wsapi.socket.MESSAGES_PER_TURN
