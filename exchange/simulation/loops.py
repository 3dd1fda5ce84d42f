"""Time and order, from a seed: an event loop for each simulated process, and the scheduler above them.

In reality every process has a loop of its own, which runs what is ready in the order in which it became so;
but nothing orders what two processes do. So it is here: each loop keeps its order, and whose turn it is, is
drawn for every single call. What one seed draws is one run, to the byte.

Time is a number. It stands still while something is ready, but for a little a call, and then jumps to the
next timer; so an hour of waiting costs nothing. Work for threads is done by the loop itself, at a time drawn.

Tasks are hashed by number, not by address: `asyncio.wait` keeps them in sets, and their order must not depend
on where an interpreter puts its objects.
"""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NS_PER_S = 1_000_000_000
# What a call takes: without it a loop that never waits would stop the time for everybody.
CALL_NS = 2_000
THREAD_S_MAX = 0.02


class Scheduler:
    """Virtual time, and the choice of who runs next.

    `schedule` is a byte for each call so far: the number of the loop that made it; `running` is the name of
    that of the last one. `failures` are exceptions that no task took, with the name of the loop.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ns = 0
        self.schedule = bytearray()
        self.failures: list[tuple[str, BaseException]] = []
        self.running = ""
        self._loops: list[ProcessLoop] = []
        self._doomed: list[ProcessLoop] = []
        self._timers: list[tuple[int, int, ProcessLoop, asyncio.TimerHandle]] = []
        self._timer_count = count()
        self._task_count = count(1)
        self._loop_count = count()

    @property
    def now_s(self) -> float:
        """Seconds since the run began."""
        return self.now_ns / NS_PER_S

    def new_loop(self, name: str) -> "ProcessLoop":
        """Return the loop of a process that begins to live."""
        # What a loop can do besides, with sockets and signals, no simulated process asks for.
        loop = ProcessLoop(self, name, next(self._loop_count) % 256)  # type: ignore[abstract]
        self._loops.append(loop)
        return loop

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Let everybody live until `is_done`, which is asked after every call.

        Raises:
            RuntimeError: nobody has anything left to do.
        """
        try:
            while not is_done():
                self._step()
        finally:
            events._set_running_loop(None)

    def add_timer(self, loop: "ProcessLoop", when_ns: int, handle: asyncio.TimerHandle) -> None:
        """Make a call ready at a time."""
        heappush(self._timers, (when_ns, next(self._timer_count), loop, handle))

    def next_task_number(self) -> int:
        """Return a number for a new task."""
        return next(self._task_count)

    def _step(self) -> None:
        self._wake()
        runnable = [loop for loop in self._loops if loop.ready and not loop.is_frozen]
        while not runnable:
            if not self._timers:
                raise RuntimeError("nobody has anything left to do")
            self.now_ns = max(self.now_ns, self._timers[0][0])
            self._wake()
            runnable = [loop for loop in self._loops if loop.ready and not loop.is_frozen]
        # Not `choice`: it draws again and again, and this is drawn for every call.
        loop = runnable[int(self.random.random() * len(runnable))] if len(runnable) > 1 else runnable[0]
        self.schedule.append(loop.number)
        self.now_ns += CALL_NS
        self.running = loop.name
        loop.run_one()
        while self._doomed:
            self._loops.remove(self._doomed[0])
            self._doomed.pop(0).kill()

    def _wake(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now_ns:
            _, _, loop, handle = heappop(timers)
            if not handle.cancelled() and not loop.is_dead:
                loop.ready.append(handle)

    def doom(self, loop: "ProcessLoop") -> None:
        """Kill a loop behind the call that is being made, whoever makes it."""
        if loop in self._loops and loop not in self._doomed:
            self._doomed.append(loop)

    def end(self) -> None:
        """Kill every loop."""
        for loop in self._loops:
            loop.kill()
        self._loops.clear()
        self._timers.clear()


class NumberedTask(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address."""

    def __init__(
        self, number: int, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **kw: Any
    ) -> None:
        self._number = number  # before the rest, which puts the task into a set
        super().__init__(coro, **kw)

    def __hash__(self) -> int:
        return self._number


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one process. `ready` are its next calls.

    While `is_frozen` it makes none; they wait, as those of a stopped process do.
    """

    def __init__(self, scheduler: Scheduler, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.ready: deque[asyncio.Handle] = deque()
        self.is_frozen = False
        self.is_dead = False
        self._scheduler = scheduler
        self._tasks: dict[int, NumberedTask[Any]] = {}

    def run_one(self) -> None:
        """Make the next call."""
        handle = self.ready.popleft()
        if not handle.cancelled():
            events._set_running_loop(self)
            handle._run()

    def kill(self) -> None:
        """End as kill -9 does: nothing that was in memory happens any more.

        Coroutines are closed, which runs the code of their `finally` up to the first wait. The log is behind
        a wait; what is reached is memory that nobody looks at again, and locks on files, which a dead process
        does not hold either.
        """
        self.is_dead = True
        self.ready.clear()
        events._set_running_loop(self)
        try:
            for task in list(self._tasks.values()):
                coroutine = task.get_coro()
                assert coroutine is not None
                try:
                    coroutine.close()
                except RuntimeError:
                    pass  # it waits in its `finally`
        finally:
            events._set_running_loop(None)
        self.ready.clear()

    # What asyncio asks of a loop

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._scheduler.now_ns / NS_PER_S

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Make a call after those that are ready."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self.ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a call after a time."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a call at a time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.is_dead:
            self._scheduler.add_timer(self, round(when * NS_PER_S), handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Begin a coroutine."""
        number = self._scheduler.next_task_number()
        task = NumberedTask(number, coro, loop=self, name=name or f"task {number}", context=context)
        self._tasks[number] = task
        task.add_done_callback(self._forget)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Do work of a thread, whole, a little later."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:
                done.set_exception(error)

        self.call_later(self._scheduler.random.random() * THREAD_S_MAX, work)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what no task took."""
        # A task or future that is thrown away comes here too, at a time that is the collector's: no matter.
        error = context.get("exception")
        if isinstance(error, BaseException) and "never retrieved" not in context.get("message", ""):
            self._scheduler.failures.append((self.name, error))

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """Whether the process lives."""
        return not self.is_dead

    def is_closed(self) -> bool:
        """Whether it does not."""
        return self.is_dead

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its time comes."""

    def _forget(self, task: asyncio.Task[Any]) -> None:
        assert isinstance(task, NumberedTask)
        self._tasks.pop(hash(task), None)
