"""Log lines: one an event, and never a secret in one."""

import json
from collections.abc import Iterator

import pytest
import structlog

from exchange.telemetry import configure_logging

HUSH = "never to be printed"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Leave logging as the other tests know it."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def fail(words: list[str]) -> None:
    """Raise with a secret in the variables."""
    raise ValueError("a defect")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_traceback_has_no_variables(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """It says where and what, and not what was in any variable: that may be a secret."""
    configure_logging("test", pid=1, as_json=as_json)
    try:
        fail([HUSH])
    except ValueError:
        structlog.get_logger().exception("failed", secret=HUSH)
    line = capsys.readouterr().err
    assert "a defect" in line
    assert "fail" in line
    assert HUSH not in line
    if as_json:
        assert "failed" == json.loads(line)["event"]
