"""What the readers notice, on every log: damage, gaps, other histories."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from events.frame import SCHEMA_VERSION, EventEntry, command_checksum
from events.log import (
    CommandEntry,
    CommandReader,
    CorruptLogError,
    EventReader,
    Head,
    Log,
    LogRewoundError,
    LogUnavailableError,
)

from .harness import LOG_ID, Harness, answered, answers_for, command_frame, filled


async def test_an_undamaged_log_reads_to_its_end(harness: Harness) -> None:
    """Both readers return all entries and know their place; the event reader learns the log's name."""
    log = await answered(harness, 5)
    commands, events = CommandReader(log), EventReader(log)

    assert [1, 2, 3, 4, 5] == [entry.seq for entry in await commands.read(10)]
    assert [1, 2, 3, 4, 5] == [verified.entry.seq for verified in await events.read(10)]
    assert await commands.read(10) == []
    assert await events.read(10) == []
    assert (5, command_frame(4).checksum) == (commands.seq, commands.checksum)
    assert await log.event_head() == events.head
    assert LOG_ID == events.log_id


async def test_a_reader_can_begin_at_a_kept_place(harness: Harness) -> None:
    """Number and hash of an entry, and the log's name, are enough to go on from there."""
    log = await answered(harness, 5)
    kept = (await log.read_events(2, 1))[0]
    reader = EventReader(log, log_id=LOG_ID, after=Head(seq=3, chain_hash=kept.chain_hash))

    assert [4, 5] == [verified.entry.seq for verified in await reader.read(10)]


COMMAND_DAMAGE: dict[str, Callable[[CommandEntry], CommandEntry]] = {
    "body": lambda entry: replace(entry, frame=replace(entry.frame, body=entry.frame.body[:-1] + b"\x00")),
    "origin": lambda entry: replace(entry, frame=replace(entry.frame, origin="other:1")),
    "counter": lambda entry: replace(entry, frame=replace(entry.frame, n=entry.frame.n + 1)),
    "time": lambda entry: replace(entry, frame=replace(entry.frame, time_ns=0)),
    "checksum": lambda entry: replace(entry, frame=replace(entry.frame, checksum=bytes(32))),
}


@pytest.mark.parametrize("what", COMMAND_DAMAGE)
async def test_a_damaged_command_entry_is_named(harness: Harness, what: str) -> None:
    """Every field of a command entry is under its checksum; the error names the entry."""
    log = await filled(harness, 5)
    await _damage_commands(harness, log, lambda e: COMMAND_DAMAGE[what](e) if e.seq == 4 else e)

    with pytest.raises(CorruptLogError, match="entry 4: command checksum") as caught:
        await CommandReader(log).read(10)

    assert caught.value.seq == 4


EVENT_DAMAGE: dict[str, Callable[[EventEntry], EventEntry]] = {
    # This one still decodes: only the hash can tell.
    "body": lambda entry: replace(entry, body=entry.body.replace(b"test:0", b"test:1")),
    "undecodable body": lambda entry: replace(entry, body=entry.body[:-1]),
    "hash": lambda entry: replace(entry, chain_hash=bytes(32)),
    "short hash": lambda entry: replace(entry, chain_hash=b""),
}


@pytest.mark.parametrize("what", EVENT_DAMAGE)
async def test_a_damaged_event_entry_is_named(harness: Harness, what: str) -> None:
    """Body and hash of an event entry are under the chain; the error names the entry."""
    log = await answered(harness, 5)
    await _damage_events(harness, log, lambda e: EVENT_DAMAGE[what](e) if e.seq == 4 else e)

    with pytest.raises(CorruptLogError) as caught:
        await EventReader(log).read(10)

    assert caught.value.seq == 4


async def test_swapped_event_bodies_break_the_chain(harness: Harness) -> None:
    """An entry that is valid elsewhere in the log is not valid here."""
    log = await answered(harness, 5)
    third = (await log.read_events(2, 1))[0]
    await _damage_events(harness, log, lambda e: replace(third, seq=4) if e.seq == 4 else e)

    with pytest.raises(CorruptLogError, match="entry 4"):
        await EventReader(log).read(10)


async def test_another_logs_name_breaks_the_chain(harness: Harness) -> None:
    """Entries of one log do not verify under another's name."""
    log = await answered(harness, 2)

    with pytest.raises(CorruptLogError, match="entry 1"):
        await EventReader(log, log_id="f" * 32).read(10)


async def test_a_missing_command_entry_is_named(harness: Harness) -> None:
    """A jump by more than one stops the reader at the number that is missing."""
    log = await filled(harness, 5)
    harness.replace_commands([entry for entry in await log.read_commands(0, 10) if entry.seq != 3])

    with pytest.raises(CorruptLogError, match="entry 3: command entry is missing; the next is 4"):
        await CommandReader(log).read(10)


async def test_a_missing_event_entry_is_named(harness: Harness) -> None:
    """The same for events."""
    log = await answered(harness, 5)
    harness.replace_events([entry for entry in await log.read_events(0, 10) if entry.seq != 3])

    with pytest.raises(CorruptLogError, match="entry 3: event entry is missing; the next is 4"):
        await EventReader(log).read(10)


