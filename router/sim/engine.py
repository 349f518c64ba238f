"""The simulated vLLM's engine: continuous batching, chunked prefill, a KV cache with a queue, one step at a time.

Pure: no clock, no I/O. Whoever drives it hands in `now` and waits `duration_s` (a discrete-event simulation adds it to
its clock, the HTTP server sleeps). A step costs what it reads from memory and what it computes (`StepCost`), stretched
by what siblings on the same host take at that moment.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.sim.blocks import BLOCK_TOKENS, BlockPool, blocks_for
from router.sim.cost import step_cost
from router.sim.host import HostLike, Load
from router.sim.profiles import Profile


@dataclass(frozen=True, slots=True)
class StepResult:
    """One iteration: what every sequence got when it is over, `duration_s` after the `now` it was asked for."""

    duration_s: float
    tokens: dict[str, int]  # request: how many output tokens this step brought it
    finished: tuple[str, ...]
    prefilled_tokens: int
    preempted: tuple[str, ...] = ()
    admitted: Mapping[str, int] = field(default_factory=dict)  # request: its prompt tokens that were in the cache


@dataclass(slots=True)
class Counters:
    """What the engine counted since it started, in vLLM's units."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0
    steps: int = 0
    drafts: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(slots=True)
class Job:
    """One request inside the engine."""

    request_id: str
    prompt_tokens: int
    max_output_tokens: int
    hashes: tuple[int, ...]  # of the full blocks of prompt and answer, as far as they are known
    reads_cache: bool
    computed: int = 0  # tokens whose KV is there
    emitted: int = 0
    cached: int = 0  # prompt tokens found in the cache when it was first admitted
    named: int = 0  # leading blocks held by hash
    nameless: int = 0
    admitted: bool = False

    @property
    def total(self) -> int:
        """Tokens of prompt and answer so far."""
        return self.prompt_tokens + self.emitted


