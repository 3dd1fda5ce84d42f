"""The same log decided by other interpreters gives the same bytes.

A log of random trading is written once, as the command frames that a writer would read. Interpreters that
differ in everything a program could depend on by mistake then decide it from nothing: another hash seed
(and with it another order of sets), another locale, another time zone.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from events.commands import (
    AllotInsurance,
    AnyCommand,
    CreateLog,
    Deposit,
    ListMarket,
    OpenAccount,
    SetIndexPrice,
    SetPositionMode,
)
from events.events import Rejected, TradeExecuted
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    CommandFrame,
    chain_hash,
    close_command_frame,
    encode_groups,
)
from events.values import IndexSource
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID
from exchange.aggregate.decide import decide_frame, propose_now
from exchange.aggregate.state import RULES_VERSION, Exchange
from tests.flow import FUND, HOME_TICKS, SPECS, pause_ns, random_command
from tests.venue import NS_PER_MS, money

COMMANDS = int(os.environ.get("FOLDEX_DETERMINISM_COMMANDS", "5000"))
COMMANDS_PER_FRAME_MAX = 8
ACCOUNTS = 12
START_NS = 1_700_000_000 * 10**9
ORIGIN = "test:" + "0" * 32
ROOT = Path(__file__).resolve().parents[2]
DECIDE_LOG = "import sys; from tests.property import test_determinism as t; print(t.decide_log(sys.argv[1]))"
INTERPRETERS = (
    {"PYTHONHASHSEED": "0"},
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "2"},
    {"PYTHONHASHSEED": "random", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "0"},
)


class Decider:
    """Decides frames from nothing; `hash` covers all event bytes so far, in order."""

    def __init__(self) -> None:
        self.state = Exchange()
        self.hash = GENESIS_HASH
        self.trades = 0
        self.refusals = 0

    def decide(self, frame: CommandFrame) -> None:
        """Decide one frame; the writer's clock is the frame's own."""
        seq = self.state.seq + 1
        now_ns = propose_now(self.state.now_ns, frame.time_ns, frame.time_ns)
        groups = decide_frame(self.state, seq, frame, now_ns)
        body = encode_groups(groups)
        self.hash = chain_hash(self.state.log_id, self.hash, seq, SCHEMA_VERSION, frame.checksum, body)
        for event in (event for group in groups for event in group):
            self.trades += isinstance(event, TradeExecuted)
            self.refusals += isinstance(event, Rejected)

    @property
    def result(self) -> str:
        """The hash of all event bytes, and the digest of the state they lead to."""
        return f"{self.hash.hex()} {self.state.digest().hex()}"


def setup_commands(random: Random) -> Iterator[AnyCommand]:
    """Yield what makes an exchange with two markets, a fund and funded accounts, a third of them hedging."""
    yield CreateLog(log_id="0" * 32, rules_version=RULES_VERSION)
    yield Deposit(account_id=FUND_ACCOUNT_ID, amount=money(FUND) * len(SPECS))
    for spec in SPECS:
        yield ListMarket(spec=spec)
        yield AllotInsurance(market=spec.symbol, amount=money(FUND))
        source = IndexSource(source="flow", price_ticks=HOME_TICKS[spec.symbol], raw="")
        yield SetIndexPrice(market=spec.symbol, sources=(source,))
    for n in range(ACCOUNTS):
        yield OpenAccount()
        account_id = FIRST_USER_ACCOUNT_ID + n
        yield Deposit(account_id=account_id, amount=money(str(random.randint(200, 20_000))))
        if n % 3 == 2:
            yield SetPositionMode(account_id=account_id, hedge=True)


def write_log(path: Path, count: int) -> Decider:
    """Write a log of random trading and return what decided it on the way.

    Commands of one frame are chosen before it is decided, as those of users are who do not see each other.
    """
    random = Random(3)
    decider = Decider()
    frames: list[CommandFrame] = []
    time_ns = START_NS

    def send(commands: list[AnyCommand]) -> None:
        nonlocal time_ns
        time_ns += NS_PER_MS + pause_ns(random)
        frames.append(close_command_frame(ORIGIN, len(frames) + 1, time_ns, commands))
        decider.decide(frames[-1])

    for command in setup_commands(random):
        send([command])
    while count:
        size = min(count, random.randint(1, COMMANDS_PER_FRAME_MAX))
        send([random_command(decider.state, random) for _ in range(size)])
        count -= size
    path.write_bytes(msgspec.msgpack.encode(frames))
    return decider


def decide_log(path: str) -> str:
    """Decide a log from nothing; return `Decider.result`."""
    decider = Decider()
    for frame in msgspec.msgpack.decode(Path(path).read_bytes(), type=list[CommandFrame]):
        decider.decide(frame)
    return decider.result


@pytest.mark.soak
def test_every_interpreter_decides_the_same_bytes(tmp_path: Path) -> None:
    """A log decided under three hash seeds, and with another locale and time zone, gives identical bytes."""
    path = tmp_path / "commands"
    written = write_log(path, COMMANDS)
    assert written.trades > COMMANDS // 20
    assert written.refusals < COMMANDS * 2 // 3
    for settings in INTERPRETERS:
        done = subprocess.run(
            [sys.executable, "-c", DECIDE_LOG, str(path)],
            cwd=ROOT,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=True,
        )
        assert written.result == done.stdout.strip(), settings
