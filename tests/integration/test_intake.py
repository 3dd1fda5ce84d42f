"""The intake over real sockets, with the real writer behind it on a log in memory."""

import asyncio
import hashlib
import hmac
import json
import time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner
from yarl import URL

import exchange.intake.admin
from events.appender import Appender, FrameRefusedError
from exchange.aggregate.units import AMOUNT_MAX
from exchange.decimals import money_text
from exchange.fold import Fold
from exchange.intake.admin_cli import app as admin_cli
from exchange.intake.specs import DEFAULT_FORMS
from tests.integration.processes import free_ports
from tests.planted import IN_DECIDING, plant
from tests.running_venue import DEADLINE_S, NOBODY, Account, Venue, start_intake
from tests.waiting import eventually


async def test_public_calls_describe_the_market(venue: Venue) -> None:
    """Anyone may ask for time, contracts, books and prices."""
    assert (200, {}) == await venue.send("GET", "/fapi/v1/ping")
    _, now = await venue.send("GET", "/fapi/v1/time")
    assert abs(now["serverTime"] - time.time() * 1000) < 5_000
    _, info = await venue.send("GET", "/fapi/v1/exchangeInfo")
    btc = info["symbols"][0]
    filters = {row["filterType"]: row for row in btc["filters"]}
    assert ("BTCUSDT", "TRADING", "PERPETUAL") == (btc["symbol"], btc["status"], btc["contractType"])
    assert ("0.1", "0.001") == (filters["PRICE_FILTER"]["tickSize"], filters["LOT_SIZE"]["stepSize"])
    assert ("0.400000", "0.8000") == (btc["maintMarginPercent"], btc["requiredMarginPercent"])
    _, premium = await venue.send("GET", "/fapi/v1/premiumIndex", "symbol=BTCUSDT")
    assert ("50000.0", "50000.0") == (premium["markPrice"], premium["indexPrice"])
    assert ("0.00010000", "0.00010000") == (premium["lastFundingRate"], premium["interestRate"])
    assert 0 < premium["nextFundingTime"] - premium["time"] <= 8 * 3_600_000
    assert 0 == premium["nextFundingTime"] % (8 * 3_600_000)
    _, every = await venue.send("GET", "/fapi/v1/premiumIndex")
    assert ["BTCUSDT", "ETHUSDT"] == [row["symbol"] for row in every]


