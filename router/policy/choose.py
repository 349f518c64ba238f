"""Which backend gets the call, and why: lowest expected time to the end of this call plus the delay put on others.

The predictive policy adds, for each usable candidate: the wait for what is being prefilled there, the prefill of the
part of this prompt that is not warm, the decode of the expected answer at the batch it would join, and what this call
costs everybody already there and on siblings of its hosts. On one Spark decoding is bound by memory bandwidth, so the
last part is what keeps four streams together on one backend instead of spreading them over three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any
from zlib import crc32

from router.policy.facts import CallFacts, Candidate, Choice, Refusal, RoutingLimits

# A step that carries a prefill chunk (up to 8192 tokens) gives each stream there one token, however long it takes: the
# others lose the whole of the prefill's time but for that token.
PREFILL_SHARE = 1.0
BATCH_WHEN_FULL = (
    8.0  # streams in a batch that is full, where the backend says only how many wait (--max-num-seqs 4 to 8)
)
STICKY_BONUS_S = 0.05  # a tie-break: real warmth is counted by `warm_tokens`
OTHERS_WEIGHT = 1.0  # a second of somebody else's time is a second
# Seconds past a promise count this much more. Not many times more: who flees from a full backend to its idle sibling
# makes both of them late (ten times more: goodput 0.57 instead of 0.72 on one Spark at 1.6 times its capacity).
SLO_WEIGHT = 1.0


@dataclass(slots=True)
class Cost:
    """The terms of one candidate's cost, in seconds."""

    wait: float
    prefill: float
    decode: float
    others: float
    slo: float
    bonus: float

    @property
    def total(self) -> float:
        """What is compared; lower is better."""
        return self.wait + self.prefill + self.decode + self.others + self.slo + self.bonus

    @property
    def ttft(self) -> float:
        """Expected time to the first content."""
        return self.wait + self.prefill

    @property
    def end(self) -> float:
        """Expected time to the end of the call."""
        return self.wait + self.prefill + self.decode


def cost_of(call: CallFacts, one: Candidate, limits: RoutingLimits) -> Cost:
    """What giving this call to this backend costs. Monotone in load, prompt length and slowness."""
    speed = one.speed
    streams = one.in_flight + one.waiting
    busy = one.busy_siblings
    if busy is None:
        busy = 1.0 if one.siblings else 0.0
    stretch = 1.0 + speed.contention * busy
    cold = call.prompt_tokens - one.warm_tokens
    prefill = speed.overhead_s + (cold if cold > 0.0 else 0.0) / speed.prefill_rate
    tpot = (speed.tpot_a + speed.tpot_b * (streams + 1.0)) * stretch
    wait = one.prefill_backlog / speed.prefill_rate
    decode = call.output_tokens * tpot
    if one.waiting > 0.0:
        # Its own queue is not empty: a place frees as often as an answer ends there.
        wait += one.waiting * (prefill + decode / BATCH_WHEN_FULL)
    # Everybody there gets slower by one more stream for as long as both last.
    overlap = min(one.remaining, call.output_tokens * one.in_flight)
    others = speed.tpot_b * stretch * overlap + PREFILL_SHARE * prefill * one.decoding
    if one.siblings:
        # Waking it slows every stream beside it; where it is busy anyway, only what it stays busy for longer does.
        alone = call.output_tokens / (call.output_tokens + one.remaining + 1e-9) if one.in_flight else 1.0
        others += one.siblings * alone * decode * (1.0 - 1.0 / (1.0 + speed.contention))
    slo = 0.0
    if limits.slo_ttft_s is not None and wait + prefill > limits.slo_ttft_s:
        slo += SLO_WEIGHT * (wait + prefill - limits.slo_ttft_s)
    if limits.slo_tpot_s is not None:
        # Calls already there stand still while this prompt is computed, those still before their first content too
        # (their turn comes first), and fall behind their promised pace. A short answer cannot make up for it, and how
        # long each will be nobody knows: all of that time counts.
        slo += SLO_WEIGHT * prefill * one.in_flight
        if tpot > limits.slo_tpot_s:
            slo += SLO_WEIGHT * call.output_tokens * (tpot - limits.slo_tpot_s)
    bonus = -STICKY_BONUS_S if one.sticky and limits.sticky else 0.0
    if one.ramp < 1.0:
        # It returns or is new: the share it may have yet is kept by asking more of it than it costs.
        bonus += (1.0 / max(one.ramp, 0.05) - 1.0) * 0.1 * (prefill + decode)
    return Cost(wait, prefill, decode, OTHERS_WEIGHT * others, slo, bonus)


Policy = Callable[[CallFacts, Sequence[Candidate], RoutingLimits, float], Choice]
"""One of the usable candidates (never empty) for a call; the draw is uniform in [0, 1)."""


def choose(call: CallFacts, candidates: Sequence[Candidate], limits: RoutingLimits, draw: float) -> Choice | Refusal:
    """The backend for a call, or why nobody can take it.

    A candidate that is only a last resort counts where nobody else is usable.
    """
    usable = [one for one in candidates if one.barred is None and (one.cap is None or one.in_flight < one.cap)]
    if len(usable) > 1:
        preferred = [one for one in usable if not one.last_resort]
        usable = preferred or usable
    if not usable:
        return Refusal({one.name: one.barred or f"full: {one.in_flight} in flight" for one in candidates})
    if len(usable) == 1:
        return Choice(usable[0].name, "the only one that can take it", *_predicted(call, usable[0], limits))
    return POLICIES.get(limits.policy, predictive)(call, usable, limits, draw)


