"""The story of a liquidation, the list of them, an account at a moment: on logs one can check in the head."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest
from msgspec.structs import replace

from events.events import TradeExecuted
from events.frame import EventEntry
from events.log import CorruptLogError, EventReader, VerifiedEvents
from events.memory import MemoryLog
from events.snapshot import find
from events.values import Leg, RankRow
from exchange.audit import chart
from exchange.audit.account_view import account_view, changes
from exchange.audit.cases import CaseFilter, read_cases
from exchange.audit.narrative import describe_story, input_lines, sections_of, worksheet_lines
from exchange.audit.page import page_of
from exchange.audit.ranks import score_of
from exchange.audit.story import Story, tell
from exchange.audit.travel import (
    BadMomentError,
    Moment,
    NotInLogError,
    make_snapshots,
    seq_of_moment,
    travel,
)
from tests.audited import BTC, ETH, Scene, log_of, pooled, scene
from tests.venue import every

LABEL = "<script>alert('x')</script>"


def fallen(fund: str = "100000") -> Scene:
    """Return a scene: 0.1 BTC at 50,000 on 500, down to 45,100, sold to a bid at 45,050."""
    s = scene(fund)
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    for price in ("49000", "47000", "45100"):
        s.venue.index(BTC, price)
    s.bob.buy(BTC, "0.1", "45050")
    s.venue.liquidate(s.alice, BTC)
    return s


async def story_of(s: Scene, number: int = 1) -> Story:
    """Return the story of a liquidation of a scene."""
    return await tell(log_of(s.venue), (), number)


async def test_the_worksheet_can_be_checked_by_hand() -> None:
    """Every line says what is multiplied and added, and what it comes to."""
    lines = worksheet_lines(await story_of(fallen()))

    assert [
        "BTCUSDT: long 0.100 BTC, mark 45100.0, index 45100.0, last 50000.0",
        "  notional     = |size| × mark = 0.100 × 45100.0 = 4510",
        "  uPnL         = size × mark − entry cost = 0.100 × 45100.0 − (5000) = -490",
        "  bracket 0    : above 0 up to 50000, rate 0.004, deduction 0",
        "  maintenance  = ⌈notional × rate − deduction⌉ = ⌈4510 × 0.004 − 0⌉ = 18.04",
        "equity       = bucket + Σ uPnL = 500 − 490 = 10",
        "maintenance  = 18.04",
        "ratio        = maintenance / equity = 1.804000",
        "liquidation  : equity 10 ≤ maintenance 18.04",
    ] == lines


async def test_the_mark_is_shown_with_its_inputs() -> None:
    """The three views, of which it is the median, and the band."""
    first, index, *_ = input_lines(await story_of(fallen()))

    assert "BTCUSDT: mark 45100.0 = median(45100.0, 45100.0, 50000.0), kept within 44964.7 … 45235.3" == first
    assert "  index        = median of test 45100.0 = 45100.0" == index


async def test_the_path_leads_from_the_opening_to_the_end() -> None:
    """Marks and ratios at each change: 20 / 500 at 50,000, 18.04 / 10 at 45,100."""
    story = await story_of(fallen())

    path = describe_story(story)["path"]
    assert ["50000.0", "49000.0", "47000.0", "45100.0"] == [sample["marks"][BTC] for sample in path][:4]
    assert ["0.040000", "0.049000", "0.094000", "1.804000"] == [sample["ratio"] for sample in path][:4]


async def test_it_is_computed_again() -> None:
    """Worksheet, steps and decision are equal; the entry's chain hash is named."""
    s = fallen()
    log = log_of(s.venue)
    story = await tell(log, (), 1)

    assert story.recomputed.is_equal
    assert log.events[-1].chain_hash == story.chain_hash
    data = describe_story(story)
    assert ("closed", "10.00000000") == (data["result"], data["equity"])
    assert data["recomputed"]["equal"]
    assert ["order_accepted", "trade", "liquidation_fee"] == [step["type"] for step in data["steps"]][:3]


async def test_what_is_not_what_the_commands_make_is_said() -> None:
    """A command frame that was exchanged: worksheet and steps are equal, the decision is not."""
    s = fallen()
    log = log_of(s.venue)
    log.commands[-1] = log.commands[-2]

    story = await tell(log, (), 1)

    assert not story.recomputed.is_equal
    assert (None, None) == (story.recomputed.worksheet, story.recomputed.steps)
    assert "not the one that the events answer" in str(story.recomputed.decision)


async def test_a_pool_is_told_with_all_its_positions() -> None:
    """Two markets on one wallet: both rows, both marks relative to their first, the sums."""
    story = await story_of(pooled())

    assert "equity       = wallet + Σ uPnL = 1000 − 700 − 400 = -100" in worksheet_lines(story)
    lines = worksheet_lines(story)
    assert any(line.startswith("maintenance  = ") and " + " in line for line in lines)
    marks, ratio = chart.series_of(story)
    assert [1.0, 1.0] == [series.values[0] for series in marks]
    assert chart.RATIO_SHOWN_MAX == ratio.values[-1]
    assert chart.terminal_lines(story)


