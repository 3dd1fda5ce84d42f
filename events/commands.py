"""Commands: what is asked of the exchange. Each is answered by the events of one group, or `Rejected`.

A command carries integers in the market's units (see `events.values`); text is parsed at the edges.
"""

import msgspec

from events.values import (
    IndexSource,
    KeyKind,
    KeyPermission,
    Leg,
    MarginMode,
    MarketSpec,
    MarketStatus,
    OrderType,
    PriceMatch,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)


class Command(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, gc=False
):
    """Base of all commands: frozen, keyword-only, encoded as tagged arrays."""


class CreateLog(Command, frozen=True, tag="create_log"):
    """Names the log. Only ever the single command of entry 1; `log_id` is 32 random hex digits."""

    log_id: str
    rules_version: int


class ListMarket(Command, frozen=True, tag="list_market"):
    """Opens a market for trading under `spec`."""

    spec: MarketSpec


class SetMarketStatus(Command, frozen=True, tag="set_market_status"):
    """An administrator opens, restricts or halts a market, with a reason for the record."""

    market: str
    status: MarketStatus
    reason: str


class OpenAccount(Command, frozen=True, tag="open_account"):
    """Opens an account; the aggregate gives it the next number."""

    label: str = ""


class AddApiKey(Command, frozen=True, tag="add_api_key"):
    """Lets `api_key` act for an account, as far as `permissions` (a sum of `KeyPermission`) go.

    An HMAC key has a `sealed_secret`, encrypted by the intake; an Ed25519 key the 32 bytes of its
    `public_key`. With `networks` (CIDR, separated by spaces) requests must come from one of them.
    """

    account_id: int
    api_key: str
    kind: KeyKind = KeyKind.HMAC
    sealed_secret: bytes = b""
    public_key: bytes = b""
    permissions: int = KeyPermission.READ.value | KeyPermission.TRADE.value
    networks: str = ""


class RemoveApiKey(Command, frozen=True, tag="remove_api_key"):
    """Ends what a key may do, from here on."""

    account_id: int
    api_key: str


class Deposit(Command, frozen=True, tag="deposit"):
    """Brings `amount` money units into an account's wallet. Account 0 is the insurance fund."""

    account_id: int
    amount: int


class Withdraw(Command, frozen=True, tag="withdraw"):
    """Takes `amount` money units out of an account's wallet, at most what is withdrawable."""

    account_id: int
    amount: int


class AllotInsurance(Command, frozen=True, tag="allot_insurance"):
    """Moves `amount` of the insurance fund's wallet to its allotment for a market (negative: back)."""

    market: str
    amount: int


class SetLeverage(Command, frozen=True, tag="set_leverage"):
    """Sets the leverage of (account, market), a whole number from 1 to what the brackets permit."""

    account_id: int
    market: str
    leverage: int


class SetMarginMode(Command, frozen=True, tag="set_margin_mode"):
    """Sets the margin mode of (account, market), with positions and orders open, or not.

    `margin` is what each open leg is to have in its bucket at least, when the new mode is isolated; 0: what
    it needs. The mode being set already is no error and moves nothing. With `only_flat` it is a reason to
    refuse, and so is an open order, conditional order or position.
    """

    account_id: int
    market: str
    mode: MarginMode
    margin: int = 0
    only_flat: bool = True


class AdjustMargin(Command, frozen=True, tag="adjust_margin"):
    """Moves `amount` money units from the wallet to an isolated position's bucket (negative: back)."""

    account_id: int
    market: str
    amount: int
    leg: Leg = Leg.BOTH


class PlaceOrder(Command, frozen=True, tag="place_order"):
    """Asks for an order. `price_ticks` is the limit, 0 for a market order and where `price_match` gives it.

    `client_order_id` may be empty; otherwise it is unique among the account's open orders. `leg` is BOTH in
    one-way mode and names the position in hedge mode. `expires_ns` is the end of a GTD order (ns since
    1970), 0 for all others. `margin_mode` is the mode wanted for (account, market); it is set with the order
    when there is neither position nor order. `margin` is the collateral that comes with the whole order's
    opening fills into an isolated bucket, 0: what is needed.
    """

    account_id: int
    market: str
    side: Side
    order_type: OrderType
    quantity_lots: int
    price_ticks: int = 0
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    client_order_id: str = ""
    leg: Leg = Leg.BOTH
    self_trade: SelfTrade = SelfTrade.EXPIRE_MAKER
    expires_ns: int = 0
    margin_mode: MarginMode | None = None
    margin: int = 0
    price_match: PriceMatch = PriceMatch.NONE


