"""Every fault does on the wire what it says."""

import asyncio

import httpx
import orjson
import pytest

from tests.sim.served import MODEL, content, events, served

pytestmark = pytest.mark.realtime


@pytest.mark.parametrize("kind", ["cut", "truncate", "bad_chunk"])
async def test_a_broken_stream_breaks_visibly_after_some_events(kind: str) -> None:
    async with served() as server:
        with pytest.raises(httpx.RemoteProtocolError if kind != "cut" else httpx.TransportError):
            await server.chat("count to 50", kind, stream=True)
        await asyncio.sleep(0)
        assert server.sim.engine.running == 0


async def test_an_error_event_is_followed_by_done() -> None:
    async with served() as server:
        answer = await server.chat("count to 50", '{"kind": "error_event", "after": 0}', stream=True)
    error, done = events(answer.text)
    assert (error["error"]["code"], error["error"]["type"], done) == (500, "InternalServerError", "[DONE]")


async def test_half_an_event_is_no_json() -> None:
    async with served() as server:
        answer = await server.chat("count to 50", "half_json", stream=True)
    with pytest.raises(orjson.JSONDecodeError):
        events(answer.text)


async def test_a_stream_may_lack_its_end_mark() -> None:
    async with served() as server:
        answer = await server.chat("count to 5", "missing_done", stream=True)
    assert events(answer.text)[-1] != "[DONE]"
    assert content(answer.text) == "1 2 3 4 5 "


@pytest.mark.parametrize(("fault", "status", "retry_after"), [
    ('{"kind": "status", "status": 500}', 500, None),
    ('{"kind": "status", "status": 429, "retry_after_s": 7}', 429, "7"),
    ('{"kind": "status", "status": 429}', 429, None),
    ("busy", 503, None),
])  # fmt: skip
async def test_an_error_status_comes_as_asked(fault: str, status: int, retry_after: str | None) -> None:
    async with served() as server:
        answer = await server.chat("hi", fault)
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry_after)
    assert "message" in answer.json()["error"]


async def test_a_hung_server_is_healthy_and_says_nothing() -> None:
    async with served() as server:
        await server.client.post("/sim/fault", json={"kind": "hang"})
        with pytest.raises(httpx.ReadTimeout):
            await server.client.post(
                "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]}, timeout=0.3
            )
        assert (await server.client.get("/health")).status_code == 200
        await server.client.delete("/sim/fault")
        assert (await server.chat("count to 3")).status_code == 200


async def test_whoever_hangs_up_frees_the_engine_at_once() -> None:
    async with served() as server:
        await server.client.post("/sim/fault", json={"kind": "slow", "factor": 500.0})
        body = {"model": MODEL, "messages": [{"role": "user", "content": "count to 500"}], "stream": True}
        async with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            await anext(answer.aiter_lines())
            assert server.sim.engine.running == 1
        await server.client.get("/health")  # by now the server has seen it leave
        assert server.sim.engine.running == 0
        assert server.sim.engine.counters.aborted == 1


async def test_nan_shows_as_exclamation_marks_and_null_logprobs() -> None:
    async with served() as server:
        answer = await server.chat("hi", "nan", stream=True, logprobs=True, top_logprobs=2, max_tokens=8)
        refused = await server.client.post(
            "/v1/completions", json={"prompt": "The sea is", "max_tokens": 1, "prompt_logprobs": 2},
            headers={"x-sim-fault": "nan"},
        )  # fmt: skip
    assert content(answer.text) == "!!!!!!!!"
    chosen = [one["choices"][0]["logprobs"]["content"][0]["logprob"] for one in events(answer.text)[1:-1]]
    assert chosen == [None] * 8
    assert refused.status_code == 400


async def test_garbage_is_another_text_and_so_is_a_damaged_decode() -> None:
    async with served() as server:
        good = (await server.chat("count to 20")).json()["choices"][0]["message"]["content"]
        for kind in ('{"kind": "garbage"}', '{"kind": "decode_damage", "amount": 12}'):
            bad = (await server.chat("count to 20", kind, max_tokens=40)).json()["choices"][0]["message"]["content"]
            assert bad != good


async def test_an_unknown_fault_is_refused_by_name() -> None:
    async with served() as server:
        answer = await server.client.post("/sim/fault", json={"kind": "fire"})
    assert answer.status_code == 400
    assert "refuse" in answer.json()["error"]["message"]
