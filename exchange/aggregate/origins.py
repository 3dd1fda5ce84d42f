"""Who appended what: each appender's frames run once, whatever was lost, repeated or late.

An origin is a name with a random incarnation. Its frames count from 1; the frame that arrives with n = 1
opens the incarnation and closes the one before it. Of each origin the last frames that ran are remembered,
so that a repeat can be answered with the entry at which it ran.
"""

from events.values import Outcome

REMEMBERED_FRAMES = 64
REMEMBERED_INCARNATIONS = 64


class Origin:
    """The current incarnation of a name, the frames of it that ran last, and incarnations closed before.

    `ran` maps frame number to sequence number, oldest first; `closed` lists incarnations, oldest first.
    """

    __slots__ = ("closed", "incarnation", "ran")

    def __init__(self) -> None:
        self.incarnation = ""
        self.ran: dict[int, int] = {}
        self.closed: list[str] = []

    @property
    def last_n(self) -> int:
        """The highest frame number that ran."""
        return next(reversed(self.ran)) if self.ran else 0

    def open(self, incarnation: str, n: int, seq: int) -> None:
        """Let a new incarnation replace the current one."""
        assert incarnation != self.incarnation, incarnation
        if self.incarnation:
            self.closed.append(self.incarnation)
            del self.closed[:-REMEMBERED_INCARNATIONS]
        self.incarnation = incarnation
        self.ran = {n: seq}

    def record(self, n: int, seq: int) -> None:
        """Remember that frame `n` ran at `seq`."""
        assert n > self.last_n, (n, self.last_n)
        self.ran[n] = seq
        if len(self.ran) > REMEMBERED_FRAMES:
            del self.ran[next(iter(self.ran))]


def judge(origins: dict[str, Origin], origin: str, n: int) -> tuple[Outcome, int]:
    """Say whether frame `n` of `origin` is to run, and where it ran before if it did.

    EXECUTED: run it. DUPLICATE: it ran at the returned entry (0: longer ago than remembered). STALE: a later
    frame ran first. ORIGIN_CLOSED: the incarnation was replaced, or never opened by its frame 1.
    REJECTED_FRAME: that is no origin.
    """
    name, _, incarnation = origin.partition(":")
    if not name or not incarnation:
        return Outcome.REJECTED_FRAME, 0
    known = origins.get(name)
    if known is None or known.incarnation != incarnation:
        is_new = n == 1 and (known is None or incarnation not in known.closed)
        return (Outcome.EXECUTED if is_new else Outcome.ORIGIN_CLOSED), 0
    if n > known.last_n:
        return Outcome.EXECUTED, 0
    seq = known.ran.get(n, 0)
    if seq or n < next(iter(known.ran)):
        return Outcome.DUPLICATE, seq
    return Outcome.STALE, 0