class AmendOrder(Command, frozen=True, tag="amend_order"):
    """Changes an open limit order's price and whole quantity (the filled part included).

    The order keeps its place only when it shrinks at the same price and `yields_priority` is not set. It is
    named by id, or by client order id when `order_id` is 0; `side` must be its own. With a `price_match` the
    book gives the price, and `price_ticks` is 0.
    """

    account_id: int
    market: str
    side: Side
    quantity_lots: int
    price_ticks: int
    order_id: int = 0
    client_order_id: str = ""
    yields_priority: bool = False
    price_match: PriceMatch = PriceMatch.NONE


class CancelOrder(Command, frozen=True, tag="cancel_order"):
    """Cancels one open order, by id, or by client order id when `order_id` is 0."""

    account_id: int
    market: str
    order_id: int = 0
    client_order_id: str = ""


class CancelAllOrders(Command, frozen=True, tag="cancel_all_orders"):
    """Cancels every open order of an account in a market."""

    account_id: int
    market: str


class PlaceConditional(Command, frozen=True, tag="place_conditional"):
    """Asks for an order to be placed when a price is reached. It reserves nothing until then.

    `trigger_ticks` is that price for STOP and TAKE_PROFIT. TRAILING triggers when the price has turned by
    `callback_rate` (1e-8) from its best since it reached `activation_ticks` (0: since now).
    `close_position` closes what the position is at that moment; then `quantity_lots` is 0. With a
    `price_match` the book of that moment gives the limit, and `price_ticks` is 0. With `price_protect` no
    order is placed if mark and last price are then further apart than the market's `trigger_protect`.
    """

    account_id: int
    market: str
    side: Side
    kind: TriggerKind
    order_type: OrderType
    quantity_lots: int
    trigger_ticks: int = 0
    price_ticks: int = 0
    working_price: WorkingPrice = WorkingPrice.LAST
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    close_position: bool = False
    callback_rate: int = 0
    activation_ticks: int = 0
    client_order_id: str = ""
    leg: Leg = Leg.BOTH
    self_trade: SelfTrade = SelfTrade.EXPIRE_MAKER
    expires_ns: int = 0
    price_match: PriceMatch = PriceMatch.NONE
    price_protect: bool = False


class CancelConditional(Command, frozen=True, tag="cancel_conditional"):
    """Cancels one conditional order that has not triggered, by id, or by client id when that is 0."""

    account_id: int
    market: str
    conditional_id: int = 0
    client_order_id: str = ""


class CancelAllConditionals(Command, frozen=True, tag="cancel_all_conditionals"):
    """Cancels every conditional order of an account in a market."""

    account_id: int
    market: str


class SetCountdown(Command, frozen=True, tag="set_countdown"):
    """Cancels all of an account's orders in a market unless renewed within `countdown_ms`; 0 ends that."""

    account_id: int
    market: str
    countdown_ms: int


class SetPositionMode(Command, frozen=True, tag="set_position_mode"):
    """Chooses between one position a market (one-way) and two legs (hedge); flat and without orders."""

    account_id: int
    hedge: bool


class SetIndexPrice(Command, frozen=True, tag="set_index_price"):
    """Reports the price of the underlying from one or more sources; the index is their median."""

    market: str
    sources: tuple[IndexSource, ...]


class Liquidate(Command, frozen=True, tag="liquidate"):
    """Asks for the liquidation of a bucket: an isolated position's market and leg, or "" for the cross pool.

    `cause_seq` is the sequence number of the event that made the liquidator ask. The aggregate checks
    again at its own marks.
    """

    account_id: int
    market: str
    cause_seq: int
    leg: Leg = Leg.BOTH


class Tick(Command, frozen=True, tag="tick"):
    """Says that time has passed."""


class UnblockAccount(Command, frozen=True, tag="unblock_account"):
    """An administrator lets an account trade again that its failed commands had blocked."""

    account_id: int
    reason: str


class HaltExchange(Command, frozen=True, tag="halt_exchange"):
    """An administrator restricts every market to cancels and stops liquidation and withdrawals."""

    reason: str


class ResumeExchange(Command, frozen=True, tag="resume_exchange"):
    """An administrator ends a halt. What does not add up is accepted as it is from then on."""

    reason: str


class Checkpoint(Command, frozen=True, tag="checkpoint"):
    """Puts the digest that the state had behind entry `seq`, under `rules_version`, into the log."""

    seq: int
    digest: bytes
    rules_version: int


AnyCommand = (
    CreateLog
    | ListMarket
    | SetMarketStatus
    | OpenAccount
    | AddApiKey
    | RemoveApiKey
    | Deposit
    | Withdraw
    | AllotInsurance
    | SetLeverage
    | SetMarginMode
    | AdjustMargin
    | PlaceOrder
    | AmendOrder
    | CancelOrder
    | CancelAllOrders
    | PlaceConditional
    | CancelConditional
    | CancelAllConditionals
    | SetCountdown
    | SetPositionMode
    | SetIndexPrice
    | Liquidate
    | Tick
    | UnblockAccount
    | HaltExchange
    | ResumeExchange
    | Checkpoint
)
