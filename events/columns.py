"""Entries as tables: one row a command or event, its fields as columns, and the entry itself to read back.

Every field of a message is a column of its name, in its own unit: prices in ticks, sizes in lots, money and
rates in 1e-8, as in `events.values`. Enumerations are their names in lower case, bytes hex, nested values
JSON. So a message that is added to the language has its columns without a word here.

The first row of each entry has type "frame" and stands for the entry as a whole: its `raw_…` columns hold
what was stored, byte for byte, and it alone is read when a table is read as a log.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa

from events.commands import AnyCommand
from events.events import AnyEvent, FrameHeader
from events.frame import CommandFrame, EventEntry, UndecodableBodyError, header_of
from events.log import CommandEntry, VerifiedEvents

FRAME = "frame"
_INT64 = range(-(1 << 63), 1 << 63)
# UTC, without saying so: not everything that reads Parquet has a table of time zones.
_TIME = pa.timestamp("ns")
# Sealed API secrets are in the raw body for whoever replays the log, and nowhere else.
_HIDDEN = frozenset({"sealed_secret"})

# Where a row is from. `index` is the command's place in its frame, −1 for what concerns the frame as a whole;
# `position` numbers the rows of an entry; `time` is the exchange's.
_PLACE = [
    ("seq", pa.int64()),
    ("position", pa.int32()),
    ("index", pa.int32()),
    ("type", pa.string()),
    ("time", _TIME),
    ("origin", pa.string()),
    ("n", pa.uint64()),
    ("outcome", pa.string()),
]
_RAW_COMMAND = [
    ("raw_schema", pa.uint32()),
    ("raw_time_ns", pa.uint64()),
    ("raw_body", pa.large_binary()),
    ("raw_checksum", pa.binary()),
]
_RAW_EVENT = [
    ("raw_schema", pa.uint32()),
    ("raw_body", pa.large_binary()),
    ("raw_chain_hash", pa.binary()),
    ("raw_writer", pa.string()),
    ("raw_timing", pa.binary()),
]
RAW_COMMAND_COLUMNS = ["seq", "origin", "n", *(name for name, _ in _RAW_COMMAND)]
RAW_EVENT_COLUMNS = ["seq", *(name for name, _ in _RAW_EVENT)]

Answered = tuple[CommandEntry, VerifiedEvents]
_Convert = Callable[[Any], Any]


def _convert_int(value: int) -> int | None:
    # A refused command may ask for any integer that msgpack can hold.
    return value if value in _INT64 else None


def _convert_name(value: Enum) -> str:
    return value.name.lower()


def _convert_nested(value: Any) -> str:
    return msgspec.json.encode(_plain(value)).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return _convert_name(value)
    return value.hex() if isinstance(value, bytes) else value


def _column_of(hint: Any) -> tuple[pa.DataType, _Convert]:
    """Return a column's type and how a value of the annotated type gets into it."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            return pa.string(), _convert_name
        if hint is bool:
            return pa.bool_(), bool
        if hint is int:
            return pa.int64(), _convert_int
        if hint is str:
            return pa.string(), str
        if hint is bytes:
            return pa.string(), bytes.hex
    return pa.string(), _convert_nested


class _Language:
    """The columns of all commands, or of all events, and how each kind of message fills them."""

    def __init__(self, union: Any, raw: Sequence[tuple[str, pa.DataType]]) -> None:
        place = {name for name, _ in _PLACE}
        columns: dict[str, pa.DataType] = {}
        self.fillers: dict[type, tuple[str, list[tuple[str, str, _Convert]]]] = {}
        for kind in get_args(union):
            tag = str(kind.__struct_config__.tag)
            fields = []
            for name, hint in get_type_hints(kind).items():
                if name in _HIDDEN or name not in kind.__struct_fields__ or kind is FrameHeader:
                    continue
                # A message may have a field named like a place of its own.
                column = f"{tag}_{name}" if name in place else name
                arrow_type, convert = _column_of(hint)
                if columns.setdefault(column, arrow_type) != arrow_type:
                    column = f"{tag}_{name}"
                    columns[column] = arrow_type
                fields.append((column, name, convert))
            self.fillers[kind] = (tag, fields)
        self.schema = pa.schema([*_PLACE, *sorted(columns.items()), *raw])


_COMMANDS = _Language(AnyCommand, _RAW_COMMAND)
_EVENTS = _Language(AnyEvent, _RAW_EVENT)
COMMAND_SCHEMA = _COMMANDS.schema
EVENT_SCHEMA = _EVENTS.schema


