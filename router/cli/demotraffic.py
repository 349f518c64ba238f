"""The demo's clients: a few people who chat, each in conversations of a few turns, at the pace of people."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import httpx

QUESTIONS = (
    "Tell me about the river behind the old harbor.",
    "What is 17 + 25?",
    "count to 40",
    "Describe a quiet morning in the village.",
    "What is 12 times 9?",
    "Explain how a bridge holds, in a few sentences.",
    "Repeat exactly: the lantern keeps the harbor",
    "Write a short story about a carpenter and a clock.",
)
SYSTEM = "You are a patient assistant for people who build small machines. " * 12
TURNS = 4
PAUSE_S = (0.5, 4.0)  # between an answer and the next question


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    answers: int = 0
    failures: int = 0
    last_failure: str = ""

    def __str__(self) -> str:
        text = f"sample traffic: {self.answers} answers, {self.failures} failures"
        return f"{text} (last: {self.last_failure})" if self.last_failure else text


async def person(number: int, url: str, model: str, tally: Tally, seed: int) -> None:
    """One client that chats until it is cancelled."""
    dice = random.Random(f"person {number} {seed}")
    async with httpx.AsyncClient(base_url=url, timeout=120.0, trust_env=False) as client:
        chat = 0
        while True:
            chat += 1
            messages = [{"role": "system", "content": SYSTEM}]
            for _ in range(dice.randint(1, TURNS)):
                await asyncio.sleep(dice.uniform(*PAUSE_S))
                messages.append({"role": "user", "content": dice.choice(QUESTIONS)})
                body = {"model": model, "messages": messages, "stream": True, "max_tokens": 400}
                try:
                    text = await ask(client, body, f"demo-{number}-{chat}")
                except (httpx.HTTPError, ValueError) as error:
                    tally.failures += 1
                    tally.last_failure = str(error) or type(error).__name__
                    break
                tally.answers += 1
                messages.append({"role": "assistant", "content": text})


async def ask(client: httpx.AsyncClient, body: dict[str, object], session: str) -> str:
    """One streamed chat, its text.

    Raises:
        httpx.HTTPError: no answer, or one that broke off.
        ValueError: an answer that says it failed.
    """
    import orjson

    parts: list[str] = []
    finished = False
    async with client.stream("POST", "/chat/completions", json=body, headers={"x-session-id": session}) as answer:
        if answer.status_code != 200:
            await answer.aread()
            raise ValueError(f"{answer.status_code} {answer.text[:200]}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = orjson.loads(line[6:])
            if "error" in event:
                raise ValueError(str(event["error"])[:200])
            for choice in event.get("choices", ()):
                parts.append(choice["delta"].get("content") or "")
                finished = finished or choice.get("finish_reason") is not None
    if not finished:
        raise ValueError("the stream ended without a finish reason")
    return "".join(parts)
