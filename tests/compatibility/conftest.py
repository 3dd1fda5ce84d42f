"""Shared by the tests of clients: an exchange for each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.compatibility.local import Local, local


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Local]:
    """Run an exchange."""
    async with local(tmp_path) as made:
        yield made
