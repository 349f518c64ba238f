"""Faults in the shapes that clients of each route understand, and what a backend's own error body means.

OpenAI's shape everywhere but on /v1/messages, which speaks Anthropic's; inside a stream, the event that the client
of that route looks for. A backend's own 4xx body is passed on as it is; it is only *read* here.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import orjson

from router.errors import RouterError
from router.openai.routes import Route, RouteKind


class ErrorKind(StrEnum):
    """What a backend's 4xx or 5xx says, as far as a decision cares."""

    TOO_LONG = "too_long"  # prompt or limit beyond its context
    UNKNOWN_MODEL = "unknown_model"
    NO_ROUTE = "no_route"  # it does not serve this path (an embedding call on a generating model)
    NO_MODALITY = "no_modality"
    NO_TOOL_PARSER = "no_tool_parser"
    NO_REASONING = "no_reasoning"
    NO_FEATURE = "no_feature"  # logprobs beyond its limit, priority without the scheduler, guided output, …
    CONTINUATION = "continuation"  # it refuses to continue a message
    BUSY = "busy"
    AUTH = "auth"
    CLIENT = "client"
    SERVER = "server"


# First match wins. Wordings of vLLM 0.18 to 0.33, llama.cpp, SGLang and Ollama; lower case.
_WORDINGS: tuple[tuple[ErrorKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (
            ErrorKind.TOO_LONG,
            r"maximum context length|exceed_context_size|exceeds? the (available |model's |maximum )*context|"
            r"cannot be greater than max_model_len|context_length_exceeded|prompt is too long|"
            r"longer than the maximum model length|max_total_tokens|maximum model length",
        ),
        (
            ErrorKind.NO_MODALITY,
            r"not a multimodal model|(image|audio|video) input is not supported|does not support (image|audio|video)|"
            r"at most 0 (image|audio|video)|mmproj",
        ),
        (
            ErrorKind.NO_TOOL_PARSER,
            r"enable-auto-tool-choice|tool-call-parser|does not support tools|requires --jinja|tools? param requires",
        ),
        (ErrorKind.NO_REASONING, r"reasoning-parser|reasoning parser|does not support (thinking|reasoning)"),
        (ErrorKind.CONTINUATION, r"continue_final_message|assistant response prefill|add_generation_prompt"),
        (
            ErrorKind.NO_FEATURE,
            r"greater than max allowed|priority scheduling|scheduling-policy|not_supported_error|not supported|"
            r"does not support|is not available|not implemented|only supported (when|with|by)",
        ),
        (ErrorKind.UNKNOWN_MODEL, r"model .{0,200}(does not exist|not found)|model_not_found"),
    )
)
_BUSY_STATUSES = frozenset({408, 425, 429, 503, 529})
_LOOKED_AT = 4096


def error_body(route: Route | None, fault: RouterError) -> bytes:
    """Write a fault as the JSON body of an answer on this route (None: no route was found)."""
    if route is not None and route.kind in (RouteKind.MESSAGES, RouteKind.COUNT_TOKENS):
        return orjson.dumps({"type": "error", "error": _anthropic(fault)})
    return orjson.dumps({"error": _openai(fault)})


def error_event(route: Route, fault: RouterError, *, response_id: str | None = None) -> bytes:
    """Write a fault as the last event of a stream that has begun, so that no client takes the rest for an answer."""
    if route.kind is RouteKind.MESSAGES:
        return b"event: error\ndata: " + orjson.dumps({"type": "error", "error": _anthropic(fault)}) + b"\n\n"
    if route.kind in (RouteKind.RESPONSES, RouteKind.RESPONSES_GET):
        return _response_failed(fault, response_id)
    if route.kind is RouteKind.COHERE_CHAT:
        return b"event: error\ndata: " + orjson.dumps({"type": "error", "message": fault.message}) + b"\n\n"
    return b"data: " + orjson.dumps({"error": _openai(fault)}) + b"\n\n"


def classify_backend_error(status: int, body: bytes) -> ErrorKind:
    """Say what a backend's error answer means, by its status first and its words second.

    Only the first 4 kB are looked at. Words decide where servers differ in status: llama.cpp answers 500 to an image
    that it cannot see, 501 to embeddings.
    """
    if status in (401, 403):
        return ErrorKind.AUTH
    if status in _BUSY_STATUSES:
        return ErrorKind.BUSY
    said = body[:_LOOKED_AT].decode("utf-8", "replace").lower()
    if status == 404 and ('"detail":"not found"' in said.replace(" ", "") or "file not found" in said):
        return ErrorKind.NO_ROUTE
    for kind, pattern in _WORDINGS:
        if pattern.search(said):
            return kind
    if status == 404:
        return ErrorKind.UNKNOWN_MODEL if '"param":"model"' in said.replace(" ", "") else ErrorKind.NO_ROUTE
    if status in (405, 501):
        return ErrorKind.NO_ROUTE
    return ErrorKind.SERVER if status >= 500 else ErrorKind.CLIENT


def error_message(body: bytes, limit: int = 300) -> str:
    """Return what an error body says, for a log line or the reason of a decision: one bounded line, "" if nothing."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _one_line(body[: 4 * limit].decode("utf-8", "replace"), limit)
    return _one_line(said_by(document), limit)


def said_by(document: Any) -> str:
    """Find the message in a parsed error of any server: `error.message`, `error` itself, `message` or `detail`."""
    if isinstance(document, dict):
        error = document.get("error", document)
        if isinstance(error, str):
            return error
        if isinstance(error, dict):
            for key in ("message", "detail", "type"):
                if isinstance(error.get(key), str):
                    return str(error[key])
    return ""


def _openai(fault: RouterError) -> dict[str, Any]:
    return {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}


def _anthropic(fault: RouterError) -> dict[str, Any]:
    """Anthropic's types go by status (its API reference, "Errors"); the SDK raises by status too."""
    types = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
    types |= {429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error"}
    kind = types.get(fault.status, "invalid_request_error" if fault.status < 500 else "api_error")
    return {"type": kind, "message": fault.message}


def _response_failed(fault: RouterError, response_id: str | None) -> bytes:
    """Both endings the Responses API knows: SDKs raise on `error`, state machines wait for `response.failed`."""
    failed: dict[str, Any] = {"object": "response", "status": "failed", "output": []}
    failed |= {"id": response_id or "", "error": {"code": "server_error", "message": fault.message}}
    events: tuple[dict[str, Any], ...] = (
        {"type": "error", "code": fault.code, "message": fault.message, "param": fault.param},
        {"type": "response.failed", "response": failed},
    )
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)


def _one_line(text: str, limit: int) -> str:
    return " ".join(text.split())[:limit]
