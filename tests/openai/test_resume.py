import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.openai.call import read_call
from router.openai.resume import Splice, can_resume, resume_body, seam_text
from router.openai.routes import CHAT_STREAM, COMPLETION_STREAM, match
from router.openai.stream import EventStream, Folded, fold
from tests.openai.captures import capture

CHAT = match("POST", "/v1/chat/completions")
COMPLETIONS = match("POST", "/v1/completions")
MESSAGES = match("POST", "/v1/messages")
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Name three colours."}], "stream": True}
DONE = b"data: [DONE]\n\n"


def chat(**fields):
    return read_call(CHAT, orjson.dumps(ASKED | fields), None)


def completion(prompt, **fields):
    return read_call(COMPLETIONS, orjson.dumps({"model": "m", "prompt": prompt, "stream": True} | fields), None)


def chunk(delta=None, finish=None, ident="chatcmpl-2", created=2, model="m2", **more) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    document = {"id": ident, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [choice]}
    return b"data: " + orjson.dumps(document | more) + b"\n\n"


def said(delta) -> EventStream:
    stream = EventStream(CHAT_STREAM)
    stream.feed(chunk({"role": "assistant", "content": ""}) + chunk(delta))
    return stream


def documents(stream: bytes) -> list[dict]:
    return [json.loads(event[6:]) for event in stream.split(b"\n\n") if event.startswith(b"data: {")]


# --- may it be continued? ---


def test_plain_content_can_be_continued():
    assert can_resume(chat(), said({"content": "Red"})) is None
    assert can_resume(completion("x"), said({"content": "Red"})) is None


def test_an_answer_that_has_not_begun_can_start_again_whatever_it_is():
    assert can_resume(chat(logprobs=True), said({"role": "assistant"})) is None


@pytest.mark.parametrize(
    ("fields", "delta", "reason"),
    [
        ({"n": 2}, {"content": "x"}, "it has several choices"),
        ({}, {"reasoning": "x"}, "a reasoning block has begun"),
        ({}, {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "a tool call has begun"),
        ({"logprobs": True}, {"content": "x"}, "logprobs were asked for"),
        ({"response_format": {"type": "json_object"}}, {"content": "x"}, "its output is guided"),
        ({"structured_outputs": {"regex": "a"}}, {"content": "x"}, "its output is guided"),
        ({"continue_final_message": True}, {"content": "x"}, "it continues a message itself"),
        ({"use_beam_search": True}, {"content": "x"}, "it uses use_beam_search"),
    ],
)
def test_what_cannot_be_continued_safely_says_why(fields, delta, reason):
    assert can_resume(chat(**fields), said(delta)) == reason


def test_content_after_reasoning_is_not_continued():
    stream = said({"reasoning": "hm"})
    stream.feed(chunk({"content": "x"}))
    assert stream.phase == "content"
    assert can_resume(chat(), stream) == "a reasoning block has begun"


def test_other_routes_and_half_events_are_not_continued():
    call = read_call(MESSAGES, b'{"model":"m","messages":[],"stream":true}', None)
    assert can_resume(call, said({"content": "x"})) == "/v1/messages has no way to continue an answer"
    stream = said({"content": "x"})
    stream.feed(b"data: " + b"x" * 70_000)
    assert can_resume(chat(), stream) == "part of an event went out"
    assert can_resume(completion(["a", "b"]), said({"content": "x"})) == "it has several choices"
    assert can_resume(completion("a", echo=True), said({"content": "x"})) == "it echoes its prompt"


# --- the request for the rest ---


def test_the_request_is_the_one_that_real_servers_continued():
    recorded = capture("vllm", "chat_continue_final")
    wanted = json.loads(recorded.request)
    first = {
        key: value for key, value in wanted.items() if key not in ("add_generation_prompt", "continue_final_message")
    }
    first["messages"] = wanted["messages"][:1]
    call = read_call(CHAT, orjson.dumps(first | {"max_tokens": 20}), None)
    assert json.loads(resume_body(call, "Three colours are", 4)) == wanted


def test_the_rest_is_asked_for_with_all_other_edits():
    call = chat(max_tokens=32000, min_tokens=10, add_generation_prompt=True)
    asked = json.loads(resume_body(call, "Red, ", 3, model="served", max_tokens=2048, include_usage=True))
    assert asked == ASKED | {
        "model": "served",
        "max_tokens": 2048,
        "min_tokens": 7,
        "messages": [*ASKED["messages"], {"role": "assistant", "content": "Red,"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "stream_options": {"include_usage": True},
    }


def test_limits_shrink_by_what_was_said_but_never_to_nothing():
    call = chat(max_tokens=100, max_completion_tokens=50)
    asked = json.loads(resume_body(call, "x", 60))
    assert (asked["max_tokens"], asked["max_completion_tokens"]) == (40, 1)


def test_nothing_said_means_the_same_request_again():
    call = chat()
    assert resume_body(call, "", 0) is call.body


@given(st.text(), st.text(min_size=1))
def test_a_completions_prompt_grows_by_what_was_said(prompt, text):
    for value, wanted in ((prompt, prompt + text), ([prompt], [prompt + text])):
        asked = json.loads(resume_body(completion(value, max_tokens=9), text, 4))
        assert asked == {"model": "m", "prompt": wanted, "stream": True, "max_tokens": 5}


@given(st.lists(st.integers(0, 200_000)), st.lists(st.integers(0, 200_000), min_size=1))
def test_a_prompt_of_token_ids_grows_by_token_ids(prompt, ids):
    for value, wanted in ((prompt, prompt + ids), ([prompt], [prompt + ids])):
        assert json.loads(resume_body(completion(value), "x", 1, token_ids=ids))["prompt"] == wanted


def test_a_prompt_of_token_ids_is_not_continued_with_text():
    with pytest.raises(ValueError, match="token ids"):
        resume_body(completion([1, 2]), "x", 1)


# --- the two parts become one stream ---

FIRST = Folded(text="Three colours are", response_id="chatcmpl-1", model="m1", created=1, kind="chat.completion.chunk")


def spliced(splice: Splice, *texts: str, finish="stop", usage=None) -> bytes:
    events = [chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1])]
    events += [chunk({"content": text}) for text in texts]
    events.append(chunk(finish=finish))
    if usage is not None:
        events.append(chunk(choices=[], usage=usage))
    return b"".join(splice.feed(event) for event in [*events, DONE])


def text_of(stream: bytes) -> str:
    return fold([stream]).text


def test_a_continuation_looks_like_the_same_answer():
    out = spliced(Splice(FIRST, 4), ":", " Red")
    shown = documents(out)
    assert {(d["id"], d["model"], d["created"]) for d in shown} == {("chatcmpl-1", "m1", 1)}
    assert all("role" not in d["choices"][0]["delta"] and "prompt_token_ids" not in d for d in shown)
    assert [d["choices"][0]["finish_reason"] for d in shown] == [None, None, "stop"]
    assert text_of(out) == ": Red"
    assert out.endswith(DONE)


def test_usage_counts_both_parts():
    usage = {
        "prompt_tokens": 38,
        "completion_tokens": 5,
        "total_tokens": 43,
        "prompt_tokens_details": {"cached_tokens": 36},
    }
    (counted,) = [d["usage"] for d in documents(spliced(Splice(FIRST, 4), ":", usage=usage)) if "usage" in d]
    assert counted == {
        "prompt_tokens": 34,
        "completion_tokens": 9,
        "total_tokens": 43,
        "prompt_tokens_details": {"cached_tokens": 34},
    }


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
def test_recorded_continuations_give_the_whole_text_once(server):
    answer = json.loads(capture(server, "chat_continue_final").body)["choices"][0]["message"]["content"]
    splice = Splice(FIRST, 4, repeats=server == "llamacpp")
    whole = FIRST.text + text_of(spliced(splice, *answer))
    assert whole.startswith("Three colours are:\n\nRed")
    assert whole.count("Three colours") == 1


CUTS = st.lists(st.integers(0, 30), max_size=6)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True) if a < b]


