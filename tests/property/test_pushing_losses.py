"""Nobody can push a loss onto the insurance fund by trading far from the mark, with himself or with others.

One owner has two accounts, a market maker stands by. They trade at prices up to half the mark away, in both
margin modes, while the mark moves both ways and liquidations follow. After every single fill both sides are
counted from positions in exact fractions, by nothing but the definitions. So are they after every
liquidation: with a fund that is soon spent it ends in deleveraging and shared losses, and the owner may be
better off by that only as far as the mark had left one of his buckets below zero.
"""

import os
from fractions import Fraction
from random import Random

import pytest

from events.commands import (
    AmendOrder,
    Deposit,
    Liquidate,
    PlaceOrder,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    Withdraw,
)
from events.events import (
    Event,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import (
    IndexSource,
    LiquidationResult,
    MarginMode,
    MarketSpec,
    OrderType,
    SelfTrade,
    Side,
    TimeInForce,
)
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import survey
from exchange.aggregate.state import Exchange
from tests.venue import Venue

STEPS = int(os.environ.get("FOLDEX_PUSHING_STEPS", "2500"))
SEEDS = 4
SYMBOLS = ("BTCUSDT", "ETHUSDT")
ONE = 10**8
FAR = Fraction(2, 100)


def value(position: Position, lots: int) -> Fraction:
    """Return what lots are worth at mark, signed, in money units."""
    spec = position.market.spec
    return Fraction(lots * position.market.mark_ticks * spec.tick_size * spec.lot_size, ONE)


def unrealised(position: Position) -> Fraction:
    """Return the profit of a position at mark."""
    return value(position, position.size_lots) - position.entry_cost


def maintenance(position: Position) -> Fraction:
    """Return the maintenance margin, bracket by bracket: each rate holds for its slice of the notional."""
    left = abs(value(position, position.size_lots))
    spec: MarketSpec = position.market.spec
    total, floor = Fraction(0), 0
    for n, bracket in enumerate(spec.brackets):
        is_last = n == len(spec.brackets) - 1
        part = left if is_last else min(left, Fraction(bracket.cap - floor))
        total += part * Fraction(bracket.maintenance_rate, ONE)
        left -= part
        floor = bracket.cap
    return total


class Standing:
    """An account at a moment: its pool's equity and needs, and each isolated position's equity."""

    def __init__(self, account: Account) -> None:
        crossed = [p for p in account.positions.values() if p.mode is MarginMode.CROSS]
        self.pool = account.wallet + sum((unrealised(p) for p in crossed), Fraction(0))
        self.pool_maintenance = sum((maintenance(p) for p in crossed), Fraction(0))
        self.pool_initial = sum((abs(value(p, p.size_lots)) / p.leverage for p in crossed), Fraction(0))
        self.sizes = {key: p.size_lots for key, p in account.positions.items()}
        self.isolated = {
            key: p.bucket + unrealised(p)
            for key, p in account.positions.items()
            if p.mode is MarginMode.ISOLATED
        }


def fund_equity(state: Exchange) -> Fraction:
    """Return what the insurance fund is worth at mark."""
    fund = state.accounts[FUND_ACCOUNT_ID]
    return fund.wallet + sum((p.bucket + unrealised(p) for p in fund.positions.values()), Fraction(0))


def worth(account: Account) -> Fraction:
    """Return what an account is worth at mark, buckets below zero included."""
    return account.wallet + sum((p.bucket + unrealised(p) for p in account.positions.values()), Fraction(0))


def hole(account: Account) -> Fraction:
    """Return what is missing in an account's buckets, each for itself: what its owner cannot lose."""
    standing = Standing(account)
    return sum(
        (max(Fraction(0), -equity) for equity in (standing.pool, *standing.isolated.values())), Fraction(0)
    )


class Watch:
    """A second state, folded event by event from the venue's log, that is counted after every fill."""

    def __init__(self) -> None:
        self.state = Exchange()
        self.owned: list[int] = []
        self.worth_before = Fraction(0)
        self.gain_max: Fraction | None = None
        self.deleveraged = 0
        self.socialised = 0
        self.far_fills = 0
        self.fills = 0
        self.liquidations = 0
        # What the mark had left below zero: the bucket under liquidation, and those closed against it.
        self.holes: dict[tuple[int, str], Fraction] = {}

    def follow(self, groups: list[list[Event]]) -> None:
        """Fold the events of a frame and check each fill directly after it."""
        for event in (event for group in groups for event in group):
            if isinstance(event, TradeExecuted):
                self._follow_trade(event)
                continue
            if isinstance(event, PositionTakenOver | PositionDeleveraged | LossSocialised):
                self._follow_closing(event)
                continue
            self.state.apply(event)
            if isinstance(event, LiquidationStarted):
                self.liquidations += 1
                self.holes = {(event.account_id, event.market): max(Fraction(0), Fraction(-event.equity))}
                self.gain_max = None
            elif isinstance(event, LiquidationFinished):
                self._follow_finish(event)

    def _follow_closing(self, event: PositionTakenOver | PositionDeleveraged | LossSocialised) -> None:
        """Note what the owner had and lacked before the first, and see that no party is ruined."""
        accounts = self.state.accounts
        if self.gain_max is None:
            self.worth_before = self._owners_worth()
            self.gain_max = sum((hole(accounts[account_id]) for account_id in self.owned), Fraction(0))
            if event.account_id not in self.owned:
                self.gain_max += max(Fraction(0), self._bucket(event.account_id, event.market))
        parties = event.parties if isinstance(event, PositionDeleveraged) else ()
        before = [self._bucket(row.account_id, event.market) for row in parties]
        self.state.apply(event)
        for row, equity in zip(parties, before, strict=True):
            self.holes.setdefault((row.account_id, event.market), max(Fraction(0), -equity))
            assert equity < 0 or self._bucket(row.account_id, event.market) >= 0, "a party was ruined"
        self.deleveraged += len(parties)
        self.socialised += isinstance(event, LossSocialised)

    def _follow_finish(self, event: LiquidationFinished) -> None:
        lost = event.fund_before - event.fund_after
        assert lost <= sum(self.holes.values()), "the fund lost more than the mark had left below zero"
        if self.gain_max is not None:
            assert self._owners_worth() - self.worth_before <= self.gain_max, "the owner won by being closed"
        if event.result < LiquidationResult.UNBORNE and event.account_id != FUND_ACCOUNT_ID:
            assert self._bucket(event.account_id, event.market) >= 0, "a bucket below zero"

    def _owners_worth(self) -> Fraction:
        return sum((worth(self.state.accounts[account_id]) for account_id in self.owned), Fraction(0))

    def _bucket(self, account_id: int, symbol: str) -> Fraction:
        """Return the equity of the bucket of an account's position in a market, "": of its pool."""
        account = self.state.accounts[account_id]
        standing = Standing(account)
        return standing.isolated.get(symbol, standing.pool)

    def _follow_trade(self, event: TradeExecuted) -> None:
        accounts, market = self.state.accounts, self.state.markets[event.market]
        sides = {event.maker_account_id, event.taker_account_id}
        before = {account_id: Standing(accounts[account_id]) for account_id in sides}
        fund_before = fund_equity(self.state)
        self.state.apply(event)
        self.fills += 1
        far = abs(Fraction(event.price_ticks, market.mark_ticks) - 1)
        self.far_fills += far > FAR
        if FUND_ACCOUNT_ID not in sides:
            assert fund_equity(self.state) == fund_before
        else:
            traded = Fraction(
                event.quantity_lots * market.mark_ticks * market.spec.tick_size * market.spec.lot_size, ONE
            )
            lost = fund_before - fund_equity(self.state)
            assert lost <= traded * Fraction(market.spec.mark_band, ONE), "the fund paid more than its band"
        for account_id, order_id in (
            (event.maker_account_id, event.maker_order_id),
            (event.taker_account_id, event.taker_order_id),
        ):
            is_taker = order_id == event.taker_order_id
            forced = account_id == FUND_ACCOUNT_ID or (is_taker and event.liquidation_id)
            if not forced:
                self._check_side(event, accounts[account_id], before[account_id], is_taker)

    def _check_side(self, event: TradeExecuted, account: Account, before: Standing, is_taker: bool) -> None:
        position = account.position(self.state.markets[event.market])
        after = Standing(account)
        old = before.sizes.get(event.market, 0)
        opens = abs(position.size_lots) > abs(old) or old * position.size_lots < 0
        if position.mode is MarginMode.CROSS:
            assert after.pool >= 0, "a fill left the pool below zero"
            if opens:
                assert after.pool > after.pool_maintenance, "a fill opened into liquidation"
                assert not is_taker or after.pool >= after.pool_initial, "opened without initial margin"
            return
        equity = after.isolated[event.market]
        # What is closed of a bucket below zero takes its part of the hole with it, and no more.
        assert equity >= 0, "bucket below zero"
        assert after.pool >= min(Fraction(0), before.pool), "a fill took from the pool what it did not have"
        if not opens:
            return
        assert equity > maintenance(position), "a fill opened into liquidation"
        flips = old * position.size_lots < 0
        opened = abs(position.size_lots) - (0 if flips else abs(old))
        gained = equity - (0 if flips else before.isolated.get(event.market, 0))
        assert gained >= abs(value(position, opened)) / position.leverage, "the opening part is not covered"


class Scheme:
    """The owner's two accounts and the maker, at work."""

    def __init__(self, seed: int, fund: str) -> None:
        self.random = Random(seed)
        self.venue = Venue(fund=fund)
        for symbol, price in zip(SYMBOLS, ("50000", "3000"), strict=True):
            self.venue.index(symbol, price)
        self.owned = [self.venue.account("3000").account_id for _ in range(2)]
        self.maker = self.venue.account("400000").account_id
        self.venue.checks = False
        self.watch = Watch()
        self.watch.owned = self.owned
        for groups in self.venue.log:
            self.watch.follow(groups)

    def send(
        self,
        command: PlaceOrder | AmendOrder | SetIndexPrice | Liquidate | SetLeverage | SetMarginMode | Withdraw,
    ) -> None:
        """Send one command and check what came of it."""
        self.venue.log.clear()
        self.venue.send(command)
        for groups in self.venue.log:
            self.watch.follow(groups)

    def step(self) -> None:
        """Do one of the things a schemer, a maker, a feed or a liquidator does."""
        random = self.random
        symbol = random.choice(SYMBOLS)
        chance = random.random()
        if chance < 0.45:
            self._trade_with_oneself(symbol)
        elif chance < 0.6:
            self._quote(symbol)
        elif chance < 0.7:
            self._take(symbol)
        elif chance < 0.76:
            self._settings(symbol)
        elif chance < 0.8:
            self._amend()
        elif chance < 0.81:
            account_id = random.choice(self.owned)
            withdrawable = max(1, survey(self.venue.state.accounts[account_id]).transferable)
            self.send(Withdraw(account_id=account_id, amount=withdrawable))
        elif chance < 0.92:
            self._move_mark(symbol)
        else:
            for account_id in (*self.owned, self.maker):
                for bucket in ("", *SYMBOLS):
                    self.send(Liquidate(account_id=account_id, market=bucket, cause_seq=1))

    def _trade_with_oneself(self, symbol: str) -> None:
        """Both accounts meet at a price that may be far from the mark, often only to reduce."""
        random = self.random
        first, second = random.sample(self.owned, 2)
        side = random.choice(tuple(Side))
        mark_ticks = self.venue.state.markets[symbol].mark_ticks
        away = random.choice((0.0, 0.002, 0.01, 0.05, 0.2, 0.45))
        price_ticks = max(1, round(mark_ticks * (1 + random.choice((away, -away)))))
        lots = self._lots(symbol)
        resting = random.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTX))
        self._place(first, symbol, side, lots, price_ticks, resting, random.random() < 0.3)
        tif = random.choice((TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
        self._place(
            second, symbol, side.opposite, self._lots(symbol), price_ticks, tif, random.random() < 0.3
        )

    def _quote(self, symbol: str) -> None:
        side = self.random.choice(tuple(Side))
        mark_ticks = self.venue.state.markets[symbol].mark_ticks
        price_ticks = round(mark_ticks * (1 - side * self.random.uniform(0, 0.01)))
        self._place(self.maker, symbol, side, self._lots(symbol), price_ticks, TimeInForce.GTC, False)

    def _take(self, symbol: str) -> None:
        side = self.random.choice(tuple(Side))
        account_id = self.random.choice(self.owned)
        self._place(
            account_id, symbol, side, self._lots(symbol), 0, TimeInForce.IOC, self.random.random() < 0.3
        )

    def _settings(self, symbol: str) -> None:
        random = self.random
        account_id = random.choice(self.owned)
        leverage = random.choice((1, 5, 20, 100, 125))
        self.send(SetLeverage(account_id=account_id, market=symbol, leverage=leverage))
        mode = random.choice(tuple(MarginMode))
        self.send(SetMarginMode(account_id=account_id, market=symbol, mode=mode))

    def _amend(self) -> None:
        orders = list(self.venue.state.accounts[self.random.choice(self.owned)].orders.values())
        if orders:
            order = self.random.choice(orders)
            self.send(
                AmendOrder(
                    account_id=order.account_id,
                    market=order.terms.market,
                    side=order.side,
                    quantity_lots=max(1, order.quantity_lots + self.random.choice((0, -3, 20))),
                    price_ticks=max(1, round(order.price_ticks * self.random.choice((1, 0.95, 1.05)))),
                    order_id=order.order_id,
                )
            )

    def _move_mark(self, symbol: str) -> None:
        step = self.random.choice((0.0005, 0.005, 0.02, 0.1))
        index_ticks = self.venue.state.markets[symbol].index_ticks
        base_ticks = 500_000 if symbol == "BTCUSDT" else 30_000
        moved = index_ticks * (1 + self.random.choice((step, -step)))
        price_ticks = round(min(max(moved, base_ticks / 2), base_ticks * 2))
        source = IndexSource(source="test", price_ticks=price_ticks, raw="")
        self.send(SetIndexPrice(market=symbol, sources=(source,)))

    def _lots(self, symbol: str) -> int:
        return self.random.choice((10, 50, 200, 1000)) * (1 if symbol == "BTCUSDT" else 15)

    def _place(
        self,
        account_id: int,
        symbol: str,
        side: Side,
        lots: int,
        price_ticks: int,
        tif: TimeInForce,
        reduce_only: bool,
    ) -> None:
        if reduce_only:
            position = self.venue.state.accounts[account_id].position(self.venue.state.markets[symbol])
            lots = min(lots, position.reducible_lots(side)) or lots
        self.send(
            PlaceOrder(
                account_id=account_id,
                market=symbol,
                side=side,
                order_type=OrderType.LIMIT if price_ticks else OrderType.MARKET,
                quantity_lots=lots,
                price_ticks=price_ticks,
                time_in_force=tif,
                reduce_only=reduce_only,
                self_trade=self.random.choice(tuple(SelfTrade)),
            )
        )

    def refill(self) -> None:
        """Bring new money to accounts that lost theirs, so that the scheme goes on."""
        for account_id in self.owned:
            assert account_id >= FIRST_USER_ACCOUNT_ID
            if self.venue.state.accounts[account_id].wallet < 500 * ONE:
                self.venue.log.clear()
                self.venue.send(Deposit(account_id=account_id, amount=2000 * ONE))
                self.watch.follow(self.venue.log[-1])


@pytest.mark.soak
@pytest.mark.parametrize("fund", ["5000", "20"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_nobody_pushes_a_loss_onto_the_fund_or_the_others(seed: int, fund: str) -> None:
    """After every fill both sides stand on their own money; others bear only what the mark did."""
    scheme = Scheme(seed, fund)
    for _ in range(STEPS):
        scheme.step()
        scheme.refill()
    watch = scheme.watch
    assert watch.far_fills > 20
    assert watch.liquidations > 0
    assert fund != "20" or watch.deleveraged > 0
    assert watch.state.venue_digest() == scheme.venue.state.venue_digest()