async def test_an_order_rests_trades_and_is_remembered(venue: Venue) -> None:
    """NEW in the book, FILLED when met, and answered for afterwards from the projection."""
    alice, bob = await venue.account(), await venue.account()
    status, order = await alice.order(newClientOrderId="mine")
    assert (200, "NEW", "0.000", "mine") == (
        status,
        order["status"],
        order["executedQty"],
        order["clientOrderId"],
    )
    _, depth = await venue.send("GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=5")
    assert [["50000.0", "0.010"]] == depth["bids"]

    status, taken = await bob.order(
        side="SELL", type="MARKET", timeInForce=None, price=None, quantity="0.004", newOrderRespType="RESULT"
    )
    assert (200, "FILLED", "50000.00000000", "200.00000000") == (
        status,
        taken["status"],
        taken["avgPrice"],
        taken["cumQuote"],
    )
    _, still = await alice.call("GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="mine")
    assert ("PARTIALLY_FILLED", "0.004") == (still["status"], still["executedQty"])
    _, listed = await alice.call("GET", "/fapi/v1/openOrders")
    assert [still] == listed

    _, ended = await alice.call("DELETE", "/fapi/v1/order", symbol="BTCUSDT", orderId=order["orderId"])
    assert ("CANCELED", "0.004") == (ended["status"], ended["executedQty"])
    _, asked = await alice.call("GET", "/fapi/v1/order", symbol="BTCUSDT", orderId=order["orderId"])
    assert ended == asked
    assert (200, []) == await alice.call("GET", "/fapi/v1/openOrders", symbol="BTCUSDT")


async def test_what_no_order_meets_expires(venue: Venue) -> None:
    """An immediate-or-cancel order without a counterparty is accepted and EXPIRED."""
    alice = await venue.account()
    status, order = await alice.order(timeInForce="IOC", newOrderRespType="RESULT")
    assert (200, "EXPIRED", "0.00000000") == (status, order["status"], order["avgPrice"])
    assert order["clientOrderId"]


async def test_parameters_may_come_in_the_body(venue: Venue) -> None:
    """A signed form body is as good as a query string, and all orders of a market go at once."""
    alice = await venue.account()
    status, _ = await alice.call(
        "POST",
        "/fapi/v1/order",
        in_body=True,
        symbol="BTCUSDT",
        side="SELL",
        type="LIMIT",
        timeInForce="GTX",
        quantity="0.01",
        price="51000",
        positionSide="BOTH",
    )
    assert 200 == status
    status, done = await alice.call("DELETE", "/fapi/v1/allOpenOrders", symbol="BTCUSDT")
    assert (200, 200) == (status, done["code"])
    assert (200, []) == await alice.call("GET", "/fapi/v1/openOrders")


async def test_the_query_string_wins_over_the_body(venue: Venue) -> None:
    """Query and body are signed together without anything between them; the query's value counts."""
    alice = await venue.account()
    query = f"symbol=BTCUSDT&timestamp={int(time.time() * 1000)}"
    body = "symbol=NOWHERE&leverage=7"
    signature = hmac.new(alice.secret.encode(), (query + body).encode(), hashlib.sha256).hexdigest()
    url = URL(f"{venue.url}/fapi/v1/leverage?{query}&signature={signature}", encoded=True)
    async with venue.session.post(
        url, data=body.encode(), headers={"X-MBX-APIKEY": alice.api_key}
    ) as response:
        answer = await response.json()
    assert {"symbol": "BTCUSDT", "leverage": 7, "maxNotionalValue": "250000000.00000000"} == answer


BUY = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.01&price=50000"


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"symbol": "DOGEUSDT"}, -1121, "Invalid symbol."),
        ({"symbol": None}, -1102, "'symbol'"),
        ({"price": "50000.05"}, -4014, "Price not increased by tick size."),
        ({"price": "50000.000000001"}, -1111, "'price'"),
        ({"price": "-1"}, -4001, "Price less than 0."),
        ({"price": "0"}, -4001, "Price less than 0."),
        ({"price": "1"}, -4013, "Price less than min price."),
        ({"price": "99999999"}, -4002, "Price greater than max price."),
        ({"price": "99999999999999999999"}, -4002, "Price greater than max price."),
        ({"price": "1e5"}, -1130, "'price'"),
        ({"price": None}, -1102, "'price'"),
        ({"quantity": "0.0105"}, -4023, "Qty not increased by step size."),
        ({"quantity": "0"}, -4003, "Quantity less than or equal to zero."),
        ({"quantity": "1000.001"}, -4005, "Quantity greater than max quantity."),
        ({"quantity": None}, -1102, "'quantity'"),
        ({"side": "HOLD"}, -1117, "Invalid side."),
        ({"type": "ICEBERG"}, -1116, "Invalid orderType."),
        ({"type": "STOP_MARKET", "stopPrice": "1"}, -4120, "Order type not supported for this endpoint."),
        ({"type": "MARKET"}, -1106, "'price'"),
        ({"timeInForce": "GTB"}, -1115, "Invalid timeInForce."),
        ({"timeInForce": "GTD"}, -1102, "goodTillDate"),
        ({"timeInForce": None}, -1102, "'timeInForce'"),
        ({"positionSide": "UP"}, -1130, "positionSide"),
        ({"newClientOrderId": "no spaces"}, -1100, "'newClientOrderId'"),
        ({"newClientOrderId": "é"}, -1100, "'newClientOrderId'"),
        ({"icebergQty": "1"}, -1104, "'icebergQty'"),
        ({"recvWindow": "60001"}, -1131, "recvWindow"),
        ({"side": "HOLD", "symbol": "DOGEUSDT", "price": "1.23456789"}, -1117, "Invalid side."),
    ],
)
async def test_bad_orders_never_reach_the_log(
    venue: Venue, changes: dict[str, object], code: int, text: str
) -> None:
    """What cannot change with the log is refused at once, with Binance's code and a word for the field."""
    alice = await venue.account()
    before = venue.commands()
    status, error = await alice.order(**changes)
    assert (400, code) == (status, error["code"])
    assert text in error["msg"]
    assert before == venue.commands()


