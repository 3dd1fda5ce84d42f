"""Verify: whether a log is what was written, and whether the rules make of its commands what it says.

Entry by entry, in order, and the first that fails ends it and is named:

- The chain: the event entry is the next one and its hash continues the hash before it.
- The command: the entry of that number is as its checksum says, and is the one that the events answer.
- The state: every event fits the state that it meets, and where a checkpoint or a snapshot says which digest
  the state has, it has that digest.
- The decision, if asked for: the command frame, decided again at the time that the header gives, makes the
  same bytes. Failures that the log records are taken as given, and listed. Entries that were decided under
  another version of the rules are applied and not decided; the report says which version they need.

The chain alone cannot show that entries were cut off its end, or that all of it was written anew by somebody
who could compute it. A head that was kept elsewhere can: it is in the log, or it is not.
The writer's mark and the timing of an entry are no part of the chain, and nothing here depends on them.
"""

import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from events.events import CheckpointPassed, CommandFailed, LogCreated, RulesChanged, WorkFailed
from events.frame import (
    SCHEMA_VERSION,
    EventEntry,
    Groups,
    UndecodableBodyError,
    decode_groups,
    encode_groups,
    header_of,
)
from events.log import (
    CommandEntry,
    CommandReader,
    CorruptLogError,
    EventReader,
    Head,
    LogRewoundError,
    ReadableLog,
    TrimmedError,
    VerifiedEvents,
    check_answer,
)
from events.segments import check_not_behind
from events.snapshot import SnapshotError, find, load, seq_of
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.failing import CommandError, Failures, WorkError, failures_of
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.audit.printer import Message, one_line, readable, type_of
from exchange.audit.replay import apply_entry
from exchange.fold import restore_snapshot

ENTRIES_PER_READ = 256
_TOKEN = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})(?::([0-9a-f]{32}))?")
# Looking for these in the bytes costs next to nothing; what only looks like one is decoded for nothing.
_CHECKPOINT_TAG = type_of(CheckpointPassed).encode()
_FAILURE_TAGS = tuple(type_of(kind).encode() for kind in (CommandFailed, WorkFailed))

logger = structlog.get_logger(__name__)

E = TypeVar("E", CommandEntry, EventEntry)
OnProgress = Callable[[int, int], None]
CheckColumns = Callable[[int, int], Awaitable[int]]


class BadTokenError(ValueError):
    """A text is not what `foldex head` prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHead:
    """The end that a log had once, kept where nobody who can change the log can change it.

    As a token it is "seq:hash:log id"; the name of the log, which the hash covers too, may be left out.
    """

    seq: int
    chain_hash: bytes
    log_id: str = ""

    @classmethod
    def parse(cls, token: str) -> "KeptHead":
        """Read a token.

        Raises:
            BadTokenError: it is none.
        """
        match = _TOKEN.fullmatch(token.strip())
        if match is None:
            raise BadTokenError(f"must be SEQ:HASH or SEQ:HASH:LOG_ID, as foldex head prints it: {token!r}")
        return cls(seq=int(match[1]), chain_hash=bytes.fromhex(match[2]), log_id=match[3] or "")

    @property
    def token(self) -> str:
        """The text that `parse` reads."""
        return f"{self.seq}:{self.chain_hash.hex()}:{self.log_id}".removesuffix(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What to verify.

    Entries up to `last_seq` (None: all, and the commands not answered yet), beginning behind the newest
    usable snapshot before `first_seq`, or with entry 1. `decide` decides again. `kept_head` must be in the
    log. Of the snapshots in `directory` those of this log are verified too. The log must not end before
    `archive`, which is its own, and must be the same there.
    """

    first_seq: int = 1
    last_seq: int | None = None
    decide: bool = False
    kept_head: KeptHead | None = None
    directory: Path | None = None
    archive: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The first entry that is not as it should be, and what is wrong with it."""

    seq: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure that the log records: something that could not be decided, by a fault of the exchange."""

    seq: int
    what: str


@dataclass(slots=True, kw_only=True)
class Span:
    """Consecutive entries that were decided under one version of the rules."""

    first_seq: int
    last_seq: int
    rules_version: int
    is_decided: bool = False


@dataclass(slots=True, kw_only=True)
class Report:
    """What was verified: entries from `first_seq` to `head`, whose state has `digest`; and what was found.

    `commands` counts those that ran, `waiting` the command entries that are not answered yet. `checkpoints`,
    `snapshots` and, of an archive, `segments` are those that were compared.
    """

    first_seq: int
    head: KeptHead
    digest: bytes = b""
    entries: int = 0
    commands: int = 0
    events: int = 0
    waiting: int = 0
    checkpoints: int = 0
    snapshots: int = 0
    segments: int = 0
    spans: list[Span] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    finding: Finding | None = None


