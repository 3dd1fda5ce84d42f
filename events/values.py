"""Values that commands and events share: enumerations, the contract specification, index sources.

Units, everywhere in Foldex: prices are integer *ticks*, sizes integer *lots*, money integers of 1e-8
quote, rates integers of 1e-8. A `MarketSpec` fixes what one tick and one lot are worth.
"""

from enum import IntEnum, IntFlag, StrEnum
from typing import Final

import msgspec


class Side(IntEnum):
    """Which way an order trades; the value is the sign of the position it builds."""

    BUY = 1
    SELL = -1

    @property
    def opposite(self) -> "Side":
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class Leg(IntEnum):
    """Which position of (account, market) is meant: the only one, or one leg of a hedge."""

    BOTH = 0
    LONG = 1
    SHORT = 2


class MarginMode(IntEnum):
    """What a loss of a position can reach: the shared wallet, or the position's own bucket."""

    CROSS = 0
    ISOLATED = 1


class OrderType(IntEnum):
    """How an order is priced."""

    LIMIT = 0
    MARKET = 1
    LIQUIDATION = 2


class TimeInForce(IntEnum):
    """How long an order may wait.

    GTC rests until cancelled, GTD until a time; IOC never rests; FOK fills whole or not; GTX only rests.
    """

    GTC = 0
    IOC = 1
    FOK = 2
    GTX = 3
    GTD = 4


class SelfTrade(IntEnum):
    """What happens when an order meets one of its own account; the arriving order's choice counts.

    NONE: they trade. Otherwise the arriving order, the resting one, or both expire.
    """

    NONE = 0
    EXPIRE_TAKER = 1
    EXPIRE_MAKER = 2
    EXPIRE_BOTH = 3


class PriceMatch(IntEnum):
    """Which level of the book gives an order its limit, when the order is decided; NONE: it brings its own.

    OPPONENT: the best level of the other side, QUEUE: of the order's own. With a number: the level that is so
    far from the best, which is the first.
    """

    NONE = 0
    OPPONENT = 1
    OPPONENT_5 = 2
    OPPONENT_10 = 3
    OPPONENT_20 = 4
    QUEUE = 5
    QUEUE_5 = 6
    QUEUE_10 = 7
    QUEUE_20 = 8


class TriggerKind(IntEnum):
    """When a conditional order becomes an order.

    STOP: the price moves against the position it protects (a buy rises to the trigger, a sell falls to it).
    TAKE_PROFIT: the other way. TRAILING: the price turns by a rate from its best since activation.
    """

    STOP = 0
    TAKE_PROFIT = 1
    TRAILING = 2


class WorkingPrice(IntEnum):
    """Which price a conditional order watches."""

    MARK = 0
    LAST = 1


class MarketStatus(IntEnum):
    """What a market accepts: everything; cancels and liquidation; nothing."""

    TRADING = 0
    CANCEL_ONLY = 1
    HALTED = 2


class CloseReason(IntEnum):
    """Why an order was changed or ended by something other than a fill.

    AMENDED: its owner reduced it to what was filled, or made a post-only order cross. EVENT_LIMIT: one
    command may cause only so much.
    """

    USER = 0
    IOC_REST = 1
    MARKET_REST = 2
    SELF_TRADE = 3
    REDUCE_ONLY = 4
    MARGIN = 5
    LIQUIDATION = 6
    EVENT_LIMIT = 7
    AMENDED = 8
    COUNTDOWN = 9
    GOOD_TILL_DATE = 10
    DELEVERAGED = 11


class LiquidationResult(IntEnum):
    """How a liquidation ended: of its positions the one that went furthest decides, in this order.

    RESTORED: reducing brought equity above maintenance. CLOSED: every position was reduced to nothing in
    the book. TAKEN_OVER: the insurance fund took the rest. DELEVERAGED: positions of the other side were
    closed against the rest. SOCIALISED: that was not enough either; the fund paid what it could, and the
    other side shared the rest of what was missing. UNBORNE: the rest is in a market that is halted or whose
    index is stale, where the position stands. CONTINUES: as many counterparties were used as one
    liquidation may; the rest waits for the next request.
    """

    RESTORED = 0
    CLOSED = 1
    TAKEN_OVER = 2
    DELEVERAGED = 3
    SOCIALISED = 4
    UNBORNE = 5
    CONTINUES = 6


