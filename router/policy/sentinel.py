"""Watches live answers for what no right kernel does, and says when a backend does it too often.

Per answer: one character or n-gram that fills it, broken UTF-8, tool arguments that do not parse, null logprobs, an
empty answer. Thinking that uses up `max_tokens` and leaves the content null is no defect, nor is repetition inside
tables or code. A user may ask for a poem of one word, so one defect says nothing: what counts is how often, against
the siblings or the model's own history, by the sequential test of `sequential.py` with the rate that is allowed. The
outcome is a suspicion that calls for a canary, never a flag.

An answer costs O(1) memory here: a bounded tail of its prose and of the line that is not finished. Text is folded in
pieces of any length, away from the chunk path; a split does not change the outcome. A piece costs 3 to 5 µs however
long it is, so hand in a kilobyte at a time. No text is kept after the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from router.policy.answers import BROKEN, LEAST_BROKEN, MOST_BROKEN, flood, is_fence, is_table_row, repetition
from router.policy.sequential import WEEK_S, Bets

TAIL = 2048  # characters of prose that are judged: about 500 tokens
LEAST_SIGHT = 1024  # of them, at least this many since the last look
MOST_ARGUMENTS = 65536  # characters; longer arguments are not parsed
ALPHA = 0.01  # false suspicions per backend, defect and week, at most
LEAST_RATE = 0.01  # of all answers; fewer defects are people's doing, not a kernel's
TIMES_USUAL = 2.0  # a defect this many times as frequent as among the siblings is still within allowance
LEAST_CUT_RATE = 0.1  # the same for answers that run into max_tokens: they do so for many good reasons
LEAST_COMPARED = 50  # answers of siblings or of earlier builds, before a shift towards being cut can be told at all
PRIOR = 50.0  # answers' worth of belief in the least rate before anything was seen


class Defect(StrEnum):
    """What can be wrong with an answer."""

    FLOOD = "flood"
    REPETITION = "repetition"
    BROKEN_UTF8 = "broken_utf8"
    BAD_ARGUMENTS = "bad_tool_arguments"
    NULL_LOGPROBS = "null_logprobs"
    EMPTY = "empty"
    CUT = "cut"  # ran into max_tokens: alone no defect, but a shift towards it is one


@dataclass(frozen=True, slots=True)
class Watch:
    """One answer so far, in O(1) memory.

    Attributes:
        prose: the last `TAIL` characters of finished lines that are neither table nor code.
        line: the line that is not finished, its beginning cut at `TAIL`.
        unseen: characters of prose since the last look.
        in_code: inside a code fence.
        length: characters in all, thinking included.
        broken: replacement characters among them.
        found: defects seen so far.
    """

    prose: str = ""
    line: str = ""
    unseen: int = 0
    in_code: bool = False
    length: int = 0
    broken: int = 0
    found: frozenset[Defect] = frozenset()


def fold(watch: Watch, piece: str, *, null_logprobs: bool = False) -> Watch:
    """Take in the next piece of text: content or thinking, in the order it came."""
    found = watch.found | {Defect.NULL_LOGPROBS} if null_logprobs else watch.found
    if not piece:
        return replace(watch, found=found)
    lines = (watch.line + piece).split("\n")
    kept, in_code = _prose_of(lines[:-1], watch.in_code)
    line = lines[-1]
    if len(line) > TAIL:  # one endless line is prose too
        kept, line = kept + ("" if in_code or is_table_row(line) else line), line[:0]
    looked = Watch(
        prose=(watch.prose + kept)[-TAIL:],
        line=line,
        unseen=watch.unseen + len(kept),
        in_code=in_code,
        length=watch.length + len(piece),
        broken=watch.broken + piece.count(BROKEN),
        found=found,
    )
    return _look(looked) if looked.unseen >= LEAST_SIGHT else looked


def finish(
    watch: Watch,
    *,
    finish_reason: str | None,
    tool_arguments: Iterable[str] = (),
    has_tool_calls: bool = False,
) -> frozenset[Defect]:
    """The answer's defects, once it is over.

    Args:
        watch: what was folded.
        finish_reason: the route's own word, None where it has none.
        tool_arguments: each tool call's whole arguments.
        has_tool_calls: whether it called tools at all.
    """
    if not watch.in_code and not is_table_row(watch.line):
        watch = replace(watch, prose=(watch.prose + watch.line)[-TAIL:])
    found = set(_look(watch).found)
    is_cut = finish_reason in ("length", "max_tokens", "incomplete", "max_output_tokens")
    if watch.broken >= LEAST_BROKEN and watch.broken >= MOST_BROKEN * watch.length:
        found.add(Defect.BROKEN_UTF8)
    if finish_reason == "repetition":  # vLLM's own repetition detection ended it
        found.add(Defect.REPETITION)
    if is_cut:
        found.add(Defect.CUT)
    elif not watch.length and not has_tool_calls and finish_reason is not None:
        found.add(Defect.EMPTY)
    if not is_cut and not all(_parses(arguments) for arguments in tool_arguments):
        found.add(Defect.BAD_ARGUMENTS)
    return frozenset(found)


def _prose_of(lines: Iterable[str], in_code: bool) -> tuple[str, bool]:
    """The finished lines that are prose, and whether a fence is open after them."""
    kept = []
    for line in lines:
        if is_fence(line):
            in_code = not in_code
        elif not in_code and not is_table_row(line):
            kept.append(line + "\n")
    return "".join(kept), in_code


def _look(watch: Watch) -> Watch:
    found = watch.found
    if flood(watch.prose):
        found |= {Defect.FLOOD}
    elif repetition(watch.prose):
        found |= {Defect.REPETITION}
    return replace(watch, unseen=0, found=found)


def _parses(arguments: str) -> bool:
    """Whether tool arguments are JSON. Empty ones stand for no arguments."""
    if not arguments.strip() or len(arguments) > MOST_ARGUMENTS:
        return True
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Counts:
    """Answers and how many had each defect: of the siblings, or of the model's history."""

    answers: int = 0
    defects: Mapping[Defect, int] = field(default_factory=dict)

    def plus(self, defects: frozenset[Defect]) -> Counts:
        """One more answer."""
        return Counts(self.answers + 1, {d: self.defects.get(d, 0) + (d in defects) for d in Defect})

    def usual(self, defect: Defect) -> float:
        """The rate of a defect, drawn towards the least one while little was seen."""
        least = LEAST_CUT_RATE if defect is Defect.CUT else LEAST_RATE
        return (self.defects.get(defect, 0) + PRIOR * least) / (self.answers + PRIOR)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A backend answers oddly too often: which defect, how often against what is usual, and the evidence."""

    defect: Defect
    count: int
    answers: int
    allowed: float
    e_value: float

    @property
    def detail(self) -> str:
        """One sentence for a person."""
        return (
            f"{self.count} of {self.answers} live answers: {self.defect}, allowed is {self.allowed:.1%} "
            f"(e={self.e_value:.3g})"
        )


@dataclass(frozen=True, slots=True)
class Sentinel:
    """One backend's live answers for one model, over a week.

    Attributes:
        started_s: when the week began.
        counts: what this backend did.
        bets: a bet per defect that it does it more often than allowed.
        suspicions: what was found this week, each defect once.
    """

    started_s: float
    counts: Counts = field(default_factory=Counts)
    bets: Mapping[Defect, Bets] = field(default_factory=dict)
    suspicions: tuple[Suspicion, ...] = ()


def allowed_rate(usual: Counts, defect: Defect) -> float:
    """How often a right backend may show a defect, given what the siblings or the model's history do.

    Being cut is no defect in itself: clients that ask for four tokens get four. It may always happen (1.0) while there
    is little to compare with.
    """
    if defect is Defect.CUT and usual.answers < LEAST_COMPARED:
        return 1.0
    least = LEAST_CUT_RATE if defect is Defect.CUT else LEAST_RATE
    return min(1.0, max(least, TIMES_USUAL * usual.usual(defect)))


def count(
    sentinel: Sentinel, defects: frozenset[Defect], usual: Counts, now: float
) -> tuple[Sentinel, list[Suspicion]]:
    """Count one answer against what was usual before it came; the second value is what is newly suspected.

    `usual` must not hold this very answer: a bet is placed before the draw.
    """
    if now - sentinel.started_s >= WEEK_S:
        sentinel = Sentinel(now)
    counts = sentinel.counts.plus(defects)
    bets: dict[Defect, Bets] = {}
    new: list[Suspicion] = []
    known = {s.defect for s in sentinel.suspicions}
    for defect in Defect:
        allowed = allowed_rate(usual, defect)
        bet = bets[defect] = sentinel.bets.get(defect, Bets())
        if allowed < 1.0:
            bet = bets[defect] = bet.after((defect in defects) / allowed)
        if defect not in known and bet.peak >= 1.0 / ALPHA:
            new.append(Suspicion(defect, counts.defects[defect], counts.answers, allowed, bet.capital))
    return Sentinel(sentinel.started_s, counts, bets, (*sentinel.suspicions, *new)), new
