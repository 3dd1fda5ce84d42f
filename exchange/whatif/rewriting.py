"""The commands of the other run: the recorded ones, with what is to be different put in their place.

Orders are numbered by entry and place, and other commands name them by that. So every frame keeps its entry
and every command its place: a command that is no longer to be given becomes a `Tick`, which says only that
time has passed, and what is added goes behind the last command of a recorded frame. Numbers that the
exchange itself gives (orders of triggered conditional orders) can move; commands that name them are
translated by way of the conditional order.

What is to be different is set up as soon as it can be: the margin mode and the leverage of an account in a
market behind the frame in which both have come to exist, and the owner's own requests to set them are left
out. A bucket is brought to its size behind the frame after the one that opened the position, since only then
it is known. A market's insurance is allotted with its listing, and recorded allotments to it are left out.
"""

from collections.abc import Iterable, Iterator

import msgspec

from events.commands import (
    AdjustMargin,
    AllotInsurance,
    AmendOrder,
    AnyCommand,
    CancelOrder,
    Deposit,
    ListMarket,
    PlaceOrder,
    SetIndexPrice,
    SetLeverage,
    SetMarginMode,
    Tick,
    Withdraw,
)
from events.events import (
    AccountOpened,
    ConditionalTriggered,
    Deposited,
    Event,
    InsuranceAllotted,
    MarketListed,
    TradeExecuted,
)
from events.frame import Groups
from events.values import CROSS, ISOLATED, Leg, MarginMode, MarketSpec
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID
from exchange.aggregate.market import spec_problem
from exchange.aggregate.state import AGGREGATE_ORDER_BASE, Exchange
from exchange.audit.travel import NotInLogError
from exchange.whatif.changes import ChangeError, Changes, ForPosition
from exchange.whatif.prices import ANY, PriceError, Repricer

# No order ever has this number: the exchange counts its own from the next one on.
NO_ORDER = AGGREGATE_ORDER_BASE
Held = tuple[int, str, Leg]  # whose position, where


