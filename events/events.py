"""Events: what happened. Applying them in order rebuilds the state; nothing else changes it.

Amounts are in the event, so that its meaning never changes with a rule: `apply` adds what it is told.
Money is units of 1e-8 quote, signed as seen by the account: positive is received.
"""

import msgspec

from events.values import (
    CloseReason,
    IndexSource,
    Leg,
    LiquidationResult,
    MarginMode,
    MarketSpec,
    MarketStatus,
    ModeChange,
    OrderType,
    Outcome,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
    WorksheetRow,
)


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Base of all events: frozen, keyword-only, encoded as tagged arrays."""


class FrameHeader(Event, frozen=True, tag="frame"):
    """The first event of every entry: which frame this answers, when, and what became of it.

    The only event that moves the state's clock, its sequence number and its table of origins.
    `origin` is "name:incarnation", `frame_n` that origin's counter, `now_ns` the exchange's time (ns since
    1970), `checksum` the command entry's. `duplicate_of` is the sequence number at which a DUPLICATE ran,
    0 when that is older than remembered or the outcome is another.
    """

    seq: int
    origin: str
    frame_n: int
    now_ns: int
    checksum: bytes
    outcome: Outcome
    duplicate_of: int = 0


class OriginOpened(Event, frozen=True, tag="origin_opened"):
    """An appender's new incarnation begins; frames of the incarnation `replaced` ("" if none) are refused.

    `frame_n` is the counter of the frame that opened it.
    """

    name: str
    incarnation: str
    frame_n: int
    replaced: str


class LogCreated(Event, frozen=True, tag="log_created"):
    """The log has its name, which is part of every hash after it."""

    log_id: str
    rules_version: int


class Rejected(Event, frozen=True, tag="rejected"):
    """A command asked for something it may not have; nothing changed. `reason` names field and rule."""

    account_id: int
    code: RejectCode
    reason: str


class MarketListed(Event, frozen=True, tag="market_listed"):
    """A market exists and trades under `spec`."""

    spec: MarketSpec


class MarketStatusChanged(Event, frozen=True, tag="market_status"):
    """A market now accepts what `status` says, for the reason given."""

    market: str
    status: MarketStatus
    reason: str


class AccountOpened(Event, frozen=True, tag="account_opened"):
    """An account exists."""

    account_id: int
    label: str


class ApiKeyAdded(Event, frozen=True, tag="api_key_added"):
    """A key may act for an account."""

    account_id: int
    api_key: str
    sealed_secret: bytes


class Deposited(Event, frozen=True, tag="deposited"):
    """Money came into a wallet from outside."""

    account_id: int
    amount: int


class Withdrawn(Event, frozen=True, tag="withdrawn"):
    """Money left a wallet to outside."""

    account_id: int
    amount: int


class InsuranceAllotted(Event, frozen=True, tag="insurance_allotted"):
    """Money moved from the fund's wallet to its allotment for a market (negative: back)."""

    market: str
    amount: int


class LeverageSet(Event, frozen=True, tag="leverage_set"):
    """(account, market, leg) has a leverage; `margin_moved` went from the wallet to the bucket for it."""

    account_id: int
    market: str
    leverage: int
    margin_moved: int
    leg: Leg = Leg.BOTH


class MarginModeSet(Event, frozen=True, tag="margin_mode_set"):
    """(account, market) has a margin mode; with it the legs' collateral moved between wallet and buckets.

    `changed` is False when the mode was set already; then nothing moved. `legs` are those of the account's
    position mode.
    """

    account_id: int
    market: str
    mode: MarginMode
    changed: bool
    wallet_before: int
    wallet_after: int
    legs: tuple[ModeChange, ...]


class MarginAdjusted(Event, frozen=True, tag="margin_adjusted"):
    """Money moved from the wallet to an isolated position's bucket on request (negative: back)."""

    account_id: int
    market: str
    amount: int
    leg: Leg


class PositionModeSet(Event, frozen=True, tag="position_mode_set"):
    """An account, flat and without orders, holds one position a market, or two legs (`hedge`)."""

    account_id: int
    hedge: bool


