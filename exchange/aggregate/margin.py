"""Margin: how much collateral a bucket needs. At which marks it dies: `liquidation_price`.

A *bucket* is what a loss can reach: the wallet shared by an account's cross positions, or the collateral
of one isolated position. Every function here takes accounts, positions and their markets' marks and
returns money; none knows about processes, time or the order of events, and none changes anything.

Why ceilings: a requirement rounded down lets an account open what it cannot hold. One unit too much is
0.00000001 USDT; one unit too little is a hole that 10^9 orders can walk through.

Formulas: Binance, "How to Calculate Liquidation Price of USDⓈ-M Futures Contracts" and "Leverage and
Margin of USDⓈ-M Futures"; one-way exposure: the exchange's answer in its developer forum, topic 17078.
"""

from events.values import BUY, CROSS, ISOLATED, MarginMode, Side
from exchange.aggregate.account import Account, Position, Standing
from exchange.aggregate.units import AMOUNT_MAX, RATE_ONE, ceil_div


class Survey:
    """The sums over an account's positions that margin questions need, in money units.

    `unrealised`, `maintenance` and `required` are those of cross positions, `reserved` is the order margin
    of isolated markets, which sits in the wallet until a fill moves it.
    """

    __slots__ = ("maintenance", "required", "reserved", "unrealised", "wallet")

    def __init__(self, wallet: int, unrealised: int, maintenance: int, required: int, reserved: int) -> None:
        self.wallet = wallet
        self.unrealised = unrealised
        self.maintenance = maintenance
        self.required = required
        self.reserved = reserved

    @property
    def equity(self) -> int:
        """What the cross pool is worth at mark."""
        return self.wallet + self.unrealised

    @property
    def free(self) -> int:
        """Equity not spoken for, negative when the pool is short: what cross orders may use."""
        return self.wallet + self.unrealised - self.required - self.reserved

    @property
    def transferable(self) -> int:
        """What may leave the pool, negative when it is short: like `free`, without unrealised profit."""
        return self.wallet + min(0, self.unrealised) - self.required - self.reserved


def survey(account: Account) -> Survey:
    """Sum up an account: one pass over its positions, none over its orders."""
    wallet = account.wallet
    profit = kept = required = reserved = 0
    for position in account.positions.values():
        known = position.standing
        if known.required < 0 or known.mark_ticks != position.market.mark_ticks:
            known = standing(position)
        if position.mode is CROSS:
            profit += known.unrealised
            kept += known.maintenance
            required += known.required
        else:
            reserved += known.required
    return Survey(wallet, profit, kept, required, reserved)


def room(account: Account, mode: MarginMode) -> int:
    """Return what an order in a margin mode may take: `free` of the survey in cross, else `transferable`.

    Asked for every order, so it is summed up without the survey's other numbers.
    """
    profit = spoken_for = 0
    for position in account.positions.values():
        known = position.standing
        if known.required < 0 or known.mark_ticks != position.market.mark_ticks:
            known = standing(position)
        spoken_for += known.required
        if position.mode is CROSS:
            profit += known.unrealised
    if profit > 0 and mode is ISOLATED:
        profit = 0
    return account.wallet + profit - spoken_for


def standing(position: Position) -> Standing:
    """Return what a position amounts to at its market's mark, computing it when something changed."""
    market = position.market
    known = position.standing
    mark_ticks = market.mark_ticks
    is_current = known.mark_ticks == mark_ticks
    if is_current and known.required >= 0:
        return known
    unit = market.unit
    value = position.size_lots * mark_ticks * unit
    if not is_current:
        known.mark_ticks = mark_ticks
        known.unrealised = value - position.entry_cost
        known.maintenance = market.brackets.maintenance(abs(value)) if value else 0
    worst = abs(value + position.bid_value * unit)
    selling = abs(value - position.ask_value * unit)
    if selling > worst:
        worst = selling
    known.exposure = worst
    known.required = exposure_margin(position, value, worst, position.leverage) + position.extras
    return known


