"""A call's way through the whole router, in memory."""

from router.events import CallEnded, Outcome
from tests.exchange.conftest import World
from tests.fakes import MODEL


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
