"""Which requests pass, and what a stream of each route looks like.

The list is closed: what vLLM 0.33 serves to clients, and the router's own. Dev-mode, scale-out, LoRA, profiler and
unknown paths match nothing, because on a real vLLM those routes sit outside the API key (`/sleep`, `/collective_rpc`,
`/update_weights`, …). Paths are compared as bytes on the wire: no case folding, no percent-decoding, no slash guessing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from router.errors import ClientFault, MethodNotAllowed


class RouteKind(StrEnum):
    """What a route is for; the exchange branches on this and never on a path."""

    CHAT = "chat"
    CHAT_BATCH = "chat_batch"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    RESPONSES_GET = "responses_get"
    RESPONSES_CANCEL = "responses_cancel"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    COHERE_CHAT = "cohere_chat"
    INVOCATIONS = "invocations"
    DECISIONS = "decisions"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    SCORE = "score"
    CLASSIFY = "classify"
    POOLING = "pooling"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    AUDIO = "audio"
    MODELS = "models"
    MODEL = "model"
    HEALTH = "health"
    LIVEZ = "livez"
    READYZ = "readyz"
    METRICS = "metrics"
    VERSION = "version"
    LOAD = "load"


class StreamShape(StrEnum):
    """The two families of event streams."""

    CHOICES = "choices"  # {"choices":[{"index","delta"|"text","finish_reason"}]}, every choice ends by itself
    TYPED = "typed"  # {"type": "…"}: the type says what an event means


@dataclass(frozen=True, slots=True, eq=False)
class StreamTable:
    """What the events of one route mean, as data.

    Attributes:
        shape: the family.
        content: CHOICES: keys of a delta (or of the choice itself) that carry output, mapped to their phase.
            TYPED: event types that carry output, mapped to their phase.
        terminal: TYPED: types that end the answer. CHOICES: empty; a finish_reason for every index ends it.
        failed: TYPED: types that say the answer failed.
        keep_alive: types that say nothing at all, like a comment.
        usage: where token counts stand, as paths; later paths and later events complete earlier ones.
        response_id: where the answer's id stands, as paths.
        has_done: whether `data: [DONE]` follows the last event.
    """

    shape: StreamShape
    content: dict[str, str]
    terminal: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    keep_alive: frozenset[str] = frozenset()
    usage: tuple[tuple[str, ...], ...] = (("usage",),)
    response_id: tuple[tuple[str, ...], ...] = (("id",),)
    has_done: bool = False


CHAT_STREAM = StreamTable(
    shape=StreamShape.CHOICES,
    # `reasoning` is vLLM's name since 0.12, `reasoning_content` the older one and llama.cpp's.
    content={
        "content": "content",
        "refusal": "content",
        "reasoning": "reasoning",
        "reasoning_content": "reasoning",
        "tool_calls": "tool",
        "function_call": "tool",
        "audio": "content",
    },
    has_done=True,
)
COMPLETION_STREAM = StreamTable(shape=StreamShape.CHOICES, content={"text": "content"}, has_done=True)
RESPONSES_STREAM = StreamTable(
    shape=StreamShape.TYPED,
    content={
        "response.output_text.delta": "content",
        "response.refusal.delta": "content",
        "response.reasoning_text.delta": "reasoning",
        "response.reasoning_summary_text.delta": "reasoning",
        "response.reasoning_part.added": "reasoning",
        "response.function_call_arguments.delta": "tool",
        "response.mcp_call_arguments.delta": "tool",
        "response.custom_tool_call_input.delta": "tool",
        "response.code_interpreter_call_code.delta": "tool",
    },
    terminal=frozenset({"response.completed", "response.incomplete"}),
    failed=frozenset({"error", "response.failed", "response.cancelled"}),
    usage=(("response", "usage"),),
    response_id=(("response", "id"),),
)
MESSAGES_STREAM = StreamTable(
    shape=StreamShape.TYPED,
    content={"content_block_delta": "content"},  # the delta's own type tells text from thinking and tool input
    terminal=frozenset({"message_stop"}),
    failed=frozenset({"error"}),
    keep_alive=frozenset({"ping"}),
    usage=(("message", "usage"), ("usage",)),
    response_id=(("message", "id"),),
)
COHERE_STREAM = StreamTable(
    shape=StreamShape.TYPED,
    content={
        "content-delta": "content",
        "tool-plan-delta": "tool",
        "tool-call-start": "tool",
        "tool-call-delta": "tool",
    },
    terminal=frozenset({"message-end"}),
    failed=frozenset({"error"}),
    usage=(("delta", "usage", "tokens"),),
    response_id=(("id",),),
)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One route.

    Attributes:
        name: the path as a template; the label in metrics and log lines.
        kind: what it is for.
        methods: what may be asked of it.
        streams: what its event stream looks like, None where it never streams.
        body: "json", "multipart" or "none".
        local: answered from memory, no backend asked.
        needs_model: a call without `model` is refused (vLLM serves its default, a router cannot know which is meant).
    """

    name: str
    kind: RouteKind
    methods: tuple[str, ...] = ("POST",)
    streams: StreamTable | None = None
    body: str = "json"
    local: bool = False
    needs_model: bool = True


