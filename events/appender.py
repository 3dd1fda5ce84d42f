"""Appender: many callers' commands in, few frames out, each command matched to its answer.

Natural batching, without a timer: while one append is in flight, what arrives is collected and is the next
frame. An idle appender sends at once; a busy one sends large frames.

One frame is in flight at a time, and the origin's counter moves only behind a frame that was appended. So
when a reply is lost, the same frame is sent again under the same (origin, n), and the aggregate runs it once.
"""

import asyncio
from asyncio import Future
from collections import deque

from events.commands import AnyCommand
from events.events import Event
from events.frame import (
    BODY_BYTES_MAX,
    BODY_HEADER_BYTES_MAX,
    COMMANDS_PER_FRAME_MAX,
    FrameTooLargeError,
    Groups,
    close_encoded_frame,
    encode_command,
    header_of,
    new_origin,
)
from events.log import (
    Log,
    LogError,
    LogFullError,
    LogMissingError,
    LogRewoundError,
    LogUnavailableError,
    Place,
)
from events.machine import MACHINE, Machine
from events.values import Outcome

Answer = list[Event]

_COMMANDS_BYTES_MAX = BODY_BYTES_MAX - BODY_HEADER_BYTES_MAX
_RESEND_FIRST_S = 0.02
_RESEND_MAX_S = 1.0


class AppenderClosedError(Exception):
    """The command was not sent: the appender closed before."""


class AnswerLostError(Exception):
    """The command was sent, or may have been; the appender closed before its answer came."""


