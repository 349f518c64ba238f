"""What is thought of a backend's answers for one model: grades, what moves them, and whom they keep from routing.

    unknown ──known answers right──▶ plausible ──within tolerance of a reference──▶ good
       any ──sentinel, odd answers──▶ suspect ──proof──▶ good
       any ──hard evidence──▶ flagged ──a clean check──▶ suspect ──proof──▶ good

A flag comes in one step and goes in two (hysteresis): a clean check, meant for after a restart, lets the backend serve
again as suspect, and only the proof of the sequential test makes it good. Evidence lifts only what its own family of
probes found: right prefill says nothing about damaged decode. What the operator flagged stays flagged until the
operator clears it. `TABLE` and `_lifts` are the whole truth; everything else here gathers evidence for them.

False alarms: the sequential tests of a running build flag it, right as it may be, with a chance of at most α a week
(`Strictness`) over all families of probes together (`SHARES` divides it), however often one looks. A restart, a flag, a
clearing and another α begin new tests. NaN, null logprobs and floods flag without a test: no right build has them.
Sentinel and scheme cost never flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from router.policy.answers import broken_utf8, flood, prose_of, repetition
from router.policy.facts import Grade
from router.policy.logprobs import Unscorable
from router.policy.scoring import Paired, is_comparable, report
from router.policy.sequential import USUAL, SequentialTest, Strictness, begin, excess, observe, renew, tolerance_of

CLEAN_TEXTS = 5  # new texts that a clean check stands on
CLEAN_LONG = 2  # long questions: one after a long prompt, one with a long answer
MOST_EVIDENCE = 8  # pieces kept, newest last
MISSES_TRUSTED = 0.1  # known answers that a right build may miss of those a trusted build of the model got right
MISSES_UNKNOWN = 0.5  # the same where nobody knows what the model can do


class Family(StrEnum):
    """Kinds of probes, each with a sequential test and a share of α of its own."""

    PREFILL = "prefill"  # teacher-forced texts
    DECODE = "decode"  # generated alone, scored afterwards
    LOADED = "loaded"  # the same under concurrency
    ANSWERS = "answers"  # known answers
    LONG = "long"  # known answers after a long prompt, or far into a long answer


SHARES: Mapping[Family, float] = {
    Family.PREFILL: 0.4,
    Family.DECODE: 0.2,
    Family.LOADED: 0.15,
    Family.ANSWERS: 0.15,
    Family.LONG: 0.1,
}


class Kind(StrEnum):
    """What was found. Each is a column of `TABLE`."""

    NUMERIC = "numeric_fault"  # NaN, null logprobs, no probabilities
    DEGENERATE = "degenerate_text"  # a canary's answer flooded by one character or by broken bytes
    DAMAGE = "damage"  # a sequential test refuted "no worse than δ" against the same scheme
    WRONG = "known_answers_wrong"  # the same for known answers
    ODD = "odd"  # a canary finding that is no proof: an embedding that changed, a decode gap nobody calibrated
    SENTINEL = "sentinel"  # live answers look wrong
    SCHEME_COST = "scheme_cost"  # a report: what another scheme costs
    RIGHT = "known_answers_right"
    CLEAN = "clean_check"  # a check of new texts with nothing against the build
    PROOF = "within_tolerance"  # a sequential test refuted "worse than δ"
    SAME = "as_before"  # the same, but against the same kernel's own record, which nobody proved good
    RESTARTED = "restarted"  # the same build, another process
    FLAG = "flagged_by_operator"
    CLEAR = "cleared_by_operator"


HARD = frozenset({Kind.NUMERIC, Kind.DEGENERATE, Kind.DAMAGE, Kind.WRONG, Kind.FLAG})


def _table() -> Mapping[tuple[Grade, Kind], Grade]:
    """Each row says where a kind of evidence leads from each grade; where nothing is said, nothing changes."""
    unknown, plausible, good, suspect, flagged = (
        Grade.UNKNOWN,
        Grade.PLAUSIBLE,
        Grade.GOOD,
        Grade.SUSPECT,
        Grade.FLAGGED,
    )
    rows: dict[Kind, dict[Grade, Grade]] = {kind: dict.fromkeys(Grade, flagged) for kind in HARD}
    watch = {unknown: suspect, plausible: suspect, good: suspect}
    rows[Kind.ODD] = rows[Kind.SENTINEL] = watch
    rows[Kind.RIGHT] = {unknown: plausible, suspect: plausible}
    rows[Kind.CLEAN] = {flagged: suspect}
    rows[Kind.PROOF] = {unknown: good, plausible: good, suspect: good, flagged: suspect}
    rows[Kind.SAME] = {unknown: plausible, suspect: plausible, flagged: suspect}
    rows[Kind.CLEAR] = dict.fromkeys(Grade, unknown)
    rows[Kind.SCHEME_COST] = rows[Kind.RESTARTED] = {}
    return MappingProxyType({(grade, kind): rows[kind].get(grade, grade) for kind in Kind for grade in Grade})


TABLE = _table()
LIFTING = frozenset({Kind.RIGHT, Kind.CLEAN, Kind.PROOF, Kind.SAME})


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that was found about a build, told so that a person can check it.

    Attributes:
        kind: the column of the table.
        at: Unix time.
        detail: one sentence.
        family: which probes, None where it was no probe.
        probes: names of the texts or questions.
        numbers: what was measured, with a unit in each name where it has one.
        e_value: capital of the sequential test, None where none was run.
    """

    kind: Kind
    at: float
    detail: str
    family: Family | None = None
    probes: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    e_value: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """The trusted build that a candidate was compared with, stored or alive."""

    build: str
    scheme: str
    grade: Grade  # good, or plausible: then the evidence says so
    independent: bool = True  # another kernel than the candidate's; two kernels that agree speak for each other


