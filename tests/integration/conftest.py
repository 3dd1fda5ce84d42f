"""What the tests of the intake share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.running_venue import Venue, running_venue


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Venue]:
    """Run a writer and an intake, with BTCUSDT and ETHUSDT listed and an index of 50,000 and 3,000."""
    async with running_venue(tmp_path) as made:
        yield made
