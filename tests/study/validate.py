"""How well the simulated engine predicts a real one: sweep a vLLM on CPU, fit half of the cells, predict the others.

`make sim-validate` writes docs/simulator-validation.md. Two to four minutes, once `.real/` is there (see tests/real).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.processes import free_port
from tests.real.install import CannotRun, install
from tests.real.servers import RealVllm, VllmOptions
from tests.study.engine_fit import SHAPE, Machine, Row, compare, fit, split
from tests.study.sweep import OUTPUT_TOKENS, Burst, Bursts, measure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/simulator-validation.md"
GOAL = 0.15
BUDGET_S = 180.0  # for the sweep; a round takes about 70 s on two cores


def main() -> None:
    """Measure, fit, predict, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="bursts per cell at most")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    try:
        bursts = sweep_real(asked.rounds, asked.seed)
    except CannotRun as reason:
        sys.exit(f"no real vLLM was measured: {reason}")
    page = render(bursts, ran_on())
    PAGE.write_text(page)
    print(page)


def sweep_real(rounds: int, seed: int) -> Bursts:
    """Start one real vLLM, sweep it, end it."""
    root = ROOT / ".real"
    installed = install(root)
    server = RealVllm(installed, VllmOptions(installed.good), free_port(), root)
    try:
        server.start()
        print(f"vLLM answers after {server.started_in_s:.0f} s; sweeping", file=sys.stderr)
        return asyncio.run(measure(server.url, server.options.served_as, rounds, BUDGET_S, random.Random(seed)))
    finally:
        server.stop()


def ran_on() -> str:
    """Say what machine this is, and how busy."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    return f"{name}, {len(os.sched_getaffinity(0))} cores (load {load:.1f} when the sweep ended, its own included)"


def median_error(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return the median absolute relative error over both figures, of TTFT and of TPOT."""
    ttft, tpot = ([abs(row.errors()[of]) for row in rows] for of in (0, 1))
    return statistics.median(ttft + tpot), statistics.median(ttft), statistics.median(tpot)


def repeat_error(bursts: Bursts) -> float | None:
    """Return the median relative error with which one burst of a cell foretells its next; None without a second.

    It is judged as the simulator is, over TTFT and TPOT: what the real engine, asked again, says of itself.
    """
    errors = []
    for found in bursts.values():
        means = [mean_of(burst) for burst in found]
        for one, next_one in pairwise(means):
            errors += [abs(said / seen - 1.0) for said, seen in zip(one, next_one, strict=True)]
    return statistics.median(errors) if errors else None


def mean_of(burst: Burst) -> tuple[float, float]:
    """Return the mean TTFT and TPOT of a burst's calls."""
    return statistics.fmean(call.ttft_s for call in burst), statistics.fmean(call.tpot_s for call in burst)


def noise_text(bursts: Bursts) -> str:
    """Say how well the real engine foretells itself, to be held beside the simulator's error."""
    repeated = repeat_error(bursts)
    if repeated is None:
        return "How far the real engine is from itself is not known: no cell was measured twice."
    return (
        f"**The real engine beside itself: {repeated:.0%}**, the median error of one burst as a prediction of the next "
        "in the same cell. Both bursts carry noise there, so an ideal prediction would be off by about 0.7 of it."
    )


def render(bursts: Bursts, machine_text: str) -> str:
    """Fit half of the cells, predict the others, and write the page about it."""
    shown, hidden = split(bursts)
    machine = fit(shown)
    fitted, predicted = compare(machine, shown), compare(machine, hidden)
    error, ttft, tpot = median_error(predicted)
    verdict = "reached" if error <= GOAL else "missed"
    rounds = min(len(found) for found in bursts.values())
    return f"""# The simulator beside a real vLLM

Written by `make sim-validate`.

A real vLLM on CPU (SmolLM2-135M in bf16, {SHAPE.max_batched_tokens} batched tokens) got bursts of calls: {rounds} per
cell, {OUTPUT_TOKENS} output tokens each, no shared prefixes. The engine behind `router sim` and `router simulate` was
fitted to half of the cells and then ran the other half itself, in virtual time, each call sent when it really was.

Ran on: {machine_text}.

**Median absolute error on the cells it was not shown: {error:.0%}** (goal: at most {GOAL:.0%}, {verdict}); TTFT
{ttft:.0%}, TPOT {tpot:.0%}. On the cells it was fitted to: {median_error(fitted)[0]:.0%}.

{noise_text(bursts)}

## Not shown to the fit

{table(predicted)}
## Fitted

{table(fitted)}
## What was fitted

{terms(machine)}
Sizes and operations come from the model's shape. Only these sums are determined well, not how a step's constant part is
divided between overhead and reading the weights.

## What this does not show

How well a GPU is predicted: the scheduler is vLLM's, the arithmetic is a CPU's. Nor what part of the error is noise:
with few bursts per cell, whatever else the machine did meanwhile is in the measured figures. Compare the TPOT of one
call at a time from cell to cell: it should hardly depend on the prompt's length.
"""


def table(rows: Sequence[Row]) -> str:
    """Set out measured beside predicted."""
    lines = ["| Calls at once | Prompt | TTFT s | predicted | error | TPOT ms | predicted | error |"]
    lines.append("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        ttft, tpot = row.errors()
        lines.append(
            f"| {row.cell.concurrency} | {row.cell.prompt_tokens} | {row.ttft_s:.2f} | {row.ttft_predicted_s:.2f} "
            f"| {ttft:+.0%} | {row.tpot_s * 1e3:.0f} | {row.tpot_predicted_s * 1e3:.0f} | {tpot:+.0%} |"
        )
    return "\n".join(lines) + "\n"


def terms(machine: Machine) -> str:
    """Write the fitted machine as what a step pays."""
    step_s = machine.overhead_s + SHAPE.always_read_gb / machine.bandwidth_gb_s
    return f"""- each step: {step_s * 1e3:.1f} ms
- each sequence in it: {machine.state_gb / machine.bandwidth_gb_s * 1e3:.2f} ms
- each prompt token in it: {SHAPE.flop_per_token / machine.compute_flop_s * 1e3:.2f} ms, attention apart
"""


if __name__ == "__main__":
    main()
