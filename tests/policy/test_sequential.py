"""The sequential test: ten thousand right backends, damage of several sizes, and the rules of counting."""

import math
import random
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policy.scoring import Basis, Paired
from router.policy.sequential import (
    ALPHA,
    MOST_EXCESS,
    TOLERANCES,
    WEEK_S,
    SequentialTest,
    Tolerance,
    begin,
    excess,
    observe,
    observe_all,
    renew,
    tolerance_of,
)

TEXTS = 40  # per backend and week in the simulations: what a week of daily quick checks may reach
excesses = st.floats(0.0, 1e5)


def run(draw: Callable[[], float], texts: int = TEXTS, alpha: float = ALPHA) -> tuple[SequentialTest, int]:
    """Observe until flagged or out of texts; also how many it took."""
    test = begin(0.0, alpha)
    for number in range(texts):
        test = observe(test, str(number), draw())
        if test.is_worse:
            break
    return test, test.texts


def spread(dice: random.Random, sigma: float) -> float:
    """A log-normal factor of mean 1."""
    return math.exp(dice.gauss(-sigma * sigma / 2, sigma))


def test_of_ten_thousand_right_backends_no_more_than_alpha_are_flagged() -> None:
    """Each backend sits somewhere up to the edge of the tolerance, each text excites all of them in its own way."""
    dice = random.Random(20261123)
    effects = [spread(dice, 1.0) for _ in range(120)]
    mean = math.fsum(effects) / len(effects)
    flagged = 0
    for _ in range(10_000):
        level = min(1.0, dice.uniform(0.0, 2.0))  # half of them exactly at the edge, the hardest case
        noise = dice.uniform(0.1, 1.5)
        order = iter(dice.sample(effects, TEXTS))
        test, _ = run(lambda: level * next(order) / mean * spread(dice, noise))  # noqa: B023  # used up in this turn
        flagged += test.is_worse
    assert flagged / 10_000 <= ALPHA


def test_rare_large_excursions_at_the_edge_are_not_flagged_more_often_than_alpha() -> None:
    dice = random.Random(7)
    flagged = sum(run(lambda: 50.0 if dice.random() < 0.02 else 0.0)[0].is_worse for _ in range(2_000))
    assert flagged / 2_000 <= ALPHA


@pytest.mark.parametrize(("times", "at_most"), [(2.0, 12), (3.0, 6), (5.0, 4), (10.0, 3), (25.0, 1)])
def test_damage_is_found_after_a_median_of_so_many_texts(times: float, at_most: int) -> None:
    """Damage as a multiple of the tolerance, with the spread over texts that real damage showed (about 0.5)."""
    dice = random.Random(int(times * 100))
    delays = []
    for _ in range(200):
        test, texts = run(lambda: (times * spread(dice, 0.5)) ** 2)
        delays.append(texts if test.is_worse else math.inf)
    assert median(delays) <= at_most


def test_damage_that_begins_after_weeks_of_right_answers_is_found_as_well() -> None:
    test = begin(0.0)
    for number in range(100):
        test = observe(test, f"right {number}", 0.1)
    assert not test.is_worse
    for number in range(6):
        test = observe(test, f"wrong {number}", 25.0)
    assert test.is_worse


@given(st.lists(excesses, max_size=8), st.lists(excesses, max_size=8))
def test_capital_stays_positive_and_its_peak_never_falls(before: list[float], after: list[float]) -> None:
    test = begin(0.0)
    for number, z in enumerate(before + after):
        later = observe(test, str(number), z)
        assert later.bets.peak >= test.bets.peak
        assert later.bets.peak >= later.e_value * (1.0 - 1e-12)
        assert later.e_value > 0.0
        test = later


@given(excesses)
def test_a_fair_bet_neither_gains_nor_loses(z: float) -> None:
    """At E[z] = 1 the mean capital is 1: a coin between 0 and 2 gains exactly what it loses."""
    test = observe(begin(0.0), "a", min(z, 3.0))
    gains = [observe(test, "b", outcome).e_value for outcome in (0.0, 2.0)]
    assert math.fsum(gains) / 2 == pytest.approx(test.e_value)


@given(excesses, excesses)
def test_more_excess_is_more_evidence_and_less_proof(a: float, b: float) -> None:
    low, high = sorted((a, b))
    calm, wild = observe(begin(0.0), "t", low), observe(begin(0.0), "t", high)
    assert calm.e_value <= wild.e_value
    assert calm.proof >= wild.proof


def test_the_same_text_again_adds_nothing() -> None:
    once = observe(begin(0.0), "a", 9.0)
    assert observe(once, "a", 9.0) is once


def test_thirteen_calm_texts_prove_a_build_and_twelve_do_not() -> None:
    test = begin(0.0)
    for number in range(13):
        test = observe(test, str(number), 0.1)
        assert test.is_within == (number >= 12)
    assert not test.is_worse


def test_of_builds_at_the_edge_few_are_proven_right() -> None:
    dice = random.Random(11)
    proven = 0
    for _ in range(1_000):
        test = begin(0.0)
        for number in range(30):
            test = observe(test, str(number), 4.0 if dice.random() < 0.25 else 0.0)
        proven += test.is_within
    assert proven / 1_000 <= 0.05


def test_the_verdict_stands_once_reached() -> None:
    test = observe(begin(0.0), "bad", MOST_EXCESS)
    for number in range(30):
        test = observe(test, str(number), 0.0)
    assert test.is_worse
    assert not test.is_within
    assert test.e_value < test.bets.peak


def test_a_week_later_the_budget_is_fresh() -> None:
    test = observe(begin(0.0, 0.005), "a", 3.0)
    assert renew(test, WEEK_S - 1) is test
    fresh = renew(test, WEEK_S)
    assert fresh.e_value == pytest.approx(1.0)
    assert (fresh.texts, fresh.alpha, fresh.started_s) == (0, 0.005, WEEK_S)


def test_an_excess_is_measured_in_squared_tolerances() -> None:
    tolerance = Tolerance(0.01, 0.1)
    worse = Paired("t", Basis.DISTANCE, 0.4, 0.1)
    assert excess(worse, tolerance) == pytest.approx(4.0)
    assert excess(Paired("t", Basis.DISTANCE, 0.4, -0.3), tolerance) == 0.0
    assert excess(Paired("t", Basis.DISTANCE, 0.0, 99.0), tolerance) == MOST_EXCESS
    assert observe_all(begin(0.0), [worse], tolerance).mean_excess == pytest.approx(4.0)


def test_what_is_not_a_number_is_refused_and_not_averaged() -> None:
    with pytest.raises(ValueError, match="finding"):
        excess(Paired("t", Basis.DISTANCE, 0.4, math.nan), Tolerance(0.01, 0.1))
    for z in (-1.0, math.nan):
        with pytest.raises(ValueError, match="never negative"):
            observe(begin(0.0), "t", z)
    with pytest.raises(ValueError, match="alpha"):
        begin(0.0, 0.0)


def test_a_scheme_that_rounds_activations_is_allowed_more() -> None:
    assert tolerance_of(Basis.DISTANCE, "w4a4").of(0.3) > tolerance_of(Basis.DISTANCE, "w4a16").of(0.3)
    assert set(TOLERANCES) == {(basis, rounds) for basis in Basis for rounds in (False, True)}


def test_a_test_shows_its_state() -> None:
    assert repr(observe(begin(0.0), "a", 1.0)) == "SequentialTest(1 texts, e=1 of 100, z=1)"
