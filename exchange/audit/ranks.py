"""Deleveraging, checked: the order of the other side made anew, and every party's part of what was closed.

The score of a position is (see DESIGN, waterfall):

    profit ratio × effective leverage    in profit
    profit ratio / effective leverage    otherwise

with profit ratio = uPnL / |entry cost| and effective leverage = notional / equity of its bucket, here as
fractions of quote. Ties go to the lower account, then the lower leg; positions whose bucket has no equity
come last; the fund is not in the order.
"""

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from itertools import islice
from math import ceil, floor

import msgspec

from events.events import DeleverageRanked, PositionDeleveraged
from events.values import ISOLATED, DeleveragedRow, DeleverageStep, Leg, RankRow, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.audit.facts import key_of, units_of, value_of, wealth_of

# What the hash of a ranking begins with, by the definition of `DeleverageRanked.digest`.
_HASH_DOMAIN = b"foldex ranking\x00"
_FLAT = -1
# How many of those who would have been next an event names.
_NEXT_ROWS = 10


class BreachError(Exception):
    """A liquidation is not what the rules make of it. `rule` is which of the four promises is broken."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(what)
        self.rule = rule


def require(holds: bool, what: str, rule: str = "orderly") -> None:
    """Raise `BreachError` unless something holds."""
    if not holds:
        raise BreachError(rule, what)


class Ranks:
    """One side of a market in its order, as this module makes it. `spent` are those that gave already.

    `known` is what the rules go by of each row: the equity of its bucket as ranked, after it gave or after it
    shared a loss (`is_shared`: what is left in proportion); `_FLAT` once its position is closed.
    """

    def __init__(self, rows: list[RankRow]) -> None:
        self.rows = rows
        self.digest = blake2b(_HASH_DOMAIN + msgspec.msgpack.encode(rows), digest_size=32).digest()
        self.spent: set[tuple[int, Leg]] = set()
        self.known = [max(0, row.equity) for row in rows]
        self.is_shared = False

    def note(self, state: Exchange, event: PositionDeleveraged) -> None:
        """Know of the parties of a step what they are behind it."""
        market = state.markets[event.market]
        for row in event.parties:
            if 0 <= row.place < len(self.rows):
                account = state.accounts[row.account_id]
                party = account.position(market, row.leg)
                self.known[row.place] = max(0, _equity(account, party)) if party.size_lots else _FLAT

    def share(self, charged: int, equity: int) -> None:
        """Know all rows as they are after they paid `charged` of `equity` together."""
        self.is_shared = True
        if charged:
            left = Fraction(equity - charged, equity)
            self.known = [floor(known * left) if known > 0 else known for known in self.known]

    def following(self, place: int, equity: int) -> tuple[RankRow, ...]:
        """Return the next rows behind a place of which so much equity is known."""
        rest = range(place + 1, len(self.rows))
        return tuple(self.rows[n] for n in islice((n for n in rest if self.known[n] >= equity), _NEXT_ROWS))


def rank_anew(state: Exchange, market: Market, side: Side) -> Ranks:
    """Put the open positions of a side into the order in which they are to be deleveraged."""
    scored = []
    for (account_id, leg), position in market.holders.items():
        if account_id == FUND_ACCOUNT_ID or position.size_lots * side < 0:
            continue
        row = _row(state.accounts[account_id], position)
        scored.append((row.equity <= 0, -_score(row), account_id, int(leg), row))
    return Ranks([row for *_, row in sorted(scored, key=lambda each: each[:4])])


def check_ranking(event: DeleverageRanked, ranks: Ranks) -> None:
    """Compare what the log says about an order with the one made here."""
    require(event.count == len(ranks.rows), f"{event.count} rows were ranked, there are {len(ranks.rows)}")
    require(event.digest == ranks.digest, "the ranking is another than that of the positions at this mark")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a row is ranked by, exactly."""

    profit_ratio: Fraction
    leverage: Fraction
    score: Fraction


def score_of(row: RankRow) -> Score | None:
    """Return the score of a row; None without equity: such rows come last.

    Source: Binance, "What Is Auto-Deleveraging (ADL) and How Does It Work".
    """
    if row.equity <= 0:
        return None
    profit_ratio = Fraction(row.unrealised, abs(row.entry_cost)) if row.entry_cost else Fraction(0)
    leverage = Fraction(row.notional, row.equity)
    score = profit_ratio * leverage if row.unrealised > 0 else profit_ratio / leverage
    return Score(profit_ratio=profit_ratio, leverage=leverage, score=score)


class Part:
    """What is left of a position under deleveraging, and of its share of the equity (money units)."""

    def __init__(self, lots: int, share: int) -> None:
        self.lots = lots
        self.share = share

    def room(self, equity: int) -> int:
        """Return how many lots a bucket with this equity can take before it is empty."""
        if equity < 0:
            return 0
        return self.lots if self.share >= 0 else floor(Fraction(equity * self.lots, -self.share))

    def give(self, lots: int) -> int:
        """Take lots away; return what of the share goes with them."""
        gained = self.share if lots == self.lots else floor(Fraction(self.share * lots, self.lots))
        self.lots -= lots
        self.share -= gained
        return gained


