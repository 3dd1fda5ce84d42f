"""The trading calls over real sockets: every rule that clients trip over, and what becomes of orders."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.running_venue import Account, Venue, running_venue


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Run an exchange with BTCUSDT at 50,000 and ETHUSDT at 3,000."""
    async with running_venue(tmp_path) as made:
        yield made


async def ok(awaitable: Any) -> Any:
    """Return the body of an answer that must be a good one."""
    status, body = await awaitable
    assert 200 == status, body
    return body


async def code(awaitable: Any) -> int:
    """Return the code of an answer that must be a refusal."""
    status, body = await awaitable
    assert 400 == status, body
    found: int = body["code"]
    return found


async def get(account: Account, path: str, **parameters: object) -> Any:
    """Ask for something that must be answered."""
    return await ok(account.call("GET", f"/fapi/{path}", **parameters))


async def post(account: Account, path: str, **parameters: object) -> Any:
    """Do something that must succeed."""
    return await ok(account.call("POST", f"/fapi/{path}", **parameters))


async def opened(venue: Venue, quantity: str = "0.1") -> tuple[Account, Account]:
    """Return an account that is long at 50,000 and one that is short."""
    long, short = await venue.account(), await venue.account()
    await ok(short.order(side="SELL", quantity=quantity))
    await ok(long.order(quantity=quantity))
    return long, short


async def test_ack_shows_an_order_as_accepted_and_result_what_became_of_it(venue: Venue) -> None:
    """ACK, the default, is NEW without fills; RESULT has them, at once."""
    alice, bob = await venue.account(), await venue.account()
    await ok(bob.order(side="SELL", quantity="0.1"))
    ack = await ok(alice.order(quantity="0.02"))
    assert ("NEW", "0.000", "0.00000000") == (ack["status"], ack["executedQty"], ack["avgPrice"])
    result = await ok(alice.order(quantity="0.02", newOrderRespType="RESULT"))
    assert ("FILLED", "0.020", "50000.00000000") == (
        result["status"],
        result["executedQty"],
        result["avgPrice"],
    )
    found = await get(alice, "v1/order", symbol="BTCUSDT", orderId=ack["orderId"])
    assert "FILLED" == found["status"]


async def test_an_order_is_tested_by_the_rules_and_not_placed(venue: Venue) -> None:
    """What would pass is answered like an order; what would not, like its refusal; the log has neither."""
    alice = await venue.account()
    before = venue.commands()
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "49000"}
    answer = await post(alice, "v1/order/test", **order, quantity="0.01")
    assert (0, "NEW", "0.010") == (answer["orderId"], answer["status"], answer["origQty"])
    test = "/fapi/v1/order/test"
    assert -2019 == await code(alice.call("POST", test, **order, quantity="900"))
    assert -2022 == await code(alice.call("POST", test, **order, quantity="0.01", reduceOnly="true"))
    assert -4164 == await code(alice.call("POST", test, **{**order, "price": "49000"}, quantity="0.001"))
    gtx = order | {"timeInForce": "FOK"}
    assert -5021 == await code(alice.call("POST", test, **gtx, quantity="0.01"))
    assert before == venue.commands()
    assert [] == await get(alice, "v1/openOrders")


async def test_a_tested_order_is_answered_with_the_terms_that_it_would_have(venue: Venue) -> None:
    """As large as what it may reduce, like the order that is placed by the same request then."""
    long, _ = await opened(venue)
    closing = {"symbol": "BTCUSDT", "side": "SELL", "quantity": "0.5", "reduceOnly": "true"}
    for kind in ({"type": "LIMIT", "timeInForce": "GTC", "price": "50500"}, {"type": "MARKET"}):
        tested = await post(long, "v1/order/test", **closing, **kind)
        placed = await post(long, "v1/order", **closing, **kind)
        assert "0.100" == tested["origQty"]
        differing = {"orderId", "clientOrderId", "time", "updateTime"}
        assert differing >= {name for name, value in placed.items() if tested[name] != value}


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "MARKET", "price": None, "timeInForce": None},
        {"price": "49990"},
        {"price": "49990", "timeInForce": "IOC"},
    ],
)
async def test_a_reduce_only_order_larger_than_the_position_closes_it(
    venue: Venue, kind: dict[str, Any]
) -> None:
    """It is taken with what it can reduce, and the rest opens nothing; without a position it is -2022."""
    long, _ = await opened(venue)
    maker = await venue.account()
    await ok(maker.order(price="49990", quantity="0.3"))
    closing = kind | {"side": "SELL", "quantity": "0.5", "reduceOnly": "true", "newOrderRespType": "RESULT"}
    closed = await ok(long.order(**closing))
    assert ("FILLED", "0.100", "0.100") == (closed["status"], closed["origQty"], closed["executedQty"])
    assert [] == await get(long, "v3/positionRisk")
    assert [] == await get(long, "v1/openOrders")
    assert -2022 == await code(long.order(**closing))


