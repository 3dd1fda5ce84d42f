"""What is done to writers: killed under load or right behind an append, frozen, cut off from the server."""

import signal
import subprocess
import sys
import time
from random import Random

from exchange import config
from tests.faults.proxy import proxied
from tests.faults.rig import LEASE_MS, Load, Rig, Row, loaded, rigged, row, settle, settled
from tests.integration.processes import ROOT, Process, environment, is_frozen
from tests.waiting import until

DYING = ROOT / "tests" / "faults" / "dying.py"
KILLS_PER_LOG = 25


class TakeOvers:
    """How long take-overs took: from the fault to the first decision, and from the lease to there."""

    def __init__(self) -> None:
        self._whole_s: list[float] = []
        self._own_s: list[float] = []

    async def wait(self, standby: Process, since_s: float) -> None:
        """Wait until a standby has taken over from a writer that failed at `since_s`, monotonic."""
        line = await standby.line("took_over")
        self._whole_s.append(time.monotonic() - since_s)
        self._own_s.append(float(str(line["seconds"])))

    @property
    def note(self) -> str:
        """Say it."""
        mean_s = sum(self._whole_s) / len(self._whole_s)
        return (
            f"take-over with a lease of {LEASE_MS} ms: {mean_s:.2f} s, at most {max(self._whole_s):.2f} s, "
            f"of which {max(self._own_s):.3f} s with the lease"
        )


async def writer_killed(count: int) -> Row:
    """kill -9 the active writer under load at random times; a standby takes over."""

    async def work(result: Row) -> None:
        take_overs = TakeOvers()
        commands = 0
        while result.passed < count:
            sent = await _kill_some(result, min(KILLS_PER_LOG, count - result.passed), take_overs)
            if isinstance(sent, str):
                result.notes.append(sent)
                return
            commands += sent
        result.notes += [f"{commands} commands acknowledged, lost 0, doubled 0", take_overs.note]

    return await row("kill -9 the writer under load", count, work)


async def _kill_some(result: Row, count: int, take_overs: TakeOvers) -> int | str:
    """Kill the active writer of a new log `count` times, then prove.

    Return how many commands were acknowledged, or what does not hold.
    """
    random = Random(result.passed)
    with rigged() as rig:
        active, standby = rig.writer(), rig.writer("--standby")
        async with loaded(rig.url) as load:
            kills = 0
            while kills < count:
                await standby.line("standing_by")
                await load.more(random.randint(1, 60))
                active.send(signal.SIGKILL)
                since_s = time.monotonic()
                # On a slow machine it may have missed its lease before: it was replaced, not killed.
                is_killed = await active.code() == -signal.SIGKILL
                if is_killed:
                    await take_overs.wait(standby, since_s)
                    kills += 1
                    result.tick()
                await standby.line("took_over")
                # Only now: two that stand by could take the lease from each other.
                active, standby = standby, rig.writer("--standby")
            failure = await settle(load)
            if failure:
                return failure
            result.passed += count
            return len(load.answers)


class Dying(Process):
    """A process that kills or freezes itself at a point of its own code; see `dying`."""

    def __init__(self, rig: Rig, point: str, after: int, *arguments: str) -> None:
        self.output = rig.directory / f"dying-{point}-{after}.log"
        command = [sys.executable, str(DYING), point, str(after), *arguments]
        with self.output.open("ab") as file:
            self._process = subprocess.Popen(
                command, env=environment(), stdout=file, stderr=subprocess.STDOUT
            )


