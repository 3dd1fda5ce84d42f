"""Verify: a log that is as it was written passes; what is not is found, with its entry's number."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from events.commands import Checkpoint, Deposit, Tick
from events.events import Deposited
from events.frame import EventEntry, chain_hash, decode_groups, encode_groups, header_of
from events.log import CommandEntry
from events.memory import MemoryLog
from events.snapshot import save
from events.values import RejectCode
from exchange.aggregate import decide
from exchange.aggregate.failing import Failure, Failures
from exchange.aggregate.state import RULES_VERSION
from exchange.aggregate.turn import Refused
from exchange.audit import verify as verify_module
from exchange.audit.verify import BadTokenError, Extent, KeptHead, Span, verify
from tests.fixtures.recorder import Recorder, flip, small, traded
from tests.planted import IS_COMPILED

FLIPS = 60
NEXT_RULES = RULES_VERSION + 1
ALL = Extent(decide=True)


def rewritten(log: MemoryLog, seq: int, change: Callable[[EventEntry], EventEntry]) -> MemoryLog:
    """Return the log with an event entry changed and all hashes from there computed anew."""
    for at in range(seq - 1, len(log.events)):
        entry = change(log.events[at]) if at == seq - 1 else log.events[at]
        previous = log.events[at - 1].chain_hash if at else bytes(32)
        checksum = header_of(decode_groups(entry.body)).checksum
        hashed = chain_hash("1" * 32, previous, entry.seq, entry.schema, checksum, entry.body)
        log.events[at] = replace(entry, chain_hash=hashed)
    return log


async def found(log: MemoryLog, scope: Extent = ALL) -> tuple[int, str]:
    """Return the finding: entry and words; (0, "") when there is none."""
    report = await verify(log, scope)
    return (report.finding.seq, report.finding.what) if report.finding else (0, "")


@pytest.mark.parametrize("decide", [False, True])
async def test_a_log_as_it_was_written_is_intact(decide: bool) -> None:
    """Everything is counted, the checkpoint compared, and the digest is the one that the writer had."""
    recorder = traded()

    report = await verify(recorder.log, Extent(decide=decide))

    assert report.finding is None
    assert recorder.state.digest() == report.digest
    assert (recorder.head.seq, recorder.head.seq, 1) == (report.entries, report.head.seq, report.checkpoints)
    assert recorder.events == report.events
    assert [
        Span(first_seq=1, last_seq=recorder.head.seq, rules_version=RULES_VERSION, is_decided=decide)
    ] == report.spans


async def test_a_range_is_verified() -> None:
    """`last_seq` ends it: entries behind it do not matter."""
    recorder = small()
    log = recorder.log
    log.events[5] = replace(log.events[5], body=b"")

    assert (0, "") == await found(log, Extent(last_seq=5))
    assert 6 == (await found(log))[0]


async def test_commands_without_an_answer_yet_are_checked_too() -> None:
    """They are counted, and one that is damaged is found."""
    log = small().log
    frame = log.events.pop() and log.commands[-1].frame

    report = await verify(log, ALL)
    assert (None, 5, 1) == (report.finding, report.entries, report.waiting)

    log.commands[-1] = replace(log.commands[-1], frame=replace(frame, time_ns=1))
    assert (6, "command checksum does not match its content") == await found(log)


async def test_missing_entries_are_found() -> None:
    """A removed event entry, a removed command entry: the first number that is not there."""
    log = small().log
    del log.events[2]
    assert (3, "event entry is missing; the next is 4") == await found(log)
    log = small().log
    del log.commands[2]
    assert (3, "command entry is missing; the next is 4") == await found(log)
    log = small().log
    del log.commands[4:]
    assert (5, "command entry is missing; its events are there") == await found(log)


async def test_swapped_answers_are_found() -> None:
    """An intact command entry in the place of another one is not the one that the events answer."""
    log = small().log
    log.commands[4] = replace(log.commands[4], frame=log.commands[5].frame)

    assert (5, "the command entry is another than the one its events answer") == await found(log)


async def test_the_first_of_several_damages_is_named() -> None:
    """Whichever stream it is in."""
    log = small().log
    log.events[3] = replace(log.events[3], body=b"")
    log.commands[4] = replace(log.commands[4], frame=log.commands[5].frame)
    assert 4 == (await found(log))[0]
    log.commands[1] = replace(log.commands[1], frame=log.commands[5].frame)
    assert 2 == (await found(log))[0]


async def test_a_forged_amount_with_good_hashes_is_found_by_deciding_again() -> None:
    """Who can compute the chain can write it anew; the commands then do not lead to its events."""

    def enrich(entry: EventEntry) -> EventEntry:
        groups = decode_groups(entry.body)
        groups[1][0] = Deposited(account_id=2, amount=900)
        return replace(entry, body=encode_groups(groups))

    log = rewritten(small().log, 4, enrich)

    assert (0, "") == await found(log, Extent())
    said = "command 0, event 0: the log says deposited account_id=2 amount=0.00000900; "
    said += "deciding it again gives deposited account_id=2 amount=0.00000100"
    assert (4, said) == await found(log)


async def test_a_left_out_event_is_found_by_deciding_again() -> None:
    """The place and what is missing are named."""

    def shorten(entry: EventEntry) -> EventEntry:
        groups = decode_groups(entry.body)
        groups[2].clear()
        return replace(entry, body=encode_groups(groups))

    log = rewritten(small().log, 5, shorten)

    assert (5, "command 1, event 0: the log says nothing; deciding it again gives tick ") == await found(log)


async def test_a_time_that_no_clock_gave_is_found() -> None:
    """The exchange's time is the frame's or the one before; taking it from the header is no blind trust."""

    def hurry(entry: EventEntry) -> EventEntry:
        groups = decode_groups(entry.body)
        groups[0][0] = replace(header_of(groups), now_ns=header_of(groups).now_ns + 1)
        return replace(entry, body=encode_groups(groups))

    seq, what = await found(rewritten(small().log, 6, hurry))

    assert (6, True) == (seq, what.endswith("is neither its frame's nor the one before"))


async def test_a_checkpoint_that_says_something_else_is_found() -> None:
    """The entry named is the one whose state it is about."""
    recorder = small()
    recorder.send(Checkpoint(seq=4, digest=bytes(32), rules_version=RULES_VERSION))

    seq, what = await found(recorder.log)

    assert 4 == seq
    assert f"the checkpoint in entry 7 says {bytes(32).hex()}" in what


async def test_snapshots_on_the_way_are_verified(tmp_path: Path) -> None:
    """One that is as it was written is counted; one that is not is found at its entry."""
    recorder = small()
    path = save(tmp_path, recorder.snapshot())
    recorder.send(Tick())
    scope = Extent(decide=True, directory=tmp_path)

    assert 1 == (await verify(recorder.log, scope)).snapshots

    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    seq, what = await found(recorder.log, scope)
    assert (6, True) == (seq, what.endswith("cannot be used: its checksum does not match its content"))

    other = small()
    other.send(Tick())
    save(tmp_path, replace(other.snapshot(), seq=6))
    seq, what = await found(recorder.log, scope)
    assert (6, True) == (seq, "the state in it is not the one that it names" in what)


async def test_it_begins_behind_the_newest_snapshot_before_the_range(tmp_path: Path) -> None:
    """What is before is not verified again; a snapshot that cannot be used is skipped for the one before."""
    recorder = traded(20)
    save(tmp_path, recorder.snapshot())
    first = recorder.head.seq
    for _ in range(5):
        recorder.send(Tick())
    newest = save(tmp_path, recorder.snapshot())
    recorder.send(Tick())
    last = recorder.head.seq
    scope = Extent(first_seq=last, decide=True, directory=tmp_path)

    report = await verify(recorder.log, scope)
    assert (None, last, 1) == (report.finding, report.first_seq, report.entries)
    assert recorder.state.digest() == report.digest

    newest.write_bytes(b"")
    seq, what = await found(recorder.log, scope)
    assert (last - 1, True) == (seq, "cannot be used" in what)
    newest.unlink()
    report = await verify(recorder.log, scope)
    assert (None, first + 1, 6) == (report.finding, report.first_seq, report.entries)


async def test_a_log_that_is_not_the_snapshots_is_found(tmp_path: Path) -> None:
    """Where the log holds another entry than the snapshot was taken behind, it was exchanged."""
    recorder = small()
    path = save(tmp_path, replace(recorder.snapshot(), chain_hash=bytes(32)))
    recorder.send(Tick())

    seq, what = await found(recorder.log, Extent(first_seq=7, directory=tmp_path))

    assert (6, f"it is not the one of the snapshot {path}") == (seq, what)


async def test_a_head_kept_elsewhere_shows_what_was_cut_off() -> None:
    """A shortened log is intact by itself; the head that it once had is not in it."""
    recorder = small()
    kept = KeptHead(seq=6, chain_hash=recorder.head.chain_hash, log_id="1" * 32)
    scope = Extent(decide=True, kept_head=kept)
    recorder.send(Tick())
    assert (0, "") == await found(recorder.log, scope)

    del recorder.log.events[4:], recorder.log.commands[4:]
    assert (0, "") == await found(recorder.log)
    said = "the log ends before it; the head that was kept is entry 6"
    assert (5, said) == await found(recorder.log, scope)


async def test_a_head_kept_elsewhere_shows_a_log_written_anew() -> None:
    """However well it was forged: the same entries would have the same hash."""
    recorder = small()
    kept = KeptHead(seq=5, chain_hash=recorder.log.events[4].chain_hash)
    forged = Recorder()
    forged.now_ns += 1
    for entry in recorder.log.commands:
        forged.send(*entry.frame.commands())

    assert (0, "") == await found(forged.log)
    seq, what = await found(forged.log, Extent(kept_head=kept))
    assert (5, True) == (seq, what.endswith(f"that of the head that was kept {kept.chain_hash.hex()}"))


async def test_a_head_of_another_log_is_told_by_its_name() -> None:
    """The name in the token says what the hash alone could not."""
    recorder = small()
    kept = KeptHead(seq=6, chain_hash=recorder.head.chain_hash, log_id="2" * 32)

    said = f"the head that was kept is of log {'2' * 32}, this is log {'1' * 32}"
    assert (6, said) == await found(recorder.log, Extent(kept_head=kept))


def test_a_token_is_read_as_it_is_printed() -> None:
    """With and without the log's name; nothing else is a token."""
    for log_id in ("", "ab" * 16):
        kept = KeptHead(seq=12, chain_hash=b"\x01" * 32, log_id=log_id)
        assert kept == KeptHead.parse(kept.token + "\n")
    assert "12:" + "01" * 32 == KeptHead(seq=12, chain_hash=b"\x01" * 32).token
    for text in ("", "12", "0:" + "01" * 32, "12:" + "01" * 31, "12:" + "0g" * 32, "-1:" + "01" * 32):
        with pytest.raises(BadTokenError):
            KeptHead.parse(text)