async def test_the_ranking_is_in_the_story() -> None:
    """Who was deleveraged, at which place, with the figures of the score and the score they make."""
    s = scene(fund="0")
    s.open(BTC, "BUY", "0.1", "50000", mode="ISOLATED", leverage=10)
    s.venue.index(BTC, "44000")
    s.venue.liquidate(s.alice, BTC)

    story = await story_of(s)
    titles = {section.title: section for section in sections_of(story)}

    (row,) = titles["The ranking"].rows
    assert (BTC, "ranked", "0", str(s.bob.account_id)) == row[:4]
    assert ("600.00000000", "-5000.00000000", "4400.00000000", "1000600.00000000") == row[5:9]
    # 600 / 5000, 4400 / 1000600, and the product, of which only the fraction is exact.
    assert ("0.12000000", "0.00439736", "0.00052768", "0.100") == row[9:]
    assert len(row) == len(titles["The ranking"].head)
    (plain,) = describe_story(story)["ranking"]
    assert str(Fraction(600, 5000) * Fraction(4400, 1_000_600)) == plain["score_exact"]


async def test_a_loser_is_ranked_by_his_ratio_through_his_leverage() -> None:
    """Without profit the score is profit ratio / leverage; without equity there is none."""
    row = RankRow(account_id=2, leg=Leg.BOTH, unrealised=-300, entry_cost=-1_000, notional=1_300, equity=260)
    score = score_of(row)
    assert score is not None
    assert (Fraction(-3, 10), Fraction(5), Fraction(-3, 50)) == (
        score.profit_ratio,
        score.leverage,
        score.score,
    )
    assert score_of(replace(row, equity=0)) is None


async def test_a_page_holds_all_and_loads_nothing() -> None:
    """One file: no address but the names of SVG, no script; what people wrote is escaped."""
    s = fallen()
    story = await story_of(s)
    story.label = LABEL

    page = page_of(story)

    assert LABEL not in page
    assert "&lt;script&gt;" in page
    assert "<svg" in page
    rest = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    for forbidden in ("http:", "https:", "<script", "src=", "@import", "url("):
        assert forbidden not in rest.replace('clip-path="url(#', ""), forbidden
    assert "⌈4510 × 0.004 − 0⌉ = 18.04" in page


