"""User-data streams over real sockets: what an account is told by its listen key."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.running_venue import DEADLINE_S, Account, Venue


async def listen_key(account: Account) -> str:
    """Return an account's live listen key."""
    status, answer = await account.venue.send("POST", "/fapi/v1/listenKey", api_key=account.api_key)
    assert 200 == status, answer
    return str(answer["listenKey"])


async def read_until(socket: aiohttp.ClientWebSocketResponse, kind: str) -> list[dict[str, Any]]:
    """Read messages up to the first of a kind."""
    messages = []
    async with asyncio.timeout(DEADLINE_S):
        while not messages or messages[-1].get("e") != kind:
            messages.append(await socket.receive_json())
    return messages


async def has_heard_nothing(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Return whether the answer to a request is the first thing that a socket hears."""
    await socket.send_json({"id": 7, "method": "LIST_SUBSCRIPTIONS"})
    async with asyncio.timeout(DEADLINE_S):
        return (await socket.receive_json()).get("id") == 7


@pytest.mark.parametrize("path", ["/ws/{key}", "/private/ws?listenKey={key}", "/ws?listenKey={key}"])
async def test_a_fill_is_told_on_every_route(venue: Venue, path: str) -> None:
    """The order, its fill and the balances arrive in the order of the log."""
    alice, bob = await venue.account(), await venue.account()
    key = await listen_key(alice)
    async with venue.session.ws_connect(venue.url + path.format(key=key)) as socket:
        await alice.order(newClientOrderId="mine")
        await bob.order(side="SELL")
        messages = await read_until(socket, "ACCOUNT_UPDATE")

    assert ["NEW", "TRADE"] == [m["o"]["x"] for m in messages if m["e"] == "ORDER_TRADE_UPDATE"]
    assert ["TRADE_LITE", "ACCOUNT_UPDATE"] == [m["e"] for m in messages[2:]]
    _, held = await alice.call("GET", "/fapi/v2/account")
    (balance,), (position,) = messages[-1]["a"]["B"], messages[-1]["a"]["P"]
    assert (held["totalWalletBalance"], held["totalCrossWalletBalance"]) == (balance["wb"], balance["cw"])
    assert position["pa"] == next(p["positionAmt"] for p in held["positions"] if p["symbol"] == "BTCUSDT")


async def test_a_key_is_subscribed_to_by_name_and_filtered(venue: Venue) -> None:
    """SUBSCRIBE takes a listen key; `events` lets through what it names; the combined form wraps it."""
    alice, bob = await venue.account(), await venue.account()
    key = await listen_key(alice)
    async with (
        venue.session.ws_connect(f"{venue.url}/private/stream") as named,
        venue.session.ws_connect(f"{venue.url}/private/ws?listenKey={key}&events=TRADE_LITE") as filtered,
    ):
        await named.send_json({"id": 1, "method": "SUBSCRIBE", "params": [key]})
        assert {"result": None, "id": 1} == await named.receive_json()
        await alice.order()
        await bob.order(side="SELL")
        async with asyncio.timeout(DEADLINE_S):
            wrapped = await named.receive_json()
            lite = await filtered.receive_json()

    assert (key, "ORDER_TRADE_UPDATE") == (wrapped["stream"], wrapped["data"]["e"])
    assert "TRADE_LITE" == lite["e"]


async def test_an_ended_key_ends_its_stream(venue: Venue) -> None:
    """Who deletes the key is told that it has expired, and nothing after that."""
    alice = await venue.account()
    key = await listen_key(alice)
    async with venue.session.ws_connect(f"{venue.url}/ws/{key}") as socket:
        await venue.send("DELETE", "/fapi/v1/listenKey", api_key=alice.api_key)
        (expired,) = await read_until(socket, "listenKeyExpired")
        assert key == expired["listenKey"]
        other = await listen_key(alice)
        async with venue.session.ws_connect(f"{venue.url}/ws/{other}") as again:
            await alice.order()
            await read_until(again, "ORDER_TRADE_UPDATE")
        assert await has_heard_nothing(socket)


async def test_a_removed_api_key_takes_the_listen_key_with_it(venue: Venue) -> None:
    """Who had the API key hears no more, even where the account's other keys keep its stream alive."""
    alice = await venue.account()
    _, made = await venue.admin("key", {"account_id": alice.account_id, "permissions": ["read"]})
    thief = Account(venue, alice.account_id, made["api_key"], made["secret"])
    key = await listen_key(thief)
    async with venue.session.ws_connect(f"{venue.url}/ws/{key}") as socket:
        await venue.admin("key/remove", {"account_id": alice.account_id, "api_key": thief.api_key})
        await read_until(socket, "listenKeyExpired")
    assert key != await listen_key(alice)


async def test_nobody_reads_another_accounts_stream(venue: Venue) -> None:
    """A text that is no live key is accepted as any stream's name, and delivers nothing."""
    alice = await venue.account()
    key = await listen_key(alice)
    async with (
        venue.session.ws_connect(f"{venue.url}/ws/{'a' * 64}") as stranger,
        venue.session.ws_connect(f"{venue.url}/ws/{key}") as owner,
    ):
        await alice.order()
        await read_until(owner, "ORDER_TRADE_UPDATE")
        assert await has_heard_nothing(stranger)
