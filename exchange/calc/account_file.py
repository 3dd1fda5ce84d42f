"""An account as people describe it, in JSON with decimal strings, made into a venue of one account.

The shape is checked first (fields, types), then what the values mean; see `shapes` for the errors.

The venue has no limits beside those given: any size, any price, any number of orders. It has no other
account, so that its books hold the account's own orders only.
"""

from typing import Any

import msgspec

from events.commands import PlaceOrder
from events.events import AccountOpened, MarketListed, OrderAccepted, PositionModeSet
from events.values import CROSS, GTC, ISOLATED, LIMIT, Bracket, Leg, MarginMode, MarketSpec, Side
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position
from exchange.aggregate.admission import only_closes, only_reduces
from exchange.aggregate.margin import order_extras
from exchange.aggregate.market import Market, spec_problem
from exchange.aggregate.order import Order
from exchange.aggregate.posting import hold
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import AMOUNT_MAX, MONEY_ONE, RATE_ONE, ceil_div, decimal_text
from exchange.calc.shapes import (
    AccountFileError,
    Shape,
    choice,
    named,
    number,
    price,
    read_json,
    shaped,
    shown,
    whole_number,
)
from exchange.decimals import parse_fixed, parse_lots, parse_money

# Numbers of the orders of `what_if`: above those of the file's, below those that the aggregate makes.
STEP_ORDER_ID_FIRST = 1 << 40


class BracketShape(Shape):
    """One step of a leverage table."""

    cap: str
    maintenance_margin_rate: str
    max_leverage: int | str


class MarketShape(Shape):
    """A contract and its mark."""

    mark: str
    tick_size: str
    lot_size: str
    taker_fee: str
    brackets: list[BracketShape]


class PositionShape(Shape):
    """An open position; `size` is signed, `bucket` an isolated one's collateral."""

    market: str
    size: str
    entry_price: str
    margin_mode: str
    leverage: int | str
    leg: str | None = None
    bucket: str | None = None


class OrderShape(Shape):
    """An open limit order, or one to place."""

    market: str
    side: str
    price: str
    size: str
    leg: str | None = None
    reduce_only: bool = False


class _FileShape(Shape):
    """The whole file; what stands inside is checked piece by piece, so that errors can name the piece."""

    markets: dict[str, Any]
    wallet: str
    position_mode: str = "one_way"
    positions: list[Any] = msgspec.field(default_factory=list)
    orders: list[Any] = msgspec.field(default_factory=list)
    what_if: list[Any] = msgspec.field(default_factory=list)


class Scenario:
    """One account on a venue of its own. `steps` is what the file asks to try, not yet looked at."""

    def __init__(self, steps: list[Any]) -> None:
        self.state = Exchange()
        self.state.apply(AccountOpened(account_id=FIRST_USER_ACCOUNT_ID, label=""))
        self.steps = steps

    @property
    def account(self) -> Account:
        """The account the file describes."""
        return self.state.accounts[FIRST_USER_ACCOUNT_ID]

    @property
    def open_positions(self) -> list[Position]:
        """The account's open positions, in the order given."""
        return [position for position in self.account.positions.values() if position.size_lots]

    def market(self, symbol: str, field: str) -> Market:
        """Return one of the markets given."""
        market = self.state.markets.get(symbol)
        if market is None:
            raise AccountFileError(field, f"{shown(symbol)} is not among the markets")
        return market


def read_scenario(text: bytes) -> Scenario:
    """Return the account that a file describes, at the marks it gives.

    Raises:
        AccountFileError: the text is no JSON, or a field is missing, unknown, of a wrong type or impossible.
    """
    file = shaped("", read_json(text), _FileShape)
    if not file.markets:
        raise AccountFileError("markets", "must not be empty")
    scenario = Scenario(file.what_if)
    for symbol, each in file.markets.items():
        _list_market(scenario, symbol, each)
    mode = file.position_mode.lower()
    if mode not in ("one_way", "hedge"):
        raise AccountFileError("position_mode", "must be one_way or hedge")
    if mode == "hedge":
        scenario.state.apply(PositionModeSet(account_id=FIRST_USER_ACCOUNT_ID, hedge=True))
    scenario.account.wallet = number("wallet", lambda: parse_money(file.wallet, signed=True))
    for n, each in enumerate(file.positions):
        _hold_position(scenario, each, f"positions[{n}]")
    if scenario.account.wallet < 0 and all(held.mode is ISOLATED for held in scenario.open_positions):
        raise AccountFileError("wallet", "must not be negative without a cross position")
    for n, each in enumerate(file.orders):
        _accept_order(scenario, each, f"orders[{n}]", n + 1)
    return scenario


