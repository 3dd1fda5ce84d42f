"""What every handler works with: the read model, the way into the log, and the keys.

A command is answered when its events have been read back from the log, never before. When that does not
happen in time nobody knows whether it was executed, and the answer says so.

What waits for the writer is bounded: a queue that only grows would turn every answer into "unknown". When
more than `lag_frames` entries lie between what was appended and what has been read back, new commands are
refused at once; those that take risk away, and the administrator's hand on the market, only at twice that.
A liquidation never comes through here and is never refused: its process has one request a bucket under way.
"""

import asyncio
from collections import deque
from typing import Any, NoReturn

import structlog

from events.appender import AnswerLostError, Appender, AppenderClosedError, FrameRefusedError
from events.commands import (
    AnyCommand,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    Command,
    Liquidate,
    RemoveApiKey,
    SetCountdown,
    SetMarketStatus,
    Tick,
)
from events.events import CommandFailed, Event, Rejected
from events.frame import Groups, header_of
from events.log import Log, LogError, LogFullError, VerifiedEvents
from events.machine import MACHINE, Machine
from events.values import MarginMode, Outcome
from exchange import config
from exchange.aggregate.account import Account
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.decimals import money_text
from exchange.fold import NO_SNAPSHOTS, Fold, Snapshots
from exchange.intake.errors import (
    BAD_SYMBOL,
    LOG_FULL,
    NOT_EXECUTED,
    OVERLOADED,
    SHUTTING_DOWN,
    STATUS_UNKNOWN,
    TIMED_OUT,
    UNKNOWN,
    ApiError,
    refusal,
)
from exchange.intake.histories import Histories
from exchange.intake.keys import KeyRing
from exchange.intake.limits import DEFAULT_LIMITS, Limits
from exchange.intake.market.past import Past
from exchange.intake.metrics import Metrics
from exchange.intake.projection import Projection
from exchange.intake.trade.listen_keys import ListenKeys
from exchange.intake.trade.orders import NS_PER_MS, OrderHistory
from exchange.intake.trade.past import AccountPast
from exchange.intake.trade.places import Places

ANSWER_DEADLINE_S = 10.0
TIMER_CHECK_S = 0.25
# How long the event loop may be kept while the past is read.
SLICE_S = 0.002
WAITS_CHECK_S = 0.5
TIMER_IN_VAIN_S = 5.0
# What may still come in when orders no longer may, up to `RESERVED_FACTOR` times the bound.
RESERVED: frozenset[type[Command]] = frozenset(
    {
        CancelAllConditionals,
        CancelAllOrders,
        CancelConditional,
        CancelOrder,
        Liquidate,
        RemoveApiKey,
        SetCountdown,
        SetMarketStatus,
        Tick,
    }
)
RESERVED_FACTOR = 2

logger = structlog.get_logger(__name__)


