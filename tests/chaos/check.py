"""What a client saw of one call, judged: whole and right, failed visibly, or one of the things that must never be."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

LOST_S = 300.0  # a swallowed request ends after first_byte_s (120 s); all else within 40 s, or more on a slow machine
OK, VISIBLE, LEFT = "ok", "failed visibly", "left by choice"
NEVER = ("lost", "wrong bytes", "clean-looking truncation", "two ends", "broken error shape")


@dataclass
class Tally:
    """What all clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, verdict: str, detail: str) -> None:
        """Count one call; keep the first example of what must never be."""
        self.counts[verdict] += 1
        if verdict in NEVER:
            self.examples.setdefault(verdict, detail[:2000])

    @property
    def never(self) -> int:
        """Calls that ended in a way that must never be."""
        return sum(self.counts[name] for name in NEVER)


def expected(count: int) -> str:
    """The answer to "count to N", as the simulated backend gives it."""
    return " ".join(str(number) for number in range(1, count + 1))


async def call(
    client: httpx.AsyncClient, model: str, count: int, *, stream: bool, leave_after: int | None
) -> tuple[str, str]:
    """One call; returns its verdict and what to show of it."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": f"count to {count}"}],
        "max_tokens": 4 * count + 16,
        "temperature": 0,
        "stream": stream,
    }
    try:
        async with asyncio.timeout(LOST_S):
            if stream:
                return await _streamed(client, body, count, leave_after)
            answer = await client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                return _refused(answer.status_code, answer.content)
            text = answer.json()["choices"][0]["message"]["content"]
            return (OK, "") if text.strip() == expected(count) else ("wrong bytes", text)
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        return VISIBLE, f"{type(error).__name__}: {error}"
    except TimeoutError:
        return "lost", f"no end within {LOST_S:g} s"


async def _streamed(
    client: httpx.AsyncClient, body: dict[str, Any], count: int, leave_after: int | None
) -> tuple[str, str]:
    text, dones, finishes, events = "", 0, 0, 0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                return _refused(answer.status_code, await answer.aread())
            async for event in _events(answer):
                events += 1
                if leave_after is not None and events > leave_after:
                    return LEFT, ""
                if event == "[DONE]":
                    dones += 1
                    continue
                document = json.loads(event)
                if "error" in document:
                    return VISIBLE, str(document["error"].get("message"))
                for choice in document["choices"]:
                    text += choice["delta"].get("content") or ""
                    finishes += choice.get("finish_reason") is not None
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        if not expected(count).startswith(text.strip()):
            return "wrong bytes", text
        return VISIBLE, f"{type(error).__name__}: {error}"
    if dones > 1 or finishes != 1:  # a backend that leaves out [DONE] after its finish_reason has answered whole
        verdict = "clean-looking truncation" if finishes == 0 else "two ends"
        return verdict, f"{dones} [DONE], {finishes} finish_reason: {text}"
    return (OK, "") if text.strip() == expected(count) else ("wrong bytes", text)


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def _refused(status: int, content: bytes) -> tuple[str, str]:
    try:
        error = json.loads(content)["error"]
        shaped = isinstance(error, str) or {"message", "type", "code"} <= set(error)
    except (ValueError, KeyError, TypeError):
        shaped = False
    return (VISIBLE if shaped else "broken error shape"), f"{status}: {content[:300]!r}"
