"""How often the bench is right: `python -m tests.benchcmd.coverage [--live] [--benches N] [--only pairs|equal]`.

Without `--live`: 500 benches in virtual time over noisy engines, of different backends and of equal ones. With it: 20
benches each of real `router sim` processes over HTTP, about half an hour; few of them at a time, since the truth is
that of engines that get the processor when they want it. Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from router.bench.client import HttpTarget, http_client
from router.bench.measured import Key, rates_of
from router.bench.plan import Condition, Plan, Shape, Subject
from router.bench.runner import Runner
from router.bench.verdict import Comparison, compare
from tests.benchcmd.study import PAIRS, tally, truth
from tests.processes import Process, answers, free_port, router_command

BENCHES, LIVE_BENCHES, LIVE_RIGHT = 500, 20, 17
LOW, HIGH, MOST_WINNERS = 0.92, 0.98, 0.08
EQUAL = (("marlin", "marlin"),)
LIVE_ROUNDS = 4
LIVE_CONDITIONS = tuple(
    Condition(shape, n) for shape in (Shape("short", "long", 128, 48), Shape("long", "short", 1792, 4)) for n in (1, 2)
)
_STARTS_WITHIN_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--live", action="store_true", help="real processes and sockets")
    parser.add_argument("--benches", type=int, help=f"how many [default: {BENCHES}, live {LIVE_BENCHES}]")
    parser.add_argument("--only", choices=("pairs", "equal"), help="one half of it")
    given = parser.parse_args()
    halves = [given.only] if given.only else ["pairs", "equal"]
    if given.live:
        return max(live(half, given.benches or LIVE_BENCHES) for half in halves)
    return max(virtual(half, given.benches or BENCHES) for half in halves)


def virtual(half: str, benches: int) -> int:
    began = time.monotonic()
    *_, found = tally(PAIRS if half == "pairs" else EQUAL, range(benches))
    print(
        f"{half}: {found.within} of {found.asked} intervals ({found.share:.1%}) hold the truth, main questions "
        f"{found.main_within} of {found.main_asked}; a winner in {found.benches_with_winner} of {found.benches} "
        f"benches ({time.monotonic() - began:.0f} s)"
    )
    right = LOW <= found.share <= HIGH
    if half == "equal":
        right &= found.benches_with_winner <= MOST_WINNERS * found.benches
    return int(not right)


def live(half: str, benches: int) -> int:
    pairs = PAIRS if half == "pairs" else EQUAL
    truths = {pair: truth(*pair, LIVE_CONDITIONS) for pair in pairs}
    right: Counter[Key] = Counter()
    winners = 0
    for seed in range(benches):
        pair = pairs[seed % len(pairs)]
        found = one_live(pair, seed)
        said = []
        for one in found:
            assert one.ratio is not None, one
            real = truths[pair][one.key]
            holds = one.ratio.low <= real <= one.ratio.high
            right[one.key] += holds
            mark = "" if holds else " MISSED"
            said.append(f"{one.key} {one.ratio.value:.3f} ({one.ratio.low:.3f}-{one.ratio.high:.3f}), {real:.3f}{mark}")
        winners += any(one.winner is not None for one in found)
        print(f"seed {seed}, {' against '.join(pair)}: " + "; ".join(said), flush=True)
    counts = ", ".join(f"{key} {right[key]}" for key in sorted(right, key=lambda key: key.place))
    print(f"{half}, live: of {benches} benches hold the truth: {counts}; a winner was named in {winners}", flush=True)
    wanted = LIVE_RIGHT / LIVE_BENCHES * benches
    return int(min(right.values()) < wanted or (half == "equal" and winners > benches - wanted))


def one_live(pair: tuple[str, str], seed: int) -> list[Comparison]:
    """Two fresh processes, measured, ended."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subjects = []
        for number, profile in enumerate(pair):
            port, name = free_port(), "ab"[number]
            command = [router_command(), "sim", "--port", str(port), "--model", "nano", "--profile", profile]
            log = Path(folder) / f"{name}.log"
            process = Process([*command, "--seed", str(2 * seed + number)], log, os.environ)
            stack.callback(process.stop)
            url = f"http://127.0.0.1:{port}"
            process.wait_until(lambda url=url: answers(f"{url}/health"), _STARTS_WITHIN_S)  # type: ignore[misc]
            subjects.append(Subject(name, url, "nano"))
        return asyncio.run(measured(Plan(tuple(subjects), LIVE_CONDITIONS, LIVE_ROUNDS, seed)))


async def measured(plan: Plan) -> list[Comparison]:
    async with AsyncExitStack() as stack:
        clock = asyncio.get_running_loop().time
        targets = {}
        for one in plan.subjects:
            client = await stack.enter_async_context(http_client(one.url, None))
            targets[one.name] = HttpTarget(one.name, one.model, client, clock)
        outcome = await Runner(plan, targets).run()
    assert not outcome.stopped, outcome
    names = [one.name for one in plan.subjects]
    return compare({name: rates_of(name, outcome.measurements) for name in names}, names)


if __name__ == "__main__":
    sys.exit(main())
