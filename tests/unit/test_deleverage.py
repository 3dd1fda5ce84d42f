"""Deleveraging: the other side closes what nobody else can bear."""

import pytest

from events.commands import Deposit, SetMarketStatus
from events.events import (
    DeleverageRanked,
    Event,
    ExchangeHalted,
    LiquidationFinished,
    LiquidationSkipped,
    LiquidationStarted,
    LossSocialised,
    OrderCancelled,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import CloseReason, DeleverageStep, LiquidationResult, LotsGap, MarketStatus, Side
from exchange.aggregate import deleverage, waterfall
from exchange.aggregate.account import FUND_ACCOUNT_ID, Account, Position
from exchange.aggregate.margin import bucket_equity
from exchange.aggregate.ranking import Shares, rank
from exchange.audit.printer import readable
from tests.planted import IS_COMPILED
from tests.unit.test_scope import covered
from tests.venue import Trader, Venue, every, money, only, plain, spec

BTC = "BTCUSDT"


def venue_without_fund(fund: str = "0", **changes: object) -> Venue:
    """Return a venue without trading fees, BTC at 50,000 and ETH at 3,000."""
    specs = [spec(symbol, maker_fee=0, taker_fee=0, **changes) for symbol in (BTC, "ETHUSDT")]
    venue = Venue(specs=tuple(specs), fund=fund)
    venue.index(BTC, "50000")
    venue.index("ETHUSDT", "3000")
    return venue


def isolated(venue: Venue, leverage: int, deposit: str = "1000") -> Trader:
    """Open an account whose BTC positions are isolated."""
    trader = venue.account(deposit)
    trader.mode(BTC, "ISOLATED")
    trader.leverage(BTC, leverage)
    return trader


def trade(
    buyer: Trader, seller: Trader, size: str, price: str, *, buys: str = "BOTH", sells: str = "BOTH"
) -> None:
    """Let two accounts trade BTC; `buys` and `sells` name their legs."""
    seller.sell(BTC, size, price, leg=sells)
    only(TradeExecuted, buyer.buy(BTC, size, price, leg=buys))


def lots(trader: Trader, leg: str = "BOTH", symbol: str = BTC) -> int:
    """Return the size of a position."""
    return trader.position(symbol, leg).size_lots


def equity(trader: Trader, leg: str = "BOTH") -> str:
    """Return the equity of the bucket of a BTC position as a plain decimal."""
    return plain(bucket_equity(trader.account, trader.position(BTC, leg)))


def fund_wallet(venue: Venue) -> str:
    """Return the fund's wallet as a plain decimal."""
    return plain(venue.state.accounts[FUND_ACCOUNT_ID].wallet)


def finished(events: list[Event]) -> LiquidationResult:
    """Return how the one liquidation among the events ended."""
    return only(LiquidationFinished, events).result


def test_other_side_closes_at_the_bankruptcy_price() -> None:
    """Mark 44,000, bankruptcy 45,000: the short gives up the last 100 of its profit of 600."""
    venue = venue_without_fund()
    alice, bob = isolated(venue, 10), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    bob.buy("ETHUSDT", "1", "2000")
    own_order = bob.buy(BTC, "0.1", "40000")
    venue.index(BTC, "44000")

    events = venue.liquidate(alice, BTC)

    assert LiquidationResult.DELEVERAGED == finished(events)
    assert (0, 0) == (lots(alice), lots(bob))
    assert ("500", "10500", "0") == (alice.wallet, bob.wallet, fund_wallet(venue))
    done = only(PositionDeleveraged, events)
    assert (100, money("4500"), money("-500")) == (done.size_lots, done.value, done.realised)
    cancelled = only(OrderCancelled, events)
    assert CloseReason.DELEVERAGED == cancelled.reason
    assert own_order[0].order_id == cancelled.order_id  # type: ignore[attr-defined]
    assert 1 == len(bob.account.orders)  # the one in the other market stays
    assert venue.state.digest() == venue.replayed().digest()


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
def test_what_deleveraging_loses_halts_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that vanishes from a party, and a lot that it gets too much, are noticed in the same entry."""
    venue = venue_without_fund()
    alice, bob = isolated(venue, 10), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    venue.checks = False
    post = waterfall.post

    def lose(account: Account, position: Position, *amounts: int) -> None:
        post(account, position, *amounts)
        if account.account_id == bob.account_id:
            account.wallet -= 1
            position.size_lots += 2

    monkeypatch.setattr(waterfall, "post", lose)
    halted = only(ExchangeHalted, venue.liquidate(alice, BTC))
    assert (-1, (LotsGap(market=BTC, lots=2),)) == (halted.money_gap, halted.lots_gaps)
    assert (-1, {BTC: 2}) == (venue.state.money_gap, venue.state.lots_gaps)


def test_ranks_by_profit_and_effective_leverage() -> None:
    """Equal profit ratios: 20 times leverage goes before 5 times; the row shows the figures of the score."""
    venue = venue_without_fund()
    alice, other = isolated(venue, 10), venue.account("100000")
    low, high = isolated(venue, 5), isolated(venue, 20)
    trade(other, low, "0.06", "50000")
    trade(alice, high, "0.04", "50000")
    trade(alice, other, "0.01", "50000")
    venue.index(BTC, "44000")

    events = venue.liquidate(alice, BTC)

    done = only(PositionDeleveraged, events)
    assert [(high.account_id, 40), (low.account_id, 10)] == [
        (row.account_id, row.quantity_lots) for row in done.parties
    ]
    first = done.parties[0]
    assert (money("240"), money("-2000"), money("1760"), money("340")) == (
        first.unrealised,
        first.entry_cost,
        first.notional,
        first.equity,
    )
    assert 2 == done.count
    assert done.digest == only(DeleverageRanked, events).digest
    # 10 of the 60 lots were closed at 45,000: the part of the bucket and the profit of 50 are released.
    assert plain(money("1000") - money("600") + money("100") + money("50")) == low.wallet


def test_equal_scores_go_by_account_and_losers_come_after_winners() -> None:
    """A loser with a higher leverage has the lower score, and a bucket without equity is last."""
    venue = venue_without_fund()
    whale = venue.account("1000000")
    second, first = isolated(venue, 20), isolated(venue, 20)
    losing_high, losing_low, bankrupt = isolated(venue, 50), isolated(venue, 10), isolated(venue, 100)
    for trader in (losing_high, losing_low):
        trade(whale, trader, "0.01", "43800")
    trade(whale, bankrupt, "0.01", "43000")
    trade(whale, first, "0.01", "50000")
    trade(whale, second, "0.01", "50000")
    venue.index(BTC, "44000")

    rows = rank(venue.state.accounts, venue.state.markets[BTC], Side.SELL).rows

    expected = [second, first, losing_high, losing_low, bankrupt]
    assert [each.account_id for each in expected] == [row.account_id for row in rows]


def test_a_party_gives_only_what_its_bucket_has_and_the_rest_is_socialised() -> None:
    """100 are missing on 100 lots; 22 lots is all that carol's 22 can take, dave pays for the others."""
    venue = venue_without_fund()
    alice, bob = isolated(venue, 10), venue.account("10000")
    carol, dave = isolated(venue, 100, "100"), isolated(venue, 10)
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    trade(bob, carol, "0.05", "44000")
    trade(bob, dave, "0.05", "44000")
    assert ("22", "220") == (equity(carol), equity(dave))

    events = venue.liquidate(alice, BTC)

    assert LiquidationResult.SOCIALISED == finished(events)
    ranked, at_mark = every(PositionDeleveraged, events)
    assert [(DeleverageStep.RANKED, 72), (DeleverageStep.AT_MARK, 28)] == [
        (each.step, each.size_lots) for each in (ranked, at_mark)
    ]
    shared = only(LossSocialised, events)
    assert (money("28"), money("28"), 0) == (shared.missing, shared.charged, shared.unpaid)
    bearers = [each for each in (bob, carol, dave) if shared in covered(venue, each.account_id)]
    assert [dave] == bearers, "the log shows it to who paid"
    assert (0, 0, 0, 0) == tuple(lots(each) for each in (alice, bob, carol, dave))
    assert ("500", "78", "922", "0") == (alice.wallet, carol.wallet, dave.wallet, fund_wallet(venue))
    assert venue.state.digest() == venue.replayed().digest()


def test_withdrawn_profit_is_missing_in_the_funds_wallet() -> None:
    """Who profited is gone, who is there has 44: the fund's wallet ends at −56 and the event says so."""
    venue = venue_without_fund()
    alice, bob, carol = isolated(venue, 10), venue.account("10000"), isolated(venue, 100, "100")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    trade(bob, carol, "0.1", "44000")
    bob.withdraw("10600")

    events = venue.liquidate(alice, BTC)

    assert money("56") == only(LossSocialised, events).unpaid
    assert ("500", "56", "-56") == (alice.wallet, carol.wallet, fund_wallet(venue))
    assert (0, 0) == (lots(alice), lots(carol))


def test_fund_pays_its_allotment_then_its_wallet_before_anybody_shares() -> None:
    """Of 56 missing the allotment has 10 and the wallet 20; the other market's allotment is not touched."""
    venue = venue_without_fund(fund="10")
    alice, bob, carol = isolated(venue, 10), venue.account("10000"), isolated(venue, 100, "100")
    venue.send(Deposit(account_id=FUND_ACCOUNT_ID, amount=money("20")))
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    trade(bob, carol, "0.1", "44000")

    shared = only(LossSocialised, venue.liquidate(alice, BTC))

    assert (money("10"), money("20"), money("26")) == (
        shared.from_allotment,
        shared.from_wallet,
        shared.unpaid,
    )
    fund = venue.state.accounts[FUND_ACCOUNT_ID]
    assert (0, money("10")) == (fund.positions[BTC].bucket, fund.positions["ETHUSDT"].bucket)


def test_the_accounts_own_opposite_leg_comes_first() -> None:
    """Isolated hedge: the short leg closes what it can of the long one before anybody else is asked."""
    venue = venue_without_fund()
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.hedge()
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 10)
    trade(alice, bob, "0.1", "50000", buys="LONG")
    trade(bob, alice, "0.04", "50000", sells="SHORT")
    venue.index(BTC, "44000")

    events = venue.liquidate(alice, BTC, "LONG")

    steps = [(each.step, each.size_lots) for each in every(PositionDeleveraged, events)]
    assert [(DeleverageStep.OWN_LEG, 40), (DeleverageStep.RANKED, 60)] == steps
    assert (0, 0, 0) == (lots(alice, "LONG"), lots(alice, "SHORT"), lots(bob))
    # 1,000 − 500 lost; the short gained 200 of its 240.
    assert "700" == alice.wallet


