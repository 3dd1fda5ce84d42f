"""`foldex demo`: real processes through a crash, then the same state again from the log alone."""

import os
import signal
from pathlib import Path

import msgspec
import pytest

from events.embedded import attach_or_start
from events.redis import RedisLog
from exchange.audit.cases import read_cases
from exchange.audit.evidence import gather
from exchange.audit.replay import replay
from exchange.audit.story import tell
from tests.audited import spoil
from tests.integration.demo_process import PROCESSES, Demo
from tests.integration.processes import is_running

pytestmark = pytest.mark.slow

PRICE_FILES = ("BTCUSDT_spot_5m_2025-10-09_12.csv.gz", "ETHUSDT_spot_5m_2025-10-09_12.csv.gz")
SUMMARY_KEYS = {
    "digest_live",
    "digest_replay",
    "data_dir",
    "commands",
    "events",
    "liquidations",
    "insurance_fund",
    "commands_per_s",
    "ack_ms",
}


async def test_the_log_rebuilds_what_the_demo_showed(tmp_path: Path) -> None:
    """Liquidations in both modes, a log that gives the same digest, and one JSON object on stdout."""
    async with Demo(tmp_path / "log", "--accounts", "40", "--duration", "9") as demo:
        code, printed = await demo.end()

    assert code == 0, "".join(demo.lines)
    outcome = msgspec.json.decode(printed)
    assert SUMMARY_KEYS <= outcome.keys()
    assert outcome["digest_live"] == outcome["digest_replay"]
    assert 0 < outcome["liquidations"]["isolated"]
    assert 0 < outcome["liquidations"]["cross"]
    assert 0 < outcome["ack_ms"]["p50"] <= outcome["ack_ms"]["p99"]
    assert 0 < outcome["commands_per_s"]
    assert "exact" == outcome["identities"]
    assert {"writer": 0, "intake": 0, "liquidator": 0, "archiver": 0} == outcome["restarts"]
    with attach_or_start(tmp_path / "log") as socket_path:
        log = RedisLog(socket_path)
        rebuilt = await replay(log)
        await check_audit(log, socket_path)
        await log.close()
    assert outcome["digest_live"] == rebuilt.state.digest().hex()
    assert outcome["events"] == rebuilt.events


async def test_the_real_crash_liquidates_in_both_modes(tmp_path: Path, shared_data: Path) -> None:
    """The candles of 10 October 2025: liquidations in both modes, money exact, digests the same."""
    files = [str(shared_data / "prices" / name) for name in PRICE_FILES]
    async with Demo(tmp_path / "log", "--prices", *files, "--accounts", "40", "--duration", "12") as demo:
        outcome = await demo.outcome()

    assert outcome["digest_live"] == outcome["digest_replay"]
    assert "recorded, 144 points, 2025-10-10" in outcome["prices"]
    assert 0 < outcome["liquidations"]["isolated"]
    assert 0 < outcome["liquidations"]["cross"]
    assert "exact" == outcome["identities"]
    with attach_or_start(tmp_path / "log") as socket_path:
        log = RedisLog(socket_path)
        await check_audit(log, socket_path)
        await log.close()


async def check_audit(log: RedisLog, socket_path: str) -> None:
    """Audit a demonstration's log: clean, a liquidation of each kind explained; a changed byte is named."""
    evidence = await gather(log, ())
    assert [] == evidence.findings
    assert 0 < evidence.liquidations
    kinds = {
        (case.started.mode, case.finished.result): case.started.liquidation_id
        async for case in read_cases(log, {})
    }
    for number in kinds.values():
        story = await tell(log, (), number)
        assert story.recomputed.is_equal, story.recomputed
        assert story.path
    seq = spoil(socket_path, 0.66)
    (finding,) = (await gather(log, ())).findings
    assert (seq, "chain") == (finding.seq, finding.rule)


async def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit code 130, no process left, nothing on stdout, the log whole."""
    async with Demo(tmp_path / "log", "--accounts", "10", "--duration", "60") as demo:
        await demo.line("taking positions")
        pids = await demo.pids()
        demo.send(signal.SIGINT)
        code, printed = await demo.end()

    assert (130, b"") == (code, printed)
    assert set(PROCESSES) == set(pids)
    assert [] == [name for name, pid in pids.items() if is_running(pid)]
    with attach_or_start(tmp_path / "log") as socket_path:
        log = RedisLog(socket_path)
        (await replay(log)).state.check_identities()
        await log.close()


async def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A demonstration never mixes into what is there: exit code 2, and the directory stays as it was."""
    (tmp_path / "mine").write_text("kept")
    async with Demo(tmp_path) as demo:
        code, printed = await demo.end()

    assert (2, b"") == (code, printed)
    assert ["mine"] == os.listdir(tmp_path)


async def test_a_missing_price_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is a wrong option, told by name before anything starts."""
    async with Demo(tmp_path / "log", "--prices", "BTCUSDT_nowhere.csv", "ETHUSDT_nowhere.csv") as demo:
        code, printed = await demo.end()

    assert (2, b"") == (code, printed)
    assert "BTCUSDT_nowhere.csv" in "".join(demo.lines)
    assert [] == os.listdir(tmp_path)
