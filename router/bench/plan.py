"""What is measured, in which order, and what it costs: subjects, conditions, rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

CONCURRENCY = (1, 2, 4, 8, 16)
WARM_UP_TOKENS = 4
WARM_UPS = 2  # of each shape at least: until the last one was not faster than the one before
BESIDE_BUSY = (1, 4)  # how many streams, beside busy siblings: enough to see what a sibling costs
_MARGIN = 64  # tokens of a chat template and of what a prompt misses its length by
_KV_SHARE = 0.9  # of what a backend says it holds: beyond it calls queue or are thrown out, which is another question


class Siblings(StrEnum):
    """What the other backends of a host do meanwhile."""

    IDLE = "idle"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Shape:
    """A sort of call, in tokens."""

    prompt: str  # "short" or "long"
    answer: str
    prompt_tokens: int
    answer_tokens: int

    def __str__(self) -> str:
        return f"{self.prompt} prompt, {self.answer} answer"


SHAPES = (
    Shape("short", "short", 128, 32),
    Shape("short", "long", 128, 256),
    Shape("long", "short", 4096, 32),
    Shape("long", "long", 4096, 256),
)
QUICK_SHAPES = (SHAPES[1], SHAPES[2])


@dataclass(frozen=True, slots=True)
class Condition:
    """Under which a speed is measured."""

    shape: Shape
    concurrency: int
    siblings: Siblings = Siblings.IDLE

    def __str__(self) -> str:
        beside = ", siblings busy" if self.siblings is Siblings.BUSY else ""
        return f"{self.shape}, c={self.concurrency}{beside}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a backend is believed to be, for estimates of time alone."""

    overhead_s: float = 0.15
    prefill_rate: float = 3000.0
    tpot_a: float = 0.013
    tpot_b: float = 0.0045
    contention: float = 0.7

    def seconds(self, condition: Condition, answer_tokens: int | None = None) -> float:
        """One measurement: all streams begin together."""
        shape, n = condition.shape, condition.concurrency
        answer = shape.answer_tokens if answer_tokens is None else answer_tokens
        took = self.overhead_s + n * shape.prompt_tokens / self.prefill_rate + answer * (self.tpot_a + self.tpot_b * n)
        return took * (1 + self.contention) if condition.siblings is Siblings.BUSY else took


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend to measure.

    Attributes:
        name: as the router or the operator calls it.
        url: where it listens, without path.
        model: the served name to ask for.
        hosts: machines it runs on; names shared with others mean a shared GPU.
        kernel, version, build: what the router knows of it, "" where nothing.
        context: longest prompt and answer together in tokens, None where it does not say.
        kv_tokens: tokens its KV cache holds, None where it does not say.
        siblings: other backends that share a host with it, by name.
        pace: how fast it is believed to be.
    """

    name: str
    url: str
    model: str
    hosts: tuple[str, ...] = ()
    kernel: str = ""
    version: str = ""
    build: str = ""
    context: int | None = None
    kv_tokens: float | None = None
    siblings: tuple[str, ...] = ()
    pace: Pace = Pace()

    @property
    def title(self) -> str:
        """Its name, with the kernel it really runs where that is known and not said by the name already."""
        known = self.kernel not in ("", "unknown") and self.kernel.lower() not in self.name.lower()
        return f"{self.name} ({self.kernel})" if known else self.name

    def cannot(self, condition: Condition) -> str | None:
        """Why a condition is left out for it, None where it can be measured."""
        shape = condition.shape
        tokens = shape.prompt_tokens + shape.answer_tokens + _MARGIN
        if self.context is not None and tokens > self.context:
            return f"{shape} is {tokens} tokens, its context is {self.context}"
        if self.kv_tokens is not None and condition.concurrency * tokens > _KV_SHARE * self.kv_tokens:
            return f"{condition} is {condition.concurrency * tokens} tokens, its KV cache holds {self.kv_tokens:.0f}"
        if condition.siblings is Siblings.BUSY and not self.siblings:
            return "no other backend shares its host"
        return None


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement to make. `round` counts from 1; 0 is the warm-up."""

    round: int
    condition: Condition
    subject: Subject


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bench measures.

    Attributes:
        repeats: rounds; every condition is measured once a round on every subject.
        seed: of the order and of the prompts.
    """

    subjects: tuple[Subject, ...]
    conditions: tuple[Condition, ...]
    repeats: int
    seed: int = 0

    def warm_ups(self) -> list[Step]:
        """Every prompt length at every concurrency once, unmeasured: kernels compile or tune at first touch.

        The lightest first: they show the pace, and whether the heavy ones are worth beginning.
        """
        steps: dict[tuple[int, int, str], Step] = {}
        for condition in sorted(self.conditions, key=lambda c: (c.concurrency, c.shape.prompt_tokens)):
            idle = Condition(condition.shape, condition.concurrency)
            for subject in self.subjects:
                if subject.cannot(idle) is None:
                    key = (condition.concurrency, condition.shape.prompt_tokens, subject.name)
                    steps.setdefault(key, Step(0, idle, subject))
        return list(steps.values())

    def rounds(self) -> Iterator[Step]:
        """Round by round; conditions in a new order each time, the subjects of one condition back to back.

        Who comes first alternates from round to round, so that a box that grows steadily slower favours nobody.
        """
        dice = random.Random(self.seed)
        start = list(self.subjects)
        dice.shuffle(start)
        for number in range(1, self.repeats + 1):
            conditions = list(self.conditions)
            dice.shuffle(conditions)
            turn = (number - 1) // 2 % max(1, len(start))
            order = start[turn:] + start[:turn]
            if number % 2 == 0:
                order.reverse()
            for condition in conditions:
                yield from (Step(number, condition, one) for one in order if one.cannot(condition) is None)

    def left_out(self) -> list[str]:
        """What is not measured, and why."""
        return list(
            dict.fromkeys(
                f"{subject.name}: {why}"
                for subject in self.subjects
                for condition in self.conditions
                if (why := subject.cannot(condition)) is not None
            )
        )

    def seconds(self) -> float:
        """How long all of it takes, at the pace that is believed."""
        warm = sum(step.subject.pace.seconds(step.condition, WARM_UP_TOKENS) for step in self.warm_ups())
        return WARM_UPS * warm + sum(step.subject.pace.seconds(step.condition) for step in self.rounds())

    def calls(self) -> int:
        """How many calls all of it makes."""
        warm = sum(step.condition.concurrency for step in self.warm_ups())
        return WARM_UPS * warm + sum(step.condition.concurrency for step in self.rounds())


def conditions_of(
    shapes: Sequence[Shape],
    concurrency: Sequence[int],
    siblings: Sequence[Siblings],
    can: Callable[[Condition], bool] = lambda _: True,
) -> tuple[Condition, ...]:
    """Every combination that somebody can be measured under; beside busy siblings only what tells their cost."""
    found = []
    for beside in siblings:
        chosen = shapes if beside is Siblings.IDLE else [one for one in shapes if one.prompt != one.answer]
        levels = [n for n in concurrency if beside is Siblings.IDLE or n in BESIDE_BUSY]
        found += [Condition(shape, n, beside) for shape in chosen for n in levels]
    return tuple(one for one in found if can(one))
