"""Deciding the other run around what fails in it, as a writer would have had to.

A command that the exchange cannot carry out leaves a state that nobody may use. A writer restores its own
from a base and decides the frame again with the failure on record; here a state of its own decides, ahead of
the one that everybody looks at, which only ever has whole entries applied. So what is restored from is there.
"""

from events.events import CommandFailed, WorkFailed
from events.frame import CommandFrame, Groups
from exchange.aggregate.failing import CommandError, Failures, Work, WorkError
from exchange.aggregate.image import restore, take_image
from exchange.aggregate.state import Exchange
from exchange.deciding import decide_encoded, learn

Failed = CommandFailed | WorkFailed


class Decided:
    """The answer to a frame and its bytes; `failed` are the failures in it that were not known before."""

    __slots__ = ("body", "failed", "groups")

    def __init__(self, groups: Groups, body: bytes, failed: list[Failed]) -> None:
        self.groups = groups
        self.body = body
        self.failed = failed


class Deciding:
    """Decides the frames of a run, in order, and applies what they make to `state`, which it begins with."""

    def __init__(self, state: Exchange) -> None:
        self._state = state
        self._ahead: Exchange | None = None  # until something may fail

    def decide(
        self, seq: int, frame: CommandFrame, now_ns: int, known: Failures | None, *, may_fail: bool
    ) -> Decided:
        """Decide a frame, whose `known` failures are taken as given, and apply its events.

        Once it may, something may fail in every frame that follows.

        Raises:
            CommandError, WorkError: something else failed, and `may_fail` is not set. Nothing can follow.
            Exception: what failed cannot even be recorded, or the frame itself fails.
        """
        if not may_fail:
            return Decided(*decide_encoded(self._state, seq, frame, now_ns, known), [])
        given = set() if known is None else {*known.commands, *known.work}
        failures = known
        while True:
            if self._ahead is None:
                self._ahead = restore(take_image(self._state).body)
            try:
                groups, body = decide_encoded(self._ahead, seq, frame, now_ns, failures)
                break
            except (CommandError, WorkError) as error:
                failures = learn(failures, error)
                self._ahead = None
        failed = [] if failures is None else _failures_in(groups)
        for group in groups:
            for event in group:
                self._state.apply(event)
        return Decided(groups, body, [event for event in failed if _key(event) not in given])


def _failures_in(groups: Groups) -> list[Failed]:
    return [event for group in groups for event in group if isinstance(event, CommandFailed | WorkFailed)]


def _key(event: Failed) -> int | Work:
    """Return what `Failures` knows a failure by."""
    if isinstance(event, CommandFailed):
        return event.index
    return event.account_id, event.number, event.market