@given(st.text("ab \n", max_size=12), st.text("ab \n", max_size=12), st.booleans(), CUTS)
def test_nothing_is_repeated_and_nothing_is_missing(sent, rest, repeats, cuts):
    """The model goes on from the stripped text, so its continuation begins with the white space left off."""
    call = chat()
    seam = seam_text(call, sent)
    continuation = (seam if repeats else "") + sent[len(seam) :] + rest
    splice = Splice(Folded(text=sent, response_id="r"), 1, seam=seam, repeats=repeats)
    assert sent + text_of(spliced(splice, *pieces(continuation, cuts))) == sent + rest


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", min_size=1, max_size=4), CUTS)
def test_a_stop_string_across_the_seam_ends_the_answer(sent, rest, stop, cuts):
    if stop in sent or stop in rest:
        return  # the backends' own business
    splice = Splice(Folded(text=sent, response_id="r"), 1, stop=(stop,))
    out = spliced(splice, *pieces(rest, cuts))
    across = stop in sent + rest
    assert splice.ended is across
    assert text_of(out) == ("" if across else rest)
    assert [d["choices"][0]["finish_reason"] for d in documents(out)].count("stop") == 1
    assert out.count(DONE) == 1


def test_reasoning_in_a_continuation_is_a_failure():
    splice = Splice(FIRST, 4)
    assert splice.feed(chunk({"reasoning": "hm"})) == b""
    assert splice.broken == "the continuation began a reasoning block"
    assert splice.feed(chunk({"content": "x"})) == b""


def test_the_two_streams_of_a_recorded_answer_join_without_a_seam():
    recorded = capture("vllm", "completion_stream_usage")
    first = recorded.chunks[:2]
    call = read_call(COMPLETIONS, recorded.request, None)
    so_far = fold(first)
    asked = json.loads(resume_body(call, so_far.text, so_far.deltas))
    assert (asked["prompt"], asked["max_tokens"]) == ("The capital of France is Paris.", 2)
    rest = [c.replace(b"cmpl-99695ef2a3fee1d8", b"cmpl-other") for c in recorded.chunks[2:]]
    rest[2] = rest[2].replace(
        b'"prompt_tokens":5,"total_tokens":9,"completion_tokens":4', b'"prompt_tokens":7,"completion_tokens":2'
    )
    stream, splice = EventStream(COMPLETION_STREAM), Splice(so_far, so_far.deltas, seam=seam_text(call, so_far.text))
    out = b"".join(first) + b"".join(splice.feed(stream.feed(c)) for c in rest)
    assert text_of(out) == text_of(recorded.body)
    assert b"cmpl-other" not in out
    (usage,) = [d["usage"] for d in documents(out) if d.get("usage")]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 4, 9)
