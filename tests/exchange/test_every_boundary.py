"""Something goes wrong at every boundary of an answer: what the client saw is judged against a small model.

The model: a client has either a whole answer, exactly once, or a visible failure whose text is a beginning of the
answer. Everything taken is given back, and exactly one `CallEnded` says how it ended.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from router.events import CallEnded, Outcome
from tests.exchange.conftest import World
from tests.fakes import Answer, FakeCall, FakeClient

TEXT = ["The", " quick", " brown", " fox"]
Step = Callable[[FakeCall], None]


def steps(texts: list[str]) -> list[Step]:
    """An answer's events, in order; something may go wrong before each and after the last."""
    return [
        lambda call: call.start(),
        lambda call: call.role(),
        *[lambda call, text=text: call.say(text) for text in texts],  # type: ignore[misc]
        lambda call: call.delta(finish="stop", content=""),
        lambda call: call.usage(5, 4),
        lambda call: call.event("[DONE]"),
        lambda call: call.raw(b"0\r\n\r\n"),
    ]


BOUNDARIES = range(len(steps(TEXT)) + 1)
FAULTS: dict[str, Step] = {
    "reset": lambda call: call.reset(),
    "closed": lambda call: call.close(),
    "an error event": lambda call: call.event({"error": {"message": "EngineCore died", "code": 500}}),
    "bytes that are not HTTP": lambda call: call.raw(b"zz\r\n\r\n"),
    "an event that is not JSON": lambda call: call.chunk(b"data: {half\n\n"),
    "an end without terminal events": lambda call: call.raw(b"0\r\n\r\n"),
}


async def play(call: FakeCall, upto: int) -> None:
    for step in steps(TEXT)[:upto]:
        step(call)
        await asyncio.sleep(0.01)


def said(answer: Answer) -> str:
    """The text of a stream, its last event cut off or not."""
    complete, _, _ = answer.body.rpartition(b"\n\n")
    whole = Answer()
    whole.body = complete
    return whole.text


def judge(world: World, answer: Answer) -> None:
    """Hold what the client saw, and what is left behind, against the model."""
    full = "".join(TEXT)
    if answer.complete and answer.status == 200:
        finishes = [c for e in answer.events if isinstance(e, dict) for c in e.get("choices", []) if c["finish_reason"]]
        assert answer.text == full
        assert answer.events.count("[DONE]") <= 1
        assert len(finishes) == 1
    elif answer.status == 200:
        assert full.startswith(said(answer))
        assert answer.broken
    else:
        assert set(answer.json["error"]) >= {"message", "type", "code"}
    world.assert_idle()
    assert len(world.of(CallEnded)) == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_fault_at_every_boundary_with_another_backend_at_hand(world: World, boundary: int, fault: str) -> None:
    calls: list[FakeCall] = []
    tasks: set[asyncio.Task[None]] = set()

    async def first(call: FakeCall) -> None:
        await play(call, boundary)
        FAULTS[fault](call)
        await asyncio.sleep(0.05)
        call.close()

    def script(call: FakeCall) -> None:
        calls.append(call)
        if len(calls) == 1:
            tasks.add(asyncio.ensure_future(first(call)))
            return
        had = call.json["messages"][-1]
        begun = had["content"] if had["role"] == "assistant" else ""
        rest = "".join(TEXT).removeprefix(begun)
        call.start()
        call.role()
        call.say(rest)
        call.end()

    for name in ("one", "two"):
        world.backend(name).script = script
    await world.start()
    answer = await world.chat().whole()
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.1)
    judge(world, answer)
    finished = boundary > len(TEXT) + 2
    if not (finished and fault in ("an error event", "an event that is not JSON")):
        assert answer.complete, "another backend was there: nothing may be missing"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_fault_at_every_boundary_with_nobody_else(world: World, boundary: int, fault: str) -> None:
    spark = world.backend("one")
    await world.start()
    answer = world.chat()
    call = await spark.call()
    await play(call, boundary)
    FAULTS[fault](call)
    await asyncio.sleep(0.05)
    call.close()
    await answer.whole()
    await asyncio.sleep(0.1)
    judge(world, answer)
    finished = boundary > len(TEXT) + 2
    assert not (answer.complete and answer.status == 200) or finished


@pytest.mark.parametrize("how", ["leaves", "ends its side"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_a_client_that_goes_at_every_boundary(world: World, boundary: int, how: str) -> None:
    spark = world.backend("one")
    await world.start()
    client: FakeClient = world.client()
    world.chat(client)
    call = await spark.call()
    await play(call, boundary)
    if how == "leaves":
        client.leave()
    else:
        client.transport.write_eof()
    if boundary < len(steps(TEXT)):
        await call.left.wait()
    await asyncio.sleep(0.1)
    world.assert_idle()
    (ended,) = world.of(CallEnded)
    assert ended.outcome in (Outcome.CLIENT_LEFT, Outcome.OK)


@pytest.mark.parametrize("cut", [0, 1, 30, 90, 120])
async def test_a_json_answer_cut_anywhere_starts_again_elsewhere(world: World, cut: int) -> None:
    calls: list[Any] = []

    def script(call: FakeCall) -> None:
        calls.append(call)
        if len(calls) > 1:
            call.chat("whole")
            return
        body = b'{"id":"chatcmpl-1","object":"chat.completion","choices":[]}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        call.raw((head + body)[:cut])
        call.close()

    for name in ("one", "two"):
        world.backend(name).script = script
    await world.start()
    answer = await world.chat(stream=False).whole()
    assert answer.json["choices"][0]["message"]["content"] == "whole"
    world.assert_idle()
