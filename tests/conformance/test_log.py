"""What every log implementation promises to those who append."""

import asyncio

import pytest
from msgspec.structs import replace

from events.frame import GENESIS_HASH
from events.log import FencedError, Head, LogExistsError, LogMissingError, LogRewoundError, Place

from .harness import (
    LEASE_MS,
    SHORT_LEASE_MS,
    Answers,
    Harness,
    answered,
    answers_for,
    command_frame,
    filled,
    lease_of,
)


async def test_an_empty_log_has_nothing(harness: Harness) -> None:
    """Before the first entry both streams end at 0."""
    log = await harness.open()

    assert await log.last_command_seq() == 0
    assert await log.event_head() == Head(seq=0, chain_hash=GENESIS_HASH)
    assert await log.read_commands(0, 10) == []
    assert await log.read_events(0, 10) == []


async def test_commands_are_numbered_from_1_in_the_order_of_appending(harness: Harness) -> None:
    """Sequence numbers have no gaps and frames come back as they were appended."""
    log = await harness.open()
    await log.create(command_frame(0))

    assert [2, 3, 4] == [await log.append_command(command_frame(n)) for n in (1, 2, 3)]

    assert await log.last_command_seq() == 4
    entries = await log.read_commands(0, 10)
    assert [1, 2, 3, 4] == [entry.seq for entry in entries]
    assert [command_frame(n) for n in range(4)] == [entry.frame for entry in entries]


async def test_a_log_that_went_backwards_gets_nothing_from_who_has_seen_more(harness: Harness) -> None:
    """Over a new connection an append makes sure of the entry it names: there, the same, or trimmed."""
    log = await filled(harness, 3)
    entries = await log.read_commands(0, 10)
    last = entries[2]
    seen = Place(seq=3, checksum=last.frame.checksum)
    other = [*entries[:2], replace(last, frame=command_frame(99)), replace(last, seq=4)]
    for set_back, count in ((entries[:2], 2), (other, 4)):
        harness.replace_commands(set_back)
        log = await harness.open()
        with pytest.raises(LogRewoundError, match="command entry 3"):
            await log.append_command(command_frame(7), behind=seen)
        assert count == await log.last_command_seq()

    harness.replace_commands(entries)
    log = await harness.open()
    assert 4 == await log.append_command(command_frame(7), behind=seen)
    harness.replace_commands([replace(last, seq=7)])
    log = await harness.open()
    assert 8 == await log.append_command(command_frame(8), behind=seen), "what was trimmed is not missed"


async def test_commands_without_an_answer_are_dropped(harness: Harness) -> None:
    """Their numbers are given again; what is answered, or somebody else's to change, stays."""
    log = await filled(harness, 5)
    answers = await answers_for(log)
    start = answers.head
    await log.append_events(answers.take(2), start, answers.lease)
    with pytest.raises(FencedError):
        await log.drop_unanswered(1, answers.lease)
    with pytest.raises(FencedError):
        await log.drop_unanswered(3, replace(answers.lease, term=answers.lease.term + 1))
    before = await log.read_commands(0, 10)
    assert 5 == len(before)

    await log.drop_unanswered(3, answers.lease)

    assert before[:3] == await log.read_commands(0, 10)
    assert 4 == await log.append_command(command_frame(9))


async def test_reading_starts_behind_a_number_and_stops_at_the_limit(harness: Harness) -> None:
    """`after` is excluded, and no more than `limit` entries come."""
    log = await answered(harness, 5)

    assert [3, 4] == [entry.seq for entry in await log.read_commands(2, 2)]
    assert [3, 4] == [entry.seq for entry in await log.read_events(2, 2)]
    assert [5] == [entry.seq for entry in await log.read_commands(4, 2)]
    assert await log.read_commands(5, 2) == []


async def test_a_log_is_created_once(harness: Harness) -> None:
    """A second creation is refused and appends nothing."""
    log = await harness.open()
    await log.create(command_frame(0))

    with pytest.raises(LogExistsError):
        await log.create(command_frame(0))

    assert await log.last_command_seq() == 1


async def test_nothing_is_appended_before_the_log_is_created(harness: Harness) -> None:
    """An append to a log without its first entry is refused and leaves it without one."""
    log = await harness.open()

    with pytest.raises(LogMissingError):
        await log.append_command(command_frame(1))

    assert await log.last_command_seq() == 0


