"""The story of a liquidation in words and sums: sections that a terminal and a web page both can show.

Every amount is an exact decimal; every line of arithmetic can be checked by hand with what stands in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from events.events import (
    ConditionalCancelled,
    DeleverageRanked,
    Event,
    LiquidationFeeCharged,
    LossSocialised,
    MarkPriceChanged,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    PositionDeleveraged,
    PositionTakenOver,
    TradeExecuted,
)
from events.values import MarketSpec, RankRow, WorksheetRow
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.units import RATE_ONE, decimal_text, round_half_even
from exchange.audit.cases import POOL
from exchange.audit.printer import one_line, readable, type_of
from exchange.audit.ranks import score_of
from exchange.audit.replay import time_text
from exchange.audit.story import Sample, Story
from exchange.decimals import format_fixed, lots_text, money_text, price_text

_RATIO_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report: lines, or a table of `rows` under `head`."""

    title: str
    lines: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def sections_of(story: Story) -> list[Section]:
    """Return the report of a liquidation, without its chart."""
    ranking = [
        tuple("" if cell is None else str(cell) for name, cell in row.items() if name != "score_exact")
        for row in ranking_rows(story)
    ]
    head = (
        "market", "step", "place", "account", "leg", "uPnL", "entry cost", "notional", "equity",
        "uPnL / cost", "leverage", "score", "gave",
    )  # fmt: skip
    return [
        Section(title=f"Liquidation {story.case.started.liquidation_id}", lines=_summary(story)),
        Section(title="The worksheet at the moment it started", lines=tuple(worksheet_lines(story))),
        Section(title="Where the mark came from", lines=tuple(input_lines(story))),
        Section(
            title="What was done",
            head=("#", "event", "what"),
            rows=tuple(
                (str(n), type_of(event), sentence(event, story)) for n, event in enumerate(story.steps, 1)
            ),
        ),
        *([Section(title="The ranking", head=head, rows=tuple(ranking))] if ranking else []),
        Section(title="The insurance fund", lines=_fund_lines(story)),
        Section(title="Computed again, from the log alone", lines=tuple(verdict_lines(story))),
    ]


def describe_story(story: Story) -> dict[str, Any]:
    """Return the report of a liquidation as plain data."""
    started, finished, again = story.case.started, story.case.finished, story.recomputed
    return {
        **story.case.row(story.specs),
        "label": story.label,
        "cause_seq": started.cause_seq,
        "chain_hash": story.chain_hash.hex(),
        "worksheet": readable(started, story.specs),
        "arithmetic": worksheet_lines(story),
        "mark_inputs": [
            readable(story.inputs[row.market], story.specs)
            for row in started.rows
            if row.market in story.inputs
        ],
        "path": [_sample(sample, story.specs) for sample in story.path],
        "steps": [
            {"type": type_of(event), "what": sentence(event, story), "fields": readable(event, story.specs)}
            for event in story.steps
        ],
        "ranking": ranking_rows(story),
        "finished": readable(finished, story.specs),
        "recomputed": {
            "equal": again.is_equal,
            "worksheet": again.worksheet or "equal",
            "steps": again.steps or "equal",
            "decision": again.decision or "equal",
        },
    }


def ratio_text(maintenance: int, equity: int) -> str:
    """Return maintenance / equity as a decimal, "none" without equity."""
    if equity <= 0:
        return "none (no equity)"
    scale: int = 10**_RATIO_DIGITS
    return format_fixed(round_half_even(maintenance * scale, equity), _RATIO_DIGITS)


def _summary(story: Story) -> tuple[str, ...]:
    case, started = story.case, story.case.started
    label = f" ({story.label})" if story.label else ""
    leg = "" if started.leg.name == "BOTH" else f" {started.leg.name.lower()}"
    what = f"isolated {started.market}{leg}" if started.market else f"cross {POOL}"
    place = f"entry {case.seq}, command {case.index}" if case.index >= 0 else f"entry {case.seq}"
    opened = f"entry {story.path[0].seq} at {time_text(story.path[0].time_ns)}" if story.path else "unknown"
    return (
        f"account      {started.account_id}{label}",
        f"bucket       {what}, open since {opened}",
        f"when         {time_text(case.time_ns)}, {place}; asked for because of entry {started.cause_seq}",
        f"result       {case.finished.result.name.lower()}; the bucket lost {money_text(case.loss)} "
        f"of {money_text(started.collateral)}",
    )