async def test_the_aggregate_refuses_what_depends_on_the_state(venue: Venue) -> None:
    """Duplicates, margin, reduce-only, post-only, fill-or-kill, leverage and modes have their codes."""
    alice = await venue.account("1000")
    assert 200 == (await alice.order(newClientOrderId="twice"))[0]
    orders = {
        -4116: {"newClientOrderId": "twice"},
        -2019: {"quantity": "10"},
        -2022: {"reduceOnly": "true", "side": "SELL"},
        -4164: {"quantity": "0.001", "price": "100"},
        -5021: {"timeInForce": "FOK"},
    }
    for code, changes in orders.items():
        status, error = await alice.order(**changes)
        assert (400, code) == (status, error["code"])
    bob = await venue.account("1000")
    status, error = await bob.order(side="SELL", timeInForce="GTX")
    assert (400, -5022) == (status, error["code"])
    for code, leverage in ((-4028, 126), (-4028, 0), (-4028, 10**17)):
        status, error = await alice.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=leverage)
        assert (400, code, f"Leverage {leverage} is not valid") == (status, error["code"], error["msg"])
    status, error = await alice.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    assert (400, -4047) == (status, error["code"])
    status, error = await bob.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="CROSSED")
    assert (400, {"code": -4046, "msg": "No need to change margin type."}) == (status, error)


async def test_orders_that_are_not_there(venue: Venue) -> None:
    """A cancel finds nothing (-2011), a question neither (-2013), and one of the ids must be named."""
    alice, bob = await venue.account(), await venue.account()
    _, order = await alice.order()
    of_alice = {"symbol": "BTCUSDT", "orderId": order["orderId"]}
    assert (400, {"code": -2011, "msg": "Unknown order sent."}) == await bob.call(
        "DELETE", "/fapi/v1/order", parameters=of_alice
    )
    assert (400, {"code": -2013, "msg": "Order does not exist."}) == await bob.call(
        "GET", "/fapi/v1/order", parameters=of_alice
    )
    for method in ("GET", "DELETE"):
        status, error = await bob.call(method, "/fapi/v1/order", symbol="BTCUSDT")
        assert (400, -1102) == (status, error["code"])
        assert "orderId" in error["msg"]


