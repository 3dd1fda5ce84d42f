"""The other run: every entry of a log decided again, with its changed commands, beside the recorded events.

Two states go through the log side by side. The one takes the recorded events, by `apply`; the other one
decides the commands that the `Rewriter` and the `Requests` make of the recorded ones, at the recorded times.
Up to the first command that is another one, both must be the same byte for byte; without any change, to the
end. Requests that are still waiting at the end of the log are made in entries behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from events.commands import AnyCommand, Checkpoint, Liquidate, Tick
from events.events import CommandFailed, ConditionalRejected, Event, Rejected, RulesChanged, WorkFailed
from events.frame import (
    COMMANDS_PER_FRAME_MAX,
    SCHEMA_VERSION,
    CommandFrame,
    Groups,
    close_command_frame,
    header_of,
)
from events.log import CommandEntry, CommandReader, CorruptLogError, EventReader, ReadableLog, VerifiedEvents
from events.values import Outcome
from exchange.aggregate.failing import failures_of
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.audit.replay import apply_entry
from exchange.whatif.changes import Changes
from exchange.whatif.deciding import Decided, Deciding
from exchange.whatif.outcome import Outcomes
from exchange.whatif.requests import RecordedRequests, RequestCounts, Requests, read_requests
from exchange.whatif.rewriting import Rewriter

ENTRIES_PER_READ = 256
# Entries behind the end of the log in which waiting requests are made; a liquidation that goes on for longer
# than that would not end.
EXTRA_ENTRIES_MAX = 10_000
EXTRA_ORIGIN = "whatif:" + "0" * 32

OnProgress = Callable[[int, int], None]
OnEntry = Callable[[CommandFrame, Groups], None]


class WhatIfError(Exception):
    """The log cannot be run again by this build; the message names the entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A command that one run refused and the other did not; `code` and `reason` are why.

    Of a conditional order that triggered and was refused then, `command` is the event that says so.
    """

    seq: int
    index: int
    command: msgspec.Struct
    code: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Course:
    """Both runs at the end of the log, and how they came there.

    `first_change` is the first entry with another command, `first_difference` the first with other events
    (both None if there is none); `added` are commands that set up what is different, and `added_refused`
    those of them that the exchange refused. `refused` are commands that only the other run refused,
    `accepted` those that only the recorded one did. `failures` were recorded and taken as given; those of
    `failed` could not be carried out, by a fault of the exchange, in the other run alone.
    """

    then: Exchange
    now: Exchange
    outcomes_then: Outcomes
    outcomes_now: Outcomes
    requests: RequestCounts = field(default_factory=RequestCounts)
    entries: int = 0
    commands: int = 0
    changed: int = 0
    added: int = 0
    extra_entries: int = 0
    first_change: int | None = None
    first_difference: int | None = None
    refused: list[Refusal] = field(default_factory=list)
    accepted: list[Refusal] = field(default_factory=list)
    added_refused: list[Refusal] = field(default_factory=list)
    failures: list[tuple[int, Event]] = field(default_factory=list)
    failed: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def is_reproduced(self) -> bool:
        """Whether both runs are the same: every event, and the state in the end."""
        return self.first_difference is None and self.then.digest() == self.now.digest()


async def run_again(
    log: ReadableLog,
    changes: Changes,
    *,
    until: int | None = None,
    on_progress: OnProgress | None = None,
    on_entry: OnEntry | None = None,
) -> Course:
    """Run a log again, up to entry `until` or its end, with what is to be different.

    `on_progress` is told the last entry done and the one to reach; `on_entry` gets each frame of the other
    run with its answer.

    Raises:
        WhatIfError: the log is under other rules, or cannot be decided again.
        ChangeError: a change cannot be made in this log.
        NotInLogError: the log does not have what is to be different.
        CorruptLogError, LogRewoundError, TrimmedError: the log cannot be read from its start.
    """
    last = (await log.event_head()).seq
    target = last if until is None else min(until, last)
    runner = _Runner(changes, await read_requests(log, target), on_entry)
    events, commands = EventReader(log), CommandReader(log)
    while events.seq < target:
        answers = await events.read(min(ENTRIES_PER_READ, target - events.seq))
        asked: list[CommandEntry] = []
        while len(asked) < len(answers):
            read = await commands.read(len(answers) - len(asked))
            if not read:
                raise CorruptLogError(commands.seq + 1, "command entry is missing; its events are there")
            asked += read
        for entry, answer in zip(asked, answers, strict=True):
            runner.step(entry, answer)
        if on_progress is not None:
            on_progress(events.seq, target)
    return runner.finish()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """An entry of the other run: its frame, the recorded commands, those in their places, and those that set
    up what is different; requests to liquidate stand behind these.
    """

    frame: CommandFrame
    commands: list[AnyCommand] = field(default_factory=list)
    kept: list[AnyCommand] = field(default_factory=list)
    added: list[AnyCommand] = field(default_factory=list)


class _Runner:
    """Both runs on their way."""

    def __init__(self, changes: Changes, recorded: RecordedRequests, on_entry: OnEntry | None) -> None:
        then, now = Exchange(), Exchange()
        self._course = Course(then=then, now=now, outcomes_then=Outcomes(then), outcomes_now=Outcomes(now))
        self._requests = Requests(recorded, then, now)
        self._rewriter = Rewriter(changes, now)
        self._deciding = Deciding(now)
        self._on_entry = on_entry
        # What sets up a change and had no room in its frame.
        self._put_off: list[AnyCommand] = []
        # Conditional orders whose order was refused when they triggered, by number.
        self._rejected_then: dict[int, Refusal] = {}
        self._rejected_now: dict[int, Refusal] = {}

    def step(self, entry: CommandEntry, answer: VerifiedEvents) -> None:
        """Take the next entry in both runs."""
        course, recorded = self._course, answer.groups
        header = header_of(recorded)
        if header.checksum != entry.frame.checksum:
            raise CorruptLogError(entry.seq, "the command entry is another than the one its events answer")
        self._check_rules(entry.seq, recorded)
        other = self._other(entry, recorded)
        is_changed = other.frame is not entry.frame
        if is_changed and course.first_change is None:
            course.first_change = entry.seq
        decided = self._decide(entry.seq, other.frame, header.now_ns, recorded)
        groups = decided.groups
        apply_entry(course.then, answer)
        self._compare(answer, decided, is_changed=is_changed)
        self._note_refusals(entry.seq, other, recorded, groups)
        added_from = 1 + len(other.kept)
        self._note_added(entry.seq, other.added, groups[added_from:])
        self._close(entry.seq, other.frame, recorded, groups, added_from=added_from + len(other.added))
        course.entries += 1
        course.commands += len(other.commands)
        course.changed += sum(new is not old for new, old in zip(other.kept, other.commands, strict=True))
        course.added += len(other.added)

    def finish(self) -> Course:
        """Make the requests that are still waiting, and return the course."""
        course = self._course
        seq = course.entries
        while self._requests.is_waiting and course.extra_entries < EXTRA_ENTRIES_MAX:
            seq += 1
            course.extra_entries += 1
            asked = self._requests.take(seq + EXTRA_ENTRIES_MAX, COMMANDS_PER_FRAME_MAX)
            frame = close_command_frame(EXTRA_ORIGIN, course.extra_entries, course.now.now_ns, asked)
            groups = self._decide(seq, frame, course.now.now_ns, [[]]).groups
            self._close(seq, frame, [], groups, added_from=1)
        course.requests = self._requests.counts
        self._rewriter.check_used(course.entries)
        course.now.check_identities()
        course.refused += [each for n, each in self._rejected_now.items() if n not in self._rejected_then]
        course.accepted += [each for n, each in self._rejected_then.items() if n not in self._rejected_now]
        course.refused.sort(key=_place)
        course.accepted.sort(key=_place)
        return course

    def _check_rules(self, seq: int, recorded: Groups) -> None:
        version = self._course.then.rules_version
        for event in recorded[0]:
            if isinstance(event, RulesChanged):
                version = event.rules_version
        if version not in (0, RULES_VERSION):
            raise WhatIfError(
                f"entry {seq} was decided under version {version} of the rules, "
                f"this build has {RULES_VERSION}"
            )

    def _other(self, entry: CommandEntry, recorded: Groups) -> "_Other":
        """Return an entry as it is in the other run.

        A frame that did not run does not run here either, and nothing is added to it.
        """
        seq, frame = entry.seq, entry.frame
        header = header_of(recorded)
        if header.outcome is not Outcome.EXECUTED:
            return _Other(frame=frame)
        commands = frame.commands()
        kept, added = self._rewriter.rewrite(seq, header.now_ns, commands, recorded)
        is_other = self._course.first_difference is not None
        for index, command in enumerate(commands):
            is_left_out = isinstance(command, Liquidate) and not self._requests.is_made(seq, index)
            if is_left_out or (
                is_other and isinstance(command, Checkpoint)
            ):  # of a state that this run has not
                kept[index] = Tick()
        for group in recorded:
            for event in group:
                if isinstance(event, CommandFailed | WorkFailed):
                    self._course.failures.append((seq, event))
                if isinstance(event, CommandFailed):
                    # What follows from a failure depends on what failed.
                    kept[event.index] = commands[event.index]
        room = COMMANDS_PER_FRAME_MAX - len(kept)
        added, self._put_off = (self._put_off + added)[:room], (self._put_off + added)[room:]
        asked = self._requests.take(seq, room - len(added))
        if added or asked or any(new is not old for new, old in zip(kept, commands, strict=True)):
            frame = close_command_frame(frame.origin, frame.n, frame.time_ns, [*kept, *added, *asked])
        return _Other(frame=frame, commands=commands, kept=kept, added=added)

    def _decide(self, seq: int, frame: CommandFrame, now_ns: int, recorded: Groups) -> Decided:
        """Decide an entry of the other run. Once that is another one, what did not fail in the record may."""
        known, may_fail = failures_of(recorded), self._course.first_change is not None
        try:
            decided = self._deciding.decide(seq, frame, now_ns, known, may_fail=may_fail)
        except Exception as error:  # a fault of ours, whatever it is
            why = error.__cause__ or error
            raise WhatIfError(f"entry {seq} cannot be decided in the other run: {error}: {why!r}") from error
        self._course.failed += [(seq, event) for event in decided.failed]
        return decided

    def _compare(self, answer: VerifiedEvents, decided: Decided, *, is_changed: bool) -> None:
        """Note the first entry that differs; before the first change there must be none."""
        course, entry, groups = self._course, answer.entry, decided.groups
        if course.first_difference is not None:
            return
        if not is_changed and entry.schema == SCHEMA_VERSION:
            is_same = decided.body == entry.body
        else:
            # The header names the frame's checksum, which is another one.
            is_same = groups[0][1:] == answer.groups[0][1:] and groups[1:] == answer.groups[1:]
        if is_same:
            return
        if course.first_change is None:
            raise WhatIfError(
                f"entry {entry.seq}: deciding it again does not give what is recorded; "
                "`foldex verify --decide` says where they part"
            )
        course.first_difference = entry.seq

    def _note_refusals(self, seq: int, other: "_Other", recorded: Groups, groups: Groups) -> None:
        course = self._course
        for index, command in enumerate(other.commands):
            if isinstance(other.kept[index], Tick) and not isinstance(command, Tick):
                continue
            then, now = _rejection(recorded[index + 1]), _rejection(groups[index + 1])
            if now is not None and then is None:
                course.refused.append(_refusal(seq, index, command, now))
            if then is not None and now is None:
                course.accepted.append(_refusal(seq, index, command, then))
        for found, known in ((recorded, self._rejected_then), (groups, self._rejected_now)):
            for index, group in enumerate(found, -1):
                for each in group:
                    if isinstance(each, ConditionalRejected):
                        known[each.conditional_id] = _refusal(seq, index, each, each)

    def _note_added(self, seq: int, added: list[AnyCommand], groups: Groups) -> None:
        for index, (command, events) in enumerate(zip(added, groups, strict=False)):
            event = _rejection(events)
            if event is not None:
                self._course.added_refused.append(_refusal(seq, index, command, event))

    def _close(
        self, seq: int, frame: CommandFrame, recorded: Groups, groups: Groups, *, added_from: int
    ) -> None:
        """Let everybody look at an entry that both runs have behind them."""
        course = self._course
        self._rewriter.learn(recorded, groups)
        concerned_then, concerned_now = self._requests.look(seq, recorded, groups, added_from=added_from)
        if recorded:
            course.outcomes_then.follow(recorded, *concerned_then)
        course.outcomes_now.follow(groups, *concerned_now)
        if self._on_entry is not None:
            self._on_entry(frame, groups)


def _refusal(seq: int, index: int, command: msgspec.Struct, event: Rejected | ConditionalRejected) -> Refusal:
    return Refusal(seq=seq, index=index, command=command, code=event.code, reason=event.reason)


def _place(refusal: Refusal) -> tuple[int, int]:
    return refusal.seq, refusal.index


def _rejection(events: list[Event]) -> Rejected | None:
    return events[0] if events and isinstance(events[0], Rejected) else None
