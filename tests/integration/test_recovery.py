"""Starting from a snapshot: the same state as from the first entry, or a refusal that says why."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from events.commands import Checkpoint, PlaceOrder
from events.events import CheckpointPassed, FrameHeader, OrderAccepted, Rejected
from events.log import (
    CorruptLogError,
    Head,
    Lease,
    LogFullError,
    LogRewoundError,
    TrimmedError,
    VerifiedEvents,
)
from events.memory import MemoryLog
from events.snapshot import Snapshot, find, load, save
from events.values import OrderType, RejectCode, Side
from exchange.aggregate.decide import decide
from exchange.aggregate.image import take_image
from exchange.aggregate.state import RULES_VERSION
from exchange.archiving import export_log
from exchange.fold import Fold, Snapshots
from exchange.intake.endpoints import ROUTES
from exchange.intake.errors import ApiError
from exchange.intake.gate import Gate
from exchange.intake.keys import KeyRing
from exchange.intake.service import Intake
from exchange.intake.trade.orders import order_answer
from exchange.writer import create_if_empty, rebuild, run_writer
from tests.integration.in_memory import MemoryHost
from tests.recorded import LOG_ID, Recorded
from tests.venue import spec

SPEC = spec("BTCUSDT")
EVERY_EVENTS = 100
COMMANDS = 300
TRIMMED_ENTRIES = 150


def ignore(verified: VerifiedEvents) -> None:
    """Do nothing about an entry."""


async def recorded(commands: int = COMMANDS) -> Recorded:
    """Return a log of random trading."""
    record = Recorded(MemoryLog())
    await record.begin()
    await record.trade(commands)
    return record


async def milestones_of(record: Recorded, snapshots: Snapshots) -> tuple[Fold, list[Snapshot]]:
    """Fold a log and return the fold with the snapshots of its milestones."""
    milestones: list[Snapshot] = []
    fold = Fold(record.log, ignore, snapshots, on_milestone=milestones.append)
    await fold.catch_up()
    return fold, milestones


@pytest.fixture
async def record(tmp_path: Path) -> Recorded:
    """Return a log with snapshots of its last three milestones in `tmp_path`, and entries behind them."""
    record = await recorded()
    _, milestones = await milestones_of(record, Snapshots(every_events=EVERY_EVENTS))
    assert len(milestones) > 3
    for milestone in milestones:
        save(tmp_path, milestone)
    await record.trade(20)
    return record


async def fold_from(record: Recorded, directory: Path) -> Fold:
    """Fold a log from the snapshots in a directory."""
    fold, _ = await milestones_of(record, Snapshots(directory=directory, every_events=EVERY_EVENTS))
    return fold


async def test_a_start_from_a_snapshot_leads_to_the_same_state(record: Recorded, tmp_path: Path) -> None:
    """Digest, place, count of events and last checksum are those of a fold from the first entry."""
    whole, _ = await milestones_of(record, Snapshots())
    fold = await fold_from(record, tmp_path)
    assert fold.started_from is not None
    assert find(tmp_path)[0].name.startswith(f"{fold.started_from.seq:016d}")
    assert record.state.digest() == whole.state.digest() == fold.state.digest()
    assert record.head == whole.head == fold.head
    assert (whole.events, whole.command_checksum) == (fold.events, fold.command_checksum)


async def test_marks_do_not_depend_on_the_start(record: Recorded, tmp_path: Path) -> None:
    """Who starts at a snapshot and who starts at the first entry take digests of the same entries."""
    await record.trade(200)
    _, all_milestones = await milestones_of(record, Snapshots(every_events=EVERY_EVENTS))
    fold, later = await milestones_of(record, Snapshots(directory=tmp_path, every_events=EVERY_EVENTS))
    assert fold.started_from is not None
    assert later
    assert [milestone for milestone in all_milestones if milestone.seq > fold.started_from.seq] == later
    hundreds = [milestone.events // EVERY_EVENTS for milestone in all_milestones]
    assert all(before < after for before, after in pairwise(hundreds))


@pytest.mark.parametrize("damage", ["cut", "another state", "another name"])
async def test_an_unusable_snapshot_is_skipped(record: Recorded, tmp_path: Path, damage: str) -> None:
    """The one before it is used, with a warning, and leads to the same state."""
    newest, before, _ = find(tmp_path)
    snapshot = load(newest)
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:1000])
    elif damage == "another state":
        save(tmp_path, replace(snapshot, body=take_image(record.state).body))
    else:
        save(tmp_path, replace(snapshot, digest=bytes(32)))
    with capture_logs() as lines:
        fold = await fold_from(record, tmp_path)
    assert fold.started_from == load(before)
    assert ["snapshot_skipped", "started_from_snapshot"] == [line["event"] for line in lines]
    assert record.state.digest() == fold.state.digest()


async def test_without_a_usable_snapshot_the_whole_log_is_folded(record: Recorded, tmp_path: Path) -> None:
    """An empty directory, and one of another log's snapshots alone, start at the first entry."""
    other = tmp_path / "other"
    save(other, replace(load(find(tmp_path)[0]), log_id="f" * 32))
    for directory in (tmp_path / "none", other):
        fold = await fold_from(record, directory)
        assert None is fold.started_from
        assert record.state.digest() == fold.state.digest()


