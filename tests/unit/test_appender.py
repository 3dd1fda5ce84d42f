"""Appender: batching without a timer, matching of answers, repeats after lost replies, closing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from events.appender import AnswerLostError, Appender, AppenderClosedError, FrameRefusedError
from events.commands import CreateLog, Deposit, OpenAccount
from events.events import Deposited, Event, FrameHeader
from events.frame import (
    BODY_BYTES_MAX,
    COMMANDS_PER_FRAME_MAX,
    CommandFrame,
    FrameTooLargeError,
    close_command_frame,
)
from events.log import LogFullError, LogMissingError, LogRewoundError, LogUnavailableError, Place
from events.machine import Machine
from events.memory import MemoryLog
from events.values import Outcome

LOG_ID = "0123456789abcdef0123456789abcdef"


class HeldLog(MemoryLog):
    """A log that a test can hold back, and let fail before or after it has appended."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.called = asyncio.Event()
        self.fail_before: list[Exception] = []
        self.fail_after: list[Exception] = []

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        self.called.set()
        await self.is_open.wait()
        if self.fail_before:
            raise self.fail_before.pop(0)
        seq = await super().append_command(frame, behind=behind)
        if self.fail_after:
            raise self.fail_after.pop(0)
        return seq

    async def hold(self, appender: Appender) -> "asyncio.Future[list[Event]]":
        """Stop appends, with one command in flight; return its future."""
        self.is_open.clear()
        self.called.clear()
        future = appender.submit(deposit(0))
        await self.called.wait()
        return future


@pytest.fixture
async def log() -> HeldLog:
    """A log that has been created."""
    made = HeldLog()
    await made.create(close_command_frame("main:0", 1, 0, [CreateLog(log_id=LOG_ID, rules_version=1)]))
    return made


@pytest.fixture
async def appender(log: HeldLog) -> AsyncIterator[Appender]:
    """An open appender, whose opening frame is entry 2."""
    made = Appender(log, "intake", machine=Machine(clock_ns=lambda: 42))
    await made.open()
    yield made
    log.is_open.set()
    await made.close()


def deposit(amount: int) -> Deposit:
    """Return a command that is told from others by its amount."""
    return Deposit(account_id=7, amount=amount)


def answer(log: MemoryLog, appender: Appender, seq: int, outcome: Outcome = Outcome.EXECUTED) -> None:
    """Resolve as the fold does with the event entry of `seq`: each deposit happened, or none."""
    frame = log.commands[seq - 1].frame
    header = FrameHeader(
        seq=seq,
        origin=frame.origin,
        frame_n=frame.n,
        now_ns=frame.time_ns,
        checksum=frame.checksum,
        outcome=outcome,
    )
    groups: list[list[Event]] = [[header]]
    if outcome is Outcome.EXECUTED:
        for command in frame.commands():
            assert isinstance(command, Deposit)
            groups.append([Deposited(account_id=command.account_id, amount=command.amount)])
    appender.resolve(groups)


def amounts(log: MemoryLog, seq: int) -> list[int]:
    """Return what the deposits of an entry amount to."""
    return [c.amount for c in log.commands[seq - 1].frame.commands() if isinstance(c, Deposit)]


async def stored(log: MemoryLog, seq: int) -> None:
    """Return when the log holds entry `seq`, fail after a deadline."""
    assert await log.read_commands(seq - 1, 1, wait_ms=10_000), f"entry {seq} was not appended"


async def test_opening_appends_an_empty_first_frame(log: HeldLog, appender: Appender) -> None:
    """The origin is the name and an incarnation, its first frame has n = 1 and no commands."""
    frame = log.commands[1].frame

    assert appender.origin == frame.origin
    assert frame.origin.startswith("intake:")
    assert (1, 42, []) == (frame.n, frame.time_ns, frame.commands())


async def test_opening_on_a_log_that_is_not_created_is_refused() -> None:
    """What the log says reaches who opens."""
    with pytest.raises(LogMissingError):
        await Appender(MemoryLog(), "intake").open()


async def test_a_command_is_answered_by_its_group(log: HeldLog, appender: Appender) -> None:
    """The future's result is the group's events."""
    future = appender.submit(deposit(5))
    await stored(log, 3)
    answer(log, appender, 3)

    assert [Deposited(account_id=7, amount=5)] == await future


