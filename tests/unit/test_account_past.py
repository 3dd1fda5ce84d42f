"""What became of conditional orders, how amendments are told, and how much of the past is kept."""

import pytest

from events.commands import Deposit
from events.events import ConditionalAccepted, OrderAccepted
from exchange.intake.trade import algos, ledger
from exchange.intake.trade.algos import AlgoRecord, algo_answer
from exchange.intake.trade.orders import AMENDMENTS_KEPT_PER_ORDER
from exchange.intake.trade.past import AccountPast
from tests.venue import Trader, Venue, money, only

BTC = "BTCUSDT"


class Told:
    """A venue with BTCUSDT at 50,000, and the past of its accounts, up to date whenever it is asked for."""

    def __init__(self) -> None:
        self.venue = Venue()
        self.venue.index(BTC, "50000")
        self._past = AccountPast(lambda symbol: self.venue.state.markets[symbol].unit)
        self._fed = 0

    @property
    def past(self) -> AccountPast:
        """The past, with all that has happened."""
        for groups in self.venue.log[self._fed :]:
            self._past.feed(groups)
        self._fed = len(self.venue.log)
        return self._past

    def conditional(self, trader: Trader, number: int) -> AlgoRecord:
        """Return what is known of a conditional order."""
        record = self.past.algos.find(trader.account_id, number, "")
        assert record is not None
        return record

    def trade(self, size: str, price: str) -> tuple[Trader, Trader]:
        """Return a buyer and a seller who have traded."""
        buyer, seller = self.venue.account("100000"), self.venue.account("100000")
        seller.sell(BTC, size, price)
        buyer.buy(BTC, size, price)
        return buyer, seller


@pytest.fixture
def told() -> Told:
    """Make a venue."""
    return Told()


def waiting(trader: Trader, size: str = "0.1", **options: object) -> int:
    """Let an account have a stop at 49,000 that watches the mark; return its number."""
    events = trader.conditional("STOP", "SELL", BTC, size, "49000", watches="MARK", **options)  # type: ignore[arg-type]
    return only(ConditionalAccepted, events).conditional_id


def test_a_triggered_order_is_finished_when_it_ends(told: Told) -> None:
    """TRIGGERED while its limit order rests, FINISHED with its price once that is filled or gone."""
    long, short = told.trade("0.2", "50000")
    first, second = waiting(long, price="49500"), waiting(long, price="49600")
    assert "NEW" == told.conditional(long, first).status
    told.venue.index(BTC, "48900")
    row = told.conditional(long, first)
    assert ("TRIGGERED", True) == (row.status, row.triggered_ms > 0)
    assert row.order is not None
    assert row.order.accepted.order_id == row.order_id
    short.buy(BTC, "0.1", "49500")
    assert "FINISHED" == told.conditional(long, first).status
    answer = algo_answer(row, told.venue.state.markets[BTC].spec)
    assert ("49500.00000000", str(row.order_id), "0.100") == (
        answer.actual_price,
        answer.actual_order_id,
        answer.actual_qty,
    )
    long.cancel(BTC, told.conditional(long, second).order_id)
    assert "FINISHED" == told.conditional(long, second).status


def test_a_refused_order_rejects_its_condition(told: Told) -> None:
    """With the reason, and without the number of an order that never was."""
    long, short = told.trade("0.1", "50000")
    number = waiting(long, reduce_only=True)
    short.buy(BTC, "0.1", "50000")
    long.sell(BTC, "0.1", "50000")
    told.venue.index(BTC, "48900")
    row = told.conditional(long, number)
    assert ("REJECTED", 0) == (row.status, row.order_id)
    assert "reduce" in row.reason


def test_the_exchange_expires_what_a_user_cancels(told: Told) -> None:
    """CANCELED on request; EXPIRED with a position that is liquidated."""
    long, short = told.venue.account("300"), told.venue.account("100000")
    short.sell(BTC, "0.1", "50000")
    long.buy(BTC, "0.1", "50000")
    mine = waiting(long)
    events = long.conditional("STOP", "SELL", BTC, "0.1", "40000", watches="MARK")
    theirs = only(ConditionalAccepted, events).conditional_id
    long.cancel_conditional(BTC, mine)
    told.venue.index(BTC, "47000")
    told.venue.liquidate(long)
    assert "CANCELED" == told.conditional(long, mine).status
    assert "EXPIRED" == told.conditional(long, theirs).status


def test_amendments_are_kept_up_to_a_number(told: Told) -> None:
    """The last ones, counted from the first."""
    trader = told.venue.account("100000")
    order_id = only(OrderAccepted, trader.buy(BTC, "0.1", "49000")).order_id
    for n in range(AMENDMENTS_KEPT_PER_ORDER + 5):
        trader.amend(BTC, order_id, "0.1", str(48_000 + n))
    rows = told.past.orders.get(order_id).amendments
    assert rows is not None
    assert AMENDMENTS_KEPT_PER_ORDER == len(rows)
    assert [6, AMENDMENTS_KEPT_PER_ORDER + 5] == [rows[0].count, rows[-1].count]


def test_conditional_orders_that_ended_are_kept_up_to_a_number(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest goes first, with its client id; what waits stays."""
    monkeypatch.setattr(algos, "ENDED_KEPT_PER_ACCOUNT", 2)
    long, _ = told.trade("0.1", "50000")
    staying = waiting(long)
    gone = [waiting(long, client_id=f"c{n}") for n in range(3)]
    for number in gone:
        long.cancel_conditional(BTC, number)
    past = told.past
    assert [staying, *gone[1:]] == [
        row.accepted.conditional_id for row in past.algos.of_account(long.account_id, (staying,))
    ]
    assert past.algos.find(long.account_id, 0, "c0") is None
    assert past.algos.find(long.account_id, 0, "c2") is not None


def test_rows_of_money_are_kept_up_to_a_number(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(ledger, "INCOME_KEPT_PER_ACCOUNT", 3)
    trader = told.venue.account("1")
    for amount in ("2", "3", "4"):
        told.venue.send(Deposit(account_id=trader.account_id, amount=money(amount)))
    assert [2, 3, 4] == [row.amount // 10**8 for row in told.past.ledger.income(trader.account_id)]
