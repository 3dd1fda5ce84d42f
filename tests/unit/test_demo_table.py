"""What a demonstration shows: the live table, the plain line, the outcome and the commands to explore it."""

import io
from typing import Any

import msgspec
from rich.console import Console

from exchange.demo.outcome import ModeOutcome, Outcome, explore_commands, grouped_money, print_outcome
from exchange.demo.table import LiveDisplay, MarketView, PlainDisplay, View, open_display, plain_line

VIEW = View(
    phase="the crash",
    done=0.25,
    markets=[
        MarketView(symbol="BTCUSDT", mark="100000.0", bid="99970.0", ask="100030.0", open_interest="12.500")
    ],
    liquidations_isolated=3,
    liquidations_cross=1,
    fund="2,000,000",
    commands=1_234,
    commands_per_s=410.2,
    ack_p50_ms=4.25,
    ack_p99_ms=30.0,
)


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def _printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _outcome(**changes: Any) -> Outcome:
    mode = ModeOutcome(
        accounts=150,
        liquidated=90,
        liquidations=148,
        deposited="776900.00000000",
        deposited_by_liquidated="475100.00000000",
        lost="73413.40000000",
        lost_by_liquidated="146780.60000000",
    )
    fields: dict[str, Any] = {
        "digest_live": "ab" * 32,
        "digest_replay": "ab" * 32,
        "seq": 1_000,
        "data_dir": "/somewhere/my log",
        "prices": "synthetic-crash",
        "seed": 10,
        "duration_s": 45.0,
        "elapsed_s": 60.0,
        "accounts": 300,
        "commands": 20_000,
        "events": 40_000,
        "commands_per_s": 430.0,
        "ack_ms": {"p50": 7.7, "p99": 39.2},
        "liquidations": {"isolated": 148, "cross": 50},
        "accounts_liquidated": {"isolated": 90, "cross": 41},
        "modes": {"isolated": mode, "cross": mode},
        "first_liquidated_account": 17,
        "taken_over": 3,
        "deleveraged": 12,
        "socialised": "34.50000000",
        "unpaid": "0.00000000",
        "not_borne": 0,
        "insurance_fund_before": "2000000.00000000",
        "insurance_fund": "2020261.58691790",
        "identities": "exact",
        "orders_acknowledged": 9_745,
        "orders_lost": 0,
        "orders_doubled": 0,
        "rejected": 400,
        "refusals": {"-2019": 400},
        "unanswered": 0,
        "restarts": {"writer": 0},
    }
    return Outcome(**(fields | changes))


def test_terminal_gets_the_live_table() -> None:
    """Every figure of a look is in the table, with its progress."""
    console = _console(terminal=True)
    with LiveDisplay(console) as display:
        display.say("opening 300 accounts")
        display.show(VIEW)

    shown = _printed(console)
    for text in (
        "opening 300 accounts",
        "BTCUSDT", "100000.0", "99970.0", "100030.0", "12.500",
        "3 isolated, 1 cross", "2,000,000 USDT", "1,234 (410/s)", "p50 4.2 ms, p99 30.0 ms", "25%",
    ):  # fmt: skip
        assert text in shown


def test_pipe_gets_plain_lines_now_and_then() -> None:
    """Without a terminal a look is one line, and looks that follow at once are left out."""
    console = _console(terminal=False)
    with open_display(console) as display:
        display.show(VIEW)
        display.show(VIEW)

    assert isinstance(display, PlainDisplay)
    assert plain_line(VIEW) + "\n" == _printed(console)
    assert plain_line(VIEW).startswith("the crash 25% | BTCUSDT mark 100000.0 bid 99970.0 ask 100030.0")


def test_outcome_is_proved_by_digests_and_orders() -> None:
    """Another digest, a lost or a doubled order: each alone is a failure."""
    assert _outcome().is_proved
    assert not _outcome(digest_replay="cd" * 32).is_proved
    assert not _outcome(orders_lost=1).is_proved
    assert not _outcome(orders_doubled=1).is_proved


def test_outcome_for_people_says_what_each_mode_lost() -> None:
    """The table has the liquidated accounts and their losses, the lines the fund and both digests."""
    console = _console(terminal=False)
    print_outcome(console, _outcome(), ["foldex replay"])

    shown = _printed(console)
    for text in (
        "146,781",
        "2,020,262 after",
        "12 positions closed",
        "digest replay",
        "the log holds all of it",
        "foldex replay",
    ):
        assert text in shown
    assert 2 == shown.count("ab" * 32)


def test_commands_to_explore_can_be_pasted() -> None:
    """A directory with a blank is quoted, and the first liquidated account is offered."""
    commands = explore_commands(_outcome())

    assert all("--data-dir '/somewhere/my log'" in command for command in commands)
    assert any(command.endswith("--account 17") for command in commands)
    assert 1 + len(explore_commands(_outcome(first_liquidated_account=None))) == len(commands)


def test_json_has_the_promised_keys() -> None:
    """The summary keeps the names that scripts rely on."""
    summary = msgspec.json.decode(msgspec.json.encode(_outcome()))

    assert {"isolated": 148, "cross": 50} == summary["liquidations"]
    assert {"p50": 7.7, "p99": 39.2} == summary["ack_ms"]
    assert "2020261.58691790" == summary["insurance_fund"]


def test_money_is_grouped_in_whole_quote() -> None:
    """Thousands apart, rounded, with its sign."""
    assert ("2,020,262", "-1,500", "0") == tuple(
        grouped_money(text) for text in ("2020261.58691790", "-1500.20000000", "0.00000000")
    )