NEW = {"symbol": "BTCUSDT", "type": "LIMIT"}


async def test_prices_are_taken_from_the_book(venue: Venue) -> None:
    """OPPONENT is the best price of the other side, QUEUE_n the n-th of one's own."""
    alice, bob = await venue.account(), await venue.account()
    for price in ("50100", "50200", "50300", "50400", "50500"):
        await ok(bob.order(side="SELL", quantity="0.01", price=price))
    match = {"price": None, "priceMatch": "OPPONENT"}
    assert -5041 == await code(bob.order(side="SELL", **match))
    taken = await ok(alice.order(**match, quantity="0.01", newOrderRespType="RESULT"))
    assert ("50100.0", "FILLED", "OPPONENT") == (taken["price"], taken["status"], taken["priceMatch"])
    queued = await ok(bob.order(side="SELL", price=None, priceMatch="QUEUE"))
    found = await get(bob, "v1/order", symbol="BTCUSDT", orderId=queued["orderId"])
    assert ("50200.0", "QUEUE") == (found["price"], found["priceMatch"])
    tested = await post(
        bob, "v1/order/test", **NEW, side="SELL", quantity="0.01", timeInForce="GTC", priceMatch="QUEUE"
    )
    assert ("50200.0", "QUEUE") == (tested["price"], tested["priceMatch"])
    assert -5041 == await code(bob.order(side="SELL", price=None, priceMatch="QUEUE_10"))
    assert -1106 == await code(alice.order(priceMatch="QUEUE"))
    assert -5038 == await code(
        alice.order(type="MARKET", timeInForce=None, price=None, priceMatch="OPPONENT")
    )


async def test_a_price_match_is_told_wherever_the_order_is(venue: Venue) -> None:
    """In lists, in the user stream, after an amendment, in a batch and behind a conditional order."""
    alice, bob = await venue.account(), await venue.account()
    for price in ("49000", "49100"):
        await ok(bob.order(price=price, quantity="0.01"))
    _, answer = await venue.send("POST", "/fapi/v1/listenKey", api_key=alice.api_key)
    async with venue.session.ws_connect(f"{venue.url}/ws/{answer['listenKey']}") as socket:
        placed = await ok(alice.order(price=None, priceMatch="QUEUE"))
        one = {"symbol": "BTCUSDT", "side": "BUY", "orderId": placed["orderId"], "quantity": "0.01"}
        await ok(bob.order(price="49200", quantity="0.01"))
        changed = await ok(alice.call("PUT", "/fapi/v1/order", **one, priceMatch="QUEUE"))
        told = [(await socket.receive_json())["o"] for _ in range(2)]
    assert [("NEW", "49100.0", "QUEUE"), ("AMENDMENT", "49200.0", "QUEUE")] == [
        (row["x"], row["p"], row["pm"]) for row in told
    ]
    assert ("49200.0", "QUEUE") == (changed["price"], changed["priceMatch"])
    for path in ("v1/openOrders", "v1/allOrders"):
        (row,) = await get(alice, path, symbol="BTCUSDT")
        assert ("49200.0", "QUEUE") == (row["price"], row["priceMatch"])
    changed = await ok(alice.call("PUT", "/fapi/v1/order", **one, price="49050"))
    assert "NONE" == changed["priceMatch"]
    batch = [NEW | {"side": "BUY", "quantity": "0.01", "timeInForce": "GTC", "priceMatch": "QUEUE"}]
    (made,) = await post(alice, "v1/batchOrders", batchOrders=json.dumps(batch))
    assert "QUEUE" == made["priceMatch"]


