"""The halt: sums that do not add up, an administrator's word, and the way back."""

import pytest

from events.commands import Checkpoint, Deposit, HaltExchange, ListMarket, ResumeExchange, SetMarketStatus
from events.events import (
    CheckpointPassed,
    Event,
    ExchangeHalted,
    ExchangeResumed,
    LiquidationSkipped,
    LiquidationStarted,
    MarketStatusChanged,
    OrderCancelled,
    TradeExecuted,
    Withdrawn,
)
from events.values import LotsGap, MarketStatus, RejectCode
from exchange.aggregate import halting, state
from exchange.aggregate.account import Account, Position
from exchange.aggregate.image import restore, take_image
from exchange.aggregate.state import Exchange, IdentityError
from tests.flow import market_venue, random_command
from tests.planted import IS_COMPILED
from tests.venue import Trader, Venue, every, only, refusal, spec

BTC = "BTCUSDT"
MONEY_FAULT, LOTS_FAULT = 1, 3


class Broken:
    """A venue where two traders have just traded while `apply` lost money or contracts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, money: int = 0, lots: int = 0) -> None:
        if IS_COMPILED:
            pytest.skip("nothing can be planted in compiled rules")
        self.venue = Venue()
        self.venue.index(BTC, "50000")
        self.venue.checks = False
        self.maker, self.taker = self.venue.account("100000"), self.venue.account("10000")
        post = state.post

        def lose(account: Account, position: Position, signed_lots: int, *amounts: int) -> None:
            post(account, position, signed_lots, *amounts)
            if account.account_id == self.taker.account_id:
                account.wallet -= money
                position.size_lots -= lots

        with monkeypatch.context() as patch:
            patch.setattr(state, "post", lose)
            self.events = self.trade()

    def trade(self) -> list[Event]:
        self.maker.sell(BTC, "0.1", "50000")
        return self.taker.buy(BTC, "0.1", "50000")


def test_money_that_vanishes_halts_the_exchange_in_the_same_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One unit is enough: the event has the sum, all markets are left to cancels, and a copy knows it."""
    broken = Broken(monkeypatch, money=MONEY_FAULT)
    venue = broken.venue

    only(TradeExecuted, broken.events)
    halted = broken.events[-1]
    assert isinstance(halted, ExchangeHalted)
    assert (-MONEY_FAULT, (), (BTC, "ETHUSDT")) == (halted.money_gap, halted.lots_gaps, halted.markets)
    assert {MarketStatus.CANCEL_ONLY} == {market.status for market in venue.state.markets.values()}
    with pytest.raises(IdentityError):
        venue.state.check_identities()
    assert venue.state.digest() == restore(take_image(venue.state).body).digest()


def test_contracts_that_vanish_halt_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event names the market and the lots."""
    broken = Broken(monkeypatch, lots=LOTS_FAULT)
    halted = only(ExchangeHalted, broken.events)
    assert (0, (LotsGap(market=BTC, lots=-LOTS_FAULT),)) == (halted.money_gap, halted.lots_gaps)


def test_a_halt_is_one_event_however_long_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap stays, and is not reported again while nobody has ended the halt."""
    broken = Broken(monkeypatch, money=MONEY_FAULT)
    assert [] == every(ExchangeHalted, broken.venue.send(Deposit(account_id=2, amount=1)))


def test_an_accepted_gap_does_not_halt_again_but_the_next_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming records the gap, counted anew; trading goes on; one unit more is noticed."""
    broken = Broken(monkeypatch, money=MONEY_FAULT)
    venue = broken.venue

    resumed = only(ExchangeResumed, venue.send(ResumeExchange(reason="found")))

    assert (-MONEY_FAULT, (BTC, "ETHUSDT"), "found") == (resumed.money_gap, resumed.markets, resumed.reason)
    venue.state.check_identities()
    assert [] == every(ExchangeHalted, broken.trade())
    assert venue.state.digest() == restore(take_image(venue.state).body).digest()
    venue.state.accounts[broken.maker.account_id].wallet += 5
    assert 5 - MONEY_FAULT == only(ExchangeHalted, checkpoint(venue)).money_gap


def checkpoint(venue: Venue) -> list[Event]:
    """Put a checkpoint into the log."""
    return venue.send(Checkpoint(seq=venue.state.seq, digest=bytes(32), rules_version=1))


def test_a_full_count_comes_with_every_checkpoint() -> None:
    """What no event has done is found there."""
    venue = Venue()
    trader = venue.account("100")
    venue.checks = False
    trader.account.wallet += 7

    assert [] == every(ExchangeHalted, venue.send(Deposit(account_id=2, amount=1)))
    passed, halted = checkpoint(venue)

    assert isinstance(passed, CheckpointPassed)
    assert isinstance(halted, ExchangeHalted)
    assert 7 == halted.money_gap


def test_a_full_count_comes_every_so_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of the entry, so that whoever decides again counts at the same places."""
    monkeypatch.setattr(halting, "RECOUNT_FRAMES", 10)
    venue = Venue()
    trader = venue.account("100")
    venue.checks = False
    trader.account.wallet += 7
    while venue.state.seq < 9:
        assert [] == every(ExchangeHalted, venue.send(Deposit(account_id=2, amount=1)))
    only(ExchangeHalted, venue.send(Deposit(account_id=2, amount=1)))


