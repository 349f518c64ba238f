"""`/v1/messages` and `/v1/responses` of the simulated vLLM: the same answers in the shapes of other vendors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing, closing
from typing import Any

from router.sim.asgi import Exchange
from router.sim.chat import chat_ids, check_model
from router.sim.faults import Faults
from router.sim.run import Run
from router.sim.sabotage import Outlet
from router.sim.state import Sim
from router.sim.wish import Refusal, invalid, wish_of

Json = dict[str, Any]


def _as_chat(body: Mapping[str, Any], limit: str) -> Json:
    """A request of another vendor's API as a chat: system text first, input items as messages."""
    chat: Json = {key: body[key] for key in ("model", "temperature", "stream", "chat_template_kwargs") if key in body}
    chat["max_tokens"] = body.get(limit)
    chat["stop"] = body.get("stop_sequences")
    given = body.get("messages", body.get("input"))
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    system = body.get("system") or body.get("instructions")
    if system and isinstance(messages, list):
        messages = [{"role": "system", "content": system}, *messages]
    return chat | {"messages": messages}


async def count_tokens(sim: Sim, exchange: Exchange) -> None:
    """Tokens of a prompt in the Messages API."""
    body = exchange.json()
    _check_anthropic(sim, body)
    count = len(chat_ids(sim, _as_chat(body, "max_tokens")))
    await exchange.answer(200, {"input_tokens": count, "context_management": {"original_input_tokens": count}})


def _check_anthropic(sim: Sim, body: Json) -> None:
    """An unknown model is told in Anthropic's shape; a missing field is not (seen)."""
    try:
        check_model(sim, body)
    except Refusal as refusal:
        error = refusal.body["error"]
        refusal.body = {"type": "error", "error": {"type": error["type"], "message": error["message"]}}
        raise


async def messages(sim: Sim, exchange: Exchange, faults: Faults, draw: float) -> None:
    """Answer in the shape of Anthropic's Messages API."""
    body = exchange.json()
    for name in ("messages", "max_tokens"):
        if body.get(name) is None:
            raise invalid("missing", f"body.{name}", "Field required", body)
    _check_anthropic(sim, body)
    as_chat = _as_chat(body, "max_tokens")
    prompt = chat_ids(sim, as_chat)
    wish = wish_of(as_chat, True, sim.build.profile.max_model_len, sim.build.max_logprobs)
    outlet = Outlet(exchange, faults, draw)
    start: Json = {"id": f"chatcmpl-{exchange.headers.get('x-request-id') or sim.new_id()}", "type": "message",
                   "role": "assistant"}  # fmt: skip
    with closing(Run(sim, [prompt], wish, faults)) as run:
        if wish.streams:
            await exchange.stream()
            await _stream_messages(run, outlet, start)
            return
        await run.finish()
        answer = run.answers[0]
        await outlet.whole(
            start | {"content": [{"type": "text", "text": answer.text()}], "model": sim.build.model,
                     "stop_reason": _stop_reason(run), "usage": _anthropic_usage(run)}
        )  # fmt: skip


async def _stream_messages(run: Run, outlet: Outlet, start: Json) -> None:
    has_begun = False
    async with aclosing(run.pieces()) as steps:
        async for _, pieces, _ in steps:
            if not has_begun:
                has_begun = True
                usage = {"input_tokens": run.prompt_tokens, "output_tokens": 0}
                message = start | {"content": [], "model": run.sim.build.model, "stop_reason": None,
                                   "stop_sequence": None, "usage": usage}  # fmt: skip
                await outlet.named("message_start", {"type": "message_start", "message": message})
                block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
                await outlet.named("content_block_start", block)
            for piece in pieces:
                if piece.text and piece.channel == "content":
                    delta = {"type": "text_delta", "text": piece.text}
                    event = {"type": "content_block_delta", "delta": delta, "index": 0}
                    await outlet.named("content_block_delta", event)
    await outlet.named("content_block_stop", {"type": "content_block_stop", "index": 0})
    end = {"stop_reason": _stop_reason(run), "stop_sequence": run.answers[0].stop_reason}
    await outlet.named("message_delta", {"type": "message_delta", "delta": end, "usage": _anthropic_usage(run)})
    await outlet.named("message_stop", {"type": "message_stop"})
    await outlet.done(marks=False)


def _stop_reason(run: Run) -> str:
    answer = run.answers[0]
    if answer.stop_reason is not None:
        return "stop_sequence"
    return "max_tokens" if answer.finish_reason == "length" else "end_turn"


