"""The demonstration from start to end: processes, accounts, positions, the crash, quiet, the proof.

Everything that happens goes through the exchange as anybody would use it. Traders and market maker are
customers of the HTTP API, prices come from an origin of their own as a feed's do, and what is shown and
counted is read from the event stream.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from events.appender import Appender
from events.log import VerifiedEvents
from events.redis import RedisLog
from events.values import MarginMode, MarketSpec
from exchange import config
from exchange.client import (
    AccountApi,
    ApiRefusal,
    ApiUnavailable,
    Connection,
    contracts,
    index_prices,
    open_account,
)
from exchange.decimals import lots_text, money_text, parse_money, price_text
from exchange.demo.board import Board
from exchange.demo.outcome import MODES, ModeOutcome, Outcome, grouped_money
from exchange.demo.prices import Stretch, describe_path, open_path, speed_of
from exchange.demo.table import Display, MarketView, View
from exchange.demo.traders import CROSSED, ISOLATED, Ledger, Plan, Trader, make_plans
from exchange.feed import PriceSource, run_feed
from exchange.intake.specs import DEFAULT_SPECS
from exchange.maker import run_maker
from exchange.runtime import wait_set
from exchange.supervisor import Supervisor

logger = structlog.get_logger(__name__)

# What the traders send together; more would only make all of them wait.
ORDERS_PER_S = 250
OPENED_AT_ONCE = 32
PRICES_EVERY_S = 0.1
SHOWN_EVERY_S = 0.25
QUOTED_DEADLINE_S = 30.0
QUIET_S = 1.0
QUIET_DEADLINE_S = 60.0
ACKNOWLEDGED_FILE = "orders-acknowledged.txt"
_MARGIN_TYPES = {MarginMode.ISOLATED: ISOLATED, MarginMode.CROSS: CROSSED}

T = TypeVar("T")


class DemoError(Exception):
    """The demonstration cannot be given or did not come to its end; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What is asked for. `insurance_fund` is quote for each market, `duration_s` the price path's time."""

    accounts: int
    duration_s: float
    seed: int
    files: tuple[str, ...]
    data_dir: Path
    port: int
    insurance_fund: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a demonstration left when its processes had stopped: the numbers, but for the proof."""

    seq: int
    digest: str
    board: Board
    ledger: Ledger
    traders: Mapping[int, Plan]
    fund_before: int
    commands_per_s: float
    restarts: Mapping[str, int]


def path_of(options: DemoOptions) -> PriceSource:
    """Return the price path that is asked for.

    Raises:
        FeedError: the price files cannot be used.
    """
    specs = {spec.symbol: spec for spec in DEFAULT_SPECS}
    return open_path(specs, options.files, seed=options.seed, duration_s=options.duration_s)


async def run_demo(options: DemoOptions, path: PriceSource, display: Display) -> Outcome:
    """Give the demonstration and return its outcome.

    Raises:
        DemoError: it did not come to its end.
        SupervisorError, EmbeddedServerError: the processes did not start, or one ended for good.
    """
    started_s = time.monotonic()
    display.say(f"prices: {describe_path(path)}")
    display.say(f"starting the exchange in {options.data_dir}")
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(
            Supervisor(options.data_dir, port=options.port, feed=(), insurance_amount=options.insurance_fund)
        )
        stage = await stack.enter_async_context(_Stage(supervisor, display))
        ran = await stage.unless_failed(_perform(options, stage, path))
        display.say("stopping the processes")
    _write_acknowledged(options.data_dir / ACKNOWLEDGED_FILE, ran.ledger.acknowledged)
    display.say(f"rebuilding the state from the log, up to entry {ran.seq}, in a fresh process")
    replayed = await replay_elsewhere(options.data_dir, ran.seq)
    return _outcome(options, path, ran, replayed, time.monotonic() - started_s)


async def replay_elsewhere(data_dir: Path, until: int) -> dict[str, Any]:
    """Return what `foldex replay` says of a log in a data directory, at entry `until`.

    Raises:
        DemoError: it failed; the message holds what it said.
    """
    command = (sys.executable, "-m", "exchange.cli", "replay", "--json")
    # The log is the directory's, whatever server the caller's environment names.
    environment = {name: value for name, value in os.environ.items() if name != config.REDIS_URL_ENV}
    process = await asyncio.create_subprocess_exec(
        *command, "--data-dir", str(data_dir), "--until", str(until),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, complained = await process.communicate()
    if process.returncode != 0:
        raise DemoError(f"the replay ended with exit code {process.returncode}: {complained.decode()}")
    replayed: dict[str, Any] = msgspec.json.decode(said)
    return replayed


class _Stage:
    """A running exchange with what the demonstration holds of it: log, fold, feed, connections, display."""

    def __init__(self, supervisor: Supervisor, display: Display) -> None:
        self.supervisor = supervisor
        self.public = Connection(supervisor.url)
        self.admin = Connection(supervisor.admin_url)
        self.log = RedisLog(supervisor.log_url, shard=config.SHARD)
        self.feed_log = RedisLog(supervisor.log_url, shard=config.SHARD)
        self.feed = Appender(self.feed_log, "feed")
        self.board = Board(self.log, self._on_entry, supervisor.archive)
        self.ledger = Ledger()
        self.prices: dict[str, Decimal] = {}
        self.phase = "starting"
        self.done = 0.0
        self._display = display
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looked = asyncio.Event()

    async def __aenter__(self) -> "_Stage":
        await self.public.__aenter__()
        await self.admin.__aenter__()
        await self.board.fold.catch_up()
        await self.feed.open()
        for work in (self.board.fold.run(self._stop), self._follow_prices(), self._keep_showing()):
            self._tasks.append(asyncio.create_task(work))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self.feed.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.log.close()
        await self.feed_log.close()
        await self.public.__aexit__(None, None, None)
        await self.admin.__aexit__(None, None, None)

    @property
    def specs(self) -> dict[str, MarketSpec]:
        """The listed markets."""
        return {symbol: market.spec for symbol, market in self.board.fold.state.markets.items()}

    def say(self, phase: str) -> None:
        """Begin a phase."""
        self.phase, self.done = phase, 0.0
        self._display.say(phase)

    async def until(self, is_so: Callable[[], bool], what: str, deadline_s: float) -> None:
        """Wait until the fold shows something.

        Raises:
            DemoError: it does not before the deadline.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while not is_so():
                    self._looked.clear()
                    await self._looked.wait()
        except TimeoutError:
            raise DemoError(f"{what}: not within {deadline_s:.0f} s") from None

    async def unless_failed(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, unless what it stands on breaks: then raise what broke, and cancel it."""
        working = asyncio.create_task(work)
        ends: set[asyncio.Future[Any]] = {working, self.supervisor.failed, *self._tasks}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self.supervisor.failed.done():
                raise self.supervisor.failed.result()
            for task in self._tasks:
                if task.done():
                    task.result()
            return await working
        finally:
            working.cancel()
            await asyncio.wait({working})

    def _on_entry(self, verified: VerifiedEvents) -> None:
        self.feed.resolve(verified.groups)
        self._looked.set()

    async def until_priced(self, symbols: Collection[str]) -> None:
        """Wait until the price of each of these markets is known, or the end."""
        while not all(symbol in self.prices for symbol in symbols):
            if await wait_set(self._stop, PRICES_EVERY_S):
                return

    async def _follow_prices(self) -> None:
        while not self._stop.is_set():
            try:
                self.prices.update(await index_prices(self.public))
            except ApiUnavailable:
                pass  # the next look is due in a moment
            await wait_set(self._stop, PRICES_EVERY_S)

    async def _keep_showing(self) -> None:
        markets = self.board.fold.state.markets
        while not self._stop.is_set():
            if all(market.mark_ticks for market in markets.values()):
                self._display.show(self._view())
            await wait_set(self._stop, SHOWN_EVERY_S)

    def _view(self) -> View:
        board, ledger = self.board, self.ledger
        return View(
            phase=self.phase,
            done=self.done,
            markets=[
                MarketView(
                    symbol=symbol,
                    mark=price_text(market.spec, market.mark_ticks),
                    bid=_quoted_text(market.spec, market.book.best_bid_ticks),
                    ask=_quoted_text(market.spec, market.book.best_ask_ticks),
                    open_interest=lots_text(market.spec, board.open_interest_lots(symbol)),
                )
                for symbol, market in board.fold.state.markets.items()
            ],
            liquidations_isolated=board.counts.liquidations[MarginMode.ISOLATED],
            liquidations_cross=board.counts.liquidations[MarginMode.CROSS],
            fund=grouped_money(money_text(board.fund())),
            commands=board.counts.commands,
            commands_per_s=board.commands_per_s(),
            ack_p50_ms=ledger.latency_ms(50),
            ack_p99_ms=ledger.latency_ms(99),
        )


async def _perform(options: DemoOptions, stage: _Stage, path: PriceSource) -> Ran:
    """Play the demonstration on a running exchange, until it is quiet again."""
    fund_before = stage.board.fund()
    await _play(stage, Stretch(path, 0, 1), speed=None)
    leaving = asyncio.Event()
    maker = asyncio.create_task(
        run_maker(stage.supervisor.url, stage.supervisor.admin_url, stop=leaving), name="maker"
    )
    trading: list[asyncio.Task[None]] = []
    try:
        await stage.until(lambda: _is_quoted(stage.board), "the market maker quotes", QUOTED_DEADLINE_S)
        traders = await _open_traders(options, stage)
        await _take_positions(stage, list(traders.values()))
        trading.extend(asyncio.create_task(trader.trade(leaving)) for trader in traders.values())
        commands_per_s = await _crash(stage, path, options.duration_s)
    finally:
        leaving.set()
        ended = await asyncio.gather(maker, *trading, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
    seq, digest = await _until_quiet(stage)
    return Ran(
        seq=seq,
        digest=digest,
        board=stage.board,
        ledger=stage.ledger,
        traders={account_id: trader.plan for account_id, trader in traders.items()},
        fund_before=fund_before,
        commands_per_s=commands_per_s,
        restarts=dict(stage.supervisor.restarts),
    )


async def _open_traders(options: DemoOptions, stage: _Stage) -> dict[int, Trader]:
    """Open the traders' accounts; return each trader by account id."""
    stage.say(f"opening {options.accounts} accounts")
    listed = await contracts(stage.public)
    think_s = options.accounts / ORDERS_PER_S
    traders: dict[int, Trader] = {}

    async def open_one(plan: Plan) -> None:
        credentials = await open_account(stage.admin, deposit=str(plan.deposit), label=plan.label)
        traders[credentials.account_id] = Trader(
            plan,
            AccountApi(stage.public, credentials),
            listed,
            stage.prices,
            stage.ledger,
            seed=options.seed,
            think_s=think_s,
        )

    plans = make_plans(options.accounts, options.seed)
    try:
        await _each(stage, [partial(open_one, plan) for plan in plans])
    except (ApiRefusal, ApiUnavailable) as error:
        raise DemoError(f"an account could not be opened: {error}") from error
    await stage.until_priced(listed)
    return traders


async def _take_positions(stage: _Stage, traders: list[Trader]) -> None:
    stage.say("taking positions")
    await _each(stage, [trader.set_up for trader in traders])


async def _each(stage: _Stage, steps: list[Callable[[], Awaitable[None]]]) -> None:
    """Take all steps, some at once, and show how many are done."""
    gate = asyncio.Semaphore(OPENED_AT_ONCE)
    done = 0

    async def take(step: Callable[[], Awaitable[None]]) -> None:
        nonlocal done
        async with gate:
            await step()
        done += 1
        stage.done = done / len(steps)

    tasks = [asyncio.create_task(take(step)) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _crash(stage: _Stage, path: PriceSource, duration_s: float) -> float:
    """Play the price path; return how many commands a second were answered meanwhile."""
    stage.say("the crash")
    commands, begun_s = stage.board.counts.commands, time.monotonic()
    await _play(stage, path, speed=speed_of(path, duration_s))
    return (stage.board.counts.commands - commands) / (time.monotonic() - begun_s)


async def _play(stage: _Stage, path: PriceSource, *, speed: float | None) -> None:
    length = path.length
    assert length is not None, path.name

    def on_point(points: int, _: object) -> None:
        stage.done = points / length

    summary = await run_feed(
        stage.feed.submit, stage.specs, path, speed=speed, on_point=on_point, stop=asyncio.Event()
    )
    if summary.rejected:
        raise DemoError(f"{summary.rejected} prices of the path were refused")


async def _until_quiet(stage: _Stage) -> tuple[int, str]:
    """Wait until nothing happens any more; return the last entry and the intake's digest there."""
    stage.say("waiting for quiet")
    deadline_s = time.monotonic() + QUIET_DEADLINE_S
    quiet_seq, quiet_since_s = -1, time.monotonic()
    while time.monotonic() < deadline_s:
        report = await stage.admin.request("GET", "/admin/v1/state")
        seq: int = report["seq"]
        is_at_head = seq == stage.board.head.seq == await stage.log.last_command_seq()
        if not is_at_head or seq != quiet_seq:
            quiet_seq, quiet_since_s = seq if is_at_head else -1, time.monotonic()
        elif time.monotonic() - quiet_since_s >= QUIET_S:
            stage.board.fold.state.check_identities()
            stage.done = 1.0
            return seq, report["digest"]
        await asyncio.sleep(PRICES_EVERY_S)
    raise DemoError(f"the exchange did not become quiet within {QUIET_DEADLINE_S:.0f} s")


def _quoted_text(spec: MarketSpec, price_ticks: int) -> str:
    return price_text(spec, price_ticks) if price_ticks else "none"


def _is_quoted(board: Board) -> bool:
    books = [market.book for market in board.fold.state.markets.values()]
    return all(book.best_bid_ticks and book.best_ask_ticks for book in books)


def _write_acknowledged(file: Path, order_ids: Iterable[int]) -> None:
    """Leave the ids of the orders that traders were told of beside the log, for whoever wants to check."""
    file.write_text("".join(f"{order_id}\n" for order_id in order_ids))


def _outcome(
    options: DemoOptions, path: PriceSource, ran: Ran, replayed: dict[str, Any], elapsed_s: float
) -> Outcome:
    board, ledger = ran.board, ran.ledger
    counts, in_log = board.counts, set(board.order_ids)
    return Outcome(
        digest_live=ran.digest,
        digest_replay=replayed["digest"],
        seq=ran.seq,
        data_dir=str(options.data_dir),
        prices=describe_path(path),
        seed=options.seed,
        duration_s=options.duration_s,
        elapsed_s=round(elapsed_s, 1),
        accounts=len(ran.traders),
        commands=counts.commands,
        events=counts.events,
        commands_per_s=round(ran.commands_per_s, 1),
        ack_ms={"p50": ledger.latency_ms(50), "p99": ledger.latency_ms(99)},
        liquidations={mode.name.lower(): counts.liquidations[mode] for mode in MODES},
        accounts_liquidated={mode.name.lower(): len(counts.liquidated[mode]) for mode in MODES},
        modes={mode.name.lower(): _mode_outcome(ran, mode) for mode in MODES},
        first_liquidated_account=counts.first_liquidated_account,
        taken_over=counts.takeovers,
        deleveraged=counts.deleveraged,
        socialised=money_text(counts.socialised),
        unpaid=money_text(counts.unpaid),
        not_borne=counts.unborne,
        insurance_fund_before=money_text(ran.fund_before),
        insurance_fund=money_text(board.fund()),
        identities=replayed["identities"],
        orders_acknowledged=len(ledger.acknowledged),
        orders_lost=len(set(ledger.acknowledged) - in_log),
        orders_doubled=len(board.order_ids) - len(in_log),
        rejected=counts.rejected,
        refusals={str(code): count for code, count in sorted(ledger.refusals.items())},
        unanswered=ledger.unanswered,
        restarts=ran.restarts,
    )


def _mode_outcome(ran: Ran, mode: MarginMode) -> ModeOutcome:
    members = {
        account_id: plan
        for account_id, plan in ran.traders.items()
        if plan.margin_type == _MARGIN_TYPES[mode]
    }
    liquidated = {
        account_id: plan
        for account_id, plan in members.items()
        if account_id in ran.board.counts.liquidated[mode]
    }
    paid_in, paid_in_by_liquidated = _deposits(members), _deposits(liquidated)
    return ModeOutcome(
        accounts=len(members),
        liquidated=len(liquidated),
        liquidations=ran.board.counts.liquidations[mode],
        deposited=money_text(paid_in),
        deposited_by_liquidated=money_text(paid_in_by_liquidated),
        lost=money_text(paid_in - ran.board.worth(members)),
        lost_by_liquidated=money_text(paid_in_by_liquidated - ran.board.worth(liquidated)),
    )


def _deposits(traders: Mapping[int, Plan]) -> int:
    return sum(parse_money(str(plan.deposit)) for plan in traders.values())
