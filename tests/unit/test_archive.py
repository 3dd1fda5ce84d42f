"""The archive: what is written is read back byte for byte, and what is damaged is found."""

import random
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from events import archive
from events.archive import ArchivedLog, SegmentWriter
from events.columns import command_table, event_table
from events.frame import close_command_frame
from events.log import CommandEntry, CommandReader, CorruptLogError, EventReader, Head, TrimmedError
from events.memory import MemoryLog
from events.segments import (
    ArchivedThenLive,
    ArchiveError,
    ArchiveMismatchError,
    Directory,
    Segment,
    checksum_of,
    manifest_name,
)
from exchange.archiving import verify_archive, verify_columns
from exchange.audit.replay import replay
from tests.traded import LOG_ID, answered, traded


async def archived(path: Path, log: MemoryLog, *lengths: int) -> SegmentWriter:
    """Write a log as segments of the given numbers of entries; the writer has given the archive up."""
    writer = SegmentWriter(path)
    pairs = await answered(log)
    for length in lengths:
        for command, verified in pairs[writer.pending.seq :][:length]:
            writer.add(command, verified, LOG_ID)
        writer.flush()
    writer.close()
    return writer


def files_of(path: Path) -> list[Path]:
    """Return the files of an archive, without its lock."""
    return sorted(file for file in path.rglob("*") if file.suffix in (".parquet", ".json"))


def list_files(path: Path) -> list[Path]:
    """Return all files in the folders of an archive, drafts too."""
    return sorted(path.glob("*/*"))


async def read_all(path: Path) -> None:
    """Read both streams of an archive as a consumer does, checking all that there is to check."""
    stored = ArchivedLog(path)
    head = stored.head
    for reader in (EventReader(stored, log_id=LOG_ID), CommandReader(stored)):
        while reader.seq < head.seq:
            await reader.read(4)


async def test_an_archive_reads_back_as_the_log(tmp_path: Path) -> None:
    """Entries with every mark, over the joints of segments, and the head."""
    log = traded().as_log()
    writer = await archived(tmp_path, log, 3, 1, 100)
    stored = ArchivedLog(tmp_path)

    assert [(1, 3), (4, 4), (5, 12)] == [(found.first_seq, found.last_seq) for found in stored.segments]
    commands, events = [], []
    while len(events) < 12:
        commands += await stored.read_commands(len(commands), 100)
        events += await stored.read_events(len(events), 2)
    assert log.commands == commands
    assert log.events == events
    assert await log.event_head() == await stored.event_head() == writer.head
    assert [] == await stored.read_events(12, 1)


