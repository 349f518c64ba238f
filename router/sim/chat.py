"""`/v1/chat/completions` and `/v1/completions` of the simulated vLLM, whole and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from router.sim import scripts, shapes
from router.sim.answer import Answer, Piece
from router.sim.asgi import Exchange
from router.sim.faults import Faults
from router.sim.run import Run
from router.sim.sabotage import Outlet
from router.sim.state import Sim
from router.sim.tokens import decode, encode, token_text
from router.sim.wish import Refusal, bad, invalid, wish_of

Json = dict[str, Any]


def check_model(sim: Sim, body: Mapping[str, Any]) -> None:
    """An unknown model is a 404; none at all is the only one there is."""
    name = body.get("model")
    if name is not None and name != sim.build.model:
        said = f"The model `{name}` does not exist. Valid aliases: {sim.build.model}."
        raise Refusal(404, said, "NotFoundError", "model")


def thinks(sim: Sim, body: Mapping[str, Any]) -> bool:
    """Does the model think before it answers? The template's switch decides, else the checkpoint."""
    switch = (body.get("chat_template_kwargs") or {}).get("enable_thinking")
    return sim.build.profile.reasoning if switch is None else bool(switch)


def chat_ids(sim: Sim, body: Mapping[str, Any]) -> list[int]:
    """The prompt's tokens. Raises Refusal for messages that no template can take."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        if messages is None:
            raise invalid("missing", "body.messages", "Field required", dict(body))
        raise invalid("list_type", "body.messages", "Input should be a valid list", messages)
    for message in messages:
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") not in ("text", "input_text", "output_text", None):
                raise bad(f"{sim.build.model} is not a multimodal model")
    if body.get("continue_final_message") and body.get("add_generation_prompt", True):
        raise bad("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    if body.get("tools") and body.get("tool_choice", "auto") == "auto" and not sim.build.parses_tools:
        raise bad('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    return encode(scripts.render(messages, body, thinks(sim, body)))


async def chat(sim: Sim, exchange: Exchange, faults: Faults, draw: float) -> None:
    """Answer a chat."""
    body = exchange.json()
    check_model(sim, body)
    prompt = chat_ids(sim, body)
    build = sim.build
    wish = wish_of(body, True, build.profile.max_model_len, build.max_logprobs)
    is_named = isinstance(body.get("tool_choice"), dict)
    head: Json = {
        "id": f"chatcmpl-{exchange.headers.get('x-request-id') or sim.new_id()}",
        "object": "chat.completion.chunk" if wish.streams else "chat.completion",
        "created": int(sim.now()),
        "model": build.model,
    }
    outlet = Outlet(exchange, faults, draw)
    with closing(Run(sim, [prompt], wish, faults)) as run:
        if wish.streams:
            await exchange.stream()
            await ChatStream(run, outlet, head, is_named).send()
            return
        await run.finish()
        choices = [shapes.chat_choice(one, is_named, f"chatcmpl-tool-{sim.new_id()}") for one in run.answers]
        whole = head | {
            "choices": choices, "service_tier": None, "system_fingerprint": build.fingerprint,
            "usage": shapes.usage(len(prompt), run.answers, run.cached, True),
            "prompt_logprobs": run.prompt_logprobs(prompt),
            "prompt_token_ids": prompt if wish.returns_token_ids else None, "prompt_text": None,
        }  # fmt: skip
        await outlet.whole(shapes.tail(whole))


class ChatStream:
    """The events of one streamed chat."""

    def __init__(self, run: Run, outlet: Outlet, head: Json, is_named: bool) -> None:
        self._run = run
        self._outlet = outlet
        self._head = head
        self._is_named = is_named
        self._prompt = run.prompts[0]
        self._calls: dict[int, str] = {}

    async def send(self) -> None:
        """All of them: roles with the first token, one chunk a token, usage where it is asked for, [DONE]."""
        wish = self._run.wish
        has_roles = False
        async with aclosing(self._run.pieces()) as steps:
            async for answer, pieces, is_last in steps:
                if not has_roles:
                    has_roles = True
                    await self._roles()
                for piece in pieces:
                    await self._piece(answer, piece, is_last and piece is pieces[-1])
        if wish.wants_usage:
            counted = shapes.usage_so_far(len(self._prompt), self._run.written, self._run.cached)
            end = {"choices": [], "usage": counted, "system_fingerprint": self._run.sim.build.fingerprint}
            await self._outlet.json(self._head | end)
        await self._outlet.done()

    async def _roles(self) -> None:
        for answer in self._run.answers:
            delta = {"role": "assistant", "content": ""}
            choice = {"index": answer.index, "delta": delta, "logprobs": None, "finish_reason": None}
            chunk = self._head | {"choices": [choice]} | self._usage(0)
            shown = self._prompt if self._run.wish.returns_token_ids else None
            await self._outlet.json(chunk | {"prompt_token_ids": shown, "prompt_text": None})

    async def _piece(self, answer: Answer, piece: Piece, is_last: bool) -> None:
        if piece.channel == "tool" and answer.index not in self._calls:
            call = self._calls[answer.index] = f"chatcmpl-tool-{self._run.sim.new_id()}"
            await self._choice(answer, piece, False, shapes.tool_head(answer.tool or "", call))
        delta: Json = {piece.channel: piece.text}
        if piece.channel == "tool":
            delta = shapes.tool_delta(piece.text) if piece.text else {}
        await self._choice(answer, piece, is_last, delta)

    async def _choice(self, answer: Answer, piece: Piece, is_last: bool, delta: Json) -> None:
        choice = shapes.chat_chunk_choice(answer, piece, is_last, self._is_named, delta)
        chunk = self._head | {"choices": [choice]}
        if is_last and not self._run.wish.wants_usage:
            chunk["system_fingerprint"] = self._run.sim.build.fingerprint
        await self._outlet.json(chunk | self._usage(answer.pieces.index(piece) + 1))

    def _usage(self, written: int) -> Json:
        if not self._run.wish.wants_usage_always:
            return {}
        return {"usage": shapes.usage_so_far(len(self._prompt), written)}


def completion_prompts(body: Mapping[str, Any]) -> list[list[int]]:
    """The prompts of a completion: a text, texts, token ids, or lists of them."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) and prompt:
        return [encode(prompt)]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(one, int) for one in prompt):
            return [prompt]
        return [encode(one) if isinstance(one, str) else list(one) for one in prompt]
    raise bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")


