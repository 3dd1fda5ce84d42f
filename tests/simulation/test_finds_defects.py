"""The simulation finds what is broken: each test breaks one part, and some seed must notice within a few."""

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from events import snapshot as files
from events.appender import Appender
from events.events import Deposited, Event
from events.frame import CommandFrame, EventEntry, Groups, close_encoded_frame
from events.log import EventReader, Head, Lease, LogUnavailableError, Place
from events.memory import MemoryLog
from events.snapshot import Snapshot
from events.values import Outcome
from exchange import deciding, fold, segmenter, watch, writer
from exchange.aggregate import decide, liquidation
from exchange.aggregate.failing import Failures
from exchange.aggregate.image import restore
from exchange.aggregate.origins import Origin
from exchange.aggregate.state import Exchange
from exchange.intake import service
from exchange.intake.errors import NOT_EXECUTED
from exchange.simulation.audit import LEAD_NS
from exchange.simulation.cli import app
from exchange.simulation.plan import Plan
from exchange.simulation.run import COMMANDS_DEFAULT, MakeStore, simulate
from exchange.watch import Bucket, Watch

SEEDS = 60


def first_finding(
    make_store: MakeStore = MemoryLog, *, concerns: Callable[[Plan], bool] = lambda plan: True
) -> str:
    """Return what the first seed that finds something finds; one of the first `SEEDS` must.

    Those are passed over whose plan has nothing to do with what is broken.
    """
    for seed in range(SEEDS):
        if not concerns(Plan.draw(Random(seed), COMMANDS_DEFAULT)):
            continue
        findings = simulate(seed, make_store=make_store).findings
        if findings:
            return findings[0]
    pytest.fail(f"nothing was found in {SEEDS} seeds")


def test_a_log_that_does_not_fence_is_found() -> None:
    """Whoever appends may: a frozen writer goes on beside its successor."""

    class Unfenced(MemoryLog):
        async def append_events(self, entries: Sequence[EventEntry], previous: Head, lease: Lease) -> None:
            self.events.extend(entries)

    assert "entry" in first_finding(Unfenced)


def test_a_log_that_loses_an_acknowledged_command_is_found() -> None:
    """One append is confirmed and gone."""

    class Forgetful(MemoryLog):
        has_lost = False

        async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
            seq = await super().append_command(frame, behind=behind)
            if seq == 30 and not self.has_lost:
                self.has_lost = True
                self.commands.pop()
            return seq

    assert first_finding(Forgetful)


def test_a_repeat_under_a_new_counter_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a lost reply the appender sends the same commands as the next frame."""

    class Repeating(Appender):
        async def _send(self, encoded: list[bytes], answers: list) -> None:  # type: ignore[type-arg]
            try:
                n = self._n + 1
                frame = close_encoded_frame(self.origin, n, self._clock_ns(), encoded)
                self._unanswered[n] = answers
                self._n = n
                self.appended_seq = await self._log.append_command(frame)
            except LogUnavailableError:
                await self._send(encoded, answers)

    monkeypatch.setattr(service, "Appender", Repeating)
    assert first_finding()


def test_an_aggregate_that_runs_repeats_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that arrives twice is executed twice."""

    def judge(origins: dict[str, Origin], origin: str, n: int) -> tuple[Outcome, int]:
        outcome, seq = judged(origins, origin, n)
        return (Outcome.EXECUTED, 0) if outcome is Outcome.DUPLICATE else (outcome, seq)

    judged = decide.judge
    monkeypatch.setattr(decide, "judge", judge)
    assert first_finding()


def test_a_writer_that_applies_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's own state gets every fifth deposit a second time, so that it is not the log's."""

    def decide_twice(
        state: Exchange, seq: int, frame: CommandFrame, now_ns: int, failures: Failures | None = None
    ) -> bytes:
        body = decide_entry(state, seq, frame, now_ns, failures)
        for event in chain.from_iterable(deciding.decode_groups(body)):
            if isinstance(event, Deposited) and seq % 5 == 0:
                state.apply(event)
        return body

    decide_entry = deciding.decide_entry
    monkeypatch.setattr(deciding, "decide_entry", decide_twice)
    assert first_finding()


def test_a_writer_that_ignores_a_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer takes a refused append for one that was confirmed, and decides on."""
    append = writer.Writer._append

    async def go_on(self: writer.Writer, entries: list[EventEntry], previous: Head) -> None:
        try:
            await append(self, entries, previous)
        except writer.FencedError:
            self.head = Head(seq=entries[-1].seq, chain_hash=entries[-1].chain_hash)

    monkeypatch.setattr(writer.Writer, "_append", go_on)
    monkeypatch.setattr(writer.Leases, "keep", _keep_nothing)
    assert first_finding()


async def _keep_nothing(self: writer.Leases, lease: Lease) -> None:
    await writer.asyncio.Event().wait()


def test_an_intake_that_denies_what_it_does_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is told that his command was not executed when nobody knows."""
    monkeypatch.setattr(service, "TIMED_OUT", NOT_EXECUTED)
    monkeypatch.setattr(service, "STATUS_UNKNOWN", NOT_EXECUTED)
    assert "not executed as the clients know" in first_finding()


def test_an_answer_before_its_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intake answers a command with the events of the one before it in the frame."""
    resolve = Appender.resolve

    def shift(self: Appender, groups: Groups) -> None:
        resolve(self, [groups[0], *groups[2:], *groups[1:2]] if len(groups) > 2 else groups)

    monkeypatch.setattr(Appender, "resolve", shift)
    assert "the answer is not the one in the log" in first_finding()