class OrderAccepted(Event, frozen=True, tag="order_accepted"):
    """An order exists. It rests at its limit, unless the events after it fill or close it.

    `price_ticks` is the limit (for a market order the worst price it may trade at). `extras` is the open
    loss and taker fee reserved for the whole quantity. `liquidation_id` is 0 but for orders of the waterfall.
    `margin` is the collateral that the whole order's opening fills bring, 0: what they need.
    """

    order_id: int
    account_id: int
    market: str
    side: Side
    order_type: OrderType
    quantity_lots: int
    price_ticks: int
    time_in_force: TimeInForce
    reduce_only: bool
    client_order_id: str
    extras: int
    liquidation_id: int = 0
    leg: Leg = Leg.BOTH
    self_trade: SelfTrade = SelfTrade.EXPIRE_MAKER
    expires_ns: int = 0
    margin: int = 0


class OrderAmended(Event, frozen=True, tag="order_amended"):
    """An open order has another price or size.

    `quantity_lots` is its whole size, of which `open_lots` are unfilled; `extras` is reserved for these.
    Unless it `keeps_place` it stands at the end of its price level now. The reason is its owner (USER), or
    REDUCE_ONLY when the position it may reduce has become smaller.
    """

    order_id: int
    account_id: int
    market: str
    price_ticks: int
    quantity_lots: int
    open_lots: int
    extras: int
    keeps_place: bool
    reason: CloseReason


class OrderCancelled(Event, frozen=True, tag="order_cancelled"):
    """An open order was taken away on request of its owner or by a liquidation; `open_lots` were unfilled."""

    order_id: int
    account_id: int
    market: str
    open_lots: int
    reason: CloseReason


class OrderExpired(Event, frozen=True, tag="order_expired"):
    """The exchange ended an order under its own conditions; `open_lots` were unfilled."""

    order_id: int
    account_id: int
    market: str
    open_lots: int
    reason: CloseReason


class ConditionalAccepted(Event, frozen=True, tag="conditional_accepted"):
    """A conditional order waits for its price; see `PlaceConditional`."""

    conditional_id: int
    account_id: int
    market: str
    side: Side
    kind: TriggerKind
    order_type: OrderType
    quantity_lots: int
    trigger_ticks: int
    price_ticks: int
    working_price: WorkingPrice
    time_in_force: TimeInForce
    reduce_only: bool
    close_position: bool
    callback_rate: int
    activation_ticks: int
    client_order_id: str
    leg: Leg
    self_trade: SelfTrade
    expires_ns: int


class ConditionalCancelled(Event, frozen=True, tag="conditional_cancelled"):
    """A conditional order that had not triggered was taken away."""

    conditional_id: int
    account_id: int
    market: str
    reason: CloseReason


class ConditionalTriggered(Event, frozen=True, tag="conditional_triggered"):
    """A conditional order's price was reached: it is gone, and an order of number `order_id` is placed."""

    conditional_id: int
    account_id: int
    market: str
    order_id: int


class ConditionalRejected(Event, frozen=True, tag="conditional_rejected"):
    """The order of a triggered conditional order was refused; `reason` names field and rule."""

    conditional_id: int
    account_id: int
    market: str
    code: RejectCode
    reason: str


class CountdownSet(Event, frozen=True, tag="countdown_set"):
    """All orders of (account, market) are cancelled at `deadline_ns` unless it moves; 0: no countdown."""

    account_id: int
    market: str
    deadline_ns: int


class CountdownExpired(Event, frozen=True, tag="countdown_expired"):
    """A countdown ran out; the cancellations follow."""

    account_id: int
    market: str


class TradeExecuted(Event, frozen=True, tag="trade"):
    """A maker and a taker order met. Positions, wallets and buckets change by this event alone.

    `price_ticks` is the maker's price. Fees are positive when paid, negative for a rebate; they and the
    realised profit post to the bucket that owns the position. `…_margin_moved` went from the wallet to the
    position's bucket (negative: back), 0 in cross. A position's entry cost changes by
    signed quantity × price + realised.
    """

    trade_id: int
    market: str
    price_ticks: int
    quantity_lots: int
    taker_side: Side
    maker_order_id: int
    taker_order_id: int
    maker_account_id: int
    taker_account_id: int
    maker_fee: int
    taker_fee: int
    maker_realised: int
    taker_realised: int
    maker_margin_moved: int
    taker_margin_moved: int
    liquidation_id: int = 0


