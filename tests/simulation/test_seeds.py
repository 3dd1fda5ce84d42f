"""The exchange under simulated faults: every promise is kept, and one seed is one run."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from exchange.simulation.breakage import Breakage
from exchange.simulation.cli import report
from exchange.simulation.run import simulate
from exchange.simulation.server import RATES, Fault

SEEDS = int(os.environ.get("FOLDEX_SIM_SEEDS", "500"))
ROOT = Path(__file__).resolve().parents[2]
# What the seeds must have met between them, or they would prove nothing.
MET = (
    *(fault.value for fault in (*RATES, Fault.CUT_OFF)),
    *(
        "took_over",
        "started_from_snapshot",
        "segment_written",
        "trimmed",
        "digests compared",
        "frame duplicate",
    ),
    *(breakage.value for breakage in Breakage),
    "snapshot_skipped",
    *("append_unconfirmed", "log_full", "frame origin_closed", "trades", "client told nothing"),
    *(
        "client told not_executed",
        "client told refused",
        "liquidation closed",
        "liquidation taken_over",
        "liquidation deleveraged",
    ),
)


@pytest.mark.soak
def test_every_seed_keeps_every_promise() -> None:
    """Whatever is lost, repeated, late, killed, frozen or cut off, the promises are kept.

    Each acknowledged command has its one outcome, all who fold have the writer's state, money adds up, nobody
    healthy is liquidated, order is kept.
    """
    counts: Counter[str] = Counter()
    failures = []
    for seed in range(SEEDS):
        result = simulate(seed)
        counts.update(result.counts)
        if result.findings:
            failures.append(report(result))
    assert not failures, "\n".join(failures)
    missing = [name for name in MET if not counts[name]]
    assert SEEDS < 500 or not missing


@pytest.mark.slow
def test_one_seed_is_one_run_to_the_byte() -> None:
    """The bytes of both streams, of all files, and the order of every call are the same in two interpreters.

    These have different hash seeds, locales and time zones; another seed is another run.
    """
    settings = ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "C"})
    digests = [_digest_of_runs(first=0, environment=each) for each in settings]
    assert digests[0] == digests[1]
    assert digests[0] != _digest_of_runs(first=1, environment={})


def _digest_of_runs(*, first: int, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "exchange.simulation.cli", "--seeds", "8", "--from", str(first), "--json"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return str(msgspec.json.decode(done.stdout)["digest"])
