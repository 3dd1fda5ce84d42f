"""Who may call what: every row of the endpoint table and every method, against every way to be nobody."""

import asyncio
import base64
import hashlib
import hmac
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner
from yarl import URL

from exchange.intake.access import NEEDED
from exchange.intake.admin_cli import app as admin_cli
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.endpoints import ENDPOINTS, ROUTES
from exchange.intake.wsapi.methods import METHODS
from tests.running_venue import DEADLINE_S, NOBODY, Account, Venue

Refusal = tuple[int, int]

NOT_ADMITTED = {-1021, -1022, -2014, -2015}
OWNED = [row for row in ENDPOINTS if row.security is not Security.NONE]
EVERY = ["read", "trade", "withdraw", "administer"]
# What a sample request says, so that only who asks is wrong with it.
SAMPLE = "symbol=BTCUSDT"


async def key(venue: Venue, account_id: int, **terms: Any) -> Account:
    """Give an account a further HMAC key."""
    status, made = await venue.admin("key", {"account_id": account_id, **terms})
    assert 200 == status, made
    return Account(venue, account_id, made["api_key"], made["secret"])


def refusal(answer: Any) -> Refusal:
    """Return status and code of an answer."""
    status, body = answer
    return status, body["code"]


def needed(row: Endpoint) -> str:
    """Return the name of the permission that a row needs."""
    return str(NEEDED[row.security].name).lower()


def lacking(row: Endpoint) -> list[str]:
    """Return all permissions but the one that a row needs; none where it is to read, which every key may."""
    return [] if needed(row) == "read" else [name for name in EVERY if name != needed(row)]


def request(secret: str, *, age_ms: int = 0) -> str:
    """Return a signed query string."""
    text = f"{SAMPLE}&timestamp={time.time_ns() // 1_000_000 - age_ms}"
    return f"{text}&signature={hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def test_the_table_says_who_may() -> None:
    """What changes something needs more than reading; only what is public asks for no key."""
    for row in ENDPOINTS:
        if row.method != "GET" and not row.path.endswith("listenKey"):
            assert row.security not in (Security.NONE, Security.KEY, Security.READ), row.path
    assert {row.method for row in ENDPOINTS} <= {"GET", "POST", "PUT", "DELETE"}
    assert len(ENDPOINTS) == len(ROUTES), "a row is there twice"


async def test_nobody_gets_in(venue: Venue) -> None:
    """Each row refuses each wrong key, time, signature and address with its own code; nothing is logged."""
    alice, bob = await venue.account(), await venue.account()
    whole = await key(venue, alice.account_id, permissions=EVERY)
    elsewhere = await key(venue, alice.account_id, permissions=EVERY, networks=["10.0.0.0/8", "::5"])
    gone = await key(venue, alice.account_id, permissions=EVERY)
    partial = {
        row.security: await key(venue, alice.account_id, permissions=lacking(row))
        for row in {row.security: row for row in OWNED}.values()
        if lacking(row)
    }
    await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": gone.api_key})
    before = venue.commands()

    async def refusals(row: Endpoint) -> dict[str, Refusal]:
        good, lacks = request(whole.secret), partial.get(row.security)
        cases = {
            "no key": ("", good),
            "a key of nobody": (NOBODY, good),
            "a removed key": (gone.api_key, request(gone.secret)),
            "wrong address": (elsewhere.api_key, request(elsewhere.secret)),
        }
        if lacks is not None:
            cases["without the permission"] = (lacks.api_key, request(lacks.secret))
        if row.security.is_signed:
            cases |= {
                "another account's key": (bob.api_key, good),
                "expired": (whole.api_key, request(whole.secret, age_ms=5_001)),
                "a tampered byte": (whole.api_key, good.replace("BTC", "ETH")),
                "no signature": (whole.api_key, good.partition("&signature")[0]),
            }
        found = {}
        for name, (api_key, text) in cases.items():
            status, body = await venue.send(row.method, row.path, text, api_key=api_key)
            found[name] = (status, body["code"] if isinstance(body, dict) else 0)
        return found

    of_a_key = {
        "no key": (401, -2014),
        "a key of nobody": (401, -2015),
        "a removed key": (401, -2015),
        "wrong address": (401, -2015),
    }
    of_a_signature = {
        "another account's key": (400, -1022),
        "expired": (400, -1021),
        "a tampered byte": (400, -1022),
        "no signature": (400, -1102),
    }
    for row in OWNED:
        wanted = of_a_key | of_a_signature if row.security.is_signed else of_a_key
        if lacking(row):
            wanted = wanted | {"without the permission": (401, -2015)}
        if row.security in (Security.WITHDRAW, Security.ADMINISTER):
            # Bob's key lacks the permission itself, which is found first.
            wanted = wanted | {"another account's key": (401, -2015)}
        assert wanted == await refusals(row), f"{row.method} {row.path}"
    assert before == venue.commands()


