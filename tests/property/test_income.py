"""What an account is told about its past adds up to what it has, through random trading."""

from collections import Counter

import pytest

from events.events import FundingSettled, LossSocialised
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, Account
from exchange.aggregate.state import Exchange
from exchange.intake.trade import ledger
from exchange.intake.trade.ledger import IncomeType
from exchange.intake.trade.past import AccountPast
from tests.flow import market_venue, pause_ns, random_command
from tests.venue import Venue

COMMANDS = 8_000
# With these some losses are shared, twice several in one market.
SEEDS = (0, 2, 3)


def past_of(state: Exchange) -> AccountPast:
    """Return an empty past of a venue's markets."""
    return AccountPast(lambda symbol: state.markets[symbol].unit)


def customers(state: Exchange) -> list[Account]:
    """Return the accounts that are not the exchange's own."""
    return [account for n, account in state.accounts.items() if n >= FIRST_USER_ACCOUNT_ID]


def check_money(past: AccountPast, state: Exchange) -> None:
    """Σ income is what an account has: its wallet and its buckets."""
    for account in customers(state):
        rows = list(past.ledger.income(account.account_id))
        has = account.wallet + sum(position.bucket for position in account.positions.values())
        assert has == sum(row.amount for row in rows), account.account_id
        kinds = Counter((row.kind, row.row_id) for row in rows)
        assert {1} == set(kinds.values()), "a number was given twice"


def check_sizes(past: AccountPast, state: Exchange) -> None:
    """Σ of what was traded and of what was closed without orders is what an account holds, leg by leg."""
    for account in customers(state):
        sizes: Counter[tuple[str, int]] = Counter()
        trades = list(past.ledger.trades(account.account_id))
        for trade in trades:
            sign = -trade.event.taker_side if trade.is_maker else trade.event.taker_side
            sizes[trade.event.market, trade.leg] += sign * trade.event.quantity_lots
        for closure in past.ledger.closures(account.account_id):
            sizes[closure.symbol, closure.leg] += closure.side * closure.lots
        held = {
            (position.market.symbol, position.leg): position.size_lots
            for position in account.positions.values()
            if position.size_lots
        }
        assert held == {key: lots for key, lots in sizes.items() if lots}, account.account_id


def seen(venue: Venue, kind: type) -> int:
    """Count the events of a kind in a venue's log."""
    return sum(isinstance(event, kind) for groups in venue.log for group in groups for event in group)


@pytest.mark.parametrize("seed", SEEDS)
def test_income_and_trades_add_up(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every hundredth command, for each account; and the same when the log is read again afterwards."""
    for name in ("INCOME_KEPT_PER_ACCOUNT", "TRADES_KEPT_PER_ACCOUNT", "CLOSURES_KEPT_PER_ACCOUNT"):
        monkeypatch.setattr(ledger, name, 10**6)
    venue, random = market_venue(seed)
    venue.checks = False
    live = past_of(venue.state)
    for groups in venue.log[:1]:
        live.feed(groups)
    live.adopt(venue.state)
    for groups in venue.log[1:]:
        live.feed(groups)
    for n in range(COMMANDS):
        venue.now_ns += pause_ns(random)
        venue.send(random_command(venue.state, random))
        live.feed(venue.log[-1])
        if n % 100 == 0:
            check_money(live, venue.state)
    check_money(live, venue.state)
    check_sizes(live, venue.state)
    assert seen(venue, FundingSettled)
    print(f"seed {seed}: {seen(venue, LossSocialised)} losses were shared")

    again = past_of(venue.state)
    for groups in venue.log:
        again.feed(groups)
    again.adopt(venue.state)
    check_money(again, venue.state)
    check_sizes(again, venue.state)
    for account in customers(venue.state):
        one, other = (
            [row for row in past.ledger.income(account.account_id) if row.kind != IncomeType.INSURANCE_CLEAR]
            for past in (live, again)
        )
        assert one == other