async def completion(sim: Sim, exchange: Exchange, faults: Faults, draw: float) -> None:
    """Answer a completion."""
    body = exchange.json()
    check_model(sim, body)
    prompts = completion_prompts(body)
    build = sim.build
    wish = wish_of(body, False, build.profile.max_model_len, build.max_logprobs)
    head: Json = {
        "id": f"cmpl-{exchange.headers.get('x-request-id') or sim.new_id()}", "object": "text_completion",
        "created": int(sim.now()), "model": build.model,
    }  # fmt: skip
    outlet = Outlet(exchange, faults, draw)
    with closing(Run(sim, prompts, wish, faults)) as run:
        if wish.streams:
            await exchange.stream()
            await _stream_completion(run, outlet, head)
            return
        await run.finish()
        if wish.max_tokens == 0:
            for answer in run.answers:
                answer.pieces.clear()
                answer.finish_reason, answer.stop_reason = "length", None
        counted = shapes.usage(run.prompt_tokens, run.answers, run.cached, False)
        await outlet.whole(
            head | {"choices": [_completion_choice(run, one) for one in run.answers], "service_tier": None,
                    "system_fingerprint": build.fingerprint, "usage": counted, "kv_transfer_params": None,
                    "ec_transfer_params": None, "metrics": None}
        )  # fmt: skip


async def _stream_completion(run: Run, outlet: Outlet, head: Json) -> None:
    wish, fingerprint = run.wish, run.sim.build.fingerprint
    offsets = dict.fromkeys(range(len(run.answers)), 0)
    async with aclosing(run.pieces()) as steps:
        async for answer, pieces, is_last in steps:
            for piece in pieces:
                ends = is_last and piece is pieces[-1]
                is_first = offsets[answer.index] == 0 and piece is answer.pieces[0]
                prompt = list(answer.prompt)
                text = (decode(prompt) if wish.echoes and is_first else "") + piece.text
                logprobs = None
                if wish.top_logprobs is not None:
                    at = offsets[answer.index]
                    logprobs = shapes.completion_logprobs([piece], wish.top_logprobs, at, wish.names_ids)
                offsets[answer.index] += len(token_text(piece.token))
                choice = {
                    "index": answer.index, "text": text, "logprobs": logprobs,
                    "finish_reason": answer.finish_reason if ends else None,
                    "stop_reason": answer.stop_reason if ends else None,
                    "prompt_token_ids": prompt if wish.returns_token_ids and is_first else None,
                    "token_ids": [piece.token] if wish.returns_token_ids else None,
                }  # fmt: skip
                chunk = head | {"choices": [choice]}
                if wish.wants_usage_always:
                    written = answer.pieces.index(piece) + 1
                    chunk["usage"] = shapes.usage_so_far(len(prompt), written)
                if ends and not wish.wants_usage:
                    chunk["system_fingerprint"] = fingerprint
                await outlet.json(chunk)
    if wish.wants_usage:
        counted = shapes.usage_so_far(run.prompt_tokens, run.written, run.cached, is_chat=False)
        await outlet.json(head | {"choices": [], "usage": counted, "system_fingerprint": fingerprint})
    await outlet.done()


def _completion_choice(run: Run, answer: Answer) -> Json:
    wish = run.wish
    prompt = list(answer.prompt)
    rows = run.prompt_logprobs(prompt)
    before = decode(prompt) if wish.echoes else ""
    logprobs = None
    if wish.top_logprobs is not None:
        logprobs = shapes.completion_logprobs(answer.pieces, wish.top_logprobs, len(before), wish.names_ids)
        if wish.echoes and rows is not None:
            logprobs = _echoed(prompt, rows, logprobs)
    return {
        "index": answer.index, "text": before + answer.text(), "logprobs": logprobs,
        "finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason,
        "token_ids": [piece.token for piece in answer.pieces] if wish.returns_token_ids else None,
        "prompt_logprobs": rows, "prompt_token_ids": prompt if wish.returns_token_ids else None,
        "routed_experts": None,
    }  # fmt: skip


def _echoed(prompt: Sequence[int], rows: Sequence[Json | None], after: Json) -> Json:
    """The lists of a completion's logprobs with the prompt's before them."""
    offsets, at = [], 0
    for token in prompt:
        offsets.append(at)
        at += len(token_text(token))
    values = [None if row is None else row[str(token)]["logprob"] for token, row in zip(prompt, rows, strict=True)]
    best = [None if row is None else {one["decoded_token"]: one["logprob"] for one in row.values()} for row in rows]
    return {
        "text_offset": offsets + after["text_offset"], "token_logprobs": values + after["token_logprobs"],
        "tokens": [token_text(token) for token in prompt] + after["tokens"],
        "top_logprobs": best + after["top_logprobs"],
    }  # fmt: skip
