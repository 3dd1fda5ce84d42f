"""Frames: a batch of commands or events as bytes, with schema version, checksum and hash chain.

One stream entry holds one frame. A command frame carries its own checksum, so that damage is found before
anything is decided. Event frames form a chain: each hash covers the one before it, the name of the log,
the sequence number and the checksum of the command frame it answers, so that neither a changed byte nor a
removed, repeated or swapped entry can go unnoticed by whoever holds a later hash.

An event body is an array of *groups*: group 0 holds what concerns the whole frame and begins with its
`FrameHeader`; group i + 1 holds the events of command i. A request is matched to its answer by
(origin, n, i), never by sequence number.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from struct import pack

import msgspec

from events import upcast
from events.commands import AnyCommand
from events.events import Event, FrameHeader, LogCreated
from events.upcast import SCHEMA_VERSION as SCHEMA_VERSION
from events.upcast import UndecodableBodyError as UndecodableBodyError

COMMANDS_PER_FRAME_MAX = 4096
BODY_BYTES_MAX = 64 * 1024 * 1024
BODY_HEADER_BYTES_MAX = 3
GENESIS_HASH = bytes(32)
_COMMAND_DOMAIN = b"foldex command frame\x00"
_EVENT_DOMAIN = b"foldex event frame\x00"

Groups = list[list[Event]]

_encoder = msgspec.msgpack.Encoder()


class FrameTooLargeError(ValueError):
    """A batch exceeds what one entry may hold; nothing was appended."""


class CommandFrame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A batch of commands of one origin.

    `origin` is "name:incarnation", `n` that origin's counter from 1, `time_ns` its wall clock when the
    frame closed, `schema` the version of the language, `checksum` covers all of these and the body.
    """

    origin: str
    n: int
    time_ns: int
    schema: int
    body: bytes
    checksum: bytes

    def is_intact(self) -> bool:
        """Tell whether the checksum is that of the content."""
        return self.checksum == command_checksum(self.origin, self.n, self.time_ns, self.schema, self.body)

    def commands(self) -> list[AnyCommand]:
        """Decode the body, whatever version of the language it was written in.

        Raises:
            UndecodableBodyError: the body is not an array of known commands.
        """
        return upcast.LANGUAGE.decode_commands(self.schema, self.body)


class EventEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The events of the command entry `seq`.

    `chain_hash` covers the body and everything before it. `writer` ("id:term") and `timing` (packed
    marks for latency tracing) are outside the hash.
    """

    seq: int
    schema: int
    body: bytes
    chain_hash: bytes
    writer: str
    timing: bytes = b""


def new_origin(name: str, token_hex: Callable[[int], str] = secrets.token_hex) -> str:
    """Return a fresh incarnation of an appender's name: "name:" and 32 random hex digits.

    Raises:
        ValueError: the name is empty or holds a colon.
    """
    if not name or ":" in name:
        raise ValueError(f"origin name must be non-empty and without ':', got {name!r}")
    return f"{name}:{token_hex(16)}"


def command_checksum(origin: str, n: int, time_ns: int, schema: int, body: bytes) -> bytes:
    """Hash a command frame: BLAKE2b-256 over origin, counter, time, schema, length and body."""
    name = origin.encode()
    head = pack(">IQQIQ", len(name), n, time_ns, schema, len(body))
    return hashlib.blake2b(b"".join((_COMMAND_DOMAIN, head, name, body)), digest_size=32).digest()


def encode_command(command: AnyCommand) -> bytes:
    """Encode one command as it will stand in a frame's body; its length counts towards the frame's bound.

    Raises:
        OverflowError: the command holds an integer of more than 64 bits.
    """
    return _encoder.encode(command)


def close_command_frame(origin: str, n: int, time_ns: int, commands: Sequence[AnyCommand]) -> CommandFrame:
    """Encode commands as a frame.

    Raises:
        FrameTooLargeError: more than 4,096 commands, or a body of more than 64 MiB.
    """
    return close_encoded_frame(origin, n, time_ns, [encode_command(command) for command in commands])


def close_encoded_frame(origin: str, n: int, time_ns: int, encoded: Sequence[bytes]) -> CommandFrame:
    """Make a frame of commands that `encode_command` has encoded.

    Raises:
        FrameTooLargeError: more than 4,096 commands, or a body of more than 64 MiB.
    """
    count = len(encoded)
    if count > COMMANDS_PER_FRAME_MAX:
        raise FrameTooLargeError(f"{count} commands; a frame holds {COMMANDS_PER_FRAME_MAX}")
    # A msgpack array is its header and its elements: nothing is encoded twice.
    header = pack("B", 0x90 | count) if count < 16 else pack(">BH", 0xDC, count)
    assert len(header) <= BODY_HEADER_BYTES_MAX, len(header)
    body = b"".join((header, *encoded))
    if len(body) > BODY_BYTES_MAX:
        raise FrameTooLargeError(f"{len(body)} bytes; a frame holds {BODY_BYTES_MAX}")
    checksum = command_checksum(origin, n, time_ns, SCHEMA_VERSION, body)
    return CommandFrame(
        origin=origin, n=n, time_ns=time_ns, schema=SCHEMA_VERSION, body=body, checksum=checksum
    )


def encode_groups(groups: Groups) -> bytes:
    """Encode the groups of one entry."""
    return _encoder.encode(groups)


def decode_groups(body: bytes, schema: int = SCHEMA_VERSION) -> Groups:
    """Decode the groups of one entry, whatever version of the language it was written in.

    Raises:
        UndecodableBodyError: the body is not groups of known events led by a `FrameHeader`.
    """
    groups = upcast.LANGUAGE.decode_groups(schema, body)
    if not groups or not groups[0] or not isinstance(groups[0][0], FrameHeader):
        raise UndecodableBodyError("the first event is not a frame header")
    return groups


def header_of(groups: Groups) -> FrameHeader:
    """Return the header that `decode_groups` made sure of."""
    header = groups[0][0]
    assert isinstance(header, FrameHeader), header
    return header


def log_id_of(groups: Groups) -> str | None:
    """Return the log's name if these are the groups of entry 1, which alone holds it."""
    for group in groups:
        for event in group:
            if isinstance(event, LogCreated):
                return event.log_id
    return None


def chain_hash(
    log_id: str, previous_hash: bytes, seq: int, schema: int, command_checksum: bytes, body: bytes
) -> bytes:
    """Hash an event entry into the chain.

    BLAKE2b-256(domain ‖ log id ‖ previous hash ‖ seq ‖ schema ‖ command checksum ‖ length ‖ body).
    """
    assert len(previous_hash) == 32, len(previous_hash)
    assert len(command_checksum) == 32, len(command_checksum)
    assert len(log_id) == 32, log_id
    parts = (
        _EVENT_DOMAIN,
        log_id.encode(),
        previous_hash,
        pack(">QI", seq, schema),
        command_checksum,
        pack(">Q", len(body)),
        body,
    )
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()
