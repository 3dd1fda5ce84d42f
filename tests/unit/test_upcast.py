"""Old logs: read as they were written, led to today's language by upcasters, refused by name when unknown."""

from collections.abc import Callable
from typing import Union, get_args

import msgspec
import pytest
from msgspec.structs import replace

from events import upcast
from events.commands import AnyCommand, Command, Deposit, Tick
from events.events import AnyEvent, CheckpointPassed, Deposited, Event
from events.frame import UndecodableBodyError, decode_groups
from events.log import CommandReader, CorruptLogError, EventReader, ReadableLog
from events.memory import MemoryLog
from events.snapshot import find, load
from events.upcast import Language, Plain, Upcaster
from exchange.aggregate.state import Exchange
from exchange.audit.replay import apply_entry
from exchange.fold import Fold, Snapshots, restore_snapshot
from tests.fixtures.make_schema_v1 import LOG_PATH, SNAPSHOT_DIRECTORY
from tests.fixtures.recorder import load_log


class DepositV2(Command, frozen=True, tag="deposit"):
    """`Deposit` as a second version might have it: the amount first, and where the money came from."""

    amount: int
    account_id: int
    source: str


class DepositedV2(Event, frozen=True, tag="money_in"):
    """`Deposited` as a second version might have it: another tag, and where the money came from."""

    account_id: int
    amount: int
    source: str


def command_v1_to_v2(message: Plain) -> Plain:
    """Lead a command of version 1 to version 2."""
    if message[0] == "deposit":
        _, account_id, amount = message
        return ["deposit", amount, account_id, "unknown"]
    return message


def event_v1_to_v2(message: Plain) -> Plain:
    """Lead an event of version 1 to version 2."""
    if message[0] == "deposited":
        _, account_id, amount = message
        return ["money_in", account_id, amount, "unknown"]
    return message


V1_TO_V2 = Upcaster(command=command_v1_to_v2, event=event_v1_to_v2)


def union_with(union: object, old: type, new: type) -> object:
    """Return a union of message types with one of them exchanged."""
    return Union[tuple(new if kind is old else kind for kind in get_args(union))]  # noqa: UP007


def second_language() -> Language:
    """Return version 2 of the language."""
    commands = union_with(AnyCommand, Deposit, DepositV2)
    return Language(2, commands, union_with(AnyEvent, Deposited, DepositedV2), [V1_TO_V2])


def decoded(language: Language, schema: int, body: bytes) -> list[object]:
    """Return the commands of a body."""
    return list(language.decode_commands(schema, body))


async def replayed(log: ReadableLog, prepare: Callable[[Exchange], None] = lambda state: None) -> Exchange:
    """Return the state to which the events of a log lead."""
    state = Exchange()
    prepare(state)
    reader = EventReader(log)
    while entries := await reader.read(100):
        for verified in entries:
            apply_entry(state, verified)
    return state


async def test_the_stored_log_of_version_1_replays_to_its_digest() -> None:
    """A log written by version 1, with every kind of event, leads to the state that its writer had."""
    stored = load_log(LOG_PATH)

    state = await replayed(stored.in_memory())

    assert stored.digest == state.digest()
    assert {1} == {entry.schema for entry in stored.events}
    assert {1} == {entry.frame.schema for entry in stored.commands}
    kinds = {type(e) for entry in stored.events for group in decode_groups(entry.body) for e in group}
    assert set(get_args(AnyEvent)) == kinds  # while version 1 is not released it still grows
    assert 300_000 > LOG_PATH.stat().st_size + sum(path.stat().st_size for path in find(SNAPSHOT_DIRECTORY))


async def test_the_stored_snapshot_of_version_1_and_the_tail_lead_to_the_digest() -> None:
    """A snapshot written by version 1 restores, is the state its checkpoint names, and leads to the end."""
    stored = load_log(LOG_PATH)
    (path,) = find(SNAPSHOT_DIRECTORY)
    snapshot = load(path)

    fold = Fold(stored.in_memory(), lambda verified: None, Snapshots(directory=SNAPSHOT_DIRECTORY))
    await fold.catch_up()

    assert snapshot.digest == restore_snapshot(snapshot).digest()
    assert [(snapshot.seq, snapshot.digest)] == [
        (event.seq, event.digest)
        for entry in stored.events
        for group in decode_groups(entry.body)
        for event in group
        if isinstance(event, CheckpointPassed)
    ]
    assert fold.started_from is not None
    assert snapshot.seq == fold.started_from.seq
    assert stored.digest == fold.state.digest()


