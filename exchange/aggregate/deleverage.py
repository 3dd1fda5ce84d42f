"""Deleveraging: positions of the other side are closed against one that nobody else can bear.

The bankruptcy price is a fraction of ticks, so all of it is counted in money. The position's *share* is the
equity that belongs to it, negative once the mark is past the bankruptcy price. Closing q of its r lots at
that price hands floor(share × q / r) to whoever takes them, and the last part takes the rest: the position
ends with exactly nothing of its share left, whatever the parts were. So a party gains or loses its part of
the share against the mark, and can take

    q = floor(equity × r / −share)     lots of a position with share < 0 before its own bucket is empty.

 1. The account's own opposite leg. Two legs on the cross pool are netted before anything is shared out.
 2. The fund's opposite position.
 3. The other side's positions in the order of `ranking`, each as far as its bucket's equity goes.
 4. Nobody can take more at that price: what is missing is filled up by the fund down to zero, then by the
    buckets of the other side pro rata, those just closed included, and the rest is closed at mark, in the
    same order. Parties that had no equity themselves and are left without a position have their holes filled
    up in the same way, all at once.

The open orders of a party in the market are cancelled first: they were made for a position that is no more.
One liquidation uses as many parties and cancels as many orders as an entry can hold; the rest of the position
stands and keeps the rest of its share until the next request.

Once the other side's money was withdrawn there may be nobody to pay. Then the fund's wallet goes below zero,
and the event says by how much; deposits to the fund fill it again.
"""

from typing import Final

from events.events import DeleverageRanked, LossSocialised, PositionDeleveraged
from events.values import (
    BUY,
    CROSS,
    ISOLATED,
    SELL,
    CloseReason,
    DeleveragedRow,
    DeleverageStep,
    HoleRow,
    Leg,
    LiquidationResult,
    RankRow,
    SharerRow,
    Side,
)
from exchange.aggregate.account import BOTH, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.fills import realise
from exchange.aggregate.margin import bucket_equity, survey, unrealised
from exchange.aggregate.market import Market
from exchange.aggregate.matching import cancel_all
from exchange.aggregate.ranking import Ranking, Shares, rank, rank_row
from exchange.aggregate.turn import Turn
from exchange.aggregate.units import ceil_div, floor_div

# How many parties and cancelled orders of them one liquidation may have, so that its entry can be appended.
PARTIES_AND_ORDERS_MAX = 1000
FOLLOWING_ROWS: Final = 10
UNRANKED: Final = -1
# So many rows of which more was known than they have, and a ranking is out of date.
ROWS_IN_VAIN_MAX = 1000


class _Part:
    """What is planned in one step: the parties, and what of the position and its share is left after them."""

    __slots__ = ("lots", "parties", "position", "share", "value")

    def __init__(self, position: Position, share: int) -> None:
        self.position = position
        self.share = share
        self.lots = abs(position.size_lots)
        self.value = 0
        self.parties: list[DeleveragedRow] = []

    def room(self, equity: int) -> int:
        """Return how many lots a bucket with this equity can take before it is empty."""
        if equity < 0:
            return 0
        if self.share >= 0:
            return self.lots
        return floor_div(equity * self.lots, -self.share)

    def need(self) -> int:
        """Return the equity, at least 1, with which a bucket can take one lot."""
        if self.share >= 0:
            return 1
        return ceil_div(-self.share, self.lots)

    def take(self, party: Position, row: RankRow, place: int, lots: int) -> None:
        """Plan `lots` of a party; `row` has its figures, and `place` is that in the ranking or `UNRANKED`."""
        gained = self.share if lots == self.lots else floor_div(self.share * lots, self.lots)
        market = party.market
        signed_lots = lots if self.position.size_lots > 0 else -lots
        value = signed_lots * market.mark_ticks * market.unit - gained
        realised = realise(party.size_lots, party.entry_cost, signed_lots, value)
        released = 0
        if party.mode is ISOLATED and row.account_id != FUND_ACCOUNT_ID:
            released = max(0, floor_div(party.bucket * lots, abs(party.size_lots)) + realised)
        self.lots -= lots
        self.share -= gained
        self.value += value
        self.parties.append(
            DeleveragedRow(
                account_id=row.account_id,
                leg=row.leg,
                unrealised=row.unrealised,
                entry_cost=row.entry_cost,
                notional=row.notional,
                equity=row.equity,
                place=place,
                quantity_lots=lots,
                value=value,
                realised=realised,
                released=released,
            )
        )


