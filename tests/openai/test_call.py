import json
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import ClientFault
from router.openai.call import Call, edit, read_call
from router.openai.routes import CHAT_STREAM, COMPLETION_STREAM, match
from tests.openai.captures import client_request

CHAT = match("POST", "/v1/chat/completions")
COMPLETIONS = match("POST", "/v1/completions")
RESPONSES = match("POST", "/v1/responses")
MESSAGES = match("POST", "/v1/messages")
TOKENIZE = match("POST", "/tokenize")
INVOCATIONS = match("POST", "/invocations")
HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def chat(**fields) -> Call:
    return read_call(CHAT, orjson.dumps(HELLO | fields), b"application/json")


def test_a_plain_chat_asks_for_little():
    call = chat()
    assert (call.model, call.stream, call.n, call.max_tokens, call.needs) == ("m", False, 1, None, frozenset())
    assert call.body[call.messages_at :].startswith(b'"messages"')
    assert call.prompt_bytes == len(call.body)
    assert call.table is CHAT_STREAM


def test_what_a_chat_asks_for_is_read():
    call = chat(
        stream=True,
        stream_options={"include_usage": True},
        n=3,
        max_tokens=20,
        max_completion_tokens=10,
        priority=-1,
        tools=[{"type": "function", "function": {"name": "f"}}],
        logprobs=True,
        top_logprobs=5,
        response_format={"type": "json_schema", "json_schema": {}},
        stop=["a", "b"],
        user="u",
        prompt_cache_key="k",
        return_token_ids=True,
        chat_template_kwargs={"enable_thinking": False},
        metadata={"session_id": "s"},
    )
    assert (call.stream, call.include_usage, call.n, call.choices, call.priority) == (True, True, 3, 3, -1)
    assert call.max_tokens == 10
    assert dict(call.limits) == {"max_completion_tokens": 10, "max_tokens": 20}
    assert call.needs == {"tools", "logprobs", "json_schema"}
    assert (call.has_tools, call.guided, call.wants_logprobs, call.wants_token_ids) == (True, True, True, True)
    assert (call.stop, call.user, call.prompt_cache_key, call.session) == (("a", "b"), "u", "k", "s")
    assert call.thinking is False


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning": {"effort": "low"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, True),
        ({}, None),
    ],
)
def test_thinking_is_read_in_every_dialect(fields, thinking):
    assert chat(**fields).thinking is thinking


def test_tools_that_the_model_may_not_use_are_no_need():
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert not chat(tools=tools, tool_choice="none").has_tools
    assert chat(tools=tools, tool_choice="required").guided
    assert not chat(tools=tools, tool_choice="auto").guided


def test_an_image_is_a_need_and_its_bytes_are_no_prompt():
    url = "data:image/png;base64," + "A" * 10_000
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    call = chat(messages=[{"role": "user", "content": parts}])
    assert call.has_images
    assert call.needs == {"vision"}
    assert call.prompt_bytes < 300


def test_several_prompts_are_several_choices():
    def choices(prompt) -> int:
        return read_call(COMPLETIONS, orjson.dumps({"model": "m", "prompt": prompt, "n": 2}), None).choices

    assert choices("one") == 2
    assert choices(["one", "two", "three"]) == 6
    assert choices([1, 2, 3]) == 2
    assert choices([[1, 2], [3]]) == 4


def test_responses_and_messages_are_read_in_their_own_words():
    call = read_call(
        RESPONSES, b'{"model":"m","input":"hi","max_output_tokens":8,"previous_response_id":"resp_1"}', None
    )
    assert (call.max_tokens, call.previous_response_id) == (8, "resp_1")
    assert call.body[call.messages_at :].startswith(b'"input"')
    call = read_call(MESSAGES, b'{"model":"m","max_tokens":9,"messages":[],"metadata":{"user_id":"u_session_1"}}', None)
    assert (call.max_tokens, call.session) == (9, "u_session_1")


def test_one_path_for_several_routes_is_told_by_its_body():
    assert read_call(INVOCATIONS, b'{"messages":[]}', None).table is CHAT_STREAM
    assert read_call(INVOCATIONS, b'{"prompt":"x"}', None).table is COMPLETION_STREAM
    assert read_call(INVOCATIONS, b'{"input":"x"}', None).table is None


def test_half_a_surrogate_pair_is_json():
    body = b'{"model":"m","messages":[{"role":"user","content":"cut \\ud83d here"}]}'
    assert read_call(CHAT, body, None).body is body


def test_integers_beyond_64_bits_pass():
    assert chat_body(b'"seed":123456789012345678901234567890').model == "m"


