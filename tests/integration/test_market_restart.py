"""An intake that starts anew answers about the markets' past as one that never stopped."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from events.log import Head, VerifiedEvents
from events.memory import MemoryLog
from events.snapshot import Snapshot, save
from exchange.fold import Fold, Snapshots
from exchange.intake.endpoint import Security
from exchange.intake.keys import KeyRing
from exchange.intake.market.rows import ENDPOINTS
from exchange.intake.service import Intake
from tests.recorded import Recorded
from tests.unit.test_archive import archived

COMMANDS = 600
EVERY_EVENTS = 300
SIMPLE = {"interval": "1m", "period": "5m", "contractType": "PERPETUAL"}
# What is sampled by a running process, and what says when it was asked.
OF_THE_PROCESS = ("/futures/data/openInterestHist", "/fapi/v1/time", "/api/v3/time")
TIMES = ("serverTime", "E", "closeTime", "openTime")


async def intake_of(record: Recorded, snapshots: Snapshots) -> Intake:
    """Return an intake that has caught up."""
    intake = Intake(record.log, "intake", KeyRing(os.urandom(32)), snapshots=snapshots)
    await intake.catch_up()
    await intake.read_past()
    return intake


async def answers(intake: Intake) -> dict[tuple[str, str], Any]:
    """Return what every unsigned call answers about each market, but for the time of asking."""
    found: dict[tuple[str, str], Any] = {}
    for row in ENDPOINTS:
        if row.security is not Security.NONE or row.path in OF_THE_PROCESS:
            continue
        for symbol in intake.state.markets:
            named = {"symbol": symbol, "pair": symbol, **SIMPLE}
            if row.path == "/fapi/v1/assetIndex":
                named = {}
            sent = {each.name: named[each.name] for each in row.parameters if each.name in named}
            values = {each.name: each.parse(sent[each.name]) for each in row.parameters if each.name in sent}
            answer = msgspec.to_builtins(await row.handler(intake, 0, values))
            for name in TIMES:
                if isinstance(answer, dict):
                    answer.pop(name, None)
            found[row.path, symbol] = answer
    return found


async def test_a_restart_from_snapshot_archive_and_log_knows_all(tmp_path: Path) -> None:
    """With most of the log trimmed, every answer is that of an intake that read it whole."""
    record = Recorded(MemoryLog(), now_ns=time.time_ns() - 10**9)
    await record.begin()
    await record.trade(COMMANDS)
    milestones: list[Snapshot] = []

    def ignore(verified: VerifiedEvents) -> None:
        """Do nothing about an entry."""

    settings = Snapshots(directory=tmp_path / "snapshots", every_events=EVERY_EVENTS)
    fold = Fold(record.log, ignore, Snapshots(every_events=EVERY_EVENTS), on_milestone=milestones.append)
    await fold.catch_up()
    (tmp_path / "snapshots").mkdir()
    save(tmp_path / "snapshots", milestones[len(milestones) // 2])
    whole = await answers(await intake_of(record, Snapshots()))
    assert whole["/fapi/v1/aggTrades", "BTCUSDT"]
    assert len(whole["/fapi/v1/klines", "BTCUSDT"]) >= 1

    writer = await archived(tmp_path / "archive", record.log, record.state.seq - 10)
    writer.close()
    kept = record.log.events[milestones[len(milestones) // 2].seq - 1]
    await record.log.trim(Head(seq=kept.seq, chain_hash=kept.chain_hash))
    again = await intake_of(record, replace(settings, archive=str(tmp_path / "archive")))
    assert whole == await answers(again)

    without = await answers(await intake_of(record, settings))
    assert whole["/fapi/v1/depth", "BTCUSDT"] == without["/fapi/v1/depth", "BTCUSDT"]
    trades, fewer = (each["/fapi/v1/aggTrades", "BTCUSDT"] for each in (whole, without))
    assert fewer == trades[len(trades) - len(fewer) :]
    assert 0 < len(fewer) < len(trades)
