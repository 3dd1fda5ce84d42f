"""Who appended what: each appender's frames run once, whatever was lost, repeated or late.

An origin is a name with a random incarnation. Its frames count from 1; the frame that arrives with n = 1
opens the incarnation and closes the one before it. Of each origin the last frames that ran are remembered,
so that a repeat can be answered with the entry at which it ran.

A frame that skips a number closes its origin. An appender sends a frame only when the log has acknowledged
the one before, and frees a number only when nothing was appended under it. So a number that is missing
belongs to a frame that was acknowledged and is gone: the log went backwards, and whoever sent these frames
has not noticed yet. What follows was meant for a state that there is not, such as a withdrawal behind an
order that was lost. It is refused together with all that is still on its way from there, so that no frame
runs after it was answered as not run; and the process starts anew with the log as it is.
"""

from events.values import Outcome

REMEMBERED_FRAMES = 64
REMEMBERED_INCARNATIONS = 64


class Origin:
    """The current incarnation of a name ("": none), the frames of it that ran last, and those closed before.

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
        self.close()
        self.incarnation = incarnation
        self.ran = {n: seq}

    def close(self) -> None:
        """Let no further frame of the current incarnation run."""
        if self.incarnation:
            self.closed.append(self.incarnation)
            del self.closed[:-REMEMBERED_INCARNATIONS]
        self.incarnation = ""
        self.ran = {}

    def record(self, n: int, seq: int) -> None:
        """Remember that frame `n` ran at `seq`."""
        assert n == self.last_n + 1, (n, self.last_n)
        self.ran[n] = seq
        if len(self.ran) > REMEMBERED_FRAMES:
            del self.ran[next(iter(self.ran))]


def judge(origins: dict[str, Origin], origin: str, n: int) -> tuple[Outcome, int]:
    """Say whether frame `n` of `origin` is to run, and where it ran before if it did.

    EXECUTED: run it. DUPLICATE: it ran at the returned entry (0: longer ago than remembered). ORIGIN_CLOSED:
    the incarnation was replaced, was never opened by its frame 1, or lacks a frame before this one; then it
    is closed by this answer. REJECTED_FRAME: that is no origin.
    """
    name, _, incarnation = origin.partition(":")
    if not name or not incarnation:
        return Outcome.REJECTED_FRAME, 0
    known = origins.get(name)
    if known is None or known.incarnation != incarnation:
        is_new = n == 1 and (known is None or incarnation not in known.closed)
        return (Outcome.EXECUTED if is_new else Outcome.ORIGIN_CLOSED), 0
    missing = n - known.last_n
    if missing > 0:
        return (Outcome.EXECUTED if missing == 1 else Outcome.ORIGIN_CLOSED), 0
    return Outcome.DUPLICATE, known.ran.get(n, 0)
