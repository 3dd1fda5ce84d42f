"""The commands that README, guides and recipes name exist, with the options they are shown with."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from exchange.cli import app
from exchange.simulation.cli import app as simulation

ROOT = Path(__file__).resolve().parents[2]
# What was decided and changed may speak of what is there no more.
PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "decisions.md"})]
PROGRAMS = {"foldex": app, "foldex-sim": simulation}
# A span in backticks, or a line of a block of code, with or without a prompt.
SPAN = re.compile(r"`((?:foldex|foldex-sim|make|python -m) [^`]+)`")
LINE = re.compile(r"^(?:\$ )?((?:foldex|foldex-sim|make|python -m) [^#|;&\n]*)", re.MULTILINE)
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command that a page names."""
    text = page.read_text().replace("\\\n", "")  # lines that go on below
    blocks = BLOCK.findall(text)
    found = [*SPAN.findall(BLOCK.sub("", text)), *(line for block in blocks for line in LINE.findall(block))]
    for command in found:
        yield shlex.split(command.replace("\n", " "))


def command_of(program: Any, words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that words lead to, and those that are its own."""
    command = program
    while words and hasattr(command, "get_command") and words[0] != "…" and not words[0].startswith("-"):
        name, *words = words
        found = command.get_command(command.context_class(command), name)
        assert found is not None, f"there is no command {name}"
        command = found
    return command, words


def check(words: list[str]) -> None:
    """Make sure that somebody who types this is understood."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert rest[0] in targets, words
    elif program == "python":
        assert find_spec(rest[1]) is not None, words
    else:
        command, rest = command_of(get_command(PROGRAMS[program]), rest)
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert asked <= known, (words, asked - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_that_exist(page: Path) -> None:
    """Each command is there, with the options shown; so are the targets of make and the modules to run."""
    for words in commands(page):
        check(words)


def test_the_readme_names_commands() -> None:
    """A README whose commands are no longer recognised would be tested for nothing."""
    assert len(list(commands(ROOT / "README.md"))) > 30


@pytest.mark.parametrize(
    "wrong",
    ["foldex nothing", "foldex log --nothing", "make nothing", "python -m bench.no"],
)
def test_a_command_that_is_not_there_is_found(wrong: str) -> None:
    """The check itself would see it."""
    with pytest.raises(AssertionError):
        check(shlex.split(wrong))