def _anthropic_usage(run: Run) -> Json:
    return {"input_tokens": run.prompt_tokens, "output_tokens": run.written, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": run.cached or 0}  # fmt: skip


async def responses(sim: Sim, exchange: Exchange, faults: Faults, draw: float) -> None:
    """Answer in the shape of OpenAI's Responses API."""
    body = exchange.json()
    if body.get("input") is None:
        raise invalid("missing", "body.input", "Field required", body)
    check_model(sim, body)
    as_chat = _as_chat(body, "max_output_tokens")
    prompt = chat_ids(sim, as_chat)
    wish = wish_of(as_chat, True, sim.build.profile.max_model_len, sim.build.max_logprobs)
    outlet = Outlet(exchange, faults, draw)
    with closing(Run(sim, [prompt], wish, faults)) as run:
        shape = ResponseShape(run, body)
        if wish.streams:
            await exchange.stream()
            await shape.stream(outlet)
            return
        await run.finish()
        await outlet.whole(shape.response(True))


class ResponseShape:
    """One answer of the Responses API, whole or as its events."""

    def __init__(self, run: Run, body: Mapping[str, Any]) -> None:
        self._run = run
        self._body = body
        self._id = f"resp_{run.sim.new_id()}"
        self._message = f"msg_{run.sim.new_id()}"
        self._created = int(run.sim.now())
        self._sent = 0

    def response(self, is_done: bool) -> Json:
        """The response object, before the first token or after the last."""
        run, body = self._run, self._body
        is_cut = is_done and run.answers[0].finish_reason == "length"
        status = "incomplete" if is_cut else "completed"
        return {
            "id": self._id, "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": body.get("instructions"), "metadata": body.get("metadata"), "model": run.sim.build.model,
            "object": "response", "output": [self._item("completed")] if is_done else [],
            "parallel_tool_calls": True, "temperature": run.wish.temperature, "tool_choice": "none", "tools": [],
            "top_p": 1.0, "background": False, "max_output_tokens": run.answers[0].limit, "max_tool_calls": None,
            "previous_response_id": None, "prompt": None, "reasoning": None, "service_tier": "auto",
            "status": status if is_done else "in_progress", "text": None, "top_logprobs": None,
            "truncation": "disabled", "usage": self._usage() if is_done else None, "user": None,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "kv_transfer_params": None, "ec_transfer_params": None,
            "input_messages": None, "output_messages": None,
        }  # fmt: skip

    async def stream(self, outlet: Outlet) -> None:
        """Its events; a cut answer ends with `response.completed`, too (seen)."""
        place = {"content_index": 0, "item_id": self._message, "output_index": 0}
        has_begun = False
        async with aclosing(self._run.pieces()) as steps:
            async for _, pieces, _ in steps:
                if not has_begun:
                    has_begun = True
                    await self._begin(outlet, place)
                for piece in pieces:
                    if piece.text and piece.channel == "content":
                        await self._event(
                            outlet, "output_text.delta",
                            {"content_index": 0, "delta": piece.text, "item_id": self._message, "logprobs": [],
                             "output_index": 0},
                        )  # fmt: skip
        text = self._run.answers[0].text()
        done = {"content_index": 0, "item_id": self._message, "logprobs": [], "output_index": 0}
        await self._event(outlet, "output_text.done", done, {"text": text})
        await self._event(outlet, "content_part.done", place | {"part": self._part(text, None)})
        await self._event(outlet, "output_item.done", {"item": self._item("completed"), "output_index": 0})
        await self._event(outlet, "completed", {"response": self.response(True)})
        await outlet.done(marks=False)

    async def _begin(self, outlet: Outlet, place: Json) -> None:
        await self._event(outlet, "created", {"response": self.response(False)})
        await self._event(outlet, "in_progress", {"response": self.response(False)})
        empty = self._item("in_progress") | {"content": []}
        await self._event(outlet, "output_item.added", {"item": empty, "output_index": 0})
        await self._event(outlet, "content_part.added", place | {"part": self._part("", [])})

    async def _event(self, outlet: Outlet, name: str, fields: Json, more: Json | None = None) -> None:
        value = fields | {"sequence_number": self._sent} | (more or {}) | {"type": f"response.{name}"}
        self._sent += 1
        await outlet.named(f"response.{name}", value)

    def _part(self, text: str, logprobs: list[Any] | None) -> Json:
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}

    def _item(self, status: str) -> Json:
        part = self._part(self._run.answers[0].text(), None)
        return {"id": self._message, "content": [part], "role": "assistant", "status": status, "type": "message",
                "phase": None}  # fmt: skip

    def _usage(self) -> Json:
        run = self._run
        given = {"cached_tokens": run.cached or 0, "cache_write_tokens": 0, "input_tokens_per_turn": [],
                 "cached_tokens_per_turn": []}  # fmt: skip
        written = {"reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": [],
                   "tool_output_tokens_per_turn": []}  # fmt: skip
        return {"input_tokens": run.prompt_tokens, "input_tokens_details": given, "output_tokens": run.written,
                "output_tokens_details": written, "total_tokens": run.prompt_tokens + run.written}  # fmt: skip
