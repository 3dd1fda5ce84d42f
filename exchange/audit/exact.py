"""Margin a second time: exact fractions, straight from the design's table, sharing no code with the exchange.

Everything is in quote and base, as `Fraction`; nothing is in ticks, lots or units but the rounding, which
is to 1e-8 quote. Prices of liquidation are found another way than in the exchange: not by solving the formula
bracket by bracket, but by following equity − maintenance from border to border and asking where it crosses
zero.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil, floor

UNIT = Fraction(1, 10**8)


@dataclass(frozen=True)
class Tier:
    """A bracket: notionals up to and including `cap`."""

    cap: Fraction
    rate: Fraction
    max_leverage: int


@dataclass(frozen=True)
class Contract:
    """A market at its mark."""

    mark: Fraction
    taker_fee: Fraction
    tiers: tuple[Tier, ...]

    @cached_property
    def cums(self) -> list[Fraction]:
        """cum_n = cum_{n−1} + floor_n × (rate_n − rate_{n−1})."""
        cums = [Fraction(0)]
        for lower, upper in zip(self.tiers, self.tiers[1:], strict=False):
            cums.append(cums[-1] + lower.cap * (upper.rate - lower.rate))
        return cums

    def exact_maintenance(self, notional: Fraction) -> Fraction:
        """N × rate_n − cum_n, in the first bracket whose cap is not below N; the last holds all above."""
        n = self.bracket(notional)
        return notional * self.tiers[n].rate - self.cums[n]

    def bracket(self, notional: Fraction) -> int:
        """How many brackets lie wholly below a notional, the last one excepted."""
        return sum(notional > tier.cap for tier in self.tiers[:-1])

    def maintenance(self, notional: Fraction) -> Fraction:
        """ceil(N × rate_n − cum_n)."""
        return up(self.exact_maintenance(notional))

    def cap_at(self, leverage: int) -> Fraction:
        """The cap of the highest bracket that permits a leverage."""
        return max((tier.cap for tier in self.tiers if leverage <= tier.max_leverage), default=Fraction(0))


@dataclass
class Holding:
    """A position and its exact signed `cost`; `bucket` is an isolated one's collateral.

    `orders` are (signed size, price, may only reduce).
    """

    contract: Contract
    size: Fraction
    cost: Fraction
    leverage: int
    isolated: bool = False
    bucket: Fraction = Fraction(0)
    orders: list[tuple[Fraction, Fraction, bool]] = field(default_factory=list)

    @property
    def notional(self) -> Fraction:
        """N at mark."""
        return abs(self.size) * self.contract.mark

    @property
    def profit(self) -> Fraction:
        """size × mark − entry cost."""
        return self.size * self.contract.mark - self.cost

    @property
    def maintenance(self) -> Fraction:
        """ceil(N × rate_n − cum_n)."""
        return self.contract.maintenance(self.notional)

    def exhausted_at(self, share: Fraction) -> Fraction:
        """The mark at which the position has used up a share of equity that it has at this one."""
        return self.contract.mark - share / self.size

    @property
    def initial(self) -> Fraction:
        """max(ceil(N / leverage), maintenance margin)."""
        return max(up(self.notional / self.leverage), self.maintenance)

    @property
    def exposure(self) -> Fraction:
        """max(|P + B|, |P − A|) of what can open, at limits."""
        value = self.size * self.contract.mark
        bids = sum(
            (size * price for size, price, reduces in self.orders if size > 0 and not reduces),
            start=Fraction(0),
        )
        asks = sum(
            (-size * price for size, price, reduces in self.orders if size < 0 and not reduces),
            start=Fraction(0),
        )
        return max(abs(value + bids), abs(value - asks))

    @property
    def extras(self) -> Fraction:
        """Open loss and taker fee of each order, but for those that only reduce with the ones before them."""
        total = Fraction(0)
        on_side = {1: Fraction(0), -1: Fraction(0)}
        for size, price, reduces in self.orders:
            side = 1 if size > 0 else -1
            on_side[side] += abs(size)
            if reduces or on_side[side] <= max(Fraction(0), -side * self.size):
                continue
            total += max(Fraction(0), size * (price - self.contract.mark))
            total += up(abs(size) * price * self.contract.taker_fee)
        return total

    @property
    def required(self) -> Fraction:
        """What position and orders take from the wallet.

        Isolated: ceil(max(0, exposure − |P|) / leverage) + extras. Cross: ceil(exposure / leverage) + extras,
        and for any exposure at least a unit more than its maintenance margin.
        """
        if self.isolated:
            return up(max(Fraction(0), self.exposure - self.notional) / self.leverage) + self.extras
        margin = up(self.exposure / self.leverage)
        if self.exposure:
            margin = max(margin, self.contract.maintenance(self.exposure) + UNIT)
        return margin + self.extras


@dataclass
class Wealth:
    """An account: its wallet and, by (market, leg), its holdings."""

    wallet: Fraction
    holdings: dict[tuple[str, str], Holding]

    @property
    def cross(self) -> list[Holding]:
        """What stands on the wallet."""
        return [each for each in self.holdings.values() if not each.isolated]

    @property
    def profit(self) -> Fraction:
        """Σ cross uPnL."""
        return sum((each.profit for each in self.cross), start=Fraction(0))

    @property
    def equity(self) -> Fraction:
        """Wallet + Σ cross uPnL."""
        return self.wallet + self.profit

    @property
    def maintenance(self) -> Fraction:
        """Σ maintenance of cross positions."""
        return sum((each.maintenance for each in self.cross), start=Fraction(0))

    @property
    def initial(self) -> Fraction:
        """Σ required of cross markets + Σ order margin of isolated ones."""
        return sum((each.required for each in self.holdings.values()), start=Fraction(0))

    @property
    def available(self) -> Fraction:
        """What cross orders may use."""
        return max(Fraction(0), self.equity - self.initial)

    @property
    def withdrawable(self) -> Fraction:
        """What may leave: no unrealised profit."""
        return max(Fraction(0), self.wallet + min(Fraction(0), self.profit) - self.initial)

    def bucket_equity(self, key: tuple[str, str]) -> Fraction:
        """Equity of what a position stands on."""
        holding = self.holdings[key]
        return holding.bucket + holding.profit if holding.isolated else self.equity

    def bucket_maintenance(self, key: tuple[str, str]) -> Fraction:
        """Maintenance of all that stands there."""
        holding = self.holdings[key]
        return holding.maintenance if holding.isolated else self.maintenance

    def bankruptcy_price(self, key: tuple[str, str]) -> Fraction | None:
        """Where the position has used up its share of the equity; None when not positive."""
        price = self.holdings[key].exhausted_at(self.share(key))
        return price if price > 0 else None

    def share(self, key: tuple[str, str]) -> Fraction:
        """The part of its bucket's equity that belongs to a position: E × MM_i / Σ MM."""
        return self.bucket_equity(key) * self.holdings[key].maintenance / self.bucket_maintenance(key)

    def excess_at(self, key: tuple[str, str], price: Fraction) -> Fraction:
        """Equity − exact maintenance of a position's bucket, were its own market's mark at `price`.

        The maintenance of other markets is what it is now, rounded up.
        """
        holding = self.holdings[key]
        moving = (
            [holding]
            if holding.isolated
            else [
                each for (market, _), each in self.holdings.items() if market == key[0] and not each.isolated
            ]
        )
        excess = holding.bucket if holding.isolated else self.wallet
        if not holding.isolated:
            still = [
                each for (market, _), each in self.holdings.items() if market != key[0] and not each.isolated
            ]
            excess += sum((each.profit - each.maintenance for each in still), start=Fraction(0))
        for each in moving:
            excess += each.size * price - each.cost
            excess -= each.contract.exact_maintenance(abs(each.size) * price)
        return excess

    def liquidation_price(self, key: tuple[str, str]) -> Fraction | None:
        """The positive mark nearest to the present at which equity meets maintenance; of two, the lower."""
        holding = self.holdings[key]
        sizes = {
            abs(each.size) for (market, _), each in self.holdings.items() if market == key[0] and each.size
        }
        caps = [tier.cap for tier in holding.contract.tiers[:-1]]
        borders = sorted({Fraction(0), *(cap / size for cap in caps for size in sizes)})
        excesses = [self.excess_at(key, border) for border in borders]
        found = [
            _crossing(low, high, below, above)
            for low, high, below, above in zip(borders, borders[1:], excesses, excesses[1:], strict=False)
            if below * above < 0 or (above == 0 and below != 0)
        ]
        slope = self.excess_at(key, borders[-1] + 1) - excesses[-1]
        if slope and excesses[-1] * slope < 0:
            found.append(borders[-1] - excesses[-1] / slope)
        return min(found, key=lambda price: (abs(price - holding.contract.mark), price), default=None)


def up(amount: Fraction) -> Fraction:
    """Round up to a unit of 1e-8."""
    return ceil(amount / UNIT) * UNIT


def down(amount: Fraction) -> Fraction:
    """Round down to a unit of 1e-8."""
    return floor(amount / UNIT) * UNIT


def _crossing(low: Fraction, high: Fraction, below: Fraction, above: Fraction) -> Fraction:
    """Where the straight line from (low, below) to (high, above) is zero."""
    return low + (high - low) * below / (below - above)
