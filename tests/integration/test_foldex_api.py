"""Foldex's own calls: switches with positions open, what-ifs, health, own margin, money out, own keys."""

from typing import Any

from tests.running_venue import BID, Account, Venue

EVERY = ["read", "trade", "withdraw", "administer"]


async def owner(venue: Venue, deposit: str = "10000") -> Account:
    """Open an account with a key that may do everything."""
    account = await venue.account(deposit)
    _, made = await venue.admin("key", {"account_id": account.account_id, "permissions": EVERY})
    return Account(venue, account.account_id, made["api_key"], made["secret"])


async def long_position(venue: Venue, quantity: str = "0.1", deposit: str = "10000") -> Account:
    """Return an account that bought at 50,000, in cross margin at 10×."""
    alice, bob = await owner(venue, deposit), await venue.account("100000")
    await alice.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=10)
    await bob.order(side="SELL", quantity=quantity)
    status, order = await alice.order(quantity=quantity)
    assert 200 == status, order
    return alice


async def health(account: Account) -> Any:
    """Return an account's health."""
    status, answer = await account.call("GET", "/foldex/v1/marginHealth")
    assert 200 == status, answer
    return answer


async def test_health_says_how_far_death_is(venue: Venue) -> None:
    """For an isolated long of 0.1 with 500: dead at 45,180.72…, 9.64 % below the mark of 50,000."""
    alice = await long_position(venue)
    status, switched = await alice.call(
        "POST", "/foldex/v1/marginMode", symbol="BTCUSDT", marginMode="ISOLATED"
    )
    assert (200, True, False) == (status, switched["changed"], switched["dryRun"])
    cross, own = (await health(alice))["buckets"]
    assert ("CROSS", [], "0.00000000") == (cross["marginMode"], cross["positions"], cross["marginRatio"])
    assert ("ISOLATED", "500.00000000", "20.00000000", "0.04000000") == (
        own["marginMode"],
        own["equity"],
        own["maintMargin"],
        own["marginRatio"],
    )
    (row,) = own["positions"]
    assert ("45180.72289157", "-4819.27710843", "-9.63855422") == (
        row["liquidationPrice"],
        row["distance"],
        row["distancePercent"],
    )


