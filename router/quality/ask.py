"""Questions to one backend over HTTP: token ids, a scored prompt, a greedy generation, a known answer, an embedding.

Every answer is a value or an `Unscorable` that says why there is none. Only silence raises (`httpx.TransportError`):
what that means is for the caller to find out. Cancelling a question hangs up, and a vLLM then drops its work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from router.helper import Helper
from router.openai.errors import error_message
from router.policy.answers import Answer
from router.policy.logprobs import MAX_TOP, Fault, Unscorable, judge_error
from router.probes.questions import Question
from router.probes.texts import ProbeText
from router.quality import work
from router.quality.plan import DECODE_TOKENS, MOST_PROMPT

if TYPE_CHECKING:
    import httpx

LEAST_TIMEOUT_S = 60.0  # a vLLM's first logprobs call stalls it for 17 s while it compiles
SLOWEST_TOKEN_S = 0.2  # a long answer may take this per token before it counts as silence
LOW_PRIORITY = 1000  # vLLM serves the smaller number first; calls have 0
_FINGERPRINT = re.compile(rb'"system_fingerprint"\s*:\s*"([^"]{1,200})"')
TOKENIZER_TEXT = "The 3 quick brown foxes — «naïve» 狐狸 🦊\n\tjumped(0x1F);  über the lazy dog's 12,345.67 bones."


@dataclass(slots=True)
class Talents:
    """What was learned of a build's abilities to be checked; asked anew when it changes.

    Attributes:
        top: the most top tokens it lists; fewer than we want where its `max_logprobs` is small.
        tokenizer: hash over the ids of a fixed text, None where it does not tokenize for us.
        scores: whether it answers `prompt_logprobs`; None is not known yet.
        generates: whether it generates text at all; an embedding model does not.
        context: its `max_model_len`.
        fingerprint: the `system_fingerprint` of its answers: part of what makes a build.
        is_warm: whether it was warmed up.
    """

    top: int = MAX_TOP
    tokenizer: str | None = None
    scores: bool | None = None
    generates: bool = True
    context: int | None = None
    fingerprint: str | None = None
    is_warm: bool = False


class Asker:
    """Asks one backend about one model. `tokens` keeps ids by (tokenizer, text) and is shared between askers.

    `asking` is entered while a question is open.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        model: str,
        helper: Helper,
        talents: Talents,
        tokens: dict[tuple[str, str], tuple[int, ...]],
        *,
        asking: Callable[[], AbstractContextManager[None]] = nullcontext,
        is_vllm: bool = True,
        priority: bool = False,
        may_score: bool = True,
        timeout_s: float = LEAST_TIMEOUT_S,
    ) -> None:
        self._client = client
        self._model = model
        self._helper = helper
        self.talents = talents
        self._tokens = tokens
        self._asking = asking
        self._is_vllm = is_vllm
        self._priority = priority
        self._may_score = may_score
        self._timeout_s = timeout_s

    # --- what it can do ---

    async def warm_up(self) -> Unscorable | None:
        """Learn how it tokenizes, and let it compile its logprob kernels on one short prompt.

        Returns a fault that speaks against it, None where there is none.
        """
        talents = self.talents
        if talents.is_warm:
            return None
        ids = await self._tokenize(TOKENIZER_TEXT)
        if ids is not None:
            talents.tokenizer = hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
            found = await self.score("warm-up", ids[:16])
            if isinstance(found, Unscorable) and found.is_hard:
                return found
        talents.is_warm = True
        return None

    def known_gap(self, name: str) -> float | None:
        """Decode against prefill where that needs no asking: never, for a server."""
        return None

    async def is_alive(self) -> bool:
        """Whether it still answers at all, after a question that it did not."""
        import httpx

        try:
            answer = await self._client.get("/health" if self._is_vllm else "/v1/models", timeout=5.0)
        except httpx.TransportError:
            return False
        return answer.status_code < 500

    # --- questions ---

    async def ids_of(self, text: ProbeText) -> tuple[int, ...] | None:
        """The text's token ids, cut to what may be scored at once; None where the backend does not tell."""
        if self.talents.tokenizer is None:
            return None
        key = (self.talents.tokenizer, text.name)
        ids = self._tokens.get(key)
        if ids is None:
            ids = await self._tokenize(text.text)
            if ids is None:
                return None
            self._tokens[key] = ids = ids[:MOST_PROMPT]
        room = (self.talents.context or MOST_PROMPT + 1) - 1
        return ids[: max(0, room)]

    async def _tokenize(self, text: str) -> tuple[int, ...] | None:
        for body in ({"model": self._model, "prompt": text}, {"content": text}):  # vLLM's form, llama.cpp's form
            answer = await self._post("/tokenize", body)
            found = answer.get("tokens") if isinstance(answer, dict) else None
            if isinstance(found, list) and found and all(isinstance(t, int) for t in found):
                if isinstance(answer, dict) and isinstance(answer.get("max_model_len"), int):
                    self.talents.context = answer["max_model_len"]
                return tuple(found)
        return None

    async def score(self, name: str, ids: tuple[int, ...]) -> bytes | Unscorable:
        """The logprobs of a prompt at every position, packed."""
        talents = self.talents
        if not self._may_score:
            return Unscorable(Fault.IGNORED, "it died of a scored prompt before")
        if talents.scores is False:
            return Unscorable(Fault.IGNORED, "it does not know prompt_logprobs")
        while True:
            asked = {"prompt": ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": talents.top}
            answer = await self._complete(asked)
            if isinstance(answer, Unscorable) and answer.fault is Fault.TOO_MANY and self._ask_for_fewer():
                continue
            if isinstance(answer, Unscorable):
                return answer
            found = await self._helper.run(work.read_scored, name, answer, ids, talents.top)
            if isinstance(found, bytes):
                talents.scores = True
            elif found.fault is Fault.IGNORED:
                talents.scores = False
            return found

    async def generate(self, name: str, ids: tuple[int, ...]) -> work.Generation | Unscorable:
        """A greedy continuation with the logprobs of every step."""
        while True:
            asked = {
                "prompt": ids,
                "max_tokens": DECODE_TOKENS,
                "temperature": 0,
                "logprobs": self.talents.top,
                "return_tokens_as_token_ids": True,
                "return_token_ids": True,
            }
            answer = await self._complete(asked)
            if isinstance(answer, Unscorable) and answer.fault is Fault.TOO_MANY and self._ask_for_fewer():
                continue
            if isinstance(answer, Unscorable):
                return answer
            return await self._helper.run(work.read_generation, name, answer, self.talents.top)

    def _ask_for_fewer(self) -> bool:
        """Its `max_logprobs` is smaller than what we asked for: ask for less from now on, if there is less."""
        fewer = [top for top in (10, 5, 1, 0) if top < self.talents.top]
        if fewer:
            self.talents.top = fewer[0]
        return bool(fewer)

    async def answer(self, question: Question) -> Answer | Unscorable:
        """What it says to a question with a known answer."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": question.messages,
            "max_tokens": question.max_tokens,
            "temperature": 0,
        }
        if question.tools:
            body["tools"] = question.tools
        if self._is_vllm:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        room = self.talents.context
        if room is not None and question.tokens + question.max_tokens > room:
            return Unscorable(Fault.TOO_LONG, f"{question.name} does not fit into its {room} tokens")
        within_s = max(self._timeout_s, question.max_tokens * SLOWEST_TOKEN_S)
        answer = await self._post("/v1/chat/completions", self._modest(body), within_s)
        return answer if isinstance(answer, Unscorable) else _read_chat(answer)

    async def embed(self, text: ProbeText) -> tuple[float, ...] | Unscorable:
        """The text's embedding."""
        answer = await self._post("/v1/embeddings", {"model": self._model, "input": text.text})
        if isinstance(answer, Unscorable):
            return answer
        try:
            vector = answer["data"][0]["embedding"]
            return tuple(float("nan") if value is None else float(value) for value in vector)
        except (KeyError, IndexError, TypeError, ValueError):
            return Unscorable(Fault.MALFORMED, "the answer holds no embedding")

    # --- HTTP ---

    async def _complete(self, body: dict[str, Any]) -> bytes | Unscorable:
        return await self._send("/v1/completions", self._modest({"model": self._model, **body}))

    def _modest(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "priority": LOW_PRIORITY} if self._priority else body

    async def _post(self, path: str, body: dict[str, Any], timeout_s: float | None = None) -> Any:
        """The answer as JSON, or why there is none."""
        content = await self._send(path, body, timeout_s)
        if isinstance(content, Unscorable):
            return content
        try:
            return orjson.loads(content)
        except ValueError:
            return Unscorable(Fault.MALFORMED, f"{path} answered what is no JSON")

    async def _send(self, path: str, body: dict[str, Any], timeout_s: float | None = None) -> bytes | Unscorable:
        with self._asking():
            answer = await self._client.post(
                path,
                content=orjson.dumps(body),
                headers={"content-type": "application/json"},
                timeout=timeout_s or self._timeout_s,
            )
        if answer.status_code < 300:
            if self.talents.fingerprint is None and (found := _FINGERPRINT.search(answer.content)):
                self.talents.fingerprint = found[1].decode("ascii", "replace")
            return answer.content
        return judge_error(answer.status_code, error_message(answer.content) or answer.text[:200])


def _read_chat(document: Any) -> Answer | Unscorable:
    """Text and tool calls. An answer that thinking used up says nothing about what it would have been."""
    try:
        choice = document["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        calls = tuple(
            (str(call["function"]["name"]), str(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return Unscorable(Fault.MALFORMED, "the answer has no message")
    if not text.strip() and not calls and choice.get("finish_reason") == "length":
        return Unscorable(Fault.TOO_LONG, "thinking used up its tokens")
    return Answer(str(text), calls)
