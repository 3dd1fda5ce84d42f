"""Exactly once, through every log: frames that are repeated, late, or of a process that was replaced."""

from events.commands import CreateLog, OpenAccount
from events.events import FrameHeader
from events.frame import (
    SCHEMA_VERSION,
    CommandFrame,
    EventEntry,
    chain_hash,
    close_command_frame,
    encode_groups,
    header_of,
    new_origin,
)
from events.log import CommandReader, EventReader, Head
from events.values import Outcome
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import Exchange

from .harness import LOG_ID, Harness, lease_of

NOW_NS = 1_700_000_000 * 10**9


def frame(origin: str, n: int) -> CommandFrame:
    """Close a frame that opens one account."""
    return close_command_frame(origin, n, NOW_NS + n, [OpenAccount(label=f"{origin} {n}")])


async def decided(harness: Harness, frames: list[CommandFrame]) -> list[FrameHeader]:
    """Append frames to a new log, let the rules decide what the log then holds, and read the answers back."""
    log = await harness.open()
    genesis = [CreateLog(log_id=LOG_ID, rules_version=1)]
    await log.create(close_command_frame(new_origin("genesis"), 1, NOW_NS, genesis))
    for each in frames:
        await log.append_command(each)
    lease = await lease_of(log)
    state, head = Exchange(), await log.event_head()
    for entry in await CommandReader(log).read(100):
        given = entry.frame
        body = encode_groups(decide_frame(state, entry.seq, given, NOW_NS))
        hashed = chain_hash(LOG_ID, head.chain_hash, entry.seq, SCHEMA_VERSION, given.checksum, body)
        stored = EventEntry(
            seq=entry.seq, schema=SCHEMA_VERSION, body=body, chain_hash=hashed, writer=lease.mark
        )
        await log.append_events([stored], head, lease)
        head = Head(seq=entry.seq, chain_hash=hashed)
    answers = await EventReader(log).read(100)
    replayed = Exchange()
    for verified in answers:
        for group in verified.groups:
            for event in group:
                replayed.apply(event)
    assert state.digest() == replayed.digest()
    return [header_of(verified.groups) for verified in answers][1:]


async def test_a_frame_sent_three_times_runs_once(harness: Harness) -> None:
    """After lost replies the same (origin, n) is in the log again, and is answered with where it ran."""
    origin = new_origin("intake")

    headers = await decided(harness, [frame(origin, 1), *3 * [frame(origin, 2)]])

    assert [
        (Outcome.EXECUTED, 0),
        (Outcome.EXECUTED, 0),
        (Outcome.DUPLICATE, 3),
        (Outcome.DUPLICATE, 3),
    ] == [(header.outcome, header.duplicate_of) for header in headers]


async def test_a_restarted_appender_of_the_same_name_closes_the_old_one(harness: Harness) -> None:
    """What the dead incarnation still had on its way is refused; the new one counts from 1."""
    old, new = new_origin("intake"), new_origin("intake")

    headers = await decided(harness, [frame(old, 1), frame(new, 1), frame(old, 2), frame(new, 2)])

    assert [
        Outcome.EXECUTED,
        Outcome.EXECUTED,
        Outcome.ORIGIN_CLOSED,
        Outcome.EXECUTED,
    ] == [header.outcome for header in headers]


async def test_a_lost_frame_closes_its_origin(harness: Harness) -> None:
    """What comes behind a frame that the log lost never runs, nor does the lost one if it comes late."""
    origin = new_origin("intake")

    headers = await decided(harness, [frame(origin, 1), frame(origin, 3), frame(origin, 2)])

    assert [
        Outcome.EXECUTED,
        Outcome.ORIGIN_CLOSED,
        Outcome.ORIGIN_CLOSED,
    ] == [header.outcome for header in headers]
