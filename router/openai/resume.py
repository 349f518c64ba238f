"""Continue a broken answer on another backend: the request that asks for the rest, and whether that is possible.

vLLM continues an assistant's message with `continue_final_message` and `add_generation_prompt: false`, and answers
with the continuation only; llama.cpp repeats the message first. How the continuation's events become part of the
client's stream is `splice.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from router.openai import scan
from router.openai.call import TOKEN_LIMITS, Call, edit, set_key
from router.openai.routes import RouteKind
from router.openai.splice import Splice
from router.openai.stream import EventStream

__all__ = ["Splice", "can_resume", "resume_body"]

# What makes a continuation another answer than the one that broke.
_UNSAFE_KEYS = ("suffix", "use_beam_search", "best_of", "prompt_embeds", "kv_transfer_params", "repetition_detection")


def can_resume(call: Call, stream: EventStream) -> str | None:
    """Say why a broken stream cannot be continued elsewhere; None where it can."""
    if call.route.kind not in (RouteKind.CHAT, RouteKind.COMPLETIONS):
        return f"{call.route.name} has no way to continue an answer"
    if call.choices > 1:
        return "it has several choices"
    if not stream.resumable:
        return "part of an event went out"
    if stream.finished:
        return "the answer was already finished"
    if not stream.has_content and stream.phase == "none":
        return None  # nothing but a role went out: the answer simply starts again
    if stream.reasoned:
        return "a reasoning block has begun"
    if stream.tooled:
        return "a tool call has begun"
    if call.wants_logprobs:
        return "logprobs were asked for"
    if call.guided:
        return "its output is guided"
    if call.continues_message:
        return "it continues a message itself"
    if call.echo:
        return "it echoes its prompt"
    unsafe = next((key for key in _UNSAFE_KEYS if key in call.keys), None)
    return f"it uses {unsafe}" if unsafe else None


def resume_body(
    call: Call,
    emitted_text: str,
    emitted_tokens: int,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    include_usage: bool = False,
    token_ids: Sequence[int] = (),
) -> bytes:
    """Return the request for the rest of an answer: the original bytes, with what was said already added.

    Args:
        call: the call that broke; `can_resume` found nothing against it.
        emitted_text: what the client has, all of it.
        emitted_tokens: about how many tokens that was; output limits shrink by it.
        model: the name that the backend serves it under.
        max_tokens: the most the backend takes, as for `edit`.
        include_usage: ask for a usage chunk, as for `edit`.
        token_ids: ids of the emitted tokens, needed where the prompt of a completion is token ids.

    Raises:
        ValueError: the prompt is token ids and those of the answer are not known.
    """
    edited = edit(call, model=model, max_tokens=max_tokens, include_usage=include_usage)
    if not emitted_text and not token_ids:
        return edited
    # A second round of edits: the few keys below are none of those that `edit` touches, but for output limits.
    again = call.rebased(edited)
    patches = [set_key(again, key, b"%d" % left) for key, left in _limits_left(call, emitted_tokens, max_tokens)]
    if call.route.kind is RouteKind.CHAT:
        patches += _chat_patches(again, emitted_text)
    else:
        patches.append(_prompt_patch(again, emitted_text, token_ids))
    return scan.apply(edited, patches)


def seam_text(call: Call, emitted_text: str) -> str:
    """Return the text that the continuation's prompt ends with.

    Chat templates often strip a message, so trailing white space is left off, comes again at the beginning of the
    continuation, and is dropped there. A completion's prompt is taken as it is.
    """
    return emitted_text.rstrip() if call.route.kind is RouteKind.CHAT else emitted_text


def _limits_left(call: Call, emitted: int, most: int | None) -> list[tuple[str, int]]:
    limits = list(call.limits)
    if "min_tokens" in call.keys and (member := scan.find(call.body, "min_tokens")) is not None:
        least = orjson.loads(call.body[member.start : member.end])
        if isinstance(least, int):
            limits.append(("min_tokens", least))
    left = []
    for key, value in limits:
        if key in TOKEN_LIMITS and most is not None:
            left.append((key, min(most, max(1, value - emitted))))
        else:
            left.append((key, max(1 if key in TOKEN_LIMITS else 0, value - emitted)))
    return left


def _chat_patches(call: Call, text: str) -> list[scan.Patch]:
    messages = scan.find(call.body, "messages")
    if messages is None:
        raise ValueError("the call has no messages")
    message = orjson.dumps({"role": "assistant", "content": seam_text(call, text)})
    end = scan.closing(call.body, messages)
    comma = b"" if scan.is_empty(call.body, messages) else b","
    return [
        (end, end, comma + message),
        set_key(call, "continue_final_message", b"true"),
        set_key(call, "add_generation_prompt", b"false"),
    ]


def _prompt_patch(call: Call, text: str, token_ids: Sequence[int]) -> scan.Patch:
    """Add to a completion's prompt: a string, a list of one string, token ids, or a list of one list of them."""
    prompt = scan.find(call.body, "prompt")
    if prompt is None:
        raise ValueError("the call has no prompt")
    value = call.body[prompt.start : prompt.end]
    if b'"' in value:
        end = prompt.start + value.rfind(b'"')
        return end, end, orjson.dumps(text)[1:-1]
    if not token_ids:
        raise ValueError("the prompt is token ids, and those of the answer are not known")
    end = prompt.start + value.find(b"]")
    comma = b"" if value.strip(b"[] \t\r\n") == b"" else b","
    return end, end, comma + b",".join(b"%d" % token for token in token_ids)
