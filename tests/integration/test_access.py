"""Who may call what: every row of the endpoint table and every method, against every way to be nobody."""

import asyncio
import base64
import hashlib
import hmac
import time
from typing import Any
from urllib.parse import quote

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from exchange.intake.access import NEEDED
from exchange.intake.admin_cli import app as admin_cli
from exchange.intake.endpoint import Endpoint, Security
from exchange.intake.endpoints import ENDPOINTS, ROUTES
from exchange.intake.wsapi.methods import METHODS
from tests.running_venue import NOBODY, Account, Venue

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


def lacking(row: Endpoint) -> list[str]:
    """Return all permissions but the one that a row needs."""
    return [name for name in EVERY if name != str(NEEDED[row.security].name).lower()]


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
    }
    await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": gone.api_key})
    before = venue.commands()

    async def refusals(row: Endpoint) -> dict[str, Refusal]:
        good, lacks = request(whole.secret), partial[row.security]
        cases = {
            "no key": ("", good),
            "a key of nobody": (NOBODY, good),
            "a removed key": (gone.api_key, request(gone.secret)),
            "without the permission": (lacks.api_key, request(lacks.secret)),
            "wrong address": (elsewhere.api_key, request(elsewhere.secret)),
        }
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
        "without the permission": (401, -2015),
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


async def test_no_method_lets_nobody_in(venue: Venue) -> None:
    """The same over the WebSocket API, with and without a session."""
    alice = await venue.account()
    elsewhere = await key(venue, alice.account_id, permissions=EVERY, networks=["10.0.0.0/8"])
    before = venue.commands()

    def params(account: Account, age_ms: int = 0) -> dict[str, Any]:
        sent = {"apiKey": account.api_key, "timestamp": time.time_ns() // 1_000_000 - age_ms}
        text = "&".join(f"{name}={sent[name]}" for name in sorted(sent))
        signature = hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return {**sent, "signature": signature}

    async with venue.session.ws_connect(f"{venue.url.replace('http', 'ws')}/ws-fapi/v1") as socket:
        for method, row in METHODS.items():
            if row.security is Security.NONE:
                continue
            lacks = await key(venue, alice.account_id, permissions=lacking(row))
            before += 1
            cases = [({}, -1102), (params(lacks), -2015), (params(elsewhere), -2015)]
            cases.append(({**params(alice), "apiKey": NOBODY}, -2015))
            if row.security.is_signed:
                cases.append((params(alice, age_ms=5_001), -1021))
                cases.append(({**params(alice), "recvWindow": 6_000}, -1022))
            for sent, code in cases:
                message = msgspec.json.encode({"id": 1, "method": method, "params": sent})
                await socket.send_str(message.decode())
                answer = msgspec.json.decode(await socket.receive_str())
                assert code == answer["error"]["code"], (method, sent, answer)
            await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": lacks.api_key})
            before += 1
    assert before == venue.commands()


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
    assert ("ed25519", ["withdraw"], []) == tuple(keys[added][n] for n in ("kind", "permissions", "networks"))
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
