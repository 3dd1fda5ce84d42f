"""The user-data stream: what is told, in which order, and that it adds up to what the account has."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from events.events import TradeExecuted
from events.frame import Groups
from events.values import MarginMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.decimals import lots_text, money_text
from exchange.intake.streams.user import UserStreams
from exchange.intake.trade.past import AccountPast
from tests.flow import market_venue, pause_ns, random_command
from tests.venue import Trader, Venue, order_id

BTC = "BTCUSDT"


class Told:
    """The streams of a venue and what their listeners have been told, by account."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.past = AccountPast(lambda symbol: venue.state.markets[symbol].unit)
        self.streams = UserStreams(self.past, lambda: venue.state)
        self.past.follow(self.streams.handlers)
        self.messages: dict[int, list[dict[str, Any]]] = {}
        self._fed = 0
        self.catch_up()

    def listen(self, account_id: int) -> None:
        """Listen to an account from here on."""
        messages = self.messages[account_id] = []
        self.streams.listen(account_id, lambda message: messages.append(msgspec.json.decode(message)))

    def catch_up(self) -> None:
        """Feed what the venue has done since."""
        for groups in self.venue.log[self._fed :]:
            self._feed(groups)
        self._fed = len(self.venue.log)

    def _feed(self, groups: Groups) -> None:
        self.past.feed(groups)
        self.streams.flush()

    def of(self, trader: Trader) -> list[dict[str, Any]]:
        """Return what was told of a trader since the last question."""
        self.catch_up()
        messages = self.messages[trader.account_id]
        taken = messages[:]
        messages.clear()
        return taken


@pytest.fixture
def venue() -> Venue:
    """Return a venue with BTC at 50,000."""
    venue = Venue()
    venue.index(BTC, "50000")
    return venue


def test_an_orders_life_is_told_step_by_step(venue: Venue) -> None:
    """Accepted, filled in two, each fill with its own trade, fee and running sum; then the balances."""
    alice, bob = venue.account("10000"), venue.account("10000")
    told = Told(venue)
    told.listen(alice.account_id)
    bid = order_id(alice.buy(BTC, "0.02", "50000", client_id="mine"))
    bob.sell(BTC, "0.005", "50000")
    (new, trade, lite, account) = told.of(alice)

    assert ("ORDER_TRADE_UPDATE", "NEW", "NEW", "mine", bid) == (
        new["e"],
        *(new["o"][name] for name in ("x", "X", "c", "i")),
    )
    assert ("TRADE", "PARTIALLY_FILLED", "0.005", "0.005", "50000.0", True, 1) == tuple(
        trade["o"][name] for name in ("x", "X", "l", "z", "L", "m", "t")
    )
    assert ("TRADE_LITE", "0.005", "50000.0", bid) == tuple(lite[name] for name in ("e", "l", "L", "i"))
    assert ("ACCOUNT_UPDATE", "ORDER") == (account["e"], account["a"]["m"])
    (balance,), (position,) = account["a"]["B"], account["a"]["P"]
    assert (money_text(alice.account.wallet), "0.00000000") == (balance["wb"], balance["bc"])
    assert ("0.005", "50000.00000000", "cross") == (position["pa"], position["ep"], position["mt"])

    alice.cancel(BTC, bid)
    (cancelled,) = told.of(alice)
    assert ("CANCELED", "CANCELED", "0.005") == tuple(cancelled["o"][name] for name in ("x", "X", "z"))


def test_a_taker_is_told_of_each_fill_in_turn(venue: Venue) -> None:
    """The first of two fills reads as the first, although both are in one entry."""
    alice, bob = venue.account("10000"), venue.account("10000")
    told = Told(venue)
    told.listen(alice.account_id)
    bob.sell(BTC, "0.01", "50000")
    bob.sell(BTC, "0.02", "50010")
    alice.buy(BTC, "0.03", "50010")
    updates = [message["o"] for message in told.of(alice) if message["e"] == "ORDER_TRADE_UPDATE"]

    assert [("NEW", "0.000"), ("PARTIALLY_FILLED", "0.010"), ("FILLED", "0.030")] == [
        (update["X"], update["z"]) for update in updates
    ]
    assert ["50000.0", "50010.0"] == [update["L"] for update in updates[1:]]


def test_a_conditional_order_is_followed_to_the_end_of_its_order(venue: Venue) -> None:
    """NEW, TRIGGERED with the order's number, and FINISHED when that has ended."""
    alice, bob = venue.account("10000"), venue.account("10000")
    told = Told(venue)
    told.listen(alice.account_id)
    bob.buy(BTC, "0.01", "49000")
    alice.sell(BTC, "0.001", "49000")
    bob.sell(BTC, "0.01", "51000")
    alice.conditional("STOP", "BUY", BTC, "0.001", "50500", watches="MARK")
    venue.index(BTC, "51000")
    algos = [message["o"] for message in told.of(alice) if message["e"] == "ALGO_UPDATE"]

    assert ["NEW", "TRIGGERED", "FINISHED"] == [algo["X"] for algo in algos]
    assert "" == algos[0]["ai"]
    assert algos[1]["ai"] == algos[2]["ai"] != ""


