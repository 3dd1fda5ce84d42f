"""A log of random trading, decided as a writer would, for tests of what reads logs."""

from collections.abc import Sequence
from random import Random

from events.commands import AnyCommand, CreateLog, Deposit, ListMarket, OpenAccount, SetIndexPrice
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    EventEntry,
    chain_hash,
    close_command_frame,
    encode_groups,
    new_origin,
)
from events.log import Head, Log
from events.values import IndexSource, MarketSpec
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import RULES_VERSION, Exchange
from tests.flow import SYMBOLS, random_command
from tests.venue import NS_PER_MS, money, spec

LOG_ID = "0" * 32
ACCOUNTS = 6
LEASE_MS = 3_600_000


class Recorded:
    """A log, and the state of who decided it: `state` is what any reader of `log` must come to.

    `events` counts the log's events.
    """

    def __init__(
        self,
        log: Log,
        *,
        log_id: str = LOG_ID,
        seed: int = 1,
        now_ns: int = 1_700_000_000 * 10**9,
        specs: Sequence[MarketSpec] = (),
    ) -> None:
        self.log = log
        self.state = Exchange()
        self.events = 0
        self.head = Head(seq=0, chain_hash=GENESIS_HASH)
        self._log_id = log_id
        self._random = Random(seed)
        self._specs = specs or [spec(symbol) for symbol in SYMBOLS]
        self._origin = new_origin("test")
        self._now_ns = now_ns

    async def begin(self) -> None:
        """Create the log, with two markets and a few funded accounts."""
        await self.send(CreateLog(log_id=self._log_id, rules_version=RULES_VERSION))
        for each, price_ticks in zip(self._specs, (500_000, 30_000), strict=True):
            await self.send(ListMarket(spec=each))
            source = IndexSource(source="test", price_ticks=price_ticks, raw="")
            await self.send(SetIndexPrice(market=each.symbol, sources=(source,)))
        for _ in range(ACCOUNTS):
            account_id = self.state.next_account_id
            await self.send(OpenAccount(), Deposit(account_id=account_id, amount=money("5000")))

    async def trade(self, commands: int) -> None:
        """Add entries of one random command each."""
        for _ in range(commands):
            await self.send(random_command(self.state, self._random))

    def wait(self, time_ms: int) -> None:
        """Let time pass before the next entry."""
        self._now_ns += time_ms * NS_PER_MS

    async def send(self, *commands: AnyCommand) -> None:
        """Add an entry."""
        seq = self.head.seq + 1
        self._now_ns += NS_PER_MS
        frame = close_command_frame(self._origin, seq, self._now_ns, commands)
        if seq == 1:
            await self.log.create(frame)
            lease = await self.log.acquire_lease("recorder", LEASE_MS)
            assert lease is not None
            self._lease = lease
        else:
            await self.log.append_command(frame)
        groups = decide_frame(self.state, seq, frame, self._now_ns)
        self.events += sum(map(len, groups))
        body = encode_groups(groups)
        entry = EventEntry(
            seq=seq,
            schema=SCHEMA_VERSION,
            body=body,
            chain_hash=chain_hash(
                self._log_id, self.head.chain_hash, seq, SCHEMA_VERSION, frame.checksum, body
            ),
            writer=self._lease.mark,
        )
        await self.log.append_events([entry], self.head, self._lease)
        self.head = Head(seq=seq, chain_hash=entry.chain_hash)