def exposure_margin(position: Position, value: int, worst: int, leverage: int) -> int:
    """Return the margin of a worst-side exposure beside a position worth `value`, without extras.

    Isolated: ceil((exposure − |P|) / leverage). Cross: ceil(exposure / leverage), and more than the
    maintenance margin of the exposure, since equality liquidates: else what a position needs to live could be
    withdrawn. The brackets see to that up to the leverage's cap; beyond it only a moving mark brings an
    exposure. Of dust both may round up to the same amount; from `leverage` units of quote on they cannot,
    since leverage × rate is at least 1e-8 below 1 in every bracket that permits it.
    """
    if position.mode is ISOLATED:
        return -(-(worst - abs(value)) // leverage)
    brackets = position.market.brackets
    if worst > brackets.caps_at[leverage] or 0 < worst < leverage * RATE_ONE:
        return max(-(-worst // leverage), brackets.maintenance(worst) + 1)
    return -(-worst // leverage)


def position_value(position: Position) -> int:
    """Return the signed notional of a position at mark."""
    market = position.market
    return position.size_lots * market.mark_ticks * market.unit


def unrealised(position: Position) -> int:
    """Return the profit of a position at mark: size × mark − entry cost."""
    return standing(position).unrealised


def maintenance(position: Position) -> int:
    """Return the collateral at or below which a position is liquidated: ceil(N × mmr_n − cum_n)."""
    return standing(position).maintenance


def initial_margin(position: Position) -> int:
    """Return the margin needed to hold a position: max(ceil(N / leverage), maintenance)."""
    notional = abs(position_value(position))
    return max(ceil_div(notional, position.leverage), position.market.brackets.maintenance(notional))


def safe_margin(position: Position, leverage: int) -> int:
    """Return the least collateral to give a position at a leverage: its initial margin, and it lives.

    Equality liquidates, so that where the maintenance margin decides (beyond the cap of the leverage) it is
    one unit more than that.
    """
    notional = abs(position_value(position))
    return max(ceil_div(notional, leverage), position.market.brackets.maintenance(notional) + 1)


def requirement_of(
    position: Position, size_lots: int, leverage: int, bid_value: int, ask_value: int, extras: int
) -> int:
    """Return what a position and its open orders would take from the wallet, were they these.

    The worst-side exposure is max(|P + B|, |P − A|), with P the signed notional at mark, B and A those of
    open bids and asks at their limits; see `exposure_margin`.
    """
    unit = position.market.unit
    value = size_lots * position.market.mark_ticks * unit
    worst = max(abs(value + bid_value * unit), abs(value - ask_value * unit))
    return exposure_margin(position, value, worst, leverage) + extras


def exposure_with(position: Position, bid_value: int, ask_value: int) -> int:
    """Return the worst-side notional as if the open orders had these values, in ticks × lots."""
    unit = position.market.unit
    value = position.size_lots * position.market.mark_ticks * unit
    return max(abs(value + bid_value * unit), abs(value - ask_value * unit))


def order_extras(position: Position, side: Side, lots: int, price_ticks: int, margin: int = 0) -> int:
    """Return what an order reserves beside its initial margin: open loss against mark, and taker fee.

    An order that brings more `margin` than is needed reserves the surplus too.
    """
    market = position.market
    value = lots * market.unit
    extras = -(-value * price_ticks * market.spec.taker_fee // RATE_ONE)  # `charge`, without its call
    worse_by = price_ticks - market.mark_ticks if side is BUY else market.mark_ticks - price_ticks
    if worse_by > 0:
        extras += worse_by * value
    if margin:
        extras += max(0, margin - ceil_div(value * price_ticks, position.leverage))
    return extras


def bucket_equity(account: Account, position: Position) -> int:
    """Return the equity of the bucket a position stands on: its own, or the account's pool."""
    if position.mode is ISOLATED:
        return position.bucket + unrealised(position)
    return pool_equity(account)


def pool_equity(account: Account) -> int:
    """Return what an account's cross pool is worth at mark: `survey` without its other sums."""
    equity = account.wallet
    for position in account.positions.values():
        if position.mode is CROSS:
            equity += unrealised(position)
    return equity


def is_liquidatable(equity: int, maintenance_margin: int) -> bool:
    """Whether a bucket with an open position is to be liquidated: equality liquidates.

    A bucket whose positions need no margin (all flat) is not.
    """
    return maintenance_margin > 0 and equity <= maintenance_margin


def margin_ratio(equity: int, maintenance_margin: int) -> int | None:
    """Return maintenance / equity of a bucket in 1e-8, rounded up: at 1 it is liquidated.

    None without equity, and where the figure does not fit 62 bits.
    """
    if equity <= 0:
        return None
    ratio = ceil_div(maintenance_margin * RATE_ONE, equity)
    return ratio if ratio <= AMOUNT_MAX else None
