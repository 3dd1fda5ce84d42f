"""Commands that the exchange itself cannot carry out: recorded, left out, and counted."""

import re

import pytest

from events.commands import (
    AnyCommand,
    CancelAllOrders,
    Liquidate,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
    SetMarketStatus,
    Tick,
    UnblockAccount,
)
from events.events import (
    AccountBlocked,
    AccountOpened,
    AccountUnblocked,
    CommandFailed,
    ConditionalTriggered,
    Event,
    FrameHeader,
    MarketStatusChanged,
    OrderAccepted,
    OrderCancelled,
    Rejected,
    TickPassed,
    TradeExecuted,
    WorkFailed,
)
from events.frame import close_command_frame, decode_groups
from events.values import IndexSource, MarketStatus, OrderType, RejectCode, Side
from exchange import deciding
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.failing import CommandError, failures_of
from exchange.aggregate.image import restore, take_image
from exchange.aggregate.state import Exchange
from exchange.deciding import Base, Decider, StateLostError, decide_entry, learn
from tests.planted import (
    IN_APPLYING,
    IN_DECIDING,
    IN_ENCODING,
    IN_TRADING,
    IS_COMPILED,
    SECRET,
    UNENCODABLE,
    WORDS,
    plant,
    plant_in_exchange,
)
from tests.venue import NS_PER_MS, Venue, every, only

pytestmark = pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")

