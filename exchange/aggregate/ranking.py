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
from exchange.aggregate.units import floor_div

_HASH_DOMAIN: Final = b"foldex ranking\x00"
# Scores that differ mostly do so in the whole part at this scale; only where that is equal fractions meet.
_COARSE_SCALE: Final = 1 << 128
_FLAT: Final = -1

# Account and leg.
_Key = tuple[int, int]
# A coarse score, the lower the earlier, and the key, which sort; then what they belong to.
_Scored = tuple[int, _Key, RankRow]


class Ranking:
    """The order of one side at one mark, and what its rows can still give. `keys` are account and leg.

    Known of each row is the equity of its bucket as ranked, or after it last gave or shared a loss, −1 once
    it is flat. It may be out of date: other events change equities too. Who uses a row looks at its bucket.

    `_tree` holds what is known from index `_size` on; above it each node n is the larger of 2n and 2n + 1, so
    that the next row with enough is found in O(log rows).
    """

    __slots__ = ("_size", "_tree", "digest", "joined", "keys", "rows")

    def __init__(self, scored: list[_Scored]) -> None:
        self.rows: list[RankRow] = [row for _, _, row in scored]
        rows = self.rows
        self.keys: list[_Key] = [key for _, key, _ in scored]
        self.digest: bytes = blake2b(_HASH_DOMAIN + msgspec.msgpack.encode(rows), digest_size=32).digest()
        self.joined: dict[_Key, None] = {}
        self._size = 1
        while self._size < len(rows):
            self._size *= 2
        self._tree: list[int] = []
        self._grow([max(0, row.equity) for row in rows])

    def known(self) -> list[int]:
        """Return what is known of each row."""
        return self._tree[self._size : self._size + len(self.rows)]

    def restore(self, known: list[int], joined: list[_Key]) -> None:
        """Know of the rows what another ranking of the same rows knew, and who traded since."""
        assert len(known) == len(self.rows), len(known)
        self._grow(known)
        self.joined = dict.fromkeys(joined)

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
        level = known + [_FLAT] * (self._size - len(known))
        tree = level
        while len(level) > 1:
            level = list(map(max, level[::2], level[1::2]))
            tree = level + tree
        self._tree = [_FLAT, *tree]


class _Score:
    """The exact score of a row, for those that are equal at the coarse scale; the higher is the earlier."""

    __slots__ = ("denominator", "numerator", "scored")

    def __init__(self, scored: _Scored) -> None:
        self.scored = scored
        self.numerator, self.denominator = _fraction(scored[2])

    def __lt__(self, other: "_Score") -> bool:
        mine, others = self.numerator * other.denominator, other.numerator * self.denominator
        if mine != others:
            return mine > others
        return self.scored[1] < other.scored[1]


def rank(accounts: dict[int, Account], market: Market, side: Side) -> Ranking:
    """Put the open positions of a side into the order in which they are deleveraged at the market's mark."""
    scored: list[_Scored] = []
    last: list[_Scored] = []
    for key, position in market.holders.items():
        account_id = key[0]
        if account_id == FUND_ACCOUNT_ID or position.size_lots * side < 0:
            continue
        row = rank_row(accounts[account_id], position)
        if row.equity <= 0:
            last.append((0, key, row))
            continue
        numerator, denominator = _fraction(row)
        scored.append((-floor_div(numerator * _COARSE_SCALE, denominator), key, row))
    scored.sort()
    last.sort()
    return Ranking(_settle_ties(scored) + last)


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
    numerator, denominator = _fraction(run[0][2])
    for each in run:
        others, under = _fraction(each[2])
        if others * denominator != numerator * under:
            return False
    return True


class Shares:
    """How a loss of `amount` is shared: by the buckets behind the positions of one side of a market, if its
    ranking knows of equity in them or they traded since, and by those of parties that the liquidation closed.

    An account has at most one position on a side of a market, so no bucket is there twice. `buckets` counts
    the first kind, `equity` is the sum over both, and `charged` what they can bear of the amount. Each pays
    ceil(charged × its own / equity), which is never more than it has; what that makes too much, less than
    one unit each, is `residue`. Nobody's part depends on an order, so that there is nothing to sort.
    `parts` are those of `accounts` with `positions`, in parallel lists: there may be very many.

    Every loss costs O(n) in the positions ranked, since each with equity pays; it cannot be less while they
    can. Once a loss took all they had, and when there is nothing to share, it costs nothing at that mark.
    """

    __slots__ = ("accounts", "buckets", "charged", "equity", "parts", "positions", "residue")

    def __init__(
        self,
        accounts: dict[int, Account],
        market: Market,
        side: Side,
        closed: tuple[SharerRow, ...],
        amount: int,
    ) -> None:
        self.accounts: list[Account] = []
        self.positions: list[Position] = []
        self.parts: list[int] = []
        self.buckets = self.charged = self.equity = self.residue = 0
        if amount == 0:
            return
        self._gather(accounts, market, side)
        self.buckets = len(self.parts)
        for row in closed:
            account = accounts[row.account_id]
            self._add(account, account.position(market, row.leg), row.equity)
        self.equity = total = sum(self.parts)
        self.charged = charged = min(amount, total)
        if charged < total:  # else all they have
            self.parts = [-(-charged * equity // total) for equity in self.parts]
            self.residue = sum(self.parts) - charged

    def _gather(self, accounts: dict[int, Account], market: Market, side: Side) -> None:
        """Add the positions of a side whose buckets have equity."""
        ranking = market.rankings[side]
        joined = ranking.joined
        holders = market.holders
        value_of_lot = market.mark_ticks * market.unit
        keys = list(joined)
        if ranking.next_with(1, 0) >= 0:
            known = ranking.known()
            keys += [key for n, key in enumerate(ranking.keys) if known[n] > 0 and key not in joined]
        for key in keys:
            position = holders.get(key)
            if position is None or position.size_lots * side < 0 or key[0] == FUND_ACCOUNT_ID:
                continue
            account = accounts[key[0]]
            if position.mode is ISOLATED:
                equity = position.bucket + position.size_lots * value_of_lot - position.entry_cost
            else:
                equity = pool_equity(account)
            if equity > 0:
                self._add(account, position, equity)

    def _add(self, account: Account, position: Position, equity: int) -> None:
        self.accounts.append(account)
        self.positions.append(position)
        self.parts.append(equity)
