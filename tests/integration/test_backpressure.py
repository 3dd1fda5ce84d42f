"""A queue that is too long is said at once, what cancels goes on, and who reads slowly slows nobody down."""

import os
import signal
from pathlib import Path

import pytest

from events.commands import CancelOrder, CreateLog, Deposit, OpenAccount, PlaceOrder
from events.embedded import EmbeddedServer
from events.frame import close_command_frame
from events.memory import MemoryLog
from events.values import OrderType, Side
from exchange.intake.errors import ApiError
from exchange.intake.keys import KeyRing
from exchange.intake.service import Intake
from exchange.runtime import heartbeat_client, read_alive
from tests.integration.processes import Process, connected, free_ports
from tests.waiting import eventually

LAG_FRAMES = 4
DEADLINE_S = 0.02
ORDER = PlaceOrder(
    account_id=2, market="BTCUSDT", side=Side.BUY, order_type=OrderType.LIMIT, quantity_lots=1, price_ticks=1
)
CANCEL = CancelOrder(account_id=2, market="BTCUSDT", client_order_id="x")


async def opened(log: MemoryLog) -> Intake:
    """Return an intake on a log that no writer reads; its origin is the second entry."""
    await log.create(close_command_frame("genesis:1", 1, 0, [CreateLog(log_id="0" * 32, rules_version=1)]))
    intake = Intake(log, "intake-test", KeyRing(os.urandom(32)), deadline_s=DEADLINE_S, lag_frames=LAG_FRAMES)
    await intake.open()
    return intake


async def code_of(intake: Intake, command: PlaceOrder | CancelOrder) -> tuple[int, int]:
    """Send a command that nobody decides; return status and code of the answer."""
    with pytest.raises(ApiError) as caught:
        await intake.ask(command)
    return caught.value.status, caught.value.code


async def test_orders_are_refused_when_too_much_waits() -> None:
    """503 and -1008, and the log does not grow by what was refused."""
    log = MemoryLog()
    intake = await opened(log)
    while intake.lag <= LAG_FRAMES:
        assert (503, -1007) == await code_of(intake, ORDER)
    length = len(log.commands)
    assert LAG_FRAMES + 1 == length == intake.lag
    assert (503, -1008) == await code_of(intake, ORDER)
    assert length == len(log.commands)
    await intake.close()


async def test_cancels_have_a_reserved_share() -> None:
    """They go on up to twice the bound, and are then refused as well."""
    log = MemoryLog()
    intake = await opened(log)
    while intake.lag <= LAG_FRAMES:
        await code_of(intake, ORDER)
    while intake.lag <= 2 * LAG_FRAMES:
        assert (503, -1007) == await code_of(intake, CANCEL)
        assert (503, -1008) == await code_of(intake, ORDER)
    assert (503, -1008) == await code_of(intake, CANCEL)
    await intake.close()


# Real processes


async def has_reached(url: str, name: str, seq: int) -> bool:
    """Tell whether a process has handled an entry, by its heartbeat."""
    client = heartbeat_client(url)
    try:
        alive = await read_alive(client, name)
    finally:
        await client.aclose()
    return alive is not None and alive.seq >= seq


@pytest.mark.slow
async def test_slow_consumers_do_not_slow_the_writer(server: EmbeddedServer, tmp_path: Path) -> None:
    """With a frozen intake and a frozen liquidator everything is decided; awake, both catch up."""
    url = server.socket_path
    port = free_ports()
    ports = ("--port", str(port), "--admin-port", str(port + 1), "--key-file", str(tmp_path / "key"))
    writer = Process(tmp_path / "writer.log", "writer", "--redis-url", url)
    consumers = {
        "intake": Process(tmp_path / "intake.log", "intake", "--redis-url", url, *ports),
        "liquidator": Process(tmp_path / "liquidator.log", "liquidator", "--redis-url", url),
    }
    try:
        for consumer in consumers.values():
            await consumer.line("ready")
            consumer.send(signal.SIGSTOP)
        async with connected(url) as client:
            await client.ask(OpenAccount())
            for amount in range(1, 301):
                await client.ask(Deposit(account_id=2, amount=amount))
            assert 45_150 == client.fold.state.accounts[2].wallet
            last = client.fold.head.seq
        for name, consumer in consumers.items():
            consumer.send(signal.SIGCONT)
            await eventually(lambda name=name: has_reached(url, name, last), f"{name} at entry {last}")
    finally:
        for process in (writer, *consumers.values()):
            process.end()
