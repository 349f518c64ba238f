"""What a client gets when a backend fails, in every way and phase that can be seen from here."""

import asyncio
import math
from typing import Any

import pytest

from router.errors import FailureKind
from router.events import AttemptFailed, CallEnded, HealthChanged, Outcome
from router.policy.facts import Health, Intent
from tests.exchange.conftest import World
from tests.fakes import MODEL, FakeCall

FIRST = {"policy": "least-in-flight"}  # with a draw of 0: the first of the fleet file while nothing is in flight
ERROR = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}


async def first_then(world: World, fails: Any, *, stream: bool = True, **config: Any) -> tuple[Any, list[FakeCall]]:
    """A call whose first attempt goes wrong as told; whoever comes next answers well."""
    calls: list[FakeCall] = []

    def script(call: FakeCall) -> None:
        calls.append(call)
        if len(calls) == 1:
            fails(call)
        elif stream:
            call.stream("fine")
        else:
            call.chat("fine")

    for name in ("one", "two"):
        world.backend(name).script = script
    await world.start(world.config(**config))
    answer = await world.chat(stream=stream).whole()
    world.assert_idle()
    return answer, calls


def status(code: int, document: Any = None, headers: str = "") -> Any:
    return lambda call: call.answer(code, document or {"error": {"message": f"status {code}"}}, headers)


