"""The story of one liquidation, from the log alone: how the bucket came there, what was done, and whether the
same would be done again.

The liquidation is looked up without verifying anything, and then the log is read up to the entry in front of
it, once, from where its bucket was flat. There the state is copied: on the copy the same command frame
is decided again, and must make the same bytes. On the state itself the recorded events are applied one by
one, each checked by the second implementation (`waterfall`), and the worksheet is made anew in fractions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from events.events import Event, LiquidationStarted, MarkPriceChanged
from events.frame import header_of
from events.log import CorruptLogError, ReadableLog, VerifiedEvents
from events.values import Leg, MarketSpec
from exchange.aggregate.account import Account, Position
from exchange.aggregate.failing import failures_of
from exchange.aggregate.image import restore, take_image
from exchange.aggregate.margin import bucket_equity, maintenance
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.audit.cases import Case, find_case, read_cases
from exchange.audit.exact import Wealth
from exchange.audit.facts import bucket_keys, key_of, units_of, wealth_of
from exchange.audit.ranks import BreachError
from exchange.audit.replay import OnProgress, apply_event
from exchange.audit.travel import NotInLogError, Traveller, start_before
from exchange.audit.verify import decide_again, rules_of
from exchange.audit.waterfall import Waterfall


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The bucket behind entry `seq`: marks in ticks by market, equity and maintenance in money units."""

    seq: int
    time_ns: int
    marks: dict[str, int]
    equity: int
    maintenance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What comes out when the log is asked again. None: equal; a text says what is not, or why it is unknown.

    `worksheet` compares it with exact fractions, `steps` every step with the rules, `decision` the stored
    events with those that the same command frame makes at the same state.
    """

    worksheet: str | None
    steps: str | None
    decision: str | None

    @property
    def is_equal(self) -> bool:
        """Whether everything came out as it is stored."""
        return self.worksheet is None and self.steps is None and self.decision is None


@dataclass(slots=True, kw_only=True)
class Story:
    """One liquidation with all that belongs to it. `inputs` are the updates that made its marks.

    `exact` is the account when it began, `started_from` the entry behind which the log was read for it.
    """

    case: Case
    specs: dict[str, MarketSpec]
    label: str
    chain_hash: bytes
    inputs: dict[str, MarkPriceChanged]
    path: list[Sample]
    exact: Wealth
    recomputed: Recomputed
    started_from: int = 0
    steps: list[Event] = field(default_factory=list)


async def tell(
    log: ReadableLog, directories: Sequence[Path], number: int, on_progress: OnProgress | None = None
) -> Story:
    """Return the story of liquidation `number`.

    Raises:
        NotInLogError: the log has no such liquidation.
        CorruptLogError: the log is not what was written.
        TrimmedError: the log no longer holds the entries.
    """
    case = await find_case(log, number, on_progress) or await _miss(log, number, on_progress)
    started = case.started
    bucket = (started.market, started.leg)

    def is_flat(state: Exchange) -> bool:
        account = state.accounts.get(started.account_id)
        return account is None or not bucket_keys(account, *bucket)

    traveller = await start_before(log, directories, case.seq - 1, is_flat)
    started_from = traveller.head.seq
    recorder = _Recorder(traveller.state, started.account_id, *bucket)
    async for verified in traveller.entries(case.seq - 1, on_progress):
        recorder.take(traveller, verified)
    copy = restore(take_image(traveller.state).body)
    async for verified in traveller.entries(case.seq):
        decision = await _decide(log, copy, verified)
        teller = _Teller(traveller.state, case, recorder)
        teller.take(verified)
    return Story(
        case=case,
        specs={symbol: market.spec for symbol, market in traveller.state.markets.items()},
        label=traveller.state.accounts[started.account_id].label,
        chain_hash=traveller.head.chain_hash,
        inputs=teller.inputs,
        path=recorder.path,
        exact=teller.exact,
        recomputed=Recomputed(worksheet=_compare(case, teller.exact), steps=teller.breach, decision=decision),
        started_from=started_from,
        steps=list(case.events[1:-1]),
    )


async def _miss(log: ReadableLog, number: int, on_progress: OnProgress | None) -> NoReturn:
    """Say that there is no such liquidation, unless the log is damaged."""
    last = 0
    async for case in read_cases(log, {}, on_progress):
        last = case.started.liquidation_id
    known = f"the last one is {last}" if last else "there are none in this log"
    raise NotInLogError(f"there is no liquidation {number}; {known}")


async def _decide(log: ReadableLog, state: Exchange, verified: VerifiedEvents) -> str | None:
    """Decide an entry's command frame again on `state`; return what is not equal, None when all is."""
    version = rules_of(state, verified.groups)
    if version != RULES_VERSION:
        return f"not decided: it is under rules version {version}, this build has {RULES_VERSION}"
    commands = await log.read_commands(verified.entry.seq - 1, 1)
    if not commands or commands[0].frame.checksum != header_of(verified.groups).checksum:
        return "not decided: the command entry is not the one that the events answer"
    if not commands[0].frame.is_intact():
        return "not decided: the command entry is damaged"
    try:
        decide_again(state, verified, commands[0], failures_of(verified.groups))
    except CorruptLogError as error:
        return str(error).partition(": ")[2]
    return None