def check_parties(
    state: Exchange, event: PositionDeleveraged, position: Position, part: Part, ranks: Ranks | None
) -> None:
    """Check every party of a step, and that nobody was passed over; `part` is moved on.

    `ranks` is None where the order was made before the entries that are looked at.
    """
    market = position.market
    is_bounded = event.step is not DeleverageStep.AT_MARK
    closed = 0
    place = -1
    for row in event.parties:
        account = state.accounts[row.account_id]
        party = account.position(market, row.leg)
        name = f"account {row.account_id} {row.leg.name}"
        require(party.size_lots * position.size_lots < 0, f"{name} is not on the other side")
        if row.place >= 0:
            require(row.place > place, f"{name} comes out of its turn")
            if ranks is not None:
                _check_place(row, ranks, name)
                if is_bounded:
                    _check_passed_over(state, position, ranks, range(place + 1, row.place), part)
                ranks.spent.add((row.account_id, row.leg))
            place = row.place
        lots = min(part.lots, abs(party.size_lots))
        # Two legs on one pool are netted as they are: no equity changes hands.
        is_netting = event.step is DeleverageStep.OWN_LEG and position.mode is not ISOLATED
        if is_bounded and not is_netting:
            lots = min(lots, part.room(_equity(account, party)))
        require(row.quantity_lots == lots, f"{name} gave {row.quantity_lots} lots, its part is {lots}")
        gained = part.give(lots)
        signed_lots = lots if position.size_lots > 0 else -lots
        value = signed_lots * value_of(position) // position.size_lots - gained
        require(row.value == value, f"{name} paid {row.value}, at the bankruptcy price it is {value}")
        check_realised(party, signed_lots, row.value, row.realised, name)
        _check_released(row, party)
        closed += signed_lots
    require(event.size_lots == closed, f"{event.size_lots} lots were closed, the parties gave {closed}")
    require(event.value == sum(row.value for row in event.parties), "the parties paid another sum")
    _check_following(event, ranks, place)
    check_realised(position, -closed, -event.value, event.realised, "the position")


def check_realised(position: Position, signed_lots: int, value: int, realised: int, name: str) -> None:
    """Check the profit that trading lots for a value realises: only the part that closes does.

    It takes ceil(entry cost × closed / size) of the cost with it; of a flip, the closing part bears its share
    of the value.
    """
    size, made = position.size_lots, 0
    if size * signed_lots < 0:
        closed = min(abs(size), abs(signed_lots))
        cost = ceil(Fraction(position.entry_cost * closed, abs(size)))
        made = -ceil(Fraction(value * closed, abs(signed_lots))) - cost
    require(realised == made, f"{name} realised {realised}, it comes to {made}")


def _check_released(row: DeleveragedRow, party: Position) -> None:
    """Check that the closed part's share of an isolated bucket, with its profit, went to the wallet."""
    released = 0
    if party.mode is ISOLATED and row.account_id != FUND_ACCOUNT_ID:
        share = floor(Fraction(party.bucket * row.quantity_lots, abs(party.size_lots)))
        released = max(0, share + row.realised)
    require(row.released == released, f"account {row.account_id}: {row.released} released, not {released}")


def _check_place(row: DeleveragedRow, ranks: Ranks, name: str) -> None:
    place = row.place
    require(place < len(ranks.rows), f"{name} has place {place} of {len(ranks.rows)}")
    ranked = ranks.rows[place]
    same = all(getattr(row, field) == getattr(ranked, field) for field in RankRow.__struct_fields__)
    require(same, f"place {place} of the ranking is account {ranked.account_id}, or has other figures")


def _check_following(event: PositionDeleveraged, ranks: Ranks | None, place: int) -> None:
    """Check which ranking a step says it went by, and who would have been next behind its last party."""
    count, digest = 0, b""
    following: tuple[RankRow, ...] = ()
    if event.step in (DeleverageStep.RANKED, DeleverageStep.AT_MARK):
        if ranks is None:
            return
        count, digest = len(ranks.rows), ranks.digest
        following = ranks.following(place, 0 if event.step is DeleverageStep.AT_MARK else 1)
    require((event.count, event.digest) == (count, digest), "it names another ranking")
    said, made = (
        [f"{row.account_id} {row.leg.name}" for row in rows] for rows in (event.following, following)
    )
    what = f"next are {', '.join(said) or 'none'}; by the ranking {', '.join(made) or 'none'}"
    require(said == made, what)
    require(event.following == following, "those who are next have other figures in the ranking")


def _check_passed_over(state: Exchange, position: Position, ranks: Ranks, places: range, part: Part) -> None:
    """Nobody before a party could have given a lot: by its figures in the ranking and as it is now."""
    if ranks.is_shared:
        return
    for place in places:
        row = ranks.rows[place]
        party = position.market.holders.get((row.account_id, row.leg))
        if party is None or party.size_lots * position.size_lots > 0:
            continue
        if row.equity <= 0 or (row.account_id, row.leg) in ranks.spent:
            continue
        equity = min(row.equity, _equity(state.accounts[row.account_id], party))
        require(
            part.room(equity) == 0, f"account {row.account_id} at place {place} was passed over with equity"
        )


def _equity(account: Account, position: Position) -> int:
    return units_of(wealth_of(account).bucket_equity(key_of(position)))


def _row(account: Account, position: Position) -> RankRow:
    wealth = wealth_of(account)
    holding = wealth.holdings[key_of(position)]
    return RankRow(
        account_id=account.account_id,
        leg=position.leg,
        unrealised=units_of(holding.profit),
        entry_cost=position.entry_cost,
        notional=units_of(holding.notional),
        equity=units_of(wealth.bucket_equity(key_of(position))),
    )


def _score(row: RankRow) -> Fraction:
    score = score_of(row)
    return Fraction(0) if score is None else score.score