class Rewriter:
    """Makes the commands of the other run, whose state is `state`, entry by entry in order."""

    def __init__(self, changes: Changes, state: Exchange) -> None:
        self._changes = changes
        self._state = state
        self._repricer = Repricer(changes.paths, changes.moves, changes.shifts)
        # What the recorded log has had so far.
        self._account_ids: dict[int, None] = {}
        self._specs: dict[str, MarketSpec] = {}
        self._deposited: set[int] = set()
        # Open positions whose bucket is to have a size, and those among them that do not have it yet.
        self._held: set[Held] = set()
        self._buckets_used: set[ForPosition] = set()
        self._to_fill: dict[Held, int] = {}
        # Orders that the exchange made: number as recorded → conditional order → number in this run.
        self._conditional_of: dict[int, int] = {}
        self._number_of: dict[int, int] = {}

    def rewrite(
        self, seq: int, now_ns: int, commands: list[AnyCommand], recorded: Groups
    ) -> tuple[list[AnyCommand], list[AnyCommand]]:
        """Return the commands in the places of those of entry `seq`, and those to add behind them.

        Raises:
            ChangeError: the log cannot be changed like that.
        """
        added = self._fill_buckets()
        kept: list[AnyCommand] = []
        for command, events in zip(commands, recorded[1:], strict=True):
            if isinstance(command, SetIndexPrice):
                kept.append(self._repriced(seq, now_ns, command, events))
            elif isinstance(command, AllotInsurance) and self._fund_of(command.market) is not None:
                kept.append(Tick())
                added += [
                    Withdraw(account_id=FUND_ACCOUNT_ID, amount=event.amount)
                    for event in events
                    if isinstance(event, InsuranceAllotted) and event.amount > 0
                ]
            else:
                kept.append(self._rewritten(command, events))
        return kept, added + self._set_up(recorded)

    def learn(self, recorded: Groups, groups: Groups) -> None:
        """Note what an entry did in both runs, behind it."""
        for event in _all(recorded):
            if isinstance(event, ConditionalTriggered):
                self._conditional_of[event.order_id] = event.conditional_id
        opened: dict[int, None] = {}
        for event in _all(groups):
            if isinstance(event, ConditionalTriggered):
                self._number_of[event.conditional_id] = event.order_id
            elif isinstance(event, TradeExecuted):
                opened[event.maker_account_id] = opened[event.taker_account_id] = None
        if self._changes.buckets:
            self._note_positions(opened)

    def check_used(self, last_seq: int) -> None:
        """Make sure that the log has what is to be different; asked at its end, entry `last_seq`.

        Raises:
            NotInLogError: it has not.
        """
        changes = self._changes
        for account_id in changes.account_ids:
            if account_id not in self._account_ids:
                raise NotInLogError(f"there is no account {account_id} in this log")
        for account_id in changes.wallets:
            if account_id not in self._deposited:
                raise NotInLogError(f"account {account_id} has no deposit in this log")
        named = [each.market for each in (*changes.modes, *changes.leverages, *changes.buckets)]
        maps = (changes.funds, changes.brackets, changes.paths, changes.moves, changes.shifts)
        for symbol in (*named, *(symbol for each in maps for symbol in each)):
            if symbol not in (None, ANY) and symbol not in self._specs:
                listed = ", ".join(self._specs) or "none"
                raise NotInLogError(f"{symbol} is not listed in this log; listed: {listed}")
        for symbol, shift in changes.shifts.items():
            if shift.from_seq > last_seq:
                what = f"the log ends at entry {last_seq}; there is no entry {shift.from_seq}"
                raise NotInLogError(f"--shift {symbol}: {what}")
        for each in changes.buckets:
            if each not in self._buckets_used:
                what = "no isolated position is opened there"
                raise NotInLogError(f"--bucket {each.account_id or ANY}:{each.market or ANY}: {what}")

    # In the place of recorded commands

    def _rewritten(self, command: AnyCommand, events: list[Event]) -> AnyCommand:
        if isinstance(command, SetMarginMode):
            wishes: Iterable[ForPosition] = self._changes.modes
            return command if _wanted(wishes, command.account_id, command.market) is None else Tick()
        if isinstance(command, SetLeverage):
            wishes = self._changes.leverages
            return command if _wanted(wishes, command.account_id, command.market) is None else Tick()
        if isinstance(command, PlaceOrder):
            return self._placed(command)
        if isinstance(command, AmendOrder | CancelOrder):
            return self._renumbered(command)
        if isinstance(command, Deposit):
            return self._deposit(command, events)
        if isinstance(command, ListMarket):
            return self._listing(command)
        return command

    def _repriced(self, seq: int, now_ns: int, command: SetIndexPrice, events: list[Event]) -> SetIndexPrice:
        spec = self._specs.get(command.market)
        if spec is None:
            return command
        try:
            return self._repricer.reprice(spec, seq, now_ns, command, events)
        except PriceError as error:
            raise ChangeError(str(error)) from None

    def _placed(self, command: PlaceOrder) -> PlaceOrder:
        """Return an order that does not ask for another mode than its market is to have."""
        mode = _wanted(self._changes.modes, command.account_id, command.market)
        if mode is None:
            return command
        margin = command.margin if mode == ISOLATED else 0
        if command.margin_mode in (None, mode) and margin == command.margin:
            return command
        return msgspec.structs.replace(command, margin_mode=None, margin=margin)

    def _renumbered(self, command: AmendOrder | CancelOrder) -> AmendOrder | CancelOrder:
        conditional_id = self._conditional_of.get(command.order_id)
        if conditional_id is None:
            return command
        order_id = self._number_of.get(conditional_id, NO_ORDER)
        if order_id == command.order_id:
            return command
        return msgspec.structs.replace(command, order_id=order_id)

    def _deposit(self, command: Deposit, events: list[Event]) -> Deposit:
        account_id = command.account_id
        if account_id in self._deposited or not any(isinstance(event, Deposited) for event in events):
            return command
        self._deposited.add(account_id)
        change = self._changes.wallets.get(account_id)
        if change is None:
            return command
        amount = command.amount + change.amount if change.is_added else change.amount
        if amount <= 0:
            raise ChangeError(f"--wallet {account_id}: nothing is left of the first deposit")
        return command if amount == command.amount else msgspec.structs.replace(command, amount=amount)

    def _listing(self, command: ListMarket) -> ListMarket:
        symbol = command.spec.symbol
        brackets = self._changes.brackets.get(symbol, self._changes.brackets.get(ANY))
        if brackets is None or brackets == command.spec.brackets:
            return command
        spec = msgspec.structs.replace(command.spec, brackets=brackets)
        problem = spec_problem(spec)
        if problem:
            raise ChangeError(f"--brackets {symbol}: {problem}")
        return msgspec.structs.replace(command, spec=spec)

    # Behind recorded commands

    def _set_up(self, recorded: Groups) -> list[AnyCommand]:
        """Return what sets up the accounts and markets that an entry brings into being."""
        added: list[AnyCommand] = []
        for event in _all(recorded):
            if isinstance(event, AccountOpened):
                self._account_ids[event.account_id] = None
                for symbol in self._specs:
                    added += self._settings(event.account_id, symbol)
            elif isinstance(event, MarketListed):
                symbol = event.spec.symbol
                self._specs[symbol] = event.spec
                for account_id in self._account_ids:
                    added += self._settings(account_id, symbol)
                allotted = self._fund_of(symbol)
                if allotted:
                    added.append(Deposit(account_id=FUND_ACCOUNT_ID, amount=allotted))
                    added.append(AllotInsurance(market=symbol, amount=allotted))
        return added

    def _fund_of(self, symbol: str) -> int | None:
        return self._changes.funds.get(symbol, self._changes.funds.get(ANY))

    def _settings(self, account_id: int, symbol: str) -> list[AnyCommand]:
        settings: list[AnyCommand] = []
        mode = _wanted(self._changes.modes, account_id, symbol)
        if mode is not None and mode != CROSS:  # which every account begins with
            settings.append(
                SetMarginMode(account_id=account_id, market=symbol, mode=MarginMode(mode), only_flat=False)
            )
        leverage = _wanted(self._changes.leverages, account_id, symbol)
        if leverage is not None:
            self._check_leverage(symbol, leverage)
            settings.append(SetLeverage(account_id=account_id, market=symbol, leverage=leverage))
        return settings

    def _check_leverage(self, symbol: str, leverage: int) -> None:
        """Make sure that a market permits a leverage.

        The owner's own settings are left out, so that after a refusal it would be the market's default.
        """
        others = self._changes.brackets
        brackets = others.get(symbol) or others.get(ANY) or self._specs[symbol].brackets
        highest = max(row.max_leverage for row in brackets)
        if leverage > highest:
            raise ChangeError(f"--leverage {leverage}: {symbol} permits 1 to {highest}")

    def _note_positions(self, account_ids: Iterable[int]) -> None:
        """Find the isolated positions that have just opened, and whose bucket is to have a size."""
        accounts, markets = self._state.accounts, self._state.markets
        for held in list(self._held):
            if accounts[held[0]].position(markets[held[1]], held[2]).size_lots == 0:
                self._held.remove(held)
                self._to_fill.pop(held, None)
        for account_id in account_ids:
            if account_id < FIRST_USER_ACCOUNT_ID:
                continue
            for position in accounts[account_id].positions.values():
                symbol = position.market.symbol
                wanted = _wanted(self._changes.buckets, account_id, symbol)
                held = (account_id, symbol, position.leg)
                if wanted is None or position.mode is CROSS or not position.size_lots or held in self._held:
                    continue
                self._buckets_used.update(
                    each for each in self._changes.buckets if each.covers(account_id, symbol)
                )
                self._held.add(held)
                self._to_fill[held] = wanted

    def _fill_buckets(self) -> list[AnyCommand]:
        to_fill, self._to_fill = self._to_fill, {}
        added: list[AnyCommand] = []
        for (account_id, symbol, leg), wanted in to_fill.items():
            position = self._state.accounts[account_id].position(self._state.markets[symbol], leg)
            amount = wanted - position.bucket
            if amount:
                added.append(AdjustMargin(account_id=account_id, market=symbol, amount=amount, leg=leg))
        return added


def _wanted(wishes: Iterable[ForPosition], account_id: int, market: str) -> int | None:
    """Return the last value that was asked for an account in a market, None if none was."""
    value = None
    for each in wishes:
        if each.covers(account_id, market):
            value = each.value
    return value


def _all(groups: Groups) -> Iterator[Event]:
    for group in groups:
        yield from group