async def test_a_segment_packed_in_parts_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of rows of two entries, made of small tables: the same entries, and the same columns."""
    log = traded().as_log()
    await archived(tmp_path / "whole", log, 100)
    monkeypatch.setattr(archive, "ROWS_PER_TABLE", 3)
    monkeypatch.setattr(archive, "ENTRIES_PER_ROW_GROUP", 2)
    writer = SegmentWriter(tmp_path / "parts")
    for command, verified in await answered(log):
        writer.add(command, verified, LOG_ID)
        if writer.can_pack:
            writer.pack()
    segment = writer.flush()
    writer.close()

    assert segment is not None
    whole, parts = ArchivedLog(tmp_path / "whole"), ArchivedLog(tmp_path / "parts")
    assert 6 == pq.ParquetFile(tmp_path / "parts" / segment.events_file).num_row_groups
    for name in (segment.commands_file, segment.events_file):
        assert whole.table(name).equals(parts.table(name)), name
    assert (whole.segments[0].commands, whole.segments[0].events) == (segment.commands, segment.events)
    await read_all(tmp_path / "parts")
    await verify_columns(parts)


async def test_replay_from_the_archive_gives_the_digest(tmp_path: Path) -> None:
    """State from archive = live state."""
    venue = traded()
    await archived(tmp_path, venue.as_log(), 5, 5, 5)

    replayed = await replay(ArchivedLog(tmp_path))

    assert venue.state.digest() == replayed.state.digest()


async def test_segments_have_a_row_a_message_and_columns_of_the_fields() -> None:
    """Integers in their units, names of enumerations, and no secret."""
    pairs = await answered(traded().as_log())
    events = event_table(verified for _, verified in pairs).to_pylist()
    trade = next(row for row in events if row["type"] == "trade")

    names = ("seq", "index", "market", "price_ticks", "quantity_lots", "taker_side")
    assert (10, 0, "BTCUSDT", 500_005, 10, "buy") == tuple(trade[name] for name in names)
    assert "sealed_secret" not in trade
    refused = next(row for row in events if row["type"] == "rejected")
    assert "insufficient_balance" == refused["code"]
    orders = [row for row in command_table(pairs).to_pylist() if row["type"] == "place_order"]
    assert [("sell", "first"), ("buy", ""), ("sell", "")] == [
        (row["side"], row["client_order_id"]) for row in orders
    ]


async def test_what_does_not_decode_is_archived_all_the_same(tmp_path: Path) -> None:
    """A frame without known commands has its stored bytes and no rows; a huge integer is null."""
    log = traded().as_log()
    first = log.commands[0].frame
    damaged = close_command_frame(first.origin, first.n, first.time_ns, [])
    (pair, *_) = await answered(log)
    odd = (CommandEntry(seq=1, frame=replace(damaged, body=b"\xc1")), pair[1])

    rows = command_table([odd]).to_pylist()

    assert [("frame", b"\xc1")] == [(row["type"], row["raw_body"]) for row in rows]


async def test_an_archive_is_continued(tmp_path: Path) -> None:
    """A writer that opens it goes on behind the last segment; what was interrupted is removed."""
    log = traded().as_log()
    await archived(tmp_path, log, 4)
    leftover = tmp_path / "events" / "000000000005-000000000009.parquet"
    leftover.write_bytes(b"half")

    writer = await archived(tmp_path, log, 100)

    assert not leftover.exists()
    assert 12 == writer.archived_seq
    assert log.events[4:] == await ArchivedLog(tmp_path).read_events(4, 100)


async def test_a_segment_that_lost_its_manifest_stays_until_its_entries_are_archived(tmp_path: Path) -> None:
    """It looks as an interrupted write does, and may be all that is left of entries that were trimmed."""
    log = traded().as_log()
    await archived(tmp_path, log, 4, 5)
    lost, *_ = sorted((tmp_path / "segments").iterdir())[1:]
    content = {file: file.read_bytes() for file in files_of(tmp_path) if file != lost}
    manifest = lost.read_bytes()
    lost.unlink()

    pairs = await answered(log)
    for length in (0, 4):  # entries 5 to 8: not all of those of the segment, which ends with 9
        writer = SegmentWriter(tmp_path)
        assert 4 == writer.archived_seq
        for command, verified in pairs[4:][:length]:
            writer.add(command, verified, LOG_ID)
        writer.flush()
        writer.close()
        assert content == {file: file.read_bytes() for file in content}

    (shorter,) = set(files_of(tmp_path / "segments")) - set(content)
    shorter.unlink()
    lost.write_bytes(manifest)
    assert log.events[4:9] == await ArchivedLog(tmp_path).read_events(4, 5)
    lost.unlink()
    await archived(tmp_path, log, 100)
    assert not any(file.name.endswith("-000000000009.parquet") for file in files_of(tmp_path))


async def test_what_is_left_of_the_very_segment_is_overwritten(tmp_path: Path) -> None:
    """Files and drafts under the names of the segment that is written next: it is whole, no draft is left."""
    log = traded().as_log()
    await archived(tmp_path, log, 4)
    for name in (
        "commands/000000000005-000000000012.parquet",
        "events/000000000005-000000000012.parquet.new",
    ):
        (tmp_path / name).write_bytes(b"half")

    await archived(tmp_path, log, 100)

    await read_all(tmp_path)
    assert 6 == len(list_files(tmp_path))


async def test_every_file_is_checked_and_the_damaged_one_is_named(tmp_path: Path) -> None:
    """A flipped bit in any file of any segment; progress is told by segment."""
    await archived(tmp_path, traded().as_log(), 3, 4, 100)
    told: list[tuple[int, int]] = []
    stored = ArchivedLog(tmp_path)
    stored.check_files(lambda *place: told.append(place))
    assert [(1, 3), (2, 3), (3, 3)] == told

    for segment in stored.segments:
        for name in (segment.commands_file, segment.events_file):
            content = bytearray((tmp_path / name).read_bytes())
            content[len(content) // 2] ^= 4
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CorruptLogError, match=f"the archive's file {name} does not match") as caught:
                stored.check_files()
            assert segment.first_seq <= caught.value.seq <= segment.last_seq
            content[len(content) // 2] ^= 4
            (tmp_path / name).write_bytes(content)


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A directory may have folders that are called as an archive's: nothing in them is removed."""
    others = [tmp_path / name for name in ("events/mine.py", "commands/1-2.parquet", "segments/notes.txt")]
    for path in others:
        path.parent.mkdir()
        path.write_text("mine")

    await archived(tmp_path, traded().as_log(), 100)

    assert 3 * ["mine"] == [path.read_text() for path in others]
    assert 12 == ArchivedLog(tmp_path).head.seq


