"""A new build is checked before it gets calls, unless nobody else serves its model; a missing check costs nobody."""

import asyncio
from collections.abc import Iterator

import pytest

from router.config import QualityConfig
from router.events import GateChanged
from router.policy.facts import CallFacts, Candidate, Grade
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld, Talker


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[CanaryWorld]:
    world = CanaryWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


def candidate(world: CanaryWorld, name: str, pinned: str | None = None) -> Candidate:
    found = world.app.fleet.candidates(CallFacts(MODEL, pinned=pinned))
    return next(one for one in found if one.name == name)


def gates(world: CanaryWorld, name: str) -> list[tuple[bool, str]]:
    return [(one.closed, one.reason) for one in world.of(GateChanged) if one.backend == name]


async def started_with_one(world: CanaryWorld, **settings: object) -> None:
    world.spark("old")
    await world.open(**settings)
    await world.checked("old")


async def added(world: CanaryWorld, talker: Talker | None = None, **settings: object) -> None:
    world.spark("new", talker)
    world.app.apply(world.config(**settings))
    await world.until(lambda: MODEL in world.app.fleet.backends["new"].serving)


async def test_a_new_backend_gets_no_call_before_its_check_and_few_at_first_after_it(world: CanaryWorld) -> None:
    await started_with_one(world)
    await added(world)
    barred = candidate(world, "new").barred
    assert barred is not None
    assert "waits for its first quick check" in barred
    while not world.ended("new"):
        assert candidate(world, "new").barred is not None
        await asyncio.sleep(0.5)
    one = candidate(world, "new")
    assert one.barred is None
    assert one.ramp < 0.2
    assert gates(world, "new") == [(True, barred), (False, f"checked: {world.ended('new')[-1].verdict}")]


async def test_a_new_backend_that_is_damaged_never_gets_a_call(world: CanaryWorld) -> None:
    await started_with_one(world)
    await added(world, Talker(noise=0.5, seed=3))
    while world.grade("new") is not Grade.FLAGGED:
        assert candidate(world, "new").barred is not None
        await asyncio.sleep(0.1)
    await world.checked("new")
    assert "flagged" in (candidate(world, "new").barred or "")


async def test_what_is_there_when_the_router_starts_serves_at_once(world: CanaryWorld) -> None:
    world.spark("one")
    world.spark("two")
    await world.open()
    assert [candidate(world, name).barred for name in ("one", "two")] == [None, None]
    assert not world.of(GateChanged)


async def test_the_only_backend_of_a_model_serves_at_once_and_is_checked_beside(world: CanaryWorld) -> None:
    await started_with_one(world)
    world.backends["old"].down()
    await added(world)
    await world.until(lambda: candidate(world, "old").barred is not None)
    assert candidate(world, "new").barred is None
    await world.checked("new")


async def test_a_call_that_names_the_new_backend_reaches_it(world: CanaryWorld) -> None:
    await started_with_one(world)
    await added(world)
    assert candidate(world, "new").barred is not None
    assert candidate(world, "new", pinned="new").barred is None


@pytest.mark.parametrize(
    "settings", [{"quality": QualityConfig(gate_s=0)}, {"passive": True}, {"quality": QualityConfig(canary=False)}]
)
async def test_where_nothing_is_checked_or_the_gate_is_off_nobody_waits(
    world: CanaryWorld, settings: dict[str, object]
) -> None:
    world.spark("old")
    await world.open(**settings)
    await added(world, **settings)
    assert candidate(world, "new").barred is None


async def test_a_check_that_does_not_come_about_opens_the_gate_in_time(world: CanaryWorld) -> None:
    await started_with_one(world, quality=QualityConfig(gate_s=60))
    talker = Talker()
    talker.first_s = 500.0
    await added(world, talker, quality=QualityConfig(gate_s=60))
    await asyncio.sleep(55)
    assert candidate(world, "new").barred is not None
    await asyncio.sleep(10)
    assert candidate(world, "new").barred is None
    assert gates(world, "new")[-1] == (False, "no check came about within 60 s")


async def test_another_build_waits_and_a_mere_restart_does_not(world: CanaryWorld) -> None:
    world.spark("old")
    other = world.spark("other")
    other.fingerprint = "one"
    await world.open()
    await world.checked("old")
    await world.checked("other")
    world.restart("other")
    assert candidate(world, "other").barred is None
    await world.checked("other", 2)
    backend = world.app.fleet.backends["other"]
    world.app.identity.fingerprint_seen(backend, "two")
    await world.until(lambda: candidate(world, "other").barred is not None, within_s=5)
    other.fingerprint = "two"
    await world.checked("other", 3)
    assert candidate(world, "other").barred is None