class _Recorder:
    """Follows one bucket: what it was worth whenever that changed, since it was last flat."""

    def __init__(self, state: Exchange, account_id: int, market: str, leg: Leg) -> None:
        self.path: list[Sample] = []
        self.inputs: dict[str, MarkPriceChanged] = {}
        self._state = state
        self._account_id = account_id
        self._market = market
        self._leg = leg

    def take(self, traveller: Traveller, verified: VerifiedEvents) -> None:
        """Apply an entry and look at the bucket."""
        traveller.apply(verified)
        for group in verified.groups:
            for event in group:
                if type(event) is MarkPriceChanged:
                    self.inputs[event.market] = event
        self.look()

    def look(self) -> None:
        """Note what the bucket is worth, if that changed; begin anew when it is flat."""
        state = self._state
        account = state.accounts.get(self._account_id)
        positions = self._positions(account) if account is not None else []
        if account is None or not positions:
            self.path.clear()
            return
        self._note(account, positions)

    def look_at_end(self) -> None:
        """Note what is left of it."""
        account = self._state.accounts[self._account_id]
        positions = self._positions(account)
        if positions:
            self._note(account, positions)

    def _note(self, account: Account, positions: list[Position]) -> None:
        sample = Sample(
            seq=self._state.seq,
            time_ns=self._state.now_ns,
            marks={each.market.symbol: each.market.mark_ticks for each in positions},
            equity=bucket_equity(account, positions[0]),
            maintenance=sum(maintenance(each) for each in positions),
        )
        last = self.path[-1] if self.path else None
        if last is None or (last.marks, last.equity, last.maintenance) != (
            sample.marks,
            sample.equity,
            sample.maintenance,
        ):
            self.path.append(sample)

    def _positions(self, account: Account) -> list[Position]:
        keys = bucket_keys(account, self._market, self._leg)
        return [p for p in account.positions.values() if p.size_lots and key_of(p) in keys]


class _Teller:
    """Applies the liquidation's own entry event by event. `exact` is the account when it began."""

    def __init__(self, state: Exchange, case: Case, recorder: _Recorder) -> None:
        self.exact = wealth_of(state.accounts[case.started.account_id])
        self.inputs: dict[str, MarkPriceChanged] = {}
        self.breach: str | None = None
        self._state = state
        self._case = case
        self._recorder = recorder
        self._waterfall = Waterfall(state)

    def take(self, verified: VerifiedEvents) -> None:
        """Apply an entry; note the first step that is not as it should be."""
        recorder = self._recorder
        for group in verified.groups:
            for event in group:
                if isinstance(event, LiquidationStarted) and self._is_own(event):
                    self._begin()
                is_own = self._is_own(event)
                self._step(event, verified.entry.seq, is_own=is_own)
                if is_own:
                    recorder.look_at_end()
                elif type(event) is MarkPriceChanged:
                    recorder.inputs[event.market] = event

    def _is_own(self, event: Event) -> bool:
        number = self._case.started.liquidation_id
        return number in (self._waterfall.open_case, getattr(event, "liquidation_id", 0))

    def _step(self, event: Event, seq: int, *, is_own: bool) -> None:
        try:
            self._waterfall.before(event)
        except BreachError as breach:
            self._note(breach, is_own=is_own)
        apply_event(self._state, event, seq)
        try:
            self._waterfall.after(event)
        except BreachError as breach:
            self._note(breach, is_own=is_own)

    def _note(self, breach: BreachError, *, is_own: bool) -> None:
        if is_own and self.breach is None:
            self.breach = f"{breach.rule}: {breach}"

    def _begin(self) -> None:
        self.exact = wealth_of(self._state.accounts[self._case.started.account_id])
        self.inputs = dict(self._recorder.inputs)
        self._recorder.look()


def _compare(case: Case, wealth: Wealth) -> str | None:
    """Return what in the worksheet is not what fractions make of the same facts, None when all is."""
    started = case.started
    rows = [wealth.holdings.get((row.market, row.leg.name)) for row in started.rows]
    for row, holding in zip(started.rows, rows, strict=True):
        if holding is None:
            return f"{row.market} {row.leg.name}: there is no such position"
        said = (row.notional, row.unrealised, row.maintenance, row.bracket)
        amounts = (units_of(each) for each in (holding.notional, holding.profit, holding.maintenance))
        made = (*amounts, holding.contract.bracket(holding.notional))
        if said != made:
            return f"{row.market}: notional, uPnL, maintenance, bracket are {said}, they come to {made}"
    key = (started.rows[0].market, started.rows[0].leg.name)
    totals = (units_of(wealth.bucket_equity(key)), units_of(wealth.bucket_maintenance(key)))
    if (started.equity, started.maintenance) != totals:
        return f"equity and maintenance are {started.equity, started.maintenance}, they come to {totals}"
    return None