async def test_a_log_that_ends_before_the_snapshot_went_backwards(record: Recorded, tmp_path: Path) -> None:
    """It is refused, although an older snapshot would fit: entries that were acknowledged are gone."""
    newest, before, _ = (load(path) for path in find(tmp_path))
    log = record.log
    assert isinstance(log, MemoryLog)
    del log.events[newest.seq - 1 :]
    assert before.seq < log.events[-1].seq
    with pytest.raises(LogRewoundError, match=f"the snapshot of entry {newest.seq} of log {LOG_ID}"):
        await fold_from(record, tmp_path)
    log.events.clear()
    with pytest.raises(LogRewoundError, match="no longer in the log"):
        await fold_from(record, tmp_path)


async def test_a_log_that_was_set_back_and_grew_again_is_refused(tmp_path: Path) -> None:
    """The entry of the snapshot is there, but it is another one."""
    record = await recorded()
    _, milestones = await milestones_of(record, Snapshots(every_events=EVERY_EVENTS))
    save(tmp_path, milestones[-1])
    other = Recorded(MemoryLog(), seed=2)
    await other.begin()
    await other.trade(COMMANDS)
    with pytest.raises(LogRewoundError, match="is not the one that was read"):
        await fold_from(other, tmp_path)


async def test_a_trimmed_log_needs_a_snapshot(record: Recorded, tmp_path: Path) -> None:
    """What follows the snapshot is enough; without it, or with an older one, the archive is pointed to."""
    newest = find(tmp_path)[0]
    kept = load(newest)
    await record.log.trim(Head(seq=kept.seq, chain_hash=kept.chain_hash))
    assert record.state.digest() == (await fold_from(record, tmp_path)).state.digest()
    with pytest.raises(TrimmedError):
        await fold_from(record, tmp_path / "none")
    newest.unlink()
    with pytest.raises(TrimmedError):
        await fold_from(record, tmp_path)


async def test_what_follows_a_snapshot_is_read_from_the_archive(record: Recorded, tmp_path: Path) -> None:
    """A log trimmed beyond the snapshot is no obstacle; one that lost those entries is still refused."""
    archive = str(tmp_path / "archive")
    await export_log(record.log, archive)
    await record.log.trim(record.head)
    for newer in find(tmp_path)[:-1]:
        newer.unlink()
    snapshots = Snapshots(directory=tmp_path, every_events=EVERY_EVENTS, archive=archive)

    fold, _ = await milestones_of(record, snapshots)

    assert fold.started_from is not None
    assert (record.head, record.state.digest()) == (fold.head, fold.state.digest())
    assert isinstance(record.log, MemoryLog)
    record.log.events.clear()
    with pytest.raises(LogRewoundError):
        await milestones_of(record, snapshots)


async def test_the_past_of_a_snapshot_is_still_read(record: Recorded, tmp_path: Path) -> None:
    """Of a whole log all entries up to the snapshot; of a trimmed one those behind its oldest."""
    fold = await fold_from(record, tmp_path)
    assert fold.started_from is not None
    last = fold.started_from.seq
    assert list(range(1, last + 1)) == [each.entry.seq async for each in fold.past()]

    oldest = load(find(tmp_path)[2])
    await record.log.trim(Head(seq=oldest.seq, chain_hash=oldest.chain_hash))
    assert list(range(oldest.seq + 1, last + 1)) == [each.entry.seq async for each in fold.past()]


