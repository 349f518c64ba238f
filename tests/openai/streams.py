"""Event streams for tests: the recorded ones with their tables, and chunks made to measure."""

import json

from router.openai.routes import CHAT_STREAM, COMPLETION_STREAM, MESSAGES_STREAM, RESPONSES_STREAM, StreamTable
from router.openai.stream import LEARN_LIMIT, EventStream

DONE = b"data: [DONE]\n\n"
TABLES = {
    "chat_stream": CHAT_STREAM,
    "chat_stream_usage": CHAT_STREAM,
    "chat_stream_usage_continuous": CHAT_STREAM,
    "chat_stream_logprobs": CHAT_STREAM,
    "chat_stream_keepalive_http": CHAT_STREAM,
    "chat_return_token_ids_stream": CHAT_STREAM,
    "chat_n2_stream": CHAT_STREAM,
    "chat_tools_required_stream": CHAT_STREAM,
    "completion_stream_usage": COMPLETION_STREAM,
    "responses_stream": RESPONSES_STREAM,
    "messages_stream": MESSAGES_STREAM,
}
RECORDED = [(server, name) for server in ("vllm", "llamacpp") for name in TABLES]
SEEN = (
    *("events", "committable", "has_content", "finished", "done", "usage", "finish_reasons", "error", "broken"),
    *("response_id", "fingerprint", "phase", "reasoned", "tooled", "resumable"),
)


def unlearned(table: StreamTable, *, choices: int = 1, strip_usage: bool = False) -> EventStream:
    """The same stream with the shortcut switched off: every event is parsed."""
    stream = EventStream(table, choices=choices, strip_usage=strip_usage)
    stream._learns = LEARN_LIMIT
    return stream


def seen(stream: EventStream) -> dict[str, object]:
    return {name: getattr(stream, name) for name in SEEN}


def run(stream: EventStream, pieces) -> bytes:
    return b"".join([*map(stream.feed, pieces), stream.end()])


def choices_of(name: str) -> int:
    return 2 if "n2" in name else 1


def chunk(delta=None, finish=None, **more) -> bytes:
    """One chunk as vLLM writes it."""
    choice = {"index": more.pop("index", 0), "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(document | more, separators=(",", ":")).encode() + b"\n\n"


def typed(kind: str, **fields) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, separators=(',', ':'))}\n\n".encode()


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk(finish="stop")
ERROR = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\n'
