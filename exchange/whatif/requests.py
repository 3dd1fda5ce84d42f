"""Requests to liquidate in the other run: which of the recorded ones are made, and which others, and when.

A recorded request names its cause, the entry behind which the liquidator looked. Two watches follow both
runs entry by entry, so that it is known of every bucket whether it is due in one, in the other, or in both.

- A bucket that comes due in both runs behind the same entry is the recorded liquidator's business, whatever
  it then did: its requests are in the log. This alone makes the unchanged run the recorded one.
- A recorded request whose bucket was due behind its cause in the recorded run, and is not in the other, is
  left out. All other recorded requests are made, the mistaken ones too.
- A bucket that comes due in the other run alone is asked for in the entry in which the recorded liquidator
  answered the same cause; where it answered nothing, as many entries behind as its last answer took. As in
  life there is one request a bucket at a time, and it is repeated when the watch says so.
"""

from dataclasses import dataclass, field

from events.commands import AnyCommand, Liquidate
from events.events import Rejected
from events.frame import Groups, UndecodableBodyError
from events.log import CommandReader, ReadableLog
from events.values import RejectCode
from exchange.aggregate.state import Exchange
from exchange.audit.printer import type_of
from exchange.watch import Bucket, Watch

ENTRIES_PER_READ = 256
LAG_DEFAULT = 1
_LIQUIDATE_TAG = type_of(Liquidate).encode()

Place = tuple[int, int]  # entry, place in the frame
Concerned = tuple[list[int], list[str]]  # accounts by what happened to them, markets by their marks


@dataclass(slots=True)
class RecordedRequests:
    """The requests of a log by cause; `lags` are (entry, entries since its cause) in order."""

    by_cause: dict[int, list[tuple[Place, Bucket]]] = field(default_factory=dict)
    lags: list[tuple[int, int]] = field(default_factory=list)

    def lag_at(self, seq: int, start: int = 0) -> tuple[int, int]:
        """Return how many entries the last answer up to `seq` took, and where in `lags` to look from next.

        Before the first answer it is that of the first, and where there is none at all, one entry.
        """
        while start < len(self.lags) and self.lags[start][0] <= seq:
            start += 1
        if not self.lags:
            return LAG_DEFAULT, start
        return self.lags[max(0, start - 1)][1], start


async def read_requests(log: ReadableLog, last_seq: int) -> RecordedRequests:
    """Collect the requests of entries up to `last_seq`.

    Raises:
        CorruptLogError, LogRewoundError, TrimmedError: the log cannot be read from its start.
    """
    found = RecordedRequests()
    reader = CommandReader(log)
    while reader.seq < last_seq:
        entries = await reader.read(min(ENTRIES_PER_READ, last_seq - reader.seq))
        if not entries:
            break
        for entry in entries:
            # Looking for the tag in the bytes costs next to nothing.
            if _LIQUIDATE_TAG not in entry.frame.body:
                continue
            try:
                commands = entry.frame.commands()
            except UndecodableBodyError:
                continue
            for index, command in enumerate(commands):
                if isinstance(command, Liquidate):
                    found.by_cause.setdefault(command.cause_seq, []).append(
                        ((entry.seq, index), bucket_of(command))
                    )
                    if 0 < command.cause_seq < entry.seq:
                        found.lags.append((entry.seq, entry.seq - command.cause_seq))
    return found


def bucket_of(command: Liquidate) -> Bucket:
    """Return the bucket that a request is about."""
    return command.account_id, command.market, command.leg


@dataclass(slots=True)
class RequestCounts:
    """What became of requests: `kept` and `left_out` of the recorded ones, and those added.

    `at_answer` of the added ones went where the recorded liquidator answered the same cause, `at_lag` behind
    their cause as its answers were.
    """

    recorded: int = 0
    kept: int = 0
    left_out: int = 0
    at_answer: int = 0
    at_lag: int = 0


