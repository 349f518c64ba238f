"""The sentinel on the router's real way: what it sees in long and hurried streams, and what it lets pass unseen."""

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.continuation import KEEP_AT_MOST
from router.events import BuildChanged
from router.policy.quality import Kind
from router.quality.watch import DEPOSIT_US, EARNED_US_PER_S, MOST_SAVED_US, Purse
from tests.exchange.conftest import World
from tests.fakes import MODEL, FakeBackend, FakeCall

WORDS = (
    "mill",
    "river",
    "stone",
    "letter",
    "father",
    "kettle",
    "winter",
    "engine",
    "garden",
    "table",
    "window",
    "paper",
)


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[World]:
    world = World(runner.get_loop())
    yield world
    runner.run(world.stop())


def prose(characters: int, seed: int = 1) -> str:
    dice = random.Random(seed)
    return " ".join(dice.choices(WORDS, k=characters // 4))[:characters]


async def say(call: FakeCall, text: str, *, step: int = 4, field: str = "content", pause_s: float = 0.01) -> None:
    """Write a text as a model does, a token an event, a moment between them."""
    for at in range(0, len(text), step):
        call.delta(**{field: text[at : at + step]})
        if pause_s:
            await asyncio.sleep(pause_s)


async def ask(world: World, spark: FakeBackend) -> FakeCall:
    world.chat()
    call = await spark.call()
    call.start()
    call.role()
    return call


async def signs(world: World) -> set[str]:
    await asyncio.sleep(1.0)
    lines = world.app.metrics.render().decode().splitlines()
    begin = "router_sentinel_suspicions_total{"
    return {line.partition('sign="')[2].partition('"')[0] for line in lines if line.startswith(begin)}


@pytest.mark.parametrize("field", ["content", "reasoning"])
@pytest.mark.parametrize("before", [5_000, KEEP_AT_MOST + 5_000])
async def test_a_flood_in_the_middle_of_a_long_answer_is_found(world: World, field: str, before: int) -> None:
    spark = world.backend("spark")
    await world.start()
    call = await ask(world, spark)
    await say(call, prose(before), field=field, step=16)
    await say(call, "!" * 4_000, field=field)
    await say(call, prose(5_000, 2), field=field)
    call.end()
    assert "flood" in await signs(world)


async def test_a_long_right_answer_shows_nothing(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    call = await ask(world, spark)
    await say(call, prose(KEEP_AT_MOST + 5_000), step=16)
    call.end()
    assert await signs(world) == set()


async def test_a_loop_that_comes_in_one_burst_is_found(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    call = await ask(world, spark)
    await say(call, prose(400) + " and so it went on" * 400, pause_s=0)
    call.end()
    assert await signs(world) == {"repetition"}


FLOOD = "!" * 300
WHOLE = {
    "/v1/chat/completions": {"choices": [{"index": 0, "message": {"content": FLOOD}, "finish_reason": "stop"}]},
    "/v1/completions": {"choices": [{"index": 0, "text": FLOOD, "finish_reason": "stop"}]},
    "/v1/messages": {"type": "message", "content": [{"type": "text", "text": FLOOD}], "stop_reason": "end_turn"},
    "/v1/responses": {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": FLOOD}]}],
    },
}


@pytest.mark.parametrize("path", WHOLE)
async def test_a_whole_answer_of_every_route_is_looked_at(world: World, path: str) -> None:
    spark = world.backend("spark")
    await world.start()
    spark.script = lambda call: call.answer(200, WHOLE[path])
    asked = {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi", "max_tokens": 400}
    await world.client().post(path, {"model": MODEL, **asked}).whole()
    assert await signs(world) == {"flood"}


async def test_arguments_of_parallel_tool_calls_are_read_apart(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    call = await ask(world, spark)
    for index, text in ((0, '{"city": "' + "x" * 600 + '"}'), (1, '{"town": "' + "y" * 600 + '"}')):
        for letter in text:
            call.delta(tool_calls=[{"index": index, "function": {"arguments": letter}}])
            await asyncio.sleep(0.01)
    call.end(finish="tool_calls")
    assert await signs(world) == set()


async def test_a_long_answer_keeps_no_text_where_it_cannot_be_continued(world: World) -> None:
    spark = world.backend("spark")
    app = await world.start()
    call = await ask(world, spark)
    await say(call, prose(8_000), field="reasoning")
    (exchange,) = app.front.open
    assert exchange.emitted is not None
    assert exchange.emitted.watched
    assert not exchange.emitted.folded.reasoning
    assert exchange.emitted.unfolded < 256
    call.end()
    await signs(world)


async def test_of_a_flood_of_answers_a_sample_is_looked_at_and_of_a_quiet_day_each(world: World) -> None:
    spark = world.backend("spark")
    app = await world.start()
    spark.script = lambda call: call.stream("!" * 200)
    for _ in range(200):
        await world.chat().whole()
    assert await counted(world, "flood") < 60
    assert app.sentinel.purse.left_us < 0
    await asyncio.sleep(60)
    before = await counted(world, "flood")
    for _ in range(20):
        await world.chat().whole()
        await asyncio.sleep(5)
    assert await counted(world, "flood") == before + 20


async def test_a_build_that_is_cut_short_more_often_than_the_one_before_it_is_suspect(world: World) -> None:
    spark = world.backend("spark")
    app = await world.start()
    for number in range(200):
        if number == 100:
            app.bus.emit(BuildChanged("spark", "a", "b", restarted_only=False))
        answer = world.chat()
        call = await spark.call()
        call.start()
        call.role()
        call.say("so it")
        call.end(finish="length" if number >= 100 else "stop")
        await answer.whole()
        await asyncio.sleep(5)
    cause = app.quality.subject("spark", MODEL).quality.cause
    assert cause is not None
    assert cause.kind is Kind.SENTINEL


async def counted(world: World, sign: str) -> int:
    await asyncio.sleep(0.1)
    for line in world.app.metrics.render().decode().splitlines():
        if line.startswith("router_sentinel_suspicions_total{") and f'sign="{sign}"' in line:
            return int(float(line.rpartition(" ")[2]))
    return 0


DEALS = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0, 2 * DEPOSIT_US)), max_size=200)


@given(DEALS)
def test_no_more_is_spent_than_traffic_and_time_have_earned(deals: list[tuple[float, float, float]]) -> None:
    purse, now, earned, spent, dearest = Purse(0.0), 0.0, MOST_SAVED_US, 0.0, 0.0
    for passed_s, earned_us, cost_us in deals:
        now += passed_s
        purse.earn(earned_us)
        earned += earned_us + passed_s * EARNED_US_PER_S
        if purse.opens(now):
            purse.spend(cost_us)
            spent, dearest = spent + cost_us, max(dearest, cost_us)
    assert spent <= earned + dearest
