"""What the events of the waterfall change: fees, takeovers, deleveraging, shared losses. For `apply` alone.

Each event names every amount; what is asserted is that it fits the state it meets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.events import (
    DeleverageRanked,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    PositionDeleveraged,
    PositionTakenOver,
)
from events.values import BUY, ISOLATED, SELL
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import bucket_equity
from exchange.aggregate.market import Market
from exchange.aggregate.posting import credit, hold, long_lots, lots_of, move_margin, post, worth, worth_of
from exchange.aggregate.ranking import Ranking, Shares, rank

if TYPE_CHECKING:
    from exchange.aggregate.state import Exchange


class Waterfall:
    """Applies the events of liquidations to `state`. It keeps nothing of its own."""

    def __init__(self, state: Exchange) -> None:
        self._state = state
        self._foreseen_ranking: Ranking | None = None
        self._foreseen_shares: Shares | None = None

    def liquidation_started(self, event: LiquidationStarted) -> None:
        """A liquidation has its number."""
        self._state.liquidation_count += 1
        assert event.liquidation_id == self._state.liquidation_count, event.liquidation_id

    def liquidation_fee(self, event: LiquidationFeeCharged) -> None:
        """The bucket pays the fund's allotment."""
        market = self._state.markets[event.market]
        account = self._state.accounts[event.account_id]
        position = account.position(market, event.leg)
        if position.mode is ISOLATED:
            position.bucket -= event.amount
        else:
            account.wallet -= event.amount
        if position.size_lots:
            position.break_even_cost += event.amount
        self._state.accounts[FUND_ACCOUNT_ID].stored_position(market).bucket += event.amount

    def taken_over(self, event: PositionTakenOver) -> None:
        """The fund takes a whole position, in money."""
        market = self._state.markets[event.market]
        account = self._state.accounts[event.account_id]
        size_lots = event.size_lots
        position = account.position(market, event.leg)
        assert position.size_lots == size_lots, event.account_id
        assert position.entry_cost == event.entry_cost, event.account_id
        price_paid = event.entry_cost + event.realised
        fund = self._state.accounts[FUND_ACCOUNT_ID]
        taking = fund.stored_position(market)
        worth_before = worth_of(account, position, fund, taking)
        lots_before = lots_of(position, taking)
        market.open_interest_lots -= long_lots(position) + long_lots(taking)
        post(account, position, -size_lots, -price_paid, event.realised, 0)
        post(fund, taking, size_lots, price_paid, event.fund_realised, 0)
        self._state.money_gap += worth_of(account, position, fund, taking) - worth_before
        if lots_of(position, taking) != lots_before:
            self._state.note_lots_gap(market, lots_of(position, taking) - lots_before)
        market.open_interest_lots += long_lots(position) + long_lots(taking)
        hold(market, account, position)
        hold(market, fund, taking)

    def foresee_ranking(self, ranking: Ranking) -> None:
        """Take over what was computed from this very state for the event emitted next.

        That is no state, and only saves time: without it `apply` computes the same.
        """
        self._foreseen_ranking = ranking

    def foresee_shares(self, shares: Shares) -> None:
        """Take over what was computed from this very state for the event emitted next, as above."""
        self._foreseen_shares = shares

    def deleverage_ranked(self, event: DeleverageRanked) -> None:
        """The ranking stands until the market's next mark."""
        market = self._state.markets[event.market]
        ranking, self._foreseen_ranking = self._foreseen_ranking, None
        if ranking is None:
            ranking = rank(self._state.accounts, market, event.side)
        assert event.digest == ranking.digest, event.market
        assert event.count == len(ranking.rows), event.market
        market.rankings[event.side] = ranking

    def deleveraged(self, event: PositionDeleveraged) -> None:
        """Positions close against each other, quantity for quantity."""
        market = self._state.markets[event.market]
        account = self._state.accounts[event.account_id]
        position = account.position(market, event.leg)
        ranking = market.rankings.get(SELL if event.size_lots > 0 else BUY)
        lots_left, value_left = event.size_lots, event.value
        self._hand_over(market, account, position, -event.size_lots, -event.value, event.realised)
        for row in event.parties:
            party = self._state.accounts[row.account_id]
            giving = party.position(market, row.leg)
            signed_lots = row.quantity_lots if event.size_lots > 0 else -row.quantity_lots
            lots_left -= signed_lots
            value_left -= row.value
            self._hand_over(market, party, giving, signed_lots, row.value, row.realised)
            if row.released:
                move_margin(party, giving, -row.released)
            if row.place >= 0:
                assert ranking is not None, event.market
                ranking.note(row.place, giving, bucket_equity(party, giving))
        assert (lots_left, value_left) == (0, 0), event.liquidation_id

    def _hand_over(
        self, market: Market, account: Account, position: Position, signed_lots: int, cost: int, realised: int
    ) -> None:
        """Let a position trade without a counterparty of its own; all gains together add up to nothing."""
        worth_before, lots_before = worth(account, position), position.size_lots
        market.open_interest_lots -= long_lots(position)
        post(account, position, signed_lots, cost, realised, 0)
        market.open_interest_lots += long_lots(position)
        hold(market, account, position)
        self._state.money_gap += worth(account, position) - worth_before
        self._state.note_lots_gap(market, position.size_lots - lots_before)

    def loss_socialised(self, event: LossSocialised) -> None:
        """Buckets below zero are filled up, by the fund and by the other side."""
        market = self._state.markets[event.market]
        shares, self._foreseen_shares = self._foreseen_shares, None
        if shares is None:
            rest = event.missing - event.from_allotment - event.from_wallet
            shares = Shares(self._state.accounts, market, event.side, event.closed, rest)
        assert event.equity == shares.equity, (event.equity, shares.equity)
        assert (event.charged, event.residue) == (shares.charged, shares.residue), event.liquidation_id
        self._state.money_gap += event.missing + event.residue
        self._state.money_gap -= event.from_allotment + event.from_wallet + event.unpaid
        for sharer, sharing, amount in zip(shares.accounts, shares.positions, shares.parts, strict=True):
            self._state.money_gap -= amount
            if sharing.mode is ISOLATED and sharing.size_lots:
                sharing.bucket -= amount
            else:  # a pool, or a bucket that was released
                sharer.wallet -= amount
        fund = self._state.accounts[FUND_ACCOUNT_ID]
        fund.stored_position(market).bucket += event.residue - event.from_allotment
        fund.wallet -= event.from_wallet + event.unpaid
        missing = event.missing
        for hole in event.holes:
            account = self._state.accounts[hole.account_id]
            credit(account, account.position(market, hole.leg), hole.missing)
            missing -= hole.missing
        assert missing == 0, event.liquidation_id
        ranking = market.rankings.get(event.side)
        if ranking is not None and event.charged:
            ranking.share(event.charged, event.equity)

    def liquidation_finished(self, event: LiquidationFinished) -> None:
        """What is left of a closed isolated bucket goes back to the wallet."""
        if event.released:
            account = self._state.accounts[event.account_id]
            position = account.position(self._state.markets[event.market], event.leg)
            move_margin(account, position, -event.released)
