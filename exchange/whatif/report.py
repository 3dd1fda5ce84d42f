"""Both runs side by side, for people and as plain data (money is decimal text in quote)."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from events.values import CROSS, MarginMode, MarketSpec
from exchange.audit.printer import one_line, readable, type_of
from exchange.audit.replay import time_text
from exchange.decimals import format_fixed, money_text
from exchange.whatif.changes import Changes
from exchange.whatif.course import Course, Refusal
from exchange.whatif.outcome import AccountCourse, Outcomes, distance, worth

ROWS_MAX = 20
LABEL_CHARS_MAX = 30
CLIENTS_NOTE = (
    "Everything else is as recorded: clients give the commands they gave, whatever became of them here."
)


def plain(course: Course, changes: Changes, account_ids: Iterable[int]) -> dict[str, Any]:
    """Return both runs as plain data: those accounts that are asked for, or changed, or fared differently."""
    counts = course.requests
    specs = {symbol: market.spec for symbol, market in course.then.markets.items()}
    return {
        "changes": list(changes.described),
        "reproduced": course.is_reproduced,
        "entries": course.entries,
        "commands": course.commands,
        "commands_changed": course.changed,
        "commands_added": course.added,
        "extra_entries": course.extra_entries,
        "first_change": course.first_change,
        "first_difference": course.first_difference,
        "digest_recorded": course.then.digest().hex(),
        "digest": course.now.digest().hex(),
        "requests": {
            "recorded": counts.recorded,
            "kept": counts.kept,
            "left_out": counts.left_out,
            "added_at_answer": counts.at_answer,
            "added_at_lag": counts.at_lag,
        },
        "note": CLIENTS_NOTE,
        "venue": {"before": _venue(course.outcomes_then), "after": _venue(course.outcomes_now)},
        "accounts": [_account(course, each) for each in _concerned(course, changes, account_ids)],
        "refused": [_refusal(each, specs) for each in course.refused],
        "accepted": [_refusal(each, specs) for each in course.accepted],
        "refused_changes": [_refusal(each, specs) for each in course.added_refused],
        "failures": [{"seq": seq, "fields": readable(event, specs)} for seq, event in course.failures],
        "failed": [{"seq": seq, "fields": readable(event, specs)} for seq, event in course.failed],
    }


def _venue(outcomes: Outcomes) -> dict[str, Any]:
    return {
        "liquidations": {mode.name.lower(): outcomes.liquidations[mode] for mode in MarginMode},
        "accounts_liquidated": sum(bool(each.liquidations) for each in outcomes.accounts.values()),
        "results": dict(sorted(outcomes.results.items())),
        "taken_over": outcomes.taken_over,
        "deleveraged": outcomes.deleveraged,
        "socialised": money_text(outcomes.socialised),
        "unpaid": money_text(outcomes.unpaid),
        "insurance_fund": money_text(outcomes.fund),
        "trades": outcomes.state.trade_count,
    }


def _concerned(course: Course, changes: Changes, account_ids: Iterable[int]) -> list[int]:
    """Return the accounts to show: those that were asked for alone, else the changed ones and all whose
    liquidations or equity differ, the largest difference first."""
    asked = [account_id for account_id in account_ids if account_id in course.then.accounts]
    if asked:
        return asked
    named = [account_id for account_id in changes.account_ids if account_id in course.then.accounts]
    gaps = {}
    for account_id in course.then.accounts:
        gap = abs(worth(course.now.accounts[account_id]) - worth(course.then.accounts[account_id]))
        is_other = _has_died(course.outcomes_then, account_id) != _has_died(course.outcomes_now, account_id)
        if account_id > 1 and account_id not in named and (gap or is_other):
            gaps[account_id] = (not is_other, -gap, account_id)
    return [*named, *sorted(gaps, key=gaps.__getitem__)]


def _has_died(outcomes: Outcomes, account_id: int) -> bool:
    return account_id in outcomes.accounts and bool(outcomes.accounts[account_id].liquidations)


def _account(course: Course, account_id: int) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "label": course.then.accounts[account_id].label,
        "before": _side(course.outcomes_then, account_id),
        "after": _side(course.outcomes_now, account_id),
    }


def _side(outcomes: Outcomes, account_id: int) -> dict[str, Any]:
    fared = outcomes.accounts.get(account_id, AccountCourse())
    account = outcomes.state.accounts[account_id]
    away = distance(account)
    return {
        "liquidated": bool(fared.liquidations),
        "liquidations": [
            {
                "seq": each.seq,
                "time": time_text(each.time_ns),
                "mode": each.mode.name.lower(),
                "market": each.market,
            }
            for each in fared.liquidations
        ],
        "equity": money_text(worth(account)),
        "worst_margin_ratio": _fixed(fared.worst_ratio) if fared.worst_seq else "0.00000000",
        "worst_at": fared.worst_seq or None,
        "distance": None if away is None else format_fixed(away),
        "open": [
            {
                "market": position.market.symbol,
                "leg": position.leg.name,
                "mode": position.mode.name.lower(),
            }
            for position in account.positions.values()
            if position.size_lots
        ],
        "trades": fared.trades,
        "deleveraged": fared.deleveraged,
    }


def _fixed(value: int | None) -> str | None:
    return None if value is None else format_fixed(value)


def _refusal(refusal: Refusal, specs: Mapping[str, MarketSpec]) -> dict[str, Any]:
    return {
        "seq": refusal.seq,
        "index": refusal.index,
        "type": type_of(refusal.command),
        "account_id": getattr(refusal.command, "account_id", None),
        "code": refusal.code,
        "reason": refusal.reason,
        "fields": readable(refusal.command, specs),
    }


def print_report(console: Console, report: dict[str, Any]) -> None:
    """Print what `plain` returned."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for change in report["changes"] or ["nothing"]:
        say(f"changed         {change}")
    if report["reproduced"]:
        say(f"the same        all {report['entries']:,} entries, event for event; digest {report['digest']}")
    else:
        say(f"the same        up to entry {(report['first_difference'] or 1) - 1} of {report['entries']:,}")
    console.print(_venue_table(report["venue"]))
    if report["accounts"]:
        console.print(_account_table(report["accounts"][:ROWS_MAX]))
    more = len(report["accounts"]) - ROWS_MAX
    if more > 0:
        say(f"                and {more} accounts more that fared differently (--json has all of them)")
    requests = report["requests"]
    say(
        f"liquidator      {requests['kept']} of {requests['recorded']} recorded requests made, "
        f"{requests['left_out']} left out (not due any more); {requests['added_at_answer']} added where the "
        f"recorded one answered the same cause, {requests['added_at_lag']} at its last lag"
    )
    for name, title in (
        ("refused", "refused now"),
        ("accepted", "accepted now"),
        ("refused_changes", "change refused"),
    ):
        _print_refusals(say, title, report[name])
    if report["failures"]:
        say(f"failures        {len(report['failures'])} recorded, taken as given")
    for each in report["failed"][:ROWS_MAX]:
        say(
            f"failed now      entry {each['seq']}: {one_line(each['fields'])}: a fault of the exchange itself"
        )
    say(f"note            {CLIENTS_NOTE}")