async def test_a_log_of_version_1_replays_to_its_digest_in_version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A language with a renamed event, a moved and an added field reads the old log to the same state."""
    stored = load_log(LOG_PATH)
    monkeypatch.setattr(upcast, "LANGUAGE", second_language())
    met: list[DepositedV2] = []

    def prepare(state: Exchange) -> None:
        known = state.handlers.pop(Deposited)

        def deposited(event: DepositedV2) -> None:
            met.append(event)
            known(Deposited(account_id=event.account_id, amount=event.amount))

        state.handlers[DepositedV2] = deposited

    state = await replayed(stored.in_memory(), prepare)

    assert stored.digest == state.digest()
    assert {"unknown"} == {event.source for event in met}
    assert state.deposited == sum(event.amount for event in met)


def test_each_body_is_read_in_the_version_that_its_entry_names() -> None:
    """Old and new frames stand in one log."""
    language = second_language()
    new = msgspec.msgpack.encode([DepositV2(amount=5, account_id=2, source="bank"), Tick()])
    old = msgspec.msgpack.encode([Deposit(account_id=2, amount=5), Tick()])

    assert [DepositV2(amount=5, account_id=2, source="unknown"), Tick()] == decoded(language, 1, old)
    assert [DepositV2(amount=5, account_id=2, source="bank"), Tick()] == decoded(language, 2, new)


async def test_command_frames_of_version_1_are_read_in_version_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums are of the stored bytes, so that old frames pass and decode to today's commands."""
    stored = load_log(LOG_PATH)
    monkeypatch.setattr(upcast, "LANGUAGE", second_language())

    entries = await CommandReader(stored.in_memory()).read(len(stored.commands))

    assert len(stored.commands) == len(entries)
    kinds: set[type] = {type(command) for entry in entries for command in entry.frame.commands()}
    assert DepositV2 in kinds
    assert Deposit not in kinds


def test_several_steps_are_climbed_one_after_the_other() -> None:
    """Version 1 passes through every upcaster, version 2 only through the second."""

    def second_step(message: Plain) -> Plain:
        return [*message[:-1], message[-1].upper()] if message[0] == "deposit" else message

    language = Language(
        3,
        union_with(AnyCommand, Deposit, DepositV2),
        AnyEvent,
        [V1_TO_V2, Upcaster(command=second_step, event=second_step)],
    )
    old = msgspec.msgpack.encode([Deposit(account_id=2, amount=5)])
    newer = msgspec.msgpack.encode([["deposit", 5, 2, "bank"]])

    assert [DepositV2(amount=5, account_id=2, source="UNKNOWN")] == decoded(language, 1, old)
    assert [DepositV2(amount=5, account_id=2, source="BANK")] == decoded(language, 2, newer)
    assert [True, True, True] == [language.reads(schema) for schema in (1, 2, 3)]
    assert [False, False] == [language.reads(schema) for schema in (0, 4)]


@pytest.mark.parametrize("body", [[["deposit", 2]], [["deposit", 2, 5, 6]], [[]], ["deposit"], 5])
def test_an_old_body_that_its_version_cannot_have_written_does_not_decode(body: object) -> None:
    """An upcaster that meets something else than its version writes makes a body undecodable, not a crash."""
    with pytest.raises(UndecodableBodyError):
        second_language().decode_commands(1, msgspec.msgpack.encode(body))


def test_every_version_needs_its_upcaster() -> None:
    """A language that cannot read one of its older versions is not made."""
    with pytest.raises(ValueError, match="version 3 needs 2 upcasters, got 1"):
        Language(3, AnyCommand, AnyEvent, [V1_TO_V2])


def with_schema(log: MemoryLog, seq: int, schema: int, stream: str) -> MemoryLog:
    """Return the log with an entry of one of its streams marked as of another version."""
    at = seq - 1
    if stream == "commands":
        frame = replace(log.commands[at].frame, schema=schema)
        log.commands[at] = replace(log.commands[at], frame=frame)
    else:
        log.events[at] = replace(log.events[at], schema=schema)
    return log


@pytest.mark.parametrize("stream", ["commands", "events"])
async def test_an_unknown_version_is_refused_by_name(stream: str) -> None:
    """A build that meets what a newer one wrote stops at that entry and says which version it is."""
    log = with_schema(load_log(LOG_PATH).in_memory(), 7, 3, stream)
    reader = CommandReader(log) if stream == "commands" else EventReader(log)

    refused = "entry 7: schema version 3 is unknown; this build reads 1"
    with pytest.raises(CorruptLogError, match=refused) as caught:
        await reader.read(100)

    assert 7 == caught.value.seq
