"""A bench against simulated engines in virtual time: order, strangers, deaths, Ctrl-C, siblings."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from router.bench.fit import prior_of
from router.bench.measured import Key, rates_of
from router.bench.outcome import CallFailed, Load, Progress, Rules
from router.bench.plan import Condition, Plan, Shape, Siblings, Subject
from router.bench.result import judge
from router.bench.runner import Runner
from router.sim.host import Host
from router.sim.profiles import MARLIN
from tests.benchcmd.sims import QUICK, SimTarget, stop

SHORT, LONG = Shape("short", "long", 128, 32), Shape("long", "short", 1024, 4)
SLOWER = replace(QUICK, overhead_s=QUICK.overhead_s + 0.004)


def plan_of(*names: str, levels: tuple[int, ...] = (1, 2), repeats: int = 3, **more: Any) -> Plan:
    subjects = tuple(Subject(name, "", "model", **more) for name in names)
    return Plan(subjects, tuple(Condition(shape, n) for shape in (SHORT, LONG) for n in levels), repeats)


def said(result_verdict: tuple[str, ...]) -> str:
    return "\n".join(result_verdict)


async def test_every_condition_is_measured_in_every_round_with_never_more_streams_than_that() -> None:
    a, b = SimTarget(seed=1), SimTarget(SLOWER, seed=2)
    plan = plan_of("a", "b")
    outcome = await Runner(plan, {"a": a, "b": b}).run()
    assert outcome.stopped == ""
    assert [(one.round, one.condition, one.subject) for one in outcome.measurements] == [
        (step.round, step.condition, step.subject.name) for step in plan.rounds()
    ]
    assert (a.most, b.most, a.streams, b.streams) == (2, 2, 0, 0)
    await stop(a, b)


async def test_no_two_prompts_share_a_beginning() -> None:
    a = SimTarget()
    await Runner(plan_of("a"), {"a": a}).run()
    starts = [" ".join(prompt.split()[:3]) for prompt in a.prompts]
    assert len(set(starts)) == len(starts)
    await stop(a)


async def test_prompts_come_out_as_long_as_they_should() -> None:
    a = SimTarget()
    outcome = await Runner(plan_of("a", levels=(1,)), {"a": a}).run()
    for one in outcome.measurements:
        assert one.figures is not None
        assert one.figures.prompt_tokens == pytest.approx(one.condition.shape.prompt_tokens, rel=0.05)
    await stop(a)


async def test_a_backend_that_dies_is_reported_and_loses_nothing() -> None:
    a, b = SimTarget(seed=1), SimTarget(seed=2)

    def dies(number: int) -> CallFailed | None:
        b.alive = number < 25
        return None if b.alive else CallFailed("ConnectError: refused")

    b.fails = dies
    plan = plan_of("a", "b")
    outcome = await Runner(plan, {"a": a, "b": b}).run()
    assert "it stopped answering" in outcome.gone["b"]
    assert "b" in outcome.stopped
    assert b.calls == 25  # and it is let alone from then on
    assert {one.round for one in outcome.measurements if one.subject == "a"} == {1, 2, 3}
    result = judge(plan, outcome, {}, 0.0, 1.0)
    assert "b was not measured to the end, which makes it no loser: it stopped answering" in result.verdict[0]
    assert all(one.winner is None for one in result.comparisons)
    assert "too few rounds of both" in said(result.verdict)
    await stop(a, b)


async def test_a_backend_that_is_full_is_not_asked_with_so_many_again() -> None:
    a = SimTarget()
    a.fails = lambda number: CallFailed("it answered 503: queue full", is_busy=True) if a.streams >= 1 else None
    outcome = await Runner(plan_of("a", levels=(1, 2, 4)), {"a": a}).run()
    assert {one.condition.concurrency for one in outcome.measurements if one.figures is not None} == {1}
    assert any("full at 2 streams" in note for note in outcome.notes)
    assert "a" not in outcome.gone
    await stop(a)


async def test_a_failure_under_load_is_not_provoked_twice() -> None:
    a = SimTarget()
    a.fails = lambda number: CallFailed("the stream broke off") if a.streams >= 3 else None
    outcome = await Runner(plan_of("a", levels=(1, 2, 4)), {"a": a}).run()
    assert {one.condition.concurrency for one in outcome.measurements if one.figures is not None} == {1, 2}
    assert sum("4 streams" in note for note in outcome.notes) == 1
    await stop(a)


async def test_a_call_that_is_refused_for_its_content_is_not_repeated() -> None:
    a = SimTarget()
    a.fails = lambda number: CallFailed("it answered 401: no key", is_refusal=True)
    outcome = await Runner(plan_of("a"), {"a": a}).run()
    assert a.calls == 1
    assert "401" in outcome.gone["a"]
    await stop(a)


async def test_a_prompt_that_is_too_long_for_a_backend_is_left_out_for_it_alone() -> None:
    class Small(SimTarget):
        async def call(self, prompt: str, answer_tokens: int, limit_s: float) -> Any:
            if len(prompt) > 2000:
                raise CallFailed("it answered 400: maximum context length is 512 tokens", is_refusal=True)
            return await super().call(prompt, answer_tokens, limit_s)

    a, b = Small(seed=1), SimTarget(seed=2)
    outcome = await Runner(plan_of("a", "b"), {"a": a, "b": b}).run()
    assert (outcome.stopped, outcome.gone) == ("", {})
    assert {one.condition.shape for one in outcome.measurements if one.subject == "a" and one.figures} == {SHORT}
    assert {one.condition.shape for one in outcome.measurements if one.subject == "b"} == {SHORT, LONG}
    assert sum("does not take a long prompt" in note for note in outcome.notes) == 1
    await stop(a, b)


class Restarts(SimTarget):
    """Another process from its tenth call on."""

    async def load(self) -> Load:
        return replace(await super().load(), started=100.0 if self.calls < 10 else 200.0)


async def test_a_backend_that_was_started_anew_is_given_up_it_may_be_another_build() -> None:
    a = Restarts()
    outcome = await Runner(plan_of("a"), {"a": a}).run()
    assert "started anew" in outcome.gone["a"]
    await stop(a)


async def stranger(target: SimTarget, every_s: float, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(every_s)
        await target.call("a question of somebody else", 8, 60.0)


async def test_what_was_measured_beside_real_traffic_is_left_out_and_measured_again() -> None:
    a, b = SimTarget(seed=1), SimTarget(seed=2)
    plan = plan_of("a", "b")
    runner = Runner(plan, {"a": a, "b": b})
    visits = asyncio.ensure_future(stranger(a, 1.7, 8))
    outcome = await runner.run()
    await visits
    disturbed = [one for one in outcome.measurements if one.foreign]
    assert disturbed
    assert {one.subject for one in disturbed} == {"a"}
    assert not any(one.kept for one in disturbed)
    assert len([one for one in outcome.measurements if one.kept]) == len(list(plan.rounds()))
    notes = judge(plan, outcome, {}, 0.0, 1.0).notes
    assert any("calls of others were seen" in note and "left out, 0 kept" in note for note in notes)
    await stop(a, b)


async def test_force_keeps_what_was_measured_beside_real_traffic_and_marks_it() -> None:
    a = SimTarget()
    runner = Runner(plan_of("a"), {"a": a}, Rules(force=True))
    visits = asyncio.ensure_future(stranger(a, 1.7, 8))
    outcome = await runner.run()
    await visits
    disturbed = [one for one in outcome.measurements if one.foreign]
    assert disturbed
    assert all(one.kept for one in disturbed)
    await stop(a)


async def test_a_backend_that_is_never_idle_is_not_measured_without_force() -> None:
    a = SimTarget()
    busy = asyncio.ensure_future(a.call("a long story", 60_000, 9999.0))
    await asyncio.sleep(1.0)
    outcome = await Runner(plan_of("a"), {"a": a}, Rules(idle_wait_s=30.0)).run()
    assert outcome.measurements == []
    assert "a served calls for 30 s on end" in outcome.stopped
    assert "--force" in outcome.stopped
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await stop(a)


async def test_an_interrupted_bench_keeps_what_it_has_and_hangs_up() -> None:
    a, b = SimTarget(seed=1), SimTarget(SLOWER, seed=2)
    plan = plan_of("a", "b", repeats=20)
    runner = Runner(plan, {"a": a, "b": b})
    loop = asyncio.get_running_loop()
    loop.call_later(60.0, runner.stop, "interrupted")
    outcome = await runner.run()
    assert outcome.stopped == "interrupted"
    kept = len(outcome.measurements)
    assert 0 < kept < len(list(plan.rounds()))
    assert a.streams + b.streams == a.engine.running + b.engine.running == 0
    result = judge(plan, outcome, {}, 0.0, 60.0)
    assert result.stopped == "interrupted"
    assert result.comparisons[0].rounds >= 3
    await stop(a, b)


async def test_a_limit_of_time_ends_a_bench_with_what_it_has() -> None:
    a = SimTarget()
    outcome = await Runner(plan_of("a", repeats=50), {"a": a}, Rules(most_s=30.0)).run()
    assert "(--max-minutes) was reached" in outcome.stopped
    assert outcome.measurements
    await stop(a)


async def test_a_backend_slower_than_believed_is_asked_less_but_whole_rounds() -> None:
    slow = SimTarget(replace(QUICK, overhead_s=0.3))  # a step takes twenty times as long
    plan = plan_of("a", levels=(1, 4, 16), repeats=4)
    outcome = await Runner(plan, {"a": slow}, Rules(most_s=150.0)).run()
    assert outcome.stopped == ""
    counts = Counter(one.condition for one in outcome.measurements)
    assert counts[Condition(SHORT, 1)] == counts[Condition(LONG, 1)] == 4  # enough for an interval
    assert counts[Condition(SHORT, 16)] < 4
    assert any("c=16 is left out: it is slower than believed" in note for note in outcome.notes)
    await stop(slow)


async def test_a_hang_is_given_up_in_time_and_reported() -> None:
    class Hangs(SimTarget):
        async def call(self, prompt: str, answer_tokens: int, limit_s: float) -> Any:
            try:
                async with asyncio.timeout(limit_s):
                    await asyncio.Event().wait()
            except TimeoutError:
                raise CallFailed(f"no whole answer within {limit_s:.0f} s") from None

    a, loop = Hangs(), asyncio.get_running_loop()
    began = loop.time()
    outcome = await Runner(plan_of("a"), {"a": a}).run()
    assert "no whole answer within 60 s" in outcome.gone["a"]
    assert loop.time() - began < 300
    await stop(a)


async def test_progress_tells_how_long_it_still_takes() -> None:
    a, loop = SimTarget(), asyncio.get_running_loop()
    seen: list[tuple[float, Progress]] = []
    await Runner(plan_of("a"), {"a": a}, told=lambda one: seen.append((loop.time(), one))).run()
    end, last = seen[-1]
    assert (last.left_s, last.done) == (0.0, last.steps)
    assert [one.done for _, one in seen] == sorted(one.done for _, one in seen)
    measuring = [(at, one) for at, one in seen if one.now.startswith("round")]
    for at, one in measuring[4 : len(measuring) // 2]:  # every condition was seen once by then
        assert one.left_s == pytest.approx(end - at, rel=0.25)
    await stop(a)


def beside(targets: dict[str, SimTarget], repeats: int = 3) -> tuple[Plan, Runner]:
    subjects = tuple(
        Subject(name, "", "model", ("spark",), siblings=tuple(other for other in targets if other != name))
        for name in targets
    )
    conditions = [Condition(shape, 1, where) for where in Siblings for shape in (SHORT, LONG)]
    conditions += [Condition(SHORT, 4), Condition(LONG, 4)]
    plan = Plan(subjects, tuple(conditions), repeats)
    return plan, Runner(plan, targets)


async def test_a_busy_sibling_slows_decode_and_is_let_go_afterwards() -> None:
    host = Host()
    a, b = SimTarget(seed=1, host=host), SimTarget(seed=2, host=host)
    _, runner = beside({"a": a, "b": b})
    outcome = await runner.run()
    assert outcome.stopped == ""
    assert a.streams + b.streams + a.engine.running + b.engine.running == 0
    rates = rates_of("a", outcome.measurements)
    alone = rates[Key("decode", 1, Siblings.IDLE, "short")][1]
    pressed = rates[Key("decode", 1, Siblings.BUSY, "short")][1]
    assert pressed < 0.8 * alone
    prior = prior_of("a", outcome.measurements)
    assert prior is not None
    assert prior.contention is not None
    assert prior.contention == pytest.approx(alone / pressed - 1, rel=0.2)
    assert not any(one.foreign for one in outcome.measurements)  # its own sibling stream is no stranger
    await stop(a, b)


async def test_a_sibling_that_cannot_be_kept_busy_costs_only_what_needs_it() -> None:
    host = Host()
    a, b = SimTarget(seed=1, host=host), SimTarget(seed=2, host=host)
    fails: Callable[[int], CallFailed | None] = lambda number: CallFailed("it answered 500")  # noqa: E731
    plan, _ = beside({"a": a, "b": b})
    only_a = replace(plan, subjects=plan.subjects[:1])
    b.fails = fails
    outcome = await Runner(only_a, {"a": a, "b": b}).run()
    assert outcome.gone == {}
    assert {one.condition.siblings for one in outcome.measurements} == {Siblings.IDLE}
    assert any("b, which should be busy, does not answer" in note for note in outcome.notes)
    await stop(a, b)


async def test_a_prior_predicts_what_was_measured() -> None:
    a = SimTarget(MARLIN, seed=3)
    outcome = await Runner(plan_of("a", levels=(1, 2, 4, 8)), {"a": a}).run()
    prior = prior_of("a", outcome.measurements)
    assert prior is not None
    for one in outcome.measurements:
        assert one.figures is not None
        if one.figures.decode_rate is not None:
            tpot = prior.decode.predict(one.condition.concurrency)
            assert tpot == pytest.approx(1 / one.figures.decode_rate, rel=0.25)
        if one.condition.concurrency == 1 and one.figures.prompt_tokens is not None:
            ttft = prior.prefill.predict(one.figures.prompt_tokens)
            assert ttft == pytest.approx(one.figures.ttft_s, rel=0.25)
    await stop(a)