async def test_the_owner_gets_in(venue: Venue) -> None:
    """With the right key each row answers for itself: its refusals are about what was asked, not by whom."""
    alice = await venue.account()
    whole = await key(venue, alice.account_id, permissions=EVERY, networks=["127.0.0.0/8"])
    for row in OWNED:
        status, body = await venue.send(row.method, row.path, request(whole.secret), api_key=whole.api_key)
        assert status < 500, f"{row.method} {row.path}: {body}"
        code = body.get("code") if isinstance(body, dict) else None
        assert status != 401, f"{row.method} {row.path}: {body}"
        assert code not in NOT_ADMITTED, f"{row.method} {row.path}: {body}"


async def test_a_key_may_read_and_what_it_was_given(venue: Venue) -> None:
    """With one permission alone: every call that reads, those that need it, and no other."""
    alice = await venue.account()
    for permission in EVERY:
        one = await key(venue, alice.account_id, permissions=[permission])
        for row in OWNED:
            answer = await venue.send(row.method, row.path, request(one.secret), api_key=one.api_key)
            code = answer[1].get("code") if isinstance(answer[1], dict) else None
            is_admitted = needed(row) in ("read", permission)
            assert is_admitted == (code not in NOT_ADMITTED), (
                f"{permission}: {row.method} {row.path}: {answer}"
            )


async def test_a_key_that_trades_sees_its_order(venue: Venue) -> None:
    """Over HTTP, over the WebSocket API and on its account's stream; it is listed as one that may read."""
    alice = await venue.account()
    trader = await key(venue, alice.account_id, permissions=["trade"])
    status, placed = await trader.order()
    assert 200 == status
    which = {"symbol": "BTCUSDT", "orderId": placed["orderId"]}
    status, seen = await trader.call("GET", "/fapi/v1/order", parameters=which)
    assert (200, "NEW") == (status, seen["status"])
    async with venue.session.ws_connect(f"{venue.url}/ws-fapi/v1") as socket:
        logged_on = await ask(socket, "session.logon", params(trader))
        assert trader.api_key == logged_on["result"]["apiKey"]
        now_ms = time.time_ns() // 1_000_000
        assert seen == (await ask(socket, "order.status", {**which, "timestamp": now_ms}))["result"]
    _, listed = await venue.admin("key/list", {"account_id": alice.account_id})
    assert ["read", "trade"] in [
        row["permissions"] for row in listed["keys"] if row["api_key"] == trader.api_key
    ]


