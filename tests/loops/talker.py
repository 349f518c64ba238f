"""A small language model with consistent logprobs behind vLLM's routes, for canaries, in virtual time.

The next token depends on the last one only; a table of logits says how. Two kernels of one model differ by a little
noise on that table, a damaged one by much, and decode may read another table than prefill.
"""

import asyncio
import json
import math
import random
import re
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import cache
from itertools import pairwise
from typing import Any

import httpx

from router.app import App, Outside
from router.config import BackendConfig, FleetConfig
from router.events import CanaryEnded
from router.policy.facts import Grade
from router.wire.client import Address
from tests.exchange.conftest import World
from tests.fakes import MODEL

VOCABULARY = 64
ALONE: dict[str, Any] = {"speed": {"check_after_s": 0, "fixed_workload": False}}  # nobody but a canary asks
Table = tuple[tuple[float, ...], ...]


@cache
def table(noise: float, seed: int, words: int = 0) -> Table:
    """Log-probabilities by last token: the model's own, with so much noise of this seed on every logit."""
    truth, dice = random.Random(words), random.Random(seed)
    rows = []
    for _ in range(VOCABULARY):
        logits = [truth.gauss(0.0, 2.0) + noise * dice.gauss(0.0, 1.0) for _ in range(VOCABULARY)]
        total = math.log(sum(map(math.exp, logits)))
        rows.append(tuple(x - total for x in logits))
    return tuple(rows)


