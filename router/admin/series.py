"""The last hour of each backend as short series, for the dashboard's plots: fed by the bus, bounded, gone at a restart.

Time is cut into steps of `STEP_S`; each step keeps sums and a few samples, so that a busy hour costs no more memory
than a quiet one. Marks are what explains a bend in a line: flags, reloads, restarts, other builds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from router.events import (
    BuildChanged,
    CallEnded,
    CanaryEnded,
    Event,
    HealthChanged,
    IntentChanged,
    KernelObserved,
    QualityChanged,
    Reloaded,
    Scraped,
)

STEP_S = 5.0
STEPS = 720  # an hour
SAMPLES = 64  # of one kind in one step; a median needs no more
MARKS = 400
SAID_AGAIN_S = 60.0  # the same thing of the same backend within this time is one mark

__all__ = ["MARKS", "STEPS", "STEP_S", "Mark", "Series"]


@dataclass(slots=True)
class Step:
    """What one backend did in one step of time."""

    tokens: float = 0.0  # answered by calls of ours, spread over the time they decoded
    rates: list[float] = field(default_factory=list)  # tokens per second that the backend says itself
    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a moment: `kind` is flag, clear, reload, build, restart, kernel, health or intent."""

    at: float
    kind: str
    backend: str | None
    text: str
    bad: bool = False


class Series:
    """An hour of every backend.

    Args:
        wall: Unix time.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._steps: dict[str, dict[int, Step]] = {}
        self.marks: deque[Mark] = deque(maxlen=MARKS)

    def on_event(self, event: Event) -> None:
        """Take what the plots show of an event."""
        match event:
            case CallEnded():
                self._call(event)
            case Scraped(generation_rate=float() as rate):
                self._add(self._now(event.backend).rates, rate)
            case CanaryEnded(score=float() as score):
                self._now(event.backend).score = score
            case _:
                self._mark(event)

    def _call(self, call: CallEnded) -> None:
        if not call.attempts:
            return
        attempt = call.attempts[-1]
        if attempt.ttft_s is None:
            return
        step = self._now(attempt.backend)
        self._add(step.ttft, attempt.ttft_s)
        tokens = call.completion_tokens or 0
        decoding = attempt.duration_s - attempt.ttft_s
        if tokens > 1 and decoding > 0:
            if call.stream:
                self._add(step.tpot, decoding / (tokens - 1))
            self._spread(attempt.backend, tokens, decoding)

    def _spread(self, backend: str, tokens: int, seconds: float) -> None:
        """A long answer's tokens belong to the whole time it took, not to the step in which it ended."""
        last = self._index()
        steps = min(int(seconds / STEP_S) + 1, STEPS)
        for index in range(last - steps + 1, last + 1):
            self._at(backend, index).tokens += tokens / steps

    @staticmethod
    def _add(samples: list[float], value: float) -> None:
        if len(samples) < SAMPLES:
            samples.append(value)

    def _index(self) -> int:
        return int(self._wall() / STEP_S)

    def _now(self, backend: str) -> Step:
        return self._at(backend, self._index())

    def _at(self, backend: str, index: int) -> Step:
        steps = self._steps.setdefault(backend, {})
        step = steps.get(index)
        if step is None:
            step = steps[index] = Step()
            for old in [one for one in steps if one <= self._index() - STEPS]:
                del steps[old]
        return step

    def _mark(self, event: Event) -> None:
        found = mark_of(event)
        if found is None:
            return
        kind, backend, text, bad = found
        said = next((one for one in reversed(self.marks) if (one.kind, one.backend) == (kind, backend)), None)
        now = self._wall()
        if said is None or said.text != text or now - said.at > SAID_AGAIN_S:
            self.marks.append(Mark(now, kind, backend, text, bad))

    def since(self, moment: float = 0.0) -> dict[str, Any]:
        """Every step that began after `moment` (Unix time), oldest first; the newest step is still filling.

        Values: `tokens_per_s`, `ttft_s` and `tpot_s` (medians), `score` (nats); None where nothing was seen.
        """
        last = self._index()
        first = max(last - STEPS + 1, int(moment / STEP_S))
        indices = range(first, last + 1)
        backends = {
            name: _columns([steps.get(index) for index in indices])
            for name, steps in self._steps.items()
            if any(index > last - STEPS for index in steps)
        }
        marks = [
            {"at": one.at, "kind": one.kind, "backend": one.backend, "text": one.text, "bad": one.bad}
            for one in self.marks
            if one.at >= max(moment, first * STEP_S)
        ]
        return {"step_s": STEP_S, "first": first * STEP_S, "count": len(indices), "backends": backends, "marks": marks}


def _columns(steps: list[Step | None]) -> dict[str, list[float | None]]:
    return {
        "tokens_per_s": [_rate(step) if step else None for step in steps],
        "ttft_s": [median(step.ttft) if step and step.ttft else None for step in steps],
        "tpot_s": [median(step.tpot) if step and step.tpot else None for step in steps],
        "score": [step.score if step else None for step in steps],
    }


def _rate(step: Step) -> float | None:
    """The backend's own figure counts clients that do not come through us; ours is what there is without it."""
    if step.rates:
        return sum(step.rates) / len(step.rates)
    return step.tokens / STEP_S if step.tokens else None


def mark_of(event: Event) -> tuple[str, str | None, str, bool] | None:
    """Kind, backend, sentence, and whether it is bad news; None for what needs no mark."""
    match event:
        case QualityChanged(new="flagged"):
            return "flag", event.backend, f"{event.model} flagged: {event.reason}", True
        case QualityChanged(old="flagged"):
            return "clear", event.backend, f"{event.model} cleared: {event.reason}", False
        case Reloaded(ok=True):
            changes = [f"+{name}" for name in event.added] + [f"-{name}" for name in event.removed]
            changes += [f"~{name}" for name in event.changed]
            return "reload", None, f"generation {event.generation} {' '.join(changes)}".strip(), False
        case Reloaded():
            return "reload", None, f"reload refused: {event.reason}", True
        case BuildChanged(restarted_only=True):
            return "restart", event.backend, "restarted, same build", False
        case BuildChanged(completed=True):
            return None
        case BuildChanged():
            return "build", event.backend, f"build {event.old[:8] or 'unknown'} → {event.new[:8]}", False
        case KernelObserved(matches=False):
            return "kernel", event.backend, f"declared {event.declared}, runs {event.observed}", True
        case HealthChanged(new="ejected"):
            return "health", event.backend, f"ejected: {event.reason}", True
        case HealthChanged(old="ejected" | "probation", new="healthy"):
            return "health", event.backend, "healthy again", False
        case IntentChanged():
            return "intent", event.backend, f"{event.new}{f': {event.reason}' if event.reason else ''}", False
        case _:
            return None
