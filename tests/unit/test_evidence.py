"""The audit of liquidations: clean where the rules were kept, and a finding wherever one was not."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from events.commands import Deposit, SetIndexPrice
from events.events import (
    Event,
    LiquidationFeeCharged,
    LiquidationFinished,
    LiquidationStarted,
    MarkPriceChanged,
    OrderCancelled,
    PositionDeleveraged,
    PositionTakenOver,
)
from events.values import IndexSource, LiquidationResult, RankRow
from exchange.aggregate import deleverage, index, liquidation, mark, ranking, waterfall
from tests.audited import BTC, Change, Scene, audit, pooled, scene
from tests.planted import IS_COMPILED
from tests.unit.test_purity import ROOT, imports
from tests.venue import Trader, Venue, every, money, only, spec


def reduced() -> Scene:
    """Return a story: 0.1 BTC on 500 at 45,150, an order open, sold whole to a bid at 45,100."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.alice.sell(BTC, "0.05", "60000")
    s.venue.index(BTC, "45150")
    s.bob.buy(BTC, "0.1", "45100")
    s.venue.liquidate(s.alice, BTC)
    return s


def taken_over() -> Scene:
    """Return a story: the same position at 30,000, where nobody bids: the fund takes it over."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "30000")
    s.venue.liquidate(s.alice, BTC)
    return s


def deleveraged() -> Scene:
    """Return a story: no fund, two shorts of different leverage, mark 44,000."""
    s = scene(fund="0")
    s.alice.mode(BTC, "ISOLATED")
    s.alice.leverage(BTC, 10)
    shorts = [s.venue.account("1000"), s.venue.account("1000")]
    for short, leverage in zip(shorts, (5, 20), strict=True):
        short.mode(BTC, "ISOLATED")
        short.leverage(BTC, leverage)
        short.sell(BTC, "0.05", "50000")
        s.alice.buy(BTC, "0.05", "50000")
    s.venue.index(BTC, "44000")
    s.venue.liquidate(s.alice, BTC)
    return s


def bracketed() -> Scene:
    """Return a story: 20 BTC in the third bracket, reduced a bracket at a time until the pool is restored."""
    s = scene()
    s.venue.send(Deposit(account_id=s.alice.account_id, amount=money("20000")))
    s.open(BTC, "BUY", "14", "50000", mode="CROSS", leverage=50)
    s.venue.index(BTC, "48700")
    s.bob.buy(BTC, "14", "48690")
    s.venue.liquidate(s.alice)
    return s


def queued() -> Scene:
    """Return a story: no fund, three shorts of different leverage, of which two are deleveraged."""
    s = scene(fund="0")
    s.alice.mode(BTC, "ISOLATED")
    s.alice.leverage(BTC, 10)
    for buyer, leverage in ((s.alice, 5), (s.alice, 20), (s.bob, 2)):
        short = s.venue.account("2000")
        short.mode(BTC, "ISOLATED")
        short.leverage(BTC, leverage)
        short.sell(BTC, "0.05", "50000")
        buyer.buy(BTC, "0.05", "50000")
    s.venue.index(BTC, "44000")
    s.venue.liquidate(s.alice, BTC)
    return s


def handed_down() -> Scene:
    """Return a story: the fund takes 0.1 BTC at 45,100 over, and has to give them up at 28,000."""
    s = scene(fund="1600")
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "45100")
    s.venue.liquidate(s.alice, BTC)
    s.venue.index(BTC, "28000")
    return s


def quoted() -> Scene:
    """Return a story: three sources, one of them outlying; bids, asks and trades; then sold to a bid."""
    s = Scene(venue := Venue(specs=(spec(BTC, source_band=5_000_000),), fund="100000"), *_two(venue))
    s.venue.index(BTC, "50000")
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    for price in ("47500", "44500"):
        s.bob.buy(BTC, "0.1", str(int(price[:2]) * 1000 - 100))
        s.bob.sell(BTC, "0.1", "52000")
        ticks = s.venue.ticks(BTC, price)
        sources = tuple(
            IndexSource(source=name, price_ticks=ticks + away, raw=price)
            for name, away in (("a", 0), ("b", 5), ("c", ticks))
        )
        s.venue.send(SetIndexPrice(market=BTC, sources=sources))
    s.venue.liquidate(s.alice, BTC)
    return s


def _two(venue: Venue) -> tuple[Trader, Trader]:
    return venue.account("1000"), venue.account("1000000")


STORIES: dict[str, Callable[[], Scene]] = {
    each.__name__: each
    for each in (reduced, taken_over, deleveraged, pooled, bracketed, queued, handed_down, quoted)
}


@pytest.mark.parametrize("story", STORIES)
def test_what_the_rules_make_is_clean(story: str) -> None:
    """Every way a liquidation ends is derived again, without a finding."""
    evidence = audit(STORIES[story]().venue.log)

    assert ([], 1 + evidence.of_fund) == (evidence.findings, evidence.liquidations)


def changed(kind: type[Event], **fields: object) -> Change:
    """Return a change of the fields of one kind of event."""
    return lambda event: [msgspec.structs.replace(event, **fields) if isinstance(event, kind) else event]


def without(kind: type[Event]) -> Change:
    """Return a change that leaves one kind of event out."""
    return lambda event: [] if isinstance(event, kind) else [event]


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
def test_a_healthy_bucket_that_is_liquidated_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that liquidate above maintenance: not necessary."""
    monkeypatch.setattr(liquidation, "is_liquidatable", lambda equity, maintenance: maintenance > 0)
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.liquidate(s.alice, BTC)

    finding = audit(s.venue.log).findings[0]

    assert (len(s.venue.log), "necessary", 1) == (finding.seq, finding.rule, finding.liquidation_id)
    assert "equity 500.0 is above maintenance 20.0" == finding.what


