"""The other run: the same without a change, different only by what was changed, and still a log."""

import asyncio
import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from events.commands import Deposit, OpenAccount
from events.events import CommandFailed, Deposited, Event
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    EventEntry,
    Groups,
    chain_hash,
    decode_groups,
    encode_groups,
)
from events.log import CommandEntry, ReadableLog
from events.memory import MemoryLog
from events.values import MarginMode
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.failing import Failure, Failures
from exchange.aggregate.state import AGGREGATE_ORDER_BASE
from exchange.audit.cli import NotInLogError
from exchange.audit.verify import Extent, verify
from exchange.whatif import course as course_module
from exchange.whatif.changes import ChangeError, read_changes
from exchange.whatif.course import Course, WhatIfError, run_again
from exchange.whatif.example import BTC, CARL, ETH, IDA, SOL, TESS, example_log
from exchange.whatif.outcome import worth
from exchange.whatif.report import plain, print_report
from exchange.whatif.requests import RecordedRequests, read_requests
from tests.fixtures.recorder import WRITER, small
from tests.planted import IN_DECIDING, IN_ENCODING, IN_TRADING, IS_COMPILED, plant
from tests.recorded import LOG_ID, Recorded
from tests.traded import LoggedVenue
from tests.venue import money

COMMANDS = 900


def again(log: ReadableLog, **texts: list[str]) -> Course:
    """Run a log again with changes as they are typed."""
    return asyncio.run(run_again(log, read_changes(**texts)))


def died(course: Course, account_id: int) -> tuple[bool, bool]:
    """Whether an account was liquidated, recorded and in the other run."""
    before, after = (
        each.accounts[account_id].liquidations for each in (course.outcomes_then, course.outcomes_now)
    )
    return bool(before), bool(after)


