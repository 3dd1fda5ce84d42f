"""What every log implementation promises about entries that are removed, and about those put back."""

import pytest
from msgspec.structs import replace

from events.frame import GENESIS_HASH
from events.log import (
    CommandReader,
    CorruptLogError,
    EventReader,
    FencedError,
    Head,
    Log,
    LogFullError,
    LogRewoundError,
    TrimmedError,
)

from .harness import LEASE_MS, Harness, ServerHarness, answered, command_frame, lease_of

NOTHING = Head(seq=0, chain_hash=GENESIS_HASH)


async def head_at(log: Log, seq: int) -> Head:
    """Return number and hash of a stored event entry."""
    (entry,) = await log.read_events(seq - 1, 1)
    return Head(seq=seq, chain_hash=entry.chain_hash)


async def test_trimming_removes_what_is_before_an_entry(harness: Harness) -> None:
    """Both streams begin with that entry then, and their ends stay."""
    log = await answered(harness, 5)
    await log.append_command(command_frame(5))
    head = await log.event_head()

    await log.trim(await head_at(log, 4))

    assert [4, 5] == [entry.seq for entry in await log.read_events(3, 10)]
    assert [4, 5, 6] == [entry.seq for entry in await log.read_commands(3, 10)]
    assert (head, 6) == (await log.event_head(), await log.last_command_seq())


async def test_a_server_without_memory_can_be_trimmed(server: ServerHarness) -> None:
    """It refuses what is new, but not what makes room."""
    log = await answered(server, 5)
    server.admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(LogFullError):
            await log.append_command(command_frame(5))
        await log.trim(await head_at(log, 4))
    finally:
        server.admin.config_set("maxmemory", 0)

    assert [4, 5] == [entry.seq for entry in await log.read_events(3, 10)]
    with pytest.raises(TrimmedError):
        await log.read_events(2, 10)


async def test_reading_what_was_trimmed_says_so(harness: Harness) -> None:
    """It is no gap: the error names the first entry that is kept, for both streams."""
    log = await answered(harness, 5)
    await log.trim(await head_at(log, 4))

    for reader in (EventReader(log), CommandReader(log)):
        with pytest.raises(
            TrimmedError, match=r"entry 1 was trimmed: the log keeps entries from 4 on"
        ) as error:
            await reader.read(10)
        assert 4 == error.value.first_kept


async def test_a_hole_behind_the_trimmed_part_is_damage(harness: Harness) -> None:
    """Only what was trimmed is excused."""
    log = await answered(harness, 6)
    await log.trim(await head_at(log, 3))
    third = await head_at(log, 3)
    kept = await log.read_events(2, 10)
    harness.replace_events([entry for entry in kept if entry.seq != 4])

    with pytest.raises(CorruptLogError, match="event entry is missing; the next is 5") as error:
        await EventReader(log, log_id="0123456789abcdef0123456789abcdef", after=third).read(10)
    assert 4 == error.value.seq


async def test_the_last_entry_can_be_kept_alone_and_continued(harness: Harness) -> None:
    """A log trimmed as far as possible has one entry a stream, and goes on."""
    log = await answered(harness, 3)
    head = await log.event_head()

    await log.trim(head)

    assert [3] == [entry.seq for entry in await log.read_events(2, 10)]
    assert 4 == await log.append_command(command_frame(3))


async def test_trimming_again_or_less_changes_nothing(harness: Harness) -> None:
    """Streams never grow back, and what is gone need not be there to be named."""
    log = await answered(harness, 5)
    second, fourth = await head_at(log, 2), await head_at(log, 4)
    await log.trim(fourth)

    await log.trim(fourth)
    await log.trim(second)

    assert [4, 5] == [entry.seq for entry in await log.read_events(3, 10)]


@pytest.mark.parametrize("seq", [2, 4])
async def test_trimming_by_an_unknown_entry_is_refused(harness: Harness, seq: int) -> None:
    """Who knows another past than the log's, or a later one, removes nothing."""
    log = await answered(harness, 3)

    with pytest.raises(LogRewoundError):
        await log.trim(Head(seq=seq, chain_hash=b"\x01" * 32))

    assert [1, 2, 3] == [entry.seq for entry in await log.read_events(0, 10)]


async def test_a_lost_log_is_put_back_as_it_was(harness: Harness) -> None:
    """Entries, their marks, the head: all as before, with the lease above the terms there have been."""
    log = await answered(harness, 3)
    head, commands, events = (
        await log.event_head(),
        await log.read_commands(0, 9),
        await log.read_events(0, 9),
    )
    harness.wipe()
    lease = await log.acquire_lease("r", LEASE_MS, above_term=7)
    assert lease is not None
    assert lease.term > 7

    await log.restore(commands[:2], events[:1], NOTHING, lease)
    await log.restore(commands[2:], events[1:], await log.event_head(), lease)

    assert commands == await log.read_commands(0, 9)
    assert events == await log.read_events(0, 9)
    assert (head, 3) == (await log.event_head(), await log.last_command_seq())


async def test_events_alone_are_put_back_behind_commands_that_are_there(harness: Harness) -> None:
    """A stream of commands that did not lose as much is left alone."""
    log = await answered(harness, 3)
    events = await log.read_events(0, 9)
    harness.replace_events(events[:1])
    lease = await lease_of(log, "r")

    await log.restore([], events[1:], await log.event_head(), lease)

    assert events == await log.read_events(0, 9)


async def test_entries_are_put_back_only_where_they_continue(harness: Harness) -> None:
    """Another head, a command that is there, events without commands, an old term: nothing happens."""
    log = await answered(harness, 3)
    commands, events = await log.read_commands(0, 9), await log.read_events(0, 9)
    first = Head(seq=1, chain_hash=events[0].chain_hash)
    harness.replace_events(events[:1])
    harness.replace_commands(commands[:2])
    lease = await lease_of(log, "r")

    for refused in (
        log.restore(commands[2:], events[1:], replace(first, chain_hash=b"\x01" * 32), lease),
        log.restore(commands[1:], events[1:], first, lease),
        log.restore([], events[1:], first, lease),
        log.restore(commands[2:], events[1:], first, replace(lease, term=lease.term - 1)),
    ):
        with pytest.raises(FencedError):
            await refused

    assert (first, 2) == (await log.event_head(), await log.last_command_seq())