def reversed_rank(*arguments: Any) -> ranking.Ranking:
    """Rank as the rules do, the other way round."""
    rows = ranking.rank(*arguments).rows[::-1]
    return ranking.Ranking([(0, (row.account_id, int(row.leg)), row) for row in rows])


def first_rows(part: Any, ranking: ranking.Ranking, step: Any) -> tuple[RankRow, ...]:
    """Say that the first of a ranking are those who are next."""
    return tuple(ranking.rows[:10])


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
@pytest.mark.parametrize(
    ("module", "name", "rule", "said"),
    [
        (mark, "median", min, "the mark is "),
        (index, "median", min, "the index is 445000, its inputs make 445002"),
        (mark, "_next_basis_average", lambda average, *_: average, "the average basis is 0, its inputs make"),
        (mark, "_funding_ticks", lambda market, ticks, left_ns: ticks + 1, "the funding view is "),
        (mark, "BASIS_UPDATES", 3, "the average basis is "),
        (
            index,
            "_is_old",
            lambda source, *_: source.source == "c",
            "as stale, it should be left out as outly",
        ),
    ],
)
def test_a_mark_of_other_rules_is_found(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, rule: Any, said: str
) -> None:
    """Index, view or mark are not what their inputs make: at the update, and at who was liquidated by it."""
    monkeypatch.setattr(module, name, rule)

    found = audit(quoted().venue.log).findings

    assert {"necessary"} == {finding.rule for finding in found}
    assert any(said in finding.what for finding in found if finding.liquidation_id == 0), found
    assert any("is not what its inputs make" in finding.what for finding in found if finding.liquidation_id)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed(MarkPriceChanged, last_ticks=450_000), "the last trade is 450000"),
        (changed(MarkPriceChanged, bid_ticks=1), "the best bid is 1, its inputs make 469000"),
        (changed(MarkPriceChanged, index_ticks=450_000), "the index is 450000, its inputs make"),
    ],
)
def test_an_input_that_is_not_the_states_is_found(change: Change, said: str) -> None:
    """The book and the last trade are known at each update, and what the event says of them is compared."""
    found = audit(quoted().venue.log, change).findings

    assert any(said in finding.what for finding in found), found


