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
    same order. A party that had no equity itself and is left without a position has its hole filled up in
    the same way.

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
    Leg,
    LiquidationResult,
    RankRow,
    SharerRow,
    Side,
)
from exchange.aggregate.account import BOTH, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.fills import realise
from exchange.aggregate.margin import survey, unrealised
from exchange.aggregate.market import Market
from exchange.aggregate.matching import cancel_all
from exchange.aggregate.ranking import Ranking, Sharers, rank, rank_row
from exchange.aggregate.turn import Turn
from exchange.aggregate.units import floor_div

# How many parties and cancelled orders of them one liquidation may have, so that its entry can be appended.
PARTIES_AND_ORDERS_MAX: Final = 1000
FOLLOWING_ROWS: Final = 10


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

    def take(self, party: Position, row: RankRow, lots: int) -> None:
        """Plan `lots` of a party; `row` has its figures."""
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
        # What parties of the position under way gave, and what it released from their buckets.
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
        part.take(other, rank_row(self.account, other), min(part.lots, abs(other.size_lots)))
        self._emit(part, DeleverageStep.OWN_LEG, None, 0, 0)

    def close(self, position: Position, share: int) -> LiquidationResult:
        """Close a position that owns `share` of its bucket's equity; return the last step needed."""
        self._released.clear()
        if position.mode is ISOLATED:
            share = self._against_own_leg(position, share)
        if self.account.account_id != FUND_ACCOUNT_ID:
            share = self._against_fund(position, share)
        if position.size_lots == 0:
            return LiquidationResult.DELEVERAGED
        ranking = position.market.rankings.get(other_side(position))
        if ranking is None:
            ranking = self._rank(position.market, other_side(position))
        part = _Part(position, share)
        asked = self._walk(part, ranking, ranking.asked, is_bounded=True)
        if part.parties:
            self._emit(part, DeleverageStep.RANKED, ranking, asked, ranking.emptied)
        if position.size_lots == 0:
            return LiquidationResult.DELEVERAGED
        if self.parties_left <= 0:
            return LiquidationResult.CONTINUES
        result = LiquidationResult.DELEVERAGED
        if part.share < 0:
            self.fill_up(self.account, position, -part.share, other_side(position), self._closed())
            result = LiquidationResult.SOCIALISED
        left_hole = self._at_mark(position, ranking, asked)
        if position.size_lots != 0 and self.parties_left > 0:
            # Whoever is left opened a position after the ranking was made.
            ranking = self._rank(position.market, other_side(position))
            left_hole = self._at_mark(position, ranking, 0) or left_hole
            assert position.size_lots == 0 or self.parties_left <= 0, "every lot has one on the other side"
        if left_hole:
            result = LiquidationResult.SOCIALISED
        return result if position.size_lots == 0 else LiquidationResult.CONTINUES

    def fill_up(
        self,
        account: Account,
        position: Position,
        missing: int,
        side: Side,
        closed: tuple[SharerRow, ...] = (),
    ) -> None:
        """Bring the bucket of a position from −`missing` to zero: by the fund, then a side of its market."""
        state, market = self.turn.state, position.market
        fund = state.accounts[FUND_ACCOUNT_ID]
        own = fund.position(market)
        from_allotment = 0
        if account is not fund:
            from_allotment = min(missing, max(0, own.bucket + min(0, unrealised(own))))
        from_wallet = min(missing - from_allotment, max(0, fund.wallet))
        rest = missing - from_allotment - from_wallet
        sharers = Sharers(state.accounts, market, side, closed)
        charged = min(rest, sharers.equity)
        self.turn.emit(
            LossSocialised(
                liquidation_id=self.liquidation_id,
                account_id=account.account_id,
                market=market.symbol,
                leg=position.leg,
                missing=missing,
                from_allotment=from_allotment,
                from_wallet=from_wallet,
                side=side,
                equity=sharers.equity,
                buckets=sharers.buckets,
                closed=closed,
                charged=charged,
                unpaid=rest - charged,
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
            part.take(party, row, lots)
            self._emit(part, step, None, 0, 0)
        return part.share

    def _at_mark(self, position: Position, ranking: Ranking, asked: int) -> bool:
        """Close at mark against the fund and those of a ranking; return whether a party left a hole."""
        part = _Part(position, 0)
        fund = self.turn.state.accounts[FUND_ACCOUNT_ID]
        own = fund.position(position.market)
        if position.size_lots * own.size_lots < 0:
            part.take(own, rank_row(fund, own), min(part.lots, abs(own.size_lots)))
        emptied = self._walk(part, ranking, ranking.emptied, is_bounded=False)
        if not part.parties:
            return False
        self._emit(part, DeleverageStep.AT_MARK, ranking, max(emptied, asked), emptied)
        left_hole = False
        for row in part.parties:
            account = self.turn.state.accounts[row.account_id]
            party = account.position(position.market, row.leg)
            missing = _hole(account, party)
            if missing > 0:
                left_hole = True
                self.fill_up(account, party, missing, other_side(position).opposite)
        return left_hole

    def _walk(self, part: _Part, ranking: Ranking, at: int, *, is_bounded: bool) -> int:
        """Plan parties in the order of the ranking from place `at`; return the place to go on from.

        That is behind all that can give no more: at mark those that are flat then, otherwise (`is_bounded`)
        also those whose equity is used up.
        """
        state, market = self.turn.state, part.position.market
        while part.lots and self.parties_left > 0 and at < len(ranking.rows):
            row = ranking.rows[at]
            party = market.holders.get((row.account_id, row.leg))
            if party is not None and party.size_lots * part.position.size_lots < 0:
                account = state.accounts[row.account_id]
                lots = min(part.lots, abs(party.size_lots))
                if is_bounded:
                    lots = min(lots, part.room(rank_row(account, party).equity))
                if lots:
                    part.take(party, row, lots)
                    orders = sum(each.order_count for each in account.positions_in(market))
                    self.parties_left -= 1 + orders
                if part.lots == 0 and lots < abs(party.size_lots):
                    return at
            at += 1
        return at

    def _rank(self, market: Market, side: Side) -> Ranking:
        """Put a side in order at this mark."""
        fresh = rank(self.turn.state.accounts, market, side)
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

    def _emit(
        self, part: _Part, step: DeleverageStep, ranking: Ranking | None, asked: int, emptied: int
    ) -> None:
        position = part.position
        market = position.market
        for row in part.parties:
            cancel_all(self.turn, self.turn.state.accounts[row.account_id], market, CloseReason.DELEVERAGED)
        size_lots = position.size_lots
        closed = abs(size_lots) - part.lots
        signed_lots = closed if size_lots > 0 else -closed
        following: list[RankRow] = []
        if ranking is not None:
            at = emptied if step is DeleverageStep.AT_MARK else asked
            last = part.parties[-1]
            following = ranking.rows[at : at + FOLLOWING_ROWS + 1]
            if following and (following[0].account_id, following[0].leg) == (last.account_id, last.leg):
                following = following[1:]
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
                following=tuple(following[:FOLLOWING_ROWS]),
                count=len(ranking.rows) if ranking is not None else 0,
                digest=ranking.digest if ranking is not None else b"",
                asked=asked,
                emptied=emptied,
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


def _hole(account: Account, position: Position) -> int:
    """Return what is missing in the bucket that a position stood on, 0 while a position stands on it."""
    if position.mode is ISOLATED:
        return max(0, -position.bucket) if position.size_lots == 0 else 0
    if any(each.size_lots for each in account.positions.values() if each.mode is CROSS):
        return 0
    return max(0, -account.wallet)