class Intake:
    """The exchange as the HTTP side sees it.

    Construct, `catch_up`, `open`, and keep `run` going; then `ask`. The state is the fold's own: to be read,
    never changed.

    What the state does not hold, past orders, trades and income, reaches back as far as log and archive do
    when this process starts. On a trimmed log without an archive older orders that ended are unknown here,
    and of those still open only what the state knows (see `OrderHistory.adopt`). A process that starts from a
    snapshot takes orders at once, and reads what came before beside that, by `read_past`; until then it has
    no past.

    With `legacy_conditional_orders` the order calls take the types that wait for a price, as they did before
    these got calls of their own.
    """

    def __init__(
        self,
        log: Log,
        name: str,
        keys: KeyRing,
        *,
        deadline_s: float = ANSWER_DEADLINE_S,
        lag_frames: int = config.LAG_FRAMES_DEFAULT,
        snapshots: Snapshots = NO_SNAPSHOTS,
        limits: Limits = DEFAULT_LIMITS,
        legacy_conditional_orders: bool = False,
        machine: Machine = MACHINE,
    ) -> None:
        self.keys = keys
        self.limits = limits
        self.listen_keys = ListenKeys()
        self.places = Places()
        self.legacy_conditional_orders = legacy_conditional_orders
        self.metrics = Metrics(lambda: (self.state.seq, self.lag))
        self._deadline_s = deadline_s
        self._lag_frames = lag_frames
        self._is_overloaded = False
        self._clock_ns = machine.clock_ns
        self._appender = Appender(log, name, machine=machine)
        self._waits: deque[tuple[float, asyncio.Future[list[Event]]]] = deque()
        self._waiting: asyncio.Task[None] | None = None
        self._fold = Fold(log, self._on_entry, snapshots)
        self._is_started = False
        self._histories = Histories(lambda: self._fold.state)
        self._followers: tuple[Projection, ...] = (self.listen_keys,)
        # What came since the snapshot, while what came before it is being read; None when all is known.
        self._since: deque[Groups] | None = None

    @property
    def state(self) -> Exchange:
        """The read model, as of the last entry read."""
        return self._fold.state

    @property
    def now_ms(self) -> int:
        """The exchange's time at the last entry, in ms."""
        return self._fold.state.now_ns // NS_PER_MS

    @property
    def lag(self) -> int:
        """How many entries wait for the writer, or for this process to read their events.

        Counted up to the last entry appended from here, so it grows only by what this process appends.
        """
        return max(0, self._appender.appended_seq - self._fold.head.seq)

    async def catch_up(self) -> None:
        """Read all that is in the log now; raises as `Fold.catch_up`."""
        if not self._is_started:
            await self._fold.start()
            if self._fold.started_from is not None:
                self._histories.adopt()
                self._since = deque()
            self._is_started = True
        await self._fold.catch_up()

    @property
    def has_past(self) -> bool:
        """Whether all is known that happened before this process started, as far as it is kept."""
        return self._since is None

    @property
    def past(self) -> AccountPast:
        """What happened to accounts."""
        return self._histories.accounts

    @property
    def orders(self) -> OrderHistory:
        """What became of orders."""
        return self._histories.accounts.orders

    @property
    def markets_past(self) -> Past:
        """What happened in the markets."""
        return self._histories.markets

    @property
    def liquidations(self) -> dict[MarginMode, int]:
        """How many liquidations there were, as far back as is known."""
        return self._histories.liquidations

    async def read_past(self) -> None:
        """Read what came before the snapshot that this process started from, a little at a time.

        Raises:
            CorruptLogError, LogRewoundError: as `Fold.past`.
            LogUnavailableError: the server does not answer; it can be tried again.
        """
        since = self._since
        if since is None:
            return
        found, slices = Histories(lambda: self._fold.state), _Slices()
        async for verified in self._fold.past():
            found.feed(verified.groups)
            await slices.pause()
        while since:
            found.feed(since.popleft())
            if since:
                await slices.pause()
        # From here to the end nobody else runs: the state stands behind the last entry fed.
        found.replace(self._histories)
        self._histories = found
        self._since = None
        logger.info("past_read", seq=self.state.seq)

    def follow(self, projection: Projection) -> None:
        """Feed a projection with every entry from now on, behind the histories."""
        self._followers = (*self._followers, projection)

    async def open(self) -> None:
        """Open this intake's origin; raises as `Appender.open`."""
        await self._appender.open()
        self._waiting = asyncio.create_task(self._end_waits(), name="intake waits")

    async def run(self) -> None:
        """Read what comes until cancelled.

        Raises:
            FrameRefusedError: another process opened the same name.
            CorruptLogError, LogRewoundError: as `Fold.run`.
        """
        await self._fold.run(asyncio.Event())

    async def keep_time(self) -> None:
        """Say that time has passed whenever an order's end or a countdown is due, until cancelled.

        The aggregate has no clock: in a market without orders or prices nothing else would tell it.
        """
        while True:
            await asyncio.sleep(TIMER_CHECK_S)
            timers = self._fold.state.timers
            if timers and timers[0][0] <= self._clock_ns():
                try:
                    await self._answer(Tick())
                except ApiError as error:
                    logger.warning("tick_not_answered", code=error.code)
                if timers and timers[0][0] > self._fold.state.now_ns:
                    # This clock is ahead of what the writer allows; asking four times a second moves nothing.
                    await asyncio.sleep(TIMER_IN_VAIN_S)

    async def close(self) -> None:
        """Stop appending."""
        await self._appender.close()
        if self._waiting is not None:
            self._waiting.cancel()

    def market(self, symbol: str) -> Market:
        """Return a listed market.

        A market listed by another intake a moment ago may be unknown here still.

        Raises:
            ApiError: -1121.
        """
        market = self._fold.state.markets.get(symbol)
        if market is None:
            raise BAD_SYMBOL.error()
        return market

    def account(self, account_id: int) -> Account:
        """Return the account of an authenticated caller."""
        return self._fold.state.accounts[account_id]

    async def ask(self, command: AnyCommand) -> list[Event]:
        """Have a command decided; return its events once they have been read back.

        Raises:
            RefusedError: the aggregate refused it.
            ApiError: 500: it failed by a fault of the exchange, and was not executed. 503: the text says
                whether it may have been executed. -1008: too much waits already.
        """
        events = await self._answer(command)
        if events and isinstance(events[0], Rejected):
            self.refuse(command, events[0])
        if events and isinstance(events[0], CommandFailed):
            raise UNKNOWN.error()
        return events

    def refuse(self, command: AnyCommand, rejected: Rejected) -> NoReturn:
        """Raise what a command that the aggregate refused is answered with.

        Raises:
            RefusedError: always.
        """
        raise refusal(rejected, **self.details(command))

    async def _answer(self, command: AnyCommand) -> list[Event]:
        self._refuse_overload(command)
        try:
            answer = self._appender.submit(command)
        except AppenderClosedError:
            raise SHUTTING_DOWN.error() from None
        self._waits.append((asyncio.get_running_loop().time() + self._deadline_s, answer))
        try:
            return await answer
        except _DeadlineError:
            raise TIMED_OUT.error() from None
        except LogFullError as error:
            raise LOG_FULL.error() from error
        except (AppenderClosedError, FrameRefusedError) as error:
            raise NOT_EXECUTED.error() from error
        except (LogError, AnswerLostError) as error:
            raise STATUS_UNKNOWN.error() from error

    async def _end_waits(self) -> None:
        """Tell those whose answer does not come in time, until cancelled. One timer serves all who wait.

        The command is on its way and stays there; only nobody waits for it any longer.
        """
        waits = self._waits
        while True:
            await asyncio.sleep(min(WAITS_CHECK_S, self._deadline_s / 4))
            now_s = asyncio.get_running_loop().time()
            while waits and (waits[0][1].done() or waits[0][0] <= now_s):
                _, answer = waits.popleft()
                if not answer.done():
                    answer.set_exception(_DeadlineError())

    def _refuse_overload(self, command: Command) -> None:
        lag = self.lag
        is_overloaded = lag > self._lag_frames
        if is_overloaded != self._is_overloaded:
            self._is_overloaded = is_overloaded
            logger.warning("overloaded" if is_overloaded else "no_longer_overloaded", lag_frames=lag)
        if is_overloaded and (type(command) not in RESERVED or lag > self._lag_frames * RESERVED_FACTOR):
            raise OVERLOADED.error()

    def details(self, command: Command) -> dict[str, Any]:
        """Return what the texts of refusals name of a command."""
        market = self._fold.state.markets.get(getattr(command, "market", ""))
        return {
            "leverage": getattr(command, "leverage", ""),
            "min_notional": money_text(market.spec.min_notional) if market is not None else "",
        }

    def _on_entry(self, entry: VerifiedEvents) -> None:
        groups = entry.groups
        self._histories.feed(groups)
        for follower in self._followers:
            follower.feed(groups)
        if self._since is not None:
            self._since.append(groups)
        self.metrics.entry(len(groups), sum(map(len, groups)), len(entry.entry.body))
        self._appender.resolve(groups)
        header = header_of(groups)
        if header.outcome is Outcome.ORIGIN_CLOSED and header.origin == self._appender.origin:
            # Another process has our name; none of our commands will ever run again.
            raise FrameRefusedError(header.outcome)


class _Slices:
    """Lets others run whenever it has worked for `SLICE_S`."""

    def __init__(self) -> None:
        self._began_s = asyncio.get_running_loop().time()

    async def pause(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._began_s > SLICE_S:
            await asyncio.sleep(0)
            self._began_s = loop.time()


class _DeadlineError(Exception):
    """The answer did not come in time."""
