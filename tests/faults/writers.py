"""What is done to writers: killed under load or right behind an append, frozen, cut off from the server."""

import signal
import subprocess
import sys
from random import Random

from exchange import config
from tests.faults.proxy import proxied
from tests.faults.rig import LEASE_MS, Rig, Row, loaded, rigged, row, settle
from tests.integration.processes import ROOT, Process, environment

DYING = ROOT / "tests" / "faults" / "dying.py"
KILLS_PER_LOG = 25


async def writer_killed(count: int) -> Row:
    """kill -9 the active writer under load at random times; a standby takes over."""

    async def work(result: Row) -> None:
        while result.passed < count:
            failure = await _kill_some(result, min(KILLS_PER_LOG, count - result.passed))
            if failure:
                result.notes.append(failure)
                return

    return await row("kill -9 the writer under load", count, work)


async def _kill_some(result: Row, count: int) -> str:
    """Kill the active writer of a new log `count` times, then prove; return "" or what does not hold."""
    random = Random(result.passed)
    took_s: list[float] = []
    with rigged() as rig:
        active, standby = rig.writer(), rig.writer("--standby")
        async with loaded(rig.url) as load:
            for _ in range(count):
                await standby.line("standing_by")
                await load.more(random.randint(1, 60))
                active.send(signal.SIGKILL)
                await active.code()
                active, standby = standby, rig.writer("--standby")
                took_s.append(float(str((await active.line("took_over"))["seconds"])))
            failure = await settle(load)
            if not failure:
                result.passed += count
                result.notes.append(
                    f"{len(load.answers)} commands, from lease to first decision {max(took_s):.3f} s at most"
                )
    return failure


class Dying(Process):
    """A process that kills itself, with SIGKILL, at a point of its own code; see `dying`."""

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
                rig.writer()
                failure = await settle(load)
                if failure:
                    result.notes.append(failure)
                    return
                result.passed = count
                result.notes.append(f"{len(load.answers)} commands")

    return await row("kill -9 between append and everything after", count, work)


async def writer_frozen(count: int) -> Row:
    """SIGSTOP the active writer, let the standby take over, SIGCONT: the old one ends and adds nothing."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            active, standby = rig.writer(), rig.writer("--standby")
            async with loaded(rig.url) as load:
                for n in range(count):
                    await standby.line("standing_by")
                    await load.more()
                    active.send(signal.SIGSTOP)
                    await standby.line("took_over")
                    await load.more()
                    active.send(signal.SIGCONT)
                    code = await active.code()
                    if code != config.EXIT_FENCED:
                        result.notes.append(f"freeze {n + 1}: the old writer ended with {code}")
                        return
                    active, standby = standby, rig.writer("--standby")
                failure = await settle(load)
                if failure:
                    result.notes.append(failure)
                    return
                result.passed = count

    return await row("SIGSTOP the writer, standby, SIGCONT", count, work)


async def writer_cut_off(count: int) -> Row:
    """The active writer alone loses the server, the standby takes over, the way is opened again."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            async with proxied(rig.directory / "proxy.sock", rig.url) as proxy:
                for n in range(count):
                    proxy.is_cut = False
                    active = rig.writer(url=proxy.url)
                    await active.line("lease_acquired")
                    standby = rig.writer("--standby")
                    await standby.line("standing_by")
                    async with loaded(rig.url, seed=n) as load:
                        await load.more()
                        proxy.cut()
                        await standby.line("took_over")
                        await load.more()
                        proxy.is_cut = False
                        code = await active.code()
                        failure = await settle(load)
                    standby.send(signal.SIGTERM)
                    await standby.code()
                    if code != config.EXIT_FENCED or failure:
                        result.notes.append(f"cut {n + 1}: exit code {code}; {failure}")
                        return
                    result.passed = n + 1

    return await row("partition of the writer, standby, healed", count, work)