def equities(course: Course, account_id: int) -> tuple[int, int]:
    """What an account is worth in the end, recorded and in the other run, in whole quote."""
    before, after = (worth(state.accounts[account_id]) // 10**8 for state in (course.then, course.now))
    return before, after


def held(course: Course, account_id: int) -> list[str]:
    """The markets in which an account has a position at the end of the other run."""
    positions = course.now.accounts[account_id].positions.values()
    return [position.market.symbol for position in positions if position.size_lots]


async def random_log(seed: int) -> MemoryLog:
    """Return a log of random trading: liquidations, conditional orders, mode switches, refusals."""
    log = MemoryLog()
    recorded = Recorded(log, seed=seed)
    await recorded.begin()
    await recorded.trade(COMMANDS)
    return log


class Copy:
    """Keeps the other run as a log of its own."""

    def __init__(self, log_id: str) -> None:
        self.log = MemoryLog()
        self._log_id = log_id
        self._hash = GENESIS_HASH

    def add(self, frame: CommandFrame, groups: Groups) -> None:
        """Add an entry."""
        seq = len(self.log.commands) + 1
        body = encode_groups(groups)
        self._hash = chain_hash(self._log_id, self._hash, seq, SCHEMA_VERSION, frame.checksum, body)
        self.log.commands.append(CommandEntry(seq=seq, frame=frame))
        self.log.events.append(
            EventEntry(seq=seq, schema=SCHEMA_VERSION, body=body, chain_hash=self._hash, writer=WRITER)
        )


# The unchanged run


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_unchanged_run_is_the_recorded_one(seed: int) -> None:
    """Every event of random trading comes out again byte for byte, and so does the state in the end."""
    log = asyncio.run(random_log(seed))

    course = again(log)

    assert course.is_reproduced
    assert (None, None) == (course.first_change, course.first_difference)
    assert course.then.digest() == course.now.digest()
    assert len(log.events) == course.entries
    assert sum(map(len, (course.refused, course.accepted, course.added_refused))) == 0
    assert 0 == course.requests.at_answer + course.requests.at_lag + course.requests.left_out


def test_a_log_that_was_decided_otherwise_is_not_run() -> None:
    """An entry that this build decides differently is named: nothing could be said about what follows."""
    log, copy = example_log(), Copy("e" * 32)
    for command, entry in zip(log.commands, log.events, strict=True):
        groups = decode_groups(entry.body)
        groups = [[_richer(event) for event in group] for group in groups]
        copy.add(command.frame, groups)

    with pytest.raises(WhatIfError, match="entry 9: deciding it again does not give what is recorded"):
        again(copy.log)


def _richer(event: Event) -> Event:
    """Give ida one unit more than she brought."""
    if isinstance(event, Deposited) and event.account_id == IDA:
        return msgspec.structs.replace(event, amount=event.amount + 1)
    return event


def test_other_rules_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log under another version of the rules is refused with the entry and both versions."""
    monkeypatch.setattr(course_module, "RULES_VERSION", 2)
    with pytest.raises(WhatIfError, match="version 1 of the rules, this build has 2"):
        again(example_log())


def test_recorded_failures_are_taken_as_given() -> None:
    """What the exchange could not carry out fails again in the other run, and is listed."""
    recorder = small()
    failures = Failures()
    failures.commands[1] = Failure("ValueError", "somewhere: 7")
    recorder.send(OpenAccount(), Deposit(account_id=2, amount=50), failures=failures)

    same, other = again(recorder.log), again(recorder.log, wallet=["2=+0.00000010"])

    assert same.is_reproduced
    ((seq, event),) = other.failures
    assert isinstance(event, CommandFailed)
    assert (7, 1, 110) == (seq, event.index, other.now.accounts[2].wallet)


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
@pytest.mark.parametrize("word", [IN_DECIDING, IN_ENCODING, IN_TRADING])
def test_what_fails_in_the_other_run_alone_is_recorded_there(
    monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """The run goes on as a writer does: three failures block the account; the run verifies as a log."""
    venue = LoggedVenue()
    venue.index(BTC, "50000")
    alice, bob = venue.account("10000"), venue.account("10000")
    for n in range(4):
        alice.sell(BTC, "0.002", "50000", client_id=f"rests-{n}")
        bob.buy(BTC, "0.002", "50000", client_id=word if n < 3 else "good")
    log = venue.as_log()
    plant(monkeypatch.setattr, monkeypatch.setitem)
    copy = Copy(LOG_ID)

    course = asyncio.run(run_again(log, read_changes(wallet=[f"{alice.account_id}=+1"]), on_entry=copy.add))

    events = [event for _, event in course.failed]
    assert 3 == len(events)
    assert {bob.account_id} == {event.account_id for event in events if isinstance(event, CommandFailed)}
    assert bob.account_id in course.now.blocked
    assert not course.then.blocked
    assert [BTC] == [each.market.symbol for each in course.then.accounts[bob.account_id].positions.values()]
    assert [] == held(course, bob.account_id)
    assert [] == course.failures
    course.now.check_identities()
    verified = asyncio.run(verify(copy.log, Extent(decide=True)))
    assert (None, course.now.digest()) == (verified.finding, verified.digest)
    report = plain(course, read_changes(wallet=[f"{alice.account_id}=+1"]), [])
    assert 3 == len(report["failed"])
    console = Console(file=io.StringIO(), width=200)
    print_report(console, report)
    assert 3 == console.file.getvalue().count("failed now")  # type: ignore[attr-defined]


@pytest.mark.skipif(IS_COMPILED, reason="nothing can be planted in compiled rules")
def test_what_fails_without_a_change_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that cannot carry out what is recorded says nothing about what would have been."""
    venue = LoggedVenue()
    venue.index(BTC, "50000")
    alice = venue.account("10000")
    alice.sell(BTC, "0.002", "50000", client_id=IN_DECIDING)
    log = venue.as_log()
    plant(monkeypatch.setattr, monkeypatch.setitem)

    with pytest.raises(WhatIfError, match="cannot be decided in the other run: command 0: KeyError"):
        again(log)


# The story


def test_in_cross_the_same_capital_survives() -> None:
    """Ida dies at 45,150 on 500 of her 2,500; as cross all of it stands behind her, and she has 2,700."""
    course = again(example_log(), mode=[f"{IDA}:{BTC}=cross"])

    assert (True, False) == died(course, IDA)
    assert (2_000, 2_700) == equities(course, IDA)
    assert [BTC] == held(course, IDA)
    assert ((True, True), (True, True)) == (died(course, CARL), died(course, TESS))


def test_isolated_keeps_what_did_not_move() -> None:
    """Carl's pool takes ETH and SOL along; isolated he loses BTC's 500 and keeps the other two."""
    course = again(example_log(), mode=[f"{CARL}:*=isolated"])

    assert (0, 1_000) == equities(course, CARL)
    assert [ETH, SOL] == held(course, CARL)
    (liquidation,) = course.outcomes_now.accounts[CARL].liquidations
    assert (BTC, MarginMode.ISOLATED) == (liquidation.market, liquidation.mode)


def test_a_wider_bucket_outlives_the_path() -> None:
    """With 600 instead of 500 tess is there when 51,000 comes; her sale, refused then, is accepted now."""
    course = again(example_log(), bucket=[f"{TESS}:{BTC}=600"])

    assert (True, False) == died(course, TESS)
    assert (500, 1_100) == equities(course, TESS)
    (sale,) = course.accepted
    assert (TESS, "REDUCE_ONLY") == (sale.command.account_id, sale.code)  # type: ignore[attr-defined]


def test_a_smaller_wallet_cannot_place_its_orders() -> None:
    """With 700 carl's second and third order are refused, counted and named."""
    course = again(example_log(), wallet=[f"{CARL}=700"])

    assert [(25, "INSUFFICIENT_MARGIN"), (27, "INSUFFICIENT_MARGIN")] == [
        (each.seq, each.code) for each in course.refused
    ]
    assert (True, True) == died(course, CARL)


def test_worst_ratio_and_where() -> None:
    """At 45,150 ida has 15 for 18.06: 1.204. As cross it is worst at 35,500: 14.2 of 1,050."""
    course = again(example_log(), mode=[f"{IDA}:{BTC}=cross"])

    before, after = course.outcomes_then.accounts[IDA], course.outcomes_now.accounts[IDA]
    assert (money("18.06"), money("15")) == (before.worst_maintenance, before.worst_equity)
    assert (money("14.2"), money("1050")) == (after.worst_maintenance, after.worst_equity)


def test_a_mode_that_was_recorded_changes_nothing() -> None:
    """Asking for what is there already: other commands, the same end."""
    course = again(example_log(), mode=[f"{CARL}:*=cross"], leverage=[f"{CARL}:*=10"])

    assert course.then.venue_digest() == course.now.venue_digest()


def test_the_fund_can_be_another() -> None:
    """Without insurance, and without its money in the fund's wallet, gaps are borne by somebody else."""
    course = again(example_log(), fund=["*=0"])

    fund = course.now.accounts[FUND_ACCOUNT_ID]
    assert 0 == fund.wallet
    assert [] == course.added_refused
    assert money("303000") == course.outcomes_then.fund
    assert course.now.deposited - course.now.withdrawn == course.then.deposited - money("300000")


def test_brackets_can_be_others(tmp_path: Path) -> None:
    """At a maintenance rate of 7 % the 300 that 48,000 leaves of 500 are not enough for 336.

    The recorded liquidator looked two entries later, so that ida meets 45,150 first.
    """
    table = tmp_path / "brackets.json"
    table.write_text('[{"cap": "1000000", "maintenance_rate": "0.07", "max_leverage": 10}]')

    course = again(example_log(), brackets=[f"{BTC}={table}"])

    before, after = course.outcomes_then.accounts[IDA], course.outcomes_now.accounts[IDA]
    assert after.liquidations[0].seq < before.liquidations[0].seq
    assert (money("316.05"), money("15")) == (after.worst_maintenance, after.worst_equity)


# Prices


def test_moves_can_be_smaller() -> None:
    """Nine tenths of each move: 45,635 leaves tess 63.5 of 500, and 36,950 leaves carl 195 of 1,500."""
    course = again(example_log(), moves=[f"{BTC}=0.9"])

    assert (True, False) == died(course, TESS)
    assert (True, False) == died(course, CARL)
    assert 5_180_000 == course.now.markets[BTC].index_ticks  # 50,000 + 0.9 × 2,000


def test_a_path_of_ones_own(tmp_path: Path) -> None:
    """Prices by seconds since the first one; before the path begins they are as recorded."""
    path = tmp_path / "path.csv"
    path.write_text("time,price\n10.5,49000\n20,49500.00\n")

    course = again(example_log(), prices=[f"{BTC}={path}"])

    assert [] == list(course.outcomes_now.liquidations)
    assert 4_950_000 == course.now.markets[BTC].index_ticks


def test_a_shift_holds_from_its_entry_on() -> None:
    """−1,000 from entry 30 on: 44,150 kills, and the end is 51,000."""
    course = again(example_log(), shift=[f"{BTC}=-1000@30"])

    assert 5_100_000 == course.now.markets[BTC].index_ticks
    assert 30 <= (course.first_change or 0)


# What must hold for every other run


CHANGES: tuple[dict[str, list[str]], ...] = (
    {"mode": ["*:*=isolated"]},
    {"mode": ["*:BTCUSDT=cross"], "leverage": ["*:*=50"]},
    {"wallet": ["3=500", "4=+5000"]},
    {"moves": ["BTCUSDT=1.3"]},
    {"fund": ["*=0"], "bucket": ["*:*=300"]},
    {"shift": ["ETHUSDT=-4%@400"]},
)


@pytest.mark.parametrize("texts", CHANGES, ids=lambda texts: "+".join(texts))
def test_the_other_run_is_a_log(texts: dict[str, list[str]]) -> None:
    """It verifies, decided again; money adds up; recorded entries keep their numbers and times."""
    log = asyncio.run(random_log(4))
    copy = Copy(LOG_ID)

    course = asyncio.run(run_again(log, read_changes(**texts), on_entry=copy.add))
    report = asyncio.run(verify(copy.log, Extent(decide=True)))

    assert report.finding is None
    assert report.digest == course.now.digest()
    assert not course.is_reproduced
    for before, after in zip(log.commands, copy.log.commands, strict=False):
        assert (before.frame.origin, before.frame.n, before.frame.time_ns) == (
            after.frame.origin,
            after.frame.n,
            after.frame.time_ns,
        )
    for number in range((course.first_change or 1) - 1):
        assert log.events[number] == _unmarked(copy.log.events[number], log.events[number])


def _unmarked(entry: EventEntry, like: EventEntry) -> EventEntry:
    return msgspec.structs.replace(entry, writer=like.writer, timing=like.timing)


# Requests to liquidate


def test_a_request_goes_where_the_same_cause_was_answered() -> None:
    """Carl's isolated BTC comes due with ida's and tess's: it is asked for in the entry of their answer."""
    course = again(example_log(), mode=[f"{CARL}:{BTC}=isolated"])

    counts = course.requests
    assert (3, 1, 1, 0) == (counts.recorded, counts.left_out, counts.at_answer, counts.at_lag)
    ida, carl = course.outcomes_then.accounts[IDA], course.outcomes_now.accounts[CARL]
    assert ida.liquidations[0].seq == carl.liquidations[0].seq


def test_a_request_of_its_own_comes_at_the_last_lag() -> None:
    """With 700 carl is due in entry 40, which nobody answered: the last answer took two entries."""
    course = again(example_log(), wallet=[f"{CARL}=700"])

    assert (0, 1) == (course.requests.at_answer, course.requests.at_lag)
    (liquidation,) = course.outcomes_now.accounts[CARL].liquidations
    assert 42 == liquidation.seq


def test_the_lag_is_that_of_the_last_answer() -> None:
    """Before the first answer it is that one's, without any it is one entry."""
    requests = RecordedRequests(lags=[(10, 3), (20, 1)])
    assert [3, 3, 1] == [requests.lag_at(seq)[0] for seq in (5, 10, 25)]
    assert 1 == RecordedRequests().lag_at(5)[0]


def test_what_waits_at_the_end_is_done_behind_it() -> None:
    """A bucket that comes due with the last entry is liquidated in one behind it."""
    venue = LoggedVenue()
    alice, bob = venue.account("1000"), venue.account("100000")
    venue.index(BTC, "50000")
    bob.sell(BTC, "0.1", "50000")
    alice.buy(BTC, "0.1", "50000")
    venue.index(BTC, "46000")
    log = venue.as_log()

    course = again(log, wallet=[f"{alice.account_id}=400"])

    assert (len(log.events), 1) == (course.entries, course.extra_entries)
    (liquidation,) = course.outcomes_now.accounts[alice.account_id].liquidations
    assert len(log.events) + 1 == liquidation.seq


def test_requests_are_found_by_their_cause() -> None:
    """The story's liquidator answered three times, each two entries behind its cause."""
    log = example_log()
    found = asyncio.run(read_requests(log, len(log.events)))

    assert {2} == {lag for _, lag in found.lags}
    assert 3 == sum(map(len, found.by_cause.values()))


def test_an_order_that_the_exchange_made_is_found_under_its_other_number() -> None:
    """Bob cancels the order of his triggered stop; a liquidation in front of it took its number."""
    venue = LoggedVenue()
    alice, bob = venue.account("1000"), venue.account("100000")
    venue.index(BTC, "50000")
    bob.sell(BTC, "0.1", "50000")
    alice.buy(BTC, "0.1", "50000")
    bob.buy(BTC, "0.1", "46900")
    venue.index(BTC, "47000")
    venue.liquidate(alice)  # 700 are left: skipped
    bob.conditional("STOP", "SELL", BTC, "0.1", "46950", price="48000", watches="MARK")
    venue.index(BTC, "46900")
    (number,) = (n for n in bob.account.orders if n >= AGGREGATE_ORDER_BASE)
    bob.cancel(BTC, number)

    course = again(venue.as_log(), wallet=[f"{alice.account_id}=320"])

    assert (False, True) == died(course, alice.account_id)
    assert (1, 2) == (course.then.aggregate_order_count, course.now.aggregate_order_count)
    assert [] == course.refused
    assert not course.now.accounts[bob.account_id].orders


# Bad input


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"mode": ["3=cross"]}, "--mode 3=cross: must be ACCOUNT:MARKET=VALUE"),
        ({"mode": ["3:BTCUSDT=half"]}, "must be cross or isolated"),
        ({"mode": ["0:BTCUSDT=cross"]}, "account 0 is the exchange's own"),
        ({"mode": ["x:BTCUSDT=cross"]}, "the account must be a number"),
        ({"leverage": ["3:BTCUSDT=0"]}, "must be a whole number of at least 1"),
        ({"bucket": ["3:BTCUSDT=0"]}, "must be positive"),
        ({"wallet": ["3=1e5"]}, "must be a plain decimal number"),
        ({"wallet": ["3=1", "3=2"]}, "--wallet 3: is given twice"),
        ({"fund": ["BTCUSDT"]}, "--fund BTCUSDT: must be NAME=VALUE"),
        ({"moves": ["BTCUSDT=fast"]}, "must be a plain decimal number"),
        ({"shift": ["BTCUSDT=-100%"]}, "must leave a positive price"),
        ({"shift": ["BTCUSDT=5@noon"]}, "behind @ there must be the number of an entry"),
        ({"prices": ["BTCUSDT=/nowhere.csv"]}, "No such file"),
        ({"brackets": ["BTCUSDT=/nowhere.json"]}, "No such file"),
        ({"prices": ["BTCUSDT=FILE"], "moves": ["BTCUSDT=2"]}, "has --moves or --shift as well"),
    ],
)
def test_what_cannot_be_read_is_named(texts: dict[str, list[str]], reason: str, tmp_path: Path) -> None:
    """A change that is none is refused with its option and the rule."""
    path = tmp_path / "path.csv"
    path.write_text("time,price\n0,1\n")
    with pytest.raises(ChangeError, match=reason.replace("(", r"\(")):
        read_changes(**{name: [t.replace("FILE", str(path)) for t in each] for name, each in texts.items()})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("when,price\n", "line 1: the header must be time,price"),
        ("time,price\n", "has no prices"),
        ("time,price\n5,10\n5,11\n", "line 3: time is not after the one before it"),
        ("time,price\n5,-1\n", "line 2: price '-1' is not a positive price"),
        ("time,price\nsoon,1\n", "line 2: 'soon' is neither a date"),
        ("time,price\n1,2,3\n", "line 2: must have two columns"),
        ("time,price\n5,10\n2025-10-10T21:20:00,11\n", "has both dates and seconds"),
    ],
)
def test_a_bad_path_is_named_with_its_line(content: str, reason: str, tmp_path: Path) -> None:
    """What is wrong with a price file is said with the line."""
    path = tmp_path / "path.csv"
    path.write_text(content)
    with pytest.raises(ChangeError, match=reason):
        read_changes(prices=[f"BTCUSDT={path}"])


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"mode": ["99:BTCUSDT=cross"]}, "there is no account 99"),
        ({"mode": ["3:DOGEUSDT=cross"]}, "DOGEUSDT is not listed in this log; listed: BTCUSDT"),
        ({"wallet": ["99=5"]}, "there is no account 99"),
        ({"moves": ["DOGEUSDT=2"]}, "DOGEUSDT is not listed"),
        (
            {"shift": ["BTCUSDT=-3%@1200"]},
            "--shift BTCUSDT: the log ends at entry 46; there is no entry 1200",
        ),
        ({"bucket": ["4:BTCUSDT=600"]}, "--bucket 4:BTCUSDT: no isolated position is opened there"),
        ({"bucket": ["3:ETHUSDT=600"]}, "--bucket 3:ETHUSDT: no isolated position is opened there"),
    ],
)
def test_what_the_log_does_not_have_is_named(texts: dict[str, list[str]], reason: str) -> None:
    """A change that is about nothing in the log is an error, not a run without a difference."""
    with pytest.raises(NotInLogError, match=reason):
        again(example_log(), **texts)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"shift": ["BTCUSDT=-60000"]}, "the price of BTCUSDT would not be positive"),
        ({"wallet": ["3=-9000"]}, "--wallet 3: nothing is left of the first deposit"),
        ({"leverage": ["3:BTCUSDT=500"]}, "--leverage 500: BTCUSDT permits 1 to 125"),
        ({"leverage": ["*:*=126"]}, "--leverage 126: BTCUSDT permits 1 to 125"),
    ],
)
def test_what_cannot_be_changed_like_that_is_named(texts: dict[str, list[str]], reason: str) -> None:
    """A change that the log does not permit is an error with its place."""
    with pytest.raises(ChangeError, match=reason):
        again(example_log(), **texts)