# Checkpoints


async def test_a_checkpoint_of_the_own_state_is_passed(record: Recorded, tmp_path: Path) -> None:
    """From the first entry, and from the very snapshot that it names."""
    newest = load(find(tmp_path)[0])
    await record.send(Checkpoint(seq=newest.seq, digest=newest.digest, rules_version=1))
    for directory in (tmp_path, tmp_path / "none"):
        assert record.state.digest() == (await fold_from(record, directory)).state.digest()


async def test_a_checkpoint_of_another_state_stops_every_fold(record: Recorded, tmp_path: Path) -> None:
    """With the entry that it names; a fold that took no digest there cannot tell."""
    newest = load(find(tmp_path)[0])
    await record.send(Checkpoint(seq=newest.seq, digest=bytes(32), rules_version=1))
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(CorruptLogError, match=newest.digest.hex()) as caught:
            await fold_from(record, directory)
        assert newest.seq == caught.value.seq
    fold, _ = await milestones_of(record, Snapshots())
    assert record.state.digest() == fold.state.digest()


async def test_a_checkpoint_changes_nothing_of_the_venue() -> None:
    """It is an event with the command's fields, and no more."""
    state = (await recorded(10)).state
    before, digest = state.venue_digest(), b"d" * 32
    command = Checkpoint(seq=state.seq - 1, digest=digest, rules_version=RULES_VERSION)
    (event,) = decide(state, command, 0)
    assert CheckpointPassed(seq=state.seq - 1, digest=digest, rules_version=RULES_VERSION) == event
    assert before == state.venue_digest()


async def test_an_impossible_checkpoint_is_rejected() -> None:
    """Of this entry or a later one, of none, with another length, under rules that there were not."""
    state = (await recorded(10)).state
    good = Checkpoint(seq=1, digest=bytes(32), rules_version=RULES_VERSION)
    for bad in (
        replace(good, seq=state.seq),
        replace(good, seq=0),
        replace(good, digest=bytes(31)),
        replace(good, rules_version=RULES_VERSION + 1),
        replace(good, rules_version=0),
    ):
        (event,) = decide(state, bad, 0)
        assert isinstance(event, Rejected)
        assert RejectCode.BAD_CHECKPOINT == event.code


# The processes


async def test_the_writer_goes_on_behind_a_snapshot(record: Recorded, tmp_path: Path) -> None:
    """It has the state, the head, and a reader of commands that knows the entry it stands at."""
    rebuilt = await rebuild(record.log, asyncio.Event(), Snapshots(directory=tmp_path))
    assert rebuilt is not None
    state, reader, head = rebuilt
    assert (record.state.digest(), record.head) == (state.digest(), head)
    assert record.log.commands[-1].frame.checksum == reader.checksum  # type: ignore[attr-defined]
    assert [] == await reader.read(1)


async def test_the_writer_goes_on_at_a_snapshot_of_the_last_entry(record: Recorded, tmp_path: Path) -> None:
    """With no entry behind the snapshot, the checksum of the last command comes from there."""
    newest = load(find(tmp_path)[0])
    log = record.log
    assert isinstance(log, MemoryLog)
    del log.events[newest.seq :], log.commands[newest.seq :]
    rebuilt = await rebuild(log, asyncio.Event(), Snapshots(directory=tmp_path))
    assert rebuilt is not None
    assert log.commands[-1].frame.checksum == rebuilt[1].checksum


async def test_no_new_log_where_snapshots_tell_of_a_lost_one(record: Recorded, tmp_path: Path) -> None:
    """An emptied server is not given a new log behind the back of the old one."""
    empty = MemoryLog()
    with pytest.raises(LogRewoundError, match="there is no log on the server, but a snapshot of one"):
        await create_if_empty(empty, snapshots=Snapshots(directory=tmp_path))
    assert [] == empty.commands
    await create_if_empty(empty, snapshots=Snapshots(directory=tmp_path / "none"))
    assert 1 == len(empty.commands)


