"""A few of every fault; `make faults` does the full counts."""

import pytest

from tests.faults.__main__ import DRIVERS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", list(DRIVERS))
async def test_a_fault_loses_nothing_and_doubles_nothing(name: str) -> None:
    """Each row of the table holds, as its driver says."""
    driver = DRIVERS[name]
    row = await driver.run(driver.small)
    assert (row.count, []) == (row.passed, [] if row.holds else row.notes)
