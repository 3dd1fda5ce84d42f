"""The other side of a market: in which order it is deleveraged, and how it shares a loss.

Who gained most with the highest leverage is first:

    score = profit ratio × effective leverage      in profit
            profit ratio / effective leverage      otherwise
    profit ratio = unrealised profit / |entry cost|
    effective leverage = notional / equity of the bucket the position stands on

Scores are compared as exact fractions; of equal ones the lower account comes first, then the lower leg.
Positions whose bucket has no equity left have no leverage, and come last. The insurance fund is not in the
order: its position is used before all others.

Nothing here changes an account; `apply` and `decide` compute the same from the same state.

Source: Binance, "What Is Auto-Deleveraging (ADL) and How Does It Work".
"""

from hashlib import blake2b
from typing import Final

import msgspec

from events.values import ISOLATED, RankRow, SharerRow, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import bucket_equity, pool_equity, standing
from exchange.aggregate.market import Market
from exchange.aggregate.units import ceil_div, floor_div

_HASH_DOMAIN: Final = b"foldex ranking\x00"
# Scores that differ mostly do so in the whole part at this scale; only where that is equal fractions meet.
_COARSE_SCALE: Final = 1 << 128
_FLAT: Final = -1

# A coarse key, the account and the leg, which sort; then what they belong to.
_Scored = tuple[int, int, int, RankRow]


