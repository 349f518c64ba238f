"""One helper process for work that would hold the loop: values go in, values come out.

It starts with the first piece of work and ends after some idle minutes, so that a quiet router is one process. Work is
a plain function of a module that a fresh interpreter can import; a helper that dies is replaced once per piece.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

IDLE_S = 180.0
_NICE = 10


def one_process() -> Executor:
    """A single worker in a fresh interpreter: a fork would copy the router's sockets and threads."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _be_modest)


def _be_modest() -> None:
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the router, which ends this process itself


class Helper:
    """Runs work elsewhere, one piece at a time.

    Args:
        make: starts whoever does the work.
        idle_s: seconds without work after which it is let go.
    """

    def __init__(self, make: Callable[[], Executor] = one_process, idle_s: float = IDLE_S) -> None:
        self._make = make
        self._idle_s = idle_s
        self._executor: Executor | None = None
        self._starting = asyncio.Lock()
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        """What `work(*given)` returns or raises.

        Raises:
            BrokenExecutor: the helper died of this work twice.
        """
        self._running += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            try:
                return await self._do(work, *given)
            except BrokenExecutor:
                self.close()
                return await self._do(work, *given)
        finally:
            self._running -= 1
            if not self._running:
                self._timer = asyncio.get_running_loop().call_later(self._idle_s, self.close)

    async def _do(self, work: Callable[[*Ts], T], *given: *Ts) -> T:
        async with self._starting:
            executor = self._executor
            if executor is None:
                executor = self._executor = await asyncio.to_thread(self._start)
        return await asyncio.get_running_loop().run_in_executor(executor, work, *given)

    def _start(self) -> Executor:
        """Starting a process holds whoever does it for 4 to 14 ms, so a thread does; the first work waits anyway."""
        executor = self._make()
        executor.submit(os.getpid).result()
        return executor

    def close(self) -> None:
        """Let the helper go; the next work starts another one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
