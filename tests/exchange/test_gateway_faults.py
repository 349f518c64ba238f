"""Faults that public crash tests put gateways through and no other test shows; docs/failures.md lists them all."""

import asyncio

import pytest

from router.errors import FailureKind
from router.events import AttemptFailed, CallEnded, HealthChanged, Outcome
from router.policy.facts import Health
from tests.exchange.conftest import World
from tests.fakes import Answer, FakeBackend, FakeCall

FIRST = {"policy": "least-in-flight"}  # with a draw of 0: the first of the fleet file while nothing is in flight
WORDS = tuple(f" w{number}" for number in range(60))
WHOLE = "".join(WORDS)
ERROR = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}


async def begun(world: World, words: tuple[str, ...], *more: str) -> tuple[Answer, FakeCall, FakeBackend]:
    """A stream whose first words have come from `one`; `two` stands by, and whoever else is named."""
    one, two = world.backend("one"), world.backend("two")
    for name in more:
        world.backend(name)
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = world.chat()
    call = await one.call()
    call.start()
    call.role()
    for word in words:
        call.say(word)
    await answer.until(lambda answer: words[-1] in answer.text)
    return answer, call, two


def one_whole_answer(world: World, answer: Answer, kind: FailureKind) -> None:
    """Nothing is missing, nothing comes twice, and the failure is on record."""
    assert answer.complete
    assert answer.text == WHOLE
    assert answer.events.count("[DONE]") == 1
    (failed,) = world.of(AttemptFailed)
    assert failed.kind is kind
    (ended,) = world.of(CallEnded)
    assert ended.outcome is Outcome.OK
    world.assert_idle()


async def test_a_stream_cut_after_40_of_60_chunks_goes_on_with_the_41st(world: World) -> None:
    answer, call, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.stream(*WORDS[40:])
    call.reset()
    one_whole_answer(world, await answer.whole(), FailureKind.RESET)


async def test_a_malformed_chunk_in_mid_answer_is_no_part_of_it(world: World) -> None:
    answer, call, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.stream(*WORDS[40:])
    call.raw(b"zz\r\nnot a chunk\r\n")
    one_whole_answer(world, await answer.whole(), FailureKind.BAD_FRAMING)


async def test_an_error_event_in_mid_answer_never_reaches_the_client(world: World) -> None:
    answer, call, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.stream(*WORDS[40:])
    call.event(ERROR)
    call.event("[DONE]")
    call.raw(b"0\r\n\r\n")
    one_whole_answer(world, await answer.whole(), FailureKind.ERROR_EVENT)
    assert not any("error" in event for event in answer.events if isinstance(event, dict))


async def test_an_end_without_finish_reason_or_done_is_not_taken_for_an_end(world: World) -> None:
    answer, call, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.stream(*WORDS[40:])
    call.raw(b"0\r\n\r\n")
    one_whole_answer(world, await answer.whole(), FailureKind.TRUNCATED)


async def test_a_missing_done_after_the_finish_reason_loses_nothing(world: World) -> None:
    answer, call, _ = await begun(world, WORDS)
    call.end(done=False)
    await answer.whole()
    assert answer.complete
    assert answer.text == WHOLE
    assert world.of(AttemptFailed) == []


async def test_a_stall_of_30_s_that_ends_is_waited_for(world: World) -> None:
    one = world.backend("one")
    await world.start()
    answer = world.chat()
    call = await one.call()
    call.start()
    call.role()
    call.say("before")
    await asyncio.sleep(30)
    call.say(" after")
    call.end()
    await answer.whole()
    assert answer.text == "before after"
    assert world.of(AttemptFailed) == []


async def test_a_stall_without_end_is_continued_elsewhere(world: World) -> None:
    answer, _, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.stream(*WORDS[40:])
    await answer.whole()
    assert answer.complete
    assert answer.text == WHOLE
    world.assert_idle()


async def test_a_backend_that_rejects_the_continuation_makes_a_visible_failure(world: World) -> None:
    answer, call, two = await begun(world, WORDS[:40])
    two.script = lambda call: call.answer(400, {"error": {"message": "continue_final_message is not supported"}})
    call.reset()
    await answer.whole()
    assert answer.broken
    assert "[DONE]" not in answer.events
    assert "error" in answer.events[-1]
    assert answer.text == "".join(WORDS[:40])
    world.assert_idle()


