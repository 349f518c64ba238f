"""Fit the simulated engine to a measured one, and let it predict what it was not shown. Pure: time is virtual.

What follows from the model's shape is fixed; four figures of the machine are fitted, by least squares on the logarithms
of the ratios predicted / measured (Levenberg-Marquardt: the derivatives come from running the engine itself).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from router.sim.engine import Engine
from router.sim.host import Host
from router.sim.profiles import FAST
from tests.study.sweep import CONCURRENCIES, OUTPUT_TOKENS, PROMPT_TOKENS, Burst, Bursts, Call, Cell

ITERATIONS = 30
# Of a parameter's logarithm, for the derivatives: the schedule moves in steps, so a small one alone gets stuck on one
# and a big one alone ends beside the goal. In turns, each from where the last one came to.
NUDGES = (0.02, 0.2, 0.05, 0.02, 0.005)
CLOSE = 1e-8  # sum of squared logarithms: as near as anybody asks
STUCK = 1e6  # damping at which no direction leads on

# SmolLM2-135M in bf16 (its config): 30 layers of width 576, 3 KV heads of 64, dense. As the server is started.
SHAPE = replace(
    FAST, name="smollm2-135m-cpu", always_read_gb=0.269, routed_gb=0.0, routed_share=0.0,
    kv_bytes_per_token=30 * 2 * 3 * 64 * 2, dense_efficiency=1.0, flop_per_token=2 * 134.5e6,
    attention_flop=4 * 30 * 576, kv_tokens=46_592, max_model_len=8192, max_num_seqs=16, max_batched_tokens=512,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """What is fitted: the machine, not the model."""

    bandwidth_gb_s: float = 20.0  # at which weights and KV are read
    overhead_s: float = 0.005  # of each step
    state_gb: float = 0.02  # what one more sequence adds to a step, as bytes read
    compute_flop_s: float = 2e11  # that prefill reaches

    def logs(self) -> list[float]:
        """Return the four as logarithms, in their order."""
        return [math.log(one) for one in (self.bandwidth_gb_s, self.overhead_s, self.state_gb, self.compute_flop_s)]


def from_logs(logs: Sequence[float]) -> Machine:
    """Turn what `Machine.logs` gave back into a machine."""
    return Machine(*(math.exp(one) for one in logs))


def predict(machine: Machine, prompt_tokens: int, sent_s: Sequence[float]) -> Burst:
    """Run the engine itself in virtual time on calls of one length, sent at these moments."""
    profile = replace(
        SHAPE, overhead_s=machine.overhead_s, state_gb=machine.state_gb, compute_flop_s=machine.compute_flop_s
    )
    engine = Engine(profile, Host(machine.bandwidth_gb_s))
    waiting = sorted(enumerate(sent_s), key=lambda one: -one[1])
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    now = 0.0
    while waiting or engine.is_busy():
        if not engine.is_busy():
            now = max(now, waiting[-1][1])
        while waiting and waiting[-1][1] <= now:
            engine.submit(str(waiting.pop()[0]), prompt_tokens, OUTPUT_TOKENS)
        result = engine.step(now)
        now += result.duration_s
        for name in result.tokens:
            first.setdefault(name, now)
            last[name] = now
    names = [str(number) for number in range(len(sent_s))]
    return tuple(
        Call(sent, first[name] - sent, (last[name] - first[name]) / (OUTPUT_TOKENS - 1))
        for name, sent in zip(names, sent_s, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Row:
    """Means over the calls of a cell, in seconds, measured and predicted."""

    cell: Cell
    ttft_s: float
    ttft_predicted_s: float
    tpot_s: float
    tpot_predicted_s: float

    def errors(self) -> tuple[float, float]:
        """Return the relative errors of TTFT and TPOT, with their sign."""
        return self.ttft_predicted_s / self.ttft_s - 1.0, self.tpot_predicted_s / self.tpot_s - 1.0


def compare(machine: Machine, bursts: Bursts) -> list[Row]:
    """Predict every burst as it was sent and put both beside each other, per cell."""
    rows = []
    for cell, measured in bursts.items():
        predicted = [predict(machine, cell.prompt_tokens, [call.sent_s for call in burst]) for burst in measured]
        seen, said = [sum(group, ()) for group in (measured, predicted)]
        means = [statistics.fmean(read(call) for call in calls) for read in (_ttft, _tpot) for calls in (seen, said)]
        rows.append(Row(cell, *means))
    return rows


def _ttft(call: Call) -> float:
    return call.ttft_s


def _tpot(call: Call) -> float:
    return call.tpot_s


def split(bursts: Bursts) -> tuple[Bursts, Bursts]:
    """Part the cells like the squares of a chess board: (to fit, to predict); both have every row and column."""

    def is_shown(cell: Cell) -> bool:
        return (CONCURRENCIES.index(cell.concurrency) + PROMPT_TOKENS.index(cell.prompt_tokens)) % 2 == 0

    shown = {cell: found for cell, found in bursts.items() if is_shown(cell)}
    return shown, {cell: found for cell, found in bursts.items() if cell not in shown}


def fit(bursts: Bursts) -> Machine:
    """Find the machine on which the engine comes closest to these bursts."""

    def residuals(logs: Sequence[float]) -> list[float]:
        rows = compare(from_logs(logs), bursts)
        return [math.log1p(error) for row in rows for error in row.errors()]

    found = Machine().logs()
    for nudge in NUDGES:
        found = least_squares(residuals, found, nudge)
    return from_logs(found)


def least_squares(residuals: Callable[[Sequence[float]], list[float]], start: list[float], nudge: float) -> list[float]:
    """Levenberg-Marquardt with forward differences; what is not determined stays near where it started."""
    at, here, damping = start, residuals(start), 0.01
    for _ in range(ITERATIONS):
        if damping > STUCK or _dot(here, here) < CLOSE:
            break
        slopes = []  # one list per parameter
        for index in range(len(at)):
            there = residuals([value + nudge * (position == index) for position, value in enumerate(at)])
            slopes.append([(new - old) / nudge for new, old in zip(there, here, strict=True)])
        matrix = [[_dot(one, other) for other in slopes] for one in slopes]
        for index, row in enumerate(matrix):
            row[index] += damping * (row[index] + 1e-6)
        move = solve(matrix, [-_dot(one, here) for one in slopes])
        candidate = [value + max(-1.0, min(1.0, by)) for value, by in zip(at, move, strict=True)]
        there = residuals(candidate)
        if _dot(there, there) < _dot(here, here):
            at, here, damping = candidate, there, damping / 5
        else:
            damping *= 10
    return at


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a small linear system by elimination with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(size):
            if row != column:
                factor = rows[row][column] / rows[column][column]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[size] / row[index] for index, row in enumerate(rows)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
