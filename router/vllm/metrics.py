"""A backend's own /metrics, read for the few numbers that routing needs.

Names, labels and renames as in vLLM's `v1/metrics/loggers.py` of 0.10 to 0.33 and llama.cpp's `tools/server`. A
scrape of a real vLLM is 60 to 71 kB in 800 lines, of which 30 count: every line is looked up by its name, only those
are parsed (0.3 ms on one core of a 2.6 GHz EPYC).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SAMPLE = re.compile(r'[\w:]+\s*(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*+")*+)\})?\s*(\S+)')
_LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*+)"')
_ESCAPE = re.compile(r"\\(.)")

_SUMMED = {  # the sum over `engine` (data parallel ranks) and every other label
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:prompt_tokens_cached_total": "cached_tokens",
    "vllm:generation_tokens_total": "generation_tokens",
    "vllm:prefix_cache_queries_total": "prefix_queries",
    "vllm:prefix_cache_hits_total": "prefix_hits",
    "vllm:iteration_tokens_total_count": "iterations",  # a histogram despite its name
    "vllm:num_preemptions_total": "preemptions",
    "vllm:spec_decode_num_drafts_total": "spec_drafts",
    "vllm:spec_decode_num_draft_tokens_total": "spec_draft_tokens",
    "vllm:spec_decode_num_accepted_tokens_total": "spec_accepted_tokens",
    "vllm:corrupted_requests_total": "corrupted",
    "vllm:admission_rejections_total": "admission_rejections",
    "llamacpp:requests_processing": "running",
    "llamacpp:requests_deferred": "waiting",
    "llamacpp:prompt_tokens_total": "prompt_tokens",  # what it computed; vLLM counts cached ones in, so both are added
    "llamacpp:prompt_tokens_cached_total": "prompt_tokens",
    "llamacpp:tokens_predicted_total": "generation_tokens",
    "llamacpp:n_decode_total": "iterations",
    "llamacpp:spec_decode_num_drafts_total": "spec_drafts",
    "llamacpp:spec_decode_num_draft_tokens_total": "spec_draft_tokens",
    "llamacpp:spec_decode_num_accepted_tokens_total": "spec_accepted_tokens",
}
_OLD = {  # looked at only where the new name is absent: 0.10.2 to 0.11.2 send both
    "vllm:gpu_prefix_cache_queries_total": "prefix_queries",
    "vllm:gpu_prefix_cache_hits_total": "prefix_hits",
    "llamacpp:prompt_tokens_cached_total": "cached_tokens",
}
_AVERAGED = {"vllm:kv_cache_usage_perc": "kv_usage"}
_AVERAGED_OLD = {"vllm:gpu_cache_usage_perc": "kv_usage", "llamacpp:kv_cache_usage_ratio": "kv_usage"}
_STARTED = "process_start_time_seconds"
_STARTED_TOO = "vllm:generation_tokens_created"  # with several API servers the process collector is off
_CACHE = "vllm:cache_config_info"
_SLEEP = "vllm:engine_sleep_state"
_SUCCESS = "vllm:request_success_total"
_WANTED = frozenset({*_SUMMED, *_OLD, *_AVERAGED, *_AVERAGED_OLD, _STARTED, _STARTED_TOO, _CACHE, _SLEEP, _SUCCESS})

_Samples = dict[str, list[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One look at a backend's metrics. None: the backend does not report it. Counters count since its start.

    Attributes:
        running: requests in its current batch.
        waiting: requests in its own queue.
        kv_usage: share of the KV cache in use, 0 to 1 (mean over engines).
        prompt_tokens: counter, prompt tokens of finished prefills, cached ones included.
        cached_tokens: counter, those of them that came from the prefix cache.
        generation_tokens: counter, tokens generated.
        prefix_queries: counter, tokens looked up in the prefix cache.
        prefix_hits: counter, tokens found there.
        iterations: counter, engine steps; the heartbeat that moves even while a long prompt is prefilled in chunks.
        preemptions: counter, requests thrown out of the batch for lack of KV.
        spec_drafts: counter, speculative decoding rounds.
        spec_draft_tokens: counter, tokens proposed in them.
        spec_accepted_tokens: counter, tokens accepted of these.
        kv_size_tokens: KV capacity in tokens; said by vLLM from 0.24 on, before that blocks times block size (which is
            right only where no layer is a mamba layer, so then it stays None).
        block_size: tokens in one KV block.
        max_concurrency: how many requests of max_model_len fit into the KV cache at once.
        sleeping: any engine is not awake; never to be routed to or woken.
        start_time_s: Unix time at which the process (or its first counter) began.
        corrupted: counter, requests with NaN logits (only with VLLM_COMPUTE_NANS_IN_LOGITS=1).
        admission_rejections: counter, requests refused by its own queue limits (0.32 and later).
        success_by_reason: counters by finish reason; an abort by hang-up is not counted there (seen on 0.32).
        model_name: the first served name, the only one in the labels.
    """

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    generation_tokens: float | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    iterations: float | None = None
    preemptions: float | None = None
    spec_drafts: float | None = None
    spec_draft_tokens: float | None = None
    spec_accepted_tokens: float | None = None
    kv_size_tokens: float | None = None
    block_size: int | None = None
    max_concurrency: float | None = None
    sleeping: bool = False
    start_time_s: float | None = None
    corrupted: float | None = None
    admission_rejections: float | None = None
    success_by_reason: Mapping[str, float] = field(default_factory=dict, hash=False)
    model_name: str | None = None

    @property
    def says_load(self) -> bool:
        """Whether this is a backend's metrics at all, and not some other page or an empty answer."""
        return self.running is not None


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two scrapes, per second. None: not reported, or the backend restarted in between."""

    seconds: float
    prompt_tokens: float | None = None
    cached_tokens: float | None = None
    generation_tokens: float | None = None
    iterations: float | None = None
    preemptions: float | None = None
    corrupted: float | None = None
    prefix_hit_share: float | None = None  # of the tokens looked up in between
    spec_acceptance: float | None = None  # of the tokens drafted in between


COUNTERS = (
    "prompt_tokens",
    "cached_tokens",
    "generation_tokens",
    "prefix_queries",
    "prefix_hits",
    "iterations",
    "preemptions",
    "spec_drafts",
    "spec_draft_tokens",
    "spec_accepted_tokens",
    "corrupted",
    "admission_rejections",
)


def parse(text: str | bytes) -> Scrape:
    """Read a Prometheus or OpenMetrics text. Never raises: what is not understood is not reported."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    samples = _wanted_samples(text)
    fields: dict[str, Any] = _cache(samples)
    for names, fold in ((_SUMMED, sum), (_OLD, sum), (_AVERAGED, _mean), (_AVERAGED_OLD, _mean)):
        fields = _folded(samples, names, fold) | fields
    starts = [value for name in (_STARTED, _STARTED_TOO) for _, value in samples.get(name, [])]
    return Scrape(
        **fields,
        sleeping=any(
            not value for text, value in samples.get(_SLEEP, []) if _labels(text).get("sleep_state") == "awake"
        ),
        start_time_s=min(starts, default=None),
        success_by_reason=_by_reason(samples),
        model_name=_model_name(samples),
    )