async def test_a_content_filters_400_is_the_clients_answer_and_is_asked_once(world: World) -> None:
    body = (
        b'{"error":{"message":"blocked by the content filter","type":"invalid_request_error","code":"content_filter"}}'
    )
    backends = [world.backend("one"), world.backend("two")]
    for backend in backends:
        backend.script = lambda call: call.answer(400, body)
    await world.start()
    answer = await world.chat(stream=False).whole()
    assert (answer.status, answer.body) == (400, body)
    assert sum(len(backend.calls) for backend in backends) == 1


async def test_an_outage_of_60_s_costs_none_of_20_calls(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    for backend in (one, two):
        backend.script = lambda call: call.chat("fine")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    one.down()
    answers = []
    for _ in range(20):
        answers.append(await world.chat(stream=False).whole())
        await asyncio.sleep(3)
    assert [answer.status for answer in answers] == [200] * 20
    assert len(two.calls) == 20
    one.up()
    await asyncio.sleep(60)
    await world.chat(stream=False).whole()
    assert len(one.calls) == 1  # it is back in use
    world.assert_idle()


@pytest.mark.parametrize("stream", [True, False])
async def test_after_a_failover_the_books_name_who_answered(world: World, stream: bool) -> None:
    one, two = world.backend("one"), world.backend("two")
    one.script = lambda call: call.answer(500, {"error": {"message": "boom"}})
    two.script = lambda call: call.stream("fine") if stream else call.chat("fine")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = await world.chat(stream=stream).whole()
    assert answer.headers["x-router-backend"] == "two"
    assert answer.headers["x-router-attempts"] == "2"
    (ended,) = world.of(CallEnded)
    assert [(one.backend, one.failure) for one in ended.attempts] == [("one", FailureKind.SERVER_ERROR), ("two", None)]
    assert ended.prompt_tokens == 5
    assert ended.completion_tokens in (2, 3)  # the answer's own, counted once
    world.assert_idle()


@pytest.mark.parametrize("said", ["continue_final_message is not supported", "Unexpected field."])
async def test_who_rejects_a_continuation_is_passed_over_and_not_asked_again(world: World, said: str) -> None:
    answer, call, two = await begun(world, WORDS[:40], "three")
    two.script = lambda call: call.answer(400, {"error": {"message": said}})
    world.backends["three"].script = lambda call: call.stream(*WORDS[40:])
    call.reset()
    await answer.whole()
    assert (answer.complete, answer.text) == (True, WHOLE)
    rejected = world.of(AttemptFailed)[-1]
    assert (rejected.backend, rejected.kind, rejected.counts) == ("two", FailureKind.CANNOT, False)
    await asyncio.sleep(30)  # good probes: the one that broke is no longer in doubt
    again = world.chat()
    async with asyncio.timeout(60):
        call = await world.backends["one"].call()
    call.start()
    call.role()
    for word in WORDS[:40]:
        call.say(word)
    await again.until(lambda answer: WORDS[39] in answer.text)
    call.reset()
    await again.whole()
    assert (again.complete, again.text) == (True, WHOLE)
    assert len(two.calls) == 1, "it is not asked a second time"
    world.assert_idle()


@pytest.mark.parametrize(("status", "header", "rests_s"), [(429, "retry-after: 7\r\n", 7), (429, "", 1), (503, "", 1)])
async def test_who_says_it_is_full_rests_for_as_long_as_it_asked_and_is_not_ill(
    world: World, status: int, header: str, rests_s: int
) -> None:
    one, two = world.backend("one"), world.backend("two")
    one.script = lambda call: call.answer(status, {"error": {"message": "full"}}, header)
    two.script = lambda call: call.chat("fine")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    for _ in range(4):  # the first is refused; the others come while it rests
        assert (await world.chat(stream=False).whole()).status == 200
        await asyncio.sleep(rests_s / 5)
    assert (len(one.calls), len(two.calls)) == (1, 4)
    one.script = lambda call: call.chat("room again")
    await asyncio.sleep(rests_s / 4)
    assert "room again" in (await world.chat(stream=False).whole()).body.decode()
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY
    assert world.of(HealthChanged) == [event for event in world.of(HealthChanged) if event.new == "healthy"]


async def test_a_500_counts_and_one_is_not_enough_to_eject(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    one.script = lambda call: call.answer(500, {"error": {"message": "boom"}})
    two.script = lambda call: call.chat("fine")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    assert (await world.chat(stream=False).whole()).status == 200
    (failed,) = world.of(AttemptFailed)
    assert (failed.backend, failed.counts, failed.retried) == ("one", True, True)
    assert world.app.fleet.backends["one"].health.health is Health.SUSPECT
    one.script = lambda call: call.chat("well again")
    await asyncio.sleep(30)  # good probes
    assert "well again" in (await world.chat(stream=False).whole()).body.decode()