def _print_refusals(say: Any, title: str, refusals: list[dict[str, Any]]) -> None:
    if not refusals:
        return
    plural = "s" if len(refusals) != 1 else ""
    say(f"{title:<15} {len(refusals)} command{plural}")
    for each in refusals[:ROWS_MAX]:
        whose = f"account {each['account_id']}" if each["account_id"] is not None else "nobody"
        place = f"{each['seq']}.{each['index']}"
        say(f"  {place:<9} {each['type']} of {whose}: {each['code']}: {each['reason']}")
    if len(refusals) > ROWS_MAX:
        say(f"  and {len(refusals) - ROWS_MAX} more (--json has all of them)")


def _venue_table(venue: dict[str, Any]) -> Table:
    table = Table(title="the venue", title_justify="left")
    table.add_column("")
    table.add_column("recorded", justify="right")
    table.add_column("what if", justify="right")
    rows: tuple[tuple[str, Any], ...] = (
        ("liquidations, isolated", lambda side: side["liquidations"]["isolated"]),
        ("liquidations, cross", lambda side: side["liquidations"]["cross"]),
        ("accounts liquidated", lambda side: side["accounts_liquidated"]),
        ("positions taken over", lambda side: side["taken_over"]),
        ("positions deleveraged", lambda side: side["deleveraged"]),
        ("loss shared", lambda side: side["socialised"]),
        ("insurance fund", lambda side: side["insurance_fund"]),
        ("trades", lambda side: side["trades"]),
    )
    for title, figure in rows:
        table.add_row(title, str(figure(venue["before"])), str(figure(venue["after"])))
    return table


def _account_table(accounts: list[dict[str, Any]]) -> Table:
    table = Table(title="accounts", title_justify="left")
    for title in ("account", "run", "liquidated"):
        table.add_column(title)
    for title in ("equity", "worst ratio", "distance", "still open"):
        table.add_column(title, justify="right")
    for account in accounts:
        name = f"{account['account_id']} {account['label'][:LABEL_CHARS_MAX]}".strip()
        for run, side in (("recorded", account["before"]), ("what if", account["after"])):
            open_markets = ", ".join(f"{each['market']} {each['mode']}" for each in side["open"])
            table.add_row(
                name,
                run,
                _died_text(side["liquidations"]),
                f"{side['equity'][:-6]}",
                "no equity" if side["worst_margin_ratio"] is None else side["worst_margin_ratio"][:-4],
                "-" if side["distance"] is None else f"{float(side['distance']):.1%}",
                open_markets or "-",
            )
            name = ""
    return table


def _died_text(liquidations: list[dict[str, Any]]) -> str:
    if not liquidations:
        return "no"
    first = liquidations[0]
    what = first["market"] or f"{CROSS.name.lower()} pool"
    more = f" and {len(liquidations) - 1} more" if len(liquidations) > 1 else ""
    return f"{what} at {first['time'][11:23]} (entry {first['seq']}){more}"
