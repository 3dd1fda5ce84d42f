"""Events: what happened. Applying them in order rebuilds the state; nothing else changes it.

Amounts are in the event, so that its meaning never changes with a rule: `apply` adds what it is told.
Money is units of 1e-8 quote, signed as seen by the account: positive is received.

All events are imported from here; two families of them are defined next door.
"""

from events.liquidation_events import (
    DeleverageRanked,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    LossSocialised,
    PositionDeleveraged,
    PositionTakenOver,
)
from events.log_events import (
    CheckpointPassed,
    Event,
    FrameHeader,
    LogCreated,
    OriginOpened,
    RulesChanged,
    TickPassed,
)
from events.values import (
    CloseReason,
    IndexSource,
    KeyKind,
    LeftOutSource,
    Leg,
    LotsGap,
    MarginMode,
    MarketSpec,
    MarketStatus,
    ModeChange,
    OrderType,
    PriceMatch,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)


class Rejected(Event, frozen=True, tag="rejected"):
    """A command asked for something it may not have; nothing changed. `reason` names field and rule."""

    account_id: int
    code: RejectCode
    reason: str


class CommandFailed(Event, frozen=True, tag="command_failed"):
    """A command could not be decided, applied or encoded: a fault of the exchange. It changed nothing else.

    `index` is its place in the frame and `command` its tag; account 0 and market "" where it names none.
    `error` is the kind of exception, `reason` where it arose. `failures` is how many the account has had
    with it, 0 when this one does not count; then `repeats` is how often this command has failed with this
    account and market, since a market was last opened, the exchange resumed or an account unblocked.
    """

    index: int
    command: str
    account_id: int
    market: str
    error: str
    reason: str
    failures: int
    repeats: int


class WorkFailed(Event, frozen=True, tag="work_failed"):
    """Something due by price or time could not be done: a fault of the exchange. It is due no longer.

    `number` is that of the conditional order, which is gone, or of the order that should have ended, which
    stays; 0: the countdown of (account, market), which is gone. The rest is as of `CommandFailed`.
    """

    account_id: int
    market: str
    number: int
    error: str
    reason: str
    failures: int


class AccountBlocked(Event, frozen=True, tag="account_blocked"):
    """After `failures` failed commands an account may only cancel."""

    account_id: int
    failures: int


class AccountUnblocked(Event, frozen=True, tag="account_unblocked"):
    """An account may trade again, and its failures count from 0."""

    account_id: int
    reason: str


class ExchangeHalted(Event, frozen=True, tag="exchange_halted"):
    """Every market is restricted to cancels; liquidation and withdrawals are stopped.

    `money_gap` is Σ wallets + Σ buckets − Σ entry costs − deposits + withdrawals in money units, `lots_gaps`
    are the sums of position sizes that are not 0, both counted from the tables. `markets` were trading.
    """

    reason: str
    money_gap: int
    lots_gaps: tuple[LotsGap, ...]
    markets: tuple[str, ...]


class ExchangeResumed(Event, frozen=True, tag="exchange_resumed"):
    """A halt ended. The gaps, counted anew, are accepted; `markets` trade again."""

    reason: str
    money_gap: int
    lots_gaps: tuple[LotsGap, ...]
    markets: tuple[str, ...]


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
    """A key may act for an account, as `AddApiKey` says. The state keeps this event as all it knows of it."""

    account_id: int
    api_key: str
    kind: KeyKind
    sealed_secret: bytes
    public_key: bytes
    permissions: int
    networks: str


class ApiKeyRemoved(Event, frozen=True, tag="api_key_removed"):
    """A key may act for nobody any more."""

    account_id: int
    api_key: str


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
    loss, the taker fee and the surplus of `margin` over the initial margin, reserved for the whole quantity.
    `liquidation_id` is 0 but for orders of the waterfall. `margin` is the collateral that the whole order's
    opening fills bring, 0: what they need. `price_match` says which level of the book gave the limit.
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
    price_match: PriceMatch = PriceMatch.NONE