def leg_of(scenario: Scenario, text: str | None, field: str) -> Leg:
    """Return the leg named, one of the position mode's; BOTH need not be named."""
    legs = {leg.name: leg for leg in scenario.account.legs}
    leg = legs.get("BOTH" if text is None else text.upper())
    if leg is None:
        raise AccountFileError(field, f"must be {' or '.join(legs)}")
    return leg


def read_order(scenario: Scenario, data: object, field: str) -> PlaceOrder:
    """Return the command that places a limit order of the file."""
    shape = shaped(field, data, OrderShape)
    market = scenario.market(shape.market, f"{field}.market")
    price_ticks = price(f"{field}.price", market.spec, shape.price)
    lots = number(f"{field}.size", lambda: parse_lots(market.spec, shape.size))
    if lots == 0:
        raise AccountFileError(f"{field}.size", "must be positive")
    _check_notional(f"{field}.size", market, lots, price_ticks)
    return PlaceOrder(
        account_id=scenario.account.account_id,
        market=market.symbol,
        side=choice(f"{field}.side", shape.side, Side),
        order_type=LIMIT,
        quantity_lots=lots,
        price_ticks=price_ticks,
        reduce_only=shape.reduce_only,
        leg=leg_of(scenario, shape.leg, f"{field}.leg"),
    )


def crossing(scenario: Scenario, command: PlaceOrder) -> str | None:
    """Say which of the account's own open orders an order would meet, None if none.

    Nobody else is there, so an order that meets none of them rests.
    """
    for order in scenario.account.orders.values():
        if _is_met_by(order, command):
            n = order.order_id - STEP_ORDER_ID_FIRST
            return f"crosses what_if[{n}].order" if n >= 0 else f"crosses orders[{order.order_id - 1}]"
    return None


def _is_met_by(order: Order, command: PlaceOrder) -> bool:
    return (
        order.terms.market == command.market
        and order.side is not command.side
        and (command.price_ticks - order.price_ticks) * command.side >= 0
    )


def _list_market(scenario: Scenario, symbol: str, data: object) -> None:
    if not symbol:
        raise AccountFileError("markets", "a market must have a name")
    field = f"markets.{named(symbol)}"
    shape = shaped(field, data, MarketShape)
    brackets = tuple(_bracket(f"{field}.brackets[{n}]", each) for n, each in enumerate(shape.brackets))
    spec = MarketSpec(
        symbol=symbol,
        base="",
        quote="",
        tick_size=number(f"{field}.tick_size", lambda: parse_fixed(shape.tick_size)),
        lot_size=number(f"{field}.lot_size", lambda: parse_fixed(shape.lot_size)),
        min_price_ticks=1,
        max_price_ticks=1,
        min_lots=1,
        max_lots=1,
        min_notional=0,
        maker_fee=0,
        taker_fee=number(f"{field}.taker_fee", lambda: parse_fixed(shape.taker_fee)),
        liquidation_fee=0,
        mark_band=0,
        take_bound=RATE_ONE - 1,
        band_up=AMOUNT_MAX,
        band_down=RATE_ONE,
        max_market_lots=1,
        max_open_orders=AMOUNT_MAX,
        max_conditional_orders=0,
        max_position_lots=1,
        max_open_interest_lots=1,
        unwind_lots=1,
        brackets=brackets,
    )
    if spec.tick_size * spec.lot_size > AMOUNT_MAX * MONEY_ONE:
        raise AccountFileError(f"{field}.tick_size × lot_size", "is too large")
    problem = spec_problem(spec)
    if problem:
        problem = problem.replace("maintenance_rate", "maintenance_margin_rate")
        raise AccountFileError(*f"{field}.{problem}".split(": ", 1))
    # What the exchange bounds, so that its events fit 64 bits, is bounded for each number here.
    sizes = ("max_price_ticks", "max_lots", "max_market_lots", "max_position_lots", "max_open_interest_lots")
    unlimited = msgspec.structs.replace(spec, **dict.fromkeys(sizes, AMOUNT_MAX))
    scenario.state.apply(MarketListed(spec=unlimited))
    set_mark(scenario.state.markets[symbol], price(f"{field}.mark", spec, shape.mark))


def set_mark(market: Market, mark_ticks: int) -> None:
    """Put a market's mark and index at a price; on a real exchange the one follows from the other."""
    market.index_ticks = market.mark_ticks = mark_ticks


