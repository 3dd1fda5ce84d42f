"""What the market data calls answer, field by field. Decimals are text, numbers and times (ms) whole."""

import msgspec

Level = tuple[str, str]


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Base of all answers here."""


class Nothing(Answer, frozen=True):
    """An empty object."""


class ServerTime(Answer, frozen=True):
    """The server's clock."""

    server_time: int


class RateLimit(Answer, frozen=True):
    """One limit of how much may be asked for."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class Asset(Answer, frozen=True):
    """An asset that is collateral."""

    asset: str
    margin_available: bool
    auto_asset_exchange: str


class Filter(Answer, frozen=True, omit_defaults=True):
    """A rule for orders; which fields it has depends on its type."""

    filter_type: str
    min_price: str | msgspec.UnsetType = msgspec.UNSET
    max_price: str | msgspec.UnsetType = msgspec.UNSET
    tick_size: str | msgspec.UnsetType = msgspec.UNSET
    min_qty: str | msgspec.UnsetType = msgspec.UNSET
    max_qty: str | msgspec.UnsetType = msgspec.UNSET
    step_size: str | msgspec.UnsetType = msgspec.UNSET
    notional: str | msgspec.UnsetType = msgspec.UNSET
    limit: int | msgspec.UnsetType = msgspec.UNSET
    multiplier_up: str | msgspec.UnsetType = msgspec.UNSET
    multiplier_down: str | msgspec.UnsetType = msgspec.UNSET
    multiplier_decimal: str | msgspec.UnsetType = msgspec.UNSET


class Contract(Answer, frozen=True):
    """A market as clients learn of it when they start."""

    symbol: str
    pair: str
    contract_type: str
    delivery_date: int
    onboard_date: int
    status: str
    maint_margin_percent: str
    required_margin_percent: str
    base_asset: str
    quote_asset: str
    margin_asset: str
    price_precision: int
    quantity_precision: int
    base_asset_precision: int
    quote_precision: int
    underlying_type: str
    underlying_sub_type: list[str]
    settle_plan: int
    trigger_protect: str
    liquidation_fee: str
    market_take_bound: str
    max_move_order_limit: int
    filters: list[Filter]
    order_types: list[str]
    time_in_force: list[str]


class ExchangeInfo(Answer, frozen=True):
    """The markets and their rules."""

    timezone: str
    server_time: int
    futures_type: str
    rate_limits: list[RateLimit]
    exchange_filters: list[str]
    assets: list[Asset]
    symbols: list[Contract]


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """The best levels of a book, [price, size], as of the entry `lastUpdateId`."""

    last_update_id: int = msgspec.field(name="lastUpdateId")
    event_ms: int = msgspec.field(name="E")
    transaction_ms: int = msgspec.field(name="T")
    bids: list[Level]
    asks: list[Level]


class TradeRow(Answer, frozen=True):
    """One trade."""

    id: int
    price: str
    qty: str
    quote_qty: str
    time: int
    is_buyer_maker: bool
    is_rpi_trade: bool = msgspec.field(name="isRPITrade", default=False)


class AggregateRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Trades of one taker order at one price: `f` to `l`; `nq` is the size without those of RPI orders."""

    aggregate_id: int = msgspec.field(name="a")
    price: str = msgspec.field(name="p")
    qty: str = msgspec.field(name="q")
    normal_qty: str = msgspec.field(name="nq")
    first_id: int = msgspec.field(name="f")
    last_id: int = msgspec.field(name="l")
    time_ms: int = msgspec.field(name="T")
    is_buyer_maker: bool = msgspec.field(name="m")


class KlineRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A candle: twelve values in this order. Those of prices alone have no amounts."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    quote_volume: str
    count: int
    taker_volume: str
    taker_quote_volume: str
    unused: str = "0"


class PremiumIndex(Answer, frozen=True):
    """A market's mark and index price, and its funding."""

    symbol: str
    mark_price: str
    index_price: str
    estimated_settle_price: str
    last_funding_rate: str
    interest_rate: str
    next_funding_time: int
    time: int


class FundingRow(Answer, frozen=True):
    """One settlement of funding."""

    symbol: str
    funding_rate: str
    funding_time: int
    mark_price: str


class FundingInfo(Answer, frozen=True):
    """How a market settles its funding."""

    symbol: str
    adjusted_funding_rate_cap: str
    adjusted_funding_rate_floor: str
    funding_interval_hours: int
    disclaimer: bool


class Ticker(Answer, frozen=True):
    """The last 24 hours of a market's trades."""

    symbol: str
    price_change: str
    price_change_percent: str
    weighted_avg_price: str
    last_price: str
    last_qty: str
    open_price: str
    high_price: str
    low_price: str
    volume: str
    quote_volume: str
    open_time: int
    close_time: int
    first_id: int
    last_id: int
    count: int


class PriceTicker(Answer, frozen=True):
    """A market's last price."""

    symbol: str
    price: str
    time: int


class BookTicker(Answer, frozen=True):
    """A market's best prices, "0" where a side is empty."""

    symbol: str
    bid_price: str
    bid_qty: str
    ask_price: str
    ask_qty: str
    time: int
    last_update_id: int


class OpenInterestAnswer(Answer, frozen=True):
    """What all longs of a market hold together."""

    open_interest: str
    symbol: str
    time: int


class Constituent(Answer, frozen=True):
    """One source of an index."""

    exchange: str
    symbol: str
    price: str
    weight: str


class Constituents(Answer, frozen=True):
    """The sources that a market's index was last made of."""

    symbol: str
    time: int
    constituents: list[Constituent]


class InsuranceAsset(Answer, frozen=True):
    """What the fund has of one asset."""

    asset: str
    margin_balance: str
    update_time: int


class InsuranceBalance(Answer, frozen=True):
    """What the insurance fund has for markets."""

    symbols: list[str]
    assets: list[InsuranceAsset]


class AdlRisk(Answer, frozen=True):
    """How near a market is to deleveraging: low, medium or high."""

    symbol: str
    adl_risk: str
    update_time: int


class AssetIndex(Answer, frozen=True):
    """What an asset counts for as collateral."""

    symbol: str
    time: int
    index: str
    bid_buffer: str
    ask_buffer: str
    bid_rate: str
    ask_rate: str
    auto_exchange_bid_buffer: str
    auto_exchange_ask_buffer: str
    auto_exchange_bid_rate: str
    auto_exchange_ask_rate: str


class OpenInterestRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The open interest at a time, in base and in quote."""

    symbol: str
    open_interest: str = msgspec.field(name="sumOpenInterest")
    open_interest_value: str = msgspec.field(name="sumOpenInterestValue")
    circulating_supply: str = msgspec.field(name="CMCCirculatingSupply", default="0")
    timestamp: int


class TakerRatioRow(Answer, frozen=True):
    """What takers bought and sold in a period."""

    buy_sell_ratio: str
    buy_vol: str
    sell_vol: str
    timestamp: int


class BasisRow(Answer, frozen=True):
    """How far the last price was from the index at the end of a period."""

    pair: str
    contract_type: str
    futures_price: str
    index_price: str
    basis: str
    basis_rate: str
    annualized_basis_rate: str
    timestamp: int
