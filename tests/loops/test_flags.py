"""Whom quality keeps from calls: what flags and suspicion do is the operator's choice, and somebody always serves."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.config import BackendConfig, Flags, FleetConfig, ModelConfig
from router.events import Bus
from router.fleet import Fleet
from router.policy.choose import choose
from router.policy.facts import CallFacts, Choice, Grade, Health, Intent, RoutingLimits
from router.policy.health import HealthState
from router.vllm.models import ModelCard
from tests.exchange.conftest import World
from tests.fakes import MODEL


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[World]:
    world = World(runner.get_loop())
    yield world
    runner.run(world.stop())


@dataclass(frozen=True)
class Standing:
    """One backend of a pool, as far as it matters here."""

    grade: Grade
    health: Health = Health.HEALTHY
    intent: Intent = Intent.ACTIVE

    def can_serve(self) -> bool:
        return self.health in (Health.HEALTHY, Health.SUSPECT) and self.intent is Intent.ACTIVE


def fleet_with(pool: list[Standing], asked: ModelConfig, passive: bool = False) -> Fleet:
    fleet = Fleet(lambda: 0.0, Bus(), lambda config, whole: None)  # type: ignore[arg-type,return-value]
    backends = tuple(
        BackendConfig(name=f"b{number}", url=f"http://127.0.0.1:{9000 + number}") for number in range(len(pool))
    )
    fleet.apply(FleetConfig(backends=backends, models={MODEL: asked}, passive=passive))
    for backend, one in zip(fleet.backends.values(), pool, strict=True):
        backend.cards = (ModelCard(MODEL),)
        backend.health = HealthState(one.health, 0.0, "as drawn", seen=True)
        backend.intent = one.intent
    fleet.models_changed()
    for name, one in zip(fleet.backends, pool, strict=True):
        fleet.set_grade(name, MODEL, one.grade, "as drawn")
    return fleet


standings = st.builds(
    Standing,
    st.sampled_from(Grade),
    st.sampled_from([Health.HEALTHY, Health.HEALTHY, Health.SUSPECT, Health.OFF]),
    st.sampled_from([Intent.ACTIVE, Intent.ACTIVE, Intent.DRAINING, Intent.DISABLED]),
)
pools = st.lists(standings, min_size=1, max_size=5)
flags = st.sampled_from([None, "exclude", "last", "observe"])
suspects = st.sampled_from(["exclude", "last", "observe"])


@settings(deadline=None)
@given(pools, flags, suspects, st.booleans(), st.sampled_from(["predictive", "round-robin"]), st.floats(0, 0.999))
@example([Standing(Grade.FLAGGED), Standing(Grade.SUSPECT)], None, "exclude", False, "predictive", 0.0)
def test_somebody_serves_while_anybody_can_and_never_one_who_is_barred(
    pool: list[Standing], flags: Flags | None, suspects: Flags, passive: bool, policy: str, draw: float
) -> None:
    fleet = fleet_with(pool, ModelConfig(flags=flags, suspects=suspects), passive)
    candidates = fleet.candidates(CallFacts(MODEL))
    choice = choose(CallFacts(MODEL), candidates, RoutingLimits(policy, 0.02), draw)
    assert isinstance(choice, Choice) == any(one.can_serve() for one in pool)
    if isinstance(choice, Choice):
        chosen = pool[int(choice.name.removeprefix("b"))]
        assert chosen.can_serve()
        assert next(one for one in candidates if one.name == choice.name).barred is None
        better = any(one.can_serve() and one.grade is not Grade.FLAGGED for one in pool)
        assert not (chosen.grade is Grade.FLAGGED and better) or flags in ("last", "observe") or passive


@settings(deadline=None)
@given(pools, flags, suspects, st.booleans())
def test_a_grade_does_what_the_operator_chose_for_it(
    pool: list[Standing], flags: Flags | None, suspects: Flags, passive: bool
) -> None:
    assert_as_chosen(pool, flags, suspects, passive)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_it_does_so_in_every_small_pool_that_serves(others: int) -> None:
    grades = [Standing(one) for one in (Grade.FLAGGED, Grade.SUSPECT, Grade.GOOD)]
    for pool in product(grades, repeat=others + 1):
        for flags, suspects in product((None, *get_args(Flags)), get_args(Flags)):
            assert_as_chosen(list(pool), flags, suspects, passive=False)


def assert_as_chosen(pool: list[Standing], flags: Flags | None, suspects: Flags, passive: bool) -> None:
    found = fleet_with(pool, ModelConfig(flags=flags, suspects=suspects), passive).candidates(CallFacts(MODEL))
    for number, (mine, one) in enumerate(zip(pool, found, strict=True)):
        if not mine.can_serve():
            assert one.barred is not None
            continue
        others = {other.grade for at, other in enumerate(pool) if at != number and other.can_serve()}
        match mine.grade:
            case Grade.FLAGGED:
                does, beside = flags or "exclude", others - {Grade.FLAGGED}
            case Grade.SUSPECT:
                does, beside = suspects, others - {Grade.FLAGGED, Grade.SUSPECT}
            case _:
                does, beside = "observe", set()
        if passive:
            does = "observe"
        assert (one.barred is not None) == (does == "exclude" and bool(beside)), (pool, one)
        if one.barred is None:
            assert one.last_resort == (does != "observe" or mine.health is Health.SUSPECT), (pool, one)


@pytest.mark.parametrize(("suspects", "barred", "last"), [("observe", 0, 0), ("last", 0, 1), ("exclude", 1, 1)])
async def test_what_a_suspect_is_is_the_operators_choice(world: World, suspects: Flags, barred: int, last: int) -> None:
    for name in ("a", "b"):
        world.backend(name)
    app = await world.start(world.config(models={MODEL: ModelConfig(suspects=suspects)}))
    app.fleet.set_grade("a", MODEL, Grade.SUSPECT, "odd")
    a, b = app.fleet.candidates(CallFacts(MODEL))
    assert (a.barred is not None, a.last_resort) == (bool(barred), bool(last))
    assert (b.barred, b.last_resort) == (None, False)
    app.fleet.set_grade("b", MODEL, Grade.SUSPECT, "odd too")
    assert [one.barred for one in app.fleet.candidates(CallFacts(MODEL))] == [None, None], "somebody must serve"
