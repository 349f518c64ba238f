"""What did not fit a backend's speed, end to end: the log line, the metric, status."""

import asyncio
import re

from router.admin.views import status
from router.cli.status import outliers
from router.events import Notice
from router.policy.speed import SpeedModel
from tests.exchange.conftest import World, world
from tests.fakes import MODEL

__all__ = ["world"]


async def speed_of(world: World) -> SpeedModel:
    world.backend("one")
    app = await world.start()
    return app.fleet.backends["one"].serving[MODEL].speed


async def decode(world: World, speed: SpeedModel, answers: int, slower: float = 1.0) -> None:
    """Answers of 200 tokens at 15 ms each, one a second."""
    for _ in range(answers):
        await asyncio.sleep(1.0)
        speed.observe_decode(world.loop.time(), 200, 200 * 0.015 * slower, 1.0, 0.0)


def steps(world: World) -> list[str]:
    return [one.message for one in world.of(Notice) if "clock step" in one.message]


async def test_a_step_is_told_once_with_its_size_and_since_when_and_counted(world: World) -> None:
    speed = await speed_of(world)
    await decode(world, speed, 60)
    await decode(world, speed, 60, slower=1.28)
    (line,) = steps(world)
    assert re.fullmatch(rf"{MODEL}: decodes 2[123]% slower since \d\d:\d\d \(thermal or clock step\?\)", line)
    assert {one.subject for one in world.of(Notice) if one.message == line} == {"one"}
    shown = status(world.app)["backends"][0]["models"][0]["outliers"]
    samples = shown["counts"]["step"]
    assert f'router_speed_outliers_total{{backend="one",kind="step"}} {samples}' in world.app.metrics.render().decode()
    assert shown["last"][-1]["kind"] == "step"
    assert 50 < shown["last"][-1]["ago_s"] < 65
    assert re.search(r"step \(last: step, decode 1.3 times as slow, (1 min|\d\d s) ago\)", outliers(shown))


async def test_a_clock_that_flaps_is_counted_each_time_and_told_every_ten_minutes(world: World) -> None:
    speed = await speed_of(world)
    await decode(world, speed, 60)
    for number in range(6):
        await decode(world, speed, 50, slower=1.0 if number % 2 else 1.6)
    assert len(steps(world)) == 1
    await decode(world, speed, 400)
    await decode(world, speed, 20, slower=1.6)
    assert len(steps(world)) == 2
    assert speed.outliers.counts.keys() == {"step"}


async def test_what_a_restarted_backend_compiles_anew_is_named_so(world: World) -> None:
    speed = await speed_of(world)
    await decode(world, speed, 60)
    speed.restarted()
    await decode(world, speed, 1, slower=12.0)
    await decode(world, speed, 2)
    assert speed.outliers.counts == {"compile": 1}
    assert steps(world) == []
    assert b'router_speed_outliers_total{backend="one",kind="compile"} 1' in world.app.metrics.render()
