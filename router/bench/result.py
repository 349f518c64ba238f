"""A bench as one value: what was measured, what follows, and as JSON. Incomplete ones say so first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import mean
from typing import Any

from router.bench.fit import Prior, prior_of
from router.bench.measured import Key, Measurement, Rates, rates_of, spoiled_by_cache
from router.bench.outcome import Outcome
from router.bench.plan import Condition, Plan, Subject
from router.bench.stats import Mean, mean_of
from router.bench.verdict import Comparison, Quality, compare, sentences

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Result:
    """See the module.

    Attributes:
        at: Unix time of the beginning.
        took_s: from beginning to end.
        stopped: why it is incomplete, "" where it is not.
        verdict: sentences, the most important first.
        notes: what was out of the ordinary, or could not be seen.
    """

    at: float
    took_s: float
    plan: Plan
    subjects: tuple[Subject, ...]
    qualities: Mapping[str, Quality]
    measurements: tuple[Measurement, ...]
    rates: Mapping[str, Rates]
    comparisons: tuple[Comparison, ...]
    priors: Mapping[str, Prior]
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    stopped: str

    @property
    def title(self) -> str:
        """What it is of, and of when."""
        names = " against ".join(one.name for one in self.subjects)
        return f"{names}, {datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M} UTC"

    def seen(self) -> list[Key]:
        """Every rate that was measured, in the order of reading."""
        return sorted({key for rates in self.rates.values() for key in rates}, key=lambda key: key.place)

    def mean(self, subject: str, key: Key) -> Mean | None:
        """A rate over its rounds."""
        return mean_of(list(self.rates.get(subject, {}).get(key, {}).values()))

    def times(self, subject: str, condition: Condition, name: str) -> Mean | None:
        """`ttft_s` or `end_s` under one condition, over its rounds."""
        return mean_of(
            [
                getattr(one.figures, name)
                for one in self.measurements
                if one.subject == subject and one.condition == condition and one.kept and one.figures is not None
            ]
        )

    def conditions(self) -> list[Condition]:
        """Those that anything was measured under, in the order of the plan."""
        seen = {one.condition for one in self.measurements if one.figures is not None}
        return [one for one in self.plan.conditions if one in seen]


def judge(
    plan: Plan,
    outcome: Outcome,
    qualities: Mapping[str, Quality],
    at: float,
    took_s: float,
    notes: Sequence[str] = (),
    lost: Mapping[str, str] | None = None,
) -> Result:
    """What follows from what was measured.

    Args:
        plan: what should have been.
        outcome: what was.
        qualities: what the router thinks of the answers, by subject.
        at, took_s: when, and how long.
        notes: what was known before it began.
        lost: backends that were asked for and could not be measured at all, and why.
    """
    names = [one.name for one in plan.subjects]
    measured = [one for one in outcome.measurements if one.round > 0]
    rates = {name: rates_of(name, measured) for name in names}
    comparisons = compare(rates, names)
    priors = {name: prior for name in names if (prior := prior_of(name, measured)) is not None}
    gone = {**(lost or {}), **outcome.gone}
    verdict = [f"{name} was not measured to the end, which makes it no loser: {why}" for name, why in gone.items()]
    verdict += sentences(comparisons, plan.subjects, qualities)
    stopped = outcome.stopped or ("not every backend could be asked: " + ", ".join(lost) if lost else "")
    return Result(
        at=at,
        took_s=took_s,
        plan=plan,
        subjects=plan.subjects,
        qualities={name: qualities.get(name, Quality()) for name in names},
        measurements=tuple(measured),
        rates=rates,
        comparisons=tuple(comparisons),
        priors=priors,
        verdict=tuple(verdict),
        notes=tuple(dict.fromkeys([*notes, *plan.left_out(), *outcome.notes, *_seen(plan, measured)])),
        stopped=stopped,
    )


def _seen(plan: Plan, measured: Sequence[Measurement]) -> list[str]:
    found = []
    for subject in plan.subjects:
        mine = [one for one in measured if one.subject == subject.name]
        disturbed = [one for one in mine if one.foreign]
        if disturbed:
            dropped = sum(not one.kept for one in disturbed)
            fate = f"{dropped} left out, {len(disturbed) - dropped} kept because of --force"
            found.append(f"{subject.name}: calls of others were seen in {len(disturbed)} measurements ({fate})")
        failed = [one for one in mine if one.failure]
        if failed:
            found.append(f"{subject.name}: {len(failed)} measurements failed; the last said: {failed[-1].failure}")
        if spoiled_by_cache(subject, mine):
            share = mean(one.figures.cached_share for one in mine if one.figures is not None)
            found.append(
                f"{subject.name} found {share:.0%} of new prompts in its cache; only the rest counts as prefilled"
            )
    return found


def document(result: Result) -> dict[str, Any]:
    """The whole of it for JSON: measurements included, so that others may judge anew."""
    return {
        "format": FORMAT,
        "at": datetime.fromtimestamp(result.at, UTC).isoformat(),
        "took_s": result.took_s,
        "complete": not result.stopped,
        "stopped": result.stopped,
        "verdict": list(result.verdict),
        "notes": list(result.notes),
        "subjects": [
            {**asdict(one), "quality": asdict(result.qualities[one.name]), "measured": _means(result, one.name)}
            for one in result.subjects
        ],
        "comparisons": [
            {
                "what": str(one.key),
                "first": one.first,
                "second": one.second,
                "rounds": one.rounds,
                "main": one.is_main,
                "winner": one.winner,
                "ratio": None if one.ratio is None else asdict(one.ratio),
            }
            for one in result.comparisons
        ],
        "priors": {name: prior.to_json() for name, prior in result.priors.items()},
        "plan": {"repeats": result.plan.repeats, "seed": result.plan.seed},
        "measurements": [asdict(one) for one in result.measurements],
    }


def _means(result: Result, name: str) -> list[dict[str, Any]]:
    found = []
    for key in result.seen():
        rate = result.mean(name, key)
        if rate is not None:
            found.append({"what": str(key), "unit": "tok/s", **asdict(rate)})
    return found
