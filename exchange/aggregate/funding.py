"""Funding: what ties a perpetual contract to its index. Longs pay shorts while it trades above, and back.

    premium = (max(0, impact bid − index) − max(0, index − impact ask)) / index      at each index update
    rate    = clamp(average premium + clamp(interest − average premium, ±0.05 %), ±cap)
    a position pays size × mark × rate                                               at each boundary

An impact price is the average price at which a market order worth the impact notional would fill. The
best prices alone would let one lot on each side set the rate for everybody.

Boundaries are whole multiples of the interval since 1970. There is no clock here: a boundary is settled by
the first index update at or after it, with that update's mark, and that update is the last of its interval.
When several boundaries have passed, the earliest is settled and the others are skipped: nobody can pay for
hours in which no mark was known.

Who pays pays the next whole unit, who receives gets the last; the residue, less than one unit a position,
is the insurance fund's. Funding is posted in full, whatever the bucket holds: a bucket that goes below
maintenance by it is liquidated like any other.

Source: Binance, "Introduction to Binance Futures Funding Rates".
"""

from typing import Final

from events.events import FundingSettled, FundingSkipped
from events.values import BUY, SELL, MarketSpec, Side
from exchange.aggregate.market import PRICE_SCALE, Market
from exchange.aggregate.turn import Turn
from exchange.aggregate.units import RATE_ONE, ceil_div, floor_div, trunc_div

NS_PER_S: Final = 1_000_000_000
# How far the interest may pull the rate away from the premium: 0.05 %.
INTEREST_PULL_MAX: Final = 50_000


def next_boundary(spec: MarketSpec, after_ns: int) -> int:
    """Return the first time of settlement later than `after_ns` (ns since 1970), 0 without funding."""
    interval_ns = spec.funding_interval_s * NS_PER_S
    return (floor_div(after_ns, interval_ns) + 1) * interval_ns if interval_ns else 0


def take_impact(market: Market) -> tuple[int, int]:
    """Return the impact bid and ask in 1/65536 ticks; 0 for a side that cannot fill the impact notional.

    A market without funding or impact notional has neither: it has no use for them.
    """
    notional = market.spec.impact_notional
    if market.spec.funding_interval_s == 0 or notional == 0:
        return 0, 0
    return impact_price(market, BUY, notional), impact_price(market, SELL, notional)


def impact_price(market: Market, side: Side, notional: int) -> int:
    """Return the average price of trading `notional` money units with the orders of `side`, 0 if too few.

    In 1/65536 ticks, a bid rounded down and an ask up, so that rounding makes no premium. The last level is
    taken as far as needed, in fractions of a lot: with Q lots at better levels and the rest R of the
    notional filled at the price p of the last, the average is notional × p / (Q × p × unit + R).
    """
    assert notional > 0, notional
    unit = market.unit
    lots = 0
    rest = notional
    for level in market.book.half(side).best_first():
        price_ticks = abs(level.key)
        value = level.lots * price_ticks * unit
        if value < rest:
            lots += level.lots
            rest -= value
            continue
        numerator = notional * price_ticks * PRICE_SCALE
        denominator = lots * price_ticks * unit + rest
        return floor_div(numerator, denominator) if side is BUY else ceil_div(numerator, denominator)
    return 0


def premium_of(index_ticks: int, impact_bid: int, impact_ask: int) -> int:
    """Return the premium over the index (1e-8), rounded toward zero and at most 1.

    Impact prices are 1/65536 ticks; 0 is one that does not exist. Without both there is no premium: nobody
    sets it by standing on one side alone.
    """
    if not impact_bid or not impact_ask:
        return 0
    index = index_ticks * PRICE_SCALE
    above = max(0, impact_bid - index)
    below = max(0, index - impact_ask)
    return min(trunc_div((above - below) * RATE_ONE, index), RATE_ONE)


def funding_rate(spec: MarketSpec, premium_average: int) -> int:
    """Return the rate (1e-8) of an interval with this average premium; positive: longs pay shorts."""
    pull = min(max(spec.interest_rate - premium_average, -INTEREST_PULL_MAX), INTEREST_PULL_MAX)
    return min(max(premium_average + pull, -spec.funding_cap), spec.funding_cap)


def settle_funding(turn: Turn, market: Market) -> None:
    """Settle the boundary that has passed, if one has, and skip those that passed after it.

    The market's mark and premium are those of an update just applied.
    """
    now_ns, boundary_ns = turn.state.now_ns, market.next_funding_ns
    if boundary_ns == 0 or now_ns < boundary_ns:
        return
    spec = market.spec
    interval_ns = spec.funding_interval_s * NS_PER_S
    assert market.premium_count > 0, market.symbol
    premium_average = trunc_div(market.premium_sum, market.premium_count)
    rate = funding_rate(spec, premium_average)
    paid, received = _totals(market, rate)
    turn.emit(
        FundingSettled(
            market=market.symbol,
            boundary_ns=boundary_ns,
            rate=rate,
            mark_ticks=market.mark_ticks,
            premium_average=premium_average,
            premium_count=market.premium_count,
            interest_rate=spec.interest_rate,
            next_funding_ns=boundary_ns + interval_ns,
            paid=paid,
            received=received,
            residue=paid - received,
        )
    )
    skipped = floor_div(now_ns - boundary_ns, interval_ns)
    if skipped:
        turn.emit(
            FundingSkipped(
                market=market.symbol,
                boundary_ns=boundary_ns + interval_ns,
                count=skipped,
                next_funding_ns=boundary_ns + (skipped + 1) * interval_ns,
            )
        )


def _totals(market: Market, rate: int) -> tuple[int, int]:
    """Return what all positions together pay and receive at a rate, in money units."""
    paid = received = 0
    gain_of_lot = -market.mark_ticks * market.unit * rate
    for position in market.holders.values():
        gain = position.size_lots * gain_of_lot // RATE_ONE
        if gain > 0:
            received += gain
        else:
            paid -= gain
    return paid, received
