"""The image of a state: what is restored from it is the same exchange, now and in all it decides later."""

from collections import Counter
from random import Random

import msgspec
import pytest

from events.commands import AddApiKey, AnyCommand, Withdraw
from events.frame import close_command_frame, encode_groups
from events.values import Leg
from exchange.aggregate import conditional, deleverage
from exchange.aggregate.account import Account
from exchange.aggregate.decide import decide, decide_frame
from exchange.aggregate.image import ImageError, restore, take_image, trial_of
from exchange.aggregate.margin import survey
from exchange.aggregate.state import Exchange
from tests.flow import check_state, market_venue, pause_ns, random_command
from tests.venue import NS_PER_MS, Trader, Venue

COMMANDS = 600
RARE_COMMANDS = 4_000
CUT_EVERY = 60
AFTER_EACH_CUT = 150
CUTS_PER_KIND = 2
BTC = "BTCUSDT"


def restored(state: Exchange) -> Exchange:
    """Return what the image of a state restores, which has the digest that the image names."""
    image = take_image(state)
    copy = restore(image.body)
    assert image.digest == state.digest() == copy.digest()
    return copy


def decide_on(state: Exchange, origin: str, n: int, command: AnyCommand) -> bytes:
    """Decide a command in a frame of its own, a millisecond later; return the event bytes."""
    now_ns = state.now_ns + NS_PER_MS
    frame = close_command_frame(origin, n, now_ns, [command])
    return encode_groups(decide_frame(state, state.seq + 1, frame, now_ns))


@pytest.mark.parametrize("seed", range(3))
def test_a_restored_state_decides_the_same_bytes(seed: int) -> None:
    """Cut random trading anywhere: state and restored copy give the same events and digests after it.

    Further commands of every kind meet whatever the cut left: queues, waiting and due triggers, timers.
    """
    venue, random = market_venue(seed)
    venue.checks = False
    for n in range(COMMANDS):
        venue.send(random_command(venue.state, random))
        if n % CUT_EVERY == 0:
            _compare_futures(restored(venue.state), restored(venue.state), venue, seed + n)


