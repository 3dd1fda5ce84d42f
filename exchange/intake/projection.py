"""What the intake remembers besides the state: the past, as far as questions about it are answered.

The state holds what is; candles, trades, ended orders and income are folded beside it, from the same entries.
"""

from collections.abc import Callable
from typing import Any, Protocol

from events.events import Event
from events.frame import Groups, header_of

NS_PER_MS = 1_000_000
# So many rows of one entry at most; entries are numbered up to 2^31 then, below what every client can read.
ROWS_PER_ENTRY_MAX = 4_000_000

Handlers = dict[type[Event], Callable[[Any], None]]


class Clock:
    """The entry that is being fed: its number, its time in ms, and numbers for rows made from it.

    A row's number is unique, grows with the log, and comes out the same whenever the log is read again.
    """

    __slots__ = ("_rows", "now_ms", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.now_ms = 0
        self._rows = 0

    def turn_to(self, groups: Groups) -> None:
        """Begin another entry."""
        header = header_of(groups)
        self.seq = header.seq
        self.now_ms = header.now_ns // NS_PER_MS
        self._rows = 0

    def next_row_id(self) -> int:
        """Return a number for a row made from this entry."""
        self._rows += 1
        assert self._rows < ROWS_PER_ENTRY_MAX, self.seq
        return self.seq * ROWS_PER_ENTRY_MAX + self._rows


class Projection(Protocol):
    """Folds entries into answers about the past."""

    def feed(self, groups: Groups) -> None:
        """Take in the events of one entry; each entry comes once, in order.

        At the start come the entries from before the snapshot, as far as the log or its archive has them.
        The state is then ahead of them: what is fed must be understood from the events alone, and from what
        of the state never changes (a market's contract).
        """
        ...
