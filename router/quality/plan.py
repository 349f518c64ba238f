"""What a check asks, what that costs, and how much of a backend's time checks may take. Values in, values out."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.policy.facts import Speed
from router.policy.quality import Family
from router.probes.questions import Question, image, needle, quick_questions, recital, tool_call
from router.probes.texts import ProbeText

MOST_PROMPT = 512  # tokens of a scored prompt: vLLM holds vocabulary x positions outside of its memory profile
PROMPT_TOKENS = 64  # of a text that a generation begins with
DECODE_TOKENS = 48
TOGETHER = 3  # generations side by side
SETTLES = 6  # steps of a doubted family that come first: one more than a clean check stands on
BYTES_PER_TOKEN = 3.0  # few on purpose: numbers and other scripts take more tokens
DAY_S = 86_400.0
NUMBERS = 500  # question numbers to draw from


class Size(StrEnum):
    """How much is asked."""

    QUICK = "quick"
    FULL = "full"
    KEPT = "kept"  # nothing: what was answered before is compared with a reference that is there now


@dataclass(frozen=True, slots=True)
class Amount:
    """How many of each kind a check has, at most."""

    texts: int
    decodes: int
    loads: int
    rounds: int  # of known-answer questions


AMOUNTS: Mapping[Size, Amount] = {
    Size.QUICK: Amount(12, 3, 1, 1),
    Size.FULL: Amount(60, 12, 4, 2),
    Size.KEPT: Amount(0, 0, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One step of a check; several texts where they are generated side by side."""

    family: Family
    texts: tuple[ProbeText, ...] = ()
    question: Question | None = None

    @property
    def name(self) -> str:
        """For messages and progress."""
        named = self.question.name if self.question is not None else " + ".join(t.name for t in self.texts)
        return f"{self.family.value} {named}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A check before it starts: its steps in order and the seconds that they will take at the measured speed."""

    size: Size
    items: tuple[Item, ...]
    cost_s: float


def cost_s(item: Item, speed: Speed) -> float:
    """Seconds that one step takes, at what is believed of the backend's speed."""
    if item.question is not None:
        return (
            speed.overhead_s + item.question.tokens / speed.prefill_rate + item.question.answer_tokens * _tpot(speed, 1)
        )
    if item.family is Family.PREFILL:
        tokens = sum(min(MOST_PROMPT, len(t.text.encode()) / BYTES_PER_TOKEN) for t in item.texts)
        return speed.overhead_s + tokens / speed.prefill_rate
    streams = len(item.texts)
    again = streams * (speed.overhead_s + (PROMPT_TOKENS + DECODE_TOKENS) / speed.prefill_rate)  # scored afterwards
    return speed.overhead_s + DECODE_TOKENS * _tpot(speed, streams) + again


def _tpot(speed: Speed, streams: int) -> float:
    return speed.tpot_a + speed.tpot_b * streams


def make_plan(
    size: Size,
    speed: Speed,
    limit_s: float,
    texts: Sequence[ProbeText],
    draw: float,
    *,
    seen: Mapping[Family, Collection[str]],
    known: Collection[str] = (),
    known_answers: Collection[str] = (),
    without: Collection[Family] = (),
    first: Family | None = None,
) -> Plan:
    """Draw the steps of a check, and leave out what would not fit into its time.

    Args:
        seen: texts and questions that say nothing new about this build, by family.
        known: texts that a baseline holds; only these can be compared, so they come first.
        known_answers: questions that a trusted build got right.
        without: families that the backend gets no more of.
        first: the family whose findings stand against the build: where time is short, it is asked again before others.
    """
    dice, amount = random.Random(draw), AMOUNTS[size]
    drawn = dice.sample(texts, len(texts))
    drawn.sort(key=lambda t: t.name not in known)  # stable: random among equals
    items = [Item(Family.PREFILL, (t,)) for t in _fresh(drawn, seen, Family.PREFILL)[: amount.texts]]
    items += [Item(Family.DECODE, (t,)) for t in _fresh(drawn, seen, Family.DECODE)[: amount.decodes]]
    loaded = _fresh(drawn, seen, Family.LOADED)[: amount.loads * TOGETHER]
    items += [Item(Family.LOADED, tuple(loaded[i : i + TOGETHER])) for i in range(0, len(loaded), TOGETHER)]
    items += _questions(size, amount.rounds, texts, dice, known_answers, seen.get(Family.ANSWERS, ()))
    chosen: list[Item] = []
    total = 0.0
    allowed = [i for i in items if i.family not in without]
    doubted = [i for i in allowed if i.family is first][:SETTLES]
    for item in doubted + _in_turns([i for i in allowed if i not in doubted]):
        cost = cost_s(item, speed)
        if total + cost <= limit_s:
            chosen.append(item)
            total += cost
    chosen.sort(key=lambda i: list(Family).index(i.family))
    return Plan(size, tuple(chosen), total)


def _fresh(drawn: Sequence[ProbeText], seen: Mapping[Family, Collection[str]], family: Family) -> list[ProbeText]:
    used = seen.get(family, ())
    return [t for t in drawn if t.name not in used]


def _questions(
    size: Size,
    rounds: int,
    texts: Sequence[ProbeText],
    dice: random.Random,
    known: Collection[str],
    seen: Collection[str],
) -> list[Item]:
    """Known answers: those that a trusted build got right first, since a miss there says most."""
    used = {_number(name) for name in seen}
    trusted = sorted({_number(name) for name in known} - used)
    dice.shuffle(trusted)
    fresh = [n for n in dice.sample(range(NUMBERS), NUMBERS) if n not in used and n not in trusted]
    numbers = (trusted + fresh)[:rounds]
    long: list[Question] = []
    asked = [q for number in numbers for q in quick_questions(number)]
    if size is Size.FULL and numbers:
        asked += [tool_call(numbers[0]), image(numbers[0])]
        long = [needle(numbers[0], texts), recital(numbers[0])]
    return [Item(Family.ANSWERS, question=q) for q in asked] + [Item(Family.LONG, question=q) for q in long]


def _number(name: str) -> int:
    digits = name.partition("/")[2].partition("@")[0].partition(" ")[0]
    return int(digits) if digits.isdigit() else -1


def _in_turns(items: Sequence[Item]) -> list[Item]:
    """One of each family after the other, so that a tight limit leaves some of each."""
    rows = [[i for i in items if i.family is family] for family in Family]
    longest = max((len(row) for row in rows), default=0)
    return [row[n] for n in range(longest) for row in rows if n < len(row)]


@dataclass(slots=True)
class Budget:
    """Seconds of a backend's time that checks may take: a share of it, saved up for a day at most.

    It starts with a day's worth, so a new build is checked at once; a server that restarts every few minutes uses that
    up and is then checked no more often than the share allows.
    """

    share: float
    at: float
    left_s: float = -1.0

    def __post_init__(self) -> None:
        if self.left_s < 0:
            self.left_s = self.share * DAY_S

    def allows(self, seconds: float, now: float) -> bool:
        """Whether so much may be spent now."""
        self._grow(now)
        return seconds <= self.left_s

    def spend(self, seconds: float, now: float) -> None:
        """It was spent; what was spent beyond the budget is paid back first."""
        self._grow(now)
        self.left_s -= seconds

    def _grow(self, now: float) -> None:
        self.left_s = min(self.share * DAY_S, self.left_s + self.share * max(0.0, now - self.at))
        self.at = now
