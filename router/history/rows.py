"""What is kept, as frozen values: one class a table, one field a column. Times are Unix seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Build:
    """What a backend was, exactly enough that its figures may be compared: a restart under the same build is no change.

    `load_s` is the last wait from start to ready that was seen, None where no start was seen.
    """

    id: str
    backend: str
    checkpoint: str
    kernels: str  # observed: linear and MoE, as one string
    version: str  # of vLLM
    fingerprint: str
    flags: str
    host: str = ""
    image: str = ""
    first_seen: float = 0.0
    last_seen: float = 0.0
    load_s: float | None = None


def build_id(backend: str, checkpoint: str, kernels: str, version: str, fingerprint: str, flags: str) -> str:
    """The identity of a build: 12 hex digits of a hash over everything that may change speed or answers."""
    parts = json.dumps([backend, checkpoint, kernels, version, fingerprint, flags])
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class SpeedState:
    """What was learned of a backend's speed for one model under one build; `state` is the speed model's own value."""

    backend: str
    model: str
    build: str
    at: float
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hour:
    """Calls that ended within one hour (`at` is its start). Sums add up; a mean is a sum over its `_n`."""

    backend: str
    model: str
    build: str
    at: float
    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ttft_s_sum: float = 0.0
    ttft_n: int = 0
    tpot_s_sum: float = 0.0
    tpot_n: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One start of a backend and how long it took; the ETA of the next one comes from these."""

    backend: str
    build: str
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Incident:
    """A backend crashed, restarted, was ejected or came back as another build (`kind`)."""

    backend: str
    build: str
    at: float
    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OperatorIntent:
    """What the operator said of a backend last: it outlives a restart of the router."""

    backend: str
    intent: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A trusted build's answers, as the canary packs them; compared with what comes later."""

    model: str
    build: str
    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one canary ended."""

    backend: str
    model: str
    build: str
    at: float
    size: str
    verdict: str
    score: float | None
    texts: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class GradeChange:
    """What is thought of a backend's answers changed: from what to what, why, on which evidence."""

    backend: str
    model: str
    build: str
    at: float
    old: str
    new: str
    reason: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is thought of a backend's answers, whole, as the canary left it last; `state` is the policy's own value."""

    backend: str
    model: str
    build: str
    at: float
    state: Mapping[str, Any]


BENCH_WORKLOAD = "router bench"
"""The workload of a `BenchDay` that an operator's bench left: its figures are fitted lines, not tokens per second."""


@dataclass(frozen=True, slots=True)
class BenchDay:
    """Fixed-workload figures of a build on one day (ISO date), with the GPU's clock, temperature and power if read."""

    backend: str
    model: str
    build: str
    day: str
    workload: str
    at: float
    figures: Mapping[str, float] = field(default_factory=dict)
    gpu_clock_mhz: float | None = None
    gpu_temperature_c: float | None = None
    gpu_power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A line in the plots: a reload, a flag, a change of build. `backend` is "" where it concerns all."""

    at: float
    kind: str
    backend: str
    text: str


Row = (
    Build
    | SpeedState
    | Hour
    | Load
    | Incident
    | OperatorIntent
    | Baseline
    | Verdict
    | GradeChange
    | Standing
    | BenchDay
    | Mark
)
