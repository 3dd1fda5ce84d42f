"""kill -9 of the writer in the middle of a crash: it is started again, and nothing is lost or doubled."""

import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from events.embedded import attach_or_start
from events.events import OrderAccepted
from events.frame import Groups, header_of
from events.log import CommandEntry, CommandReader, EventReader
from events.redis import RedisLog
from events.values import Outcome
from exchange.demo.run import ACKNOWLEDGED_FILE
from tests.integration.demo_process import Demo

pytestmark = pytest.mark.slow

ENTRIES_PER_READ = 256


async def _read_log(data_dir: Path) -> tuple[list[CommandEntry], list[Groups]]:
    """Return all that is in a log, verified entry by entry."""
    with attach_or_start(data_dir) as socket_path:
        log = RedisLog(socket_path)
        commands: list[CommandEntry] = []
        answers: list[Groups] = []
        command_reader, event_reader = CommandReader(log), EventReader(log)
        while entries := await command_reader.read(ENTRIES_PER_READ):
            commands.extend(entries)
        while verified := await event_reader.read(ENTRIES_PER_READ):
            answers.extend(each.groups for each in verified)
        await log.close()
    return commands, answers


async def test_nothing_is_lost_or_doubled_when_the_writer_is_killed(tmp_path: Path) -> None:
    """The demo completes with equal digests; each frame ran once, each acknowledged order is there once."""
    async with Demo(tmp_path / "log", "--accounts", "60", "--duration", "15") as demo:
        while int(re.findall(r"(\d+)%", await demo.line(r"the crash \d+%"))[0]) < 20:
            pass
        os.kill((await demo.pids())["writer"], signal.SIGKILL)
        outcome = await demo.outcome()

    assert outcome["digest_live"] == outcome["digest_replay"]
    assert "exact" == outcome["identities"]
    assert {"writer": 1, "intake": 0, "liquidator": 0, "archiver": 0} == outcome["restarts"]
    commands, answers = await _read_log(tmp_path / "log")
    headers = [header_of(groups) for groups in answers]

    # Every command entry has exactly one event entry, which answers this frame and each of its commands.
    assert [entry.seq for entry in commands] == [header.seq for header in headers]
    for entry, groups, header in zip(commands, answers, headers, strict=True):
        assert (entry.frame.origin, entry.frame.n) == (header.origin, header.frame_n)
        assert entry.frame.checksum == header.checksum
        if header.outcome is Outcome.EXECUTED:
            assert len(groups) == 1 + len(entry.frame.commands())

    # Every (origin, n) that was sent ran, and ran once.
    ran = Counter((h.origin, h.frame_n) for h in headers if h.outcome is Outcome.EXECUTED)
    assert {1} == set(ran.values())
    assert {(entry.frame.origin, entry.frame.n) for entry in commands} == set(ran)

    # Every order that a trader was told of is in the log once.
    accepted = Counter(
        event.order_id
        for groups in answers
        for group in groups
        for event in group
        if isinstance(event, OrderAccepted)
    )
    acknowledged = [int(line) for line in (tmp_path / "log" / ACKNOWLEDGED_FILE).read_text().splitlines()]
    assert 0 < len(acknowledged) == outcome["orders_acknowledged"]
    assert {1} == {accepted[order_id] for order_id in acknowledged}
    assert {1} == set(accepted.values())
