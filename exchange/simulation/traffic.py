"""What the clients ask for: orders of all kinds around the mark, and an index that sometimes jumps.

No two commands are the same, byte for byte, so that each can be found again in the log.
"""

from collections.abc import Callable
from random import Random

from events.commands import (
    AdjustMargin,
    AllotInsurance,
    AmendOrder,
    AnyCommand,
    CancelAllOrders,
    CancelOrder,
    Deposit,
    ListMarket,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    Withdraw,
)
from events.frame import encode_command
from events.values import (
    Bracket,
    IndexSource,
    MarginMode,
    MarketSpec,
    OrderType,
    PriceMatch,
    Side,
    TimeInForce,
    TriggerKind,
)
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import MONEY_ONE

# Where prices begin, in ticks of 0.1.
START_TICKS = {"BTCUSDT": 500_000, "ETHUSDT": 30_000}
# Sizes in lots, so that one of them is worth about 2,000 to 15,000 quote in either market.
LOTS = {"BTCUSDT": (40, 100, 200, 300), "ETHUSDT": (700, 1_500, 3_000, 5_000)}
MATCHES = (PriceMatch.OPPONENT, PriceMatch.QUEUE, PriceMatch.QUEUE_5)
TIMES_IN_FORCE = (*5 * (TimeInForce.GTC,), TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK)
JUMPS = (0.06, 0.12, 0.25)
FUND_MONEY = 1_000 * MONEY_ONE
NS_PER_MS = 1_000_000


def contract(symbol: str) -> MarketSpec:
    """Return a contract: tick 0.1, lot 0.001, funding every two seconds."""
    return MarketSpec(
        symbol=symbol,
        base=symbol.removesuffix("USDT"),
        quote="USDT",
        tick_size=10_000_000,
        lot_size=100_000,
        min_price_ticks=1,
        max_price_ticks=10_000_000,
        min_lots=1,
        max_lots=1_000_000,
        min_notional=5 * MONEY_ONE,
        maker_fee=20_000,
        taker_fee=50_000,
        liquidation_fee=500_000,
        mark_band=300_000,
        take_bound=5_000_000,
        band_up=50_000_000,
        band_down=50_000_000,
        max_market_lots=1_000_000,
        max_open_orders=200,
        max_conditional_orders=10,
        max_position_lots=2_000_000,
        max_open_interest_lots=4_000_000,
        unwind_lots=500,
        brackets=(
            Bracket(cap=20_000 * MONEY_ONE, maintenance_rate=400_000, max_leverage=125),
            Bracket(cap=600_000 * MONEY_ONE, maintenance_rate=500_000, max_leverage=100),
            Bracket(cap=10_000_000 * MONEY_ONE, maintenance_rate=1_000_000, max_leverage=50),
        ),
        funding_interval_s=2,
        interest_rate=10_000,
        funding_cap=300_000,
        impact_notional=1_000 * MONEY_ONE,
        trigger_protect=2_000_000,
    )


def opening() -> tuple[list[AnyCommand], ...]:
    """Return what makes an exchange to trade on, but for its accounts; what follows needs what is before."""
    fund = Deposit(account_id=FUND_ACCOUNT_ID, amount=len(START_TICKS) * FUND_MONEY)
    return (
        [fund, *(ListMarket(spec=contract(symbol)) for symbol in START_TICKS)],
        [
            *(AllotInsurance(market=symbol, amount=FUND_MONEY) for symbol in START_TICKS),
            *(index_price(symbol, price_ticks, 0) for symbol, price_ticks in START_TICKS.items()),
        ],
    )


def index_price(symbol: str, price_ticks: int, number: int) -> SetIndexPrice:
    """Return the `number`th price of an index."""
    return SetIndexPrice(
        market=symbol, sources=(IndexSource(source="feed", price_ticks=price_ticks, raw=str(number)),)
    )


