"""Entries as tables: one row a command or event, its fields as columns, and the entry itself to read back.

Every field of a message is a column of its name, in its own unit: prices in ticks, sizes in lots, money and
rates in 1e-8, as in `events.values`. Enumerations are their names in lower case, bytes hex, nested values
JSON. So a message that is added to the language has its columns without a word here.

The first row of each entry has type "frame" and stands for the entry as a whole: its `raw_…` columns hold
what was stored, byte for byte, and it alone is read when a table is read as a log.

An archiver makes a row of everything that happens, so that what is done here for each row counts: messages
are sorted by kind, each field of a kind becomes an array at one go, and arrays are spread over the table's
rows without Python looking at a row again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from operator import attrgetter
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from events.commands import AnyCommand
from events.events import AnyEvent, FrameHeader
from events.frame import CommandFrame, EventEntry, Groups, UndecodableBodyError, header_of
from events.log import CommandEntry, VerifiedEvents
from events.values import Outcome

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
_Values = list[Any]
_ToArray = Callable[[_Values], pa.Array]


def _integers(values: _Values) -> pa.Array:
    try:
        return pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        # A refused command may ask for any integer that msgpack can hold.
        return pa.array([value if value in _INT64 else None for value in values], pa.int64())


def _names_of(kind: type[Enum]) -> _ToArray:
    names: dict[Enum | None, str | None] = {member: member.name.lower() for member in kind}
    names[None] = None
    return lambda values: pa.array([names[value] for value in values], pa.string())


def _hex(values: _Values) -> pa.Array:
    return pa.array([None if value is None else value.hex() for value in values], pa.string())


def _nested(values: _Values) -> pa.Array:
    encode = msgspec.json.encode
    texts = [None if value is None else encode(_plain(value)).decode() for value in values]
    return pa.array(texts, pa.string())


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower()
    return value.hex() if isinstance(value, bytes) else value


def _column_of(hint: Any) -> tuple[pa.DataType, _ToArray]:
    """Return a column's type, and what makes an array of values of the annotated type, or None."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            return pa.string(), _names_of(hint)
        if hint is bool:
            return pa.bool_(), lambda values: pa.array(values, pa.bool_())
        if hint is int:
            return pa.int64(), _integers
        if hint is str:
            return pa.string(), lambda values: pa.array(values, pa.string())
        if hint is bytes:
            return pa.string(), _hex
    return pa.string(), _nested


class _Language:
    """The columns of all commands, or of all events, and how each kind of message fills them.

    `tags` and `fields` are by kind; a field is a column, the field's name and what makes an array of it.
    """

    def __init__(self, union: Any, raw: Sequence[tuple[str, pa.DataType]]) -> None:
        place = {name for name, _ in _PLACE}
        columns: dict[str, pa.DataType] = {}
        self.tags: dict[type, str] = {FrameHeader: FRAME}
        self.fields: dict[type, list[tuple[str, str, _ToArray]]] = {FrameHeader: []}
        for kind in get_args(union):
            if kind is FrameHeader:
                continue  # it stands for the frame as a whole, with columns of its own
            tag = self.tags[kind] = str(kind.__struct_config__.tag)
            fields = self.fields[kind] = []
            for name, hint in get_type_hints(kind).items():
                if name in _HIDDEN or name not in kind.__struct_fields__:
                    continue
                # A message may have a field named like a place of its own.
                column = f"{tag}_{name}" if name in place else name
                arrow_type, to_array = _column_of(hint)
                if columns.setdefault(column, arrow_type) != arrow_type:
                    column = f"{tag}_{name}"
                    columns[column] = arrow_type
                fields.append((column, name, to_array))
        self.codes = {kind: code for code, kind in enumerate(self.tags)}
        self.tag_names = pa.array(self.tags.values(), pa.string())
        self.raw_names = [name for name, _ in raw]
        self.schema = pa.schema([*_PLACE, *sorted(columns.items()), *raw])


_COMMANDS = _Language(AnyCommand, _RAW_COMMAND)
_EVENTS = _Language(AnyEvent, _RAW_EVENT)
COMMAND_SCHEMA = _COMMANDS.schema
EVENT_SCHEMA = _EVENTS.schema
_outcome_names: Final = _names_of(Outcome)


