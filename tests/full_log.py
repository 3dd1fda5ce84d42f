"""A log in memory that can be full, as a server without room is."""

from events.frame import CommandFrame
from events.log import LogFullError, Place
from events.memory import MemoryLog


class FullLog(MemoryLog):
    """A log that takes nothing while it is full."""

    is_full = False

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        if self.is_full:
            raise LogFullError("no room")
        return await super().append_command(frame, behind=behind)