@dataclass(frozen=True, slots=True)
class Quality:
    """One build's standing.

    Attributes:
        build: identity, version, checkpoint and flags, as the caller spells it.
        grade: where it stands.
        since: Unix time of the last change of grade.
        tests: the running sequential test of each family that was ever asked.
        evidence: the newest pieces; the one that led to the present grade is never pushed out.
        cause: that piece.
        held: the operator's reason, where the operator flagged it: no evidence lifts that.
    """

    build: str
    grade: Grade
    since: float
    tests: Mapping[Family, SequentialTest] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    cause: Evidence | None = None
    held: str | None = None

    @property
    def doubt(self) -> Evidence | None:
        """What a check should settle: the cause of a suspicion or a flag; the operator's word is settled."""
        is_doubted = self.held is None and self.grade in (Grade.SUSPECT, Grade.FLAGGED)
        return self.cause if is_doubted else None

    @property
    def reason(self) -> str:
        """Why it stands where it stands, in one sentence."""
        return self.held or (self.cause.detail if self.cause else "nothing was measured yet")


def fresh(build: str, now: float) -> Quality:
    """A build that nothing is known of. A changed build starts here; a restart of the same one does not."""
    return Quality(build, Grade.UNKNOWN, now)


def judge(quality: Quality, found: Evidence) -> Quality:
    """Move along the table. Reaching or leaving a flag starts every test afresh: what was bet is spent."""
    kept = (*quality.evidence, found)[-MOST_EVIDENCE:]
    if quality.held is not None and found.kind not in (Kind.CLEAR, Kind.FLAG):
        return replace(quality, evidence=kept)
    grade = TABLE[quality.grade, found.kind] if _lifts(quality, found) else quality.grade
    held = found.detail if found.kind is Kind.FLAG else None
    if grade is quality.grade:
        repeats_flag = grade is Grade.FLAGGED and found.kind in HARD
        tests = {} if repeats_flag or found.kind is Kind.CLEAR else quality.tests
        return replace(quality, evidence=kept, held=held, tests=tests)
    crossed = Grade.FLAGGED in (grade, quality.grade) or found.kind is Kind.CLEAR
    tests = {} if crossed else quality.tests
    return Quality(quality.build, grade, found.at, tests, kept, found, held)


def _lifts(quality: Quality, found: Evidence) -> bool:
    """Whether what was found speaks about what stands against the build. Anything but lifting always does."""
    family = quality.doubt.family if quality.doubt is not None else None
    return found.kind not in LIFTING or family is None or found.family is family


