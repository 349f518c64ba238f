"""Streams are observed the same however they are cut, and pass byte for byte but for what is named."""

import json

import pytest

from router import is_compiled
from router.openai.routes import CHAT_STREAM, COHERE_STREAM, MESSAGES_STREAM, RESPONSES_STREAM, StreamTable
from router.openai.stream import COPY_LIMIT, HELD_LIMIT, EventStream, Usage
from tests.openai.captures import capture
from tests.openai.streams import (
    DONE,
    ERROR,
    RECORDED,
    ROLE,
    STOP,
    TABLES,
    choices_of,
    chunk,
    run,
    seen,
    typed,
    unlearned,
)

# --- recorded streams ---


@pytest.mark.parametrize(("server", "name"), RECORDED)
def test_recorded_streams_pass_unchanged_and_are_understood(server, name):
    recorded = capture(server, name)
    stream = EventStream(TABLES[name], choices=choices_of(name))
    assert run(stream, recorded.chunks) == recorded.body
    assert (stream.finished, stream.done, stream.error, stream.broken) == (True, True, None, None)
    assert stream.has_content
    assert stream.response_id
    assert stream.events == recorded.body.count(b"data: {")
    assert len(stream.finish_reasons) == choices_of(name)


@pytest.mark.parametrize(("server", "name"), RECORDED)
def test_recorded_streams_are_seen_the_same_cut_at_every_byte(server, name):
    body = capture(server, name).body
    whole = unlearned(TABLES[name], choices=choices_of(name))
    run(whole, [body])
    single = EventStream(TABLES[name], choices=choices_of(name))
    assert run(single, [body[i : i + 1] for i in range(len(body))]) == body
    assert seen(single) == seen(whole)
    for cut in range(0, len(body), 7):
        halves = EventStream(TABLES[name], choices=choices_of(name))
        assert run(halves, [body[:cut], body[cut:]]) == body
        assert seen(halves) == seen(whole)


@pytest.mark.parametrize(("server", "name"), RECORDED)
def test_a_recorded_stream_that_ends_early_is_never_taken_for_whole(server, name):
    recorded = capture(server, name)
    for count in range(len(recorded.chunks)):
        stream = EventStream(TABLES[name], choices=choices_of(name))
        passed = run(stream, recorded.chunks[:count])
        assert recorded.body.startswith(passed)
        assert stream.finished or stream.broken == "the stream ended without its terminal event"


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
def test_usage_is_read_on_every_route(server):
    usages = {}
    for name in ("chat_stream_usage", "completion_stream_usage", "responses_stream", "messages_stream"):
        stream = EventStream(TABLES[name])
        run(stream, capture(server, name).chunks)
        assert stream.usage is not None
        usages[name] = (stream.usage.prompt_tokens, stream.usage.completion_tokens)
    assert usages == {
        "chat_stream_usage": (34, 16),
        "completion_stream_usage": (5, 4),
        "responses_stream": (34, 8),
        "messages_stream": (34, 8),
    }


def test_the_usage_chunk_that_we_caused_is_stripped_and_still_read():
    recorded = capture("vllm", "chat_stream_usage")
    stream = EventStream(CHAT_STREAM, strip_usage=True)
    passed = run(stream, recorded.chunks)
    assert passed == b"".join(c for c in recorded.chunks if b'"choices":[]' not in c)
    assert stream.usage == Usage(34, 16, cached_tokens=0)
    assert stream.done


def test_a_killed_engine_is_an_error_and_its_done_is_no_end():
    recorded = capture("vllm", "engine_killed_inflight_stream")
    stream = EventStream(CHAT_STREAM)
    passed = run(stream, recorded.chunks)
    assert recorded.body.endswith(DONE)
    assert passed == b"".join(c for c in recorded.chunks if b'"error"' not in c and c != DONE)
    assert isinstance(stream.error, dict)
    assert stream.error["type"] == "InternalServerError"
    assert (stream.finished, stream.done, stream.committable) == (False, False, True)


# --- single cases ---


