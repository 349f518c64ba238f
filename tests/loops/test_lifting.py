"""A build that was mended loses its flag, also where the first look at it settles nothing."""

import asyncio
from collections.abc import Iterator

import pytest

from router.policy.facts import Grade
from router.policy.quality import Family
from router.quality.plan import Size
from router.quality.subject import AGAIN_S, Why
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld, Talker, table

DAMAGED = table(1.0, 5)
CLEAN = table(0.0, 1)


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[CanaryWorld]:
    world = CanaryWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


async def flagged_beside(world: CanaryWorld, reference: Talker) -> Talker:
    """A reference that nobody proved, and a damaged second server that was flagged by it."""
    reference.forgets = True  # a small model: its answers do not prove it
    world.spark("reference", reference)
    await world.open()
    await world.checked("reference")
    mended = world.spark("mended", Talker())
    mended.forgets = True
    mended.prefill = mended.decode = DAMAGED
    world.app.apply(world.config())
    await world.checked("mended")
    assert world.grade("mended") is Grade.FLAGGED
    assert world.grade("reference") is Grade.UNKNOWN
    return mended


def mend(world: CanaryWorld, talker: Talker) -> None:
    talker.prefill = talker.decode = CLEAN
    world.restart("mended")


@pytest.mark.parametrize("noise", [0.0, 0.01], ids=["bit for bit the same", "a hair less likely than the mended one"])
async def test_an_unproven_reference_lifts_the_flag_whichever_way_rounding_falls(
    world: CanaryWorld, noise: float
) -> None:
    mended = await flagged_beside(world, Talker(noise, seed=1))
    mend(world, mended)
    await world.checked("mended", 2)
    assert world.grade("mended") is not Grade.FLAGGED, world.reason("mended")
    assert world.grade("reference") is not Grade.FLAGGED


async def test_a_server_too_slow_for_one_check_loses_its_flag_by_the_texts_of_several(world: CanaryWorld) -> None:
    mended = await flagged_beside(world, Talker(0.01, seed=1))
    mended.token_s = 25.0  # two texts in the minute of a quick check
    mend(world, mended)
    await world.checked("mended", 2, within_s=1200)
    assert world.grade("mended") is Grade.FLAGGED, "too few texts to settle it"
    await world.until(lambda: world.grade("mended") is not Grade.FLAGGED, within_s=3600)
    assert len(world.ended("mended")) <= 5


async def test_a_check_without_a_reference_is_made_again_soon_and_ever_more_seldom(world: CanaryWorld) -> None:
    mended = await flagged_beside(world, Talker(0.01, seed=1))
    for kept in world.app.quality.shelf:
        await world.app.quality.shelf.distrust(kept)
    world.backends["reference"].down()
    mend(world, mended)
    await world.checked("mended", 5, within_s=86_400)
    ended = [one.at for one in world.app.quality.subject("mended", MODEL).quality.evidence]
    assert ended
    assert world.grade("mended") is Grade.FLAGGED
    subject = world.app.quality.subject("mended", MODEL)
    assert subject.open_checks == 4
    assert subject.checked_at is not None
    assert subject.due(subject.checked_at + 8 * AGAIN_S - 1, 0.0, 900.0) is None
    due = subject.due(subject.checked_at + 8 * AGAIN_S + 1, 0.0, 900.0)
    assert due is not None
    assert due.why is Why.DOUBT


async def test_where_time_is_short_the_doubted_family_is_asked_first(world: CanaryWorld) -> None:
    mended = await flagged_beside(world, Talker(0.01, seed=1))
    mended.token_s = 25.0
    subject = world.app.quality.subject("mended", MODEL)
    assert subject.quality.doubt is not None
    plan = world.app.quality.inspector.plan(
        subject, world.app.quality.ask("mended", MODEL, Size.QUICK, dry_run=True).size
    )
    assert sum(item.family is Family.PREFILL for item in plan.items) >= 6


async def test_a_suspect_that_was_checked_before_its_reference_is_flagged_by_its_record(world: CanaryWorld) -> None:
    wrong = world.spark("wrong", Talker(noise=0.5, seed=3))
    wrong.right = False  # not one answer is right: odd, and no proof
    await world.open()
    await world.checked("wrong")
    assert world.grade("wrong") is Grade.SUSPECT
    asked = len(wrong.asked)
    world.spark("reference", Talker(0.01, seed=1)).forgets = True
    world.app.apply(world.config())
    await world.checked("reference")
    await world.until(lambda: world.grade("wrong") is Grade.FLAGGED, within_s=30)
    assert len(wrong.asked) == asked, "it is asked nothing again"