def test_settings_and_moves_of_money_have_their_reasons(venue: Venue) -> None:
    """Leverage, mode and margin changes, deposits and withdrawals each say what they are."""
    alice, bob = venue.account("10000"), venue.account("10000")
    told = Told(venue)
    told.listen(alice.account_id)
    bob.sell(BTC, "0.01", "50000")
    alice.buy(BTC, "0.01", "50000")
    told.of(alice)

    alice.leverage(BTC, 10)
    (leverage,) = told.of(alice)
    assert ("ACCOUNT_CONFIG_UPDATE", {"s": BTC, "l": 10}) == (leverage["e"], leverage["ac"])
    alice.switch(BTC, "ISOLATED")
    (mode,) = told.of(alice)
    assert ("MARGIN_TYPE_CHANGE", "isolated") == (mode["a"]["m"], mode["a"]["P"][0]["mt"])
    alice.add_margin(BTC, "100")
    (moved,) = told.of(alice)
    assert "MARGIN_TRANSFER" == moved["a"]["m"]
    assert mode["a"]["B"][0]["wb"] == moved["a"]["B"][0]["wb"]
    assert Decimal(mode["a"]["B"][0]["cw"]) - 100 == Decimal(moved["a"]["B"][0]["cw"])
    alice.withdraw("50")
    (withdrawn,) = told.of(alice)
    assert ("WITHDRAW", "-50.00000000", []) == (
        withdrawn["a"]["m"],
        withdrawn["a"]["B"][0]["bc"],
        withdrawn["a"]["P"],
    )


def test_a_margin_call_comes_once_for_each_approach(venue: Venue) -> None:
    """Near its liquidation a bucket is called for, and again only after it was far from it."""
    alice, bob = venue.account("10000"), venue.account("1000000")
    told = Told(venue)
    told.listen(alice.account_id)
    alice.leverage(BTC, 20)
    alice.mode(BTC, "ISOLATED")
    bob.sell(BTC, "0.1", "50000")
    alice.buy(BTC, "0.1", "50000")
    told.of(alice)

    def calls(price: str) -> list[dict[str, Any]]:
        venue.index(BTC, price)
        return [message for message in told.of(alice) if message["e"] == "MARGIN_CALL"]

    assert [] == calls("49000")
    (call,) = calls("47730")
    assert "cw" not in call
    assert (BTC, "ISOLATED", "0.100") == tuple(call["p"][0][name] for name in ("s", "mt", "pa"))
    assert [] == calls("47725")
    assert [] == calls("49500")
    assert 1 == len(calls("47730"))


# In the last one a loss is taken from the bucket of a position that nothing else happens to.
@pytest.mark.parametrize("seed", [0, 1, 2, 39])
def test_what_is_told_adds_up_to_what_there_is(seed: int) -> None:
    """A client that takes over what it is told has the account's balances and positions at every time."""
    venue, random = market_venue(seed)
    told = Told(venue)
    accounts = [each for each in venue.state.accounts if each >= FIRST_USER_ACCOUNT_ID]
    for account_id in accounts:
        told.listen(account_id)
    # What a client knows when it starts: the answer of the account call.
    wallets = {each: money_text(venue.state.accounts[each].wallet) for each in accounts}
    rows: dict[tuple[int, str, str], tuple[str, str]] = {}
    # A market's mode is that of all its legs, also of those that the position mode brings later.
    modes: dict[tuple[int, str], str] = {}
    fills: dict[tuple[int, str], list[int]] = {}
    fed_before = len(venue.log)
    for _ in range(1_500):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
        told.catch_up()
        for account_id, messages in told.messages.items():
            for message in messages:
                if message["e"] == "ACCOUNT_UPDATE":
                    wallets[account_id] = message["a"]["B"][0]["cw"]
                    for row in message["a"]["P"]:
                        rows[account_id, row["s"], row["ps"]] = (row["pa"], row["iw"])
                        modes[account_id, row["s"]] = row["mt"]
                elif message["e"] == "ORDER_TRADE_UPDATE" and message["o"]["t"]:
                    fills.setdefault((account_id, message["o"]["s"]), []).append(message["o"]["t"])
            messages.clear()
        for account_id in accounts:
            account = venue.state.accounts[account_id]
            assert wallets[account_id] == money_text(account.wallet), account_id
            for position in account.positions.values():
                symbol = position.market.symbol
                known = rows.get((account_id, symbol, position.leg.name), ("0.000", "0.00000000"))
                size = lots_text(position.market.spec, position.size_lots)
                assert (size, money_text(position.bucket)) == known, account_id
                mode = "isolated" if position.mode is MarginMode.ISOLATED else "cross"
                assert mode == modes.get((account_id, symbol), "cross"), account_id
    assert all(numbers == sorted(numbers) for numbers in fills.values())
    told_sides = sum(map(len, fills.values()))
    sides = [
        account_id
        for groups in venue.log[fed_before:]
        for group in groups
        for event in group
        if isinstance(event, TradeExecuted)
        for account_id in (event.maker_account_id, event.taker_account_id)
    ]
    assert told_sides == sum(account_id in accounts for account_id in sides)
