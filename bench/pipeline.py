"""Commands per second through the complete path: command stream, writer process, event stream, reader.

Frames are prepared beforehand and appended as bytes, so that what is measured is the exchange and not its
load: an embedded Valkey that syncs every second, one writer process, and this process, which appends all
frames as fast as the server takes them and reads the event entries until the last one is there.

The mix is 55 % limit orders, 35 % cancels, 10 % market orders, of 1,000 accounts in two markets, the same
commands on every run. Beside each result stands its ratio to the rules alone: the same frames decided and
encoded in this process, without log and server.

    python -m bench.pipeline [--commands 60000] [--sizes 1,8,64,256] [--json]
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import hiredis

from events.commands import (
    AnyCommand,
    CancelOrder,
    CreateLog,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
)
from events.embedded import EmbeddedServer
from events.events import Rejected
from events.frame import (
    SCHEMA_VERSION,
    CommandFrame,
    chain_hash,
    close_command_frame,
    decode_groups,
    encode_groups,
)
from events.redis import RedisLog
from events.values import IndexSource, OrderType, Side, TimeInForce
from exchange.aggregate.decide import decide_frame, propose_now
from exchange.aggregate.state import ORDERS_PER_FRAME, RULES_VERSION, Exchange
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
HEADING = " frame   commands/s  rules alone/s  ratio    events  refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One frame size: rates in commands a second, `events` and `rejected` counted over the whole run."""

    frame_size: int
    commands: int
    commands_per_s: float
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


def make_commands(count: int, frame_size: int, first_seq: int) -> list[AnyCommand]:
    """Return the load. Cancels name orders of earlier frames, whose ids follow from place and frame size."""
    dice = random.Random(20251010)
    placed: list[tuple[int, str, int]] = []
    commands: list[AnyCommand] = []
    for i in range(count):
        order_id = (first_seq + i // frame_size) * ORDERS_PER_FRAME + i % frame_size
        chance = dice.random()
        if chance < 0.35 and len(placed) > 2_000:
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


def kernel_per_s(setup: list[CommandFrame], frames: list[CommandFrame], commands: int) -> float:
    """Return the rate at which the rules alone decide and encode the load, hashing included."""
    state = Exchange()
    genesis = CreateLog(log_id="0" * 32, rules_version=RULES_VERSION)
    head = bytes(32)
    started_s = time.perf_counter()
    for seq, frame in enumerate([close_command_frame("genesis:0", 1, 1, [genesis]), *setup, *frames], 1):
        if seq == len(setup) + 2:
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


async def run_size(socket_path: str, count: int, size: int) -> Result:
    """Measure one frame size on a fresh log whose writer runs already."""
    client = heartbeat_client(socket_path)
    async with asyncio.timeout(DEADLINE_S):
        while await read_alive(client, "writer") is None:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)
    await client.aclose()
    log = RedisLog(socket_path)
    origin = f"bench:{size:032x}"
    appender = Appender(socket_path)
    setup = make_frames(setup_commands(), 1_024, 1, origin)
    first_seq = len(setup) + 2
    commands = make_commands(count, size, first_seq)
    frames = make_frames(commands, size, len(setup) + 1, origin)
    last = first_seq - 1 + len(frames)
    await read_until(log, 0, 1)
    await appender.append(setup)
    await read_until(log, 1, first_seq - 1)

    started_s = time.perf_counter()
    bodies, _ = await asyncio.gather(read_until(log, first_seq - 1, last), appender.append(frames))
    elapsed_s = time.perf_counter() - started_s

    await log.close()
    events = [event for body in bodies for group in decode_groups(body)[1:] for event in group]
    return Result(
        frame_size=size,
        commands=count,
        commands_per_s=count / elapsed_s,
        kernel_per_s=kernel_per_s(setup, frames, count),
        events=len(events),
        rejected=sum(isinstance(event, Rejected) for event in events),
    )


def measure(count: int, size: int) -> Result:
    """Run a server and a writer of their own for one frame size."""
    with (
        tempfile.TemporaryDirectory(prefix="foldex-bench-") as directory,
        EmbeddedServer(Path(directory) / "data") as server,
    ):
        command = [sys.executable, "-m", "exchange.cli", "--log-level", "warning", "writer"]
        writer = subprocess.Popen([*command, "--redis-url", server.socket_path])
        try:
            return asyncio.run(run_size(server.socket_path, count, size))
        finally:
            writer.terminate()
            writer.wait()


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
        row = measure(arguments.commands, size)
        results.append(row)
        if not arguments.json:
            ratio = row.commands_per_s / row.kernel_per_s
            print(
                f"{row.frame_size:>6} {row.commands_per_s:>12,.0f} {row.kernel_per_s:>14,.0f} "
                f"{ratio:>6.2f} {row.events:>9,} {row.rejected:>8,}",
                flush=True,
            )
    if arguments.json:
        names = Result.__dataclass_fields__
        print(json.dumps([{name: getattr(row, name) for name in names} for row in results]))


if __name__ == "__main__":
    main()