def test_legs_on_one_pool_are_netted_before_shares_are_counted() -> None:
    """Cross hedge: 40 lots of both legs close at mark, the other 60 at the bankruptcy price of the pool."""
    venue = venue_without_fund()
    alice, bob = venue.account("300"), venue.account("10000")
    alice.hedge()
    alice.leverage(BTC, 100)
    trade(alice, bob, "0.1", "50000", buys="LONG")
    trade(bob, alice, "0.04", "50000", sells="SHORT")
    venue.index(BTC, "44000")  # equity 300 − 600 + 240 = −60

    events = venue.liquidate(alice)

    own, ranked = every(PositionDeleveraged, events)
    assert (DeleverageStep.OWN_LEG, 40, money("1760")) == (own.step, own.size_lots, own.value)
    assert (DeleverageStep.RANKED, 60, money("2700")) == (ranked.step, ranked.size_lots, ranked.value)
    assert (0, 0) == (lots(alice, "LONG"), lots(alice, "SHORT"))
    assert ("0", "10300") == (alice.wallet, bob.wallet)


def test_the_funds_opposite_position_comes_before_customers() -> None:
    """The fund took a short over; a long it cannot bear closes against that as far as the allotment goes."""
    venue = venue_without_fund()
    alice, bob, eve = isolated(venue, 10, "3000"), venue.account("100000"), isolated(venue, 125, "100")
    trade(bob, eve, "0.05", "50000")  # bucket 20
    venue.index(BTC, "50250")
    venue.liquidate(eve, BTC)  # equity 7.5 goes to the fund with the short
    assert -50 == venue.state.accounts[FUND_ACCOUNT_ID].positions[BTC].size_lots
    venue.index(BTC, "50000")
    trade(alice, bob, "0.5", "50000")
    venue.index(BTC, "44000")  # alice lacks 500, the fund has 7.5 + 312.5

    events = venue.liquidate(alice, BTC)

    first, second = every(PositionDeleveraged, events)
    assert (DeleverageStep.FUND, 50, FUND_ACCOUNT_ID) == (
        first.step,
        first.size_lots,
        first.parties[0].account_id,
    )
    assert (DeleverageStep.RANKED, 450) == (second.step, second.size_lots)
    assert (0, "500", "0") == (lots(alice), alice.wallet, fund_wallet(venue))


