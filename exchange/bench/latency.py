"""Latency and throughput of a whole exchange, as a caller sees them.

`latency` is an open loop: requests have times at which they are to be sent, and their latency counts from
there. A caller that waits for an answer before it sends the next request would leave out just the requests
that a slow moment delays. `throughput` is a closed loop: so many are always under way.

Both start an exchange of their own, as `foldex up` does. Beside the orders the same load is sent to an echo
(see `echo`), the floor that log and sockets set, and as `ping` to the intake, which answers without the log.
Where the time of an order goes is in its frame: `t` when the intake closed it, `x` when the writer read it
and when it appended the events.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import aiohttp
from hdrh.histogram import HdrHistogram

from events.redis import RedisLog
from exchange import config
from exchange.bench.bad import send_bad
from exchange.bench.load import (
    OK_STATUS,
    Caller,
    HttpCaller,
    SocketCaller,
    order_request,
)
from exchange.client import Connection, Credentials, open_account
from exchange.supervisor import Supervisor
from exchange.writer import TIMING_MARKS

CALLERS = 4
ACCOUNT_DEPOSIT = "100000000"
WARM_UP_S = 1.0
ANSWERS_DEADLINE_S = 15.0
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
NS_PER_US = 1_000
LATENCY_US_MAX = 60_000_000
DIGITS = 3
HTTP_CONNECTIONS_MAX = 64
PAUSE_S_MAX = 0.002
BAD_SLICES = 4
ENTRIES_PER_READ = 1_024
ECHO_START_S = 20.0

SOURCE_ROOT = Path(__file__).resolve().parents[2]

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure: `rate` requests a second for `seconds`, over `api` ("ws" or "rest").

    With a `bad_rate` the orders are measured once more, beside so many bad requests a second and without.
    """

    api: str
    rate: float
    seconds: float
    durability: Literal["relaxed", "strict"]
    bad_rate: float = 0.0


@dataclass(slots=True)
class Measured:
    """What one load came to. Latencies are microseconds from the scheduled time to the answer."""

    histogram: Any = field(default_factory=lambda: HdrHistogram(1, LATENCY_US_MAX, DIGITS))
    sent: int = 0
    answered: int = 0
    refused: int = 0
    elapsed_s: float = 0.0

    def add(self, other: "Measured") -> None:
        """Take another load's figures into these."""
        self.histogram.add(other.histogram)
        self.sent += other.sent
        self.answered += other.answered
        self.refused += other.refused
        self.elapsed_s += other.elapsed_s

    def row(self) -> dict[str, Any]:
        """Return the figures, latencies in ms."""
        percentiles = {
            f"p{percentile:g}_ms": self.histogram.get_value_at_percentile(percentile) / 1_000
            for percentile in PERCENTILES
        }
        return {
            "sent": self.sent,
            "answered": self.answered,
            "refused": self.refused,
            "per_s": round(self.answered / self.elapsed_s, 1) if self.elapsed_s else 0.0,
            "mean_ms": round(self.histogram.get_mean_value() / 1_000, 3),
            **percentiles,
            "max_ms": self.histogram.get_max_value() / 1_000,
        }