class FrameRefusedError(Exception):
    """The aggregate did not run the frame, and says why by its `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"the frame was not run: {outcome.name.lower().replace('_', ' ')}")
        self.outcome = outcome


class Appender:
    """Appends commands to a log under one origin, a new incarnation of `name`.

    Use: `open`, then `submit` from any task of the event loop, while whoever folds the events calls
    `resolve` with each entry's groups; at last `close`. `machine` gives the wall clock of the frames.
    `appended_seq` is the entry appended last, 0 before the first: what the log holds at least.
    """

    def __init__(self, log: Log, name: str, *, machine: Machine = MACHINE) -> None:
        self.origin = new_origin(name, machine.token_hex)
        self._log = log
        self._clock_ns = machine.clock_ns
        self._n = 0
        self.appended_seq = 0
        # The last entry that was appended or resolved: what the log holds at least.
        self._seen: Place | None = None
        self._waiting: deque[tuple[bytes, Future[Answer]]] = deque()
        self._unanswered: dict[int, list[Future[Answer]]] = {}
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Append the empty frame that opens the origin, and begin to send.

        The events of the frame need not have been read when this returns.

        Raises:
            LogError: the log refuses it. A server that does not answer, or has no room, is waited for.
        """
        assert self._sender is None, "opened twice"
        while True:
            try:
                await self._send([], [])
                break
            except LogFullError:
                if await self._closes_within(_RESEND_MAX_S):
                    break
        self._sender = asyncio.create_task(self._send_batches(), name=f"appender {self.origin}")

    def submit(self, command: AnyCommand) -> "Future[Answer]":
        """Send a command with the next frame; the future's result is the events of its group.

        The future fails with `LogFullError` or another `LogError` when the frame was not appended, with
        `FrameRefusedError` when it was not run, and as `close` says.

        Raises:
            AppenderClosedError: closed or closing.
            FrameTooLargeError: the command alone is larger than a frame may be.
            OverflowError: it holds an integer of more than 64 bits.
        """
        if self._sender is None or self._closing.is_set():
            raise AppenderClosedError("the appender is not open")
        encoded = encode_command(command)
        if len(encoded) > _COMMANDS_BYTES_MAX:
            raise FrameTooLargeError(f"{len(encoded)} bytes; a frame holds {_COMMANDS_BYTES_MAX}")
        answer: Future[Answer] = self._sender.get_loop().create_future()
        self._waiting.append((encoded, answer))
        self._arrived.set()
        return answer

    def resolve(self, groups: Groups) -> None:
        """Complete the futures that these events answer. To be called with every entry, in order."""
        header = header_of(groups)
        self._see(header.seq, header.checksum)
        # A duplicate was answered when the frame ran the first time.
        if header.origin != self.origin or header.outcome is Outcome.DUPLICATE:
            return
        answers = self._unanswered.pop(header.frame_n, [])
        if header.outcome is not Outcome.EXECUTED:
            _fail(answers, FrameRefusedError(header.outcome))
            return
        assert not answers or len(answers) == len(groups) - 1, (len(answers), len(groups))
        for i, answer in enumerate(answers, 1):
            if not answer.done():
                answer.set_result(groups[i])

    async def close(self) -> None:
        """Wait for the append in flight, then stop.

        Commands not yet sent fail with `AppenderClosedError`, those without an answer with
        `AnswerLostError`. An append that the log does not confirm is not repeated.
        """
        self._closing.set()
        self._arrived.set()
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send_batches(self) -> None:
        try:
            while not self._closing.is_set():
                if self._waiting:
                    await self._send_batch()
                else:
                    self._arrived.clear()
                    await self._arrived.wait()
        finally:
            self._closing.set()
            self._fail_rest()

    async def _send_batch(self) -> None:
        encoded, answers = self._take_batch()
        if not answers:
            return
        try:
            await self._send(encoded, answers)
        except LogError as error:
            _fail(answers, error)
            if isinstance(error, LogRewoundError):
                # Whatever else is sent would be decided by a log that has forgotten what came before.
                self._closing.set()

    def _fail_rest(self) -> None:
        _fail([answer for _, answer in self._waiting], AppenderClosedError("closed before it was sent"))
        self._waiting.clear()
        for answers in self._unanswered.values():
            _fail(answers, AnswerLostError("closed before the answer came"))
        self._unanswered.clear()

    def _take_batch(self) -> tuple[list[bytes], list[Future[Answer]]]:
        encoded: list[bytes] = []
        answers: list[Future[Answer]] = []
        room_bytes = _COMMANDS_BYTES_MAX
        waiting = self._waiting
        while waiting and len(encoded) < COMMANDS_PER_FRAME_MAX and len(waiting[0][0]) <= room_bytes:
            command, answer = waiting.popleft()
            if answer.cancelled():
                continue  # whoever asked is gone, and it was not sent
            room_bytes -= len(command)
            encoded.append(command)
            answers.append(answer)
        return encoded, answers

    async def _send(self, encoded: list[bytes], answers: list[Future[Answer]]) -> None:
        """Append one frame, again and again while it is unknown whether it was; until closing.

        Raises:
            LogRewoundError: the log is not the one that was appended to before.
            LogError: nothing was appended, and the frame's number is free again.
        """
        n = self._n + 1
        frame = close_encoded_frame(self.origin, n, self._clock_ns(), encoded)
        self._unanswered[n] = answers
        is_unknown = False
        delay_s = _RESEND_FIRST_S
        while True:
            try:
                seq = await self._log.append_command(frame, behind=self._seen)
            except LogUnavailableError:
                is_unknown = True
            except LogRewoundError:
                raise
            except LogError as error:
                if isinstance(error, LogMissingError) and self.appended_seq:
                    raise LogRewoundError("the log is gone, and was appended to before") from error
                # After an attempt whose reply was lost, a refusal of the repeat proves nothing.
                if not is_unknown:
                    del self._unanswered[n]
                    raise
            else:
                if seq <= self.appended_seq:
                    raise LogRewoundError(f"entry {seq} was appended behind entry {self.appended_seq}")
                self.appended_seq = seq
                self._see(seq, frame.checksum)
                break
            if await self._closes_within(delay_s):
                break
            if n not in self._unanswered:
                break  # answered meanwhile: an attempt whose reply was lost had been appended
            delay_s = min(delay_s * 2, _RESEND_MAX_S)
        self._n = n

    def _see(self, seq: int, checksum: bytes) -> None:
        if self._seen is None or seq > self._seen.seq:
            self._seen = Place(seq=seq, checksum=checksum)

    async def _closes_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True


def _fail(answers: list[Future[Answer]], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
