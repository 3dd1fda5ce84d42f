"""A writer with planted faults: it records what fails, restores its state, and goes on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from events.appender import Appender
from events.commands import AnyCommand, Deposit, ListMarket, OpenAccount, PlaceOrder, SetIndexPrice
from events.embedded import EmbeddedServer
from events.events import AccountBlocked, CommandFailed, Deposited, Event, Rejected, TradeExecuted
from events.frame import CommandFrame, command_checksum, new_origin
from events.log import EventReader, VerifiedEvents
from events.memory import MemoryLog
from events.redis import RedisLog
from events.snapshot import Snapshot, save
from events.upcast import SCHEMA_VERSION
from events.values import IndexSource, OrderType, Outcome, RejectCode, Side
from exchange import config, deciding
from exchange.aggregate.failing import failures_of
from exchange.aggregate.image import take_image
from exchange.aggregate.state import Exchange
from exchange.audit.replay import replay
from exchange.deciding import Base, decide_entry
from exchange.fold import NO_SNAPSHOTS, Fold, Snapshots
from exchange.writer import Writer, create_if_empty, rebuild
from tests.integration.processes import Process, connected
from tests.planted import IN_APPLYING, IN_DECIDING, IN_TRADING, WORDS, plant
from tests.venue import every, money, only, spec

BTC = "BTCUSDT"
MAKER, TAKER = 2, 3
PRICE_TICKS = 500_000
DEADLINE_S = 20.0
LEASE_MS = 60_000


def order(account_id: int, side: Side, client_order_id: str = "", lots: int = 10) -> PlaceOrder:
    """An order at the index price."""
    return PlaceOrder(
        account_id=account_id,
        market=BTC,
        side=side,
        order_type=OrderType.LIMIT,
        quantity_lots=lots,
        price_ticks=PRICE_TICKS,
        client_order_id=client_order_id,
    )


def beginning() -> list[AnyCommand]:
    """List a market and fund two accounts; one of them sells."""
    source = IndexSource(source="test", price_ticks=PRICE_TICKS, raw="")
    return [
        ListMarket(spec=spec(BTC)),
        SetIndexPrice(market=BTC, sources=(source,)),
        OpenAccount(),
        OpenAccount(),
        Deposit(account_id=MAKER, amount=money("100000")),
        Deposit(account_id=TAKER, amount=money("100000")),
        order(MAKER, Side.SELL, lots=500),
    ]


class Desk:
    """A writer over a log in memory, and a client that folds its answers."""

    def __init__(self, log: MemoryLog, writer: Writer) -> None:
        self.log = log
        self.writer = writer
        self.appender = Appender(log, "test")
        self.fold = Fold(log, self._on_entry)
        self.outcomes: list[Outcome] = []

    def _on_entry(self, entry: VerifiedEvents) -> None:
        self.outcomes.append(entry.groups[0][0].outcome)  # type: ignore[attr-defined]
        self.appender.resolve(entry.groups)

    async def ask(self, *commands: AnyCommand) -> list[list[Event]]:
        """Send commands in one frame; return the events of each."""
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.gather(*(self.appender.submit(command) for command in commands))


@asynccontextmanager
async def desk(
    *, with_base: bool = True, snapshots: Snapshots = NO_SNAPSHOTS, log: MemoryLog | None = None
) -> AsyncIterator[Desk]:
    """Run a writer and a client; end both."""
    log = log or MemoryLog()
    stop = asyncio.Event()
    await create_if_empty(log)
    lease = await log.acquire_lease("writer", LEASE_MS)
    assert lease is not None
    rebuilt = await rebuild(log, stop, snapshots)
    assert rebuilt is not None
    state, reader, head = rebuilt
    base = Base(take_image(state), head.seq) if with_base else None
    writer = Writer(log, lease, state, reader, head, base=base, snapshots=snapshots)
    made = Desk(log, writer)
    tasks = [
        asyncio.create_task(writer.run(stop, lambda: None)),
        asyncio.create_task(made.fold.run(stop)),
    ]
    try:
        async with asyncio.timeout(DEADLINE_S):
            await made.appender.open()
        yield made
        await made.appender.close()
    finally:
        stop.set()
        await asyncio.wait(tasks)
        await log.release_lease(lease)
    for task in tasks:
        task.result()


async def check_log(log: MemoryLog, live: Exchange) -> None:
    """Replay has the digest of the live state; decided again with the recorded failures, so has that."""
    replayed = await replay(log)
    assert live.digest() == replayed.state.digest()
    commands = await log.read_commands(0, 10_000)
    events = EventReader(log)
    state = Exchange()
    for entry in commands:
        (verified,) = await events.read(1)
        failures = failures_of(verified.groups)
        now_ns = verified.groups[0][0].now_ns  # type: ignore[attr-defined]
        assert verified.entry.body == decide_entry(state, entry.seq, entry.frame, now_ns, failures)
    assert live.digest() == state.digest()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Plant the faults of orders and accounts."""
    plant(monkeypatch.setattr, monkeypatch.setitem)
    return monkeypatch