async def test_a_missing_last_event_entry_is_named(harness: Harness) -> None:
    """Who knows where the log ends does not wait for an entry that is gone."""
    log = await answered(harness, 5)
    harness.replace_events([entry for entry in await log.read_events(0, 10) if entry.seq < 5])
    reader = EventReader(log)
    assert [1, 2, 3, 4] == [verified.entry.seq for verified in await reader.read_to(5, 10)]

    with pytest.raises(CorruptLogError, match="entry 5: event entry is missing; the log ends at 5"):
        await reader.read_to(5, 10)


async def test_an_unknown_schema_version_is_named(harness: Harness) -> None:
    """An entry of a later version of the language is not guessed at, even when its checksum is right."""
    log = await answered(harness, 3)
    later = SCHEMA_VERSION + 1

    def command_of_later_schema(entry: CommandEntry) -> CommandEntry:
        frame = entry.frame
        checksum = command_checksum(frame.origin, frame.n, frame.time_ns, later, frame.body)
        return replace(entry, frame=replace(frame, schema=later, checksum=checksum))

    await _damage_commands(harness, log, lambda e: command_of_later_schema(e) if e.seq == 2 else e)
    await _damage_events(harness, log, lambda e: replace(e, schema=later) if e.seq == 3 else e)

    with pytest.raises(CorruptLogError, match=f"entry 2: schema version {later} is unknown"):
        await CommandReader(log).read(10)
    with pytest.raises(CorruptLogError, match=f"entry 3: schema version {later} is unknown"):
        await EventReader(log).read(10)


async def test_a_wiped_log_is_noticed_while_idle(harness: Harness) -> None:
    """Nothing more to read may mean that nothing is left: the reader looks for its own entry."""
    log = await answered(harness, 3)
    commands, events = await _readers_at_the_end(log)
    harness.wipe()

    with pytest.raises(LogRewoundError, match="entry 3 was read and is no longer"):
        await commands.read(10, wait_ms=1)
    with pytest.raises(LogRewoundError, match="entry 3 was read and is no longer"):
        await events.read(10, wait_ms=1)


async def test_a_truncated_log_is_noticed_while_idle(harness: Harness) -> None:
    """A log that lost its tail no longer holds what was read."""
    log = await answered(harness, 3)
    commands, events = await _readers_at_the_end(log)
    harness.replace_commands((await log.read_commands(0, 10))[:2])
    harness.replace_events((await log.read_events(0, 10))[:2])

    with pytest.raises(LogRewoundError):
        await commands.read(10)
    with pytest.raises(LogRewoundError):
        await events.read(10)


async def test_a_truncated_log_that_grew_again_is_noticed(harness: Harness) -> None:
    """Other entries under the numbers that were read are another history, not damage."""
    log = await answered(harness, 3)
    commands, events = await _readers_at_the_end(log)
    harness.replace_commands((await log.read_commands(0, 10))[:2])
    harness.replace_events((await log.read_events(0, 10))[:2])
    answers = await answers_for(log, "other")
    for n in (30, 40):
        previous = answers.head
        await log.append_command(command_frame(n))
        await log.append_events([answers.next(command_frame(n))], previous, answers.lease)
    harness.drop_connections()

    with pytest.raises(LogRewoundError, match="entry 3 is not the one that was read"):
        await _read_through_reconnect(commands)
    with pytest.raises(LogRewoundError, match="entry 3 is not the one that was read"):
        await _read_through_reconnect(events)


async def test_another_history_behind_the_readers_place_is_noticed_without_a_reconnect(
    harness: Harness,
) -> None:
    """The broken chain tells; the reader then says that the log went backwards."""
    log = await answered(harness, 3)
    _, events = await _readers_at_the_end(log)
    harness.replace_events((await log.read_events(0, 10))[:2])
    answers = await answers_for(log, "other")
    previous = answers.head
    entries = [answers.next(command_frame(n)) for n in (30, 40)]
    await log.append_events(entries, previous, answers.lease)

    with pytest.raises(LogRewoundError, match="entry 3 is not the one that was read"):
        await events.read(10)


async def test_a_reader_goes_on_after_a_reconnect(harness: Harness) -> None:
    """A reconnect to the same log costs nothing but the check of its place."""
    log = await answered(harness, 3)
    commands, events = await _readers_at_the_end(log)
    harness.drop_connections()
    other = await harness.open()
    answers = await answers_for(other)
    previous = answers.head
    await other.append_command(command_frame(3))
    await other.append_events(answers.take(1), previous, answers.lease)

    assert await _read_through_reconnect(commands) == 1
    assert await _read_through_reconnect(events) == 1
    assert (4, 4) == (commands.seq, events.seq)


async def _readers_at_the_end(log: Log) -> tuple[CommandReader, EventReader]:
    commands, events = CommandReader(log), EventReader(log)
    await commands.read(100)
    await events.read(100)
    # Once more, so that the connection made by the first read is known.
    await commands.read(100)
    await events.read(100)
    return commands, events


async def _read_through_reconnect(reader: CommandReader | EventReader) -> int:
    """Return how many entries came, after at most one read on the connection that was cut."""
    try:
        return len(await reader.read(10))
    except LogUnavailableError:
        return len(await reader.read(10))


async def _damage_commands(
    harness: Harness, log: Log, change: Callable[[CommandEntry], CommandEntry]
) -> None:
    harness.replace_commands([change(entry) for entry in await log.read_commands(0, 100)])


async def _damage_events(harness: Harness, log: Log, change: Callable[[EventEntry], EventEntry]) -> None:
    harness.replace_events([change(entry) for entry in await log.read_events(0, 100)])