def _bracket(field: str, shape: BracketShape) -> Bracket:
    rate_field = f"{field}.maintenance_margin_rate"
    return Bracket(
        cap=number(f"{field}.cap", lambda: parse_money(shape.cap)),
        maintenance_rate=number(rate_field, lambda: parse_fixed(shape.maintenance_margin_rate)),
        max_leverage=whole_number(f"{field}.max_leverage", shape.max_leverage),
    )


def _hold_position(scenario: Scenario, data: object, field: str) -> None:
    shape = shaped(field, data, PositionShape)
    account = scenario.account
    market = scenario.market(shape.market, f"{field}.market")
    leg = leg_of(scenario, shape.leg, f"{field}.leg")
    if account.position(market, leg).size_lots:
        raise AccountFileError(field, f"is a second position in {market.symbol}, leg {leg.name}")
    lots = number(f"{field}.size", lambda: parse_lots(market.spec, shape.size, signed=True))
    if lots == 0 or (leg is Leg.LONG and lots < 0) or (leg is Leg.SHORT and lots > 0):
        sign = {Leg.BOTH: "not be zero", Leg.LONG: "be positive", Leg.SHORT: "be negative"}[leg]
        raise AccountFileError(f"{field}.size", f"must {sign}")
    _check_notional(f"{field}.size", market, lots, market.mark_ticks)
    leverage = whole_number(f"{field}.leverage", shape.leverage)
    if leverage > market.brackets.leverages[0]:
        raise AccountFileError(f"{field}.leverage", f"must be at most {market.brackets.leverages[0]}")
    mode = choice(f"{field}.margin_mode", shape.margin_mode, MarginMode)
    for other in account.positions_in(market):
        if other.size_lots and (other.mode, other.leverage) != (mode, leverage):
            raise AccountFileError(field, "must have the margin mode and the leverage of the other leg")
    position = account.stored_position(market, leg)
    position.mode, position.leverage = mode, leverage
    position.size_lots = lots
    position.entry_cost = _entry_cost(f"{field}.entry_price", market.spec, lots, shape.entry_price)
    position.bucket = _bucket(f"{field}.bucket", mode, shape.bucket)
    hold(market, account, position)


def _entry_cost(field: str, spec: MarketSpec, lots: int, text: str) -> int:
    """Return size × entry price in money units, rounded up where it is not whole: against the account."""
    entry = number(field, lambda: parse_money(text))
    if entry == 0:
        raise AccountFileError(field, "must be positive")
    cost = ceil_div(lots * spec.lot_size * entry, MONEY_ONE)
    if abs(cost) > AMOUNT_MAX:
        raise AccountFileError(field, "size × entry price is too large")
    return cost


def _bucket(field: str, mode: MarginMode, text: str | None) -> int:
    if mode is ISOLATED and text is None:
        raise AccountFileError(field, "is missing: an isolated position has one")
    bucket = 0 if text is None else number(field, lambda: parse_money(text, signed=True))
    if mode is CROSS and bucket:
        raise AccountFileError(field, "a cross position has none: the wallet stands behind it")
    return bucket


def _check_notional(field: str, market: Market, lots: int, price_ticks: int) -> None:
    if abs(lots) * price_ticks * market.unit > AMOUNT_MAX:
        raise AccountFileError(field, "its notional is too large")


def _accept_order(scenario: Scenario, data: object, field: str, order_id: int) -> None:
    """Let an order rest with the reserve that it has when accepted at the marks given."""
    command = read_order(scenario, data, field)
    crosses = crossing(scenario, command)
    if crosses:
        raise AccountFileError(f"{field}.price", crosses)
    account, market = scenario.account, scenario.state.markets[command.market]
    position = account.position(market, command.leg)
    side, lots = command.side, command.quantity_lots
    reduces = only_reduces(command)
    reducible = position.reducible_lots(side)
    if reduces and lots > reducible:
        most = decimal_text(reducible * market.spec.lot_size)
        raise AccountFileError(f"{field}.size", f"the position can be reduced by {most}")
    needs_none = reduces or only_closes(position, side, lots)
    scenario.state.apply(
        OrderAccepted(
            order_id=order_id,
            account_id=account.account_id,
            market=market.symbol,
            side=side,
            order_type=LIMIT,
            quantity_lots=lots,
            price_ticks=command.price_ticks,
            time_in_force=GTC,
            reduce_only=reduces,
            client_order_id="",
            extras=0 if needs_none else order_extras(position, side, lots, command.price_ticks),
            leg=command.leg,
        )
    )
