"""The JSON of chats and completions, field by field in vLLM's order (as vLLM 0.32.0 answered)."""

from __future__ import annotations

from typing import Any

from router.sim.answer import Answer, Piece, listed
from router.sim.tokens import token_text

Json = dict[str, Any]


def usage(prompt: int, answers: list[Answer], cached: int | None, is_chat: bool) -> Json:
    """The usage block of a whole answer; `cached` is None where the server does not report it."""
    written = sum(len(one.pieces) for one in answers)
    details = (
        None
        if cached is None
        else {"cached_tokens": cached, "created_cache_tokens": 0 if is_chat else None, "multimodal_tokens": None}
    )
    return {"prompt_tokens": prompt, "total_tokens": prompt + written, "completion_tokens": written,
            "prompt_tokens_details": details, "completion_tokens_details": None}  # fmt: skip


def usage_so_far(prompt: int, written: int, final_cached: int | None = None, is_chat: bool = True) -> Json:
    """The usage block of a chunk; the last chunk says how much was cached."""
    block: Json = {"prompt_tokens": prompt, "total_tokens": prompt + written, "completion_tokens": written}
    if final_cached is None:
        return block | {"completion_tokens_details": None}
    details: Json = {"cached_tokens": final_cached} | ({"created_cache_tokens": 0} if is_chat else {})
    return block | {"prompt_tokens_details": details}


def spelled(token: int, names_ids: bool) -> str:
    """A token in logprobs: its text, or `token_id:N` where the call asked for that."""
    return f"token_id:{token}" if names_ids else token_text(token)


def chat_logprob(piece: Piece, top: int, names_ids: bool = False) -> Json:
    """One token's entry under `logprobs.content`."""

    def entry(token: int, logprob: float | None) -> Json:
        text = token_text(token)
        return {"token": spelled(token, names_ids), "logprob": logprob, "bytes": list(text.encode())}

    if piece.place is None:
        return entry(piece.token, None) | {"top_logprobs": []}
    best = [entry(token, logprob) for token, logprob, _ in listed(piece.place, top)]
    return entry(piece.token, piece.place.of(piece.token)[0]) | {"top_logprobs": best}


def completion_logprobs(pieces: list[Piece], top: int, offset: int, names_ids: bool = False) -> Json:
    """The `logprobs` of a completion: parallel lists."""
    offsets, values, best = [], [], []
    for piece in pieces:
        offsets.append(offset)
        offset += len(token_text(piece.token))
        values.append(None if piece.place is None else piece.place.of(piece.token)[0])
        rows = [] if piece.place is None else listed(piece.place, top, piece.token)
        best.append({spelled(token, names_ids): logprob for token, logprob, _ in rows})
    return {"text_offset": offsets, "token_logprobs": values,
            "tokens": [spelled(p.token, names_ids) for p in pieces], "top_logprobs": best}  # fmt: skip


def finish_of(answer: Answer, is_named: bool) -> str | None:
    """A required tool call ends with tool_calls, a named one with stop (seen)."""
    if answer.tool and answer.finish_reason == "stop" and not is_named:
        return "tool_calls"
    return answer.finish_reason


def chat_choice(answer: Answer, is_named: bool, tool_id: str) -> Json:
    """One choice of a whole chat answer."""
    wish = answer.wish
    message: Json = {"role": "assistant", "content": answer.text(), "refusal": None, "annotations": None,
                     "audio": None, "function_call": None}  # fmt: skip
    if answer.tool:
        call = {"name": answer.tool, "arguments": answer.text("tool")}
        message["tool_calls"] = [{"id": tool_id, "type": "function", "function": call}]
    message["reasoning"] = answer.text("reasoning") or None
    logprobs = None
    if wish.top_logprobs is not None:
        logprobs = {"content": [chat_logprob(piece, wish.top_logprobs, wish.names_ids) for piece in answer.pieces]}
    return {"index": answer.index, "message": message, "logprobs": logprobs,
            "finish_reason": finish_of(answer, is_named), "stop_reason": answer.stop_reason,
            "token_ids": [p.token for p in answer.pieces] if wish.returns_token_ids else None,
            "routed_experts": None}  # fmt: skip


def chat_chunk_choice(answer: Answer, piece: Piece, is_last: bool, is_named: bool, delta: Json) -> Json:
    """The choice of a chunk that brings one token."""
    wish = answer.wish
    logprobs = None
    if wish.top_logprobs is not None:
        logprobs = {"content": [chat_logprob(piece, wish.top_logprobs, wish.names_ids)]}
    choice: Json = {"index": answer.index, "delta": delta, "logprobs": logprobs,
                    "finish_reason": finish_of(answer, is_named) if is_last else None}  # fmt: skip
    if is_last:
        choice["stop_reason"] = answer.stop_reason
    return choice | {"token_ids": [piece.token] if wish.returns_token_ids else None}


def tool_delta(text: str) -> Json:
    """A piece of a tool call's arguments."""
    return {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def tool_head(name: str, tool_id: str) -> Json:
    """The beginning of a tool call."""
    function = {"name": name}
    return {"content": None, "tool_calls": [{"id": tool_id, "type": "function", "index": 0, "function": function}]}


def tail(first: Json) -> Json:
    """What every whole chat answer ends with."""
    return first | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