class Prices:
    """The index of every market: it wanders a little, and sometimes jumps."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ticks = dict(START_TICKS)
        self._count = 0

    def next(self) -> SetIndexPrice:
        """Return the next price of one of the markets."""
        random = self._random
        symbol = random.choice(tuple(self._ticks))
        is_jump = random.random() < 0.25
        step = random.choice(JUMPS) if is_jump else random.random() * 0.01
        home, ticks = START_TICKS[symbol], self._ticks[symbol]
        falls = ticks > home if abs(ticks - home) * 2 > home else random.random() < 0.5
        self._ticks[symbol] = int(ticks * (1 - step if falls else 1 + step))
        self._count += 1
        return index_price(symbol, self._ticks[symbol], self._count)


class Trader:
    """One account's owner. `choose` returns what he asks for next, given what an intake tells him."""

    def __init__(self, account_id: int, random: Random) -> None:
        self.account_id = account_id
        self._random = random
        self._count = 0
        self._asked: set[bytes] = set()

    def choose(self, state: Exchange) -> AnyCommand:
        """Return a command that differs from all before it."""
        account = state.accounts[self.account_id]
        while True:
            self._count += 1
            (make,) = self._random.choices(tuple(KINDS), tuple(KINDS.values()))
            symbol = self._random.choice(tuple(START_TICKS))
            command = make(self, account, state.markets[symbol])
            if command is None:
                continue
            encoded = encode_command(command)
            if encoded not in self._asked:
                self._asked.add(encoded)
                return command

    def _client_id(self) -> str:
        return f"{self.account_id}-{self._count}"

    def _near(self, ticks: int) -> int:
        return max(1, ticks + int(self._random.gauss(0, 0.001) * ticks))

    def _amount(self, most: int) -> int:
        return self._random.randint(1, most) * MONEY_ONE + self._count

    def order(self, account: Account, market: Market) -> PlaceOrder:
        """A limit or market order; often one that closes."""
        random, symbol = self._random, market.symbol
        size_lots = account.position(market).size_lots
        closes = size_lots != 0 and random.random() < 0.2
        side = random.choice((Side.BUY, Side.SELL))
        if closes:
            side = Side.SELL if size_lots > 0 else Side.BUY
        is_market = random.random() < 0.4
        time_in_force = TimeInForce.IOC if is_market else random.choice(TIMES_IN_FORCE)
        is_ending = time_in_force is TimeInForce.GTD
        is_matched = not is_market and random.random() < 0.1
        return PlaceOrder(
            account_id=self.account_id,
            market=symbol,
            side=side,
            order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
            # Now and then more than there is to close.
            quantity_lots=abs(size_lots) + random.choice((0, 1)) if closes else random.choice(LOTS[symbol]),
            price_ticks=0 if is_market or is_matched else self._near(market.mark_ticks),
            time_in_force=time_in_force,
            reduce_only=closes and random.random() < 0.5,
            client_order_id=self._client_id(),
            expires_ns=market.index_ns + random.randint(500, 5_000) * NS_PER_MS if is_ending else 0,
            price_match=random.choice(MATCHES) if is_matched else PriceMatch.NONE,
        )

    def cancel(self, account: Account, market: Market) -> CancelOrder | None:
        """Cancel one of the open orders."""
        if not account.orders:
            return None
        order = self._random.choice(list(account.orders.values()))
        return CancelOrder(account_id=self.account_id, market=order.terms.market, order_id=order.order_id)

    def amend(self, account: Account, market: Market) -> AmendOrder | None:
        """Change the price of an open order, and sometimes its size."""
        if not account.orders:
            return None
        order = self._random.choice(list(account.orders.values()))
        return AmendOrder(
            account_id=self.account_id,
            market=order.terms.market,
            side=order.side,
            quantity_lots=self._random.choice((order.quantity_lots, order.quantity_lots * 2)),
            price_ticks=self._near(order.price_ticks),
            order_id=order.order_id,
        )

    def stop(self, account: Account, market: Market) -> PlaceConditional:
        """A stop near the mark that closes or opens."""
        side = self._random.choice((Side.BUY, Side.SELL))
        away = market.mark_ticks // self._random.randint(50, 500) + 1
        return PlaceConditional(
            account_id=self.account_id,
            market=market.symbol,
            side=side,
            kind=TriggerKind.STOP,
            order_type=OrderType.MARKET,
            quantity_lots=self._random.choice(LOTS[market.symbol]),
            trigger_ticks=market.mark_ticks + side * away,
            client_order_id=self._client_id(),
            price_protect=self._random.random() < 0.3,
        )

    def cancel_all(self, account: Account, market: Market) -> CancelAllOrders:
        """Cancel all orders of a market."""
        return CancelAllOrders(account_id=self.account_id, market=market.symbol)

    def countdown(self, account: Account, market: Market) -> SetCountdown:
        """Have all orders of a market cancelled unless this is renewed."""
        milliseconds = self._random.randint(100, 3_000)
        return SetCountdown(account_id=self.account_id, market=market.symbol, countdown_ms=milliseconds)

    def leverage(self, account: Account, market: Market) -> SetLeverage:
        """Choose a leverage."""
        leverage = self._random.choice((10, 20, 50, 100))
        return SetLeverage(account_id=self.account_id, market=market.symbol, leverage=leverage)

    def margin_mode(self, account: Account, market: Market) -> SetMarginMode:
        """Choose a margin mode with whatever is open."""
        mode = self._random.choice((MarginMode.CROSS, MarginMode.ISOLATED))
        return SetMarginMode(account_id=self.account_id, market=market.symbol, mode=mode, only_flat=False)

    def margin(self, account: Account, market: Market) -> AdjustMargin:
        """Move margin to an isolated position, or from it."""
        amount = self._amount(100) * self._random.choice((1, -1))
        return AdjustMargin(account_id=self.account_id, market=market.symbol, amount=amount)

    def deposit(self, account: Account, market: Market) -> Deposit:
        """Bring money in."""
        return Deposit(account_id=self.account_id, amount=self._amount(500))

    def withdraw(self, account: Account, market: Market) -> Withdraw:
        """Take money out."""
        return Withdraw(account_id=self.account_id, amount=self._amount(1_000))


# How often each kind is chosen, relative to the others.
KINDS: dict[Callable[[Trader, Account, Market], AnyCommand | None], int] = {
    Trader.order: 90,
    Trader.cancel: 8,
    Trader.amend: 8,
    Trader.stop: 5,
    Trader.cancel_all: 2,
    Trader.countdown: 2,
    Trader.leverage: 5,
    Trader.margin_mode: 5,
    Trader.margin: 3,
    Trader.deposit: 3,
    Trader.withdraw: 4,
}
