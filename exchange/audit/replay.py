"""Replay: the state, rebuilt from the events alone, with the hash chain verified on the way.

Nothing is decided here. `apply` adds what the events say, and the result must be what the writer had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from events.events import Event
from events.log import CorruptLogError, EventReader, Head, ReadableLog, VerifiedEvents
from exchange.aggregate.account import Account, Position
from exchange.aggregate.state import Exchange
from exchange.decimals import lots_text, money_text, price_text

ENTRIES_PER_READ = 256

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A state rebuilt from a log up to the entry `head`, and how many events that took."""

    state: Exchange
    head: Head
    events: int


async def replay(
    log: ReadableLog, *, until: int | None = None, on_progress: OnProgress | None = None
) -> Replayed:
    """Rebuild the state from entries 1 to `until`, or to the last there is when this is called.

    `on_progress` is told the last entry applied and the entry to reach, after each read. The result's
    `head.seq` is below `until` when the log ends before it.

    Raises:
        CorruptLogError: an entry is not what was written, or does not fit the state it meets.
        LogRewoundError, LogUnavailableError: the log went away on the way.
    """
    last = (await log.event_head()).seq
    target = last if until is None else min(until, last)
    reader = EventReader(log)
    state = Exchange()
    events = 0
    while reader.seq < target:
        for verified in await reader.read_to(target, ENTRIES_PER_READ):
            events += apply_entry(state, verified)
        if on_progress is not None:
            on_progress(reader.seq, target)
    return Replayed(state=state, head=reader.head, events=events)


def apply_entry(state: Exchange, verified: VerifiedEvents) -> int:
    """Apply the events of an entry and return how many there were.

    Raises:
        CorruptLogError: one of them does not fit the state it meets.
    """
    apply = state.apply
    count = 0
    for group in verified.groups:
        for event in group:
            try:
                apply(event)
            except Exception as error:  # whatever it is, the event was none for this state
                what = f"event {count}, {event.__struct_config__.tag}, does not fit the state: {error!r}"
                raise CorruptLogError(verified.entry.seq, what) from error
            count += 1
    return count


def apply_event(state: Exchange, event: Event, seq: int) -> None:
    """Apply one event of entry `seq`.

    Raises:
        CorruptLogError: it does not fit the state it meets.
    """
    try:
        state.apply(event)
    except Exception as error:  # whatever it is, the event was none for this state
        what = f"{event.__struct_config__.tag} does not fit the state: {error!r}"
        raise CorruptLogError(seq, what) from error


def describe(replayed: Replayed) -> dict[str, Any]:
    """Describe a rebuilt state as plain data: digests, place in the log, money, markets and accounts.

    Amounts are decimal text. Accounts without money and positions are left out.

    Raises:
        IdentityError: money or contracts do not add up.
    """
    state = replayed.state
    state.check_identities()
    return {
        "seq": state.seq,
        "time": time_text(state.now_ns),
        "log_id": state.log_id,
        "chain_hash": replayed.head.chain_hash.hex(),
        "digest": state.digest().hex(),
        "venue_digest": state.venue_digest().hex(),
        "position_digest": state.position_digest().hex(),
        "events": replayed.events,
        "identities": "exact",
        "deposited": money_text(state.deposited),
        "withdrawn": money_text(state.withdrawn),
        "trades": state.trade_count,
        "liquidations": state.liquidation_count,
        "markets": [_market(state, symbol) for symbol in sorted(state.markets)],
        "accounts": [
            _account(account)
            for account_id, account in sorted(state.accounts.items())
            if account.wallet or account.orders or _held(account)
        ],
    }


def time_text(time_ns: int) -> str:
    """Return a time in ns since 1970 as ISO 8601 in UTC with microseconds."""
    seconds, rest_ns = divmod(time_ns, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest_ns // 1000:06d}Z"


def _market(state: Exchange, symbol: str) -> dict[str, Any]:
    market = state.markets[symbol]
    return {
        "market": symbol,
        "status": market.status.name.lower(),
        "index": price_text(market.spec, market.index_ticks),
        "mark": price_text(market.spec, market.mark_ticks),
        "last": price_text(market.spec, market.last_ticks),
        "open_interest": lots_text(market.spec, market.open_interest_lots),
    }


def _held(account: Account) -> list[Position]:
    """Return the positions that hold contracts or money."""
    positions = (account.positions[symbol] for symbol in sorted(account.positions))
    return [position for position in positions if position.size_lots or position.bucket]


def _account(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "label": account.label,
        "wallet": money_text(account.wallet),
        "open_orders": len(account.orders),
        "positions": [
            {
                "market": position.market.symbol,
                "mode": position.mode.name.lower(),
                "leverage": position.leverage,
                "size": lots_text(position.market.spec, position.size_lots),
                "entry_cost": money_text(position.entry_cost),
                "bucket": money_text(position.bucket),
            }
            for position in _held(account)
        ],
    }
