"""The mark's funding input, the premium, the rate, and what a settlement posts to whom."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from events.commands import CreateLog
from events.events import (
    Event,
    FundingSettled,
    FundingSkipped,
    LiquidationFinished,
    MarkPriceChanged,
    Rejected,
)
from events.values import BUY, SELL, LiquidationResult, RejectCode
from exchange.aggregate.funding import funding_rate, impact_price, next_boundary, premium_of
from exchange.aggregate.market import spec_problem
from exchange.decimals import parse_fixed
from tests.venue import MONEY, NS_PER_MS, Trader, Venue, every, money, only, plain, refusal, spec

BTC = "BTCUSDT"
HOUR_S = 3600
NS_PER_S = 10**9
# The venue begins 800 s past a whole hour.
START_S = 1_700_000_000
FIRST_BOUNDARY_NS = (START_S + 2_800) * NS_PER_S
# One price in the unit of impact prices.
TICK = 65_536


def market(*, fund: str = "0", **changes: object) -> Venue:
    """Return a venue with one market: funding each hour, no interest, cap 1 %, impact notional 5,000."""
    terms: dict[str, object] = {
        "funding_interval_s": HOUR_S,
        "funding_cap": 300_000,
        "impact_notional": money("5000"),
    }
    return Venue(specs=(spec(BTC, **(terms | changes)),), fund=fund)


def at(venue: Venue, time_ns: int, price: str = "50000") -> list[Event]:
    """Report an index at a time; return what that brings about."""
    venue.now_ns = time_ns - NS_PER_MS
    return venue.index(BTC, price)


def opened(venue: Venue, size: str = "1", price: str = "50000") -> tuple[Trader, Trader]:
    """Let alice buy from bob; the maker's and the taker's fee are 0.02 and 0.05 %."""
    alice, bob = venue.account("100000"), venue.account("100000")
    alice.buy(BTC, size, price)
    bob.sell(BTC, size, price)
    return alice, bob


def wallets(*traders: Trader) -> list[int]:
    """Return what each has in the wallet."""
    return [trader.account.wallet for trader in traders]


# Impact prices and the premium


def test_an_impact_price_is_the_average_of_a_fill() -> None:
    """5,000 buys 0.05 at 50,000 and then (2,500 / 50,500) at 50,500: on average about 50,248.76."""
    venue = market()
    venue.index(BTC, "50000")
    seller = venue.account("100000")
    seller.sell(BTC, "0.05", "50000")
    seller.sell(BTC, "1", "50500")
    book = venue.state.markets[BTC]

    # 5000 × 50500 / (0.05 × 50500 + 2500) = 252,500,000 / 5,025, here in ticks of 0.1 and rounded up.
    assert -(-2_525_000_000 * TICK // 5_025) == impact_price(book, SELL, money("5000"))
    assert 500_000 * TICK == impact_price(book, SELL, money("2500"))
    assert 0 == impact_price(book, BUY, money("5000"))


def test_a_book_that_is_too_thin_has_no_impact_price() -> None:
    """The notional must be there in full, to the last unit."""
    venue = market()
    venue.index(BTC, "50000")
    buyer = venue.account("100000")
    buyer.buy(BTC, "0.1", "50000")
    book = venue.state.markets[BTC]

    assert 500_000 * TICK == impact_price(book, BUY, money("5000"))
    assert 0 == impact_price(book, BUY, money("5000") + 1)


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [
        (101 * TICK, 102 * TICK, 1_000_000),
        (98 * TICK, 99 * TICK, -1_000_000),
        (99 * TICK, 101 * TICK, 0),
        (0, 0, 0),
        (0, 99 * TICK, 0),
        (101 * TICK, 0, 0),
        (300 * TICK, 301 * TICK, MONEY),
    ],
)
def test_the_premium_is_how_far_the_book_is_from_the_index(bid: int, ask: int, expected: int) -> None:
    """Bids above the index or asks below it; nothing when a side has no price; at most 100 %."""
    assert expected == premium_of(100, bid, ask)


def test_a_premium_is_rounded_toward_zero() -> None:
    """Longs and shorts are rounded alike."""
    assert (33_333_333, -33_333_333) == (
        premium_of(3, 4 * TICK, 5 * TICK),
        premium_of(3, 1 * TICK, 2 * TICK),
    )


# The rate


@pytest.mark.parametrize(
    ("premium", "expected"),
    [
        (0, 10_000),  # the interest alone
        (60_000, 10_000),  # the interest pulls by 0.05 %
        (60_001, 10_001),
        (-40_000, 10_000),
        (-40_001, 9_999),
        (200_000, 150_000),
        (900_000, 300_000),  # the cap
        (-900_000, -300_000),
    ],
)
def test_the_rate_follows_the_premium(premium: int, expected: int) -> None:
    """Average premium, pulled toward the interest by at most 0.05 %, and capped."""
    assert expected == funding_rate(spec(interest_rate=10_000, funding_cap=300_000), premium)


def test_the_rate_averages_the_premiums_of_the_interval() -> None:
    """Four updates, one with bids 1 % above the index: an average of 0.25 %, less the pull of 0.05 %."""
    venue = market()
    at(venue, FIRST_BOUNDARY_NS - 4 * NS_PER_S)
    at(venue, FIRST_BOUNDARY_NS - 3 * NS_PER_S)
    buyer, seller = venue.account("100000"), venue.account("100000")
    buyer.buy(BTC, "1", "50500")
    seller.sell(BTC, "1", "51000")
    raised = only(MarkPriceChanged, at(venue, FIRST_BOUNDARY_NS - 2 * NS_PER_S))
    buyer.cancel_all(BTC)

    settled = only(FundingSettled, at(venue, FIRST_BOUNDARY_NS))

    assert (505_000 * TICK, 510_000 * TICK, 1_000_000) == (
        raised.impact_bid,
        raised.impact_ask,
        raised.premium,
    )
    assert (250_000, 4, 200_000) == (settled.premium_average, settled.premium_count, settled.rate)
    assert (0, 0) == (venue.state.markets[BTC].premium_sum, venue.state.markets[BTC].premium_count)


# Boundaries


@pytest.mark.parametrize(("after_s", "expected_s"), [(0, 3_600), (3_599, 3_600), (3_600, 7_200)])
def test_boundaries_are_whole_multiples_of_the_interval(after_s: int, expected_s: int) -> None:
    """The next one is later than now, counted from 1970."""
    assert expected_s * NS_PER_S == next_boundary(spec(funding_interval_s=HOUR_S), after_s * NS_PER_S)


def test_the_first_index_fixes_the_first_boundary() -> None:
    """The first update at or past the boundary settles, after its own mark; the next does not."""
    venue = market()
    assert FIRST_BOUNDARY_NS == only(MarkPriceChanged, venue.index(BTC, "50000")).next_funding_ns

    assert [MarkPriceChanged] == [type(event) for event in at(venue, FIRST_BOUNDARY_NS - NS_PER_MS)]
    assert [MarkPriceChanged, FundingSettled] == [type(event) for event in at(venue, FIRST_BOUNDARY_NS)]
    assert [MarkPriceChanged] == [type(event) for event in venue.index(BTC, "50000")]
    assert FIRST_BOUNDARY_NS + HOUR_S * NS_PER_S == venue.state.markets[BTC].next_funding_ns


def test_missed_boundaries_are_skipped() -> None:
    """After 3.5 hours of silence one settlement is made, and the three others are named in one event."""
    venue = market()
    venue.index(BTC, "50000")
    hour_ns = HOUR_S * NS_PER_S

    events = at(venue, FIRST_BOUNDARY_NS + 3 * hour_ns + hour_ns // 2)

    settled, skipped = only(FundingSettled, events), only(FundingSkipped, events)
    assert (FIRST_BOUNDARY_NS, FIRST_BOUNDARY_NS + hour_ns) == (settled.boundary_ns, settled.next_funding_ns)
    assert (FIRST_BOUNDARY_NS + hour_ns, 3) == (skipped.boundary_ns, skipped.count)
    assert FIRST_BOUNDARY_NS + 4 * hour_ns == venue.state.markets[BTC].next_funding_ns


def test_an_interval_of_zero_is_no_funding() -> None:
    """No boundary, no premium, no settlement, however long it takes."""
    venue = market(funding_interval_s=0)
    venue.index(BTC, "50000")
    buyer = venue.account("100000")
    buyer.buy(BTC, "1", "50500")

    changed = only(MarkPriceChanged, at(venue, FIRST_BOUNDARY_NS + 10**15))

    assert (0, 0, 0) == (changed.next_funding_ns, changed.impact_bid, changed.premium)
    assert not every(FundingSettled, venue.index(BTC, "50000"))


# What is posted


def test_longs_pay_shorts_from_the_wallet() -> None:
    """0.01 % on one coin at 50,000 is 5 USDT, from the long's wallet to the short's."""
    venue = market(interest_rate=10_000)
    venue.index(BTC, "50000")
    alice, bob = opened(venue)
    before = wallets(alice, bob)

    settled = only(FundingSettled, at(venue, FIRST_BOUNDARY_NS))

    assert (money("5"), money("5"), 0) == (settled.paid, settled.received, settled.residue)
    assert [money("-5"), money("5")] == [
        after - was for was, after in zip(before, wallets(alice, bob), strict=True)
    ]


def test_a_negative_rate_is_paid_by_shorts() -> None:
    """With an interest of −0.01 % the short pays."""
    venue = market(interest_rate=-10_000)
    venue.index(BTC, "50000")
    _, bob = opened(venue)
    before = bob.account.wallet

    assert -10_000 == only(FundingSettled, at(venue, FIRST_BOUNDARY_NS)).rate
    assert money("-5") == bob.account.wallet - before


def test_payers_round_up_receivers_down_and_the_fund_keeps_the_rest() -> None:
    """A rate of 1e-8 on 0.001 at 50,000.1 is 50.0001 units: the long pays 51, the short gets 50."""
    venue = market(interest_rate=1, min_notional=0)
    venue.index(BTC, "50000.1")
    alice, bob = opened(venue, "0.001", "50000.1")
    before = wallets(alice, bob)

    settled = only(FundingSettled, at(venue, FIRST_BOUNDARY_NS, "50000.1"))

    assert (51, 50, 1) == (settled.paid, settled.received, settled.residue)
    assert [before[0] - 51, before[1] + 50] == wallets(alice, bob)
    assert 1 == venue.state.accounts[0].position(venue.state.markets[BTC]).bucket


def test_an_isolated_position_pays_from_its_own_bucket_even_below_zero() -> None:
    """The wallet is not touched; a bucket that cannot pay goes negative, and the fund takes it over."""
    venue = market(interest_rate=100_000, fund="100")
    venue.index(BTC, "50000")
    alice, bob = venue.account("100000"), venue.account("100000")
    alice.mode(BTC, "ISOLATED")
    alice.leverage(BTC, 100)
    alice.buy(BTC, "0.1", "50000")
    bob.sell(BTC, "0.1", "50000")
    wallet, bucket = alice.account.wallet, alice.position(BTC).bucket
    assert money("50") == bucket

    for hour in range(3):
        # A rate of 0.05 % an hour: the interest of 0.1 % pulls by no more than that.
        at(venue, FIRST_BOUNDARY_NS + hour * HOUR_S * NS_PER_S)
    assert money("42.5") == alice.position(BTC).bucket

    for hour in range(3, 21):
        at(venue, FIRST_BOUNDARY_NS + hour * HOUR_S * NS_PER_S)
    assert ("-2.5", wallet) == (plain(alice.position(BTC).bucket), alice.account.wallet)

    finished = only(LiquidationFinished, venue.liquidate(alice, BTC))
    assert (LiquidationResult.TAKEN_OVER, money("-2.5")) == (
        finished.result,
        finished.fund_after - finished.fund_before,
    )
    assert (0, 0, wallet) == (
        alice.position(BTC).size_lots,
        alice.position(BTC).bucket,
        alice.account.wallet,
    )


def test_both_legs_of_a_hedge_settle_for_themselves() -> None:
    """A long of 0.3 pays and a short of 0.1 receives: 1.5 and 0.5 USDT at 0.01 %."""
    venue = market(interest_rate=10_000)
    venue.index(BTC, "50000")
    alice, bob = venue.account("100000"), venue.account("100000")
    alice.hedge()
    alice.buy(BTC, "0.3", "50000", leg="LONG")
    bob.sell(BTC, "0.3", "50000")
    alice.sell(BTC, "0.1", "50000", leg="SHORT")
    bob.buy(BTC, "0.1", "50000")
    before = wallets(alice, bob)

    settled = only(FundingSettled, at(venue, FIRST_BOUNDARY_NS))

    assert (money("1.5"), money("1.5")) == (settled.paid, settled.received)
    assert [before[0] - money("1"), before[1] + money("1")] == wallets(alice, bob)


def test_the_mark_of_the_settling_update_counts() -> None:
    """The index moves to 60,000 with the update that settles: 6 USDT, not 5 (the mark is at its band)."""
    venue = market(interest_rate=10_000, mark_band=0)
    venue.index(BTC, "50000")
    opened(venue)

    settled = only(FundingSettled, at(venue, FIRST_BOUNDARY_NS, "60000"))

    assert (600_000, money("6")) == (settled.mark_ticks, settled.paid)


# The mark's first input


def test_the_mark_looks_ahead_to_the_next_funding() -> None:
    """With a rate of 0.05 % and half an hour left, the first input is 0.025 % above the index: 12.5."""
    venue = market(interest_rate=50_000)
    venue.index(BTC, "50000")
    settling = only(MarkPriceChanged, at(venue, FIRST_BOUNDARY_NS))

    half = only(MarkPriceChanged, at(venue, FIRST_BOUNDARY_NS + HOUR_S // 2 * NS_PER_S))

    assert (500_000, 0) == (settling.funding_ticks, settling.funding_rate)
    assert (500_125, 50_000) == (half.funding_ticks, half.funding_rate)
    assert FIRST_BOUNDARY_NS + HOUR_S * NS_PER_S == half.next_funding_ns


def test_the_funding_input_rounds_down() -> None:
    """A rate of −0.05 % with a third of the hour left takes 83.3 ticks off: 84, since prices round down."""
    venue = market(interest_rate=-50_000)
    venue.index(BTC, "50000")
    at(venue, FIRST_BOUNDARY_NS)

    changed = only(MarkPriceChanged, at(venue, FIRST_BOUNDARY_NS + 2_400 * NS_PER_S))

    assert 500_000 - 84 == changed.funding_ticks


def test_the_event_holds_what_its_mark_is_made_of() -> None:
    """Best prices, basis, last trade and funding: mark and premium can be worked out from the event alone."""
    venue = market()
    venue.index(BTC, "50000")
    opened(venue, "0.1", "50010")
    quoting = venue.account("100000")
    quoting.buy(BTC, "1", "50040")
    quoting.sell(BTC, "1", "50080")

    changed = only(MarkPriceChanged, venue.index(BTC, "50000"))

    assert (500_400, 500_800) == (changed.bid_ticks, changed.ask_ticks)
    assert 600 * TICK // 30 == changed.basis_average
    assert (500_000, 500_020, 500_100) == (changed.funding_ticks, changed.basis_ticks, changed.last_ticks)
    assert 500_020 == changed.mark_ticks
    assert (500_400 * TICK, 500_800 * TICK) == (changed.impact_bid, changed.impact_ask)
    assert 80_000 == changed.premium


# Specifications, replay, history


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"funding_interval_s": -1}, "funding_interval_s"),
        ({"funding_interval_s": 7 * 24 * 3600 + 1}, "funding_interval_s"),
        ({"funding_cap": MONEY}, "funding_cap"),
        ({"interest_rate": -1}, "interest_rate"),
        ({"impact_notional": -1}, "impact_notional"),
        ({"index_age_ms_max": -1}, "index_age_ms_max"),
        ({"index_recovery_updates": 0}, "index_recovery_updates"),
        ({"source_age_ms_max": -1}, "source_age_ms_max"),
        ({"source_band": -1}, "source_band"),
    ],
)
def test_bad_funding_terms_are_named(change: dict[str, object], field: str) -> None:
    """A specification whose funding or index terms make no sense is refused with the field's name."""
    problem = spec_problem(spec(BTC, **change))

    assert problem is not None
    assert field in problem


