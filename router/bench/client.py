"""One backend as the bench asks it: streams with times, its own counters, what it serves. Bounded in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from router.bench.measured import Stream
from router.bench.outcome import CallFailed, Load
from router.openai.errors import error_message
from router.vllm.metrics import Scrape
from router.vllm.metrics import parse as parse_metrics
from router.vllm.models import ModelCard, parse_models, parse_version

CONNECT_S = 5.0
LOOK_S = 10.0
MOST_LINE = 1 << 20  # bytes of one event
_EXTRAS: tuple[dict[str, Any], ...] = (  # what a server may refuse is left out, step by step
    {"ignore_eos": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"include_usage": True}},
    {},
)


@dataclass(slots=True)
class HttpTarget:
    """A server at a URL, over one client whose connections are kept.

    Args:
        client: with `base_url`; closed by whoever made it.
        clock: of the times in a `Stream`.
    """

    name: str
    model: str
    client: httpx.AsyncClient
    clock: Callable[[], float]
    _chat: bool = False
    _extras: int = 0
    _metrics: bool = True
    notes: list[str] = field(default_factory=list)

    async def call(self, prompt: str, answer_tokens: int, limit_s: float) -> Stream:
        """One answer, as it comes.

        Raises:
            CallFailed: it did not come whole, or not within `limit_s`.
        """
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    return await self._stream(prompt, answer_tokens, limit_s)
            except _OtherWay:
                continue
            except TimeoutError:
                raise CallFailed(f"no whole answer within {limit_s:.0f} s") from None
            except httpx.TransportError as fault:
                raise CallFailed(f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__) from fault

    async def _stream(self, prompt: str, answer_tokens: int, limit_s: float) -> Stream:
        asked = (self._chat, self._extras)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": answer_tokens,
            "temperature": 0,
            "stream": True,
            **_EXTRAS[self._extras],
        }
        body |= {"messages": [{"role": "user", "content": prompt}]} if self._chat else {"prompt": prompt}
        path = "/v1/chat/completions" if self._chat else "/v1/completions"
        timeout = httpx.Timeout(limit_s, connect=CONNECT_S)
        reading = Reading()
        sent = self.clock()
        async with self.client.stream("POST", path, json=body, timeout=timeout) as answer:
            if answer.status_code != 200:
                self._refused(answer.status_code, await _start_of(answer), asked)
            async for line in _lines(answer):
                reading.feed(line, self.clock)
        return reading.stream(sent)

    def _refused(self, status: int, body: bytes, asked: tuple[bool, int]) -> None:
        """Find another way to ask, or say why there is none. Always raises."""
        said = error_message(body) or body[:200].decode("utf-8", "replace")
        if asked != (self._chat, self._extras):
            raise _OtherWay  # another stream of the same burst has found one already
        if status in (404, 405, 501) and not self._chat and "model" not in said.lower():
            self._chat = True
            self.notes.append(f"{self.name} has no /v1/completions: asked by chat, so its template is part of prompts")
            raise _OtherWay
        words = ("ignore_eos", "stream_options", "continuous_usage_stats", "extra", "unknown", "unrecognized")
        if status in (400, 422) and self._extras + 1 < len(_EXTRAS) and any(one in said.lower() for one in words):
            self._extras += 1
            self.notes.append(f"{self.name} does not take every option of vLLM: answers may end early ({said[:120]})")
            raise _OtherWay
        if status in (401, 403):
            said = f"{said}; give its key as --api-key or in ROUTER_BENCH_API_KEY"
        raise CallFailed(
            f"it answered {status}: {said[:300]}",
            is_refusal=400 <= status < 500 and status not in (408, 429),
            is_busy=status in (429, 503),
        )

    async def load(self) -> Load:
        """What it counts now; nothing where it has no metrics, or does not answer."""
        if not self._metrics:
            return Load()
        try:
            answer = await self.client.get("/metrics", timeout=LOOK_S)
        except httpx.TransportError:
            return Load()
        if answer.status_code != 200:
            self._metrics = answer.status_code >= 500
            return Load()
        return load_of(parse_metrics(answer.text))

    async def cards(self) -> tuple[ModelCard, ...]:
        """What it serves.

        Raises:
            CallFailed: it cannot be asked.
        """
        try:
            answer = await self.client.get("/v1/models", timeout=httpx.Timeout(LOOK_S, connect=CONNECT_S))
            if answer.status_code in (401, 403):
                raise CallFailed("it wants a key: give it as --api-key or in ROUTER_BENCH_API_KEY", is_refusal=True)
            if answer.status_code != 200:
                raise CallFailed(f"/v1/models answered {answer.status_code}")
            return parse_models(answer.content)
        except httpx.TransportError as fault:
            raise CallFailed(f"it cannot be reached ({type(fault).__name__}: {fault})") from fault
        except ValueError as fault:
            raise CallFailed(str(fault)) from fault

    async def version(self) -> str:
        """Its version of vLLM, "" where it does not say."""
        try:
            answer = await self.client.get("/version", timeout=LOOK_S)
            return parse_version(answer.content) if answer.status_code == 200 else ""
        except (httpx.TransportError, ValueError):
            return ""

    async def is_alive(self) -> bool:
        """Whether it answers at all."""
        try:
            await self.cards()
        except CallFailed:
            return False
        return True


class _OtherWay(Exception):
    """Ask again, differently."""


class Reading:
    """Events of one stream to marks. Counts tokens by the server's own usage, else by contents that came."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []
        self._contents = 0
        self._by_usage = False
        self._total: int | None = None
        self._prompt: int | None = None
        self._cached = 0
        self._is_over = False
        self._failure = ""

    def feed(self, line: bytes, clock: Callable[[], float]) -> None:
        """Take a line of the stream. What is wrong with it is said by `stream`: the rest is read all the same."""
        if not line.startswith(b"data:"):
            return
        at = clock()
        data = line[5:].strip()
        if data == b"[DONE]":
            self._is_over = True
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            self._failure = self._failure or f"it sent an event that is not JSON: {data[:100]!r}"
            return
        if not isinstance(event, dict) or event.get("error") is not None:
            self._failure = self._failure or f"it failed within the stream: {data[:300].decode('utf-8', 'replace')}"
            return
        choices, usage = event.get("choices") or (), event.get("usage")
        has_content = any(_has_content(one) for one in choices)
        self._contents += has_content
        if isinstance(usage, dict):
            self._use(usage, bool(choices), at)
        if has_content and not self._by_usage:
            self._marks.append((at, self._contents))
        self._is_over |= any(isinstance(one, dict) and bool(one.get("finish_reason")) for one in choices)

    def _use(self, usage: dict[str, Any], is_running: bool, at: float) -> None:
        tokens, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
        details = usage.get("prompt_tokens_details")
        if isinstance(prompt, int):
            self._prompt = prompt
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            self._cached = details["cached_tokens"]
        if not isinstance(tokens, int):
            return
        self._total = tokens
        if is_running and tokens:
            if not self._by_usage:
                self._by_usage = True
                self._marks.clear()
            if not self._marks or tokens > self._marks[-1][1]:
                self._marks.append((at, tokens))

    def stream(self, sent: float) -> Stream:
        """What came, whole.

        Raises:
            CallFailed: nothing came, the stream broke off, or the server said that it failed.
        """
        if self._failure:
            raise CallFailed(self._failure)
        if not self._is_over:
            raise CallFailed("the stream broke off before its end")
        if not self._marks:
            raise CallFailed("the stream ended without any content")
        marks = self._marks
        if not self._by_usage and self._total and self._total > self._contents:
            # Several tokens in an event (speculative decoding): spread by events, exact in the sum.
            share = self._total / self._contents
            marks = [(at, round(share * count)) for at, count in marks]
        return Stream(sent, tuple(marks), self._prompt, self._cached)


