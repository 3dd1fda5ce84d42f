"""Trimming: how much of the streams may be removed, and removing it.

The streams keep what is not archived, what follows the second-newest good snapshot (the newest may turn out
to be damaged), and what a consumer that was seen lately has yet to read. The entry at the limit is kept too:
a reader that stands there can still make sure of its place.
"""

from collections.abc import Iterable, Mapping, Sequence

from events.archive import ArchivedLog
from events.log import Head, Log

CONSUMER_REMEMBERED_S = 60.0


def first_to_keep(*, archived_seq: int, snapshot_seqs: Sequence[int], consumer_seqs: Iterable[int]) -> int:
    """Return the first entry that the streams must keep; 1 is all.

    `snapshot_seqs` are those of snapshots that were loaded and matched their checkpoint; with fewer than two
    nothing may go. A consumer at 0 reads no log.
    """
    if len(snapshot_seqs) < 2:
        return 1
    second_newest = sorted(snapshot_seqs)[-2]
    reading = (seq for seq in consumer_seqs if seq > 0)
    return max(1, min(archived_seq, second_newest, *reading))


class Consumers:
    """The processes that were seen lately, and where they were."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def seqs(self) -> list[int]:
        """Where they were when seen last."""
        return [seq for seq, _ in self._seen.values()]

    def note(self, alive: Mapping[str, int], now_s: float) -> None:
        """Note who is alive, by name, and forget who was not for a minute."""
        self._seen |= {name: (seq, now_s) for name, seq in alive.items()}
        for name, (_, seen_s) in list(self._seen.items()):
            if now_s - seen_s > CONSUMER_REMEMBERED_S:
                del self._seen[name]


async def trim(log: Log, archive: ArchivedLog, first_kept_seq: int) -> None:
    """Remove the entries before `first_kept_seq`, which is in the archive, from both streams.

    Raises:
        LogRewoundError: the log does not hold that entry as the archive does; nothing was removed.
        CorruptLogError: the archive is damaged there.
    """
    if first_kept_seq <= 1:
        return
    (entry,) = await archive.read_events(first_kept_seq - 1, 1)
    await log.trim(Head(seq=entry.seq, chain_hash=entry.chain_hash))
