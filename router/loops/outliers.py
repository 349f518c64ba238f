"""What did not fit the learned speeds: counted for the metrics, and a step told to the operator.

A call's way only notes it; here it is collected, once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from router.events import Bus, Notice
from router.fleet import Fleet
from router.policy.outliers import Outlier

QUIET_S = 600.0  # between two lines about one line of one model on one backend; clocks that flap would fill the log

_VERBS = {"prefill": "prefills", "decode": "decodes"}


class OutlierNews:
    """Collects. `count` is told backend, kind and how many samples; `wall` is Unix time (s)."""

    def __init__(
        self, fleet: Fleet, bus: Bus, wall: Callable[[], float], count: Callable[[str, str, int], None]
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._wall = wall
        self._count = count
        self._told: dict[tuple[str, str, str], float] = {}

    def look(self) -> None:
        """Once over all backends and models."""
        now = self._fleet.clock()
        for backend in self._fleet.backends.values():
            for model, serving in backend.serving.items():
                counted, steps = serving.speed.outliers.take()
                for kind, samples in counted.items():
                    self._count(backend.name, kind.value, samples)
                for step in steps:
                    self._tell(backend.name, model, step, now)

    def _tell(self, backend: str, model: str, step: Outlier, now: float) -> None:
        key = (backend, model, step.what)
        if now - self._told.get(key, -QUIET_S) < QUIET_S:
            return
        self._told = {old: at for old, at in self._told.items() if now - at < QUIET_S}
        self._told[key] = now
        since = datetime.fromtimestamp(self._wall() - (now - step.at)).astimezone()
        self._bus.emit(Notice(backend, f"{model}: {said(step)} since {since:%H:%M} (thermal or clock step?)"))


def said(step: Outlier) -> str:
    """In words, by the pace: half the time is twice as fast."""
    pace = 1.0 / step.ratio - 1.0
    return f"{_VERBS.get(step.what, step.what)} {abs(pace):.0%} {'faster' if pace > 0 else 'slower'}"
