"""What a decision costs: `python -m tests.study.decision_cost` prints microseconds beside the goals."""

from __future__ import annotations

import random
import timeit
from collections.abc import Callable

from router.policy.choose import choose
from router.policy.facts import CallFacts, Candidate, RoutingLimits, Speed
from router.policy.prefix import hashes

PROMPT_BYTES = 400_000


def pool_of(backends: int) -> list[Candidate]:
    """Candidates under load, two on each host."""
    return [
        Candidate(
            f"backend-{n}", (f"host-{n // 2}",), None, n % 4, n % 3, 500.0 * (n % 2), 0.0, n % 3, 8,
            Speed(0.1, 3000.0 + n, 0.013, 0.005, 0.1, 0.1, 50.0), 200.0 * (n % 4), 100.0 * n,
        )
        for n in range(backends)
    ]  # fmt: skip


def seconds(work: Callable[[], object], times: int) -> float:
    """The best of seven rounds: what the machine's other work adds is left out."""
    return min(timeit.repeat(work, number=times, repeat=7)) / times


def main() -> None:
    """Print every cost, with its goal."""
    call, limits = CallFacts("model", prompt_tokens=1000.0), RoutingLimits(slo_ttft_s=2.0, slo_tpot_s=0.1)
    for backends, goal in ((2, 10), (8, 30)):
        pool = pool_of(backends)
        spent = seconds(lambda pool=pool: choose(call, pool, limits, 0.5), 5000)  # type: ignore[misc]
        print(f"choice among {backends} backends: {spent * 1e6:.1f} µs (goal: {goal})")
    body = random.Random(0).randbytes(PROMPT_BYTES)
    print(f"hashing a prompt of 400 kB: {seconds(lambda: hashes(body, 0, b'model'), 20) * 1e3:.2f} ms (goal: 2)")


if __name__ == "__main__":
    main()
