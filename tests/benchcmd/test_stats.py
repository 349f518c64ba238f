"""Intervals against printed tables, against chance, and Holm against its definition."""

import random
from math import exp, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bench.stats import LEAST_PAIRS, holm, mean_of, paired_ratio, t_quantile, t_two_sided

# Upper quantiles of Student's t as printed in statistical tables.
PRINTED = [
    (0.975, 1, 12.7062),
    (0.975, 2, 4.3027),
    (0.975, 4, 2.7764),
    (0.975, 10, 2.2281),
    (0.975, 100, 1.9840),
    (0.95, 3, 2.3534),
    (0.995, 3, 5.8409),
    (0.9995, 2, 31.599),
]


@pytest.mark.parametrize(("share", "df", "printed"), PRINTED)
def test_quantiles_of_t_are_those_of_the_tables(share: float, df: int, printed: float) -> None:
    assert t_quantile(share, df) == pytest.approx(printed, rel=1e-4)
    assert t_quantile(1 - share, df) == pytest.approx(-printed, rel=1e-4)


@given(st.floats(0.501, 0.9999), st.integers(1, 200))
def test_a_quantile_has_the_probability_that_it_was_asked_for(share: float, df: int) -> None:
    assert isclose(t_two_sided(t_quantile(share, df), df), 2 * (1 - share), rel_tol=1e-6)


@pytest.mark.parametrize(("share", "df"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_a_quantile_of_nonsense_is_refused(share: float, df: int) -> None:
    with pytest.raises(ValueError, match="quantile"):
        t_quantile(share, df)


def test_two_rounds_are_too_few_for_an_interval() -> None:
    assert paired_ratio([(2.0, 1.0)] * (LEAST_PAIRS - 1)) is None
    assert paired_ratio([(2.0, 1.0)] * LEAST_PAIRS) is not None


def test_drift_that_both_share_does_not_widen_the_ratio() -> None:
    slower = [(exp(-0.2 * n) * 117.0, exp(-0.2 * n) * 100.0) for n in range(5)]
    found = paired_ratio(slower)
    assert found is not None
    assert found.value == pytest.approx(1.17)
    assert found.high / found.low < 1.01
    alone = mean_of([first for first, _ in slower])
    assert alone is not None
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high / alone.low > 1.5  # the same drift, seen on one backend


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=12))
def test_the_ratio_turned_round_says_the_same(pairs: list[tuple[float, float]]) -> None:
    there, back = paired_ratio(pairs), paired_ratio([(b, a) for a, b in pairs])
    assert there is not None
    assert back is not None
    assert there.inverse.value == pytest.approx(back.value)
    assert there.inverse.low == pytest.approx(back.low)
    assert there.p == pytest.approx(back.p)


def test_a_speed_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)])


@pytest.mark.parametrize("rounds", [3, 5, 8])
def test_95_of_100_intervals_hold_the_truth(rounds: int) -> None:
    dice = random.Random(rounds)
    hits = 0
    for _ in range(2000):
        drift = [dice.gauss(0, 0.1) for _ in range(rounds)]
        found = paired_ratio([(1.2 * exp(d + dice.gauss(0, 0.02)), exp(d + dice.gauss(0, 0.02))) for d in drift])
        assert found is not None
        hits += found.low <= 1.2 <= found.high
    assert 0.935 < hits / 2000 < 0.965


def test_holm_stops_at_the_first_difference_that_falls() -> None:
    assert holm([0.012, 0.001, 0.04, 0.03], 0.05) == [True, True, False, False]  # 0.03 > 0.05 / 2
    assert holm([], 0.05) == []


def test_of_twenty_questions_about_nothing_all_stay_open_nineteen_times_of_twenty() -> None:
    dice = random.Random(1)
    wrong = sum(any(holm([dice.random() for _ in range(20)], 0.05)) for _ in range(2000))
    assert wrong / 2000 < 0.065