BTC = "BTCUSDT"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Plant the faults of orders and accounts."""
    plant(monkeypatch.setattr, monkeypatch.setitem)
    return monkeypatch


class Desk:
    """A venue with two traders and sells at 50,000, whose further frames a `Decider` decides from a base."""

    def __init__(self, *, with_base: bool = True) -> None:
        self.venue = Venue()
        self.venue.index(BTC, "50000")
        self.maker, self.taker = self.venue.account("100000"), self.venue.account("100000")
        self.maker.sell(BTC, "0.2", "50000")
        self.maker.sell(BTC, "0.2", "50001")
        self.start = take_image(self.venue.state)
        base = Base(self.start, self.venue.state.seq) if with_base else None
        self.decider = Decider(restore(self.start.body), base)
        self.entries: list[tuple[int, object, int, bytes]] = []

    @property
    def state(self) -> Exchange:
        return self.decider.state

    def send(self, *commands: AnyCommand, after_ms: int = 1) -> list[list[Event]]:
        """Decide the commands in one frame; return the groups of its entry."""
        venue = self.venue
        venue.frames += 1
        venue.now_ns += after_ms * NS_PER_MS
        frame = close_command_frame(venue.origin, venue.frames, venue.now_ns, commands)
        seq = self.state.seq + 1
        body = self.decider.decide(seq, frame, venue.now_ns)
        self.entries.append((seq, frame, venue.now_ns, body))
        return decode_groups(body)

    def replayed(self) -> Exchange:
        """Apply what was decided to the state of the start."""
        state = restore(self.start.body)
        for *_, body in self.entries:
            for group in decode_groups(body):
                for event in group:
                    state.apply(event)
        return state

    def order(self, client_order_id: str, lots: int = 300, price: str = "50001") -> PlaceOrder:
        """A buy of the taker: 300 lots meet both sells."""
        return PlaceOrder(
            account_id=self.taker.account_id,
            market=BTC,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            quantity_lots=lots,
            price_ticks=self.venue.ticks(BTC, price),
            client_order_id=client_order_id,
        )


@pytest.mark.parametrize("word", WORDS)
def test_the_rest_of_the_frame_is_executed_as_without_it(planted: pytest.MonkeyPatch, word: str) -> None:
    """Decide, apply, mid-trade, encode: state and all other events are those of a frame that refuses it."""
    desk, other = Desk(), Desk()
    first, last = desk.order("first", lots=10), desk.order("last", lots=20)

    groups = desk.send(first, desk.order(word), last)
    expected = other.send(first, desk.order("", lots=0), last)

    assert expected[1] == groups[1]
    assert expected[3] == groups[3]
    failed = only(CommandFailed, groups[2])
    assert [failed] == groups[2]
    assert (1, "place_order", desk.taker.account_id, BTC, 1) == (
        failed.index,
        failed.command,
        failed.account_id,
        failed.market,
        failed.failures,
    )
    assert desk.state.digest() == desk.replayed().digest()
    desk.state.accounts[desk.taker.account_id].failures = 0
    assert other.state.venue_digest() == desk.state.venue_digest()
    assert 2 == len(every(TradeExecuted, groups[1] + groups[3]))


def test_the_fault_in_the_middle_of_a_trade_was_in_the_middle(planted: pytest.MonkeyPatch) -> None:
    """The planted fault arises when events of the command have been applied already."""
    desk = Desk()
    state = desk.state
    frame = close_command_frame(
        desk.venue.origin, desk.venue.frames + 1, desk.venue.now_ns, [desk.order(IN_TRADING)]
    )
    with pytest.raises(CommandError):
        decide_frame(state, state.seq + 1, frame, desk.venue.now_ns)
    assert 1 == state.trade_count


@pytest.mark.parametrize(
    ("word", "error"),
    [
        (IN_DECIDING, "KeyError"),
        (IN_APPLYING, "AssertionError"),
        (IN_TRADING, "RuntimeError"),
        (IN_ENCODING, "UnicodeEncodeError"),
    ],
)
def test_the_record_says_what_and_where_but_no_secret(
    planted: pytest.MonkeyPatch, word: str, error: str
) -> None:
    """The kind of exception and the place in our code; of its own text the numbers alone."""
    failed = only(CommandFailed, desk_with(word))
    assert error == failed.error
    assert re.match(r"(exchange|events)\.\S+, line \d+", failed.reason)
    assert SECRET not in failed.reason
    assert UNENCODABLE not in failed.reason
    assert "0x" not in failed.reason


def desk_with(word: str) -> list[Event]:
    """Return what a poisoned order gives."""
    desk = Desk()
    return desk.send(desk.order(word))[1]


def test_several_failures_in_one_frame_are_found_one_after_the_other(planted: pytest.MonkeyPatch) -> None:
    """Each is recorded in its own group; three of one account block it within the frame."""
    desk = Desk()
    orders = [desk.order(word) for word in WORDS]

    groups = desk.send(*orders)

    assert [1, 2, 3] == [event.failures for group in groups for event in every(CommandFailed, group)]
    assert desk.taker.account_id == only(AccountBlocked, groups[3]).account_id
    assert RejectCode.ACCOUNT_BLOCKED == only(Rejected, groups[4]).code
    assert desk.state.digest() == desk.replayed().digest()
    assert desk.state.digest() == restore(take_image(desk.state).body).digest()


def test_a_blocked_account_may_cancel_and_nothing_else(planted: pytest.MonkeyPatch) -> None:
    """Cancels go through, orders are refused, others trade on; an administrator lets it trade again."""
    desk = Desk()
    taker_id = desk.taker.account_id
    desk.send(desk.order("resting", price="49000"))
    for _ in range(3):
        desk.send(desk.order(IN_DECIDING))

    refused, cancelled, others = desk.send(
        desk.order(""),
        CancelAllOrders(account_id=taker_id, market=BTC),
        OpenAccount(),
    )[1:]
    assert RejectCode.ACCOUNT_BLOCKED == only(Rejected, refused).code
    only(OrderCancelled, cancelled)
    only(AccountOpened, others)

    unblocked, twice, again = desk.send(
        UnblockAccount(account_id=taker_id, reason="seen"),
        UnblockAccount(account_id=taker_id, reason="seen"),
        desk.order(IN_DECIDING),
    )[1:]
    assert "seen" == only(AccountUnblocked, unblocked).reason
    assert RejectCode.ACCOUNT_NOT_BLOCKED == only(Rejected, twice).code
    assert 1 == only(CommandFailed, again).failures


def test_a_command_without_an_account_counts_against_nobody(planted: pytest.MonkeyPatch) -> None:
    """An administrator's command that fails is recorded and nothing more."""
    desk = Desk()
    (failed,) = desk.send(OpenAccount(label=IN_DECIDING))[1]
    assert isinstance(failed, CommandFailed)
    assert ("open_account", 0, "", 0) == (failed.command, failed.account_id, failed.market, failed.failures)