async def test_a_switch_can_be_looked_at_first(venue: Venue) -> None:
    """A dry run says what the switch then does, and changes nothing; a refusal has its reason."""
    alice = await long_position(venue)
    before = await health(alice)
    wanted = {"symbol": "BTCUSDT", "marginMode": "ISOLATED", "margin": "800"}
    status, dry = await alice.call("POST", "/foldex/v1/marginMode", parameters={**wanted, "dryRun": "true"})
    assert (200, True, "800.00000000") == (status, dry["changed"], dry["legs"][0]["bucketAfter"])
    assert before["buckets"] == (await health(alice))["buckets"]
    status, done = await alice.call("POST", "/foldex/v1/marginMode", parameters=wanted)
    assert {**dry, "dryRun": False} == done
    status, refused = await alice.call(
        "POST", "/foldex/v1/marginMode", symbol="BTCUSDT", marginMode="CROSS", margin="1"
    )
    assert (400, -1130) == (status, refused["code"])
    _, theirs = await alice.call("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="CROSSED")
    assert -4048 == theirs["code"]


async def test_what_if_is_what_happens(venue: Venue) -> None:
    """An order, a leverage and a mode come to what was shown; showing them changes nothing."""
    alice, bob = await long_position(venue), await venue.account("100000")
    before = await health(alice)
    commands = venue.commands()
    order = BID | {"quantity": "0.1"}
    status, shown = await alice.call("GET", "/foldex/v1/whatIf/order", parameters=order)
    assert (200, True, before) == (status, shown["accepted"], shown["before"])
    _, resting = await alice.call("GET", "/foldex/v1/whatIf/order", parameters={**order, "fill": "BOOK"})
    assert "0.100" == resting["after"]["buckets"][0]["positions"][0]["positionAmt"]
    assert float(resting["after"]["availableBalance"]) < float(before["availableBalance"])
    _, leverage = await alice.call("GET", "/foldex/v1/whatIf/leverage", symbol="BTCUSDT", leverage=20)
    _, mode = await alice.call("GET", "/foldex/v1/whatIf/marginMode", symbol="BTCUSDT", marginMode="ISOLATED")
    assert commands == venue.commands()
    assert before == await health(alice)

    await bob.order(side="SELL", quantity="0.1")
    # As the book stands now, the same order trades at once.
    _, at_once = await alice.call("GET", "/foldex/v1/whatIf/order", parameters={**order, "fill": "BOOK"})
    await alice.call("POST", "/fapi/v1/order", parameters=order)
    after = await health(alice)
    assert shown["after"]["buckets"] == at_once["after"]["buckets"] == after["buckets"]
    assert "0.200" == after["buckets"][0]["positions"][0]["positionAmt"]
    assert leverage["accepted"]
    assert mode["accepted"]
    matched = {name: value for name, value in order.items() if name != "price"}
    await bob.order(side="SELL", price="50100", quantity="0.1")
    _, shown = await alice.call(
        "GET", "/foldex/v1/whatIf/order", parameters={**matched, "priceMatch": "OPPONENT"}
    )
    await alice.call("POST", "/fapi/v1/order", parameters={**matched, "priceMatch": "OPPONENT"})
    assert shown["after"]["buckets"] == (await health(alice))["buckets"]
    assert ["CROSS", "ISOLATED"] == [bucket["marginMode"] for bucket in mode["after"]["buckets"]]


async def test_a_what_if_that_would_be_refused_says_why(venue: Venue) -> None:
    """Code and text are those of the request itself, and the account stays as it is."""
    alice = await long_position(venue)
    order = BID | {"quantity": "90"}
    _, shown = await alice.call("GET", "/foldex/v1/whatIf/order", parameters=order)
    status, real = await alice.call("POST", "/fapi/v1/order", parameters=order)
    assert (False, 400) == (shown["accepted"], status)
    assert real == shown["refusal"]
    assert shown["before"] == shown["after"]
    matched = {name: value for name, value in order.items() if name != "price"} | {"priceMatch": "QUEUE_20"}
    _, shown = await alice.call("GET", "/foldex/v1/whatIf/order", parameters=matched)
    assert (False, -5041) == (shown["accepted"], shown["refusal"]["code"])
    _, shown = await alice.call("GET", "/foldex/v1/whatIf/leverage", symbol="BTCUSDT", leverage=999)
    status, real = await alice.call("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=999)
    assert real == shown["refusal"]


async def test_an_order_brings_its_margin(venue: Venue) -> None:
    """Mode and margin come with the first order; then money goes into the bucket and out of it again."""
    alice, bob = await owner(venue), await venue.account("100000")
    await bob.order(side="SELL", quantity="0.1")
    order = BID | {"quantity": "0.1", "marginMode": "ISOLATED", "margin": "1000"}
    status, placed = await alice.call("POST", "/foldex/v1/order", parameters=order)
    assert 200 == status, placed
    assert "1000.00000000" == (await health(alice))["buckets"][1]["wallet"]
    for amount, bucket in (("250.5", "1250.50000000"), ("-50.5", "1200.00000000")):
        status, moved = await alice.call("POST", "/foldex/v1/margin", symbol="BTCUSDT", amount=amount)
        assert (200, bucket) == (status, moved["bucket"])
    for wrong in ("0", "x", "1e5", "99999999999"):
        status, refused = await alice.call("POST", "/foldex/v1/margin", symbol="BTCUSDT", amount=wrong)
        assert 400 == status, refused


async def test_only_a_key_that_may_takes_money_out(venue: Venue) -> None:
    """What is withdrawable leaves, more does not, and a trading key cannot do it at all."""
    alice = await owner(venue, "1000")
    status, out = await alice.call("POST", "/foldex/v1/withdraw", amount="400")
    assert (200, "600.00000000") == (status, out["wallet"])
    status, refused = await alice.call("POST", "/foldex/v1/withdraw", amount="600.00000001")
    assert 400 == status, refused
    trader = await venue.account("1000")
    status, refused = await trader.call("POST", "/foldex/v1/withdraw", amount="1")
    assert (401, -2015) == (status, refused["code"])


async def test_an_account_looks_after_its_keys(venue: Venue) -> None:
    """Made, listed, used, removed; and what no key can be is refused."""
    alice = await owner(venue)
    status, made = await alice.call("POST", "/foldex/v1/apiKey", permissions="read", networks="127.0.0.1")
    assert 200 == status, made
    reader = Account(venue, alice.account_id, made["apiKey"], made["secret"])
    assert 200 == (await reader.call("GET", "/foldex/v1/marginHealth"))[0]
    _, listed = await alice.call("GET", "/foldex/v1/apiKeys")
    assert {"apiKey": made["apiKey"], "kind": "HMAC", "permissions": ["read"], "networks": ["127.0.0.1"]} in (
        listed
    )
    assert made["secret"] not in str(listed)
    for wrong in ({"permissions": "all"}, {"permissions": ""}, {"permissions": "read", "networks": "home"}):
        status, refused = await alice.call("POST", "/foldex/v1/apiKey", parameters=wrong)
        assert 400 == status, refused
    await alice.call("DELETE", "/foldex/v1/apiKey", apiKey=made["apiKey"])
    assert 401 == (await reader.call("GET", "/foldex/v1/marginHealth"))[0]


async def test_where_the_exchange_stands(venue: Venue) -> None:
    """Entry and digest are those of the state that the administrator sees."""
    _, place = await venue.send("GET", "/foldex/v1/sequence")
    _, digest = await venue.send("GET", "/foldex/v1/digest")
    _, state = await venue.admin("state")
    assert (state["seq"], state["log_id"]) == (place["seq"], place["logId"])
    assert (state["seq"], state["digest"]) == (digest["seq"], digest["digest"])