def half_json(call: FakeCall) -> None:
    call.raw(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id": "x", "cho')
    call.close()


def whole_but_half(call: FakeCall) -> None:
    call.answer(200, b'{"id": "x", "choices": [')


def error_before_content(call: FakeCall) -> None:
    call.start()
    call.event(ERROR)
    call.event("[DONE]")
    call.raw(b"0\r\n\r\n")


def head_then_close(call: FakeCall) -> None:
    call.start()
    call.close()


def only_done(call: FakeCall) -> None:
    call.start()
    call.event("[DONE]")
    call.raw(b"0\r\n\r\n")


def empty_stream(call: FakeCall) -> None:
    call.start()
    call.raw(b"0\r\n\r\n")


def bad_chunk(call: FakeCall) -> None:
    call.start()
    call.raw(b"zz\r\nnot a chunk\r\n")


def not_http(call: FakeCall) -> None:
    call.raw(b"220 mail.example ESMTP\r\n")


BEFORE_COMMIT = {
    "reset before headers": (lambda call: call.reset(), FailureKind.RESET),
    "closed before headers": (lambda call: call.close(), FailureKind.RESET),
    "500 once": (status(500), FailureKind.SERVER_ERROR),
    "503 without Retry-After": (status(503), FailureKind.BUSY),
    "503 with Retry-After": (status(503, None, "retry-after: 7\r\n"), FailureKind.BUSY),
    "429 without Retry-After": (status(429), FailureKind.BUSY),
    "429 with Retry-After": (status(429, None, "retry-after: 7\r\n"), FailureKind.BUSY),
    "401 to our key": (status(401, {"error": "Unauthorized"}), FailureKind.AUTH),
    "404 for a model it listed": (
        status(404, {"error": {"message": "The model `nemotron` does not exist.", "param": "model"}}),
        FailureKind.UNKNOWN_MODEL,
    ),
    "too long for it": (
        status(400, {"error": {"message": "This model's maximum context length is 2048 tokens."}}),
        FailureKind.CANNOT,
    ),
    "an error event before any content": (error_before_content, FailureKind.ERROR_EVENT),
    "a head, then closed": (head_then_close, FailureKind.TRUNCATED),
    "[DONE] and nothing else": (only_done, FailureKind.TRUNCATED),
    "a stream without events": (empty_stream, FailureKind.TRUNCATED),
    "a malformed chunk": (bad_chunk, FailureKind.BAD_FRAMING),
    "what is not HTTP": (not_http, FailureKind.BAD_FRAMING),
}


@pytest.mark.parametrize("name", BEFORE_COMMIT)
async def test_a_failure_before_the_commit_is_tried_elsewhere(world: World, name: str) -> None:
    fails, kind = BEFORE_COMMIT[name]
    answer, calls = await first_then(world, fails)
    assert answer.status == 200
    assert answer.text == "fine"
    assert answer.complete
    assert [call.backend.name for call in calls] == ["one", "two"] or len({c.backend.name for c in calls}) == 2
    (failed,) = world.of(AttemptFailed)
    assert failed.kind is kind
    assert failed.retried
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK
    assert len(ended.attempts) == 2


@pytest.mark.parametrize("fails", [half_json, whole_but_half], ids=["cut", "well framed"])
async def test_half_a_json_answer_is_tried_elsewhere(world: World, fails: Any) -> None:
    answer, _ = await first_then(world, fails, stream=False)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "fine"


async def test_a_clients_own_mistake_passes_unchanged_and_is_never_retried(world: World) -> None:
    body = b'{"error":{"message":"bad role","type":"BadRequestError","param":"messages","code":400}}'
    answer, calls = await first_then(world, lambda call: call.answer(400, body), stream=False)
    assert (answer.status, answer.body) == (400, body)
    assert len(calls) == 1
    assert all(one.health.health is Health.HEALTHY for one in world.app.fleet.backends.values())
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.CLIENT_ERROR


async def test_a_400_that_nobody_can_do_better_comes_from_the_backend_itself(world: World) -> None:
    body = b'{"error":{"message":"This model\'s maximum context length is 2048 tokens.","code":400}}'
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.answer(400, body)
    await world.start()
    answer = await world.chat(stream=False).whole()
    assert (answer.status, answer.body) == (400, body)
    assert world.of(HealthChanged)[-1].new == "healthy"


async def test_too_long_is_learned_and_the_next_long_call_goes_elsewhere_at_once(world: World) -> None:
    short, long = world.backend("one"), world.backend("two")
    refusal = {"error": {"message": "This model's maximum context length is 2048 tokens.", "param": "input_tokens"}}
    short.script = lambda call: call.answer(400, refusal)
    long.script = lambda call: call.chat()
    await world.start(draw=lambda: 0.5)
    prompt = [{"role": "user", "content": "word " * 4000}]
    for _ in range(3):
        answer = await world.chat(stream=False, messages=prompt).whole()
        assert answer.status == 200
    assert len(short.calls) <= 1


async def test_auth_failures_raise_an_alarm_and_do_not_touch_health(world: World) -> None:
    await first_then(world, status(401, {"error": "Unauthorized"}))
    assert all(one.health.health is Health.HEALTHY for one in world.app.fleet.backends.values())


async def test_no_token_within_the_first_byte_timeout_is_tried_elsewhere(world: World) -> None:
    answer, _ = await first_then(world, lambda call: None, timeouts={"first_byte_s": 120})
    assert answer.text == "fine"
    (failed,) = world.of(AttemptFailed)
    assert failed.kind in (FailureKind.FIRST_BYTE_TIMEOUT, FailureKind.HUNG)


async def test_a_streaming_client_that_waits_gets_comments_and_a_later_error_is_an_event(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    await answer.until(lambda answer: b": waiting" in answer.body)
    assert answer.status == 200
    call.answer(500, {"error": {"message": "boom"}})
    await answer.whole()
    assert answer.broken
    assert "error" in answer.events[-1]
    world.assert_idle()


async def test_a_20_s_wait_for_the_first_token_is_no_failure(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    call.start()
    await asyncio.sleep(20)
    call.role()
    call.say("late")
    call.end()
    await answer.whole()
    assert answer.complete
    assert answer.text == "late"


async def test_a_stale_kept_connection_is_replaced_free_of_charge(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    first = world.chat(stream=False)
    (await spark.call()).chat()
    await first.whole()
    kept = spark.connections[0]
    second = world.chat(stream=False)
    call = await spark.call()
    assert call is kept
    call.close()
    (await spark.call()).chat("again")
    await second.whole()
    assert second.status == 200
    assert second.headers["x-router-attempts"] == "1"
    assert world.of(AttemptFailed) == []


async def test_retries_stop_when_the_budget_is_spent(world: World) -> None:
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.answer(500, {"error": {"message": "down"}})
    retry = {"share": 0.0, "floor_per_s": 0.0, "burst": 2.0}
    await world.start(world.config(retry=retry, health={"failures_to_eject": 1000, "failure_rate": 1.0}))
    for _ in range(6):
        await world.chat(stream=False).whole()
    assert sum(one.retried for one in world.of(AttemptFailed)) == 2


async def test_three_failures_in_a_row_eject_and_trials_bring_back(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    one.script = lambda call: call.answer(500, {"error": {"message": "down"}})
    two.script = lambda call: call.chat()
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    for _ in range(8):
        assert (await world.chat(stream=False).whole()).status == 200
        await asyncio.sleep(12)  # two good probes: suspect no more, but the failures stay counted
        if world.app.fleet.backends["one"].health.health is Health.EJECTED:
            break
    assert world.app.fleet.backends["one"].health.health is Health.EJECTED
    one.script = lambda call: call.chat()
    await asyncio.sleep(30)
    for _ in range(6):
        await world.chat(stream=False).whole()
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY
    states = [event.new for event in world.of(HealthChanged) if event.backend == "one"]
    assert states[-3:] == ["ejected", "probation", "healthy"]


async def test_the_only_backend_of_a_model_is_never_ejected(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.answer(500, {"error": {"message": "down"}})
    await world.start()
    for _ in range(6):
        assert (await world.chat(stream=False).whole()).status == 500
    spark.script = lambda call: call.chat()
    assert (await world.chat(stream=False).whole()).status == 200


async def test_a_hung_backend_is_found_and_its_streams_continue_elsewhere(world: World) -> None:
    hangs, works = world.backend("one"), world.backend("two")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = world.chat()
    call = await hangs.call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    works.script = lambda call: call.stream(" two")
    await answer.whole()
    assert answer.text == "one two"
    assert world.app.fleet.backends["one"].health.health in (Health.EJECTED, Health.SUSPECT, Health.PROBATION)


def engine(tokens: int, running: int = 0) -> str:
    """An engine's metrics: so many tokens made so far, so many calls in its batch."""
    return f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\nvllm:generation_tokens_total {tokens}\n"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_that_never_reached_the_engine_is_asked_elsewhere(world: World, stream: bool) -> None:
    loses, works = world.backend("one"), world.backend("two")
    loses.metrics = engine(10)
    works.script = lambda call: call.stream("here") if stream else call.chat("here")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = world.chat(stream=stream)
    await loses.call()
    await asyncio.sleep(61)
    assert world.of(AttemptFailed) == [], "an engine with nothing to do may be within its first step"
    loses.metrics = engine(20)
    await asyncio.sleep(6)
    await answer.whole()
    assert answer.text == "here" if stream else answer.json["choices"][0]["message"]["content"] == "here"
    (failed,) = world.of(AttemptFailed)
    assert (failed.backend, failed.kind) == ("one", FailureKind.LOST)
    assert world.app.fleet.backends["one"].health.health is Health.SUSPECT, "one call lost is no hang"
    world.assert_idle()


async def test_a_call_within_a_long_prefill_is_not_lost(world: World) -> None:
    spark = world.backend("one")
    spark.metrics = engine(10)
    await world.start()
    answer = world.chat()
    call = await spark.call()
    for tokens in range(20, 50):
        spark.metrics = engine(tokens, running=1)
        await asyncio.sleep(5)
    call.stream("late")
    await answer.whole()
    assert answer.text == "late"
    assert world.of(AttemptFailed) == []


async def test_a_drain_past_its_deadline_continues_the_answer_elsewhere(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    await world.start(world.config(routing=FIRST, timeouts={"drain_s": 10}), draw=lambda: 0.0)
    answer = world.chat()
    call = await one.call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    world.app.fleet.set_intent("one", Intent.DRAINING, "new nightly")
    two.script = lambda call: call.stream(" two")
    await answer.whole()
    assert answer.text == "one two"
    await call.left.wait()
    world.assert_idle()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("window", ["before headers", "before the first event", "mid-stream"])
async def test_a_client_that_leaves_is_noticed_in_every_window(world: World, window: str, stream: bool) -> None:
    spark = world.backend("one")
    await world.start()
    client = world.client()
    answer = world.chat(client, stream=stream)
    call = await spark.call()
    if window != "before headers":
        if stream:
            call.start()
        else:
            call.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n")
        await asyncio.sleep(0.1)
    if window == "mid-stream":
        if stream:
            call.role()
            call.say("one")
            await answer.until(lambda answer: "one" in answer.text)
        else:
            call.raw(b'{"half":')
            await asyncio.sleep(0.1)
    before = world.loop.time()
    client.leave()
    await call.left.wait()
    assert world.loop.time() - before <= 0.1
    world.assert_idle()
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.CLIENT_LEFT


async def test_a_slow_reader_stops_its_backend_and_loses_nothing(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    client = world.client()
    answer = world.chat(client)
    call = await spark.call()
    call.start()
    call.role()
    call.say("begin")
    await answer.until(lambda answer: "begin" in answer.text)
    client.stop_reading()
    for _ in range(100):
        call.say("x" * 10_000)
        await asyncio.sleep(0.01)
    assert call.transport.get_write_buffer_size() > 500_000
    client.read_again()
    call.end()
    await answer.whole()
    assert answer.complete
    assert len(answer.text) == len("begin") + 1_000_000


async def test_too_long_for_everybody_is_answered_at_once_again_and_again(world: World) -> None:
    body = b'{"error":{"message":"This model\'s maximum context length is 2048 tokens.","code":400}}'
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.answer(400, body)
    await world.start()
    for _ in range(3):
        before = world.loop.time()
        answer = await world.chat(messages=[{"role": "user", "content": "word " * 9000}]).whole()
        assert (answer.status, answer.body) == (400, body)
        assert world.loop.time() - before < 1


async def test_a_call_that_nothing_can_be_learned_from_is_answered_all_the_same(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    world.app.fleet.backends["spark"].serving[MODEL].speed.prefill.p = math.inf  # no logarithm of what it predicts
    answer = world.chat()
    (await spark.call()).stream("one")
    await answer.whole()
    assert answer.complete
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK
    world.assert_idle()
