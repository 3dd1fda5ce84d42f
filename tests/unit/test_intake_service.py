"""Answers when the log does not give one: what the caller is told about the fate of a command."""

import asyncio
import os
from random import Random

import pytest

from events.commands import AnyCommand, CreateLog, Deposit, Tick
from events.events import Event
from events.frame import close_command_frame
from events.machine import Machine
from events.memory import MemoryLog
from exchange.intake.errors import ApiError
from exchange.intake.keys import KeyRing
from exchange.intake.service import Intake
from exchange.simulation.loops import NS_PER_S, Scheduler
from tests.full_log import FullLog

DEADLINE_S = 0.05


async def opened(log: MemoryLog) -> Intake:
    """Return an intake that may append to a log that no writer reads."""
    await log.create(close_command_frame("genesis:1", 1, 0, [CreateLog(log_id="0" * 32, rules_version=1)]))
    intake = Intake(log, "intake-test", KeyRing(os.urandom(32)), deadline_s=DEADLINE_S)
    await intake.open()
    return intake


async def test_no_answer_in_time_leaves_the_outcome_open() -> None:
    """503, and the text says to query the order; the command stays in the log."""
    log = MemoryLog()
    intake = await opened(log)
    with pytest.raises(ApiError, match="status unknown") as caught:
        await intake.ask(Tick())
    assert (503, -1007) == (caught.value.status, caught.value.code)
    assert [Tick()] == log.commands[-1].frame.commands()
    await intake.close()


async def test_a_full_log_executes_nothing() -> None:
    """503, and trying again is safe."""
    log = FullLog()
    intake = await opened(log)
    log.is_full = True
    with pytest.raises(ApiError, match="try again") as caught:
        await intake.ask(Deposit(account_id=2, amount=1))
    assert (503, -1001) == (caught.value.status, caught.value.code)
    await intake.close()


async def test_a_closing_intake_is_not_available() -> None:
    """What waits when it closes is of unknown fate; what comes after was never sent."""
    log = MemoryLog()
    intake = await opened(log)
    asked = asyncio.create_task(intake.ask(Tick()))
    assert await log.read_commands(after=2, limit=1, wait_ms=5_000)
    await intake.close()
    with pytest.raises(ApiError) as caught:
        await asked
    assert (503, -1006) == (caught.value.status, caught.value.code)
    with pytest.raises(ApiError) as caught:
        await intake.ask(Tick())
    assert (503, -1016) == (caught.value.status, caught.value.code)


def test_a_clock_ahead_of_the_writers_asks_in_vain_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end that has come by the intake's clock, and not by the exchange's, costs a `Tick` every 5 s."""
    asked = 0

    async def answer(self: Intake, command: AnyCommand) -> list[Event]:
        nonlocal asked
        asked += 1
        return []

    monkeypatch.setattr(Intake, "_answer", answer)
    scheduler = Scheduler(Random(1))
    machine = Machine(clock_ns=lambda: 3_600 * NS_PER_S)
    intake = Intake(MemoryLog(), "intake", KeyRing(bytes(32)), machine=machine)
    intake.state.timers.append((1_800 * NS_PER_S, 0, 0, ""))
    scheduler.new_loop("intake").create_task(intake.keep_time())

    scheduler.run_until(lambda: scheduler.now_s > 60)
    scheduler.end()

    assert 10 < asked < 14
