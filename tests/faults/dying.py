"""A process of the exchange that stops itself with a signal at a chosen point: `dying.py POINT N NAME …`.

The points are those between two steps that belong together and that no signal from outside could hit on
purpose. The N-th time the point is reached it ends by SIGKILL, or freezes by SIGSTOP.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from events.frame import EventEntry
from events.log import Head, Lease
from events.redis import RedisLog
from exchange.cli import main


def _countdown(times: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    left = [times]

    def reached() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    return reached


def die_behind_append(times: int) -> None:
    """End when the server has confirmed event entries, before anything is made of that."""
    reached = _countdown(times)
    append = RedisLog.append_events

    async def append_and_die(
        log: RedisLog, entries: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        await append(log, entries, previous, lease)
        reached()

    RedisLog.append_events = append_and_die  # type: ignore[method-assign,assignment]


def freeze_before_append(times: int) -> None:
    """Freeze with decided entries in hand, right before they are sent."""
    reached = _countdown(times, signal.SIGSTOP)
    append = RedisLog.append_events

    async def freeze_and_append(
        log: RedisLog, entries: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        reached()
        await append(log, entries, previous, lease)

    RedisLog.append_events = freeze_and_append  # type: ignore[method-assign,assignment]


def die_before_rename(times: int) -> None:
    """End when a snapshot is on disk under its temporary name."""
    reached = _countdown(times)
    rename = Path.rename

    def die_and_rename(path: Path, target: Path) -> Path:
        if target.suffix == ".snapshot":
            reached()
        return rename(path, target)

    Path.rename = die_and_rename  # type: ignore[method-assign,assignment]


POINTS = {
    "append": die_behind_append,
    "before-append": freeze_before_append,
    "rename": die_before_rename,
}

if __name__ == "__main__":
    _, point, times, *arguments = sys.argv
    POINTS[point](int(times))
    sys.argv = ["foldex", *arguments]
    main()