def leaves_open(before: Quality, after: Quality) -> bool:
    """Whether a check between these two said nothing about what stands against the build.

    No reference was there, it was busy, or too few texts fitted into the time: that is no reason to stay flagged.
    """
    doubt = after.doubt
    if doubt is None or before.doubt is not doubt:
        return False
    new = [one for one in after.evidence if one not in before.evidence]
    return not any(doubt.family is None or one.family is doubt.family for one in new)


def restarted(quality: Quality, now: float) -> Quality:
    """The same build in another process: what it was keeps counting, its tests begin again and a check is due."""
    return replace(judge(quality, Evidence(Kind.RESTARTED, now, "restarted under the same build")), tests={})


def flag(quality: Quality, reason: str, now: float) -> Quality:
    """The operator says it is wrong."""
    return judge(quality, Evidence(Kind.FLAG, now, _said("flagged", reason)))


def clear(quality: Quality, reason: str, now: float) -> Quality:
    """The operator lifts whatever stands against it; it is looked at again from the beginning."""
    return judge(quality, Evidence(Kind.CLEAR, now, _said("cleared", reason)))


def _said(what: str, reason: str) -> str:
    return f"{what} by the operator: {reason}" if reason else f"{what} by the operator"


def meet_fault(quality: Quality, family: Family, probe: str, fault: Unscorable, now: float) -> Quality:
    """A probe had no usable logprobs: a right kernel never writes NaN or null; all else is "not measured"."""
    if not fault.is_hard:
        return quality
    return judge(quality, Evidence(Kind.NUMERIC, now, f"{fault.fault} on {probe}: {fault.detail}", family, (probe,)))


def meet_answer(
    quality: Quality, family: Family, probe: str, text: str, *, trusted_is_whole: bool, now: float
) -> Quality:
    """Look at a generated canary answer for degeneration.

    One character flooding it, or broken bytes, flag at once: no model means that. A loop counts as a missed answer,
    because greedy decoding of a right build loops now and then; the less so where the trusted build's answer to the
    same question did not degenerate (`trusted_is_whole`).
    """
    prose = prose_of(text.splitlines())
    garbage = flood(prose) or broken_utf8(text)
    if garbage:
        return judge(quality, Evidence(Kind.DEGENERATE, now, f"answer to {probe}: {garbage}", family, (probe,)))
    name = f"{probe} without looping"
    trusted = frozenset({name}) if trusted_is_whole else frozenset[str]()
    return score_answers(quality, {name: repetition(prose) is None}, trusted=trusted, now=now)


def score_texts(
    quality: Quality,
    family: Family,
    pairs: Sequence[Paired],
    reference: Reference,
    scheme: str,
    now: float,
    strictness: Strictness = USUAL,
) -> Quality:
    """Count newly scored texts against a reference, and judge what they show.

    Across schemes this only reports. Texts that this test has seen before are ignored.
    """
    if not pairs:
        return quality
    if not is_comparable(reference.scheme, scheme):
        return judge(quality, _scheme_cost(family, pairs, reference, scheme, now))
    named = {p.name: excess(p, tolerance_of(p.basis, scheme, strictness)) for p in pairs}
    spoken, numbers = _difference(pairs)
    numbers["trusted_nats"] = sum(p.trusted for p in pairs) / len(pairs)
    itself = "" if reference.grade is Grade.GOOD else f", itself only {reference.grade}"
    detail = f"{spoken} farther than {reference.build}{itself} on {len(pairs)} texts ({pairs[0].basis}, {family})"
    proof = Kind.PROOF if reference.grade is Grade.GOOD or reference.independent else Kind.SAME
    return _count(quality, _Batch(family, named, numbers, detail, Kind.DAMAGE, proof), now, strictness)


