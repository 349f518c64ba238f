"""A call as its body says it: what it asks for, and the few edits that a request's bytes may get.

The body is parsed once, to look; what is sent on is always the original bytes, changed at offsets or not at all.
Only what the router acts on is checked here. Everything else is the backend's to judge, and its own 4xx passes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import orjson

from router.errors import ClientFault
from router.openai import asks, multipart, scan
from router.openai.routes import CHAT_STREAM, COMPLETION_STREAM, Route, RouteKind, StreamShape, StreamTable

TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
NO_NEEDS: frozenset[str] = frozenset()
# Keys that say nothing beyond what `_read_common` and `_read_prompt` read. Most bodies hold no others, and then the
# thirty-odd questions of `_read_hints` and `_read_abilities` need not be asked (3 µs a call).
_PLAIN = frozenset(
    {
        "model",
        "messages",
        "prompt",
        "stream",
        "stream_options",
        "n",
        *TOKEN_LIMITS,
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "ignore_eos",
        "min_tokens",
        "skip_special_tokens",
        "store",
    }
)


@dataclass(slots=True)  # not frozen: one is made per call, and a frozen one of this size costs 2 µs more
class Call:
    """What one request asks for. Nobody changes it after `read_call`.

    Attributes:
        route: which route it came in on.
        body: its bytes, as they came.
        content_type: its content type header, as it came.
        table: what its event stream would look like, None where it cannot stream.
        model: the model it names, None where it names none.
        stream: whether it asks for an event stream.
        n: answers asked for per prompt.
        choices: answers in all (`n` times the prompts of a completion).
        max_tokens: the output limit that counts, None where it sets none.
        limits: every output limit that it writes, by key.
        include_usage: whether it asks for usage in the stream itself.
        has_tools: whether it offers tools and lets the model use them.
        has_images: whether a message holds an image or video.
        needs: abilities it asks for: "tools", "vision", "json_schema", "logprobs", "audio".
        priority: vLLM's scheduling priority, 0 where it sets none.
        prompt_bytes: bytes that turn into prompt tokens: the body (its tools are part of the prompt) without media.
        messages_at: offset of the first `"messages"`, `"prompt"` or `"input"`, 0 where there is none; for hashing
            prefixes, where being the same for the same beginning is what counts.
        prompt_cache_key: OpenAI's hint to keep calls with one key together.
        user: the end user's id.
        session: a conversation's id found in the body.
        previous_response_id: the response that it continues.
        wants_token_ids: whether it asks for token ids in the answer.
        wants_logprobs: whether it asks for logprobs of output or prompt.
        guided: whether a grammar constrains the output.
        stop: its stop strings.
        background: "title", "tags" or "follow_up" for a call that nobody watches, else None.
        thinking: whether it switches reasoning on or off, None where it does not say.
        continues_message: whether it asks to continue its own last message.
        echo: whether a completion repeats its prompt.
        keys: the keys of its outermost object.
    """

    route: Route
    body: bytes
    content_type: bytes | None = None
    table: StreamTable | None = None
    model: str | None = None
    stream: bool = False
    n: int = 1
    choices: int = 1
    max_tokens: int | None = None
    limits: tuple[tuple[str, int], ...] = ()
    include_usage: bool = False
    has_tools: bool = False
    has_images: bool = False
    needs: frozenset[str] = NO_NEEDS
    priority: int = 0
    prompt_bytes: int = 0
    messages_at: int = 0
    prompt_cache_key: str | None = None
    user: str | None = None
    session: str | None = None
    previous_response_id: str | None = None
    wants_token_ids: bool = False
    wants_logprobs: bool = False
    guided: bool = False
    stop: tuple[str, ...] = ()
    background: str | None = None
    thinking: bool | None = None
    continues_message: bool = False
    echo: bool = False
    keys: frozenset[str] = field(default=NO_NEEDS, repr=False)

    def rebased(self, body: bytes) -> Call:
        """Return the same call over bytes that were edited once already; keys that the edit added are known."""
        return replace(self, body=body, keys=frozenset(_parse(body)))


def read_call(route: Route, body: bytes, content_type: bytes | None) -> Call:
    """Read what a request asks for.

    Raises:
        ClientFault: 400 for a body that is not the JSON object (or form) the route wants, or lacks its model;
            415 for another content type.
    """
    if route.body == "none":
        return Call(route, body, content_type)
    if route.body == "multipart":
        return _read_form(route, body, content_type)
    _check_content_type(content_type)
    document = _parse(body)
    call = Call(route, body, content_type, route.streams, keys=frozenset(document))
    _read_common(call, document)
    prompt = _read_prompt(call, document)
    _read_media(call, document)
    if not call.keys <= _PLAIN:
        _read_hints(call, document)
        _read_abilities(call, document)
    call.background = asks.background(prompt)
    return call


def edit(call: Call, *, model: str | None = None, max_tokens: int | None = None, include_usage: bool = False) -> bytes:
    """Return the body with named edits made at their offsets; the very same object where none is needed.

    Args:
        call: the call; its original bytes are edited, whatever was made of them for an earlier attempt.
        model: the name that the backend serves it under.
        max_tokens: the most the backend takes; every larger limit that the client wrote is lowered to it.
        include_usage: ask for a usage chunk at the end of a stream. Other values of `stream_options` stay.
    """
    if call.route.body == "multipart":
        return _edit_form(call, model)
    patches: list[scan.Patch] = []
    if model is not None and model != call.model:
        patches.append(set_key(call, "model", orjson.dumps(model)))
    if max_tokens is not None:
        patches += [set_key(call, key, b"%d" % max_tokens) for key, value in call.limits if value > max_tokens]
    if include_usage and not call.include_usage and takes_stream_options(call):
        patches.append(_usage_patch(call))
    return scan.apply(call.body, patches) if patches else call.body


def takes_stream_options(call: Call) -> bool:
    """Say whether usage comes into this call's stream by `stream_options` (the typed streams always carry it)."""
    return call.stream and call.table is not None and call.table.shape is StreamShape.CHOICES