async def test_a_conditional_order_takes_its_price_when_it_triggers(venue: Venue) -> None:
    """It waits without a price, and its order has the one that the book gave."""
    alice, bob = await venue.account(), await venue.account()
    await ok(bob.order(price="48000", quantity="0.01"))
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "BUY", "type": "TAKE_PROFIT"}
    placed = await post(
        alice,
        "v1/algoOrder",
        **stop,
        quantity="0.01",
        triggerPrice="49000",
        workingType="MARK_PRICE",
        priceMatch="QUEUE",
    )
    assert ("QUEUE", "0.0") == (placed["priceMatch"], placed["price"])
    await venue.admin("index", {"symbol": "BTCUSDT", "price": "48900"})
    row = await get(alice, "v1/algoOrder", algoId=placed["algoId"])
    assert ("TRIGGERED", "QUEUE", "48000.0") == (row["algoStatus"], row["priceMatch"], row["price"])
    (order,) = await get(alice, "v1/openOrders", symbol="BTCUSDT")
    assert ("48000.0", "QUEUE") == (order["price"], order["priceMatch"])


async def test_a_protected_order_is_rejected_while_the_prices_are_apart(venue: Venue) -> None:
    """Last price 50,000, mark 46,900: more than the 5 % of exchangeInfo; that is told, and nothing placed."""
    long, _ = await opened(venue)
    contract = (await get(long, "v1/exchangeInfo"))["symbols"][0]
    assert Decimal("0.05") == Decimal(contract["triggerProtect"])
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET"}
    _, answer = await venue.send("POST", "/fapi/v1/listenKey", api_key=long.api_key)
    async with venue.session.ws_connect(
        f"{venue.url}/private/ws?listenKey={answer['listenKey']}&events=ALGO_UPDATE"
    ) as socket:
        placed = await post(
            long,
            "v1/algoOrder",
            **stop,
            quantity="0.1",
            triggerPrice="49000",
            workingType="MARK_PRICE",
            priceProtect="true",
        )
        assert placed["priceProtect"] is True
        await venue.admin("index", {"symbol": "BTCUSDT", "price": "46900"})
        told = [(await socket.receive_json())["o"] for _ in range(3)]
    assert ["NEW", "TRIGGERED", "REJECTED"] == [row["X"] for row in told]
    assert [True] * 3 == [row["pP"] for row in told]
    assert told[2]["rm"].startswith("priceProtect: mark ")
    row = await get(long, "v1/algoOrder", algoId=placed["algoId"])
    assert ("REJECTED", True, "") == (row["algoStatus"], row["priceProtect"], row["actualOrderId"])
    (position,) = await get(long, "v3/positionRisk")
    assert "0.100" == position["positionAmt"]


REFUSED_ORDERS: list[tuple[dict[str, Any], int]] = [
    ({"type": "STOP_MARKET", "timeInForce": None, "price": None, "stopPrice": "51000"}, -4120),
    ({"timeInForce": "GTD"}, -1102),
    ({"goodTillDate": 10**12}, -1106),
    ({"timeInForce": "GTD", "goodTillDate": 10**12}, -5040),
    ({"timeInForce": "GTD", "goodTillDate": 253_402_300_799_000}, -5040),
    ({"stopPrice": "51000"}, -1106),
    ({"closePosition": "true"}, -4136),
    ({"quantity": None}, -1102),
    ({"price": "50000.01"}, -4014),
    ({"quantity": "0.0001"}, -4023),
    ({"price": "1"}, -4013),
    ({"price": "90000"}, -4016),
    ({"reduceOnly": "true"}, -2022),
    ({"positionSide": "LONG"}, -4061),
    ({"type": "MARKET", "timeInForce": None, "price": None, "quantity": "121"}, -4005),
    ({"timeInForce": "RPI"}, -1115),
    ({"priceMatch": "QUEUE_7"}, -5037),
    ({"selfTradePreventionMode": "EXPIRE_ALL"}, -5039),
    ({"priceProtect": "true"}, -1130),
    ({"symbol": "NOPE"}, -1121),
]


async def test_orders_that_are_refused(venue: Venue) -> None:
    """Each with Binance's code."""
    trader = await venue.account()
    for parameters, expected in REFUSED_ORDERS:
        assert (parameters, expected) == (parameters, await code(trader.order(**parameters)))


async def test_a_good_till_date_may_be_beyond_all_clocks(venue: Venue) -> None:
    """Up to the year 9999 it is taken; an order until then does not end."""
    alice = await venue.account()
    soon = (int(time.time()) + 3600) * 1000
    order = await ok(alice.order(timeInForce="GTD", goodTillDate=soon + 123, price="49000"))
    assert ("GTD", soon) == (order["timeInForce"], order["goodTillDate"])
    await ok(alice.order(timeInForce="GTD", goodTillDate=253_402_300_798_000, price="49000"))
    assert 2 == len(await get(alice, "v1/openOrders", symbol="BTCUSDT"))