@pytest.mark.parametrize("story", ["reduced", "pooled"])
def test_a_cause_that_is_none_is_found(story: str) -> None:
    """An entry behind which the bucket was healthy, none at all, or one that was not there yet."""
    s = STORIES[story]()
    seq = len(s.venue.log)

    for cause_seq in (0, 2, seq):
        (finding,) = audit(s.venue.log, changed(LiquidationStarted, cause_seq=cause_seq)).findings
        assert (seq, "necessary", 1) == (finding.seq, finding.rule, finding.liquidation_id)
        assert f"names entry {cause_seq} as its cause" in finding.what


def test_any_entry_behind_which_a_bucket_was_due_is_a_cause() -> None:
    """It was due, recovered, and is due again: either time may be what the liquidator saw; between is not."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    seqs = []
    for price in ("30000", "50000", "30000"):
        s.venue.index(BTC, price)
        seqs.append(len(s.venue.log))
    s.venue.liquidate(s.alice, BTC)

    found = [audit(s.venue.log, changed(LiquidationStarted, cause_seq=seq)).findings for seq in seqs]

    assert [True, False, True] == [findings == [] for findings in found]


def test_the_cause_of_the_funds_own_liquidation_is_its_index_update() -> None:
    """Nobody asks for it: it follows the mark in the same entry."""
    found = audit(handed_down().venue.log, changed(LiquidationStarted, cause_seq=1)).findings

    assert {1, 2} == {finding.liquidation_id for finding in found}
    assert "is the index update that it follows" in found[-1].what


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
@pytest.mark.parametrize(
    ("story", "module", "name", "rule", "said"),
    [
        ("bracketed", liquidation, "_lots_of_bracket", lambda p: abs(p.size_lots), "one bracket down is"),
        (
            "reduced",
            liquidation,
            "bankruptcy_price",
            lambda p, share: (451_000, 1),
            "the bankruptcy price is",
        ),
        ("taken_over", liquidation, "_can_bear", lambda *_: False, "the fund could have borne it"),
        ("deleveraged", (deleverage, waterfall), "rank", reversed_rank, "the ranking is another"),
        ("queued", deleverage, "_following", lambda *_: (), "next are none; by the ranking 6 BOTH"),
        ("queued", deleverage, "_following", first_rows, "next are 5 BOTH, 4 BOTH, 6 BOTH; by the ranking 6"),
        ("reduced", liquidation, "charge", lambda amount, rate: 7, "the fee is 7"),
        ("reduced", liquidation, "_cancel_orders", lambda case: None, "was left open"),
    ],
)
def test_other_rules_are_found(
    monkeypatch: pytest.MonkeyPatch, story: str, module: Any, name: str, rule: Any, said: str
) -> None:
    """A build whose rules are not the design's writes a consistent log, and is found out all the same."""
    for each in module if isinstance(module, tuple) else (module,):
        monkeypatch.setattr(each, name, rule)
    s = STORIES[story]()

    found = audit(s.venue.log).findings

    assert "orderly" == found[0].rule
    assert any(said in finding.what for finding in found), found


@pytest.mark.parametrize(
    ("story", "change", "said"),
    [
        ("reduced", changed(LiquidationStarted, collateral=1), "collateral is another"),
        ("reduced", changed(LiquidationStarted, equity=1), "the worksheet says"),
        ("reduced", changed(LiquidationFeeCharged, amount=1), "the fee is 1"),
        ("reduced", changed(LiquidationFinished, result=LiquidationResult.TAKEN_OVER), "its steps do not"),
        ("reduced", changed(LiquidationFinished, fund_after=1), "the fund's figures"),
        ("taken_over", changed(PositionTakenOver, realised=-(10**10)), "what leaves it its share"),
        ("taken_over", changed(PositionTakenOver, fund_realised=1), "the fund realised 1"),
        ("pooled", changed(LiquidationFinished, equity=1), "equity after it"),
    ],
)
def test_a_changed_step_is_found(story: str, change: Change, said: str) -> None:
    """A fee, share or figure that is not what the rules make of the state before it."""
    s = STORIES[story]()

    found = audit(s.venue.log, change).findings

    assert {len(s.venue.log)} == {finding.seq for finding in found}
    assert any(said in finding.what for finding in found), found


