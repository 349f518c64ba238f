"""The shortcut against the parser: however a stream is cut, both see the same and pass the same bytes."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from router.openai.routes import CHAT_STREAM, MESSAGES_STREAM, RESPONSES_STREAM
from router.openai.splice import Splice
from router.openai.stream import EventStream, fold
from tests.openai.streams import DONE, ERROR, ROLE, STOP, chunk, run, seen, typed, unlearned

TEXTS = st.one_of(
    st.sampled_from(
        ["a", " the", "\n", '"', "\\", '\\"', '"finish_reason":"stop"', "[DONE]", "é", "🦊", "data: x\n\n"]
    ),
    st.text(min_size=1, max_size=6),
)
DELTAS = st.one_of(
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"reasoning": text}),
    TEXTS.map(lambda text: {"reasoning_content": text, "content": None}),
    TEXTS.map(lambda text: {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
    TEXTS.map(lambda text: {"content": text, "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}),
    st.just({"content": ""}),
    st.just({}),
)


@dataclass(frozen=True)
class Sent:
    """An event as the server sent it, and what it is: data, a comment, our usage chunk, or the end by failure."""

    raw: bytes
    kind: str = "data"


@st.composite
def chat_events(draw) -> list[Sent]:
    ascii_only = draw(st.booleans())

    def made(delta) -> bytes:
        event = chunk(delta)
        return event if ascii_only else event.decode().encode("utf-8").replace(b"\\u00e9", "é".encode())

    events = [Sent(ROLE)] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 9)) == 0:
            events.append(Sent(b": keep-alive\n\n", "comment"))
        events.append(Sent(made(draw(DELTAS))))
    ending = draw(
        st.sampled_from(["whole", "whole", "whole", "no done", "cut", "early done", "error", "abort", "garbage"])
    )
    if ending in ("whole", "no done"):
        events.append(Sent(STOP))
        if draw(st.booleans()):
            events.append(Sent(chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2}), "usage"))
    if ending == "whole":
        events.append(Sent(DONE, "done"))
    failures = {
        "early done": DONE,
        "error": ERROR,
        "abort": chunk(finish="abort"),
        "garbage": b"data: <html>\n\n",
    }
    if ending in failures:
        events += [Sent(failures[ending], "failure"), Sent(chunk({"content": "never"})), Sent(DONE, "done")]
    return events


def cut(draw, body: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]


@st.composite
def cut_streams(draw):
    """Events, and their bytes under one line ending, cut anywhere or at each event's end."""
    events = draw(chat_events())
    newline = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"]))
    raws = [event.raw.replace(b"\n", newline) for event in events]
    at_events = draw(st.booleans())
    return events, raws, raws if at_events else cut(draw, b"".join(raws))


@settings(max_examples=400)
@given(cut_streams(), st.booleans())
def test_the_shortcut_sees_what_the_parser_sees_however_a_stream_is_cut(streamed, strip):
    events, raws, pieces = streamed
    quick = EventStream(CHAT_STREAM, strip_usage=strip)
    passed = run(quick, pieces)
    parsed = unlearned(CHAT_STREAM, strip_usage=strip)
    assert run(parsed, [b"".join(raws)]) == passed
    assert seen(quick) == seen(parsed)
    assert passed == expected(events, raws, strip)


def expected(events: list[Sent], raws: list[bytes], strip: bool) -> bytes:
    """What may pass: everything but early comments, our usage chunk, and whatever comes with or after a failure."""
    passed, committed = b"", False
    for event, raw in zip(events, raws, strict=True):
        if event.kind == "failure":
            break
        if (event.kind == "comment" and not committed) or (event.kind == "usage" and strip):
            continue
        committed = committed or event.kind == "data"
        passed += raw
    return passed


@given(st.lists(TEXTS, min_size=1, max_size=8), st.data())
def test_text_folds_back_out_of_what_passed(texts, data):
    body = ROLE + b"".join(chunk({"content": text}) for text in texts) + STOP + DONE
    stream = EventStream(CHAT_STREAM)
    passed = [stream.feed(piece) for piece in cut(data.draw, body)]
    middle = data.draw(st.integers(0, len(passed)))
    folded = fold(passed[:middle]) + fold(passed[middle:])
    assert folded.text == "".join(texts)
    assert (folded.deltas, folded.response_id, folded.model) == (len(texts), "chatcmpl-1", "m")