@pytest.mark.parametrize(
    ("mode", "resting", "arriving"),
    [
        ("EXPIRE_MAKER", "EXPIRED_IN_MATCH", "NEW"),
        ("EXPIRE_TAKER", "NEW", "EXPIRED_IN_MATCH"),
        ("EXPIRE_BOTH", "EXPIRED_IN_MATCH", "EXPIRED_IN_MATCH"),
        ("NONE", "FILLED", "FILLED"),
    ],
)
async def test_self_trades_are_prevented(venue: Venue, mode: str, resting: str, arriving: str) -> None:
    """The arriving order's choice counts; what expires for it is EXPIRED_IN_MATCH."""
    alice = await venue.account()
    first = await ok(alice.order(side="SELL"))
    second = await ok(alice.order(selfTradePreventionMode=mode, newOrderRespType="RESULT"))
    assert (mode, arriving) == (second["selfTradePreventionMode"], second["status"])
    found = await get(alice, "v1/order", symbol="BTCUSDT", orderId=first["orderId"])
    assert resting == found["status"]


async def test_hedge_mode_has_rules_of_its_own(venue: Venue) -> None:
    """Orders name a leg, and reduceOnly must not be sent."""
    alice, bob = await venue.account(), await venue.account()
    await post(alice, "v1/positionSide/dual", dualSidePosition="true")
    assert {"dualSidePosition": True} == await get(alice, "v1/positionSide/dual")
    assert -4059 == await code(alice.call("POST", "/fapi/v1/positionSide/dual", dualSidePosition="true"))
    assert -4061 == await code(alice.order())
    assert -1106 == await code(alice.order(positionSide="LONG", reduceOnly="true"))
    await ok(bob.order(side="SELL", quantity="0.1"))
    await ok(alice.order(positionSide="LONG", quantity="0.1"))
    rows = await get(alice, "v2/positionRisk", symbol="BTCUSDT")
    assert [("LONG", "0.100"), ("SHORT", "0.000")] == [(r["positionSide"], r["positionAmt"]) for r in rows]
    (trade,) = await get(alice, "v1/userTrades", symbol="BTCUSDT")
    assert ("LONG", "BUY", True, False) == (
        trade["positionSide"],
        trade["side"],
        trade["buyer"],
        trade["maker"],
    )


async def test_trades_are_numbered_in_each_market(venue: Venue) -> None:
    """Without gaps, in the account's trades and in the market's, from whatever number is asked for."""
    alice, bob = await venue.account(), await venue.account()
    for symbol, price in (("BTCUSDT", "50000"), ("ETHUSDT", "3000"), ("BTCUSDT", "50000")):
        await ok(bob.order(symbol=symbol, side="SELL", price=price, quantity="0.02"))
        await ok(alice.order(symbol=symbol, price=price, quantity="0.02"))
    for symbol, expected in (("BTCUSDT", [1, 2]), ("ETHUSDT", [1])):
        for path in ("v1/userTrades", "v1/trades", "v1/historicalTrades"):
            assert expected == [row["id"] for row in await get(alice, path, symbol=symbol)]
        aggregates = await get(alice, "v1/aggTrades", symbol=symbol)
        assert [(n, n, n) for n in expected] == [(row["a"], row["f"], row["l"]) for row in aggregates]
        for path in ("v1/userTrades", "v1/historicalTrades"):
            found = await get(alice, path, symbol=symbol, fromId=expected[-1])
            assert expected[-1:] == [row["id"] for row in found]


async def test_break_even_is_told_wherever_a_position_is(venue: Venue) -> None:
    """Entry price with the fees paid, the same in every answer and in the user stream."""
    long, short = await venue.account(), await venue.account()
    await ok(short.order(side="SELL", quantity="0.1"))
    _, answer = await venue.send("POST", "/fapi/v1/listenKey", api_key=long.api_key)
    async with venue.session.ws_connect(
        f"{venue.url}/private/ws?listenKey={answer['listenKey']}&events=ACCOUNT_UPDATE"
    ) as socket:
        await ok(long.order(quantity="0.1"))
        (told,) = (await socket.receive_json())["a"]["P"]
    assert ("50000.00000000", "50025.00000000") == (told["ep"], told["bep"])
    (risk,) = await get(long, "v2/positionRisk", symbol="BTCUSDT")
    (used,) = await get(long, "v3/positionRisk")
    held = (await get(long, "v2/account"))["positions"]
    rows = [risk, used, next(row for row in held if row["symbol"] == "BTCUSDT")]
    assert [("50000.00000000", "50025.00000000")] * 3 == [
        (row["entryPrice"], row["breakEvenPrice"]) for row in rows
    ]
    (other,) = await get(short, "v3/positionRisk")
    assert "49990.00000000" == other["breakEvenPrice"]


