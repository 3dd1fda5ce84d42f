"""Walking a source: order, pace, waiting for answers, stopping."""

import asyncio
from collections.abc import Iterator

import pytest
from feed_markets import SPECS

from events.commands import AnyCommand, SetIndexPrice
from events.events import Event, Rejected, TickPassed
from events.values import IndexSource, RejectCode
from exchange.feed.process import FeedSummary, run_feed
from exchange.feed.source import FeedError, Price, PricePoint, PriceSource
from exchange.feed.synthetic import open_calm, open_crash

DEADLINE_S = 5.0


class Steps:
    """Prices of BTCUSDT at the given times, as an in-memory source: tick n at the n-th time."""

    name = "steps"
    symbols: tuple[str, ...] = ("BTCUSDT",)

    def __init__(self, *times_ms: int) -> None:
        self._times_ms = times_ms
        self.length = len(times_ms)

    def __iter__(self) -> Iterator[PricePoint]:
        for n, time_ms in enumerate(self._times_ms, 1):
            yield PricePoint(time_ms=time_ms, prices={"BTCUSDT": Price(n, f"{n}/10")})


class Desk:
    """The answering end of `submit`: keeps commands and when they came, answers at once or when told."""

    def __init__(self, *, answers: list[Event] | None = None) -> None:
        self.commands: list[SetIndexPrice] = []
        self.times_s: list[float] = []
        self.waiting: list[asyncio.Future[list[Event]]] = []
        self.arrived = asyncio.Event()
        self._answers = answers

    def submit(self, command: AnyCommand) -> asyncio.Future[list[Event]]:
        loop = asyncio.get_running_loop()
        assert isinstance(command, SetIndexPrice)
        self.commands.append(command)
        self.times_s.append(loop.time())
        answer: asyncio.Future[list[Event]] = loop.create_future()
        if self._answers is None:
            self.waiting.append(answer)
        else:
            answer.set_result(self._answers)
        self.arrived.set()
        return answer


async def feed(desk: Desk, source: PriceSource, *, speed: float | None = None) -> FeedSummary:
    """Run a feed to its end."""
    async with asyncio.timeout(DEADLINE_S):
        return await run_feed(desk.submit, SPECS, source, speed=speed, stop=asyncio.Event())


async def test_each_point_becomes_one_command_a_symbol() -> None:
    """Commands carry ticks, text and the name of the source, in the source's order."""
    desk = Desk(answers=[])
    summary = await feed(desk, open_crash(SPECS, seed=1, steps=100))

    assert FeedSummary(points=100, rejected=0, finished=True) == summary
    assert ["BTCUSDT", "ETHUSDT"] * 100 == [command.market for command in desk.commands]
    assert (IndexSource(source="synthetic-crash", price_ticks=1_200_000, raw="120000"),) == desk.commands[
        0
    ].sources


class Dated(Steps):
    """One price whose source says when it was the price."""

    def __iter__(self) -> Iterator[PricePoint]:
        yield PricePoint(time_ms=0, prices={"BTCUSDT": Price(500_000, "50000", time_ns=7)})


async def test_a_source_s_own_time_goes_with_the_price() -> None:
    """What the source says of a price's time reaches the log; recorded prices say nothing."""
    dated, undated = Desk(answers=[]), Desk(answers=[])
    await feed(dated, Dated(0))
    await feed(undated, Steps(5_000))

    assert (IndexSource(source="steps", price_ticks=500_000, raw="50000", time_ns=7),) == dated.commands[
        0
    ].sources
    assert 0 == undated.commands[0].sources[0].time_ns


async def test_the_next_point_waits_for_the_answer() -> None:
    """However slow the exchange is, one point is under way and no more."""
    desk = Desk()
    seen: list[int] = []
    running = asyncio.ensure_future(
        run_feed(
            desk.submit,
            SPECS,
            Steps(0, 1, 2),
            speed=0,
            on_point=lambda points, point: seen.append(point.prices["BTCUSDT"].price_ticks * 10 + points),
            stop=asyncio.Event(),
        )
    )
    async with asyncio.timeout(DEADLINE_S):
        for n in range(3):
            await desk.arrived.wait()
            desk.arrived.clear()
            assert n + 1 == len(desk.commands)
            assert n == len(seen)
            desk.waiting[n].set_result([TickPassed()])
        summary = await running

    assert [11, 22, 33] == seen
    assert FeedSummary(points=3, rejected=0, finished=True) == summary