def test_funds_own_position_is_deleveraged_once_its_allotment_is_spent() -> None:
    """The fund bore 100 of its 150; the next 1,000 down is more than it has, so that the others pay."""
    venue = venue_without_fund(fund="150")
    alice, bob = isolated(venue, 10), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    assert only(PositionTakenOver, venue.liquidate(alice, BTC))
    assert [] == every(PositionDeleveraged, venue.index(BTC, "43600"))

    events = venue.index(BTC, "43000")

    assert FUND_ACCOUNT_ID == only(LiquidationStarted, events).account_id
    assert LiquidationResult.DELEVERAGED == finished(events)
    own = venue.state.accounts[FUND_ACCOUNT_ID].positions[BTC]
    assert (0, 0, 0) == (own.size_lots, own.bucket, lots(bob))
    assert "10650" == bob.wallet  # 700 at mark less 50


def test_the_log_shows_it_to_whoever_was_closed() -> None:
    """A reader who asks for the events of an account finds those in which it was a party."""
    venue = venue_without_fund()
    alice, bob, carol = isolated(venue, 10), venue.account("10000"), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")

    done = only(PositionDeleveraged, venue.liquidate(alice, BTC))

    seen = [covered(venue, each.account_id, BTC) for each in (alice, bob, carol)]
    assert [True, True, False] == [done in events for events in seen]
    shown = readable(done, {BTC: venue.state.markets[BTC].spec})
    assert ("4500.00000000", "0.100") == (shown["value"], shown["parties"][0]["quantity"])


