"""What a client asked for and what he was told: the one promise of an exchange that he can hold it to."""

import asyncio
from enum import Enum

from events.commands import AnyCommand
from events.events import Event
from events.frame import encode_command
from exchange.intake.errors import (
    LOG_FULL,
    NOT_EXECUTED,
    OVERLOADED,
    SHUTTING_DOWN,
    ApiError,
    RefusedError,
)

_NOT_EXECUTED_CODES = frozenset(row.code for row in (LOG_FULL, NOT_EXECUTED, OVERLOADED, SHUTTING_DOWN))


class Told(Enum):
    """What the client knows."""

    NOTHING = "nothing: no answer came, or one that the outcome is unknown"
    NOT_EXECUTED = "that it was not executed"
    ANSWERED = "its events"
    REFUSED = "that it was refused, with the refusal"


class Request:
    """One command of a client, and what he was told about it.

    `life` is that of the intake that got it, 0 when none did; `place` counts what was given to intakes, in
    order. `told` is for good once `is_over`.
    """

    def __init__(self, command: AnyCommand) -> None:
        self.command = command
        self.encoded = encode_command(command)
        self.told = Told.NOTHING
        self.events: list[Event] = []
        self.life = 0
        self.place = 0
        self.is_over = False
        self._waiting: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return when there will be no more to know."""
        if not self.is_over:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def answer(self, events: list[Event]) -> None:
        """Tell the client the events."""
        self.told, self.events = Told.ANSWERED, events
        self._end()

    def fail(self, error: ApiError) -> None:
        """Tell the client that he gets no answer, or a refusal."""
        if isinstance(error, RefusedError):
            self.told, self.events = Told.REFUSED, [error.rejected]
        elif error.code in _NOT_EXECUTED_CODES:
            self.told = Told.NOT_EXECUTED
        self._end()

    def break_off(self) -> None:
        """Leave the client alone: whom he had asked is dead."""
        self._end()

    def _end(self) -> None:
        self.is_over = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
