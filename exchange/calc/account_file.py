"""An account as people describe it, in JSON with decimal strings, made into a venue of one account.

The shape is checked first (fields, types), then what the values mean. Whatever is wrong is an
`AccountFileError` that names the field, as in "positions[0].leverage: must be a whole number".

The venue has no limits beside those given: any size, any price, any number of orders. It has no other
account, so that its books hold the account's own orders only.
"""

import re
from typing import Any, TypeVar

import msgspec

from events.events import AccountOpened, MarketListed, OrderAccepted, PositionModeSet
from events.values import CROSS, GTC, ISOLATED, LIMIT, Bracket, Leg, MarginMode, MarketSpec, Side
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account, Position, reducing_side
from exchange.aggregate.margin import order_extras
from exchange.aggregate.market import Market, spec_problem
from exchange.aggregate.state import Exchange, hold
from exchange.aggregate.units import AMOUNT_MAX, MONEY_ONE, RATE_ONE, ceil_div
from exchange.decimals import DecimalError, parse_fixed, parse_lots, parse_money, parse_price

S = TypeVar("S")

_FIELD_ERRORS = (
    (re.compile(r"Object missing required field `(.+?)`"), "is missing"),
    (re.compile(r"Object contains unknown field `(.+?)`"), "is not a known field"),
)
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class AccountFileError(ValueError):
    """The description cannot be used. `field` says where, `problem` which rule it breaks."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Shape(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of the objects in the file."""


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
    positions: list[Any] = []
    orders: list[Any] = []
    what_if: list[Any] = []


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
            raise AccountFileError(field, f"{symbol!r} is not among the markets")
        return market


class OrderTerms:
    """An order's values in the market's units."""

    __slots__ = ("leg", "lots", "market", "price_ticks", "reduce_only", "side")

    def __init__(self, scenario: Scenario, shape: OrderShape, field: str) -> None:
        self.market = scenario.market(shape.market, f"{field}.market")
        self.side = choice(f"{field}.side", shape.side, Side)
        self.leg = leg_of(scenario, shape.leg, f"{field}.leg")
        self.price_ticks = price(f"{field}.price", self.market.spec, shape.price)
        self.lots = number(f"{field}.size", lambda: parse_lots(self.market.spec, shape.size))
        if self.lots == 0:
            raise AccountFileError(f"{field}.size", "must be positive")
        _check_notional(f"{field}.size", self.market, self.lots, self.price_ticks)
        self.reduce_only = shape.reduce_only


def read_scenario(text: bytes) -> Scenario:
    """Return the account that a file describes, at the marks it gives.

    Raises:
        AccountFileError: the text is no JSON, or a field is missing, unknown, of a wrong type or impossible.
    """
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AccountFileError("input", f"is not JSON: {error}") from None
    file = shaped("", data, _FileShape)
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
    for n, each in enumerate(file.orders):
        _accept_order(scenario, each, f"orders[{n}]", n + 1)
    return scenario


def shaped(field: str, data: object, kind: type[S]) -> S:
    """Return a piece of the file as one of the shapes; `field` is where it stands, "" for the whole."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        inside = place.group(1) if place else ""
        if place:
            message = message[: place.start()]
        for pattern, problem in _FIELD_ERRORS:
            known = pattern.match(message)
            if known:
                raise AccountFileError(_join(field, inside, known.group(1)), problem) from None
        problem = message[:1].lower() + message[1:].replace("`str`", "a string").replace("`", "")
        raise AccountFileError(_join(field, inside) or "input", problem) from None


def number(field: str, parse: Any) -> int:
    """Return what `parse` makes of a decimal string; what is wrong with it is said of `field`."""
    try:
        return int(parse())
    except DecimalError as error:
        raise AccountFileError(field, str(error)) from None


def price(field: str, spec: MarketSpec, text: str) -> int:
    """Return a positive price in ticks."""
    price_ticks = number(field, lambda: parse_price(spec, text))
    if price_ticks == 0:
        raise AccountFileError(field, "must be positive")
    return price_ticks


def whole_number(field: str, value: int | str) -> int:
    """Return a positive whole number, written as one or as a string."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if value < 1:
        raise AccountFileError(field, "must be a whole number of at least 1")
    return value


def choice(field: str, text: str, kind: type[S]) -> S:
    """Return a member of an enumeration by its name; upper or lower case does not matter."""
    members: dict[str, S] = kind.__members__  # type: ignore[attr-defined]
    member = members.get(text.upper())
    if member is None:
        raise AccountFileError(field, f"must be {' or '.join(members)}")
    return member


def leg_of(scenario: Scenario, text: str | None, field: str) -> Leg:
    """Return the leg named, one of the position mode's; BOTH need not be named."""
    leg = choice(field, text or "BOTH", Leg)
    if leg not in scenario.account.legs:
        raise AccountFileError(field, f"must be {' or '.join(each.name for each in scenario.account.legs)}")
    return leg


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part).replace(".[", "[")


def _list_market(scenario: Scenario, symbol: str, data: object) -> None:
    field = f"markets.{symbol}"
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
    terms = OrderTerms(scenario, shaped(field, data, OrderShape), field)
    position = scenario.account.position(terms.market, terms.leg)
    reducible = position.reducible_lots(terms.side)
    reduces = terms.reduce_only or terms.side is reducing_side(terms.leg)
    if reduces and terms.lots > reducible:
        raise AccountFileError(f"{field}.size", "reduces more than the position is")
    needs_none = reduces or position.open_lots(terms.side) + terms.lots <= reducible
    scenario.state.apply(
        OrderAccepted(
            order_id=order_id,
            account_id=scenario.account.account_id,
            market=terms.market.symbol,
            side=terms.side,
            order_type=LIMIT,
            quantity_lots=terms.lots,
            price_ticks=terms.price_ticks,
            time_in_force=GTC,
            reduce_only=reduces,
            client_order_id="",
            extras=0 if needs_none else order_extras(position, terms.side, terms.lots, terms.price_ticks),
            leg=terms.leg,
        )
    )