@pytest.mark.parametrize(
    ("api_key", "text", "status", "code"),
    [
        ("", BUY, 401, -2014),
        ("short", BUY, 401, -2014),
        (NOBODY, BUY, 401, -2015),
        (None, BUY, 400, -1102),
        (None, f"{BUY}&timestamp=soon", 400, -1102),
        (None, f"{BUY}&timestamp=1", 400, -1021),
        (None, f"{BUY}&timestamp=99999999999999", 400, -1021),
        (None, f"{BUY}&timestamp=NOW", 400, -1102),
        (None, f"{BUY}&timestamp=NOW&signature={'0' * 64}", 400, -1022),
        (None, f"{BUY}&timestamp=NOW&signature=%FF", 400, -1022),
        (None, f"{BUY}&symbol=ETHUSDT&timestamp=NOW&signature=0", 400, -1101),
        (None, "symbol=\udcff&timestamp=NOW&signature=0", 400, -1130),
    ],
)
async def test_requests_that_nobody_signed(
    venue: Venue, api_key: str | None, text: str, status: int, code: int
) -> None:
    """Key, then timestamp, then signature; none of these requests reaches the log."""
    alice = await venue.account()
    before = venue.commands()
    text = text.replace("NOW", str(int(time.time() * 1000)))
    url = venue.url.removeprefix("http://")
    host, port = url.split(":")
    key = alice.api_key if api_key is None else api_key
    request = (
        f"POST /fapi/v1/order?{text} HTTP/1.1\r\nHost: {url}\r\nX-MBX-APIKEY: {key}\r\n"
        "Connection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode("utf-8", "surrogateescape"))
    answer = (await reader.read()).decode()
    writer.close()
    assert f" {status} " in answer.splitlines()[0]
    assert f'"code":{code}' in answer
    assert before == venue.commands()


async def test_unknown_paths_and_long_bodies(venue: Venue) -> None:
    """Both are answered in the same form as everything else."""
    status, error = await venue.send("GET", "/fapi/v1/nothing")
    assert (404, -5000) == (status, error["code"])
    status, error = await venue.send("PATCH", "/fapi/v1/order")
    assert (404, -5000) == (status, error["code"])
    status, error = await venue.send("POST", "/fapi/v1/order", "x" * 70_000, api_key=NOBODY, in_body=True)
    assert (413, -1101) == (status, error["code"])
    status, error = await venue.send("GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=7")
    assert (400, -4021) == (status, error["code"])


async def test_account_and_positions_add_up(venue: Venue) -> None:
    """An isolated long: bucket, margin, profit and liquidation price are what the rules give."""
    alice, bob = await venue.account("10000"), await venue.account("10000")
    await alice.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
    await alice.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=10)
    assert 200 == (await bob.order(side="SELL", quantity="0.1"))[0]
    _, filled = await alice.order(quantity="0.1", newOrderRespType="RESULT")
    assert "FILLED" == filled["status"]

    _, rows = await alice.call("GET", "/fapi/v2/positionRisk", symbol="BTCUSDT")
    (row,) = rows
    assert ("0.100", "50000.00000000", "isolated", "10") == (
        row["positionAmt"],
        row["entryPrice"],
        row["marginType"],
        row["leverage"],
    )
    # 500 of margin; liquidated where 500 + 0.1 × (price − 50,000) = 0.1 × price × 0.4 %.
    assert "500.00000000" == row["isolatedWallet"]
    assert "45180.8" == row["liquidationPrice"]

    _, account = await alice.call("GET", "/fapi/v2/account")
    fee = Decimal("2.5")
    assert Decimal("10000") - fee == Decimal(account["totalWalletBalance"])
    assert Decimal("9500") - fee == Decimal(account["availableBalance"])
    assert ("500.00000000", "20.00000000") == (account["totalInitialMargin"], account["totalMaintMargin"])
    assert ["BTCUSDT", "ETHUSDT"] == [position["symbol"] for position in account["positions"]]
    assert account["assets"][0]["updateTime"] > 0

    _, state = await venue.admin("state")
    assert ("0.100", "TRADING") == (state["markets"][0]["open_interest"], state["markets"][0]["status"])
    _, flat = await bob.call("GET", "/fapi/v2/positionRisk", symbol="ETHUSDT")
    assert ("0.000", "0", "cross") == (
        flat[0]["positionAmt"],
        flat[0]["liquidationPrice"],
        flat[0]["marginType"],
    )


