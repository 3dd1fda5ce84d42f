"""The loops of simulated processes: order within each, chance between them, and ends without a word."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from events.commands import Deposit
from events.frame import close_command_frame
from events.log import LogUnavailableError
from events.memory import MemoryLog
from exchange.simulation.loops import Scheduler
from exchange.simulation.server import Connection, Fault, Network, Server
from tests.conformance.harness import command_frame


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    """A scheduler whose loops end with the test."""
    made = Scheduler(Random(1))
    yield made
    made.end()


def test_each_loop_keeps_its_order_and_chance_mixes_them(scheduler: Scheduler) -> None:
    """What one process does next is fixed; whose turn it is, is not."""
    done: list[str] = []
    for name in "ab":
        loop = scheduler.new_loop(name)
        for n in range(20):
            loop.call_soon(done.append, f"{name}{n}")

    scheduler.run_until(lambda: len(done) == 40)

    for name in "ab":
        assert [f"{name}{n}" for n in range(20)] == [each for each in done if each[0] == name]
    assert done != sorted(done, key=lambda each: each[0])


def test_waiting_costs_no_time(scheduler: Scheduler) -> None:
    """An hour passes at once, and timers end in order."""
    ended: list[int] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        ended.append(seconds)

    loop = scheduler.new_loop("waits")
    for seconds in (3_600, 60, 1):
        loop.create_task(wait(seconds))
    scheduler.run_until(lambda: len(ended) == 3)

    assert [1, 60, 3_600] == ended
    assert 3_600 <= scheduler.now_s < 3_601


def test_a_frozen_process_does_nothing_until_it_thaws(scheduler: Scheduler) -> None:
    """Its timers pass meanwhile, and it makes up for them."""
    beats: list[float] = []

    async def beat() -> None:
        while True:
            await asyncio.sleep(1)
            beats.append(scheduler.now_s)

    frozen, other = scheduler.new_loop("frozen"), scheduler.new_loop("other")
    frozen.create_task(beat())
    other.create_task(asyncio.sleep(10))
    scheduler.run_until(lambda: len(beats) == 1)
    frozen.is_frozen = True
    scheduler.run_until(lambda: scheduler.now_s >= 10)
    assert 1 == len(beats)

    frozen.is_frozen = False
    scheduler.run_until(lambda: len(beats) == 2)
    assert 10 <= beats[1] < 10.1


def test_a_killed_process_does_nothing_more(scheduler: Scheduler) -> None:
    """Not what was ready, not what it waited for, and not what waits behind a `finally`."""
    done: list[str] = []

    async def live() -> None:
        try:
            await asyncio.sleep(1)
            done.append("went on")
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    loop, other = scheduler.new_loop("killed"), scheduler.new_loop("other")
    loop.create_task(live())
    other.call_later(0.5, lambda: scheduler.doom(loop))
    other.call_later(0.5, loop.call_soon, done.append, "ready")
    other.call_later(5, done.append, "end")
    scheduler.run_until(lambda: "end" in done)

    assert ["end"] == done


def test_work_of_a_thread_is_done_whole(scheduler: Scheduler) -> None:
    """`asyncio.to_thread` returns what the work did, later."""
    results: list[int] = []

    async def work() -> None:
        results.append(await asyncio.to_thread(sum, [1, 2, 3]))

    scheduler.new_loop("works").create_task(work())
    scheduler.run_until(lambda: bool(results))

    assert [6] == results
    assert scheduler.now_s > 0


@pytest.mark.parametrize(
    ("fault", "stored", "confirmed"),
    [
        (None, 1, True),
        (Fault.REQUEST_LOST, 0, False),
        (Fault.REPLY_LOST, 1, False),
        (Fault.LATE, 1, False),
        (Fault.TWICE, 2, True),
    ],
)
def test_a_fault_does_what_its_name_says(
    scheduler: Scheduler,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault | None,
    stored: int,
    confirmed: bool,
) -> None:
    """How often the frame is in the log in the end, and whether the caller knows."""
    store = MemoryLog()
    loop = scheduler.new_loop("caller")
    network = Network(scheduler.random, run_late=scheduler.new_loop("late").create_task, note=lambda *_: None)
    monkeypatch.setattr(network, "draw", lambda *, is_write: fault)
    connection = Connection(Server(store), "caller", network)
    outcomes: list[bool] = []

    async def append() -> None:
        await store.create(command_frame(0))
        frame = close_command_frame("test:1", 1, 0, [Deposit(account_id=2, amount=1)])
        try:
            await connection.append_command(frame)
            outcomes.append(True)
        except LogUnavailableError:
            outcomes.append(False)
        await asyncio.sleep(10)
        outcomes.append(True)

    loop.create_task(append())
    scheduler.run_until(lambda: len(outcomes) == 2)

    assert (stored, confirmed) == (len(store.commands) - 1, outcomes[0])
    assert connection.connections == (1 if confirmed else 2)
