"""`foldex bench` against the exchange that it starts: figures that can be used, and nothing left behind."""

import subprocess

import msgspec
import pytest

from tests.integration.processes import environment, foldex


def bench(*arguments: str) -> dict[str, object]:
    """Run a bench; return what it printed."""
    done = subprocess.run(
        foldex("bench", *arguments, "--json"), env=environment(), capture_output=True, timeout=50, check=True
    )
    found: dict[str, object] = msgspec.json.decode(done.stdout)
    return found


@pytest.mark.slow
def test_latency_counts_every_request_and_knows_its_floor() -> None:
    """All that was to be sent was answered; orders take longer than pings; the stages are those of frames."""
    found = bench("latency", "--rate", "100", "--seconds", "0.5")
    orders, echo, ping = (found[name] for name in ("orders", "echo", "ping"))
    assert isinstance(orders, dict)
    assert isinstance(echo, dict)
    assert isinstance(ping, dict)
    assert (50, 50, 0) == tuple(orders[name] for name in ("sent", "answered", "refused"))
    assert (25, 25) == (echo["sent"], echo["answered"])
    assert 0 < ping["p50_ms"] < orders["p50_ms"] <= orders["p99.99_ms"]
    stages = found["stages"]
    assert isinstance(stages, dict)
    assert 0 < stages["frames"] <= 50
    assert 0 < stages["read_to_appended_by_writer"]["mean_ms"] < orders["max_ms"]


@pytest.mark.slow
def test_throughput_keeps_orders_under_way() -> None:
    """Orders are acknowledged over HTTP, and none is refused."""
    found = bench("throughput", "--seconds", "0.5", "--api", "rest", "--in-flight", "16")
    orders = found["orders"]
    assert isinstance(orders, dict)
    assert orders["answered"] > 0 == orders["refused"]


@pytest.mark.slow
def test_bad_requests_are_measured_beside_good_ones() -> None:
    """Every bad one was refused and every good one answered, with and without them."""
    found = bench("latency", "--rate", "100", "--seconds", "0.8", "--bad-rate", "50")
    quiet, beside = found["orders_quiet"], found["orders_beside_bad"]
    assert isinstance(quiet, dict)
    assert isinstance(beside, dict)
    assert (80, 80, 0) == tuple(quiet[name] for name in ("sent", "answered", "refused"))
    assert (80, 80, 0) == tuple(beside[name] for name in ("sent", "answered", "refused"))
    assert {"sent": 40, "answered": 40, "refused": 40} == found["bad"]
    ratios = found["beside_bad_over_quiet"]
    assert isinstance(ratios, dict)
    assert {"p50", "p99"} == ratios.keys()