async def verify(
    log: ReadableLog,
    extent: Extent,
    on_progress: OnProgress | None = None,
    *,
    check_columns: CheckColumns | None = None,
) -> Report:
    """Verify a log. What is wrong with it is in the report.

    `on_progress` is told the last entry verified and the entry to reach. `check_columns`, for an archive,
    checks the columns of the segments of a range of entries and returns how many those are.

    Raises:
        TrimmedError: the log no longer holds the entries; the archive has them.
        LogUnavailableError: the log went away on the way.
    """
    verifier = Verifier(log, extent)
    try:
        await verifier.run(on_progress)
        if extent.archive is not None:
            await _check_archived(log, extent.archive)
        if check_columns is not None:
            report = verifier.report
            report.segments = await check_columns(report.first_seq, report.head.seq)
    except CorruptLogError as error:
        verifier.report.finding = Finding(seq=error.seq, what=str(error).partition(": ")[2])
    return verifier.report


async def _check_archived(log: ReadableLog, archive: str) -> None:
    """Make sure that the log still has what was archived of it.

    Raises:
        CorruptLogError: it has not, or the archive cannot be opened for damage.
    """
    try:
        await check_not_behind(log, archive)
    except LogRewoundError as error:
        raise CorruptLogError((await log.event_head()).seq + 1, str(error)) from error


