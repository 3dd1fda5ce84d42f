"""Where the exchange stands: the entry it has come to, and the digest by which that can be checked."""

import time

from exchange.intake.endpoint import Values
from exchange.intake.foldex.health import Shape
from exchange.intake.service import Intake

# A digest reads the whole state; this much of the time at most goes into it, whoever asks how often.
SHARE_MAX = 0.02


class Sequence(Shape, frozen=True):
    """The last entry of the log that is in the answers of this intake, and the exchange's time there (ms)."""

    log_id: str
    seq: int
    time: int
    rules_version: int


class Digest(Shape, frozen=True):
    """The digest of the whole state as of entry `seq`: what `foldex replay --to` comes to as well."""

    log_id: str
    seq: int
    digest: str


class Digests:
    """The digest taken last, and when the next may be."""

    def __init__(self) -> None:
        self._last: Digest | None = None
        self._next_s = 0.0

    def take(self, intake: Intake) -> Digest:
        """Return the digest of the state, or the last one while taking another would cost too much."""
        state = intake.state
        now_s = time.monotonic()
        last = self._last
        if (
            last is not None
            and last.log_id == state.log_id
            and (last.seq == state.seq or now_s < self._next_s)
        ):
            return last
        found = self._last = Digest(log_id=state.log_id, seq=state.seq, digest=state.digest().hex())
        taken_s = time.monotonic() - now_s
        self._next_s = now_s + taken_s / SHARE_MAX
        return found


_digests = Digests()


async def sequence(intake: Intake, account_id: int, values: Values) -> Sequence:
    """Return the entry that this intake has come to."""
    state = intake.state
    return Sequence(log_id=state.log_id, seq=state.seq, time=intake.now_ms, rules_version=state.rules_version)


async def digest(intake: Intake, account_id: int, values: Values) -> Digest:
    """Return the digest of the whole state, and as of which entry it is."""
    return _digests.take(intake)
