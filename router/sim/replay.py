"""Replays a trace against a described fleet with the router's own policy code, in simulated time.

What the router would see is all the policy is given: lengths learned from usage, speeds learned from finished answers,
its own leases. What happens then is the engines' doing (`engine.py`), which know nothing of the policy.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from router.policy.choose import choose
from router.policy.facts import CallFacts, Candidate, Choice, RoutingLimits, Speed
from router.policy.lengths import LengthModel
from router.policy.prefix import PrefixIndex
from router.policy.speed import SHORTEST_DECODE, HostModel, SpeedModel
from router.sim.blocks import BLOCK_TOKENS
from router.sim.described import DescribedBackend, DescribedFleet
from router.sim.engine import Engine, StepResult
from router.sim.host import Host
from router.sim.trace import PREFIX_BLOCK, Arrival

BYTES_PER_TOKEN, BYTES_SPREAD = 4.4, 0.12  # of a prompt's JSON; the router learns the mean, never the call's own
# What a backend is asked before it gets traffic, one after another (prompt, answer): the router's warm-up.
PROBES = ((64, 48), (1024, 32), (4096, 32), (64, 48), (1024, 32), (4096, 32))


@dataclass(slots=True)
class Flight:
    """One attempt on a backend."""

    arrival: Arrival
    facts: CallFacts
    node: Node
    sent: float
    uncached: float  # prompt tokens that the router believes are not warm
    predicted_ttft: float | None = None
    predicted_end: float | None = None
    backlog_at_send: float = 0.0
    first: float | None = None
    first_step: int = 0  # of its backend, when its first content came
    cached: int = 0
    areas: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Ended:
    """One call that came to its end; seconds and tokens."""

    at: float
    backend: str
    model: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    ttft_s: float
    tpot_s: float
    end_s: float
    predicted_ttft_s: float | None
    predicted_end_s: float | None


@dataclass(slots=True)
class Gauge:
    """A count and its integral over time."""

    value: int = 0
    area: float = 0.0
    at: float = 0.0

    def add(self, change: int, now: float) -> None:
        """Change the count."""
        self.area += self.value * (now - self.at)
        self.at = now
        self.value += change

    def until(self, now: float) -> float:
        """The integral up to now."""
        return self.area + self.value * (now - self.at)


@dataclass(slots=True, eq=False)
class Node:
    """One backend: the engine as it is, and what the router learned of it."""

    spec: DescribedBackend
    engine: Engine
    speed: SpeedModel
    candidate: Candidate
    prefixes: PrefixIndex
    host_active: Gauge  # streams on its host
    host_busy: Gauge  # backends of its host with a stream
    flights: dict[str, Flight] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)  # before their first content
    decoding: Gauge = field(default_factory=Gauge)
    busy: Gauge = field(default_factory=Gauge)
    stepping: bool = False
    steps: int = 0

    def backlog(self) -> float:
        """Prompt tokens, as the router believes, of those before their first content."""
        return sum(self.flights[name].uncached for name in self.unanswered)


@dataclass(frozen=True, slots=True)
class Change:
    """A backend becomes `factor` times as slow as its profile after so many calls; a restart empties its cache."""

    after_calls: int
    backend: str
    factor: float
    restart: bool = False


Chooser = Callable[["Replay", Arrival, CallFacts, Sequence[Node]], str]
"""Decides in place of the policy: an oracle that may look at the engines."""


class Replay:
    """One run. `policy` names one of the router's; `oracle` decides instead where given."""

    def __init__(
        self,
        fleet: DescribedFleet,
        arrivals: Sequence[Arrival],
        policy: str = "predictive",
        *,
        seed: int = 0,
        oracle: Chooser | None = None,
        host_factor: float = 1.0,
        changes: Sequence[Change] = (),
        exploration: float = 0.02,
    ) -> None:
        self.fleet = fleet
        self.arrivals = arrivals
        self.policy = policy
        self.oracle = oracle
        self.host_factor = host_factor
        self.changes = sorted(changes, key=lambda one: one.after_calls)
        self.limits = RoutingLimits(policy, exploration, None, fleet.promise.tpot_s)
        self.now = 0.0
        self.ended: list[Ended] = []
        self.refused = 0
        self._dice = random.Random(seed)
        self._lengths = {model: LengthModel() for model in fleet.traffic}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        hosts = {name: (Host(bandwidth), HostModel(), Gauge(), Gauge()) for name, bandwidth in fleet.hosts.items()}
        self.nodes = [self._node(number, spec, *hosts[spec.host], seed) for number, spec in enumerate(fleet.backends)]
        self.pools = {m: [node for node in self.nodes if node.spec.model == m] for m in fleet.traffic}

    def _node(
        self, number: int, spec: DescribedBackend, host: Host, model: HostModel, active: Gauge, busy: Gauge, seed: int
    ) -> Node:
        engine = Engine(spec.profile, host, seed=seed * 101 + number, key=spec.name)
        speed = SpeedModel.from_kernel_table(spec.profile.moe_kernel.lower(), (model,))
        candidate = Candidate(spec.name, (spec.host,), None, 0, 0, 0.0, 0.0, 0, None, speed.predict(0.0))
        return Node(spec, engine, speed, candidate, PrefixIndex(spec.profile.kv_tokens), active, busy)

    # --- running ---

    def run(self) -> Iterator[int]:
        """Yield how many calls have ended, now and then; the outcome stands in `ended`."""
        self._warm_up()
        for number, arrival in enumerate(self.arrivals):
            self._at(self.now + arrival.at, lambda number=number, one=arrival: self._arrive(number, one))  # type: ignore[misc]
        shown = 0
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
            if len(self.ended) >= shown + 50:
                shown = len(self.ended)
                yield shown
        yield len(self.ended)

    def finish(self) -> list[Ended]:
        """Run to the end."""
        for _ in self.run():
            pass
        return self.ended

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    def _warm_up(self) -> None:
        """The router's warm-up: each backend alone, before there is traffic."""
        for node in self.nodes:
            self._probe(node, node.engine)

    def _probe(self, node: Node, engine: Engine) -> None:
        """Ask a backend the probe calls, one after another, and learn from them. Time passes only for its engine."""
        now = self.now
        for number, (prompt, output) in enumerate(PROBES):
            name = f"probe-{number}"
            engine.submit(name, prompt, output)
            sent, first = now, None
            while engine.is_busy():
                step = engine.step(now)
                now += step.duration_s
                if first is None and step.tokens:
                    first = now
            assert first is not None
            node.speed.observe_first_token(now, first - sent, prompt)
            node.speed.observe_decode(now, output - 1, now - first, 1.0, 0.0)
        engine.host.leave(engine.key)

    # --- a call ---

    def _arrive(self, number: int, arrival: Arrival) -> None:
        while self.changes and number >= self.changes[0].after_calls:
            self._change(self.changes.pop(0))
        model = arrival.model or next(iter(self.fleet.traffic))
        pool = self.pools[model]
        facts = self._facts(model, arrival)
        if self.oracle is not None:
            choice: Choice | None = Choice(self.oracle(self, arrival, facts, pool), "oracle")
        else:
            found = choose(facts, [self._candidate(node, facts) for node in pool], self.limits, self._dice.random())
            choice = found if isinstance(found, Choice) else None
        if choice is None:
            self.refused += 1
            return
        self._send(number, arrival, facts, next(node for node in pool if node.spec.name == choice.name), choice)

    def _facts(self, model: str, arrival: Arrival) -> CallFacts:
        lengths = self._lengths[model]
        prompt = lengths.prompt_tokens(self._bytes(arrival))
        blocks = arrival.blocks[: arrival.prompt_tokens // PREFIX_BLOCK]
        return CallFacts(
            model=model,
            prompt_tokens=prompt,
            output_tokens=lengths.output_tokens(None, None, None),
            prefix=blocks,
            block_tokens=PREFIX_BLOCK,
        )

    def _bytes(self, arrival: Arrival) -> int:
        spread = random.Random(hash((arrival.at, arrival.prompt_tokens))).gauss(0.0, BYTES_SPREAD)
        return max(1, int(arrival.prompt_tokens * BYTES_PER_TOKEN * (1.0 + max(-0.5, spread))))

    def _candidate(self, node: Node, facts: CallFacts) -> Candidate:
        one = node.candidate
        one.in_flight = len(node.flights)
        one.decoding = node.decoding.value
        one.prefill_backlog = node.backlog()
        one.siblings = node.host_active.value - one.in_flight
        one.busy_siblings = node.host_busy.value - (1 if one.in_flight else 0)
        one.remaining = 0.5 * sum(flight.facts.output_tokens for flight in node.flights.values())
        one.warm_tokens = node.prefixes.warm_tokens(facts.prefix) if facts.prefix else 0.0
        one.speed = node.speed.predict(self.now)
        if self.host_factor != 1.0:
            one.speed = _scaled(one.speed, self.host_factor)
        return one

    def _send(self, number: int, arrival: Arrival, facts: CallFacts, node: Node, choice: Choice) -> None:
        now = self.now
        flight = Flight(
            arrival,
            facts,
            node,
            now,
            max(0.0, facts.prompt_tokens - (node.prefixes.warm_tokens(facts.prefix) if facts.prefix else 0.0)),
            choice.ttft_s,
            choice.end_s,
            node.backlog(),
        )
        name = str(number)
        if not node.flights:
            node.host_busy.add(1, now)
        node.flights[name] = flight
        node.unanswered.add(name)
        node.busy.add(1, now)
        node.host_active.add(1, now)
        node.engine.submit(name, arrival.prompt_tokens, arrival.output_tokens, _engine_blocks(arrival))
        if not node.stepping:
            self._step(node)

    def _step(self, node: Node) -> None:
        result = node.engine.step(self.now)
        node.stepping = True
        for name in list(node.unanswered):
            if name in result.tokens:
                # Asked while it is still in the batch, or gone with its only token.
                node.flights[name].cached = node.engine.cached_tokens(name)
        self._at(self.now + result.duration_s, lambda: self._stepped(node, result))

    def _stepped(self, node: Node, result: StepResult) -> None:
        now = self.now
        node.steps += 1
        for name in [name for name in node.unanswered if name in result.tokens]:
            flight = node.flights[name]
            flight.first, flight.first_step = now, node.steps
            node.unanswered.discard(name)
            node.decoding.add(1, now)
            flight.areas = self._load(node)
        for name in result.finished:
            self._end(node, name)
        node.stepping = False
        if node.engine.is_busy():
            self._step(node)
        else:
            node.engine.host.leave(node.engine.key)

    def _load(self, node: Node) -> tuple[float, float]:
        return node.decoding.until(self.now), node.host_busy.until(self.now)

    def _end(self, node: Node, name: str) -> None:
        now = self.now
        flight = node.flights.pop(name)
        arrival, first = flight.arrival, flight.first
        assert first is not None
        seconds, tokens = now - first, arrival.output_tokens - 1
        here, beside = self._load(node)
        if seconds > 0:
            streams = max(1.0, (here - flight.areas[0]) / seconds)
            siblings = max(0.0, (beside - flight.areas[1]) / seconds - 1.0)  # itself is one of them
        else:
            streams, siblings = 1.0, 0.0
        node.decoding.add(-1, now)
        node.busy.add(-1, now)
        node.host_active.add(-1, now)
        if not node.flights:
            node.host_busy.add(-1, now)
        self._learn(flight, first, seconds, tokens, streams, siblings)
        self.ended.append(
            Ended(
                flight.sent,
                node.spec.name,
                flight.facts.model,
                arrival.prompt_tokens,
                arrival.output_tokens,
                flight.cached,
                first - flight.sent,
                seconds / tokens if tokens else 0.0,
                now - flight.sent,
                flight.predicted_ttft,
                flight.predicted_end,
            )
        )

    def _learn(
        self, flight: Flight, first: float, seconds: float, tokens: int, streams: float, siblings: float
    ) -> None:
        """As the router learns from a finished answer."""
        arrival, node = flight.arrival, flight.node
        lengths = self._lengths[flight.facts.model]
        lengths.observe_prompt(self._bytes(arrival), arrival.prompt_tokens)
        lengths.observe_output(None, None, arrival.output_tokens)
        if flight.facts.prefix:
            node.prefixes.correct(flight.facts.prefix, flight.cached)
            node.prefixes.add(flight.facts.prefix, arrival.prompt_tokens)
        uncached = max(0, arrival.prompt_tokens - flight.cached)
        node.speed.observe_first_token(self.now, first - flight.sent, uncached, flight.backlog_at_send)
        if tokens >= SHORTEST_DECODE and seconds > 0:
            node.speed.observe_decode(self.now, tokens, seconds, streams, siblings)

    def _change(self, change: Change) -> None:
        node = next(node for node in self.nodes if node.spec.name == change.backend)
        node.engine.slow_factor = change.factor
        if change.restart:
            # Its streams would have died; here they go on, which changes nothing about who is chosen next. The quick
            # re-check that follows a restart meets the new speed: it is asked of a twin, since the engine is busy.
            node.engine.blocks.forget()
            node.prefixes.clear()
            node.speed = node.speed.as_prior()
            twin = Engine(node.spec.profile, Host(node.engine.host.bandwidth_gb_s))
            twin.slow_factor = change.factor
            self._probe(node, twin)


def _scaled(speed: Speed, factor: float) -> Speed:
    return replace(speed, contention=speed.contention * factor)


def _engine_blocks(arrival: Arrival) -> tuple[int, ...]:
    """The engine's blocks of 16 tokens for the trace's blocks of 512."""
    each = PREFIX_BLOCK // BLOCK_TOKENS
    full = arrival.prompt_tokens // PREFIX_BLOCK
    return tuple([hash((block, part)) for block in arrival.blocks[:full] for part in range(each)])