def set_key(call: Call, key: str, value: bytes) -> scan.Patch:
    """Return the patch that gives a top-level key a JSON value: in its place, or as the last member."""
    member = scan.find(call.body, key) if key in call.keys else None
    if member is not None:
        return member.start, member.end, value
    end = scan.closing(call.body)
    comma = b"," if call.keys else b""
    return end, end, comma + b'"%b":%b' % (key.encode(), value)


def _usage_patch(call: Call) -> scan.Patch:
    options = scan.find(call.body, "stream_options") if "stream_options" in call.keys else None
    if options is None or call.body[options.start] != ord("{"):
        return set_key(call, "stream_options", b'{"include_usage":true}')
    for member in reversed(list(scan.members(call.body, options.start))):
        if member.key == "include_usage":
            return member.start, member.end, b"true"
    end = scan.closing(call.body, options)
    comma = b"" if scan.is_empty(call.body, options) else b","
    return end, end, comma + b'"include_usage":true'


def _check_content_type(content_type: bytes | None) -> None:
    if content_type is None or content_type == b"application/json":
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json")):
        return
    shown = kind.decode("latin-1")[:100]
    raise ClientFault(
        f"Unsupported content type '{shown}': send application/json.", status=415, code="unsupported_media_type"
    )


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        document = _parse_surrogates(body, error)
    if type(document) is not dict:
        raise ClientFault(
            f"Invalid body: expected a JSON object, but got {_json_type(document)} instead.", code="invalid_json"
        )
    return document


def _parse_surrogates(body: bytes, error: Exception) -> Any:
    """Parse once more where the text may hold half a surrogate pair: JSON's grammar allows it, orjson does not.

    JavaScript clients send such halves when they cut a text within an emoji; vLLM accepts them.
    """
    if b"\\ud" in body or b"\\uD" in body:
        try:
            return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as again:
            error = again
    if not body.strip():
        raise ClientFault("The request has no body; a JSON object is expected.", code="invalid_json")
    message = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise ClientFault(f"We could not parse the JSON body of your request: {message}.", code="invalid_json")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _json_type(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
    }
    return names.get(type(value), "null")


def _wrong_type(param: str, wanted: str, value: object) -> ClientFault:
    return ClientFault(
        f"Invalid type for '{param}': expected {wanted}, but got {_json_type(value)} instead.",
        code="invalid_type",
        param=param,
    )


def _read_common(call: Call, document: dict[str, Any]) -> None:
    model = document.get("model")
    if model.__class__ is not str:
        if model is not None:
            raise _wrong_type("model", "a string", model)
        if call.route.needs_model:
            raise ClientFault("You must provide a model parameter.", code="missing_required_parameter", param="model")
    elif not model:
        raise ClientFault("The model parameter is empty.", code="missing_required_parameter", param="model")
    call.model = model
    stream = document.get("stream")
    if stream is not None:
        if stream.__class__ is not bool:
            raise _wrong_type("stream", "a boolean", stream)
        call.stream = stream
        options = document.get("stream_options")
        call.include_usage = options.__class__ is dict and bool(options.get("include_usage"))
    if "n" in document:
        n = _integer(document, "n")
        if n is not None and n > 1:
            call.n = call.choices = n
    for key in TOKEN_LIMITS:
        if key in document and (limit := _integer(document, key)) is not None:
            call.limits += ((key, limit),)
    if call.limits:
        call.max_tokens = call.limits[0][1]