def params(account: Account, age_ms: int = 0) -> dict[str, Any]:
    """Return signed parameters for the WebSocket API."""
    sent = {"apiKey": account.api_key, "timestamp": time.time_ns() // 1_000_000 - age_ms}
    text = "&".join(f"{name}={sent[name]}" for name in sorted(sent))
    signature = hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {**sent, "signature": signature}


async def ask(socket: aiohttp.ClientWebSocketResponse, method: str, sent: dict[str, Any]) -> Any:
    """Send a request over the WebSocket API and return the answer."""
    await socket.send_str(msgspec.json.encode({"id": 1, "method": method, "params": sent}).decode())
    return msgspec.json.decode(await socket.receive_str(timeout=DEADLINE_S))


async def test_no_method_lets_nobody_in(venue: Venue) -> None:
    """The same over the WebSocket API, `session.logon` included; what is public asks for no key there."""
    alice = await venue.account()
    elsewhere = await key(venue, alice.account_id, permissions=EVERY, networks=["10.0.0.0/8"])
    gone = await key(venue, alice.account_id, permissions=EVERY)
    others = {
        name: await key(venue, alice.account_id, permissions=[each for each in EVERY if each != name])
        for name in EVERY
    }
    await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": gone.api_key})
    before = venue.commands()
    async with venue.session.ws_connect(f"{venue.url}/ws-fapi/v1") as socket:
        for method in [*METHODS, "session.logon"]:
            row = METHODS.get(method)
            if row is not None and row.security is Security.NONE:
                answer = await ask(socket, method, {"symbol": "BTCUSDT"} if row.parameters else {})
                assert 200 == answer["status"], (method, answer)
                continue
            cases = [({}, -1102), (params(elsewhere), -2015), (params(gone), -2015)]
            cases.append(({**params(alice), "apiKey": NOBODY}, -2015))
            cases.append(({**params(alice), "apiKey": "short"}, -2014))
            if row is not None and lacking(row):
                cases.append((params(others[needed(row)]), -2015))
            if row is None or row.security.is_signed:
                cases.append((params(alice, age_ms=5_001), -1021))
                cases.append(({**params(alice), "recvWindow": 6_000}, -1022))
                cases.append(({**params(alice), "signature": ""}, -1102))
            for sent, code in cases:
                answer = await ask(socket, method, sent)
                assert code == answer["error"]["code"], (method, sent, answer)
        assert (await ask(socket, "session.status", {}))["result"]["apiKey"] is None
    assert before == venue.commands()


async def test_a_session_may_what_its_key_may(venue: Venue) -> None:
    """Logged on with one permission alone: every method that reads, those that need it, and no other."""
    alice = await venue.account()
    assert {"read", "trade"} == {needed(row) for row in METHODS.values() if row.security is not Security.NONE}
    async with venue.session.ws_connect(f"{venue.url}/ws-fapi/v1") as socket:
        for permission in EVERY:
            one = await key(venue, alice.account_id, permissions=[permission])
            assert 200 == (await ask(socket, "session.logon", params(one)))["status"]
            for method, row in METHODS.items():
                if row.security is Security.NONE:
                    continue
                sent = {"timestamp": time.time_ns() // 1_000_000} if row.security.is_signed else {}
                answer = await ask(socket, method, sent)
                code = answer.get("error", {}).get("code")
                is_admitted = needed(row) in ("read", permission)
                assert is_admitted == (code not in NOT_ADMITTED), (permission, method, answer)


async def test_an_accounts_stream_opens_by_its_listen_key_alone(venue: Venue) -> None:
    """On every route: not by an API key, another account's listen key, a part of it or one that ended."""
    alice, bob = await venue.account(), await venue.account()
    ended = (await alice.call("POST", "/fapi/v1/listenKey"))[1]["listenKey"]
    await alice.call("DELETE", "/fapi/v1/listenKey")
    live = (await alice.call("POST", "/fapi/v1/listenKey"))[1]["listenKey"]
    foreign = (await bob.call("POST", "/fapi/v1/listenKey"))[1]["listenKey"]
    wrong = [ended, foreign, alice.api_key, NOBODY, live[:-1], live.upper(), f"{live} ", f"{live}@depth"]
    assert live not in wrong
    routes = [
        f"{place}/{kind}" for place in ("", "/public", "/market", "/private") for kind in ("ws", "stream")
    ]
    async with AsyncExitStack() as opened:
        listening, deaf = [], []
        for route in routes:
            for address in (f"{route}/{live}", f"{route}?listenKey={live}"):
                url = f"{venue.url}{address}"
                listening.append(await opened.enter_async_context(venue.session.ws_connect(url)))
            names = "/".join(map(quote, wrong))
            for address in (f"{route}/{names}", f"{route}?streams={names}", f"{route}?listenKey={live[:-1]}"):
                url = URL(f"{venue.url}{address}", encoded=True)
                deaf.append(await opened.enter_async_context(venue.session.ws_connect(url)))
        assert 200 == (await alice.order())[0]
        for socket in listening:
            assert "ORDER_TRADE_UPDATE" in await socket.receive_str(timeout=DEADLINE_S)
        for socket in deaf:
            # Whatever the order had sent there would stand before this answer.
            await socket.send_str('{"id": 1, "method": "GET_PROPERTY", "params": ["combined"]}')
            assert 1 == msgspec.json.decode(await socket.receive_str(timeout=DEADLINE_S))["id"]


async def test_ed25519_signs_requests(venue: Venue) -> None:
    """In base64, percent-encoded or not; what it does not fit is -1022. The log holds no secret of it."""
    alice = await venue.account()
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    _, made = await venue.admin("key", {"account_id": alice.account_id, "public_key": pem})
    assert {"account_id", "api_key"} == set(made)
    for encode in (quote, lambda signature: quote(signature, safe=""), str):
        text = f"symbol=BTCUSDT&timestamp={time.time_ns() // 1_000_000}"
        signature = base64.b64encode(private.sign(text.encode())).decode()
        query = f"{text}&signature={encode(signature)}"
        status, body = await venue.send("GET", "/fapi/v1/openOrders", query, api_key=made["api_key"])
        assert (200, []) == (status, body)
    for wrong in (signature[:-4] + "AAA=", "00", "é", hmac.new(b"", b"", hashlib.sha256).hexdigest()):
        status, body = await venue.send(
            "GET", "/fapi/v1/openOrders", f"{text}&signature={quote(wrong)}", api_key=made["api_key"]
        )
        assert (400, -1022) == (status, body["code"])


async def test_keys_from_a_terminal(venue: Venue, tmp_path: Any) -> None:
    """Made with permissions and networks, listed without secrets, removed; what cannot be is refused."""

    async def run(*arguments: str) -> Any:
        """Run a command; its answer, or its result where it has none. Log lines may stand before it."""
        command = [*arguments, "--admin-url", venue.admin_url]
        result = await asyncio.to_thread(CliRunner().invoke, admin_cli, command)
        answers = [line for line in result.stdout.splitlines() if line.startswith("{")]
        return msgspec.json.decode(answers[0]) if answers else result

    account = await run("account", "create", "--permission", "read", "--network", "127.0.0.1", "--json")
    owner = Account(venue, account["account_id"], account["api_key"], account["secret"])
    assert 200 == (await owner.call("GET", "/fapi/v1/openOrders"))[0]
    assert (401, -2015) == refusal(await owner.order())

    number = str(owner.account_id)
    file = tmp_path / "public.pem"
    file.write_bytes(
        Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    more = await run("key", "add", number, "--permission", "withdraw", "--public-key", str(file), "--json")
    added = more["api_key"]
    listed = await run("key", "list", number, "--json")
    keys = {row["api_key"]: row for row in listed["keys"]}
    assert ("ed25519", ["read", "withdraw"], []) == tuple(
        keys[added][n] for n in ("kind", "permissions", "networks")
    )
    assert ("hmac", ["read"], ["127.0.0.1"]) == tuple(
        keys[owner.api_key][n] for n in ("kind", "permissions", "networks")
    )
    assert account["secret"] not in str(listed)
    removed = await run("key", "remove", number, owner.api_key)
    assert 0 == removed.exit_code, removed.output
    assert (401, -2015) == refusal(await owner.call("GET", "/fapi/v1/openOrders"))
    file.write_text("no key")
    for wrong in (("--network", "here"), ("--public-key", str(file))):
        refused = await run("key", "add", number, *wrong)
        assert 1 == refused.exit_code
        assert "networks:" in refused.stderr or "public_key:" in refused.stderr
