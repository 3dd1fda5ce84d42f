"""Whole frames: origins, repeats, late and closed frames, bodies that do not decode, order numbers."""

import msgspec
import pytest

from events.commands import CreateLog, OpenAccount, PlaceOrder, Tick
from events.events import AccountOpened, FrameHeader, LogCreated, OriginOpened, Rejected
from events.frame import (
    SCHEMA_VERSION,
    CommandFrame,
    Groups,
    close_command_frame,
    command_checksum,
    decode_groups,
    encode_groups,
    header_of,
    new_origin,
)
from events.values import OrderType, Outcome, RejectCode, Side
from exchange.aggregate import decide
from exchange.aggregate.decide import CLOCK_LEAD_NS, decide_frame, propose_now
from exchange.aggregate.image import restore, take_image
from exchange.aggregate.origins import REMEMBERED_FRAMES
from exchange.aggregate.state import Exchange

NOW_NS = 1_700_000_000 * 10**9


class Desk:
    """Sends frames to a state as a log would: each gets the next sequence number."""

    def __init__(self) -> None:
        self.state = Exchange()

    def frame(self, origin: str, n: int, count: int = 1) -> CommandFrame:
        """Close a frame of `count` commands."""
        return close_command_frame(origin, n, NOW_NS, [OpenAccount(label=f"{n}") for _ in range(count)])

    def decide(self, frame: CommandFrame) -> Groups:
        """Decide the frame at the next entry."""
        return decide_frame(self.state, self.state.seq + 1, frame, max(self.state.now_ns, NOW_NS))

    def send(self, origin: str, n: int) -> FrameHeader:
        """Send frame `n` of an origin; return its header."""
        return header_of(self.decide(self.frame(origin, n)))


def test_first_frame_opens_its_origin() -> None:
    """Frame 1 of an incarnation opens it, and its commands run."""
    desk = Desk()
    origin = new_origin("intake")

    groups = desk.decide(desk.frame(origin, 1))

    opened = groups[0][1]
    assert isinstance(opened, OriginOpened)
    assert ("intake", "", 1) == (opened.name, opened.replaced, opened.frame_n)
    assert isinstance(groups[1][0], AccountOpened)


def test_a_repeated_frame_runs_once_and_is_told_where() -> None:
    """The same (origin, n) again answers with the entry at which it ran."""
    desk = Desk()
    origin = new_origin("intake")
    desk.send(origin, 1)
    desk.send(origin, 2)
    accounts = len(desk.state.accounts)

    header = desk.send(origin, 2)

    assert (Outcome.DUPLICATE, 2) == (header.outcome, header.duplicate_of)
    assert accounts == len(desk.state.accounts)


def test_a_frame_behind_a_gap_closes_its_origin() -> None:
    """The frame before it was acknowledged and is lost: neither it nor what follows runs."""
    desk = Desk()
    origin = new_origin("intake")
    desk.send(origin, 1)
    accounts = len(desk.state.accounts)

    for n in (3, 2, 3, 4, 1):
        assert Outcome.ORIGIN_CLOSED == desk.send(origin, n).outcome, n
    assert accounts == len(desk.state.accounts)
    assert Outcome.EXECUTED == desk.send(new_origin("intake"), 1).outcome


def test_a_closed_origin_survives_a_snapshot() -> None:
    """A state restored from its image refuses the same frames, and has the same digest."""
    desk = Desk()
    origin = new_origin("intake")
    for n in (1, 3):
        desk.send(origin, n)

    digest = desk.state.digest()
    desk.state = restore(take_image(desk.state).body)

    assert digest == desk.state.digest()
    assert Outcome.ORIGIN_CLOSED == desk.send(origin, 2).outcome
    assert Outcome.REJECTED_FRAME == desk.send("intake:", 1).outcome


def test_a_new_incarnation_closes_the_older_one() -> None:
    """After a restart under the same name, frames of the dead process are refused for good."""
    desk = Desk()
    old, new = new_origin("intake"), new_origin("intake")
    desk.send(old, 1)
    desk.send(new, 1)

    assert Outcome.ORIGIN_CLOSED == desk.send(old, 2).outcome
    assert Outcome.ORIGIN_CLOSED == desk.send(old, 1).outcome
    assert Outcome.EXECUTED == desk.send(new, 2).outcome


def test_an_origin_that_never_opened_is_refused() -> None:
    """An incarnation begins with frame 1 or not at all."""
    assert Outcome.ORIGIN_CLOSED == Desk().send(new_origin("intake"), 5).outcome


