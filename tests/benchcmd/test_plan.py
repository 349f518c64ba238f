"""What is measured and in which order: properties of every plan."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from router.bench.plan import (
    CONCURRENCY,
    QUICK_SHAPES,
    SHAPES,
    Condition,
    Pace,
    Plan,
    Siblings,
    Step,
    Subject,
    conditions_of,
)
from router.bench.prompts import prompt, words_of

plans = st.builds(
    Plan,
    st.integers(1, 4).map(lambda n: tuple(Subject(f"b{i}", "", "m") for i in range(n))),
    st.sets(st.builds(Condition, st.sampled_from(SHAPES), st.sampled_from(CONCURRENCY)), min_size=1).map(tuple),
    st.integers(3, 8),
    st.integers(0, 1000),
)


@given(plans)
def test_each_round_holds_each_condition_once_for_every_subject_back_to_back(plan: Plan) -> None:
    steps = list(plan.rounds())
    assert len(steps) == plan.repeats * len(plan.conditions) * len(plan.subjects)
    together = [list(group) for _, group in itertools.groupby(steps, key=lambda one: (one.round, one.condition))]
    assert len(together) == plan.repeats * len(plan.conditions)
    assert all({one.subject for one in group} == set(plan.subjects) for group in together)


@given(plans)
def test_of_two_subjects_each_is_first_in_about_half_of_the_rounds(plan: Plan) -> None:
    firsts = [next(group).subject for _, group in itertools.groupby(plan.rounds(), key=lambda one: one.round)]
    if len(plan.subjects) == 2:
        counts = [firsts.count(one) for one in plan.subjects]
        assert abs(counts[0] - counts[1]) <= 2


@given(plans)
def test_the_same_seed_gives_the_same_order(plan: Plan) -> None:
    assert list(plan.rounds()) == list(plan.rounds())


def test_what_does_not_fit_a_backend_is_left_out_for_it_alone_and_said() -> None:
    small = Subject("small", "", "m", context=2048)
    big = Subject("big", "", "m", context=131_072, kv_tokens=20_000)
    plan = Plan((small, big), conditions_of(SHAPES, CONCURRENCY, [Siblings.IDLE]), 3)
    steps = list(plan.rounds())
    assert not any(one.subject is small and one.condition.shape.prompt == "long" for one in steps)
    most = max(
        one.condition.concurrency for one in steps if one.subject is big and one.condition.shape.prompt == "long"
    )
    assert most == 4
    assert any("its context is 2048" in one for one in plan.left_out())
    assert any("its KV cache holds 20000" in one for one in plan.left_out())


def test_beside_busy_siblings_only_those_are_measured_who_have_any() -> None:
    alone, pair = Subject("alone", "", "m"), Subject("pair", "", "m", siblings=("other",))
    plan = Plan((alone, pair), conditions_of(QUICK_SHAPES, CONCURRENCY, list(Siblings)), 3)
    busy = [one for one in plan.rounds() if one.condition.siblings is Siblings.BUSY]
    assert busy
    assert {one.subject.name for one in busy} == {"pair"}
    assert {one.condition.concurrency for one in busy} == {1, 4}


@given(plans)
def test_every_prompt_length_is_warmed_up_at_every_number_of_streams(plan: Plan) -> None:
    def sizes(steps: list[Step]) -> set[tuple[str, int, int]]:
        return {(s.subject.name, s.condition.shape.prompt_tokens, s.condition.concurrency) for s in steps}

    assert sizes(plan.warm_ups()) == sizes(list(plan.rounds()))
    assert len(plan.warm_ups()) == len(sizes(plan.warm_ups()))


def test_a_slower_backend_and_more_streams_cost_more_time() -> None:
    one = Condition(SHAPES[3], 1)
    assert Pace().seconds(one) < Pace().seconds(Condition(SHAPES[3], 16))
    assert Pace().seconds(one) < Pace(tpot_a=0.1).seconds(one)
    assert Pace().seconds(one) < Pace().seconds(Condition(SHAPES[3], 1, Siblings.BUSY))


@given(st.integers(64, 6000), st.floats(1.0, 2.5), st.integers(0, 10**6))
def test_a_prompt_has_the_words_that_make_the_tokens_asked_for(tokens: int, ratio: float, seed: int) -> None:
    words = words_of(prompt(str(seed), tokens, ratio))
    assert abs(words - tokens / ratio) <= 1


def test_prompts_of_different_seeds_differ_from_their_first_words_on() -> None:
    starts = {tuple(prompt(str(seed), 200).split()[:3]) for seed in range(300)}
    assert len(starts) == 300
