"""The pure parts of the live study: schedules are the trace's, prompts as long as it says, figures right."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sim.described import Promise
from router.sim.profiles import PROFILES
from router.sim.replay import Ended
from router.sim.scripts import count
from router.sim.tokens import encode
from router.sim.trace import Arrival, synthetic
from tests.study import live_figures, live_fleet, live_load, page
from tests.study.live import Turn, counted, virtual
from tests.study.live_load import Outcome
from tests.study.routing_study import fleet_of

PROMISE = Promise(tpot_s=0.03, ttft_s=2.0, ttft_s_per_1k_prompt=0.5)
FINE = Ended(0.0, "a", "nano", 1000, 100, 0, 0.5, 0.02, 2.5, None, None)
LATE = replace(FINE, backend="b", ttft_s=2.6, end_s=5.0)
TRACE = synthetic(400, 1)


def calls(*ended: Ended | None) -> live_figures.Calls:
    return {(0, number): one for number, one in enumerate(ended)}


@given(st.integers(0, 50))
def test_a_schedule_keeps_to_its_window_and_its_order_and_is_the_same_for_a_seed(seed: int) -> None:
    made = live_load.schedule(TRACE, 60.0, 100.0, seed, 32_000)
    assert made == live_load.schedule(TRACE, 60.0, 100.0, seed, 32_000)
    assert all(one.at < 60.0 for one in made)
    assert [one.at for one in made] == sorted(one.at for one in made)


def test_the_offered_rate_is_that_of_answer_tokens() -> None:
    offered = [
        sum(one.output_tokens for one in live_load.schedule(TRACE, 600.0, 100.0, seed, 32_000)) for seed in range(8)
    ]
    assert sum(offered) / (8 * 600.0) == pytest.approx(100.0, rel=0.1)


@given(st.integers(17, 3000), st.integers(1, 500), st.integers(0, 9))
def test_a_prompt_has_the_traces_length_and_another_number_makes_another(tokens: int, answer: int, number: int) -> None:
    arrival = Arrival(0.0, tokens, answer)
    text = live_load.prompt(arrival, number)
    assert len(encode(text)) == pytest.approx(tokens, abs=live_load.FRAME_TOKENS)
    if tokens > 100:
        assert text != live_load.prompt(arrival, number + 1)


def test_prompts_begin_alike_as_far_as_their_blocks_do() -> None:
    one = live_load.prompt(Arrival(0.0, 1600, 5, (7, 8, 9)), 0).split()
    other = live_load.prompt(Arrival(0.0, 1600, 5, (7, 8, 1)), 1).split()
    assert one[:1024] == other[:1024]
    assert one[1024:1536] != other[1024:1536]


@pytest.mark.parametrize("tokens", [1, 10, 500])
def test_the_ordered_answer_is_as_long_as_the_traces(tokens: int) -> None:
    assert len(encode(count(tokens))) == pytest.approx(tokens, abs=2)


def test_a_call_does_not_say_how_long_its_answer_will_be() -> None:
    assert not {"max_tokens", "max_completion_tokens"} & live_load.body_of(TRACE[0], 0).keys()


def test_the_time_per_token_is_that_after_the_first() -> None:
    made = live_load.ended(Arrival(3.0, 50, 11, model="nano"), "a", 11, 100.0, 101.0, 102.0)
    assert (made.at, made.ttft_s, made.tpot_s, made.end_s) == (3.0, 1.0, 0.1, 2.0)
    assert live_load.ended(Arrival(3.0, 50, 1), "a", 1, 100.0, 101.0, 101.0).tpot_s == 0.0


def test_a_failed_call_broke_its_promise_and_has_no_times() -> None:
    found = live_figures.figures(calls(FINE, LATE, None, FINE), PROMISE)
    assert (found.calls, found.failures, found.goodput) == (4, 1, 0.5)
    assert found.end_mean_s == pytest.approx(10.0 / 3)
    assert found.shares == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
    with pytest.raises(ValueError, match="no call"):
        live_figures.figures(calls(None), PROMISE)


def test_ends_are_compared_on_the_calls_that_both_ended() -> None:
    slow = replace(FINE, end_s=5.0)
    assert live_figures.end_ratio(calls(slow, None, slow), calls(FINE, FINE, None)) == (2.0, 2.0, 2.0)


def test_an_interval_holds_its_figure_and_narrows_with_calls() -> None:
    few = live_figures.goodput_interval(calls(*[FINE, LATE] * 5), PROMISE)
    many = live_figures.goodput_interval(calls(*[FINE, LATE] * 100), PROMISE)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]


def test_the_verdict_says_who_is_later() -> None:
    live = {"predictive": calls(*[LATE] * 9), "round-robin": calls(*[FINE] * 9)}
    assert "round-robin: **later** (2.00 times its mean end), goodput -100 points" in live_figures.verdict(
        live, PROMISE
    )
    live = {"predictive": calls(*[FINE] * 9), "round-robin": calls(*[LATE] * 9)}
    assert "round-robin: sooner (0.50 times its mean end), goodput +100 points" in live_figures.verdict(live, PROMISE)


def test_each_row_of_a_table_is_whole() -> None:
    live = {"predictive": calls(FINE, None), "round-robin": calls(FINE, LATE)}
    rows = live_figures.table(live, live, PROMISE)
    assert len({row.count("|") for row in rows}) == 1
    assert "not run" in rows[2]  # least-in-flight


def test_live_and_virtual_count_the_same_calls_without_the_warm_up() -> None:
    arrivals = [replace(one, at=2.0 * number, model="nano") for number, one in enumerate(TRACE[:10])]
    turn = Turn("round-robin", 1, 0, arrivals, 6.0)
    fleet = live_fleet.as_processes_have_it(fleet_of("two-sparks-two-kernels"))
    told = virtual(turn, fleet)
    seen = counted(turn, [Outcome(number, FINE) for number in range(10)])
    assert told.keys() == seen.keys() == {(1, number) for number in range(3, 10)}
    assert all(one is not None and one.at == arrivals[number].at for (_, number), one in told.items())


def test_a_fleet_of_processes_has_plain_profiles_its_hosts_and_the_policy() -> None:
    fleet = live_fleet.as_processes_have_it(fleet_of("one-spark-three-kernels"))
    assert all(one.profile == PROFILES[one.profile.name] for one in fleet.backends)
    made = live_fleet.config(fleet, {one.name: 1000 for one in fleet.backends}, "prefix-hash")
    assert made["routing"] == {"policy": "prefix-hash"}
    assert {one["host"] for one in made["backends"]} == {"spark-1"}


def test_a_share_over_the_limit_is_told() -> None:
    before = live_fleet.Cpu(0.0, 0.0, (0.0, 0.0), 0.0, 0.0)
    used = live_fleet.use(before, live_fleet.Cpu(10.0, 1.0, (2.0, 4.0), 1.0, 8.0), cores=2)
    assert (used.router, used.sim, used.load, used.machine) == (0.1, 0.4, 0.1, 0.4)
    assert not used.is_too_much
    assert replace(used, router=0.7).is_too_much


def test_neither_study_loses_what_the_other_wrote_on_the_page() -> None:
    both = page.with_live(page.with_virtual("", "# Virtual\n"), "## Live\n")
    assert page.with_virtual(both, "# New\n") == page.with_live("# New\n", "## Live\n")
    assert page.with_live(both, "## New") == page.with_live("# Virtual", "## New\n")
    assert page.with_virtual(page.with_virtual("", "# Virtual\n"), "# New\n") == "# New\n"
