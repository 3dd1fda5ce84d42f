"""The traders of a demonstration: who they are, and how each trades through the HTTP API.

Traders come in pairs that differ in one thing only: one trades in isolated margin, the other in cross, with
the same deposit, positions and leverage. So what the two modes did to them can be compared.

A trader opens his positions before the crash and then keeps trading a little: small limit orders, some taken
off again, some profit taken, some adding to what he has. The exchange says no to him quite often, for want
of margin or of a position to reduce. That is trading.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hdrh.histogram import HdrHistogram

from exchange.client import AccountApi, ApiRefusal, ApiUnavailable, Contract
from exchange.runtime import wait_set

BTC, ETH = "BTCUSDT", "ETHUSDT"
BUY, SELL = "BUY", "SELL"
ISOLATED, CROSSED = "ISOLATED", "CROSSED"

LEVERAGES = (3, 5, 8, 10, 12, 15, 20, 25, 40)
DEPOSIT_MIN, DEPOSIT_MAX = 500, 20_000
OPENING_TRIES = 5
RESTING_ORDERS_MAX = 3
# A trader's small orders are this part of his position.
MORSEL = Decimal("0.1")
LATENCY_US_MAX = 60_000_000


@dataclass(frozen=True, slots=True)
class Style:
    """A way to be positioned: which symbols on which side, with what part of the margin; how common."""

    name: str
    weight: int
    legs: tuple[tuple[str, str, Decimal], ...]


_HALF, _ALL = Decimal("0.5"), Decimal(1)
STYLES = (
    Style("long BTC", 25, ((BTC, BUY, _ALL),)),
    Style("long ETH", 20, ((ETH, BUY, _ALL),)),
    Style("long both", 15, ((BTC, BUY, _HALF), (ETH, BUY, _HALF))),
    Style("long BTC, short ETH", 22, ((BTC, BUY, _HALF), (ETH, SELL, _HALF))),
    Style("short BTC", 9, ((BTC, SELL, _ALL),)),
    Style("short ETH", 9, ((ETH, SELL, _ALL),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One trader: `share` of the `deposit` (quote) becomes margin, times `leverage` the positions' worth."""

    number: int
    margin_type: str
    style: Style
    deposit: int
    leverage: int
    share: Decimal

    @property
    def label(self) -> str:
        """What the account is called."""
        return f"trader {self.number}: {self.style.name}, {self.leverage}x, {self.margin_type.lower()}"

    def notional(self, weight: Decimal) -> Decimal:
        """Return what a leg with this part of the margin is worth, in quote."""
        return self.deposit * self.share * weight * self.leverage


def make_plans(count: int, seed: int) -> list[Plan]:
    """Draw traders from a seed: pairs of one isolated and one cross; an odd last one is isolated."""
    dice = random.Random(seed)  # noqa: S311 - traders that can be drawn again, not secrets
    plans: list[Plan] = []
    for number in range(0, count, 2):
        style = dice.choices(STYLES, [style.weight for style in STYLES])[0]
        deposit = round(DEPOSIT_MIN * (DEPOSIT_MAX / DEPOSIT_MIN) ** dice.random() / 100) * 100
        leverage = dice.choice(LEVERAGES)
        share = Decimal(dice.randint(30, 70)) / 100
        for offset, margin_type in enumerate((ISOLATED, CROSSED)):
            plans.append(
                Plan(
                    number=number + offset,
                    margin_type=margin_type,
                    style=style,
                    deposit=deposit,
                    leverage=leverage,
                    share=share,
                )
            )
    return plans[:count]


@dataclass(slots=True)
class Ledger:
    """What the traders were told, all together.

    `acknowledged` are the ids of the orders the exchange said it took. `refusals` counts answers of no by
    code, `unanswered` requests whose outcome stayed open. `latency` is µs from sending an order to reading
    its acknowledgement.
    """

    acknowledged: list[int] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    unanswered: int = 0
    latency: Any = field(default_factory=lambda: HdrHistogram(1, LATENCY_US_MAX, 3))

    def latency_ms(self, percentile: float) -> float:
        """Return a percentile of the acknowledgement latency in ms, 0 when there was none."""
        return float(self.latency.get_value_at_percentile(percentile)) / 1_000


