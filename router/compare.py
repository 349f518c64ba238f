"""Builds set beside each other, also where they never ran together: what was kept of each, and a verdict in words.

One Spark usually runs one big server at a time, so "Marlin on Monday, CUTLASS on Tuesday" is the usual comparison.
Figures of different days differ by more than their own samples say (clock caps, heat: 15 to 35 % were seen in public
benchmarks), so a verdict between days needs the spread between days of one build; until three days of one exist, that
spread is taken as 7 %, the run-to-run noise published for a Spark at one stream.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from router.history.rows import Build, Hour, Incident, Verdict

DAY_S = 86_400.0
UNKNOWN_SPREAD = 0.07  # relative, between days, until three days of one build were seen
DAYS_FOR_SPREAD = 3
THROTTLED = 0.15  # prefill and decode both slower by this much: the box, not the build


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over days with its spread between days (standard deviation); None where nothing was seen."""

    value: float
    spread: float
    days: int


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What is known of one build for one model.

    Attributes:
        build: what it is.
        calls, failed: calls it served.
        hours: hours in which it served any.
        tokens: output tokens.
        decode: output tokens per second and stream.
        ttft: seconds to the first content.
        crashes: restarts and ejections seen.
        quality: the verdict of its newest check, "" where none was made.
    """

    build: Build
    calls: int
    failed: int
    hours: int
    tokens: int
    decode: Figure | None
    ttft: Figure | None
    crashes: int
    quality: str


def summarize(
    build: Build, hours: Iterable[Hour], incidents: Iterable[Incident], verdicts: Iterable[Verdict]
) -> BuildSummary:
    """One build's rows as one summary. Rows of other builds are left out."""
    mine = [hour for hour in hours if hour.build == build.id]
    checks = [one for one in verdicts if one.build == build.id]
    return BuildSummary(
        build,
        calls=sum(hour.calls for hour in mine),
        failed=sum(hour.failed for hour in mine),
        hours=len({hour.at for hour in mine}),
        tokens=sum(hour.completion_tokens for hour in mine),
        decode=_by_day([(hour.at, hour.tpot_n / hour.tpot_s_sum, hour.tpot_n) for hour in mine if hour.tpot_s_sum > 0]),
        ttft=_by_day([(hour.at, hour.ttft_s_sum / hour.ttft_n, hour.ttft_n) for hour in mine if hour.ttft_n]),
        crashes=sum(one.build == build.id and one.kind in ("ejected", "restart") for one in incidents),
        quality=max(checks, key=lambda one: one.at).verdict if checks else "",
    )


def _by_day(samples: Sequence[tuple[float, float, int]]) -> Figure | None:
    """(time, value, weight) to the mean of daily means, with their spread."""
    if not samples:
        return None
    days: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for at, value, weight in samples:
        days[int(at // DAY_S)].append((value, weight))
    daily = [sum(v * w for v, w in one) / sum(w for _, w in one) for one in days.values()]
    value = mean(daily)
    spread = stdev(daily) if len(daily) >= DAYS_FOR_SPREAD else UNKNOWN_SPREAD * value
    return Figure(value, spread, len(daily))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of two builds.

    Attributes:
        name: of the figure.
        ratio: second over first; above 1 the second is faster.
        low, high: its 95 % interval.
        words: a sentence; names a winner only where the interval leaves out 1.
    """

    name: str
    ratio: float
    low: float
    high: float
    words: str


def compare(first: BuildSummary, second: BuildSummary) -> list[Comparison]:
    """Decode and time to first content of two builds, each with a verdict in words."""
    found = []
    if first.decode is not None and second.decode is not None:
        found.append(_compared("decodes", first, second, first.decode, second.decode, faster_is_more=True))
    if first.ttft is not None and second.ttft is not None:
        found.append(_compared("begins to answer", first, second, first.ttft, second.ttft, faster_is_more=False))
    return found


def _compared(
    verb: str, first: BuildSummary, second: BuildSummary, a: Figure, b: Figure, *, faster_is_more: bool
) -> Comparison:
    ratio = b.value / a.value if faster_is_more else a.value / b.value
    # Log scale: the interval of a ratio is symmetric there. Each day is one sample of its build.
    error = math.sqrt(sum((one.spread / one.value) ** 2 / one.days for one in (a, b)))
    low, high = ratio * math.exp(-1.96 * error), ratio * math.exp(1.96 * error)
    names = (name_of(first.build), name_of(second.build))
    if low > 1.0:
        words = f"{names[1]} {verb} {ratio:.2f}× faster than {names[0]} (95 % {low:.2f}–{high:.2f})"
    elif high < 1.0:
        words = f"{names[0]} {verb} {1 / ratio:.2f}× faster than {names[1]} (95 % {1 / high:.2f}–{1 / low:.2f})"
    else:
        words = f"no difference in how fast it {verb} beyond noise ({ratio:.2f}, 95 % {low:.2f}–{high:.2f})"
    return Comparison(verb, ratio, low, high, words)


def not_comparable(first: BuildSummary, second: BuildSummary) -> str | None:
    """Why two summaries say nothing about the builds: with the same kernels both prefill and decode fell together."""
    if first.decode is None or second.decode is None or first.ttft is None or second.ttft is None:
        return None
    if first.build.kernels != second.build.kernels:
        return None
    decode, prefill = second.decode.value / first.decode.value, first.ttft.value / second.ttft.value
    for share, which in ((max(decode, prefill), "second"), (max(1 / decode, 1 / prefill), "first")):
        if share < 1 - THROTTLED:
            return (
                f"hot or clock-capped box in the days of the {which}, not comparable: prefill and decode fell together"
            )
    return None


def name_of(build: Build) -> str:
    """A build in a few words: kernel, version, id."""
    version = f" on {build.version}" if build.version else ""
    return f"{build.kernels}{version} ({build.id[:6]})"