# The worksheet


def worksheet_lines(story: Story) -> list[str]:
    """Return the worksheet as sums that can be checked by hand."""
    started = story.case.started
    lines: list[str] = []
    for row in started.rows:
        lines += _row_lines(row, story.specs[row.market])
    name = "bucket" if started.market else "wallet"
    profits = " ".join(_signed(row.unrealised) for row in started.rows)
    equity, maintenance = decimal_text(started.equity), decimal_text(started.maintenance)
    sums = " + ".join(decimal_text(row.maintenance) for row in started.rows)
    if started.account_id == FUND_ACCOUNT_ID:
        verdict = (
            f"equity {equity} {'<' if started.equity < 0 else '≥'} 0: the fund gives up what it cannot bear"
        )
    else:
        sign = "≤" if started.equity <= started.maintenance else ">"
        verdict = f"equity {equity} {sign} maintenance {maintenance}"
    return [
        *lines,
        f"equity       = {name} + Σ uPnL = {decimal_text(started.collateral)} {profits} = {equity}",
        f"maintenance  = {sums} = {maintenance}"
        if len(started.rows) > 1
        else f"maintenance  = {maintenance}",
        f"ratio        = maintenance / equity = {ratio_text(started.maintenance, started.equity)}",
        f"liquidation  : {verdict}",
    ]


def _row_lines(row: WorksheetRow, spec: MarketSpec) -> list[str]:
    size, mark = lots_text(spec, row.size_lots), price_text(spec, row.mark_ticks)
    bare = size.removeprefix("-")
    notional = decimal_text(row.notional)
    rate = decimal_text(row.maintenance_rate)
    deduction = _trimmed(format_fixed(row.deduction * RATE_ONE + row.deduction_rest, 16))
    floor = spec.brackets[row.bracket - 1].cap if row.bracket else 0
    cap = decimal_text(spec.brackets[row.bracket].cap)
    leg = "" if row.leg.name == "BOTH" else f" {row.leg.name.lower()}"
    return [
        f"{row.market}{leg}: {'long' if row.size_lots > 0 else 'short'} {bare} {spec.base}, mark {mark}, "
        f"index {price_text(spec, row.index_ticks)}, last {price_text(spec, row.last_ticks)}",
        f"  notional     = |size| × mark = {bare} × {mark} = {notional}",
        f"  uPnL         = size × mark − entry cost = {size} × {mark} − ({decimal_text(row.entry_cost)}) = "
        f"{decimal_text(row.unrealised)}",
        f"  bracket {row.bracket}    : above {decimal_text(floor)} up to {cap}, rate {rate}, "
        f"deduction {deduction}",
        f"  maintenance  = ⌈notional × rate − deduction⌉ = ⌈{notional} × {rate} − {deduction}⌉ = "
        f"{decimal_text(row.maintenance)}",
    ]


def _signed(amount: int) -> str:
    return f"{'−' if amount < 0 else '+'} {decimal_text(abs(amount))}"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


# The mark


def input_lines(story: Story) -> list[str]:
    """Return how each mark of the worksheet was made."""
    lines: list[str] = []
    for row in story.case.started.rows:
        event = story.inputs.get(row.market)
        if event is None:
            lines.append(f"{row.market}: its last price came before the part of the log that was read")
        else:
            lines += _mark_lines(event, story.specs[row.market])
    return lines