class Trader:
    """One trader at work. `prices` is shared by all and kept current by whoever runs them (quote)."""

    def __init__(
        self,
        plan: Plan,
        account: AccountApi,
        contracts: Mapping[str, Contract],
        prices: Mapping[str, Decimal],
        ledger: Ledger,
        *,
        seed: int,
        think_s: float,
    ) -> None:
        self.plan = plan
        self._account = account
        self._contracts = contracts
        self._prices = prices
        self._ledger = ledger
        self._dice = random.Random(seed * 1_000_003 + plan.number)  # noqa: S311 - habits, not secrets
        self._think_s = think_s

    async def set_up(self) -> None:
        """Choose margin mode and leverage, then open the positions of the plan."""
        for symbol, _, _ in self.plan.style.legs:
            await self._try(self._account.set_margin_type(symbol, self.plan.margin_type))
            await self._try(self._account.set_leverage(symbol, self.plan.leverage))
        for symbol, side, weight in self.plan.style.legs:
            await self._open(symbol, side, self.plan.notional(weight))

    async def trade(self, stop: asyncio.Event) -> None:
        """Trade a little, again and again, until `stop` is set; a request under way is finished."""
        while not stop.is_set():
            if not await wait_set(stop, self._dice.expovariate(1 / self._think_s)):
                await self._act()

    async def _open(self, symbol: str, side: str, notional: Decimal) -> None:
        """Buy or sell at market until the position is there, for as long as the book gives something."""
        left = notional
        for _ in range(OPENING_TRIES):
            placed = await self._market_order(symbol, side, left)
            if placed is None:
                return
            left -= Decimal(placed["cumQuote"])

    async def _act(self) -> None:
        symbol, side, weight = self._dice.choice(self.plan.style.legs)
        morsel = self.plan.notional(weight) * MORSEL
        choice = self._dice.random()
        if choice < 0.60:
            await self._quote(symbol, morsel)
        elif choice < 0.80:
            await self._market_order(symbol, SELL if side == BUY else BUY, morsel, reduce_only=True)
        else:
            await self._market_order(symbol, side, morsel)

    async def _quote(self, symbol: str, notional: Decimal) -> None:
        """Leave a small limit order near the price, and take the oldest away when there are many."""
        resting = await self._try(self._account.open_orders(symbol)) or []
        if len(resting) >= RESTING_ORDERS_MAX:
            await self._try(self._account.cancel(symbol, resting[0]["orderId"]))
        side = self._dice.choice((BUY, SELL))
        distance = Decimal(round(self._dice.uniform(-0.0005, 0.004), 6))
        price = self._prices[symbol] * (1 - distance if side == BUY else 1 + distance)
        contract = self._contracts[symbol]
        quantity = contract.quantity_text(notional, price)
        if quantity is None:
            return
        await self._place(self._account.limit_order(symbol, side, quantity, contract.price_text(price, side)))

    async def _market_order(
        self, symbol: str, side: str, notional: Decimal, *, reduce_only: bool = False
    ) -> dict[str, Any] | None:
        quantity = self._contracts[symbol].quantity_text(notional, self._prices[symbol])
        if quantity is None:
            return None
        return await self._place(self._account.market_order(symbol, side, quantity, reduce_only=reduce_only))

    async def _place(self, order: Any) -> dict[str, Any] | None:
        """Send an order; note how long its acknowledgement took and which id it has."""
        sent_ns = time.perf_counter_ns()
        placed: dict[str, Any] | None = await self._try(order)
        if placed is not None:
            latency_us = (time.perf_counter_ns() - sent_ns) // 1_000
            self._ledger.latency.record_value(max(1, min(latency_us, LATENCY_US_MAX)))
            self._ledger.acknowledged.append(placed["orderId"])
        return placed

    async def _try(self, call: Any) -> Any:
        """Await a call; a no, or no answer, is counted, and None is returned."""
        try:
            return await call
        except ApiRefusal as refusal:
            self._ledger.refusals[refusal.code] += 1
        except ApiUnavailable:
            self._ledger.unanswered += 1
        return None
