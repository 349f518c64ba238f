import json

import pytest

from router.errors import BackendFault, ClientFault, FailureKind, Overloaded, Phase
from router.openai.errors import ErrorKind, classify_backend_error, error_body, error_event, error_message
from router.openai.routes import match
from router.openai.stream import EventStream
from tests.openai.captures import capture

CHAT = match("POST", "/v1/chat/completions")
STREAMING = [
    CHAT,
    *(match("POST", p) for p in ("/v1/completions", "/v1/responses", "/v1/messages", "/cohere/v2/chat")),
]
LOST = BackendFault("spark-1 hung up", backend="spark-1", kind=FailureKind.RESET, phase=Phase.COMMITTED)


@pytest.mark.parametrize(
    ("server", "name", "kind"),
    [
        ("vllm", "err_too_long", ErrorKind.TOO_LONG),
        ("vllm", "err_max_tokens_too_big", ErrorKind.TOO_LONG),
        ("vllm", "err_unknown_model", ErrorKind.UNKNOWN_MODEL),
        ("vllm", "messages_unknown_model", ErrorKind.UNKNOWN_MODEL),
        ("vllm", "chat_image_part", ErrorKind.NO_MODALITY),
        ("vllm", "chat_logprobs_too_many", ErrorKind.NO_FEATURE),
        ("vllm", "embeddings", ErrorKind.NO_ROUTE),
        ("vllm", "get_not_a_path", ErrorKind.NO_ROUTE),
        ("vllm", "err_wrong_method", ErrorKind.NO_ROUTE),
        ("vllm", "auth_missing_key_chat", ErrorKind.AUTH),
        ("vllm", "err_wrong_type", ErrorKind.CLIENT),
        ("vllm", "err_invalid_json", ErrorKind.CLIENT),
        ("vllm", "completion_no_prompt", ErrorKind.CLIENT),
        ("vllm", "err_temperature_negative", ErrorKind.CLIENT),
        ("vllm", "engine_killed_chat_0", ErrorKind.SERVER),
        ("llamacpp", "err_too_long", ErrorKind.TOO_LONG),
        ("llamacpp", "chat_image_part", ErrorKind.NO_MODALITY),
        ("llamacpp", "embeddings", ErrorKind.NO_FEATURE),
        ("llamacpp", "err_wrong_method", ErrorKind.NO_ROUTE),
        ("llamacpp", "err_invalid_json", ErrorKind.CLIENT),
        ("llamacpp", "err_wrong_type", ErrorKind.CLIENT),
    ],
)
def test_recorded_refusals_are_sorted(server, name, kind):
    recorded = capture(server, name)
    assert classify_backend_error(recorded.status, recorded.body) is kind
    assert error_message(recorded.body)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (
            400,
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            "no_tool_parser",
        ),
        (500, "tools param requires --jinja flag", "no_tool_parser"),
        (400, "registry.ollama.ai/library/gemma does not support tools", "no_tool_parser"),
        (400, "At most 0 image(s) may be provided in one prompt.", "no_modality"),
        (400, "Got priority 3 but priority scheduling is not enabled.", "no_feature"),
        (400, "reasoning is on but no reasoning parser is set: use --reasoning-parser", "no_reasoning"),
        (400, "Cannot set both continue_final_message and add_generation_prompt.", "continuation"),
        (400, "Your request was rejected by the content filter.", "client"),
        (408, "", "busy"),
        (429, "", "busy"),
        (503, "The engine is currently busy and cannot accept new requests.", "busy"),
        (503, "Loading model", "busy"),
        (529, "", "busy"),
        (403, "no", "auth"),
        (500, "Internal Server Error", "server"),
        (502, "<html>", "server"),
        (404, "The model `a` does not exist.", "unknown_model"),
        (404, "gone", "no_route"),
        (422, "bad image", "client"),
    ],
)
def test_wordings_of_other_servers_are_sorted(status, message, kind):
    body = json.dumps({"error": {"message": message, "type": "x", "param": None, "code": status}}).encode()
    assert classify_backend_error(status, body) == kind


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"7", b'{"error":null}', b'{"error":{"message":7}}', b"<html>"]
)
def test_any_body_can_be_sorted(body):
    assert classify_backend_error(400, body) is ErrorKind.CLIENT
    assert isinstance(error_message(body), str)


def test_the_message_of_an_error_is_found_in_every_shape_and_bounded():
    assert error_message(b'{"error":{"message":"a\\n b"}}') == "a b"
    assert error_message(b'{"error":"Unauthorized"}') == "Unauthorized"
    assert error_message(b'{"detail":"Not Found"}') == "Not Found"
    assert error_message(b'{"type":"error","error":{"type":"t","message":"m"}}') == "m"
    assert error_message(b"<html>" + b"x" * 10_000) == "<html>" + "x" * 294


def test_a_fault_has_openais_shape():
    fault = ClientFault("Too many.", status=413, code="body_too_large", param="messages")
    assert json.loads(error_body(CHAT, fault)) == {
        "error": {
            "message": "Too many.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "body_too_large",
        }
    }
    assert error_body(None, fault) == error_body(CHAT, fault)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (ClientFault("x"), "invalid_request_error"),
        (ClientFault("x", status=404), "not_found_error"),
        (ClientFault("x", status=413), "request_too_large"),
        (Overloaded("x"), "overloaded_error"),
        (Overloaded("x", status=429), "rate_limit_error"),
        (LOST, "api_error"),
    ],
)
def test_messages_speaks_anthropics_shape(fault, kind):
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        shown = json.loads(error_body(match("POST", path), fault))
        assert shown == {"type": "error", "error": {"type": kind, "message": fault.message}}


@pytest.mark.parametrize("route", STREAMING, ids=lambda route: route.name)
def test_the_error_event_of_every_route_is_seen_as_one(route):
    assert route.streams is not None
    stream = EventStream(route.streams)
    assert stream.feed(error_event(route, LOST, response_id="r")) == b""
    assert "spark-1 hung up" in json.dumps(stream.error)
