"""A demonstration as a user starts it: `foldex demo --json` in a process of its own, watched on stderr."""

import asyncio
import re
import signal
from asyncio.subprocess import PIPE
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from events.embedded import attach_or_start
from exchange.runtime import heartbeat_client, read_alive
from tests.integration.processes import ROOT, environment, foldex, free_ports

DEMO_DEADLINE_S = 150.0
PROCESSES = ("writer", "intake", "liquidator", "archiver")


class Demo:
    """`foldex demo` on a data directory. A context manager; what still runs on exit is asked to stop."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        self._arguments = ("--data-dir", str(data_dir), "--port", str(free_ports()), "--json", *arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._stdout: asyncio.Task[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *foldex("demo", *self._arguments), cwd=ROOT, env=environment(), stdout=PIPE, stderr=PIPE
        )
        assert self._process.stdout is not None
        self._stdout = asyncio.create_task(self._process.stdout.read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
            await self.end()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the demonstration itself."""
        assert self._process is not None
        self._process.send_signal(number)

    async def line(self, pattern: str) -> str:
        """Wait for a line on stderr that matches, and return it."""
        async with asyncio.timeout(DEMO_DEADLINE_S):
            while True:
                line = await self._next_line()
                assert line is not None, f"no {pattern!r} in:\n" + "".join(self.lines)
                if re.search(pattern, line):
                    return line

    async def end(self) -> tuple[int, bytes]:
        """Wait for the end; return exit code and stdout."""
        assert self._process is not None
        assert self._stdout is not None
        async with asyncio.timeout(DEMO_DEADLINE_S):
            while await self._next_line() is not None:
                pass
            return await self._process.wait(), await self._stdout

    async def outcome(self) -> dict[str, Any]:
        """Wait for the end, which must be a good one, and return the summary."""
        code, printed = await self.end()
        assert code == 0, "".join(self.lines) + printed.decode()
        outcome: dict[str, Any] = msgspec.json.decode(printed)
        return outcome

    async def pids(self) -> dict[str, int]:
        """Return the ids of the exchange's processes while it runs, as their heartbeats give them."""
        with attach_or_start(self.data_dir) as socket_path:
            client = heartbeat_client(socket_path)
            try:
                found = {name: await read_alive(client, name) for name in PROCESSES}
            finally:
                await client.aclose()
        return {name: alive.pid for name, alive in found.items() if alive is not None}

    async def _next_line(self) -> str | None:
        assert self._process is not None
        assert self._process.stderr is not None
        line = (await self._process.stderr.readline()).decode()
        self.lines.append(line)
        return line or None