async def test_an_order_is_modified(venue: Venue) -> None:
    """Same number, another price and size, remembered as an amendment; rules have Binance's codes."""
    alice = await venue.account()
    order = await ok(alice.order(price="49000"))
    one = {"symbol": "BTCUSDT", "side": "BUY", "orderId": order["orderId"]}

    async def put(**parameters: object) -> Any:
        return await alice.call("PUT", "/fapi/v1/order", **{**one, **parameters})

    changed = await ok(put(quantity="0.02", price="49100", modifyId=7))
    assert (order["orderId"], "49100.0", "0.020", "NEW", 7) == (
        changed["orderId"],
        changed["price"],
        changed["origQty"],
        changed["status"],
        changed["modifyId"],
    )
    assert -5027 == await code(put(quantity="0.02", price="49100"))
    assert -1102 == await code(put(quantity="0.02"))
    assert -4014 == await code(put(quantity="0.02", price="49100.01"))
    assert -2013 == await code(put(quantity="0.02", price="49000", orderId=5))
    assert -5041 == await code(put(quantity="0.02", priceMatch="OPPONENT"))
    assert -1106 == await code(put(quantity="0.02", price="49000", priceMatch="QUEUE"))
    await ok(put(quantity="0.03", price="49100"))
    assert -1130 == await code(put(quantity="0.04", price="49100", reduceOnly="true"))
    rows = await get(alice, "v1/orderAmendment", symbol="BTCUSDT", orderId=order["orderId"])
    assert [2, 1] == [row["amendment"]["count"] for row in rows]
    assert {"before": "49000.0", "after": "49100.0"} == rows[1]["amendment"]["price"]
    assert {"before": "0.020", "after": "0.030"} == rows[0]["amendment"]["origQty"]


async def test_a_modification_that_leaves_nothing_open_cancels(venue: Venue) -> None:
    """No more than what is filled already, or a post-only order at a price that would trade: CANCELED."""
    alice, bob = await venue.account(), await venue.account()
    order = await ok(alice.order(quantity="0.05"))
    await ok(bob.order(side="SELL", quantity="0.02"))
    one = {"symbol": "BTCUSDT", "side": "BUY", "orderId": order["orderId"]}
    put = {"quantity": "0.02", "price": "49000"}
    gone = await ok(alice.call("PUT", "/fapi/v1/order", parameters=one | put))
    assert ("CANCELED", "0.020") == (gone["status"], gone["executedQty"])
    order = await ok(alice.order(timeInForce="GTX", price="49000"))
    await ok(bob.order(side="SELL", price="50500"))
    put = {"orderId": order["orderId"], "quantity": "0.02", "price": "50500"}
    gone = await ok(alice.call("PUT", "/fapi/v1/order", parameters=one | put))
    assert ("CANCELED", "0.000") == (gone["status"], gone["executedQty"])


async def test_batches_answer_in_order(venue: Venue) -> None:
    """One frame, and each element on its own: orders, and refusals of either kind, where they stood."""
    alice = await venue.account()
    order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
    batch = [
        order | {"quantity": "0.01", "price": "49000"},
        order | {"quantity": "0.01", "price": "49000.01"},
        order | {"quantity": 900, "price": 49000},
        order | {"quantity": 0.01, "price": 48000.0, "newClientOrderId": "mine"},
    ]
    frames = len(venue.log.commands)
    rows = await post(alice, "v1/batchOrders", batchOrders=json.dumps(batch))
    assert frames + 1 == len(venue.log.commands)
    assert ["NEW", -4014, -2019, "NEW"] == [row.get("status") or row["code"] for row in rows]
    assert "mine" == rows[3]["clientOrderId"]

    edits = [
        {
            "symbol": "BTCUSDT",
            "side": "BUY",
            "orderId": rows[0]["orderId"],
            "quantity": "0.02",
            "price": "48500",
        },
        {"symbol": "BTCUSDT", "side": "BUY", "orderId": 4, "quantity": "0.02", "price": "48500"},
    ]
    edited = await ok(alice.call("PUT", "/fapi/v1/batchOrders", batchOrders=json.dumps(edits)))
    assert [("48500.0", None), (None, -2013)] == [(row.get("price"), row.get("code")) for row in edited]

    gone = await ok(
        alice.call(
            "DELETE", "/fapi/v1/batchOrders", symbol="BTCUSDT", orderidlist=f"[{rows[0]['orderId']},4]"
        )
    )
    assert [("CANCELED", None), (None, -2011)] == [(row.get("status"), row.get("code")) for row in gone]
    gone = await ok(
        alice.call("DELETE", "/fapi/v1/batchOrders", symbol="BTCUSDT", origClientOrderIdList='["mine"]')
    )
    assert ["CANCELED"] == [row["status"] for row in gone]


