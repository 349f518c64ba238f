"""A simulated server on a free port of this machine, with a client, for one test."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import orjson

from router.sim.profiles import PROFILES
from router.sim.server import Listener
from router.sim.state import Build, Sim

MODEL = "smollm2-135m"
FAST = replace(PROFILES["fast"], max_model_len=2048)


@dataclass(slots=True)
class Served:
    """The server and who asks it."""

    sim: Sim
    client: httpx.AsyncClient

    async def chat(self, text: str, fault: str | None = None, **more: Any) -> httpx.Response:
        """Ask one thing."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}
        headers = {"x-sim-fault": fault} if fault else {}
        return await self.client.post("/v1/chat/completions", json=body, headers=headers)


@asynccontextmanager
async def served(build: Build | None = None) -> AsyncIterator[Served]:
    """Start a server, stop it at the end."""
    sim = Sim(build or Build(MODEL, FAST, max_logprobs=50), time.time)
    listener = Listener(sim, "127.0.0.1", 0)
    await listener.open()
    url = f"http://127.0.0.1:{listener.port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20.0, trust_env=False) as client:
            yield Served(sim, client)
    finally:
        await listener.close()


def events(text: str) -> list[Any]:
    """The data of a stream's events; [DONE] as it is."""
    found = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else orjson.loads(one) for one in found]


def content(text: str) -> str:
    """What a streamed chat said."""
    chunks = [one for one in events(text) if one != "[DONE]" and one.get("choices")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
