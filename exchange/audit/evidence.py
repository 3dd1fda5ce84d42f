"""`foldex audit verify`: every liquidation of a log, derived again by somebody else's arithmetic.

One pass through the events, the chain verified and the state built by `apply` on the way:

- necessary, orderly, complete: see `waterfall`;
- sufficient: see `lateness`.

What the log says is not trusted but compared; what is wrong is a finding with its entry, and looking goes on
behind it, except where the log itself is damaged or an event does not fit the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from events.events import Event, LiquidationStarted
from events.log import CorruptLogError, Head, ReadableLog, VerifiedEvents
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.state import Exchange, IdentityError
from exchange.audit.lateness import Bucket, Lateness, Wait
from exchange.audit.ranks import BreachError
from exchange.audit.replay import OnProgress, apply_event, time_text
from exchange.audit.travel import start_before
from exchange.audit.waterfall import WATCHED, Waterfall
from exchange.config import LATE_EVENTS_DEFAULT

FINDINGS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, in which entry, and which promise that breaks; the liquidation, 0 if none is meant."""

    seq: int
    time: str
    rule: str
    liquidation_id: int
    what: str


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What was verified: entries `first_seq` to `head`.

    `longest_wait` is in events, `waiting` counts the buckets that are due at the end, `of_fund` the
    liquidations of the insurance fund's own positions. Not `is_complete`: the log could not be read further.
    """

    first_seq: int
    head: Head
    entries: int = 0
    events: int = 0
    liquidations: int = 0
    of_fund: int = 0
    late_events_max: int = LATE_EVENTS_DEFAULT
    longest_wait: int = 0
    waiting: int = 0
    findings: list[Finding] = field(default_factory=list)
    is_complete: bool = True


async def gather(
    log: ReadableLog,
    directories: Sequence[Path],
    *,
    first_seq: int = 1,
    last_seq: int | None = None,
    late_events_max: int = LATE_EVENTS_DEFAULT,
    on_progress: OnProgress | None = None,
) -> Evidence:
    """Verify the liquidations of entries `first_seq` to `last_seq` (None: to the end).

    Starts behind the newest snapshot before `first_seq`. What is wrong is in the result.

    Raises:
        TrimmedError: the log no longer holds the entries; the archive has them.
        LogUnavailableError: the log went away on the way.
    """
    head = await log.event_head()
    target = head.seq if last_seq is None else min(last_seq, head.seq)
    traveller = await start_before(log, directories, first_seq - 1)
    auditor = Auditor(traveller.state, late_events_max)
    evidence = auditor.evidence
    evidence.first_seq = traveller.head.seq + 1
    try:
        async for verified in traveller.entries(target, on_progress):
            auditor.take(verified)
        if target == head.seq and traveller.head.chain_hash != head.chain_hash:
            raise CorruptLogError(target, "the head key names another hash than that of the last entry")
    except CorruptLogError as error:
        auditor.find(error.seq, "chain", str(error).partition(": ")[2])
        evidence.is_complete = False
    evidence.head = traveller.head
    evidence.longest_wait = auditor.lateness.longest
    evidence.waiting = sum(map(len, auditor.lateness.waiting.values()))
    evidence.liquidations = auditor.waterfall.count
    return evidence


class Auditor:
    """Takes the entries of a log in order, applies them to a state, and writes down findings."""

    def __init__(self, state: Exchange, late_events_max: int = LATE_EVENTS_DEFAULT) -> None:
        self.evidence = Evidence(
            first_seq=state.seq + 1,
            head=Head(seq=state.seq, chain_hash=bytes(32)),
            late_events_max=late_events_max,
        )
        self.waterfall = Waterfall(state)
        self.lateness = Lateness(state, late_events_max)
        self._state = state

    def take(self, verified: VerifiedEvents) -> None:
        """Apply an entry, checking every event.

        Raises:
            CorruptLogError: an event does not fit the state it meets.
        """
        seq = verified.entry.seq
        state, waterfall, followers = self._state, self.waterfall, self.lateness.followers
        has_liquidation = False
        for group in verified.groups:
            self.lateness.events = self.evidence.events
            for event in group:
                kind = type(event)
                if waterfall.open_case or kind in WATCHED:
                    self._check_and_apply(event, seq)
                    has_liquidation = has_liquidation or kind is LiquidationStarted
                else:
                    apply_event(state, event, seq)
                follow = followers.get(kind)
                if follow is not None:
                    follow(event)
            self.evidence.events += len(group)
            if waterfall.open_case:
                self.find(seq, "orderly", "it does not end with its command", waterfall.open_case)
                waterfall.drop()
        self.evidence.entries += 1
        if has_liquidation:
            self._count_all(seq)
        for bucket, wait in self.lateness.end_entry(seq, self.evidence.events):
            self._find_late(seq, bucket, wait)

    def _check_and_apply(self, event: Event, seq: int) -> None:
        """Apply an event of a liquidation, or one that begins one, and check it before and after."""
        waterfall = self.waterfall
        number = getattr(event, "liquidation_id", 0) or waterfall.open_case
        try:
            waterfall.before(event)
        except BreachError as breach:
            self.find(seq, breach.rule, str(breach), number)
        apply_event(self._state, event, seq)
        try:
            waterfall.after(event)
        except BreachError as breach:
            self.find(seq, breach.rule, str(breach), number)
        if isinstance(event, LiquidationStarted):
            self.evidence.of_fund += event.account_id == FUND_ACCOUNT_ID
            self._check_cause(event, seq)

    def _check_cause(self, event: LiquidationStarted, seq: int) -> None:
        """The entry named as the cause left the bucket due; nobody has to ask for the fund's own position."""
        cause_seq = event.cause_seq
        if event.account_id == FUND_ACCOUNT_ID:
            is_right, what = cause_seq == seq, "its cause is the index update that it follows"
        else:
            bucket = (event.account_id, event.market, event.leg)
            is_right = cause_seq < seq and self.lateness.was_due(bucket, cause_seq)
            what = "behind that its bucket was not at or below maintenance"
        if not is_right:
            self.find(
                seq, "necessary", f"it names entry {cause_seq} as its cause; {what}", event.liquidation_id
            )

    def find(self, seq: int, rule: str, what: str, liquidation_id: int = 0) -> None:
        """Write down a finding; more than so many say nothing new."""
        findings = self.evidence.findings
        if len(findings) < FINDINGS_MAX:
            time = time_text(self._state.now_ns)
            findings.append(Finding(seq=seq, time=time, rule=rule, liquidation_id=liquidation_id, what=what))

    def _count_all(self, seq: int) -> None:
        """Count all money and contracts behind an entry with a liquidation."""
        try:
            self._state.check_identities()
        except IdentityError as error:
            self.find(seq, "complete", str(error))

    def _find_late(self, seq: int, bucket: Bucket, wait: Wait) -> None:
        account_id, market, leg = bucket
        name = f"{market} {leg.name.lower()}" if market else "pool"
        self.find(
            wait.seq,
            "sufficient",
            f"account {account_id}, {name}: at or below maintenance since entry {wait.seq}, and nobody asked "
            f"for its liquidation within {self.evidence.late_events_max} events, up to entry {seq}",
        )
