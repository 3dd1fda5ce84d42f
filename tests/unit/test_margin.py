"""Margin: formulas one can check by hand."""

from fractions import Fraction

import pytest

from events.commands import Withdraw
from events.values import Bracket
from exchange.aggregate.liquidation_price import bankruptcy_price, liquidation_price_of
from exchange.aggregate.margin import (
    initial_margin,
    is_liquidatable,
    maintenance,
    survey,
    unrealised,
)
from exchange.aggregate.market import Brackets, Market, spec_problem
from tests.venue import Trader, Venue, money, spec


def hold(trader: Trader, other: Trader, symbol: str, side: str, size: str, price: str) -> None:
    """Let `trader` open a position against `other` at a price."""
    opposite = "SELL" if side == "BUY" else "BUY"
    other.place(opposite, symbol, size, price)
    trader.place(side, symbol, size, price)


def test_bracket_caps_are_inclusive() -> None:
    """A notional equal to a cap belongs to the lower bracket, and margin is continuous there."""
    brackets = Brackets(spec().brackets)

    assert (0, 1) == (brackets.containing(money("50000")), brackets.containing(money("50000") + 1))
    assert money("200") == brackets.maintenance(money("50000"))
    assert money("200.005") == brackets.maintenance(money("50001"))


def test_deductions_follow_the_published_table() -> None:
    """cum_n = cum_{n−1} + floor_n × (rate_n − rate_{n−1}), on ten published brackets of a contract."""
    caps = (50_000, 250_000, 10**6, 10**7, 2 * 10**7, 5 * 10**7, 10**8, 2 * 10**8, 3 * 10**8, 5 * 10**8)
    rates = (
        400_000,
        500_000,
        10**6,
        2_500_000,
        5 * 10**6,
        10**7,
        12_500_000,
        15_000_000,
        25_000_000,
        50_000_000,
    )
    published = (0, 50, 1_300, 16_300, 266_300, 1_266_300, 2_516_300, 5_016_300, 25_016_300, 100_016_300)
    rows = tuple(
        Bracket(cap=cap * 10**8, maintenance_rate=rate, max_leverage=1)
        for cap, rate in zip(caps, rates, strict=True)
    )

    assert [each * 10**16 for each in published] == Brackets(rows).deductions


def test_isolated_position_takes_its_margin_from_the_wallet(venue: Venue) -> None:
    """Opening 0.1 BTC at 50,000 with leverage 10 moves 500 to the bucket."""
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)

    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    assert (money("500"), "500") == (alice.position("BTCUSDT").bucket, alice.wallet)
    assert money("500") == initial_margin(alice.position("BTCUSDT"))
    assert money("20") == maintenance(alice.position("BTCUSDT"))


def test_partial_close_keeps_the_margin_ratio(venue: Venue) -> None:
    """Closing half of an isolated position at mark releases half of the bucket."""
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    hold(alice, bob, "BTCUSDT", "SELL", "0.05", "50000")

    assert (money("250"), "750") == (alice.position("BTCUSDT").bucket, alice.wallet)


def test_realised_loss_of_a_partial_close_stays_in_the_bucket(venue: Venue) -> None:
    """A loss beyond the closed share of the bucket releases nothing and never touches the wallet."""
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    venue.index("BTCUSDT", "47000")

    hold(alice, bob, "BTCUSDT", "SELL", "0.05", "44000")

    assert (money("200"), "500") == (alice.position("BTCUSDT").bucket, alice.wallet)


def test_flip_closes_then_opens_with_its_own_margin(venue: Venue) -> None:
    """Selling 0.3 against a long of 0.1 leaves a short of 0.2 with the margin of a short of 0.2."""
    alice, bob = venue.account("2000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")

    hold(alice, bob, "BTCUSDT", "SELL", "0.3", "50000")

    position = alice.position("BTCUSDT")
    assert (-200, money("-10000"), money("1000")) == (
        position.size_lots,
        position.entry_cost,
        position.bucket,
    )
    assert "1000" == alice.wallet


def test_cross_exposure_counts_the_worse_side_only(venue: Venue) -> None:
    """A short of 10,000 with bids of 15,000 needs margin for 10,000, as one-way mode nets them."""
    alice, bob = venue.account("10000"), venue.account("100000")
    alice.leverage("BTCUSDT", 1)
    hold(alice, bob, "BTCUSDT", "SELL", "0.2", "50000")

    alice.buy("BTCUSDT", "0.3", "50000")

    assert money("10000") == survey(alice.account).required


def test_open_loss_is_reserved(venue: Venue) -> None:
    """An order worse than mark reserves the loss it would open with."""
    alice = venue.account("10000")

    alice.buy("BTCUSDT", "0.1", "51000")

    assert money("100") == alice.position("BTCUSDT").extras
    assert money("255") + money("100") == survey(alice.account).required


