"""Where a position dies: the marks at which its bucket's equity meets maintenance, and at which it is gone.

Both are exact fractions of ticks; whoever shows or trades them rounds, and says in which direction.

A position that stands alone (isolated, or the only one of its pool in a market) has one such mark: since
rates are below 1, equity changes faster with the mark than maintenance does. The two legs of a hedge in
cross are moved by the same mark and share their pool, so they share one answer, each leg in the bracket of
its own notional. What they make together is

    f(p) = collateral + Σ (size × p − entry cost) − Σ (|size| × p × rate_n − cum_n)

whose slope only falls as p rises through the brackets, so that f is zero at two marks at most: with a long
slightly larger than its short, a fall and a rise can both bring the pool to maintenance. Of two answers the
nearer to the mark is given, the lower one if they are equally near.

Formulas: Binance, "How to Calculate Liquidation Price of USDⓈ-M Futures Contracts", hedge mode included.
"""

from events.values import CROSS
from exchange.aggregate.account import Account, Position
from exchange.aggregate.margin import Survey, maintenance, survey, unrealised
from exchange.aggregate.units import RATE_ONE, round_half_even

Fraction = tuple[int, int]


def liquidation_price(position: Position, collateral: int) -> Fraction | None:
    """Return the mark at which one position on `collateral` of its own meets maintenance.

    (collateral + cum_n − entry cost) / (|size| × mmr_n − size), in the bracket that contains the answer;
    None when there is no positive one.
    """
    size, market = position.size_lots, position.market
    if size == 0:
        return None
    brackets = market.brackets
    last = len(brackets.rates) - 1
    for n, rate in enumerate(brackets.rates):
        numerator = (collateral - position.entry_cost) * RATE_ONE + brackets.deductions[n]
        denominator = market.unit * (abs(size) * rate - size * RATE_ONE)
        if denominator < 0:
            numerator, denominator = -numerator, -denominator
        # The bracket holds the answer when floor < |size| × price × unit <= cap.
        notional = abs(size) * market.unit * numerator
        if brackets.floor(n) * denominator < notional and (
            n == last or notional <= brackets.caps[n] * denominator
        ):
            return numerator, denominator
    return None


def shared_liquidation_price(legs: list[Position], collateral: int) -> Fraction | None:
    """Return the mark at which the open legs of one market, together on `collateral`, meet maintenance.

    Goes up through the stretches of the price in which every leg stays in one bracket and solves each. A
    stretch on which equity equals maintenance throughout has no answer of its own.
    """
    market = legs[0].market
    caps, last = market.brackets.caps, len(market.brackets.caps) - 1
    numbers = [0] * len(legs)
    low: Fraction = (0, 1)
    nearest: Fraction | None = None
    while True:
        high: Fraction | None = None
        for leg, n in zip(legs, numbers, strict=True):
            border = (caps[n], abs(leg.size_lots) * market.unit)
            if n < last and (high is None or _is_below(border, high)):
                high = border
        answer = _solve(legs, numbers, collateral)
        if (
            answer is not None
            and _is_below(low, answer)
            and (high is None or not _is_below(high, answer))
            and (nearest is None or _is_nearer(answer, nearest, market.mark_ticks))
        ):
            nearest = answer
        if high is None:
            return nearest
        for i, leg in enumerate(legs):
            n = numbers[i]
            if n < last and not _is_below(high, (caps[n], abs(leg.size_lots) * market.unit)):
                numbers[i] = n + 1
        low = high


def liquidation_price_of(account: Account, position: Position, pool: Survey | None = None) -> Fraction | None:
    """Return the mark at which the bucket a position stands on meets maintenance, other marks unchanged.

    Isolated: the bucket stands behind the one position. Cross: wallet − maintenance + unrealised profit of
    the account's positions in other markets stand behind all its legs in this one. `pool` is the account's
    survey, for those who have it already.
    """
    if position.size_lots == 0:
        return None
    if position.mode is not CROSS:
        return liquidation_price(position, position.bucket)
    legs = [leg for leg in account.positions_in(position.market) if leg.size_lots]
    collateral = cross_collateral(pool or survey(account), legs)
    if len(legs) == 1:
        return liquidation_price(position, collateral)
    return shared_liquidation_price(legs, collateral)


def cross_collateral(pool: Survey, legs: list[Position]) -> int:
    """Return what stands behind cross positions of a market: wallet − other maintenance + other profit."""
    collateral = pool.equity - pool.maintenance
    for leg in legs:
        collateral += maintenance(leg) - unrealised(leg)
    return collateral


def bankruptcy_price(position: Position, share: int, share_denominator: int = 1) -> Fraction:
    """Return the mark, as a fraction of ticks, at which a position has used up its share of the equity.

    mark − share / (size × unit); the position must be open. The share is `share` / `share_denominator`
    money units. With a negative one the price lies on the far side of the mark.
    """
    size, market = position.size_lots, position.market
    assert size != 0, market.symbol
    per_tick = abs(size) * market.unit * share_denominator
    numerator = market.mark_ticks * per_tick - (share if size > 0 else -share)
    return numerator, per_tick


def price_amount(price: Fraction, tick_size: int) -> int:
    """Return a price given in ticks as 1e-8 quote, rounded half-even: a figure to show, not to trade at."""
    return round_half_even(price[0] * tick_size, price[1])


def _solve(legs: list[Position], numbers: list[int], collateral: int) -> Fraction | None:
    """Return where equity meets maintenance if each leg were in its numbered bracket at every price."""
    brackets = legs[0].market.brackets
    numerator = collateral * RATE_ONE
    denominator = 0
    for leg, n in zip(legs, numbers, strict=True):
        size = leg.size_lots
        numerator += brackets.deductions[n] - leg.entry_cost * RATE_ONE
        denominator += abs(size) * brackets.rates[n] - size * RATE_ONE
    denominator *= legs[0].market.unit
    if denominator == 0:
        return None
    return (numerator, denominator) if denominator > 0 else (-numerator, -denominator)


def _is_below(one: Fraction, other: Fraction) -> bool:
    return one[0] * other[1] < other[0] * one[1]


def _is_nearer(one: Fraction, other: Fraction, mark_ticks: int) -> bool:
    return _is_below(
        (abs(one[0] - mark_ticks * one[1]), one[1]), (abs(other[0] - mark_ticks * other[1]), other[1])
    )
