"""What is done with an archive as a whole: check it, compare it with the log, put a lost log back, move it.

An archive is *ahead* when the log ends before it: the log went backwards, since nothing is archived that was
not in the log. It *continues* the log when the log's last event entry is in it with the same hash. Then what
was lost is put back as it was, entry by entry; in every other case nothing is touched, and it is said why.

Commands that were appended since the loss and have no answer are no obstacle: nobody was told anything about
them. They are taken out and appended again behind what is put back, where each runs once as any frame does.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa

from events.archive import ArchivedLog, SegmentWriter
from events.columns import command_table, event_table
from events.frame import GENESIS_HASH, CommandFrame, EventEntry
from events.log import (
    CommandEntry,
    CommandReader,
    CorruptLogError,
    EventReader,
    FencedError,
    Head,
    Lease,
    Log,
    LogExistsError,
    LogMissingError,
    ReadableLog,
    TrimmedError,
    check_answer,
)
from events.segments import ArchiveError, ArchiveMismatchError, mismatch

ENTRIES_PER_READ = 256
BYTES_PER_STEP_AIM = 4 * 1024 * 1024
LEASE_MS = 30_000
TAR_SUFFIX = ".tar"

OnProgress = Callable[[int, int], None]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """How many entries were put back into each stream; the events end at `seq` now.

    `moved` are the command entries without an answer that follow now instead of standing in their place.
    """

    log_id: str
    seq: int
    commands: int
    events: int
    moved: int = 0


async def verify_archive(
    archive: ArchivedLog, after: Head | None = None, on_progress: OnProgress | None = None
) -> Head:
    """Check every entry of an archive behind `after`: checksums, the chain, and that answers match commands.

    `on_progress` is told the last entry checked and the one to reach.

    Raises:
        CorruptLogError: names the first entry that is not as it was written.
    """
    head = await archive.event_head()
    place = after or Head(seq=0, chain_hash=GENESIS_HASH)
    events = EventReader(archive, log_id=archive.log_id, after=place)
    commands = CommandReader(archive, after=place.seq)
    while events.seq < head.seq:
        answers = await events.read(ENTRIES_PER_READ)
        asked: list[CommandEntry] = []
        while len(asked) < len(answers):
            asked += await commands.read(len(answers) - len(asked))
        for command, answer in zip(asked, answers, strict=True):
            check_answer(command, answer)
        if on_progress is not None:
            on_progress(events.seq, head.seq)
    assert events.head == head, (events.head, head)
    return head


async def verify_columns(archive: ArchivedLog, first_seq: int = 1, last_seq: int | None = None) -> int:
    """Check that the columns people query say what the entries say, which the chain vouches for.

    Looks at the segments with entries from `first_seq` to `last_seq` (None: the last), and returns how many
    those are. A column that this build does not know is not looked at.

    Raises:
        CorruptLogError: names the first entry of which a column says something else.
    """
    place = Head(seq=0, chain_hash=GENESIS_HASH)
    count_segments = 0
    for segment in archive.segments:
        if segment.last_seq < first_seq or (last_seq is not None and segment.first_seq > last_seq):
            place = segment.head
            continue
        count_segments += 1
        events = EventReader(archive, log_id=archive.log_id, after=place)
        commands = CommandReader(archive, after=place.seq)
        count = segment.last_seq - place.seq
        answers, asked = await events.read(count), await commands.read(count)
        place = segment.head
        _compare_columns(event_table(answers), archive.table(segment.events_file))
        _compare_columns(
            command_table(zip(asked, answers, strict=True)), archive.table(segment.commands_file)
        )
    return count_segments


def _compare_columns(expected: pa.Table, stored: pa.Table) -> None:
    for field in expected.schema:
        if field.name not in stored.schema.names:
            continue  # a newer build's
        column = stored.column(field.name)
        if column.type == field.type and column.equals(expected.column(field.name)):
            continue
        pairs = zip(expected.column(field.name).to_pylist(), column.to_pylist(), strict=False)
        row = next((row for row, (right, found) in enumerate(pairs) if right != found), 0)
        seq = expected.column("seq")[row].as_py()
        raise CorruptLogError(seq, f"the archive's column {field.name} does not say what the entry says")


async def check_continues(log: Log, archive: ArchivedLog) -> Head:
    """Make sure that log and archive are the same log as far as both go; return the log's head.

    Raises:
        ArchiveMismatchError: they are not.
        CorruptLogError: the log's head is not its last entry.
    """
    head, archived = await log.event_head(), await archive.event_head()
    common_seq = min(head.seq, archived.seq)
    if head.seq and await _hash_at(log, head.seq) != head.chain_hash:
        raise CorruptLogError(head.seq, "the head key names another entry than the stream ends with")
    if common_seq:
        try:
            found = await _hash_at(log, common_seq)
        except TrimmedError:
            return head  # the archive had it when it was trimmed
        if found != await _hash_at(archive, common_seq):
            raise ArchiveMismatchError(mismatch(common_seq, archive.directory, archive.log_id or ""))
    return head


async def recover(log: Log, archive: ArchivedLog, on_progress: OnProgress | None = None) -> Restored:
    """Put back what a log lost and its archive has. Nobody else may append meanwhile; the lease is taken.

    `on_progress` is told the last entry and the one to reach: first as they are checked, then put back.

    Raises:
        ArchiveMismatchError: the archive does not continue the log, or something else was decided since.
        LogMissingError: the archive is empty.
        CorruptLogError: the archive is damaged; nothing was put back.
        FencedError: a writer holds the lease, or somebody appends.
    """
    if archive.head.seq == 0:
        raise LogMissingError(f"there is no archive in {archive.directory.url}")
    head = await check_continues(log, archive)
    if head.seq >= archive.head.seq:
        return Restored(log_id=archive.log_id or "", seq=head.seq, commands=0, events=0)
    await verify_archive(archive, head, on_progress)
    last_command_seq, strays = await _pending(log, archive, head)
    (last,) = await archive.read_events(archive.head.seq - 1, 1)
    lease = await log.acquire_lease("recover", LEASE_MS, above_term=_term_of(last))
    if lease is None:
        raise FencedError("a writer holds the lease: stop it, or wait until its lease has run out")
    try:
        if strays:
            await log.drop_unanswered(last_command_seq, lease)
        restored = await _restore(log, archive, head, last_command_seq, lease, on_progress)
        for frame in strays:
            await log.append_command(frame)
        return msgspec.structs.replace(restored, moved=len(strays))
    finally:
        await log.release_lease(lease)


async def import_log(log: Log, archive: ArchivedLog, on_progress: OnProgress | None = None) -> Restored:
    """Put an archive's log into a server that has none, so that it can go on there; as `recover` does.

    Raises:
        LogExistsError: the server has a log.
        LogMissingError, CorruptLogError, FencedError: as for `recover`.
    """
    if await log.last_command_seq() or (await log.event_head()).seq:
        raise LogExistsError("the server has a log; an archive is imported into one that has none")
    return await recover(log, archive, on_progress)


async def export_log(log: ReadableLog, target: str, on_progress: OnProgress | None = None) -> Head:
    """Write all answered entries of a log as an archive to a directory, a .tar file or a file system URL.

    A directory that holds an archive of the log is continued. `on_progress` is told the last entry read and
    the one to reach; for a .tar file then how many files are in it, and how many will be.

    Raises:
        ArchiveError, ArchiveMismatchError: the target cannot be used, or holds the archive of another log.
        CorruptLogError, TrimmedError: the log cannot be read from where the target ends.
    """
    if target.endswith(TAR_SUFFIX):
        with _packed(Path(target), on_progress) as folder:
            return await _export(log, folder, on_progress)
    return await _export(log, target, on_progress)


@contextmanager
def _packed(path: Path, on_progress: OnProgress | None) -> Iterator[str]:
    """Lend a directory, which becomes the tar file `path` when it was filled without an error."""
    if path.exists():
        raise ArchiveError(f"{path} exists")
    with tempfile.TemporaryDirectory(dir=path.resolve().parent) as folder:
        yield folder
        draft = Path(folder) / path.name
        names = [name for kind in ("commands", "events", "segments") for name in _below(Path(folder), kind)]
        with tarfile.open(draft, "w") as tar:
            for count, name in enumerate(names, 1):
                tar.add(Path(folder) / name, name, recursive=False)
                if on_progress is not None:
                    on_progress(count, len(names))
        draft.replace(path)


def _below(folder: Path, kind: str) -> list[str]:
    """Return a folder's name and those of its files, as a tar file has them."""
    return [kind, *sorted(f"{kind}/{path.name}" for path in (folder / kind).iterdir())]