MALFORMED_BATCHES: list[tuple[str, int | None]] = [
    ("[]", -4082),
    (json.dumps([{}] * 6), -4082),
    ("{}", -1102),
    ("[1]", -1102),
    ("[{", -1102),
    ('[{"a":' * 2_000, -1102),
    ('[{"symbol":"BTCUSDT","price":1e400}]', None),
    ('[{"symbol":["BTCUSDT"],"side":{"a":1}}]', None),
]


async def test_malformed_batches(venue: Venue) -> None:
    """A batch that is no list of up to five is refused whole; an element that is nothing, by itself."""
    trader = await venue.account()
    for batch, expected in MALFORMED_BATCHES:
        status, body = await trader.call("POST", "/fapi/v1/batchOrders", in_body=True, batchOrders=batch)
        if expected is None:
            assert 200 == status, body
            assert all(row["code"] < 0 for row in body)
        else:
            assert (batch, 400, expected) == (batch, status, body["code"])


async def test_all_orders_and_trades_are_paged(venue: Venue) -> None:
    """By number onwards, by time, and without either the newest; oldest first."""
    alice, bob = await venue.account(), await venue.account()
    ids = []
    for n in range(4):
        order = await ok(alice.order(price=str(49_000 + n), quantity="0.01"))
        ids.append(order["orderId"])
    await ok(alice.call("DELETE", "/fapi/v1/order", symbol="BTCUSDT", orderId=ids[0]))
    rows = await get(alice, "v1/allOrders", symbol="BTCUSDT")
    assert ids == [row["orderId"] for row in rows]
    assert ["CANCELED", "NEW"] == [row["status"] for row in rows[:2]]
    rows = await get(alice, "v1/allOrders", symbol="BTCUSDT", limit=2)
    assert ids[2:] == [row["orderId"] for row in rows]
    rows = await get(alice, "v1/allOrders", symbol="BTCUSDT", orderId=ids[1], limit=2)
    assert ids[1:3] == [row["orderId"] for row in rows]
    assert -4165 == await code(
        alice.call("GET", "/fapi/v1/allOrders", symbol="BTCUSDT", startTime=1, endTime=10**12)
    )
    assert -1023 == await code(
        alice.call("GET", "/fapi/v1/allOrders", symbol="BTCUSDT", startTime=2, endTime=1)
    )
    assert -1130 == await code(alice.call("GET", "/fapi/v1/allOrders", symbol="BTCUSDT", limit=0))

    await ok(bob.order(side="SELL", price="49000", quantity="0.03"))
    trades = await get(alice, "v1/userTrades", symbol="BTCUSDT")
    assert [("49003.0", True), ("49002.0", True), ("49001.0", True)] == [
        (row["price"], row["maker"]) for row in trades
    ]
    later = await get(alice, "v1/userTrades", symbol="BTCUSDT", fromId=trades[1]["id"])
    assert trades[1:] == later
    assert trades[:1] == await get(alice, "v1/userTrades", symbol="BTCUSDT", orderId=ids[3])
    assert Decimal(trades[0]["commission"]) == Decimal("0.01") * 49_003 * Decimal("0.0002")