def restarted(before: Scrape, after: Scrape) -> bool:
    """Say whether the backend started anew in between: another start time, or a counter that fell."""
    starts = (before.start_time_s, after.start_time_s)
    if starts[0] is not None and starts[1] is not None and abs(starts[1] - starts[0]) > 1.0:
        return True
    return any(_fell(getattr(before, name), getattr(after, name)) for name in COUNTERS)


def delta(before: Scrape, after: Scrape, seconds: float) -> Rates:
    """Rates between two scrapes that lie `seconds` apart; all None after a restart or without time in between."""
    if seconds <= 0 or restarted(before, after):
        return Rates(max(seconds, 0.0))

    def grown(name: str) -> float | None:
        old, new = getattr(before, name), getattr(after, name)
        return None if old is None or new is None else float(new - old)

    def rate(name: str) -> float | None:
        growth = grown(name)
        return None if growth is None else growth / seconds

    return Rates(
        seconds,
        prompt_tokens=rate("prompt_tokens"),
        cached_tokens=rate("cached_tokens"),
        generation_tokens=rate("generation_tokens"),
        iterations=rate("iterations"),
        preemptions=rate("preemptions"),
        corrupted=rate("corrupted"),
        prefix_hit_share=_share(grown("prefix_hits"), grown("prefix_queries")),
        spec_acceptance=_share(grown("spec_accepted_tokens"), grown("spec_draft_tokens")),
    )


