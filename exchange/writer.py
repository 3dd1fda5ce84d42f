"""The writer: reads command frames, decides them, appends their events. One is active, any may stand by.

Who stands by folds the event stream, so that its state is current when the lease comes free; what is left to
do then is to read what the last writer appended in its last moment.

Three things overlap, and one task steers them: the next read is on its way while a slice of frames is
decided, and the append of what was decided before is in flight. There is never more than one append in
flight; what is decided meanwhile is the next one. So an idle writer appends each frame at once, and a busy
one, or one on a slow disk, appends large batches, without a timer.

The state runs ahead of the log by what is not appended yet. That is safe: nobody sees it, and a writer whose
append is refused stops and drops its state. The commands are in the log, and the next writer decides them.

The lease only says who should write. That nobody else can is the append's doing, which names its term.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from events.commands import CreateLog
from events.frame import SCHEMA_VERSION, EventEntry, chain_hash, close_command_frame, new_origin
from events.log import (
    CommandEntry,
    CommandReader,
    FencedError,
    Head,
    Lease,
    Log,
    LogExistsError,
    LogFullError,
    LogRewoundError,
    LogUnavailableError,
    VerifiedEvents,
)
from events.machine import MACHINE, Machine
from events.segments import check_not_behind
from events.snapshot import find
from exchange import config
from exchange.aggregate.decide import propose_now
from exchange.aggregate.image import take_image
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.deciding import Base, Decider, StateLostError
from exchange.fold import NO_SNAPSHOTS, Fold, Snapshots
from exchange.rules import check_rules, waits_for_upgrade
from exchange.runtime import Host, until_available, wait_set

logger = structlog.get_logger(__name__)

ENTRIES_PER_READ_MAX = 256
READ_BYTES_AIM = 4 * 1024 * 1024
READ_WAIT_MS = 500
# Long enough that switching between tasks costs nothing, short enough that appends keep flowing.
SLICE_NS = 2_000_000
UNAPPENDED_ENTRIES_MAX = 1_024
UNAPPENDED_BYTES_MAX = 32 * 1024 * 1024
FULL_RETRY_FIRST_S = 0.1
FULL_RETRY_MAX_S = 5.0
STOP_DEADLINE_S = 5.0
# Under this name the heartbeat of a writer that stands by is found.
STANDBY = "standby"
# Marks for latency tracing, ns since 1970: when the frame had been read, when it was decided.
TIMING_MARKS = struct.Struct(">QQ")


async def run_writer(
    runtime: Host,
    *,
    standby: bool = False,
    lease_ms: int = config.LEASE_TTL_MS_DEFAULT,
    upgrade: bool = False,
) -> None:
    """Live as the writer: stand by, rebuild, decide until stopped.

    With `standby` it begins by standing by: it waits for a log instead of creating one, and asks for the
    lease when it has caught up. A lease not renewed for `lease_ms` passes to another writer. With `upgrade`
    it may decide for a log that is under older rules than its own; without, one that stands by waits.

    Raises:
        FencedError: another writer has taken over.
        OtherRulesError: the log is under newer rules, or under older ones and `upgrade` is not set.
        CorruptLogError, LogRewoundError: the log is not what it was.
    """
    log = runtime.log
    leases = Leases(log, lease_ms, runtime.machine)
    fold = Fold(log, _ignore, runtime.snapshots)
    lease = None if standby else await leases.ask()
    took_over = lease is None
    if lease is None:
        lease = await stand_by(runtime, fold, leases, must_exist=standby, upgrade=upgrade)
    if lease is None:
        return
    taken_s = asyncio.get_running_loop().time()
    try:
        deciding = _write(runtime, lease, fold, taken_s if took_over else None, upgrade=upgrade)
        await _run_while(leases.keep(lease), deciding)
    finally:
        try:
            await log.release_lease(lease)
        except (LogUnavailableError, LogFullError):
            pass  # it expires


async def stand_by(
    runtime: Host, fold: Fold, leases: "Leases", *, must_exist: bool, upgrade: bool
) -> Lease | None:
    """Fold the event stream until the lease is to be had; None when stopped before.

    `must_exist` waits for a log to be created by another. Without `upgrade` it does not ask for the lease
    while the log is under older rules.

    Raises:
        OtherRulesError: the log is under newer rules.
        CorruptLogError, LogRewoundError: the log is not what it was.
    """
    stop = runtime.stop
    logger.info("standing_by")
    if must_exist and not await runtime.wait_for_log():
        return None
    if not await until_available(fold.catch_up, stop):
        return None
    runtime.ready(lambda: fold.head.seq, role=STANDBY)
    folding = asyncio.create_task(fold.run(stop), name="fold")
    must_wait = partial(_must_wait, fold.state, upgrade=upgrade)
    waiting = asyncio.create_task(leases.wait(stop, must_wait), name="wait for the lease")
    try:
        await asyncio.wait({folding, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if folding.done():
            folding.result()
        return await waiting
    finally:
        waiting.cancel()
        # What is cut off is a read that waits for what comes next; entries are applied whole.
        folding.cancel()
        await asyncio.wait({folding, waiting})


def _must_wait(state: Exchange, *, upgrade: bool) -> bool:
    return waits_for_upgrade(state.rules_version, upgrade=upgrade)


class Leases:
    """Asks for the writer's lease, for `lease_ms` each time, in the name of this process, and keeps it."""

    def __init__(self, log: Log, lease_ms: int, machine: Machine = MACHINE) -> None:
        self._log = log
        self._lease_ms = lease_ms
        self._writer_id = f"{machine.name}-{machine.token_hex(4)}"
        self._is_told = False

    async def ask(self) -> Lease | None:
        """Take the lease; None when another holds it, or nobody can be asked."""
        try:
            lease = await self._log.acquire_lease(self._writer_id, self._lease_ms)
        except (LogUnavailableError, LogFullError) as error:
            if not self._is_told:
                logger.warning("lease_not_acquired", error=str(error))
            self._is_told = True
            return None
        self._is_told = False
        if lease is not None:
            logger.info("lease_acquired", writer=lease.mark)
        return lease

    async def wait(self, stop: asyncio.Event, must_wait: Callable[[], bool]) -> Lease | None:
        """Ask until it is to be had, not while `must_wait`; None when `stop` was set before."""
        is_told = False
        while not stop.is_set():
            if must_wait():
                if not is_told:
                    logger.warning("waiting_for_upgrade", rules_version=RULES_VERSION)
                is_told = True
            elif (lease := await self.ask()) is not None:
                return lease
            await wait_set(stop, config.SERVER_RETRY_S)
        return None

    async def keep(self, lease: Lease) -> None:
        """Renew the lease until cancelled.

        Raises:
            FencedError: another writer has a later term.
        """
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            try:
                await self._log.renew_lease(lease, self._lease_ms)
            except (LogUnavailableError, LogFullError) as error:
                # Nobody else can take it either; and if somebody has, the next append says so.
                logger.warning("lease_not_renewed", error=str(error))