def halted_venue() -> tuple[Venue, Trader, Trader]:
    """Return a venue that an administrator has halted, with an order of one of its traders."""
    venue = Venue(fund="10000")
    venue.index(BTC, "50000")
    maker, taker = venue.account("100000"), venue.account("300")
    maker.sell(BTC, "0.1", "50000")
    taker.buy(BTC, "0.1", "50000")
    maker.sell(BTC, "0.1", "51000")
    halted = only(ExchangeHalted, venue.send(HaltExchange(reason="drill")))
    assert ("drill", 0, ()) == (halted.reason, halted.money_gap, halted.lots_gaps)
    return venue, maker, taker


def test_a_halted_exchange_cancels_and_nothing_that_spreads_a_fault() -> None:
    """No orders, no withdrawals, no opening of markets; cancels go through, and a second halt is refused."""
    venue, maker, _ = halted_venue()
    assert RejectCode.MARKET_CLOSED == refusal(maker.buy(BTC, "0.1", "49000"))
    assert RejectCode.EXCHANGE_HALTED == refusal(maker.withdraw("1"))
    opening = SetMarketStatus(market=BTC, status=MarketStatus.TRADING, reason="")
    assert RejectCode.EXCHANGE_HALTED == refusal(venue.send(opening))
    assert RejectCode.EXCHANGE_HALTED == refusal(venue.send(ListMarket(spec=spec("XRPUSDT"))))
    assert RejectCode.EXCHANGE_HALTED == refusal(venue.send(HaltExchange(reason="again")))
    only(OrderCancelled, maker.cancel_all(BTC))


def test_nobody_is_liquidated_while_the_exchange_is_halted() -> None:
    """The request is recorded as one that could do nothing; after the halt it runs."""
    venue, _, taker = halted_venue()
    venue.index(BTC, "47000")
    assert "the exchange is halted" == only(LiquidationSkipped, venue.liquidate(taker)).reason
    venue.send(ResumeExchange(reason="drill is over"))
    only(LiquidationStarted, venue.liquidate(taker))


def test_resuming_opens_what_the_halt_had_closed() -> None:
    """A market that was halted by hand meanwhile stays so; withdrawals go on; no halt, nothing to resume."""
    venue, maker, _ = halted_venue()
    halting_eth = SetMarketStatus(market="ETHUSDT", status=MarketStatus.HALTED, reason="")
    only(MarketStatusChanged, venue.send(halting_eth))

    resumed = only(ExchangeResumed, venue.send(ResumeExchange(reason="over")))

    assert (BTC,) == resumed.markets
    assert MarketStatus.TRADING is venue.state.markets[BTC].status
    assert MarketStatus.HALTED is venue.state.markets["ETHUSDT"].status
    only(Withdrawn, maker.withdraw("1"))
    assert RejectCode.EXCHANGE_NOT_HALTED == refusal(venue.send(ResumeExchange(reason="over")))


@pytest.mark.parametrize("seed", range(2))
def test_the_running_sums_are_those_of_the_tables(seed: int) -> None:
    """After random trading of every kind, nothing was noticed, and there is nothing to notice."""
    venue, random = market_venue(seed)
    for _ in range(600):
        venue.send(random_command(venue.state, random))
        assert not venue.state.has_gap()
    assert (0, {}) == venue.state.count_gaps()
    assert venue.state.digest() == venue.replayed().digest()


def test_replay_knows_of_the_halt() -> None:
    """A state built by `apply` alone is halted, and resumed, where the original was."""
    venue, _, _ = halted_venue()
    replayed: Exchange = venue.replayed()
    assert replayed.halt is not None
    assert venue.state.digest() == replayed.digest()
    venue.send(ResumeExchange(reason="over"))
    assert venue.replayed().halt is None
