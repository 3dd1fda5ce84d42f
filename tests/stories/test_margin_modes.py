"""Isolated or cross: what each mode protects, what it risks, and what it costs."""

import pytest

from events.events import MarginModeSet, Rejected
from events.values import RejectCode
from tests.stories.stage import BTC, ETH, SOL, Stage, bucket, fund_worth, is_open, worth
from tests.venue import only, refusal


@pytest.fixture
def stage() -> Stage:
    """Three markets, a house, a liquidator."""
    return Stage()


def test_isolated_containment(stage: Stage) -> None:
    """A gap far beyond bankruptcy wipes one position's 500; nothing else of the account loses one unit.

    BTC was bought with 500 at 50,000 and gone at 45,000. At 30,000 it has lost 2,000: the rest is the fund's.
    """
    alice = stage.trader("3000")
    stage.open(alice, BTC, "BUY", "0.1", "ISOLATED")
    stage.open(alice, ETH, "BUY", "1", "ISOLATED")
    stage.open(alice, SOL, "BUY", "10", "CROSS")
    assert ("500", "250", "2250") == (bucket(alice, BTC), bucket(alice, ETH), alice.wallet)

    stage.prices(BTC="30000")

    assert not is_open(alice, BTC)
    assert ("0", "250", "2250") == (bucket(alice, BTC), bucket(alice, ETH), alice.wallet)
    assert (1_000, 10_000) == (alice.position(ETH).size_lots, alice.position(SOL).size_lots)
    assert ("2500", "2998500") == (worth(alice), fund_worth(stage))


def test_cross_contagion(stage: Stage) -> None:
    """The same three positions in one pool: BTC's loss takes ETH and SOL along, whose prices never moved."""
    alice, twin = stage.trader("1500"), stage.trader("1500")
    for symbol, size in ((BTC, "0.1"), (ETH, "2"), (SOL, "50")):
        stage.open(alice, symbol, "BUY", size, "CROSS")
        stage.open(twin, symbol, "BUY", size, "ISOLATED")

    stage.prices(BTC="36000")  # BTC lost 1,400; 100 are left for 14.4 + 20 + 20 of maintenance
    assert [True, True, True] == [is_open(alice, symbol) for symbol in (BTC, ETH, SOL)]
    assert [False, True, True] == [is_open(twin, symbol) for symbol in (BTC, ETH, SOL)]

    stage.prices(BTC="35500")  # 1,450: 50 are left for 54.2
    assert [False, False, False] == [is_open(alice, symbol) for symbol in (BTC, ETH, SOL)]
    assert ("0", "1000") == (worth(alice), worth(twin))


def test_a_hedge_survives_in_cross_what_it_does_not_in_isolated(stage: Stage) -> None:
    """Long 5,000 of BTC, short 5,000 of ETH: a rally of 20 % is nothing to the pool.

    Without a pool it kills the short. When prices are back, the pool has all its money; the short's own 500
    are gone for good.
    """
    pool, split = stage.trader("1000"), stage.trader("1000")
    for trader, mode in ((pool, "CROSS"), (split, "ISOLATED")):
        stage.open(trader, BTC, "BUY", "0.1", mode)
        stage.open(trader, ETH, "SELL", "2", mode)

    stage.prices(BTC="60000", ETH="3000")
    assert ("1000", True) == (worth(pool), is_open(pool, ETH))
    assert ("1500", False) == (worth(split), is_open(split, ETH))

    stage.prices(BTC="50000", ETH="2500")
    assert ("1000", "500") == (worth(pool), worth(split))


def ride(stage: Stage, mode: str, deposit: str, margin: str = "0") -> list[bool]:
    """Hold 5,000 each of BTC, ETH and SOL through the same path; return which are open in the end.

    One after the other falls by 19 %, and SOL by 17 % while ETH is down; then all is as it was.
    """
    trader = stage.trader(deposit)
    for symbol, size in ((BTC, "0.1"), (ETH, "2"), (SOL, "50")):
        stage.open(trader, symbol, "BUY", size, mode, margin)
    stage.prices(BTC="40500")
    stage.prices(BTC="50000", ETH="2025", SOL="83")
    stage.prices(ETH="2500", SOL="81")
    stage.prices(SOL="100")
    return [is_open(trader, symbol) for symbol in (BTC, ETH, SOL)]


def test_three_buckets_need_more_than_one_pool(stage: Stage) -> None:
    """Each of three positions loses 950 on the way, but two of them at most at a time, 1,800 together.

    Isolated, each needs nearly 1,000 of its own, 3,000 in all. One pool needs 1,800 and its maintenance:
    2,000 are enough, 3,000 are more than enough, 1,500 are not.
    """
    assert [True, True, True] == ride(stage, "ISOLATED", "3000", margin="1000")
    assert [False, False, False] == ride(stage, "ISOLATED", "3000", margin="950")

    assert [True, True, True] == ride(stage, "CROSS", "3000")
    assert [True, True, True] == ride(stage, "CROSS", "2000")
    assert [False, False, False] == ride(stage, "CROSS", "1500")


