"""The outcome of a demonstration: what is printed at the end, for people and as JSON."""

import shlex
from collections.abc import Mapping
from decimal import Decimal

import msgspec
from rich.console import Console
from rich.table import Table

from events.values import MarginMode

MODES = (MarginMode.ISOLATED, MarginMode.CROSS)


class ModeOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the traders of one margin mode. Money is decimal text in quote.

    `lost` is what all of them paid in less what they are worth at the end, `lost_by_liquidated` the same of
    those that were liquidated at least once; negative for a profit.
    """

    accounts: int
    liquidated: int
    liquidations: int
    deposited: str
    deposited_by_liquidated: str
    lost: str
    lost_by_liquidated: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The summary of a demonstration; `--json` prints it as it stands here.

    `digest_live` is the intake's digest at entry `seq`, when the exchange was quiet, `digest_replay` that of
    the state rebuilt from the log by another process afterwards. `commands` and `events` are all there are
    in the log. `orders_acknowledged` were confirmed to traders; `orders_lost` of them are not in the log, and
    `orders_doubled` orders are in it more than once. `taken_over` positions went to the insurance fund;
    `deleveraged` positions of others were closed against those it could not bear, `socialised` was charged
    to the other side for them, and `unpaid` is what nobody had; `not_borne` liquidations met a halted market
    or a stale index. Amounts are decimal text in quote.
    """

    digest_live: str
    digest_replay: str
    seq: int
    data_dir: str
    prices: str
    seed: int
    duration_s: float
    elapsed_s: float
    accounts: int
    commands: int
    events: int
    commands_per_s: float
    ack_ms: Mapping[str, float]
    liquidations: Mapping[str, int]
    accounts_liquidated: Mapping[str, int]
    modes: Mapping[str, ModeOutcome]
    first_liquidated_account: int | None
    taken_over: int
    deleveraged: int
    socialised: str
    unpaid: str
    not_borne: int
    insurance_fund_before: str
    insurance_fund: str
    identities: str
    orders_acknowledged: int
    orders_lost: int
    orders_doubled: int
    rejected: int
    refusals: Mapping[str, int]
    unanswered: int
    restarts: Mapping[str, int]

    @property
    def is_proved(self) -> bool:
        """Whether the log holds all of it: digests agree, and every confirmed order is there once."""
        return self.digest_live == self.digest_replay and not self.orders_lost and not self.orders_doubled


def explore_commands(outcome: Outcome) -> list[str]:
    """Return the commands with which to look into the log that was left."""
    where = f"--data-dir {shlex.quote(outcome.data_dir)}"
    commands = [
        f"foldex replay {where}",
        f"foldex replay {where} --until {outcome.seq // 2}",
        f"foldex log {where} --type liquidation_started",
    ]
    if outcome.first_liquidated_account is not None:
        commands.append(f"foldex log {where} --account {outcome.first_liquidated_account}")
    commands.append(f"foldex up {where} --feed none")
    return commands


def print_outcome(console: Console, outcome: Outcome, explore: list[str]) -> None:
    """Print the outcome for people."""
    table = Table(title="what the crash did to traders, in USDT", title_justify="left")
    table.add_column("margin mode")
    for title in ("traders", "liquidated", "paid in", "lost", "all paid", "all lost"):
        table.add_column(title, justify="right")
    for name, mode in outcome.modes.items():
        table.add_row(
            name,
            str(mode.accounts),
            str(mode.liquidated),
            grouped_money(mode.deposited_by_liquidated),
            grouped_money(mode.lost_by_liquidated),
            grouped_money(mode.deposited),
            grouped_money(mode.lost),
        )
    console.print(table)
    before, after = grouped_money(outcome.insurance_fund_before), grouped_money(outcome.insurance_fund)
    lines = [
        f"prices          {outcome.prices}",
        f"insurance fund  {before} before, {after} after; {outcome.taken_over} positions taken over",
        f"deleveraging    {outcome.deleveraged} positions closed against others it could not bear; "
        f"{grouped_money(outcome.socialised)} socialised, {grouped_money(outcome.unpaid)} unpaid",
        f"the log         {outcome.commands:,} commands, {outcome.events:,} events, {outcome.seq:,} entries; "
        f"{outcome.commands_per_s:,.0f} commands/s through the crash",
        f"acknowledged    {outcome.orders_acknowledged:,} orders, p50 {outcome.ack_ms['p50']} ms, "
        f"p99 {outcome.ack_ms['p99']} ms; {outcome.orders_lost} lost, {outcome.orders_doubled} doubled",
        f"money           {outcome.identities}",
        f"digest live     {outcome.digest_live}",
        f"digest replay   {outcome.digest_replay}",
        "the log holds all of it" if outcome.is_proved else "THE LOG DOES NOT AGREE WITH WHAT WAS SEEN",
        "",
        f"The data directory is {outcome.data_dir}. To explore it:",
        *(f"  {command}" for command in explore),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def grouped_money(amount: str) -> str:
    """Return an amount with thousands apart, rounded to whole quote."""
    return f"{round(Decimal(amount)):,}"
