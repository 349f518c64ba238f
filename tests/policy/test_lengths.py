"""Lengths: bytes per token and answers are learned per model, session and mode, and never pass what is allowed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.lengths import Calibration, LengthModel


@given(st.floats(1.0, 10.0), st.integers(0, 1000))
def test_bytes_per_token_are_learned_from_usage(per_token: float, seed: int) -> None:
    model, dice = LengthModel(), random.Random(seed)
    for _ in range(60):
        tokens = dice.randrange(50, 5000)
        model.observe_prompt(int(tokens * per_token * dice.uniform(0.9, 1.1)), tokens)
    assert model.prompt_tokens(int(1000 * per_token)) == pytest.approx(1000, rel=0.1)


def test_a_very_short_prompt_teaches_nothing_since_it_is_mostly_template() -> None:
    model = LengthModel()
    before = model.prompt_tokens(1000)
    for _ in range(20):
        model.observe_prompt(10, 60)
    assert model.prompt_tokens(1000) == before


@given(st.lists(st.integers(1, 100_000), max_size=40), st.integers(1, 50_000))
def test_an_expected_answer_never_passes_what_the_client_allows(answers: list[int], most: int) -> None:
    model = LengthModel()
    for tokens in answers:
        model.observe_output(None, None, tokens)
    assert 0.0 < model.output_tokens(None, None, most) <= most


def test_thinking_and_not_thinking_are_expected_apart() -> None:
    model = LengthModel()
    for _ in range(40):
        model.observe_output(None, True, 2000)
        model.observe_output(None, False, 100)
    assert model.output_tokens(None, True, None) == pytest.approx(2000, rel=0.1)
    assert model.output_tokens(None, False, None) == pytest.approx(100, rel=0.1)


def test_a_session_that_was_seen_is_expected_to_go_on_as_it_did() -> None:
    model = LengthModel()
    for _ in range(30):
        model.observe_output("long", None, 1000)
        model.observe_output("short", None, 50)
    assert model.output_tokens("long", None, None) == pytest.approx(1000, rel=0.1)
    assert model.output_tokens("short", None, None) == pytest.approx(50, rel=0.1)
    assert 50 < model.output_tokens("new", None, None) < 1000


def test_sessions_are_bounded() -> None:
    model = LengthModel()
    for number in range(6000):
        model.observe_output(str(number), None, 10)
    assert len(model.sessions) <= 4096
    assert "5999" in model.sessions


@given(st.floats(0.1, 10.0), st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60))
def test_calibration_says_by_how_much_predictions_are_off(factor: float, predictions: list[float]) -> None:
    calibration = Calibration()
    for predicted in predictions:
        calibration.observe(predicted, factor * predicted)
    assert calibration.bias == pytest.approx(factor)
    assert 1.0 + calibration.error == pytest.approx(max(factor, 1.0 / factor))


def test_calibration_needs_both_numbers() -> None:
    calibration = Calibration()
    for pair in ((None, 1.0), (1.0, None), (0.0, 1.0), (1.0, 0.0)):
        calibration.observe(*pair)
    assert calibration.samples == 0
    assert calibration.bias == 1.0
