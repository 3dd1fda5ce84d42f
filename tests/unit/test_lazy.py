"""What a process imports before it starts, and commands that are imported when they run."""

import subprocess
import sys

from typer.testing import CliRunner

from exchange.cli import app

ELSEWHERE = ("admin", "archive", "recover", "sql", "calc", "demo")
NOT_FOR_A_WRITER = ("pyarrow", "duckdb", "aiohttp", "exchange.intake", "exchange.demo")


def test_the_writer_starts_without_what_others_need() -> None:
    """Neither Parquet nor queries nor HTTP is imported for it: that takes longer than its work."""
    looks = "import sys, exchange.cli, exchange.writer, exchange.runtime; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run((sys.executable, "-c", looks), capture_output=True, check=True).stdout.decode()
    assert set() == set(NOT_FOR_A_WRITER) & set(loaded.split())


def test_help_lists_every_command() -> None:
    """Those of other modules too, each with its own help."""
    said = CliRunner().invoke(app, ["--help"]).output
    for name in ("writer", *ELSEWHERE):
        assert name in said
        assert 0 == CliRunner().invoke(app, [name, "--help"]).exit_code, name


def test_a_slip_is_corrected() -> None:
    """The name that is nearest is suggested, wherever its command is."""
    result = CliRunner().invoke(app, ["recovr"])
    assert 2 == result.exit_code
    assert "'recover'" in result.output
