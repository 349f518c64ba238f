"""The calls that wait in the router, per model: the queue of `policy/admit.py` joined to the coroutines that wait.

Whoever is woken is not in the queue any more but still goes before newcomers: it counts as queued until it has decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from router.errors import Overloaded
from router.policy.admit import Queue, Shed
from router.policy.facts import CallFacts


class Expired(Exception):
    """A call waited as long as it may."""


@dataclass(slots=True)
class _Line:
    queue: Queue
    woken: set[Hashable] = field(default_factory=set)
    futures: dict[Hashable, asyncio.Future[None]] = field(default_factory=dict)


class Waiting:
    """All queues. `limit` gives a model's queue length, `most` bounds all of them together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: Callable[[str], int], most: Callable[[], int]) -> None:
        self._loop = loop
        self._limit = limit
        self._most = most
        self._lines: dict[str, _Line] = {}
        self.total = 0

    def queued(self, model: str) -> int:
        """Calls of a model that wait or were just woken: newcomers go behind them."""
        line = self._lines.get(model)
        return len(line.futures) + len(line.woken) if line is not None else 0

    def by_model(self) -> dict[str, int]:
        """Calls waiting, by model."""
        return {model: len(line.futures) for model, line in self._lines.items()}

    def retry_after_s(self, model: str) -> float:
        """When there will probably be room."""
        line = self._lines.get(model)
        return line.queue.retry_after_s() if line is not None else 1.0

    def oldest_wait_s(self, model: str, now: float) -> float:
        """How long the first one has waited."""
        line = self._lines.get(model)
        return line.queue.oldest_wait_s(now) if line is not None else 0.0

    async def wait(self, ticket: Hashable, facts: CallFacts, client: str, deadline: float) -> None:
        """Wait for this call's turn; leaving (cancellation) takes it out.

        Raises:
            Overloaded: there is no room.
            Expired: its deadline came first.
        """
        line = self._lines.setdefault(facts.model, _Line(Queue(self._limit(facts.model))))
        line.queue.limit = self._limit(facts.model)
        line.woken.discard(ticket)
        if self.total >= self._most():
            raise Overloaded(
                "the router's queue is full", status=503, code="queue_full", retry_after_s=line.queue.retry_after_s()
            )
        place = line.queue.offer(self._loop.time(), ticket, deadline, client, facts.background)
        if isinstance(place, Shed):
            raise Overloaded(place.reason, status=429, code="queue_full", retry_after_s=place.retry_after_s)
        future = line.futures[ticket] = self._loop.create_future()
        self.total += 1
        try:
            await future
        finally:
            self.total -= 1
            line.futures.pop(ticket, None)
            line.queue.leave(ticket)

    def decided(self, ticket: Hashable, model: str) -> None:
        """A woken call has a backend, or gave up."""
        line = self._lines.get(model)
        if line is not None:
            line.woken.discard(ticket)

    def wake(self, models: tuple[str, ...], places: int = 1) -> None:
        """Something became free: as many of each model's first ones try again."""
        for model in models:
            line = self._lines.get(model)
            if line is None:
                continue
            for _ in range(places - len(line.woken)):
                ticket = line.queue.next(self._loop.time())
                if ticket is None:
                    break
                future = line.futures.get(ticket)
                if future is not None and not future.done():
                    line.woken.add(ticket)
                    future.set_result(None)

    def expire(self, now: float) -> None:
        """End the wait of everybody whose deadline has come."""
        for line in self._lines.values():
            for ticket in line.queue.expire(now):
                future = line.futures.get(ticket)
                if future is not None and not future.done():
                    future.set_exception(Expired())

    @property
    def models(self) -> tuple[str, ...]:
        """Models that somebody waits for."""
        return tuple(model for model, line in self._lines.items() if line.futures)