def test_a_burst_ranks_once() -> None:
    """Ten liquidations at one mark use one ranking, in its order; the next mark has its own."""
    venue = venue_without_fund()
    losers = [isolated(venue, 20 + n, "200") for n in range(10)]
    winners = [isolated(venue, 5 + n) for n in range(10)]
    for loser, winner in zip(losers, winners, strict=True):
        trade(loser, winner, "0.01", "50000")
    venue.index(BTC, "47000")

    events = [event for loser in losers[:9] for event in venue.liquidate(loser, BTC)]

    assert 1 == len(every(DeleverageRanked, events))
    used = [row.account_id for done in every(PositionDeleveraged, events) for row in done.parties]
    assert [winner.account_id for winner in reversed(winners)][:9] == used
    venue.index(BTC, "46000")
    assert only(DeleverageRanked, venue.liquidate(losers[9], BTC))
    assert venue.state.digest() == venue.replayed().digest()


def test_one_liquidation_uses_only_so_many_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left stands with its part of the equity, and the next request goes on."""
    monkeypatch.setattr(deleverage, "PARTIES_AND_ORDERS_MAX", 2)
    venue = venue_without_fund()
    alice = isolated(venue, 10)
    winners = [isolated(venue, 10) for _ in range(5)]
    for winner in winners:
        trade(alice, winner, "0.02", "50000")
    venue.index(BTC, "44000")

    assert LiquidationResult.CONTINUES == finished(venue.liquidate(alice, BTC))
    assert (60, "-60") == (lots(alice), equity(alice))
    assert LiquidationResult.CONTINUES == finished(venue.liquidate(alice, BTC))
    assert LiquidationResult.DELEVERAGED == finished(venue.liquidate(alice, BTC))
    assert ("500", 0) == (alice.wallet, lots(alice))


def test_who_opened_after_the_ranking_is_found_when_all_others_are_used() -> None:
    """The second liquidation at a mark finds a short that was opened after the first."""
    venue = venue_without_fund()
    alice, eve, bob = isolated(venue, 10), isolated(venue, 10), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    trade(eve, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    venue.liquidate(alice, BTC)
    late = isolated(venue, 2, "5000")
    trade(bob, late, "0.1", "44000")

    events = venue.liquidate(eve, BTC)

    assert LiquidationResult.SOCIALISED == finished(events)
    assert (0, 0) == (lots(eve), lots(late))
    assert "4900" == late.wallet


@pytest.mark.parametrize("order", ["alice first", "eve first"])
def test_who_cannot_bear_one_position_is_asked_for_the_next(order: str) -> None:
    """Alice lacks 44 a lot and eve 4: carol's 12.49 a lot are passed over for the one, not for the other."""
    names = ("max_lots", "max_market_lots", "max_position_lots", "max_open_interest_lots")
    venue = venue_without_fund("0", lot_size=100_000_000, **dict.fromkeys(names, 10_000))
    venue.index(BTC, "1000")
    alice, eve = isolated(venue, 100), isolated(venue, 20)
    bob, carol, whale = isolated(venue, 1, "10000"), isolated(venue, 100), isolated(venue, 10)
    trade(alice, bob, "1", "1000")
    trade(eve, bob, "3", "1000")
    venue.index(BTC, "949")
    trade(whale, carol, "3", "949")
    venue.index(BTC, "946")
    assert ("-44", "-12", "37.47") == (equity(alice), equity(eve), equity(carol))

    used = {}
    for loser in (alice, eve) if order == "alice first" else (eve, alice):
        done = only(PositionDeleveraged, venue.liquidate(loser, BTC))
        used[loser] = [(row.account_id, row.place, row.quantity_lots) for row in done.parties]

    assert {alice: [(bob.account_id, 1, 1)], eve: [(carol.account_id, 0, 3)]} == used
    assert venue.state.digest() == venue.replayed().digest()


