"""What the demonstration knows of the exchange: its own fold of the event stream, and a few counters.

Nothing here is asked of the exchange. The events are the record, and this is one more consumer of them.
"""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from events.events import (
    Event,
    LiquidationFinished,
    LiquidationStarted,
    LossSocialised,
    OrderAccepted,
    PositionDeleveraged,
    PositionTakenOver,
    Rejected,
)
from events.log import Head, Log, VerifiedEvents
from events.values import LiquidationResult, MarginMode
from exchange import config
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account
from exchange.aggregate.margin import unrealised
from exchange.aggregate.state import AGGREGATE_ORDER_BASE
from exchange.fold import Fold, Snapshots

RATE_WINDOW_S = 3.0


@dataclass(slots=True, kw_only=True)
class Counts:
    """What went by, as of the last entry read. `commands` are those that were answered, one group each.

    `liquidations` are those of customers. `deleveraged` counts their positions that were closed, whole or in
    part, against one in liquidation; `socialised` is what the other side was charged for one, and `unpaid`
    what nobody had, in money units.
    """

    commands: int = 0
    events: int = 0
    rejected: int = 0
    takeovers: int = 0
    deleveraged: int = 0
    socialised: int = 0
    unpaid: int = 0
    unborne: int = 0
    first_liquidated_account: int | None = None
    liquidations: dict[MarginMode, int] = field(default_factory=lambda: dict.fromkeys(MarginMode, 0))
    liquidated: dict[MarginMode, set[int]] = field(
        default_factory=lambda: {mode: set() for mode in MarginMode}
    )


class Board:
    """A fold of the log with its counters; `on_entry` hears of each entry after it was counted.

    `order_ids` holds the ids of all orders that customers placed, in the order of acceptance. Counters have
    no snapshot: what they show is counted from the log's first entry. So `archive` has what was trimmed
    before it was read here; at the milestones the state is compared with the checkpoints, as everywhere.
    """

    def __init__(self, log: Log, on_entry: Callable[[VerifiedEvents], None], archive: str | None) -> None:
        self.counts = Counts()
        self.order_ids: list[int] = []
        snapshots = Snapshots(every_events=config.SNAPSHOT_EVENTS_DEFAULT, archive=archive)
        self.fold = Fold(log, self._count, snapshots)
        self._on_entry = on_entry
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def head(self) -> Head:
        """The last entry read."""
        return self.fold.head

    def open_interest_lots(self, symbol: str) -> int:
        """Return how many lots are held long, which is as many as are held short."""
        return self.fold.state.markets[symbol].open_interest_lots

    def fund(self) -> int:
        """Return what the insurance fund is worth at mark, in money units."""
        return equity(self.fold.state.accounts[FUND_ACCOUNT_ID])

    def worth(self, account_ids: Collection[int]) -> int:
        """Return what accounts are worth together at mark, in money units."""
        return sum(equity(self.fold.state.accounts[account_id]) for account_id in account_ids)

    def commands_per_s(self) -> float:
        """Return the rate since this was last asked, over at most about `RATE_WINDOW_S`."""
        now_s = time.monotonic()
        samples = self._samples
        samples.append((now_s, self.counts.commands))
        while len(samples) > 2 and now_s - samples[1][0] > RATE_WINDOW_S:
            samples.popleft()
        first_s, first_commands = samples[0]
        elapsed_s = now_s - first_s
        return (self.counts.commands - first_commands) / elapsed_s if elapsed_s > 0 else 0.0

    def _count(self, verified: VerifiedEvents) -> None:
        counts = self.counts
        # The first group is the frame's own: its header, and the opening of its origin.
        counts.commands += len(verified.groups) - 1
        for group in verified.groups:
            counts.events += len(group)
            for event in group:
                self._count_event(event)
        self._on_entry(verified)

    def _count_event(self, event: Event) -> None:
        counts = self.counts
        if isinstance(event, OrderAccepted):
            if event.order_id < AGGREGATE_ORDER_BASE:
                self.order_ids.append(event.order_id)
        elif isinstance(event, Rejected):
            counts.rejected += 1
        elif isinstance(event, LiquidationStarted) and event.account_id != FUND_ACCOUNT_ID:
            counts.liquidations[event.mode] += 1
            counts.liquidated[event.mode].add(event.account_id)
            if counts.first_liquidated_account is None:
                counts.first_liquidated_account = event.account_id
        elif isinstance(event, PositionTakenOver):
            counts.takeovers += 1
        elif isinstance(event, PositionDeleveraged):
            counts.deleveraged += sum(row.account_id != FUND_ACCOUNT_ID for row in event.parties)
        elif isinstance(event, LossSocialised):
            counts.socialised += event.charged
            counts.unpaid += event.unpaid
        elif isinstance(event, LiquidationFinished) and event.result is LiquidationResult.UNBORNE:
            counts.unborne += 1


def equity(account: Account) -> int:
    """Return what an account is worth at mark: wallet, buckets, unrealised profit; in money units."""
    return account.wallet + sum(p.bucket + unrealised(p) for p in account.positions.values())