@pytest.mark.skipif(is_compiled(), reason="a compiled class cannot be watched from a subclass")
def test_steady_events_are_not_parsed_at_all():
    class Counted(EventStream):
        __slots__ = ("parsed",)

        def _passes(self, event: bytes) -> bool:
            self.parsed = getattr(self, "parsed", 0) + 1
            return super()._passes(event)

    for server, name in RECORDED:
        if name not in ("chat_stream", "messages_stream", "responses_stream"):
            continue
        stream = Counted(TABLES[name])
        chunks = capture(server, name).chunks
        content = next(i for i in range(len(chunks)) if not stream.feed(chunks[i]) or stream.has_content)
        parsed = stream.parsed
        for text in ("x", " some words", "ü🦊", "1. ", "{}[],:'"):
            # the next chunk as this server would write it
            steady = chunks[content + 1].replace(b'"."', json.dumps(text, ensure_ascii=False).encode())
            assert stream.feed(steady) == steady
        assert stream.parsed == parsed, (server, name)


def test_several_steady_events_in_one_piece_are_counted_one_by_one():
    stream = EventStream(CHAT_STREAM)
    stream.feed(ROLE + chunk({"content": "a"}))
    piece = chunk({"content": "b"}) * 5
    assert stream.feed(piece) == piece
    assert stream.events == 7


def test_comments_are_no_progress_until_an_answer_has_begun():
    stream = EventStream(CHAT_STREAM)
    assert stream.feed(b": keep-alive\n\n: keep-alive\n\n") == b""
    assert not stream.committable
    assert stream.feed(ROLE + b": keep-alive\n\n") == ROLE + b": keep-alive\n\n"
    assert (stream.committable, stream.has_content, stream.events) == (True, False, 1)


def test_an_anthropic_ping_is_no_progress_either():
    stream = EventStream(MESSAGES_STREAM)
    assert stream.feed(typed("ping")) == b""
    assert not stream.committable


def test_an_error_before_anything_else_commits_nothing():
    stream = EventStream(CHAT_STREAM)
    assert stream.feed(ERROR + DONE) == b""
    assert (stream.committable, stream.events, stream.done) == (False, 0, False)
    assert stream.error == {"message": "EngineCore encountered an issue.", "code": 500}
    assert stream.end() == b""


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_a_finish_reason_can_be_a_fault(reason):
    stream = EventStream(CHAT_STREAM)
    assert run(stream, [ROLE, chunk({"content": "x"}, finish=reason), DONE]) == ROLE
    assert isinstance(stream.error, dict)
    assert stream.error["type"] == reason
    assert not stream.finished


@pytest.mark.parametrize("said", ["Unauthorized", {"message": "m"}])
def test_an_error_may_be_a_string_or_an_object(said):
    stream = EventStream(CHAT_STREAM)
    stream.feed(b"data: " + json.dumps({"error": said}).encode() + b"\n\n")
    assert stream.error == said


def test_every_choice_must_finish():
    stream = EventStream(CHAT_STREAM, choices=2)
    stream.feed(ROLE + chunk({"content": "a"}, finish="stop") + chunk({"content": "b"}, index=1))
    assert not stream.finished
    assert stream.feed(DONE) == b""
    assert stream.broken == "[DONE] came without a terminal event"


def test_a_server_that_knows_no_n_is_done_when_what_it_began_is():
    stream = EventStream(CHAT_STREAM, choices=2)
    assert run(stream, [ROLE, chunk({"content": "a"}), STOP, DONE]).endswith(DONE)
    assert (stream.finished, stream.done, stream.broken) == (True, True, None)


def test_a_missing_done_after_the_terminal_event_is_no_failure():
    stream = EventStream(CHAT_STREAM)
    run(stream, [ROLE, chunk({"content": "a"}), STOP])
    assert (stream.finished, stream.done, stream.broken) == (True, False, None)


def test_a_last_event_without_its_blank_line_still_counts():
    stream = EventStream(CHAT_STREAM)
    assert run(stream, [ROLE, STOP, b"data: [DONE]"]) == ROLE + STOP + b"data: [DONE]"
    assert stream.done


def test_an_event_cut_in_the_middle_does_not_pass():
    stream = EventStream(CHAT_STREAM)
    assert run(stream, [ROLE, STOP[:40]]) == ROLE
    assert stream.broken is not None


def test_nan_in_an_event_is_let_through():
    stream = EventStream(CHAT_STREAM)
    event = chunk({"content": "a"}, x=float("nan"))
    assert stream.feed(event) == event
    assert stream.has_content


