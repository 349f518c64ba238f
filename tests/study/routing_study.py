"""Which policy routes best on a Spark: every policy and an oracle, on replayed public traces and described fleets.

`make routing-study` writes docs/routing-study.md; `ARGS=--quick` takes under two minutes. All is simulated: the engines
(`router/sim/engine.py`) share no formula with the policies.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from pathlib import Path

from router.sim.described import DescribedFleet, read_fleet
from router.sim.oracle import oracle
from router.sim.replay import Change, Ended, Replay
from router.sim.report import Summary, summarise
from router.sim.trace import Arrival, at_rate, read, slice_of, with_models
from tests.study.page import with_virtual

ROOT = Path(__file__).parents[2]
FLEETS = ("one-spark-three-kernels", "two-sparks-two-kernels", "two-sparks-mixed-models")
TRACES = {"azure": "azure_llm_2023_conv.csv", "mooncake": "mooncake_conversation.jsonl"}
LOADS = (0.6, 0.8, 0.95)
POLICIES = ("predictive", "least-in-flight", "round-robin", "prefix-hash")
VARIANTS = {"host x 0.5": 0.5, "host x 2": 2.0}  # of predictive
LONGEST_PROMPT = 32_000
GOOD = 0.99
LOWEST_RATE = 0.01  # calls a second; what cannot keep its promises there is shown as this
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26}  # 95 %, by number of seeds


@dataclass(frozen=True)
class Run:
    """One replay, named by what it takes to repeat it."""

    fleet: str
    trace: str
    per_s: float
    policy: str
    seed: int
    calls: int
    traces: Path
    changes: tuple[Change, ...] = ()


@cache
def trace_of(path: Path) -> tuple[Arrival, ...]:
    return tuple(read(path))


@cache
def fleet_of(name: str) -> DescribedFleet:
    return read_fleet(ROOT / "config" / "fleets" / f"{name}.yaml")


def replay(run: Run) -> Replay:
    fleet = fleet_of(run.fleet)
    calls = slice_of(trace_of(run.traces / TRACES[run.trace]), run.calls, run.seed, LONGEST_PROMPT)
    arrivals = with_models(at_rate(calls, run.per_s, run.seed), dict(fleet.traffic), run.seed)
    is_policy = run.policy in POLICIES
    done = Replay(
        fleet,
        arrivals,
        run.policy if is_policy else "predictive",
        seed=run.seed,
        oracle=oracle if run.policy == "oracle" else None,
        host_factor=VARIANTS.get(run.policy, 1.0),
        changes=run.changes,
    )
    done.finish()
    return done


def summary_of(run: Run) -> Summary:
    done = replay(run)
    return summarise(run.policy, done.ended, done.refused, fleet_of(run.fleet).promise)


def ended_of(run: Run) -> list[Ended]:
    return sorted(replay(run).ended, key=lambda one: one.at)


Map = Callable[[Callable[[Run], Summary], Iterable[Run]], Iterable[Summary]]


MORE_SEEDS = 4
"""Times the seeds for a sustained rate: goodput crosses 99 % slowly, and three seeds moved the crossing by half."""


def sustained(base: Run, seeds: int, steps: int = 6) -> float:
    """The highest arrival rate at which a policy keeps its promises to 99 % of the calls, by bisection."""
    low, high = LOWEST_RATE, 3.0
    for _ in range(steps):
        middle = (low * high) ** 0.5
        runs = [replace(base, per_s=middle, seed=seed) for seed in range(seeds)]
        kept = statistics.mean(summary_of(one).goodput for one in runs)
        low, high = (middle, high) if kept >= GOOD else (low, middle)
    return low


def _sustained(work: tuple[Run, int]) -> float:
    return sustained(*work)


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean."""
    if len(values) < 2:
        return float("nan")
    return STUDENT.get(len(values), 2.1) * statistics.stdev(values) / sqrt(len(values))


def is_tied(ours: Sequence[float], theirs: Sequence[float], bigger_is_better: bool) -> bool:
    """Whether ours is better, or not worse by more than the paired difference's 95 % interval."""
    gaps = [a - b if bigger_is_better else b - a for a, b in zip(ours, theirs, strict=True)]
    return statistics.mean(gaps) >= -interval(gaps) or statistics.mean(gaps) >= 0.0


# --- the tables ---


def cell(values: Sequence[float], form: str) -> str:
    return f"{format(statistics.mean(values), form)} ± {format(interval(values), form)}"


