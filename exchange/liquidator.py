"""The liquidator: follows the marks and asks for the liquidation of every bucket that has none left.

It only asks. The aggregate looks again at its own marks, so a late, repeated or mistaken request changes
nothing; what counts is that none is forgotten. A bucket can get to its maintenance margin in two ways: a
mark moves, or a fill changes its position. After either it is looked at; and once, whole, after catching up
with the log, because what happened before this process lived was somebody else's to ask for, or nobody's.
"""

import asyncio
from collections.abc import Collection

import structlog

from events.appender import AnswerLostError, Appender, AppenderClosedError
from events.commands import Liquidate
from events.events import Event, MarkPriceChanged, TradeExecuted
from events.log import VerifiedEvents
from events.values import Leg, MarginMode
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account
from exchange.aggregate.margin import bucket_equity, is_liquidatable, maintenance, survey
from exchange.aggregate.state import Exchange
from exchange.fold import Fold
from exchange.runtime import Runtime

logger = structlog.get_logger(__name__)

CROSS_POOL = ""
Bucket = tuple[int, str, Leg]  # account id; market of an isolated position, or CROSS_POOL; its leg


def find_liquidatable(state: Exchange, symbols: Collection[str]) -> list[Bucket]:
    """Return the customers' buckets at or below maintenance that hold a position in one of `symbols`.

    A bucket is (account id, market of an isolated position or "" for the cross pool, leg); by account id.
    """
    return [
        bucket
        for account_id, account in state.accounts.items()
        if account_id >= FIRST_USER_ACCOUNT_ID
        for bucket in liquidatable_buckets(account, symbols)
    ]


def liquidatable_buckets(account: Account, symbols: Collection[str]) -> list[Bucket]:
    """Return which of an account's buckets with a position in `symbols` are at or below maintenance."""
    buckets = []
    is_cross_held = False
    for position in account.positions.values():
        symbol = position.market.symbol
        if position.size_lots == 0 or symbol not in symbols:
            continue
        if position.mode is MarginMode.CROSS:
            is_cross_held = True
        elif is_liquidatable(bucket_equity(account, position), maintenance(position)):
            buckets.append((account.account_id, symbol, position.leg))
    if is_cross_held:
        pool = survey(account)
        if is_liquidatable(pool.equity, pool.maintenance):
            buckets.append((account.account_id, CROSS_POOL, Leg.BOTH))
    return buckets


class Liquidator:
    """Finds and asks, at most one request a bucket at a time.

    `on_entry` is given to the fold; `ask` runs beside it once the fold has caught up. Between two looks the
    fold may pass many entries: only the latest marks count, as they will for the aggregate.
    """

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._is_live = False
        self._moved: set[str] = set()
        self._touched: set[int] = set()
        self._cause_seq = 0
        self._outstanding: set[Bucket] = set()
        # Found again while a request was outstanding; looked at once more after its answer.
        self._due: set[Bucket] = set()
        self._look = asyncio.Event()
        self._failure: BaseException | None = None

    def on_entry(self, verified: VerifiedEvents) -> None:
        """Note which marks and accounts an entry moved."""
        self._appender.resolve(verified.groups)
        if not self._is_live:
            return
        for group in verified.groups:
            for event in group:
                if isinstance(event, MarkPriceChanged):
                    self._moved.add(event.market)
                elif isinstance(event, TradeExecuted):
                    self._touched.update((event.maker_account_id, event.taker_account_id))
                else:
                    continue
                self._cause_seq = verified.entry.seq
                self._look.set()

    def go_live(self, state: Exchange) -> None:
        """Start to ask, beginning with a look at every bucket; the state must be current."""
        self._is_live = True
        self._cause_seq = state.seq
        self._moved.update(state.markets)
        self._look.set()

    async def ask(self, state: Exchange) -> None:
        """Look at `state` whenever something moved, and ask, until cancelled.

        Raises:
            LogError, FrameRefusedError: requests can no longer be sent.
        """
        while True:
            await self._look.wait()
            self._look.clear()
            if self._failure is not None:
                raise self._failure
            for bucket in self._find(state):
                if bucket in self._outstanding:
                    self._due.add(bucket)
                else:
                    self._request(bucket)

    def _find(self, state: Exchange) -> list[Bucket]:
        found = find_liquidatable(state, self._moved) if self._moved else []
        for account_id in sorted(self._touched):
            if account_id >= FIRST_USER_ACCOUNT_ID:
                found.extend(liquidatable_buckets(state.accounts[account_id], state.markets))
        self._moved.clear()
        self._touched.clear()
        return list(dict.fromkeys(found))

    def _request(self, bucket: Bucket) -> None:
        account_id, market, leg = bucket
        command = Liquidate(account_id=account_id, market=market, cause_seq=self._cause_seq, leg=leg)
        self._outstanding.add(bucket)
        answer = self._appender.submit(command)
        answer.add_done_callback(lambda answer: self._on_answer(bucket, answer))
        logger.info("liquidation_asked", account=account_id, market=market, cause_seq=self._cause_seq)

    def _on_answer(self, bucket: Bucket, answer: "asyncio.Future[list[Event]]") -> None:
        self._outstanding.discard(bucket)
        error = answer.exception()
        if isinstance(error, AppenderClosedError | AnswerLostError):
            return  # stopping; the next liquidator looks at everything
        if error is not None:
            self._failure = error
            self._look.set()
        elif bucket in self._due:
            self._due.discard(bucket)
            self._touched.add(bucket[0])
            self._look.set()


async def run_liquidator(runtime: Runtime) -> None:
    """Live as the liquidator: catch up, look at everything once, then follow the log until stopped.

    Raises:
        CorruptLogError, LogRewoundError: the log is not what it was.
        FrameRefusedError: another liquidator has taken the name.
        LogError: requests can no longer be sent.
    """
    if not await runtime.wait_for_log():
        return
    appender = Appender(runtime.log, "liquidator")
    liquidator = Liquidator(appender)
    fold = Fold(runtime.log, liquidator.on_entry, runtime.snapshots)
    if not await runtime.until_available(fold.catch_up):
        return
    await appender.open()
    liquidator.go_live(fold.state)
    following = asyncio.create_task(fold.run(runtime.stop), name="fold")
    asking = asyncio.create_task(liquidator.ask(fold.state), name="ask")
    runtime.ready(lambda: fold.head.seq)
    try:
        done, _ = await asyncio.wait({following, asking}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        asking.cancel()
        following.cancel()
        await asyncio.wait({following, asking})
        await appender.close()