async def test_points_keep_the_pace_of_the_source() -> None:
    """At 10 source seconds a second, a second of the source takes a tenth of one."""
    desk = Desk(answers=[])
    start_s = asyncio.get_running_loop().time()
    await feed(desk, Steps(5_000, 6_000, 8_000), speed=10)

    # From before the start, so that a busy machine can only make it longer.
    _, second, third = desk.times_s
    assert second - start_s >= 0.099
    assert third - start_s >= 0.299


async def test_time_lost_to_a_slow_answer_is_not_made_up_for() -> None:
    """After an answer that came late, the next points keep their distance from each other."""
    desk = Desk()
    running = asyncio.ensure_future(feed(desk, Steps(0, 1_000, 2_000), speed=20))
    async with asyncio.timeout(DEADLINE_S):
        await desk.arrived.wait()
        desk.arrived.clear()
        asyncio.get_running_loop().call_later(0.15, desk.waiting[0].set_result, [])
        await desk.arrived.wait()
        desk.arrived.clear()
        desk.waiting[1].set_result([])
        await desk.arrived.wait()
        desk.waiting[2].set_result([])
        await running

    assert desk.times_s[1] - desk.times_s[0] >= 0.149
    assert desk.times_s[2] - desk.times_s[1] >= 0.049


async def test_stop_ends_an_endless_source() -> None:
    """Once told to stop, the feed submits nothing more and says how far it came."""
    desk = Desk(answers=[])
    stop = asyncio.Event()

    def stop_at_20(points: int, point: PricePoint) -> None:
        if points == 20:
            stop.set()

    async with asyncio.timeout(DEADLINE_S):
        summary = await run_feed(
            desk.submit, SPECS, open_calm(SPECS, seed=1), speed=0, on_point=stop_at_20, stop=stop
        )

    assert 20 <= summary.points <= 21
    assert not summary.finished
    assert len(desk.commands) == 2 * summary.points


@pytest.mark.parametrize("answered", [True, False])
async def test_stop_interrupts_every_wait(answered: bool) -> None:
    """Neither a long pause between points nor an answer that never comes keeps a feed from stopping."""
    desk = Desk(answers=[] if answered else None)
    stop = asyncio.Event()
    running = asyncio.ensure_future(run_feed(desk.submit, SPECS, Steps(0, 3_600_000), speed=1, stop=stop))
    async with asyncio.timeout(DEADLINE_S):
        await desk.arrived.wait()
        stop.set()
        summary = await running

    assert FeedSummary(points=int(answered), rejected=0, finished=False) == summary
    assert 1 == len(desk.commands)


async def test_refused_prices_are_counted() -> None:
    """A market that refuses its index price does not stop the others, and the summary tells."""
    refused = Rejected(account_id=0, code=RejectCode.BAD_PRICE, reason="price_ticks above maximum")
    assert 3 == (await feed(Desk(answers=[refused]), Steps(0, 1, 2))).rejected


async def test_an_error_in_an_answer_ends_the_feed() -> None:
    """What the log raises reaches whoever runs the feed."""
    desk = Desk()
    running = asyncio.ensure_future(feed(desk, Steps(0, 1)))
    async with asyncio.timeout(DEADLINE_S):
        await desk.arrived.wait()
        desk.waiting[0].set_exception(ConnectionError("gone"))
        with pytest.raises(ConnectionError, match="gone"):
            await running


async def test_an_unlisted_symbol_is_refused_before_anything_is_sent() -> None:
    """A source for markets that do not exist sends nothing."""
    desk = Desk(answers=[])
    with pytest.raises(FeedError, match="source steps: not listed: BTCUSDT"):
        await run_feed(desk.submit, {}, Steps(0), speed=0, stop=asyncio.Event())
    with pytest.raises(ValueError, match="must not be negative"):
        await run_feed(desk.submit, SPECS, Steps(0), speed=-1, stop=asyncio.Event())
    assert [] == desk.commands