def _local(name: str, kind: RouteKind, methods: tuple[str, ...] = ("GET", "HEAD")) -> Route:
    return Route(name, kind, methods, body="none", local=True, needs_model=False)


def _posts(kind: RouteKind, *names: str) -> Iterable[Route]:
    return (Route(name, kind) for name in names)


ROUTES: tuple[Route, ...] = (
    Route("/v1/chat/completions", RouteKind.CHAT, streams=CHAT_STREAM),
    Route("/v1/chat/completions/batch", RouteKind.CHAT_BATCH),
    Route("/v1/completions", RouteKind.COMPLETIONS, streams=COMPLETION_STREAM),
    Route("/v1/responses", RouteKind.RESPONSES, streams=RESPONSES_STREAM),
    Route("/v1/messages", RouteKind.MESSAGES, streams=MESSAGES_STREAM),
    Route("/v1/messages/count_tokens", RouteKind.COUNT_TOKENS),
    Route("/cohere/v2/chat", RouteKind.COHERE_CHAT, streams=COHERE_STREAM),
    Route("/invocations", RouteKind.INVOCATIONS, needs_model=False),
    *_posts(RouteKind.DECISIONS, "/v1/systemone", "/v1/decisions"),
    *_posts(RouteKind.EMBEDDINGS, "/v1/embeddings", "/v2/embed"),
    *_posts(RouteKind.RERANK, "/rerank", "/v1/rerank", "/v2/rerank"),
    *_posts(RouteKind.SCORE, "/score", "/v1/score", "/generative_scoring"),
    *_posts(RouteKind.CLASSIFY, "/classify"),
    *_posts(RouteKind.POOLING, "/pooling"),
    Route("/tokenize", RouteKind.TOKENIZE, needs_model=False),
    Route("/detokenize", RouteKind.DETOKENIZE, needs_model=False),
    Route("/v1/audio/transcriptions", RouteKind.AUDIO, streams=CHAT_STREAM, body="multipart"),
    Route("/v1/audio/translations", RouteKind.AUDIO, streams=CHAT_STREAM, body="multipart"),
    _local("/v1/models", RouteKind.MODELS),
    _local("/health", RouteKind.HEALTH),
    _local("/ping", RouteKind.HEALTH, ("GET", "HEAD", "POST")),
    _local("/livez", RouteKind.LIVEZ),
    _local("/readyz", RouteKind.READYZ),
    _local("/metrics", RouteKind.METRICS),
    _local("/version", RouteKind.VERSION),
    _local("/load", RouteKind.LOAD),
)
MODEL = _local("/v1/models/{model}", RouteKind.MODEL)
RESPONSES_GET = Route(
    "/v1/responses/{response_id}", RouteKind.RESPONSES_GET, ("GET",), RESPONSES_STREAM, "none", needs_model=False
)
RESPONSES_CANCEL = Route(
    "/v1/responses/{response_id}/cancel", RouteKind.RESPONSES_CANCEL, ("POST",), body="none", needs_model=False
)
ALL_ROUTES = (*ROUTES, MODEL, RESPONSES_GET, RESPONSES_CANCEL)

_FIXED = {route.name: route for route in ROUTES}
_BY_REQUEST = {(method, route.name): route for route in ROUTES for method in route.methods}


def match(method: str, target: str) -> Route:
    """Find the route of a request by its method and target (origin form; a query is not looked at).

    Raises:
        ClientFault: 404 `unknown_url` where no such path is served to clients.
        MethodNotAllowed: 405 where the path is, but not with this method.
    """
    route = _BY_REQUEST.get((method, target))
    if route is not None:
        return route
    path = target.partition("?")[0]
    route = _FIXED.get(path) or _by_template(path)
    if route is None:
        raise ClientFault(f"Unknown request URL: {method} {_shown(path)}.", status=404, code="unknown_url")
    if method not in route.methods:
        raise MethodNotAllowed(_shown(method), route.name, route.methods)
    return route


def path_id(route: Route, target: str) -> str:
    """Return the model or response id that stands in the path of a templated route, percent-decoded; else ""."""
    path = target.partition("?")[0]
    if route is MODEL:
        return unquote(path.removeprefix("/v1/models/"))
    if route is RESPONSES_GET or route is RESPONSES_CANCEL:
        return unquote(path.removeprefix("/v1/responses/").removesuffix("/cancel"))
    return ""


def _by_template(path: str) -> Route | None:
    """Match the paths that hold an id. A model's id may hold slashes (`org/name`), a response's may not."""
    if path.startswith("/v1/models/") and len(path) > len("/v1/models/"):
        return MODEL
    if not path.startswith("/v1/responses/"):
        return None
    ident, slash, rest = path.removeprefix("/v1/responses/").partition("/")
    if not ident:
        return None
    if not slash:
        return RESPONSES_GET
    return RESPONSES_CANCEL if rest == "cancel" else None


def _shown(text: str, limit: int = 200) -> str:
    """Make what a stranger wrote fit for a message: bounded and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit])