@pytest.mark.parametrize("with_base", [True, False], ids=["base", "log"])
async def test_the_writer_goes_on_after_every_kind_of_failure(
    planted: pytest.MonkeyPatch, *, with_base: bool
) -> None:
    """Each fault costs its own command; what comes before and behind it in the frame trades."""
    async with desk(with_base=with_base) as made:
        await made.ask(*beginning())
        for word in WORDS:
            (opened,) = await made.ask(OpenAccount())
            taker_id = opened[0].account_id  # type: ignore[attr-defined]
            await made.ask(Deposit(account_id=taker_id, amount=money("10000")))
            before, failed, behind = await made.ask(
                order(taker_id, Side.BUY), order(taker_id, Side.BUY, word), order(taker_id, Side.BUY)
            )
            only(TradeExecuted, before)
            assert 1 == only(CommandFailed, failed).failures
            only(TradeExecuted, behind)
        assert 2 * len(WORDS) == made.fold.state.trade_count
    made.writer.state.check_identities()
    planted.undo()
    await check_log(made.log, made.writer.state)


async def test_three_failures_block_the_account(planted: pytest.MonkeyPatch) -> None:
    """Over several frames; others trade on."""
    async with desk() as made:
        await made.ask(*beginning())
        for _ in range(2):
            await made.ask(order(TAKER, Side.BUY, IN_DECIDING))
        third, fourth, other = await made.ask(
            order(TAKER, Side.BUY, IN_APPLYING), order(TAKER, Side.BUY), order(MAKER, Side.SELL)
        )
        only(AccountBlocked, third)
        assert RejectCode.ACCOUNT_BLOCKED == only(Rejected, fourth).code
        assert [] == every(Rejected, other)
    planted.undo()
    await check_log(made.log, made.writer.state)


async def test_a_base_that_was_given_up_is_replaced_by_the_newest_snapshot(
    planted: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The state comes from there and the entries behind it, and the frame is decided again."""
    planted.setattr(deciding, "BASE_BYTES_MAX", 0)
    snapshots = Snapshots(directory=tmp_path, every_events=5)
    async with desk(snapshots=snapshots) as made:
        await made.ask(*beginning())
        taken: list[Snapshot] = []
        fold = Fold(made.log, lambda entry: None, Snapshots(every_events=5), on_milestone=taken.append)
        await fold.catch_up()
        save(tmp_path, taken[-1])
        only(CommandFailed, (await made.ask(order(TAKER, Side.BUY, IN_TRADING)))[0])
        only(TradeExecuted, (await made.ask(order(TAKER, Side.BUY)))[0])
    planted.undo()
    await check_log(made.log, made.writer.state)


async def test_a_body_that_does_not_decode_is_answered_and_the_writer_goes_on() -> None:
    """A frame with a right checksum and an unknown command is rejected as a whole."""
    async with desk() as made:
        await made.ask(OpenAccount())
        origin, body, time_ns = new_origin("other"), b"\x91\x91\xa7no_such", 1
        checksum = command_checksum(origin, 1, time_ns, SCHEMA_VERSION, body)
        await made.log.append_command(
            CommandFrame(
                origin=origin, n=1, time_ns=time_ns, schema=SCHEMA_VERSION, body=body, checksum=checksum
            )
        )
        (deposited,) = await made.ask(Deposit(account_id=MAKER, amount=1))
        only(Deposited, deposited)
        assert Outcome.REJECTED_FRAME in made.outcomes
    await check_log(made.log, made.writer.state)


@pytest.mark.slow
async def test_a_process_with_a_fault_in_it_serves_everybody_else(tmp_path: Path) -> None:
    """Over a real server: a load with poison in it is answered whole, and a sound replay has its digest."""
    with EmbeddedServer(tmp_path / "data") as server:
        process = Process(
            tmp_path / "writer.log", "writer", "--redis-url", server.socket_path, module="tests.planted"
        )
        try:
            async with connected(server.socket_path) as client:
                for command in beginning():
                    await client.ask(command)
                answers = [
                    client.appender.submit(order(TAKER, Side.BUY, word, lots=1))
                    for n in range(100)
                    for word in ("", WORDS[n % len(WORDS)] if n in (20, 40) else "")
                ]
                async with asyncio.timeout(DEADLINE_S):
                    groups = await asyncio.gather(*answers)
                assert 2 == len([group for group in groups if every(CommandFailed, group)])
                assert 198 == sum(len(every(TradeExecuted, group)) for group in groups)
            process.send(signal.SIGTERM)
            assert config.EXIT_OK == await process.code()
            written = await process.line("written")
            log = RedisLog(server.socket_path)
            replayed = await replay(log)
            await log.close()
            assert written["digest"] == replayed.state.digest().hex()
        finally:
            process.end()