def test_a_tight_bucket_dies_on_the_way_to_a_profit(stage: Stage) -> None:
    """Both are right: BTC goes to 60,000. It goes to 45,150 first: 500 are too little, 600 are not."""
    tight, wide = stage.trader("2000"), stage.trader("2000")
    stage.open(tight, BTC, "BUY", "0.1", "ISOLATED", margin="500")
    stage.open(wide, BTC, "BUY", "0.1", "ISOLATED", margin="600")

    stage.prices(BTC="45150")  # a loss of 485 leaves 15 of 500, for 18.06 of maintenance
    stage.prices(BTC="60000")

    assert (False, "1500") == (is_open(tight, BTC), worth(tight))
    assert (True, "3000") == (is_open(wide, BTC), worth(wide))


def test_a_correlated_move_drains_a_pool_faster_than_any_position(stage: Stage) -> None:
    """Each position alone survives a fall of 25 % on 1,500. All three on 1,500 do not survive 10 %."""
    book = stage.trader("1500")
    singles = {symbol: stage.trader("1500") for symbol in (BTC, ETH, SOL)}
    for symbol, size in ((BTC, "0.1"), (ETH, "2"), (SOL, "50")):
        stage.open(book, symbol, "BUY", size, "CROSS")
        stage.open(singles[symbol], symbol, "BUY", size, "CROSS")

    stage.prices(BTC="45500", ETH="2275", SOL="91")  # 9 %: 1,350 of 1,500
    assert ("150", True) == (worth(book), is_open(book, BTC))
    stage.prices(BTC="45000", ETH="2250", SOL="90")  # 10 %: all of it
    assert [False, False, False] == [is_open(book, symbol) for symbol in (BTC, ETH, SOL)]

    stage.prices(BTC="37500", ETH="1875", SOL="75")
    assert [True, True, True] == [is_open(trader, symbol) for symbol, trader in singles.items()]


def test_to_isolated_in_mid_position_fences_a_loss_in(stage: Stage) -> None:
    """Moved out of the pool with its loss made good, BTC dies alone in the gap that follows."""
    fenced, pooled = stage.trader("2000"), stage.trader("2000")
    for trader in (fenced, pooled):
        stage.open(trader, BTC, "BUY", "0.1", "CROSS")
        stage.open(trader, ETH, "BUY", "2", "CROSS")
    stage.prices(BTC="49000")

    assert only(MarginModeSet, fenced.switch(BTC, "ISOLATED")).changed
    assert ("590", "1410") == (bucket(fenced, BTC), fenced.wallet)  # 490 of margin, 100 of loss

    stage.prices(BTC="30000")
    assert (False, True, "1410") == (is_open(fenced, BTC), is_open(fenced, ETH), worth(fenced))
    assert (False, False, "0") == (is_open(pooled, BTC), is_open(pooled, ETH), worth(pooled))


def test_to_cross_in_mid_position_rescues_a_position(stage: Stage) -> None:
    """At 46,000 the pool's 1,000 come to stand behind 100 of equity, and 44,000 can be waited out."""
    rescued, left = stage.trader("1500"), stage.trader("1500")
    for trader in (rescued, left):
        stage.open(trader, BTC, "BUY", "0.1", "ISOLATED")
    stage.prices(BTC="46000")

    assert only(MarginModeSet, rescued.switch(BTC, "CROSS")).changed
    assert ("0", "1500") == (bucket(rescued, BTC), rescued.wallet)

    stage.prices(BTC="44000")
    stage.prices(BTC="50000")
    assert (True, "1500") == (is_open(rescued, BTC), worth(rescued))
    assert (False, "1000") == (is_open(left, BTC), worth(left))


def test_a_switch_that_would_endanger_something_is_refused(stage: Stage) -> None:
    """Out of a pool that needs the money, into a pool that has none, and at death's door: nothing happens.

    What is refused can be asked before: the dry run gives the same answer.
    """
    alice = stage.trader("1000")
    stage.open(alice, BTC, "BUY", "0.1", "CROSS")
    stage.open(alice, ETH, "BUY", "2", "CROSS")
    stage.prices(BTC="49000")  # 900 are left; 490 and 500 are required
    answer = alice.preview(BTC, "ISOLATED")
    assert isinstance(answer, Rejected)
    assert (RejectCode.MODE_NOT_COVERED, RejectCode.MODE_NOT_COVERED) == (
        answer.code,
        refusal(alice.switch(BTC, "ISOLATED")),
    )

    bob = stage.trader("500")
    stage.open(bob, BTC, "BUY", "0.1", "ISOLATED")
    stage.prices(BTC="47000")  # 300 are left; the pool would require 470
    assert RejectCode.MODE_NOT_COVERED == refusal(bob.switch(BTC, "CROSS"))

    carol = stage.trader("5000")
    stage.open(carol, BTC, "BUY", "0.1", "ISOLATED")
    stage.venue.index(BTC, "42400")  # 10 are left of 470, for 16.96 of maintenance
    assert RejectCode.IN_LIQUIDATION == refusal(carol.switch(BTC, "CROSS"))