def score_answers(
    quality: Quality,
    right: Mapping[str, bool],
    *,
    trusted: frozenset[str],
    now: float,
    family: Family = Family.ANSWERS,
    strictness: Strictness = USUAL,
) -> Quality:
    """Count known answers. `trusted` names the questions that a trusted build of this model answered right.

    A miss weighs the more, the less a right build may miss; where nobody knows what the model can do, one miss in two
    is allowed.
    """
    if not right:
        return quality
    named = {
        name: 0.0 if hit else 1.0 / (MISSES_TRUSTED if name in trusted else MISSES_UNKNOWN)
        for name, hit in right.items()
    }
    missed = tuple(name for name, hit in right.items() if not hit)
    numbers = {"right": float(len(right) - len(missed)), "asked": float(len(right))}
    detail = f"{len(missed)} of {len(right)} known answers missed" + (f": {', '.join(missed[:5])}" if missed else "")
    after = _count(quality, _Batch(family, named, numbers, detail, Kind.WRONG, None), now, strictness)
    enough = CLEAN_TEXTS if family is Family.ANSWERS else CLEAN_LONG
    is_right = len(right) >= enough and len(missed) <= MISSES_TRUSTED * len(right)
    if not is_right or quality.grade not in (Grade.UNKNOWN, Grade.SUSPECT):
        return after
    detail = f"{detail}, no reference was needed"
    return judge(after, Evidence(Kind.RIGHT, now, detail, family, tuple(right), numbers))


@dataclass(frozen=True, slots=True)
class _Batch:
    """Newly measured excesses by name, and what the test's two verdicts are called here."""

    family: Family
    excesses: Mapping[str, float]
    numbers: Mapping[str, float]
    detail: str
    worse: Kind
    proof: Kind | None


def _count(quality: Quality, batch: _Batch, now: float, strictness: Strictness) -> Quality:
    """Feed one family's test until it is worse, and judge by its verdict."""
    before = test = _test_of(quality, batch.family, now, strictness.alpha * SHARES[batch.family])
    used: dict[str, float] = {}
    for name, z in batch.excesses.items():
        if name not in test.seen and not test.is_worse:
            used[name] = z
            test = observe(test, name, z)
    quality = replace(quality, tests={**quality.tests, batch.family: test})
    # Leaving a flag, every text since it began counts: a slow server scores a few in each check.
    flagged = quality.grade is Grade.FLAGGED
    texts, total = (test.texts, test.total) if flagged else (len(used), sum(used.values()))
    kind = _verdict(batch, before, test, bool(used) and texts >= CLEAN_TEXTS and total <= texts)
    if kind is None:
        return quality
    numbers = {**batch.numbers, "excess": test.mean_excess, "texts": float(test.texts), "alpha": test.alpha}
    return judge(quality, Evidence(kind, now, batch.detail, batch.family, tuple(used), numbers, test.e_value))


def _verdict(batch: _Batch, before: SequentialTest, after: SequentialTest, is_clean: bool) -> Kind | None:
    """What a test says now; None where it is neither worse, nor proven, nor freshly clean (`is_clean`: new texts are).

    Nothing is clean while the capital of the bet against it grows.
    """
    if after.is_worse:
        return batch.worse
    is_clean = is_clean and after.e_value <= 1.0
    if batch.proof is not None and after.is_within and (is_clean or not before.is_within):
        return batch.proof
    return Kind.CLEAN if is_clean else None


def _test_of(quality: Quality, family: Family, now: float, alpha: float) -> SequentialTest:
    """The running test; another α is another promise, so it begins anew."""
    test = quality.tests.get(family)
    return begin(now, alpha) if test is None or test.alpha != alpha else renew(test, now)


def _scheme_cost(family: Family, pairs: Sequence[Paired], reference: Reference, scheme: str, now: float) -> Evidence:
    spoken, numbers = _difference(pairs)
    detail = (
        f"{scheme} lies {spoken} farther than {reference.scheme} ({reference.build}) on {len(pairs)} texts: "
        "what the scheme costs, no finding"
    )
    return Evidence(Kind.SCHEME_COST, now, detail, family, tuple(p.name for p in pairs), numbers)


def _difference(pairs: Sequence[Paired]) -> tuple[str, dict[str, float]]:
    """The mean paired difference, in words and as numbers; one text alone has no standard error."""
    mean, error = report(pairs)
    if len(pairs) < 2:
        return f"{mean:+.4f} nats", {"difference_nats": mean}
    return f"{mean:+.4f} ± {error:.4f} nats", {"difference_nats": mean, "difference_se_nats": error}