def _wanted_samples(text: str) -> _Samples:
    """Collect (label text, value) of the wanted names; a value that is no finite number is left out."""
    found: _Samples = {}
    for line in text.split("\n"):
        name = line.partition("{")[0]
        if name not in _WANTED:
            name = name.partition(" ")[0]  # a sample without labels
            if name not in _WANTED:
                continue
        match = _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name, []).append((match[1] or "", value))
    return found


def _folded(samples: _Samples, names: Mapping[str, str], fold: Callable[[list[float]], float]) -> dict[str, float]:
    """One number per field: all samples of all names of that field, folded."""
    values: dict[str, list[float]] = {}
    for name, target in names.items():
        if name in samples:
            values.setdefault(target, []).extend(value for _, value in samples[name])
    return {target: fold(numbers) for target, numbers in values.items()}


def _cache(samples: _Samples) -> dict[str, Any]:
    """What cache_config_info says in its labels: one line per engine, capacity adds up."""
    engines = [_labels(text) for text, _ in samples.get(_CACHE, [])]
    if not engines:
        return {}
    sizes = [_kv_tokens(labels) for labels in engines]
    concurrency = [_number(labels.get("kv_cache_max_concurrency")) for labels in engines]
    block = _number(engines[0].get("block_size"))
    return {
        "kv_size_tokens": sum(size for size in sizes if size is not None) if None not in sizes else None,
        "max_concurrency": sum(one for one in concurrency if one is not None) if None not in concurrency else None,
        "block_size": None if block is None else int(block),
    }


def _kv_tokens(labels: Mapping[str, str]) -> float | None:
    """KV tokens of one engine; the product is a fallback for versions before 0.24 (it is wrong for hybrid models)."""
    if "kv_cache_size_tokens" in labels:
        return _number(labels["kv_cache_size_tokens"])
    if labels.get("mamba_cache_mode", "none") != "none" or _number(labels.get("mamba_block_size")) is not None:
        return None
    blocks, size = _number(labels.get("num_gpu_blocks")), _number(labels.get("block_size"))
    return None if blocks is None or size is None else blocks * size


def _by_reason(samples: _Samples) -> dict[str, float]:
    """Finished requests by finish reason, summed over engines."""
    counts: dict[str, float] = {}
    for text, value in samples.get(_SUCCESS, []):
        reason = _labels(text).get("finished_reason", "")
        counts[reason] = counts.get(reason, 0.0) + value
    return counts


def _model_name(samples: _Samples) -> str | None:
    for text, _ in samples.get("vllm:num_requests_running", []):
        return _labels(text).get("model_name")
    return None


def _labels(text: str) -> dict[str, str]:
    """Label names and values; quotes, commas, braces and escapes inside values are theirs."""
    return {name: _unescaped(value) for name, value in _LABEL.findall(text)}


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], value) if "\\" in value else value


def _number(text: str | None) -> float | None:
    """Read a label's number; "None" and anything else that is no finite number is None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _fell(old: float | None, new: float | None) -> bool:
    return old is not None and new is not None and new < old


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
