"""The state of the exchange, and `apply`, the only code that changes it.

`apply` trusts events: what may happen was settled by `decide` before the event was emitted. What it asserts
is that an event fits the state it meets, so that a wrong log stops at the wrong entry.

Money identities, which every event keeps exactly:

    Σ wallets + Σ buckets − Σ signed entry costs = Σ deposits − Σ withdrawals
    Σ position sizes of a market = 0
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from events.events import (
    AccountBlocked,
    AccountOpened,
    AccountUnblocked,
    ApiKeyAdded,
    ApiKeyRemoved,
    CheckpointPassed,
    CommandFailed,
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    CountdownExpired,
    CountdownSet,
    DeleverageRanked,
    Deposited,
    Event,
    ExchangeHalted,
    ExchangeResumed,
    FrameHeader,
    FundingSettled,
    FundingSkipped,
    InsuranceAllotted,
    LeverageSet,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    LogCreated,
    LossSocialised,
    MarginAdjusted,
    MarginModeSet,
    MarketListed,
    MarketStatusChanged,
    MarkPriceChanged,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OriginOpened,
    PositionDeleveraged,
    PositionModeSet,
    PositionTakenOver,
    Rejected,
    RulesChanged,
    TickPassed,
    TradeExecuted,
    Withdrawn,
    WorkFailed,
)
from events.values import BUY, ISOLATED, TRADING, USER, MarketStatus, Outcome
from exchange.aggregate.account import (
    BOTH,
    FEE_ACCOUNT_ID,
    FIRST_USER_ACCOUNT_ID,
    FUND_ACCOUNT_ID,
    Account,
    Position,
)
from exchange.aggregate.canonical import (
    digest_of,
    encode_position,
    encode_venue,
    position_digest_of,
    venue_digest_of,
)
from exchange.aggregate.market import Market
from exchange.aggregate.order import Order
from exchange.aggregate.origins import Origin
from exchange.aggregate.posting import hold, long_lots, lots_of, move_margin, post, worth_of
from exchange.aggregate.triggers import Triggers
from exchange.aggregate.units import RATE_ONE
from exchange.aggregate.waterfall import Waterfall

# What is decided with. Raised with every change after which a command can be decided otherwise than before.
RULES_VERSION = 1
ORDERS_PER_FRAME = 4096
# Orders that the aggregate makes are numbered above all that commands can make, and below 2^53, up to
# which every client's numbers are exact.
AGGREGATE_ORDER_BASE = 1 << 52

Timer = tuple[int, int, int, str]


class IdentityError(Exception):
    """Money or contracts appeared or vanished; the message says which sum and by how much."""


class Exchange:
    """Everything the exchange knows. Built by `apply` from the events of a log, and by nothing else.

    `seq` is the last entry applied and `now_ns` the exchange's time; both belong to the log position, as
    does `origins`. The rest is the venue.

    `due` are conditional orders (id → account) whose price was reached and that have not been placed yet,
    in the order of firing. `timers` is a heap of (ns, account, order id or 0, market) for orders with an end
    and for countdowns; `overdue` are those whose time has come. A timer that was moved or is no longer needed
    stays in the heap until its time and is then passed over.

    `blocked` are accounts that may only cancel. `failing` counts by (command, account, market) what fails
    again and again and blocks nobody. `halt` is the halt that nobody has ended yet. `money_gap` and
    `lots_gaps` are by how much the identities do not hold, as far as `apply` has noticed: 0 and empty. An
    administrator who ends a halt accepts what they are then.
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
        self.due: dict[int, int] = {}
        self.timers: list[Timer] = []
        self.overdue: dict[Timer, None] = {}
        self.blocked: dict[int, None] = {}
        self.failing: dict[tuple[str, int, str], int] = {}
        self.halt: ExchangeHalted | None = None
        self.money_gap = 0
        self.lots_gaps: dict[str, int] = {}
        self.accepted_money_gap = 0
        self.accepted_lots_gaps: dict[str, int] = {}
        self.waterfall = Waterfall(self)
        self.handlers: dict[type[Event], Callable[[Any], None]] = self._table()

    def apply(self, event: Event) -> None:
        """Let one event change the state."""
        self.handlers[type(event)](event)

    def _table(self) -> dict[type[Event], Callable[[Any], None]]:
        return {
            FrameHeader: self._frame_header,
            OriginOpened: self._origin_opened,
            LogCreated: self._log_created,
            RulesChanged: self._rules_changed,
            Rejected: self._nothing,
            CommandFailed: self._command_failed,
            WorkFailed: self._work_failed,
            AccountBlocked: self._account_blocked,
            AccountUnblocked: self._account_unblocked,
            ExchangeHalted: self._halted,
            ExchangeResumed: self._resumed,
            MarketListed: self._market_listed,
            MarketStatusChanged: self._market_status,
            AccountOpened: self._account_opened,
            ApiKeyAdded: self._api_key_added,
            ApiKeyRemoved: self._api_key_removed,
            Deposited: self._deposited,
            Withdrawn: self._withdrawn,
            InsuranceAllotted: self._insurance_allotted,
            LeverageSet: self._leverage_set,
            MarginModeSet: self._margin_mode_set,
            MarginAdjusted: self._margin_adjusted,
            PositionModeSet: self._position_mode_set,
            OrderAccepted: self._order_accepted,
            OrderAmended: self._order_amended,
            OrderCancelled: self._order_closed,
            OrderExpired: self._order_closed,
            ConditionalAccepted: self._conditional_accepted,
            ConditionalCancelled: self._conditional_cancelled,
            ConditionalTriggered: self._conditional_triggered,
            ConditionalRejected: self._nothing,
            CountdownSet: self._countdown_set,
            CountdownExpired: self._countdown_expired,
            TradeExecuted: self._trade,
            MarkPriceChanged: self._mark_price,
            FundingSettled: self._funding_settled,
            FundingSkipped: self._funding_skipped,
            LiquidationStarted: self.waterfall.liquidation_started,
            LiquidationFeeCharged: self.waterfall.liquidation_fee,
            PositionTakenOver: self.waterfall.taken_over,
            DeleverageRanked: self.waterfall.deleverage_ranked,
            PositionDeleveraged: self.waterfall.deleveraged,
            LossSocialised: self.waterfall.loss_socialised,
            LiquidationFinished: self.waterfall.liquidation_finished,
            LiquidationSkipped: self._nothing,
            TickPassed: self._nothing,
            CheckpointPassed: self._nothing,
        }

    # Log position

    def _frame_header(self, event: FrameHeader) -> None:
        assert event.seq == self.seq + 1, (event.seq, self.seq)
        assert event.now_ns >= self.now_ns, (event.now_ns, self.now_ns)
        self.seq = event.seq
        self.now_ns = event.now_ns
        name, _, incarnation = event.origin.partition(":")
        origin = self.origins.get(name)
        if origin is not None and incarnation and origin.incarnation == incarnation:
            if event.outcome in (Outcome.EXECUTED, Outcome.REJECTED_FRAME):
                origin.record(event.frame_n, event.seq)
            elif event.outcome is Outcome.ORIGIN_CLOSED:
                origin.close()
        while self.timers and self.timers[0][0] <= event.now_ns:
            timer = heappop(self.timers)
            if self._is_wanted(timer):
                self.overdue[timer] = None

    def _is_wanted(self, timer: Timer) -> bool:
        time_ns, account_id, order_id, market = timer
        account = self.accounts[account_id]
        if order_id:
            return order_id in account.orders
        return account.countdowns.get(market) == time_ns

    def _origin_opened(self, event: OriginOpened) -> None:
        origin = self.origins.get(event.name)
        if origin is None:
            origin = self.origins[event.name] = Origin()
        origin.open(event.incarnation, event.frame_n, self.seq)

    def _log_created(self, event: LogCreated) -> None:
        assert not self.log_id, self.log_id
        self.log_id = event.log_id
        self.rules_version = event.rules_version

    def _rules_changed(self, event: RulesChanged) -> None:
        assert event.replaced == self.rules_version, (event.replaced, self.rules_version)
        assert event.rules_version > self.rules_version, (event.rules_version, self.rules_version)
        self.rules_version = event.rules_version

    def _nothing(self, event: Event) -> None:
        pass

    # Failures and the halt

    def _command_failed(self, event: CommandFailed) -> None:
        if event.failures:
            self.accounts[event.account_id].failures = event.failures
        if event.repeats:
            self.failing[event.command, event.account_id, event.market] = event.repeats

    def _work_failed(self, event: WorkFailed) -> None:
        account_id, number, market = event.account_id, event.number, event.market
        account = self.accounts[account_id]
        if event.failures:
            account.failures = event.failures
        if self.due.pop(number, None) is not None:
            self._forget_conditional(account_id, number)
            return
        for timer in self.overdue:
            if timer[1:] == (account_id, number, market):
                del self.overdue[timer]
                break
        if number == 0:
            del account.countdowns[market]

    def _account_blocked(self, event: AccountBlocked) -> None:
        self.blocked[event.account_id] = None

    def _account_unblocked(self, event: AccountUnblocked) -> None:
        self.failing.clear()
        del self.blocked[event.account_id]
        self.accounts[event.account_id].failures = 0

    def _halted(self, event: ExchangeHalted) -> None:
        assert self.halt is None, event.reason
        self.halt = event
        self.money_gap = event.money_gap
        self.lots_gaps = {row.market: row.lots for row in event.lots_gaps}
        for symbol in event.markets:
            self.markets[symbol].status = MarketStatus.CANCEL_ONLY

    def _resumed(self, event: ExchangeResumed) -> None:
        assert self.halt is not None, event.reason
        self.failing.clear()
        self.halt = None
        self.money_gap = self.accepted_money_gap = event.money_gap
        self.lots_gaps = {row.market: row.lots for row in event.lots_gaps}
        self.accepted_lots_gaps = dict(self.lots_gaps)
        for symbol in event.markets:
            self.markets[symbol].status = TRADING

    # Administration

    def _market_listed(self, event: MarketListed) -> None:
        assert event.spec.symbol not in self.markets, event.spec.symbol
        self.markets[event.spec.symbol] = Market(event.spec)

    def _market_status(self, event: MarketStatusChanged) -> None:
        self.markets[event.market].status = event.status
        if event.status is TRADING:
            self.failing.clear()

    def _account_opened(self, event: AccountOpened) -> None:
        assert event.account_id == self.next_account_id, event.account_id
        self.accounts[event.account_id] = Account(event.account_id, event.label)
        self.next_account_id += 1

    def _api_key_added(self, event: ApiKeyAdded) -> None:
        assert event.api_key not in self.key_owners, event.account_id
        self.accounts[event.account_id].api_keys[event.api_key] = event
        self.key_owners[event.api_key] = event.account_id

    def _api_key_removed(self, event: ApiKeyRemoved) -> None:
        del self.accounts[event.account_id].api_keys[event.api_key]
        del self.key_owners[event.api_key]

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
        position = account.stored_position(self.markets[event.market], event.leg)
        position.leverage = event.leverage
        position.standing.mark_ticks = -1
        position.bucket += event.margin_moved
        account.wallet -= event.margin_moved

    def _margin_mode_set(self, event: MarginModeSet) -> None:
        account = self.accounts[event.account_id]
        assert account.wallet == event.wallet_before, event.account_id
        if not event.changed:
            return
        account.wallet = event.wallet_after
        self.money_gap += event.wallet_after - event.wallet_before
        for leg in event.legs:
            position = account.stored_position(self.markets[event.market], leg.leg)
            assert position.size_lots == leg.size_lots, event.account_id
            assert position.bucket == leg.bucket_before, event.account_id
            position.bucket = leg.bucket_after
            self.money_gap += leg.bucket_after - leg.bucket_before
            position.mode = event.mode
            position.standing.mark_ticks = -1

    def _margin_adjusted(self, event: MarginAdjusted) -> None:
        account = self.accounts[event.account_id]
        move_margin(account, account.position(self.markets[event.market], event.leg), event.amount)

    def _position_mode_set(self, event: PositionModeSet) -> None:
        account = self.accounts[event.account_id]
        assert not account.orders, event.account_id
        old, account.hedge = account.positions, event.hedge
        # Fresh legs are set as the old ones were, then the old ones go.
        for position in list(old.values()):
            assert position.size_lots == 0, event.account_id
            assert position.bucket == 0, event.account_id
            for leg in account.legs:
                account.stored_position(position.market, leg)
        account.positions = {key: p for key, p in old.items() if p.leg in account.legs}

    # Orders

    def _order_accepted(self, event: OrderAccepted) -> None:
        account = self.accounts[event.account_id]
        market = self.markets[event.market]
        # As `stored_position` does, without its call.
        position = account.positions.get(event.market) if event.leg is BOTH else None
        if position is None:
            position = account.stored_position(market, event.leg)
        order = Order(event, position)
        order_id = order.order_id
        assert order_id not in account.orders, order_id
        account.orders[order_id] = order
        if event.client_order_id:
            account.client_ids[event.client_order_id] = order_id
        if order_id >= AGGREGATE_ORDER_BASE:
            self.aggregate_order_count = order_id - AGGREGATE_ORDER_BASE
        if order.rests:
            market.book.insert(order)
            position.add_order(order)
            if event.expires_ns:
                heappush(self.timers, (event.expires_ns, event.account_id, order_id, event.market))

    def _order_amended(self, event: OrderAmended) -> None:
        order = self.accounts[event.account_id].orders[event.order_id]
        position = order.position
        position.shrink_order(order, order.open_lots)
        order.quantity_lots = event.quantity_lots
        order.price_match = event.price_match
        order.extras = event.extras
        order.extras_lots = event.open_lots
        if event.reason is USER:
            order.amendments += 1
        self.markets[event.market].book.amend(
            order, event.price_ticks, event.open_lots, yields_priority=not event.keeps_place
        )
        position.add_order(order)

    def _order_closed(self, event: OrderCancelled | OrderExpired) -> None:
        account = self.accounts[event.account_id]
        order = account.orders[event.order_id]
        assert order.open_lots == event.open_lots, (event.order_id, order.open_lots, event.open_lots)
        if order.level is not None:
            order.position.shrink_order(order, order.open_lots)
            self.markets[event.market].book.remove(order)
        self._forget(account, order)

    def _forget(self, account: Account, order: Order) -> None:
        terms = order.terms
        del account.orders[order.order_id]
        if terms.client_order_id:
            del account.client_ids[terms.client_order_id]
        if terms.expires_ns:
            self.overdue.pop((terms.expires_ns, account.account_id, order.order_id, terms.market), None)

    # Conditional orders and countdowns

    def _conditional_accepted(self, event: ConditionalAccepted) -> None:
        account = self.accounts[event.account_id]
        market = self.markets[event.market]
        account.conditionals[event.conditional_id] = event
        if event.client_order_id:
            account.conditional_client_ids[event.client_order_id] = event.conditional_id
        account.stored_position(market, event.leg).conditional_count += 1
        price_ticks = market.working_ticks(event.working_price)
        market.triggers(event.working_price).add(event, price_ticks)

    def _conditional_cancelled(self, event: ConditionalCancelled) -> None:
        terms = self._forget_conditional(event.account_id, event.conditional_id)
        if self.due.pop(event.conditional_id, None) is None:
            self.markets[event.market].triggers(terms.working_price).remove(event.conditional_id)

    def _conditional_triggered(self, event: ConditionalTriggered) -> None:
        del self.due[event.conditional_id]
        # The number is used up even if the order is refused.
        self.aggregate_order_count = event.order_id - AGGREGATE_ORDER_BASE
        self._forget_conditional(event.account_id, event.conditional_id)

    def _forget_conditional(self, account_id: int, conditional_id: int) -> ConditionalAccepted:
        account = self.accounts[account_id]
        terms = account.conditionals.pop(conditional_id)
        if terms.client_order_id:
            del account.conditional_client_ids[terms.client_order_id]
        account.stored_position(self.markets[terms.market], terms.leg).conditional_count -= 1
        return terms

    def _observe(self, triggers: Triggers, price_ticks: int) -> None:
        for terms in triggers.reached(price_ticks):
            self.due[terms.conditional_id] = terms.account_id

    def _countdown_set(self, event: CountdownSet) -> None:
        account = self.accounts[event.account_id]
        self._stop_countdown(account, event.market)
        if event.deadline_ns:
            account.countdowns[event.market] = event.deadline_ns
            heappush(self.timers, (event.deadline_ns, event.account_id, 0, event.market))

    def _countdown_expired(self, event: CountdownExpired) -> None:
        self._stop_countdown(self.accounts[event.account_id], event.market)

    def _stop_countdown(self, account: Account, market: str) -> None:
        deadline_ns = account.countdowns.pop(market, 0)
        self.overdue.pop((deadline_ns, account.account_id, 0, market), None)

    # Trades

    def _trade(self, event: TradeExecuted) -> None:
        market = self.markets[event.market]
        self.trade_count += 1
        # Not "one higher": in logs of older builds one count ran through all markets.
        assert event.trade_id > market.last_trade_id, (event.trade_id, market.last_trade_id)
        market.last_trade_id = event.trade_id
        lots = event.quantity_lots
        signed_lots = lots if event.taker_side is BUY else -lots
        maker = self.accounts[event.maker_account_id]
        taker = self.accounts[event.taker_account_id]
        making = self._fill(maker, market, event.maker_order_id, lots)
        taking = self._fill(taker, market, event.taker_order_id, lots)
        cost = signed_lots * event.price_ticks * market.unit
        open_lots = market.open_interest_lots - long_lots(making) - long_lots(taking)
        worth_before = worth_of(maker, making, taker, taking)
        lots_before = lots_of(making, taking)
        post(maker, making, -signed_lots, -cost, event.maker_realised, event.maker_fee)
        post(taker, taking, signed_lots, cost, event.taker_realised, event.taker_fee)
        market.open_interest_lots = open_lots + long_lots(making) + long_lots(taking)
        hold(market, maker, making)
        hold(market, taker, taking)
        if market.rankings:
            for ranking in market.rankings.values():
                ranking.joined[maker.account_id, making.leg] = None
                ranking.joined[taker.account_id, taking.leg] = None
        if event.maker_margin_moved:
            move_margin(maker, making, event.maker_margin_moved)
        if event.taker_margin_moved:
            move_margin(taker, taking, event.taker_margin_moved)
        fees = event.maker_fee + event.taker_fee
        self.accounts[FEE_ACCOUNT_ID].wallet += fees
        self.money_gap += worth_of(maker, making, taker, taking) - worth_before + fees
        if lots_of(making, taking) != lots_before:
            self.note_lots_gap(market, lots_of(making, taking) - lots_before)
        market.last_ticks = event.price_ticks
        if market.last_triggers.terms:
            self._observe(market.last_triggers, event.price_ticks)

    def _fill(self, account: Account, market: Market, order_id: int, lots: int) -> Position:
        order = account.orders[order_id]
        if order.level is not None:
            order.position.shrink_order(order, lots)
            market.book.fill(order, lots)
        else:
            assert 0 < lots <= order.open_lots, (order_id, lots)
            order.open_lots -= lots
        if order.open_lots == 0:
            self._forget(account, order)
        return order.position

    # Prices

    def _mark_price(self, event: MarkPriceChanged) -> None:
        market = self.markets[event.market]
        market.index_ticks = event.index_ticks
        market.mark_ticks = event.mark_ticks
        market.rankings.clear()
        market.basis_average = event.basis_average
        market.index_ns = self.now_ns
        market.index_wait = event.index_wait
        if event.next_funding_ns:
            market.next_funding_ns = event.next_funding_ns
            market.premium_sum += event.premium
            market.premium_count += 1
        if market.mark_triggers.terms:
            self._observe(market.mark_triggers, event.mark_ticks)

    def _funding_settled(self, event: FundingSettled) -> None:
        market = self.markets[event.market]
        assert event.boundary_ns == market.next_funding_ns, (event.boundary_ns, market.next_funding_ns)
        market.funding_rate = rate = event.rate
        market.next_funding_ns = event.next_funding_ns
        market.premium_sum = 0
        market.premium_count = 0
        if rate == 0:
            return
        accounts = self.accounts
        gain_of_lot = -event.mark_ticks * market.unit * rate
        gained = 0
        # Gains round down, so losses up. No standing depends on a wallet or a bucket: all of them stay valid.
        for key, position in market.holders.items():
            gain = position.size_lots * gain_of_lot // RATE_ONE
            gained += gain
            position.break_even_cost -= gain
            if position.mode is ISOLATED:
                position.bucket += gain
            else:
                accounts[key[0]].wallet += gain
        assert gained == -event.residue, (gained, event.residue)
        if event.residue:
            accounts[FUND_ACCOUNT_ID].stored_position(market).bucket += event.residue

    def _funding_skipped(self, event: FundingSkipped) -> None:
        self.markets[event.market].next_funding_ns = event.next_funding_ns

    # What it adds up to

    def note_lots_gap(self, market: Market, lots: int) -> None:
        """Note that the position sizes of a market add up to `lots` more than before."""
        gap = self.lots_gaps.pop(market.symbol, 0) + lots
        if gap:
            self.lots_gaps[market.symbol] = gap

    def has_gap(self) -> bool:
        """Whether `apply` has noticed that something does not add up, beyond what was accepted."""
        return self.money_gap != self.accepted_money_gap or self.lots_gaps != self.accepted_lots_gaps

    def check_identities(self) -> None:
        """Count all money and all contracts.

        Raises:
            IdentityError: a sum is not what it must be, and nobody has accepted that.
        """
        money_gap, lots_gaps = self.count_gaps()
        if money_gap != self.accepted_money_gap:
            raise IdentityError(f"wallets + buckets − entry costs exceed what came in by {money_gap}")
        if lots_gaps != self.accepted_lots_gaps:
            raise IdentityError(f"position sizes do not add up to 0 lots: {lots_gaps}")

    def count_gaps(self) -> tuple[int, dict[str, int]]:
        """Count all money and all contracts; return by how much they do not add up, for each market."""
        money = self.withdrawn - self.deposited
        sizes = dict.fromkeys(self.markets, 0)
        for account in self.accounts.values():
            money += account.wallet
            for position in account.positions.values():
                money += position.bucket - position.entry_cost
                sizes[position.market.symbol] += position.size_lots
        return money, {symbol: lots for symbol, lots in sizes.items() if lots}

    def venue_digest(self) -> bytes:
        """Hash everything but the place in the log; a rejected command leaves it unchanged."""
        return venue_digest_of(encode_venue(self))

    def position_digest(self) -> bytes:
        """Hash the place in the log: sequence number, clock, origins."""
        return position_digest_of(encode_position(self))

    def digest(self) -> bytes:
        """Hash the whole state: 32 bytes that agree exactly when the states do."""
        return digest_of(self.venue_digest(), self.position_digest())