async def test_appenders_at_once_leave_no_gap(harness: Harness) -> None:
    """5 appenders of 100 frames each: 500 numbers, each given once, each frame stored once, in its order."""
    await filled(harness, 1)

    async def append(origin: str) -> list[int]:
        log = await harness.open()
        return [await log.append_command(command_frame(n, origin)) for n in range(1, 101)]

    numbers = await asyncio.gather(*(append(f"a{i}:{32 * '0'}") for i in range(5)))

    assert list(range(2, 502)) == sorted(seq for given in numbers for seq in given)
    entries = await (await harness.open()).read_commands(1, 1000)
    for i in range(5):
        own = [entry for entry in entries if entry.frame.origin == f"a{i}:{32 * '0'}"]
        assert list(range(1, 101)) == [entry.frame.n for entry in own]
        assert numbers[i] == [entry.seq for entry in own]


async def test_a_waiting_reader_wakes_on_an_append(harness: Harness) -> None:
    """`wait_ms` ends with the first entry, and the wait does not hold up the append."""
    log = await filled(harness, 1)
    waiting = asyncio.create_task(log.read_commands(1, 10, wait_ms=60_000))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await log.append_command(command_frame(1))
        assert [2] == [entry.seq for entry in await waiting]


async def test_a_waiting_event_reader_wakes_on_an_append(harness: Harness) -> None:
    """The same for events."""
    log = await filled(harness, 1)
    answers = await answers_for(log)
    waiting = asyncio.create_task(log.read_events(0, 10, wait_ms=60_000))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await log.append_events(answers.take(1), Head(seq=0, chain_hash=GENESIS_HASH), answers.lease)
        assert [1] == [entry.seq for entry in await waiting]


async def test_a_wait_in_vain_returns_nothing(harness: Harness) -> None:
    """Without an append, the read returns empty after `wait_ms`."""
    log = await filled(harness, 1)

    assert await log.read_commands(1, 10, wait_ms=20) == []


async def test_a_cancelled_wait_leaves_the_handle_usable(harness: Harness) -> None:
    """A reader that is stopped while it waits disturbs nobody."""
    log = await filled(harness, 1)
    waiting = asyncio.create_task(log.read_commands(1, 10, wait_ms=60_000))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])

    assert await log.append_command(command_frame(1)) == 2
    assert [2] == [entry.seq for entry in await log.read_commands(1, 10)]


async def test_events_are_appended_under_the_command_numbers(harness: Harness) -> None:
    """Entries come back as appended, marks outside the hash included, and the head is the last one."""
    log = await filled(harness, 3)
    answers = await answers_for(log)
    start = answers.head
    entries = [answers.next(command_frame(n), timing=b"\x01\x02") for n in range(3)]

    await log.append_events(entries, start, answers.lease)

    assert entries == await log.read_events(0, 10)
    assert answers.head == await log.event_head()


async def test_a_log_can_be_continued_in_several_appends(harness: Harness) -> None:
    """Each append continues the head that the one before left; none is a valid number to append."""
    log = await filled(harness, 4)
    answers = await answers_for(log)
    for count in (1, 0, 2, 1):
        previous = answers.head
        await log.append_events(answers.take(count), previous, answers.lease)

    assert [1, 2, 3, 4] == [entry.seq for entry in await log.read_events(0, 10)]


async def test_a_wrong_previous_hash_is_refused(harness: Harness) -> None:
    """A writer whose own past differs from the log's may not add to it."""
    log = await answered(harness, 2)
    lease = await lease_of(log, "b")
    answers = Answers(lease, Head(seq=2, chain_hash=b"\x01" * 32))
    previous = answers.head

    with pytest.raises(FencedError):
        await log.append_events(answers.take(1), previous, lease)

    assert [1, 2] == [entry.seq for entry in await log.read_events(0, 10)]


@pytest.mark.parametrize("seq", [1, 2, 4])
async def test_a_wrong_number_is_refused(harness: Harness, seq: int) -> None:
    """Only the number behind the head is accepted, whatever the hash; one further on tells of a loss."""
    log = await answered(harness, 2)
    lease = await lease_of(log, "b")
    head = await log.event_head()
    entry = replace(Answers(lease, head).take(1)[0], seq=seq)

    with pytest.raises(FencedError if seq <= 3 else LogRewoundError):
        await log.append_events([entry], replace(head, seq=seq - 1), lease)

    assert head == await log.event_head()