def test_a_ranking_finds_the_next_row_that_has_enough() -> None:
    """Buckets of 12.5, 25 and 50: what was noted or shared counts from then on."""
    venue = venue_without_fund()
    whale = venue.account("1000000")
    shorts = [isolated(venue, leverage) for leverage in (40, 20, 10)]
    for short in shorts:
        trade(whale, short, "0.01", "50000")
    market = venue.state.markets[BTC]
    ranking = rank(venue.state.accounts, market, Side.SELL)
    assert [money("12.5"), money("25"), money("50")] == ranking.known()  # equal scores, by account
    assert [0, 1, 2, -1] == [ranking.next_with(money(each), 0) for each in ("0", "25", "26", "51")]

    ranking.note(2, shorts[2].position(BTC), money("20"))
    assert [1, -1] == [ranking.next_with(money("20"), 0), ranking.next_with(money("26"), 0)]
    ranking.share(money("3"), money("5"))

    assert [money("5"), money("10"), money("8")] == ranking.known()


def test_rows_that_are_not_what_was_known_are_ranked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the ranking, two shorts close by themselves: looking at both is enough to rank again."""
    monkeypatch.setattr(deleverage, "ROWS_IN_VAIN_MAX", 2)
    venue = venue_without_fund()
    alice, eve, whale = isolated(venue, 10), isolated(venue, 10), venue.account("1000000")
    shorts = [isolated(venue, leverage) for leverage in (10, 9, 8, 7)]
    for short in shorts:
        trade(alice if short is shorts[0] else eve, short, "0.03", "50000")
    venue.index(BTC, "44000")
    assert only(DeleverageRanked, venue.liquidate(alice, BTC))
    for short in shorts[1:3]:
        trade(short, whale, "0.03", "44000")
    whale.buy(BTC, "0.06", "44000")

    events = venue.liquidate(eve, BTC)

    assert 2 == only(DeleverageRanked, events).count
    assert [shorts[3].account_id, whale.account_id] == [
        row.account_id for done in every(PositionDeleveraged, events) for row in done.parties
    ]
    assert venue.state.digest() == venue.replayed().digest()


def test_holes_of_parties_are_filled_up_at_once_by_their_other_side() -> None:
    """Two bankrupt shorts close a bankrupt long: one event fills both, and the longs pay for it."""
    venue = venue_without_fund()
    alice, bob, dave = isolated(venue, 10), venue.account("10000"), isolated(venue, 2, "50000")
    carols = [isolated(venue, 125), isolated(venue, 125)]
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "43000")
    for carol in carols:
        trade(bob, carol, "0.05", "43000")  # a bucket of 17.2, and −32.8 at 44,000
    eric = venue.account("100000")
    trade(dave, eric, "0.1", "43000")
    eric_buys = isolated(venue, 125)
    trade(eric, eric_buys, "0.1", "43000")  # all shorts are bankrupt at 44,000
    venue.index(BTC, "44000")

    events = venue.liquidate(alice, BTC)

    first, holes = every(LossSocialised, events)
    assert (money("100"), Side.SELL, money("100")) == (first.missing, first.side, first.unpaid)
    assert Side.BUY == holes.side
    assert [(carols[0].account_id, money("32.8")), (carols[1].account_id, money("32.8"))] == [
        (hole.account_id, hole.missing) for hole in holes.holes
    ]
    assert (money("65.6"), 1, 0) == (holes.charged, holes.buckets, holes.unpaid)
    assert "2184.4" == equity(dave)  # 2,150 and a profit of 100
    assert venue.state.digest() == venue.replayed().digest()


def test_the_rounding_of_a_shared_loss_goes_to_the_allotment() -> None:
    """Three equal buckets share 0.00000100: each pays 34 units, and 2 are too much."""
    venue = venue_without_fund()
    market = venue.state.markets[BTC]
    whale = venue.account("1000000")
    shorts = [isolated(venue, 10) for _ in range(3)]
    for short in shorts:
        trade(whale, short, "0.01", "50000")
    market.rankings[Side.SELL] = rank(venue.state.accounts, market, Side.SELL)

    shares = Shares(venue.state.accounts, market, Side.SELL, (), 100)

    assert ([34, 34, 34], 100, 2) == (shares.parts, shares.charged, shares.residue)


def test_a_bankrupt_party_is_closed_last_and_leaves_no_hole() -> None:
    """Both sides are bankrupt and alone: both buckets end at zero, the fund's wallet says what is missing."""
    venue = venue_without_fund()
    alice, bob, carol = isolated(venue, 10), venue.account("10000"), isolated(venue, 125, "100")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "43000")
    trade(bob, carol, "0.1", "43000")  # a bucket of 34.4
    venue.index(BTC, "44000")  # carol: −65.6, alice: −100

    events = venue.liquidate(alice, BTC)

    assert LiquidationResult.SOCIALISED == finished(events)
    assert (0, 0) == (lots(alice), lots(carol))
    assert (0, 0) == (alice.position(BTC).bucket, carol.position(BTC).bucket)
    assert "-165.6" == fund_wallet(venue)


