"""A venue for tests: the real aggregate driven by name and by decimal numbers, without processes.

Every command goes through `decide_frame`; after each, both money identities are counted and the venue must
be unchanged when the command was refused (unless earlier work was done first in its frame).
"""

from decimal import Decimal
from typing import TypeVar

from events.commands import (
    AdjustMargin,
    AllotInsurance,
    AmendOrder,
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    CreateLog,
    Deposit,
    Liquidate,
    ListMarket,
    OpenAccount,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    SetPositionMode,
    Tick,
    Withdraw,
)
from events.events import (
    AccountOpened,
    ConditionalAccepted,
    Event,
    FrameHeader,
    MarginModeSet,
    OrderAccepted,
    OriginOpened,
    Rejected,
)
from events.frame import CommandFrame, Groups, close_command_frame, encode_groups, new_origin
from events.values import (
    Bracket,
    IndexSource,
    Leg,
    MarginMode,
    MarketSpec,
    OrderType,
    PriceMatch,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.decide import decide_frame, propose_now
from exchange.aggregate.modes import preview_margin_mode
from exchange.aggregate.order import Order
from exchange.aggregate.state import RULES_VERSION, Exchange

E = TypeVar("E", bound=Event)
MONEY = 10**8
NS_PER_MS = 1_000_000


def money(text: str) -> int:
    """Return decimal quote as money units, exactly."""
    value = Decimal(text) * MONEY
    assert value == int(value), text
    return int(value)


def spec(symbol: str = "BTCUSDT", **changes: object) -> MarketSpec:
    """Return a contract: tick 0.1, lot 0.001, fees 0.02 % and 0.05 %, three brackets."""
    fields: dict[str, object] = {
        "symbol": symbol,
        "base": symbol.removesuffix("USDT"),
        "quote": "USDT",
        "tick_size": 10_000_000,
        "lot_size": 100_000,
        "min_price_ticks": 1,
        "max_price_ticks": 10_000_000,
        "min_lots": 1,
        "max_lots": 1_000_000,
        "min_notional": money("5"),
        "maker_fee": 20_000,
        "taker_fee": 50_000,
        "liquidation_fee": 500_000,
        "mark_band": 300_000,
        "take_bound": 5_000_000,
        "band_up": 50_000_000,
        "band_down": 50_000_000,
        "max_market_lots": 1_000_000,
        "max_open_orders": 200,
        "max_conditional_orders": 10,
        "max_position_lots": 2_000_000,
        "max_open_interest_lots": 4_000_000,
        "unwind_lots": 500,
        "brackets": (
            Bracket(cap=money("50000"), maintenance_rate=400_000, max_leverage=125),
            Bracket(cap=money("600000"), maintenance_rate=500_000, max_leverage=100),
            Bracket(cap=money("10000000"), maintenance_rate=1_000_000, max_leverage=50),
        ),
    }
    return MarketSpec(**(fields | changes))  # type: ignore[arg-type]


class Venue:
    """An exchange with BTCUSDT and ETHUSDT listed, and short ways to say what happens on it.

    Prices, sizes and money are decimal strings; `checks` counts identities after every command.
    """

    def __init__(self, *, specs: tuple[MarketSpec, ...] | None = None, fund: str = "0") -> None:
        self.state = Exchange()
        self.origin = new_origin("test")
        self.frames = 0
        self.now_ns = 1_700_000_000 * 10**9
        self.checks = True
        self.log: list[Groups] = []
        self.asked: list[CommandFrame] = []
        self.send(CreateLog(log_id="0" * 32, rules_version=RULES_VERSION))
        for each in specs or (spec(), spec("ETHUSDT")):
            self.send(ListMarket(spec=each))
        if fund != "0":
            self.send(Deposit(account_id=FUND_ACCOUNT_ID, amount=money(fund) * len(self.state.markets)))
            for symbol in self.state.markets:
                self.send(AllotInsurance(market=symbol, amount=money(fund)))

    def send(self, command: AnyCommand) -> list[Event]:
        """Decide one command in a frame of its own; return its events."""
        before = self.state.venue_digest() if self.checks else b""
        self.frames += 1
        self.now_ns += NS_PER_MS
        frame = close_command_frame(self.origin, self.frames, self.now_ns, [command])
        now_ns = propose_now(self.state.now_ns, frame.time_ns, self.now_ns)
        groups = decide_frame(self.state, self.state.seq + 1, frame, now_ns)
        self.log.append(groups)
        self.asked.append(frame)
        encode_groups(groups)  # an event that cannot be written would stop the writer
        events = groups[1]
        if self.checks:
            self.state.check_identities()
            assert not self.state.has_gap(), "the running sums say that something is missing"
            if not events or isinstance(events[0], Rejected):
                assert len(events) <= 1
                if not self.done_first:
                    assert before == self.state.venue_digest(), "a refused command changed the venue"
        return events

    @property
    def done_first(self) -> list[Event]:
        """What the last frame did before its command: orders and countdowns at their end, late triggers."""
        return [event for event in self.log[-1][0] if not isinstance(event, FrameHeader | OriginOpened)]

    def after(self, time_ms: int) -> list[Event]:
        """Let time pass until `time_ms` from now, in one tick; return what that brought about."""
        self.now_ns += (time_ms - 1) * NS_PER_MS
        self.send(Tick())
        return self.done_first

    def account(self, deposit: str = "0") -> "Trader":
        """Open an account with money in its wallet."""
        opened = only(AccountOpened, self.send(OpenAccount()))
        if deposit != "0":
            self.send(Deposit(account_id=opened.account_id, amount=money(deposit)))
        return Trader(self, opened.account_id)

    def index(self, symbol: str, price: str) -> list[Event]:
        """Report an index price."""
        price_ticks = self.ticks(symbol, price)
        source = IndexSource(source="test", price_ticks=price_ticks, raw=price)
        return self.send(SetIndexPrice(market=symbol, sources=(source,)))

    def liquidate(self, trader: "Trader", symbol: str = "", leg: str = "BOTH") -> list[Event]:
        """Ask for the liquidation of a bucket."""
        return self.send(
            Liquidate(account_id=trader.account_id, market=symbol, cause_seq=self.state.seq, leg=Leg[leg])
        )

    def ticks(self, symbol: str, price: str) -> int:
        """Return a decimal price in the market's ticks, exactly."""
        value = Decimal(price) * MONEY / self.state.markets[symbol].spec.tick_size
        assert value == int(value), price
        return int(value)

    def lots(self, symbol: str, size: str) -> int:
        """Return a decimal size in the market's lots, exactly."""
        value = Decimal(size) * MONEY / self.state.markets[symbol].spec.lot_size
        assert value == int(value), size
        return int(value)

    def replayed(self) -> Exchange:
        """Return a state built from this venue's events by `apply` alone."""
        state = Exchange()
        for groups in self.log:
            for group in groups:
                for event in group:
                    state.apply(event)
        return state


class Trader:
    """A customer of a `Venue`."""

    def __init__(self, venue: Venue, account_id: int) -> None:
        self.venue = venue
        self.account_id = account_id

    @property
    def account(self) -> Account:
        """The account as it is now."""
        return self.venue.state.accounts[self.account_id]

    @property
    def wallet(self) -> str:
        """The wallet as a plain decimal."""
        return plain(self.account.wallet)

    def position(self, symbol: str, leg: str = "BOTH") -> Position:
        """The account's record in a market and leg."""
        return self.account.position(self.venue.state.markets[symbol], Leg[leg])

    def order(self, order_id: int) -> Order:
        """One of the account's open orders."""
        return self.account.orders[order_id]

    def place(
        self,
        side: str,
        symbol: str,
        size: str,
        price: str | None = None,
        *,
        tif: str = "GTC",
        reduce_only: bool = False,
        client_id: str = "",
        leg: str = "BOTH",
        self_trade: str = "EXPIRE_MAKER",
        expires_ns: int = 0,
        margin_mode: str = "",
        margin: str = "0",
        match: str = "NONE",
    ) -> list[Event]:
        """Place a limit order, or a market order when neither a price nor a level (`match`) is given."""
        return self.venue.send(
            PlaceOrder(
                account_id=self.account_id,
                market=symbol,
                side=Side[side],
                order_type=OrderType.LIMIT if price or match != "NONE" else OrderType.MARKET,
                quantity_lots=self.venue.lots(symbol, size),
                price_ticks=self.venue.ticks(symbol, price) if price else 0,
                time_in_force=TimeInForce[tif],
                reduce_only=reduce_only,
                client_order_id=client_id,
                leg=Leg[leg],
                self_trade=SelfTrade[self_trade],
                expires_ns=expires_ns,
                margin_mode=MarginMode[margin_mode] if margin_mode else None,
                margin=money(margin),
                price_match=PriceMatch[match],
            )
        )

    def buy(self, symbol: str, size: str, price: str | None = None, **options: object) -> list[Event]:
        """Place a buy order."""
        return self.place("BUY", symbol, size, price, **options)  # type: ignore[arg-type]

    def sell(self, symbol: str, size: str, price: str | None = None, **options: object) -> list[Event]:
        """Place a sell order."""
        return self.place("SELL", symbol, size, price, **options)  # type: ignore[arg-type]

    def amend(
        self,
        symbol: str,
        order_id: int,
        size: str,
        price: str,
        *,
        side: str = "",
        client_id: str = "",
        yields_priority: bool = False,
        match: str = "NONE",
    ) -> list[Event]:
        """Change an open order's whole size and price; its own side is named unless another is given."""
        known = self.account.orders.get(order_id or self.account.client_ids.get(client_id, 0))
        return self.venue.send(
            AmendOrder(
                account_id=self.account_id,
                market=symbol,
                side=known.side if known and not side else Side[side or "BUY"],
                quantity_lots=self.venue.lots(symbol, size),
                price_ticks=self.venue.ticks(symbol, price),
                order_id=order_id,
                client_order_id=client_id,
                yields_priority=yields_priority,
                price_match=PriceMatch[match],
            )
        )

    def conditional(
        self,
        kind: str,
        side: str,
        symbol: str,
        size: str,
        trigger: str = "0",
        *,
        price: str | None = None,
        watches: str = "LAST",
        tif: str = "GTC",
        reduce_only: bool = False,
        close_position: bool = False,
        callback: str = "0",
        activation: str = "0",
        client_id: str = "",
        leg: str = "BOTH",
        self_trade: str = "EXPIRE_MAKER",
        expires_ns: int = 0,
        match: str = "NONE",
        protect: bool = False,
    ) -> list[Event]:
        """Let a market order, or with a price or level a limit order, wait; `callback` is in percent."""
        return self.venue.send(
            PlaceConditional(
                account_id=self.account_id,
                market=symbol,
                side=Side[side],
                kind=TriggerKind[kind],
                order_type=OrderType.LIMIT if price or match != "NONE" else OrderType.MARKET,
                quantity_lots=self.venue.lots(symbol, size),
                trigger_ticks=self.venue.ticks(symbol, trigger),
                price_ticks=self.venue.ticks(symbol, price) if price else 0,
                working_price=WorkingPrice[watches],
                time_in_force=TimeInForce[tif],
                reduce_only=reduce_only,
                close_position=close_position,
                callback_rate=money(callback) // 100,
                activation_ticks=self.venue.ticks(symbol, activation),
                client_order_id=client_id,
                leg=Leg[leg],
                self_trade=SelfTrade[self_trade],
                expires_ns=expires_ns,
                price_match=PriceMatch[match],
                price_protect=protect,
            )
        )

    def cancel_conditional(self, symbol: str, conditional_id: int = 0, client_id: str = "") -> list[Event]:
        """Cancel a conditional order."""
        return self.venue.send(
            CancelConditional(
                account_id=self.account_id,
                market=symbol,
                conditional_id=conditional_id,
                client_order_id=client_id,
            )
        )

    def cancel_all_conditionals(self, symbol: str) -> list[Event]:
        """Cancel all conditional orders of a market."""
        return self.venue.send(CancelAllConditionals(account_id=self.account_id, market=symbol))

    def countdown(self, symbol: str, countdown_ms: int) -> list[Event]:
        """Start, renew or (0) end the countdown of a market."""
        return self.venue.send(
            SetCountdown(account_id=self.account_id, market=symbol, countdown_ms=countdown_ms)
        )

    def hedge(self, on: bool = True) -> list[Event]:
        """Choose hedge mode, or one-way mode."""
        return self.venue.send(SetPositionMode(account_id=self.account_id, hedge=on))

    def cancel(self, symbol: str, order_id: int = 0, client_id: str = "") -> list[Event]:
        """Cancel an order."""
        return self.venue.send(
            CancelOrder(
                account_id=self.account_id, market=symbol, order_id=order_id, client_order_id=client_id
            )
        )

    def cancel_all(self, symbol: str) -> list[Event]:
        """Cancel all orders of a market."""
        return self.venue.send(CancelAllOrders(account_id=self.account_id, market=symbol))

    def leverage(self, symbol: str, leverage: int) -> list[Event]:
        """Set the leverage."""
        return self.venue.send(SetLeverage(account_id=self.account_id, market=symbol, leverage=leverage))

    def mode(self, symbol: str, mode: str) -> list[Event]:
        """Set the margin mode while nothing is open, as Binance has it."""
        return self.venue.send(
            SetMarginMode(account_id=self.account_id, market=symbol, mode=MarginMode[mode], only_flat=True)
        )

    def switch(self, symbol: str, mode: str, margin: str = "0") -> list[Event]:
        """Set the margin mode with what is open; `margin` is the least that each leg's bucket gets."""
        return self.venue.send(self._switching(symbol, mode, margin))

    def preview(self, symbol: str, mode: str, margin: str = "0") -> MarginModeSet | Rejected:
        """Ask what `switch` would do; nothing may change."""
        before = self.venue.state.digest()
        answer = preview_margin_mode(self.venue.state, self._switching(symbol, mode, margin))
        assert before == self.venue.state.digest(), "a preview changed the state"
        return answer

    def _switching(self, symbol: str, mode: str, margin: str) -> SetMarginMode:
        return SetMarginMode(
            account_id=self.account_id,
            market=symbol,
            mode=MarginMode[mode],
            margin=money(margin),
            only_flat=False,
        )

    def add_margin(self, symbol: str, amount: str, leg: str = "BOTH") -> list[Event]:
        """Move money from the wallet to an isolated position's bucket (negative: back)."""
        return self.venue.send(
            AdjustMargin(account_id=self.account_id, market=symbol, amount=money(amount), leg=Leg[leg])
        )

    def remove_margin(self, symbol: str, amount: str, leg: str = "BOTH") -> list[Event]:
        """Move money from an isolated position's bucket to the wallet."""
        return self.add_margin(symbol, f"-{amount}", leg)

    def withdraw(self, amount: str) -> list[Event]:
        """Take money out."""
        return self.venue.send(Withdraw(account_id=self.account_id, amount=money(amount)))


def only(kind: type[E], events: list[Event]) -> E:
    """Return the one event of a kind; there must be exactly one."""
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, (kind.__name__, events)
    return found[0]


def every(kind: type[E], events: list[Event]) -> list[E]:
    """Return all events of a kind."""
    return [event for event in events if isinstance(event, kind)]


def order_id(events: list[Event]) -> int:
    """Return the id of the order that was accepted."""
    return only(OrderAccepted, events).order_id


def conditional_id(events: list[Event]) -> int:
    """Return the id of the conditional order that was accepted."""
    return only(ConditionalAccepted, events).conditional_id


def refusal(events: list[Event]) -> RejectCode:
    """Return why a command was refused; it must have been."""
    return only(Rejected, events).code


def refused_by(events: list[Event]) -> tuple[RejectCode, str]:
    """Return why a command was refused, and the reason in words; it must have been."""
    rejected = only(Rejected, events)
    return rejected.code, rejected.reason


def plain(amount: int) -> str:
    """Return money units as a plain decimal without trailing zeros."""
    return f"{(Decimal(amount) / MONEY).normalize():f}"
