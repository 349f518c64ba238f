"""Reloading while calls go on: nothing fails, nothing leaks, a bad file changes nothing."""

import asyncio
from pathlib import Path

from router.config import FleetConfig
from router.events import CallEnded, Outcome, Reloaded
from router.fleetfile import parse
from tests.exchange.conftest import World
from tests.fakes import FakeCall


class File:
    """A fleet file in memory."""

    def __init__(self, config: FleetConfig) -> None:
        self.config = config
        self.text: str | None = None

    def read(self) -> FleetConfig:
        return self.config if self.text is None else parse(self.text, "fleet.yaml", {})


async def reloadable(world: World, config: FleetConfig | None = None) -> File:
    file = File(config or world.config())
    await world.start(file.config)
    world.app.reloads_from(Path("fleet.yaml"), file.read, watch=False)
    return file


def slowly(call: FakeCall) -> None:
    """A stream of 20 tokens, one every 100 ms."""

    async def speak() -> None:
        call.start()
        call.role()
        for number in range(20):
            await asyncio.sleep(0.1)
            call.say(f"{number} ")
        call.end()

    TASKS.add(task := asyncio.get_running_loop().create_task(speak()))
    task.add_done_callback(TASKS.discard)


TASKS: set[asyncio.Task[None]] = set()


async def test_200_streams_survive_100_reloads(world: World) -> None:
    for name in ("one", "two", "three"):
        world.backend(name).script = slowly
    all_three = world.config()
    without = {
        name: all_three.model_copy(update={"backends": tuple(b for b in all_three.backends if b.name != name)})
        for name in world.backends
    }
    file = await reloadable(world, all_three)
    answers = [world.chat() for _ in range(200)]
    names = list(without)
    for number in range(100):
        file.config = without[names[number % 3]] if number % 2 == 0 else all_three
        result = await world.app.reloader.reload()  # type: ignore[union-attr]
        assert result.applied, result.reason
        await asyncio.sleep(0.02)
    for answer in answers:
        await answer.whole()
    await asyncio.sleep(1)
    expected = "".join(f"{number} " for number in range(20))
    assert all(answer.complete and answer.text == expected for answer in answers)
    assert {event.outcome for event in world.of(CallEnded)} == {Outcome.OK}
    assert world.app.fleet.leaving == set()
    world.assert_idle()
    page = world.app.metrics.render().decode()
    file.config = without["three"]
    await world.app.reloader.reload()  # type: ignore[union-attr]
    assert 'backend="three"' in page
    assert 'backend="three"' not in world.app.metrics.render().decode()


async def test_a_bad_file_changes_nothing_and_says_why(world: World) -> None:
    world.backend("one")
    file = await reloadable(world)
    file.text = "backends:\n  - name: one\n    urll: http://one:8000\n"
    result = await world.app.reloader.reload()  # type: ignore[union-attr]
    assert not result.applied
    assert "url" in result.reason
    assert world.app.fleet.generation == 1
    assert not world.of(Reloaded)[-1].ok


async def test_a_dry_run_shows_the_difference_and_applies_nothing(world: World) -> None:
    world.backend("one")
    two = world.backend("two")
    file = await reloadable(world, world.config().model_copy(update={"backends": (world.backends["one"].config,)}))
    file.config = world.config()
    result = await world.app.reloader.reload(dry_run=True)  # type: ignore[union-attr]
    assert not result.applied
    assert str(result.diff) == "+ backend two"
    assert result.answers == {"two": True}
    assert "two" not in world.app.fleet.backends
    assert two.calls == []


async def test_a_reload_that_leaves_a_model_without_anybody_is_refused_unless_forced(world: World) -> None:
    world.backend("one")
    other = world.backend("two", models=("another",))
    file = await reloadable(world)
    file.config = world.config().model_copy(update={"backends": (other.config,)})
    refused = await world.app.reloader.reload()  # type: ignore[union-attr]
    assert not refused.applied
    assert refused.lost == ("nemotron",)
    forced = await world.app.reloader.reload(force=True)  # type: ignore[union-attr]
    assert forced.applied


async def test_a_swap_on_one_host_lets_calls_wait_for_the_new_backend(world: World) -> None:
    old = world.backend("one")
    old.script = lambda call: call.chat("old")
    new = world.backend("two")
    new.down()
    new.script = lambda call: call.chat("new")
    before = world.config().model_copy(update={"backends": (old.config,)})
    file = await reloadable(world, before)
    assert (await world.chat(stream=False).whole()).status == 200
    file.config = before.model_copy(update={"backends": (new.config.model_copy(update={"host": old.config.host}),)})
    result = await world.app.reloader.reload()  # type: ignore[union-attr]
    assert result.applied
    assert result.swap
    waiting = world.chat(stream=False)
    await asyncio.sleep(8)
    new.up()
    await waiting.whole()
    assert waiting.status == 200
    assert waiting.json["choices"][0]["message"]["content"] == "new"


async def test_an_unchanged_backend_keeps_what_was_learned(world: World) -> None:
    world.backend("one").script = lambda call: call.stream("a", "b", "c")
    file = await reloadable(world)
    for _ in range(3):
        await world.chat().whole()
    speed = world.app.fleet.backends["one"].serving["nemotron"].speed
    file.config = file.config.model_copy(update={"aliases": {"chat": ("nemotron",)}})
    assert (await world.app.reloader.reload()).applied  # type: ignore[union-attr]
    assert world.app.fleet.backends["one"].serving["nemotron"].speed is speed
    assert (await world.chat(model="chat").whole()).complete
