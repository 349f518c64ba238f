"""`/metrics` of the simulated vLLM: the names, labels and buckets of vLLM 0.32 and 0.33."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from router.sim.blocks import BLOCK_TOKENS
from router.sim.engine import Engine

_LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0)  # fmt: skip
_TOKENS = (
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    50.0,
    100.0,
    200.0,
    500.0,
    1000.0,
    2000.0,
    5000.0,
    10000.0,
    20000.0,
    50000.0,
    100000.0,
)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
BUCKETS: dict[str, tuple[float, ...]] = {
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
    "iteration_tokens_total": tuple(float(2**n) for n in (0, *range(3, 15))),
    "time_to_first_token_seconds": (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
                                    7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    "inter_token_latency_seconds": _ITL,
    "request_time_per_output_token_seconds": _ITL,
    "e2e_request_latency_seconds": _LATENCY,
}  # fmt: skip


class Histogram:
    """One Prometheus histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Cumulative buckets, count and sum."""
        total = 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            total += count
            le = "+Inf" if bound is None else str(bound)
            engine, model = labels.split(",", 1)
            yield f'{name}_bucket{{{engine},le="{le}",{model}}} {float(total)}'
        yield f"{name}_count{{{labels}}} {float(total)}"
        yield f"{name}_sum{{{labels}}} {self.sum}"


def histograms() -> dict[str, Histogram]:
    """Fresh histograms under vLLM's names, without the prefix."""
    return {name: Histogram(bounds) for name, bounds in BUCKETS.items()}


def exposition(engine: Engine, model: str, started: float, finished: dict[str, int], seen: dict[str, Histogram]) -> str:
    """The whole text. `started` is the process's start in Unix time, `finished` requests by their reason."""
    labels = f'engine="0",model_name="{model}"'
    counters, profile = engine.counters, engine.profile
    cached, computed = counters.prefix_hits, counters.prompt_tokens - counters.prefix_hits
    out = ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {started}"]

    def family(name: str, kind: str, *samples: tuple[str, float]) -> None:
        out.append(f"# HELP vllm:{name} {name.replace('_', ' ')}.")
        out.append(f"# TYPE vllm:{name} {kind}")
        out.extend(f"vllm:{name}{{{labels}{extra}}} {float(value)}" for extra, value in samples)

    family("num_requests_running", "gauge", ("", engine.running))
    family("num_requests_waiting", "gauge", ("", engine.waiting))
    family("num_requests_waiting_by_reason", "gauge", (',reason="capacity"', engine.waiting), (',reason="deferred"', 0))
    states = ((f',sleep_state="{state}"', state == "awake") for state in ("awake", "weights_offloaded", "discard_all"))
    family("engine_sleep_state", "gauge", *states)
    family("kv_cache_usage_perc", "gauge", ("", engine.kv_usage))
    family("prefix_cache_queries_total", "counter", ("", counters.prefix_queries))
    family("prefix_cache_hits_total", "counter", ("", cached))
    family("num_preemptions_total", "counter", ("", counters.preemptions))
    family("prompt_tokens_total", "counter", ("", counters.prompt_tokens))
    sources = (("local_compute", computed), ("local_cache_hit", cached), ("external_kv_transfer", 0))
    family("prompt_tokens_by_source_total", "counter", *((f',source="{name}"', value) for name, value in sources))
    family("prompt_tokens_cached_total", "counter", ("", cached))
    family("generation_tokens_total", "counter", ("", counters.generation_tokens))
    reasons = ("stop", "length", "abort", "error", "repetition")  # vLLM counts no aborts (seen)
    family(
        "request_success_total", "counter", *((f',finished_reason="{one}"', finished.get(one, 0)) for one in reasons)
    )
    if profile.draft_tokens:
        family("spec_decode_num_drafts_total", "counter", ("", counters.drafts))
        family("spec_decode_num_draft_tokens_total", "counter", ("", counters.drafted_tokens))
        family("spec_decode_num_accepted_tokens_total", "counter", ("", counters.accepted_tokens))
    for name, histogram in seen.items():
        out += [f"# HELP vllm:{name} Histogram.", f"# TYPE vllm:{name} histogram"]
        out.extend(histogram.lines(f"vllm:{name}", labels))
    out += ["# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig",
            "# TYPE vllm:cache_config_info gauge"]  # fmt: skip
    config = {"block_size": BLOCK_TOKENS, "cache_dtype": "auto", "enable_prefix_caching": True, "engine": "0",
              "gpu_memory_utilization": 0.85,
              "kv_cache_max_concurrency": round(profile.kv_tokens / profile.max_model_len, 2),
              "kv_cache_size_tokens": profile.kv_tokens, "num_gpu_blocks": engine.blocks.capacity}  # fmt: skip
    text = ",".join(f'{key}="{value}"' for key, value in config.items())
    out.append(f"vllm:cache_config_info{{{text}}} 1.0")
    return "\n".join(out) + "\n"
