"""A call's way through the whole router, in memory."""

import asyncio

from router.events import CallEnded, Outcome
from tests.exchange.conftest import World
from tests.fakes import MODEL, FakeBackend, FakeCall


async def test_a_json_answer_passes_unchanged(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    answer = world.chat(stream=False)
    call = await spark.call()
    call.answer(200, b'{ "id": "x",  "choices": [], "big": 123456789012345678901234567890 }')
    await answer.whole()
    assert answer.status == 200
    assert answer.body == b'{ "id": "x",  "choices": [], "big": 123456789012345678901234567890 }'
    assert answer.headers["x-router-backend"] == "spark"
    assert answer.headers["x-router-attempts"] == "1"
    world.assert_idle()
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK


async def test_a_stream_passes_event_by_event(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    call.say(" two")
    await answer.until(lambda answer: "two" in answer.text)
    assert not answer.complete
    call.end()
    await answer.whole()
    assert answer.complete
    assert answer.text == "one two"
    assert answer.events[-1] == "[DONE]"
    world.assert_idle()


async def test_usage_is_asked_for_and_its_chunk_stripped(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    assert call.json["stream_options"] == {"include_usage": True}
    call.stream("one")
    await answer.whole()
    assert all("usage" not in event for event in answer.events if isinstance(event, dict))
    (ended,) = world.of(CallEnded)
    assert (ended.prompt_tokens, ended.completion_tokens) == (5, 3)


async def test_an_unknown_model_lists_what_there_is(world: World) -> None:
    world.backend("spark")
    await world.start()
    answer = await world.chat(model="gpt-9").whole()
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert MODEL in answer.json["error"]["message"]


async def test_a_refused_connection_is_tried_elsewhere(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    await world.start()
    one.down()
    for backend in (one, two):
        backend.script = lambda call: call.chat()
    answers = [await world.chat(stream=False).whole() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert {answer.headers["x-router-backend"] for answer in answers} == {"two"}
    world.assert_idle()


async def test_a_client_that_leaves_frees_its_backend(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    client = world.client()
    answer = world.chat(client)
    call = await spark.call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    client.leave()
    await call.left.wait()
    world.assert_idle()
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.CLIENT_LEFT


async def test_an_engine_that_dies_within_a_stream_is_a_visible_failure(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    call.event({"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}})
    call.event("[DONE]")
    call.raw(b"0\r\n\r\n")
    await answer.whole()
    assert answer.broken
    assert not answer.complete
    assert "[DONE]" not in answer.events
    assert answer.events[-1]["error"]["code"] == "error_event"
    world.assert_idle()


async def test_a_broken_stream_is_continued_elsewhere_in_the_same_stream(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    await world.start()
    answer = world.chat(max_tokens=100, stop=["END"])
    first = await next_call(one, two)
    first.start()
    first.role()
    for word in ("The", " quick", " brown"):
        first.say(word)
    await answer.until(lambda answer: "brown" in answer.text)
    first.reset()
    second = await next_call(one, two)
    assert second.backend is not first.backend
    body = second.json
    assert body["messages"][-1] == {"role": "assistant", "content": "The quick brown"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert body["max_tokens"] == 97
    second.stream(" fox", " jumps")
    await answer.whole()
    assert answer.complete
    assert answer.text == "The quick brown fox jumps"
    assert sum(event == "[DONE]" for event in answer.events) == 1
    roles = [c for e in answer.events if isinstance(e, dict) for c in e["choices"] if c["delta"].get("role")]
    assert len(roles) == 1
    world.assert_idle()
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK
    assert ended.attempts[1].resumed_at == len("The quick brown")


async def next_call(*backends: FakeBackend) -> FakeCall:
    """The next call that arrives at any of these."""
    tasks = [asyncio.ensure_future(backend.call()) for backend in backends]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return done.pop().result()