class _Rows:
    """Rows of which each has a few of many columns."""

    def __init__(self, language: _Language) -> None:
        self._language = language
        self._cells: dict[str, tuple[list[int], list[Any]]] = {
            name: ([], []) for name in language.schema.names
        }
        self._places: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, place: tuple[Any, ...], message: msgspec.Struct) -> None:
        """Add a row for a message; `place` is seq, position and index, then what follows the type."""
        tag, fields = self._language.fillers[type(message)]
        cells = [
            (column, convert(value))
            for column, name, convert in fields
            if (value := getattr(message, name)) is not None
        ]
        self.add_cells(place, tag, cells)

    def add_cells(self, place: tuple[Any, ...], tag: str, cells: Iterable[tuple[str, Any]]) -> None:
        """Add a row of given cells."""
        row = self.count
        self._places.append((*place[:3], tag, *place[3:]))
        for name, value in cells:
            rows, values = self._cells[name]
            rows.append(row)
            values.append(value)
        self.count = row + 1

    def table(self) -> pa.Table:
        """Return the rows; what they do not have is null."""
        schema = self._language.schema
        placed = zip(*self._places, strict=True) if self._places else [()] * len(_PLACE)
        arrays = [pa.array(column, kind) for column, (_, kind) in zip(placed, _PLACE, strict=True)]
        arrays += [self._array(schema.field(position)) for position in range(len(_PLACE), len(schema))]
        return pa.table(arrays, schema=schema)

    def _array(self, field: pa.Field) -> pa.Array:
        rows, values = self._cells[field.name]
        if not rows:
            return pa.nulls(self.count, field.type)
        if len(rows) < self.count:
            sparse: list[Any] = [None] * self.count
            for row, value in zip(rows, values, strict=True):
                sparse[row] = value
            values = sparse
        return pa.array(values, field.type)


def command_table(answered: Iterable[Answered]) -> pa.Table:
    """Return the rows of command entries; `outcome` and `time` are from the entries that answer them."""
    rows = _Rows(_COMMANDS)
    for command, verified in answered:
        frame, header = command.frame, header_of(verified.groups)
        entry = (header.now_ns, frame.origin, frame.n, _convert_name(header.outcome))
        raw = (frame.schema, frame.time_ns, frame.body, frame.checksum)
        rows.add_cells((command.seq, 0, -1, *entry), FRAME, zip(_names(_RAW_COMMAND), raw, strict=True))
        try:
            messages = frame.commands()
        except UndecodableBodyError:
            continue  # the raw body is all there is
        for index, message in enumerate(messages):
            rows.add((command.seq, index + 1, index, *entry), message)
    return rows.table()


def event_table(entries: Iterable[VerifiedEvents]) -> pa.Table:
    """Return the rows of event entries."""
    rows = _Rows(_EVENTS)
    for verified in entries:
        stored, header = verified.entry, header_of(verified.groups)
        entry = (header.now_ns, header.origin, header.frame_n, _convert_name(header.outcome))
        raw = (stored.schema, stored.body, stored.chain_hash, stored.writer, stored.timing)
        rows.add_cells((stored.seq, 0, -1, *entry), FRAME, zip(_names(_RAW_EVENT), raw, strict=True))
        position = 0
        for group_index, group in enumerate(verified.groups):
            for message in group:
                if message is not header:
                    position += 1
                    rows.add((stored.seq, position, group_index - 1, *entry), message)
    return rows.table()


def command_entries(table: pa.Table) -> list[CommandEntry]:
    """Return the command entries that rows of type "frame" hold."""
    columns = (table.column(name).to_pylist() for name in RAW_COMMAND_COLUMNS)
    return [
        CommandEntry(
            seq=seq,
            frame=CommandFrame(
                origin=origin, n=n, time_ns=time_ns, schema=schema, body=body, checksum=checksum
            ),
        )
        for seq, origin, n, schema, time_ns, body, checksum in zip(*columns, strict=True)
    ]


def event_entries(table: pa.Table) -> list[EventEntry]:
    """Return the event entries that rows of type "frame" hold."""
    columns = (table.column(name).to_pylist() for name in RAW_EVENT_COLUMNS)
    return [
        EventEntry(seq=seq, schema=schema, body=body, chain_hash=chain_hash, writer=writer, timing=timing)
        for seq, schema, body, chain_hash, writer, timing in zip(*columns, strict=True)
    ]


def _names(columns: Sequence[tuple[str, pa.DataType]]) -> list[str]:
    return [name for name, _ in columns]