async def test_no_new_log_where_an_archive_tells_of_a_lost_one(record: Recorded, tmp_path: Path) -> None:
    """Lost after the process looked at the archive, before it created a log: refused, with the way back."""
    archive = str(tmp_path / "archive")
    await export_log(record.log, archive)
    empty = MemoryLog()
    with pytest.raises(LogRewoundError, match="foldex recover"):
        await create_if_empty(empty, snapshots=Snapshots(archive=archive))
    assert [] == empty.commands
    await create_if_empty(empty, snapshots=Snapshots(archive=str(tmp_path / "none")))
    assert 1 == len(empty.commands)


async def intake_of(record: Recorded, snapshots: Snapshots) -> Intake:
    """Return an intake that has caught up."""
    intake = Intake(record.log, "intake", KeyRing(bytes(32)), snapshots=snapshots)
    await intake.catch_up()
    await intake.read_past()
    return intake


async def accepted_orders(record: Recorded) -> list[OrderAccepted]:
    """Return the terms of every order of a log."""
    orders: list[OrderAccepted] = []

    def note(verified: VerifiedEvents) -> None:
        assert isinstance(verified.groups[0][0], FrameHeader)
        orders.extend(e for group in verified.groups for e in group if isinstance(e, OrderAccepted))

    await Fold(record.log, note).catch_up()
    return orders


async def test_the_intake_knows_past_orders_behind_a_snapshot(record: Recorded, tmp_path: Path) -> None:
    """Every order, ended or open, is answered as by an intake that read all from the first entry."""
    whole = await intake_of(record, Snapshots())
    intake = await intake_of(record, Snapshots(directory=tmp_path))
    orders = await accepted_orders(record)
    assert len(orders) > 20
    for terms in orders:
        known, other = whole.orders.get(terms.order_id), intake.orders.get(terms.order_id)
        assert known.accepted == other.accepted
        assert (known.status, known.quote, known.updated_ms) == (other.status, other.quote, other.updated_ms)
    assert whole.liquidations == intake.liquidations


async def test_the_intake_knows_open_orders_of_a_trimmed_log(tmp_path: Path) -> None:
    """Sizes are right; the price of fills before the oldest entry is unknown, and so left out."""
    record = await recorded(0)

    async def order(account_id: int, side: Side, lots: int) -> None:
        await record.send(
            PlaceOrder(
                account_id=account_id,
                market="BTCUSDT",
                side=side,
                order_type=OrderType.LIMIT,
                quantity_lots=lots,
                price_ticks=500_000,
            )
        )

    await order(2, Side.BUY, 100)
    await order(3, Side.SELL, 30)
    _, milestones = await milestones_of(record, Snapshots(every_events=1))
    save(tmp_path, milestones[-1])
    whole = await intake_of(record, Snapshots())
    await record.log.trim(record.head)
    intake = await intake_of(record, Snapshots(directory=tmp_path))
    (order_id,) = record.state.accounts[2].orders

    before = intake.orders.get(order_id)
    assert (100, 30, 0) == (before.quantity_lots, before.executed_lots, before.accepted_ms)
    assert whole.orders.get(order_id).status == before.status
    assert "0.00000000" == order_answer(before, SPEC).avg_price

    await order(3, Side.SELL, 20)
    await whole.catch_up()
    await intake.catch_up()
    after = order_answer(intake.orders.get(order_id), SPEC)
    assert ("0.050", "50000.00000000") == (after.executed_qty, after.avg_price)
    assert order_answer(whole.orders.get(order_id), SPEC).executed_qty == after.executed_qty

    await order(3, Side.SELL, 50)
    await intake.catch_up()
    assert ("FILLED", "50000.00000000") == (
        order_answer(intake.orders.get(order_id), SPEC).status,
        order_answer(intake.orders.get(order_id), SPEC).avg_price,
    )


async def trim_half(record: Recorded) -> None:
    """Trim a log below its snapshots, in the middle of all that went on."""
    assert isinstance(record.log, MemoryLog)
    entry = record.log.events[TRIMMED_ENTRIES - 1]
    await record.log.trim(Head(seq=entry.seq, chain_hash=entry.chain_hash))


