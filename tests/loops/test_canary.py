"""Canaries in virtual time: what is flagged, what never is, and what a check costs those who have real calls."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.events import CallEnded, Notice, QualityChanged
from router.policy.facts import Grade, Intent
from router.policy.quality import Family, fresh
from router.quality.plan import DAY_S, Size
from router.quality.subject import Subject, Why
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld, Talker, table

HEALTHY = {Grade.PLAUSIBLE, Grade.GOOD}


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[CanaryWorld]:
    world = CanaryWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


# --- what is found ---


async def test_a_first_build_is_plausible_and_leaves_a_baseline(world: CanaryWorld) -> None:
    world.spark("spark")
    app = await world.open()
    ended = await world.checked("spark")
    assert world.grade("spark") is Grade.PLAUSIBLE
    assert ended.verdict == "plausible"
    assert ended.duration_s <= 60
    (kept,) = app.quality.shelf
    assert len(kept.texts) == 12
    assert kept.decoded
    assert kept.right


async def test_a_healthy_backend_is_never_flagged(world: CanaryWorld) -> None:
    world.spark("one", Talker(seed=1))
    world.spark("two", Talker(seed=2))
    await world.open()
    for times in range(1, 5):
        for name in ("one", "two"):
            await world.checked(name, times)
            world.restart(name)
    assert {world.grade("one"), world.grade("two")} <= HEALTHY
    assert not [event for event in world.of(QualityChanged) if event.new == "flagged"]


async def test_a_damaged_backend_is_flagged_and_gets_no_calls(world: CanaryWorld) -> None:
    world.spark("right")
    await world.open()
    await world.checked("right")
    world.spark("wrong", Talker(noise=0.5, seed=3))
    world.app.apply(world.config())
    await world.checked("wrong")
    assert world.grade("wrong") is Grade.FLAGGED
    assert world.grade("right") in HEALTHY
    assert not world.app.fleet.can_serve(world.app.fleet.backends["wrong"], MODEL)
    evidence = world.app.fleet.backends["wrong"].serving[MODEL].evidence
    assert any("damage" in line and "e=" in line for line in evidence)


async def test_of_two_that_differ_the_less_likely_one_is_flagged_whoever_came_first(world: CanaryWorld) -> None:
    world.spark("wrong", Talker(noise=0.5, seed=3))
    await world.open()
    await world.checked("wrong")
    world.spark("right")
    world.app.apply(world.config())
    await world.checked("right")
    assert world.grade("right") is not Grade.FLAGGED
    assert world.grade("wrong") is Grade.FLAGGED, "its own record speaks for what it still runs"


async def test_damage_in_decode_alone_is_found(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    assert "decode" in world.reason("spark") or "loaded" in world.reason("spark")


async def test_the_only_backend_of_a_model_serves_although_it_is_flagged(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    spark.prefill = spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    answer = world.chat(stream=False)
    (await world.backends["spark"].call()).chat()
    assert (await answer.whole()).status == 200


async def test_a_flag_is_lifted_by_evidence_in_two_steps(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    spark.prefill = spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    spark.prefill = spark.decode = table(0.005, 1)
    world.restart("spark")
    await world.checked("spark", 3)
    assert world.grade("spark") is not Grade.FLAGGED


async def test_a_nan_that_json_refuses_to_carry_flags_at_once(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.nan = True
    await world.open()
    await world.until(lambda: world.grade("spark") is Grade.FLAGGED)
    assert "nan" in world.reason("spark")


async def test_an_answer_of_one_character_flags(world: CanaryWorld) -> None:
    world.spark("spark").floods = True
    await world.open()
    await world.checked("spark")
    assert world.grade("spark") is Grade.FLAGGED


async def test_what_the_operator_flagged_no_check_lifts(world: CanaryWorld) -> None:
    world.spark("spark")
    await world.open()
    await world.checked("spark")
    world.app.fleet.set_grade("spark", MODEL, Grade.FLAGGED, "I do not trust it", by="operator")
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    assert world.reason("spark") == "I do not trust it"
    world.app.fleet.set_grade("spark", MODEL, Grade.UNKNOWN, "well again", by="operator")
    await world.checked("spark", 3)
    assert world.grade("spark") in HEALTHY


async def test_a_running_backend_stands_in_for_a_baseline(world: CanaryWorld) -> None:
    right = world.spark("right")
    app = await world.open()
    await world.checked("right")
    for kept in app.quality.shelf:
        await app.quality.shelf.distrust(kept)
    scored = len(right.asked)
    world.spark("wrong", Talker(noise=0.5, seed=3))
    app.apply(world.config())
    await world.checked("wrong")
    assert len(right.asked) > scored
    assert world.grade("wrong") is Grade.FLAGGED
    assert world.grade("right") in HEALTHY


async def test_of_two_unproven_ones_the_running_reference_may_be_the_wrong_one(world: CanaryWorld) -> None:
    world.spark("wrong", Talker(noise=0.5, seed=3))
    app = await world.open()
    await world.checked("wrong")
    for kept in app.quality.shelf:
        await app.quality.shelf.distrust(kept)
    world.spark("right")
    app.apply(world.config())
    await world.checked("right")
    assert world.grade("right") is not Grade.FLAGGED
    assert world.grade("wrong") is Grade.FLAGGED


async def test_another_fingerprint_is_another_build(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.fingerprint = "vllm-0.33.0-aaaa"
    app = await world.open()
    await world.checked("spark")
    build = app.fleet.backends["spark"].build
    assert [kept.build for kept in app.quality.shelf] == [build]
    spark.fingerprint = "vllm-0.33.0-bbbb"
    spark.prefill = spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    assert app.fleet.backends["spark"].build != build
    assert world.grade("spark") is Grade.FLAGGED


# --- what is no finding ---


async def test_a_baseline_of_another_tokenizer_is_ignored(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    spark.salt = 3
    world.restart("spark")
    ended = await world.checked("spark", 2)
    assert world.grade("spark") in HEALTHY
    assert ended.score is None


async def test_another_scheme_is_reported_and_never_flagged(world: CanaryWorld) -> None:
    world.spark("exact")
    await world.open()
    await world.checked("exact")
    world.spark("rounded", Talker(noise=0.5, seed=3), scheme="w4a4")
    world.app.apply(world.config())
    await world.checked("rounded")
    assert world.grade("rounded") is not Grade.FLAGGED


async def test_a_smaller_max_logprobs_is_met_with_fewer(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.max_logprobs = 5
    await world.open()
    await world.checked("spark")
    assert world.grade("spark") is Grade.PLAUSIBLE
    assert {body["prompt_logprobs"] for _, body in spark.asked if "prompt_logprobs" in body} == {20, 10, 5}
    (kept,) = world.app.quality.shelf
    assert kept.texts


async def test_a_context_shorter_than_a_probe_cuts_the_probe(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.context = world.backends["spark"].cards["max_model_len"] = 40
    await world.open()
    await world.checked("spark")
    longest = max(len(body["prompt"]) for _, body in spark.asked if "prompt" in body)
    assert longest < 40
    assert world.grade("spark") is not Grade.FLAGGED


async def test_a_server_that_ignores_prompt_logprobs_does_what_it_can(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.ignores_prompt_logprobs = True
    await world.open()
    ended = await world.checked("spark")
    assert world.grade("spark") is Grade.PLAUSIBLE
    assert "ignored" in ended.detail
    assert sum("prompt_logprobs" in body for _, body in spark.asked) == 1


async def test_a_model_that_knows_nothing_is_odd_and_never_flagged_for_it(world: CanaryWorld) -> None:
    world.spark("spark").right = False
    await world.open()
    for times in range(1, 6):
        await world.checked("spark", times)
        world.restart("spark")
    assert world.grade("spark") is Grade.SUSPECT
    assert "not one of" in world.reason("spark")


async def test_a_backend_that_no_longer_knows_what_its_build_knew_is_flagged(world: CanaryWorld) -> None:
    spark = world.spark("spark", scheme=None)
    await world.open()
    await world.checked("spark")
    spark.right = False
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    assert "known answers missed" in world.reason("spark")


def alarms(world: CanaryWorld) -> list[str]:
    return [one.message for one in world.of(Notice) if one.alarm]


async def test_embeddings_are_compared_by_cosine(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.embedding = 32
    await world.open()
    await world.checked("spark")
    assert world.grade("spark") is Grade.UNKNOWN
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.PLAUSIBLE
    assert alarms(world) == []


@pytest.mark.parametrize("other_build", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [({"embedding": 48}, "another size"), ({"salt": 3}, "has changed: cosine")],
    ids=["size", "model"],
)
async def test_another_embedding_model_under_the_same_name_is_a_loud_event(
    world: CanaryWorld, change: dict[str, int], says: str, other_build: bool
) -> None:
    spark = world.spark("spark")
    spark.embedding = 32
    await world.open()
    await world.checked("spark")
    for name, value in change.items():  # another salt is another tokenizer too
        setattr(spark, name, value)
    if other_build:
        world.backends["spark"].cards["root"] = "/models/another"
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.SUSPECT
    assert says in world.reason("spark")
    (told,) = alarms(world)
    assert says in told
    assert "vectors that clients stored no longer fit" in told


async def test_a_reference_that_is_down_stops_nothing(world: CanaryWorld) -> None:
    world.spark("one")
    world.spark("two", Talker(seed=2))
    await world.open()
    await world.checked("one")
    world.backends["one"].down()
    await world.checked("two")
    assert world.grade("two") in HEALTHY


# --- what it costs ---


async def test_a_real_call_ends_a_probe_within_half_a_second_and_the_rest_follows(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.token_s = 0.5
    await world.open()
    await world.until(lambda: any(body.get("max_tokens", 0) > 1 for _, body in spark.asked))
    await asyncio.sleep(1.0)
    came = world.loop.time()
    answer = world.chat(stream=False)
    call = await world.backends["spark"].call()
    await asyncio.sleep(0.5)
    assert spark.aborted
    assert spark.aborted[-1] - came <= 0.5
    assert spark.open == 0
    asked = len(spark.asked)
    await asyncio.sleep(20)
    assert len(spark.asked) == asked, "nothing is asked while the call runs"
    call.chat()
    await answer.whole()
    spark.token_s = 0.01
    ended = await world.checked("spark")
    assert ended.texts == 0
    assert len(world.ended("spark")) == 1
    assert [one for one in world.of(Notice) if "check of" in one.message][1:] == []


async def test_one_backend_is_asked_at_a_time_and_one_scored_prompt(world: CanaryWorld) -> None:
    talkers = [world.spark("one"), world.spark("two", Talker(seed=2))]
    await world.open()
    busy = 0
    while not (world.ended("one") and world.ended("two")):
        await asyncio.sleep(0.01)
        busy = max(busy, sum(t.open > 0 for t in talkers))
    assert busy == 1
    assert max(t.most_open for t in talkers) == 3  # the texts generated side by side
    assert all(len(body["prompt"]) <= 512 for t in talkers for _, body in t.asked if "prompt" in body)
    assert all(body.get("prompt_logprobs", 0) <= 20 for t in talkers for _, body in t.asked)


@pytest.mark.parametrize("size", [Size.QUICK, Size.FULL])
async def test_no_logprobs_are_ever_asked_over_a_long_context_and_a_short_call_comes_first(
    world: CanaryWorld, size: Size
) -> None:
    spark = world.spark("spark")
    spark.context = world.backends["spark"].cards["max_model_len"] = 16_384
    app = await world.open()
    await world.checked("spark")
    if size is Size.FULL:
        app.quality.ask("spark", MODEL, size)
        await world.checked("spark", 2)
    asked = [body for _, body in spark.asked]
    with_logprobs = [body for body in asked if "prompt_logprobs" in body or body.get("logprobs")]
    assert len(with_logprobs[0]["prompt"]) <= 16, "a server compiles its logprobs on something small"
    assert all(len(body["prompt"]) + body["max_tokens"] <= 513 for body in with_logprobs)
    assert all(body.get("prompt_logprobs", body.get("logprobs")) <= 20 for body in with_logprobs)
    longest = max(len(str(body["messages"])) for body in asked if "messages" in body)
    assert (longest > 12_000) == (size is Size.FULL), "long contexts are tested by what is said after them"


async def test_each_check_says_its_cost_before_its_first_question(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    app = await world.open()
    told: list[tuple[str, int]] = []
    app.bus.subscribe(lambda event: told.append((event.message, len(spark.asked))), Notice)  # type: ignore[union-attr]
    await world.checked("spark")
    asked = len(spark.asked)
    app.quality.ask("spark", MODEL, Size.FULL)
    await world.checked("spark", 2)
    (quick, before_quick), (full, before_full) = [one for one in told if " check of " in one[0]]
    assert re.fullmatch(rf"quick check of {MODEL} begins, about \d+ s in \d+ steps: .*", quick)
    assert re.fullmatch(rf"full check of {MODEL} begins, about \d+ s in \d+ steps: the operator asked", full)
    assert (before_quick, before_full) == (1, asked), "nothing but the warm-up was asked before"


async def test_the_budget_is_kept_by_a_server_that_restarts_all_the_time(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.token_s = 0.1
    app = await world.open(quality={"budget_share": 0.001})
    for _ in range(50):
        await asyncio.sleep(120)
        world.restart("spark")
    assert 0 < world.booked_s("spark") <= 0.001 * (86_400 + 50 * 120)
    assert app.quality.subject("spark", MODEL).waits_for == "its budget of time"


async def test_a_backend_that_dies_of_a_probe_gets_no_more_of_that_kind(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.dies_of = "prompt_logprobs"
    await world.open()
    await world.until(lambda: world.app.quality.guardian.blocked("spark"))
    assert world.app.quality.guardian.blocked("spark") == {Family.PREFILL}
    assert [one for one in world.of(Notice) if one.alarm and "canary allow" in one.message]
    await asyncio.sleep(30)
    scored = sum("prompt_logprobs" in body for _, body in spark.asked)
    world.backends["spark"].up()
    await world.checked("spark")
    assert world.grade("spark") is not Grade.FLAGGED
    assert sum("prompt_logprobs" in body for _, body in spark.asked) == scored == 1


async def test_what_killed_a_backend_is_known_after_a_restart_of_the_router_until_it_is_allowed(
    world: CanaryWorld, tmp_path: Path
) -> None:
    spark = world.spark("spark")
    spark.dies_of = "prompt_logprobs"
    await world.open(tmp_path / "history.sqlite3")
    await world.until(lambda: world.app.quality.guardian.blocked("spark"))
    await world.stop()
    world.events.clear()
    spark.dies_of = ""
    world.backends["spark"].up()
    scored = len(spark.asked)
    app = await world.open(tmp_path / "history.sqlite3")
    await world.checked("spark")
    assert not any("prompt_logprobs" in body for _, body in spark.asked[scored:])
    app.quality.guardian.allow("spark")
    world.restart("spark")
    await world.checked("spark", 2)
    assert any("prompt_logprobs" in body for _, body in spark.asked[scored:])


async def test_never_are_two_backends_of_a_model_asked_at_once_not_even_by_a_reference(world: CanaryWorld) -> None:
    talkers = [world.spark(name, Talker(seed=seed)) for seed, name in enumerate(("one", "two", "three"), 1)]
    app = await world.open()
    busiest = 0
    until = world.loop.time() + 400  # checks, restarts, kept answers
    while world.loop.time() < until:
        busiest = max(busiest, sum(talker.open > 0 for talker in talkers))
        if world.loop.time() % 100 < 0.1:
            world.restart("two")
            for kept in app.quality.shelf:
                await app.quality.shelf.distrust(kept)  # so that who runs is asked
        await asyncio.sleep(0.1)
    assert busiest == 1
    assert all(world.ended(name) for name in ("one", "two", "three"))


async def test_a_slow_first_logprobs_call_is_waited_for(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.first_s = 17.0
    await world.open()
    await world.checked("spark")
    assert world.grade("spark") is Grade.PLAUSIBLE


async def test_a_new_build_is_looked_at_closely_once_after_fifteen_idle_minutes(world: CanaryWorld) -> None:
    world.spark("spark")
    await world.open()
    began = world.loop.time()
    await asyncio.sleep(890)
    assert [ended.size for ended in world.ended("spark")] == ["quick"]
    await asyncio.sleep(3600)
    assert [ended.size for ended in world.ended("spark")] == ["quick", "full"]
    assert world.loop.time() - began > 900


def test_an_unchanged_build_is_checked_once_a_day() -> None:
    subject = Subject("spark", MODEL, fresh("build", 0.0), checked_at=1_000.0, full_of="build")
    assert subject.due(1_000.0 + DAY_S - 1, 9e9, 900.0) is None
    due = subject.due(1_000.0 + DAY_S, 9e9, 900.0)
    assert due is not None
    assert (due.size, due.why) == (Size.QUICK, Why.DAILY)


@pytest.mark.parametrize("settings", [{"passive": True}, {"quality": {"canary": False}}])
async def test_one_switch_turns_it_off(world: CanaryWorld, settings: dict[str, object]) -> None:
    spark = world.spark("spark")
    await world.open(**settings)
    await asyncio.sleep(7200)
    assert spark.asked == []
    assert world.grade("spark") is Grade.UNKNOWN


async def test_a_sleeping_engine_is_never_asked(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    world.backends["spark"].metrics = SLEEPING
    await world.open()
    await asyncio.sleep(3600)
    assert spark.asked == []


async def test_an_engine_that_falls_asleep_during_its_check_is_left_to_sleep(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.token_s = 1.0
    await world.open()
    await world.until(lambda: any(body.get("max_tokens", 0) > 1 for _, body in spark.asked))
    world.backends["spark"].metrics = SLEEPING
    await asyncio.sleep(30)
    asked = len(spark.asked)
    await asyncio.sleep(7200)
    assert len(spark.asked) == asked
    assert not world.ended("spark")
    world.backends["spark"].metrics = AWAKE
    spark.token_s = 0.01
    await world.checked("spark")


async def test_a_sleeping_reference_is_not_woken_to_score(world: CanaryWorld) -> None:
    reference = world.spark("reference")
    await world.open()
    await world.checked("reference")
    for kept in world.app.quality.shelf:
        await world.app.quality.shelf.distrust(kept)
    world.backends["reference"].metrics = SLEEPING
    await asyncio.sleep(30)
    asked = len(reference.asked)
    world.spark("new", Talker(seed=2))
    world.app.apply(world.config())
    await world.checked("new")
    assert len(reference.asked) == asked


async def test_a_drained_backend_is_left_alone(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    world.app.fleet.set_intent("spark", Intent.DRAINING)
    world.restart("spark")
    asked = len(spark.asked)
    await asyncio.sleep(7200)
    assert len(spark.asked) == asked


@pytest.mark.parametrize("knows", [True, False])
async def test_priority_is_sent_only_where_scheduling_is_known(world: CanaryWorld, knows: bool) -> None:
    spark = world.spark("spark", scheduling_priority=knows)
    await world.open()
    await world.checked("spark")
    assert all(("priority" in body) == knows for _, body in spark.asked)


# --- what is kept ---


async def test_a_baseline_outlives_the_router(world: CanaryWorld, tmp_path: Path) -> None:
    spark = world.spark("spark")
    await world.open(tmp_path / "history.db")
    await world.checked("spark")
    await world.stop()
    world.events.clear()
    spark.prefill = spark.decode = table(1.0, 5)
    await world.open(tmp_path / "history.db")
    await world.checked("spark")
    assert world.grade("spark") is Grade.FLAGGED


async def test_a_flag_outlives_the_router(world: CanaryWorld, tmp_path: Path) -> None:
    spark = world.spark("spark")
    await world.open(tmp_path / "history.db")
    await world.checked("spark")
    spark.prefill = spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is Grade.FLAGGED
    evidence = world.app.fleet.backends["spark"].serving[MODEL].evidence
    await asyncio.sleep(2)
    await world.stop()
    world.events.clear()
    asked = len(spark.asked)
    await world.open(tmp_path / "history.db")
    await world.until(lambda: world.grade("spark") is Grade.FLAGGED, within_s=5)
    assert len(spark.asked) == asked
    assert world.app.fleet.backends["spark"].serving[MODEL].evidence == evidence


@pytest.mark.parametrize("fingerprint", [None, "vllm-0.32.0-abc"])
async def test_the_operators_flag_outlives_the_router(
    world: CanaryWorld, tmp_path: Path, fingerprint: str | None
) -> None:
    """A fingerprint belongs to the build and is learned from the first answer: the flag waits for it."""
    world.spark("spark").fingerprint = fingerprint
    await world.open(tmp_path / "history.db")
    await world.checked("spark")
    world.app.fleet.set_grade("spark", MODEL, Grade.FLAGGED, "smells", by="operator")
    await asyncio.sleep(2)
    await world.stop()
    world.events.clear()
    await world.open(tmp_path / "history.db")
    await world.checked("spark")
    assert world.grade("spark") is Grade.FLAGGED
    assert "smells" in world.reason("spark")


async def test_the_operator_vouches_for_a_build(world: CanaryWorld) -> None:
    world.spark("spark")
    app = await world.open()
    await world.checked("spark")
    plan = app.quality.ask("spark", MODEL, Size.FULL, keep=True)
    assert plan.cost_s > 0
    await world.checked("spark", 2)
    (kept,) = app.quality.shelf
    assert kept.grade is Grade.GOOD


async def test_live_answers_that_look_wrong_call_for_a_check(world: CanaryWorld) -> None:
    world.spark("spark")
    await world.open()
    await world.checked("spark")
    world.backends["spark"].script = lambda call: call.stream(*["!" * 200] * 4)
    while world.grade("spark") is not Grade.SUSPECT:
        await world.chat().whole()
        await asyncio.sleep(0.05)
        assert len(world.of(CallEnded)) < 30
    world.backends["spark"].script = None
    assert "flood" in world.reason("spark")
    await world.checked("spark", 2)
    assert world.grade("spark") is not Grade.FLAGGED
    metrics = world.app.metrics.render().decode()
    assert 'router_sentinel_suspicions_total{backend="spark",model="nemotron",sign="flood"}' in metrics


SLEEPING, AWAKE = (
    f"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="nemotron"}} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="nemotron"}} 0.0
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{{engine="0",model_name="nemotron",sleep_state="awake"}} {awake}.0
vllm:engine_sleep_state{{engine="0",model_name="nemotron",sleep_state="weights_offloaded"}} {1 - awake}.0
"""
    for awake in (0, 1)
)