class Verifier:
    """One pass through a log. `report` is valid at any time, also after an error."""

    def __init__(self, log: ReadableLog, extent: Extent) -> None:
        self.report = Report(first_seq=1, head=KeptHead(seq=0, chain_hash=bytes(32)))
        self._log = log
        self._extent = extent
        self._state = Exchange()
        self._events = EventReader(log)
        self._commands = CommandReader(log)
        self._answers: deque[EventEntry] = deque()
        self._asked: deque[CommandEntry] = deque()
        self._checkpoints: dict[int, list[tuple[int, bytes]]] = {}
        self._snapshots: dict[int, Path] = {}

    async def run(self, on_progress: OnProgress | None) -> None:
        """Verify what the extent says.

        Raises:
            CorruptLogError: names the first entry that is not as it should be.
        """
        head = await self._log.event_head()
        last_command_seq = await self._log.last_command_seq()
        extent = self._extent
        target = head.seq if extent.last_seq is None else min(extent.last_seq, head.seq)
        await self._start()
        await self._collect_checkpoints(target)
        while self._events.seq < target:
            await self._refill(target)
            while self._answers and self._asked:
                self._check_entry(self._answers.popleft(), self._asked.popleft())
            if on_progress is not None:
                on_progress(self._events.seq, target)
        self.report.digest = self._state.digest()
        if target == head.seq and self._events.chain_hash != head.chain_hash:
            raise CorruptLogError(target, "the head key names another hash than that of the last entry")
        if extent.kept_head is not None and extent.kept_head.seq > head.seq:
            raise CorruptLogError(
                head.seq + 1,
                f"the log ends before it; the head that was kept is entry {extent.kept_head.seq}",
            )
        if extent.last_seq is None:
            await self._check_waiting(last_command_seq)

    # Where it starts, and what is known of the way

    async def _start(self) -> None:
        """Start behind a snapshot when the extent allows it, and note those that are on the way."""
        directory, first_seq = self._extent.directory, self._extent.first_seq
        if directory is None:
            return
        paths = find(directory, await self._name_of_log())
        for path in paths:
            if seq_of(path) < first_seq and await self._start_from(path):
                paths = find(directory, self._state.log_id)
                break
        self._snapshots = {seq_of(path): path for path in paths}

    async def _name_of_log(self) -> str | None:
        """Return the log's name, None when the entry that holds it was trimmed or is damaged."""
        reader = EventReader(self._log)
        try:
            await reader.read(1)
        except (TrimmedError, CorruptLogError):
            return None
        return reader.log_id

    async def _start_from(self, path: Path) -> bool:
        """Take a snapshot's state and place, unless the file cannot be used.

        Raises:
            CorruptLogError: the log does not hold the entry that the snapshot is of.
        """
        try:
            snapshot = load(path)
            state = restore_snapshot(snapshot)
        except (SnapshotError, OSError) as error:
            logger.warning("snapshot_skipped", path=str(path), reason=str(error))
            return False
        after = Head(seq=snapshot.seq, chain_hash=snapshot.chain_hash)
        reader = EventReader(self._log, log_id=snapshot.log_id, after=after)
        try:
            await reader.check_place()
        except LogRewoundError as error:
            raise CorruptLogError(snapshot.seq, f"it is not the one of the snapshot {path}") from error
        self._events, self._state = reader, state
        self._commands = CommandReader(self._log, after=snapshot.seq, checksum=snapshot.command_checksum)
        self.report.first_seq = snapshot.seq + 1
        self.report.head = KeptHead(seq=snapshot.seq, chain_hash=snapshot.chain_hash, log_id=snapshot.log_id)
        return True

    async def _collect_checkpoints(self, target: int) -> None:
        """Look ahead for what the log says about digests: they are in it only behind the states they are of.

        Only looks, and leaves to the pass that follows what is damaged. Entries without one are not decoded.
        """
        after = self._events.seq
        while after < target:
            try:
                entries = await self._log.read_events(after, min(ENTRIES_PER_READ, target - after))
            except CorruptLogError:
                return
            if not entries:
                return
            after = entries[-1].seq
            for entry in entries:
                if _CHECKPOINT_TAG in entry.body:
                    self._collect_from(entry)

    def _collect_from(self, entry: EventEntry) -> None:
        try:
            groups = decode_groups(entry.body, entry.schema)
        except UndecodableBodyError:
            return
        for group in groups:
            for event in group:
                if isinstance(event, CheckpointPassed):
                    self._checkpoints.setdefault(event.seq, []).append((entry.seq, event.digest))

    # The entries

    async def _refill(self, target: int) -> None:
        """Read on, so that there is at least one event entry with its command entry.

        Raises:
            CorruptLogError: one of the two is not there, or what stores them finds it damaged.
        """
        damages: list[CorruptLogError] = []
        seq = self._events.seq
        limit = min(ENTRIES_PER_READ, target - seq)
        try:
            if not self._answers:
                self._answers.extend(await self._read(self._log.read_events, limit))
            if not self._answers:
                damages.append(CorruptLogError(seq + 1, "event entry is missing"))
        except CorruptLogError as error:
            damages.append(error)
        try:
            if not self._asked:
                self._asked.extend(await self._read(self._log.read_commands, limit))
            if not self._asked:
                damages.append(CorruptLogError(seq + 1, "command entry is missing; its events are there"))
        except CorruptLogError as error:
            damages.append(error)
        if damages:
            raise min(damages, key=lambda damage: damage.seq)

    async def _read(self, read: Callable[[int, int], Awaitable[list[E]]], limit: int) -> list[E]:
        """Read on; where an entry cannot be read, those in front of it come first.

        Raises:
            CorruptLogError: the first one cannot be read, or what stores them gives them only together.
        """
        seq = self._events.seq
        try:
            return await read(seq, limit)
        except CorruptLogError as error:
            readable = error.seq - seq - 1
            if not 0 < readable < limit:
                raise
            return await read(seq, readable)

    def _check_entry(self, answer: EventEntry, command: CommandEntry) -> None:
        verified = self._events.verify(answer)
        self._commands.verify(command)
        check_answer(command, verified)
        self._check_kept_head(answer)
        failures = self._note_failures(verified)
        if self._note_rules(verified):
            decide_again(self._state, verified, command, failures)
        else:
            apply_entry(self._state, verified)
        self._check_digests(answer)
        report = self.report
        report.entries += 1
        report.commands += len(verified.groups) - 1
        report.events += sum(map(len, verified.groups))
        report.head = KeptHead(seq=answer.seq, chain_hash=answer.chain_hash, log_id=self._events.log_id or "")

    def _check_kept_head(self, entry: EventEntry) -> None:
        kept = self._extent.kept_head
        if kept is None or kept.seq != entry.seq:
            return
        if kept.log_id and kept.log_id != self._events.log_id:
            raise CorruptLogError(
                entry.seq,
                f"the head that was kept is of log {kept.log_id}, this is log {self._events.log_id}",
            )
        if kept.chain_hash != entry.chain_hash:
            what = f"its hash is {entry.chain_hash.hex()}, that of the head that was kept "
            raise CorruptLogError(entry.seq, what + kept.chain_hash.hex())

    def _note_rules(self, verified: VerifiedEvents) -> bool:
        """Count the entry to its span, and return whether it is to be decided again."""
        version = rules_of(self._state, verified.groups)
        seq, spans = verified.entry.seq, self.report.spans
        is_decided = self._extent.decide and version == RULES_VERSION
        if not spans or spans[-1].rules_version != version:
            spans.append(Span(first_seq=seq, last_seq=seq, rules_version=version, is_decided=is_decided))
        spans[-1].last_seq = seq
        return is_decided

    def _note_failures(self, verified: VerifiedEvents) -> Failures | None:
        """List the failures that an entry records, and return them."""
        entry = verified.entry
        if not any(tag in entry.body for tag in _FAILURE_TAGS):
            return None
        for group in verified.groups:
            for event in group:
                if isinstance(event, CommandFailed | WorkFailed):
                    self.report.failures.append(Failure(seq=entry.seq, what=_text(event)))
        return failures_of(verified.groups)

    def _check_digests(self, entry: EventEntry) -> None:
        """Compare the state with what checkpoints and snapshots say about it."""
        checkpoints = self._checkpoints.pop(entry.seq, None)
        path = self._snapshots.pop(entry.seq, None)
        if checkpoints is None and path is None:
            return
        digest = self._state.digest()
        for seq, stated in checkpoints or ():
            if stated != digest:
                what = f"the state here has the digest {digest.hex()}, the checkpoint in entry {seq} says "
                raise CorruptLogError(entry.seq, what + stated.hex())
            self.report.checkpoints += 1
        if path is not None:
            self._check_snapshot(path, entry, digest)

    def _check_snapshot(self, path: Path, entry: EventEntry, digest: bytes) -> None:
        try:
            snapshot = load(path)
            restore_snapshot(snapshot)
        except FileNotFoundError:
            return  # older ones are deleted while newer ones are written
        except (SnapshotError, OSError) as error:
            raise CorruptLogError(entry.seq, f"its snapshot {path} cannot be used: {error}") from error
        if (snapshot.chain_hash, snapshot.digest) != (entry.chain_hash, digest):
            raise CorruptLogError(entry.seq, f"its snapshot {path} is of another state or another course")
        self.report.snapshots += 1

    async def _check_waiting(self, last_command_seq: int) -> None:
        """Check the command entries that have no answer yet."""
        while self._commands.seq < last_command_seq:
            entries = await self._log.read_commands(self._commands.seq, ENTRIES_PER_READ)
            if not entries:
                raise CorruptLogError(self._commands.seq + 1, "command entry is missing")
            for entry in entries:
                self._commands.verify(entry)
                self.report.waiting += 1


