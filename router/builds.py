"""What was kept of a build, as one summary: rows of the history in, figures of days out.

A figure is a mean over days with its spread between days. Days on which the box itself was slow (heat, a clock cap) are
left out and named: everything that was measured on that machine was slower then, prefill and decode together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import fmean, median, stdev
from typing import TypeVar

from router.bench.fixed import DECODE, DECODE_FOUR, PREFILL
from router.history.rows import BENCH_WORKLOAD, BenchDay, Build, Hour, Incident, Load, Verdict
from router.policy.idlework import Work

UNKNOWN_SPREAD = 0.07  # relative, between days, until three days were seen: published run-to-run noise of a Spark
LEAST_SPREAD = 0.015  # relative: three days that happen to agree are not exact
DAYS_FOR_SPREAD = 3
THROTTLED = 0.15  # slower by this much, prefill and decode both: the box, not the build
CAPPED = 0.10  # a clock so much below that of other days: clock caps and heat move results by 15 to 35 %
ONE_OUTAGE_S = 1800.0  # an ejection and the restart after it are one: a load takes up to 18 minutes
FIXED, BENCH, TRAFFIC = Work.FIXED.value, BENCH_WORKLOAD, "traffic"
SOURCES = (FIXED, BENCH, TRAFFIC)  # the more alike the work, the better it compares
TTFT = "ttft_s"


Days = Sequence[tuple[str, Mapping[str, float]]]
"""Figures by ISO date."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over days, and its standard deviation between them; 7 % of the mean until three days were seen."""

    value: float
    spread: float
    days: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """Means over the days of a build that were measured. None where nobody could read it."""

    clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What is known of one build for one model.

    Attributes:
        build: what it is.
        model: the served name.
        calls, failed: calls it served.
        hours: hours in which it served any.
        tokens: output tokens.
        figures: by source (`SOURCES`), then by name: tokens per second, and `ttft_s` of traffic in seconds.
        gpu: while it was measured.
        load_s: median wait from start to ready, None where no start was seen.
        outages: times it went away and nobody had asked for it.
        restarts: starts of its process that were seen.
        quality: the verdict of its newest check, "" where none was made.
        slow_days: days left out of the figures, and why.
    """

    build: Build
    model: str
    calls: int
    failed: int
    hours: int
    tokens: int
    figures: Mapping[str, Mapping[str, Figure]]
    gpu: Gpu
    load_s: float | None
    outages: int
    restarts: int
    quality: str
    slow_days: Mapping[str, str]

    def figure(self, name: str) -> tuple[str, Figure] | None:
        """A figure from the best source that has it."""
        for source in SOURCES:
            found = self.figures.get(source, {}).get(name)
            if found is not None:
                return source, found
        return None


@dataclass(frozen=True, slots=True)
class Rows:
    """What the history holds, of every build and model."""

    builds: Sequence[Build]
    hours: Sequence[Hour] = ()
    benches: Sequence[BenchDay] = ()
    incidents: Sequence[Incident] = ()
    verdicts: Sequence[Verdict] = ()
    loads: Sequence[Load] = ()


_UNKNOWN = ("", "unknown")
_Row = TypeVar("_Row", Hour, BenchDay, Incident, Verdict, Load)


def whole(rows: Rows) -> Rows:
    """The same with builds that were known in part put to what they turned out to be.

    A backend's first call tells its fingerprint and its log is read when it can be: until then its build has another
    id, and a call or two are kept under that one.
    """
    known = {one.id: found.id for one in rows.builds if (found := _completed(one, rows.builds)) is not one}

    def put(kept: Sequence[_Row]) -> list[_Row]:
        return [replace(one, build=known[one.build]) if one.build in known else one for one in kept]

    return Rows(
        builds=[one for one in rows.builds if one.id not in known],
        hours=put(rows.hours),
        benches=_once(put(rows.benches)),
        incidents=put(rows.incidents),
        verdicts=put(rows.verdicts),
        loads=put(rows.loads),
    )


def _completed(one: Build, builds: Sequence[Build]) -> Build:
    """What a build known in part turned out to be: the next one of its backend that says the same and more."""
    more = [
        other
        for other in builds
        if (other.backend, other.host) == (one.backend, one.host)
        and _unknown(other) < _unknown(one)
        and all(part in (*_UNKNOWN, its) for part, its in zip(_parts(one), _parts(other), strict=True))
    ]
    if not more:
        return one
    after = [other for other in more if other.first_seen >= one.first_seen]
    return _completed(min(after or more, key=lambda other: abs(other.first_seen - one.first_seen)), builds)


def _once(benches: Iterable[BenchDay]) -> list[BenchDay]:
    """One measurement of a day: the router keeps it under both ids, so that it is not made again (`remember.py`)."""
    newest: dict[tuple[str, str, str, str], BenchDay] = {}
    for one in sorted(benches, key=lambda bench: bench.at):
        newest[one.model, one.build, one.day, one.workload] = one
    return list(newest.values())


def _parts(one: Build) -> tuple[str, ...]:
    return one.checkpoint, one.kernels, one.version, one.fingerprint, one.flags


def _unknown(one: Build) -> int:
    return sum(part in _UNKNOWN for part in _parts(one))


def summaries(rows: Rows, model: str | None = None) -> list[BuildSummary]:
    """Every build and model that anything was kept of, in the order of `rows.builds`."""
    rows = whole(rows)
    slow = slow_days(rows)
    kept: dict[str, dict[str, None]] = defaultdict(dict)
    pairs = [
        *((row.build, row.model) for row in rows.hours),
        *((row.build, row.model) for row in rows.benches),
        *((row.build, row.model) for row in rows.verdicts),
    ]
    for build_id, name in pairs:
        if model in (None, name):
            kept[build_id][name] = None
    return [_summary(build, name, rows, slow) for build in rows.builds for name in kept.get(build.id, ())]


def _summary(build: Build, model: str, rows: Rows, slow: Mapping[tuple[str, str], str]) -> BuildSummary:
    hours = [one for one in rows.hours if (one.build, one.model) == (build.id, model)]
    benches = [one for one in rows.benches if (one.build, one.model) == (build.id, model)]
    checks = [one for one in rows.verdicts if (one.build, one.model) == (build.id, model)]
    loads = [one.seconds for one in rows.loads if one.build == build.id]
    mine = [one for one in rows.incidents if one.build == build.id]
    left_out = {
        day: why
        for host in _hosts(build)
        for day in {_day(one.at) for one in hours} | {one.day for one in benches}
        if (why := slow.get((host, day))) is not None
    }
    days: dict[str, Days] = {
        FIXED: [(one.day, one.figures) for one in benches if one.workload == FIXED],
        BENCH: [(one.day, rates_of(one.figures)) for one in benches if one.workload == BENCH],
        TRAFFIC: _traffic(hours),
    }
    return BuildSummary(
        build,
        model,
        calls=sum(one.calls for one in hours),
        failed=sum(one.failed for one in hours),
        hours=len({one.at for one in hours}),
        tokens=sum(one.completion_tokens for one in hours),
        figures={source: found for source, one in days.items() if (found := _figures(one, left_out))},
        gpu=_gpu([one for one in benches if one.day not in left_out]),
        load_s=median(loads) if loads else build.load_s,
        outages=_outages(mine),
        restarts=sum(one.kind == "restart" for one in mine),
        quality=max(checks, key=lambda one: one.at).verdict if checks else "",
        slow_days=left_out,
    )


def rates_of(lines: Mapping[str, float]) -> dict[str, float]:
    """Tokens per second from a bench's lines: prefill's seconds = p + q · tokens, decode's per token = p + q · streams.

    Of four streams the rate is that of all together.
    """
    found: dict[str, float] = {}
    p, q = lines.get("decode.p", 0.0), lines.get("decode.q", 0.0)
    if p + q > 0:
        found |= {DECODE: 1 / (p + q), DECODE_FOUR: 4 / (p + 4 * q)}
    if lines.get("prefill.q", 0.0) > 0:
        found[PREFILL] = 1 / lines["prefill.q"]
    return found


def _traffic(hours: Iterable[Hour]) -> Days:
    """By day: output tokens per second and stream, and seconds to the first content."""
    days: dict[str, list[Hour]] = defaultdict(list)
    for hour in hours:
        days[_day(hour.at)].append(hour)
    found: list[tuple[str, Mapping[str, float]]] = []
    for day, rows in days.items():
        seconds, streams = sum(one.tpot_s_sum for one in rows), sum(one.tpot_n for one in rows)
        first, firsts = sum(one.ttft_s_sum for one in rows), sum(one.ttft_n for one in rows)
        figures = {DECODE: streams / seconds} if seconds > 0 and streams else {}
        found.append((day, figures | ({TTFT: first / firsts} if firsts and first > 0 else {})))
    return found


def _figures(days: Days, left_out: Mapping[str, str]) -> dict[str, Figure]:
    values: dict[str, list[float]] = defaultdict(list)
    for day, figures in days:
        if day not in left_out:
            for name, value in figures.items():
                if value > 0:
                    values[name].append(value)
    return {name: figure_of(one) for name, one in values.items()}


def figure_of(daily: Sequence[float]) -> Figure:
    """The mean of one value a day (at least one), with what is known or assumed of their spread."""
    value = fmean(daily)
    if len(daily) < DAYS_FOR_SPREAD:
        return Figure(value, UNKNOWN_SPREAD * value, len(daily))
    return Figure(value, max(stdev(daily), LEAST_SPREAD * value), len(daily))


def slow_days(rows: Rows) -> dict[tuple[str, str], str]:
    """(Machine, day) to why the box was slow that day; days of which that cannot be said are not in it.

    It was where its GPU's clock was far below other days', or where everything measured there on that day that was
    measured on other days too was slower than on those, prefill and decode together. One build alone that is slower
    than another build says nothing about the box.
    """
    hosts = {build.id: _hosts(build) for build in rows.builds}
    series: dict[tuple[str, str, str, str], dict[str, Mapping[str, float]]] = defaultdict(dict)
    clocks: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows.benches:
        for host in hosts.get(row.build, ()):
            figures = row.figures if row.workload == FIXED else rates_of(row.figures)
            series[host, row.build, row.model, row.workload][row.day] = figures
            if row.gpu_clock_mhz is not None:
                clocks[host][row.day] = min(row.gpu_clock_mhz, clocks[host].get(row.day, row.gpu_clock_mhz))
    found: dict[tuple[str, str], str] = {}
    for host, day in {(host, day) for (host, *_), days in series.items() for day in days}:
        fell = [
            one
            for (where, *_), days in series.items()
            if where == host and day in days and (one := _fell(days, day)) is not None
        ]
        clock = clocks[host].get(day)
        others = [mhz for other, mhz in clocks[host].items() if other != day]
        if clock is not None and others and clock < (1 - CAPPED) * median(others):
            found[host, day] = f"GPU clock {clock:.0f} MHz, {median(others):.0f} on other days"
        elif fell and all(fell):
            found[host, day] = "everything measured there was slower, prefill and decode together"
    return found


def _fell(days: Mapping[str, Mapping[str, float]], day: str) -> bool | None:
    """Whether prefill and decode were both much lower than on this series' other days; None without any."""
    verdicts = []
    for name in (PREFILL, DECODE):
        others = [figures[name] for other, figures in days.items() if other != day and name in figures]
        if name not in days[day] or not others:
            return None
        verdicts.append(days[day][name] < (1 - THROTTLED) * median(others))
    return all(verdicts)


def _gpu(benches: Sequence[BenchDay]) -> Gpu:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    return Gpu(
        mean(one.gpu_clock_mhz for one in benches),
        mean(one.gpu_temperature_c for one in benches),
        mean(one.gpu_power_w for one in benches),
    )


def _outages(incidents: Iterable[Incident]) -> int:
    """An ejection and the restart that follows are one outage; what the operator asked for is none."""
    times = sorted(
        one.at for one in incidents if one.kind in ("ejected", "restart") and "by the operator" not in one.detail
    )
    return sum(at - before > ONE_OUTAGE_S for before, at in zip([float("-inf"), *times], times, strict=False))


def _hosts(build: Build) -> tuple[str, ...]:
    return tuple(build.host.split(",")) if build.host else ()


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()
