"""Schema versions: how bodies that an older build wrote are read by this one.

An entry says under which version of the language its body was written. A body of the current version is
decoded into messages at once. An older one is decoded into plain data, led through the numbered upcasters,
one version at a time, and only then into messages; so the rest of the program knows one language. The stored
bytes stay as they are, and so do checksums and hashes, which are of the bytes.

What an upcaster may do: rename a tag, move, add or drop a field, restate a value in another unit. What it may
not do is give an event another meaning: replaying an old log leads to the digest it led to then.

To change the language: raise `SCHEMA_VERSION`, write the upcaster from the version before, and put it at the
end of `UPCASTERS`. A field with a default at the end of a message needs none of that, as long as no older
build is to read what a newer one writes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from events.commands import AnyCommand
from events.events import AnyEvent, Event

SCHEMA_VERSION = 1

# A message as plain data: its tag, then its fields in order.
Plain = list[Any]


class UndecodableBodyError(ValueError):
    """A body whose checksum is right does not decode under its schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcaster:
    """The way from one version of the language to the next, for a command and for an event.

    Both get a message as its version wrote it and return it as the next version would. They may change the
    list that they get. Commands and events are apart because some tags are in both.
    """

    command: Callable[[Plain], Plain]
    event: Callable[[Plain], Plain]


# The first leads from version 1 to version 2, and is named v1_to_v2; and so on.
UPCASTERS: tuple[Upcaster, ...] = ()


class Language:
    """The current version of commands and events, and the way to it from every older one.

    Raises:
        ValueError: there is not one upcaster for each older version.
    """

    def __init__(self, version: int, commands: Any, events: Any, upcasters: Sequence[Upcaster]) -> None:
        if len(upcasters) != version - 1:
            raise ValueError(f"version {version} needs {version - 1} upcasters, got {len(upcasters)}")
        self.version = version
        self._upcasters = tuple(upcasters)
        self._commands: msgspec.msgpack.Decoder[list[AnyCommand]] = msgspec.msgpack.Decoder(list[commands])
        self._groups: msgspec.msgpack.Decoder[list[list[Event]]] = msgspec.msgpack.Decoder(list[list[events]])

    def reads(self, schema: int) -> bool:
        """Tell whether bodies of that version can be read."""
        return 1 <= schema <= self.version

    def decode_commands(self, schema: int, body: bytes) -> list[AnyCommand]:
        """Decode the body of a command frame.

        Raises:
            UndecodableBodyError: it is not an array of commands known to its version.
        """
        try:
            if schema != self.version:
                body = self._upcast_commands(schema, body)
            return self._commands.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UndecodableBodyError(str(error)) from error

    def decode_groups(self, schema: int, body: bytes) -> list[list[Event]]:
        """Decode the body of an event entry.

        Raises:
            UndecodableBodyError: it is not groups of events known to its version.
        """
        try:
            if schema != self.version:
                body = self._upcast_groups(schema, body)
            return self._groups.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UndecodableBodyError(str(error)) from error

    def _upcast_commands(self, schema: int, body: bytes) -> bytes:
        steps = [upcaster.command for upcaster in self._steps(schema)]
        return msgspec.msgpack.encode(
            [_climb(message, steps) for message in msgspec.msgpack.decode(body, type=list[Plain])]
        )

    def _upcast_groups(self, schema: int, body: bytes) -> bytes:
        steps = [upcaster.event for upcaster in self._steps(schema)]
        groups = msgspec.msgpack.decode(body, type=list[list[Plain]])
        return msgspec.msgpack.encode([[_climb(message, steps) for message in group] for group in groups])

    def _steps(self, schema: int) -> tuple[Upcaster, ...]:
        if not self.reads(schema):
            raise UndecodableBodyError(f"schema version {schema} is unknown; this build reads {self.version}")
        return self._upcasters[schema - 1 :]


def _climb(message: Plain, steps: Sequence[Callable[[Plain], Plain]]) -> Plain:
    """Lead a message through upcasters.

    Raises:
        UndecodableBodyError: one of them finds the message other than its version writes it.
    """
    for step in steps:
        try:
            message = step(message)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise UndecodableBodyError(f"not what its schema version writes: {error!r}") from error
    return message


LANGUAGE = Language(SCHEMA_VERSION, AnyCommand, AnyEvent, UPCASTERS)
