"""The choice: nobody barred, monotone in what makes a call late, the same for the same draw, and explained."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.choose import POLICIES, choose, cost_of, explain
from router.policy.facts import CallFacts, Candidate, Choice, Refusal, RoutingLimits, Speed

SPEED = Speed(0.1, 5000.0, 0.010, 0.005, 0.6, 0.1, 30.0)
CALL = CallFacts("m", prompt_tokens=1000.0, output_tokens=200.0)
LIMITS = RoutingLimits(exploration=0.0)


def backend(name: str, in_flight: int = 0, speed: Speed = SPEED, **fields: object) -> Candidate:
    one = Candidate(name, (name,), None, in_flight, in_flight, 0.0, 0.0, 0, None, speed, 100.0 * in_flight)
    return replace(one, **fields)  # type: ignore[arg-type]


speeds = st.builds(
    Speed,
    st.floats(0.0, 2.0),
    st.floats(100.0, 20_000.0),
    st.floats(0.0, 0.2),
    st.floats(0.0, 0.1),
    st.floats(0.0, 2.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 200.0),
)
candidates = st.builds(
    Candidate,
    st.sampled_from(["a", "b", "c", "d", "e", "f"]),
    st.just(("host",)),
    st.sampled_from([None, None, "ejected"]),
    st.integers(0, 20),
    st.integers(0, 10),
    st.floats(0.0, 50_000.0),
    st.floats(0.0, 10.0),
    st.integers(0, 20),
    st.sampled_from([None, None, 4, 16]),
    speeds,
    st.floats(0.0, 5000.0),
    st.floats(0.0, 2000.0),
    st.booleans(),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.one_of(st.none(), st.floats(0.0, 3.0)),
)
pools = st.lists(candidates, min_size=1, max_size=6, unique_by=lambda one: one.name)
calls = st.builds(
    CallFacts,
    st.just("m"),
    st.floats(0.0, 100_000.0),
    st.floats(1.0, 10_000.0),
    session=st.one_of(st.none(), st.text(max_size=3)),
    prefix=st.lists(st.integers(), max_size=3),
)
limits = st.builds(
    RoutingLimits,
    st.sampled_from(sorted(POLICIES)),
    st.floats(0.0, 0.2),
    st.one_of(st.none(), st.floats(0.1, 10.0)),
    st.one_of(st.none(), st.floats(0.01, 0.5)),
    st.booleans(),
)
draws = st.floats(0.0, 1.0, exclude_max=True)


@given(calls, pools, limits, draws)
def test_nobody_barred_or_full_is_chosen_and_a_last_resort_only_when_nobody_else_is_left(
    call: CallFacts, pool: list[Candidate], limits: RoutingLimits, draw: float
) -> None:
    usable = {one.name: one for one in pool if one.barred is None and (one.cap is None or one.in_flight < one.cap)}
    result = choose(call, pool, limits, draw)
    if isinstance(result, Refusal):
        assert not usable
        assert set(result.reasons) == {one.name for one in pool}
        return
    assert result.name in usable
    if usable[result.name].last_resort:
        assert all(one.last_resort for one in usable.values())


@given(calls, pools, limits, draws)
def test_the_same_draw_gives_the_same_choice(
    call: CallFacts, pool: list[Candidate], limits: RoutingLimits, draw: float
) -> None:
    if limits.policy == "round-robin":  # it remembers whose turn it is
        return
    assert choose(call, pool, limits, draw) == choose(call, pool, limits, draw)


more = st.floats(0.0, 5000.0)


@given(calls, candidates, limits, st.integers(0, 10), more, st.floats(0.0, 10.0))
def test_more_load_never_costs_less(
    call: CallFacts, one: Candidate, limits: RoutingLimits, calls: int, tokens: float, waiting: float
) -> None:
    one = replace(one, siblings=0)  # waking an idle backend beside busy ones is a cost of its own
    base = cost_of(call, one, limits).total
    for busier in (
        replace(one, in_flight=one.in_flight + calls, decoding=one.decoding + calls),
        replace(one, prefill_backlog=one.prefill_backlog + tokens),
        replace(one, waiting=one.waiting + waiting),
        replace(one, remaining=one.remaining + tokens),
        replace(one, busy_siblings=(one.busy_siblings or 0.0) + waiting),
    ):
        assert cost_of(call, busier, limits).total >= base - 1e-9


@given(calls, candidates, limits, st.integers(0, 10))
def test_busy_siblings_never_make_it_cost_less(
    call: CallFacts, one: Candidate, limits: RoutingLimits, calls: int
) -> None:
    busier = replace(one, siblings=one.siblings + calls)
    assert cost_of(call, busier, limits).total >= cost_of(call, one, limits).total - 1e-9


@given(calls, candidates, limits, more, more)
def test_a_longer_call_never_costs_less_and_a_warmer_prefix_never_more(
    call: CallFacts, one: Candidate, limits: RoutingLimits, prompt: float, warm: float
) -> None:
    base = cost_of(call, one, limits).total
    longer = replace(call, prompt_tokens=call.prompt_tokens + prompt, output_tokens=call.output_tokens + prompt)
    assert cost_of(longer, one, limits).total >= base - 1e-9
    warmer = replace(one, warm_tokens=one.warm_tokens + warm)
    assert cost_of(call, warmer, limits).total <= base + 1e-9


@given(calls, candidates, limits, st.floats(1.0, 10.0))
def test_a_slower_backend_never_costs_less(
    call: CallFacts, one: Candidate, limits: RoutingLimits, factor: float
) -> None:
    speed = one.speed
    slow = replace(
        speed,
        overhead_s=speed.overhead_s * factor,
        prefill_rate=speed.prefill_rate / factor,
        tpot_a=speed.tpot_a * factor,
        tpot_b=speed.tpot_b * factor,
    )
    assert cost_of(call, replace(one, speed=slow), limits).total >= cost_of(call, one, limits).total - 1e-9


def chosen(call: CallFacts, pool: list[Candidate], limits: RoutingLimits = LIMITS, draw: float = 0.5) -> str:
    result = choose(call, pool, limits, draw)
    assert isinstance(result, Choice)
    return result.name


def test_streams_stay_together_on_one_spark_and_part_across_two() -> None:
    together = [backend("busy", 2), backend("idle", 0, siblings=2, busy_siblings=1.0)]
    assert chosen(CALL, together) == "busy"
    apart = [backend("busy", 2), backend("idle", 0)]
    assert chosen(CALL, apart) == "idle"


def test_a_long_prompt_goes_where_prefill_is_fast_and_a_long_answer_where_decode_is() -> None:
    w4a4 = backend("w4a4", speed=replace(SPEED, prefill_rate=7000.0, tpot_a=0.014))
    w4a16 = backend("w4a16", speed=replace(SPEED, prefill_rate=4000.0))
    assert chosen(CallFacts("m", 30_000.0, 100.0), [w4a4, w4a16]) == "w4a4"
    assert chosen(CallFacts("m", 300.0, 2000.0), [w4a4, w4a16]) == "w4a16"


def test_a_call_goes_where_its_prefix_is_warm_as_long_as_that_is_worth_it() -> None:
    long = CallFacts("m", 40_000.0, 200.0)
    assert chosen(long, [backend("warm", 2, warm_tokens=39_000.0), backend("cold")]) == "warm"
    assert chosen(CALL, [backend("warm", 8, warm_tokens=900.0), backend("cold")]) == "cold"


def test_a_session_stays_where_it_was_while_nothing_else_speaks() -> None:
    assert chosen(CALL, [backend("a"), backend("b", sticky=True)]) == "b"
    assert chosen(CALL, [backend("a"), backend("b", sticky=True)], replace(LIMITS, sticky=False)) == "a"


def test_a_ramping_backend_gets_less() -> None:
    new = backend("new", speed=replace(SPEED, tpot_a=0.0095), ramp=0.1)
    assert chosen(CALL, [backend("old"), new]) == "old"
    assert chosen(CALL, [backend("old"), replace(new, ramp=1.0)]) == "new"


def test_a_promise_counts_where_time_alone_would_say_otherwise() -> None:
    call = CallFacts("m", 20_000.0, 2000.0)
    slow_start = backend("slow start", speed=replace(SPEED, prefill_rate=2000.0, tpot_a=0.0085))
    quick_start = backend("quick start", speed=replace(SPEED, prefill_rate=8000.0, tpot_a=0.0135))
    assert chosen(call, [slow_start, quick_start]) == "slow start"
    assert chosen(call, [slow_start, quick_start], replace(LIMITS, slo_ttft_s=4.0)) == "quick start"


def test_a_promised_pace_keeps_a_long_prompt_off_the_streams_that_it_would_hold_up() -> None:
    long = CallFacts("m", 15_000.0, 250.0)
    quick = backend("quick", 1, speed=replace(SPEED, tpot_a=0.010))
    idle = backend("idle", speed=replace(SPEED, tpot_a=0.030))
    assert chosen(long, [quick, idle]) == "quick"
    assert chosen(long, [quick, idle], replace(LIMITS, slo_tpot_s=0.06)) == "idle"
    short = replace(long, prompt_tokens=100.0)
    assert chosen(short, [quick, idle], replace(LIMITS, slo_tpot_s=0.06)) == "quick"


def test_a_call_still_before_its_first_content_is_held_up_too() -> None:
    limits = replace(LIMITS, slo_tpot_s=0.06)
    before = cost_of(CALL, backend("empty"), limits).slo
    ahead = cost_of(CALL, replace(backend("prefilling", 1), decoding=0), limits).slo
    assert before == 0.0 < ahead


# --- exploration ---

EXPLORING = RoutingLimits(exploration=0.1)
UNSURE = replace(SPEED, tpot_a=0.012, spread=0.7, samples=0.0)


def explored(pool: list[Candidate], call: CallFacts = CALL) -> float:
    """Share of calls that do not go where the time is shortest."""
    best = chosen(call, pool, replace(EXPLORING, exploration=0.0))
    return sum(chosen(call, pool, EXPLORING, draw / 1000) != best for draw in range(1000)) / 1000


def test_exploration_is_small_and_capped() -> None:
    assert 0.01 < explored([backend("known"), backend("unknown", speed=UNSURE)]) <= 0.1


def test_what_is_well_known_and_slower_is_not_explored() -> None:
    known = replace(SPEED, tpot_a=0.02, spread=0.02)
    assert explored([backend("best", speed=replace(SPEED, spread=0.02)), backend("slow", speed=known)]) == 0.0


def test_nobody_explores_beside_busy_siblings() -> None:
    assert explored([backend("known", 1), backend("unknown", speed=UNSURE, siblings=1)]) == 0.0


def test_nobody_explores_away_from_a_warm_prefix_that_is_worth_more() -> None:
    call = CallFacts("m", 60_000.0, 50.0)
    assert explored([backend("warm", warm_tokens=59_000.0), backend("unknown", speed=UNSURE)], call) == 0.0


def test_nobody_explores_what_is_hopeless() -> None:
    assert explored([backend("known"), backend("unknown", speed=replace(UNSURE, tpot_a=0.2))]) == 0.0


# --- the other policies ---


def test_least_in_flight_takes_the_emptiest() -> None:
    pool = [backend("a", 2), backend("b", 1), backend("c", 3)]
    assert chosen(CALL, pool, RoutingLimits("least-in-flight")) == "b"


def test_round_robin_gives_everybody_the_same() -> None:
    pool = [backend(name) for name in "abc"]
    got = [chosen(CALL, pool, RoutingLimits("round-robin")) for _ in range(9)]
    assert sorted(got) == sorted("abc" * 3)


@given(st.text(min_size=1, max_size=8), draws, draws)
def test_prefix_hash_sends_a_conversation_to_the_same_backend(session: str, one: float, other: float) -> None:
    pool = [backend(name) for name in "abcd"]
    call = replace(CALL, session=session)
    limits = RoutingLimits("prefix-hash")
    first = chosen(call, pool, limits, one)
    assert chosen(call, pool, limits, other) == first
    assert chosen(call, [one for one in pool if one.name == first or one.name < "c"], limits, other) == first


def test_prefix_hash_passes_over_a_backend_at_twice_the_mean_load() -> None:
    pool = [backend(name) for name in "abcd"]
    call, limits = replace(CALL, session="s"), RoutingLimits("prefix-hash")
    first = chosen(call, pool, limits)
    crowded = [replace(one, in_flight=20) if one.name == first else one for one in pool]
    assert chosen(call, crowded, limits) != first


# --- explanation ---


@given(calls, pools, draws)
def test_the_explanation_names_every_candidate_and_its_terms_add_up_to_the_cost(
    call: CallFacts, pool: list[Candidate], draw: float
) -> None:
    result = choose(call, pool, LIMITS, draw)
    rows = {row["name"]: row for row in explain(call, pool, LIMITS)}
    assert set(rows) == {one.name for one in pool}
    for row in rows.values():
        terms = ("wait_s", "prefill_s", "decode_s", "others_s", "slo_s", "bonus_s")
        assert sum(row[term] for term in terms) == pytest.approx(row["cost_s"], rel=1e-9, abs=1e-9)
    if isinstance(result, Choice) and result.costs:
        for name, cost in result.costs.items():
            assert rows[name]["cost_s"] == cost
