"""Health as a table: what ejects, what never does, how a backend returns, and who counts as hung."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.facts import Health
from router.policy.health import Evidence, HealthLimits, HealthState, Progress, barred, forgive, hung, lost, observe

LIMITS = HealthLimits()
STILL = Progress(streams=0, silence_s=0.0, oldest_wait_s=0.0, engine_still_s=None, predicted_prefill_s=1.0)


def after(*seen: Evidence, state: HealthState | None = None, now: float = 100.0, every_s: float = 1.0) -> HealthState:
    """The state after these, a second apart."""
    state = state or HealthState(Health.HEALTHY, seen=True)
    for number, evidence in enumerate(seen):
        state = observe(state, evidence, evidence.value, now + number * every_s, LIMITS)
    return state


def ejected(times: int = 1) -> HealthState:
    return replace(after(Evidence.HUNG), ejections=times)


def test_consecutive_failures_eject_and_one_good_call_between_them_does_not() -> None:
    fail, fine = Evidence.CALL_FAILED, Evidence.CALL_OK
    assert after(fail).health is Health.SUSPECT
    assert after(fail, fail, fail).health is Health.EJECTED
    assert after(fail, fail, fine, fail, fail).health is Health.SUSPECT
    assert after(fail, fine).health is Health.HEALTHY


def test_a_high_rate_of_failures_ejects_without_three_in_a_row() -> None:
    fail, fine = Evidence.CALL_FAILED, Evidence.CALL_OK
    assert after(*[fail, fail, fine] * 4).health is Health.EJECTED
    assert after(*[fail, fine, fine] * 10).health is Health.HEALTHY


def test_failed_probes_eject_only_in_a_row() -> None:
    bad, good = Evidence.PROBE_FAILED, Evidence.PROBE_OK
    assert after(bad, bad).health is Health.SUSPECT
    assert after(bad, bad, bad).health is Health.EJECTED
    assert after(bad, bad, good, bad, bad).health is not Health.EJECTED


def test_who_was_never_there_is_off_and_who_was_is_starting() -> None:
    assert after(Evidence.REFUSED, state=HealthState()).health is Health.OFF
    assert after(Evidence.REFUSED).health is Health.STARTING
    assert after(Evidence.REFUSED, Evidence.PROBE_OK).health is Health.HEALTHY


def test_each_ejection_is_longer_up_to_a_bound_and_a_long_good_time_forgives() -> None:
    lengths = []
    state = HealthState(Health.HEALTHY, seen=True)
    for _ in range(8):
        state = observe(replace(state, health=Health.HEALTHY), Evidence.HUNG, "hung", 100.0, LIMITS)
        lengths.append(state.until - 100.0)
    assert lengths == [10, 20, 40, 80, 160, 300, 300, 300]
    well = replace(state, health=Health.HEALTHY, since=0.0)
    assert forgive(well, 10 * LIMITS.ejection_max_s, LIMITS).ejections == 8
    assert forgive(well, 10 * LIMITS.ejection_max_s + 1, LIMITS).ejections == 0


def test_the_way_back_is_probes_then_few_trials_then_a_ramp() -> None:
    good = Evidence.PROBE_OK
    out = ejected()
    assert after(good, good, good, state=out, now=out.until - 5).health is Health.EJECTED, "not before its time"
    trial = after(good, good, state=out, now=out.until)
    assert trial.health is Health.PROBATION
    assert barred(trial, 0, LIMITS) is None
    assert barred(trial, LIMITS.trial_calls, LIMITS) is not None, "a bounded number of trial calls"
    assert after(Evidence.CALL_FAILED, state=trial).health is Health.EJECTED
    back = after(Evidence.CALL_OK, Evidence.CALL_OK, state=trial, now=200.0)
    assert back.health is Health.HEALTHY
    assert back.ramp(201.0, LIMITS) == pytest.approx(0.1)
    assert back.ramp(201.0 + LIMITS.ramp_s / 2, LIMITS) == pytest.approx(0.55)
    assert back.ramp(201.0 + LIMITS.ramp_s, LIMITS) == 1.0


def test_without_traffic_good_probes_are_trial_enough() -> None:
    out = ejected()
    assert after(*[Evidence.PROBE_OK] * 12, state=out, now=out.until).health is Health.HEALTHY


@pytest.mark.parametrize("health", [Health.OFF, Health.STARTING, Health.EJECTED])
def test_who_is_out_already_is_not_ejected_by_a_late_failure(health: Health) -> None:
    state = HealthState(health, seen=True, until=500.0)
    assert after(*[Evidence.CALL_FAILED] * 5, state=state).health is health


@given(st.lists(st.sampled_from(Evidence), max_size=60))
def test_no_evidence_in_any_order_leaves_a_state_that_cannot_be(seen: list[Evidence]) -> None:
    state = HealthState()
    for number, evidence in enumerate(seen):
        before, now = state, 100.0 + number
        state = observe(state, evidence, "seen", now, LIMITS)
        assert 0.0 <= state.ramp(now, LIMITS) <= 1.0
        assert state.until <= now + LIMITS.ejection_max_s
        if state.health is not before.health:
            assert state.since == now
            assert state.reason
        if before.health is Health.EJECTED and state.health not in (Health.EJECTED, Health.STARTING):
            assert (state.health, now >= before.until) == (Health.PROBATION, True), "no other way back"
        if state.health is Health.HEALTHY and before.health is Health.PROBATION:
            assert state.ramp_from == now


# --- hangs ---


def test_a_prefilling_spark_is_silent_for_a_minute_and_right_to_be() -> None:
    waiting = replace(STILL, oldest_wait_s=170.0, engine_still_s=170.0, predicted_prefill_s=60.0)
    assert hung(waiting) is None
    assert hung(replace(waiting, oldest_wait_s=180.0, engine_still_s=180.0)) is not None, "three times what it may take"


def test_a_call_that_waits_where_the_engine_moves_is_no_hang() -> None:
    assert hung(replace(STILL, oldest_wait_s=900.0, engine_still_s=2.0)) is None
    assert hung(replace(STILL, oldest_wait_s=900.0)) is None, "nothing is known of the engine: waiting is no evidence"


def test_a_call_is_lost_where_the_engine_ran_dry_without_it() -> None:
    assert not lost(100.0, None, 0.0), "never seen to work and then have nothing to do"
    assert not lost(100.0, 159.0, 0.0), "it may not have been given the prompt yet"
    assert lost(100.0, 160.0, 0.0)
    assert not lost(100.0, 399.0, 100.0), "a long prompt takes its time, before the engine too"
    assert lost(100.0, 400.0, 100.0)
    assert not lost(500.0, 400.0, 0.0), "before this call was sent"


def test_streams_that_stop_together_are_a_hang_after_thirty_seconds() -> None:
    stopped = replace(STILL, streams=3, silence_s=30.0, engine_still_s=31.0)
    assert "3 streams" in (hung(stopped) or "")
    assert hung(replace(stopped, silence_s=29.0)) is None
    assert hung(replace(stopped, engine_still_s=5.0)) is None, "its metrics say that it works"
    assert hung(replace(stopped, engine_still_s=None)) is None, "without metrics it takes the longer bound"
    assert hung(replace(stopped, engine_still_s=None, silence_s=60.0)) is not None


@given(
    st.builds(
        Progress,
        streams=st.integers(0, 50),
        silence_s=st.floats(0, 1000),
        oldest_wait_s=st.floats(0, 1000),
        engine_still_s=st.none() | st.floats(0, 1000),
        predicted_prefill_s=st.floats(0, 300),
    )
)
def test_silence_alone_under_half_a_minute_is_never_a_hang(progress: Progress) -> None:
    quiet = max(progress.silence_s if progress.streams else 0.0, progress.oldest_wait_s)
    if quiet < 30.0 or (progress.engine_still_s is not None and progress.engine_still_s < 30.0):
        assert hung(progress) is None
