"""The traders of a demonstration: pairs that differ in their margin mode only, drawn from a seed."""

from decimal import Decimal

from exchange.demo.traders import CROSSED, ISOLATED, LEVERAGES, STYLES, Ledger, make_plans
from exchange.intake.specs import DEFAULT_SPECS


def test_traders_come_in_pairs_of_both_modes() -> None:
    """Each isolated trader has a twin in cross with the same deposit, style and leverage."""
    plans = make_plans(300, seed=10)

    assert 150 == sum(plan.margin_type == ISOLATED for plan in plans)
    assert 150 == sum(plan.margin_type == CROSSED for plan in plans)
    for isolated, cross in zip(plans[::2], plans[1::2], strict=True):
        assert (isolated.deposit, isolated.style, isolated.leverage, isolated.share) == (
            cross.deposit,
            cross.style,
            cross.leverage,
            cross.share,
        )


def test_traders_are_drawn_again_by_their_seed() -> None:
    """The same seed draws the same traders, another seed others."""
    assert make_plans(60, seed=1) == make_plans(60, seed=1)
    assert make_plans(60, seed=1) != make_plans(60, seed=2)


def test_odd_count_is_kept() -> None:
    """An odd number of traders leaves the last one without a twin."""
    assert [0, 1, 2] == [plan.number for plan in make_plans(3, seed=1)]


def test_crowd_holds_every_style_and_leverage() -> None:
    """Three hundred traders are hedged and one-directional, at all leverages."""
    plans = make_plans(300, seed=10)

    assert {style.name for style in STYLES} == {plan.style.name for plan in plans}
    assert set(LEVERAGES) == {plan.leverage for plan in plans}


def test_styles_put_all_of_the_margin_to_work() -> None:
    """The parts of a style's legs add up to the whole."""
    assert {Decimal(1)} == {sum(weight for _, _, weight in style.legs) for style in STYLES}


def test_styles_trade_listed_markets() -> None:
    """Nobody wants a market that the exchange does not list."""
    listed = {spec.symbol for spec in DEFAULT_SPECS}

    assert listed == {symbol for style in STYLES for symbol, _, _ in style.legs}


def test_position_is_worth_its_margin_times_leverage() -> None:
    """Half of the margin of 40 % of 1000 at 10x is a position of 2000."""
    plan = make_plans(2, seed=1)[0]
    plan = type(plan)(
        number=0,
        margin_type=ISOLATED,
        style=STYLES[0],
        deposit=1_000,
        leverage=10,
        share=Decimal("0.4"),
    )

    assert Decimal(2_000) == plan.notional(Decimal("0.5"))


def test_latency_of_nothing_is_zero() -> None:
    """Before the first acknowledgement the percentiles are 0, and then what was measured."""
    ledger = Ledger()
    assert 0.0 == ledger.latency_ms(99)

    ledger.latency.record_value(2_500)

    assert 2.5 == round(ledger.latency_ms(50), 1)