def _mark_lines(event: MarkPriceChanged, spec: MarketSpec) -> list[str]:
    def text(ticks: int) -> str:
        return price_text(spec, ticks)

    sources = ", ".join(f"{each.source} {text(each.price_ticks)}" for each in event.sources)
    left_out = ", ".join(
        f"{each.source.source} {text(each.source.price_ticks)} ({each.fault.name.lower()})"
        for each in event.left_out
    )
    width = event.index_ticks * spec.mark_band // RATE_ONE
    low, high = text(event.index_ticks - width), text(event.index_ticks + width)
    three = ", ".join(text(each) for each in (event.funding_ticks, event.basis_ticks, event.last_ticks))
    rate = decimal_text(event.funding_rate)
    return [
        f"{event.market}: mark {text(event.mark_ticks)} = median({three}), kept within {low} … {high}",
        f"  index        = median of {sources} = {text(event.index_ticks)}"
        + (f"; left out: {left_out}" if left_out else ""),
        f"  funding view = index × (1 + {rate} × time left / interval) = {text(event.funding_ticks)}",
        f"  basis view   = index + average of (mid − index) = {text(event.basis_ticks)}, "
        f"best bid {text(event.bid_ticks)}, best ask {text(event.ask_ticks)}",
        f"  last trade   = {text(event.last_ticks)}, when the mark was made",
    ]


# What was done


def sentence(event: Event, story: Story) -> str:
    """Say what a step of a liquidation did."""
    say = _SENTENCES.get(type(event))
    if say is None:
        return one_line(readable(event, story.specs))
    market: str = getattr(event, "market")  # noqa: B009
    return say(event, story.specs[market])


def _order_closed(event: OrderCancelled | OrderExpired, spec: MarketSpec) -> str:
    is_cancelled = isinstance(event, OrderCancelled)
    verb = "was cancelled" if is_cancelled else "expired"
    why = event.reason.name.lower().replace("_", " ")
    return (
        f"order {event.order_id} of account {event.account_id} in {event.market} {verb} ({why}), "
        f"{lots_text(spec, event.open_lots)} unfilled"
    )


def _conditional_cancelled(event: ConditionalCancelled, spec: MarketSpec) -> str:
    return f"conditional order {event.conditional_id} in {spec.symbol} was cancelled"


def _ordered(event: OrderAccepted, spec: MarketSpec) -> str:
    if not event.liquidation_id:
        return one_line(readable(event, {spec.symbol: spec}))
    return (
        f"{event.side.name.lower()} {lots_text(spec, event.quantity_lots)} {spec.symbol} at "
        f"{price_text(spec, event.price_ticks)} or better, at once or not at all: its bankruptcy price"
    )


def _trade(event: TradeExecuted, spec: MarketSpec) -> str:
    return (
        f"{lots_text(spec, event.quantity_lots)} {spec.symbol} at {price_text(spec, event.price_ticks)} "
        f"with account {event.maker_account_id}: realised {money_text(event.taker_realised)}, "
        f"fee {money_text(event.taker_fee)}"
    )


def _fee(event: LiquidationFeeCharged, spec: MarketSpec) -> str:
    rate = decimal_text(spec.liquidation_fee)
    amount = money_text(event.amount)
    return f"liquidation fee {amount} to the fund: {rate} of what was traded, at most the equity"


def _taken_over(event: PositionTakenOver, spec: MarketSpec) -> str:
    return (
        f"the fund took {lots_text(spec, event.size_lots)} {spec.symbol} over: the bucket realised "
        f"{money_text(event.realised)}, which takes exactly its share of the equity"
    )


def _ranked(event: DeleverageRanked, spec: MarketSpec) -> str:
    side = "longs" if event.side > 0 else "shorts"
    mark = price_text(spec, event.mark_ticks)
    return f"{event.count} {side} of {spec.symbol} ranked at mark {mark}, digest {event.digest.hex()[:16]}…"


_STEP_WORDS = {
    "OWN_LEG": "the account's own other leg",
    "FUND": "the insurance fund",
    "RANKED": "the other side by rank, at its bankruptcy price",
    "AT_MARK": "whoever is there, at mark",
}


def _deleveraged(event: PositionDeleveraged, spec: MarketSpec) -> str:
    parties = ", ".join(
        f"account {row.account_id} {lots_text(spec, row.quantity_lots)}" for row in event.parties
    )
    return (
        f"{lots_text(spec, event.size_lots)} {spec.symbol} closed against {_STEP_WORDS[event.step.name]} "
        f"({parties}): realised {money_text(event.realised)}"
    )


