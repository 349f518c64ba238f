from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.stream import Folded, fold
from tests.openai.captures import capture
from tests.openai.streams import chunk, typed


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
@pytest.mark.parametrize("name", ["chat_stream", "chat_stream_usage", "messages_stream", "responses_stream"])
def test_recorded_answers_fold_to_their_text(server, name):
    folded = fold(capture(server, name).chunks)
    assert folded.text.startswith("1. Red: The most obvious colour")
    assert folded.response_id
    assert folded.model == "smollm2-135m" or (server, name) == ("llamacpp", "responses_stream")  # says none at first
    assert folded.deltas == (16 if name.startswith("chat") else 8)


def test_recorded_tool_arguments_and_token_ids_fold():
    assert fold(capture("vllm", "chat_tools_required_stream").chunks).tool_args == {0: '"gabenwelter"'}
    ids = fold(capture("vllm", "chat_return_token_ids_stream").chunks)
    assert len(ids.token_ids) == ids.deltas > 0


def test_reasoning_and_tool_input_are_kept_apart_from_text():
    folded = fold(
        [
            typed("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
            typed("content_block_delta", index=1, delta={"type": "text_delta", "text": "a"}),
            typed("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": "{}"}),
            typed("response.reasoning_text.delta", delta="!"),
            typed("response.function_call_arguments.delta", output_index=3, delta="[]"),
            chunk({"reasoning": "?"}),
        ]
    )
    assert (folded.text, folded.reasoning, folded.tool_args) == ("a", "hm!?", {2: "{}", 3: "[]"})


def test_tool_arguments_join_across_batches():
    def tool(index: int, arguments: str) -> bytes:
        return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})

    assert (fold([tool(0, "[")]) + fold([tool(1, "{}")]) + fold([tool(0, "]")])).tool_args == {0: "[]", 1: "{}"}
    assert (fold([tool(0, "{")]) + fold([tool(0, "}"), tool(1, "[]")])).tool_args == {0: "{}", 1: "[]"}


def test_null_logprobs_are_counted_as_a_sign_of_nan():
    good, bad = ({"content": [{"token": "a", "logprob": value}]} for value in (-0.1, None))
    pieces = [
        chunk({"content": "a"}, choices=[{"index": 0, "delta": {"content": "a"}, "logprobs": found}])
        for found in (good, bad)
    ]
    assert fold(pieces).null_logprobs == 1


def test_broken_utf_8_in_steady_events_is_folded_not_raised():
    first = chunk({"content": "a"})
    assert fold([first, first.replace(b'"a"', b'"\xff"')]).text == "a\ufffd"


WORDS = st.sampled_from(["", "a", " b", "ü", 'say "no"', "back\\slash", "\n", "{", '"x":'])
CALLS = st.builds(
    lambda index, text, more: {"tool_calls": [{"index": index, **more, "function": {"arguments": text}}]},
    st.integers(0, 2),
    WORDS,
    st.sampled_from([{}, {"id": "call_1", "type": "function"}]),
)
TEXTS = st.dictionaries(st.sampled_from(["content", "reasoning", "reasoning_content"]), WORDS | st.none(), max_size=2)


@given(st.lists(st.lists(TEXTS | CALLS, min_size=1, max_size=1).flatmap(lambda one: st.just(one) | st.just(one * 3))))
def test_events_alike_fold_to_what_each_of_them_says(runs: list[list[dict[str, object]]]) -> None:
    pieces = [chunk(delta) for run in runs for delta in run]
    one_by_one = reduce(Folded.__add__, (fold([piece]) for piece in pieces), Folded())
    assert fold(pieces) == one_by_one