async def test_an_open_order_is_one_that_is_open(venue: Venue) -> None:
    """GET openOrder knows nothing of an order that ended; the text is one that clients match."""
    alice = await venue.account()
    order = await ok(alice.order(price="49000"))
    one = {"symbol": "BTCUSDT", "orderId": order["orderId"]}
    assert "NEW" == (await get(alice, "v1/openOrder", **one))["status"]
    await ok(alice.call("DELETE", "/fapi/v1/order", **one))
    status, error = await alice.call("GET", "/fapi/v1/openOrder", **one)
    assert (400, -2013, "Order does not exist.") == (status, error["code"], error["msg"])
    status, error = await alice.call("DELETE", "/fapi/v1/order", **one)
    assert (400, -2011, "Unknown order sent.") == (status, error["code"], error["msg"])


async def test_conditional_orders_have_calls_of_their_own(venue: Venue) -> None:
    """Placed, listed, cancelled, triggered: NEW, CANCELED, TRIGGERED and FINISHED, with what was placed."""
    long, _ = await opened(venue)
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "workingType": "MARK_PRICE"}
    placed = await post(
        long,
        "v1/algoOrder",
        **stop,
        type="STOP_MARKET",
        triggerPrice="49000",
        quantity="0.1",
        reduceOnly="true",
    )
    assert ("NEW", "STOP_MARKET", "49000.0", "0.100", True) == (
        placed["algoStatus"],
        placed["orderType"],
        placed["triggerPrice"],
        placed["quantity"],
        placed["reduceOnly"],
    )
    other = await post(
        long, "v1/algoOrder", **stop, type="TAKE_PROFIT", triggerPrice="52000", price="52100",
        quantity="0.05", timeInForce="GTC", clientAlgoId="profit",
    )  # fmt: skip
    waiting = await get(long, "v1/openAlgoOrders", symbol="BTCUSDT")
    assert [placed["algoId"], other["algoId"]] == [row["algoId"] for row in waiting]
    gone = await ok(long.call("DELETE", "/fapi/v1/algoOrder", clientAlgoId="profit"))
    assert (other["algoId"], "200", "success") == (gone["algoId"], gone["code"], gone["msg"])
    assert "CANCELED" == (await get(long, "v1/algoOrder", algoId=other["algoId"]))["algoStatus"]
    status, error = await long.call("DELETE", "/fapi/v1/algoOrder", algoId=other["algoId"])
    assert (400, -2011) == (status, error["code"])

    maker = await venue.account("1000000")
    await ok(maker.order(price="48990", quantity="0.1"))
    await venue.admin("index", {"symbol": "BTCUSDT", "price": "48900"})
    row = await get(long, "v1/algoOrder", algoId=placed["algoId"])
    assert ("FINISHED", "48990.00000000", "0.100", "MARKET") == (
        row["algoStatus"],
        row["actualPrice"],
        row["actualQty"],
        row["actualType"],
    )
    order = await get(long, "v1/order", symbol="BTCUSDT", orderId=int(row["actualOrderId"]))
    assert ("FILLED", placed["clientAlgoId"]) == (order["status"], order["clientOrderId"])
    assert [] == await get(long, "v1/openAlgoOrders")
    assert ["FINISHED", "CANCELED"] == [
        row["algoStatus"] for row in await get(long, "v1/allAlgoOrders", symbol="BTCUSDT")
    ]


REFUSED_CONDITIONALS: list[tuple[dict[str, Any], int]] = [
    ({"type": "STOP_MARKET", "quantity": "0.01"}, -1102),
    ({"type": "STOP", "quantity": "0.01", "triggerPrice": "49000"}, -1102),
    ({"type": "STOP_MARKET", "quantity": "0.01", "triggerPrice": "49000", "price": "49000"}, -1106),
    ({"type": "STOP_MARKET", "quantity": "0.01", "triggerPrice": "51000"}, -2021),
    ({"type": "STOP_MARKET", "closePosition": "true", "quantity": "1", "triggerPrice": "49000"}, -4137),
    ({"type": "STOP", "closePosition": "true", "triggerPrice": "49000", "price": "49000"}, -4136),
    ({"type": "TRAILING_STOP_MARKET", "quantity": "0.01"}, -1102),
    ({"type": "TRAILING_STOP_MARKET", "quantity": "0.01", "callbackRate": "0.05"}, -2007),
    ({"type": "TRAILING_STOP_MARKET", "quantity": "0.01", "callbackRate": "10.1"}, -2007),
    ({"type": "LIMIT", "quantity": "0.01", "price": "49000", "triggerPrice": "1"}, -1116),
    ({"type": "STOP_MARKET", "quantity": "0.01", "triggerPrice": "49000", "priceMatch": "QUEUE"}, -5038),
    ({"type": "STOP", "quantity": "0.01", "triggerPrice": "49000", "priceMatch": "BEST"}, -5037),
    (
        {
            "type": "STOP",
            "quantity": "0.01",
            "triggerPrice": "49000",
            "price": "49000",
            "priceMatch": "QUEUE",
        },
        -1106,
    ),
    ({"type": "STOP_MARKET", "quantity": "0.01", "triggerPrice": "49000", "algoType": "VP"}, -1102),
]