async def create_if_empty(log: Log, machine: Machine = MACHINE, snapshots: Snapshots = NO_SNAPSHOTS) -> None:
    """Append the entry that names the log, unless there is a log.

    Raises:
        LogRewoundError: there is none, but snapshots or an archive of one: it was lost, and a new one would
            cover that up.
    """
    # Event entries without commands are no empty log but a damaged one; the first read will say so.
    if await log.last_command_seq() or (await log.event_head()).seq:
        return
    if snapshots.archive is not None:
        # Again, though every process looks when it starts: what was lost since must not be covered up either.
        await check_not_behind(log, snapshots.archive)
    if snapshots.directory is not None and (files := find(snapshots.directory)):
        raise LogRewoundError(
            f"there is no log on the server, but a snapshot of one that was lost or is elsewhere: {files[0]}"
        )
    command = CreateLog(log_id=machine.token_hex(16), rules_version=RULES_VERSION)
    frame = close_command_frame(new_origin("genesis", machine.token_hex), 1, machine.clock_ns(), [command])
    try:
        await log.create(frame)
    except LogExistsError:
        return
    logger.info("log_created", log_id=command.log_id)


async def rebuild(
    log: Log, stop: asyncio.Event, snapshots: Snapshots = NO_SNAPSHOTS, *, fold: Fold | None = None
) -> tuple[Exchange, CommandReader, Head] | None:
    """Fold the event stream; return the state, the reader of what is still to decide, and the head.

    `fold` has come some way already. None when `stop` was set before.

    Raises:
        CorruptLogError, LogRewoundError: the log is not what it was.
    """
    fold = fold or Fold(log, _ignore, snapshots)
    if not await until_available(fold.catch_up, stop):
        return None
    reader = CommandReader(log, after=fold.head.seq, checksum=fold.command_checksum)
    return fold.state, reader, fold.head


def _ignore(verified: VerifiedEvents) -> None:
    """Do nothing about an entry: the state is all that is wanted."""


