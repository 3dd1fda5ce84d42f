"""Random trading, seeded: commands of every kind at prices that jump, and what must hold after each.

Everything the exchange can meet is made frequent: funding is settled every second of a clock of 1 ms a
command, prices gap by 30 %, the insurance fund is poor and administrators take from it as often as they
give, markets close for a while, sources of the index disagree, and one index goes stale. Prices wander but
come home, so that trading goes on for as long as one likes.
"""

from collections.abc import Callable
from random import Random

from events.commands import (
    AdjustMargin,
    AllotInsurance,
    AmendOrder,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    Deposit,
    Liquidate,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    SetMarketStatus,
    SetPositionMode,
    Tick,
    Withdraw,
)
from events.events import (
    Event,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import (
    IndexSource,
    Leg,
    MarginMode,
    MarketStatus,
    OrderType,
    PriceMatch,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.market import Market
from exchange.aggregate.order import Order, extras_of
from exchange.aggregate.state import Exchange
from exchange.aggregate.triggers import rises_to_trigger
from tests.full_scan import find_liquidatable
from tests.venue import NS_PER_MS, Venue, money, spec

FUND = "2000"
FUNDING = {
    "funding_interval_s": 1,
    "interest_rate": 10_000,
    "funding_cap": 300_000,
    "impact_notional": money("1000"),
    "source_band": 5_000_000,
    "trigger_protect": 1_000_000,
}
SPECS = (
    spec("BTCUSDT", **FUNDING),
    spec("ETHUSDT", **FUNDING, index_age_ms_max=1_000, index_recovery_updates=3, source_age_ms_max=500),
)
SYMBOLS = tuple(each.symbol for each in SPECS)
# Where prices start and come back to, in ticks.
HOME_TICKS = {"BTCUSDT": 500_000, "ETHUSDT": 30_000}


def market_venue(seed: int, accounts: int = 12) -> tuple[Venue, Random]:
    """Return a venue with funded accounts, a third of them hedging, and the seeded source of chance."""
    random = Random(seed)
    venue = Venue(specs=SPECS, fund=FUND)
    for symbol, price_ticks in HOME_TICKS.items():
        source = IndexSource(source="flow", price_ticks=price_ticks, raw="")
        venue.send(SetIndexPrice(market=symbol, sources=(source,)))
    for n in range(accounts):
        trader = venue.account(str(random.randint(200, 20_000)))
        if n % 3 == 2:
            trader.hedge()
    return venue, random


class Chance:
    """One draw: the state, the source of chance, and whose command it is to be, in which market."""

    def __init__(self, state: Exchange, random: Random) -> None:
        self.state = state
        self.random = random
        self.symbol = random.choice(SYMBOLS)
        self.market: Market = state.markets[self.symbol]
        self.account_id = random.randrange(FIRST_USER_ACCOUNT_ID, state.next_account_id)
        self.account: Account = state.accounts[self.account_id]

    def side(self) -> Side:
        """A side."""
        return self.random.choice((Side.BUY, Side.SELL))

    def leg(self) -> Leg:
        """A leg, nearly always one of the account's position mode."""
        legs = tuple(Leg) if self.random.random() < 0.02 else self.account.legs
        return self.random.choice(legs)

    def price_near(self, ticks: int, spread: float = 0.002) -> int:
        """A price around another."""
        return max(1, ticks + int(self.random.gauss(0, spread) * ticks))

    def lots(self) -> int:
        """A size."""
        return self.random.choice((1, 10, 50, 200, 1000))

    def client_id(self) -> str:
        """A client's own id, mostly none."""
        return self.random.choice(("", "", f"c{self.random.randint(0, 50)}"))

    def time_in_force(self) -> TimeInForce:
        """How long an order may wait; most wait."""
        return TimeInForce.GTC if self.random.random() < 0.5 else self.random.choice(tuple(TimeInForce))

    def way(self) -> tuple[Leg, Side, bool]:
        """Leg, side and reduce-only of an order: one in ten at random, the others make sense."""
        random, leg = self.random, self.leg()
        if leg not in self.account.legs or random.random() < 0.1:
            return leg, self.side(), random.random() < 0.15
        size_lots = self.account.position(self.market, leg).size_lots
        if size_lots and random.random() < 0.4:
            return leg, Side.SELL if size_lots > 0 else Side.BUY, random.random() < 0.5
        opening = {Leg.LONG: Side.BUY, Leg.SHORT: Side.SELL}
        return leg, opening.get(leg) or self.side(), False

    def price_match(self) -> PriceMatch:
        """Where a limit comes from: mostly it is the order's own."""
        return self.random.choice(tuple(PriceMatch)) if self.random.random() < 0.1 else PriceMatch.NONE

    def order(self) -> Order | None:
        """One of the account's orders; mostly, when it has none, another account becomes the sender."""
        if not self.account.orders and self.random.random() < 0.8:
            owners = [account for account in self.state.accounts.values() if account.orders]
            if owners:
                self.account = self.random.choice(owners)
                self.account_id = self.account.account_id
        orders = list(self.account.orders.values())
        return self.random.choice(orders) if orders else None

    def expires_ns(self, time_in_force: TimeInForce) -> int:
        """The end of an order, when it has one."""
        if time_in_force is not TimeInForce.GTD:
            return 0
        return self.state.now_ns + self.random.randint(-1, 300) * NS_PER_MS


def pause_ns(random: Random) -> int:
    """Return how long nothing happens before the next command: mostly not at all, now and then seconds.

    Long enough for orders, countdowns and an index to come to their end, and for several settlements.
    """
    return random.randint(300, 3_500) * NS_PER_MS if random.random() < 0.001 else 0


def random_command(state: Exchange, random: Random) -> AnyCommand:
    """Return a command that a user, an administrator, a feed or a liquidator might send."""
    (make,) = random.choices(tuple(COMMANDS), tuple(COMMANDS.values()))
    return make(Chance(state, random))


def _order(chance: Chance) -> PlaceOrder:
    random, market = chance.random, chance.market
    is_market = random.random() < 0.2
    time_in_force = TimeInForce.IOC if is_market else chance.time_in_force()
    lots = chance.lots()
    mode = chance.account.positions_in(market)[0].mode
    brings_margin = random.random() < (0.3 if mode is MarginMode.ISOLATED else 0.02)
    margin = lots * market.mark_ticks * market.unit // random.randint(1, 20) if brings_margin else 0
    leg, side, reduce_only = chance.way()
    match = PriceMatch.NONE if is_market else chance.price_match()
    is_priced = not is_market and match is PriceMatch.NONE
    return PlaceOrder(
        account_id=chance.account_id,
        market=chance.symbol,
        side=side,
        order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
        quantity_lots=lots,
        price_ticks=chance.price_near(market.mark_ticks) if is_priced else 0,
        time_in_force=time_in_force,
        reduce_only=reduce_only,
        client_order_id=chance.client_id(),
        leg=leg,
        self_trade=random.choice(tuple(SelfTrade)),
        expires_ns=chance.expires_ns(time_in_force),
        margin_mode=random.choice((*[None] * 12, mode, mode, *MarginMode)),
        margin=margin,
        price_match=match,
    )


def _amend(chance: Chance) -> AmendOrder:
    random, order = chance.random, chance.order()
    lots = order.quantity_lots if order else 1
    price_ticks = order.price_ticks if order else chance.market.mark_ticks
    match = chance.price_match()
    is_priced = match is PriceMatch.NONE
    return AmendOrder(
        account_id=chance.account_id,
        market=order.terms.market if order else chance.symbol,
        side=order.side if order and random.random() < 0.98 else chance.side(),
        quantity_lots=random.choice((lots, lots, lots // 2 + 1, lots * 2, 1)),
        price_ticks=random.choice((price_ticks, chance.price_near(price_ticks))) if is_priced else 0,
        order_id=order.order_id if order else 1,
        yields_priority=random.random() < 0.2,
        price_match=match,
    )


def _conditional(chance: Chance) -> PlaceConditional:
    random, market = chance.random, chance.market
    kind = random.choice(tuple(TriggerKind))
    leg, side, reduce_only = chance.way()
    working_price = random.choice(tuple(WorkingPrice))
    price_ticks = market.working_ticks(working_price)
    away = abs(int(random.gauss(0, 0.003) * price_ticks)) + random.choice((-1, 1))
    reached_at = max(1, price_ticks + away if rises_to_trigger(kind, side) else price_ticks - away)
    is_trailing = kind is TriggerKind.TRAILING
    closes = random.random() < 0.2
    is_market = closes or random.random() < 0.5
    time_in_force = TimeInForce.GTC if is_market else chance.time_in_force()
    match = PriceMatch.NONE if is_market else chance.price_match()
    is_priced = not is_market and match is PriceMatch.NONE
    return PlaceConditional(
        account_id=chance.account_id,
        market=chance.symbol,
        side=side,
        kind=kind,
        order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
        quantity_lots=0 if closes else chance.lots(),
        trigger_ticks=0 if is_trailing else reached_at,
        price_ticks=chance.price_near(reached_at) if is_priced else 0,
        working_price=working_price,
        time_in_force=time_in_force,
        reduce_only=not closes and reduce_only,
        close_position=closes,
        callback_rate=random.randint(1, 1_000_000) if is_trailing else 0,
        activation_ticks=random.choice((0, reached_at)) if is_trailing else 0,
        client_order_id=chance.client_id(),
        leg=leg,
        self_trade=random.choice(tuple(SelfTrade)),
        expires_ns=chance.expires_ns(time_in_force),
        price_match=match,
        price_protect=random.random() < 0.3,
    )


def _cancel(chance: Chance) -> CancelOrder:
    order = chance.order()
    return CancelOrder(
        account_id=chance.account_id,
        market=order.terms.market if order and chance.random.random() < 0.98 else chance.symbol,
        order_id=order.order_id if order else 1,
    )


def _cancel_all(chance: Chance) -> CancelAllOrders:
    return CancelAllOrders(account_id=chance.account_id, market=chance.symbol)


def _cancel_conditional(chance: Chance) -> CancelConditional:
    conditional_id = chance.random.choice(list(chance.account.conditionals) or [1])
    return CancelConditional(
        account_id=chance.account_id, market=chance.symbol, conditional_id=conditional_id
    )


def _cancel_all_conditionals(chance: Chance) -> CancelAllConditionals:
    return CancelAllConditionals(account_id=chance.account_id, market=chance.symbol)


def _countdown(chance: Chance) -> SetCountdown:
    countdown_ms = chance.random.choice((0, -1, 10, 100, 400))
    return SetCountdown(account_id=chance.account_id, market=chance.symbol, countdown_ms=countdown_ms)


def _index(chance: Chance) -> SetIndexPrice:
    random = chance.random
    home_ticks, index_ticks = HOME_TICKS[chance.symbol], chance.market.index_ticks
    step = random.choice((0.001, 0.001, 0.01, 0.3))
    drift = random.choice((step, random.uniform(0, step)))
    falls = random.random() < (0.5 if home_ticks // 3 < index_ticks < home_ticks * 3 else 0.8)
    if index_ticks < home_ticks:
        falls = not falls
    price_ticks = max(1, int(index_ticks * (1 - drift if falls else 1 / (1 - drift))))
    count = random.choice((1, 1, 1, 2, 3))
    return SetIndexPrice(
        market=chance.symbol, sources=tuple(_source(chance, n, price_ticks) for n in range(count))
    )


def _source(chance: Chance, number: int, price_ticks: int) -> IndexSource:
    """A source beside others: about the same price, sometimes an absurd one, sometimes an old one."""
    random = chance.random
    spread = 0.2 if number and random.random() < 0.1 else 0.0001
    age_ms = random.choice((0, 0, 0, 0, 0, 1_000)) if number else 0
    return IndexSource(
        source=f"flow{number}",
        price_ticks=chance.price_near(price_ticks, spread) if number else price_ticks,
        raw="",
        time_ns=chance.state.now_ns - age_ms * NS_PER_MS if age_ms else 0,
    )


def _liquidate_due(chance: Chance) -> Liquidate | PlaceOrder:
    """A liquidator's request: a bucket that is due; an order when there is none.

    He is away for half of the time. Meanwhile losses grow, those who gained leave with it, and what is
    missing must be shared by those who came after them.
    """
    is_away = chance.state.seq % 2_000 < 1_000
    due = [] if is_away else find_liquidatable(chance.state)
    if not due:
        return _order(chance)
    account_id, symbol, leg = chance.random.choice(due)
    return Liquidate(account_id=account_id, market=symbol, cause_seq=chance.state.seq, leg=leg)


def _liquidate(chance: Chance) -> Liquidate:
    is_isolated = chance.random.random() < 0.5
    return Liquidate(
        account_id=chance.account_id,
        market=chance.symbol if is_isolated else "",
        cause_seq=chance.state.seq,
        leg=chance.leg() if is_isolated else Leg.BOTH,
    )


def _leverage(chance: Chance) -> SetLeverage:
    leverage = chance.random.choice((1, 2, 5, 10, 20, 50, 100, 125))
    return SetLeverage(account_id=chance.account_id, market=chance.symbol, leverage=leverage)


def _margin_mode(chance: Chance) -> SetMarginMode:
    random = chance.random
    mode = random.choice((MarginMode.CROSS, MarginMode.ISOLATED))
    asked = random.random() < 0.2 and mode is MarginMode.ISOLATED
    return SetMarginMode(
        account_id=chance.account_id,
        market=chance.symbol,
        mode=mode,
        margin=random.randint(1, money("1000")) if asked else 0,
        only_flat=random.random() < 0.2,
    )


def _adjust_margin(chance: Chance) -> AdjustMargin:
    random = chance.random
    amount = random.choice((1, -1)) * random.choice((1, money("3"), random.randint(0, money("300"))))
    return AdjustMargin(account_id=chance.account_id, market=chance.symbol, amount=amount, leg=chance.leg())


def _position_mode(chance: Chance) -> SetPositionMode:
    return SetPositionMode(account_id=chance.account_id, hedge=chance.random.random() < 0.5)


def _deposit(chance: Chance) -> Deposit:
    return Deposit(account_id=chance.account_id, amount=chance.random.randint(1, money("2000")))


def _withdraw(chance: Chance) -> Withdraw:
    most = max(money("2000"), chance.account.wallet)
    return Withdraw(account_id=chance.account_id, amount=chance.random.randint(1, most))


def _allot(chance: Chance) -> AllotInsurance:
    """An administrator gives a market part of what the fund has, or takes back part of what it was given."""
    fund = chance.state.accounts[FUND_ACCOUNT_ID]
    gives = chance.random.random() < 0.5
    most = fund.wallet if gives else fund.position(chance.market).bucket
    amount = chance.random.randint(1, max(1, most))
    return AllotInsurance(market=chance.symbol, amount=amount if gives else -amount)


def _refund(chance: Chance) -> Deposit:
    """An administrator pays into the insurance fund, and what it owes if it owes something."""
    owed = max(0, -chance.state.accounts[FUND_ACCOUNT_ID].wallet)
    return Deposit(account_id=FUND_ACCOUNT_ID, amount=owed + chance.random.randint(1, money("2000")))


def _defund(chance: Chance) -> Withdraw:
    """An administrator takes out what the fund has not allotted."""
    most = max(1, chance.state.accounts[FUND_ACCOUNT_ID].wallet)
    return Withdraw(account_id=FUND_ACCOUNT_ID, amount=chance.random.choice((most, money("500"))))


def _status(chance: Chance) -> SetMarketStatus:
    """An administrator closes a market, which is rare, or opens it again."""
    closes = chance.market.status is MarketStatus.TRADING and chance.random.random() < 0.1
    status = chance.random.choice((MarketStatus.CANCEL_ONLY, MarketStatus.HALTED))
    return SetMarketStatus(
        market=chance.symbol, status=status if closes else MarketStatus.TRADING, reason="flow"
    )


def _tick(chance: Chance) -> Tick:
    return Tick()


# How often each kind comes, relative to the others: about per mille.
COMMANDS: dict[Callable[[Chance], AnyCommand], int] = {
    _order: 435,
    _amend: 55,
    _cancel: 40,
    _cancel_all: 20,
    _conditional: 60,
    _cancel_conditional: 15,
    _cancel_all_conditionals: 5,
    _countdown: 10,
    _index: 100,
    _liquidate: 15,
    _liquidate_due: 80,
    _leverage: 15,
    _margin_mode: 30,
    _adjust_margin: 20,
    _position_mode: 15,
    _deposit: 15,
    _withdraw: 15,
    _allot: 10,
    _refund: 2,
    _defund: 6,
    _status: 15,
    _tick: 15,
}

# What an owner may do about his collateral while the prices stand still.
COLLATERAL_COMMANDS: tuple[Callable[[Chance], AnyCommand], ...] = (
    _leverage,
    _margin_mode,
    _adjust_margin,
    _withdraw,
)


class Entry:
    """An order as its events tell it: whose, which way, and what became of its lots."""

    def __init__(self, terms: OrderAccepted) -> None:
        self.terms = terms
        self.whole_lots = terms.quantity_lots
        self.filled_lots = 0

    @property
    def open_lots(self) -> int:
        """What is neither filled nor cancelled."""
        return self.whole_lots - self.filled_lots


class Ledger:
    """Orders and positions kept from events alone, by addition, to compare with the state."""

    def __init__(self) -> None:
        self.open: dict[int, Entry] = {}
        self.sizes: dict[tuple[int, str, Leg], int] = {}
        self.last_trades: dict[str, int] = {}

    def follow(self, groups: list[list[Event]]) -> None:
        """Read one frame's events, asserting that each fits those before it."""
        for event in (event for group in groups for event in group):
            match event:
                case OrderAccepted():
                    self.open[event.order_id] = Entry(event)
                case OrderAmended():
                    entry = self.open[event.order_id]
                    assert entry.filled_lots + event.open_lots == event.quantity_lots
                    entry.whole_lots = event.quantity_lots
                case OrderCancelled() | OrderExpired():
                    entry = self.open.pop(event.order_id)
                    assert entry.filled_lots + event.open_lots == entry.whole_lots
                case TradeExecuted():
                    assert event.trade_id == self.last_trades.get(event.market, 0) + 1
                    self.last_trades[event.market] = event.trade_id
                    self._fill(event.maker_order_id, event.quantity_lots, event.maker_margin_moved)
                    self._fill(event.taker_order_id, event.quantity_lots, event.taker_margin_moved)
                case PositionTakenOver():
                    self._add((event.account_id, event.market, event.leg), -event.size_lots)
                    self._add((FUND_ACCOUNT_ID, event.market, Leg.BOTH), event.size_lots)
                case PositionDeleveraged():
                    self._add((event.account_id, event.market, event.leg), -event.size_lots)
                    sign = 1 if event.size_lots > 0 else -1
                    for row in event.parties:
                        self._add((row.account_id, event.market, row.leg), sign * row.quantity_lots)

    def check(self, state: Exchange) -> None:
        """Assert that the state agrees: what came in is filled, open or cancelled, and positions add up."""
        orders = {o.order_id: o for account in state.accounts.values() for o in account.orders.values()}
        assert self.open.keys() == orders.keys()
        for order_id, order in orders.items():
            entry = self.open[order_id]
            assert (entry.whole_lots, entry.open_lots) == (order.quantity_lots, order.open_lots)
        for (account_id, symbol, leg), size_lots in self.sizes.items():
            assert size_lots == state.accounts[account_id].position(state.markets[symbol], leg).size_lots

    def _fill(self, order_id: int, lots: int, margin_moved: int) -> None:
        entry = self.open[order_id]
        terms = entry.terms
        entry.filled_lots += lots
        assert entry.open_lots >= 0
        if entry.open_lots == 0:
            del self.open[order_id]
        key = (terms.account_id, terms.market, terms.leg)
        before = self.sizes.get(key, 0)
        self._add(key, terms.side * lots)
        if terms.reduce_only:
            assert before * terms.side < 0, "a reduce-only order opened"
            assert abs(before) >= lots, "a reduce-only order flipped"
        if before * terms.side < 0 and abs(before) >= lots:
            assert margin_moved <= 0, "a loss was taken from the wallet"

    def _add(self, key: tuple[int, str, Leg], lots: int) -> None:
        self.sizes[key] = self.sizes.get(key, 0) + lots


def check_state(state: Exchange) -> None:
    """Assert what holds between commands: books, exposures, legs, open interest, conditional orders."""
    for market in state.markets.values():
        _check_book(market)
        positions = [p for a in state.accounts.values() for p in a.positions.values() if p.market is market]
        assert market.open_interest_lots == sum(max(0, position.size_lots) for position in positions)
    for account in state.accounts.values():
        _check_conditionals(state, account)
        for position in account.positions.values():
            assert position.leg in account.legs
            assert position.leg is not Leg.LONG or position.size_lots >= 0
            assert position.leg is not Leg.SHORT or position.size_lots <= 0
            _check_exposure(position, [o for o in account.orders.values() if o.position is position])


def _check_book(market: Market) -> None:
    book = market.book
    assert not book.best_ask_ticks or book.best_bid_ticks < book.best_ask_ticks, "crossed"
    for half in (book.bids, book.asks):
        assert half.keys == sorted(half.levels), "keys"
        for level in half.best_first():
            orders = list(level)
            assert level.lots == sum(order.open_lots for order in orders) > 0
            assert all(order.level is level and order.open_lots > 0 for order in orders)


def _check_conditionals(state: Exchange, account: Account) -> None:
    """Each waits in one place: for its price, or, reached, for its turn."""
    for conditional_id, terms in account.conditionals.items():
        waiting = state.markets[terms.market].triggers(terms.working_price).terms
        assert (conditional_id in waiting) != (conditional_id in state.due)
    for position in account.positions.values():
        market, leg = position.market.symbol, position.leg
        mine = [t for t in account.conditionals.values() if t.market == market and t.leg is leg]
        assert position.conditional_count == len(mine)
    named = {t.client_order_id: i for i, t in account.conditionals.items() if t.client_order_id}
    assert account.conditional_client_ids == named


def _check_exposure(position: Position, orders: list[Order]) -> None:
    if not orders:
        assert position.order_count == position.bid_lots == position.ask_lots == position.extras == 0
        assert position.bid_value == position.ask_value == len(position.reducers) == 0
        return
    bids = [order for order in orders if order.side is Side.BUY]
    asks = [order for order in orders if order.side is Side.SELL]
    assert position.order_count == len(orders)
    assert position.bid_lots == sum(order.open_lots for order in bids)
    assert position.ask_lots == sum(order.open_lots for order in asks)
    assert position.bid_value == sum(o.open_lots * o.price_ticks for o in bids if not o.reduce_only)
    assert position.ask_value == sum(o.open_lots * o.price_ticks for o in asks if not o.reduce_only)
    assert position.reducers.keys() == {order.order_id for order in orders if order.reduce_only}
    for order in position.reducers.values():
        assert 0 < order.open_lots <= position.reducible_lots(order.side), "a reduce-only order could open"
    assert position.extras == sum(extras_of(order, order.open_lots) for order in orders)
