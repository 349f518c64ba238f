"""The estimator: it converges, forgets, tracks a change, and is not thrown by a single odd answer."""

import json
import random
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.policy.recursive import Line
from router.policy.speed import HostModel, SpeedModel


@dataclass(frozen=True)
class Truth:
    overhead: float = 0.08
    rate: float = 5000.0
    a: float = 0.010
    b: float = 0.005
    c: float = 0.6
    noise: float = 0.05

    def slower(self, factor: float) -> "Truth":
        return Truth(self.overhead * factor, self.rate / factor, self.a * factor, self.b * factor, self.c, self.noise)

    def tpot(self, streams: float, siblings: float = 0.0) -> float:
        return (self.a + self.b * streams) * (1.0 + self.c * siblings)


def serve(model: SpeedModel, truth: Truth, calls: int, seed: int, now: float = 0.0, siblings: int = 0) -> float:
    dice = random.Random(seed)
    for _ in range(calls):
        now += dice.uniform(1.0, 10.0)
        prompt = dice.choice([200, 800, 2000, 6000])
        ttft = (truth.overhead + prompt / truth.rate) * dice.lognormvariate(0.0, truth.noise)
        model.observe_first_token(now, ttft, prompt)
        streams, tokens = dice.uniform(1.0, 6.0), dice.choice([50, 200, 500])
        busy = dice.uniform(0.0, siblings) if siblings else 0.0
        seconds = tokens * truth.tpot(streams, busy) * dice.lognormvariate(0.0, truth.noise)
        model.observe_decode(now, tokens, seconds, streams, busy)
    return now


def error(model: SpeedModel, truth: Truth, now: float, prompt: float = 1000.0, output: float = 200.0) -> float:
    """Relative error of the predicted end of a typical call beside two others."""
    speed = model.predict(now)
    predicted = speed.overhead_s + prompt / speed.prefill_rate + output * (speed.tpot_a + 3.0 * speed.tpot_b)
    true = truth.overhead + prompt / truth.rate + output * truth.tpot(3.0)
    return abs(predicted / true - 1.0)


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(1000.0, 12_000.0),
    st.floats(0.004, 0.03),
    st.floats(0.001, 0.01),
    st.floats(0, 0.1),
)
def test_it_converges_on_whatever_is_true(seed: int, rate: float, a: float, b: float, noise: float) -> None:
    model, truth = SpeedModel(), Truth(0.1, rate, a, b, 0.0, noise)
    now = serve(model, truth, 100, seed)
    assert error(model, truth, now) < 0.1


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.4, 0.7]), st.floats(0.02, 0.08))
def test_sixty_calls_after_a_change_it_is_right_again(seed: int, factor: float, noise: float) -> None:
    model, truth = SpeedModel(), Truth(noise=noise)
    now = serve(model, truth, 200, seed)
    now = serve(model, truth.slower(factor), 60, seed + 1, now)
    assert error(model, truth.slower(factor), now) < 0.1


def test_a_single_slow_answer_teaches_next_to_nothing() -> None:
    model, truth = SpeedModel(), Truth()
    now = serve(model, truth, 60, 1)
    before = model.predict(now)
    model.observe_first_token(now + 1.0, 4.5 * (truth.overhead + 2000 / truth.rate), 2000)
    after = model.predict(now + 1.0)
    assert after.prefill_rate == pytest.approx(before.prefill_rate, rel=0.05)
    model.observe_first_token(now + 2.0, truth.overhead + 2000 / truth.rate, 2000)
    assert model.outliers.last[-1].what == "prefill"


def test_a_thermal_step_is_followed_within_a_dozen_calls() -> None:
    model, truth = SpeedModel(), Truth(noise=0.02)
    now = serve(model, truth, 100, 1)
    now = serve(model, truth.slower(1.8), 12, 2, now)
    assert error(model, truth.slower(1.8), now) < 0.2


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_contention_is_learned_where_siblings_were_busy_together(seed: int) -> None:
    host = HostModel()
    model, truth = SpeedModel(hosts=(host,)), Truth(noise=0.03)
    now = serve(model, truth, 30, seed)
    assert not host.is_learned
    assert model.estimates(now)["contention"].source == "prior"
    now = serve(model, truth, 150, seed + 1, now, siblings=2)
    assert host.is_learned
    assert host.c == pytest.approx(0.6, abs=0.15)
    assert error(model, truth, now) < 0.12


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 3.0), st.floats(0.01, 2.0)), max_size=60))
def test_contention_is_never_negative(samples: list[tuple[float, float, float]]) -> None:
    host = HostModel()
    for slower, siblings, noise in samples:
        host.learn(slower - 1.0, siblings, noise)
        assert host.c >= 0.0
        assert host.variance >= 0.0