@pytest.mark.parametrize(
    ("path", "body", "code", "named"),
    [
        ("deposit", {"account_id": 99, "amount": "1"}, -1130, "account 99"),
        ("deposit", {"account_id": 2, "amount": "0"}, -1130, "amount"),
        ("deposit", {"account_id": 2, "amount": "-5"}, -1130, "amount"),
        ("deposit", {"account_id": 2, "amount": 5}, -1130, "amount"),
        ("deposit", {"account_id": 2, "amount": "9" * 30}, -1130, "amount"),
        ("deposit", {"amount": "1"}, -1130, "account_id"),
        ("deposit", {"account_id": 2, "amount": "1", "extra": 1}, -1130, "extra"),
        ("withdraw", {"account_id": 2, "amount": "99999"}, -2018, "amount"),
        ("account", {"deposit": "x"}, -1130, "deposit"),
        ("index", {"symbol": "NOWHERE", "price": "1"}, -1121, "symbol"),
        ("index", {"symbol": "BTCUSDT", "price": "50000.05"}, -1130, "price"),
        ("index", {"symbol": "BTCUSDT", "price": "0"}, -1130, "price"),
        ("market", {"symbol": "BTCUSDT"}, -1130, "base"),
        ("market/status", {"symbol": "BTCUSDT", "status": "OPEN"}, -1130, "status"),
        ("insurance", {"symbol": "NOWHERE", "amount": "1"}, -1121, "symbol"),
        ("deposit", [], -1130, "body"),
    ],
)
async def test_bad_admin_calls_name_the_field(
    venue: Venue, path: str, body: object, code: int, named: str
) -> None:
    """The administrator's listener refuses in the same form, with the aggregate's own words."""
    await venue.account("100")
    status, error = await venue.admin(path, body)
    assert (400, code) == (status, error["code"])
    assert named in error["msg"]


async def test_an_account_that_cannot_have_its_money_is_not_opened(venue: Venue) -> None:
    """A deposit beyond what all together may be is refused before there is an account."""
    await venue.account("1")
    commands = venue.commands()
    status, error = await venue.admin("account", {"deposit": money_text(AMOUNT_MAX)})
    assert (400, -1130) == (status, error["code"])
    assert f"deposit: at most {money_text(AMOUNT_MAX - 100_000_000)}" in error["msg"]
    assert commands == venue.commands()


