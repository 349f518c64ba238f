"""What questions of the router's own take of each backend's time, and whose turn it is to ask.

Time is booked while a backend is asked, whoever the question is about.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from router.quality.plan import Budget


class Ledger:
    """Books the seconds in which a backend has at least one question of ours.

    A running reference is asked too, and it pays for its own answers; time in which a check waits or compares costs
    nobody anything.

    Args:
        clock: seconds, monotonic.
        share: the share of its time that a backend may spend, as it is set now.
        told: hears of every backend and its seconds, as they are booked.
    """

    def __init__(
        self, clock: Callable[[], float], share: Callable[[], float], told: Callable[[str, float], None]
    ) -> None:
        self._clock = clock
        self._share = share
        self._told = told
        self._budgets: dict[str, Budget] = {}
        self._open: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._waiting = 0

    def budget(self, backend: str) -> Budget:
        """What is left of the time that checks may take of it; a full one where the share was changed."""
        share = self._share()
        found = self._budgets.get(backend)
        if found is None or found.share != share:
            found = self._budgets[backend] = Budget(share, self._clock())
        return found

    def allows(self, backend: str, seconds: float) -> bool:
        """Whether so much may be taken of it now."""
        return self.budget(backend).allows(seconds, self._clock())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While somebody asks, nobody else of the router does: neither disturbs what the other measures."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    @property
    def is_taken(self) -> bool:
        """Whether somebody asks, or waits to."""
        return self._turn.locked() or self.is_wanted

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for the turn."""
        return self._waiting > 0

    @contextmanager
    def asking(self, backend: str) -> Iterator[None]:
        """While it is asked something; questions side by side take its time once."""
        if not self._open[backend]:
            self._since[backend] = self._clock()
        self._open[backend] += 1
        try:
            yield
        finally:
            self._open[backend] -= 1
            if not self._open[backend]:
                del self._open[backend]
                now = self._clock()
                seconds = now - self._since.pop(backend)
                self.budget(backend).spend(seconds, now)
                self._told(backend, seconds)
