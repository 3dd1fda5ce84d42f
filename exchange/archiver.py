"""The archiver: folds the log beside the writer and keeps what a restart needs, so that the writer never
stalls for it.

At every milestone (see `fold`) it takes the image of its state, which holds up this process alone; writing
it to disk runs beside the fold. When the file has its name, the digest goes into the log as a checkpoint, and
everybody who passes that compares. Of milestones that come while a snapshot is being written only the newest
counts: a snapshot is as good as it is recent.

Without room on the disk or in the server a snapshot or its checkpoint is left out, said, and the next
milestone tries again; the exchange goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from events import snapshot as files
from events.appender import AnswerLostError, Appender, AppenderClosedError
from events.commands import Checkpoint
from events.events import CheckpointPassed, Rejected
from events.log import LogFullError, LogRewoundError, VerifiedEvents
from events.snapshot import Snapshot
from exchange import config
from exchange.fold import Fold
from exchange.runtime import Host
from exchange.segmenter import Segmenter

logger = structlog.get_logger(__name__)

Save = Callable[[Snapshot], Awaitable[None]]


class Archiver:
    """Keeps a snapshot of the newest milestone, and puts its digest into the log.

    `on_milestone` and `on_entry` are given to the fold; `keep` runs beside it. `save` puts a snapshot where a
    restart finds it.
    """

    def __init__(self, appender: Appender, save: Save) -> None:
        self._appender = appender
        self._save = save
        self._wanted: Snapshot | None = None
        self._arrived = asyncio.Event()
        self._passed_seq = 0

    def on_milestone(self, snapshot: Snapshot) -> None:
        """Want this snapshot kept, instead of one that still waits."""
        self._wanted = snapshot
        self._arrived.set()

    def on_entry(self, verified: VerifiedEvents) -> None:
        """Note answers, and checkpoints that are in the log."""
        self._appender.resolve(verified.groups)
        for group in verified.groups:
            for event in group:
                if type(event) is CheckpointPassed:
                    self._passed_seq = max(self._passed_seq, event.seq)

    async def keep(self, started_from: Snapshot | None) -> None:
        """Save what is wanted and check-point it, until cancelled.

        The snapshot that the fold started from may have been saved by a process that ended before it could
        append the checkpoint: that is made up for first.

        Raises:
            LogError, FrameRefusedError: checkpoints can no longer be sent.
        """
        if started_from is not None and started_from.seq > self._passed_seq:
            await self._checkpoint(started_from)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            snapshot = self._wanted
            assert snapshot is not None
            try:
                await self._save(snapshot)
            except OSError as error:
                logger.error("snapshot_not_saved", seq=snapshot.seq, error=str(error))
                continue
            logger.info("snapshot_saved", seq=snapshot.seq, bytes=len(snapshot.body))
            await self._checkpoint(snapshot)

    async def _checkpoint(self, snapshot: Snapshot) -> None:
        command = Checkpoint(seq=snapshot.seq, digest=snapshot.digest, rules_version=snapshot.rules_version)
        try:
            events = await self._appender.submit(command)
        except LogFullError as error:
            logger.error("checkpoint_not_appended", seq=snapshot.seq, error=str(error))
            return
        except (AppenderClosedError, AnswerLostError):
            return  # stopping; the next start makes up for it
        # Conditional orders that were due may have been placed behind it.
        if isinstance(events[0], Rejected):
            logger.error("checkpoint_rejected", seq=snapshot.seq, reason=events[0].reason)


@contextmanager
def _segmenter(runtime: Host, snapshots: Path, segment_s: float) -> Iterator[Segmenter | None]:
    """Lend what archives; None without an archive."""
    if runtime.archive is None:
        logger.warning("no_archive", reason="none was named, so nothing is archived, nor trimmed")
        yield None
        return
    segmenter = Segmenter(
        runtime.log,
        runtime.archive,
        snapshots=snapshots,
        read_consumers=runtime.read_consumers,
        flush_s=segment_s,
    )
    try:
        yield segmenter
    finally:
        segmenter.close()


async def _archive(segmenter: Segmenter | None, stop: asyncio.Event) -> None:
    if segmenter is None:
        await stop.wait()
    else:
        await segmenter.run(stop)


async def run_archiver(runtime: Host, *, segment_s: float = config.SEGMENT_S) -> None:
    """Live as the archiver: catch up, then follow the log and keep snapshots until stopped.

    An entry waits at most about `segment_s` to be archived.

    Raises:
        CorruptLogError, LogRewoundError: the log is not what it was.
        FrameRefusedError: another archiver has taken the name.
        LogError: checkpoints can no longer be sent.
    """
    directory = runtime.snapshots.directory
    assert directory is not None
    if not await runtime.wait_for_log():
        return

    async def save(snapshot: Snapshot) -> None:
        await asyncio.to_thread(files.save, directory, snapshot)

    appender = Appender(runtime.log, "archiver", machine=runtime.machine)
    archiver = Archiver(appender, save)
    with _segmenter(runtime, directory, segment_s) as segmenter:

        def on_entry(verified: VerifiedEvents) -> None:
            archiver.on_entry(verified)
            if segmenter is not None:
                segmenter.offer(verified)

        fold = Fold(runtime.log, on_entry, runtime.snapshots, on_milestone=archiver.on_milestone)
        if not await runtime.until_available(fold.catch_up):
            return
        await appender.open()
        try:
            await _follow(runtime, fold, archiver, segmenter)
        finally:
            await appender.close()


async def _follow(runtime: Host, fold: Fold, archiver: Archiver, segmenter: Segmenter | None) -> None:
    following = asyncio.create_task(fold.run(runtime.stop), name="fold")
    archiving = asyncio.create_task(_archive(segmenter, runtime.stop), name="archive")
    keeping = asyncio.create_task(archiver.keep(fold.started_from), name="keep snapshots")
    runtime.ready(lambda: fold.head.seq)
    try:
        done, _ = await asyncio.wait({following, keeping, archiving}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        await archiving  # what was read is in a segment then
    except LogRewoundError:
        # What the segmenter has read is no longer in the log, and nowhere else: it is archived at once.
        runtime.stop.set()
        await asyncio.wait({archiving})
        raise
    finally:
        for task in (keeping, following, archiving):
            task.cancel()
        await asyncio.wait({following, keeping, archiving})
