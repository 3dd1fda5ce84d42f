"""The commands in the pages about margin modes print what the pages say."""

import asyncio
import os
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exchange import config
from exchange.cli import app
from exchange.whatif.example import write_example
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory where the pages' commands find their files: books, recordings, and the story."""
    place = tmp_path_factory.mktemp("documented")
    os.symlink(ROOT / "docs", place / "docs")
    if DATA.is_dir():
        for recording in (DATA / "prices").iterdir():
            os.symlink(recording, place / recording.name)
    asyncio.run(write_example(str(place / "story")))
    return place


@pytest.mark.parametrize(
    ("command", "lines"), [pytest.param(*each, id=each[0]) for page in PAGES for each in examples(page)]
)
def test_a_command_prints_what_its_page_says(
    command: str, lines: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line below a command is among those it prints."""
    if "--prices" in command and not DATA.is_dir():
        pytest.skip("recorded market data is not beside the project (../shared/data)")
    for name in (config.REDIS_URL_ENV, config.ARCHIVE_ENV):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)

    result = CliRunner().invoke(app, shlex.split(command))

    assert config.EXIT_OK == result.exit_code, result.output
    printed = [_words(line) for line in result.output.splitlines()]
    for line in lines:
        assert line in printed, result.output


def test_the_pages_have_commands() -> None:
    """A page whose blocks are no longer recognised would be tested for nothing."""
    assert [True, True] == [len(examples(page)) > 5 for page in PAGES]
