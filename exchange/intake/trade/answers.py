"""What the trading calls answer: the fields, and nothing else. Decimals are strings, ids and times numbers.

An order has one form, that of all answers about orders together: whichever call a client makes, it finds its
fields. What only some calls or some orders have is left out where it means nothing.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Base of all answers: frozen, with Binance's field names."""


class Done(Answer, frozen=True):
    """A call without a result of its own was carried out."""

    code: int
    msg: str


class Refusal(Answer, frozen=True):
    """One element of a batch was refused."""

    code: int
    msg: str


def _fields(kind: type[Answer]) -> list[tuple[str, Any]]:
    """Return the fields of an answer with their types."""
    return [(each.name, each.type) for each in msgspec.structs.fields(kind)]


class OrderAnswer(Answer, frozen=True):
    """One order. `activate_price` and `price_rate` belong to trailing stops, `modify_id` to amendments."""

    order_id: int
    symbol: str
    pair: str
    status: str
    client_order_id: str
    price: str
    avg_price: str
    orig_qty: str
    executed_qty: str
    cum_qty: str
    cum_quote: str
    cum_base: str
    time_in_force: str
    type: str
    orig_type: str
    reduce_only: bool
    close_position: bool
    side: str
    position_side: str
    stop_price: str
    working_type: str
    price_protect: bool
    price_match: str
    self_trade_prevention_mode: str
    good_till_date: int
    time: int
    update_time: int
    activate_price: str | UnsetType = UNSET
    price_rate: str | UnsetType = UNSET
    modify_id: int | UnsetType = UNSET


# A batch, as a description: each element is an order or a refusal, which types of answers cannot say.
_BatchElement: Any = msgspec.defstruct(
    "BatchElement",
    [(name, kind | UnsetType, UNSET) for name, kind in (*_fields(OrderAnswer), *_fields(Refusal))],
    namespace={"__doc__": "An order, or code and text of its refusal."},
    frozen=True,
    kw_only=True,
    rename="camel",
)


BATCH: Any = list[_BatchElement]


class Countdown(Answer, frozen=True):
    """A countdown in ms, as text, 0 when it was ended."""

    symbol: str
    countdown_time: str


class BeforeAfter(Answer, frozen=True):
    """A figure before and after an amendment."""

    before: str
    after: str


class AmendmentChange(Answer, frozen=True):
    """What an amendment changed; `count` is the how-manieth of its order it was."""

    price: BeforeAfter
    orig_qty: BeforeAfter
    count: int
    modify_id: int


class AmendmentRow(Answer, frozen=True):
    """One amendment of an order."""

    amendment_id: int
    symbol: str
    pair: str
    order_id: int
    client_order_id: str
    time: int
    amendment: AmendmentChange


class UserTrade(Answer, frozen=True):
    """One side of a trade."""

    symbol: str
    pair: str
    id: int
    order_id: int
    side: str
    position_side: str
    price: str
    qty: str
    quote_qty: str
    base_qty: str
    realized_pnl: str
    commission: str
    commission_asset: str
    margin_asset: str
    buyer: bool
    maker: bool
    time: int


class ForceOrder(Answer, frozen=True):
    """What was closed for an account by the waterfall."""

    order_id: int
    symbol: str
    pair: str
    status: str
    client_order_id: str
    price: str
    avg_price: str
    orig_qty: str
    executed_qty: str
    cum_quote: str
    cum_base: str
    time_in_force: str
    type: str
    reduce_only: bool
    close_position: bool
    side: str
    position_side: str
    stop_price: str
    working_type: str
    orig_type: str
    time: int
    update_time: int


class AlgoOrder(Answer, frozen=True):
    """One conditional order, and what became of it; ids of orders are text here, as at Binance."""

    algo_id: int
    client_algo_id: str
    algo_type: str
    order_type: str
    symbol: str
    side: str
    position_side: str
    time_in_force: str
    quantity: str
    algo_status: str
    actual_order_id: str
    actual_price: str
    actual_type: str
    actual_qty: str
    trigger_price: str
    price: str
    iceberg_quantity: str | None
    tp_trigger_price: str
    tp_price: str
    sl_trigger_price: str
    sl_price: str
    tp_order_type: str
    self_trade_prevention_mode: str
    working_type: str
    price_match: str
    close_position: bool
    price_protect: bool
    reduce_only: bool
    activate_price: str
    callback_rate: str
    create_time: int
    update_time: int
    trigger_time: int
    good_till_date: int
    rm: str | UnsetType = UNSET


class AlgoCancelled(Answer, frozen=True):
    """A conditional order was cancelled; its code is text."""

    algo_id: int
    client_algo_id: str
    code: str
    msg: str


class LeverageSet(Answer, frozen=True):
    """The leverage of a market, and the largest notional it permits."""

    symbol: str
    leverage: int
    max_notional_value: str


class MarginMoved(Answer, frozen=True):
    """Margin was moved; `type` 1 added, 2 removed. The amount is a number here, not text."""

    amount: float
    code: int
    msg: str
    type: int


class MarginRow(Answer, frozen=True):
    """One movement of an isolated position's margin."""

    symbol: str
    type: int
    delta_type: str
    amount: str
    asset: str
    time: int
    position_side: str


class PositionMode(Answer, frozen=True):
    """Whether the account holds two legs a market."""

    dual_side_position: bool


class MultiAssets(Answer, frozen=True):
    """Whether several assets together are margin; never."""

    multi_assets_margin: bool


class FeeBurn(Answer, frozen=True):
    """Whether fees are paid in another asset; never."""

    fee_burn: bool


