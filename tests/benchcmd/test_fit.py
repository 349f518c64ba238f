"""The line that a bench hands to the speed model: right where it can be, never one that the model would refuse."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bench.fit import LEAST_SPREAD, Prior, fit
from router.policy.speed import SpeedModel

xs = st.lists(st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0]), min_size=3, max_size=20).filter(lambda v: len(set(v)) > 1)


@given(st.floats(1e-3, 1.0), st.floats(1e-5, 0.1), xs)
def test_points_on_a_line_give_that_line(p: float, q: float, at: list[float]) -> None:
    line = fit([(x, p + q * x) for x in at])
    assert line is not None
    for x in at:
        assert line.predict(x) == pytest.approx(p + q * x, rel=1e-6)


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 4.0, 128.0, 4096.0]), st.floats(1e-4, 100.0)), max_size=30))
def test_whatever_was_measured_the_model_takes_it_or_there_is_no_line(points: list[tuple[float, float]]) -> None:
    line = fit(points)
    if len(points) < 3 or len({x for x, _ in points}) < 2:
        assert line is None
        return
    assert line is not None
    document: dict[str, Any] = Prior(line, line, None, len(points)).to_json()
    taken = SpeedModel.from_bench(document["prefill"], document["decode"])
    assert taken.source == "bench"
    assert taken.decode.predict(4.0) == pytest.approx(line.predict(4.0))


def test_a_bench_is_never_surer_than_days_differ() -> None:
    line = fit([(x, 0.01 + 0.004 * x) for x in (1.0, 2.0, 4.0, 8.0, 16.0) for _ in range(10)])
    assert line is not None
    for x in (1.0, 4.0, 16.0):
        assert line.spread(x) >= 0.99 * LEAST_SPREAD * line.predict(x)


def test_traffic_moves_what_a_bench_began_with() -> None:
    line = fit([(x, 0.01 + 0.004 * x) for x in (1.0, 2.0, 4.0, 8.0) for _ in range(5)])
    assert line is not None
    document = Prior(line, line, None, 20).to_json()
    model = SpeedModel.from_bench(document["prefill"], document["decode"])
    before = model.decode.predict(1.0)
    for n in range(12):  # today everything takes a tenth longer
        model.observe_decode(10.0 * n, 200, 200 * 1.1 * before, 1.0, 0.0)
    assert model.decode.predict(1.0) == pytest.approx(1.1 * before, rel=0.03)
