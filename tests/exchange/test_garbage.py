"""No call leaves cycles behind: the collector may be called seldom, and what a call held is free when it ends."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.exchange.conftest import World
from tests.exchange.test_failures import error_before_content, head_then_close, status
from tests.fakes import FakeCall

CALLS = 20
Call = Callable[[World], Awaitable[object]]


def played(script: Callable[[FakeCall], object], *, stream: bool = True, then_fine: bool = False) -> Call:
    """A call that backends answer so; `then_fine`: only its first attempt, the next one is answered well."""

    async def call(world: World) -> None:
        asked = 0

        def answer(one: FakeCall) -> None:
            nonlocal asked
            asked += 1
            if asked == 1 or not then_fine:
                script(one)
            elif stream:
                one.stream("fine")
            else:
                one.chat("fine")

        for backend in world.backends.values():
            backend.script = answer
        await world.chat(stream=stream).whole()

    return call


async def left(world: World) -> None:
    for backend in world.backends.values():
        backend.script = lambda call: (call.start(), call.role(), call.say("one"))
    client = world.client()
    answer = world.chat(client)
    await answer.until(lambda answer: "one" in answer.text)
    client.leave()
    await asyncio.sleep(0.1)


async def refused(world: World) -> None:
    await world.chat(model="nobody").whole()


def broken_midway(call: FakeCall) -> None:
    call.start()
    call.role()
    call.say("one ")
    call.close()


CASES = {
    "a whole answer": played(lambda call: call.chat(), stream=False),
    "a stream": played(lambda call: call.stream("one", "two")),
    "a backend's 400": played(status(400), stream=False),
    "a retry after a 500": played(status(500), stream=False, then_fine=True),
    "a retry after a hang-up": played(head_then_close, then_fine=True),
    "an error event first": played(error_before_content, then_fine=True),
    "a break that is continued or told": played(broken_midway, then_fine=True),
    "a client that leaves": left,
    "an unknown model": refused,
}


@contextmanager
def kept_garbage() -> Iterator[list[object]]:
    """What only the collector would have freed, as far as it is the router's own."""
    gc.collect()
    gc.disable()
    found: list[object] = []
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [one for one in gc.garbage if type(one).__module__.startswith("router.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("name", CASES)
async def test_a_call_leaves_no_cycle_behind(world: World, name: str) -> None:
    for one in ("one", "two"):
        world.backend(one)
    await world.start()
    await CASES[name](world)  # what is made once, at the first call
    with kept_garbage() as garbage:
        for _ in range(CALLS):
            await CASES[name](world)
            await asyncio.sleep(1.0)  # nothing is under way any more
    kinds = Counter(type(one).__name__ for one in garbage)
    assert not [kind for kind, count in kinds.items() if count >= CALLS], kinds
