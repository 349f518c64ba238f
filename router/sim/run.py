"""The answers of one call on their way through the engine: submitted together, given out token by token."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from router.sim.answer import Answer, Piece, scored
from router.sim.blocks import BLOCK_TOKENS, block_hashes
from router.sim.driver import Running, tokens_of
from router.sim.faults import Faults
from router.sim.language import LanguageModel
from router.sim.state import Sim
from router.sim.wish import Wish, bad


class Run:
    """One call's answers. `close` frees everything, however the call ends."""

    def __init__(self, sim: Sim, prompts: Sequence[Sequence[int]], wish: Wish, faults: Faults) -> None:
        """Check that every prompt fits. Raises Refusal in vLLM's words."""
        self.sim = sim
        self.wish = wish
        self.model: LanguageModel = sim.model_for(faults)
        self.prompts = [list(ids) for ids in prompts]
        self.answers = [
            Answer(n, self.model, ids, wish, self._limit(ids), seed=sim.dice.getrandbits(32))
            for n, ids in enumerate(ids for ids in self.prompts for _ in range(wish.n))
        ]
        self._running: list[Running] = []
        self._id = f"run-{sim.new_id()}"

    def __repr__(self) -> str:
        return f"<Run {self._id} {len(self.answers)} answers>"

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together, each once."""
        return sum(map(len, self.prompts))

    @property
    def written(self) -> int:
        """Output tokens so far, of all answers."""
        return sum(len(answer.pieces) for answer in self.answers)

    @property
    def cached(self) -> int | None:
        """Prompt tokens that came from the cache; None where the server does not report them."""
        return sum(one.cached for one in self._running) if self.sim.build.reports_cached else None

    async def pieces(self) -> AsyncGenerator[tuple[Answer, list[Piece], bool], None]:
        """(answer, its new tokens, whether it is complete) as the engine computes them."""
        queue: asyncio.Queue[tuple[int, int, bool]] = asyncio.Queue()
        now = asyncio.get_running_loop().time()
        reads_cache = self.wish.prompt_logprobs is None  # such a request computes every prompt token (vLLM)
        for answer in self.answers:
            running = Running(answer.index, queue, now, len(answer.prompt), answer.limit, answer.advance)
            self._running.append(running)
            hashes = block_hashes(answer.prompt)
            self.sim.driver.submit(self._name(answer), running, hashes, reads_cache)
        given = dict.fromkeys(range(len(self.answers)), 0)
        async for index, _ in tokens_of(queue, len(self.answers)):
            answer = self.answers[index]
            new = answer.pieces[given[index] :]
            given[index] = len(answer.pieces)
            is_last = answer.finish_reason is not None
            if is_last:
                self.sim.count_finish(answer.finish_reason or "stop")
            yield answer, new, is_last

    async def finish(self) -> None:
        """Compute all of it. Raises Refusal where the result holds NaN that JSON cannot say (seen on 0.33)."""
        async for _ in self.pieces():
            pass
        if self.model.flavour.is_nan and (self.wish.top_logprobs is not None or self.wish.prompt_logprobs is not None):
            raise bad("Out of range float values are not JSON compliant: nan")

    def close(self) -> None:
        """Drop what is not finished."""
        for answer in self.answers[: len(self._running)]:
            self.sim.driver.abort(self._name(answer))

    def prompt_logprobs(self, prompt: Sequence[int]) -> list[dict[str, Any] | None] | None:
        """Of one prompt, None where they were not asked for."""
        top = self.wish.prompt_logprobs
        if top is None:
            return None
        rows = scored(prompt, self.model, top)
        if any(row and any(math.isnan(one["logprob"]) for one in row.values()) for row in rows[1:2]):
            raise bad("Out of range float values are not JSON compliant: nan")
        return rows

    def _name(self, answer: Answer) -> str:
        return f"{self._id}-{answer.index}"

    def _limit(self, prompt: Sequence[int]) -> int:
        """How many tokens the answer to a prompt may have; vLLM 0.33 clamps to the rest of the context."""
        longest = self.sim.build.profile.max_model_len
        if len(prompt) >= longest:
            raise bad(
                f"This model's maximum context length is {longest} tokens. However, your prompt contains at least "
                f"{longest + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce "
                "the length of the input prompt.", "input_tokens", longest + 1,
            )  # fmt: skip
        if not prompt:
            raise bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        room = min(longest, self.sim.engine.blocks.capacity * BLOCK_TOKENS) - len(prompt)
        wanted = room if self.wish.max_tokens is None else min(self.wish.max_tokens, room)
        return max(1, wanted)
