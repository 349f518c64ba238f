"""How a backend comes back into traffic, and how one, a whole generation or the router itself goes out of it."""

import asyncio

from router.events import CallEnded, Outcome
from router.policy.facts import Health, Intent
from tests.exchange.conftest import World
from tests.fakes import Answer, FakeCall

FIRST = {"policy": "least-in-flight"}  # with a draw of 0: the first of the fleet file while nothing is in flight


async def until_health(world: World, name: str, health: Health) -> None:
    changed = asyncio.Event()
    stop = world.app.bus.subscribe(lambda _: changed.set())
    async with asyncio.timeout(600):
        while world.app.fleet.backends[name].health.health is not health:
            await changed.wait()
            changed.clear()
    stop()


async def speaking(world: World, answer: Answer) -> FakeCall:
    """The call behind an answer whose first word has come from `one`."""
    call = await world.backends["one"].call()
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    return call


async def test_probation_lets_no_more_trial_calls_in_than_its_bound(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    await world.start(world.config(routing=FIRST, health={"trial_calls": 2}), draw=lambda: 0.0)
    world.app.fleet.eject("one", "a test")
    await until_health(world, "one", Health.PROBATION)
    answers = [world.chat(stream=False) for _ in range(12)]
    await asyncio.sleep(1)
    assert (len(one.calls), len(two.calls)) == (2, 10), "the rest does not wait for them either"
    for call in (*one.calls, *two.calls):
        call.chat()
    for answer in answers:
        assert (await answer.whole()).status == 200
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY
    world.assert_idle()


async def test_a_failed_trial_call_costs_no_client_anything_and_ejects_for_longer(world: World) -> None:
    one, two = world.backend("one"), world.backend("two")
    one.script = lambda call: call.answer(500, {"error": {"message": "still broken"}})
    two.script = lambda call: call.chat()
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    world.app.fleet.eject("one", "a test")
    health = world.app.fleet.backends["one"].health
    first = health.until - health.since
    await until_health(world, "one", Health.PROBATION)
    assert (await world.chat(stream=False).whole()).status == 200
    health = world.app.fleet.backends["one"].health
    assert health.health is Health.EJECTED
    assert health.until - health.since > first


async def test_a_backend_that_returns_gets_little_at_first_and_its_share_after_the_ramp(world: World) -> None:
    """Streams that stay open: what the router chose is what it thinks of them."""
    one, two = world.backend("one"), world.backend("two")
    await world.start(world.config(health={"ramp_s": 30}))
    world.app.fleet.eject("one", "a test")
    await until_health(world, "one", Health.PROBATION)

    async def share() -> float:
        """Of 12 calls at once, which part `one` was given."""
        before = len(one.calls), len(two.calls)
        answers = [world.chat(stream=False) for _ in range(12)]
        await asyncio.sleep(0.5)
        mine, theirs = one.calls[before[0] :], two.calls[before[1] :]
        for call in (*mine, *theirs):
            call.chat()
        for answer in answers:
            await answer.whole()
        return len(mine) / (len(mine) + len(theirs))

    world.app.fleet.readmit("one", "a test")
    world.app.fleet.set_gate("one", "nemotron", "waits")
    world.app.fleet.set_gate("one", "nemotron", "", "checked")  # comes back into traffic now: the ramp begins
    early = await share()
    await asyncio.sleep(60)
    late = await share()
    assert early < late
    assert 0.4 <= late <= 0.6


async def test_a_removed_backend_finishes_to_its_deadline_and_is_then_continued_elsewhere(world: World) -> None:
    world.backend("one")
    two = world.backend("two")
    config = world.config(routing=FIRST, timeouts={"drain_s": 20})
    await world.start(config, draw=lambda: 0.0)
    world.app.fleet.set_intent("two", Intent.DISABLED)
    answers = [world.chat(), world.chat()]
    calls = [await speaking(world, answer) for answer in answers]
    world.app.fleet.set_intent("two", Intent.ACTIVE)
    two.script = lambda call: call.stream(" two")
    world.app.apply(config.model_copy(update={"backends": (two.config,)}))
    await asyncio.sleep(10)
    calls[0].say(" more")
    calls[0].end()
    assert (await answers[0].whole()).text == "one more", "it had until the deadline"
    await answers[1].whole()
    assert (answers[1].complete, answers[1].text) == (True, "one two")
    await calls[1].left.wait()
    world.assert_idle()


async def test_the_router_that_stops_finishes_to_the_deadline_and_ends_the_rest_visibly(world: World) -> None:
    world.backend("one")
    await world.start(world.config(routing=FIRST), draw=lambda: 0.0)
    answers = [world.chat(), world.chat()]
    calls = [await speaking(world, answer) for answer in answers]
    app = world.app
    stopping = asyncio.create_task(app.stop(20.0))
    await asyncio.sleep(10)
    calls[0].say(" more")
    calls[0].end()
    assert (await answers[0].whole()).text == "one more"
    await answers[1].whole()
    assert answers[1].broken
    assert answers[1].events[-1]["error"]["code"] == "shutting_down"
    assert "[DONE]" not in answers[1].events
    await calls[1].left.wait()
    await stopping
    assert [one.outcome for one in world.of(CallEnded)] == [Outcome.OK, Outcome.BROKEN]
