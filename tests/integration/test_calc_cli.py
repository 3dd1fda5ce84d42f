"""`foldex calc margin` as a user runs it: a file or standard input, JSON out, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from exchange.cli import app
from tests.unit.test_calc import account


def run(*words: str, given: str = "") -> Result:
    """Run the command with standard input."""
    return CliRunner().invoke(app, ["calc", "margin", *words], input=given)


def test_an_account_from_standard_input() -> None:
    """JSON in, JSON out, in decimals."""
    result = run(given=json.dumps(account()))

    assert 0 == result.exit_code, result.stderr
    assert "1000.00000000" == json.loads(result.stdout)["equity"]
    assert "what_if" not in json.loads(result.stdout)


def test_an_account_from_a_file_on_one_line(tmp_path: Path) -> None:
    """`--json` prints what can be read line by line."""
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account()))

    result = run(str(file), "--json")

    assert 1 == result.stdout.count("\n")
    assert json.loads(run("-", given=file.read_text()).stdout) == json.loads(result.stdout)


def test_what_if() -> None:
    """Each step is repeated with its outcome."""
    step = {"mark": {"BTCUSDT": "49000"}}

    result = json.loads(run(given=json.dumps(account(what_if=[step]))).stdout)

    assert "1000.00000000" == result["equity"], "before the steps"
    assert [(step, True, "900.00000000")] == [
        (each["step"], each["accepted"], each["result"]["equity"]) for each in result["what_if"]
    ]


def test_a_mistake_is_named_and_nothing_is_printed() -> None:
    """Exit code 2."""
    result = run(given=json.dumps(account(wallet="much")))

    assert (2, "") == (result.exit_code, result.stdout)
    assert "foldex: wallet: must be a plain decimal number\n" == result.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Exit code 2, too."""
    result = run(str(tmp_path / "nothing.json"))

    assert (2, "") == (result.exit_code, result.stdout)


def test_output_that_cannot_be_written_is_said() -> None:
    """A full disk: one line on standard error, and an exit code of its own."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "exchange.cli", "calc", "margin"],
            input=json.dumps(account()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (74, "foldex: standard output: No space left on device\n") == (result.returncode, result.stderr)