class Requests:
    """The liquidator of the other run, beside the recorded one. `look` follows each entry of both."""

    def __init__(self, recorded: RecordedRequests, then: Exchange, now: Exchange) -> None:
        self.counts = RequestCounts()
        self._recorded = recorded
        self._then = Watch(then)
        self._now = Watch(now)
        self._lag_from = 0
        self._left_out: set[Place] = set()
        self._waiting: list[tuple[int, Liquidate]] = []  # in or behind which entry
        self._asked: list[Liquidate] = []  # in the entry that is being decided
        self._outstanding: set[Bucket] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether a request is still to be made."""
        return bool(self._waiting)

    def is_made(self, seq: int, index: int) -> bool:
        """Tell whether the recorded request at a place is made in the other run."""
        self.counts.recorded += 1
        if (seq, index) in self._left_out:
            self.counts.left_out += 1
            return False
        self.counts.kept += 1
        return True

    def take(self, seq: int, room: int) -> list[AnyCommand]:
        """Return the requests to add to entry `seq`, at most `room`."""
        due = [command for wanted, command in self._waiting if wanted <= seq][:room]
        taken = set(map(id, due))
        self._waiting = [each for each in self._waiting if id(each[1]) not in taken]
        self._asked = due
        return list(due)

    def look(
        self, seq: int, recorded: Groups, groups: Groups, *, added_from: int
    ) -> tuple[Concerned, Concerned]:
        """Follow both runs through entry `seq`, and see what is to be asked for.

        `added_from` is the group of the first request that `take` gave for it. Returns what the entry
        concerned in the recorded run, and in the other one.
        """
        self._settle(seq, groups, added_from)
        due_then, concerned_then = _look(self._then, recorded)
        due_now, concerned_now = _look(self._now, groups)
        self._judge(seq)
        for bucket in due_now:
            if bucket in due_then or bucket in self._outstanding:
                continue
            account_id, market, leg = bucket
            self._ask(seq, Liquidate(account_id=account_id, market=market, cause_seq=seq, leg=leg))
        return concerned_then, concerned_now

    def _settle(self, seq: int, groups: Groups, added_from: int) -> None:
        """Take the answers to what was asked for; what a full frame refused is asked for again."""
        for command, events in zip(self._asked, groups[added_from:], strict=False):
            self._outstanding.discard(bucket_of(command))
            first = events[0] if events else None
            if isinstance(first, Rejected) and first.code is RejectCode.FRAME_LIMIT:
                self._waiting.append((seq + 1, command))
                self._outstanding.add(bucket_of(command))
        self._asked = []

    def _judge(self, seq: int) -> None:
        """Leave out the recorded requests that this entry was the cause of, and no longer is."""
        for place, bucket in self._recorded.by_cause.get(seq, ()):
            was_due = bucket in self._then.due.get(bucket[0], ())
            if was_due and bucket not in self._now.due.get(bucket[0], ()):
                self._left_out.add(place)

    def _ask(self, seq: int, command: Liquidate) -> None:
        answers = [place[0] for place, _ in self._recorded.by_cause.get(seq, ()) if place[0] > seq]
        lag, self._lag_from = self._recorded.lag_at(seq, self._lag_from)
        if answers:
            self.counts.at_answer += 1
        else:
            self.counts.at_lag += 1
        self._waiting.append((min(answers) if answers else seq + lag, command))
        self._outstanding.add(bucket_of(command))


def _look(watch: Watch, groups: Groups) -> tuple[list[Bucket], Concerned]:
    """Let a watch follow an entry; return what is due of what that concerns, and what it concerns.

    Those who paid funding, of whom one look leaves most for later, are all looked at.
    """
    is_concerned = False
    for group in groups:
        for event in group:
            is_concerned = watch.follow(event) or is_concerned
    concerned = list(watch.touched), list(watch.moved)
    due = watch.look() if is_concerned else []
    while watch.charged:
        due += watch.look()
    return due, concerned
