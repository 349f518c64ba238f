"""Calls of a trace played through HTTP: what each asks, when it is sent, and what its client saw."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import httpx

from router.sim.replay import Ended
from router.sim.tokens import WORDS
from router.sim.trace import PREFIX_BLOCK, Arrival, at_rate, slice_of

FRAME_TOKENS = 16  # of the chat template and the order to count, beside the words of a prompt
PLACE = 100  # calls in a row of the trace; a longer window plays them again
LIMIT_S = 180.0  # a call that takes longer has failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call of a schedule by its number: what came of it, or why nothing did."""

    number: int
    ended: Ended | None
    failure: str = ""
    prompt_tokens: int = 0  # as the server counted them, beside the trace's


def schedule(calls: Sequence[Arrival], seconds: float, tokens_per_s: float, seed: int, longest: int) -> list[Arrival]:
    """Poisson arrivals for so many seconds, from one place of a trace, at that mean rate of answer tokens.

    The rate in calls a second follows from the mean answer of the place, so that places with long answers and places
    with short ones load a fleet alike.
    """
    place = slice_of(calls, PLACE, seed, longest)
    per_s = tokens_per_s / mean(one.output_tokens for one in place)
    rounds = int(3 * per_s * seconds) // len(place) + 1  # more than come in time
    timed = at_rate(place * rounds, per_s, seed)
    return [one for one in timed if one.at < seconds]


def prompt(arrival: Arrival, number: int) -> str:
    """Words as long as the trace's prompt, the same for the same leading blocks, and an order that sets the answer.

    The simulated model counts as far as it is told, a token a number: the router can't read the answer's length from
    the parameters of the call, as it can't for real ones.
    """
    wanted = max(1, arrival.prompt_tokens - FRAME_TOKENS)
    words: list[str] = []
    for block in arrival.blocks[: wanted // PREFIX_BLOCK]:
        words += random.Random(block).choices(WORDS, k=PREFIX_BLOCK)
    words += random.Random(-1 - number).choices(WORDS, k=wanted - len(words))
    return f"{' '.join(words)}\ncount to {arrival.output_tokens}"


def body_of(arrival: Arrival, number: int) -> dict[str, Any]:
    """The call as a client sends it."""
    return {
        "model": arrival.model,
        "messages": [{"role": "user", "content": prompt(arrival, number)}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def play(url: str, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Send every call at its moment, whatever became of those before it; return what came of each, in order."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S, limits=limits, trust_env=False) as client:
        began = time.monotonic()
        return await asyncio.gather(*(_timed(client, n, one, began) for n, one in enumerate(arrivals)))


async def _timed(client: httpx.AsyncClient, number: int, arrival: Arrival, began: float) -> Outcome:
    body = body_of(arrival, number)
    await asyncio.sleep(max(0.0, began + arrival.at - time.monotonic()))
    try:
        async with asyncio.timeout(LIMIT_S):
            return await _call(client, number, arrival, body)
    except (httpx.TransportError, TimeoutError) as fault:
        return Outcome(number, None, f"{type(fault).__name__}: {fault}")


async def _call(client: httpx.AsyncClient, number: int, arrival: Arrival, body: dict[str, Any]) -> Outcome:
    sent = time.monotonic()
    first = last = 0.0
    usage: dict[str, Any] = {}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            return Outcome(number, None, f"{answer.status_code}: {(await answer.aread())[:200]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Outcome(number, None, f"in the stream: {line[:200]}")
            if any(choice["delta"].get("content") for choice in event["choices"]):
                last = time.monotonic()
                first = first or last
            usage = event.get("usage") or usage
    if not usage or not first:
        return Outcome(number, None, "a stream without content or usage")
    return Outcome(
        number,
        ended(arrival, answer.headers.get("x-router-backend", "?"), usage["completion_tokens"], sent, first, last),
        prompt_tokens=usage["prompt_tokens"],
    )


def ended(arrival: Arrival, backend: str, tokens: int, sent: float, first: float, last: float) -> Ended:
    """A call as the virtual study has it, so that both are judged by the same rule."""
    tpot = (last - first) / (tokens - 1) if tokens > 1 else 0.0
    return Ended(
        arrival.at,
        backend,
        arrival.model,
        arrival.prompt_tokens,
        tokens,
        0,
        first - sent,
        tpot,
        last - sent,
        None,
        None,
    )
