"""Waiting for what has no event to wait for, and giving up when it does not come."""

import asyncio
import time
from collections.abc import Awaitable, Callable

# Far more than anything takes: it only says when to give up, on however slow a machine.
DEADLINE_S = 60.0


async def until(is_there: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for something that has no event to wait for."""
    deadline = time.monotonic() + deadline_s
    while not is_there():
        assert time.monotonic() < deadline, f"no {what} after {deadline_s} s"
        await asyncio.sleep(0.01)


async def eventually(check: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something that has to be asked for."""
    deadline = time.monotonic() + DEADLINE_S
    while not await check():
        assert time.monotonic() < deadline, f"no {what} after {DEADLINE_S} s"
        await asyncio.sleep(0.01)


async def within(awaitable: Awaitable[object]) -> None:
    """Wait for something at most as long as a test may."""
    async with asyncio.timeout(DEADLINE_S):
        await awaitable
