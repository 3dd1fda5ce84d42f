"""What the intake remembers besides the state: the past, as far as questions about it are answered.

The state holds what is; candles, trades, ended orders and income are folded beside it, from the same entries.
"""

from typing import Protocol

from events.frame import Groups


class Projection(Protocol):
    """Folds entries into answers about the past."""

    def feed(self, groups: Groups) -> None:
        """Take in the events of one entry; each entry comes once, in order.

        At the start come the entries from before the snapshot, as far as the log or its archive has them.
        The state is then ahead of them: what is fed must be understood from the events alone, and from what
        of the state never changes (a market's contract).
        """
        ...