@pytest.mark.parametrize("failure", [None, LogUnavailableError("reply lost")])
async def test_a_log_that_went_backwards_is_not_appended_to(
    log: HeldLog, appender: Appender, failure: Exception | None
) -> None:
    """What others appended and this process has read is missing: nothing is sent, and nothing ever again."""
    await log.append_command(close_command_frame("other:0", 1, 0, [deposit(1)]))
    answer(log, appender, 3)
    del log.commands[2:]
    if failure is not None:
        log.fail_before.append(failure)

    with pytest.raises(LogRewoundError):
        await appender.submit(deposit(5))

    assert 2 == await log.last_command_seq()
    with pytest.raises(AppenderClosedError):
        appender.submit(deposit(5))


async def test_what_arrives_while_an_append_is_in_flight_is_the_next_frame(
    log: HeldLog, appender: Appender
) -> None:
    """One frame at a time, with counters and order kept, and each command gets its own answer."""
    first = await log.hold(appender)
    others = [appender.submit(deposit(amount)) for amount in (1, 2, 3)]
    log.is_open.set()
    await stored(log, 4)

    assert ([0], [1, 2, 3]) == (amounts(log, 3), amounts(log, 4))
    assert [1, 2, 3] == [entry.frame.n for entry in log.commands[1:]]
    answer(log, appender, 3)
    answer(log, appender, 4)
    answered = await asyncio.gather(first, *others)
    assert [[Deposited(account_id=7, amount=amount)] for amount in range(4)] == answered


async def test_commands_of_one_turn_of_the_loop_share_a_frame(log: HeldLog, appender: Appender) -> None:
    """An idle appender sends in the next turn, with all that came in this one."""
    for amount in (1, 2):
        appender.submit(deposit(amount))
    await stored(log, 3)

    assert [1, 2] == amounts(log, 3)


async def test_a_frame_is_full_at_its_bound_on_count(log: HeldLog, appender: Appender) -> None:
    """What does not fit waits for the frame after."""
    await log.hold(appender)
    for amount in range(COMMANDS_PER_FRAME_MAX + 1):
        appender.submit(deposit(amount))
    log.is_open.set()
    await stored(log, 5)

    assert (COMMANDS_PER_FRAME_MAX, [COMMANDS_PER_FRAME_MAX]) == (len(amounts(log, 4)), amounts(log, 5))


async def test_a_frame_is_full_at_its_bound_on_bytes(log: HeldLog, appender: Appender) -> None:
    """Two commands of 40 MiB go in two frames; one of 64 MiB is refused at once."""
    await log.hold(appender)
    large = OpenAccount(label="x" * (40 * 1024 * 1024))
    appender.submit(large)
    appender.submit(large)
    log.is_open.set()
    await stored(log, 5)

    with pytest.raises(FrameTooLargeError):
        appender.submit(OpenAccount(label="x" * BODY_BYTES_MAX))


async def test_a_command_that_cannot_be_encoded_harms_no_other(log: HeldLog, appender: Appender) -> None:
    """It is refused where it is submitted, not when its frame is closed."""
    with pytest.raises(OverflowError):
        appender.submit(deposit(2**64))
    appender.submit(deposit(1))
    await stored(log, 3)

    assert [1] == amounts(log, 3)


async def test_a_lost_reply_is_followed_by_the_same_frame(log: HeldLog, appender: Appender) -> None:
    """Appended twice under one (origin, n); the duplicate's answer is ignored, and the counter goes on."""
    log.fail_after = [LogUnavailableError("reply lost")]
    future = appender.submit(deposit(5))
    await stored(log, 4)
    assert log.commands[2].frame == log.commands[3].frame

    answer(log, appender, 3)
    answer(log, appender, 4, Outcome.DUPLICATE)
    following = appender.submit(deposit(6))
    await stored(log, 5)
    answer(log, appender, 5)

    assert [Deposited(account_id=7, amount=5)] == await future
    assert [Deposited(account_id=7, amount=6)] == await following
    assert log.commands[4].frame.n == 3


