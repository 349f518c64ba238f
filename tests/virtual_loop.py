"""An event loop in virtual time: waiting costs nothing, and waiting for nothing fails at once.

The clock stands still while anything is ready to run and jumps to the next timer when nothing is. A minute of backoff
passes in microseconds, in the same order every time. Where nothing is ready and no timer is set, no event can ever
come: a real loop would hang there, this one raises `Deadlock` and names who waits where.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Ready = list[tuple[selectors.SelectorKey, int]]

START_S = 1_000.0  # not zero: nobody may take "since the loop began" for "since ever"


class Deadlock(Exception):
    """Every task waits, and nothing is left that could wake one."""


class VirtualSelector(selectors.DefaultSelector):
    """Looks at the real files without ever waiting; asks the loop what waiting means."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Callable[[float | None], bool] = lambda timeout: True

    def select(self, timeout: float | None = None) -> Ready:
        """Return what is ready now; else let virtual time pass, or wait in earnest for a thread's result."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        return ready if self.passes(timeout) else super().select(None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop with a clock that jumps. Threads (`to_thread`, executors) are waited for in real time."""

    def __init__(self) -> None:
        self.now = START_S
        self.deadlocked = False
        self._in_threads = 0
        selector = VirtualSelector()
        super().__init__(selector)
        selector.passes = self._pass

    def time(self) -> float:
        """Return virtual seconds; only timers move them."""
        return self.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func` in a real thread or process; the clock stands still until it is back."""
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._back)
        return future

    async def shutdown_default_executor(self, *timeout: float) -> None:
        """Wait for the default executor's threads; asyncio does that in a thread of its own."""
        self._in_threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._in_threads -= 1

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1

    def _pass(self, timeout: float | None) -> bool:
        """Let `timeout` seconds pass at once. False: a thread is at work, so wait for it instead."""
        if self._in_threads:
            return False
        if timeout is None:
            self.deadlocked = True
            raise Deadlock(describe(asyncio.all_tasks(self), "deadlock: nothing is ready, no timer is set; waiting:"))
        self.now += timeout
        return True


def describe(tasks: set[asyncio.Task[Any]], headline: str) -> str:
    """Say who waits, and where in the code."""
    return "\n".join([headline, *sorted(f"  {task.get_name()}: {where(task.get_coro())}" for task in tasks)])


def where(coro: Coroutine[Any, Any, Any] | Generator[Any, Any, Any] | None) -> str:
    """Follow the awaits of a suspended coroutine down to the line that waits."""
    names, frame = [], None
    awaited: Any = coro
    while awaited is not None and (inner := frame_of(awaited)) is not None:
        names.append(getattr(awaited, "__qualname__", type(awaited).__name__))
        frame = inner
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    if frame is None:
        return repr(coro)
    return f"{' → '.join(names)} ({frame.f_code.co_filename}:{frame.f_lineno})"


def frame_of(awaited: object) -> FrameType | None:
    """Return the frame of a coroutine or generator, None of anything else."""
    return getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
