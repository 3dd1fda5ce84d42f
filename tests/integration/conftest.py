"""What these tests share: a server, and an exchange on it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from events.embedded import EmbeddedServer
from tests.running_venue import Venue, running_venue


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests on the event loop that the processes run on: its transports are not those of asyncio."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Run a server of its own for each test."""
    with EmbeddedServer(tmp_path / "data") as server:
        yield server


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Run a writer and an intake, with BTCUSDT and ETHUSDT listed and an index of 50,000 and 3,000."""
    async with running_venue(tmp_path) as made:
        yield made
