"""Runs a coroutine without a task: a request that waits for one future costs one callback.

A task would be scheduled once to begin and once more to go on, and would make every answer wait for a turn
of the loop that has nothing to do with it. What runs here may await futures and nothing that asks for the
current task (`asyncio.timeout`, task groups).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

# Called with the result and None, or None and the exception.
Done = Callable[[Any, Exception | None], None]


class Stepper:
    """A coroutine under way. Calling it goes on until the next wait."""

    __slots__ = ("_coroutine", "_done")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], done: Done) -> None:
        self._coroutine = coroutine
        self._done = done

    def __call__(self, _: object = None) -> None:
        """Go on until the coroutine waits or ends; a future calls this when it is done."""
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self._done(stop.value, None)
        except Exception as error:
            self._done(None, error)
        except asyncio.CancelledError:
            self._done(None, ConnectionAbortedError("cancelled"))
        else:
            if awaited is None:
                asyncio.get_running_loop().call_soon(self)
            else:
                # The mark by which a future knows that it is awaited, and not yielded by mistake.
                awaited._asyncio_future_blocking = False
                awaited.add_done_callback(self)
