"""A venue's history as a log, and the audit of it: as it was, or with something in it changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from events.events import Event, TradeExecuted
from events.frame import GENESIS_HASH, SCHEMA_VERSION, EventEntry, Groups, chain_hash, encode_groups
from events.log import CommandEntry, Head, VerifiedEvents
from events.memory import MemoryLog
from events.redis import RedisLog
from exchange.aggregate.state import Exchange
from exchange.audit.evidence import Auditor, Evidence
from tests.venue import Trader, Venue, only, spec

BTC, ETH = "BTCUSDT", "ETHUSDT"
# Gives what stands in an event's place.
Change = Callable[[Event], list[Event]]


@dataclass
class Scene:
    """A venue with a trader to liquidate and one to trade with."""

    venue: Venue
    alice: Trader
    bob: Trader

    def open(self, symbol: str, side: str, size: str, price: str, *, mode: str, leverage: int) -> None:
        """Let alice open a position against bob."""
        if mode == "ISOLATED":
            self.alice.mode(symbol, mode)
        self.alice.leverage(symbol, leverage)
        self.bob.place("SELL" if side == "BUY" else "BUY", symbol, size, price)
        only(TradeExecuted, self.alice.place(side, symbol, size, price))


def scene(fund: str = "100000") -> Scene:
    """Return a venue without trading fees, BTC at 50,000, ETH at 3,000, alice with 1,000."""
    free = {"maker_fee": 0, "taker_fee": 0}
    venue = Venue(specs=(spec(BTC, **free), spec(ETH, **free)), fund=fund)
    venue.index(BTC, "50000")
    venue.index(ETH, "3000")
    return Scene(venue, venue.account("1000"), venue.account("1000000"))


def pooled() -> Scene:
    """Return a story: BTC and ETH longs on one wallet, both gap down, the fund takes both."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="CROSS", leverage=20)
    s.open(ETH, "BUY", "2", "3000", mode="CROSS", leverage=20)
    s.venue.index(BTC, "46000")
    s.venue.index(ETH, "2650")
    s.venue.liquidate(s.alice)
    return s


def log_of(venue: Venue) -> MemoryLog:
    """Return a venue's commands and events as a log."""
    log = MemoryLog()
    previous = GENESIS_HASH
    for seq, (frame, groups) in enumerate(zip(venue.asked, venue.log, strict=True), 1):
        body = encode_groups(groups)
        previous = chain_hash(venue.state.log_id, previous, seq, SCHEMA_VERSION, frame.checksum, body)
        log.commands.append(CommandEntry(seq=seq, frame=frame))
        log.events.append(
            EventEntry(seq=seq, schema=SCHEMA_VERSION, body=body, chain_hash=previous, writer="test:1")
        )
    return log


async def put(log: MemoryLog, url: str) -> None:
    """Put a log onto a server."""
    stored = RedisLog(url)
    lease = await stored.acquire_lease("test", 60_000)
    assert lease is not None
    await stored.restore(log.commands, log.events, Head(seq=0, chain_hash=GENESIS_HASH), lease)
    await stored.release_lease(lease)
    await stored.close()


def spoil(url: str, part: float) -> int:
    """Change one bit in the body of a stored event entry, `part` of the way through; return its number."""
    client = redis.Redis(unix_socket_path=url)
    key = "foldex:{main}:events"
    entries: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange(key)  # type: ignore[assignment]
    seq = max(1, int(len(entries) * part))
    body = bytearray(entries[seq - 1][1][b"b"])
    body[len(body) // 2] ^= 1
    entries[seq - 1][1][b"b"] = bytes(body)
    with client.pipeline() as pipe:
        pipe.delete(key)
        for entry_id, fields in entries:
            pipe.xadd(key, fields, id=entry_id)  # type: ignore[arg-type]
        pipe.execute()
    client.close()
    return seq


def audit(log: Sequence[Groups], change: Change | None = None, *, late_events_max: int = 50) -> Evidence:
    """Audit events as if they were a log's, each replaced by what `change` makes of it."""
    auditor = Auditor(Exchange(), late_events_max)
    for seq, groups in enumerate(log, 1):
        if change is not None:
            groups = [[new for event in group for new in change(event)] for group in groups]
        entry = EventEntry(seq=seq, schema=SCHEMA_VERSION, body=b"", chain_hash=bytes(32), writer="")
        auditor.take(VerifiedEvents(entry=entry, groups=groups))
    evidence = auditor.evidence
    evidence.liquidations = auditor.waterfall.count
    evidence.longest_wait = auditor.lateness.longest
    return evidence