def test_every_spelling_of_an_event_is_understood():
    document = json.loads(chunk({"content": "a"})[6:])
    lines = json.dumps(document, indent=1).encode().splitlines()
    for event in (
        b"data:" + chunk({"content": "a"})[6:],
        b"id: 7\nevent: message\n" + chunk({"content": "a"}),
        b": a comment\n" + chunk({"content": "a"}),
        b"\xef\xbb\xbf" + chunk({"content": "a"}),
        b"".join(b"data: " + line + b"\n" for line in lines) + b"\n",
        b"\r\n".join([*(b"data: " + line for line in lines), b"", b""]),
        b"\n\n" + chunk({"content": "a"}),
    ):
        stream = EventStream(CHAT_STREAM)
        assert stream.feed(event + STOP + DONE) == (event + STOP + DONE).lstrip(b"\n")
        assert (stream.has_content, stream.events, stream.done) == (True, 2, True)


@pytest.mark.parametrize(
    ("delta", "phase"),
    [
        ({"content": "x"}, "content"),
        ({"reasoning": "x"}, "reasoning"),
        ({"reasoning_content": "x"}, "reasoning"),
        ({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "tool"),
        ({"role": "assistant", "content": ""}, "none"),
        ({"role": "assistant", "content": None}, "none"),
    ],
)
def test_the_first_content_is_output_of_any_kind_but_not_the_role(delta, phase):
    stream = EventStream(CHAT_STREAM)
    stream.feed(chunk(delta))
    assert (stream.has_content, stream.phase) == (phase != "none", phase)


def test_phases_of_typed_streams_are_told_by_blocks_and_deltas():
    stream = EventStream(MESSAGES_STREAM)
    seen_phases = []
    for event in (
        typed("message_start", message={"id": "msg_1", "usage": {"input_tokens": 5}}),
        typed("content_block_start", index=0, content_block={"type": "thinking"}),
        typed("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        typed("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
        typed("content_block_delta", index=1, delta={"type": "text_delta", "text": "x"}),
        typed("content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "f"}),
        typed("content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": "{"}),
    ):
        stream.feed(event)
        seen_phases.append(stream.phase)
    assert seen_phases == ["none", "reasoning", "reasoning", "reasoning", "content", "tool", "tool"]
    assert (stream.reasoned, stream.tooled, stream.response_id) == (True, True, "msg_1")


@pytest.mark.parametrize(
    ("table", "event"),
    [
        (RESPONSES_STREAM, typed("response.failed", response={"id": "r", "error": {"message": "no"}})),
        (RESPONSES_STREAM, typed("error", message="no")),
        (RESPONSES_STREAM, typed("response.completed", response={"id": "r", "status": "failed"})),
        (MESSAGES_STREAM, typed("error", error={"type": "overloaded_error", "message": "no"})),
        (MESSAGES_STREAM, typed("message_delta", delta={"stop_reason": "error"})),
        (COHERE_STREAM, typed("error", message="no")),
    ],
)
def test_typed_streams_fail_in_their_own_words(table: StreamTable, event):
    stream = EventStream(table)
    assert stream.feed(event) == b""
    assert stream.error
    assert not stream.finished


def test_a_response_cut_by_its_limit_is_whole():
    stream = EventStream(RESPONSES_STREAM)
    details = {"reason": "max_output_tokens"}
    stream.feed(
        typed("response.incomplete", response={"id": "r", "incomplete_details": details, "status": "incomplete"})
    )
    assert (stream.finished, stream.done, stream.finish_reasons) == (True, True, ["max_output_tokens"])


@pytest.mark.parametrize("size", [HELD_LIMIT + 1, COPY_LIMIT // 2, 3 * COPY_LIMIT])
@pytest.mark.parametrize("step", [1_000, 65_537, 10_000_000])
def test_an_event_too_long_to_hold_passes_and_is_still_understood(size, step):
    usage = {"input_tokens": 7, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}
    response = {"id": "r", "status": "completed", "output": ["x" * size], "usage": usage}
    body = typed("response.output_text.delta", delta="a") + typed("response.completed", response=response)
    stream = EventStream(RESPONSES_STREAM)
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    assert run(stream, pieces) == body
    assert (stream.finished, stream.broken) == (True, None)
    assert stream.usage == Usage(7, 9, None, 4)
    if step < HELD_LIMIT < size - step:
        assert not stream.resumable


def test_what_is_held_is_bounded():
    stream = EventStream(CHAT_STREAM)
    passed = sum(len(stream.feed(b"x" * 1000)) for _ in range(5000))
    assert passed > 4_900_000
    assert stream.end() == b""
    assert stream.broken