async def killed_behind_append(count: int) -> Row:
    """kill -9 in the moment when the server has the events and the writer does nothing more."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            first = rig.writer()
            async with loaded(rig.url) as load:
                first.send(signal.SIGKILL)
                for n in range(count):
                    arguments = ("writer", "--redis-url", rig.url, "--lease-ms", str(LEASE_MS))
                    dying = Dying(rig, "append", 1 + n % 7, *arguments)
                    try:
                        assert -signal.SIGKILL == await dying.code()
                    finally:
                        dying.end()
                    result.tick()
                rig.writer()
                if await settled(load, result):
                    result.passed = count

    return await row("kill -9 between append and everything after", count, work)


async def writer_frozen(count: int) -> Row:
    """SIGSTOP the active writer, let the standby take over, SIGCONT: the old one ends and adds nothing."""

    async def work(result: Row) -> None:
        take_overs = TakeOvers()
        with rigged() as rig:
            active, standby = rig.writer(), rig.writer("--standby")
            async with loaded(rig.url) as load:
                for n in range(count):
                    await standby.line("standing_by")
                    await load.more()
                    active.send(signal.SIGSTOP)
                    await take_overs.wait(standby, time.monotonic())
                    await load.more()
                    active.send(signal.SIGCONT)
                    code = await active.code()
                    if code != config.EXIT_FENCED:
                        result.notes.append(f"freeze {n + 1}: the old writer ended with {code}")
                        return
                    active, standby = standby, rig.writer("--standby")
                    result.tick()
                if await settled(load, result):
                    result.passed = count
                    result.notes += [f"{count} old writers fenced", take_overs.note]

    return await row("SIGSTOP the writer, standby, SIGCONT", count, work)


async def writer_overtaken(count: int) -> Row:
    """Freeze a writer before an append, let another take the lease and freeze before its first: the old one
    is resumed while the log is still as it left it, and only the term says that its append comes too late.
    """

    async def work(result: Row) -> None:
        with rigged() as rig:
            first = rig.writer()
            async with loaded(rig.url) as load:
                first.send(signal.SIGKILL)
                for n in range(count):
                    failure = await _overtake(rig, load, 1 + n % 7)
                    if failure:
                        result.notes.append(f"freeze {n + 1}: {failure}")
                        return
                    result.tick()
                rig.writer()
                if await settled(load, result):
                    result.passed = count
                    result.notes.append(f"{count} late appends refused by the term alone")

    return await row("SIGCONT an overtaken writer before the new one appends", count, work)


async def _overtake(rig: Rig, load: Load, after: int) -> str:
    """Let a writer be overtaken and resumed first; return "" or what does not hold."""
    arguments = ("writer", "--redis-url", rig.url, "--lease-ms", str(LEASE_MS))
    old = Dying(rig, "before-append", after, *arguments)
    new: Dying | None = None
    try:
        await until(lambda: is_frozen(old.pid), "freeze of the old writer")
        new = Dying(rig, "before-append", 1, *arguments, "--standby")
        await until(lambda: is_frozen(new.pid), "freeze of the new writer")
        head = await load.log.event_head()
        old.send(signal.SIGCONT)
        code = await old.code()
        if code != config.EXIT_FENCED or await load.log.event_head() != head:
            return f"the old writer ended with {code}, the head is {await load.log.event_head()}, not {head}"
        new.send(signal.SIGCONT)
        await load.more()
        new.send(signal.SIGKILL)
        await new.code()
    finally:
        old.end()
        if new is not None:
            new.end()
    return ""


async def writer_cut_off(count: int) -> Row:
    """The active writer alone loses the server, the standby takes over, the way is opened again.

    In turn its connections end, or they stay and what it sends arrives when it has long been replaced.
    """

    async def work(result: Row) -> None:
        take_overs = TakeOvers()
        with rigged() as rig:
            async with proxied(rig.url) as proxy:
                for n in range(count):
                    active = rig.writer(url=proxy.url)
                    await active.line("lease_acquired")
                    standby = rig.writer("--standby")
                    await standby.line("standing_by")
                    async with loaded(rig.url, seed=n) as load:
                        await load.more()
                        if n % 2 == 0:
                            proxy.cut()
                        else:
                            proxy.hold()
                        await take_overs.wait(standby, time.monotonic())
                        await load.more()
                        proxy.heal()
                        code = await active.code()
                        failure = await settle(load)
                    standby.send(signal.SIGTERM)
                    await standby.code()
                    if code != config.EXIT_FENCED or failure:
                        result.notes.append(f"cut {n + 1}: exit code {code}; {failure}")
                        return
                    result.passed = n + 1
                    result.tick()
                result.notes += [f"{count} old writers fenced", take_overs.note]

    return await row("partition of the writer, standby, healed", count, work)