def test_names_are_independent() -> None:
    """Each name has its own counter."""
    desk = Desk()
    for name in ("intake-1", "intake-2", "liquidator"):
        assert Outcome.EXECUTED == desk.send(new_origin(name), 1).outcome


def test_a_repeat_older_than_remembered_is_still_a_repeat() -> None:
    """Memory is bounded: a very old frame is a duplicate of an entry no longer known."""
    desk = Desk()
    origin = new_origin("intake")
    for n in range(1, REMEMBERED_FRAMES + 3):
        desk.send(origin, n)

    header = desk.send(origin, 1)

    assert (Outcome.DUPLICATE, 0) == (header.outcome, header.duplicate_of)
    assert REMEMBERED_FRAMES == len(desk.state.origins["intake"].ran)


def test_a_body_that_does_not_decode_is_a_rejected_frame() -> None:
    """A right checksum over an unknown command consumes its number and changes nothing."""
    desk = Desk()
    origin = new_origin("intake")
    desk.send(origin, 1)
    before = desk.state.venue_digest()
    for n, body in enumerate((msgspec.msgpack.encode([["no_such_command", 1]]), b"\xc1", b""), start=2):
        checksum = command_checksum(origin, n, NOW_NS, SCHEMA_VERSION, body)
        frame = CommandFrame(
            origin=origin, n=n, time_ns=NOW_NS, schema=SCHEMA_VERSION, body=body, checksum=checksum
        )

        groups = desk.decide(frame)

        assert Outcome.REJECTED_FRAME == header_of(groups).outcome
        assert 1 == len(groups)
    assert before == desk.state.venue_digest()
    assert Outcome.EXECUTED == desk.send(origin, 5).outcome


def test_a_frame_without_a_proper_origin_is_a_rejected_frame() -> None:
    """An origin is a name and an incarnation; anything else is answered, not run, and stops nobody."""
    desk = Desk()
    for origin in ("", "x", "x:", ":y"):
        assert Outcome.REJECTED_FRAME == desk.send(origin, 1).outcome
    assert {} == desk.state.origins


def test_refused_command_changes_the_position_only() -> None:
    """One `Rejected` event: the venue's digest stays, the log position's moves."""
    desk = Desk()
    origin = new_origin("intake")
    desk.send(origin, 1)
    venue, position = desk.state.venue_digest(), desk.state.position_digest()
    order = PlaceOrder(
        account_id=99, market="X", side=Side.BUY, order_type=OrderType.LIMIT, quantity_lots=1, price_ticks=1
    )

    groups = desk.decide(close_command_frame(origin, 2, NOW_NS, [order]))

    rejected = groups[1][0]
    assert isinstance(rejected, Rejected)
    assert RejectCode.UNKNOWN_ACCOUNT == rejected.code
    assert venue == desk.state.venue_digest()
    assert position != desk.state.position_digest()


def test_the_log_is_named_by_entry_one_only() -> None:
    """A second CreateLog is refused."""
    desk = Desk()
    create = CreateLog(log_id="a" * 32, rules_version=1)
    origin = new_origin("genesis")

    first = desk.decide(close_command_frame(origin, 1, NOW_NS, [create]))
    second = desk.decide(close_command_frame(origin, 2, NOW_NS, [create]))

    assert isinstance(first[1][0], LogCreated)
    assert isinstance(second[1][0], Rejected)


def test_time_never_goes_back_and_never_runs_ahead() -> None:
    """now = max(previous, min(frame's time, writer's clock + 2 s))."""
    assert 100 == propose_now(100, 50, 60)
    assert 120 == propose_now(100, 120, 110)
    assert 100 + CLOCK_LEAD_NS == propose_now(0, 10**18, 100)


def test_groups_survive_encoding() -> None:
    """What is decided, encoded and decoded again is the same."""
    desk = Desk()
    groups = desk.decide(close_command_frame(new_origin("intake"), 1, NOW_NS, [OpenAccount(), Tick()]))

    assert groups == decode_groups(encode_groups(groups))


def test_a_frame_that_causes_too_much_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the commands of a frame have caused all that an entry can hold, the rest are refused."""
    monkeypatch.setattr(decide, "EVENTS_PER_FRAME_AIM", 2)
    desk = Desk()

    groups = desk.decide(desk.frame(new_origin("intake"), 1, 5))

    assert [AccountOpened] * 3 + [Rejected] * 2 == [type(group[0]) for group in groups[1:]]
    refused = groups[5][0]
    assert isinstance(refused, Rejected)
    assert RejectCode.FRAME_LIMIT is refused.code
