"""The fleet bars for quality exactly whom the model in `bars.py` says, whatever stands in a pool."""

import asyncio
from collections.abc import Iterator
from itertools import product

import pytest

from router.config import Flags, ModelConfig
from router.policy.facts import CallFacts, Grade
from router.policy.quality import Evidence, Kind, Quality, fresh, judge
from tests.exchange.conftest import World
from tests.fakes import MODEL
from tests.loops.bars import Bar, BarPolicy, standings

BARS = {None: Bar.EXCLUDE, "exclude": Bar.EXCLUDE, "last": Bar.RANK_LAST, "observe": Bar.OBSERVE}
KINDS = {Grade.FLAGGED: Kind.DAMAGE, Grade.SUSPECT: Kind.ODD, Grade.GOOD: Kind.PROOF}


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[World]:
    world = World(runner.get_loop())
    yield world
    runner.run(world.stop())


def standing_at(grade: Grade) -> Quality:
    return judge(fresh("build", 0.0), Evidence(KINDS[grade], 1.0, grade.value))


@pytest.mark.parametrize("flags", [None, "exclude", "last", "observe"])
async def test_whoever_stands_in_a_pool_is_barred_as_the_policy_says(world: World, flags: Flags | None) -> None:
    for name in ("a", "b", "c"):
        world.backend(name)
    app = await world.start(world.config(models={MODEL: ModelConfig(flags=flags)}))
    for grades in product(KINDS, repeat=3):
        pool = {name: standing_at(grade) for name, grade in zip("abc", grades, strict=True)}
        for name, quality in pool.items():
            app.fleet.set_grade(name, MODEL, quality.grade, quality.reason)
        expected = standings(pool, set(pool), BarPolicy(flagged=BARS[flags]))
        for one in app.fleet.candidates(CallFacts(MODEL)):
            told = expected[one.name]
            assert (one.barred is None) == (told.barred is None), (grades, one)
            if told.barred is None:
                assert one.last_resort == (told.last_resort is not None), (grades, one)


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
