"""Frames: bytes, bounds, checksums, chain."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from events.commands import AnyCommand, CreateLog, Deposit, OpenAccount, Tick
from events.events import Event, FrameHeader, LogCreated, TickPassed
from events.frame import (
    BODY_BYTES_MAX,
    COMMANDS_PER_FRAME_MAX,
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    FrameTooLargeError,
    UndecodableBodyError,
    chain_hash,
    close_command_frame,
    close_encoded_frame,
    command_checksum,
    decode_groups,
    encode_command,
    encode_groups,
    header_of,
    log_id_of,
    new_origin,
)
from events.values import Outcome

ORIGIN = "intake:00000000000000000000000000000000"
LOG_ID = "0123456789abcdef0123456789abcdef"
HEADER = FrameHeader(seq=1, origin=ORIGIN, frame_n=1, now_ns=5, checksum=bytes(32), outcome=Outcome.EXECUTED)


def test_an_origin_is_its_name_and_a_fresh_incarnation() -> None:
    """Two incarnations of one name differ in 128 random bits."""
    name, _, incarnation = new_origin("intake").partition(":")

    assert name == "intake"
    assert len(bytes.fromhex(incarnation)) == 16
    assert new_origin("intake") != new_origin("intake")


@pytest.mark.parametrize("name", ["", "a:b"])
def test_an_origins_name_must_leave_the_colon_alone(name: str) -> None:
    """The first colon ends the name."""
    with pytest.raises(ValueError, match="origin name"):
        new_origin(name)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300, COMMANDS_PER_FRAME_MAX])
def test_a_frame_holds_its_commands_in_order(count: int) -> None:
    """Whatever their number, the body is the msgpack array of the commands."""
    commands = [Deposit(account_id=i, amount=i * i) for i in range(count)]

    frame = close_command_frame(ORIGIN, 3, 7, commands)

    assert commands == frame.commands()
    assert msgspec.msgpack.encode(commands) == frame.body
    assert (ORIGIN, 3, 7, SCHEMA_VERSION) == (frame.origin, frame.n, frame.time_ns, frame.schema)
    assert frame.is_intact()


def test_encoded_commands_make_the_same_frame() -> None:
    """Encoding one by one and all at once are the same bytes."""
    commands: list[AnyCommand] = [OpenAccount(label="a"), Tick(), CreateLog(log_id=LOG_ID, rules_version=1)]
    encoded = [encode_command(command) for command in commands]

    assert close_command_frame(ORIGIN, 1, 2, commands) == close_encoded_frame(ORIGIN, 1, 2, encoded)


def test_a_frame_has_a_bound_on_count() -> None:
    """4,097 commands do not fit."""
    with pytest.raises(FrameTooLargeError, match="4097 commands"):
        close_command_frame(ORIGIN, 1, 1, [Tick()] * (COMMANDS_PER_FRAME_MAX + 1))


def test_a_frame_has_a_bound_on_bytes() -> None:
    """A body of 64 MiB fits, header included, one byte more does not."""
    fits = b"\xc0" * (BODY_BYTES_MAX - 1)

    assert len(close_encoded_frame(ORIGIN, 1, 1, [fits]).body) == BODY_BYTES_MAX
    with pytest.raises(FrameTooLargeError, match="67108865 bytes"):
        close_encoded_frame(ORIGIN, 1, 1, [fits, b"\xc0"])


FIELD_CHANGES = {
    "origin": {"origin": "intake:1"},
    "n": {"n": 2},
    "time_ns": {"time_ns": 0},
    "schema": {"schema": 2},
    "body": {"body": b"\x90"},
    "checksum": {"checksum": bytes(32)},
}


@pytest.mark.parametrize("field", FIELD_CHANGES)
def test_every_field_is_under_the_checksum(field: str) -> None:
    """A change of any one of them shows."""
    frame = close_command_frame(ORIGIN, 1, 1, [Tick()])

    assert not replace(frame, **FIELD_CHANGES[field]).is_intact()  # type: ignore[arg-type]


@given(st.text(max_size=9), st.text(max_size=9), st.binary(max_size=9), st.binary(max_size=9))
def test_nothing_can_move_between_origin_and_body(a: str, b: str, c: bytes, d: bytes) -> None:
    """Frames of other content have another checksum, even where their concatenation is the same."""
    first = command_checksum(a, 1, 1, 1, b.encode() + c)
    second = command_checksum(a + b, 1, 1, 1, c + d)

    assert (first == second) == ((a, b.encode() + c) == (a + b, c + d))


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_undecodable(body: bytes) -> None:
    """No body raises anything but `UndecodableBodyError`."""
    frame = CommandFrame(origin=ORIGIN, n=1, time_ns=1, schema=1, body=body, checksum=b"")
    for decode in (frame.commands, lambda: decode_groups(body)):
        try:
            decode()
        except UndecodableBodyError:
            pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x91\x91\xa7unknown",
        b"\x91\x92\xa4tick\x01",
        encode_command(Tick()),
        close_command_frame(ORIGIN, 1, 1, [Tick()]).body + b"\x00",
        b"\x91" * 5000,
    ],
    ids=["empty", "unknown tag", "field too many", "no array", "trailing byte", "deep"],
)
def test_a_body_that_is_not_commands_is_undecodable(body: bytes) -> None:
    """Unknown tags and fields are refused, not skipped."""
    frame = CommandFrame(origin=ORIGIN, n=1, time_ns=1, schema=1, body=body, checksum=b"")

    with pytest.raises(UndecodableBodyError):
        frame.commands()


def test_groups_come_back_as_they_were() -> None:
    """Groups keep order and emptiness; the first event is the header."""
    groups: list[list[Event]] = [[HEADER], [], [TickPassed(), LogCreated(log_id=LOG_ID, rules_version=1)]]

    decoded = decode_groups(encode_groups(groups))

    assert groups == decoded
    assert HEADER == header_of(decoded)
    assert LOG_ID == log_id_of(decoded)
    assert log_id_of([[HEADER]]) is None


@pytest.mark.parametrize("groups", [[], [[]], [[TickPassed()]], [[], [HEADER]]], ids=str)
def test_groups_without_a_header_are_undecodable(groups: list[list[Event]]) -> None:
    """An entry that does not say which frame it answers is no entry."""
    with pytest.raises(UndecodableBodyError, match="not a frame header"):
        decode_groups(encode_groups(groups))


def test_every_input_changes_the_chain_hash() -> None:
    """Log, previous hash, number, schema, command checksum and body each count."""
    one = b"\x01" * 32
    inputs = [
        (LOG_ID, GENESIS_HASH, 1, 1, GENESIS_HASH, b"body"),
        ("f" * 32, GENESIS_HASH, 1, 1, GENESIS_HASH, b"body"),
        (LOG_ID, one, 1, 1, GENESIS_HASH, b"body"),
        (LOG_ID, GENESIS_HASH, 2, 1, GENESIS_HASH, b"body"),
        (LOG_ID, GENESIS_HASH, 1, 2, GENESIS_HASH, b"body"),
        (LOG_ID, GENESIS_HASH, 1, 1, one, b"body"),
        (LOG_ID, GENESIS_HASH, 1, 1, GENESIS_HASH, b"bodY"),
    ]

    assert len(inputs) == len({chain_hash(*values) for values in inputs})


def test_hashes_are_those_of_the_format() -> None:
    """The byte layout is part of every stored log: these two values never change."""
    assert (
        command_checksum("a:b", 1, 2, 1, b"\x90").hex()
        == "7a84182834752007d30b024c4e22a29498ae73f71ccd1a46d43c22e404885c39"
    )
    assert (
        chain_hash(LOG_ID, GENESIS_HASH, 1, 1, GENESIS_HASH, b"\x90").hex()
        == "ac5bc400af9d7573fe62948d1bb19c74361fc00430f6a12608a699bccfea0803"
    )
