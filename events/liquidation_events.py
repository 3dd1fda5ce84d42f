"""The events of a liquidation, from the bucket found at maintenance to what its loss cost whom.

Money is units of 1e-8 quote, signed as seen by the account, as in `events.events`.
"""

from events.log_events import Event
from events.values import (
    DeleveragedRow,
    DeleverageStep,
    HoleRow,
    Leg,
    LiquidationResult,
    MarginMode,
    RankRow,
    SharerRow,
    Side,
    WorksheetRow,
)


class LiquidationStarted(Event, frozen=True, tag="liquidation_started"):
    """A bucket is at or below maintenance. The worksheet holds what is needed to check that by hand.

    `market` is "" for the cross pool. `collateral` is the wallet (cross) or the bucket (isolated);
    equity = collateral + Σ unrealised; `maintenance` = Σ maintenance of `rows`.
    """

    liquidation_id: int
    account_id: int
    market: str
    mode: MarginMode
    cause_seq: int
    collateral: int
    equity: int
    maintenance: int
    rows: tuple[WorksheetRow, ...]
    leg: Leg = Leg.BOTH


class LiquidationFeeCharged(Event, frozen=True, tag="liquidation_fee"):
    """A liquidated bucket paid the insurance fund's allotment for what was closed in the book."""

    liquidation_id: int
    account_id: int
    market: str
    amount: int
    leg: Leg = Leg.BOTH


class PositionTakenOver(Event, frozen=True, tag="position_taken_over"):
    """The insurance fund took a whole position, in money: size and cost pass to its own position.

    The bucket gains `realised` (which ends it at its share of the equity) and the fund's cost changes by
    entry_cost + realised; `fund_realised` is what the fund realised by netting against its own position.
    """

    liquidation_id: int
    account_id: int
    market: str
    size_lots: int
    entry_cost: int
    realised: int
    fund_realised: int
    leg: Leg = Leg.BOTH


class DeleverageRanked(Event, frozen=True, tag="deleverage_ranked"):
    """The positions of one side of a market were put in the order in which they are deleveraged.

    `side` is that of the positions ranked; there are `count` of them, and `digest` is the hash of all their
    rows in order. The order holds until the market's next mark.
    """

    market: str
    side: Side
    mark_ticks: int
    count: int
    digest: bytes


class PositionDeleveraged(Event, frozen=True, tag="position_deleveraged"):
    """Part of a bankrupt position was closed against positions of the other side, quantity for quantity.

    `size_lots` (signed) left the position for `value` (signed, money units), which is what `parties` gave;
    the bucket gained `realised`, and the entry cost changed by realised − value. No fee is charged.

    Parties of RANKED and AT_MARK come from the ranking of `count` rows with hash `digest`, in its order; the
    fund, which is not in it, comes before them. `following` are the next ten that have something to give.
    """

    liquidation_id: int
    account_id: int
    market: str
    leg: Leg
    step: DeleverageStep
    mark_ticks: int
    size_lots: int
    value: int
    realised: int
    parties: tuple[DeleveragedRow, ...]
    following: tuple[RankRow, ...] = ()
    count: int = 0
    digest: bytes = b""


class LossSocialised(Event, frozen=True, tag="loss_socialised"):
    """Buckets' equities were below zero, by `missing` together, and were filled up to zero by others.

    `holes` are that of the position under liquidation (`account_id`, `leg`), or those of parties that were
    closed against it at mark. In this order: `from_allotment` and `from_wallet` by the insurance fund, down
    to zero; `charged` by the `buckets` that stand behind positions of `side` in this market (ranked with
    something left, or traded since), and by those of `closed`, whose positions this liquidation closed whole.
    That is pro rata to their equities, which make `equity` together: each pays ceil(charged × its own /
    equity), so none goes below zero, and the fund's allotment keeps the `residue` of the rounding. The fund's
    wallet goes below zero by `unpaid`, which nobody had. `equity` and `buckets` are 0 when the fund had it
    all, and nobody was asked.
    """

    liquidation_id: int
    account_id: int
    market: str
    leg: Leg
    holes: tuple[HoleRow, ...]
    missing: int
    from_allotment: int
    from_wallet: int
    side: Side
    equity: int
    buckets: int
    closed: tuple[SharerRow, ...]
    charged: int
    residue: int
    unpaid: int


class LiquidationFinished(Event, frozen=True, tag="liquidation_finished"):
    """A liquidation ended. `equity` is the bucket's after it; the fund's equity at mark, before and after.

    `released` goes from the bucket of an isolated position that was closed whole back to the wallet.
    """

    liquidation_id: int
    account_id: int
    market: str
    result: LiquidationResult
    equity: int
    released: int
    fund_before: int
    fund_after: int
    leg: Leg = Leg.BOTH


class LiquidationSkipped(Event, frozen=True, tag="liquidation_skipped"):
    """A request to liquidate found nothing to do, and changed nothing; `reason` says why."""

    account_id: int
    market: str
    cause_seq: int
    reason: str
    leg: Leg = Leg.BOTH
