"""The table judges as it says: ratios round by round, their median, and nothing where nothing was measured."""

import math

from tests.bench.measure import Sample
from tests.bench.rows import ROWS, Goal, Results, Row, Verdict, cpu_of_a_call, lines


def sample(cpu_us: float) -> Sample:
    return Sample(seconds=1, calls=1000, events=0, errors=0, cpu_s=cpu_us / 1000, others_cores=0, memory_mb=0, told_s=0)


def results(*rounds: dict[str, float]) -> Results:
    return Results([{name: {"plain": sample(us)} for name, us in one.items()} for one in rounds], {})


ROW = Row("cpu", "CPU of a call", "µs", (Goal(2, "nginx"),), cpu_of_a_call("plain"))


def test_a_ratio_is_taken_within_each_round() -> None:
    rounds: list[dict[str, float]] = [
        {"router": 30, "nginx": 20},
        {"router": 300, "nginx": 200},
        {"router": 9, "nginx": 6},
    ]
    (verdict,) = ROW.verdicts(results(*rounds))
    assert math.isclose(verdict.value, 1.5)
    assert verdict.word == "kept"


def test_a_promise_that_is_not_kept_is_said_to_be_missed() -> None:
    (verdict,) = ROW.verdicts(results({"router": 41, "nginx": 20}))
    assert verdict.word == "MISSED"


def test_a_peer_that_is_not_installed_leaves_its_row_unjudged() -> None:
    (verdict,) = ROW.verdicts(results({"router": 41}))
    assert verdict.word == "not measured"


def test_at_least_turns_the_judgement_round() -> None:
    assert Verdict(Goal(2, at_least=True), 2.5).word == "kept"
    assert Verdict(Goal(2, at_least=True), 1.5).word == "MISSED"


def test_every_row_is_in_the_report_even_of_an_empty_run() -> None:
    report = lines(Results([], {}))
    assert [line.key for line in report] == [row.key for row in ROWS]
    assert all(verdict.word == "not measured" for line in report for verdict in line.verdicts)