def test_what_keeps_failing_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth time a price is refused, of this market alone; opening a market has it tried again."""
    desk = Desk()
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    source = IndexSource(source="test", price_ticks=1, raw="")
    price = SetIndexPrice(market=BTC, sources=(source,))
    other = SetIndexPrice(market="ETHUSDT", sources=(source,))

    groups = desk.send(price, price, price, price, other)

    assert [1, 2, 3, 1] == [event.repeats for group in groups for event in every(CommandFailed, group)]
    assert RejectCode.KEEPS_FAILING == only(Rejected, groups[4]).code
    assert desk.state.digest() == desk.replayed().digest()
    assert desk.state.digest() == restore(take_image(desk.state).body).digest()
    opening = SetMarketStatus(market=BTC, status=MarketStatus.TRADING, reason="repaired")
    assert 1 == only(CommandFailed, desk.send(opening, price)[2]).repeats


def test_a_blocked_accounts_cancels_may_fail_three_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they are refused: a blocked account has no way left to cost the venue a restored state."""
    desk = Desk()
    desk.send(desk.order("resting", price="49000"))
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    desk.decider.go_on(restore(take_image(desk.state).body))
    cancel = CancelAllOrders(account_id=desk.taker.account_id, market=BTC)

    groups = desk.send(*[cancel] * 7)

    failed = [event for group in groups for event in every(CommandFailed, group)]
    assert [(1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3)] == [(e.failures, e.repeats) for e in failed]
    assert RejectCode.KEEPS_FAILING == only(Rejected, groups[7]).code


def test_a_failing_price_leaves_its_market_to_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """SetIndexPrice: its own market, and no other."""
    desk = Desk()
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    source = IndexSource(source="test", price_ticks=1, raw="")

    group = desk.send(SetIndexPrice(market=BTC, sources=(source,)))[1]

    changed = only(MarketStatusChanged, group)
    assert (BTC, MarketStatus.CANCEL_ONLY) == (changed.market, changed.status)
    assert "ZeroDivisionError" in changed.reason
    assert RejectCode.MARKET_CLOSED == only(Rejected, desk.send(desk.order(""))[1]).code


def test_a_failing_tick_leaves_all_markets_to_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tick: time does not pass, which concerns every market; once is enough."""
    desk = Desk()
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    first, second = desk.send(Tick(), Tick())[1:]
    assert [BTC, "ETHUSDT"] == [event.market for event in every(MarketStatusChanged, first)]
    assert [] == every(MarketStatusChanged, second)


def test_a_failing_liquidation_leaves_the_markets_of_the_bucket_to_cancels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Liquidate: the cross pool's markets with a position; it is no failure of the account."""
    desk = Desk()
    desk.send(desk.order(""))
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    group = desk.send(Liquidate(account_id=desk.taker.account_id, market="", cause_seq=1))[1]
    assert 0 == only(CommandFailed, group).failures
    assert [BTC] == [event.market for event in every(MarketStatusChanged, group)]


@pytest.mark.parametrize("word", [IN_DECIDING, IN_APPLYING, IN_TRADING, IN_ENCODING])
def test_a_failing_conditional_order_is_its_owners_failure(planted: pytest.MonkeyPatch, word: str) -> None:
    """Who brought the price is not blamed: his order trades, and the conditional order is gone."""
    desk = Desk()
    taker = desk.taker
    taker.conditional("STOP", "BUY", BTC, "0.1", "50001", client_id=word, price="50001")
    decider = Decider(desk.venue.state, Base(take_image(desk.venue.state), desk.venue.state.seq))
    desk.start, desk.decider = take_image(desk.venue.state), decider

    group = desk.send(desk.order("", lots=300))[1]

    failed = only(WorkFailed, group)
    assert (taker.account_id, BTC, 1) == (failed.account_id, failed.market, failed.failures)
    assert 2 == len(every(TradeExecuted, group))
    assert [] == every(ConditionalTriggered, group)
    assert {} == desk.state.accounts[taker.account_id].conditionals
    assert {} == desk.state.due
    assert desk.state.digest() == desk.replayed().digest()