def test_what_is_rarely_left_over_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut where triggers and timers wait their turn, and orders of deleveraging are used up in part.

    The commands may each do only little.
    """
    monkeypatch.setattr(conditional, "TRIGGERS_PER_COMMAND_MAX", 1)
    monkeypatch.setattr(conditional, "TIMERS_PER_FRAME_MAX", 1)
    monkeypatch.setattr(deleverage, "PARTIES_AND_ORDERS_MAX", 3)
    venue, random = market_venue(1)
    venue.checks = False
    met: Counter[str] = Counter()
    for n in range(RARE_COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
        left = left_over(venue.state)
        if any(met[kind] < CUTS_PER_KIND for kind in left):
            met.update(left)
            _compare_futures(restored(venue.state), restored(venue.state), venue, n)
    assert {"due", "overdue", "ranked", "emptied", "funded"} == set(met)


def left_over(state: Exchange) -> list[str]:
    """Say what a state holds that most do not."""
    rankings = [ranking for market in state.markets.values() for ranking in market.rankings.values()]
    kinds = {
        "due": bool(state.due),
        "overdue": bool(state.overdue),
        "ranked": bool(rankings),
        "emptied": any(-1 in ranking.known() for ranking in rankings),
        "funded": any(market.funding_rate for market in state.markets.values()),
    }
    return [kind for kind, is_there in kinds.items() if is_there]


def _compare_futures(state: Exchange, copy: Exchange, venue: Venue, seed: int) -> None:
    """Run the same commands on a copy, and on a copy that is restored again and again on the way."""
    random = Random(seed)
    for n in range(1, AFTER_EACH_CUT):
        command = random_command(state, random)
        decided = decide_on(state, venue.origin, venue.frames + n, command)
        assert decided == decide_on(copy, venue.origin, venue.frames + n, command)
        if n % 40 == 0:
            assert state.digest() == copy.digest()
            check_state(copy)
            copy.check_identities()
            copy = restored(copy)


def test_the_original_decides_as_its_copy() -> None:
    """The state that was never restored, with all its stale timers and fresh caches, goes on alike."""
    venue, random = market_venue(7)
    venue.checks = False
    for _ in range(COMMANDS):
        venue.send(random_command(venue.state, random))
    copy = restored(venue.state)
    for n in range(1, COMMANDS):
        command = random_command(venue.state, random)
        decided = decide_on(venue.state, venue.origin, venue.frames + n, command)
        assert decided == decide_on(copy, venue.origin, venue.frames + n, command)
    assert venue.state.digest() == copy.digest()


def test_look_ups_are_built_again() -> None:
    """Keys find their owner, client ids their order, positions their reduce-only orders, books them all."""
    venue = Venue(fund="20000")
    venue.index(BTC, "50000")
    alice, bob = venue.account("10000"), venue.account("10000")
    venue.send(AddApiKey(account_id=alice.account_id, api_key="key", sealed_secret=b"sealed"))
    bob.sell(BTC, "0.1", "50000")
    alice.buy(BTC, "0.1", "50000")
    alice.sell(BTC, "0.1", "51000", reduce_only=True, client_id="mine")

    copy = restored(venue.state)

    account: Account = copy.accounts[alice.account_id]
    assert {"key": alice.account_id} == copy.key_owners
    (order,) = account.orders.values()
    assert {"mine": order.order_id} == account.client_ids
    assert {order.order_id: order} == account.positions[BTC].reducers
    assert order is copy.markets[BTC].book.best(order.side)
    assert 100 == account.positions[BTC].size_lots
    assert Leg.BOTH is account.positions[BTC].leg


def test_queues_keep_their_order() -> None:
    """An order that was amended to a larger size stands behind a younger one, in the copy too."""
    venue = Venue()
    venue.index(BTC, "50000")
    traders: list[Trader] = [venue.account("10000") for _ in range(3)]
    for trader in traders:
        trader.buy(BTC, "0.01", "49000")
    ids = [next(iter(trader.account.orders)) for trader in traders]
    traders[0].amend(BTC, ids[0], "0.02", "49000")

    level = next(restored(venue.state).markets[BTC].book.bids.best_first())

    assert [ids[1], ids[2], ids[0]] == [order.order_id for order in level]
    assert 40 == level.lots


def test_other_bytes_are_no_image() -> None:
    """A wrong type anywhere, a byte too many, an order that is not there: refused with the reason."""
    venue = Venue()
    venue.index(BTC, "50000")
    venue.account("10000").buy(BTC, "0.01", "49000")
    body = take_image(venue.state).body
    venue_bytes, place_bytes = msgspec.msgpack.decode(body)
    tree = msgspec.msgpack.decode(venue_bytes)

    def changed(at: int, row: object) -> bytes:
        rows = [*tree[:at], row, *tree[at + 1 :]]
        return msgspec.msgpack.encode((msgspec.msgpack.encode(rows), place_bytes))

    accounts = len(tree) - 1
    assert venue.state.digest() == restore(changed(accounts, tree[accounts])).digest()
    for damaged in (
        b"",
        body[:-1],
        changed(3, "many"),
        changed(accounts, []),
        msgspec.msgpack.encode((venue_bytes + b"\x00", place_bytes)),
    ):
        with pytest.raises(ImageError, match="not the image of a state"):
            restore(damaged)


def test_a_trial_has_one_customer_as_he_stands() -> None:
    """His positions, orders and conditional orders are there, and nobody else's; the venue is left alone."""
    venue = Venue()
    venue.index(BTC, "50000")
    alice, bob = venue.account("10000"), venue.account("10000")
    bob.sell(BTC, "0.1", "50000")
    alice.buy(BTC, "0.1", "50000")
    alice.buy(BTC, "0.2", "49000")
    bob.sell(BTC, "0.3", "51000")
    digest = venue.state.digest()
    trial = trial_of(venue.state, alice.account_id)
    assert [0, 1, alice.account_id] == sorted(trial.accounts)
    market, same = trial.markets[BTC], venue.state.markets[BTC]
    assert (same.mark_ticks, same.book.best_bid_ticks, 0) == (
        market.mark_ticks,
        market.book.best_bid_ticks,
        market.book.best_ask_ticks,
    )
    theirs, ours = venue.state.accounts[alice.account_id], trial.accounts[alice.account_id]
    assert survey(theirs).transferable == survey(ours).transferable
    assert theirs.positions[BTC].size_lots == ours.positions[BTC].size_lots > 0
    assert list(theirs.orders) == list(ours.orders)
    decide(trial, Withdraw(account_id=alice.account_id, amount=1), 1)
    assert theirs.wallet - 1 == ours.wallet
    assert digest == venue.state.digest()
