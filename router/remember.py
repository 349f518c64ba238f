"""What outlives a restart: learned speeds per build, the operator's intents, load times. Written through the history.

Reading happens at start and when a build becomes known; both are rare, small and, but for the first, off the loop.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from router.backend import Backend
from router.events import Event, HealthChanged, IntentChanged
from router.fleet import Fleet
from router.history import History
from router.history.rows import BENCH_WORKLOAD, BenchDay, Build, Load, OperatorIntent, SpeedState
from router.policy.facts import Health, Intent
from router.policy.speed import SpeedModel

log = logging.getLogger(__name__)

_LOADS = 5  # earlier loads that the expectation of the next one rests on


class Memory:
    """Keeps and recalls. A missing, old or broken row is nothing remembered, never an error."""

    def __init__(self, fleet: Fleet, history: History, wall: Callable[[], float]) -> None:
        self._fleet = fleet
        self._history = history
        self._wall = wall
        self._recalled: set[tuple[str, str, str]] = set()

    def at_start(self) -> None:
        """Before the loops begin: what the operator said last, and how long loading takes."""
        for row in self._history.rows_now(OperatorIntent):
            if row.backend in self._fleet.backends and row.intent in set(Intent):
                intent = Intent(row.intent)
                if intent is not Intent.ACTIVE:
                    self._fleet.set_intent(row.backend, intent, row.reason)
        loads: dict[str, list[float]] = {}
        for load in self._history.rows_now(Load):
            loads.setdefault(load.backend, []).append(load.seconds)
        for name, seconds in loads.items():
            backend = self._fleet.backends.get(name)
            if backend is not None:
                backend.load_eta_s = statistics.median(seconds[-_LOADS:])

    def on_event(self, event: Event) -> None:
        """Note how long a backend took to load, and that it was seen."""
        if isinstance(event, HealthChanged) and event.new == Health.HEALTHY.value:
            backend = self._fleet.backends.get(event.backend)
            if backend is None:
                return
            if event.old == Health.STARTING.value and backend.loading_since is not None:
                seconds = self._fleet.clock() - backend.loading_since
                backend.load_eta_s = seconds
                self._history.keep(Load(backend.name, backend.build, self._wall(), seconds))
        elif isinstance(event, IntentChanged):
            self._history.keep(OperatorIntent(event.backend, event.new, event.reason, self._wall()))

    def build_known(self, backend: Backend, old: str, changed: bool) -> None:
        """A backend's build became known or changed: recall what was learned under it, or widen what there is."""
        now = self._wall()
        card = next(iter(backend.cards), None)
        self._history.keep(
            Build(
                id=backend.build,
                backend=backend.name,
                checkpoint=(card.root or "") if card is not None else "",
                kernels=backend.kernel,
                version=backend.version or "",
                fingerprint=backend.fingerprint or "",
                flags=backend.flags,
                image=backend.image,
                host=",".join(host.name for host in backend.hosts),
                first_seen=now,
                last_seen=now,
                load_s=backend.load_eta_s,
            )
        )
        if old and not changed:  # the same build, known better: what was measured of it goes along
            for row in self._history.rows_now(BenchDay, backend=backend.name, build=old):
                self._history.keep(replace(row, build=backend.build))
        for model, serving in backend.serving.items():
            known = self._recall(backend, model)
            if known is not None:
                serving.speed = known
            elif changed:
                serving.speed = serving.speed.as_prior()
            elif not serving.speed.decode.samples and serving.speed.source not in ("bench", "history"):
                serving.speed = SpeedModel.from_kernel_table(
                    backend.kernel, tuple(host.model for host in backend.hosts)
                )

    def _recall(self, backend: Backend, model: str) -> SpeedModel | None:
        key = (backend.name, model, backend.build)
        if key in self._recalled:
            return None
        self._recalled.add(key)
        hosts = tuple(host.model for host in backend.hosts)
        learned = self._history.rows_now(SpeedState, backend=backend.name, model=model, build=backend.build)
        benches = self._history.rows_now(
            BenchDay, backend=backend.name, model=model, build=backend.build, workload=BENCH_WORKLOAD
        )
        try:
            # What was learned after a bench began with it; before one, the bench knows better.
            if benches and (not learned or benches[-1].at >= learned[-1].at):
                return SpeedModel.from_bench(*_lines(benches[-1].figures), hosts)
            return SpeedModel.from_json(learned[-1].state, hosts) if learned else None
        except (TypeError, ValueError, KeyError) as exc:
            log.warning("the remembered speed of %s (%s) cannot be read: %s", backend.name, model, exc)
            return None

    def keep_bench(
        self, backend: Backend, model: str, prefill: Mapping[str, float], decode: Mapping[str, float]
    ) -> bool:
        """What a bench measured of a backend's build as it is now; False where its build is not known."""
        if not backend.build:
            return False
        now = self._wall()
        lines = {"prefill": prefill, "decode": decode}
        figures = {f"{line}.{part}": value for line, parts in lines.items() for part, value in parts.items()}
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        self._history.keep(BenchDay(backend.name, model, backend.build, day, BENCH_WORKLOAD, now, figures))
        return True

    def save(self) -> None:
        """Keep what was learned of every speed; a few rows, every minute and at the end."""
        now = self._wall()
        for backend in self._fleet.backends.values():
            if not backend.build:
                continue
            for model, serving in backend.serving.items():
                if serving.speed.decode.samples >= 1:
                    self._history.keep(SpeedState(backend.name, model, backend.build, now, serving.speed.to_json()))
        self._history.flush()


def _lines(figures: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The two lines of a kept bench."""

    def line(name: str) -> dict[str, float]:
        return {key.removeprefix(name): value for key, value in figures.items() if key.startswith(name)}

    return line("prefill."), line("decode.")
