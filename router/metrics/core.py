"""The metrics object: listens to events, is told of loop lag and suspicions, and renders a scrape."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from router import events
from router.metrics import families as f
from router.metrics.counters import OTHER, CallCounters, Counters
from router.metrics.families import Family
from router.metrics.snapshot import BackendGauges, Names, Snapshot, SnapshotSource
from router.metrics.text import SLICE_LINES, Histogram, Rows, slices
from router.policy.facts import Grade, Health, Intent

_UP = frozenset((Health.HEALTHY, Health.SUSPECT, Health.PROBATION))


class Metrics:
    """Counts what happens and renders it for Prometheus.

    Args:
        names: the values that labels may take; replaced by `allow` when the fleet changes.
        snapshot: reads the live gauges; called once a scrape, so it may cost a little but must not block.
        now: Unix time in seconds.
        version: of the router, for `router_build_info`.
    """

    def __init__(self, names: Names, snapshot: SnapshotSource, now: Callable[[], float], version: str = "") -> None:
        self._snapshot = snapshot
        self._now = now
        self._version = version
        self._calls = CallCounters(names)
        self._lag = Histogram(f.LOOP_LAG.buckets)
        self._alarms = 0
        self._kernels: dict[str, events.KernelObserved] = {}
        self._reload: tuple[float | None, bool | None] = (None, None)  # time of the last applied one, the last result
        self._failures = Counters(f.ATTEMPT_FAILURES)
        self._health_changes = Counters(f.HEALTH_CHANGES)
        self._build_changes = Counters(f.BUILD_CHANGES)
        self._quality_changes = Counters(f.QUALITY_CHANGES)
        self._scores = Counters(f.QUALITY_SCORE)
        self._canary_runs = Counters(f.CANARY_RUNS)
        self._canary_seconds = Counters(f.CANARY_SECONDS)
        self._canary_last = Counters(f.CANARY_LAST)
        self._suspicions = Counters(f.SUSPICIONS)
        self._outliers = Counters(f.SPEED_OUTLIERS)
        self._reloads = Counters(f.RELOADS)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.CallEnded: self._calls.count,
            events.AttemptFailed: self._on_attempt_failed,
            events.HealthChanged: self._on_health,
            events.QualityChanged: self._on_quality,
            events.KernelObserved: self._on_kernel,
            events.BuildChanged: self._on_build,
            events.Reloaded: self._on_reload,
            events.CanaryEnded: self._on_canary,
            events.Notice: self._on_notice,
        }

    def on_event(self, event: events.Event) -> None:
        """Listen to the bus. A call's end costs about 2 µs."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def loop_lag(self, seconds: float) -> None:
        """One look at how late the loop ran a timer."""
        self._lag.observe(seconds)

    def suspicion(self, backend: str, model: str, sign: str) -> None:
        """A live answer looked degenerate; `sign` is one of the sentinel's own few words."""
        self._suspicions.add(self._backend(backend), self._model(model), sign)

    def outliers(self, backend: str, kind: str, samples: int) -> None:
        """So many samples did not fit a backend's learned speed; `kind` is one of the policy's own few words."""
        self._outliers.add(self._backend(backend), kind, by=samples)

    def canary_time(self, backend: str, seconds: float) -> None:
        """A backend was asked by a quality check, its own or another backend's, for so long."""
        self._canary_seconds.add(self._backend(backend), by=seconds)

    def allow(self, names: Names) -> None:
        """Take these names for labels from now on; series of names that are gone disappear."""
        before, self._calls.names = self._calls.names, names
        for backend in before.backends - names.backends:
            self._drop_backend(backend)
        for model in before.models - names.models:
            self._calls.forget_model(model)
            self._drop("model", model)

    def forget(self, backend: str) -> None:
        """A backend was removed: its series disappear, and what still comes of it is shown as "other"."""
        names = self._calls.names
        self.allow(Names(names.backends - {backend}, names.models, names.routes))

    def render(self) -> bytes:
        """A whole scrape at once: for tests, small fleets and the command line."""
        return b"".join(self.render_slices())

    def render_slices(self, lines: int = SLICE_LINES) -> Iterator[bytes]:
        """A scrape in pieces; give the loop a turn between them. Gauges are all of one moment, the first."""
        snapshot = self._snapshot()
        yield from slices(self._families(snapshot), lines)
        yield generate_latest(self._process)

    # -- events

    def _on_attempt_failed(self, event: events.AttemptFailed) -> None:
        self._failures.add(self._backend(event.backend), event.kind.value, event.phase.value)

    def _on_health(self, event: events.HealthChanged) -> None:
        self._health_changes.add(self._backend(event.backend), event.new)

    def _on_quality(self, event: events.QualityChanged) -> None:
        self._quality_changes.add(self._backend(event.backend), self._model(event.model), event.new)

    def _on_kernel(self, event: events.KernelObserved) -> None:
        if event.backend in self._calls.names.backends:
            self._kernels[event.backend] = event  # one a backend: what it ran before is history, not a series

    def _on_build(self, event: events.BuildChanged) -> None:
        if not event.completed:
            self._build_changes.add(self._backend(event.backend), "restart" if event.restarted_only else "build")

    def _on_reload(self, event: events.Reloaded) -> None:
        self._reloads.add("ok" if event.ok else "refused")
        self._reload = (self._now() if event.ok else self._reload[0], event.ok)

    def _on_canary(self, event: events.CanaryEnded) -> None:
        backend, model = self._backend(event.backend), self._model(event.model)
        self._canary_runs.add(backend, model, event.size, event.verdict)
        self._canary_last.set(self._now(), backend, model)
        if event.score is not None:
            self._scores.set(event.score, backend, model)

    def _on_notice(self, event: events.Notice) -> None:
        self._alarms += event.alarm

    # -- names

    def _backend(self, name: str) -> str:
        return name if name in self._calls.names.backends else OTHER

    def _model(self, name: str) -> str:
        return name if name in self._calls.names.models else OTHER

    def _drop_backend(self, backend: str) -> None:
        self._calls.forget_backend(backend)
        self._kernels.pop(backend, None)
        self._drop("backend", backend)

    def _drop(self, label: str, value: str) -> None:
        for counters in self._labelled():
            counters.drop(label, value)

    def _labelled(self) -> tuple[Counters, ...]:
        return (
            self._failures, self._health_changes, self._build_changes, self._quality_changes, self._scores,
            self._canary_runs, self._canary_seconds, self._canary_last, self._suspicions, self._outliers,
            self._reloads,
        )  # fmt: skip

    # -- rows

    def _families(self, snapshot: Snapshot) -> Iterator[tuple[Family, Rows]]:
        yield from self._calls.families()
        yield from _fleet(snapshot)
        for counters in self._labelled():
            yield counters.family, counters.rows()
        yield (
            f.KERNEL_MISMATCH,
            [
                ((k.backend, k.declared, k.observed), int(not k.matches))
                for k in list(self._kernels.values())
                if k.matches is not None
            ],
        )
        yield from self._own(snapshot)

    def _own(self, snapshot: Snapshot) -> Iterator[tuple[Family, Rows]]:
        reloaded, ok = self._reload
        yield f.GENERATION, [((), snapshot.generation)]
        yield f.RELOAD_OK, [] if ok is None else [((), int(ok))]
        yield f.RELOAD_TIME, [] if reloaded is None else [((), reloaded)]
        yield f.LOOP_LAG, [((), self._lag)]
        yield f.CONNECTIONS, [((side,), n) for side, n in snapshot.connections.items()]
        yield f.HISTORY_OK, [((), int(snapshot.history_ok))]
        yield f.EVENTS_LOST, [((), snapshot.events_lost)]
        yield f.LINES_DROPPED, [((), snapshot.log_lines_dropped)]
        yield f.ALARMS, [((), self._alarms)]
        yield f.BUILD_INFO, [((self._version, platform.python_version()), 1)]