class Deleveraging:
    """The end of one liquidation: closes positions of an account against the other side.

    `parties_left` is how many more parties and orders of theirs may be used.
    """

    __slots__ = ("_released", "account", "liquidation_id", "parties_left", "turn")

    def __init__(self, turn: Turn, account: Account, liquidation_id: int) -> None:
        self.turn = turn
        self.account = account
        self.liquidation_id = liquidation_id
        self.parties_left = PARTIES_AND_ORDERS_MAX
        # The parties of the position under way, and what each of them released from its bucket to its wallet.
        self._released: list[tuple[Account, Position, int]] = []

    def net_legs(self, position: Position) -> None:
        """Close both legs of a hedge on the cross pool against each other, as far as they match, at mark.

        The pool is worth the same after it, and the shares of what stays open are to be computed anew.
        """
        assert position.mode is CROSS, self.account.account_id
        other = self._opposite_leg(position)
        if other is None or position.size_lots == 0:
            return
        part = _Part(position, 0)
        part.take(other, rank_row(self.account, other), UNRANKED, min(part.lots, abs(other.size_lots)))
        self._emit(part, DeleverageStep.OWN_LEG, None)

    def close(self, position: Position, share: int) -> LiquidationResult:
        """Close a position that owns `share` of its bucket's equity; return the last step needed."""
        self._released.clear()
        if position.mode is ISOLATED:
            share = self._against_own_leg(position, share)
        if self.account.account_id != FUND_ACCOUNT_ID:
            share = self._against_fund(position, share)
        if position.size_lots == 0:
            return LiquidationResult.DELEVERAGED
        side = other_side(position)
        share = self._at_bankruptcy(position, share, side)
        if position.size_lots == 0:
            return LiquidationResult.DELEVERAGED
        if self.parties_left <= 0:
            return LiquidationResult.CONTINUES
        result = LiquidationResult.DELEVERAGED
        if share < 0:
            hole = HoleRow(account_id=self.account.account_id, leg=position.leg, missing=-share)
            self._fill_up(position, (hole,), side, self._closed())
            result = LiquidationResult.SOCIALISED
        holes = self._at_mark(position, side)
        if holes:
            self._fill_up(position, holes, side.opposite, ())
            result = LiquidationResult.SOCIALISED
        return result if position.size_lots == 0 else LiquidationResult.CONTINUES

    def fill_up(self, account: Account, position: Position, missing: int, side: Side) -> None:
        """Bring the bucket of a position from −`missing` to zero: by the fund, then a side of its market."""
        hole = HoleRow(account_id=account.account_id, leg=position.leg, missing=missing)
        self._fill_up(position, (hole,), side, ())

    def _fill_up(
        self, position: Position, holes: tuple[HoleRow, ...], side: Side, closed: tuple[SharerRow, ...]
    ) -> None:
        """Bring buckets up to zero that stand in the market of the position under way."""
        state, market = self.turn.state, position.market
        missing = sum([hole.missing for hole in holes])
        fund = state.accounts[FUND_ACCOUNT_ID]
        own = fund.position(market)
        # Nothing where one of the holes is the fund's own.
        from_allotment = min(missing, max(0, own.bucket + min(0, unrealised(own))))
        from_wallet = min(missing - from_allotment, max(0, fund.wallet))
        rest = missing - from_allotment - from_wallet
        if rest and side not in market.rankings:
            self._rank(market, side)
        shares = Shares(state.accounts, market, side, closed, rest)
        state.waterfall.foresee_shares(shares)
        self.turn.emit(
            LossSocialised(
                liquidation_id=self.liquidation_id,
                account_id=self.account.account_id,
                market=market.symbol,
                leg=position.leg,
                holes=holes,
                missing=missing,
                from_allotment=from_allotment,
                from_wallet=from_wallet,
                side=side,
                equity=shares.equity,
                buckets=shares.buckets,
                closed=closed,
                charged=shares.charged,
                residue=shares.residue,
                unpaid=rest - shares.charged,
            )
        )

    def _closed(self) -> tuple[SharerRow, ...]:
        """Return the parties that were closed whole and still have something that a loss can reach."""
        rows: list[SharerRow] = []
        for account, party, released in self._released:
            equity = survey(account).equity
            if party.mode is ISOLATED:
                equity = min(equity, released)
            if party.size_lots == 0 and equity > 0:
                rows.append(SharerRow(account_id=account.account_id, leg=party.leg, equity=equity))
        return tuple(rows)

    def _against_own_leg(self, position: Position, share: int) -> int:
        other = self._opposite_leg(position)
        if other is None:
            return share
        return self._against(position, share, self.account, other, DeleverageStep.OWN_LEG)

    def _against_fund(self, position: Position, share: int) -> int:
        fund = self.turn.state.accounts[FUND_ACCOUNT_ID]
        own = fund.position(position.market)
        if position.size_lots * own.size_lots >= 0:
            return share
        return self._against(position, share, fund, own, DeleverageStep.FUND)

    def _against(
        self, position: Position, share: int, account: Account, party: Position, step: DeleverageStep
    ) -> int:
        """Close against one position as far as its equity goes; return what is left of the share."""
        part = _Part(position, share)
        row = rank_row(account, party)
        lots = min(part.lots, abs(party.size_lots), part.room(row.equity))
        if lots:
            part.take(party, row, UNRANKED, lots)
            self._emit(part, step, None)
        return part.share

    def _at_bankruptcy(self, position: Position, share: int, side: Side) -> int:
        """Close against those who can bear it at the bankruptcy price; return what is left of the share."""
        ranking = position.market.rankings.get(side)
        if ranking is None:
            ranking = self._rank(position.market, side)
        while True:
            part = _Part(position, share)
            is_outdated = self._walk(part, ranking, at_mark=False)
            if part.parties:
                self._emit(part, DeleverageStep.RANKED, ranking)
            share = part.share
            if not is_outdated:
                return share
            ranking = self._rank(position.market, side)

    def _at_mark(self, position: Position, side: Side) -> tuple[HoleRow, ...]:
        """Close at mark against the fund and a side; return the holes that parties left.

        Where the ranking is used up, whoever is left opened a position after it was made.
        """
        market, accounts = position.market, self.turn.state.accounts
        fund = accounts[FUND_ACCOUNT_ID]
        ranking = market.rankings[side]
        is_new = False
        holes: list[HoleRow] = []
        while True:
            part = _Part(position, 0)
            own = fund.position(market)
            if position.size_lots * own.size_lots < 0:
                part.take(own, rank_row(fund, own), UNRANKED, min(part.lots, abs(own.size_lots)))
            self._walk(part, ranking, at_mark=True)
            if part.parties:
                self._emit(part, DeleverageStep.AT_MARK, ranking)
            for row in part.parties:
                account = accounts[row.account_id]
                missing = _hole(account, account.position(market, row.leg))
                if missing > 0:
                    holes.append(HoleRow(account_id=row.account_id, leg=row.leg, missing=missing))
            if position.size_lots == 0 or self.parties_left <= 0:
                return tuple(holes)
            assert not is_new, "every lot has one on the other side"
            ranking = self._rank(market, side)
            is_new = True

    def _walk(self, part: _Part, ranking: Ranking, *, at_mark: bool) -> bool:
        """Plan parties in the order of the ranking, at mark or each as far as its equity goes.

        Return whether it was given up: too many rows could not give what was known of them.
        """
        state, market = self.turn.state, part.position.market
        in_vain = 0
        place = ranking.next_with(0 if at_mark else part.need(), 0)
        while place >= 0 and part.lots and self.parties_left > 0 and in_vain < ROWS_IN_VAIN_MAX:
            row = ranking.rows[place]
            party = market.holders.get((row.account_id, row.leg))
            lots = 0
            if party is not None and party.size_lots * part.position.size_lots < 0:
                account = state.accounts[row.account_id]
                lots = min(part.lots, abs(party.size_lots))
                if not at_mark:
                    lots = min(lots, part.room(bucket_equity(account, party)))
            if party is None or lots == 0:
                in_vain += 1
            else:
                part.take(party, row, place, lots)
                self.parties_left -= 1 + sum([each.order_count for each in account.positions_in(market)])
            if part.lots:
                place = ranking.next_with(0 if at_mark else part.need(), place + 1)
        return in_vain == ROWS_IN_VAIN_MAX

    def _rank(self, market: Market, side: Side) -> Ranking:
        """Put a side in order at this mark."""
        fresh = rank(self.turn.state.accounts, market, side)
        self.turn.state.waterfall.foresee_ranking(fresh)
        self.turn.emit(
            DeleverageRanked(
                market=market.symbol,
                side=side,
                mark_ticks=market.mark_ticks,
                count=len(fresh.rows),
                digest=fresh.digest,
            )
        )
        return market.rankings[side]

    def _emit(self, part: _Part, step: DeleverageStep, ranking: Ranking | None) -> None:
        position = part.position
        market = position.market
        for row in part.parties:
            cancel_all(self.turn, self.turn.state.accounts[row.account_id], market, CloseReason.DELEVERAGED)
        size_lots = position.size_lots
        closed = abs(size_lots) - part.lots
        signed_lots = closed if size_lots > 0 else -closed
        for row in part.parties:
            if row.account_id != FUND_ACCOUNT_ID:
                account = self.turn.state.accounts[row.account_id]
                self._released.append((account, account.position(market, row.leg), row.released))
        self.turn.emit(
            PositionDeleveraged(
                liquidation_id=self.liquidation_id,
                account_id=self.account.account_id,
                market=market.symbol,
                leg=position.leg,
                step=step,
                mark_ticks=market.mark_ticks,
                size_lots=signed_lots,
                value=part.value,
                realised=realise(size_lots, position.entry_cost, -signed_lots, -part.value),
                parties=tuple(part.parties),
                following=_following(part, ranking, step) if ranking is not None else (),
                count=len(ranking.rows) if ranking is not None else 0,
                digest=ranking.digest if ranking is not None else b"",
            )
        )

    def _opposite_leg(self, position: Position) -> Position | None:
        """Return the account's open position on the other side of the same market."""
        if position.leg is BOTH:
            return None
        other = self.account.position(position.market, Leg.SHORT if position.leg is Leg.LONG else Leg.LONG)
        return other if other.size_lots != 0 else None


def other_side(position: Position) -> Side:
    """Return the side of the positions against which an open one can be closed."""
    return SELL if position.size_lots > 0 else BUY


def _following(part: _Part, ranking: Ranking, step: DeleverageStep) -> tuple[RankRow, ...]:
    """Return the rows that would have been next."""
    equity = 0 if step is DeleverageStep.AT_MARK else 1
    found: list[RankRow] = []
    place = ranking.next_with(equity, part.parties[-1].place + 1)
    while place >= 0 and len(found) < FOLLOWING_ROWS:
        found.append(ranking.rows[place])
        place = ranking.next_with(equity, place + 1)
    return tuple(found)


def _hole(account: Account, position: Position) -> int:
    """Return what is missing in the bucket that a position stood on, 0 while a position stands on it."""
    if position.mode is ISOLATED:
        return max(0, -position.bucket) if position.size_lots == 0 else 0
    if any(each.size_lots for each in account.positions.values() if each.mode is CROSS):
        return 0
    return max(0, -account.wallet)