def test_an_order_left_open_is_found() -> None:
    """Positions are reduced only when the bucket's orders are gone."""
    finding = audit(reduced().venue.log, without(OrderCancelled)).findings[0]

    assert "orderly" == finding.rule
    assert "was left open" in finding.what


def test_a_fee_left_out_is_found() -> None:
    """What was closed in the book costs the fee."""
    finding = audit(reduced().venue.log, without(LiquidationFeeCharged)).findings[0]

    assert ("orderly", "a liquidation fee was left out") == (finding.rule, finding.what)


def test_parties_out_of_their_turn_are_found() -> None:
    """The 20-times short goes first; served after the other it is out of its turn."""
    s = deleveraged()
    done = only(PositionDeleveraged, s.venue.log[-1][1])
    assert 2 == len(done.parties)
    swapped = changed(PositionDeleveraged, parties=done.parties[::-1])

    evidence = audit(s.venue.log, swapped)

    assert any("was passed over" in each.what or "out of its turn" in each.what for each in evidence.findings)


def test_a_worksheet_that_is_not_the_states_breaks_necessary() -> None:
    """An equity that is a unit off is named with both sums, as decimals, under the promise that it breaks."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "45100")
    s.venue.liquidate(s.alice, BTC)
    (started,) = every(LiquidationStarted, s.venue.log[-1][1])

    (finding,) = audit(s.venue.log, changed(LiquidationStarted, equity=started.equity + 1)).findings

    assert "necessary" == finding.rule
    assert "says equity 10.00000001, maintenance 18.04000000; it is 10.00000000," in finding.what


def test_a_bucket_nobody_asked_about_is_late() -> None:
    """Due at 30,000, and nothing but time passes: late after so many events, named once, where it began."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "30000")
    due_seq = len(s.venue.log)
    for _ in range(10):
        s.venue.after(1)

    assert [] == audit(s.venue.log, late_events_max=1_000).findings
    (finding,) = audit(s.venue.log, late_events_max=5).findings
    assert (due_seq, "sufficient") == (finding.seq, finding.rule)
    assert f"account {s.alice.account_id}, {BTC} both" in finding.what


def test_an_answer_that_came_too_late_is_late_all_the_same() -> None:
    """The wait is counted up to the command that asks; that it was answered then does not make it good."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "30000")
    due_seq = len(s.venue.log)
    s.venue.liquidate(s.alice, BTC)
    waited = audit(s.venue.log).longest_wait

    assert waited == len(s.venue.log[-1][0])  # the header of the frame that asked, and nothing of its own
    assert [] == audit(s.venue.log, late_events_max=waited).findings
    (finding,) = audit(s.venue.log, late_events_max=waited - 1).findings
    assert (due_seq, "sufficient") == (finding.seq, finding.rule)


def test_an_answer_that_could_do_nothing_ends_the_wait() -> None:
    """A stale index: the request is skipped, and until the price comes nobody needs to ask again."""
    s = scene()
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "30000")
    s.venue.liquidate(s.alice, BTC)
    assert every(LiquidationFinished, s.venue.log[-1][1])
    for _ in range(10):
        s.venue.after(1)

    assert [] == audit(s.venue.log, late_events_max=5).findings


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("exact", set()),
        ("facts", {"account", "market", "state"}),
        ("marks", {"market", "state"}),
        ("ranks", {"account", "market", "state"}),
        ("waterfall", {"account", "state"}),
        ("lateness", {"account", "state"}),
    ],
)
def test_the_second_implementation_shares_no_rule_with_the_first(module: str, allowed: set[str]) -> None:
    """Of the aggregate it knows the tables of the state, and neither margin nor liquidation nor ranking."""
    used = {
        name.rpartition(".")[2]
        for name in imports(ROOT / "exchange" / "audit" / f"{module}.py")
        if name.startswith("exchange.aggregate")
    }
    assert allowed == used