def _has_content(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(delta.get(name) for name in ("content", "reasoning", "reasoning_content", "tool_calls"))
    return bool(choice.get("text"))


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Lines of the stream, up to its end: a connection that is read to the end serves the next call."""
    rest = b""
    async for chunk in answer.aiter_raw():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > MOST_LINE:
            yield rest
            rest = b""
    yield rest


async def _start_of(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk[: 4096 - len(body)]
    return body


def load_of(scrape: Scrape) -> Load:
    """The few numbers of a scrape that tell whether somebody else is there."""
    active = None if scrape.running is None else scrape.running + (scrape.waiting or 0.0)
    finished = sum(scrape.success_by_reason.values()) if scrape.success_by_reason else None
    return Load(active, finished, scrape.generation_tokens, scrape.kv_size_tokens, scrape.start_time_s)


@asynccontextmanager
async def http_client(url: str, api_key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client for one backend; unix sockets are `unix:/path`."""
    socket = url.removeprefix("unix:") if url.startswith("unix:") else None
    limits = httpx.Limits(max_connections=64, keepalive_expiry=4.0)  # vLLM closes idle connections after 5 s
    transport = httpx.AsyncHTTPTransport(uds=socket, limits=limits)
    headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
    base = "http://localhost" if socket else url
    async with httpx.AsyncClient(base_url=base, headers=headers, transport=transport, trust_env=False) as client:
        yield client
