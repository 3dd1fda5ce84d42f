"""What the tests of the intake share."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from events.memory import MemoryLog
from exchange.intake.admin_cli import app as admin_cli
from exchange.writer import run_writer
from tests.integration.intakes import DEADLINE_S, Process, Venue, start_intake


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Run a writer and an intake, with BTCUSDT and ETHUSDT listed and an index of 50,000 and 3,000."""
    writer = Process(MemoryLog())
    writing = asyncio.create_task(run_writer(writer))  # type: ignore[arg-type]
    stop = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await writer.is_ready.wait()
    key_file = tmp_path / "key"
    intake, url, admin_url = await start_intake(writer.log, key_file, stop)
    async with aiohttp.ClientSession() as session:
        made = Venue(writer.log, url, admin_url, session, stop, intake, writer, key_file)
        listed = await asyncio.to_thread(
            CliRunner().invoke, admin_cli, ["market", "list-defaults", "--admin-url", admin_url]
        )
        assert 0 == listed.exit_code, listed.output
        await made.admin("index", {"symbol": "BTCUSDT", "price": "50000"})
        await made.admin("index", {"symbol": "ETHUSDT", "price": "3000"})
        yield made
    stop.set()
    writer.stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(intake, writing, return_exceptions=True)
