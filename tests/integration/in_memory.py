"""What a process lives in when its log is in memory."""

import asyncio
from collections.abc import Callable

from events.memory import MemoryLog
from exchange.runtime import Host


class MemoryHost(Host):
    """A host without a server; `is_ready` is set by the process."""

    def __init__(self, name: str, log: MemoryLog) -> None:
        super().__init__(name, log)
        self.is_ready = asyncio.Event()

    def ready(
        self, seq: Callable[[], int], *, role: str | None = None, took_over_s: float | None = None
    ) -> None:
        self.is_ready.set()

    async def read_consumers(self) -> dict[str, int]:
        return {}
