"""Measure one real vLLM: bursts of calls of known length, streamed, each with the moment it was sent.

Prompts are random token ids, so that no call shares a prefix with another; answers have a fixed length (`ignore_eos`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import httpx

CONCURRENCIES = (1, 2, 4, 8)
PROMPT_TOKENS = (64, 160, 384, 768)
OUTPUT_TOKENS = 24
CALL_LIMIT_S = 120.0
LEAST_ROUNDS = 2  # one says nothing of the machine's noise
VOCABULARY = range(1000, 40_000)  # ordinary tokens of the model's 49,152


@dataclass(frozen=True, slots=True)
class Cell:
    """A point of the sweep."""

    concurrency: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when it was sent after its burst began, and what came of it. Seconds."""

    sent_s: float
    ttft_s: float
    tpot_s: float  # mean time between the tokens after the first


Burst = tuple[Call, ...]
Bursts = dict[Cell, list[Burst]]


def cells() -> Iterator[Cell]:
    """Yield every cell of the sweep."""
    for prompt_tokens, concurrency in product(PROMPT_TOKENS, CONCURRENCIES):
        yield Cell(concurrency, prompt_tokens)


async def measure(url: str, model: str, rounds: int, budget_s: float, rng: random.Random) -> Bursts:
    """Run the whole sweep up to `rounds` times, each in another order.

    No round that would end after `budget_s` is begun, beyond the second.
    """
    bursts: Bursts = {cell: [] for cell in cells()}
    began = time.monotonic()
    limits = httpx.Limits(max_connections=max(CONCURRENCIES))
    async with httpx.AsyncClient(base_url=url, timeout=CALL_LIMIT_S, limits=limits) as client:
        await _burst(client, model, Cell(2, 64), rng)  # what only first calls pay
        for done in range(rounds):
            spent_s = time.monotonic() - began
            if done >= LEAST_ROUNDS and spent_s * (done + 1) / done > budget_s:
                break
            for cell in rng.sample(list(bursts), len(bursts)):
                bursts[cell].append(await _burst(client, model, cell, rng))
    return bursts


async def _burst(client: httpx.AsyncClient, model: str, cell: Cell, rng: random.Random) -> Burst:
    prompts = [[rng.choice(VOCABULARY) for _ in range(cell.prompt_tokens)] for _ in range(cell.concurrency)]
    began = time.monotonic()
    return tuple(await asyncio.gather(*(_call(client, model, prompt, began) for prompt in prompts)))


async def _call(client: httpx.AsyncClient, model: str, prompt: list[int], began: float) -> Call:
    """Stream one answer; raise RuntimeError if it is not as long as asked for."""
    body = {"model": model, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "stream": True}
    body |= {"temperature": 0.0, "stream_options": {"include_usage": True}}
    sent = time.monotonic()
    first = last = 0.0
    length = 0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.is_error:
            raise RuntimeError(f"{answer.status_code} for {len(prompt)} tokens: {(await answer.aread())[:200]!r}")
        async for line in answer.aiter_lines():
            if '"finish_reason"' in line:
                last = time.monotonic()
                first = first or last
            elif '"completion_tokens"' in line:
                length = int(line.split('"completion_tokens":')[1].split(",")[0].rstrip("}"))
    if length != OUTPUT_TOKENS:
        raise RuntimeError(f"asked for {OUTPUT_TOKENS} tokens, got {length}")
    return Call(sent - began, first - sent, (last - first) / (OUTPUT_TOKENS - 1))