class MarkPriceChanged(Event, frozen=True, tag="mark_price"):
    """A market's index and mark were derived from `sources`, with the inputs of the mark.

    mark = median(funding_ticks, basis_ticks, last_ticks) clamped to the band around `index_ticks`; an
    input without data equals the index. `basis_average` is the moving average of (mid − index) after this
    update, in 1/65536 ticks.
    """

    market: str
    index_ticks: int
    funding_ticks: int
    basis_ticks: int
    last_ticks: int
    mark_ticks: int
    basis_average: int
    sources: tuple[IndexSource, ...]


class LiquidationStarted(Event, frozen=True, tag="liquidation_started"):
    """A bucket is at or below maintenance. The worksheet holds what is needed to check that by hand.

    `market` is "" for the cross pool. `collateral` is the wallet (cross) or the bucket (isolated);
    equity = collateral + Σ unrealised; `maintenance` = Σ maintenance of `rows`.
    """

    liquidation_id: int
    account_id: int
    market: str
    mode: MarginMode
    cause_seq: int
    collateral: int
    equity: int
    maintenance: int
    rows: tuple[WorksheetRow, ...]
    leg: Leg = Leg.BOTH


class LiquidationFeeCharged(Event, frozen=True, tag="liquidation_fee"):
    """A liquidated bucket paid the insurance fund's allotment for what was closed in the book."""

    liquidation_id: int
    account_id: int
    market: str
    amount: int
    leg: Leg = Leg.BOTH


class PositionTakenOver(Event, frozen=True, tag="position_taken_over"):
    """The insurance fund took a whole position, in money: size and cost pass to its own position.

    The bucket gains `realised` (which ends it at its share of the equity) and the fund's cost changes by
    entry_cost + realised; `fund_realised` is what the fund realised by netting against its own position.
    """

    liquidation_id: int
    account_id: int
    market: str
    size_lots: int
    entry_cost: int
    realised: int
    fund_realised: int
    leg: Leg = Leg.BOTH


class LiquidationFinished(Event, frozen=True, tag="liquidation_finished"):
    """A liquidation ended. `equity` is the bucket's after it; the fund's equity at mark, before and after.

    `released` goes from the bucket of an isolated position that was closed whole back to the wallet.
    """

    liquidation_id: int
    account_id: int
    market: str
    result: LiquidationResult
    equity: int
    released: int
    fund_before: int
    fund_after: int
    leg: Leg = Leg.BOTH


class LiquidationSkipped(Event, frozen=True, tag="liquidation_skipped"):
    """A request to liquidate found nothing to do, and changed nothing; `reason` says why."""

    account_id: int
    market: str
    cause_seq: int
    reason: str
    leg: Leg = Leg.BOTH


class TickPassed(Event, frozen=True, tag="tick"):
    """Time passed; the header says to when."""


AnyEvent = (
    FrameHeader
    | OriginOpened
    | LogCreated
    | Rejected
    | MarketListed
    | MarketStatusChanged
    | AccountOpened
    | ApiKeyAdded
    | Deposited
    | Withdrawn
    | InsuranceAllotted
    | LeverageSet
    | MarginModeSet
    | MarginAdjusted
    | PositionModeSet
    | OrderAccepted
    | OrderAmended
    | OrderCancelled
    | OrderExpired
    | ConditionalAccepted
    | ConditionalCancelled
    | ConditionalTriggered
    | ConditionalRejected
    | CountdownSet
    | CountdownExpired
    | TradeExecuted
    | MarkPriceChanged
    | LiquidationStarted
    | LiquidationFeeCharged
    | PositionTakenOver
    | LiquidationFinished
    | LiquidationSkipped
    | TickPassed
)
