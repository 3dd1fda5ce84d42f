"""The commands in the pages about margin modes print what the pages say."""

import os
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exchange import config
from exchange.cli import app
from tests.conftest import DATA

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("margin-modes.md", "whatif.md")
Example = tuple[str, list[str]]  # a command, lines that it prints


def examples(page: str) -> list[Example]:
    """Return the commands of a page's console blocks, in order, with what stands below each."""
    found: list[Example] = []
    is_inside = False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith("```"):
            is_inside = line == "```console"
        elif is_inside and line.startswith("$ foldex "):
            found.append((line.removeprefix("$ foldex "), []))
        elif is_inside and line.strip():
            found[-1][1].append(_words(line))
    return found


def _words(line: str) -> str:
    """A line without the widths of its columns."""
    return " ".join(line.split())


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line below a command is among those it prints; recorded prices are tried where they are there."""
    for name in (config.REDIS_URL_ENV, config.ARCHIVE_ENV):
        monkeypatch.delenv(name, raising=False)
    os.symlink(ROOT / "docs", tmp_path / "docs")
    if DATA.is_dir():
        for recording in (DATA / "prices").iterdir():
            os.symlink(recording, tmp_path / recording.name)
    monkeypatch.chdir(tmp_path)
    wanted = examples(page)
    assert len(wanted) > 5, wanted

    for command, lines in wanted:
        if "--prices" in command and not DATA.is_dir():
            continue
        result = CliRunner().invoke(app, shlex.split(command))
        assert config.EXIT_OK == result.exit_code, (command, result.output)
        printed = [_words(line) for line in result.output.splitlines()]
        for line in lines:
            assert line in printed, (command, line, result.output)