async def test_recorded_failures_are_taken_as_given_and_listed() -> None:
    """A command that failed once, by a fault of the exchange, does not have to fail again."""
    recorder = small()
    failures = Failures()
    failures.commands[1] = Failure("ZeroDivisionError", "margin.py:7")
    recorder.send(Tick(), Tick(), Tick(), failures=failures)

    report = await verify(recorder.log, ALL)

    assert report.finding is None
    assert [7] == [failure.seq for failure in report.failures]
    assert "command=tick" in report.failures[0].what
    assert "error=ZeroDivisionError" in report.failures[0].what


async def test_only_spans_of_its_own_rules_are_decided() -> None:
    """Entries of other versions are applied, and the report says which version they need."""
    recorder = small()
    with patch.object(decide, "RULES_VERSION", NEXT_RULES):
        recorder.send(Tick())
        recorder.send(Tick())

    report = await verify(recorder.log, ALL)

    assert report.finding is None
    assert [
        Span(first_seq=1, last_seq=6, rules_version=RULES_VERSION, is_decided=True),
        Span(first_seq=7, last_seq=8, rules_version=NEXT_RULES, is_decided=False),
    ] == report.spans
    assert recorder.state.digest() == report.digest

    with (
        patch.object(decide, "RULES_VERSION", NEXT_RULES),
        patch.object(verify_module, "RULES_VERSION", NEXT_RULES),
    ):
        report = await verify(recorder.log, ALL)

    assert report.finding is None
    assert [False, True] == [span.is_decided for span in report.spans]


