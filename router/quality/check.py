"""One check of one backend and model: asks step by step, and turns what comes back into evidence.

A check can stop between two steps and go on later; what it has found stays. It acts on nothing: `quality` is the
standing as it is now, and whoever runs the check looks at it after every step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from router.helper import Helper
from router.policy.answers import broken_utf8, flood, is_right, prose_of, right_so_far
from router.policy.facts import Grade
from router.policy.logprobs import Fault, Unscorable
from router.policy.quality import (
    CLEAN_TEXTS,
    MISSES_TRUSTED,
    Evidence,
    Family,
    Kind,
    Quality,
    Reference,
    judge,
    meet_answer,
    meet_fault,
    score_answers,
    score_texts,
)
from router.policy.scoring import Basis, Paired, cosine, may_use_mutual, pair_gap
from router.policy.sequential import USUAL, Strictness, excess, tolerance_of
from router.probes.questions import Question
from router.probes.texts import ProbeText
from router.quality import work
from router.quality.ask import Asker
from router.quality.kept import KeptAsker
from router.quality.plan import DECODE_TOKENS, PROMPT_TOKENS, Item, Plan
from router.quality.record import Decoded
from router.quality.trust import Trust

BATCH = 6  # texts that are judged together; a clean check needs five new ones
AT_ONCE = 25.0  # an excess (squared tolerances) that is judged without waiting for the batch
LEAST_TOKENS = 16
ODD_GAP = 1.0  # nats: decode this far from the own prefill is odd even where nothing was calibrated (W4A4 shows 0.56)
LIKE = 0.99  # cosine of two embeddings of one text by one model; rounding moves the fourth digit
UNNAMED = "unknown"  # a scheme that nobody knows: compared within one build only


@dataclass(slots=True)
class Kept:
    """What a check leaves for a baseline."""

    texts: dict[str, bytes] = field(default_factory=dict)
    decoded: dict[str, Decoded] = field(default_factory=dict)
    right: set[str] = field(default_factory=set)
    vectors: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Check:
    """See the module.

    Args:
        quality: the standing so far; `before` keeps it.
        scheme: the candidate's, "" where nobody knows.
        blame: told of a comparison that speaks against the reference: both are unproven, they differ by more than right
            kernels do, and the reference finds ordinary text less likely than the candidate does.
    """

    def __init__(
        self,
        quality: Quality,
        plan: Plan,
        asker: Asker | KeptAsker,
        trust: Trust,
        helper: Helper,
        scheme: str,
        wall: Callable[[], float],
        blame: Callable[[Trust, Family, list[Paired], Check], None],
        strictness: Strictness = USUAL,
    ) -> None:
        self.quality = self.before = quality
        self.plan = plan
        self.left: deque[Item] = deque(plan.items)
        self.asker = asker
        self.trust = trust
        self.declared_scheme = scheme
        self.kept = Kept()
        self.spent_s = 0.0
        self.is_shaken = False  # a question ended in a server error: does it still live?
        self.distrusted = False  # the stored baseline comes from the worse of two builds
        self.alarm = ""  # what the operator must hear at once
        self.is_alarm_raised = False
        self.faults: dict[Fault, str] = {}
        self.differences: list[float] = []
        self._helper = helper
        self._wall = wall
        self._blame = blame
        self.strictness = strictness
        self._pairs: dict[Family, list[work.Compared]] = {}
        self._right: dict[Family, dict[str, bool]] = {}
        self.answered: dict[str, bool] = {}
        self._alike: list[str] = []

    @property
    def scheme(self) -> str:
        """What the comparison counts as: within one build a scheme that nobody knows is still the same scheme."""
        return (self.declared_scheme or UNNAMED) if self.trust.same_build else self.declared_scheme

    @property
    def score(self) -> float | None:
        """Mean paired distance per text (nats), None where nothing could be compared."""
        return fmean(self.differences) if self.differences else None

    def summary(self) -> str:
        """Why the backend stands as it does, and what could not be measured."""
        is_blank = self.quality.cause is None and self.quality.held is None
        why = "nothing speaks for or against it" if is_blank else self.quality.reason
        return f"{why}; {self.measured()}"

    def measured(self) -> str:
        """What was asked with which outcome, beyond what moved the grade."""
        told = [f"{len(self.differences)} texts compared"]
        if self.answered:
            missed = ", ".join(name for name, hit in self.answered.items() if not hit)
            told.append(f"known answers: {sum(self.answered.values())} of {len(self.answered)} right")
            told[-1] += f" (not {missed})" if missed else ""
        if self.faults:
            missing = "; ".join(f"{fault.value}: {detail}" for fault, detail in list(self.faults.items())[:3])
            told.append(f"not measured: {missing}")
        return "; ".join(told)

    def far_off(self, pairs: Sequence[Paired]) -> bool:
        """Whether these comparisons together lie beyond what a right kernel may differ by."""
        return fmean(excess(p, tolerance_of(p.basis, self.scheme, self.strictness)) for p in pairs) > 1.0

    # --- steps ---

    async def step(self) -> None:
        """Take the next step; it counts as taken only when it came to its end."""
        item = self.left[0]
        match item.family:
            case Family.PREFILL:
                await self._score(item.texts[0])
            case Family.DECODE | Family.LOADED:
                await self._decode(item)
            case Family.ANSWERS | Family.LONG if item.question is not None:
                await self._ask(item.family, item.question)
            case _:
                pass
        self.left.popleft()

    def give_up(self, why: str) -> None:
        """Leave the next step out."""
        self.faults.setdefault(Fault.ERROR, f"{self.left.popleft().name}: {why}")

    def skip(self, family: Family) -> None:
        """No more of this family."""
        self.left = deque(item for item in self.left if item.family is not family)

    def finish(self) -> Quality:
        """Judge what is left to be judged."""
        for family in list(self._pairs):
            self._flush(family)
        for family in (Family.ANSWERS, Family.LONG):
            self._judge_answers(family)
        if len(self._alike) >= BATCH - 1:
            detail = f"embeddings of {len(self._alike)} texts are as they were"
            found = Evidence(Kind.SAME, self._wall(), detail, Family.PREFILL, tuple(self._alike))
            self.quality = judge(self.quality, found)
        return self.quality

    # --- prefill ---

    async def _score(self, text: ProbeText) -> None:
        if not self.asker.talents.generates:
            await self._embed(text)
            return
        ids = await self.asker.ids_of(text)
        if ids is None or len(ids) < LEAST_TOKENS:
            return
        found = await self.asker.score(text.name, ids)
        if isinstance(found, Unscorable):
            if found.fault is Fault.ERROR and found.detail.startswith("404") and not self.kept.texts:
                await self._embed(text)  # it has no such route: an embedding model?
            else:
                self._fault(Family.PREFILL, text.name, found)
            return
        self.kept.texts[text.name] = found
        trusted = await self._trusted(text.name, ids)
        if trusted is None:
            return
        third = self.trust.third.texts.get(text.name) if self.trust.third is not None else None
        compared = await self._helper.run(work.compare_texts, found, trusted, third, self.scheme, self.trust.same_build)
        self._take(Family.PREFILL, compared)

    async def _trusted(self, name: str, ids: tuple[int, ...]) -> bytes | None:
        """The trusted build's scores of these ids: stored, else asked for now."""
        trust = self.trust
        stored = trust.stored.texts.get(name) if trust.stored is not None else None
        if stored is not None or trust.living is None:
            return stored
        found = await trust.living.score(name, ids)
        return found if isinstance(found, bytes) else None

    async def _embed(self, text: ProbeText) -> None:
        vector = await self.asker.embed(text)
        if isinstance(vector, Unscorable):
            self.faults.setdefault(vector.fault, vector.detail)
            return
        self.asker.talents.generates = False
        for family in set(Family) - {Family.PREFILL}:
            self.skip(family)
        self.kept.vectors[text.name] = vector
        stored = self.trust.vectors.get(text.name)
        likeness = cosine(vector if stored is None else stored, vector)
        if isinstance(likeness, Unscorable) and likeness.is_hard:
            self._fault(Family.PREFILL, text.name, likeness)
        elif isinstance(likeness, Unscorable):
            self._meet_other_vectors(f"the embedding of {text.name} has another size: {likeness.detail}", text.name)
        elif likeness < LIKE:
            self._meet_other_vectors(f"the embedding of {text.name} has changed: cosine {likeness:.4f}", text.name)
        elif stored is not None:
            self._alike.append(text.name)

    def _meet_other_vectors(self, detail: str, probe: str) -> None:
        self.alarm = self.alarm or f"{detail}: vectors that clients stored no longer fit what it answers now"
        self._odd(detail, probe)

    def _odd(self, detail: str, probe: str, family: Family = Family.PREFILL) -> None:
        self.quality = judge(self.quality, Evidence(Kind.ODD, self._wall(), detail, family, (probe,)))

    # --- decode ---

    async def _decode(self, item: Item) -> None:
        """Generate, one text alone or several side by side; score each afterwards, one at a time."""
        prompts = []
        for text in item.texts:
            ids = await self.asker.ids_of(text)
            if ids is not None and len(ids) >= LEAST_TOKENS:
                prompts.append((text, ids[: min(PROMPT_TOKENS, len(ids) // 2)]))
        room = self.asker.talents.context
        if not self.asker.talents.generates or (room is not None and room < PROMPT_TOKENS + DECODE_TOKENS):
            return
        answers = await asyncio.gather(*(self.asker.generate(text.name, ids) for text, ids in prompts))
        for (text, ids), answer in zip(prompts, answers, strict=True):
            if isinstance(answer, Unscorable):
                self._fault(item.family, text.name, answer)
            else:
                await self._judge_decoded(item.family, text.name, ids, answer)

    async def _judge_decoded(self, family: Family, name: str, prompt: tuple[int, ...], answer: work.Generation) -> None:
        if flood(prose_of(answer.answer.splitlines())) or broken_utf8(answer.answer):
            self._meet_garbage(family, name, answer.answer)
        gap = self.asker.known_gap(name)
        if gap is None:
            gap = await self._gap(self.asker, name, prompt, answer)
        if family is Family.DECODE:
            self.kept.decoded[name] = Decoded(prompt, answer.packed, gap)
        stored = self.trust.stored
        before = stored.decoded.get(name) if stored is not None else None
        mutual = may_use_mutual(self.scheme, same_build=self.trust.same_build)
        if before is not None and before.prompt == prompt and mutual and self._is_proven():
            found = await self._helper.run(work.compare_prefix, answer.packed, before.packed)
            self._take(family, found if isinstance(found, Unscorable) else work.Compared(found, None))
        usual = before.gap if before is not None and before.gap is not None else stored.mean_gap if stored else None
        cross = gap
        if usual is None and self.trust.living is not None:
            cross = await self._gap(self.trust.living, name, prompt, answer)
        if cross is None:
            return
        if usual is not None:
            self._take(family, work.Compared(pair_gap(f"{name} gap", usual, cross), None))
        elif cross > ODD_GAP:
            self._odd(f"decode stands {cross:.2f} nats per token from prefill on {name}", name, family)

    async def _gap(
        self, scorer: Asker | KeptAsker, name: str, prompt: tuple[int, ...], answer: work.Generation
    ) -> float | None:
        scored = await scorer.score(name, prompt + answer.ids)
        if isinstance(scored, Unscorable):
            return None
        found = await self._helper.run(work.measure_gap, answer.packed, scored)
        return None if isinstance(found, Unscorable) else found

    def _is_proven(self) -> bool:
        """Whether the trusted answer may be taken for right as it is: proven good, or this build's own."""
        reference = self.trust.reference
        return self.trust.same_build or (reference is not None and reference.grade is Grade.GOOD)

    # --- known answers ---

    async def _ask(self, family: Family, question: Question) -> None:
        answer = await self.asker.answer(question)
        if isinstance(answer, Unscorable):
            self._fault(family, question.name, answer)
            return
        if flood(prose_of(answer.text.splitlines())) or broken_utf8(answer.text):
            self._meet_garbage(family, question.name, answer.text)
            return
        hit = is_right(question.check, question.expected, answer)
        if hit:
            self.kept.right.add(question.name)
        # What not every model can do speaks only where a trusted build of this model could do such a thing.
        is_able = _kind_of(question.name) in {_kind_of(name) for name in self._trusted_right()}
        if not question.needs or is_able:
            self._right.setdefault(family, {})[question.name] = self.answered[question.name] = hit
        if not hit and question.check == "row" and is_able:
            count, last = right_so_far(question.expected, answer.text), len(question.expected.split())
            told = f"it counted right to {count} of {last}, where a trusted build of the model came to the end"
            self._odd(f"{told}: long answers degenerate", question.name, family)

    def _judge_answers(self, family: Family) -> None:
        """Misses count where a trusted build showed that the model can do this kind; else nobody knows what it can.

        A build that nothing is known of becomes plausible by right answers; wrong ones are a small model's as well as
        a broken kernel's, and only not a single right one is odd.
        """
        right = self._right.pop(family, {})
        trusted, missed = self._trusted_right(), len(right) - sum(right.values())
        kinds = {_kind_of(name) for name in trusted}
        counted = {name: hit for name, hit in right.items() if _kind_of(name) in kinds}
        if not trusted and missed <= MISSES_TRUSTED * len(right):
            counted = right
        if not trusted and missed == len(right) >= CLEAN_TEXTS:
            self._odd(f"not one of {len(right)} known answers is right", next(iter(right)), family)
        self.quality = score_answers(
            self.quality, counted, trusted=trusted, now=self._wall(), family=family, strictness=self.strictness
        )

    def _trusted_right(self) -> frozenset[str]:
        """What builds of this model answered right; what a model can do does not hang on the scheme."""
        stored, third = self.trust.stored, self.trust.third
        return (stored.right if stored is not None else frozenset()) | (
            third.right if third is not None else frozenset()
        )

    # --- evidence ---

    def _fault(self, family: Family, probe: str, fault: Unscorable) -> None:
        self.faults.setdefault(fault.fault, fault.detail)
        self.is_shaken = fault.fault is Fault.ERROR and fault.detail.startswith("5")
        self.quality = meet_fault(self.quality, family, probe, fault, self._wall())

    def _meet_garbage(self, family: Family, probe: str, text: str) -> None:
        self.quality = meet_answer(self.quality, family, probe, text, trusted_is_whole=False, now=self._wall())

    def _take(self, family: Family, compared: work.Compared | Unscorable) -> None:
        if isinstance(compared, Unscorable):
            self.faults.setdefault(compared.fault, compared.detail)
            return
        paired = compared.paired
        if family is Family.PREFILL:
            self.differences.append(paired.difference)
        pairs = self._pairs.setdefault(family, [])
        pairs.append(compared)
        if len(pairs) >= BATCH or excess(paired, tolerance_of(paired.basis, self.scheme, self.strictness)) >= AT_ONCE:
            self._flush(family)

    def _flush(self, family: Family) -> None:
        batch, reference = self._pairs.pop(family, []), self.trust.reference
        if not batch or reference is None:
            return
        deltas = [c.nll_delta for c in batch if c.nll_delta is not None]
        # Two right builds differ by rounding, in either direction: only a difference beyond that has somebody to blame.
        against = turned(batch)
        if reference.grade is not Grade.GOOD and deltas and fmean(deltas) < 0 and self.far_off(against):
            self._blame(self.trust, family, against, self)
            return
        scheme = self.scheme
        if self.trust.same_build:
            reference = Reference(reference.build, scheme, reference.grade, reference.independent)
        for basis in Basis:  # a sentence names one basis
            pairs = [c.paired for c in batch if c.paired.basis is basis]
            self.quality = score_texts(self.quality, family, pairs, reference, scheme, self._wall(), self.strictness)


def _kind_of(question: str) -> str:
    """The kind in a question's name, which is KIND/NUMBER."""
    return question.partition("/")[0]


def turned(batch: Sequence[work.Compared]) -> list[Paired]:
    """The same comparisons with the sides changed."""
    found = []
    for one in (c.paired for c in batch):
        if one.basis is Basis.MUTUAL:
            found.append(one)  # the divergence of two builds has no direction worth speaking of
        else:
            found.append(Paired(one.name, one.basis, one.trusted + one.difference, -one.difference))
    return found
