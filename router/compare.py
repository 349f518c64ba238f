"""Two builds set beside each other, also where they never ran together: a verdict in words for each figure.

One Spark usually runs one big server at a time, so "Marlin on Monday, CUTLASS on Tuesday" is the usual comparison.
Figures of different days differ by more than their own samples say, so the interval of a ratio comes from the spread
between days (Welch's, on log ratios), and a winner is named only where it leaves out 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.bench.fixed import DECODE, DECODE_FOUR, PREFILL
from router.bench.stats import t_quantile
from router.builds import DAYS_FOR_SPREAD, SOURCES, THROTTLED, TRAFFIC, TTFT, BuildSummary, Figure
from router.history.rows import Build

CLOCKS_DIFFER = 0.05  # from here on a verdict says so
_VERBS = {
    PREFILL: "prefills",
    DECODE: "decodes one stream",
    DECODE_FOUR: "decodes four streams",
}
_TRAFFIC_VERBS = {DECODE: "decodes in traffic", TTFT: "begins to answer in traffic"}
_MANY_DAYS = 1e6  # degrees of freedom of a spread that was assumed, not estimated


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of two builds.

    Attributes:
        name: of the figure.
        source: what it was measured by.
        ratio: second over first; above 1 the second is faster.
        low, high: its 95 % interval.
        days: of the build that was measured on fewer.
        words: a sentence; names a winner only where the interval leaves out 1.
    """

    name: str
    source: str
    ratio: float
    low: float
    high: float
    days: int
    words: str


def compare(first: BuildSummary, second: BuildSummary) -> list[Comparison]:
    """Prefill and decode from the best work that both did alike, then what their traffic was like."""
    found = []
    for name, verb in _VERBS.items():
        for source in SOURCES[:-1]:
            a, b = first.figures.get(source, {}).get(name), second.figures.get(source, {}).get(name)
            if a is not None and b is not None:
                found.append(_compared(name, source, verb, first, second, a, b))
                break
    for name, verb in _TRAFFIC_VERBS.items():
        a, b = first.figures.get(TRAFFIC, {}).get(name), second.figures.get(TRAFFIC, {}).get(name)
        if a is not None and b is not None:
            found.append(_compared(name, TRAFFIC, verb, first, second, a, b))
    return found


def _compared(
    name: str, source: str, verb: str, first: BuildSummary, second: BuildSummary, a: Figure, b: Figure
) -> Comparison:
    ratio = a.value / b.value if name == TTFT else b.value / a.value
    reach = _reach(a, b)
    low, high = ratio * math.exp(-reach), ratio * math.exp(reach)
    names = (name_of(first.build), name_of(second.build))
    if low > 1.0:
        words = f"{names[1]} {verb} {ratio:.2f}× faster than {names[0]} (95 % {low:.2f}–{high:.2f})"
    elif high < 1.0:
        words = f"{names[0]} {verb} {1 / ratio:.2f}× faster than {names[1]} (95 % {1 / high:.2f}–{1 / low:.2f})"
    else:
        words = f"no difference in how fast it {verb} beyond noise ({ratio:.2f}, 95 % {low:.2f}–{high:.2f})"
    return Comparison(name, source, ratio, low, high, min(a.days, b.days), words)


def _reach(a: Figure, b: Figure) -> float:
    """Half the 95 % interval of the log of a ratio: each day is one sample of its build."""
    parts = [((one.spread / one.value) ** 2 / one.days, one.days - 1) for one in (a, b)]
    error = sum(variance for variance, _ in parts)
    # Welch and Satterthwaite; a spread that was assumed is taken as known.
    weights = [variance**2 / (freedom if freedom + 1 >= DAYS_FOR_SPREAD else _MANY_DAYS) for variance, freedom in parts]
    return t_quantile(0.975, error**2 / sum(weights)) * math.sqrt(error)


def not_comparable(first: BuildSummary, second: BuildSummary) -> str | None:
    """Why nothing measured of them says anything about the builds; None where it does.

    Days on which a box was slow are left out of figures (`builds.slow_days`); where all of a build's days were such,
    nothing is left. Where nobody can say of the box, and the same kernels became slower at both prefill and decode,
    they were not the reason.
    """
    for one, which in ((second, "second"), (first, "first")):
        if one.slow_days and not any(one.figures.get(source) for source in SOURCES):
            day, why = max(one.slow_days.items())
            return f"hot or clock-capped box in the days of the {which}, not comparable: {why} ({day})"
    if first.build.kernels != second.build.kernels or first.gpu.clock_mhz or second.gpu.clock_mhz:
        return None
    for source in SOURCES:
        mine, theirs = first.figures.get(source, {}), second.figures.get(source, {})
        if DECODE not in mine or DECODE not in theirs:
            continue
        decode = theirs[DECODE].value / mine[DECODE].value
        if PREFILL in mine and PREFILL in theirs:
            prefill = theirs[PREFILL].value / mine[PREFILL].value
        elif TTFT in mine and TTFT in theirs:
            prefill = mine[TTFT].value / theirs[TTFT].value
        else:
            continue
        for share, which in ((max(decode, prefill), "second"), (max(1 / decode, 1 / prefill), "first")):
            if share < 1 - THROTTLED:
                return (
                    f"hot or clock-capped box in the days of the {which}, not comparable: the same kernels became "
                    "slower at prefill and decode together"
                )
        return None
    return None


def remarks(first: BuildSummary, second: BuildSummary, verdicts: Sequence[Comparison] = ()) -> list[str]:
    """What a reader must know beside the verdicts."""
    found = []
    clocks = first.gpu.clock_mhz, second.gpu.clock_mhz
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > CLOCKS_DIFFER:
        found.append(f"the GPU ran at {clocks[0]:.0f} MHz for the first and {clocks[1]:.0f} for the second")
    for one, which in ((first, "first"), (second, "second")):
        found += [f"{day} is left out of the {which}: {why}" for day, why in sorted(one.slow_days.items())]
    fewest = min((one.days for one in verdicts), default=DAYS_FOR_SPREAD)
    if fewest < DAYS_FOR_SPREAD:
        found.append(
            f"measured on {fewest} day{'s' if fewest > 1 else ''} only: a spread of 7 % between days is taken, the "
            "run-to-run noise published for a Spark"
        )
    if first.model != second.model:
        found.append(f"they served different models: {first.model} and {second.model}")
    return found


def name_of(build: Build) -> str:
    """A build in a few words: kernel, version, id."""
    version = f" on {build.version}" if build.version else ""
    return f"{build.kernels}{version} ({build.id[:6]})"