def remembered(intake: Intake) -> dict[int, list[object]]:
    """Return all rows that an intake has of each account's past."""
    past = intake.past
    return {
        account_id: [
            list(past.ledger.income(account_id)),
            list(past.ledger.trades(account_id)),
            list(past.ledger.margin_moves(account_id)),
            list(past.ledger.closures(account_id)),
            [(row.accepted, row.status) for row in past.algos.of_account(account_id, account.conditionals)],
            [(row.accepted, row.status) for row in past.orders.of_account(account_id, account.orders)],
        ]
        for account_id, account in intake.state.accounts.items()
    }


async def test_the_intake_knows_an_accounts_past_from_the_archive(record: Recorded, tmp_path: Path) -> None:
    """With a snapshot and a trimmed log, the archive has what came before; what comes later joins on."""
    whole = await intake_of(record, Snapshots())
    archive = str(tmp_path / "archive")
    await export_log(record.log, archive)
    await trim_half(record)
    intake = await intake_of(record, Snapshots(directory=tmp_path, archive=archive))
    assert remembered(whole) == remembered(intake)
    assert sum(len(rows) for each in remembered(whole).values() for rows in each) > 100  # type: ignore[arg-type,misc]

    await record.trade(50)
    await whole.catch_up()
    await intake.catch_up()
    assert remembered(whole) == remembered(intake)


async def test_the_intake_serves_while_it_reads_its_past(record: Recorded, tmp_path: Path) -> None:
    """Open orders are known at once; what comes meanwhile is there with the past, each row once."""
    whole = await intake_of(record, Snapshots())
    archive = str(tmp_path / "archive")
    await export_log(record.log, archive)
    await trim_half(record)
    intake = Intake(
        record.log, "intake", KeyRing(bytes(32)), snapshots=Snapshots(directory=tmp_path, archive=archive)
    )
    await intake.catch_up()
    assert not intake.has_past
    for account in intake.state.accounts.values():
        assert all(intake.orders.get(order_id).is_open for order_id in account.orders)

    gate = Gate(intake)
    asked = {"symbol": "BTCUSDT", "interval": "1m"}
    with pytest.raises(ApiError, match="still reading") as refused:
        gate.admit(
            gate.call("127.0.0.1"), ROUTES["GET", "/fapi/v1/klines"], lambda: dict(asked), lambda _: None
        )
    assert 503 == refused.value.status
    del asked["interval"]
    assert asked == gate.admit(
        gate.call("127.0.0.1"), ROUTES["GET", "/fapi/v1/depth"], lambda: dict(asked), lambda _: None
    )

    reading = asyncio.create_task(intake.read_past())
    await record.trade(30)
    await intake.catch_up()
    async with asyncio.timeout(20):
        await reading
    await record.trade(30)
    await whole.catch_up()
    await intake.catch_up()
    assert intake.has_past
    assert remembered(whole) == remembered(intake)
    assert whole.liquidations == intake.liquidations


async def test_the_intake_goes_on_from_a_past_it_does_not_know(record: Recorded, tmp_path: Path) -> None:
    """Without an archive, rows begin where the log does; each has what it would have had."""
    whole = await intake_of(record, Snapshots())
    await trim_half(record)
    intake = await intake_of(record, Snapshots(directory=tmp_path))
    await record.trade(100)
    await whole.catch_up()
    await intake.catch_up()
    for account_id in intake.state.accounts:
        rows = list(intake.past.ledger.income(account_id))
        assert rows == list(whole.past.ledger.income(account_id))[len(rows) * -1 or None :]


async def test_a_writer_that_cannot_give_its_lease_back_has_stopped_all_the_same() -> None:
    """A server whose disk is full refuses that too: the writer ends without an error, the lease expires."""

    class Full(MemoryLog):
        async def release_lease(self, lease: Lease) -> None:
            raise LogFullError("MISCONF: no room on the disk")

    host = MemoryHost("writer", Full())
    writing = asyncio.create_task(run_writer(host))
    async with asyncio.timeout(20):
        await host.is_ready.wait()
        host.stop.set()
        await asyncio.wait([writing])
    assert writing.exception() is None