class _Rows:
    """The rows of entries, in order; an entry's first is its frame."""

    def __init__(self, language: _Language) -> None:
        self._language = language
        self._messages: list[Any] = []
        self._starts: list[int] = []
        # Of each row: its entry's place among the entries, its own in the entry, its command's in the frame.
        self._entries: list[int] = []
        self._positions: list[int] = []
        self._indices: list[int] = []
        self._seqs: list[int] = []
        self._headers: list[FrameHeader] = []
        self._origins: list[tuple[str, int]] = []
        self._raw: list[tuple[Any, ...]] = []

    def add(
        self, seq: int, header: FrameHeader, origin: tuple[str, int], groups: Groups, raw: tuple[Any, ...]
    ) -> None:
        """Add an entry: the rows of its frame and of its messages, by groups; the first is the frame's own.

        `origin` is that of the frame with its number, `raw` what the raw columns hold.
        """
        start = len(self._messages)
        self._starts.append(start)
        for index, group in enumerate(groups, -1):
            self._messages += group
            self._indices += [index] * len(group)
        count = len(self._messages) - start
        self._entries += [len(self._seqs)] * count
        self._positions += range(count)
        self._seqs.append(seq)
        self._headers.append(header)
        self._origins.append(origin)
        self._raw.append(raw)

    def table(self) -> pa.Table:
        """Return the rows; what they do not have is null."""
        language, count = self._language, len(self._messages)
        columns = self._place_columns() | self._raw_columns() | self._message_columns()
        nothing: dict[pa.DataType, pa.Array] = {}
        arrays = []
        for field in language.schema:
            array = columns.get(field.name)
            if array is None:
                array = nothing.get(field.type)
            if array is None:
                array = nothing[field.type] = pa.nulls(count, field.type)
            arrays.append(array)
        return pa.table(arrays, schema=language.schema)

    def _place_columns(self) -> dict[str, pa.Array]:
        codes_of = self._language.codes
        codes = pa.array([codes_of[type(message)] for message in self._messages], pa.int32())
        entries = pa.array(self._entries, pa.int32())
        headers = self._headers
        by_entry = {
            "seq": pa.array(self._seqs, pa.int64()),
            "time": pa.array([header.now_ns for header in headers], _TIME),
            "origin": pa.array([name for name, _ in self._origins], pa.string()),
            "n": pa.array([n for _, n in self._origins], pa.uint64()),
            "outcome": _outcome_names([header.outcome for header in headers]),
        }
        return {
            "position": pa.array(self._positions, pa.int32()),
            "index": pa.array(self._indices, pa.int32()),
            "type": self._language.tag_names.take(codes),
        } | {name: array.take(entries) for name, array in by_entry.items()}

    def _raw_columns(self) -> dict[str, pa.Array]:
        schema, names = self._language.schema, self._language.raw_names
        place = _places([self._starts], len(self._messages))
        values = zip(*self._raw, strict=True) if self._raw else [()] * len(names)
        return {
            name: pa.array(column, schema.field(name).type).take(place)
            for name, column in zip(names, values, strict=True)
        }

    def _message_columns(self) -> dict[str, pa.Array]:
        messages_of: defaultdict[type, list[Any]] = defaultdict(list)
        rows_of: defaultdict[type, list[int]] = defaultdict(list)
        for row, message in enumerate(self._messages):
            kind = type(message)
            messages_of[kind].append(message)
            rows_of[kind].append(row)
        parts: defaultdict[str, list[tuple[type, pa.Array]]] = defaultdict(list)
        for kind, messages in messages_of.items():
            for column, name, to_array in self._language.fields[kind]:
                parts[column].append((kind, to_array(list(map(attrgetter(name), messages)))))
        places: dict[tuple[type, ...], pa.Array] = {}
        columns = {}
        for column, found in parts.items():
            kinds = tuple(kind for kind, _ in found)
            if kinds not in places:
                places[kinds] = _places([rows_of[kind] for kind in kinds], len(self._messages))
            columns[column] = pa.concat_arrays([array for _, array in found]).take(places[kinds])
        return columns


def _places(rows: Sequence[Sequence[int]], count: int) -> pa.Array:
    """Return for each of `count` rows where its value is among those of `rows`, null for all others."""
    listed = pa.concat_arrays([pa.array(part, pa.int32()) for part in rows])
    if not len(listed):
        return pa.nulls(count, pa.int32())
    return pc.inverse_permutation(listed, max_index=count - 1)


def command_table(answered: Iterable[Answered]) -> pa.Table:
    """Return the rows of command entries; `outcome` and `time` are from the entries that answer them."""
    rows = _Rows(_COMMANDS)
    for command, verified in answered:
        frame, header = command.frame, header_of(verified.groups)
        try:
            messages: list[Any] = frame.commands()
        except UndecodableBodyError:
            messages = []  # the raw body is all there is
        raw = (frame.schema, frame.time_ns, frame.body, frame.checksum)
        groups = [[header], *([message] for message in messages)]
        rows.add(command.seq, header, (frame.origin, frame.n), groups, raw)
    return rows.table()


def event_table(entries: Iterable[VerifiedEvents]) -> pa.Table:
    """Return the rows of event entries."""
    rows = _Rows(_EVENTS)
    for verified in entries:
        stored, header = verified.entry, header_of(verified.groups)
        raw = (stored.schema, stored.body, stored.chain_hash, stored.writer, stored.timing)
        rows.add(stored.seq, header, (header.origin, header.frame_n), verified.groups, raw)
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
