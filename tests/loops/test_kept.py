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


async def met_by_a_running_reference(world: CanaryWorld) -> tuple[Talker, Talker]:
    """One was checked alone. Then another comes, and a call keeps its first check from leaving a record of its own."""
    alone = world.spark("alone", Talker(seed=2))
    app = await world.open()
    await world.checked("alone")
    reference = world.spark("reference", Talker(seed=1))
    app.apply(world.config())
    await world.until(lambda: app.quality.subject("reference", MODEL).talents.is_warm)
    answer = world.chat(stream=False, headers={"x-router-backend": "reference"})
    call = await world.backends["reference"].call()
    await asyncio.sleep(1.0)
    call.chat()
    await answer.whole()
    return alone, reference


async def test_a_running_reference_scores_what_was_answered_alone(world: CanaryWorld) -> None:
    alone, reference = await met_by_a_running_reference(world)
    asked, scored, booked = len(alone.asked), len(reference.asked), world.booked_s("reference")
    left_s = world.app.quality.ledger.budget("reference").left_s
    ended = await world.checked("alone", 2, within_s=30)
    assert (ended.size, ended.duration_s > 0) == ("kept", True)
    assert ended.texts >= 10
    assert len(alone.asked) == asked, "it is asked nothing again"
    assert not world.ended("reference"), "the reference has no record yet: it was asked"
    questions = [body for _, body in reference.asked[scored:]]
    assert len(questions) > ended.texts, "texts, and greedy answers by the prefill of another server"
    assert all("prompt_logprobs" in body and body["max_tokens"] == 1 for body in questions)
    assert Family.PREFILL in world.app.quality.subject("alone", MODEL).quality.tests
    assert world.grade("alone") in {Grade.GOOD, Grade.PLAUSIBLE}
    spent = world.booked_s("reference") - booked
    assert spent >= 0.05 * len(questions), "the reference pays for its answers"
    assert world.app.quality.ledger.budget("reference").left_s < left_s - 0.9 * spent


async def test_a_call_to_the_reference_goes_first_and_the_comparison_follows(world: CanaryWorld) -> None:
    alone, reference = await met_by_a_running_reference(world)
    scored, asked = len(reference.asked), len(alone.asked)
    reference.token_s = 5.0
    await world.until(lambda: len(reference.asked) > scored, 30)
    answer = world.chat(stream=False, headers={"x-router-backend": "reference"})
    call = await world.backends["reference"].call()
    await asyncio.sleep(0.5)
    assert reference.open == 0
    reference.token_s = 0.01
    call.chat()
    await answer.whole()
    assert (await world.checked("alone", 2)).texts > 0
    assert len(alone.asked) == asked


async def test_a_reference_that_dies_while_it_scores_is_asked_to_score_no_more(world: CanaryWorld) -> None:
    _, reference = await met_by_a_running_reference(world)
    reference.dies_of = "prompt_logprobs"
    await world.until(lambda: world.app.quality.guardian.blocked("reference"))
    scored = len(reference.asked)
    reference.dies_of = ""
    world.backends["reference"].up()
    await world.checked("reference")
    assert not any("prompt_logprobs" in body for _, body in reference.asked[scored:])
    assert world.grade("alone") is not Grade.FLAGGED


async def test_it_is_held_against_one_reference_once(world: CanaryWorld) -> None:
    reference = await a_proven_baseline(world)
    world.spark("alone")
    app = await world.open()
    await world.checked("alone")
    await app.quality.shelf.keep(reference)
    await world.checked("alone", 2, within_s=30)
    await asyncio.sleep(120)
    assert len(world.ended("alone")) == 2