class Load:
    """Sends requests through callers in turn, and notes when they are answered."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.measured = Measured()
        self._due_ns: dict[int, int] = {}
        self._numbers = 0
        self._orders = 0
        self._answer: Callable[[], None] = lambda: None

    def answered(self, number: int, status: int) -> None:
        """Note an answer."""
        due_ns = self._due_ns.pop(number, 0)
        latency_us = (time.perf_counter_ns() - due_ns) // NS_PER_US
        measured = self.measured
        measured.answered += 1
        measured.refused += status != OK_STATUS
        measured.histogram.record_value(min(max(1, latency_us), LATENCY_US_MAX))
        self._answer()

    def send(self, method: str, due_ns: int) -> None:
        """Send the next request."""
        self._numbers += 1
        number = self._numbers
        turn = number % len(self.callers)
        parameters: dict[str, Any] = {}
        name = method
        if method == "order":
            # Numbered by caller: an order is cancelled by the one that placed it.
            turn = self._orders % len(self.callers)
            name, parameters = order_request(self._orders // len(self.callers), f"b{turn}-")
            self._orders += 1
        self._due_ns[number] = due_ns
        self.measured.sent += 1
        self.callers[turn].send(number, name, parameters)

    async def open_loop(self, method: str, rate: float, seconds: float, progress: Progress) -> Measured:
        """Send `rate` requests a second at even times; return what came of it."""
        self.measured = Measured()
        count = int(rate * seconds)
        gap_ns = 1e9 / rate
        start_ns = time.perf_counter_ns()
        for n in range(count):
            due_ns = start_ns + int(n * gap_ns)
            # The next request's time is what is waited for.
            while (early_ns := due_ns - time.perf_counter_ns()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(min(early_ns / 1e9, PAUSE_S_MAX))
            self.send(method, due_ns)
            if n % 64 == 0:
                progress(method, n / count)
        self.measured.elapsed_s = (time.perf_counter_ns() - start_ns) / 1e9
        await self._all_answered()
        return self.measured

    async def closed_loop(self, in_flight: int, seconds: float, progress: Progress) -> Measured:
        """Keep so many orders under way; return what came of it."""
        self.measured = Measured()
        start_ns = time.perf_counter_ns()
        end_ns = start_ns + int(seconds * 1e9)
        done = asyncio.Event()

        def send_next() -> None:
            now_ns = time.perf_counter_ns()
            if now_ns < end_ns:
                self.send("order", now_ns)
            else:
                done.set()

        self._answer = send_next
        for _ in range(in_flight):
            send_next()
        while not done.is_set():
            progress("orders", (time.perf_counter_ns() - start_ns) / 1e9 / seconds)
            try:
                await asyncio.wait_for(done.wait(), 0.25)
            except TimeoutError:
                pass
        self.measured.elapsed_s = (time.perf_counter_ns() - start_ns) / 1e9
        result = self.measured
        self.measured = Measured()
        self._answer = lambda: None
        await self._all_answered()
        return result

    async def _all_answered(self) -> None:
        deadline_s = time.monotonic() + ANSWERS_DEADLINE_S
        # What is waited for comes from another process, answer by answer.
        while self._due_ns and time.monotonic() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._due_ns.clear()


class Bench:
    """An exchange in a directory of its own, with accounts, a price and callers."""

    def __init__(self, directory: Path, asked: Asked, progress: Progress) -> None:
        self._directory = directory
        self.asked = asked
        self._progress = progress
        self._stack = AsyncExitStack()
        self.supervisor = Supervisor(directory, port=free_port(2), feed=(), durability=asked.durability)

    async def __aenter__(self) -> "Bench":
        self._progress("starting an exchange", 0.0)
        await self._stack.__aenter__()
        try:
            await self._stack.enter_async_context(self.supervisor)
            self.admin = await self._stack.enter_async_context(Connection(self.supervisor.admin_url))
            await self.admin.request("POST", "/admin/v1/index", body={"symbol": "BTCUSDT", "price": "50000"})
            self.log = RedisLog(self.supervisor.log_url, shard=config.SHARD)
            self._stack.push_async_callback(self.log.close)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._stack.__aexit__(*exception)

    async def accounts(self) -> list[Credentials]:
        """Open an account for each caller."""
        return [
            await open_account(self.admin, deposit=ACCOUNT_DEPOSIT, label="bench") for _ in range(CALLERS)
        ]

    async def load(self, url: str, owners: list[Credentials | None]) -> Load:
        """Return a load over connections to a listener, one for each owner."""
        load = Load()
        connector = aiohttp.TCPConnector(limit=HTTP_CONNECTIONS_MAX)
        session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        for owner in owners:
            caller: Caller
            if self.asked.api == "ws":
                socket_url = f"{url.replace('http', 'ws', 1)}/ws-fapi/v1?returnRateLimits=false"
                caller = await SocketCaller.connect(session, socket_url, load.answered, owner)
            else:
                caller = HttpCaller(session, url, load.answered, owner)
            self._stack.push_async_callback(caller.close)
            load.callers.append(caller)
        return load


async def measure_latency(asked: Asked, progress: Progress) -> dict[str, Any]:
    """Return the latencies of orders, of an echo and of pings, and the stages of the orders."""
    warm_up_s = min(WARM_UP_S, asked.seconds / 2)
    with tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory:
        async with Bench(Path(directory), asked, progress) as bench:
            async with echo(bench.supervisor.log_url) as echo_url:
                floor = await bench.load(echo_url, [None] * CALLERS)
                await floor.open_loop("ping", asked.rate, warm_up_s, progress)
                echoed = await floor.open_loop("ping", asked.rate, asked.seconds / 2, progress)
            owners = await bench.accounts()
            load = await bench.load(bench.supervisor.url, list(owners))
            await load.open_loop("ping", asked.rate, warm_up_s, progress)
            pinged = await load.open_loop("ping", asked.rate, asked.seconds / 4, progress)
            await load.open_loop("order", asked.rate, warm_up_s, progress)
            first_seq = (await bench.log.event_head()).seq
            ordered = await load.open_loop("order", asked.rate, asked.seconds, progress)
            stages = await _stages(bench.log, first_seq, ordered)
            beside = await _beside_bad(bench, load, owners[0], progress) if asked.bad_rate else {}
    floor_us = echoed.histogram.get_value_at_percentile(50.0)
    ratio = ordered.histogram.get_value_at_percentile(50.0) / floor_us if floor_us else 0.0
    return {
        "api": asked.api,
        "rate": asked.rate,
        "seconds": asked.seconds,
        "durability": asked.durability,
        "orders": ordered.row(),
        "echo": echoed.row(),
        "ping": pinged.row(),
        "p50_over_echo": round(ratio, 2),
        "stages": stages,
        **beside,
    }


async def _beside_bad(
    bench: "Bench", load: Load, owner: Credentials, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return the latencies of orders while bad requests come too and while none do, and how p99 compares.

    Both are measured by turns, in slices: a machine's own moods last longer than a slice. The bad requests
    come from a process of their own, or what is measured would be the one client's own delay.
    """
    asked, url = bench.asked, bench.supervisor.url
    slice_s = asked.seconds / BAD_SLICES
    quiet, beside = Measured(), Measured()
    bad: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        await loop.run_in_executor(pool, send_bad, url, owner, asked.bad_rate, WARM_UP_S)
        for _ in range(BAD_SLICES):
            quiet.add(await load.open_loop("order", asked.rate, slice_s, progress))
            ordered, sent = await asyncio.gather(
                load.open_loop("order", asked.rate, slice_s, progress),
                loop.run_in_executor(pool, send_bad, url, owner, asked.bad_rate, slice_s),
            )
            beside.add(ordered)
            bad.update(sent)
    rows = {"orders_quiet": quiet.row(), "orders_beside_bad": beside.row()}
    ratios = {
        f"p{each:g}": round(
            rows["orders_beside_bad"][f"p{each:g}_ms"] / rows["orders_quiet"][f"p{each:g}_ms"], 2
        )
        for each in (50.0, 99.0)
    }
    return {**rows, "bad": dict(bad), "beside_bad_over_quiet": ratios}


