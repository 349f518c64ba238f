"""What a router could do that knew true speeds and output lengths: tries each backend on a fluid model of the engines.

For each choice the whole host is played forward, without further arrivals, with the engines' own step costs, and the
one that adds least is taken: seconds until everybody's end, plus a penalty for every call that misses its promise.
It is greedy, so not a proven optimum; it is the yardstick of the study, not a policy anybody could run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.policy.facts import CallFacts
from router.sim.cost import USABLE_SHARE, step_cost
from router.sim.described import Promise
from router.sim.profiles import Profile
from router.sim.replay import Node, Replay
from router.sim.trace import Arrival

MISS_S = 20.0  # what a missed promise counts, in seconds of somebody's time


@dataclass(slots=True)
class Stream:
    """One call in the fluid model."""

    arrival: Arrival
    sent: float
    prefill: float  # tokens still to compute before the first content
    left: float  # output tokens still to come after it
    context: float
    first: float | None


@dataclass(slots=True)
class Fluid:
    """One backend in the fluid model: who decodes, who waits for prefill, in order."""

    profile: Profile
    bandwidth: float
    factor: float
    decoding: list[Stream]
    queue: list[Stream]
    step_s: float = 0.0
    memory: float = 0.0
    compute: float = 0.0

    def price(self, others_memory: float, others_compute: float) -> None:
        """How long its next step takes, and what it takes of the host meanwhile."""
        profile, decoding, queue = self.profile, self.decoding, self.queue
        count = len(decoding)
        chunk, pairs, context = 0.0, 0.0, sum([one.context for one in decoding])
        if queue:
            chunk = min(queue[0].prefill, profile.max_batched_tokens - count)
            context += queue[0].context
            pairs = chunk * (queue[0].context - queue[0].prefill + chunk / 2)
        sequences = count + (1 if queue else 0)
        cost = step_cost(
            profile, self.bandwidth, sequences, int(count + max(1.0, chunk) if queue else count), int(context), pairs
        )
        compute_s = cost.compute_s if queue else 0.0
        stretched = cost.memory_s * max(1.0, (cost.memory_share + others_memory) / USABLE_SHARE)
        self.step_s = (profile.overhead_s + stretched + compute_s * (1.0 + others_compute)) * self.factor
        alone = profile.overhead_s + cost.memory_s + compute_s
        self.memory, self.compute = cost.memory_share * cost.memory_s / alone, compute_s / alone

    def until_event(self) -> float:
        """Seconds until its batch changes at this pace."""
        if self.queue:
            chunk = min(self.queue[0].prefill, self.profile.max_batched_tokens - len(self.decoding))
            steps = self.queue[0].prefill / max(1.0, chunk)
            return steps * self.step_s
        return max(1.0, min([one.left for one in self.decoding])) * self.step_s


def _play(fluids: Sequence[Fluid], now: float, promise: Promise) -> float:
    """The cost of letting everybody on a host come to their end."""
    cost, at = 0.0, now
    busy = [one for one in fluids if one.decoding or one.queue]
    for one in busy:
        one.price(0.0, 0.0)
    while busy:
        memory, compute = sum([one.memory for one in busy]), sum([one.compute for one in busy])
        for one in busy:
            one.price(memory - one.memory, compute - one.compute)
        passed = min([one.until_event() for one in busy]) + 1e-9
        at += passed
        for one in busy:
            cost += _advance(one, passed, at, now, promise)
        busy = [one for one in busy if one.decoding or one.queue]
    return cost


def _advance(one: Fluid, passed: float, at: float, now: float, promise: Promise) -> float:
    """Move one backend on; the cost of those who ended."""
    steps, cost, staying = passed / one.step_s, 0.0, []
    for stream in one.decoding:
        stream.left -= steps
        stream.context += steps
        if stream.left <= 0.5:
            cost += _ended(stream, at, now, promise)
        else:
            staying.append(stream)
    if one.queue:
        head = one.queue[0]
        head.prefill -= steps * min(head.prefill, one.profile.max_batched_tokens - len(one.decoding))
        if head.prefill <= 1.0:
            head.first = at
            one.queue.pop(0)
            if head.left <= 0.5:
                cost += _ended(head, at, now, promise)
            else:
                staying.append(head)
    one.decoding = staying
    return cost


def _ended(stream: Stream, at: float, now: float, promise: Promise) -> float:
    arrival = stream.arrival
    first = stream.first if stream.first is not None else at
    missed = first - stream.sent > promise.ttft_of(arrival.prompt_tokens)
    if arrival.output_tokens > 1:
        missed = missed or (at - first) / (arrival.output_tokens - 1) > promise.tpot_s
    return at - now + (MISS_S if missed else 0.0)


def _streams(node: Node, now: float) -> tuple[list[Stream], list[Stream]]:
    decoding, queue = [], []
    for name, flight in node.flights.items():
        arrival = flight.arrival
        if name in node.unanswered:
            cached = flight.cached or max(0.0, flight.facts.prompt_tokens - flight.uncached)
            prefill = max(1.0, arrival.prompt_tokens - cached)
            queue.append(Stream(arrival, flight.sent, prefill, arrival.output_tokens - 1, arrival.prompt_tokens, None))
        else:
            emitted = 1 + node.steps - flight.first_step
            left = max(1.0, arrival.output_tokens - emitted)
            context = arrival.prompt_tokens + emitted
            decoding.append(Stream(arrival, flight.sent, 0.0, left, context, flight.first))
    return decoding, queue


def _host_cost(replay: Replay, host: str, added: tuple[Node, Arrival, float] | None) -> float:
    fluids = []
    for node in replay.nodes:
        if node.spec.host != host:
            continue
        decoding, queue = _streams(node, replay.now)
        if added is not None and added[0] is node:
            _, arrival, warm = added
            prefill = max(1.0, arrival.prompt_tokens - warm)
            queue.append(Stream(arrival, replay.now, prefill, arrival.output_tokens - 1, arrival.prompt_tokens, None))
        bandwidth = node.engine.host.bandwidth_gb_s
        fluids.append(Fluid(node.spec.profile, bandwidth, node.engine.slow_factor, decoding, queue))
    return _play(fluids, replay.now, replay.fleet.promise)


def oracle(replay: Replay, arrival: Arrival, facts: CallFacts, pool: Sequence[Node]) -> str:
    """The backend that adds least, everything known."""
    before = {host: _host_cost(replay, host, None) for host in {node.spec.host for node in pool}}
    best, least = pool[0], float("inf")
    for node in pool:
        warm = node.prefixes.warm_tokens(facts.prefix) if facts.prefix else 0.0
        added = _host_cost(replay, node.spec.host, (node, arrival, warm)) - before[node.spec.host]
        if added < least:
            best, least = node, added
    return best.spec.name