class Engine:
    """One vLLM engine. `submit` queues, `step` advances everybody by one iteration, `abort` frees at once."""

    def __init__(self, profile: Profile, host: HostLike, seed: int = 0, key: str = "engine") -> None:
        self.profile = profile
        self.host = host
        self.key = key
        self.counters = Counters()
        self.blocks = BlockPool(profile.kv_tokens // BLOCK_TOKENS)
        self.slow_factor = 1.0
        self._random = random.Random(seed)
        self._waiting: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._touched: set[int] = set()
        self._admitted: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Engine {self.profile.name} running={self.running} waiting={self.waiting} kv={self.kv_usage:.2f}>"

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests not admitted yet."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that requests hold, 0 to 1."""
        return self.blocks.used / self.blocks.capacity

    def is_busy(self) -> bool:
        """Is there anything for a step to do?"""
        return bool(self._running or self._waiting)

    def submit(
        self,
        request_id: str,
        prompt_tokens: int,
        max_output_tokens: int,
        hashes: tuple[int, ...] = (),
        reads_cache: bool = True,
    ) -> None:
        """Queue a request. `hashes` (`block_hashes`) say which prefix it shares.

        Raises ValueError where the id is taken, nothing is asked for, or prompt plus answer can never fit.
        """
        if request_id in self._running or any(one.request_id == request_id for one in self._waiting):
            raise ValueError(f"{request_id} is in the engine already")
        if prompt_tokens < 1 or max_output_tokens < 1:
            raise ValueError("a request has at least one prompt token and one output token")
        if blocks_for(prompt_tokens + max_output_tokens) > self.blocks.capacity:
            raise ValueError(f"{prompt_tokens} + {max_output_tokens} tokens exceed the KV cache")
        self._waiting.append(Job(request_id, prompt_tokens, max_output_tokens, hashes, reads_cache))

    def finish(self, request_id: str) -> None:
        """A request's text is complete before its last token: its end token or a stop string came."""
        if self.abort(request_id):
            self.counters.aborted -= 1
            self.counters.finished += 1

    def abort(self, request_id: str) -> bool:
        """Drop a request and free what it holds; say whether it was here."""
        one = self._running.pop(request_id, None)
        if one is not None:
            self._free(one)
        else:
            one = next((w for w in self._waiting if w.request_id == request_id), None)
            if one is None:
                return False
            self._waiting.remove(one)
        self.counters.aborted += 1
        return True

    def cached_tokens(self, request_id: str) -> int:
        """Prompt tokens of a running request that came from the prefix cache."""
        one = self._running.get(request_id)
        return one.cached if one else 0

    def step(self, now: float) -> StepResult:
        """Advance every admitted sequence by one iteration; with nothing to do, a step of length zero."""
        preempted: list[str] = []
        self._admitted = {}
        chunks = self._schedule(preempted)
        if not chunks:
            self.host.leave(self.key)
            return StepResult(0.0, {}, (), 0, tuple(preempted))
        prefilled = sum(count for one, count in chunks if one.total - one.computed > 1)
        duration_s = self._duration(chunks, prefilled, now)
        tokens: dict[str, int] = {}
        finished: list[str] = []
        for one, count in chunks:
            self._advance(one, count, tokens, finished)
        self.counters.steps += 1
        return StepResult(duration_s, tokens, tuple(finished), prefilled, tuple(preempted), self._admitted)

    def _schedule(self, preempted: list[str]) -> list[tuple[Job, int]]:
        """Running sequences first, then the queue in its order; all within the token budget and the KV cache."""
        budget = self.profile.max_batched_tokens
        chunks: list[tuple[Job, int]] = []
        for one in list(self._running.values()):
            count = min(one.total - one.computed, budget)
            if count < 1 or one.request_id not in self._running:
                continue
            if not self._room(one, count, preempted):
                continue
            chunks.append((one, count))
            budget -= count
        chunks = [(one, count) for one, count in chunks if one.request_id in self._running]
        while self._waiting and budget > 0 and not preempted and len(self._running) < self.profile.max_num_seqs:
            one = self._waiting[0]
            if not self._admit(one, budget):
                break
            self._waiting.popleft()
            count = min(one.total - one.computed, budget)
            chunks.append((one, count))
            budget -= count
        return chunks

    def _room(self, one: Job, count: int, preempted: list[str]) -> bool:
        """Take the blocks that `count` more tokens need; whoever came last goes back to the queue for it."""
        need = blocks_for(one.computed + count) - one.named - one.nameless
        while need > 0 and not self.blocks.take(need):
            last = next(reversed(self._running.values()))
            self._preempt(last)
            preempted.append(last.request_id)
            if last is one:
                return False
        one.nameless += max(0, need)
        return True

    def _admit(self, one: Job, budget: int) -> bool:
        """Move a waiting sequence into the batch if its whole text so far fits the cache now."""
        hits = 0
        if one.reads_cache:  # at least one token is always computed: it gives the next one's logits
            hits = min(self.blocks.known(one.hashes), (one.total - 1) // BLOCK_TOKENS)
        found = one.hashes[:hits]
        if blocks_for(one.total) - hits + self.blocks.kept_among(found) > self.blocks.available:
            return False
        self.blocks.hold(found)
        one.named, one.computed = hits, hits * BLOCK_TOKENS
        count = min(one.total - one.computed, budget)
        fresh = blocks_for(one.computed + count) - hits
        self.blocks.take(fresh)
        one.nameless = fresh
        if not one.admitted:
            one.admitted = True
            one.cached = one.computed
            self._admitted[one.request_id] = one.cached
            self.counters.prompt_tokens += one.prompt_tokens
            if one.reads_cache:
                self.counters.prefix_queries += one.prompt_tokens
                self.counters.prefix_hits += one.cached
        self._running[one.request_id] = one
        return True

    def _advance(self, one: Job, count: int, tokens: dict[str, int], finished: list[str]) -> None:
        """Count what a step computed for one sequence, and the tokens that came of it."""
        one.computed += count
        full = min(one.computed // BLOCK_TOKENS, len(one.hashes))
        while one.named < full:
            self.blocks.name(one.hashes[one.named])
            one.named += 1
            one.nameless -= 1
        if one.computed < one.total:
            return
        new = min(1 + self._accepted(), one.max_output_tokens - one.emitted)
        one.emitted += new
        tokens[one.request_id] = new
        self.counters.generation_tokens += new
        if one.emitted >= one.max_output_tokens:
            del self._running[one.request_id]
            self._free(one)
            self.counters.finished += 1
            finished.append(one.request_id)

    def _accepted(self) -> int:
        """How many draft tokens were right: each only counts if the one before it was."""
        profile = self.profile
        if not profile.draft_tokens:
            return 0
        right = 0
        while right < profile.draft_tokens and self._random.random() < profile.draft_accepted:
            right += 1
        self.counters.drafts += 1
        self.counters.drafted_tokens += profile.draft_tokens
        self.counters.accepted_tokens += right
        return right

    def _duration(self, chunks: list[tuple[Job, int]], prefilled: int, now: float) -> float:
        """How long the step takes beside whatever the siblings are doing now."""
        scheduled = sum(count for _, count in chunks)
        context = sum(one.computed + count for one, count in chunks)
        pairs = sum(count * (one.computed + count / 2) for one, count in chunks)
        cost = step_cost(self.profile, self.host.bandwidth_gb_s, len(chunks), scheduled, context, pairs)
        shape = prefilled.bit_length()
        is_new = prefilled > BLOCK_TOKENS and shape not in self._touched
        self._touched.add(shape)
        compute_s = cost.compute_s * (self.profile.first_touch if is_new else 1.0)
        others = self.host.others(self.key, now)
        memory_s = cost.memory_s * max(1.0, (cost.memory_share + others.memory) / cost.usable_share)
        compute_s *= 1.0 + others.compute
        jitter = 1.0 + self.profile.jitter * max(-2.0, min(2.0, self._random.gauss(0.0, 1.0)))
        duration_s = (self.profile.overhead_s + memory_s + compute_s) * jitter * self.slow_factor
        alone_s = self.profile.overhead_s + cost.memory_s + cost.compute_s
        load = Load(cost.memory_share * cost.memory_s / alone_s, cost.compute_s / alone_s)
        self.host.declare(self.key, now, now + duration_s, load)
        return duration_s

    def _preempt(self, one: Job) -> None:
        """Back to the front of the queue; its KV is computed anew."""
        del self._running[one.request_id]
        self._free(one)
        one.computed = 0
        self._waiting.appendleft(one)
        self.counters.preemptions += 1

    def _free(self, one: Job) -> None:
        self.blocks.give_back(one.hashes[: one.named], one.nameless)
        one.named = one.nameless = 0
