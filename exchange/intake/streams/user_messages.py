"""What the user-data stream says: the messages, with Binance's one-letter names.

Times are ms, decimals strings. `E` is when it was told and `T` when it happened; here both are the exchange's
time of the entry, so that a stream read twice says the same.
"""

import msgspec
from msgspec import UNSET, UnsetType


class _Body(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the parts of messages."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="e", gc=False):
    """Base of the messages; the kind comes first, as `e`."""

    E: int
    T: int


class OrderUpdate(_Body, frozen=True, kw_only=True):
    """An order behind a change.

    `x` is what happened (NEW, TRADE, CANCELED, EXPIRED, AMENDMENT, CALCULATED: by a liquidation) and `X`
    the order's status. `l` and `L` are size and price of the last fill, `z` is filled in all at the average
    `ap`. `n` and `N` are the fill's fee and its asset, `rp` its realised profit, `t` its trade's number, `m`
    says whether it was the maker. `b` and `a` are the notionals of the account's open bids and asks in the
    market; `er` is why it expired.
    """

    s: str
    c: str
    S: str
    o: str
    f: str
    q: str
    p: str
    ap: str
    sp: str
    x: str
    X: str
    i: int
    l: str  # noqa: E741
    z: str
    L: str
    N: str | UnsetType = UNSET
    n: str | UnsetType = UNSET
    T: int
    t: int
    b: str
    a: str
    m: bool
    R: bool
    wt: str
    ot: str
    ps: str
    cp: bool
    rp: str
    pP: bool
    si: int
    ss: int
    V: str
    pm: str
    gtd: int
    er: str


class OrderTradeUpdate(_Message, frozen=True, kw_only=True, tag="ORDER_TRADE_UPDATE"):
    """An order was accepted, filled, amended or ended."""

    o: OrderUpdate


class TradeLite(_Message, frozen=True, kw_only=True, tag="TRADE_LITE"):
    """A fill, in few words."""

    s: str
    q: str
    p: str
    m: bool
    c: str
    S: str
    L: str
    l: str  # noqa: E741
    t: int
    i: int


class BalanceRow(_Body, frozen=True, kw_only=True):
    """An asset: wallet and buckets together `wb`, the wallet `cw`, and what came or went `bc` beside profit
    and fees.
    """

    a: str
    wb: str
    cw: str
    bc: str


class PositionRow(_Body, frozen=True, kw_only=True):
    """A position: amount `pa`, entry price `ep`, break-even price `bep`, profit realised since this process
    knows of it `cr`, unrealised profit `up`, margin type `mt`, bucket `iw`, leg `ps`.
    """

    s: str
    pa: str
    ep: str
    bep: str
    cr: str
    up: str
    mt: str
    iw: str
    ps: str
    ma: str


class AccountChange(_Body, frozen=True, kw_only=True):
    """What changed, for the reason `m`: balances, and the positions that did."""

    m: str
    B: tuple[BalanceRow, ...]
    P: tuple[PositionRow, ...]


class AccountUpdate(_Message, frozen=True, kw_only=True, tag="ACCOUNT_UPDATE"):
    """Balances or positions changed."""

    a: AccountChange


class LeverageRow(_Body, frozen=True, kw_only=True):
    """A market's leverage."""

    s: str
    l: int  # noqa: E741


class AccountConfigUpdate(_Message, frozen=True, kw_only=True, tag="ACCOUNT_CONFIG_UPDATE"):
    """The leverage of a market was set."""

    ac: LeverageRow


class MarginCallRow(_Body, frozen=True, kw_only=True):
    """A position near its liquidation: amount, margin type, bucket, mark, unrealised profit, maintenance."""

    s: str
    ps: str
    pa: str
    mt: str
    iw: str
    mp: str
    up: str
    mm: str


class MarginCall(msgspec.Struct, frozen=True, kw_only=True, tag_field="e", tag="MARGIN_CALL", gc=False):
    """A bucket's margin ratio has passed the warning level. `cw` is the wallet, for a cross pool alone."""

    E: int
    cw: str | UnsetType = UNSET
    p: tuple[MarginCallRow, ...]


class AlgoUpdate(_Body, frozen=True, kw_only=True):
    """A conditional order behind a change: `X` its status, `ai` the number of the order it became, `ap` and
    `aq` that order's average price and filled size, `tp` the trigger, `tt` when it was reached, `rm` why its
    order was refused.
    """

    caid: str
    aid: int
    at: str
    o: str
    s: str
    S: str
    ps: str
    f: str
    q: str
    X: str
    ai: str
    ap: str
    aq: str
    act: str
    tp: str
    p: str
    V: str
    wt: str
    pm: str
    cp: bool
    pP: bool
    R: bool
    tt: int
    gtd: int
    rm: str


class AlgoOrderUpdate(_Message, frozen=True, kw_only=True, tag="ALGO_UPDATE"):
    """A conditional order was accepted, triggered, refused or ended."""

    o: AlgoUpdate


class RejectedTrigger(_Body, frozen=True, kw_only=True):
    """The market, the number of the order that was refused, and why."""

    s: str
    i: int
    r: str


class ConditionalOrderTriggerReject(
    _Message, frozen=True, kw_only=True, tag="CONDITIONAL_ORDER_TRIGGER_REJECT"
):
    """The order of a triggered conditional order was refused."""

    or_: RejectedTrigger = msgspec.field(name="or")


class ListenKeyExpired(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="e", tag="listenKeyExpired", rename="camel", gc=False
):
    """The stream ends: its key was not kept alive."""

    E: int
    listen_key: str
