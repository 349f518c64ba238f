"""What a build answered while it was alone is scored when a reference is there, without asking the build again."""

import asyncio
from collections.abc import Iterator

import pytest

from router.policy.facts import Grade
from router.policy.quality import Family
from router.quality.plan import Size
from router.quality.record import Baseline
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld, Talker


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[CanaryWorld]:
    world = CanaryWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


async def a_proven_baseline(world: CanaryWorld) -> Baseline:
    """What a right build left, which nobody runs any more."""
    world.spark("reference", Talker(noise=0.005, seed=1))
    app = await world.open()
    app.quality.ask("reference", MODEL, Size.FULL, keep=True)
    await world.checked("reference")
    (found,) = app.quality.shelf
    await world.stop()
    world.events.clear()
    for known in (world.backends, world.talkers, world.settings):
        del known["reference"]
    return found


@pytest.mark.parametrize(("noise", "grades"), [(0.005, {Grade.GOOD, Grade.PLAUSIBLE}), (0.5, {Grade.FLAGGED})])
async def test_what_was_answered_alone_is_held_against_a_reference_that_comes_later(
    world: CanaryWorld, noise: float, grades: set[Grade]
) -> None:
    reference = await a_proven_baseline(world)
    alone = world.spark("alone", Talker(noise=noise, seed=2))
    app = await world.open()
    await world.checked("alone")
    assert world.grade("alone") is not Grade.FLAGGED, "nothing to hold against it yet"
    asked = len(alone.asked)
    await app.quality.shelf.keep(reference)
    ended = await world.checked("alone", 2, within_s=30)
    assert ended.size == "kept"
    assert ended.texts > 0
    assert len(alone.asked) == asked, "it is asked nothing again"
    assert {Family.PREFILL, Family.DECODE} <= app.quality.subject("alone", MODEL).quality.tests.keys()
    assert world.grade("alone") in grades


async def test_it_is_held_against_one_reference_once(world: CanaryWorld) -> None:
    reference = await a_proven_baseline(world)
    world.spark("alone")
    app = await world.open()
    await world.checked("alone")
    await app.quality.shelf.keep(reference)
    await world.checked("alone", 2, within_s=30)
    await asyncio.sleep(120)
    assert len(world.ended("alone")) == 2
