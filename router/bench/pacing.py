"""How long what is left will take, by what was measured so far; and what to leave out where that is too long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.bench.plan import WARM_UP_TOKENS, WARM_UPS, Condition, Step


class Pacing:
    """Begins with what is believed of each backend, and learns."""

    def __init__(self) -> None:
        self._took: dict[tuple[str, Condition], float] = {}
        self._slower: dict[str, float] = {}  # how many times longer than believed, by backend

    def expected(self, step: Step) -> float:
        """Seconds of one step; a warm-up is several calls."""
        known = self._took.get((step.subject.name, step.condition)) if step.round else None
        if known is not None:
            return known
        times = self._slower.get(step.subject.name, 1.0)
        return times * _believed(step) * (1 if step.round else WARM_UPS)

    def seconds(self, steps: Iterable[Step]) -> float:
        """Seconds of all of them."""
        return sum(map(self.expected, steps))

    def learn(self, step: Step, took_s: float) -> None:
        """A measurement, or one call of a warm-up, took that long."""
        name, times = step.subject.name, took_s / _believed(step)
        if step.round:
            self._took[name, step.condition] = took_s
            times = 0.7 * self._slower.get(name, times) + 0.3 * times
        self._slower[name] = times  # of warm-ups only the last counts: the first are slow because something compiles

    def fitting(self, steps: Sequence[Step], time_s: float) -> tuple[list[Step], list[Condition]]:
        """What the time will do for, and which conditions were left out.

        The most streams go first and the fewest never, so that all rounds of the rest are measured.
        """
        left, dropped = list(steps), []
        fewest = min((step.condition.concurrency for step in left), default=0)
        while self.seconds(left) > time_s:
            heavy = {step.condition for step in left if step.condition.concurrency > fewest}
            if not heavy:
                break
            worst = max(heavy, key=lambda one: (one.concurrency, one.shape.prompt_tokens * one.shape.answer_tokens))
            left = [step for step in left if step.condition != worst]
            dropped.append(worst)
        return left, dropped


def _believed(step: Step) -> float:
    return step.subject.pace.seconds(step.condition, None if step.round else WARM_UP_TOKENS)
