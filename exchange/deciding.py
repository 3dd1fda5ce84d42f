"""Deciding a frame whatever is in it: what fails is found out, and the rest is decided without it.

A failure leaves a state that nobody may use. It is restored from a *base*, a state a little behind as bytes
with the entries since, and the frame is decided again with one failure more known, until none is left.

A base costs nothing while nothing fails: its image is the one that a writer takes anyway when it starts, and
the entries are only kept, not applied. It lasts for a limited number of bytes. Whoever has no base any more
rebuilds the state from the newest snapshot and the log, as at a start, and has a fresh one for what comes.
"""

import gc
import re
import time
from traceback import format_tb, walk_tb
from types import TracebackType

import structlog

from events.frame import CommandFrame, Groups, decode_groups, encode_groups
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.failing import CommandError, Failure, Failures, WorkError, culprit
from exchange.aggregate.image import Image, restore, take_image
from exchange.aggregate.state import Exchange

logger = structlog.get_logger(__name__)

# About 40,000 events, which take less than half a second to apply.
BASE_BYTES_MAX = 2 * 1024 * 1024
NUMBERS_MAX = 8
_OURS = re.compile(r"(exchange|events)\.")


class StateLostError(Exception):
    """A frame failed, the state is worthless, and there is no base: it must be rebuilt before that frame."""


class Base:
    """A state behind entry `seq` as an image, and the bodies of the event entries since."""

    def __init__(self, image: Image, seq: int) -> None:
        self.seq = seq
        self._image = image.body
        self._bodies: list[bytes] = []
        self._bytes = 0

    @property
    def is_used_up(self) -> bool:
        """Whether it holds more entries than it should take to restore."""
        return self._bytes > BASE_BYTES_MAX

    @property
    def is_behind(self) -> bool:
        """Whether there are entries to apply to the image."""
        return bool(self._bodies)

    def add(self, body: bytes) -> None:
        """Keep the body of the next entry."""
        self._bodies.append(body)
        self._bytes += len(body)

    def restore(self) -> Exchange:
        """Return the state behind the last entry added."""
        state = restore(self._image)
        apply = state.apply
        for body in self._bodies:
            for group in decode_groups(body):
                for event in group:
                    apply(event)
        assert state.seq == self.seq + len(self._bodies), (state.seq, self.seq, len(self._bodies))
        return state


class Decider:
    """Decides entries one after the other, around what fails in them.

    `state` is the one behind the last entry decided; another object after a failure. With `base`, which must
    be that very state's, a failure is dealt with at once.
    """

    def __init__(self, state: Exchange, base: Base | None = None) -> None:
        self.state = state
        self._base = base

    def decide(self, seq: int, frame: CommandFrame, now_ns: int) -> bytes:
        """Decide the next frame; return the body of its event entry, which has been applied to `state`.

        Raises:
            StateLostError: something failed. Rebuild the state, `go_on` with it, and decide the frame again.
        """
        failures: Failures | None = None
        started_s = time.monotonic()
        while True:
            try:
                body = decide_entry(self.state, seq, frame, now_ns, failures)
                break
            except (CommandError, WorkError) as error:
                if self._base is None:
                    raise StateLostError(f"entry {seq}: {error}") from error
                failures = learn(failures, error)
                _report(seq, error)
                self.state = self._base.restore()
                if self._base.is_behind:
                    # What fails next, in this frame or soon after, is not to cost the same again.
                    self._base = Base(take_image(self.state), self.state.seq)
        if failures is not None:
            settle_memory()
            logger.warning("state_restored", seq=seq, seconds=round(time.monotonic() - started_s, 3))
        self._keep(body)
        return body

    def go_on(self, state: Exchange) -> None:
        """Decide on with a rebuilt state, which is the base from now on."""
        self.state = state
        self._base = Base(take_image(state), state.seq)
        settle_memory()

    def _keep(self, body: bytes) -> None:
        base = self._base
        if base is not None:
            base.add(body)
            if base.is_used_up:
                self._base = None


def settle_memory() -> None:
    """Collect what a former state left, and take the present one out of the collector's sight."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def decide_entry(
    state: Exchange, seq: int, frame: CommandFrame, now_ns: int, failures: Failures | None = None
) -> bytes:
    """Decide a frame, apply its events to `state`, and return the body of the event entry.

    Raises:
        CommandError, WorkError: as for `decide_encoded`.
    """
    return decide_encoded(state, seq, frame, now_ns, failures)[1]


def decide_encoded(
    state: Exchange, seq: int, frame: CommandFrame, now_ns: int, failures: Failures | None = None
) -> tuple[Groups, bytes]:
    """Decide a frame, apply its events to `state`, and return them, and the body of the event entry.

    Raises:
        CommandError, WorkError: deciding, applying or encoding failed, as the error's cause says. `state` is
            worthless then. Add the failure with `learn` and decide again from a restored state.
    """
    groups = decide_frame(state, seq, frame, now_ns, failures)
    try:
        return groups, encode_groups(groups)
    except Exception as error:
        found = _unencodable(groups)
        if found is None:
            raise
        raise found from error


def learn(failures: Failures | None, error: CommandError | WorkError) -> Failures:
    """Return the failures known of a frame with one more.

    Raises:
        Exception: the cause of `error`, when the failure was known: then not even recording it works.
    """
    known = failures or Failures()
    cause = error.__cause__
    assert isinstance(cause, Exception), error
    if isinstance(error, CommandError):
        if error.index in known.commands:
            raise cause
        known.commands[error.index] = describe(cause)
    else:
        if error.work in known.work:
            raise cause
        known.work[error.work] = describe(cause)
    return known


def describe(error: Exception) -> Failure:
    """Say what an exception is and where in our code it arose, for the record.

    Its own text may hold a key, or the address of an object in memory, so that only the numbers in it are
    given: those of entries, orders, lots and amounts, which the log holds anyway.
    """
    numbers = [arg for part in error.args for arg in (part if isinstance(part, tuple) else (part,))]
    plain = [str(number) for number in numbers if type(number) is int and abs(number) < 1 << 64]
    shown = ", ".join(plain[:NUMBERS_MAX])
    where = _place(error.__traceback__)
    return Failure(type(error).__name__, f"{where}: {shown}" if shown else where)


def _report(seq: int, error: CommandError | WorkError) -> None:
    """Tell the operator where it happened; the exception's own text could hold a secret."""
    cause = error.__cause__
    trace = format_tb(cause.__traceback__) if cause is not None else []
    logger.error("failed", seq=seq, what=str(error), error=type(cause).__name__, trace="".join(trace))


def _place(trace: TracebackType | None) -> str:
    place = "outside the rules"
    for frame, line in walk_tb(trace):
        module = str(frame.f_globals.get("__name__", ""))
        if _OURS.match(module):
            place = f"{module}.{frame.f_code.co_name}, line {line}"
    return place


def _unencodable(groups: Groups) -> CommandError | WorkError | None:
    """Find the first event that cannot be encoded, and say what caused it."""
    for n, group in enumerate(groups):
        for place, event in enumerate(group):
            try:
                encode_groups([[event]])
            except Exception:
                return culprit(groups, n, place)
    return None
