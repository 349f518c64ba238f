"""Recorded streams through the whole router, cut anywhere, with pauses: the client gets every byte, and no other."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from router.events import CallEnded, Outcome
from tests.exchange.conftest import World
from tests.fuzz.wires import cut
from tests.openai.captures import capture

STREAMS = {
    "chat_stream_usage": "/v1/chat/completions",
    "chat_stream_logprobs": "/v1/chat/completions",
    "completion_stream_usage": "/v1/completions",
    "messages_stream": "/v1/messages",
    "responses_stream": "/v1/responses",
}
USAGE = {"stream_options": {"include_usage": True}}  # else ours is asked for, and stripped
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
PAUSES = st.lists(
    st.sampled_from([0.0, 0.0, 0.001, 1.0]), min_size=1, max_size=4
)  # in all below the 15 s after which a comment is sent


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.integers(0, 100_000), max_size=10),
    PAUSES,
    st.sampled_from(["chunked", "length", "close"]),
)
async def test_a_stream_reaches_its_client_byte_for_byte(
    name: str, cuts: list[int], pauses: list[float], framing: str
) -> None:
    world = World(asyncio.get_running_loop())
    spark = world.backend("spark")
    await world.start()
    body = capture("vllm", name).body
    asked = {"model": "nemotron", "messages": [], "prompt": "x", "input": "x", "stream": True, **USAGE}
    answer = world.client().post(STREAMS[name], asked)
    call = await spark.call()
    framings = {
        "chunked": b"transfer-encoding: chunked\r\n\r\n",
        "length": b"content-length: %d\r\n\r\n" % len(body),
        "close": b"\r\n",
    }
    sent = body
    if framing == "chunked":
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut(body, reversed(cuts)) if piece)
        sent += b"0\r\n\r\n"
    for number, piece in enumerate(cut(HEAD + framings[framing] + sent, cuts)):
        call.raw(piece)
        await asyncio.sleep(pauses[number % len(pauses)])
    if framing == "close":
        call.transport.close()
    await answer.whole()
    assert answer.complete
    assert answer.body == body
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK
    assert ended.completion_tokens or name == "chat_stream_logprobs"  # its capture asked for no usage
    world.assert_idle()
    await world.stop()
