"""The container files: what they promise about data and network, and that the CLI takes their commands."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCESSES = ("writer", "intake", "liquidator", "archiver", "feed")
REDIS_URL = "redis://valkey:6379/0"


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of that name in the Dockerfile, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", joined, re.MULTILINE)


def words(command: str | list[str]) -> list[str]:
    """Return a command line as words, however it is written; the CMD of a health check is no word of it."""
    parts = shlex.split(command) if isinstance(command, str) else list(command)
    return parts[1:] if parts[0] == "CMD" else parts


def foldex_lines() -> list[tuple[str, list[str]]]:
    """Return every command line of the container files that runs a foldex process."""
    lines = [(f"{name} command", words(SERVICES[name]["command"])) for name in SERVICES]
    lines += [(f"{name} healthcheck", words(SERVICES[name]["healthcheck"]["test"])) for name in SERVICES]
    return [(place, line) for place, line in lines if line[0] == "foldex"]


def parse(command: Any, name: str, arguments: list[str], parent: Any = None) -> list[str]:
    """Parse a command line as the CLI would, subcommand by subcommand, and run nothing.

    Returns the subcommands met. Raises what the parser raises for an unknown command, option or value.
    """
    context = command.make_context(name, arguments, parent=parent)
    with context:
        if not hasattr(command, "resolve_command"):
            return []
        rest = [*context._protected_args, *context.args]
        subname, subcommand, rest = command.resolve_command(context, rest)
        return [subname, *parse(subcommand, subname, rest, context)]


def test_every_process_is_a_service_beside_valkey() -> None:
    """One container a process, all on the one server."""
    assert {"valkey", *PROCESSES} == set(SERVICES)
    for name in PROCESSES:
        assert ["foldex", name] == words(SERVICES[name]["command"])[:2]
        assert REDIS_URL == SERVICES[name]["environment"]["REDIS_URL"]
        assert "unless-stopped" == SERVICES[name]["restart"]


def test_valkey_keeps_what_is_acknowledged() -> None:
    """A pinned server appends to a file in a named volume, flushes it every second and evicts nothing."""
    valkey = SERVICES["valkey"]
    command = words(valkey["command"])
    settings = dict(zip(command[1::2], command[2::2], strict=True))

    assert re.fullmatch(r"valkey/valkey:\d+\.\d+[\w.-]*", valkey["image"])
    assert "yes" == settings["--appendonly"]
    assert "everysec" == settings["--appendfsync"]
    assert "noeviction" == settings["--maxmemory-policy"]
    volume, path = valkey["volumes"][0].split(":")
    assert "/data" == path
    assert volume in COMPOSE["volumes"]


def test_only_the_api_is_published_and_on_loopback() -> None:
    """Nothing but the intake's API leaves the containers, and that no further than this machine."""
    assert {"intake": ["127.0.0.1:8000:8000"]} == {
        name: service["ports"] for name, service in SERVICES.items() if "ports" in service
    }
    assert not any("network_mode" in service or "expose" in service for service in SERVICES.values())
    command = words(SERVICES["intake"]["command"])
    assert "127.0.0.1" == command[command.index("--admin-host") + 1]


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_is_healthy_while_its_heartbeat_is_live(name: str) -> None:
    """Each container asks for the status of its own process, and starts after a healthy server."""
    service = SERVICES[name]

    assert ["foldex", "status", "--process", name] == words(service["healthcheck"]["test"])
    assert {"condition": "service_healthy"} == service["depends_on"]["valkey"]
    if name != "writer":
        assert {"condition": "service_healthy"} == service["depends_on"]["writer"]


def test_valkey_is_healthy_when_it_answers() -> None:
    """The check looks at the answer: the client's exit code is 0 even while the server loads."""
    assert ["CMD-SHELL", "valkey-cli ping | grep -q PONG"] == SERVICES["valkey"]["healthcheck"]["test"]


def test_the_key_file_outlives_the_container() -> None:
    """API secrets are sealed under a key in a named volume that no other container mounts."""
    intake = SERVICES["intake"]
    volume, path = intake["volumes"][0].split(":")

    assert path == str(Path(intake["environment"]["FOLDEX_KEY_FILE"]).parent)
    assert volume in COMPOSE["volumes"]
    assert ["intake"] == [
        name for name in SERVICES if any(volume in v for v in SERVICES[name].get("volumes", []))
    ]
    assert f"--owner foldex --group foldex --mode 0700 {path}" in " ".join(DOCKERFILE.split())


@pytest.mark.parametrize("kind", ["snapshots", "archive"])
def test_snapshots_and_archive_are_written_by_the_archiver_and_read_by_all(kind: str) -> None:
    """Every process has both in a named volume, which only the archiver may write to."""
    path = f"/var/lib/foldex-{kind}"
    for name in PROCESSES:
        mount = f"{kind}:{path}" + ("" if name == "archiver" else ":ro")
        assert mount in SERVICES[name]["volumes"]
        assert path == SERVICES[name]["environment"][f"FOLDEX_{kind.upper()}"]
    assert kind in COMPOSE["volumes"]
    assert f"--owner foldex --group foldex --mode 0700 {path}" in " ".join(DOCKERFILE.split())


def test_the_image_is_pinned_and_runs_without_privileges() -> None:
    """Python 3.11, versions from the constraints file, no registry address, an ordinary user."""
    assert instructions("FROM")[0].startswith("python:3.11-slim")
    assert any("--constraint constraints.txt" in run for run in instructions("RUN"))
    assert not re.search(r"https?://|--index-url|--extra-index-url|--trusted-host|--find-links", DOCKERFILE)
    assert "foldex" == instructions("USER")[-1]
    assert [] == instructions("HEALTHCHECK")
    assert ["foldex", "--help"] == json.loads(instructions("CMD")[-1])


def test_what_the_image_copies_is_not_ignored_and_exists() -> None:
    """The build context holds exactly what the Dockerfile copies."""
    copied = {source for copy in instructions("COPY") for source in copy.split()[:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()

    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    assert [] == sorted(source for source in copied if not (ROOT / source).exists())


@pytest.mark.parametrize(("place", "line"), foldex_lines(), ids=[place for place, _ in foldex_lines()])
def test_the_cli_accepts_every_command_line(
    place: str, line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each subcommand and option in the container files exists in the CLI with that kind of value."""
    from typer.main import get_command

    from exchange.cli import app

    for name, value in SERVICES[place.split()[0]]["environment"].items():
        monkeypatch.setenv(name, value)
    assert line[1] == parse(get_command(app), "foldex", line[1:])[0]