class Ranking:
    """The order of one side at one mark, and what its rows can still give.

    Known of each row is the equity of its bucket as ranked, or after it last gave or shared a loss, −1 once
    it is flat. It may be out of date: other events change equities too. Who uses a row looks at its bucket.

    `_tree` holds what is known from index `_size` on; above it each node n is the larger of 2n and 2n + 1, so
    that the next row with enough is found in O(log rows).
    """

    __slots__ = ("_size", "_tree", "digest", "rows")

    def __init__(self, rows: list[RankRow]) -> None:
        self.rows = rows
        self.digest: bytes = blake2b(_HASH_DOMAIN + msgspec.msgpack.encode(rows), digest_size=32).digest()
        self._size = 1
        while self._size < len(rows):
            self._size *= 2
        self._tree: list[int] = []
        self._grow([max(0, row.equity) for row in rows])

    def known(self) -> list[int]:
        """Return what is known of each row."""
        return self._tree[self._size : self._size + len(self.rows)]

    def next_with(self, equity: int, place: int) -> int:
        """Return the first place from `place` on that is known to have this equity, −1 if there is none."""
        assert equity >= 0, equity
        tree, size = self._tree, self._size
        if place >= size:
            return -1
        node = size + place
        while tree[node] < equity:
            node += 1
            if node & (node - 1) == 0:  # behind the last of its row of the tree
                return -1
            while not node & 1:
                node >>= 1
        while node < size:
            node *= 2
            if tree[node] < equity:
                node += 1
        return node - size

    def note(self, place: int, position: Position, equity: int) -> None:
        """Know a row from now on as it is after it gave: the position, and its bucket's equity."""
        tree = self._tree
        node = self._size + place
        tree[node] = max(0, equity) if position.size_lots else _FLAT
        while node > 1:
            node >>= 1
            tree[node] = max(tree[2 * node], tree[2 * node + 1])

    def share(self, charged: int, equity: int) -> None:
        """Know all rows as they are after each paid ceil(charged / equity × its own)."""
        left = equity - charged
        self._grow([known * left // equity if known > 0 else known for known in self.known()])

    def _grow(self, known: list[int]) -> None:
        size = self._size
        tree = [_FLAT] * size + known + [_FLAT] * (size - len(known))
        for node in range(size - 1, 0, -1):
            left, right = tree[2 * node], tree[2 * node + 1]
            tree[node] = left if left > right else right
        self._tree = tree


class _Score:
    """The exact score of a row, for those that are equal at the coarse scale; the higher is the earlier."""

    __slots__ = ("denominator", "numerator", "scored")

    def __init__(self, scored: _Scored) -> None:
        self.scored = scored
        self.numerator, self.denominator = _fraction(scored[3])

    def __lt__(self, other: "_Score") -> bool:
        mine, others = self.numerator * other.denominator, other.numerator * self.denominator
        if mine != others:
            return mine > others
        return self.scored[1:3] < other.scored[1:3]


def rank(accounts: dict[int, Account], market: Market, side: Side) -> Ranking:
    """Put the open positions of a side into the order in which they are deleveraged at the market's mark."""
    scored: list[_Scored] = []
    last: list[_Scored] = []
    for (account_id, leg), position in market.holders.items():
        if account_id == FUND_ACCOUNT_ID or position.size_lots * side < 0:
            continue
        row = rank_row(accounts[account_id], position)
        if row.equity <= 0:
            last.append((0, account_id, leg, row))
            continue
        numerator, denominator = _fraction(row)
        scored.append((-floor_div(numerator * _COARSE_SCALE, denominator), account_id, leg, row))
    scored.sort()
    last.sort()
    return Ranking([each[3] for each in _settle_ties(scored)] + [each[3] for each in last])


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


def _fraction(row: RankRow) -> tuple[int, int]:
    """Return numerator and denominator of the score of a row with equity."""
    cost = abs(row.entry_cost)
    if row.unrealised > 0:
        return row.unrealised * row.notional, cost * row.equity
    return row.unrealised * row.equity, cost * row.notional


def _settle_ties(scored: list[_Scored]) -> list[_Scored]:
    """Return rows in the exact order that are in that of coarse score, account and leg."""
    result: list[_Scored] = []
    at = 0
    while at < len(scored):
        key = scored[at][0]
        end = at + 1
        while end < len(scored) and scored[end][0] == key:
            end += 1
        run = scored[at:end]
        if end - at > 1 and not _are_equal(run):
            run = [each.scored for each in sorted([_Score(each) for each in run])]
        result.extend(run)
        at = end
    return result


def _are_equal(run: list[_Scored]) -> bool:
    numerator, denominator = _fraction(run[0][3])
    for each in run:
        others, under = _fraction(each[3])
        if others * denominator != numerator * under:
            return False
    return True


class Shares:
    """How a loss of `amount` is shared: by the buckets behind the positions of one side of a market that have
    equity, and by those of parties that the liquidation closed whole.

    An account has at most one position on a side of a market, so no bucket is there twice. `buckets` counts
    the first kind, `equity` is the sum over both, and `charged` what they can bear of the amount. Each pays
    ceil(charged × its own / equity), which is never more than it has; what that makes too much, less than
    one unit each, is `residue`. Nobody's part depends on an order, so that there is nothing to sort.

    Two passes over the holders of the market, O(n) for every loss: since each of them pays, it cannot be
    less. Nobody is looked at when there is nothing to share.
    """

    __slots__ = ("buckets", "charged", "equity", "parts", "residue")

    def __init__(
        self,
        accounts: dict[int, Account],
        market: Market,
        side: Side,
        closed: tuple[SharerRow, ...],
        amount: int,
    ) -> None:
        self.parts: list[tuple[Account, Position, int]] = []
        self.buckets = self.charged = self.equity = self.residue = 0
        if amount == 0:
            return
        sharers = _sharers(accounts, market, side)
        self.buckets = len(sharers)
        for row in closed:
            account = accounts[row.account_id]
            sharers.append((account, account.position(market, row.leg), row.equity))
        total = 0
        for _, _, equity in sharers:
            total += equity
        self.equity = total
        self.charged = charged = min(amount, total)
        if charged == total:  # all they have
            self.parts = sharers
            return
        paid = 0
        for account, position, equity in sharers:
            part = ceil_div(charged * equity, total)
            paid += part
            self.parts.append((account, position, part))
        self.residue = paid - charged


def _sharers(accounts: dict[int, Account], market: Market, side: Side) -> list[tuple[Account, Position, int]]:
    """Return the positions of a side whose buckets have equity, with that, in no order."""
    found: list[tuple[Account, Position, int]] = []
    value_of_lot = market.mark_ticks * market.unit
    for (account_id, _), position in market.holders.items():
        size_lots = position.size_lots
        if size_lots * side < 0 or account_id == FUND_ACCOUNT_ID:
            continue
        account = accounts[account_id]
        if position.mode is ISOLATED:
            equity = position.bucket + size_lots * value_of_lot - position.entry_cost
        else:
            equity = pool_equity(account)
        if equity > 0:
            found.append((account, position, equity))
    return found
