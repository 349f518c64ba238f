"""What a check asks: never more than its time, a random sample, and new texts only."""

from hypothesis import given
from hypothesis import strategies as st

from router.policy.facts import Speed
from router.policy.quality import Family
from router.probes.texts import load_probes
from router.quality.plan import DAY_S, Budget, Size, cost_s, make_plan

TEXTS = load_probes()
SPEEDS = st.builds(
    Speed,
    overhead_s=st.floats(0.0, 3.0),
    prefill_rate=st.floats(20.0, 10_000.0),
    tpot_a=st.floats(0.001, 1.0),
    tpot_b=st.floats(0.0, 0.2),
    contention=st.just(0.0),
    spread=st.just(0.1),
    samples=st.just(10.0),
)


@given(SPEEDS, st.sampled_from(Size), st.floats(0.1, 600.0), st.floats(0.0, 1.0))
def test_a_plan_fits_into_its_time_at_any_speed(speed: Speed, size: Size, limit_s: float, draw: float) -> None:
    plan = make_plan(size, speed, limit_s, TEXTS, draw, seen={})
    assert plan.cost_s <= limit_s
    assert abs(plan.cost_s - sum(cost_s(item, speed) for item in plan.items)) < 1e-6


@given(SPEEDS, st.floats(0.0, 1.0), st.sets(st.sampled_from([t.name for t in TEXTS])))
def test_what_was_seen_is_not_asked_again(speed: Speed, draw: float, seen: set[str]) -> None:
    plan = make_plan(Size.QUICK, speed, 1e9, TEXTS, draw, seen={Family.PREFILL: seen, Family.DECODE: seen})
    asked = {t.name for item in plan.items if item.family in (Family.PREFILL, Family.DECODE) for t in item.texts}
    assert not asked & seen


@given(SPEEDS, st.floats(0.0, 1.0))
def test_what_a_baseline_holds_comes_first(speed: Speed, draw: float) -> None:
    known = {t.name for t in TEXTS[:10]}
    plan = make_plan(Size.QUICK, speed, 1e9, TEXTS, draw, seen={}, known=known)
    asked = {item.texts[0].name for item in plan.items if item.family is Family.PREFILL}
    assert known <= asked


@given(st.lists(st.tuples(st.floats(0.0, 90_000.0), st.floats(0.0, 600.0)), max_size=60))
def test_no_more_than_its_share_is_ever_allowed(steps: list[tuple[float, float]]) -> None:
    budget = Budget(0.01, 0.0)
    now = spent = 0.0
    for wait, cost in steps:
        now += wait
        if budget.allows(cost, now):
            budget.spend(cost, now)
            spent += cost
    assert spent <= 0.01 * (DAY_S + now) + 1e-6