class Writer:
    """Decides what its reader gives, from a rebuilt state, and appends it behind `head`.

    `head` is the last entry appended; `state` may be ahead of it. When a command fails, the state is restored
    from `base`, and without one rebuilt from `snapshots` and the log.
    """

    def __init__(
        self,
        log: Log,
        lease: Lease,
        state: Exchange,
        reader: CommandReader,
        head: Head,
        *,
        machine: Machine = MACHINE,
        base: Base | None = None,
        snapshots: Snapshots = NO_SNAPSHOTS,
    ) -> None:
        self.head = head
        self._decider = Decider(state, base)
        self._is_lost = False
        self._snapshots = snapshots
        self._log = log
        self._lease = lease
        self._mark = lease.mark
        self._reader = reader
        self._clock_ns = machine.clock_ns
        self._stopwatch_ns = machine.stopwatch_ns
        self._decided = head
        self._read_limit = ENTRIES_PER_READ_MAX
        self._read_ns = 0
        self._backlog: deque[CommandEntry] = deque()
        self._unappended: list[EventEntry] = []
        self._unappended_bytes = 0
        self._reading: asyncio.Task[list[CommandEntry]] | None = None
        self._appending: asyncio.Task[None] | None = None

    @property
    def state(self) -> Exchange:
        """The state behind the last entry decided; another object after a failure."""
        return self._decider.state

    async def run(self, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Decide and append until `stop` is set, then finish the append in flight.

        `on_ready` is called once, when the log has its first event entry: from then on it can be followed.

        Raises:
            FencedError: the log refused an append; another writer has taken over.
            CorruptLogError, LogRewoundError: the command stream is not what it was.
        """
        stopped = asyncio.create_task(stop.wait())
        is_ready = False
        try:
            while not stop.is_set():
                self._take_read()
                self._take_append()
                if not is_ready and self.head.seq > 0:
                    is_ready = True
                    on_ready()
                self._start_read()
                self._decide_slice()
                self._start_append()
                if self._is_lost and self._appending is None:
                    await self._rebuild_state(stop)
                elif self._can_decide():
                    await asyncio.sleep(0)  # requests leave and replies arrive between slices
                else:
                    pending = {task for task in (stopped, self._reading, self._appending) if task is not None}
                    await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            await self._finish()
        finally:
            for task in (stopped, self._reading, self._appending):
                if task is not None:
                    task.cancel()

    def _start_read(self) -> None:
        if self._reading is None and len(self._backlog) < self._read_limit:
            self._reading = asyncio.create_task(self._read(), name="read commands")

    def _take_read(self) -> None:
        if self._reading is None or not self._reading.done():
            return
        entries = self._reading.result()
        self._reading = None
        if entries:
            self._read_ns = self._clock_ns()
            self._backlog.extend(entries)
            largest = max(len(entry.frame.body) for entry in entries)
            self._read_limit = max(1, min(ENTRIES_PER_READ_MAX, READ_BYTES_AIM // max(1, largest)))

    async def _read(self) -> list[CommandEntry]:
        was_away = False
        while True:
            try:
                entries = await self._reader.read(self._read_limit, READ_WAIT_MS)
                if not entries and self._reader.seq == 0:
                    # A writer starts on a log that has its first entry, so there is nothing to wait for.
                    raise LogRewoundError("command entry 1 was in the log and is no longer")
                return entries
            except LogUnavailableError as error:
                if not was_away:
                    logger.warning("log_unavailable", error=str(error), seq=self._reader.seq)
                was_away = True
                await asyncio.sleep(config.SERVER_RETRY_S)

    def _can_decide(self) -> bool:
        has_room = (
            len(self._unappended) < UNAPPENDED_ENTRIES_MAX and self._unappended_bytes < UNAPPENDED_BYTES_MAX
        )
        return bool(self._backlog) and has_room and not self._is_lost

    def _decide_slice(self) -> None:
        """Decide frames for about `SLICE_NS`, at least one when there is one and room for its events."""
        end_ns = self._stopwatch_ns() + SLICE_NS
        while self._can_decide():
            self._decide(self._backlog[0])
            if self._is_lost:
                break
            self._backlog.popleft()
            if self._stopwatch_ns() > end_ns:
                break

    def _decide(self, command: CommandEntry) -> None:
        frame, seq = command.frame, command.seq
        assert seq == self._decided.seq + 1, (seq, self._decided.seq)
        now_ns = propose_now(self.state.now_ns, frame.time_ns, self._clock_ns())
        try:
            body = self._decider.decide(seq, frame, now_ns)
        except StateLostError as error:
            logger.warning("state_lost", seq=seq, error=str(error))
            self._is_lost = True
            return
        # Deciding entry 1 gives the state the log's name, before the first hash needs it.
        log_id, before = self.state.log_id, self._decided.chain_hash
        hashed = chain_hash(log_id, before, seq, SCHEMA_VERSION, frame.checksum, body)
        self._decided = Head(seq=seq, chain_hash=hashed)
        self._unappended.append(
            EventEntry(
                seq=seq,
                schema=SCHEMA_VERSION,
                body=body,
                chain_hash=hashed,
                writer=self._mark,
                timing=TIMING_MARKS.pack(self._read_ns, self._clock_ns()),
            )
        )
        self._unappended_bytes += len(body)

    async def _rebuild_state(self, stop: asyncio.Event) -> None:
        """Rebuild the state behind the last entry, which is appended, to decide the next one again.

        Raises:
            FencedError: the log ends elsewhere.
        """
        fold = Fold(self._log, _ignore, self._snapshots)
        if not await until_available(fold.catch_up, stop):
            return
        if fold.head != self._decided:
            raise FencedError(f"the log ends at entry {fold.head.seq}, not as left at {self._decided.seq}")
        self._decider.go_on(fold.state)
        self._is_lost = False

    def _start_append(self) -> None:
        if self._appending is None and self._unappended:
            self._appending = asyncio.create_task(
                self._append(self._unappended, self.head), name="append events"
            )
            self._unappended = []
            self._unappended_bytes = 0

    def _take_append(self) -> None:
        if self._appending is not None and self._appending.done():
            self._appending.result()
            self._appending = None

    async def _append(self, entries: list[EventEntry], previous: Head) -> None:
        """Append entries; send the same again for as long as it is unknown whether they arrived."""
        full_retry_s = FULL_RETRY_FIRST_S
        was_away = False
        while True:
            try:
                await self._log.append_events(entries, previous, self._lease)
                break
            except LogUnavailableError as error:
                if not was_away:
                    logger.warning("append_unconfirmed", error=str(error), seq=entries[0].seq)
                was_away = True
                await asyncio.sleep(config.SERVER_RETRY_S)
            except LogFullError as error:
                logger.error("log_full", error=str(error), seq=entries[0].seq, retry_s=full_retry_s)
                await asyncio.sleep(full_retry_s)
                full_retry_s = min(full_retry_s * 2, FULL_RETRY_MAX_S)
        self.head = Head(seq=entries[-1].seq, chain_hash=entries[-1].chain_hash)

    async def _finish(self) -> None:
        """Append what was decided, unless the server takes too long: the next writer decides it again."""
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                while self._appending is not None or self._unappended:
                    self._start_append()
                    assert self._appending is not None
                    await asyncio.wait([self._appending])
                    self._take_append()
        except TimeoutError:
            logger.warning("stopped_with_unconfirmed_append", seq=self.head.seq)


async def _write(runtime: Host, lease: Lease, fold: Fold, taken_s: float | None, *, upgrade: bool) -> None:
    """Rebuild and decide. `taken_s` is when the lease was taken over, None without an earlier writer."""
    log, stop, snapshots = runtime.log, runtime.stop, runtime.snapshots
    if fold.head.seq == 0:
        await until_available(lambda: create_if_empty(log, runtime.machine, snapshots), stop)
    folded_seq = fold.head.seq
    rebuilt = await rebuild(log, stop, fold=fold)
    if rebuilt is None:
        return
    state, reader, head = rebuilt
    image = take_image(state)
    logger.info("rebuilt", seq=head.seq, digest=image.digest.hex())
    if check_rules(state.rules_version, upgrade=upgrade):
        logger.warning("upgrading_rules", rules_version=RULES_VERSION, replaced=state.rules_version)
    base = Base(image, head.seq)
    writer = Writer(log, lease, state, reader, head, machine=runtime.machine, base=base, snapshots=snapshots)

    def on_ready() -> None:
        seconds = None if taken_s is None else round(asyncio.get_running_loop().time() - taken_s, 3)
        runtime.ready(lambda: writer.head.seq, took_over_s=seconds)
        if seconds is not None:
            logger.info("took_over", seq=head.seq, seconds=seconds, entries_left=head.seq - folded_seq)

    await writer.run(stop, on_ready)
    if writer.head.seq == writer.state.seq:
        logger.info("written", seq=writer.head.seq, digest=writer.state.digest().hex())


async def _run_while(keeper: Awaitable[None], work: Awaitable[None]) -> None:
    """Run both until the work ends or either fails, and raise what failed."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(keeper)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