def _predicted(call: CallFacts, one: Candidate, limits: RoutingLimits) -> tuple[float, float]:
    cost = cost_of(call, one, limits)
    return cost.ttft, cost.end


def predictive(call: CallFacts, usable: Sequence[Candidate], limits: RoutingLimits, draw: float) -> Choice:
    """Soonest end, delay of others included; now and then somebody of whom too little is known."""
    costs = [(cost_of(call, one, limits), one) for one in usable]
    best, winner = min(costs, key=lambda pair: (pair[0].total, pair[1].name))
    reason = "soonest end"
    if limits.exploration > 0.0 and draw < limits.exploration:
        explored = _explore(call, costs, best, draw / limits.exploration)
        if explored is not None:
            best, winner = explored
            reason = "explored: too little is known of it"
    elif winner.sticky:
        reason = "soonest end, and it has this session"
    return Choice(winner.name, reason, best.ttft, best.end, {one.name: cost.total for cost, one in costs})


def _explore(
    call: CallFacts, costs: Sequence[tuple[Cost, Candidate]], best: Cost, draw: float
) -> tuple[Cost, Candidate] | None:
    """Thompson-like: each candidate's end is drawn from its own uncertainty; the lowest draw goes.

    Not between backends that share a host (each would slow the other), not onto what is idle for a reason, and not
    away from a warm prefix that is worth more than there is to learn.
    """
    sampled: list[tuple[float, Cost, Candidate]] = []
    for index, (cost, one) in enumerate(costs):
        if one.siblings or one.ramp < 1.0:
            continue
        # One draw is turned into one per candidate: fractional parts of multiples of the golden ratio.
        u = (draw + index * 0.6180339887) % 1.0
        z = log(max(u, 1e-9) / max(1.0 - u, 1e-9)) / 1.702  # logistic, close to normal
        sampled.append((cost.end * (1.0 + z * one.speed.spread) + cost.others, cost, one))
    if not sampled:
        return None
    _, cost, one = min(sampled, key=lambda entry: entry[0])
    warmest = max(other.warm_tokens for _, other in costs)
    worth = (warmest - one.warm_tokens) / one.speed.prefill_rate
    if worth > one.speed.spread * cost.end or cost.total > 3.0 * best.total + 1.0:
        return None
    return cost, one


def least_in_flight(call: CallFacts, usable: Sequence[Candidate], limits: RoutingLimits, draw: float) -> Choice:
    """Fewest calls in flight; ties by the draw."""
    fewest = min(one.in_flight for one in usable)
    tied = [one for one in usable if one.in_flight == fewest]
    one = tied[int(draw * len(tied))]
    return Choice(one.name, f"fewest in flight: {fewest}", *_predicted(call, one, limits))


class _RoundRobin:
    """In turn, by name. The one policy that remembers: which turn it is, per model."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def __call__(self, call: CallFacts, usable: Sequence[Candidate], limits: RoutingLimits, draw: float) -> Choice:
        turn = self._turns[call.model] = self._turns.get(call.model, -1) + 1
        one = sorted(usable, key=lambda one: one.name)[turn % len(usable)]
        return Choice(one.name, "its turn", *_predicted(call, one, limits))


def prefix_hash(call: CallFacts, usable: Sequence[Candidate], limits: RoutingLimits, draw: float) -> Choice:
    """Rendezvous hashing of the session, else of the prompt's first block: the same conversation, the same backend.

    Without either the draw decides. A backend at twice the mean load is passed over (Mirrokni et al., "Consistent
    Hashing with Bounded Loads", 2018).
    """
    key = call.session or (f"{call.prefix[0]:x}" if call.prefix else None)
    bound = 2.0 * (sum(one.in_flight for one in usable) / len(usable)) + 1.0
    free = [one for one in usable if one.in_flight <= bound] or list(usable)
    if key is None:
        one = free[int(draw * len(free))]
        return Choice(one.name, "no session and no prefix: by chance", *_predicted(call, one, limits))
    one = max(free, key=lambda one: crc32(f"{key}\0{one.name}".encode()))
    return Choice(one.name, "hash of its session or prefix", *_predicted(call, one, limits))


POLICIES: dict[str, Policy] = {
    "predictive": predictive,
    "least-in-flight": least_in_flight,
    "round-robin": _RoundRobin(),
    "prefix-hash": prefix_hash,
}


def explain(call: CallFacts, candidates: Sequence[Candidate], limits: RoutingLimits) -> list[dict[str, Any]]:
    """Every candidate with the terms of its cost, or why it was barred; cheapest first. Off the hot path."""
    rows: list[tuple[float, dict[str, Any]]] = []
    for one in candidates:
        cost = cost_of(call, one, limits)
        row: dict[str, Any] = {"name": one.name, "barred": one.barred}
        row |= {
            "cost_s": cost.total,
            "wait_s": cost.wait,
            "prefill_s": cost.prefill,
            "decode_s": cost.decode,
            "others_s": cost.others,
            "slo_s": cost.slo,
            "bonus_s": cost.bonus,
            "in_flight": one.in_flight,
            "cap": one.cap,
            "siblings": one.siblings,
            "warm_tokens": one.warm_tokens,
            "last_resort": one.last_resort,
        }
        rows.append((cost.total + (1e9 if one.barred else 0.0), row))
    return [row for _, row in sorted(rows, key=lambda entry: entry[0])]