def decide_again(
    state: Exchange, verified: VerifiedEvents, command: CommandEntry, failures: Failures | None
) -> None:
    """Decide a frame, which applies its events to `state`, and compare what that makes with what is stored.

    Raises:
        CorruptLogError: it fails, or makes something else.
    """
    entry, frame = verified.entry, command.frame
    now_ns = header_of(verified.groups).now_ns
    if not state.now_ns <= now_ns <= max(state.now_ns, frame.time_ns):
        raise CorruptLogError(entry.seq, f"its time {now_ns} is neither its frame's nor the one before")
    try:
        groups = decide_frame(state, entry.seq, frame, now_ns, failures)
        # What an older version of the language wrote is compared as what it says.
        is_current = entry.schema == SCHEMA_VERSION
        is_same = encode_groups(groups) == entry.body if is_current else groups == verified.groups
    except (CommandError, WorkError, AssertionError, LookupError, OverflowError) as error:
        why = error.__cause__ or error
        raise CorruptLogError(entry.seq, f"deciding it again fails: {error}: {why!r}") from error
    if not is_same:
        raise CorruptLogError(entry.seq, _difference(verified.groups, groups))


def rules_of(state: Exchange, groups: Groups) -> int:
    """Return the version of the rules that decided an entry, which is to be applied to `state`."""
    for event in groups[0]:
        if type(event) is RulesChanged:
            return event.rules_version
    if state.rules_version == 0:
        for group in groups:
            for event in group:
                if type(event) is LogCreated:
                    return event.rules_version
    return state.rules_version


def _difference(stored: Groups, decided: Groups) -> str:
    """Say where two answers to the same frame part."""
    for index, (was, made) in enumerate(zip(stored, decided, strict=False), -1):
        place = f"command {index}" if index >= 0 else "its frame"
        for position in range(max(len(was), len(made))):
            pair = [_text(group[position]) if position < len(group) else "nothing" for group in (was, made)]
            if pair[0] != pair[1]:
                return f"{place}, event {position}: the log says {pair[0]}; deciding it again gives {pair[1]}"
    if len(stored) != len(decided):
        return f"the log answers {len(stored) - 1} commands; deciding them again {len(decided) - 1}"
    return "the events are the same, their bytes are not"


def _text(event: Message) -> str:
    return f"{type_of(event)} {one_line(readable(event, {}))}"