def test_replay_settles_alike() -> None:
    """Applying the events again gives the same wallets, buckets and clock of funding."""
    venue = market(interest_rate=10_000)
    venue.index(BTC, "50000")
    opened(venue, "0.777", "50000")
    at(venue, FIRST_BOUNDARY_NS + 2 * HOUR_S * NS_PER_S, "51234.5")

    assert venue.state.digest() == venue.replayed().digest()


def test_a_refused_command_settles_nothing() -> None:
    """Only an index update settles; other commands after a boundary leave it for the next one."""
    venue = market(interest_rate=10_000)
    venue.index(BTC, "50000")
    venue.now_ns = FIRST_BOUNDARY_NS

    refused = venue.send(CreateLog(log_id="0" * 32, rules_version=1))

    assert (RejectCode.LOG_EXISTS, [Rejected]) == (refusal(refused), [type(event) for event in refused])
    assert every(FundingSettled, venue.index(BTC, "50000"))


def published_rates(file: Path) -> list[int]:
    """Return a venue's published funding rates, in 1e-8."""
    with file.open(newline="") as rows:
        return [parse_fixed(row["Funding Rate"], signed=True) for row in csv.DictReader(rows)]


def test_published_rates_settle_to_the_unit(shared_data: Path) -> None:
    """The rates of the first 200 days of 2020 come out of a book as far from the index as each of them says.

    The premiums were not published. A rate other than the interest of 0.01 % stands for one that is 0.05 %
    further out; the interest itself for any in between, here none. A short of 1 coin at 100,000 has in the
    end received exactly Σ rate × 100,000; a tick of 0.001 is 1e-8 of that price.
    """
    rates = published_rates(shared_data / "funding" / "BTCUSDT_8h_2020_2023.csv")[:600]
    assert (-300_000, 283) == (min(rates), rates.count(10_000))
    venue = market(
        tick_size=100_000,
        max_price_ticks=200_000_000,
        mark_band=0,
        funding_interval_s=8 * HOUR_S,
        interest_rate=10_000,
        funding_cap=300_000,
    )
    venue.checks = False
    venue.index(BTC, "100000")
    _, bob = opened(venue, "1", "100000")
    quoting = venue.account("1000000")
    book = venue.state.markets[BTC]
    at(venue, book.next_funding_ns, "100000")  # ends the interval of the first index, which had no premium
    before = bob.account.wallet

    found = []
    for rate in rates:
        if rate > 10_000:
            quoting.buy(BTC, "1", str(Decimal(100_000_000 + rate + 50_000) / 1000))
            quoting.sell(BTC, "1", "110000")
        elif rate < 10_000:
            quoting.sell(BTC, "1", str(Decimal(100_000_000 + rate - 50_000) / 1000))
            quoting.buy(BTC, "1", "90000")
        found.append(only(FundingSettled, at(venue, book.next_funding_ns, "100000")).rate)
        quoting.cancel_all(BTC)

    venue.state.check_identities()
    assert rates == found
    assert sum(rates) * 100_000 == bob.account.wallet - before
