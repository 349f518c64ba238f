"""The routing study judges fairly: intervals, ties and missed goals are what they say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sim.report import Summary
from tests.study import routing_study as study

RUN = Summary("predictive", 100, 0, 0.95, 30.0, 5.0, 4.0, 12.0, 0.2, 0.9, 0.02, 0.03, 0.4, 0.2, {"a": 1.0})


def results(**goodput: float) -> dict[str, list[Summary]]:
    names = (*study.POLICIES, *study.VARIANTS, "oracle")
    good = {name: goodput.get(name.replace("-", "_"), 0.9) for name in names}
    return {name: [replace(RUN, goodput=good[name] + 0.001 * seed) for seed in range(5)] for name in names}


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8))
def test_whoever_is_never_worse_is_tied_or_better(values: list[float]) -> None:
    assert study.is_tied(values, values, bigger_is_better=True)
    assert study.is_tied([value + 0.1 for value in values], values, bigger_is_better=True)
    assert not study.is_tied([value + 0.1 for value in values], values, bigger_is_better=False)


def test_the_interval_is_students() -> None:
    assert study.interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.963, abs=0.01)


def test_a_missed_goal_is_said_and_by_whom() -> None:
    row = study.verdicts(f"{study.FLEETS[0]}, azure", 0.8, results(predictive=0.8, round_robin=0.85, oracle=0.99))
    assert "round-robin (goodput)" in row[2]
    assert row[3].startswith("**missed**")
    assert "**missed**" in row[4]
    row = study.verdicts(
        f"{study.FLEETS[0]}, azure", 0.8, results(predictive=0.99, round_robin=0.6, least_in_flight=0.7, oracle=0.99)
    )
    assert row[2] == "yes"
    assert row[3].startswith("yes")
    assert "missed" not in row[4]


def test_what_the_oracle_itself_reaches_stands_beside_our_multiple() -> None:
    row = study.verdicts("anywhere", 0.8, results(predictive=0.72, least_in_flight=0.6, round_robin=0.48, oracle=0.96))
    assert row[4].startswith("1.20, 1.50")
    assert row[5] == "1.60, 2.00"  # 0.962 / 0.602, 0.962 / 0.482


def test_each_row_of_a_table_is_whole() -> None:
    rows = study.load_table(results())
    assert len({row.count("|") for row in rows}) == 1
