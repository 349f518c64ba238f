"""The table: what is promised of the router, today's figure of everybody, and whether the promise is kept.

Ratios are taken round by round, between samples that stand next to each other in time, and the median of them counts:
that holds on a machine which is busy with other things, where the figures themselves do not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.measure import Sample

Rounds = Sequence[Mapping[str, Mapping[str, Sample]]]  # per round: target → measurement → sample
Figure = Callable[[Mapping[str, Mapping[str, Sample]], str], float]


@dataclass(frozen=True, slots=True)
class Results:
    """Everything one run has measured."""

    rounds: Rounds
    alone: Mapping[str, Mapping[str, float]]  # measurement → target → figure, for what is measured once
    disturbed: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise: a figure of the router's own, or its ratio to a peer's, at most or at least so much."""

    limit: float
    of: str | None = None  # ratio to whom; None: the figure itself
    at_least: bool = False

    def text(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.limit:g}" + (f" × {self.of}" if self.of else "")

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    key: str
    what: str
    unit: str
    goals: tuple[Goal, ...]
    figure: Figure | None = None  # None: measured once, found under its key
    digits: int = 1

    def figures(self, results: Results) -> dict[str, float]:
        """Return everybody's median over the rounds."""
        if self.figure is None:
            return dict(results.alone.get(self.key, {}))
        names = {name for one in results.rounds for name in one}
        return {name: value for name in names if not math.isnan(value := self._median(results, name))}

    def verdicts(self, results: Results) -> tuple["Verdict", ...]:
        return tuple(Verdict(goal, self._value(results, goal)) for goal in self.goals)

    def _value(self, results: Results, goal: Goal) -> float:
        if goal.of is None:
            return self.figures(results).get("router", math.nan)
        if self.figure is None:
            own, peers = (self.figures(results).get(name, math.nan) for name in ("router", goal.of))
            return own / peers
        ratios = []
        for one in results.rounds:
            own, peers = (value_of(self.figure, one, name) for name in ("router", goal.of))
            if not math.isnan(own) and peers > 0:
                ratios.append(own / peers)
        return median(ratios) if ratios else math.nan

    def _median(self, results: Results, name: str) -> float:
        assert self.figure is not None
        values = [value_of(self.figure, one, name) for one in results.rounds]
        known = [value for value in values if not math.isnan(value)]
        return median(known) if known else math.nan


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one promise stands."""

    goal: Goal
    value: float

    @property
    def word(self) -> str:
        if math.isnan(self.value):
            return "not measured"
        return "kept" if self.goal.is_met(self.value) else "MISSED"


def value_of(figure: Figure, one: Mapping[str, Mapping[str, Sample]], name: str) -> float:
    try:
        return figure(one, name)
    except KeyError:
        return math.nan


def cpu_of_a_call(measurement: str) -> Figure:
    return lambda one, name: one[name][measurement].cpu_us_per_call


def calls_per_core_s(one: Mapping[str, Mapping[str, Sample]], name: str) -> float:
    return 1e6 / one[name]["plain"].cpu_us_per_call if name != "direct" else math.nan


def added_us(measurement: str, what: str, quantile: str = "p50") -> Figure:
    """Return what a target adds to what the load sees without it, in the same round."""

    def figure(one: Mapping[str, Mapping[str, Sample]], name: str) -> float:
        if name == "direct":
            return math.nan
        return one[name][measurement].us(what, quantile) - one["direct"][measurement].us(what, quantile)

    return figure


def added_jitter_ms(measurement: str) -> Figure:
    added = added_us(measurement, "jitter", "p99")
    return lambda one, name: added(one, name) / 1000


def cpu_of_events(measurement: str) -> Figure:
    return lambda one, name: one[name][measurement].cpu_s_per_100k_events if name != "direct" else math.nan


def memory(one: Mapping[str, Mapping[str, Sample]], name: str) -> float:
    return one[name]["paced256"].memory_mb if name != "direct" else math.nan


def told(one: Mapping[str, Mapping[str, Sample]], name: str) -> float:
    return one[name]["paced256"].told_s


NGINX, VLLM = "nginx", "vllm-router"

ROWS: tuple[Row, ...] = (
    Row("plain_cpu", "CPU of a plain call, c = 64", "µs", (Goal(2, NGINX),), cpu_of_a_call("plain")),
    Row("core_calls", "calls per core-second", "1/s", (Goal(2, VLLM, at_least=True),), calls_per_core_s, 0),
    Row("added_p50", "added p50, c = 1", "µs", (Goal(1.4, NGINX), Goal(1, VLLM)), added_us("alone", "latency"), 0),
    Row(
        "added_ttft", "added time to first token", "µs", (Goal(1.4, NGINX), Goal(1, VLLM)), added_us("ttft", "ttft"), 0
    ),
    Row(
        "paced_cpu",
        "CPU per 100,000 chunks, 256 × 20 tok/s",
        "s",
        (Goal(1.5, NGINX), Goal(1.2, VLLM)),
        cpu_of_events("paced256"),
        2,
    ),
    Row("fast_cpu", "the same, 64 fast streams", "s", (Goal(1, VLLM),), cpu_of_events("fast"), 2),
    Row("smooth", "smooth streams at 20 tok/s", "", (Goal(1500, at_least=True),), digits=0),
    Row("jitter", "added jitter p99 at 256 streams", "ms", (Goal(4),), added_jitter_ms("paced256"), 2),
    Row("busy_jitter", "the same with scrapes, reloads, dashboards", "ms", (Goal(5),), digits=2),
    Row("long_cpu", "CPU of a 64 kB prompt", "µs", (Goal(2.5, NGINX),), cpu_of_a_call("long"), 0),
    Row("idle_mb", "memory, idle", "MB", (Goal(80),), digits=0),
    Row("busy_mb", "memory, 256 streams", "MB", (Goal(110),), memory, 0),
    Row("told", "client gone → backend told", "s", (Goal(0.1),), told, 3),
    Row("metrics8", "/metrics at 8 backends", "ms", (Goal(10),), digits=1),
    Row("metrics64", "longest stop of a stream during /metrics at 64", "ms", (Goal(5),), digits=1),
    Row("sentinel", "what the sentinel adds to the cost of a chunk", "%", (Goal(2),), digits=1),
    Row("start", "start to first served call", "s", (Goal(1),), digits=2),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is printed and kept."""

    key: str
    what: str
    figures: Mapping[str, float]
    verdicts: Sequence[Verdict] = field(default_factory=tuple)


def lines(results: Results) -> list[Line]:
    return [Line(row.key, row.what, row.figures(results), row.verdicts(results)) for row in ROWS]