class DeleverageStep(IntEnum):
    """Against whom a position was closed, and at what price.

    At its bankruptcy price against the account's own opposite leg, against the fund, against the other side
    by rank; AT_MARK against whoever is there, once nobody can take more at that price. Two legs that share
    the cross pool are netted at mark: between them a price means nothing.
    """

    OWN_LEG = 0
    FUND = 1
    RANKED = 2
    AT_MARK = 3


class SourceFault(IntEnum):
    """Why a source's price is not part of the index: too old, or too far from the others."""

    STALE = 0
    OUTLYING = 1


class Outcome(IntEnum):
    """What became of a command frame.

    Only EXECUTED ran. DUPLICATE ran before. ORIGIN_CLOSED came from an incarnation that a newer one replaced,
    or of which a frame before this one is missing. REJECTED_FRAME has a body that does not decode. STALE, for
    a frame that a later one of its origin had overtaken, is no longer given: an origin with a gap is closed.
    """

    EXECUTED = 0
    DUPLICATE = 1
    STALE = 2
    ORIGIN_CLOSED = 3
    REJECTED_FRAME = 4


class KeyKind(IntEnum):
    """How requests made with an API key are signed: with a shared secret, or with the owner's private key."""

    HMAC = 0
    ED25519 = 1


class KeyPermission(IntFlag):
    """What an API key may do with its account; a key has any of them.

    READ: ask, which the intake lets every key do. TRADE: orders, leverage, margin. WITHDRAW: take money out.
    ADMINISTER: the account's keys.
    """

    READ = 1
    TRADE = 2
    WITHDRAW = 4
    ADMINISTER = 8


def permission_names(permissions: int) -> list[str]:
    """Return the names of what a sum of permissions holds, in lower case."""
    return [name.lower() for name, each in KeyPermission.__members__.items() if permissions & each]


class RejectCode(StrEnum):
    """Why the aggregate refused a command."""

    UNKNOWN_MARKET = "UNKNOWN_MARKET"
    UNKNOWN_ACCOUNT = "UNKNOWN_ACCOUNT"
    UNKNOWN_ORDER = "UNKNOWN_ORDER"
    MARKET_EXISTS = "MARKET_EXISTS"
    MARKET_CLOSED = "MARKET_CLOSED"
    LOG_EXISTS = "LOG_EXISTS"
    KEY_EXISTS = "KEY_EXISTS"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_KEY = "BAD_KEY"
    TOO_MANY_KEYS = "TOO_MANY_KEYS"
    BAD_SPEC = "BAD_SPEC"
    BAD_AMOUNT = "BAD_AMOUNT"
    BAD_PRICE = "BAD_PRICE"
    BAD_QUANTITY = "BAD_QUANTITY"
    BAD_ORDER = "BAD_ORDER"
    MIN_NOTIONAL = "MIN_NOTIONAL"
    NO_MARK_PRICE = "NO_MARK_PRICE"
    DUPLICATE_CLIENT_ORDER_ID = "DUPLICATE_CLIENT_ORDER_ID"
    TOO_MANY_ORDERS = "TOO_MANY_ORDERS"
    REDUCE_ONLY = "REDUCE_ONLY"
    INSUFFICIENT_MARGIN = "INSUFFICIENT_MARGIN"
    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
    POSITION_LIMIT = "POSITION_LIMIT"
    BAD_LEVERAGE = "BAD_LEVERAGE"
    LEVERAGE_NOT_COVERED = "LEVERAGE_NOT_COVERED"
    MODE_UNCHANGED = "MODE_UNCHANGED"
    MODE_HAS_ORDERS = "MODE_HAS_ORDERS"
    MODE_HAS_POSITION = "MODE_HAS_POSITION"
    WOULD_NOT_FILL = "WOULD_NOT_FILL"
    WOULD_TAKE = "WOULD_TAKE"
    RESERVED_ACCOUNT = "RESERVED_ACCOUNT"
    PRICE_ABOVE_BAND = "PRICE_ABOVE_BAND"
    PRICE_BELOW_BAND = "PRICE_BELOW_BAND"
    TOO_MANY_CONDITIONALS = "TOO_MANY_CONDITIONALS"
    POSITION_CAP = "POSITION_CAP"
    OPEN_INTEREST_CAP = "OPEN_INTEREST_CAP"
    BAD_LEG = "BAD_LEG"
    BAD_TRIGGER = "BAD_TRIGGER"
    WOULD_TRIGGER = "WOULD_TRIGGER"
    NOTHING_TO_AMEND = "NOTHING_TO_AMEND"
    BAD_AMENDMENT = "BAD_AMENDMENT"
    TOO_MANY_AMENDMENTS = "TOO_MANY_AMENDMENTS"
    POSITION_MODE_UNCHANGED = "POSITION_MODE_UNCHANGED"
    POSITION_MODE_HAS_ORDERS = "POSITION_MODE_HAS_ORDERS"
    POSITION_MODE_HAS_POSITION = "POSITION_MODE_HAS_POSITION"
    BAD_COUNTDOWN = "BAD_COUNTDOWN"
    BAD_CHECKPOINT = "BAD_CHECKPOINT"
    MODE_CONFLICT = "MODE_CONFLICT"
    MODE_NOT_COVERED = "MODE_NOT_COVERED"
    BAD_MARGIN = "BAD_MARGIN"
    NO_POSITION = "NO_POSITION"
    NOT_ISOLATED = "NOT_ISOLATED"
    MARGIN_NOT_REMOVABLE = "MARGIN_NOT_REMOVABLE"
    IN_LIQUIDATION = "IN_LIQUIDATION"
    STALE_INDEX = "STALE_INDEX"
    ACCOUNT_BLOCKED = "ACCOUNT_BLOCKED"
    KEEPS_FAILING = "KEEPS_FAILING"
    ACCOUNT_NOT_BLOCKED = "ACCOUNT_NOT_BLOCKED"
    EXCHANGE_HALTED = "EXCHANGE_HALTED"
    EXCHANGE_NOT_HALTED = "EXCHANGE_NOT_HALTED"
    FRAME_LIMIT = "FRAME_LIMIT"
    CLOSE_POSITION_EXISTS = "CLOSE_POSITION_EXISTS"
    NO_DEPTH = "NO_DEPTH"
    PRICE_PROTECTED = "PRICE_PROTECTED"