class OrderAmended(Event, frozen=True, tag="order_amended"):
    """An open order has another price or size.

    `quantity_lots` is its whole size, of which `open_lots` are unfilled; `extras` is reserved for these.
    Unless it `keeps_place` it stands at the end of its price level now. The reason is its owner (USER), or
    REDUCE_ONLY when the position it may reduce has become smaller. `price_match` says which level of the book
    gave the price that it has now.
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
    price_match: PriceMatch = PriceMatch.NONE


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
    price_match: PriceMatch = PriceMatch.NONE
    price_protect: bool = False


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

    `trade_id` counts the market's trades, from 1. `price_ticks` is the maker's price. Fees are positive when
    paid, negative for a rebate; they and the realised profit post to the bucket that owns the position.
    `…_margin_moved` went from the wallet to the position's bucket (negative: back), 0 in cross. A position's
    entry cost changes by signed quantity × price + realised.
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
    """A market's index and mark were derived from `sources` (`left_out` were not used), with their inputs.

    mark = median(funding_ticks, basis_ticks, last_ticks) clamped to the band around `index_ticks`; an
    input without data equals the index. funding_ticks = index × (1 + funding_rate × left / interval), where
    `funding_rate` (1e-8) was settled last and left is from the header's time to `next_funding_ns` (0: no
    funding), not below 0. `basis_average` is the moving average of (mid − index) after this update, in
    1/65536 ticks; mid is that of `bid_ticks` and `ask_ticks`, the best prices (0: none).

    premium (1e-8) = (max(0, impact_bid − index) − max(0, index − impact_ask)) / index counts towards the next
    funding rate; impact prices are 1/65536 ticks, 0: the book cannot fill the impact notional. After this,
    `index_wait` more updates must come in time before the index is good for opening and liquidating.
    """

    market: str
    index_ticks: int
    funding_ticks: int
    basis_ticks: int
    last_ticks: int
    mark_ticks: int
    bid_ticks: int
    ask_ticks: int
    basis_average: int
    funding_rate: int
    next_funding_ns: int
    impact_bid: int
    impact_ask: int
    premium: int
    index_wait: int
    sources: tuple[IndexSource, ...]
    left_out: tuple[LeftOutSource, ...]


class FundingSettled(Event, frozen=True, tag="funding_settled"):
    """Every open position of a market paid size × mark × `rate` (1e-8); a negative amount was received.

    A payment is rounded up and what is received down, so that a position pays
    ceil(size × mark_ticks × unit × rate / 1e8) in either case: isolated from its bucket, cross from the
    wallet. `paid` and `received` are the totals in money units; the `residue` = paid − received went to the
    fund's allotment in this market.

    rate = premium_average + clamp(interest_rate − premium_average, ±0.05 %), clamped to the market's cap;
    the average is that of the `premium_count` updates since the settlement before, rounded toward zero.
    `boundary_ns` is the time that was due, `next_funding_ns` the one after it.
    """

    market: str
    boundary_ns: int
    rate: int
    mark_ticks: int
    premium_average: int
    premium_count: int
    interest_rate: int
    next_funding_ns: int
    paid: int
    received: int
    residue: int


class FundingSkipped(Event, frozen=True, tag="funding_skipped"):
    """Times of funding passed without an index update: `count` of them, `boundary_ns` the first.

    Nobody paid for them.
    """

    market: str
    boundary_ns: int
    count: int
    next_funding_ns: int


AnyEvent = (
    FrameHeader
    | OriginOpened
    | LogCreated
    | RulesChanged
    | Rejected
    | CommandFailed
    | WorkFailed
    | AccountBlocked
    | AccountUnblocked
    | ExchangeHalted
    | ExchangeResumed
    | MarketListed
    | MarketStatusChanged
    | AccountOpened
    | ApiKeyAdded
    | ApiKeyRemoved
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
    | FundingSettled
    | FundingSkipped
    | LiquidationStarted
    | LiquidationFeeCharged
    | PositionTakenOver
    | DeleverageRanked
    | PositionDeleveraged
    | LossSocialised
    | LiquidationFinished
    | LiquidationSkipped
    | TickPassed
    | CheckpointPassed
)
