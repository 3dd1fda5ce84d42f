"""What surrounds the exchange: clocks an hour off, a snapshot that never got its name, odd interpreters."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from events.appender import Appender
from events.commands import Deposit, ListMarket, OpenAccount, PlaceOrder, SetIndexPrice, Tick
from events.events import FrameHeader, FundingSettled
from events.log import VerifiedEvents
from events.machine import Machine
from events.snapshot import find, load
from events.values import IndexSource, OrderType, Side, TimeInForce
from exchange.aggregate.decide import CLOCK_LEAD_NS
from exchange.fold import Fold, Snapshots
from tests.faults.rig import ANSWERS_DEADLINE_S, Load, Row, loaded, rigged, row, settle
from tests.faults.writers import Dying
from tests.integration.processes import ROOT
from tests.property.test_determinism import DECIDE_LOG, write_log
from tests.venue import money, spec

HOUR_NS = 3_600 * 10**9
MARKET = "CLOCKUSDT"
DETERMINISM_COMMANDS = 3_000
SNAPSHOT_EVENTS = 100
# One of each kind, and again: however many are asked for, all kinds are among them.
INTERPRETERS = [
    settings
    for hash_seed, locale, zone in (
        ("0", "C", "Asia/Kathmandu"),
        ("1", "POSIX", "America/St_Johns"),
        ("4294967295", "C.UTF-8", "Pacific/Kiritimati"),
    )
    for settings in (
        {"PYTHONHASHSEED": hash_seed},
        {"LC_ALL": locale, "PYTHONUTF8": "0"},
        {"TZ": zone},
    )
]


async def clock_off(count: int) -> Row:
    """An appender's clock is an hour ahead or behind: the exchange's time stays right, nothing is due."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            rig.writer()
            async with loaded(rig.url) as crowd:
                crowd.is_paused = True
                await crowd.all_answered()
                account_id = crowd.fold.state.next_account_id
                await _rest_an_order(crowd, account_id)
                for n in range(count):
                    failure = await _send_off(crowd, HOUR_NS if n % 2 == 0 else -HOUR_NS)
                    if failure or account_id not in crowd.fold.state.accounts:
                        result.notes.append(f"clock {n + 1}: {failure}")
                        return
                    if not crowd.fold.state.accounts[account_id].orders:
                        result.notes.append(f"clock {n + 1}: the order expired early")
                        return
                    result.passed = n + 1
                    result.tick()

    return await row("a clock one hour ahead or behind in one appender", count, work)


async def _rest_an_order(crowd: Load, account_id: int) -> None:
    """Let an order rest that ends in half an hour, in a market whose funding is hours away."""
    ends_ns = time.time_ns() + HOUR_NS // 2
    for command in (
        ListMarket(spec=spec(MARKET)),
        SetIndexPrice(market=MARKET, sources=(IndexSource(source="s", price_ticks=500_000, raw=""),)),
        OpenAccount(),
        Deposit(account_id=account_id, amount=money("5000")),
        PlaceOrder(
            account_id=account_id,
            market=MARKET,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            quantity_lots=1,
            price_ticks=499_000,
            time_in_force=TimeInForce.GTD,
            expires_ns=ends_ns,
        ),
    ):
        crowd.send(command)
    await crowd.all_answered()


async def _send_off(crowd: Load, off_ns: int) -> str:
    """Send frames of another time; return "" or what does not hold."""
    seen: list[object] = []
    appender = Appender(crowd.log, "off", machine=Machine(clock_ns=lambda: time.time_ns() + off_ns))
    before_ns = crowd.fold.state.now_ns

    def note(entry: VerifiedEvents) -> None:
        appender.resolve(entry.groups)
        seen.extend(event for group in entry.groups for event in group)

    fold = Fold(crowd.log, note)
    await appender.open()
    price = IndexSource(source="s", price_ticks=500_000, raw="")
    answers = [appender.submit(SetIndexPrice(market=MARKET, sources=(price,))), appender.submit(Tick())]
    async with asyncio.timeout(ANSWERS_DEADLINE_S):
        while not all(answer.done() for answer in answers):
            await fold.catch_up()
    await appender.close()
    headers = [event for event in seen if isinstance(event, FrameHeader)]
    times = [header.now_ns for header in headers]
    if times != sorted(times) or times[-1] < before_ns or times[-1] > time.time_ns() + CLOCK_LEAD_NS:
        return "the exchange's time went back or ran ahead"
    early = [event for event in seen if isinstance(event, FundingSettled) and event.market == MARKET]
    return f"due too early: {early[0]}" if early else ""


async def killed_before_rename(count: int) -> Row:
    """kill -9 the archiver when a snapshot is written and not renamed yet."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            directory = rig.directory / "snapshots"
            rig.writer()
            arguments = (
                "archiver", "--redis-url", rig.url, "--snapshots", str(directory),
                "--snapshot-events", str(SNAPSHOT_EVENTS),
            )  # fmt: skip
            async with loaded(rig.url) as crowd:
                for n in range(count):
                    dying = Dying(rig, "rename", 1 + n % 2, *arguments)
                    try:
                        if -signal.SIGKILL != await dying.code():
                            result.notes.append(f"kill {n + 1}: {dying.output.read_text()[-300:]}")
                            return
                    finally:
                        dying.end()
                    for path in find(directory):
                        load(path)
                    result.passed = n + 1
                    result.tick()
                failure = await settle(crowd)
                kept = Snapshots(directory=directory, every_events=SNAPSHOT_EVENTS)
                fold = Fold(crowd.log, lambda entry: None, kept)
                await fold.catch_up()
                if failure or fold.state.digest() != crowd.fold.state.digest() or fold.started_from is None:
                    result.passed = 0
                    result.notes.append(failure or "another state from the snapshots")

    return await row("kill -9 between snapshot write and rename", count, work)


async def other_interpreters(count: int) -> Row:
    """Decide one log under other hash seeds, locales and time zones: the event bytes are the same."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            path: Path = rig.directory / "commands"
            written = write_log(path, DETERMINISM_COMMANDS)
            for settings in INTERPRETERS[:count]:
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-c", DECIDE_LOG, str(path)],
                    cwd=ROOT,
                    env=os.environ | settings,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                if done.stdout.strip() != written.result:
                    result.notes.append(f"other bytes with {settings}")
                    return
                result.passed += 1
                result.tick()
            result.notes.append(f"{DETERMINISM_COMMANDS} commands, identical event bytes")

    return await row("PYTHONHASHSEED, locale, time zone: 3 each", count, work)