async def test_without_matplotlib_the_page_has_a_chart_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is not needed for a report; a chart file says what to install."""
    story = await story_of(fallen())
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(chart.ChartError, match=r"foldex\[audit\]"):
        chart.draw(story, "png")
    page = page_of(story)
    assert "<svg" not in page
    assert "┃" in page or "━" in page


async def cases(log: MemoryLog, chosen: CaseFilter) -> list[int]:
    """Return the numbers of the liquidations that a filter leaves."""
    return [case.started.liquidation_id async for case in read_cases(log, {}) if chosen.wants(case)]


async def test_the_list_says_what_was_lost_and_who_paid() -> None:
    """500 on the position: 495 realised and 5 of fee are lost, and the fund has 5 more."""
    s = fallen()
    specs: dict[str, object] = {}
    (case,) = [case async for case in read_cases(log_of(s.venue), specs)]  # type: ignore[arg-type]

    row = case.row(specs)  # type: ignore[arg-type]
    assert ("500.00000000", "10.00000000", "18.04000000") == (
        row["collateral"],
        row["equity"],
        row["maintenance"],
    )
    before, after = s.venue.log[-1][1][-1].fund_before, s.venue.log[-1][1][-1].fund_after  # type: ignore[attr-defined]
    assert ("500.00000000", 5 * 10**8) == (row["loss"], after - before)
    assert {BTC: "45100.0"} == row["marks"]


async def test_the_list_is_filtered() -> None:
    """By account, market and place in the log."""
    s = fallen()
    log, last = log_of(s.venue), len(s.venue.log)
    assert [1] == await cases(log, CaseFilter(account_id=s.alice.account_id, market=BTC))
    assert [] == await cases(log, CaseFilter(market=ETH))
    assert [] == await cases(log, CaseFilter(account_id=s.bob.account_id))
    assert [1] == await cases(log, CaseFilter(first_seq=last, last_seq=last))
    assert [] == await cases(log, CaseFilter(last_seq=last - 1))


async def test_an_unknown_liquidation_is_said() -> None:
    """With the last one that there is."""
    with pytest.raises(NotInLogError, match="there is no liquidation 2; the last one is 1"):
        await story_of(fallen(), 2)


async def test_an_account_as_it_was_and_what_changed() -> None:
    """Before the fall a healthy position, after it nothing; the difference says so field by field."""
    s = fallen()
    log = log_of(s.venue)
    opened = next(n for n, groups in enumerate(s.venue.log, 1) if every(TradeExecuted, groups[-1]))
    before = account_view((await travel(log, (), opened)).state, s.alice.account_id)
    after = account_view((await travel(log, (), len(s.venue.log))).state, s.alice.account_id)

    position = before["positions"][BTC]
    assert ("0.100", "50000.00000000", "500.00000000", "0.04000000") == (
        position["size"],
        position["entry_price"],
        position["bucket"],
        position["margin_ratio"],
    )
    assert {} == after["positions"]
    fields = {row["field"]: row for row in changes(before, after)}
    gone = fields[f"positions.{BTC}"]
    assert ("0.100", None) == (gone["before"]["size"], gone["after"])
    assert "wallet" not in fields
    with pytest.raises(NotInLogError, match="there is no account 99"):
        account_view(s.venue.state, 99)


async def test_a_time_is_the_last_entry_at_or_before_it() -> None:
    """Entries are a millisecond apart; between two the earlier one counts."""
    s = fallen()
    log = log_of(s.venue)
    for seq in range(1, len(s.venue.log) + 1):
        header_ns = s.venue.log[seq - 1][0][0].now_ns  # type: ignore[attr-defined]
        assert seq == await seq_of_moment(log, Moment(time_ns=header_ns))
        assert seq == await seq_of_moment(log, Moment(time_ns=header_ns + 999_999))
    assert len(s.venue.log) == await seq_of_moment(log, None)
    with pytest.raises(NotInLogError, match="the log begins after"):
        await seq_of_moment(log, Moment(time_ns=0))
    with pytest.raises(NotInLogError, match="there is no entry 999"):
        await seq_of_moment(log, Moment(seq=999))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("17", Moment(seq=17)),
        ("2023-11-14T22:13:20Z", Moment(time_ns=1_700_000_000 * 10**9)),
        ("2023-11-14T22:13:20.000001", Moment(time_ns=1_700_000_000_000_001_000)),
        ("2023-11-15T00:13:20+02:00", Moment(time_ns=1_700_000_000 * 10**9)),
    ],
)
def test_a_moment_is_a_number_or_a_time(text: str, moment: Moment) -> None:
    """ISO 8601, in UTC unless it says otherwise, exact to the microsecond."""
    assert moment == Moment.parse(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "yesterday", "1.5", "1960-01-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """The message says what to write."""
    with pytest.raises(BadMomentError):
        Moment.parse(text)


async def test_snapshots_lead_to_the_same_state(tmp_path: Path) -> None:
    """From whichever snapshot a moment starts, its digest is that of the log alone; damage is skipped."""
    s = fallen()
    log = log_of(s.venue)
    paths = await make_snapshots(log, tmp_path, 5)
    assert len(paths) > 3
    assert paths == await make_snapshots(log, tmp_path, 5)  # nothing new, nothing lost
    paths[0].write_bytes(b"damaged")

    for seq in range(1, len(s.venue.log) + 1):
        near, alone = await travel(log, [tmp_path], seq), await travel(log, (), seq)
        assert (alone.state.digest(), alone.events) == (near.state.digest(), near.events)


async def test_what_is_before_a_liquidation_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is looked up among the entries that begin one; all else is decoded once, on the way."""
    s = fallen()
    log = log_of(s.venue)
    verified: list[int] = []
    verify = EventReader.verify

    def count(self: EventReader, entry: EventEntry) -> VerifiedEvents:
        verified.append(entry.seq)
        return verify(self, entry)

    monkeypatch.setattr(EventReader, "verify", count)
    await tell(log, (), 1)

    assert [1, *range(1, len(log.events) + 1)] == verified  # entry 1 also for the log's name


async def test_damage_is_not_taken_for_a_liquidation_that_is_not_there() -> None:
    """Where no such number is found, the log is verified before that is said."""
    s = fallen()
    log = log_of(s.venue)
    entry = log.events[-1]
    log.events[-1] = replace(entry, body=entry.body.replace(b"liquidation_started", b"liquidation_startet"))

    with pytest.raises(CorruptLogError):
        await tell(log, (), 1)


async def test_a_story_reads_from_before_the_opening(tmp_path: Path) -> None:
    """The snapshot it starts from is one in which the bucket was flat, so that the path is whole."""
    s = fallen()
    log = log_of(s.venue)
    await make_snapshots(log, tmp_path, 1)

    near, alone = await tell(log, [tmp_path], 1), await tell(log, (), 1)

    assert near.path == alone.path
    assert 0 < near.started_from < near.path[0].seq
    assert describe_story(near) == describe_story(alone)
    assert find(tmp_path)
