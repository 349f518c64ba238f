"""One backend over HTTP, with every oddity that servers show: what counts as tokens, and what as a failure."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest

from router.bench.client import HttpTarget, Reading
from router.bench.measured import Stream, figures
from router.bench.outcome import CallFailed, Load, strangers

Answer = Callable[[httpx.Request], httpx.Response]


class Chunks(httpx.AsyncByteStream):
    """A body that comes in pieces, each after a while."""

    def __init__(self, pieces: Sequence[bytes], every_s: float = 0.1) -> None:
        self._pieces, self._every_s = iter(pieces), every_s

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        await asyncio.sleep(self._every_s)
        return piece


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def text(word: str, **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "text": word, **more}]})


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    return {"prompt_tokens": prompt, "completion_tokens": completion, **details}


DONE = b"data: [DONE]\n\n"


def asked(answer: Answer) -> tuple[HttpTarget, list[dict[str, Any]]]:
    """A target over this server, and the bodies that it gets."""
    bodies: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        if request.content:
            bodies.append({"path": request.url.path, **json.loads(request.content)})
        return answer(request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(serve), base_url="http://spark")
    return HttpTarget("spark", "nano", client, asyncio.get_running_loop().time), bodies


def streaming(*pieces: bytes) -> Answer:
    return lambda request: httpx.Response(200, stream=Chunks(pieces))


async def test_tokens_are_those_that_the_server_counts_while_it_streams() -> None:
    def counted(word: str, tokens: int) -> bytes:
        return event({"choices": [{"index": 0, "text": word}], "usage": usage(5, tokens)})

    last = event({"choices": [{"index": 0, "text": "c", "finish_reason": "length"}], "usage": usage(5, 7)})
    target, bodies = asked(streaming(counted("a", 1), counted("bb", 4), last, DONE))
    found = await target.call("hello", 7, 60.0)
    assert [tokens for _, tokens in found.marks] == [1, 4, 7]
    assert (found.prompt_tokens, found.tokens) == (5, 7)
    assert bodies[0]["path"] == "/v1/completions"
    assert (bodies[0]["max_tokens"], bodies[0]["ignore_eos"]) == (7, True)
    assert bodies[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


async def test_usage_at_the_end_alone_spreads_its_tokens_over_what_came() -> None:
    last = event({"choices": [], "usage": usage(9, 8, cached=4)})
    target, _ = asked(streaming(text("a"), text("b"), text("c"), text("d", finish_reason="length"), last, DONE))
    found = await target.call("hello", 8, 60.0)
    assert [tokens for _, tokens in found.marks] == [2, 4, 6, 8]
    assert found.cached_tokens == 4
    assert found.first - found.sent == pytest.approx(0.1)


async def test_a_server_without_usage_is_counted_by_what_came() -> None:
    target, _ = asked(streaming(text("a"), text(""), text("b", finish_reason="stop")))
    found = await target.call("hello", 8, 60.0)
    assert (found.tokens, found.prompt_tokens) == (2, None)
    assert figures([found]).prompt_tokens is None


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((text("a"), text("b")), "broke off before its end"),
        ((event({"error": {"message": "EngineCore died"}}), DONE), "EngineCore died"),
        ((DONE,), "without any content"),
        ((b"data: {not json\n\n",), "not JSON"),
        ((b"data: " + b"x" * 1_100_000, b"x" * 1_100_000), "not JSON"),
    ],
)
async def test_a_stream_that_is_not_whole_is_no_measurement(pieces: tuple[bytes, ...], said: str) -> None:
    target, _ = asked(streaming(*pieces))
    with pytest.raises(CallFailed, match=said):
        await target.call("hello", 8, 60.0)


async def test_an_answer_that_hangs_is_given_up_at_the_limit() -> None:
    target, _ = asked(lambda request: httpx.Response(200, stream=Chunks([text("a")] * 100, 30.0)))
    began = asyncio.get_running_loop().time()
    with pytest.raises(CallFailed, match="within 60 s"):
        await target.call("hello", 8, 60.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(60.0)


def error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "type": "x", "code": status}})


async def test_a_server_without_completions_is_asked_by_chat_and_that_is_said() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/completions":
            return error(404, "Not Found")
        role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        word = event({"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": "stop"}]})
        return httpx.Response(200, stream=Chunks([role, word, DONE]))

    target, bodies = asked(answer)
    found = await target.call("hello", 8, 60.0)
    assert found.tokens == 1
    assert found.first - found.sent == pytest.approx(0.2)  # the role is no content
    assert [one["path"] for one in bodies] == ["/v1/completions", "/v1/chat/completions"]
    assert bodies[1]["messages"] == [{"role": "user", "content": "hello"}]
    assert any("asked by chat" in note for note in target.notes)


async def test_options_that_only_vllm_knows_are_left_out_where_they_are_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if b"ignore_eos" in request.content:
            return error(400, "Unrecognized request argument: ignore_eos")
        return httpx.Response(200, stream=Chunks([text("a", finish_reason="stop"), DONE]))

    target, bodies = asked(answer)
    await target.call("hello", 8, 60.0)
    await target.call("hello", 8, 60.0)
    assert ["ignore_eos" in one for one in bodies] == [True, False, False]  # learned once


@pytest.mark.parametrize(
    ("status", "message", "refusal", "busy", "said"),
    [
        (401, "Unauthorized", True, False, "--api-key"),
        (404, "The model `nano` does not exist.", True, False, "does not exist"),
        (400, "maximum context length is 2048 tokens", True, False, "2048"),
        (429, "too many requests", False, True, "429"),
        (503, "queue is full", False, True, "queue is full"),
        (500, "boom", False, False, "boom"),
    ],
)
async def test_an_error_says_whose_it_is(status: int, message: str, refusal: bool, busy: bool, said: str) -> None:
    target, bodies = asked(lambda request: error(status, message))
    with pytest.raises(CallFailed, match=said) as found:
        await target.call("hello", 8, 60.0)
    assert (found.value.is_refusal, found.value.is_busy) == (refusal, busy)
    assert len(bodies) == 1


async def test_a_server_that_refuses_connections_says_so() -> None:
    def refuses(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    target, _ = asked(refuses)
    with pytest.raises(CallFailed, match="Connection refused"):
        await target.call("hello", 8, 60.0)
    with pytest.raises(CallFailed, match="cannot be reached"):
        await target.cards()
    assert not await target.is_alive()
    assert await target.load() == Load()


async def test_what_a_server_counts_of_itself_is_read_from_its_metrics() -> None:
    metrics = (
        'vllm:num_requests_running{model_name="nano"} 2\nvllm:num_requests_waiting{model_name="nano"} 1\n'
        'vllm:generation_tokens_total{model_name="nano"} 50\n'
        'vllm:request_success_total{finished_reason="stop",model_name="nano"} 3\n'
        'vllm:request_success_total{finished_reason="length",model_name="nano"} 4\nprocess_start_time_seconds 17\n'
    )
    target, _ = asked(lambda request: httpx.Response(200, text=metrics))
    assert await target.load() == Load(3.0, 7.0, 50.0, None, 17.0)


async def test_a_server_may_say_its_version() -> None:
    says, _ = asked(lambda request: httpx.Response(200, json={"version": "0.33.0"}))
    silent, _ = asked(lambda request: error(404, "Not Found"))
    odd, _ = asked(lambda request: httpx.Response(200, text="hello"))
    assert [await one.version() for one in (says, silent, odd)] == ["0.33.0", "", ""]


async def test_a_server_without_metrics_is_not_asked_for_them_again() -> None:
    count = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return error(404, "Not Found")

    target, _ = asked(answer)
    assert await target.load() == await target.load() == Load()
    assert count == 1


def test_calls_of_others_are_what_a_server_finished_beyond_ours() -> None:
    before, after = Load(0.0, 10.0, 1000.0), Load(0.0, 14.0, 1300.0)
    assert strangers(before, after, 4, 300) == 0
    assert strangers(before, after, 2, 150) == 2
    assert strangers(before, Load(1.0, 14.0, 1300.0), 4, 300) == 1  # one is running still


def test_without_a_count_of_calls_tokens_tell_of_others() -> None:
    assert strangers(Load(0.0, None, 1000.0), Load(0.0, None, 1301.0), 4, 300) == 0
    assert strangers(Load(0.0, None, 1000.0), Load(0.0, None, 1500.0), 4, 300) == 1
    assert strangers(Load(), Load(), 4, 300) == 0


def at(*marks: tuple[float, int], sent: float = 0.0, prompt: int = 100) -> Stream:
    return Stream(sent, marks, prompt)


def test_decode_is_counted_only_while_every_stream_decodes() -> None:
    early = at(*((1.0 + 0.1 * n, 1 + n) for n in range(41)))  # from 1.0 to 5.0
    late = at(*((3.0 + 0.2 * n, 1 + n) for n in range(16)))  # from 3.0 to 6.0
    found = figures([early, late])
    assert found.decode_rate == pytest.approx((20 + 10) / 2.0 / 2)  # 10/s and 5/s between 3.0 and 5.0
    assert found.prefill_s == 3.0
    assert found.prompt_tokens == 200


def test_answers_that_never_decode_together_have_no_decode_rate() -> None:
    assert figures([at((1.0, 1), (2.0, 20)), at((3.0, 1), (4.0, 20))]).decode_rate is None
    assert figures([at((1.0, 1), (1.1, 3))]).decode_rate is None  # too few tokens


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        figures([])


def test_lines_that_are_no_data_are_passed_over() -> None:
    reading = Reading()
    for line in (b"", b": waiting", b"event: x", b"retry: 3"):
        reading.feed(line, lambda: 1.0)
    with pytest.raises(CallFailed, match="broke off"):
        reading.stream(0.0)