class Talker:
    """One server's model. Attributes are its faults; a test changes them as it goes."""

    def __init__(self, noise: float = 0.005, seed: int = 1) -> None:
        self.prefill = self.decode = table(noise, seed)
        self.fingerprint: str | None = None
        self.salt = 0  # another one is another tokenizer
        self.max_logprobs = 20
        self.context = 4096
        self.ignores_prompt_logprobs = False
        self.nan = False
        self.embedding: int | None = None
        self.right = True  # whether it knows the known answers
        self.forgets = False  # every other one, as a small model does
        self.floods = False
        self.dies_of = ""  # a field of a request that kills it
        self.on_death: Callable[[], None] = lambda: None
        self.token_s = 0.01
        self.first_s = 0.0  # what the first call with logprobs takes
        self.asked: list[tuple[float, dict[str, Any]]] = []
        self.open = 0
        self.most_open = 0
        self.aborted: list[float] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            ids = [hash_of(word, self.salt) for word in re.findall(r"\w+|\W", body.get("prompt", ""))]
            return httpx.Response(200, json={"count": len(ids), "max_model_len": self.context, "tokens": ids})
        loop = asyncio.get_running_loop()
        self.asked.append((loop.time(), body))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._work(request.url.path, body)
        except asyncio.CancelledError:
            self.aborted.append(loop.time())
            raise
        finally:
            self.open -= 1

    async def _work(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if self.dies_of and self.dies_of in body:
            await asyncio.sleep(0.2)
            self.on_death()
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        if self.embedding is not None:
            return self._embed(path, body)
        if max(body.get("prompt_logprobs", 0), body.get("logprobs", 0)) > self.max_logprobs:
            limit = self.max_logprobs
            message = f"Requested logprobs, which is greater than the max allowed: {limit}"
            return httpx.Response(400, json={"error": {"message": message, "code": 400}})
        first, self.first_s = self.first_s, 0.0
        await asyncio.sleep(first + self.token_s * body["max_tokens"] + 0.05)
        if path == "/v1/chat/completions":
            return self._chat(body)
        if self.nan and ("prompt_logprobs" in body or "logprobs" in body):
            message = "Out of range float values are not JSON compliant"
            return httpx.Response(400, json={"error": {"message": message, "code": 400}})
        if "prompt_logprobs" in body and not self.ignores_prompt_logprobs:
            ids = body["prompt"]
            scored = [None, *(self._entry(a, b, body["prompt_logprobs"]) for a, b in pairwise(ids))]
            return httpx.Response(200, json={"choices": [{"text": "x", "prompt_logprobs": scored}], **self._signed()})
        return self._generate(body)

    def _signed(self) -> dict[str, str]:
        return {} if self.fingerprint is None else {"system_fingerprint": self.fingerprint}

    def _entry(self, last: int, token: int, top: int) -> dict[str, Any]:
        row = self.prefill[last]
        best = sorted(range(VOCABULARY), key=lambda t: -row[t])[:top]
        return {str(t): {"logprob": row[t], "rank": 1, "decoded_token": str(t)} for t in [*best, token]}

    def _generate(self, body: dict[str, Any]) -> httpx.Response:
        token, top = body["prompt"][-1], body.get("logprobs", 0)
        tokens, own, tops = [], [], []
        for _ in range(body["max_tokens"]):
            row = self.decode[token]
            best = sorted(range(VOCABULARY), key=lambda t: -row[t])[: max(top, 1)]
            token = best[0]
            tokens.append(f"token_id:{token}")
            own.append(row[token])
            tops.append({f"token_id:{t}": row[t] for t in best})
        text = "!" * 200 if self.floods else " ".join(tokens)
        logprobs = {"tokens": tokens, "token_logprobs": own, "top_logprobs": tops}
        return httpx.Response(200, json={"choices": [{"text": text, "logprobs": logprobs, "finish_reason": "length"}]})

    def _chat(self, body: dict[str, Any]) -> httpx.Response:
        knows = self.right and not (self.forgets and len(self.asked) % 2)
        text = solve(body["messages"]) if knows else "I do not know."
        if self.floods:
            text = "!" * 200
        message = {"role": "assistant", "content": text}
        return httpx.Response(200, json={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _embed(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if path != "/v1/embeddings":
            return httpx.Response(404, json={"detail": "Not Found"})
        dice = random.Random(body["input"])
        vector = [dice.gauss(0.0, 1.0) + 0.001 * self.noise_of(i) for i in range(self.embedding or 0)]
        return httpx.Response(200, json={"data": [{"embedding": vector}]})

    def noise_of(self, index: int) -> float:
        return random.Random(index + self.salt).gauss(0.0, 1.0) * (1.0 if self.salt == 0 else 2000.0)


def hash_of(word: str, salt: int) -> int:
    return (sum(ord(c) * (i + 7) for i, c in enumerate(word)) * 31 + salt * len(word)) % VOCABULARY


def solve(messages: list[dict[str, Any]]) -> str:
    """The right answer to a known-answer question."""
    text = messages[-1]["content"]
    if not isinstance(text, str):
        return "no idea"
    if found := re.search(r"What is (\d+) \+ (\d+)", text):
        return str(int(found[1]) + int(found[2]))
    if found := re.search(r"What is (\d+) times (\d+)", text):
        return str(int(found[1]) * int(found[2]))
    if found := re.search(r"in this row: ([\d, ]+)\?", text):
        row = [int(x) for x in found[1].split(", ")]
        return str(2 * row[-1] - row[-2])
    if found := re.search(r"letter (\w): (.*)\?", text):
        return next(w for w in found[2].split(", ") if w[0].upper() == found[1])
    if found := re.search(r"sold (\d+) boxes of (\w+)", text):
        return json.dumps({"item": found[2], "count": int(found[1])})
    if found := re.search(r"code for the \w+ door is (\d+)", text):
        return found[1]
    if len(messages) > 1 and (found := re.search(r"remember the word (\w+)", messages[0]["content"])):
        return found[1]
    return text.rpartition("\n")[2]


class Inline(Executor):
    """Does the helper's work at once: no process in tests."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as problem:
            future.set_exception(problem)
        return future


class CanaryWorld(World):
    """A world whose backends have a language model."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.talkers: dict[str, Talker] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.draws = random.Random(7)

    def spark(self, name: str, talker: Talker | None = None, **settings: Any) -> Talker:
        backend = self.backend(name)
        self.settings[name] = {"scheme": "w4a16", **settings}
        backend.cards["root"] = f"/models/{name}"
        talker = self.talkers[name] = talker or Talker()
        talker.on_death = backend.down
        return talker

    def config(self, **settings: Any) -> FleetConfig:
        backends = []
        for name, fake in self.backends.items():
            backends.append(
                BackendConfig(name=name, url=f"http://{fake.host}:{fake.port}", host=(name,), **self.settings[name])
            )
        return FleetConfig(backends=tuple(backends), **{**ALONE, **settings})

    def _client(self, config: BackendConfig, address: Address) -> httpx.AsyncClient:
        async def handle(request: httpx.Request) -> httpx.Response:
            fake = self.backends[config.name]
            if request.method == "POST" and (fake.host, fake.port) in self.network.listeners:
                return await self.talkers[config.name].answer(request)
            return fake.control(request)

        return httpx.AsyncClient(base_url=f"http://{address}", transport=httpx.MockTransport(handle))

    async def open(self, history_file: Any = None, **settings: Any) -> App:
        outside = Outside(
            wall=self.loop.time,
            draw=self.draws.random,
            dial=self.network.dial,
            client=self._client,
            executor=Inline,
        )
        self.app = App(self.config(**settings), self.loop, outside, history_file=history_file)
        self.app.bus.subscribe(self.events.append)
        await self.app.start()
        return self.app

    def grade(self, name: str) -> Grade:
        return self.app.fleet.backends[name].serving[MODEL].grade

    def reason(self, name: str) -> str:
        return self.app.fleet.backends[name].serving[MODEL].grade_reason

    def ended(self, name: str) -> list[CanaryEnded]:
        return [one for one in self.of(CanaryEnded) if one.backend == name]

    async def checked(self, name: str, times: int = 1, within_s: float = 600.0) -> CanaryEnded:
        """Wait until so many checks of this backend have ended."""
        await self.until(lambda: len(self.ended(name)) >= times, within_s, lambda: self.waits_for(name))
        return self.ended(name)[-1]

    async def until(
        self, holds: Callable[[], object], within_s: float = 600.0, why: Callable[[], str] = lambda: ""
    ) -> None:
        """Look ten times a second until something holds."""
        for _ in range(int(10 * within_s)):
            if holds():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"did not come about within {within_s:g} s; {why()}")

    def booked_s(self, name: str) -> float:
        """What the metric says that checks took of a backend's time."""
        for line in self.app.metrics.render().decode().splitlines():
            if line.startswith(f'router_canary_seconds_total{{backend="{name}"}}'):
                return float(line.rpartition(" ")[2])
        return 0.0

    def waits_for(self, name: str) -> str:
        return "; ".join(s.waits_for for s in self.app.quality.subjects.values() if s.backend == name)

    def restart(self, name: str) -> None:
        """The server starts anew under the same build."""
        self.app.identity.restarted(self.app.fleet.backends[name])