def test_an_order_that_cannot_end_leaves_its_market_to_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order stays, is due no longer, and a restored state knows that too; the frame's command runs."""
    desk = Desk()
    venue = desk.venue
    end_ns = venue.now_ns + 100 * NS_PER_MS
    desk.taker.buy(BTC, "0.1", "49000", tif="GTD", expires_ns=end_ns)
    desk.start = take_image(venue.state)
    desk.decider = Decider(restore(desk.start.body), Base(desk.start, venue.state.seq))
    plant_in_exchange(monkeypatch.setattr, monkeypatch.setitem)
    desk.decider.state = restore(desk.start.body)

    first, opened = desk.send(OpenAccount(), after_ms=200)

    failed = only(WorkFailed, first)
    assert (desk.taker.account_id, 0) == (failed.account_id, failed.failures)
    assert BTC == only(MarketStatusChanged, first).market
    only(AccountOpened, opened)
    assert failed.number in desk.state.accounts[desk.taker.account_id].orders
    assert {} == desk.state.overdue
    desk.decider.state = restore(take_image(desk.state).body)
    assert [FrameHeader] == [type(event) for event in desk.send(OpenAccount())[0]]


def test_recorded_failures_are_taken_as_given(planted: pytest.MonkeyPatch) -> None:
    """Who decides the frames again, with the fault repaired, gets the same bytes from what was recorded."""
    desk = Desk()
    desk.send(desk.order("first", lots=10), desk.order(IN_TRADING), OpenAccount(label=IN_DECIDING))
    desk.send(desk.order("last", lots=20), desk.order(IN_ENCODING))
    planted.undo()

    state = restore(desk.start.body)
    for seq, frame, now_ns, body in desk.entries:
        assert body == decide_entry(state, seq, frame, now_ns, failures_of(decode_groups(body)))  # type: ignore[arg-type]
    assert desk.state.digest() == state.digest()


def test_without_a_base_the_state_is_lost_and_can_be_given_anew(planted: pytest.MonkeyPatch) -> None:
    """The caller rebuilds it; from then on there is a base."""
    desk = Desk(with_base=False)
    with pytest.raises(StateLostError):
        desk.send(desk.order(IN_APPLYING))
    desk.decider.go_on(restore(desk.start.body))
    desk.venue.frames -= 1
    only(CommandFailed, desk.send(desk.order(IN_APPLYING))[1])
    only(CommandFailed, desk.send(desk.order(IN_APPLYING))[1])


def test_a_base_is_given_up_when_it_has_grown(
    planted: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its bound it would take too long to restore."""
    monkeypatch.setattr(deciding, "BASE_BYTES_MAX", 1000)
    desk = Desk()
    desk.send(desk.order(IN_APPLYING))
    while desk.decider._base is not None:
        desk.send(OpenAccount())
    assert 1000 < sum(len(body) for *_, body in desk.entries)
    with pytest.raises(StateLostError):
        desk.send(desk.order(IN_APPLYING))


def test_what_cannot_even_be_recorded_stops_the_writer() -> None:
    """The same failure again, though known, raises its cause: there is no way on."""
    error = CommandError(0)
    error.__cause__ = ZeroDivisionError()
    failures = learn(None, error)
    with pytest.raises(ZeroDivisionError):
        learn(failures, error)


def test_ordinary_frames_have_no_failures() -> None:
    """Nothing is recorded where nothing failed."""
    desk = Desk()
    groups = desk.send(desk.order("", lots=10), Tick())
    assert failures_of(groups) is None
    only(OrderAccepted, groups[1])
    only(TickPassed, groups[2])
