"""A moment of a log: the state behind an entry, or as it was at a time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from events.frame import header_of
from events.log import EventReader, ReadableLog
from exchange.aggregate.state import Exchange
from exchange.audit.cli import NotInLogError
from exchange.audit.replay import ENTRIES_PER_READ, apply_entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment:
    """The number of an entry, or a time in ns since 1970; with neither, the end of the log."""

    def __init__(self, text: str | None) -> None:
        """Read a moment, as in 1200 or 2025-10-10T21:20:00 (UTC unless it says otherwise).

        Raises:
            ValueError: the text is neither.
        """
        self.seq: int | None = None
        self.time_ns: int | None = None
        if text is None:
            return
        if text.isascii() and text.isdigit() and len(text) < 19 and int(text):
            self.seq = int(text)
            return
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("must be the number of an entry, or a time like 2025-10-10T21:20:00") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        self.time_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


async def state_at(
    log: ReadableLog, moment: Moment, on_progress: Callable[[int, int], None] | None = None
) -> Exchange:
    """Rebuild the state as it was at a moment: behind the entry, or behind the last one that is not later.

    Raises:
        NotInLogError: the log ends before the entry, or begins after the time.
        CorruptLogError, LogRewoundError, TrimmedError: the log cannot be read from its start.
    """
    last = (await log.event_head()).seq
    if moment.seq is not None and moment.seq > last:
        raise NotInLogError(f"the log ends at entry {last}; there is no entry {moment.seq}")
    target = moment.seq or last
    reader = EventReader(log)
    state = Exchange()
    while reader.seq < target:
        for verified in await reader.read(min(ENTRIES_PER_READ, target - reader.seq)):
            if moment.time_ns is not None and header_of(verified.groups).now_ns > moment.time_ns:
                if state.seq == 0:
                    raise NotInLogError("the log begins after that time")
                return state
            apply_entry(state, verified)
        if on_progress is not None:
            on_progress(reader.seq, target)
    return state
