"""What is counted as events come by: plain ints, dicts and list histograms; nothing of Prometheus on this path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from router.events import Attempt, CallEnded, Outcome
from router.metrics import families as f
from router.metrics.families import Family
from router.metrics.snapshot import Names
from router.metrics.text import Histogram, Rows, Value

OTHER = "other"
MOST_SERIES = 20_000  # of one family; a guard against our own mistakes, never reached by configured names
STATUS_CLASSES = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")


class Pair:
    """All that is counted of one model on one backend."""

    __slots__ = ("cached", "completion", "end_ratio", "prompt", "results", "tpot", "ttft", "ttft_ratio")

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.ttft = Histogram(f.TTFT.buckets)
        self.tpot = Histogram(f.TPOT.buckets)
        self.ttft_ratio = Histogram(f.PREDICTION.buckets)
        self.end_ratio = Histogram(f.PREDICTION.buckets)
        self.prompt = 0
        self.completion = 0
        self.cached = 0


class PerModel:
    """All that is counted of one model, whoever served it."""

    __slots__ = ("bytes_in", "bytes_out", "duration", "queue", "retries")

    def __init__(self) -> None:
        self.duration = Histogram(f.CALL_DURATION.buckets)
        self.queue = Histogram(f.QUEUE.buckets)
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries = 0


class Counters:
    """A counter or gauge per label values, for what happens rarely."""

    __slots__ = ("family", "values")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count `by` more."""
        key = self._bounded(labels)
        self.values[key] = self.values.get(key, 0) + by

    def set(self, value: float, *labels: str) -> None:
        """Replace the value."""
        self.values[self._bounded(labels)] = value

    def drop(self, label: str, value: str) -> None:
        """Forget every series in which `label` is `value`."""
        if label in self.family.labels:
            index = self.family.labels.index(label)
            self.values = {key: n for key, n in self.values.items() if key[index] != value}

    def rows(self) -> Rows:
        """Every series; a copy, since rendering may yield to the loop."""
        return list(self.values.items())

    def _bounded(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels in self.values or len(self.values) < MOST_SERIES:
            return labels
        return (OTHER,) * len(labels)


class CallCounters:
    """Everything that is counted when a call ends: the hot path of the metrics."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.calls: dict[tuple[str, str, str, int], int] = {}
        self.continuations: dict[str, int] = {}
        self.pairs: defaultdict[tuple[str, str], Pair] = defaultdict(Pair)
        self.models: defaultdict[tuple[str], PerModel] = defaultdict(PerModel)

    def count(self, call: CallEnded) -> None:
        """Count one call and its attempts."""
        names = self.names
        model = call.model if call.model in names.models else OTHER
        route = call.route if call.route in names.routes else OTHER
        key = (model, route, call.outcome, call.status // 100)
        self.calls[key] = self.calls.get(key, 0) + 1

        per_model = self.models[(model,)]
        per_model.duration.observe(call.duration_s)
        per_model.bytes_in += call.bytes_in
        per_model.bytes_out += call.bytes_out
        attempts = call.attempts
        if not attempts:
            return
        per_model.queue.observe(call.queued_s)
        if len(attempts) == 1:
            pair = self._attempt(call, attempts[0], model)
            self._alone(call, attempts[0], pair)
        else:
            for attempt in attempts:
                pair = self._attempt(call, attempt, model)
            self._further(attempts, per_model)
        if call.prompt_tokens:
            pair.prompt += call.prompt_tokens
        if call.completion_tokens:
            pair.completion += call.completion_tokens
        if call.cached_tokens:
            pair.cached += call.cached_tokens

    def _attempt(self, call: CallEnded, attempt: Attempt, model: str) -> Pair:
        backend = attempt.backend if attempt.backend in self.names.backends else OTHER
        pair = self.pairs[(backend, model)]
        if attempt.failure is not None:
            result = attempt.failure.value
        else:
            result = "client_left" if call.outcome is Outcome.CLIENT_LEFT else "ok"
        pair.results[result] = pair.results.get(result, 0) + 1
        if attempt.ttft_s is not None:
            pair.ttft.observe(attempt.ttft_s)
        return pair

    def _alone(self, call: CallEnded, attempt: Attempt, pair: Pair) -> None:
        """Speeds and predictions, from calls that one attempt answered whole: only there the figures are clean."""
        if call.outcome is not Outcome.OK:
            return
        ttft = attempt.ttft_s
        if ttft is not None:
            tokens = call.completion_tokens
            if tokens is not None and tokens > 1:
                pair.tpot.observe((attempt.duration_s - ttft) / (tokens - 1))
            if call.predicted_ttft_s:
                pair.ttft_ratio.observe(ttft / call.predicted_ttft_s)
        if call.predicted_end_s:
            pair.end_ratio.observe(attempt.duration_s / call.predicted_end_s)

    def _further(self, attempts: tuple[Attempt, ...], per_model: PerModel) -> None:
        for attempt in attempts[1:]:
            if attempt.resumed_at is None:
                per_model.retries += 1
            else:
                result = attempt.failure.value if attempt.failure is not None else "ok"
                self.continuations[result] = self.continuations.get(result, 0) + 1

    def forget_backend(self, backend: str) -> None:
        """Its series disappear."""
        for key in [key for key in self.pairs if key[0] == backend]:
            del self.pairs[key]

    def forget_model(self, model: str) -> None:
        """Its series disappear, on every backend."""
        self.models.pop((model,), None)
        for key in [key for key in self.pairs if key[1] == model]:
            del self.pairs[key]
        self.calls = {key: n for key, n in self.calls.items() if key[0] != model}

    def families(self) -> Iterator[tuple[Family, Rows]]:
        """Everything counted here, as rows to render."""
        yield (
            f.CALLS,
            [((m, r, o, STATUS_CLASSES[s if 0 < s < 6 else 0]), n) for (m, r, o, s), n in self.calls.items()],
        )
        models = list(self.models.items())
        yield f.CALL_DURATION, [(key, m.duration) for key, m in models]
        yield f.QUEUE, [(key, m.queue) for key, m in models]
        yield (
            f.BYTES,
            [((*key, way), n) for key, m in models for way, n in (("in", m.bytes_in), ("out", m.bytes_out))],
        )
        yield f.RETRIES, [(key, m.retries) for key, m in models]
        yield f.CONTINUATIONS, [((result,), n) for result, n in self.continuations.items()]
        yield from self._pair_families()

    def _pair_families(self) -> Iterator[tuple[Family, Rows]]:
        pairs = list(self.pairs.items())
        yield f.ATTEMPTS, [((*key, result), n) for key, p in pairs for result, n in p.results.items()]
        yield f.TTFT, [(key, p.ttft) for key, p in pairs]
        yield f.TPOT, [(key, p.tpot) for key, p in pairs]
        tokens: list[tuple[tuple[str, ...], Value]] = []
        for key, p in pairs:
            tokens += [((*key, "prompt"), p.prompt), ((*key, "completion"), p.completion)]
        yield f.TOKENS, tokens
        yield f.CACHED_TOKENS, [(key, p.cached) for key, p in pairs]
        ratios: list[tuple[tuple[str, ...], Value]] = []
        for key, p in pairs:
            ratios += [((*key, "ttft"), p.ttft_ratio), ((*key, "end"), p.end_ratio)]
        yield f.PREDICTION, ratios
