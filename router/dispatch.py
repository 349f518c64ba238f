"""Which backend gets a call's next attempt: admit it or let it wait, decide, remember why.

Policy decides; here its answers are acted on. The queue, the sessions and the recent decisions live here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router import samples
from router.errors import NoBackend, Overloaded, RouterError
from router.events import CallEnded
from router.fleet import Fleet
from router.policy import choose as policy
from router.policy.admit import Admit, Shed, admit
from router.policy.facts import CallFacts, Candidate, Choice, Health, Intent, RoutingLimits
from router.waiting import Expired, Waiting

if TYPE_CHECKING:
    from router.exchange import Exchange

_SESSIONS = 20_000  # whose last backend is remembered
_DECISIONS = 16  # kept of one call
_MODELS = 1024  # whose limits are remembered


@dataclass(slots=True)
class Decision:
    """What was decided for one attempt of a call, kept for `router explain`."""

    at: float  # loop time
    facts: CallFacts
    limits: RoutingLimits
    rows: list[samples.Row]  # the candidates' fields: cheaper to keep than candidates
    choice: Choice | None

    @property
    def candidates(self) -> list[Candidate]:
        """The candidates as they were."""
        return [Candidate(*row) for row in self.rows]


@dataclass(slots=True)
class Explained:
    """A recent call: its decisions as they were taken, and how it ended."""

    decisions: list[Decision] = field(default_factory=list)
    ended: CallEnded | None = None


class Dispatch:
    """See the module. Time and chance are handed in."""

    def __init__(self, fleet: Fleet, loop: asyncio.AbstractEventLoop, draw: Callable[[], float]) -> None:
        self.fleet = fleet
        self.clock = loop.time
        self.draw = draw
        self.explained: OrderedDict[str, Explained] = OrderedDict()
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._limits_of = -1  # generation of the config
        self._limits_by_model: dict[str, RoutingLimits] = {}
        self.waiting = Waiting(
            loop, lambda model: fleet.model_settings(model).queue_length, lambda: fleet.config.limits.queue_total
        )
        fleet.on_free = self.freed

    async def choose(self, exchange: Exchange, facts: CallFacts) -> Choice:
        """A backend for the next attempt; waits in the model's queue where everybody is full or still loading.

        Raises:
            NoBackend: nobody can take it, with the reason for each.
            Overloaded: there is no room to wait, or the wait took too long.
        """
        waited_from: float | None = None
        woken = False
        while True:
            choice, reasons = self._admitted(exchange, facts, woken)
            if choice is not None:
                if waited_from is not None:
                    exchange.queued_s += self.clock() - waited_from
                    self.waiting.decided(exchange, facts.model)
                return choice
            now = self.clock()
            waited_from = waited_from if waited_from is not None else now
            deadline = waited_from + self.fleet.config.timeouts.queue_s
            try:
                if not self._worth_waiting(exchange, facts):
                    raise Expired
                await self.waiting.wait(exchange, facts, exchange.client.address, deadline)
                woken = True
            except Expired:
                raise self._nobody(facts, reasons) from None
            finally:
                exchange.queued_s = self.clock() - waited_from
                if not woken:
                    self.waiting.decided(exchange, facts.model)

    def _admitted(self, exchange: Exchange, facts: CallFacts, woken: bool) -> tuple[Choice | None, dict[str, str]]:
        """A choice, or nothing where the call has to wait: behind those who wait already, or for a free place."""
        queued = 0 if woken else self.waiting.queued(facts.model)
        candidates = self.fleet.candidates(facts, exchange.tried)
        verdict = admit(facts, candidates, queued, self.fleet.model_settings(facts.model).queue_length)
        if isinstance(verdict, Admit):
            return self._decide(exchange, facts, candidates)
        if isinstance(verdict, Shed):
            raise Overloaded(
                verdict.reason,
                status=429,
                code="queue_full",
                retry_after_s=self.waiting.retry_after_s(facts.model),
            )
        return None, {one.name: one.barred or "full" for one in candidates}

    def _decide(
        self, exchange: Exchange, facts: CallFacts, candidates: list[Candidate]
    ) -> tuple[Choice | None, dict[str, str]]:
        if exchange.session is not None and self.fleet.model_settings(facts.model).sticky:
            last = self._sessions.get(exchange.session)
            for one in candidates:
                one.sticky = one.name == last
        else:
            for one in candidates:
                one.sticky = False
        limits = self._limits(facts.model)
        result = policy.choose(facts, candidates, limits, self.draw())
        choice = result if isinstance(result, Choice) else None
        self._keep_decision(exchange, facts, limits, candidates, choice)
        if choice is not None:
            if exchange.session is not None:
                self._sessions[exchange.session] = choice.name
                self._sessions.move_to_end(exchange.session)
                if len(self._sessions) > _SESSIONS:
                    self._sessions.popitem(last=False)
            return choice, {}
        return None, {one.name: one.barred or "full" for one in candidates}

    def _limits(self, model: str) -> RoutingLimits:
        """What the operator set for decisions about a model: the same value until the next reload."""
        fleet = self.fleet
        if self._limits_of != fleet.generation:
            self._limits_of = fleet.generation
            self._limits_by_model.clear()
        found = self._limits_by_model.get(model)
        if found is None:
            settings = fleet.model_settings(model)
            found = RoutingLimits(
                policy=settings.policy or "predictive",
                exploration=0.0 if fleet.passive else fleet.config.routing.exploration,
                slo_ttft_s=settings.slo_ttft_s,
                slo_tpot_s=settings.slo_tpot_s,
                sticky=bool(settings.sticky),
            )
            if len(self._limits_by_model) < _MODELS:
                self._limits_by_model[model] = found
        return found

    def _keep_decision(
        self,
        exchange: Exchange,
        facts: CallFacts,
        limits: RoutingLimits,
        candidates: list[Candidate],
        choice: Choice | None,
    ) -> None:
        size = self.fleet.config.limits.explain_calls
        if not size:
            return
        kept = self.explained.get(exchange.request_id)
        if kept is None:
            kept = self.explained[exchange.request_id] = Explained()
            if len(self.explained) > size:
                self.explained.popitem(last=False)
        if len(kept.decisions) < _DECISIONS:
            rows = [samples.row_of(one) for one in candidates]
            kept.decisions.append(Decision(self.clock(), facts, limits, rows, choice))

    def _worth_waiting(self, exchange: Exchange, facts: CallFacts) -> bool:
        """Somebody who could take it is only full, or still loading."""
        if facts.model not in self.fleet.pools:
            return any(backend.health.health is Health.STARTING for backend in self.fleet.backends.values())
        for backend in self.fleet.pools.get(facts.model, ()):
            if backend.name in exchange.tried or backend.intent is not Intent.ACTIVE:
                continue
            if facts.pinned is not None and backend.name != facts.pinned:
                continue
            if backend.health.health in (Health.HEALTHY, Health.SUSPECT, Health.PROBATION, Health.STARTING):
                return True
        return False

    def _nobody(self, facts: CallFacts, reasons: dict[str, str]) -> RouterError:
        fleet = self.fleet
        loading = [
            backend
            for backend in fleet.pools.get(facts.model) or fleet.backends.values()
            if backend.health.health is Health.STARTING and backend.loading_since is not None
        ]
        if loading:
            backend = loading[0]
            since = self.clock() - (backend.loading_since or 0.0)
            eta = backend.load_eta_s
            about = f", about {since / 60:.0f} of {eta / 60:.0f} min" if eta else f", for {since / 60:.0f} min now"
            retry = max(10.0, eta - since) if eta else 60.0
            return NoBackend(
                f"{facts.model} is loading on {backend.name}{about}",
                code="model_loading",
                retry_after_s=min(retry, 600),
            )
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "it has no backend"
        return NoBackend(f"no backend can take {facts.model} now ({listed})", retry_after_s=10)

    def freed(self, name: str) -> None:
        """A lease ended, or a backend's state changed: whoever waits for one of its models tries again."""
        if self.waiting.total:
            backend = self.fleet.backends.get(name)
            self.waiting.wake(tuple(backend.serving) if backend is not None else self.waiting.models)

    def queued(self) -> int:
        """Calls waiting in the router."""
        return self.waiting.total

    def queued_by_model(self) -> dict[str, int]:
        """Calls waiting, by model; every served model has an entry."""
        return dict.fromkeys(self.fleet.pools, 0) | self.waiting.by_model()

    def sweep(self, now: float) -> None:
        """End the wait of those whose time is up; let the others try again."""
        if self.waiting.total:
            self.waiting.expire(now)
            self.waiting.wake(self.waiting.models)

    def ended(self, request_id: str, event: CallEnded) -> None:
        """A call is over: its decisions and its end belong together."""
        kept = self.explained.get(request_id)
        if kept is not None:
            kept.ended = event