async def test_conditional_orders_that_are_refused(venue: Venue) -> None:
    """Each with Binance's code."""
    trader = await venue.account()
    stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL"}
    for parameters, expected in REFUSED_CONDITIONALS:
        found = await code(trader.call("POST", "/fapi/v1/algoOrder", parameters=stop | parameters))
        assert (parameters, expected) == (parameters, found)


async def test_the_quantity_of_an_order_that_closes_may_be_zero(venue: Venue) -> None:
    """As the text of its refusal says; some clients always send one."""
    trader = await venue.account()
    stop = {"symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET", "triggerPrice": "49000"}
    closes = {"algoType": "CONDITIONAL", "closePosition": "true", "quantity": "0.000"}
    status, placed = await trader.call("POST", "/fapi/v1/algoOrder", parameters=stop | closes)
    assert (200, "0.000", True) == (status, placed["quantity"], placed["closePosition"])


async def test_a_second_order_that_closes_the_position_is_refused(venue: Venue) -> None:
    """Of one kind and direction there is one; the text is the one that clients look for."""
    long, _ = await opened(venue)
    closing = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "closePosition": "true"}
    stop = closing | {"type": "STOP_MARKET", "triggerPrice": "49000"}
    placed = await post(long, "v1/algoOrder", **stop)
    status, error = await long.call("POST", "/fapi/v1/algoOrder", **stop | {"triggerPrice": "48000"})
    assert (
        400,
        -4130,
        "An open stop or take profit order with GTE and closePosition in the direction is existing.",
    ) == (status, error["code"], error["msg"])
    await post(long, "v1/algoOrder", **closing, type="TAKE_PROFIT_MARKET", triggerPrice="51000")
    await ok(long.call("DELETE", "/fapi/v1/algoOrder", algoId=placed["algoId"]))
    await post(long, "v1/algoOrder", **stop | {"triggerPrice": "48000"})


async def test_old_conditional_types_are_taken_by_a_venue_that_says_so(tmp_path: Path) -> None:
    """On /order, under one number from waiting to filled, in open orders, cancelled like any other."""
    async with running_venue(tmp_path, legacy_conditional_orders=True) as venue:
        long, _ = await opened(venue)
        stop = {"side": "SELL", "type": "STOP_MARKET", "timeInForce": None, "price": None, "quantity": "0.05"}
        placed = await ok(long.order(**stop, stopPrice="49000", workingType="MARK_PRICE"))
        assert ("NEW", "STOP_MARKET", "49000.0") == (placed["status"], placed["type"], placed["stopPrice"])
        other = await ok(long.order(**stop, stopPrice="48000", newClientOrderId="second"))
        rows = await get(long, "v1/openOrders", symbol="BTCUSDT")
        assert [placed["orderId"], other["orderId"]] == [row["orderId"] for row in rows]
        gone = await ok(long.call("DELETE", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="second"))
        assert ("CANCELED", other["orderId"]) == (gone["status"], gone["orderId"])
        maker = await venue.account("1000000")
        await ok(maker.order(price="48990", quantity="0.1"))
        await venue.admin("index", {"symbol": "BTCUSDT", "price": "48900"})
        found = await get(long, "v1/order", symbol="BTCUSDT", orderId=placed["orderId"])
        assert ("FILLED", "MARKET", "STOP_MARKET", "48990.00000000") == (
            found["status"],
            found["type"],
            found["origType"],
            found["avgPrice"],
        )


async def test_many_requests_at_once_are_all_answered(venue: Venue) -> None:
    """Nothing is mixed up: each answer is that of its own order."""
    alice = await venue.account("1000000")
    orders = await asyncio.gather(
        *(alice.order(price=str(49_000 + n), quantity="0.01", newClientOrderId=f"n{n}") for n in range(50))
    )
    assert [f"n{n}" for n in range(50)] == [body["clientOrderId"] for _, body in orders]
    assert [f"{49_000 + n}.0" for n in range(50)] == [body["price"] for _, body in orders]
