"""The live study's figures: what each policy's calls got, with intervals, beside what the virtual study says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from router.sim.described import Promise
from router.sim.replay import Ended
from router.sim.report import kept, quantile

RESAMPLES = 1000
Key = tuple[int, int]  # round and number of a call: the same call under every policy
Calls = Mapping[Key, Ended | None]  # None: it failed


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy in numbers. Seconds; shares of calls."""

    calls: int
    failures: int
    goodput: float
    end_mean_s: float
    end_p99_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    shares: Mapping[str, float]


def figures(calls: Calls, promise: Promise) -> Figures:
    """What came of the calls. A call that failed broke its promise, and has no times.

    Raises:
        ValueError: no call came to its end.
    """
    done = [one for one in calls.values() if one is not None]
    if not done:
        raise ValueError("no call came to its end")
    ends, firsts = [one.end_s for one in done], [one.ttft_s for one in done]
    shares = Counter(one.backend for one in done)
    return Figures(
        len(calls),
        len(calls) - len(done),
        mean(goods(calls, promise)),
        mean(ends),
        quantile(ends, 0.99),
        quantile(firsts, 0.5),
        quantile(firsts, 0.99),
        {name: count / len(done) for name, count in sorted(shares.items())},
    )


def goods(calls: Calls, promise: Promise) -> list[float]:
    """1.0 for each call that got what it was promised, 0.0 for the others."""
    return [float(one is not None and kept(one, promise)) for one in calls.values()]


def resampled(count: int, of: Callable[[Sequence[int]], float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a figure over calls drawn with replacement, by their indices.

    It takes calls as independent of each other. Those that wait for each other are not: with few rounds it is too
    narrow, never too wide.
    """
    dice = random.Random(seed)
    found = sorted(of(dice.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]


def goodput_interval(calls: Calls, promise: Promise) -> tuple[float, float]:
    """Of the goodput."""
    values = goods(calls, promise)
    return resampled(len(values), lambda drawn: mean(values[n] for n in drawn))


def end_ratio(ours: Calls, theirs: Calls) -> tuple[float, float, float]:
    """Our mean end as a multiple of theirs on the calls that both ended; and its interval, by pairs."""
    pairs = [(a.end_s, b.end_s) for key, a in ours.items() if a is not None and (b := theirs.get(key)) is not None]

    def ratio(drawn: Sequence[int]) -> float:
        return sum(pairs[n][0] for n in drawn) / sum(pairs[n][1] for n in drawn)

    return (ratio(range(len(pairs))), *resampled(len(pairs), ratio))


HEAD = (
    "| policy | calls | failed | goodput | virtual | mean end (s) | virtual | p99 end (s) | TTFT p50 (s) "
    "| TTFT p99 (s) | end / round-robin | virtual | end / least-in-flight | virtual | share |"
)


def table(live: Mapping[str, Calls], virtual: Mapping[str, Calls], promise: Promise) -> list[str]:
    """One row a policy; `virtual` is the replay of the same calls in virtual time."""
    lines = [HEAD, "|" + " --- |" * (HEAD.count("|") - 1)]
    for policy, calls in live.items():
        ours, told = figures(calls, promise), figures(virtual[policy], promise)
        low, high = goodput_interval(calls, promise)
        cells = [
            policy,
            f"{ours.calls}",
            f"{ours.failures}",
            f"{ours.goodput:.0%} ({low:.0%} to {high:.0%})",
            f"{told.goodput:.0%}",
            f"{ours.end_mean_s:.2f}",
            f"{told.end_mean_s:.2f}",
            f"{ours.end_p99_s:.1f}",
            f"{ours.ttft_p50_s:.2f}",
            f"{ours.ttft_p99_s:.2f}",
        ]
        for base in ("round-robin", "least-in-flight"):
            cells += _beside(policy, base, live, virtual)
        cells.append(", ".join(f"{name} {share:.0%}" for name, share in ours.shares.items()))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _beside(policy: str, base: str, live: Mapping[str, Calls], virtual: Mapping[str, Calls]) -> list[str]:
    if policy == base:
        return ["1", "1"]
    if base not in live:
        return ["not run", "not run"]
    ratio, low, high = end_ratio(live[policy], live[base])
    return [f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"{end_ratio(virtual[policy], virtual[base])[0]:.2f}"]


def verdict(live: Mapping[str, Calls], promise: Promise) -> str:
    """Whether predictive is best, in words."""
    if "predictive" not in live:
        return "predictive was not run."
    good = {name: figures(calls, promise).goodput for name, calls in live.items()}
    said = []
    for name in (one for one in live if one != "predictive"):
        ratio, low, high = end_ratio(live["predictive"], live[name])
        how = "sooner" if high < 1.0 else "**later**" if low > 1.0 else "not told apart"
        gap = good["predictive"] - good[name]
        said.append(f"{name}: {how} ({ratio:.2f} times its mean end), goodput {100 * gap:+.0f} points")
    return f"Predictive against {'; '.join(said)}."