async def measure_throughput(asked: Asked, in_flight: int, progress: Progress) -> dict[str, Any]:
    """Return how many orders a second are acknowledged with so many under way."""
    with tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory:
        async with Bench(Path(directory), asked, progress) as bench:
            load = await bench.load(bench.supervisor.url, list(await bench.accounts()))
            await load.closed_loop(in_flight, min(WARM_UP_S, asked.seconds / 2), progress)
            ordered = await load.closed_loop(in_flight, asked.seconds, progress)
    return {
        "api": asked.api,
        "in_flight": in_flight,
        "seconds": asked.seconds,
        "durability": asked.durability,
        "orders": ordered.row(),
    }


async def _stages(log: RedisLog, first_seq: int, ordered: Measured) -> dict[str, Any]:
    """Return where the time of the orders' frames went, in ms: weighed by how many commands a frame has."""
    appended, decided = (HdrHistogram(1, LATENCY_US_MAX, DIGITS) for _ in range(2))
    frames = commands = 0
    closed_ns: dict[int, tuple[int, int]] = {}
    seq = first_seq
    while entries := await log.read_commands(seq, ENTRIES_PER_READ):
        for entry in entries:
            seq = entry.seq
            closed_ns[seq] = entry.frame.time_ns, len(entry.frame.commands())
    after = first_seq
    while found := await log.read_events(after, ENTRIES_PER_READ):
        for event_entry in found:
            after = event_entry.seq
            time_ns, size = closed_ns.get(after, (0, 0))
            if not size or len(event_entry.timing) != TIMING_MARKS.size:
                continue
            read_ns, written_ns = TIMING_MARKS.unpack(event_entry.timing)
            frames += 1
            commands += size
            for histogram, span_ns in ((appended, read_ns - time_ns), (decided, written_ns - read_ns)):
                span_us = min(max(1, span_ns // NS_PER_US), LATENCY_US_MAX)
                histogram.record_value(span_us, size)
    mean_ms = [histogram.get_mean_value() / 1_000 for histogram in (appended, decided)]
    return {
        "frames": frames,
        "commands_per_frame": round(commands / frames, 2) if frames else 0.0,
        "frame_closed_to_read_by_writer": _spread(appended),
        "read_to_appended_by_writer": _spread(decided),
        "rest_mean_ms": round(ordered.histogram.get_mean_value() / 1_000 - sum(mean_ms), 3),
    }


def _spread(histogram: Any) -> dict[str, float]:
    return {
        "mean_ms": round(histogram.get_mean_value() / 1_000, 3),
        **{f"p{each:g}_ms": histogram.get_value_at_percentile(each) / 1_000 for each in (50.0, 99.0)},
    }


@asynccontextmanager
async def echo(server_socket: str) -> AsyncIterator[str]:
    """Run the echo's two processes beside a server; lend its address."""
    port = free_port(1)
    command = (sys.executable, "-P", "-m", "exchange.bench.echo")
    paths = (str(SOURCE_ROOT), os.environ.get("PYTHONPATH", ""))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    processes = []
    try:
        for role in (("copy", server_socket), ("listen", server_socket, str(port))):
            processes.append(
                await asyncio.create_subprocess_exec(
                    *command, *role, env=environment, stdout=asyncio.subprocess.PIPE
                )
            )
        output = processes[1].stdout
        assert output is not None
        await asyncio.wait_for(output.readline(), ECHO_START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()


def free_port(count: int) -> int:
    """Return a port on loopback that is free, as are those that follow it."""
    while True:
        probes = []
        try:
            first = socket.socket()
            probes.append(first)
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            for more in range(1, count):
                probe = socket.socket()
                probes.append(probe)
                probe.bind(("127.0.0.1", port + more))
            return port
        except (OSError, OverflowError):
            continue
        finally:
            for probe in probes:
                probe.close()
