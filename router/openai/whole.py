"""What a whole JSON answer says: the text, the tool calls and how it ended, of chat, completions, messages, responses.

The counterpart of `fold.py` for answers that were not streamed. Nothing here runs for every answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from router.openai.fold import has_null_logprob, objects


@dataclass(frozen=True, slots=True)
class Whole:
    """One answer, its first choice where it has several.

    Attributes:
        text: reasoning and content.
        tool_args: arguments of its tool calls that came as text; others were parsed by the server.
        calls_tools: whether it calls tools at all.
        finish_reason: the route's own word; None where it has none, or is not finished.
        has_null_logprobs: whether a logprob is null, a sign of NaN.
    """

    text: str = ""
    tool_args: tuple[str, ...] = ()
    calls_tools: bool = False
    finish_reason: str | None = None
    has_null_logprobs: bool = False


def read_whole(document: object) -> Whole | None:
    """Read a parsed answer; None where it is none that generates text."""
    if not isinstance(document, dict):
        return None
    if choices := objects(document.get("choices")):
        return _choice(choices[0])
    if document.get("object") == "response":
        ended = {"completed": "stop", "incomplete": "incomplete"}
        return _parts(objects(document.get("output")), ended.get(str(document.get("status"))))
    if document.get("type") == "message":
        reason = document.get("stop_reason")
        return _parts(objects(document.get("content")), reason if isinstance(reason, str) else None)
    return None


def _choice(choice: dict[str, Any]) -> Whole:
    message = choice.get("message")
    source = message if isinstance(message, dict) else choice
    calls = objects(source.get("tool_calls"))
    functions = [call["function"] for call in calls if isinstance(call.get("function"), dict)]
    reason = choice.get("finish_reason")
    return Whole(
        _text(source, "reasoning", "reasoning_content", "content", "text"),
        tuple(f["arguments"] for f in functions if isinstance(f.get("arguments"), str)),
        bool(calls),
        reason if isinstance(reason, str) else None,
        has_null_logprob(choice.get("logprobs")),
    )


def _parts(parts: list[dict[str, Any]], finish_reason: str | None) -> Whole:
    """An answer that is a list of parts: text, thinking and tool calls, side by side or one inside the other."""
    inner = [one for part in parts for one in (part, *objects(part.get("content")))]
    calls = [one for one in inner if one.get("type") in ("function_call", "tool_use")]
    return Whole(
        "".join(_text(one, "thinking", "text") for one in inner),
        tuple(call["arguments"] for call in calls if isinstance(call.get("arguments"), str)),
        bool(calls),
        finish_reason,
    )


def _text(source: dict[str, Any], *names: str) -> str:
    return "".join(value for name in names if isinstance(value := source.get(name), str))
