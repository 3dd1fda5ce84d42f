"""What became of everybody in a run: liquidations, worst margin ratios, what is left in the end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from events.events import (
    FrameHeader,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.frame import Groups, header_of
from events.values import CROSS, MarginMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account
from exchange.aggregate.liquidation_price import liquidation_price_of
from exchange.aggregate.margin import margin_ratio, standing, unrealised
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import RATE_ONE, ceil_div


@dataclass(frozen=True, slots=True, kw_only=True)
class Liquidation:
    """A liquidation that started: in which entry and when (ns since 1970), of what ("": the cross pool)."""

    seq: int
    time_ns: int
    market: str
    mode: MarginMode


@dataclass(slots=True)
class AccountCourse:
    """How an account fared. The worst ratio is that of (maintenance, equity) of any of its buckets, seen
    behind the entries that concerned it; `worst_seq` is where, 0 when it never held anything.
    """

    liquidations: list[Liquidation] = field(default_factory=list)
    deleveraged: int = 0
    trades: int = 0
    worst_maintenance: int = 0
    worst_equity: int = 1
    worst_seq: int = 0

    def note_ratio(self, seq: int, maintenance: int, equity: int) -> None:
        """Keep a ratio if it is the worst so far; without equity none is worse."""
        if self.worst_equity <= 0:
            return
        if equity <= 0 or maintenance * self.worst_equity > self.worst_maintenance * equity:
            self.worst_maintenance, self.worst_equity, self.worst_seq = maintenance, equity, seq

    @property
    def worst_ratio(self) -> int | None:
        """The worst maintenance / equity in 1e-8, rounded up; None without equity."""
        return margin_ratio(self.worst_equity, self.worst_maintenance)


@dataclass(slots=True)
class Outcomes:
    """The courses of all accounts of a run, and the venue's own figures. Money is units of 1e-8 quote."""

    state: Exchange
    accounts: dict[int, AccountCourse] = field(default_factory=dict)
    liquidations: Counter[MarginMode] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    taken_over: int = 0
    deleveraged: int = 0
    socialised: int = 0
    unpaid: int = 0

    def course(self, account_id: int) -> AccountCourse:
        """Return an account's course."""
        return self.accounts.setdefault(account_id, AccountCourse())

    def follow(self, groups: Groups, account_ids: Iterable[int], symbols: Iterable[str]) -> None:
        """Note what an entry did, behind it; the accounts and markets are those that it concerned."""
        header = header_of(groups)
        for group in groups:
            for event in group:
                self._note(header, event)
        concerned = dict.fromkeys(account_ids)
        for symbol in symbols:
            for account_id, _ in self.state.markets[symbol].holders:
                concerned[account_id] = None
        for account_id in concerned:
            if account_id >= FIRST_USER_ACCOUNT_ID:
                self._note_ratios(header.seq, self.state.accounts[account_id])

    def _note(self, header: FrameHeader, event: object) -> None:
        if isinstance(event, TradeExecuted):
            for account_id in {event.maker_account_id, event.taker_account_id}:
                self.course(account_id).trades += 1
        elif isinstance(event, LiquidationStarted) and event.account_id >= FIRST_USER_ACCOUNT_ID:
            self.liquidations[event.mode] += 1
            course = self.course(event.account_id)
            course.note_ratio(header.seq, event.maintenance, event.equity)
            course.liquidations.append(
                Liquidation(
                    seq=header.seq, time_ns=header.now_ns, market=event.market, mode=MarginMode(event.mode)
                )
            )
        elif isinstance(event, LiquidationFinished):
            self.results[event.result.name.lower()] += 1
        elif isinstance(event, PositionTakenOver):
            self.taken_over += 1
        elif isinstance(event, PositionDeleveraged):
            for party in event.parties:
                if party.account_id >= FIRST_USER_ACCOUNT_ID:
                    self.deleveraged += 1
                    self.course(party.account_id).deleveraged += 1
        elif isinstance(event, LossSocialised):
            self.socialised += event.charged
            self.unpaid += event.unpaid

    def _note_ratios(self, seq: int, account: Account) -> None:
        equity, needed = account.wallet, 0
        course = None
        for position in account.positions.values():
            if position.size_lots == 0:
                continue
            course = course or self.course(account.account_id)
            known = standing(position)
            if position.mode is CROSS:
                equity += known.unrealised
                needed += known.maintenance
            else:
                course.note_ratio(seq, known.maintenance, position.bucket + known.unrealised)
        if needed and course is not None:
            course.note_ratio(seq, needed, equity)

    @property
    def fund(self) -> int:
        """What the insurance fund is worth at mark."""
        return worth(self.state.accounts[FUND_ACCOUNT_ID])


def worth(account: Account) -> int:
    """Return what an account owns at mark: wallet, buckets and unrealised profit."""
    return account.wallet + sum(p.bucket + unrealised(p) for p in account.positions.values())


def distance(account: Account) -> int | None:
    """Return how far the nearest mark at which something is liquidated is away, in 1e-8 of the mark.

    Rounded up; each market is moved alone. None where nothing is open, or no positive price does it.
    """
    nearest: int | None = None
    for position in account.positions.values():
        price = liquidation_price_of(account, position)
        if price is None or price[0] <= 0:
            continue
        mark_ticks = position.market.mark_ticks
        away = ceil_div(abs(price[0] - mark_ticks * price[1]) * RATE_ONE, mark_ticks * price[1])
        nearest = away if nearest is None else min(nearest, away)
    return nearest
