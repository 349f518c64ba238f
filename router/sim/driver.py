"""Drives an engine in real time: sleeps as long as each step takes and hands every request its tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from router.sim.engine import Engine
from router.sim.faults import Faults

LAG_LIMIT_S = 0.25  # a driver that fell further behind than this does not try to catch up


@dataclass(slots=True)
class Running:
    """A request on its way through the engine, and when what happened to it."""

    index: int
    queue: asyncio.Queue[tuple[int, int, bool]]
    came: float
    prompt_tokens: int
    max_tokens: int
    advance: Callable[[int], bool]  # write that many tokens; is the text complete?
    first: float | None = None
    last: float = 0.0
    emitted: int = 0
    cached: int = 0  # prompt tokens found in the cache


class Driver:
    """One engine's loop; it runs only while there is work."""

    def __init__(self, engine: Engine, faults: Faults, observe: Callable[[str, float], None]) -> None:
        self.engine = engine
        self.faults = faults
        self._observe = observe  # (histogram, value)
        self._running: dict[str, Running] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Driver {self.engine!r}>"

    def submit(self, request_id: str, running: Running, hashes: tuple[int, ...], reads_cache: bool) -> None:
        """Queue a request. Raises ValueError where the engine can't take it."""
        self.engine.submit(request_id, running.prompt_tokens, running.max_tokens, hashes, reads_cache)
        self._running[request_id] = running
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drive())

    def abort(self, request_id: str) -> None:
        """The client left, or has what it wanted: free everything at once."""
        if self._running.pop(request_id, None) is not None:
            self.engine.abort(request_id)

    def poke(self) -> None:
        """The faults changed."""
        self._changed.set()

    async def stop(self) -> None:
        """End the loop and drop every request."""
        for request_id in list(self._running):
            self.abort(request_id)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drive(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while self.engine.is_busy():
            if self.faults.get("hang"):
                self._changed.clear()
                await self._changed.wait()
                continue
            slow = self.faults.get("slow")
            self.engine.slow_factor = slow.factor if slow else 1.0
            due = max(due, clock() - LAG_LIMIT_S)
            step = self.engine.step(due)
            due += step.duration_s
            await asyncio.sleep(max(0.0, due - clock()))
            self._observe("iteration_tokens_total", step.prefilled_tokens + sum(step.tokens.values()))
            for request_id, cached in step.admitted.items():
                if request_id in self._running:
                    self._running[request_id].cached = cached
            for request_id, tokens in step.tokens.items():
                self._deliver(request_id, tokens, request_id in step.finished, due)

    def _deliver(self, request_id: str, tokens: int, is_finished: bool, now: float) -> None:
        running = self._running.get(request_id)
        if running is None:  # aborted while the step ran
            return
        if running.first is None:
            running.first = now
            self._observe("time_to_first_token_seconds", now - running.came)
        else:
            self._observe("inter_token_latency_seconds", (now - running.last) / tokens)
        running.last = now
        running.emitted += tokens
        if running.advance(tokens) and not is_finished:
            self.engine.finish(request_id)
            is_finished = True
        if is_finished:
            del self._running[request_id]
            self._observe("e2e_request_latency_seconds", now - running.came)
            self._observe("request_prompt_tokens", running.prompt_tokens)
            self._observe("request_generation_tokens", running.emitted)
            if running.emitted > 1:
                self._observe("request_time_per_output_token_seconds", (now - running.first) / (running.emitted - 1))
        running.queue.put_nowait((running.index, tokens, is_finished))


async def tokens_of(
    queue: asyncio.Queue[tuple[int, int, bool]], requests: int
) -> AsyncGenerator[tuple[int, int], None]:
    """(index, new tokens) as they come, until all `requests` are done."""
    left = requests
    while left:
        index, tokens, is_finished = await queue.get()
        left -= is_finished
        yield index, tokens