async def test_rules_that_changed_without_a_new_version_are_found() -> None:
    """A build that decides otherwise under the same number does not pass for the one that wrote the log."""
    recorder = small()

    def refuse(turn: object, command: object) -> None:
        raise Refused(RejectCode.BAD_AMOUNT, "amount: odd")

    with patch.dict(decide._DECIDERS, {Deposit: refuse}):
        seq, what = await found(recorder.log)

    assert 4 == seq
    assert "deciding it again gives rejected account_id=2 code=bad_amount" in what


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
async def test_a_crash_in_deciding_again_is_a_finding() -> None:
    """The entry is named, and why."""
    recorder = small()

    def fail(turn: object, command: object) -> None:
        raise AssertionError("broken")

    with patch.dict(decide._DECIDERS, {Deposit: fail}):
        seq, what = await found(recorder.log)

    assert (4, True) == (seq, what.endswith("AssertionError('broken')"))


async def test_progress_is_told() -> None:
    """The last entry verified and the one to reach."""
    told: list[tuple[int, int]] = []

    await verify(small().log, ALL, lambda seq, target: told.append((seq, target)))

    assert (6, 6) == told[-1]


def flip_command(entry: CommandEntry, random: Random) -> CommandEntry:
    """Return a command entry with one bit of one of its fields changed."""
    frame = entry.frame
    name = random.choice(("origin", "n", "time_ns", "schema", "body", "checksum"))
    value = getattr(frame, name)
    if isinstance(value, bytes):
        changed: object = flip(value, random)
    elif isinstance(value, str):
        changed = flip(value.encode(), random).decode("latin-1")
    else:
        changed = value ^ 1 << random.randrange(32 if name == "schema" else 63)
    return replace(entry, frame=replace(frame, **{name: changed}))


def flip_event(entry: EventEntry, random: Random) -> EventEntry:
    """Return an event entry with one bit of what the chain covers changed."""
    name = random.choice(("schema", "body", "chain_hash"))
    value = getattr(entry, name)
    changed = flip(value, random) if isinstance(value, bytes) else value ^ 1 << random.randrange(32)
    return replace(entry, **{name: changed})


async def test_every_flipped_bit_in_a_stored_entry_is_found_there() -> None:
    """One random bit in one command or event entry: found, and the entry is the right one."""
    original = traded(30).log
    random = Random(FLIPS)
    for _ in range(FLIPS):
        log = MemoryLog()
        log.commands.extend(original.commands)
        log.events.extend(original.events)
        at = random.randrange(len(log.events))
        if random.random() < 0.5:
            log.commands[at] = flip_command(log.commands[at], random)
        else:
            log.events[at] = flip_event(log.events[at], random)

        assert at + 1 == (await found(log, Extent()))[0]


async def test_mark_and_timing_are_unprotected_by_design() -> None:
    """Who wrote an entry and how long that took is beside the chain."""
    log = small().log
    log.events[3] = replace(log.events[3], writer="somebody:9", timing=b"\xff")

    assert (0, "") == await found(log)
