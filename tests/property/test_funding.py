"""Funding moves money between positions and makes none; a mark can be worked out from its event alone.

Random holders, rates, marks and books, against fractions.
"""

from fractions import Fraction
from math import ceil, floor
from statistics import median

from hypothesis import given, settings
from hypothesis import strategies as st

from events.events import FrameHeader, FundingSettled, MarkPriceChanged
from events.values import BUY, SELL, MarginMode, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID, Position
from exchange.aggregate.state import Exchange
from tests.venue import NS_PER_MS, Trader, Venue, every, only, spec

BTC = "BTCUSDT"
RATE_ONE = 10**8
INTERVAL_NS = 3600 * 10**9

# A holder: hedged or one-way, isolated or cross, and lots to buy (positive) or sell from the maker.
HOLDERS = st.lists(
    st.tuples(
        st.booleans(),
        st.booleans(),
        st.lists(st.integers(-900, 900).filter(bool), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


def venue_with(holders: list[tuple[bool, bool, list[int]]], rate: int, price_ticks: int) -> Venue:
    """Return a venue where these hold positions against one maker, and the next settlement has this rate.

    The book is empty at the settlement, so the rate is the interest.
    """
    venue = Venue(
        specs=(
            spec(
                BTC,
                funding_interval_s=3600,
                interest_rate=rate,
                funding_cap=50_000,
                min_notional=0,
                mark_band=0,
            ),
        )
    )
    venue.checks = False
    price = f"{price_ticks // 10}.{price_ticks % 10}"
    venue.index(BTC, price)
    maker = venue.account("900000000")
    for hedged, isolated, sizes in holders:
        trader = venue.account("10000000")
        if hedged:
            trader.hedge()
        if isolated:
            trader.mode(BTC, "ISOLATED")
        for lots in sizes:
            side, other = ("BUY", "SELL") if lots > 0 else ("SELL", "BUY")
            leg = ("LONG" if lots > 0 else "SHORT") if hedged else "BOTH"
            size = f"{abs(lots) // 1000}.{abs(lots) % 1000:03d}"
            maker.place(other, BTC, size, price)
            trader.place(side, BTC, size, price, leg=leg)
    return venue


def paid_by(state: Exchange, before: Exchange) -> dict[tuple[int, int], int]:
    """Return what each open position paid: from its bucket, or its account's wallet.

    An account with two cross legs is counted as one, under the leg that comes first.
    """
    found: dict[tuple[int, int], int] = {}
    for (account_id, leg), position in state.markets[BTC].holders.items():
        was = before.accounts[account_id]
        if position.mode is MarginMode.ISOLATED:
            bucket = was.position(before.markets[BTC], leg).bucket  # type: ignore[arg-type]
            found[account_id, leg] = bucket - position.bucket
        else:
            wallet = state.accounts[account_id].wallet
            key = (account_id, min(each for owner, each in state.markets[BTC].holders if owner == account_id))
            found[key] = was.wallet - wallet
    return found


def exact(positions: list[Position], mark_ticks: int, rate: int) -> Fraction:
    """Return size × mark × rate of some positions, not rounded."""
    lots = sum(position.size_lots for position in positions)
    return Fraction(lots * mark_ticks * 10_000 * rate, RATE_ONE)


@given(HOLDERS, st.integers(-50_000, 50_000), st.integers(400_003, 600_007), st.integers(-2_000, 2_000))
@settings(max_examples=120)
def test_funding_moves_money_and_makes_none(
    holders: list[tuple[bool, bool, list[int]]], rate: int, price_ticks: int, move_ticks: int
) -> None:
    """Nobody pays less or receives more than exact, by less than a unit; the fund gets the difference."""
    venue = venue_with(holders, rate, price_ticks)
    before = venue.replayed()
    venue.now_ns = venue.state.markets[BTC].next_funding_ns - NS_PER_MS
    mark_ticks = price_ticks + move_ticks
    settled = only(FundingSettled, venue.index(BTC, f"{mark_ticks // 10}.{mark_ticks % 10}"))
    state = venue.state

    assert (rate, mark_ticks) == (settled.rate, settled.mark_ticks)
    state.check_identities()
    total = sum(a.wallet + sum(p.bucket for p in a.positions.values()) for a in state.accounts.values())
    was = sum(a.wallet + sum(p.bucket for p in a.positions.values()) for a in before.accounts.values())
    assert was == total

    paid = paid_by(state, before)
    for (account_id, leg), amount in paid.items():
        positions = [
            p
            for p in state.accounts[account_id].positions.values()
            if p.size_lots and (p.mode is MarginMode.CROSS or p.leg == leg)
        ]
        assert 0 <= amount - exact(positions, mark_ticks, rate) < len(positions)
    residue = sum(paid.values())
    fund = state.accounts[FUND_ACCOUNT_ID].position(state.markets[BTC])
    assert 0 <= residue <= len(state.markets[BTC].holders)
    assert residue == settled.residue == settled.paid - settled.received == fund.bucket


# One side of a book: levels, the best first, as (ticks away from the one before, lots).
LEVELS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), max_size=6)
# What happens between two index updates: the index's move in ticks, and seconds.
UPDATES = st.lists(st.tuples(st.integers(-3_000, 3_000), st.integers(1, 2_000)), min_size=1, max_size=6)


def fill(book: list[tuple[int, int]], notional: int) -> Fraction | None:
    """Return the average price of trading a notional with (price, lots) levels, None if they are too few."""
    rest, lots = Fraction(notional, 10_000), Fraction(0)
    for price_ticks, level_lots in book:
        taken = min(rest, Fraction(price_ticks * level_lots))
        rest -= taken
        lots += taken / price_ticks
    return Fraction(notional, 10_000) / lots if rest == 0 else None


def quote(trader: Trader, side: Side, levels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rest orders away from a price of 50,000; return the book they make, the best level first."""
    price_ticks = 500_000
    book = []
    for away, lots in levels:
        price_ticks -= side * away
        price = f"{price_ticks // 10}.{price_ticks % 10}"
        trader.place(side.name, BTC, f"0.{lots:03d}", price)
        book.append((price_ticks, lots))
    return book


def clamped(value: int, limit: int) -> int:
    """Return the value, at most the limit away from zero."""
    return max(-limit, min(limit, value))


def premium_of(changed: MarkPriceChanged, index_ticks: int) -> int:
    """Return what the impact prices are away from the index, as a rate of it rounded toward zero."""
    index = Fraction(index_ticks * 65_536)
    above = max(Fraction(0), changed.impact_bid - index)
    below = max(Fraction(0), index - changed.impact_ask)
    return int((above - below) / index * RATE_ONE)


def mark_of(index_ticks: int, rate: int, left: Fraction, basis: int, band: int) -> int:
    """Return the mark without a last price: the median of its three inputs, in the band around the index.

    `left` is the part of the funding interval that is still to come.
    """
    inputs = [
        floor(index_ticks * (1 + Fraction(rate, RATE_ONE) * left)),
        index_ticks + floor(Fraction(basis, 65_536)),
        index_ticks,
    ]
    return index_ticks + clamped(median(inputs) - index_ticks, index_ticks * band // RATE_ONE)


@given(LEVELS, LEVELS, st.integers(1, 60_000_000), UPDATES)
@settings(max_examples=120)
def test_a_mark_follows_from_its_event(
    bids: list[tuple[int, int]],
    asks: list[tuple[int, int]],
    notional: int,
    updates: list[tuple[int, int]],
) -> None:
    """Impact prices are those of an exact fill; mark, basis, premium and rate follow from the records."""
    notional *= 10_000
    terms = spec(
        BTC,
        funding_interval_s=3600,
        interest_rate=10_000,
        funding_cap=300_000,
        impact_notional=notional,
        min_notional=0,
    )
    venue = Venue(specs=(terms,))
    venue.checks = False
    venue.index(BTC, "50000")
    maker = venue.account("900000000")
    buying, selling = quote(maker, BUY, bids), quote(maker, SELL, asks)

    index_ticks, basis = 500_000, 0
    premiums, rate = [0], 0
    for move, seconds in updates:
        index_ticks += move
        venue.now_ns += seconds * 10**9
        events = venue.index(BTC, f"{index_ticks // 10}.{index_ticks % 10}")
        changed = only(MarkPriceChanged, events)
        now_ns = only(FrameHeader, venue.log[-1][0]).now_ns

        bid, ask = fill(buying, notional), fill(selling, notional)
        assert (floor(bid * 65_536) if bid else 0) == changed.impact_bid
        assert (ceil(ask * 65_536) if ask else 0) == changed.impact_ask
        assert (buying[0][0] if buying else 0, selling[0][0] if selling else 0) == (
            changed.bid_ticks,
            changed.ask_ticks,
        )

        assert (premium_of(changed, index_ticks) if bid and ask else 0) == changed.premium
        premiums.append(changed.premium)

        mid = Fraction(changed.bid_ticks + changed.ask_ticks, 2)
        away = (mid - index_ticks) * 65_536 if changed.bid_ticks and changed.ask_ticks else Fraction(0)
        basis += floor((away - basis) / 30)
        assert (basis, rate) == (changed.basis_average, changed.funding_rate)

        left = Fraction(max(0, changed.next_funding_ns - now_ns), INTERVAL_NS)
        assert mark_of(index_ticks, rate, left, basis, terms.mark_band) == changed.mark_ticks

        for settled in every(FundingSettled, events):
            average = int(Fraction(sum(premiums), len(premiums)))
            pulled = average + clamped(10_000 - average, 50_000)
            rate = clamped(pulled, 300_000)
            assert (average, len(premiums), rate) == (
                settled.premium_average,
                settled.premium_count,
                settled.rate,
            )
            premiums = []