class AdlRow(Answer, frozen=True):
    """Where the positions of a market stand in the order of deleveraging: 0 last … 4 first."""

    symbol: str
    adl_quantile: dict[str, int]


class PositionRiskV2(Answer, frozen=True):
    """One position, flat ones too, with its settings."""

    symbol: str
    position_amt: str
    entry_price: str
    break_even_price: str
    mark_price: str
    un_realized_profit: str = msgspec.field(name="unRealizedProfit")
    liquidation_price: str
    leverage: str
    max_notional_value: str
    margin_type: str
    isolated_margin: str
    is_auto_add_margin: str
    position_side: str
    notional: str
    isolated_wallet: str
    update_time: int


class PositionRiskV3(Answer, frozen=True):
    """One position that is open or has orders; `leverage` and `margin_type` are more than Binance sends."""

    symbol: str
    position_side: str
    position_amt: str
    entry_price: str
    break_even_price: str
    mark_price: str
    un_realized_profit: str = msgspec.field(name="unRealizedProfit")
    liquidation_price: str
    isolated_margin: str
    notional: str
    margin_asset: str
    isolated_wallet: str
    initial_margin: str
    maint_margin: str
    position_initial_margin: str
    open_order_initial_margin: str
    adl: int
    bid_notional: str
    ask_notional: str
    update_time: int
    leverage: str
    margin_type: str


class AccountAsset(Answer, frozen=True):
    """What an account has of an asset."""

    asset: str
    wallet_balance: str
    unrealized_profit: str
    margin_balance: str
    maint_margin: str
    initial_margin: str
    position_initial_margin: str
    open_order_initial_margin: str
    cross_wallet_balance: str
    cross_un_pnl: str
    available_balance: str
    max_withdraw_amount: str
    margin_available: bool
    update_time: int


class AccountPositionV2(Answer, frozen=True):
    """One position of the account answer, version 2."""

    symbol: str
    initial_margin: str
    maint_margin: str
    unrealized_profit: str
    position_initial_margin: str
    open_order_initial_margin: str
    leverage: str
    isolated: bool
    entry_price: str
    break_even_price: str
    max_notional: str
    bid_notional: str
    ask_notional: str
    position_side: str
    position_amt: str
    notional: str
    isolated_wallet: str
    update_time: int


class AccountPositionV3(Answer, frozen=True):
    """One position of the account answer, version 3."""

    symbol: str
    position_side: str
    position_amt: str
    unrealized_profit: str
    isolated_margin: str
    notional: str
    isolated_wallet: str
    initial_margin: str
    maint_margin: str
    update_time: int
    leverage: str
    isolated: bool


class AccountTotals(Answer, frozen=True):
    """The sums of an account."""

    total_initial_margin: str
    total_maint_margin: str
    total_wallet_balance: str
    total_unrealized_profit: str
    total_margin_balance: str
    total_position_initial_margin: str
    total_open_order_initial_margin: str
    total_cross_wallet_balance: str
    total_cross_un_pnl: str
    available_balance: str
    max_withdraw_amount: str
    assets: list[AccountAsset]


class AccountV2(AccountTotals, frozen=True):
    """An account with its permissions and all markets."""

    fee_tier: int
    fee_burn: bool
    can_trade: bool
    can_deposit: bool
    can_withdraw: bool
    update_time: int
    multi_assets_margin: bool
    trade_group_id: int
    positions: list[AccountPositionV2]


class AccountV3(AccountTotals, frozen=True):
    """An account with the markets it is in."""

    positions: list[AccountPositionV3]


class BalanceRow(Answer, frozen=True):
    """What an account has of an asset, in short."""

    account_alias: str
    asset: str
    balance: str
    cross_wallet_balance: str
    cross_un_pnl: str
    available_balance: str
    max_withdraw_amount: str
    margin_available: bool
    update_time: int


class AccountConfig(Answer, frozen=True):
    """What an account may do, and its modes."""

    fee_tier: int
    can_trade: bool
    can_deposit: bool
    can_withdraw: bool
    dual_side_position: bool
    update_time: int
    multi_assets_margin: bool
    trade_group_id: int


class SymbolConfig(Answer, frozen=True):
    """What an account has set in a market."""

    symbol: str
    margin_type: str
    is_auto_add_margin: bool
    leverage: int
    max_notional_value: str


class BracketRow(Answer, frozen=True):
    """One step of a leverage table; its figures are numbers."""

    bracket: int
    initial_leverage: int
    notional_cap: int | float
    notional_floor: int | float
    maint_margin_ratio: float
    cum: int | float


class LeverageBrackets(Answer, frozen=True):
    """The leverage table of a market."""

    symbol: str
    notional_coef: float
    brackets: list[BracketRow]


class CommissionRate(Answer, frozen=True):
    """The fees of a market, as fractions."""

    symbol: str
    maker_commission_rate: str
    taker_commission_rate: str
    rpi_commission_rate: str


class IncomeRow(Answer, frozen=True):
    """One change of an account's money."""

    symbol: str
    income_type: str
    income: str
    asset: str
    info: str
    time: int
    tran_id: int
    trade_id: str


class RateLimit(Answer, frozen=True):
    """A limit on orders."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class TradingStatus(Answer, frozen=True):
    """Indicators of a trader's behaviour; nobody is judged by any here."""

    indicators: dict[str, list[dict[str, Any]]]
    update_time: int


class ListenKey(Answer, frozen=True):
    """The key of a user data stream."""

    listen_key: str


class Nothing(Answer, frozen=True):
    """An empty answer."""
