"""The projection of orders: what became of each, for as long as it is kept."""

import pytest

from events.events import Event, FrameHeader, OrderAccepted, OrderCancelled, OrderExpired, TradeExecuted
from events.values import CloseReason, OrderType, Outcome, Side, TimeInForce
from exchange.intake.projection import Clock
from exchange.intake.specs import DEFAULT_SPECS
from exchange.intake.trade import orders
from exchange.intake.trade.orders import OrderHistory, order_answer

BTC = DEFAULT_SPECS[0]
UNIT = 10_000


class Feed:
    """Feeds a history entry by entry, one second apart."""

    def __init__(self, ended_kept: int = 10) -> None:
        self.clock = Clock()
        self.history = OrderHistory(lambda symbol: UNIT, self.clock, ended_kept=ended_kept)
        self.seq = 0

    def __call__(self, *events: Event) -> None:
        self.seq += 1
        header = FrameHeader(
            seq=self.seq,
            origin="x:1",
            frame_n=self.seq,
            now_ns=self.seq * 10**9,
            checksum=bytes(32),
            outcome=Outcome.EXECUTED,
        )
        self.clock.turn_to([[header]])
        for event in events:
            self.history.handlers[type(event)](event)


def accepted(order_id: int, account_id: int = 2, **changes: object) -> OrderAccepted:
    """Accept an order to buy 0.010 BTC at 50,000 unless told otherwise."""
    fields: dict[str, object] = {
        "order_id": order_id,
        "account_id": account_id,
        "market": "BTCUSDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "quantity_lots": 10,
        "price_ticks": 500_000,
        "time_in_force": TimeInForce.GTC,
        "reduce_only": False,
        "client_order_id": f"c{order_id}",
        "extras": 0,
    }
    return OrderAccepted(**(fields | changes))  # type: ignore[arg-type]


def trade(maker_id: int, taker_id: int, lots: int, price_ticks: int) -> TradeExecuted:
    """Let account 3 sell to an order of account 2."""
    return TradeExecuted(
        trade_id=1,
        market="BTCUSDT",
        price_ticks=price_ticks,
        quantity_lots=lots,
        taker_side=Side.SELL,
        maker_order_id=maker_id,
        taker_order_id=taker_id,
        maker_account_id=2,
        taker_account_id=3,
        maker_fee=0,
        taker_fee=0,
        maker_realised=0,
        taker_realised=0,
        maker_margin_moved=0,
        taker_margin_moved=0,
    )


def cancelled(order_id: int, open_lots: int) -> OrderCancelled:
    """Cancel an order of account 2."""
    return OrderCancelled(
        order_id=order_id, account_id=2, market="BTCUSDT", open_lots=open_lots, reason=CloseReason.USER
    )


def test_a_partly_filled_order_knows_its_average_price() -> None:
    """Two fills at different prices give their mean, with the time of the last."""
    feed = Feed()
    feed(accepted(1))
    feed(accepted(2, 3, side=Side.SELL), trade(1, 2, 4, 500_000))
    feed(accepted(3, 3, side=Side.SELL), trade(1, 3, 4, 500_010))

    record = feed.history.get(1)
    row = order_answer(record, BTC)
    assert "PARTIALLY_FILLED" == row.status
    assert "50000.50000000" == row.avg_price
    assert ("0.010", "0.008", "400.00400000") == (row.orig_qty, row.executed_qty, row.cum_quote)
    assert (1_000, 3_000) == (row.time, row.update_time)
    assert record.is_open


def test_orders_are_found_after_they_ended() -> None:
    """Filled, cancelled and expired orders are answered by id and by client id, to their owner alone."""
    feed = Feed()
    feed(accepted(1), accepted(2), accepted(4))
    feed(accepted(3, 3, side=Side.SELL), trade(1, 3, 10, 500_000))
    feed(
        cancelled(2, 10),
        OrderExpired(order_id=4, account_id=2, market="BTCUSDT", open_lots=10, reason=CloseReason.SELF_TRADE),
    )
    find = feed.history.find
    found = [find(2, "BTCUSDT", 1, ""), find(2, "BTCUSDT", 0, "c2"), find(2, "BTCUSDT", 4, "")]
    assert ["FILLED", "CANCELED", "EXPIRED_IN_MATCH"] == [record.status for record in found if record]
    assert find(3, "BTCUSDT", 1, "") is None
    assert find(2, "ETHUSDT", 1, "") is None
    assert find(2, "BTCUSDT", 0, "none") is None


def test_only_the_last_ended_orders_are_kept() -> None:
    """Open orders stay; of the ended ones the oldest goes first."""
    feed = Feed(ended_kept=2)
    feed(accepted(9))
    for order_id in (1, 2, 3):
        feed(accepted(order_id, client_order_id="again"))
        feed(cancelled(order_id, 10))
    find = feed.history.find
    assert find(2, "BTCUSDT", 1, "") is None
    assert [2, 3, 9] == [n for n in (1, 2, 3, 9) if find(2, "BTCUSDT", n, "") is not None]
    newest = find(2, "BTCUSDT", 0, "again")
    assert newest is not None
    assert 3 == newest.accepted.order_id


def test_all_accounts_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that ended first goes first, whosever it is."""
    monkeypatch.setattr(orders, "ENDED_KEPT", 4)
    feed = Feed(ended_kept=2)
    for order_id, account_id in ((1, 2), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)):
        feed(accepted(order_id, account_id=account_id))
        feed(cancelled(order_id, 10))
    find = feed.history.find
    accounts = {1: 2, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4}
    assert [3, 4, 5, 6] == [n for n, owner in accounts.items() if find(owner, "BTCUSDT", n, "") is not None]


def test_a_market_order_shows_no_limit() -> None:
    """The bound it was matched within is not the client's price."""
    feed = Feed()
    feed(accepted(1, order_type=OrderType.MARKET, time_in_force=TimeInForce.IOC))
    row = order_answer(feed.history.get(1), BTC)
    assert ("MARKET", "0.0", "GTC") == (row.type, row.price, row.time_in_force)
