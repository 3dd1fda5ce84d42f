"""A book of positions on a venue of its own, judged by the aggregate's functions at any marks.

It is read from an account file (see `exchange.calc`) or taken from an account of a log. All positions are
held in cross here; what one needs alone does not depend on the mode. Orders are not looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from events.values import CROSS, ISOLATED, MarketSpec
from exchange.aggregate.account import Account, Position
from exchange.aggregate.liquidation import open_positions
from exchange.aggregate.margin import initial_margin, is_liquidatable, maintenance, unrealised
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.calc.account_file import read_scenario
from exchange.calc.shapes import AccountFileError

Ticks = Sequence[int]  # a price for each market of a book, in its order


class BookError(ValueError):
    """There is no book to look at, or not enough is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The least collateral with which a book is above maintenance at some marks, in money units.

    `alone` is for each position by itself, `pooled` for all of them on one wallet. Negative where the profit
    is larger than what is needed.
    """

    alone: tuple[int, ...]
    pooled: int


class Book:
    """Open positions with the marks they start from.

    `symbols` are the markets in the order in which prices are given, `split` the share of the collateral that
    each position has when all are isolated (buckets as given, else initial margins; only proportions count).
    `collateral` is what can be lost: the buckets when every position has one, else the wallet with them.
    """

    def __init__(self, account: Account) -> None:
        self.positions: list[Position] = [p for p in account.positions.values() if p.size_lots]
        if not self.positions:
            raise BookError("positions: the book has none")
        self._account = account
        self.markets: list[Market] = list({p.market.symbol: p.market for p in self.positions}.values())
        self.symbols = tuple(market.symbol for market in self.markets)
        unpriced = [market.symbol for market in self.markets if market.mark_ticks == 0]
        if unpriced:
            raise BookError(f"{unpriced[0]} has no mark price yet")
        self.marks: tuple[int, ...] = tuple(market.mark_ticks for market in self.markets)
        self.market_of = tuple(self.symbols.index(p.market.symbol) for p in self.positions)
        buckets = [p.bucket if p.mode is ISOLATED else 0 for p in self.positions]
        self.initial = tuple(initial_margin(p) for p in self.positions)
        is_split = min(buckets) > 0
        self.split = tuple(buckets) if is_split else self.initial
        self.collateral = sum(buckets) if is_split else account.wallet + sum(buckets)
        for position in self.positions:
            position.mode = CROSS

    @property
    def specs(self) -> dict[str, MarketSpec]:
        """The contracts by symbol."""
        return {market.symbol: market.spec for market in self.markets}

    def name(self, index: int) -> str:
        """Say which position is meant."""
        position = self.positions[index]
        side = "long" if position.size_lots > 0 else "short"
        return f"{side} {position.market.symbol}"

    def needs(self, ticks: Ticks) -> Needs:
        """Return what the book needs at some marks, by the aggregate's own functions.

        A bucket lives while collateral + unrealised > maintenance, so it needs one unit more than the gap.
        """
        self._set_marks(ticks)
        gaps = tuple(maintenance(p) - unrealised(p) for p in self.positions)
        return Needs(alone=tuple(gap + 1 for gap in gaps), pooled=sum(gaps) + 1)

    def need_alone(self, index: int, mark_ticks: int) -> int:
        """Return what one position needs by itself at a mark."""
        position = self.positions[index]
        position.market.mark_ticks = mark_ticks
        return maintenance(position) - unrealised(position) + 1

    def is_drained(self, ticks: Ticks, wallet: int) -> bool:
        """Whether the pool is liquidated at some marks."""
        self._set_marks(ticks)
        equity = wallet + sum(unrealised(p) for p in self.positions)
        return is_liquidatable(equity, sum(maintenance(p) for p in self.positions))

    def starts_cascade(self, ticks: Ticks) -> int:
        """Return which position the waterfall reduces first: that with the largest maintenance margin."""
        self._set_marks(ticks)
        return self.positions.index(open_positions(self._account, None)[0])

    def largest_loser(self, ticks: Ticks) -> int:
        """Return which position has lost most since the book's own marks."""
        self._set_marks(self.marks)
        before = [unrealised(p) for p in self.positions]
        self._set_marks(ticks)
        changes = [unrealised(p) - known for p, known in zip(self.positions, before, strict=True)]
        return changes.index(min(changes))

    def exposures(self) -> list[int]:
        """Return the signed notional in each market at the book's own marks, in money units."""
        found = [0] * len(self.markets)
        for position, n in zip(self.positions, self.market_of, strict=True):
            found[n] += position.size_lots * self.marks[n] * position.market.unit
        return found

    def _set_marks(self, ticks: Ticks) -> None:
        for market, mark_ticks in zip(self.markets, ticks, strict=True):
            market.mark_ticks = mark_ticks


def read_book(text: bytes) -> Book:
    """Return the book of an account file.

    Raises:
        AccountFileError: the file is none, or it has no positions.
    """
    try:
        return Book(read_scenario(text).account)
    except BookError as error:
        raise AccountFileError(*str(error).split(": ", 1)) from None


def book_of(state: Exchange, account_id: int) -> Book:
    """Return the book of an account of a rebuilt state, which is used up by it.

    Raises:
        BookError: there is no such account, it has no positions, or a market has no price.
    """
    account = state.accounts.get(account_id)
    if account is None:
        raise BookError(f"there is no account {account_id} at entry {state.seq}")
    return Book(account)