def test_unrealised_profit_margins_cross_orders_only(venue: Venue) -> None:
    """Profit at mark can carry another cross position but cannot move to an isolated one."""
    alice, bob = venue.account("1000"), venue.account("100000")
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    venue.index("BTCUSDT", "60000")

    pool = survey(alice.account)
    assert (money("1700"), money("700")) == (pool.free, pool.transferable)


def test_withdrawing_never_makes_a_healthy_account_liquidatable(venue: Venue) -> None:
    """Beyond the leverage's cap the requirement is the maintenance margin, so that it stays in the wallet."""
    alice, bob = venue.account("100000"), venue.account("10000000")
    alice.leverage("BTCUSDT", 125)
    venue.index("BTCUSDT", "1000")
    hold(alice, bob, "BTCUSDT", "SELL", "50", "1000")
    venue.index("BTCUSDT", "2900")

    pool = survey(alice.account)
    venue.send(Withdraw(account_id=alice.account_id, amount=pool.transferable))
    pool = survey(alice.account)
    assert not is_liquidatable(pool.equity, pool.maintenance)


def test_liquidation_price_isolated(venue: Venue) -> None:
    """(bucket + cum − entry) / (|size| × rate − size): 500 on 0.1 BTC from 50,000 dies at 45,180.72…"""
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    position = alice.position("BTCUSDT")

    price = Fraction(*liquidation_price_of(alice.account, position) or (0, 1)) / 10

    assert (Fraction(5000) - 500) / (Fraction("0.1") * (1 - Fraction("0.004"))) == price


def test_liquidation_price_is_where_equity_meets_maintenance(venue: Venue) -> None:
    """Cross, short, with another position: at the price found, equity equals maintenance."""
    alice, bob = venue.account("1000"), venue.account("100000")
    hold(alice, bob, "BTCUSDT", "SELL", "0.1", "50000")
    hold(alice, bob, "ETHUSDT", "BUY", "1", "3000")
    position = alice.position("BTCUSDT")

    numerator, denominator = liquidation_price_of(alice.account, position) or (0, 1)
    price = Fraction(numerator, denominator) / 10

    other = unrealised(alice.position("ETHUSDT")) - maintenance(alice.position("ETHUSDT"))
    equity = 1000 + Fraction(other, 10**8) + Fraction("0.1") * (50_000 - price)
    notional = Fraction("0.1") * price
    assert Fraction(400_000, 10**8) * notional == equity


def test_over_collateralised_long_has_no_liquidation_price(venue: Venue) -> None:
    """A long that no price can liquidate has none."""
    alice, bob = venue.account("10000"), venue.account("10000")
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    position = alice.position("BTCUSDT")

    assert liquidation_price_of(alice.account, position) is None


def test_bankruptcy_price_is_where_the_share_is_gone(venue: Venue) -> None:
    """500 of equity behind 0.1 BTC at 50,000 is gone at 45,000."""
    alice, bob = venue.account("1000"), venue.account("10000")
    alice.mode("BTCUSDT", "ISOLATED")
    alice.leverage("BTCUSDT", 10)
    hold(alice, bob, "BTCUSDT", "BUY", "0.1", "50000")
    position = alice.position("BTCUSDT")

    assert 450_000 == Fraction(*bankruptcy_price(position, position.bucket))


def test_equality_liquidates() -> None:
    """Equity equal to maintenance is to be liquidated; a flat bucket is not."""
    assert is_liquidatable(20, 20)
    assert not is_liquidatable(21, 20)
    assert not is_liquidatable(0, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tick_size": 3, "lot_size": 1}, "tick_size × lot_size"),
        ({"mark_band": 400_000}, "mark_band"),
        ({"maker_fee": -60_000}, "maker_fee"),
        ({"brackets": ()}, "brackets"),
        ({"brackets": (Bracket(cap=1, maintenance_rate=1_000_000, max_leverage=125),)}, "max_leverage"),
        ({"min_price_ticks": 0}, "min_price_ticks"),
        ({"max_lots": 10**13}, "max_lots × max_price_ticks"),
    ],
)
def test_bad_contracts_are_named(change: dict[str, object], field: str) -> None:
    """A specification that breaks a rule is refused with the field's name."""
    problem = spec_problem(spec(**change))

    assert problem is not None
    assert field in problem


def test_a_good_contract_has_no_problem() -> None:
    """The tests' own contract keeps all rules, and its unit is what one lot gains per tick."""
    assert spec_problem(spec()) is None
    assert 10_000 == Market(spec()).unit