async def test_an_entry_that_does_not_follow_its_predecessor_is_refused(harness: Harness) -> None:
    """`previous` and the first entry must be neighbours."""
    log = await answered(harness, 2)
    lease = await lease_of(log, "b")
    head = await log.event_head()
    entry = replace(Answers(lease, head).take(1)[0], seq=4)

    with pytest.raises(FencedError):
        await log.append_events([entry], head, lease)

    assert head == await log.event_head()


async def test_a_wrong_term_is_refused(harness: Harness) -> None:
    """A writer without the current term may not append, be it of the past or invented."""
    log = await filled(harness, 1)
    lease = await lease_of(log)
    for term in (lease.term - 1, lease.term + 1):
        answers = Answers(replace(lease, term=term))
        previous = answers.head
        with pytest.raises(FencedError):
            await log.append_events(answers.take(1), previous, answers.lease)

    assert await log.read_events(0, 10) == []


async def test_a_lost_reply_is_recognised(harness: Harness) -> None:
    """Appending the same entries again, and more behind them, counts as done and stores them once."""
    log = await filled(harness, 4)
    answers = await answers_for(log)
    start = answers.head
    first = answers.take(2)
    await log.append_events(first, start, answers.lease)

    await log.append_events(first, start, answers.lease)
    await log.append_events(first + answers.take(2), start, answers.lease)

    assert [1, 2, 3, 4] == [entry.seq for entry in await log.read_events(0, 10)]


async def test_the_same_entry_by_another_writer_is_refused(harness: Harness) -> None:
    """An entry found stored counts as ours only with our own mark."""
    log = await filled(harness, 1)
    answers = await answers_for(log)
    start = answers.head
    await log.append_events(answers.take(1), start, answers.lease)
    await log.release_lease(answers.lease)
    successor = await lease_of(log, "b")

    with pytest.raises(FencedError):
        await log.append_events(Answers(successor).take(1), start, successor)


async def test_one_writer_holds_the_lease(harness: Harness) -> None:
    """While it holds, nobody else gets it, not even under the same name."""
    log = await harness.open()
    first = await lease_of(log, "a")

    assert first.mark == "a:1"
    assert await log.acquire_lease("b", LEASE_MS) is None
    assert await log.acquire_lease("a", LEASE_MS) is None


async def test_an_expired_lease_passes_with_a_later_term(harness: Harness) -> None:
    """After its time the lease is free; the new holder has the next term."""
    log = await harness.open()
    first = await lease_of(log, "a", SHORT_LEASE_MS)
    await harness.let_lease_expire()

    second = await lease_of(log, "b")

    assert first.term + 1 == second.term


async def test_a_renewed_lease_is_held_for_longer(harness: Harness) -> None:
    """A renewal counts from when it is made."""
    log = await harness.open()
    lease = await lease_of(log, "a", SHORT_LEASE_MS)

    await log.renew_lease(lease, LEASE_MS)

    assert await log.acquire_lease("b", LEASE_MS) is None


async def test_an_expired_lease_that_nobody_took_can_be_renewed(harness: Harness) -> None:
    """A writer that was late but has no successor goes on."""
    log = await harness.open()
    lease = await lease_of(log, "a", SHORT_LEASE_MS)
    await harness.let_lease_expire()

    await log.renew_lease(lease, LEASE_MS)

    assert await log.acquire_lease("b", LEASE_MS) is None


async def test_a_writer_with_a_successor_is_fenced(harness: Harness) -> None:
    """It can neither renew nor append, and its release does not take the successor's lease away."""
    log = await filled(harness, 2)
    first = await lease_of(log, "a", SHORT_LEASE_MS)
    answers = Answers(first)
    start = answers.head
    await log.append_events(answers.take(1), start, first)
    await harness.let_lease_expire()
    assert await log.acquire_lease("b", LEASE_MS) is not None

    previous = answers.head
    with pytest.raises(FencedError):
        await log.renew_lease(first, LEASE_MS)
    with pytest.raises(FencedError):
        await log.append_events(answers.take(1), previous, first)
    await log.release_lease(first)
    assert await log.acquire_lease("c", LEASE_MS) is None
    assert previous == await log.event_head()


async def test_a_released_lease_is_free_at_once(harness: Harness) -> None:
    """A successor need not wait for the time to run out, and the one before is fenced."""
    log = await harness.open()
    first = await lease_of(log, "a")
    await log.release_lease(first)

    assert await log.acquire_lease("b", LEASE_MS) is not None
    with pytest.raises(FencedError):
        await log.renew_lease(first, LEASE_MS)