def load_table(results: dict[str, list[Summary]]) -> list[str]:
    lines = [
        "| policy | goodput | mean end (s) | p99 end (s) | TTFT p50 (s) | TTFT p99 (s) | TPOT (ms) | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for policy, ones in results.items():
        names = sorted({name for one in ones for name in one.shares})
        shares = ", ".join(f"{name} {statistics.mean(one.shares.get(name, 0.0) for one in ones):.0%}" for name in names)
        cells = [
            cell([one.goodput for one in ones], ".1%"),
            cell([one.end_mean_s for one in ones], ".2f"),
            cell([one.end_p99_s for one in ones], ".1f"),
            cell([one.ttft_p50_s for one in ones], ".2f"),
            cell([one.ttft_p99_s for one in ones], ".2f"),
            cell([1e3 * one.tpot_mean_s for one in ones], ".1f"),
        ]
        lines.append(f"| {policy} | {' | '.join(cells)} | {shares} |")
    return lines


def verdicts(where: str, load: float, results: dict[str, list[Summary]]) -> list[str]:
    """One row of the table of goals: met, or missed and by how much."""
    ours = results["predictive"]
    others = {name: results[name] for name in POLICIES if name != "predictive"}
    good = [one.goodput for one in ours]
    ends = [one.end_mean_s for one in ours]
    beaten = [
        f"{name} (goodput)"
        for name, ones in others.items()
        if not is_tied(good, [one.goodput for one in ones], bigger_is_better=True)
    ] + [
        f"{name} (mean end)"
        for name, ones in others.items()
        if not is_tied(ends, [one.end_mean_s for one in ones], bigger_is_better=False)
    ]
    best = results["oracle"]
    by_good = statistics.mean(good) / statistics.mean(one.goodput for one in best) - 1.0
    by_end = statistics.mean(ends) / statistics.mean(one.end_mean_s for one in best) - 1.0
    near = by_good >= -0.05 and by_end <= 0.05
    simple = [statistics.mean(one.goodput for one in others[name]) for name in ("least-in-flight", "round-robin")]
    ratios, bounds = (
        [statistics.mean(one.goodput for one in ones) / max(1e-9, each) for each in simple] for ones in (ours, best)
    )
    is_goal = where.startswith(FLEETS[0]) and load == 0.8
    changed = [
        f"{name}: {statistics.mean(one.goodput for one in results[name]):.1%}, "
        f"{statistics.mean(one.end_mean_s for one in results[name]):.2f} s"
        for name in VARIANTS
    ]
    return [
        where,
        f"{load:.0%}",
        "yes" if not beaten else f"**missed**: {', '.join(beaten)}",
        f"{'yes' if near else '**missed**'} ({by_good:+.1%} goodput, {by_end:+.1%} end)",
        f"{ratios[0]:.2f}, {ratios[1]:.2f}{' (**missed**)' if is_goal and min(ratios) < 1.3 else ''}",
        f"{bounds[0]:.2f}, {bounds[1]:.2f}",
        "; ".join(changed),
    ]


def tracking(traces: Path, calls: int, seeds: int, pool: ProcessPoolExecutor) -> list[str]:
    """How many calls after a change until the mean end is within 10 % of the oracle's, on the same arrivals."""
    lines = [
        "| change | calls until within 10 % of the oracle (goal: 60) | windows of 20 calls after it |",
        "| --- | --- | --- |",
    ]
    at = calls // 2
    fleet, per_s = "two-sparks-two-kernels", 0.35
    cases = {
        "b12x-2 becomes 40 % slower": (Change(at, "b12x-2", 1.4),),
        "then, restarted, 30 % faster than it was": (
            Change(at // 3, "b12x-2", 1.4),
            Change(at, "b12x-2", 0.7, restart=True),
        ),
    }
    for name, changes in cases.items():
        runs = [
            Run(fleet, "azure", per_s, policy, seed, calls, traces, changes)
            for seed in range(seeds)
            for policy in ("predictive", "oracle")
        ]
        found = list(pool.map(ended_of, runs))
        ours, best = found[0::2], found[1::2]
        ratios = []
        for start in range(at, min(at + 120, calls - 19), 20):
            mine = sum(one.end_s for run in ours for one in run[start : start + 20])
            ratios.append(mine / sum(one.end_s for run in best for one in run[start : start + 20]))
        back = next((20 * n for n in range(len(ratios)) if all(ratio <= 1.1 for ratio in ratios[n:])), None)
        verdict = "**missed**" if back is None or back > 60 else f"{back}"
        lines.append(f"| {name} | {verdict} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return lines


HEAD = """# Which policy routes best

Written by `make routing-study`; everything here is simulated, nothing was measured on a Spark.

**How.** Slices of {calls} calls of two public traces (Azure LLM Inference 2023, conversations; Mooncake, conversations,
with its prefixes), taken from {seeds} places, without prompts longer than {longest} tokens, are replayed as Poisson
arrivals at the wanted rate against three described fleets (`config/fleets`, with a source or "assumption" for each
figure). The engines are those of `router sim`: iteration-level batching, chunked prefill, KV cache, prefix cache, a
shared host. Ranges are 95 % intervals over the seeds. The first tenth of each run does not count.

**Goodput** is the share of calls that got what they were promised (the fleet file says what). **Capacity** is the
highest rate at which the oracle keeps 99 % goodput. The **oracle** knows the engines' true step costs, every output
length and the load; for each call it plays the host forward for every choice and takes the one that adds least. It is
greedy: a yardstick, not an optimum, and now and then a policy ends calls sooner on average, because the oracle trades
time for promises.

A goodput ratio at a share of *capacity* is bounded: where the oracle keeps 99 % and a simple policy 85 %, nobody can
reach more than 1.17 times. So the table of sustained rates stands beside it: the load that each policy can carry.
"""


def study(traces: Path, seeds: int, calls: int, loads: Sequence[float], jobs: int) -> str:
    started = time.perf_counter()
    parts = [HEAD.format(calls=calls, seeds=seeds, longest=LONGEST_PROMPT)]
    goals, details = [], []
    places = [(fleet, trace) for fleet in FLEETS for trace in TRACES]
    with ProcessPoolExecutor(jobs) as pool:
        bases = [Run(fleet, trace, 0.0, "oracle", 0, calls, traces) for fleet, trace in places]
        capacities = dict(zip(places, pool.map(_sustained, [(one, min(seeds, 3)) for one in bases]), strict=True))
        report(f"capacities {', '.join(f'{value:.3f}' for value in capacities.values())}", started)
        for (fleet, trace), capacity in capacities.items():
            where = f"{fleet}, {trace}"
            details.append(f"\n## {where}\n\nCapacity: {capacity:.3f} calls a second.\n")
            for load in loads:
                names = [*POLICIES, *VARIANTS, "oracle"]
                runs = [Run(fleet, trace, capacity * load, n, s, calls, traces) for n in names for s in range(seeds)]
                found = list(pool.map(summary_of, runs))
                results = {name: found[k * seeds : (k + 1) * seeds] for k, name in enumerate(names)}
                goals.append(verdicts(where, load, results))
                details += [f"\n### {where}, {load:.0%} of capacity\n", *load_table(results)]
            report(where, started)
        rates = carried(traces, calls, seeds, capacities, pool)
        report("sustained rates", started)
        tracked = tracking(traces, max(calls, 240), max(seeds, 5), pool)
    parts += [
        "\n## Goals\n",
        "Predictive against the three others (best or tied: not worse by more than the paired 95 % interval), against "
        "the oracle (within 5 %), its goodput as a multiple of least-in-flight's and round-robin's (goal on one Spark "
        "at 80 %: 1.3) beside the oracle's own multiple, and what becomes of it where the host term is believed half "
        "or twice as large. Where the oracle's own is below 1.3, it too misses the goal: the simple policies keep too "
        "much at that load. Ours counts as missed nevertheless.\n",
        "| fleet, trace | load | best or tied | within 5 % of the oracle | times goodput | the oracle's | host term |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *[f"| {' | '.join(row)} |" for row in goals],
        "\n## Sustained rates at 99 % goodput (calls a second)\n",
        f"The lowest rate that was tried is {LOWEST_RATE}: who shows it may not keep 99 % even there. Goodput crosses "
        f"99 % so slowly that {seeds * MORE_SEEDS} seeds are needed; the oracle's replays take long and had "
        f"{min(seeds, 3)}.\n",
        *rates,
        "\n## A change in the middle\n",
        "Means over all seeds of the end of 20 calls, divided by the oracle's on the same arrivals.\n",
        *tracked,
        *details,
        "",
    ]
    report("done", started)
    return "\n".join(parts)


def carried(
    traces: Path, calls: int, seeds: int, capacities: dict[tuple[str, str], float], pool: ProcessPoolExecutor
) -> list[str]:
    """The rate that each policy sustains on the single Spark."""
    lines = ["| fleet, trace | oracle | predictive | least-in-flight | round-robin | predictive / best of both |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for trace in TRACES:
        names = ("predictive", "least-in-flight", "round-robin")
        work = [(Run(FLEETS[0], trace, 0.0, name, 0, calls, traces), seeds * MORE_SEEDS) for name in names]
        ours, least, robin = pool.map(_sustained, work)
        lines.append(
            f"| {FLEETS[0]}, {trace} | {capacities[FLEETS[0], trace]:.3f} | {ours:.3f} | {least:.3f} | {robin:.3f} "
            f"| {ours / max(least, robin):.2f}{' (**missed**)' if ours < max(least, robin) else ''} |"
        )
    return lines


def report(what: str, started: float) -> None:
    print(f"{time.perf_counter() - started:6.1f} s  {what}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, default=ROOT / ".." / "shared" / "traces", help="folder of both traces")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "routing-study.md")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two seeds, 120 calls, 80 %% load only; under two minutes")
    args = parser.parse_args()
    missing = [name for name in TRACES.values() if not (args.traces / name).exists()]
    if missing:
        sys.exit(f"{args.traces} lacks {', '.join(missing)}: both are public, --traces says where they lie")
    seeds, calls, loads = (2, 120, LOADS[1:2]) if args.quick else (args.seeds, args.calls, LOADS)
    made = study(args.traces, seeds, calls, loads, args.jobs)
    page = args.out.read_text(encoding="utf-8") if args.out.exists() else ""
    args.out.write_text(with_virtual(page, made), encoding="utf-8")
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