@contextmanager
def opened(source: str, on_progress: OnProgress | None = None) -> Iterator[ArchivedLog]:
    """Lend an archive: that of a directory or a URL, or of a .tar file, which is unpacked for the duration.

    `on_progress` is told how many of its members are unpacked, and how many there are.

    Raises:
        ArchiveError: the file is none.
        CorruptLogError: a manifest is damaged, or a segment is missing.
    """
    if not source.endswith(TAR_SUFFIX):
        yield ArchivedLog(source)
        return
    with tempfile.TemporaryDirectory(prefix="foldex-archive-") as folder:
        try:
            with tarfile.open(source) as tar:
                members = tar.getmembers()
                for count, member in enumerate(members, 1):
                    tar.extract(member, folder, filter="data")
                    if on_progress is not None:
                        on_progress(count, len(members))
        except tarfile.TarError as error:
            raise ArchiveError(f"{source}: {error}") from error
        yield ArchivedLog(folder)


async def _export(log: ReadableLog, url: str, on_progress: OnProgress | None) -> Head:
    writer = SegmentWriter(url)
    try:
        target = await log.event_head()
        log_id = await _name_of(log)
        events = EventReader(log, log_id=log_id, after=writer.head if writer.head.seq else None)
        commands = CommandReader(log, after=writer.head.seq)
        while events.seq < target.seq:
            asked: list[CommandEntry] = []
            answers = await events.read(min(ENTRIES_PER_READ, target.seq - events.seq))
            while len(asked) < len(answers):
                asked += await commands.read(len(answers) - len(asked))
            for command, answer in zip(asked, answers, strict=True):
                writer.add(command, answer, log_id)
            if writer.is_full:
                writer.flush()
            elif writer.can_pack:
                writer.pack()
            if on_progress is not None:
                on_progress(events.seq, target.seq)
        writer.flush()
        return writer.head
    finally:
        writer.close()


