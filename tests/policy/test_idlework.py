"""What an idle backend is asked, and when: nothing while it is not still, nothing twice."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from router.policy.idlework import IdleLimits, Stillness, Work, due

LIMITS = IdleLimits(check_after_s=1800, fixed=True, idle_s=300)
STILL = Stillness(idle_s=400, sample_age_s=10, proved=True, taken=False)
SECONDS = st.floats(0, 1e6)
STILLNESS = st.builds(Stillness, SECONDS, st.none() | SECONDS, st.booleans(), st.booleans(), st.booleans())
ANY_LIMITS = st.builds(IdleLimits, st.just(0.0) | SECONDS, st.booleans(), SECONDS)


def test_a_proved_build_is_measured_once_a_day_when_its_machine_is_idle() -> None:
    assert due(STILL, LIMITS) is Work.FIXED
    assert due(replace(STILL, taken=True), LIMITS) is None
    assert due(replace(STILL, proved=False), LIMITS) is None
    assert due(replace(STILL, idle_s=299), LIMITS) is None
    assert due(STILL, replace(LIMITS, fixed=False)) is None


def test_a_speed_that_nobody_saw_for_long_is_asked_for() -> None:
    silent = replace(STILL, taken=True, idle_s=1800, sample_age_s=1800)
    assert due(silent, LIMITS) is Work.CHECK
    assert due(replace(silent, proved=False), LIMITS) is Work.CHECK
    assert due(replace(silent, sample_age_s=None), LIMITS) is Work.CHECK, "never learned at all"
    assert due(replace(silent, sample_age_s=1799), LIMITS) is None
    assert due(replace(silent, idle_s=1799), LIMITS) is None
    assert due(silent, replace(LIMITS, check_after_s=0)) is None


@given(STILLNESS, ANY_LIMITS)
def test_nothing_is_asked_of_who_refuses_or_is_not_still(one: Stillness, limits: IdleLimits) -> None:
    work = due(one, limits)
    assert due(replace(one, refused=True), limits) is None
    if work is Work.FIXED:
        assert one.proved
        assert not one.taken
        assert one.idle_s >= limits.idle_s
    if work is Work.CHECK:
        assert one.idle_s >= limits.check_after_s > 0