def chat_body(extra: bytes) -> Call:
    return read_call(CHAT, b'{"model":"m","messages":[],' + extra + b"}", b"application/json")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b" \n", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"model":"m",}', "invalid_json", None),
        (b'{"model":"m"} x', "invalid_json", None),
        (b'{"model":NaN}', "invalid_json", None),
        (b'{"model":NaN,"x":"\\ud800"}', "invalid_json", None),
        (b'{"model":"\xff"}', "invalid_json", None),
        ('{"model":"m"}'.encode("utf-16"), "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"model":' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json", None),
        (b'{"x":"\\ud800","model":' + b"[" * 90_000 + b"]" * 90_000 + b"}", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b'"x"', "invalid_json", None),
        (b"null", "invalid_json", None),
        (b"7", "invalid_json", None),
        (b'{"messages":[]}', "missing_required_parameter", "model"),
        (b'{"model":null,"messages":[]}', "missing_required_parameter", "model"),
        (b'{"model":"","messages":[]}', "missing_required_parameter", "model"),
        (b'{"model":7}', "invalid_type", "model"),
        (b'{"model":["m"]}', "invalid_type", "model"),
        (b'{"model":"m","stream":"yes"}', "invalid_type", "stream"),
        (b'{"model":"m","stream":1}', "invalid_type", "stream"),
        (b'{"model":"m","messages":"hi"}', "invalid_type", "messages"),
        (b'{"model":"m","messages":{"role":"user"}}', "invalid_type", "messages"),
        (b'{"model":"m","max_tokens":"many"}', "invalid_type", "max_tokens"),
        (b'{"model":"m","max_tokens":true}', "invalid_type", "max_tokens"),
        (b'{"model":"m","max_tokens":1.5}', "invalid_type", "max_tokens"),
        (b'{"model":"m","n":[2]}', "invalid_type", "n"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_bodies_get_a_400_that_names_the_fault(body, code, param):
    with pytest.raises(ClientFault) as caught:
        read_call(CHAT, body, b"application/json")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": [None, 7, "x", {"content": [None, 7, {"type": None}, {"type": 7}, {"type": "image_url"}]}]},
        {"tools": "x", "tool_choice": 7, "stop": 7, "logprobs": "x"},
        {"stop": [None, 7, ["x"]], "response_format": "json", "metadata": [], "conversation": 7},
        {"stream_options": 7, "stream": True, "text": {"format": 7}, "thinking": 7, "reasoning": []},
        {"chat_template_kwargs": "x", "user": {}, "prompt_cache_key": 7, "priority": "high"},
        {"tool_choice": [], "tools": {"a": 1}, "top_logprobs": {}, "max_tokens": None, "n": None},
        {"max_tokens": 1e300, "n": 2.0},
    ],
    ids=repr,
)
def test_odd_fields_are_left_for_the_backend_to_judge(odd):
    with suppress(ClientFault):
        assert chat(**odd).model == "m"


FIELDS = (
    "stream n max_tokens tools tool_choice stop logprobs messages input prompt metadata session_id conversation "
    "response_format text thinking reasoning chat_template_kwargs stream_options priority user"
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "format", "id", "effort"]), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FIELDS.split()), ANYTHING))
def test_whatever_a_field_holds_the_call_is_read_or_refused(fields):
    body = json.dumps({"model": "m"} | fields).encode()
    for route in (CHAT, COMPLETIONS, RESPONSES, MESSAGES, INVOCATIONS):
        with suppress(ClientFault):  # refused with a name is as good; anything else is a bug
            assert edit(read_call(route, body, None), model="n", max_tokens=1, include_usage=True)


def test_routes_that_need_no_model_take_none():
    assert read_call(TOKENIZE, b'{"prompt":"x"}', None).model is None


@pytest.mark.parametrize(
    "kind", [b"application/json; charset=utf-8", b"Application/JSON", b"application/vnd.api+json", None]
)
def test_json_comes_under_several_types(kind):
    assert read_call(CHAT, orjson.dumps(HELLO), kind).model == "m"


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b""])
def test_another_content_type_is_refused(kind):
    with pytest.raises(ClientFault) as caught:
        read_call(CHAT, orjson.dumps(HELLO), kind)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("name", "background"),
    [
        ("open-webui-002", None),
        ("open-webui-003", None),
        ("open-webui-005", "title"),
        ("open-webui-006", None),
        ("open-webui-007", "follow_up"),
        ("open-webui-008", "tags"),
        ("opencode-004", "title"),
        ("opencode-005", None),
    ],
)
def test_background_calls_of_real_clients_are_known(name, background):
    request = client_request(name)
    call = read_call(CHAT, json.dumps(request).encode(), b"application/json")
    assert call.background == background
    assert call.model == request["model"]
    assert call.stream is request.get("stream", False)
    assert call.has_tools is bool(request.get("tools"))
