"""Who is asked for the rest of a broken answer, how it is joined, and which answers are not continued at all."""

from typing import Any

import pytest

from router.errors import FailureKind
from router.events import AttemptFailed, CallEnded, Outcome
from tests.exchange.conftest import World
from tests.fakes import MODEL, Answer, FakeCall

FIRST = {"policy": "least-in-flight"}  # with a draw of 0: the first of the fleet file while nothing is in flight
SAID = "The sea is"
PROMPT = {"model": MODEL, "prompt": "The", "stream": True}


def add(world: World, name: str, owner: str, text: str) -> None:
    """Add a server that is no vLLM, with what it says to any call."""
    server = world.backend(name)
    server.kind, server.cards = "openai", {"owned_by": owner}
    server.script = lambda call: call.stream(text)


async def broken(world: World, **body: Any) -> Answer:
    """A chat whose first words came from `one`, which then dies."""
    answer, call = await begun(world, **body)
    call.say(SAID)
    await answer.until(lambda answer: SAID in answer.text)
    call.reset()
    return await answer.whole()


async def begun(world: World, **body: Any) -> tuple[Answer, FakeCall]:
    world.backends = {"one": world.backend("one"), **world.backends}
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = world.chat(**body)
    call = await world.backends["one"].call()
    call.start()
    call.role()
    return answer, call


async def test_a_server_that_was_not_seen_to_continue_is_not_asked(world: World) -> None:
    add(world, "other", "library", "Once upon a time")  # it would begin anew
    answer = await broken(world)
    assert answer.broken
    assert answer.text == SAID
    assert world.backends["other"].calls == []
    assert world.of(CallEnded)[-1].outcome is Outcome.BROKEN
    assert world.app.fleet.backends["other"].serving[MODEL].cannot == {"continuing a message"}
    world.assert_idle()


async def test_the_one_that_was_seen_to_continue_is_asked_instead(world: World) -> None:
    add(world, "other", "library", "Once upon a time")
    world.backend("two").script = lambda call: call.stream(" calm.")
    answer = await broken(world)
    assert (answer.complete, answer.text) == (True, f"{SAID} calm.")
    assert world.backends["other"].calls == []


async def test_a_llama_cpp_repeats_the_message_and_the_client_reads_it_once(world: World) -> None:
    add(world, "llama", "llamacpp", f"{SAID} calm.")
    answer = await broken(world)
    assert (answer.complete, answer.text) == (True, f"{SAID} calm.")
    (asked,) = world.backends["llama"].calls
    assert asked.json["messages"][-1] == {"role": "assistant", "content": SAID}


async def test_a_vllm_behind_another_kind_is_known_by_the_owner_it_names(world: World) -> None:
    add(world, "two", "vllm", " calm.")
    answer = await broken(world)
    assert (answer.complete, answer.text) == (True, f"{SAID} calm.")


async def test_an_answer_of_which_no_word_went_out_begins_anew_anywhere(world: World) -> None:
    add(world, "other", "library", "Once upon a time")
    answer, call = await begun(world)
    call.reset()
    await answer.whole()
    assert (answer.complete, answer.text) == (True, "Once upon a time")


async def test_a_completion_is_a_longer_prompt_to_any_server_and_no_word_is_taken_for_a_repeat(world: World) -> None:
    other = world.backend("other")
    other.kind, other.cards = "openai", {"owned_by": "llamacpp"}
    other.script = lambda call: complete(call, "ha", " ha")
    world.backends = {"one": world.backend("one"), **world.backends}
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answer = world.client().post("/v1/completions", PROMPT)
    call = await world.backends["one"].call()
    call.start()
    call.event(piece("ha"))
    await answer.until(lambda answer: b"ha" in answer.body)
    call.reset()
    await answer.whole()
    said = "".join(
        event["choices"][0]["text"] for event in answer.events if isinstance(event, dict) and event["choices"]
    )
    assert said == "haha ha"
    assert other.calls[0].json["prompt"] == "Theha"


def piece(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL, "choices": [choice]}


def complete(call: FakeCall, *texts: str) -> None:
    call.start()
    for text in texts:
        call.event(piece(text))
    call.event(piece("", "stop"))
    call.event("[DONE]")
    call.raw(b"0\r\n\r\n")


UNSAFE: dict[str, dict[str, Any]] = {
    "several choices": {"n": 2},
    "logprobs were asked for": {"logprobs": True},
    "its output is guided": {"response_format": {"type": "json_object"}},
}


@pytest.mark.parametrize("why", UNSAFE)
async def test_what_cannot_be_continued_safely_ends_as_a_visible_error(world: World, why: str) -> None:
    two = world.backend("two")
    two.script = lambda call: call.stream(" calm.")
    answer = await broken(world, **UNSAFE[why])
    assert answer.broken
    assert "[DONE]" not in answer.events
    assert why in world.of(AttemptFailed)[-1].detail
    assert "error" in answer.events[-1]
    assert two.calls == []
    world.assert_idle()


@pytest.mark.parametrize(
    ("delta", "why"),
    [
        ({"reasoning_content": "Hm."}, "a reasoning block has begun"),
        (
            {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            "a tool call has begun",
        ),
    ],
)
async def test_nothing_is_continued_beyond_plain_content(world: World, delta: dict[str, Any], why: str) -> None:
    two = world.backend("two")
    two.script = lambda call: call.stream(" calm.")
    answer, call = await begun(world)
    call.delta(**delta)
    await answer.until(lambda answer: len(answer.events) > 1)
    call.reset()
    await answer.whole()
    assert answer.broken
    assert why in world.of(AttemptFailed)[-1].detail
    assert two.calls == []
    world.assert_idle()


async def test_a_model_may_have_continuation_switched_off(world: World) -> None:
    world.backends = {"one": world.backend("one"), "two": world.backend("two")}
    await world.start(world.config(routing=FIRST, models={MODEL: {"continuation": False}}), draw=lambda: 0.0)
    answer = world.chat()
    call = await world.backends["one"].call()
    call.start()
    call.say(SAID)
    await answer.until(lambda answer: SAID in answer.text)
    call.reset()
    await answer.whole()
    assert answer.broken
    failed = world.of(AttemptFailed)[-1]
    assert (failed.kind, failed.retried) == (FailureKind.RESET, False)
    assert "switched off" in failed.detail
