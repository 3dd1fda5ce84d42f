"""Commands per second through the complete path: command stream, writer process, event stream, reader.

Frames are prepared beforehand and appended as bytes, so that what is measured is the exchange and not its
load: an embedded Valkey that syncs every second, one writer process, and this process, which appends all
frames as fast as the server takes them and reads the event entries until the last one is there. Each frame
size is measured twice: with the writer alone, and with liquidator, archiver and intake beside it.

The mix is 55 % limit orders, 35 % cancels, 10 % market orders, of 1,000 accounts in two markets, the same
commands on every run. Beside each result stands its ratio to the rules alone: the same frames decided and
encoded in this process, without log and server.

    python -m bench.pipeline [--commands 60000] [--sizes 1,8,64,256] [--json]
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import hiredis

from events.commands import (
    AnyCommand,
    CancelOrder,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
)
from events.embedded import EmbeddedServer
from events.events import Rejected
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    chain_hash,
    close_command_frame,
    decode_groups,
    encode_groups,
)
from events.redis import RedisLog
from events.values import IndexSource, OrderType, Side, TimeInForce
from exchange import config
from exchange.aggregate.decide import decide_frame, propose_now
from exchange.aggregate.state import ORDERS_PER_FRAME, Exchange
from exchange.aggregate.units import MONEY_ONE
from exchange.intake.specs import DEFAULT_SPECS
from exchange.runtime import heartbeat_client, read_alive

ACCOUNTS = 1_000
FIRST_ACCOUNT_ID = 2
DEPOSIT = 1_000_000 * MONEY_ONE
START_PRICES = {"BTCUSDT": 1_200_000, "ETHUSDT": 430_000}  # ticks
APPENDS_IN_FLIGHT = 64
DEADLINE_S = 180.0
COMMANDS_KEY = "foldex:{main}:commands"
POLL_S = 0.02
STOP_DEADLINE_S = 15.0
CONSUMERS = ("liquidator", "archiver", "intake")
# No snapshot is due within a run: the command that tells of it would stand between the load's.
SNAPSHOT_EVENTS = 1 << 40
HEADING = " frame  processes       commands/s  folded/s  rules alone/s  ratio    events  refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One frame size: rates in commands a second, `events` and `rejected` counted over the whole load.

    `folded_per_s` is up to the moment when the last consumer says that it has the last event; heartbeats
    come once a second, so it is a lower bound. None without consumers.
    """

    frame_size: int
    with_consumers: bool
    commands: int
    commands_per_s: float
    folded_per_s: float | None
    kernel_per_s: float
    events: int
    rejected: int


def setup_commands() -> list[AnyCommand]:
    """Return what makes an exchange with funded accounts and prices."""
    commands: list[AnyCommand] = [ListMarket(spec=spec) for spec in DEFAULT_SPECS]
    commands += [OpenAccount() for _ in range(ACCOUNTS)]
    commands += [Deposit(account_id=FIRST_ACCOUNT_ID + i, amount=DEPOSIT) for i in range(ACCOUNTS)]
    for market, ticks in START_PRICES.items():
        sources = (IndexSource(source="bench", price_ticks=ticks, raw=""),)
        commands.append(SetIndexPrice(market=market, sources=sources))
    return commands