async def _name_of(log: ReadableLog) -> str:
    reader = EventReader(log)
    await reader.read(1)
    if reader.log_id is None:
        raise LogMissingError("there is no log to export")
    return reader.log_id


async def _hash_at(log: ReadableLog, seq: int) -> bytes | None:
    found = await log.read_events(seq - 1, 1)
    return found[0].chain_hash if found and found[0].seq == seq else None


def _term_of(entry: EventEntry) -> int:
    """Return the term in which an entry was written, 0 if its mark, outside the chain, does not say."""
    term = entry.writer.rpartition(":")[2]
    return int(term) if term.isdecimal() and len(term) < 15 else 0


async def _pending(log: Log, archive: ArchivedLog, head: Head) -> tuple[int, list[CommandFrame]]:
    """Look at the commands behind the log's last events.

    Return the last one that is the archive's, too, or is behind its end; and the frames that were appended
    since the log was lost, from the first one that stands in the place of another.
    """
    last_seq = await log.last_command_seq()
    if last_seq < head.seq:
        raise CorruptLogError(last_seq + 1, "command entry is missing; its events are there")
    reader = CommandReader(log, after=head.seq)
    strays: list[CommandFrame] = []
    while reader.seq < last_seq:
        for entry in await reader.read(ENTRIES_PER_READ):
            archived = [] if strays else await archive.read_commands(entry.seq - 1, 1)
            if strays or (archived and archived[0].frame != entry.frame):
                strays.append(entry.frame)
    return last_seq - len(strays), strays


async def _restore(
    log: Log,
    archive: ArchivedLog,
    head: Head,
    last_command_seq: int,
    lease: Lease,
    on_progress: OnProgress | None,
) -> Restored:
    commands = events = 0
    while head.seq < archive.head.seq:
        answers = await archive.read_events(head.seq, ENTRIES_PER_READ)
        asked = await archive.read_commands(head.seq, ENTRIES_PER_READ)
        pairs: list[tuple[CommandEntry, EventEntry]] = []
        size = 0
        for pair in zip(asked, answers, strict=True):
            if pairs and size > BYTES_PER_STEP_AIM:
                break
            pairs.append(pair)
            size += len(pair[0].frame.body) + len(pair[1].body)
        missing = [command for command, _ in pairs if command.seq > last_command_seq]
        await log.restore(missing, [answer for _, answer in pairs], head, lease)
        await log.renew_lease(lease, LEASE_MS)
        last = pairs[-1][1]
        head = Head(seq=last.seq, chain_hash=last.chain_hash)
        last_command_seq = max(last_command_seq, last.seq)
        commands += len(missing)
        events += len(pairs)
        if on_progress is not None:
            on_progress(head.seq, archive.head.seq)
    return Restored(log_id=archive.log_id or "", seq=head.seq, commands=commands, events=events)
