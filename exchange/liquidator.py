"""The liquidator: follows the marks and asks for the liquidation of every bucket at or below maintenance.

It only asks. The aggregate looks again at its own marks, so a late, repeated or mistaken request changes
nothing; what counts is that none is forgotten. A `Watch` says which buckets are due. It is built once, after
catching up with the log: what happened before this process lived was somebody else's to ask for, or nobody's.
"""

import asyncio
import time

import structlog

from events.appender import AnswerLostError, Appender, AppenderClosedError
from events.commands import Liquidate
from events.events import Event
from events.log import LogFullError, VerifiedEvents
from exchange.aggregate.state import Exchange
from exchange.fold import Fold
from exchange.runtime import Host, until_one_ends
from exchange.watch import Bucket, Watch

FULL_RETRY_S = 1.0

logger = structlog.get_logger(__name__)


class Liquidator:
    """Finds and asks, at most one request a bucket at a time.

    `on_entry` is given to the fold; `ask` runs beside it once the fold has caught up.
    """

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self._watch: Watch | None = None
        self._cause_seq = 0
        self._outstanding: dict[Bucket, asyncio.Future[list[Event]]] = {}
        self._not_appended: list[Bucket] = []
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    def on_entry(self, verified: VerifiedEvents) -> None:
        """Note what an entry changed."""
        self._appender.resolve(verified.groups)
        if self._watch is None:
            return
        for group in verified.groups:
            for event in group:
                if self._watch.follow(event):
                    self._cause_seq = verified.entry.seq
                    self._wake.set()

    def go_live(self, state: Exchange) -> None:
        """Look at every bucket and start to ask; the state must be current."""
        start_ns = time.perf_counter_ns()
        self._watch = Watch(state)
        self._cause_seq = state.seq
        due = self._watch.look()
        seconds = (time.perf_counter_ns() - start_ns) / 1e9
        positions = sum(len(market.holders) for market in state.markets.values())
        logger.info("watch_built", positions=positions, due=len(due), seconds=round(seconds, 3))
        self._request_all(due)

    async def ask(self) -> None:
        """Look whenever something happened to a bucket, and ask, until cancelled.

        Raises:
            LogError, FrameRefusedError: requests can no longer be sent.
        """
        assert self._watch is not None, "go_live comes first"
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            due = self._watch.look()
            self._request_all([*due, *self._not_appended_and_due(self._watch)])
            if self._watch.charged:
                self._wake.set()
                await asyncio.sleep(0)

    def _not_appended_and_due(self, watch: Watch) -> list[Bucket]:
        """Return what a server without room refused and is still due: the watch counts it as asked for.

        What has recovered meanwhile was not due behind the entry that a request would name as its cause.
        """
        buckets, self._not_appended = self._not_appended, []
        return [bucket for bucket in buckets if bucket in watch.due.get(bucket[0], ())]

    def _request_all(self, due: list[Bucket]) -> None:
        for bucket in due:
            answer = self._outstanding.get(bucket)
            # A request without an answer will be decided after everything that this look has seen.
            if answer is None or answer.done():
                self._request(bucket)

    def _request(self, bucket: Bucket) -> None:
        account_id, market, leg = bucket
        command = Liquidate(account_id=account_id, market=market, cause_seq=self._cause_seq, leg=leg)
        answer = self._outstanding[bucket] = self._appender.submit(command)
        answer.add_done_callback(lambda answer: self._on_answer(bucket, answer))
        logger.info("liquidation_asked", account=account_id, market=market, cause_seq=self._cause_seq)

    def _on_answer(self, bucket: Bucket, answer: "asyncio.Future[list[Event]]") -> None:
        if self._outstanding.get(bucket) is answer:
            del self._outstanding[bucket]
        error = answer.exception()
        if isinstance(error, AppenderClosedError | AnswerLostError):
            return  # stopping; the next liquidator looks at everything
        if isinstance(error, LogFullError):
            if not self._not_appended:
                logger.error("log_full", error=str(error), retry_s=FULL_RETRY_S)
                answer.get_loop().call_later(FULL_RETRY_S, self._wake.set)
            self._not_appended.append(bucket)
        elif error is not None:
            self._failure = error
            self._wake.set()


async def run_liquidator(runtime: Host) -> None:
    """Live as the liquidator: catch up, look at everything once, then follow the log until stopped.

    Raises:
        CorruptLogError, LogRewoundError: the log is not what it was.
        FrameRefusedError: another liquidator has taken the name.
        LogError: requests can no longer be sent.
    """
    if not await runtime.wait_for_log():
        return
    appender = Appender(runtime.log, "liquidator", machine=runtime.machine)
    liquidator = Liquidator(appender)
    fold = Fold(runtime.log, liquidator.on_entry, runtime.snapshots)
    if not await runtime.until_available(fold.catch_up):
        return
    await appender.open()
    liquidator.go_live(fold.state)
    following = asyncio.create_task(fold.run(runtime.stop), name="fold")
    asking = asyncio.create_task(liquidator.ask(), name="ask")
    runtime.ready(lambda: fold.head.seq)
    try:
        await until_one_ends(asking, following)
    finally:
        await appender.close()