@given(st.lists(TEXTS, min_size=1, max_size=30))
def test_text_folds_the_same_event_by_event_as_all_at_once(texts):
    events = [chunk({"content": text}) for text in texts]
    assert fold(events) == fold([b"".join(events)])
    assert fold(events).text == "".join(texts)


def block(index: int, kind: str, **delta) -> bytes:
    return typed("content_block_delta", index=index, delta={"type": kind, **delta})


MESSAGE_EVENTS = st.one_of(
    TEXTS.map(lambda text: block(0, "text_delta", text=text)),
    TEXTS.map(lambda text: block(0, "text_delta", text=text)),
    TEXTS.map(lambda text: block(1, "thinking_delta", thinking=text)),
    TEXTS.map(lambda text: block(2, "input_json_delta", partial_json=text)),
    st.just(typed("content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "f"})),
    st.just(typed("ping")),
)


def numbered(events: list[bytes]) -> list[bytes]:
    """Count the events, as vLLM does in its responses."""
    return [event.replace(b"}\n\n", b',"sequence_number":%d}\n\n' % i) for i, event in enumerate(events)]


RESPONSE_EVENTS = st.one_of(
    TEXTS.map(lambda text: typed("response.output_text.delta", item_id="i", delta=text)),
    TEXTS.map(lambda text: typed("response.output_text.delta", item_id="i", delta=text)),
    TEXTS.map(lambda text: typed("response.reasoning_text.delta", item_id="i", delta=text)),
    TEXTS.map(lambda text: typed("response.function_call_arguments.delta", item_id="i", delta=text)),
)


@given(st.data(), st.lists(MESSAGE_EVENTS, max_size=12), st.booleans())
def test_messages_are_seen_the_same_however_they_are_cut(data, events, whole):
    start = typed("message_start", message={"id": "msg_1", "usage": {"input_tokens": 5}})
    ending = [
        typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        typed("message_stop"),
    ]
    sent = [start, *events, *(ending if whole else [])]
    agree(data, MESSAGES_STREAM, sent)


@given(st.data(), st.lists(RESPONSE_EVENTS, max_size=12), st.booleans())
def test_responses_are_seen_the_same_however_they_are_cut(data, events, whole):
    start = typed("response.created", response={"id": "resp_1"})
    ending = [
        typed("response.completed", response={"id": "resp_1", "status": "completed", "usage": {"input_tokens": 2}})
    ]
    agree(data, RESPONSES_STREAM, numbered([start, *events, *(ending if whole else [])]))


def agree(data, table, events: list[bytes]) -> None:
    body = b"".join(events)
    quick, parsed = EventStream(table), unlearned(table)
    pieces = events if data.draw(st.booleans()) else cut(data.draw, body)
    assert run(quick, pieces) == run(parsed, [body]) == body
    assert seen(quick) == seen(parsed)


SYNTAX = [
    b"data: ",
    b"data:",
    b"event:",
    b": ",
    b"\n",
    b"\n\n",
    b"\r",
    b"{",
    b"}",
    b"[DONE]",
    b'"choices":[',
    b'{"error":',
]
ODD_EVENTS = [
    b'{"choices":7}',
    b'{"choices":[7,{}]}',
    b'{"choices":[{"delta":7,"finish_reason":{}}]}',
    b'{"choices":[{"delta":{"tool_calls":7}}]}',
    b'{"choices":[{"delta":{"tool_calls":[7]},"token_ids":7,"index":[]}]}',
    b'{"usage":{"prompt_tokens":"x"}}',
    b'{"type":7}',
    b'{"type":"message_delta","delta":{"stop_reason":[]}}',
    b'{"type":"response.completed","response":7}',
    b'{"type":"content_block_delta","index":[],"delta":{"message":7,"partial_json":7}}',
    b'{"type":"content_block_delta","index":[],"delta":{"partial_json":"x"}}',
]
SCRAPS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(SYNTAX),
    st.sampled_from([b"data: " + event + b"\n\n" for event in ODD_EVENTS] + [ROLE, STOP]),
)


@settings(max_examples=300)
@given(st.lists(SCRAPS, max_size=20), st.sampled_from([CHAT_STREAM, MESSAGES_STREAM, RESPONSES_STREAM]))
def test_no_bytes_at_all_upset_the_observer(scraps, table):
    stream = EventStream(table)
    passed = run(stream, scraps)
    assert len(passed) <= sum(map(len, scraps))
    assert stream.finished or stream.error is not None or stream.broken is not None
    assert Splice(fold(scraps), 1).feed(passed) is not None
