"""What a process takes from the machine it runs on beside its log: time, chance, and a name.

Nothing else in the processes asks for any of these, so that a simulation which gives its own has the whole
course of a run in its hand.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Clocks, randomness, and who one is on it.

    `clock_ns` is the wall clock in ns since 1970, which may be set and may be wrong. `stopwatch_ns` measures
    how long something on the processor takes. `token_hex` returns so many random bytes, hex. `name` tells
    this process from others.
    """

    clock_ns: Callable[[], int] = time.time_ns
    stopwatch_ns: Callable[[], int] = time.monotonic_ns
    token_hex: Callable[[int], str] = secrets.token_hex
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")


MACHINE = Machine()