def _states(members: type[StrEnum], labels: tuple[str, ...], current: str) -> list[tuple[tuple[str, ...], int]]:
    """One row a state, 1 for the current one: a change is then visible without a gap in any series."""
    return [((*labels, member.value), int(member == current)) for member in members]


def _fleet(snapshot: Snapshot) -> Iterator[tuple[Family, Rows]]:
    """The gauges of backends and models."""
    backends = snapshot.backends
    yield f.UP, [((b.name,), int(b.health in _UP)) for b in backends]
    yield f.HEALTH, [row for b in backends for row in _states(Health, (b.name,), b.health)]
    yield f.INTENT, [row for b in backends for row in _states(Intent, (b.name,), b.intent)]
    yield f.BACKEND_INFO, [((b.name, b.kernel, b.version, b.build), 1) for b in backends]
    yield f.VLLM_RUNNING, [((b.name,), b.running) for b in backends if b.running is not None]
    yield f.VLLM_WAITING, [((b.name,), b.waiting) for b in backends if b.waiting is not None]
    yield f.IN_FLIGHT_CAP, [((b.name,), float(b.cap)) for b in backends if b.cap is not None]
    yield f.SPEC_ACCEPTANCE, [((b.name,), b.spec_acceptance) for b in backends if b.spec_acceptance is not None]
    yield f.VLLM_KV, [((b.name,), b.kv_usage) for b in backends if b.kv_usage is not None]
    yield f.USABLE, [((model,), n) for model, n in snapshot.usable.items()]
    yield f.QUEUED, [((model,), n) for model, n in snapshot.queued.items()]
    yield from _gpus(snapshot)
    yield from _models(backends)


def _gpus(snapshot: Snapshot) -> Iterator[tuple[Family, Rows]]:
    """The gauges of machines; a machine whose GPU is not read has none."""
    gpus = snapshot.gpus
    yield f.GPU_CLOCK, [((one.host,), one.clock_hz) for one in gpus if one.clock_hz is not None]
    yield f.GPU_TEMPERATURE, [((one.host,), one.temperature_c) for one in gpus if one.temperature_c is not None]
    yield f.GPU_POWER, [((one.host,), one.power_w) for one in gpus if one.power_w is not None]
    yield f.GPU_CAPPED, [((one.host,), int(one.is_capped)) for one in gpus]


def _models(backends: tuple[BackendGauges, ...]) -> Iterator[tuple[Family, Rows]]:
    """The gauges of each model on each backend."""
    pairs = [((b.name, m.model), m) for b in backends for m in b.models]
    yield f.IN_FLIGHT, [(key, m.in_flight) for key, m in pairs]
    yield f.QUALITY, [row for key, m in pairs for row in _states(Grade, key, m.grade)]
    yield f.GATED, [(key, int(m.is_gated)) for key, m in pairs]
    speeds = [(key, m.speed) for key, m in pairs if m.speed is not None]
    yield f.PREFILL_RATE, [(key, speed.prefill_rate) for key, speed in speeds]
    yield f.TPOT_A, [(key, speed.tpot_a) for key, speed in speeds]
    yield f.TPOT_B, [(key, speed.tpot_b) for key, speed in speeds]
    yield f.SPEED_SPREAD, [(key, speed.spread) for key, speed in speeds]