async def test_a_log_that_does_not_continue_the_archive_is_refused(tmp_path: Path) -> None:
    """Another log, or the same one on another course, adds nothing."""
    log, other = traded().as_log(), traded().as_log()
    await archived(tmp_path, log, 4)
    writer = SegmentWriter(tmp_path)
    command, verified = (await answered(other))[4]

    with pytest.raises(ArchiveMismatchError, match="entry 5 does not continue"):
        writer.add(command, verified, LOG_ID)
    with pytest.raises(ArchiveMismatchError, match="the archive is of log 0000"):
        writer.add(command, verified, 32 * "1")

    assert writer.flush() is None
    writer.close()


def test_one_writer_has_an_archive(tmp_path: Path) -> None:
    """A second one is refused until the first gives it up."""
    first = SegmentWriter(tmp_path)
    with pytest.raises(ArchiveError, match="another process writes"):
        SegmentWriter(tmp_path)
    first.close()
    SegmentWriter(tmp_path).close()


async def test_a_changed_bit_is_found(tmp_path: Path) -> None:
    """300 random bits of the files of an archive, one at a time: each is found, none before its segment."""
    log = traded().as_log()
    await archived(tmp_path, log, 6, 6)
    files = files_of(tmp_path)
    rng = random.Random(1)
    assert 6 == len(files)

    for _ in range(300):
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        original = bytes(content)
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(CorruptLogError) as error:
            await read_all(tmp_path)
        assert int(path.name[:12]) <= error.value.seq <= int(path.name[13:25])
        path.write_bytes(original)
    await read_all(tmp_path)


def parquet_of_events(table: pa.Table) -> bytes:
    """Return a table of events as a file of an archive."""
    file = archive._ParquetFile(archive.EVENT_SCHEMA)
    file.add(table)
    return file.close()


async def test_damage_is_pinned_to_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry changed within a file that can be read is named, behind those that are still good."""
    log = traded().as_log()
    await archived(tmp_path, log, 12)
    (segment,) = ArchivedLog(tmp_path).segments
    changed = list(await answered(log))
    command, verified = changed[6]
    changed[6] = (command, replace(verified, entry=replace(verified.entry, chain_hash=b"\x01" * 32)))
    table = event_table(answer for _, answer in changed)
    content = parquet_of_events(table)
    (tmp_path / segment.events_file).write_bytes(content)

    with pytest.raises(CorruptLogError, match="not what was written") as error:
        await read_all(tmp_path)
    assert 7 == error.value.seq


async def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    """A manifest that was taken away leaves a gap, one at the start too; a file's loss is named."""
    log = traded().as_log()
    await archived(tmp_path, log, 4, 4, 4)
    manifests = sorted((tmp_path / "segments").iterdir())
    for missing, seq in ((manifests[1], 5), (manifests[0], 1)):
        content = missing.read_bytes()
        missing.unlink()
        with pytest.raises(CorruptLogError) as error:
            ArchivedLog(tmp_path)
        assert seq == error.value.seq
        missing.write_bytes(content)
    next((tmp_path / "events").glob("000000000005*")).unlink()
    with pytest.raises(CorruptLogError, match="is missing"):
        await read_all(tmp_path)


