"""What a scrape is told about this moment: gauges as values, handed in by whoever owns the live state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from router.policy.facts import Grade, Health, Intent, Speed


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """One model on one backend; `speed` is None where nothing was measured or assumed."""

    model: str
    in_flight: int = 0
    grade: Grade = Grade.UNKNOWN
    speed: Speed | None = None
    is_gated: bool = False


@dataclass(frozen=True, slots=True)
class BackendGauges:
    """One backend now. What it said itself (`running`, `waiting`, `kv_usage` from 0 to 1) is None where unknown."""

    name: str
    health: Health
    intent: Intent
    models: tuple[ModelGauges, ...] = ()
    kernel: str = "unknown"  # observed
    version: str = "unknown"  # of vLLM
    build: str = "unknown"
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    cap: int | None = None  # most calls in flight
    spec_acceptance: float | None = None  # share of the drafted tokens that it accepted


@dataclass(frozen=True, slots=True)
class GpuGauges:
    """One machine's GPU as it was read last; what it did not tell is None."""

    host: str
    clock_hz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    is_capped: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is read at a scrape and not counted by events.

    `usable` is how many backends a call for each model could be given to now (every configured model has an entry);
    `queued` likewise counts waiting calls. `connections` is by side ("client", "backend").
    """

    backends: tuple[BackendGauges, ...] = ()
    gpus: tuple[GpuGauges, ...] = ()
    usable: Mapping[str, int] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)
    generation: int = 0
    history_ok: bool = True
    events_lost: int = 0
    log_lines_dropped: int = 0


SnapshotSource = Callable[[], Snapshot]


@dataclass(frozen=True, slots=True)
class Names:
    """The only values that labels may take; everything else is shown as "other"."""

    backends: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    routes: frozenset[str] = frozenset()
