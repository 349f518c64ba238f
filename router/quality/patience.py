"""Asks one question beside the traffic: gives way to calls, and finds out who died where no answer came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from enum import Enum, auto
from typing import Any

from router.backend import Backend
from router.fleet import Fleet
from router.policy.facts import Health
from router.policy.quality import Family
from router.quality.ask import Asker
from router.quality.check import Check
from router.quality.guardian import Guardian
from router.quality.kept import KeptAsker
from router.quality.subject import Subject, hindrance

log = logging.getLogger(__name__)

LOOK_S = 0.1  # between looks at whether a call came in while a question is asked
SETTLE_S = 1.0  # after a broken question, before asking whether the backend lives


class Left(Enum):
    """How a question, or a whole check, was left."""

    DONE = auto()
    CALLED = auto()  # a call came in, or something else hinders it now: the rest goes on later
    FAILED = auto()  # no answer came, and yet the backend lives
    GONE = auto()  # the backend does not answer any more


class Patience:
    """See the module."""

    def __init__(self, fleet: Fleet, guardian: Guardian) -> None:
        self._fleet = fleet
        self._guardian = guardian

    async def ask(
        self,
        question: Coroutine[Any, Any, None],
        watched: Sequence[Backend],
        subject: Subject,
        asker: Asker | KeptAsker,
    ) -> Left:
        """Ask one question, and give it up where a call comes in: hanging up makes a vLLM drop its work."""
        import httpx

        task = asyncio.ensure_future(question)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=LOOK_S)
                if not task.done() and any(b.leases or hindrance(self._fleet, b, subject.model) for b in watched):
                    is_down = not watched[0].leases and watched[0].health.health is not Health.HEALTHY
                    return Left.GONE if is_down else Left.CALLED
            task.result()
            return Left.DONE
        except httpx.TransportError as problem:
            log.info("%s left a question open: %r", subject.backend, problem)
            await asyncio.sleep(SETTLE_S)
            return Left.FAILED if await asker.is_alive() else Left.GONE
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def mourn(self, check: Check) -> None:
        """A question was left open: if the running reference died of it, it gets no more of that kind either."""
        name, scorer = check.trust.living_name, check.trust.living
        living = self._fleet.backends.get(name)
        if scorer is None or living is None:
            return
        if living.health.health is not Health.HEALTHY or not await scorer.is_alive():
            self._guardian.died(name, living.build, Family.PREFILL)