def test_a_lost_order_of_commands_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The appender sends the newest command first."""

    class Reversing(Appender):
        def _take_batch(self) -> tuple[list[bytes], list]:  # type: ignore[type-arg]
            encoded, answers = super()._take_batch()
            return encoded[::-1], answers[::-1]

    monkeypatch.setattr(service, "Appender", Reversing)
    assert "in another order" in first_finding()


def test_the_liquidation_of_somebody_healthy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules liquidate at twice the maintenance margin."""

    def is_liquidatable(equity: int, maintenance_margin: int) -> bool:
        return maintenance_margin > 0 and equity <= 2 * maintenance_margin

    monkeypatch.setattr(liquidation, "is_liquidatable", is_liquidatable)
    monkeypatch.setattr(watch, "is_liquidatable", is_liquidatable)
    assert "was healthy" in first_finding()


def test_a_liquidator_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch never names a cross pool."""
    look = Watch.look

    def forget(self: Watch) -> list[Bucket]:
        return [bucket for bucket in look(self) if bucket[1]]

    monkeypatch.setattr(Watch, "look", forget)
    assert "is due, and nobody liquidated it" in first_finding()


def test_money_out_of_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Applying a deposit that ends on a certain digit adds a unit too many."""
    handle = Exchange.apply

    def generous(self: Exchange, event: Event) -> None:
        handle(self, event)
        if isinstance(event, Deposited) and event.amount % 10 == 7:
            self.accounts[event.account_id].wallet += 1

    monkeypatch.setattr(Exchange, "apply", generous)
    assert first_finding()


def test_a_trim_of_what_is_still_needed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether what is removed is in the archive, or has been read."""

    def keep_little(*, archived_seq: int, snapshot_seqs: Sequence[int], consumer_seqs: Sequence[int]) -> int:
        return max(snapshot_seqs, default=1) + 1

    async def trim(log: MemoryLog, archive: object, first_kept_seq: int) -> None:
        head = await log.event_head()
        await log.trim(head)

    monkeypatch.setattr(segmenter, "first_to_keep", keep_little)
    monkeypatch.setattr(segmenter, "trim", trim)
    assert first_finding(concerns=lambda plan: plan.has_archive and plan.intensity > 0)


def _without_the_past(previous_ns: int, time_ns: int, clock_ns: int) -> int:
    return min(time_ns, clock_ns + LEAD_NS)


def _without_the_bound(previous_ns: int, time_ns: int, clock_ns: int) -> int:
    return max(previous_ns, time_ns)


def _without_the_frame(previous_ns: int, time_ns: int, clock_ns: int) -> int:
    return max(previous_ns, clock_ns + LEAD_NS)


def _standing_still(previous_ns: int, time_ns: int, clock_ns: int) -> int:
    return previous_ns or time_ns


@pytest.mark.parametrize(
    "propose", [_without_the_past, _without_the_bound, _without_the_frame, _standing_still]
)
def test_a_clock_that_goes_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, propose: Callable[[int, int, int], int]
) -> None:
    """The writer lets the exchange's time go back, or as far ahead as anybody says, or stand."""
    monkeypatch.setattr(writer, "propose_now", propose)
    # That it goes back no state even applies.
    assert "the exchange's time is" in first_finding() or propose is _without_the_past


def _breaks_snapshots(plan: Plan) -> bool:
    return plan.intensity > 0 and plan.disturbance_s < 4


def test_a_start_that_gives_up_at_a_broken_snapshot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest file is the only one that is tried."""

    def load_first(
        directory: Path, restore: Callable[[Snapshot], Exchange], *, log_id: str | None = None
    ) -> tuple[Snapshot, Exchange] | None:
        for path in files.find(directory)[:1]:
            snapshot = files.load(path)
            return snapshot, restore(snapshot)
        return None

    monkeypatch.setattr(fold, "load_newest", load_first)
    assert " ended: " in first_finding(concerns=_breaks_snapshots)


def test_a_start_that_believes_a_broken_snapshot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checksum is compared, nor the digest of what a snapshot holds."""
    monkeypatch.setattr(files, "_checksum", lambda head, body: bytes(files.CHECKSUM_BYTES))
    monkeypatch.setattr(fold, "restore_snapshot", lambda snapshot: restore(snapshot.body))
    assert first_finding(concerns=_breaks_snapshots)


def test_a_start_from_the_snapshot_of_another_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest good snapshot is taken, whatever log it is of, and its place is not looked up."""

    async def place(self: fold.Fold, snapshot: Snapshot, state: Exchange) -> None:
        after = Head(seq=snapshot.seq, chain_hash=snapshot.chain_hash)
        self._reader = EventReader(self._whole_log, log_id=snapshot.log_id, after=after)
        self.state = state
        self.events = snapshot.events
        self.command_checksum = snapshot.command_checksum

    async def nameless(self: fold.Fold) -> None:
        """Return no name of the log."""

    monkeypatch.setattr(fold.Fold, "_place", place)
    monkeypatch.setattr(fold.Fold, "_name_of_log", nameless)
    assert " ended: " in first_finding(concerns=_breaks_snapshots)


def test_a_failing_seed_is_named_with_the_way_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with 1, and prints seed, finding and the command line for that run alone."""
    monkeypatch.setattr(service, "TIMED_OUT", NOT_EXECUTED)
    monkeypatch.setattr(service, "STATUS_UNKNOWN", NOT_EXECUTED)
    seed = next(seed for seed in range(SEEDS) if simulate(seed).findings)

    result = CliRunner().invoke(app, ["--seeds", "1", "--from", str(seed)])

    assert 1 == result.exit_code
    assert f"foldex-sim --seeds 1 --from {seed} --notes" in result.stdout
    assert f"failing seeds: {seed}" in result.stdout