async def test_a_deposit_that_fails_behind_the_account_leaves_its_key(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two deposits are checked at once: the answer has the error and the credentials."""
    monkeypatch.setattr(exchange.intake.admin, "AMOUNT_MAX", 2 * AMOUNT_MAX)
    await venue.account("1")
    status, answer = await venue.admin("account", {"deposit": money_text(AMOUNT_MAX)})
    assert (400, -1130) == (status, answer["code"])
    assert "account 3 was opened, but: amount" in answer["msg"]
    made = Account(venue, answer["account_id"], answer["api_key"], answer["secret"])
    status, balances = await made.call("GET", "/fapi/v2/account")
    assert (200, "0.00000000") == (status, balances["totalWalletBalance"])

    arguments = ["account", "create", "--deposit", money_text(AMOUNT_MAX), "--admin-url", venue.admin_url]
    shown = await asyncio.to_thread(CliRunner().invoke, admin_cli, arguments)
    assert 1 == shown.exit_code
    assert "refused: account 4 was opened" in shown.stderr
    assert {"account_id", "api_key", "secret"} == set(json.loads(shown.stdout))


async def test_admin_bodies_are_json(venue: Venue) -> None:
    """A page in a browser cannot post to the listener with a plain form."""
    async with venue.session.post(f"{venue.admin_url}/admin/v1/account", data=b"{}") as response:
        assert 415 == response.status
    async with venue.session.get(f"{venue.admin_url}/admin/v1/nothing") as response:
        assert (404, -1130) == (response.status, (await response.json())["code"])


async def test_admin_requests_are_addressed_to_this_machine(venue: Venue) -> None:
    """A page whose name resolves to the listener's address is refused; addresses and local names are not."""
    url, body = f"{venue.admin_url}/admin/v1/halt", {"reason": "a page asked"}
    for host in ("evil.example", "evil.example:8001", "127.0.0.1.evil.example"):
        async with venue.session.post(url, json=body, headers={"Host": host}) as response:
            assert (421, -1130) == (response.status, (await response.json())["code"])
    for host in ("localhost:8001", "intake", "[::1]:8001", "10.0.0.7"):
        async with venue.session.post(
            f"{venue.admin_url}/admin/v1/key/list", json={"account_id": 1}, headers={"Host": host}
        ) as response:
            assert 421 != response.status


async def test_insurance_is_allotted_to_a_market(venue: Venue) -> None:
    """The money passes through the fund's wallet to the market."""
    status, fund = await venue.admin("insurance", {"symbol": "ETHUSDT", "amount": "2500.5"})
    assert 200 == status
    assert "0.00000000" == fund["wallet"]
    assert [("ETHUSDT", "2500.50000000")] == [(row["symbol"], row["allotment"]) for row in fund["markets"]]


async def test_the_admin_command_line(venue: Venue, tmp_path: Path) -> None:
    """Accounts, money and prices from a terminal, with exit codes for refused, misused and unreachable."""

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(
            CliRunner().invoke, admin_cli, list(arguments), env={"FOLDEX_ADMIN_URL": venue.admin_url}
        )

    made = await run("account", "create", "--deposit", "250", "--json")
    assert 0 == made.exit_code, made.output
    assert '"account_id":2' in made.output
    assert '"wallet":"350.00000000"' in (await run("deposit", "2", "100", "--json")).output
    assert "100.00000000" in (await run("withdraw", "2", "250")).output
    assert '"mark":"50001.0"' in (await run("index", "BTCUSDT", "50001.0", "--json")).output
    assert "CANCEL_ONLY" in (await run("market", "status", "BTCUSDT", "cancel-only")).output
    assert '"listed":[]' in (await run("market", "list-defaults", "--json")).output
    # What the intake logs meanwhile, in this very process, stands before the answer.
    insured = json.loads((await run("insurance", "BTCUSDT", "2500.5", "--json")).stdout.splitlines()[-1])
    assert [("BTCUSDT", "2500.50000000")] == [(row["symbol"], row["allotment"]) for row in insured["markets"]]
    assert "2501.50000000" in (await run("insurance", "BTCUSDT", "1")).output
    file = tmp_path / "contract.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(DEFAULT_FORMS[0], symbol="NEWUSDT")))
    assert "NEWUSDT" in (await run("market", "list", str(file))).output
    assert 1 == (await run("market", "list", str(file))).exit_code
    file.write_text("{")
    assert 2 == (await run("market", "list", str(file))).exit_code
    assert 2 == (await run("market", "list", str(tmp_path / "none.json"))).exit_code
    state = await run("state")
    assert 0 == state.exit_code
    assert "digest" in state.output
    refused = await run("withdraw", "2", "101")
    assert 1 == refused.exit_code
    assert "refused: amount" in refused.stderr
    assert 2 == (await run("market", "status", "BTCUSDT", "sideways")).exit_code
    assert 2 == (await run("deposit", "two", "1")).exit_code
    closed = f"http://127.0.0.1:{free_ports()}"
    assert 3 == (await run("state", "--admin-url", closed)).exit_code


async def test_a_halt_from_the_command_line(venue: Venue) -> None:
    """Halted, nobody may order; the state says why; resumed, all go on. Both ask for a reason."""

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(
            CliRunner().invoke, admin_cli, list(arguments), env={"FOLDEX_ADMIN_URL": venue.admin_url}
        )

    alice = await venue.account()
    assert 2 == (await run("halt")).exit_code
    assert "drill" in (await run("halt", "--reason", "drill")).output
    assert '"halted":true,"halt_reason":"drill"' in (await run("state", "--json")).output
    assert "drill" in (await run("state")).output
    assert 1 == (await run("halt", "--reason", "again")).exit_code
    status, refused = await alice.order()
    assert (400, -4140) == (status, refused["code"])
    assert '"halted":false' in (await run("resume", "--reason", "over", "--json")).output
    status, _ = await alice.order()
    assert 200 == status


async def test_an_order_that_fails_is_an_unknown_error(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not executed; the third blocks the account until an administrator lets it trade again."""
    plant(monkeypatch.setattr, monkeypatch.setitem)
    alice = await venue.account()
    for _ in range(3):
        status, failed = await alice.order(newClientOrderId=IN_DECIDING)
        assert (500, -1000) == (status, failed["code"])
    status, blocked = await alice.order()
    assert (400, -4088) == (status, blocked["code"])
    _, state = await venue.admin("state")
    assert [alice.account_id] == state["blocked_accounts"]

    arguments = ["account", "unblock", str(alice.account_id), "--reason", "seen"]
    unblock = partial(CliRunner().invoke, admin_cli, [*arguments, "--admin-url", venue.admin_url])

    assert 0 == (await asyncio.to_thread(unblock)).exit_code
    status, _ = await alice.order()
    assert 200 == status
    assert 1 == (await asyncio.to_thread(unblock)).exit_code


async def test_another_intake_takes_over_the_keys(venue: Venue, tmp_path: Path) -> None:
    """A second intake with the same key file serves the same accounts; with another one it cannot."""
    alice = await venue.account()
    for key_file, status, code in ((venue.key_file, 200, None), (tmp_path / "other", 401, -2015)):
        stop = asyncio.Event()
        task, alice.venue.url, _ = await start_intake(venue.log, key_file, stop)
        got, answer = await alice.order()
        assert (status, code) == (got, answer.get("code"))
        stop.set()
        await task


async def test_stopping_finishes_what_is_under_way(venue: Venue) -> None:
    """Every order sent before the stop is answered, and the log holds each exactly once."""
    alice = await venue.account()
    sent = [asyncio.create_task(alice.order(price=str(40_000 + n))) for n in range(50)]
    await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
    venue.stop.set()
    await asyncio.wait_for(venue.intake, DEADLINE_S)
    answers = [task for task in sent if task.exception() is None]
    accepted = {task.result()[1]["orderId"] for task in answers if task.result()[0] == 200}
    fold = Fold(venue.log, lambda entry: None)
    await fold.catch_up()
    assert accepted == set(fold.state.accounts[alice.account_id].orders)
    assert accepted


async def test_a_replaced_intake_stops(venue: Venue) -> None:
    """When another process opens its name, none of its commands run any more: it says so and ends."""
    alice = await venue.account()
    usurper = Appender(venue.log, f"intake-{venue.url.rpartition(':')[2]}")
    await usurper.open()
    status, error = await alice.order()
    assert (503, -1001) == (status, error["code"])
    with pytest.raises(FrameRefusedError):
        await asyncio.wait_for(venue.intake, DEADLINE_S)
    await usurper.close()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("NONSENSE\r\n\r\n", 400),
        ("POST /fapi/v1/order HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST /fapi/v1/order HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nsymbol=", None),
    ],
)
async def test_what_is_not_http_is_refused_too(
    venue: Venue, request_text: str, status: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Garbage is answered in the same form, a caller that hangs up is not our defect, and service goes on."""
    host, port = venue.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_text.encode())
    if status is not None:
        async with asyncio.timeout(DEADLINE_S):
            answer = (await reader.read()).decode()
        assert f" {status} " in answer.splitlines()[0]
        assert '"code":-1130' in answer
    writer.close()
    await writer.wait_closed()
    assert (200, {}) == await venue.send("GET", "/fapi/v1/ping")
    assert "request_failed" not in capsys.readouterr().out


async def test_a_countdown_runs_out_in_a_quiet_market(venue: Venue) -> None:
    """Nothing else happens, and still an order is gone when its time has come."""
    alice = await venue.account()
    _, order = await alice.order()
    ends_ms = int(time.time() * 1000) + 700

    status, countdown = await alice.call(
        "POST", "/fapi/v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=700
    )

    assert (200, {"symbol": "BTCUSDT", "countdownTime": "700"}) == (status, countdown)

    async def is_over() -> bool:
        _, order_now = await alice.call("GET", "/fapi/v1/order", symbol="BTCUSDT", orderId=order["orderId"])
        found.update(order_now)
        return found["status"] != "NEW"

    found: dict[str, Any] = {}
    await eventually(is_over, "end of the countdown")
    assert "CANCELED" == found["status"]
    assert ends_ms <= found["updateTime"]