@given(
    st.lists(st.tuples(st.floats(0.0, 30_000.0), st.floats(1e-4, 100.0), st.floats(0.0, 1e5)), min_size=1, max_size=80)
)
@example([(12.0, 0.0078125, 0.0), (0.0, 2.0, 0.0), (49.0, 1.0, 0.0), (0.0, 1.0, 0.0)])
def test_a_line_stays_finite_and_non_negative_whatever_it_sees(samples: list[tuple[float, float, float]]) -> None:
    line, now = Line(0.1, 1e-3, 0.01, 0.0, 1e-6), 0.0
    for x, y, passed in samples:
        now += passed
        assert line.learn(x, y, now) in ("sample", "outlier", "shift")
        assert 0.0 <= line.p < 1e6
        assert 0.0 <= line.q < 1e6
        assert 0.0 <= line.spread(x) < 1e9


def test_an_estimate_says_how_old_it_is_and_where_it_comes_from() -> None:
    model = SpeedModel.from_kernel_table("marlin")
    fresh = model.estimates(0.0)
    assert {fresh["decode_rate"].source, fresh["prefill_rate"].source} == {"kernel table"}
    assert fresh["decode_rate"].age_s is None
    now = serve(model, Truth(), 20, 3)
    learned = model.estimates(now + 60.0)
    assert learned["decode_rate"].source == "learned"
    assert learned["decode_rate"].age_s == pytest.approx(60.0)
    assert learned["decode_rate"].spread < fresh["decode_rate"].spread


def test_idle_hours_make_it_unsure_again_but_not_without_end() -> None:
    model = SpeedModel()
    now = serve(model, Truth(), 100, 4)
    sure = model.predict(now).spread
    model.observe_first_token(now + 10 * 3600, 0.3, 1000)
    model.observe_decode(now + 10 * 3600, 200, 200 * Truth().tpot(1.0), 1.0, 0.0)
    assert sure < model.predict(now + 10 * 3600).spread < 1.0


def test_what_was_learned_survives_a_restart_of_the_router() -> None:
    model = SpeedModel()
    now = serve(model, Truth(), 50, 5)
    again = SpeedModel.from_json(json.loads(json.dumps(model.to_json())))
    assert again.predict(0.0).prefill_rate == model.predict(now).prefill_rate
    assert again.predict(0.0).tpot_a == model.predict(now).tpot_a
    assert again.source == "history"
    serve(again, Truth(), 50, 6)  # and goes on learning
    with pytest.raises((ValueError, TypeError)):
        SpeedModel.from_json(
            {"prefill": {**model.to_json()["prefill"], "p": None}, "decode": model.to_json()["decode"]}
        )


def test_a_changed_build_keeps_the_old_speed_as_a_wide_prior() -> None:
    model, truth = SpeedModel(), Truth(noise=0.03)
    now = serve(model, truth, 100, 6)
    prior = model.as_prior(3.0)
    assert prior.predict(now).tpot_a == model.predict(now).tpot_a
    assert prior.predict(now).spread > 2.0 * model.predict(now).spread
    now = serve(prior, truth.slower(0.7), 6, 7, now)
    assert error(prior, truth.slower(0.7), now) < 0.15


def test_a_prediction_is_the_same_object_until_something_is_learned() -> None:
    model = SpeedModel()
    assert model.predict(0.0) is model.predict(5.0)
    before = model.predict(5.0)
    model.observe_decode(6.0, 100, 2.0, 1.0, 0.0)
    assert model.predict(6.0) is not before


def test_a_sibling_that_learns_about_the_host_changes_this_prediction_too() -> None:
    host = HostModel()
    one, other = SpeedModel(hosts=(host,)), SpeedModel(hosts=(host,))
    before = one.predict(0.0).contention
    other.observe_decode(1.0, 100, 100 * 0.05, 1.0, 1.0)
    assert one.predict(1.0).contention != before


def test_short_prompts_say_nothing_about_the_prefill_rate() -> None:
    dice = random.Random(3)
    model = SpeedModel()
    for number in range(200):
        prompt = dice.randrange(10, 60)
        ttft = 0.8 if number == 0 else (0.035 + prompt / 3000) * dice.gauss(1, 0.1)  # the first compiles something
        model.observe_first_token(3.0 * number, ttft, prompt)
    found = model.estimates(600.0)["prefill_rate"]
    assert abs(found.value - 3000) < 3 * found.spread
    assert found.value > 1000


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_waiting_for_other_prompts_does_not_make_a_backend_look_slower(seed: int) -> None:
    told, untold, truth, dice = SpeedModel(), SpeedModel(), Truth(), random.Random(seed)
    for number in range(150):
        prompt, backlog = dice.choice([200, 800, 2000]), dice.choice([0, 0, 1000, 4000])
        ttft = (truth.overhead + (prompt + backlog) / truth.rate) * dice.lognormvariate(0.0, 0.05)
        told.observe_first_token(5.0 * number, ttft, prompt, backlog)
        untold.observe_first_token(5.0 * number, ttft, prompt)
    right = truth.overhead + 1000 / truth.rate
    assert told.prefill.predict(1000.0) == pytest.approx(right, rel=0.1)
    assert abs(untold.prefill.predict(1000.0) - right) > abs(told.prefill.predict(1000.0) - right)
