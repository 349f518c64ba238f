"""A whole JSON answer of every route is read for what its text says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.whole import Whole, read_whole
from tests.openai.captures import capture

CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1'}}


def chat(message: dict[str, object], reason: str | None = "stop", **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason, **more}]}


@pytest.mark.parametrize(
    ("document", "whole"),
    [
        (chat({"content": "hi", "reasoning": "hm "}), Whole("hm hi", finish_reason="stop")),
        (chat({"content": None}, "length"), Whole(finish_reason="length")),
        (chat({"content": None, "tool_calls": [CALL]}), Whole("", ('{"a": 1',), True, "stop")),
        (
            chat({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": None}]}),
            Whole("a", finish_reason="stop", has_null_logprobs=True),
        ),
        ({"choices": [{"text": "once", "finish_reason": "length"}]}, Whole("once", finish_reason="length")),
        (
            {
                "object": "response",
                "status": "completed",
                "output": [
                    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm "}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
                    {"type": "function_call", "name": "f", "arguments": "{}"},
                ],
            },
            Whole("hm hi", ("{}",), True, "stop"),
        ),
        ({"object": "response", "status": "in_progress", "output": []}, Whole()),
        (
            {
                "type": "message",
                "stop_reason": "tool_use",
                "content": [
                    {"type": "thinking", "thinking": "hm "},
                    {"type": "text", "text": "hi"},
                    {"type": "tool_use", "name": "f", "input": {}},
                ],
            },
            Whole("hm hi", (), True, "tool_use"),
        ),
        ({"object": "list", "data": []}, None),
        ([], None),
    ],
)
def test_each_shape_is_read(document: object, whole: Whole | None) -> None:
    assert read_whole(document) == whole


@pytest.mark.parametrize("name", ["chat_plain", "messages_plain", "responses_plain"])
def test_recorded_answers_have_their_text(name: str) -> None:
    whole = read_whole(json.loads(capture("vllm", name).body))
    assert whole is not None
    assert whole.text.startswith("1. Red: The most obvious colour")
    assert whole.finish_reason


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "output", "object", "type", "tool_calls", "function"]),
            inner | st.sampled_from(["response", "message"]),
            max_size=4,
        )
    ),
)


@given(JSON)
def test_reading_never_raises(document: object) -> None:
    read_whole(document)
