"""Frames sent several times and replies that are lost: the state must be that of a run without either."""

import asyncio
from collections import deque
from collections.abc import Iterator
from random import Random

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
from events.events import Event
from events.frame import CommandFrame
from events.log import LogUnavailableError, Place
from events.redis import RedisLog
from events.redis_scripts import APPEND_EVENTS
from events.values import IndexSource, OrderType, Side, TimeInForce
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID
from exchange.aggregate.decide import decide
from exchange.aggregate.state import RULES_VERSION, Exchange
from tests.faults.proxy import proxied
from tests.faults.rig import Load, Row, rigged, row
from tests.integration.processes import has_events
from tests.venue import money, spec
from tests.waiting import eventually

LOSS = 0.05
REPEATS_MAX = 4
ACCOUNTS = 6
HOME_TICKS = 500_000
UNANSWERED_MAX = 12
DEADLINE_S = 900.0


class RepeatingLog(RedisLog):
    """Sends each command frame two to five times."""

    repeats = 0
    random = Random(7)

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append as it should be, and again as it should not."""
        seq = await super().append_command(frame, behind=behind)
        for _ in range(self.random.randint(1, REPEATS_MAX)):
            self.repeats += 1
            try:
                await super().append_command(frame, behind=behind)
            except LogUnavailableError:
                pass
        return seq


async def repeated_and_lost(count: int) -> Row:
    """Send `count` commands, each frame 2 to 5 times, and lose 5 % of the replies to appends."""

    async def work(result: Row) -> None:
        with rigged() as rig:
            async with proxied(rig.url) as proxy:
                proxy.markers = (b"XADD", APPEND_EVENTS.sha.encode())
                rig.writer(url=proxy.url)
                log = RepeatingLog(proxy.url)
                await eventually(lambda: has_events(log), "log")
                proxy.loss = LOSS
                load = Load(log)
                failure = await _run(load, count)
                await log.close()
        if failure:
            result.notes.append(failure)
            return
        result.passed = count
        result.notes.append(f"{log.repeats} frames repeated, {proxy.lost} replies lost")

    return await row("frames sent 2–5 times, 5 % of replies lost", count, work)


async def _run(load: Load, count: int) -> str:
    """Send the commands and compare with a clean run; return "" or what differs."""
    stop = asyncio.Event()
    folding = asyncio.create_task(load.fold.run(stop))
    unanswered: deque[asyncio.Future[list[Event]]] = deque()
    try:
        async with asyncio.timeout(DEADLINE_S):
            await load.appender.open()
            for command in commands(count):
                unanswered.append(load.send(command))
                if len(unanswered) == UNANSWERED_MAX:
                    await unanswered.popleft()
                if load.answered % 3 == 0:
                    await asyncio.sleep(0)  # so that frames have every size
            await asyncio.gather(*load.answers)
            await load.appender.close()  # the last frame may still be on its way for another time
            failure = await load.prove()
            if failure:
                return failure
    finally:
        stop.set()
        await asyncio.wait({folding})
        await load.appender.close()
    clean = clean_run(count)
    return "" if holdings(clean) == holdings(load.fold.state) else "another state than the clean run's"


def commands(count: int) -> Iterator[AnyCommand]:
    """Yield commands that name orders by their client's ids, so that they mean the same in every run."""
    random = Random(count)
    yield ListMarket(spec=spec())
    yield SetIndexPrice(market="BTCUSDT", sources=(IndexSource(source="s", price_ticks=HOME_TICKS, raw=""),))
    accounts = range(FIRST_USER_ACCOUNT_ID, FIRST_USER_ACCOUNT_ID + ACCOUNTS)
    for account_id in accounts:
        yield OpenAccount()
        yield Deposit(account_id=account_id, amount=money("50000"))
    for n in range(count - 2 - 2 * ACCOUNTS):
        account_id = random.choice(accounts)
        draw = random.random()
        if draw < 0.2:
            chosen = f"o{random.randint(max(0, n - 40), n)}"
            yield CancelOrder(account_id=account_id, market="BTCUSDT", client_order_id=chosen)
        elif draw < 0.25:
            source = IndexSource(source="s", price_ticks=HOME_TICKS + random.randint(-200, 200), raw="")
            yield SetIndexPrice(market="BTCUSDT", sources=(source,))
        else:
            yield PlaceOrder(
                account_id=account_id,
                market="BTCUSDT",
                side=random.choice((Side.BUY, Side.SELL)),
                order_type=OrderType.LIMIT,
                quantity_lots=random.randint(1, 20),
                price_ticks=HOME_TICKS + random.randint(-30, 30),
                time_in_force=random.choice((TimeInForce.GTC, TimeInForce.IOC)),
                client_order_id=f"o{n}",
            )


def clean_run(count: int) -> Exchange:
    """Decide the commands once each, in order, with no log at all."""
    state = Exchange()
    decide(state, CreateLog(log_id="0" * 32, rules_version=RULES_VERSION), 0)
    for n, command in enumerate(commands(count), 1):
        decide(state, command, n)
    return state


def holdings(state: Exchange) -> object:
    """Return all that users have, without the numbers that depend on the entry a command came in."""
    market = state.markets["BTCUSDT"]
    accounts = [
        (
            account_id,
            account.wallet,
            [(key, p.size_lots, p.entry_cost, p.bucket) for key, p in sorted(account.positions.items())],
            sorted((o.terms.client_order_id, o.price_ticks, o.open_lots) for o in account.orders.values()),
        )
        for account_id, account in sorted(state.accounts.items())
    ]
    return accounts, market.index_ticks, market.mark_ticks, state.trade_count