class Value(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of the values inside messages: frozen, keyword-only, encoded as arrays."""


class Bracket(Value, frozen=True):
    """One step of a market's leverage table. Holds for notionals above the cap before it, up to `cap`.

    `cap` is money units and belongs to this bracket (inclusive); `maintenance_rate` is 1e-8;
    `max_leverage` is the highest whole leverage allowed for such a notional.
    """

    cap: int
    maintenance_rate: int
    max_leverage: int


class MarketSpec(Value, frozen=True):
    """The rules of one contract, fixed when it is listed.

    `tick_size` is the quote price of one tick in 1e-8, `lot_size` the base amount of one lot in 1e-8;
    their product must be a whole number of money units. All fees and rates are 1e-8; a negative
    `maker_fee` is a rebate. `mark_band` bounds |mark − index| / index and must be below the lowest
    maintenance rate. `take_bound` is how far from the mark a market order may trade; a limit may be at most
    `band_up` above the mark to buy and `band_down` below it to sell. `max_market_lots` bounds market orders.
    `max_position_lots` bounds what an account may hold with all its orders filled,
    `max_open_interest_lots` what all accounts hold together. `unwind_lots` bounds what the insurance fund
    sells or buys back at one price update.

    `funding_interval_s` is the time between settlements of funding (0: none), at whole multiples of it since
    1970; `interest_rate` and `funding_cap` are 1e-8 per interval; `impact_notional` is the money for which
    the book is walked to find the premium (0: there is none). An index older than `index_age_ms_max` (0:
    never) is stale until `index_recovery_updates` have come in time. A source whose own time is older than
    `source_age_ms_max`, or whose price is further than `source_band` (1e-8) from the median of those that are
    not, is left out (0: never).

    A conditional order with price protection is not placed while mark and last price are further apart than
    `trigger_protect` (1e-8 of the last price; 0: however far).
    """

    symbol: str
    base: str
    quote: str
    tick_size: int
    lot_size: int
    min_price_ticks: int
    max_price_ticks: int
    min_lots: int
    max_lots: int
    min_notional: int
    maker_fee: int
    taker_fee: int
    liquidation_fee: int
    mark_band: int
    take_bound: int
    band_up: int
    band_down: int
    max_market_lots: int
    max_open_orders: int
    max_conditional_orders: int
    max_position_lots: int
    max_open_interest_lots: int
    unwind_lots: int
    brackets: tuple[Bracket, ...]
    funding_interval_s: int = 0
    interest_rate: int = 0
    funding_cap: int = 0
    impact_notional: int = 0
    index_age_ms_max: int = 0
    index_recovery_updates: int = 1
    source_age_ms_max: int = 0
    source_band: int = 0
    trigger_protect: int = 0


class IndexSource(Value, frozen=True):
    """One source's price, rounded half-even to ticks, with the text it was read from.

    `time_ns` is when the source says it was the price (ns since 1970), 0 when it does not say.
    """

    source: str
    price_ticks: int
    raw: str
    time_ns: int = 0


class LeftOutSource(Value, frozen=True):
    """A source that is not part of the index, and why."""

    source: IndexSource
    fault: SourceFault


class ModeChange(Value, frozen=True):
    """One leg's collateral and health before and after its margin mode changed.

    Buckets are money units; ratios (maintenance / equity of the bucket the leg stands on) are 1e-8, rounded
    up, and the liquidation prices are 1e-8 quote, rounded half-even; None where there is none (no
    position, no equity, no positive price).
    """

    leg: Leg
    size_lots: int
    bucket_before: int
    bucket_after: int
    ratio_before: int | None
    ratio_after: int | None
    liquidation_price_before: int | None
    liquidation_price_after: int | None


class WorksheetRow(Value, frozen=True):
    """One position of a liquidation worksheet: everything needed to check its margin by hand.

    `notional`, `unrealised` and `maintenance` are money units; `maintenance_rate` is that of bracket number
    `bracket` (0 is the lowest). The bracket's deduction is exact as `deduction` money units and
    `deduction_rest` 1e-8 of one: maintenance = ceil((notional × rate − rest) / 1e8) − deduction.
    """

    market: str
    leg: Leg
    size_lots: int
    entry_cost: int
    mark_ticks: int
    index_ticks: int
    last_ticks: int
    notional: int
    bracket: int
    maintenance_rate: int
    deduction: int
    deduction_rest: int
    unrealised: int
    maintenance: int


class LotsGap(Value, frozen=True):
    """The position sizes of a market add up to `lots` instead of 0."""

    market: str
    lots: int


class RankRow(Value, frozen=True):
    """One position in the order of deleveraging, with the figures that make its score.

    `equity` is that of the bucket the position stands on. All are money units at the mark of the ranking.
    """

    account_id: int
    leg: Leg
    unrealised: int
    entry_cost: int
    notional: int
    equity: int


class SharerRow(Value, frozen=True):
    """A party that was closed whole, and what of its equity a loss can still reach, in money units.

    That is its pool's equity, or what was released from its isolated bucket to its wallet.
    """

    account_id: int
    leg: Leg
    equity: int


class HoleRow(Value, frozen=True):
    """A bucket below zero by `missing` money units: that of a position, or the pool it stands on."""

    account_id: int
    leg: Leg
    missing: int


class DeleveragedRow(RankRow, frozen=True):
    """One party of a deleveraging: as it was ranked, and what it gave.

    `place` is its place in the ranking, from 0; −1 where it was not taken from one (the account's own other
    leg, the fund). `quantity_lots` of its position were closed for `value`, which is signed: it paid it to
    take lots of a long over, and is negative where lots of a short came to it. Its entry cost changes by
    value + realised; `realised` posted to its bucket, and `released` went from an isolated bucket to the
    wallet.
    """

    place: int
    quantity_lots: int
    value: int
    realised: int
    released: int


# Members as globals, for the paths that meet every order: in CPython 3.11 looking a member up through its
# class costs ten times as much.
BUY: Final = Side.BUY
SELL: Final = Side.SELL
CROSS: Final = MarginMode.CROSS
ISOLATED: Final = MarginMode.ISOLATED
LIMIT: Final = OrderType.LIMIT
MARKET: Final = OrderType.MARKET
LIQUIDATION: Final = OrderType.LIQUIDATION
GTC: Final = TimeInForce.GTC
IOC: Final = TimeInForce.IOC
FOK: Final = TimeInForce.FOK
GTX: Final = TimeInForce.GTX
GTD: Final = TimeInForce.GTD
NO_MATCH: Final = PriceMatch.NONE
TRADING: Final = MarketStatus.TRADING
USER: Final = CloseReason.USER