def _socialised(event: LossSocialised, spec: MarketSpec) -> str:
    side = "longs" if event.side > 0 else "shorts"
    return (
        f"{money_text(event.missing)} missing in {spec.symbol}: {money_text(event.from_allotment)} from the "
        f"fund's allotment, {money_text(event.from_wallet)} from its wallet, {money_text(event.charged)} "
        f"shared by {event.buckets} {side} and {len(event.closed)} just closed, "
        f"{money_text(event.unpaid)} by nobody"
    )


_SENTENCES: dict[type[Event], Callable[[Any, MarketSpec], str]] = {
    OrderCancelled: _order_closed,
    OrderExpired: _order_closed,
    ConditionalCancelled: _conditional_cancelled,
    OrderAccepted: _ordered,
    TradeExecuted: _trade,
    LiquidationFeeCharged: _fee,
    PositionTakenOver: _taken_over,
    DeleverageRanked: _ranked,
    PositionDeleveraged: _deleveraged,
    LossSocialised: _socialised,
}


def ranking_rows(story: Story) -> list[dict[str, Any]]:
    """Return the rows of the ranking that were used, and those that would have been next, as plain data.

    `score` is profit ratio × leverage in profit, profit ratio / leverage otherwise, to 8 decimals; the order
    is that of `score_exact`, a fraction. All of these are None of a bucket without equity, which comes last.
    `place` is None where nobody was ranked, "next" of those who gave nothing.
    """
    rows = []
    for event in story.steps:
        if isinstance(event, PositionDeleveraged):
            spec = story.specs[event.market]
            for row in event.parties:
                place = row.place if row.place >= 0 else None
                rows.append(_rank_row(event, place, row, lots_text(spec, row.quantity_lots)))
            rows += [_rank_row(event, "next", row, None) for row in event.following]
    return rows


def _rank_row(
    event: PositionDeleveraged, place: int | str | None, row: RankRow, gave: str | None
) -> dict[str, Any]:
    score = score_of(row)
    return {
        "market": event.market,
        "step": event.step.name.lower(),
        "place": place,
        "account_id": row.account_id,
        "leg": row.leg.name.lower(),
        "unrealised": money_text(row.unrealised),
        "entry_cost": money_text(row.entry_cost),
        "notional": money_text(row.notional),
        "equity": money_text(row.equity),
        "profit_ratio": score and _fraction_text(score.profit_ratio),
        "leverage": score and _fraction_text(score.leverage),
        "score": score and _fraction_text(score.score),
        "score_exact": score and str(score.score),
        "gave": gave,
    }


def _fraction_text(value: Fraction) -> str:
    """Return a fraction as a decimal with 8 digits, half-even."""
    return money_text(round(value * RATE_ONE))


# How it ended


def _fund_lines(story: Story) -> tuple[str, ...]:
    finished = story.case.finished
    change = finished.fund_after - finished.fund_before
    return (
        f"before       {money_text(finished.fund_before)}",
        f"after        {money_text(finished.fund_after)} ({_signed(change)})",
        f"the bucket   equity {money_text(finished.equity)} after it, "
        f"{money_text(finished.released)} released to the wallet",
    )


def verdict_lines(story: Story) -> list[str]:
    """Return what came out when the log was asked again."""
    again = story.recomputed
    return [
        f"worksheet    {again.worksheet or 'equal: exact fractions of sizes, costs and marks in the log'}",
        f"steps        {again.steps or 'equal: prices, sizes, fees, shares, order, computed a second time'}",
        f"decision     {again.decision or 'equal: the same commands at this state make the same bytes'}",
        f"entry        {story.case.seq}, chain hash {story.chain_hash.hex()}",
        "EQUAL" if again.is_equal else "NOT EQUAL",
    ]


def _sample(sample: Sample, specs: dict[str, MarketSpec]) -> dict[str, Any]:
    return {
        "seq": sample.seq,
        "time": time_text(sample.time_ns),
        "marks": {symbol: price_text(specs[symbol], ticks) for symbol, ticks in sample.marks.items()},
        "equity": money_text(sample.equity),
        "maintenance": money_text(sample.maintenance),
        "ratio": ratio_text(sample.maintenance, sample.equity) if sample.equity > 0 else None,
    }