def make_commands(
    count: int, frame_size: int, first_seq: int, *, cancels: float = 0.35, resting: int = 2_000
) -> list[AnyCommand]:
    """Return the load. Cancels name orders of earlier frames, whose ids follow from place and frame size.

    `cancels` is their share, once `resting` orders were placed and not cancelled; a tenth are market orders,
    the rest limit orders.
    """
    dice = random.Random(20251010)
    placed: list[tuple[int, str, int]] = []
    commands: list[AnyCommand] = []
    for i in range(count):
        order_id = (first_seq + i // frame_size) * ORDERS_PER_FRAME + i % frame_size
        chance = dice.random()
        if chance < cancels and len(placed) > resting:
            # The last element takes the place of the one drawn: removal without moving the others.
            n = dice.randrange(len(placed))
            placed[n], placed[-1] = placed[-1], placed[n]
            account_id, market, cancelled_id = placed.pop()
            commands.append(CancelOrder(account_id=account_id, market=market, order_id=cancelled_id))
            continue
        account_id = FIRST_ACCOUNT_ID + dice.randrange(ACCOUNTS)
        market = dice.choice(tuple(START_PRICES))
        is_market = chance > 0.90
        commands.append(_order(dice, account_id, market, is_market=is_market))
        if not is_market:
            placed.append((account_id, market, order_id))
    return commands


def _order(dice: random.Random, account_id: int, market: str, *, is_market: bool) -> PlaceOrder:
    side = dice.choice((Side.BUY, Side.SELL))
    # Mostly away from the middle, so that books grow deep; some cross and trade at once.
    away_ticks = round(dice.expovariate(1 / 300)) - 20
    return PlaceOrder(
        account_id=account_id,
        market=market,
        side=side,
        order_type=OrderType.MARKET if is_market else OrderType.LIMIT,
        quantity_lots=dice.randrange(20, 200),
        price_ticks=0 if is_market else START_PRICES[market] - side * away_ticks,
        time_in_force=TimeInForce.IOC if is_market else TimeInForce.GTC,
    )


def make_frames(commands: list[AnyCommand], size: int, first_n: int, origin: str) -> list[CommandFrame]:
    """Close commands into frames of one origin, numbered from `first_n`."""
    starts = range(0, len(commands), size)
    return [
        close_command_frame(origin, first_n + n, time.time_ns(), commands[start : start + size])
        for n, start in enumerate(starts)
    ]


def kernel_per_s(frames: list[CommandFrame], first_seq: int, commands: int) -> float:
    """Return the rate at which the rules alone decide and encode the load, hashing included.

    `frames` are those of the whole log; the load of `commands` commands begins at entry `first_seq`.
    """
    state = Exchange()
    head = GENESIS_HASH
    started_s = time.perf_counter()
    for seq, frame in enumerate(frames, 1):
        if seq == first_seq:
            started_s = time.perf_counter()
        now_ns = propose_now(state.now_ns, frame.time_ns, time.time_ns())
        body = encode_groups(decide_frame(state, seq, frame, now_ns))
        head = chain_hash(state.log_id, head, seq, SCHEMA_VERSION, frame.checksum, body)
    return commands / (time.perf_counter() - started_s)


class Appender:
    """Appends prepared frames in order over one connection, a fixed number unanswered at a time."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    async def append(self, frames: list[CommandFrame]) -> None:
        """Append all frames."""
        packed = [_pack(frame) for frame in frames]
        reader, writer = await asyncio.open_unix_connection(self._socket_path)
        parser = hiredis.Reader()
        for start in range(0, len(packed), APPENDS_IN_FLIGHT):
            batch = packed[start : start + APPENDS_IN_FLIGHT]
            writer.write(b"".join(batch))
            missing = len(batch)
            while missing:
                parser.feed(await reader.read(65536))
                while (reply := parser.gets()) is not False:
                    assert isinstance(reply, bytes), reply
                    missing -= 1
        writer.close()


def _pack(frame: CommandFrame) -> bytes:
    fields: tuple[str | bytes | int, ...] = (
        "v", frame.schema, "o", frame.origin, "n", frame.n,
        "t", frame.time_ns, "b", frame.body, "c", frame.checksum,
    )  # fmt: skip
    return bytes(hiredis.pack_command(("XADD", COMMANDS_KEY, "0-*", *fields)))  # type: ignore[arg-type]


async def read_until(log: RedisLog, after: int, last: int) -> list[bytes]:
    """Return the bodies of the event entries behind `after`, waiting for them up to `last`."""
    bodies: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S):
        while after < last:
            for entry in await log.read_events(after, 1_024, 1_000):
                bodies.append(entry.body)
                after = entry.seq
    return bodies


async def read_commands(log: RedisLog, last: int) -> list[CommandFrame]:
    """Return the command frames of the whole log."""
    frames: list[CommandFrame] = []
    while len(frames) < last:
        frames += [entry.frame for entry in await log.read_commands(len(frames), 1_024)]
    return frames


async def wait_alive(socket_path: str, names: Sequence[str], seq: int = 0) -> None:
    """Wait until processes show a heartbeat that has handled entry `seq`."""
    client = heartbeat_client(socket_path)
    async with asyncio.timeout(DEADLINE_S):
        for name in names:
            # Another process's state; nothing here could be waited for.
            while (alive := await read_alive(client, name)) is None or alive.seq < seq:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    await client.aclose()


@contextmanager
def running(name: str, *arguments: str, **settings: str) -> Iterator[int]:
    """Run one process of the exchange, by the command with which `foldex up` starts it; lend its id.

    `settings` are variables of its environment.
    """
    command = (sys.executable, "-P", "-m", "exchange.cli", "--log-level", "warning", name, *arguments)
    # -P: only what is named here is searched, and the exchange may not be installed.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])} | settings
    process = subprocess.Popen(command, env=environment)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def exchange(server: EmbeddedServer, *, with_consumers: bool) -> Iterator[None]:
    """Run a writer, and with it on request what folds the log beside it, until all are ready."""
    log = ("--redis-url", server.socket_path)
    with ExitStack() as stack:
        stack.enter_context(running("writer", *log))
        asyncio.run(wait_alive(server.socket_path, ("writer",)))
        if with_consumers:
            port, admin_port = free_ports(2)
            listeners = ("--port", str(port), "--admin-port", str(admin_port))
            key_file = str(server.data_dir / config.KEY_FILE_NAME)
            stack.enter_context(running("liquidator", *log))
            snapshots = ("--snapshots", str(server.data_dir / "snapshots"))
            never = ("--snapshot-events", str(SNAPSHOT_EVENTS))
            archive = {config.ARCHIVE_ENV: str(server.data_dir / "archive")}
            stack.enter_context(running("archiver", *log, *snapshots, *never, **archive))
            stack.enter_context(running("intake", *log, *listeners, "--key-file", key_file))
            asyncio.run(wait_alive(server.socket_path, CONSUMERS))
        yield


def free_ports(count: int) -> list[int]:
    """Return ports on loopback that nobody listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as it was measured: the log's frames, the load's first entry, the bodies of its events.

    `elapsed_s` lasts to the last event, `folded_s` until every consumer showed that it has folded it.
    """

    frames: list[CommandFrame]
    first_seq: int
    bodies: list[bytes]
    elapsed_s: float
    folded_s: float


async def run_load(socket_path: str, count: int, size: int, *, with_consumers: bool) -> Run:
    """Append the load to a fresh log whose processes run already, and read its events."""
    log = RedisLog(socket_path)
    origin = f"bench:{size:032x}"
    appender = Appender(socket_path)
    setup = make_frames(setup_commands(), 1_024, 1, origin)
    # The consumers have opened their origins, each with an entry; from here on the log is ours.
    opened = await log.last_command_seq()
    first_seq = opened + len(setup) + 1
    frames = make_frames(make_commands(count, size, first_seq), size, len(setup) + 1, origin)
    last = first_seq - 1 + len(frames)
    await appender.append(setup)
    await read_until(log, opened, first_seq - 1)

    started_s = time.perf_counter()
    bodies, _ = await asyncio.gather(read_until(log, first_seq - 1, last), appender.append(frames))
    elapsed_s = time.perf_counter() - started_s
    if with_consumers:
        await wait_alive(socket_path, CONSUMERS, last)
    folded_s = time.perf_counter() - started_s

    assert await log.last_command_seq() == last, "somebody else has appended"
    logged = await read_commands(log, last)
    await log.close()
    return Run(frames=logged, first_seq=first_seq, bodies=bodies, elapsed_s=elapsed_s, folded_s=folded_s)


def measure(count: int, size: int, *, with_consumers: bool) -> Result:
    """Run an exchange of its own for one frame size."""
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
        exchange(server, with_consumers=with_consumers),
    ):
        run = asyncio.run(run_load(server.socket_path, count, size, with_consumers=with_consumers))
    events = [event for body in run.bodies for group in decode_groups(body)[1:] for event in group]
    return Result(
        frame_size=size,
        with_consumers=with_consumers,
        commands=count,
        commands_per_s=count / run.elapsed_s,
        folded_per_s=count / run.folded_s if with_consumers else None,
        kernel_per_s=kernel_per_s(run.frames, run.first_seq, count),
        events=len(events),
        rejected=sum(isinstance(event, Rejected) for event in events),
    )


def report(row: Result) -> None:
    """Print one result."""
    folded = f"{row.folded_per_s:,.0f}" if row.folded_per_s is not None else "-"
    print(
        f"{row.frame_size:>6}  {'with consumers' if row.with_consumers else 'writer alone':<14} "
        f"{row.commands_per_s:>11,.0f} {folded:>9} {row.kernel_per_s:>14,.0f} "
        f"{row.commands_per_s / row.kernel_per_s:>6.2f} {row.events:>9,} {row.rejected:>8,}",
        flush=True,
    )


def main() -> None:
    """Measure each frame size and print the results."""
    parser = argparse.ArgumentParser(description="Commands per second through the complete path.")
    parser.add_argument("--commands", type=int, default=60_000)
    parser.add_argument("--sizes", default="1,8,64,256")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = []
    if not arguments.json:
        print(HEADING)
    for size in (int(text) for text in arguments.sizes.split(",")):
        for with_consumers in (False, True):
            row = measure(arguments.commands, size, with_consumers=with_consumers)
            results.append(row)
            if not arguments.json:
                report(row)
    if arguments.json:
        names = Result.__dataclass_fields__
        print(json.dumps([{name: getattr(row, name) for name in names} for row in results]))


if __name__ == "__main__":
    main()
