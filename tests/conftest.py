"""Shared by all tests: recorded data's place, hypothesis profiles with fixed seeds, an end for what hangs."""

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
DATA = Path(os.environ.get("FOLDEX_SHARED_DATA", BESIDE))
TEST_DEADLINE_S = 60

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile(
    "soak", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("FOLDEX_HYPOTHESIS", "ci"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of recorded market data, or skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip("recorded market data is not beside the project (../shared/data)")
    return DATA


@pytest.fixture(autouse=True)
def _no_test_hangs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that takes too long, with what each of its tasks waits for."""
    if request.node.get_closest_marker("soak"):
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        text = io.StringIO()
        try:
            tasks = asyncio.all_tasks(asyncio.get_running_loop())
        except RuntimeError:
            tasks = set()
        for task in tasks:
            task.print_stack(file=text)
        pytest.fail(f"no end after {TEST_DEADLINE_S} s\n{text.getvalue()}")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(TEST_DEADLINE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
