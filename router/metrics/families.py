"""Every Prometheus family the router shows: name, kind, labels, help and buckets. Docs and tests read this table.

Base units (seconds, tokens, bytes, ratios) and few labels. Label values come only from configured or discovered
names and from the router's own words; whatever else arrives is shown as "other".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# A warm short prompt answers in tens of milliseconds, 100k cold tokens on a Spark take a minute or more.
TTFT_BUCKETS = (
    0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 20.0, 40.0,
    80.0, 120.0,
)  # fmt: skip
# Fine between 10 and 60 ms: that is where the kernels of one model on a Spark differ.
TPOT_BUCKETS = (
    0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.0225, 0.025, 0.0275, 0.03, 0.035, 0.04,
    0.045, 0.05, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0,
)  # fmt: skip
DURATION_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1800.0)
QUEUE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)
LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One family: `name` as scraped, its labels in order, and one sentence of help.

    `buckets` are a histogram's upper bounds in the family's unit, without +Inf.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The metric names that queries may use for this family."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


FAMILIES: dict[str, Family] = {}


def _family(name: str, kind: Kind, labels: str, text: str, buckets: tuple[float, ...] = ()) -> Family:
    """Enter one family into the table."""
    family = Family(f"router_{name}", kind, tuple(labels.split()), text, buckets)
    FAMILIES[family.name] = family
    return family


# Calls, as clients saw them.
CALLS = _family(
    "calls_total", "counter", "model route outcome status",
    "Calls that ended, by outcome (ok, client_error, client_left, shed, failed, broken) and class of HTTP status.",
)  # fmt: skip
CALL_DURATION = _family(
    "call_duration_seconds", "histogram", "model", "From a call's arrival to its end, however it ended.",
    DURATION_BUCKETS,
)  # fmt: skip
QUEUE = _family(
    "queue_seconds", "histogram", "model", "How long a call that was tried had been queued in the router.",
    QUEUE_BUCKETS,
)  # fmt: skip
BYTES = _family("bytes_total", "counter", "model direction", "Body bytes of calls (in) and of their answers (out).")
RETRIES = _family("retries_total", "counter", "model", "Attempts after a failed one, before the client had any byte.")
CONTINUATIONS = _family(
    "continuations_total", "counter", "result",
    "Answers continued on another backend after theirs broke: ok, or what the continuation failed of.",
)  # fmt: skip

# Attempts, as backends did them.
ATTEMPTS = _family(
    "attempts_total", "counter", "backend model result",
    "Attempts that ended: ok, client_left, or the kind of failure (refused, reset, truncated, error_event, ...).",
)  # fmt: skip
ATTEMPT_FAILURES = _family(
    "attempt_failures_total", "counter", "backend kind phase",
    "Failed attempts by kind and by how far they had come (connect, sent, head, committed).",
)  # fmt: skip
TTFT = _family(
    "ttft_seconds", "histogram", "backend model", "From sending an attempt to the first content of its answer.",
    TTFT_BUCKETS,
)  # fmt: skip
TPOT = _family(
    "tpot_seconds", "histogram", "backend model", "Mean time per output token after the first, of one whole answer.",
    TPOT_BUCKETS,
)  # fmt: skip
TOKENS = _family(
    "tokens_total", "counter", "backend model direction", "Prompt and completion tokens, as the backend counted them."
)
CACHED_TOKENS = _family(
    "cached_tokens_total", "counter", "backend model", "Prompt tokens that a backend said it held in its prefix cache."
)
PREDICTION = _family(
    "prediction_ratio", "histogram", "backend model figure",
    "Actual over predicted, of the time to first token (ttft) and of the end (end); 1 is a perfect prediction.",
    RATIO_BUCKETS,
)  # fmt: skip

# The fleet, as it is now.
IN_FLIGHT = _family("in_flight", "gauge", "backend model", "Attempts leased to a backend and not yet ended.")
QUEUED = _family("queued", "gauge", "model", "Calls waiting in the router for a backend.")
USABLE = _family(
    "usable_backends", "gauge", "model", "Backends that a call for this model could be given to now; 0 is an outage."
)
UP = _family("backend_up", "gauge", "backend", "1 while a backend is healthy, suspect or on probation, else 0.")
HEALTH = _family("backend_health", "gauge", "backend state", "What was seen of a backend: 1 for the state it is in.")
INTENT = _family("backend_intent", "gauge", "backend state", "What the operator said: 1 for the intent in force.")
HEALTH_CHANGES = _family("health_changes_total", "counter", "backend to", "Changes of a backend's health.")
BACKEND_INFO = _family(
    "backend_info", "gauge", "backend kernel version build", "Always 1: observed kernel, vLLM version and build."
)
BUILD_CHANGES = _family(
    "build_changes_total", "counter", "backend change", "Times a backend came back: as a new build, or just restarted."
)
KERNEL_MISMATCH = _family(
    "kernel_mismatch", "gauge", "backend declared observed",
    "1 where a backend runs another kernel than declared, 0 where it runs that one; absent where nobody knows.",
)  # fmt: skip
VLLM_RUNNING = _family("vllm_running", "gauge", "backend", "Requests running, as the backend's own metrics said last.")
VLLM_WAITING = _family("vllm_waiting", "gauge", "backend", "Requests waiting in the backend, as it said last.")
IN_FLIGHT_CAP = _family(
    "in_flight_cap",
    "gauge",
    "backend",
    "Most calls in flight: max_in_flight, or less where more lowered its tokens per second; absent without a cap.",
)
SPEC_ACCEPTANCE = _family(
    "spec_decode_acceptance_ratio",
    "gauge",
    "backend",
    "Share of the drafted tokens that speculative decoding accepted, when it last drafted.",
)
VLLM_KV = _family("vllm_kv_usage_ratio", "gauge", "backend", "Used share of the KV cache (0 to 1), as it said last.")
GPU_CLOCK = _family("gpu_clock_hertz", "gauge", "host", "Clock of a machine's GPU (SM), as nvidia-smi said last.")
GPU_TEMPERATURE = _family("gpu_temperature_celsius", "gauge", "host", "Temperature of a machine's GPU, likewise.")
GPU_POWER = _family("gpu_power_watts", "gauge", "host", "Power that a machine's GPU draws, likewise.")
GPU_CAPPED = _family(
    "gpu_clock_capped", "gauge", "host", "1 where power, heat or the operator held the GPU's clock back, else 0."
)
PREFILL_RATE = _family(
    "speed_prefill_tokens_per_second", "gauge", "backend model", "Learned prefill rate for tokens not in its cache."
)
TPOT_A = _family("speed_tpot_base_seconds", "gauge", "backend model", "Learned a in TPOT(n) = a + b*n.")
TPOT_B = _family("speed_tpot_per_stream_seconds", "gauge", "backend model", "Learned b in TPOT(n) = a + b*n.")
SPEED_SPREAD = _family(
    "speed_spread_ratio", "gauge", "backend model", "Relative standard deviation of the predicted end of a call."
)
SPEED_OUTLIERS = _family(
    "speed_outliers_total", "counter", "backend kind",
    "Samples that did not fit the learned speed: compile (first of its size), step (heat or clocks), prior, odd.",
)  # fmt: skip

# Quality.
QUALITY = _family("quality", "gauge", "backend model state", "What is thought of a backend's answers: 1 for the state.")
GATED = _family("gated", "gauge", "backend model", "1 while a new build waits for its first check and gets no calls.")
QUALITY_SCORE = _family(
    "quality_score", "gauge", "backend model", "Last canary: mean paired distance per text in nats; 0 is no difference."
)
QUALITY_CHANGES = _family("quality_changes_total", "counter", "backend model to", "Changes of what is thought of it.")
CANARY_RUNS = _family("canary_runs_total", "counter", "backend model size verdict", "Canaries that ended.")
CANARY_SECONDS = _family(
    "canary_seconds_total",
    "counter",
    "backend",
    "Time a backend spent on the router's own questions: canaries, also as their reference, and idle measurements.",
)
CANARY_LAST = _family(
    "canary_last_run_timestamp_seconds", "gauge", "backend model", "Unix time at which the last canary ended."
)
SUSPICIONS = _family(
    "sentinel_suspicions_total", "counter", "backend model sign", "Live answers that looked degenerate, by sign."
)

# The router itself.
GENERATION = _family("generation", "gauge", "", "Which config is in force; grows by one with each applied reload.")
RELOADS = _family("reloads_total", "counter", "result", "Reloads: ok, or refused.")
RELOAD_OK = _family("last_reload_ok", "gauge", "", "1 where the last reload was applied, 0 where it was refused.")
RELOAD_TIME = _family("last_reload_timestamp_seconds", "gauge", "", "Unix time of the last applied reload.")
LOOP_LAG = _family("loop_lag_seconds", "histogram", "", "How late the event loop ran a timer.", LAG_BUCKETS)
CONNECTIONS = _family("connections", "gauge", "side", "Open connections, of clients and to backends (kept ones too).")
HISTORY_OK = _family("history_ok", "gauge", "", "1 while what was learned is being written to the history file.")
EVENTS_LOST = _family("events_lost_total", "counter", "", "Events that a listener failed on.")
LINES_DROPPED = _family(
    "log_lines_dropped_total", "counter", "", "Log lines dropped because the sink could not keep up."
)
ALARMS = _family("alarms_total", "counter", "", "Notices that asked for the operator's attention.")
BUILD_INFO = _family("build_info", "gauge", "version python", "Always 1: which router this is.")
