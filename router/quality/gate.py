"""New builds are checked before they get calls, where somebody else serves their model meanwhile.

A gate closes when a server comes up that this router has not served through before, or comes back as another build. It
opens when a check has ended, whatever that found (a flag has a bar of its own), when the build turns out to be known
from earlier, when no check can come about, and at the latest after `quality.gate_s`: a missing check must not cost a
backend. What is there when the router starts is not new, and the only backend of a model serves at once, checked beside
its calls: that is for the fleet to see, call by call.
"""

from __future__ import annotations

from collections.abc import Callable

from router.backend import Backend
from router.fleet import Fleet
from router.policy.facts import Health, Intent
from router.quality.subject import hindrance


class Gates:
    """See the module. `at_start` is over once the loop of checks runs: whoever comes later is new.

    Args:
        limit_s: how long a gate may stay closed; 0 closes none.
    """

    def __init__(self, fleet: Fleet, limit_s: Callable[[], float]) -> None:
        self._fleet = fleet
        self._limit_s = limit_s
        self._seen: set[tuple[str, str]] = set()
        self._closed_at: dict[tuple[str, str], float] = {}
        self.at_start = True
        fleet.listeners.append(self.models_changed)

    def models_changed(self) -> None:
        """Whoever serves a model for the first time is new. Called before any call can be given to it."""
        fleet = self._fleet
        there = {(backend.name, model) for backend in fleet.backends.values() for model in backend.serving}
        for key in there - self._seen:
            if not self.at_start:
                self.close(*key, "new here")
        self._seen = there
        for key in [key for key in self._closed_at if key not in there]:
            del self._closed_at[key]

    def close(self, name: str, model: str, why: str) -> None:
        """From now on it waits for a check, if one can come about."""
        backend = self._fleet.backends[name]
        if self._limit_s() > 0 and not self._is_hopeless(backend, model):
            self._closed_at.setdefault((name, model), self._fleet.clock())
            self._fleet.set_gate(name, model, f"{why}, waits for its first quick check")

    def open(self, name: str, model: str, why: str) -> None:
        """It gets calls now, few at first. Does nothing where it is open."""
        if self._closed_at.pop((name, model), None) is not None:
            self._fleet.set_gate(name, model, "", why)

    def look(self) -> None:
        """Open what has waited long enough, or waits for what cannot come."""
        now, limit = self._fleet.clock(), self._limit_s()
        for (name, model), since in list(self._closed_at.items()):
            backend = self._fleet.backends[name]
            if self._is_hopeless(backend, model):
                self.open(name, model, f"no check can be made: {hindrance(self._fleet, backend, model)}")
            elif backend.health.health is not Health.HEALTHY or backend.intent is not Intent.ACTIVE:
                self._closed_at[name, model] = now  # it waits for more than a check: that time does not count
            elif now - since >= limit:
                self.open(name, model, f"no check came about within {limit:.0f} s")

    def _is_hopeless(self, backend: Backend, model: str) -> bool:
        """Whether a check is hindered by what does not pass by itself: a setting, or an engine that sleeps."""
        fleet = self._fleet
        sleeps = backend.scrape is not None and backend.scrape.sleeping
        return bool(fleet.passive or not fleet.model_settings(model).canary or sleeps)