def _read_hints(call: Call, document: dict[str, Any]) -> None:
    priority = document.get("priority")
    if priority.__class__ is int:
        call.priority = priority
    call.prompt_cache_key = asks.text(document.get("prompt_cache_key"))
    call.user = asks.text(document.get("user")) or asks.text(document.get("safety_identifier"))
    call.previous_response_id = asks.text(document.get("previous_response_id"))
    call.session = asks.session(document)


_QUOTED = {"messages": b'"messages"', "prompt": b'"prompt"', "input": b'"input"'}


def _read_prompt(call: Call, document: dict[str, Any]) -> Any:
    """Find the prompt part, check what is looked at later, and return it."""
    key = "messages" if "messages" in document else "prompt" if "prompt" in document else "input"
    prompt = document.get(key)
    call.prompt_bytes = len(call.body)
    if prompt is None:
        return None
    if key == "messages" and prompt.__class__ is not list:
        raise _wrong_type("messages", "an array of objects", prompt)
    if key == "prompt" and prompt.__class__ is list and len(prompt) > 1 and prompt[0].__class__ is not int:
        call.choices = call.n * len(prompt)  # several prompts in one completion
    if call.route.kind is RouteKind.INVOCATIONS and key != "input":  # one path for several routes, told by the body
        call.table = CHAT_STREAM if key == "messages" else COMPLETION_STREAM
    call.messages_at = max(call.body.find(_QUOTED[key]), 0)
    return prompt


def _read_media(call: Call, document: dict[str, Any]) -> None:
    found, inline = asks.media(document.get("messages") or document.get("input"))
    if found:
        call.has_images = "vision" in found
        call.prompt_bytes -= inline
        call.needs = found


def _read_abilities(call: Call, document: dict[str, Any]) -> None:
    needs = set(call.needs)
    choice = document.get("tool_choice")
    call.has_tools = bool(document.get("tools")) and choice != "none"
    if call.has_tools:
        needs.add("tools")
        call.guided = choice == "required" or choice.__class__ is dict
    if asks.is_guided(document):
        call.guided = True
        needs.add("json_schema")
    logprobs = document.get("logprobs")
    call.wants_logprobs = (logprobs is not None and logprobs is not False) or (
        document.get("prompt_logprobs") is not None or bool(document.get("top_logprobs"))
    )
    if call.wants_logprobs:
        needs.add("logprobs")
    call.needs = frozenset(needs) if needs else NO_NEEDS
    call.wants_token_ids = bool(document.get("return_token_ids") or document.get("return_tokens_as_token_ids"))
    stop = document.get("stop") or document.get("stop_sequences")
    if stop:
        call.stop = asks.strings(stop)
    call.continues_message = bool(document.get("continue_final_message"))
    call.echo = bool(document.get("echo"))
    call.thinking = asks.thinking(document)


def _integer(document: dict[str, Any], key: str) -> int | None:
    value = document.get(key)
    if value is None or value.__class__ is int:
        return value
    if value.__class__ is float and value.is_integer():
        return int(value)
    raise _wrong_type(key, "an integer", value)


def _read_form(route: Route, body: bytes, content_type: bytes | None) -> Call:
    call = Call(route, body, content_type, route.streams, prompt_bytes=len(body), needs=frozenset({"audio"}))
    for part in multipart.parts(body, content_type or b""):
        if part.name == "model":
            call.model = body[part.start : part.end].decode("utf-8", "replace").strip() or None
            call.messages_at = part.start
        elif part.name == "stream":
            call.stream = body[part.start : part.end].strip().lower() in (b"true", b"1")
    if call.model is None and route.needs_model:
        raise ClientFault("You must provide a model parameter.", code="missing_required_parameter", param="model")
    return call


def _edit_form(call: Call, model: str | None) -> bytes:
    if model is None or model == call.model:
        return call.body
    spans = [p for p in multipart.parts(call.body, call.content_type or b"") if p.name == "model"]
    return scan.apply(call.body, [(spans[-1].start, spans[-1].end, model.encode())])