def test_halted_or_stale_market_is_left_alone() -> None:
    """Nothing is closed at a mark that is not known to be good."""
    venue = venue_without_fund(index_age_ms_max=60_000)
    alice, bob = isolated(venue, 10), venue.account("10000")
    trade(alice, bob, "0.1", "50000")
    venue.index(BTC, "44000")
    venue.send(SetMarketStatus(market=BTC, status=MarketStatus.HALTED, reason="test"))
    assert "halted" in only(LiquidationSkipped, venue.liquidate(alice, BTC)).reason
    venue.send(SetMarketStatus(market=BTC, status=MarketStatus.TRADING, reason="test"))
    venue.after(60_002)

    assert "stale" in only(LiquidationSkipped, venue.liquidate(alice, BTC)).reason
    assert 100 == lots(alice)


def test_one_liquidation_brings_the_next_through_last_and_mid() -> None:
    """The index stands still: what the first one sells moves last and mid, and these the mark."""
    venue = venue_without_fund(fund="1000")
    first, second = isolated(venue, 125), isolated(venue, 111)
    maker = venue.account("1000000")
    trade(first, maker, "0.1", "50000")
    trade(second, maker, "0.1", "50000")
    venue.index(BTC, "49799")
    for price in ("49790", "49700", "49500"):
        maker.buy(BTC, "0.05", price)
    maker.sell(BTC, "0.1", "49810")
    assert [] == every(LiquidationStarted, venue.liquidate(second, BTC))

    sold = every(TradeExecuted, venue.liquidate(first, BTC))
    assert [497_900, 497_000] == [trade.price_ticks for trade in sold]
    for _ in range(60):
        venue.index(BTC, "49799")

    assert 0 == lots(first)
    assert venue.state.markets[BTC].mark_ticks < 497_500
    assert only(LiquidationStarted, venue.liquidate(second, BTC))