async def test_an_answer_ends_the_repeats(log: HeldLog, appender: Appender) -> None:
    """A frame whose answer has come was appended, whatever the log said."""
    log.fail_after = [LogUnavailableError("reply lost")]
    future = appender.submit(deposit(5))
    await stored(log, 3)
    answer(log, appender, 3)
    assert [Deposited(account_id=7, amount=5)] == await future

    appender.submit(deposit(6))
    await stored(log, 4)

    assert [6] == amounts(log, 4)
    assert log.commands[3].frame.n == 3


async def test_an_unavailable_log_is_tried_until_it_answers(log: HeldLog, appender: Appender) -> None:
    """The frame is appended once when the log comes back."""
    log.fail_before = [LogUnavailableError("away")] * 3
    appender.submit(deposit(5))
    await stored(log, 3)

    assert [5] == amounts(log, 3)


async def test_a_full_log_fails_the_frame_and_frees_its_number(log: HeldLog, appender: Appender) -> None:
    """Nothing was appended: the callers are told, and the next frame has the same n."""
    log.fail_before = [LogFullError("no room")]
    with pytest.raises(LogFullError):
        await appender.submit(deposit(5))

    appender.submit(deposit(6))
    await stored(log, 3)

    assert ([6], 2) == (amounts(log, 3), log.commands[2].frame.n)


async def test_a_full_log_after_a_lost_reply_proves_nothing(log: HeldLog, appender: Appender) -> None:
    """The first attempt may have been appended, so the same frame is repeated until that is known."""
    log.fail_before = [LogUnavailableError("away"), LogFullError("no room")]
    future = appender.submit(deposit(5))
    await stored(log, 3)
    answer(log, appender, 3)

    assert [Deposited(account_id=7, amount=5)] == await future


@pytest.mark.parametrize("outcome", [Outcome.STALE, Outcome.ORIGIN_CLOSED, Outcome.REJECTED_FRAME])
async def test_a_frame_that_was_not_run_fails_its_callers(
    log: HeldLog, appender: Appender, outcome: Outcome
) -> None:
    """They learn why."""
    future = appender.submit(deposit(5))
    await stored(log, 3)
    answer(log, appender, 3, outcome)

    with pytest.raises(FrameRefusedError) as caught:
        await future
    assert outcome is caught.value.outcome


async def test_answers_to_others_are_left_alone(log: HeldLog, appender: Appender) -> None:
    """An earlier incarnation's frame with the same counter answers nothing here."""
    other = Appender(log, "intake")
    await other.open()
    theirs = other.submit(deposit(5))
    await stored(log, 4)
    ours = appender.submit(deposit(6))
    await stored(log, 5)

    answer(log, appender, 4)
    assert not ours.done()
    answer(log, appender, 5)
    assert [Deposited(account_id=7, amount=6)] == await ours
    await other.close()
    with pytest.raises(AnswerLostError):
        await theirs


async def test_a_caller_that_left_before_sending_is_not_sent(log: HeldLog, appender: Appender) -> None:
    """A cancelled command stays out of the frame; one already sent does no harm when answered."""
    sent = await log.hold(appender)
    waiting = appender.submit(deposit(1))
    appender.submit(deposit(2))
    sent.cancel()
    waiting.cancel()
    log.is_open.set()
    await stored(log, 4)

    assert [2] == amounts(log, 4)
    answer(log, appender, 3)


async def test_closing_tells_what_was_sent_from_what_was_not(log: HeldLog, appender: Appender) -> None:
    """The append in flight is waited for and its answer is lost; what waited was never sent."""
    sent = await log.hold(appender)
    waiting = appender.submit(deposit(1))
    closing = asyncio.create_task(appender.close())
    await asyncio.sleep(0)
    assert not closing.done()
    log.is_open.set()
    await closing

    with pytest.raises(AnswerLostError):
        await sent
    with pytest.raises(AppenderClosedError):
        await waiting
    with pytest.raises(AppenderClosedError):
        appender.submit(deposit(2))
    assert len(log.commands) == 3


async def test_closing_ends_the_repeats(log: HeldLog, appender: Appender) -> None:
    """With the log away, `close` does not wait for it to come back."""
    log.fail_before = [LogUnavailableError("away")] * 1000
    future = await log.hold(appender)
    log.is_open.set()

    async with asyncio.timeout(10):
        await appender.close()

    with pytest.raises(AnswerLostError):
        await future
