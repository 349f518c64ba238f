"""How often is an interval of the bench right? Whole benches in virtual time, and on real simulated servers.

The truth is what the same bench finds on the same engines without any noise: no jitter, no drift, no latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from router.bench.measured import Key, rates_of
from router.bench.plan import Condition, Plan, Shape, Subject
from router.bench.runner import Runner
from router.bench.verdict import Comparison, compare
from router.sim.profiles import PROFILES, Profile
from tests.benchcmd.sims import SimTarget, Weather, stop
from tests.virtual_loop import VirtualLoop

SHAPES = (Shape("short", "long", 128, 48), Shape("long", "short", 1536, 4))
CONDITIONS = tuple(Condition(shape, n) for shape in SHAPES for n in (1, 4))
ROUNDS = 5
PAIRS = (("marlin", "b12x"), ("marlin", "vllm-cutlass"), ("b12x", "flashinfer-cutlass"), ("qwen", "marlin"))
# Worse than a Spark was seen to be within an hour: shared drift of 3 % and a slope of 6 % an hour, 1.5 % that one
# backend feels alone, one measurement in fifty that stalls by 30 %, some milliseconds of latency a call.
WANDER, SLOPE, OWN, STALL, LATENCY_S = 0.03, 0.06 / 3600, 0.015, 0.02, 0.004


@dataclass(frozen=True, slots=True)
class Tally:
    """Intervals that held the truth, of all; benches that named a winner."""

    within: int
    asked: int
    benches_with_winner: int
    benches: int
    main_within: int = 0
    main_asked: int = 0

    @property
    def share(self) -> float:
        return self.within / self.asked


def plan_of(
    names: Sequence[str], seed: int, conditions: Sequence[Condition] = CONDITIONS, rounds: int = ROUNDS
) -> Plan:
    subjects = tuple(Subject(name, "", "model") for name in names)
    return Plan(subjects, tuple(conditions), rounds, seed)


async def bench(targets: dict[str, SimTarget], plan: Plan) -> list[Comparison]:
    outcome = await Runner(plan, targets).run()
    assert not outcome.stopped, outcome
    names = [one.name for one in plan.subjects]
    await stop(*targets.values())
    return compare({name: rates_of(name, outcome.measurements) for name in names}, names)


def still(profile: Profile) -> Profile:
    return replace(profile, jitter=0.0, first_touch=1.0)


def in_virtual_time(coroutine: object) -> list[Comparison]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)  # type: ignore[arg-type]


def truth(first: str, second: str, conditions: Sequence[Condition] = CONDITIONS) -> dict[Key, float]:
    async def run() -> list[Comparison]:
        targets = {"a": SimTarget(still(PROFILES[first])), "b": SimTarget(still(PROFILES[second]))}
        return await bench(targets, plan_of(["a", "b"], 0, conditions, 3))

    return {one.key: one.ratio.value for one in in_virtual_time(run()) if one.ratio is not None}


def noisy(first: str, second: str, seed: int) -> list[Comparison]:
    async def run() -> list[Comparison]:
        weather = Weather(seed, SLOPE, WANDER)
        targets = {
            name: SimTarget(
                replace(PROFILES[profile], first_touch=1.0),
                seed=2 * seed + number,
                weather=weather,
                own=OWN,
                stall=STALL,
                latency_s=LATENCY_S,
            )
            for number, (name, profile) in enumerate((("a", first), ("b", second)))
        }
        return await bench(targets, plan_of(["a", "b"], seed))

    return in_virtual_time(run())


def tally(pairs: Sequence[tuple[str, str]], seeds: Sequence[int]) -> Iterator[Tally]:
    """After every bench, what all so far add up to. Seed n takes pair n modulo their number."""
    truths = {pair: truth(*pair) for pair in pairs}
    total = Tally(0, 0, 0, 0)
    for seed in seeds:
        pair = pairs[seed % len(pairs)]
        found = noisy(*pair, seed)
        known = [(one, one.ratio) for one in found if one.ratio is not None]
        inside = [ratio.low <= truths[pair][one.key] <= ratio.high for one, ratio in known]
        main = [ok for ok, (one, _) in zip(inside, known, strict=True) if one.is_main]
        total = Tally(
            total.within + sum(inside),
            total.asked + len(inside),
            total.benches_with_winner + any(one.winner for one in found),
            total.benches + 1,
            total.main_within + sum(main),
            total.main_asked + len(main),
        )
        yield total
