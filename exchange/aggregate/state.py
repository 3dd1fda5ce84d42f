"""The state of the exchange, and `apply`, the only code that changes it.

`apply` trusts events: what may happen was settled by `decide` before the event was emitted. What it asserts
is that an event fits the state it meets, so that a wrong log stops at the wrong entry.

Money identities, which every event keeps exactly:

    Σ wallets + Σ buckets − Σ signed entry costs = Σ deposits − Σ withdrawals
    Σ position sizes of a market = 0
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from events.events import (
    AccountOpened,
    ApiKeyAdded,
    Deposited,
    Event,
    FrameHeader,
    InsuranceAllotted,
    LeverageSet,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    LogCreated,
    MarginModeSet,
    MarketListed,
    MarketStatusChanged,
    MarkPriceChanged,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OriginOpened,
    PositionTakenOver,
    Rejected,
    TickPassed,
    TradeExecuted,
    Withdrawn,
)
from events.values import ISOLATED, Outcome
from exchange.aggregate.account import FEE_ACCOUNT_ID, FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account
from exchange.aggregate.book import Order
from exchange.aggregate.canonical import canonical_origins, canonical_venue
from exchange.aggregate.market import Market
from exchange.aggregate.origins import Origin

RULES_VERSION = 1
ORDERS_PER_FRAME = 4096
# Orders that the aggregate makes are numbered above all that commands can make, and below 2^53, up to
# which every client's numbers are exact.
AGGREGATE_ORDER_BASE = 1 << 52


class IdentityError(AssertionError):
    """Money or contracts appeared or vanished; the message says which sum and by how much."""


class Exchange:
    """Everything the exchange knows. Built by `apply` from the events of a log, and by nothing else.

    `seq` is the last entry applied and `now_ns` the exchange's time; both belong to the log position, as
    does `origins`. The rest is the venue.
    """

    def __init__(self) -> None:
        self.log_id = ""
        self.rules_version = 0
        self.seq = 0
        self.now_ns = 0
        self.origins: dict[str, Origin] = {}
        self.accounts: dict[int, Account] = {
            FUND_ACCOUNT_ID: Account(FUND_ACCOUNT_ID, "insurance fund"),
            FEE_ACCOUNT_ID: Account(FEE_ACCOUNT_ID, "fees"),
        }
        self.markets: dict[str, Market] = {}
        self.key_owners: dict[str, int] = {}
        self.next_account_id = FIRST_USER_ACCOUNT_ID
        self.trade_count = 0
        self.liquidation_count = 0
        self.aggregate_order_count = 0
        self.deposited = 0
        self.withdrawn = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            FrameHeader: self._frame_header,
            OriginOpened: self._origin_opened,
            LogCreated: self._log_created,
            Rejected: self._nothing,
            MarketListed: self._market_listed,
            MarketStatusChanged: self._market_status,
            AccountOpened: self._account_opened,
            ApiKeyAdded: self._api_key_added,
            Deposited: self._deposited,
            Withdrawn: self._withdrawn,
            InsuranceAllotted: self._insurance_allotted,
            LeverageSet: self._leverage_set,
            MarginModeSet: self._margin_mode_set,
            OrderAccepted: self._order_accepted,
            OrderCancelled: self._order_closed,
            OrderExpired: self._order_closed,
            TradeExecuted: self._trade,
            MarkPriceChanged: self._mark_price,
            LiquidationStarted: self._liquidation_started,
            LiquidationFeeCharged: self._liquidation_fee,
            PositionTakenOver: self._taken_over,
            LiquidationFinished: self._liquidation_finished,
            LiquidationSkipped: self._nothing,
            TickPassed: self._nothing,
        }

    def apply(self, event: Event) -> None:
        """Let one event change the state."""
        self._handlers[type(event)](event)

    # Log position

    def _frame_header(self, event: FrameHeader) -> None:
        assert event.seq == self.seq + 1, (event.seq, self.seq)
        assert event.now_ns >= self.now_ns, (event.now_ns, self.now_ns)
        self.seq = event.seq
        self.now_ns = event.now_ns
        if event.outcome in (Outcome.EXECUTED, Outcome.REJECTED_FRAME):
            name, _, incarnation = event.origin.partition(":")
            origin = self.origins.get(name)
            if origin is not None and origin.incarnation == incarnation:
                origin.record(event.frame_n, event.seq)

    def _origin_opened(self, event: OriginOpened) -> None:
        origin = self.origins.get(event.name)
        if origin is None:
            origin = self.origins[event.name] = Origin()
        origin.open(event.incarnation, event.frame_n, self.seq)

    def _log_created(self, event: LogCreated) -> None:
        assert not self.log_id, self.log_id
        self.log_id = event.log_id
        self.rules_version = event.rules_version

    def _nothing(self, event: Event) -> None:
        pass

    # Administration

    def _market_listed(self, event: MarketListed) -> None:
        assert event.spec.symbol not in self.markets, event.spec.symbol
        self.markets[event.spec.symbol] = Market(event.spec)

    def _market_status(self, event: MarketStatusChanged) -> None:
        self.markets[event.market].status = event.status

    def _account_opened(self, event: AccountOpened) -> None:
        assert event.account_id == self.next_account_id, event.account_id
        self.accounts[event.account_id] = Account(event.account_id, event.label)
        self.next_account_id += 1

    def _api_key_added(self, event: ApiKeyAdded) -> None:
        assert event.api_key not in self.key_owners, event.account_id
        self.accounts[event.account_id].api_keys[event.api_key] = event.sealed_secret
        self.key_owners[event.api_key] = event.account_id

    def _deposited(self, event: Deposited) -> None:
        self.accounts[event.account_id].wallet += event.amount
        self.deposited += event.amount

    def _withdrawn(self, event: Withdrawn) -> None:
        self.accounts[event.account_id].wallet -= event.amount
        self.withdrawn += event.amount

    def _insurance_allotted(self, event: InsuranceAllotted) -> None:
        fund = self.accounts[FUND_ACCOUNT_ID]
        fund.wallet -= event.amount
        fund.stored_position(self.markets[event.market]).bucket += event.amount

    def _leverage_set(self, event: LeverageSet) -> None:
        account = self.accounts[event.account_id]
        position = account.stored_position(self.markets[event.market])
        position.leverage = event.leverage
        position.standing = None
        position.bucket += event.margin_moved
        account.wallet -= event.margin_moved

    def _margin_mode_set(self, event: MarginModeSet) -> None:
        position = self.accounts[event.account_id].stored_position(self.markets[event.market])
        assert position.size_lots == 0, event.account_id
        assert position.bucket == 0, event.account_id
        assert position.order_count == 0, event.account_id
        position.mode = event.mode
        position.standing = None

    # Orders

    def _order_accepted(self, event: OrderAccepted) -> None:
        account = self.accounts[event.account_id]
        market = self.markets[event.market]
        order = Order(
            event.order_id,
            event.account_id,
            event.market,
            event.side,
            event.price_ticks,
            event.quantity_lots,
            order_type=event.order_type,
            time_in_force=event.time_in_force,
            reduce_only=event.reduce_only,
            client_order_id=event.client_order_id,
            extras=event.extras,
            liquidation_id=event.liquidation_id,
        )
        assert order.order_id not in account.orders, order.order_id
        account.orders[order.order_id] = order
        if order.client_order_id:
            account.client_ids[order.client_order_id] = order.order_id
        if order.order_id >= AGGREGATE_ORDER_BASE:
            self.aggregate_order_count += 1
        position = account.stored_position(market)
        if order.rests:
            market.book.insert(order)
            position.add_order(order)

    def _order_closed(self, event: OrderCancelled | OrderExpired) -> None:
        account = self.accounts[event.account_id]
        order = account.orders[event.order_id]
        assert order.open_lots == event.open_lots, (event.order_id, order.open_lots, event.open_lots)
        if order.level is not None:
            market = self.markets[event.market]
            account.positions[event.market].shrink_order(order, order.open_lots)
            market.book.remove(order)
        self._forget(account, order)

    def _forget(self, account: Account, order: Order) -> None:
        del account.orders[order.order_id]
        if order.client_order_id:
            del account.client_ids[order.client_order_id]

    # Trades

    def _trade(self, event: TradeExecuted) -> None:
        market = self.markets[event.market]
        self.trade_count += 1
        assert event.trade_id == self.trade_count, (event.trade_id, self.trade_count)
        market.last_ticks = event.price_ticks
        signed_lots = event.taker_side * event.quantity_lots
        maker = self.accounts[event.maker_account_id]
        taker = self.accounts[event.taker_account_id]
        self._fill(maker, market, event.maker_order_id, event.quantity_lots)
        self._fill(taker, market, event.taker_order_id, event.quantity_lots)
        cost = signed_lots * event.price_ticks * market.unit
        self._post(maker, market, -signed_lots, -cost, event.maker_realised, event.maker_fee)
        self._post(taker, market, signed_lots, cost, event.taker_realised, event.taker_fee)
        self._move_margin(maker, market, event.maker_margin_moved)
        self._move_margin(taker, market, event.taker_margin_moved)
        self.accounts[FEE_ACCOUNT_ID].wallet += event.maker_fee + event.taker_fee

    def _fill(self, account: Account, market: Market, order_id: int, lots: int) -> None:
        order = account.orders[order_id]
        if order.level is not None:
            account.positions[market.symbol].shrink_order(order, lots)
            market.book.fill(order, lots)
        else:
            assert 0 < lots <= order.open_lots, (order_id, lots)
            order.open_lots -= lots
        if order.open_lots == 0:
            self._forget(account, order)

    def _post(
        self, account: Account, market: Market, signed_lots: int, cost: int, realised: int, fee: int
    ) -> None:
        position = account.positions[market.symbol]
        position.standing = None
        position.size_lots += signed_lots
        position.entry_cost += cost + realised
        assert position.size_lots != 0 or position.entry_cost == 0, (account.account_id, market.symbol)
        if position.mode is ISOLATED:
            position.bucket += realised - fee
        else:
            account.wallet += realised - fee

    def _move_margin(self, account: Account, market: Market, amount: int) -> None:
        if amount:
            position = account.positions[market.symbol]
            assert position.mode is ISOLATED, account.account_id
            position.bucket += amount
            account.wallet -= amount

    # Prices

    def _mark_price(self, event: MarkPriceChanged) -> None:
        market = self.markets[event.market]
        market.index_ticks = event.index_ticks
        market.mark_ticks = event.mark_ticks
        market.basis_average = event.basis_average

    # Liquidation

    def _liquidation_started(self, event: LiquidationStarted) -> None:
        self.liquidation_count += 1
        assert event.liquidation_id == self.liquidation_count, event.liquidation_id

    def _liquidation_fee(self, event: LiquidationFeeCharged) -> None:
        market = self.markets[event.market]
        account = self.accounts[event.account_id]
        position = account.positions[event.market]
        if position.mode is ISOLATED:
            position.bucket -= event.amount
        else:
            account.wallet -= event.amount
        self.accounts[FUND_ACCOUNT_ID].stored_position(market).bucket += event.amount

    def _taken_over(self, event: PositionTakenOver) -> None:
        market = self.markets[event.market]
        account = self.accounts[event.account_id]
        size_lots = event.size_lots
        assert account.positions[event.market].size_lots == size_lots, event.account_id
        assert account.positions[event.market].entry_cost == event.entry_cost, event.account_id
        price_paid = event.entry_cost + event.realised
        fund = self.accounts[FUND_ACCOUNT_ID]
        fund.stored_position(market)
        self._post(account, market, -size_lots, -price_paid, event.realised, 0)
        self._post(fund, market, size_lots, price_paid, event.fund_realised, 0)

    def _liquidation_finished(self, event: LiquidationFinished) -> None:
        if event.released:
            self._move_margin(self.accounts[event.account_id], self.markets[event.market], -event.released)

    # What it adds up to

    def check_identities(self) -> None:
        """Count all money and all contracts.

        Raises:
            IdentityError: a sum is not what it must be.
        """
        money = self.withdrawn - self.deposited
        sizes = dict.fromkeys(self.markets, 0)
        for account in self.accounts.values():
            money += account.wallet
            for symbol, position in account.positions.items():
                money += position.bucket - position.entry_cost
                sizes[symbol] += position.size_lots
        if money != 0:
            raise IdentityError(f"wallets + buckets − entry costs exceed what came in by {money}")
        for symbol, lots in sizes.items():
            if lots != 0:
                raise IdentityError(f"position sizes of {symbol} add up to {lots} lots, not 0")

    def venue_digest(self) -> bytes:
        """Hash everything but the place in the log; a rejected command leaves it unchanged."""
        return _digest(b"foldex venue\x00", canonical_venue(self))

    def position_digest(self) -> bytes:
        """Hash the place in the log: sequence number, clock, origins."""
        return _digest(b"foldex position\x00", [self.seq, self.now_ns, canonical_origins(self.origins)])

    def digest(self) -> bytes:
        """Hash the whole state: 32 bytes that agree exactly when the states do."""
        return blake2b(self.venue_digest() + self.position_digest(), digest_size=32).digest()


def _digest(domain: bytes, tree: object) -> bytes:
    return blake2b(domain + msgspec.msgpack.encode(tree), digest_size=32).digest()
