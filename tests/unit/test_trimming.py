"""How much of the streams may be removed."""

from pathlib import Path

import pytest

from events.archive import ArchivedLog, SegmentWriter
from events.log import LogRewoundError
from exchange.trimming import Consumers, first_to_keep, trim
from tests.traded import LOG_ID, answered, traded


@pytest.mark.parametrize(
    ("archived_seq", "snapshot_seqs", "consumer_seqs", "expected"),
    [
        (100, [90, 80, 70], [95], 80),  # the second-newest snapshot
        (60, [90, 80], [95], 60),  # what is archived
        (100, [90, 80], [95, 50], 50),  # the slowest consumer
        (100, [80, 90], [], 80),  # snapshots in any order, nobody there
        (100, [90, 80], [0, 95], 80),  # a process that reads no log
        (100, [90], [95], 1),  # one snapshot is none to fall back to
        (100, [], [95], 1),
        (0, [90, 80], [95], 1),  # nothing archived
    ],
)
def test_streams_keep_what_somebody_needs(
    archived_seq: int, snapshot_seqs: list[int], consumer_seqs: list[int], expected: int
) -> None:
    """The least of archived, second-newest snapshot and slowest consumer; all without two snapshots."""
    assert expected == first_to_keep(
        archived_seq=archived_seq, snapshot_seqs=snapshot_seqs, consumer_seqs=consumer_seqs
    )


def test_a_consumer_is_remembered_for_a_minute() -> None:
    """One that is silent for a while may come back; one that stays away holds nothing up."""
    consumers = Consumers()
    consumers.note({"intake": 5, "liquidator": 7}, now_s=0.0)
    consumers.note({"intake": 9}, now_s=60.0)
    assert [9, 7] == consumers.seqs

    consumers.note({"intake": 9}, now_s=60.5)
    assert [9] == consumers.seqs


async def test_only_what_the_archive_holds_is_removed(tmp_path: Path) -> None:
    """The entry to keep is the archive's; a log that has another one there is left alone."""
    log, other = traded().as_log(), traded().as_log()
    writer = SegmentWriter(tmp_path)
    for command, verified in await answered(log):
        writer.add(command, verified, LOG_ID)
    writer.flush()
    writer.close()
    archive = ArchivedLog(tmp_path)

    with pytest.raises(LogRewoundError):
        await trim(other, archive, 5)
    await trim(log, archive, 1)
    assert 12 == len(log.events) == len(other.events)

    await trim(log, archive, 5)
    assert [5, 5] == [log.events[0].seq, log.commands[0].seq]