async def test_a_reader_behind_the_trimmed_part_reads_the_archive(tmp_path: Path) -> None:
    """Archive first, then the stream, with the chain verified across; alone the stream says what to do."""
    venue = traded()
    log = venue.as_log()
    await archived(tmp_path, log, 5, 3)
    await log.trim(Head(seq=7, chain_hash=log.events[6].chain_hash))

    with pytest.raises(TrimmedError, match="--archive"):
        await EventReader(log).read(10)
    both = ArchivedThenLive(tmp_path, log)
    replayed = await replay(both)

    assert venue.state.digest() == replayed.state.digest()
    reader = CommandReader(both)
    assert 12 == sum([len(await reader.read(4)) for _ in range(4)])


async def test_an_archive_too_short_for_the_trimmed_part_says_so(tmp_path: Path) -> None:
    """What neither has is reported as trimmed."""
    log = traded().as_log()
    await archived(tmp_path, log, 3)
    await log.trim(Head(seq=7, chain_hash=log.events[6].chain_hash))
    reader = EventReader(ArchivedThenLive(tmp_path, log))
    await reader.read(3)

    with pytest.raises(TrimmedError, match="entry 4 was trimmed"):
        await reader.read(3)


async def test_an_open_archive_finds_new_segments(tmp_path: Path) -> None:
    """Reading at its end looks for what came since."""
    log = traded().as_log()
    await archived(tmp_path, log, 5)
    stored = ArchivedLog(tmp_path)
    assert 5 == (await stored.event_head()).seq
    await archived(tmp_path, log, 5)

    assert [6] == [entry.seq for entry in await stored.read_events(5, 1)]


async def test_an_archive_can_be_on_any_file_system(tmp_path: Path) -> None:
    """A file system URL is written to and read as a path is."""
    url = f"file://{tmp_path}/there"
    log = traded().as_log()
    await archived(url, log, 5)  # type: ignore[arg-type]

    assert log.events[:5] == await ArchivedLog(url).read_events(0, 100)
    with pytest.raises(ArchiveError, match="not the address"):
        Directory("nowhere://x")


def lie_about_amounts(directory: Path, segment: Segment) -> None:
    """Change what queries read of a segment, and sign the file again."""
    table = ArchivedLog(directory).table(segment.events_file)
    amounts = [9 * 10**8 if kind == "deposited" else None for kind in table.column("type").to_pylist()]
    position = table.schema.get_field_index("amount")
    content = parquet_of_events(table.set_column(position, table.schema.field(position), [amounts]))
    (directory / segment.events_file).write_bytes(content)
    manifest = msgspec.json.encode(replace(segment, events_checksum=checksum_of(content)))
    name = manifest_name(segment.first_seq, segment.last_seq)
    (directory / name).write_bytes(manifest + b"\n" + checksum_of(manifest).encode())


async def test_a_column_that_lies_is_found(tmp_path: Path) -> None:
    """Who changes what queries read, and signs the file again, is found out by the entries themselves."""
    await archived(tmp_path, traded().as_log(), 6, 6)
    stored = ArchivedLog(tmp_path)
    assert 2 == await verify_columns(stored)
    lie_about_amounts(tmp_path, stored.segments[1])

    lying = ArchivedLog(tmp_path)
    await verify_archive(lying)
    with pytest.raises(CorruptLogError, match="column amount does not say what the entry says") as error:
        await verify_columns(lying)
    assert 7 == error.value.seq
    assert 1 == await verify_columns(lying, 1, 6)
