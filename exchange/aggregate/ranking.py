"""The other side of a market: in which order it is deleveraged, and how it shares a loss.

Who gained most with the highest leverage is first:

    score = profit ratio × effective leverage      in profit
            profit ratio / effective leverage      otherwise
    profit ratio = unrealised profit / |entry cost|
    effective leverage = notional / equity of the bucket the position stands on

Scores are compared as exact fractions; of equal ones the lower account comes first, then the lower leg.
Positions whose bucket has no equity left have no leverage, and come last. The insurance fund is not in the
order: its position is used before all others.

Nothing here changes anything; `apply` and `decide` compute the same order from the same state.

Source: Binance, "What Is Auto-Deleveraging (ADL) and How Does It Work".
"""

from hashlib import blake2b
from typing import Final

import msgspec

from events.values import RankRow, SharerRow, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import bucket_equity, standing
from exchange.aggregate.market import Market
from exchange.aggregate.units import ceil_div, floor_div

_HASH_DOMAIN: Final = b"foldex ranking\x00"
_COARSE_SCALE: Final = 1 << 64


class Ranking:
    """The order of one side at one mark, and how far it is used up.

    `asked` of its rows can give no more at a bankruptcy price; the first `emptied` are flat.
    """

    __slots__ = ("asked", "digest", "emptied", "rows")

    def __init__(self, rows: list[RankRow]) -> None:
        self.rows = rows
        self.digest: bytes = blake2b(_HASH_DOMAIN + msgspec.msgpack.encode(rows), digest_size=32).digest()
        self.asked = 0
        self.emptied = 0


class _Score:
    """The exact score numerator / denominator of a row, the higher the earlier."""

    __slots__ = ("denominator", "numerator", "row")

    def __init__(self, row: RankRow) -> None:
        self.row = row
        cost = abs(row.entry_cost)
        if row.unrealised > 0:
            self.numerator = row.unrealised * row.notional
            self.denominator = cost * row.equity
        else:
            self.numerator = row.unrealised * row.equity
            self.denominator = cost * row.notional
        assert self.denominator > 0, row

    def __lt__(self, other: "_Score") -> bool:
        mine, others = self.numerator * other.denominator, other.numerator * self.denominator
        if mine != others:
            return mine > others
        return (self.row.account_id, self.row.leg) < (other.row.account_id, other.row.leg)


def rank(accounts: dict[int, Account], market: Market, side: Side) -> Ranking:
    """Put the open positions of a side into the order in which they are deleveraged at the market's mark."""
    scored: list[tuple[int, _Score]] = []
    last: list[RankRow] = []
    for account_id, leg in sorted(market.holders):
        position = market.holders[account_id, leg]
        if account_id == FUND_ACCOUNT_ID or position.size_lots * side < 0:
            continue
        row = rank_row(accounts[account_id], position)
        if row.equity <= 0:
            last.append(row)
            continue
        score = _Score(row)
        # Most scores differ in their whole part at this scale; only where it is equal the fractions meet.
        scored.append((-floor_div(score.numerator * _COARSE_SCALE, score.denominator), score))
    scored.sort()
    return Ranking([score.row for _, score in scored] + last)


def rank_row(account: Account, position: Position) -> RankRow:
    """Return the figures of a position that make its score, at its market's mark."""
    market = position.market
    return RankRow(
        account_id=account.account_id,
        leg=position.leg,
        unrealised=standing(position).unrealised,
        entry_cost=position.entry_cost,
        notional=abs(position.size_lots) * market.mark_ticks * market.unit,
        equity=bucket_equity(account, position),
    )


class Sharers:
    """The buckets that share a loss: those behind the positions of one side of a market that have equity, by
    account and leg, then those of parties that the liquidation closed whole.

    An account has at most one position on a side of a market, so no bucket is there twice. `buckets` counts
    the first kind, `equity` is the sum over both.
    """

    __slots__ = ("buckets", "equities", "equity")

    def __init__(
        self, accounts: dict[int, Account], market: Market, side: Side, closed: tuple[SharerRow, ...]
    ) -> None:
        self.equities: list[tuple[Account, Position, int]] = []
        self.equity = 0
        for account_id, leg in sorted(market.holders):
            position = market.holders[account_id, leg]
            if account_id == FUND_ACCOUNT_ID or position.size_lots * side < 0:
                continue
            account = accounts[account_id]
            equity = bucket_equity(account, position)
            if equity > 0:
                self.equities.append((account, position, equity))
                self.equity += equity
        self.buckets = len(self.equities)
        for row in closed:
            account = accounts[row.account_id]
            self.equities.append((account, account.position(market, row.leg), row.equity))
            self.equity += row.equity

    def charges(self, amount: int) -> list[tuple[Account, Position, int]]:
        """Share an amount of at most `equity` out, pro rata and rounded up, until all of it is."""
        assert 0 <= amount <= self.equity, (amount, self.equity)
        left = amount
        result: list[tuple[Account, Position, int]] = []
        for account, position, equity in self.equities:
            if left == 0:
                break
            part = min(left, ceil_div(amount * equity, self.equity))
            left -= part
            result.append((account, position, part))
        assert left == 0, left
        return result
