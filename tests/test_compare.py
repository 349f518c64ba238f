"""Builds of different days set beside each other, from values to the commands on a real history file."""

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router.bench.fixed import DECODE, DECODE_FOUR, PREFILL
from router.builds import BENCH, FIXED, Rows, figure_of, rates_of, slow_days, summaries
from router.cli.main import app
from router.compare import compare, not_comparable, remarks
from router.history import History
from router.history.rows import BenchDay, Build, Hour, Incident, Load, Row, Verdict

DAY_S = 86_400.0
START = 1_790_000_000.0 // DAY_S * DAY_S
MARLIN = {DECODE: 50.0, DECODE_FOUR: 120.0, PREFILL: 2800.0}  # profile A: decodes faster
CUTLASS = {DECODE: 42.6, DECODE_FOUR: 108.0, PREFILL: 3670.0}  # profile B: prefills faster


def build(name: str, kernels: str = "marlin", backend: str = "spark", host: str = "one") -> Build:
    return Build(name, backend, "ckpt", kernels, "0.33.0", "", "", host, first_seen=START, last_seen=START + DAY_S)


def measured(
    name: str,
    figures: Mapping[str, float],
    days: range,
    seed: int = 1,
    spread: float = 0.03,
    clock: float | None = None,
    backend: str = "spark",
) -> list[BenchDay]:
    """The fixed workload on these days; each day has a factor of its own."""
    dice = random.Random(f"{seed} {name}")
    found = []
    for day in days:
        at = START + day * DAY_S + 3600.0
        date = f"{2026 + day // 28:04d}-09-{1 + day % 28:02d}"
        noisy = {key: value * dice.gauss(1.0, spread) for key, value in figures.items()}
        found.append(BenchDay(backend, "m", name, date, FIXED, at, noisy, clock))
    return found


def hours(name: str, tpot_s: float, ttft_s: float, days: range, backend: str = "spark") -> list[Hour]:
    return [
        Hour(backend, "m", name, START + day * DAY_S, 50, 1, 5000, 5000, 0, 50 * ttft_s, 50, 50 * tpot_s, 50)
        for day in days
    ]


def two(rows: Rows) -> tuple[Any, Any]:
    a, b = summaries(rows)
    return a, b


OLD, NEW = build("old"), build("new", "vllm_cutlass")


# --- verdicts ---


def test_yesterdays_profile_and_todays_are_told_apart_where_they_differ_enough() -> None:
    benches = measured("old", MARLIN, range(1)) + measured("new", CUTLASS, range(1, 2))
    found = {one.name: one for one in compare(*two(Rows([OLD, NEW], benches=benches)))}
    for name in MARLIN:
        assert found[name].low < CUTLASS[name] / MARLIN[name] < found[name].high, name
    assert "prefills 1.3" in found[PREFILL].words
    assert "vllm_cutlass" in found[PREFILL].words
    assert "no difference" in found[DECODE_FOUR].words, "10 % between two days says nothing yet"


def test_three_days_of_each_find_what_one_day_could_not() -> None:
    benches = measured("old", MARLIN, range(4), spread=0.01) + measured("new", CUTLASS, range(4, 8), spread=0.01)
    found = {one.name: one for one in compare(*two(Rows([OLD, NEW], benches=benches)))}
    assert "marlin on 0.33.0 (old) decodes one stream 1.1" in found[DECODE].words
    assert "faster" in found[DECODE_FOUR].words


@pytest.mark.parametrize("days", [1, 3, 5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(days: int) -> None:
    held = wrong = 0
    for seed in range(300):
        benches = measured("old", MARLIN, range(days), seed, 0.05) + measured(
            "new", MARLIN, range(9, 9 + days), seed, 0.05
        )
        (found, *_) = compare(
            *two(Rows([OLD, NEW], benches=[replace(b, figures={DECODE: b.figures[DECODE]}) for b in benches]))
        )
        held += found.low <= 1.0 <= found.high
        wrong += "faster" in found.words
    assert held + wrong == 300
    assert held / 300 >= 0.90, "95 % is promised; the spread of a single day is assumed, and larger than this one"


def test_what_was_measured_by_other_work_is_not_mixed_up() -> None:
    lines = {"prefill.p": 0.1, "prefill.q": 1 / 3000, "decode.p": 0.015, "decode.q": 0.005}
    assert rates_of(lines) == pytest.approx({PREFILL: 3000.0, DECODE: 50.0, DECODE_FOUR: 4 / 0.035})
    bench = BenchDay("spark", "m", "new", "2026-09-09", BENCH, START, lines)
    alone = measured("old", MARLIN, range(1))
    assert compare(*two(Rows([OLD, NEW], benches=[*alone, bench]))) == []
    both = [*alone, bench, replace(bench, build="old")]
    assert {one.source for one in compare(*two(Rows([OLD, NEW], benches=both)))} == {BENCH}
    assert rates_of({}) == {}


def test_traffic_is_shown_beside_and_called_what_it_is() -> None:
    rows = Rows([OLD, NEW], hours=hours("old", 0.020, 0.5, range(3)) + hours("new", 0.014, 0.5, range(10, 13)))
    decode, ttft = compare(*two(rows))
    assert decode.low < 0.020 / 0.014 < decode.high
    assert "in traffic" in decode.words
    assert "no difference" in ttft.words


# --- the box ---


def test_a_day_on_which_everything_on_the_box_was_slower_is_left_out_and_named() -> None:
    slow = {name: 0.7 * value for name, value in MARLIN.items()}
    other = build("other", "marlin", "second")
    benches = (
        measured("old", MARLIN, range(3))
        + measured("old", slow, range(3, 4))
        + measured("other", CUTLASS, range(3), backend="second")
        + measured("other", {name: 0.7 * value for name, value in CUTLASS.items()}, range(3, 4), backend="second")
        + measured("new", {name: 0.7 * value for name, value in CUTLASS.items()}, range(3, 4))
    )
    rows = Rows([OLD, other, NEW], benches=benches)
    assert list(slow_days(rows)) == [("one", "2026-09-04")]
    old, _, new = summaries(rows)
    assert old.figures[FIXED][DECODE].value == pytest.approx(50.0, rel=0.06)
    assert "hot or clock-capped box in the days of the second, not comparable" in (not_comparable(old, new) or "")
    assert any("2026-09-04 is left out of the first" in one for one in remarks(old, new))


def test_a_build_that_is_slower_at_everything_while_others_are_not_is_compared() -> None:
    slow = {name: 0.7 * value for name, value in MARLIN.items()}
    other = build("other", "marlin", "second")
    benches = (
        measured("old", MARLIN, range(3))
        + measured("other", CUTLASS, range(6), backend="second")
        + measured("new", slow, range(3, 6))
    )
    rows = Rows([OLD, other, NEW], benches=benches)
    assert slow_days(rows) == {}
    old, _, new = summaries(rows)
    assert not_comparable(old, new) is None
    assert all("faster" in one.words and "(old)" in one.words.split(" faster")[0] for one in compare(old, new))


def test_a_day_on_another_box_says_nothing_of_this_one() -> None:
    slow = {name: 0.7 * value for name, value in MARLIN.items()}
    far = build("far", "marlin", "spark-2", "two")
    rows = Rows(
        [OLD, far],
        benches=measured("far", MARLIN, range(2), backend="spark-2")
        + measured("far", slow, range(2, 3), backend="spark-2")
        + measured("old", MARLIN, range(3)),
    )
    assert list(slow_days(rows)) == [("two", "2026-09-03")]


def test_a_capped_clock_speaks_where_nothing_else_was_measured() -> None:
    slow = {name: 0.7 * value for name, value in CUTLASS.items()}
    benches = measured("old", MARLIN, range(1), clock=2400.0) + measured("new", slow, range(1, 2), clock=1500.0)
    old, new = two(Rows([OLD, NEW], benches=benches))
    assert "1500 MHz, 2400 on other days" in (not_comparable(old, new) or "")
    same = measured("old", MARLIN, range(1), clock=2400.0) + measured("new", slow, range(1, 2), clock=2380.0)
    assert not_comparable(*two(Rows([OLD, NEW], benches=same))) is None
    warm = measured("old", MARLIN, range(1), clock=2400.0) + measured("new", slow, range(1, 2), clock=2230.0)
    assert any("2400 MHz for the first and 2230" in one for one in remarks(*two(Rows([OLD, NEW], benches=warm))))


def test_the_same_kernels_slower_at_both_were_not_the_reason() -> None:
    slow = {name: 0.7 * value for name, value in MARLIN.items()}
    benches = measured("old", MARLIN, range(1)) + measured("new", slow, range(1, 2))
    assert "the same kernels" in (not_comparable(*two(Rows([OLD, build("new")], benches=benches))) or "")
    assert not_comparable(*two(Rows([OLD, NEW], benches=benches))) is None
    rows = Rows([OLD, build("new")], hours=hours("old", 0.02, 0.5, range(3)) + hours("new", 0.03, 0.75, range(10, 13)))
    assert "the same kernels" in (not_comparable(*two(rows)) or "")


# --- what is counted ---


def test_a_build_known_in_part_is_the_one_that_it_turned_out_to_be() -> None:
    """The first call tells a fingerprint, the log its kernel: until then the build has another id."""
    first = replace(build("part"), kernels="unknown")
    better = replace(build("better"), first_seen=START + 5.0)
    whole = replace(build("whole"), fingerprint="vllm-0.33.0-a", first_seen=START + 9.0)
    later = replace(build("later"), fingerprint="vllm-0.33.0-b", first_seen=START + DAY_S)
    other = replace(build("other", kernels="vllm_cutlass"), fingerprint="vllm-0.33.0-c", first_seen=START - 3.0)
    rows = Rows(
        builds=[other, first, better, whole, later],
        hours=[
            one for name in ("part", "better", "whole", "later", "other") for one in hours(name, 0.02, 0.1, range(1))
        ],
    )
    found = {one.build.id: one.calls for one in summaries(rows)}
    one_day = found["later"]
    assert found == {"other": one_day, "whole": 3 * one_day, "later": one_day}


def test_a_measurement_that_went_along_to_the_completed_build_counts_once() -> None:
    """What is kept under both ids is one day, not two that agree: those would make a narrow interval of nothing."""
    part, whole = build("part"), replace(build("whole"), fingerprint="vllm-0.33.0-a", first_seen=START + 9.0)
    days = measured("part", {DECODE: 60.0, PREFILL: 2000.0}, range(2))
    both = Rows(builds=[part, whole], benches=[*days, *(replace(one, build="whole") for one in days)])
    alone = Rows(builds=[whole], benches=[replace(one, build="whole") for one in days])
    assert [one.figures for one in summaries(both)] == [one.figures for one in summaries(alone)]


def test_builds_that_never_say_more_stay_apart() -> None:
    rows = Rows(
        builds=[build("a"), build("b", kernels="vllm_cutlass")],
        hours=[*hours("a", 0.02, 0.1, range(1)), *hours("b", 0.02, 0.1, range(1))],
    )
    assert [one.build.id for one in summaries(rows)] == ["a", "b"]


def test_an_outage_is_an_ejection_and_its_restart_and_nothing_that_was_asked_for() -> None:
    incidents = [
        Incident("spark", "old", START, "ejected", "refused the connection"),
        Incident("spark", "old", START + 900, "restart"),
        Incident("spark", "old", START + 50_000, "ejected", "ejected by the operator: new cable"),
        Incident("spark", "old", START + 90_000, "restart"),
        Incident("spark", "old", START + 99_000, "build", "was x"),
        Incident("spark", "new", START, "ejected", "hangs"),
    ]
    rows = Rows([OLD], incidents=incidents, verdicts=[Verdict("spark", "m", "old", START, "quick", "good", 0.1, 7)])
    (old,) = summaries(rows)
    assert (old.outages, old.restarts, old.quality, old.calls) == (2, 2, "good", 0)


def test_three_days_that_agree_by_chance_are_not_exact() -> None:
    assert figure_of([50.0, 50.0, 50.0]).spread == pytest.approx(0.75)
    assert figure_of([50.0]).spread == pytest.approx(3.5)


# --- the commands ---


def written(folder: Path, *rows: Row) -> str:
    """A history file as the router leaves it."""
    file = folder / "history.sqlite"
    kept = History(file, lambda notice: None, lambda: START)
    for row in rows:
        kept.keep(row)
    assert kept.settle()
    kept.close()
    return str(file)


def run(*words: str, columns: int = 200) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": str(columns)})


A, B = build("aaaa11112222"), build("bbbb33334444", "vllm_cutlass")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(
        tmp_path,
        A,
        B,
        *measured(A.id, MARLIN, range(3), clock=2400.0),
        *measured(B.id, CUTLASS, range(3, 6), clock=2400.0),
        *hours(A.id, 0.02, 0.5, range(2)),
        Load("spark", A.id, START, 700.0),
        Load("spark", A.id, START + DAY_S, 900.0),
    )


def test_history_shows_measured_builds_though_nobody_called_them(file: str) -> None:
    shown = run("history", "m", "--file", file)
    assert shown.exit_code == 0, shown.output
    for word in ("aaaa11", "bbbb33", "spark · marlin · 0.33.0 · one", "13 min", "100/2h"):
        assert word in shown.output
    narrow = run("history", "m", "--file", file, columns=80)
    assert max(map(len, narrow.output.splitlines())) <= 80
    assert "…" not in narrow.output
    (first, second) = json.loads(run("history", "m", "--file", file, "--json").output)
    assert first["figures"][FIXED][PREFILL]["days"] == 3
    assert (first["load_s"], second["calls"]) == (800.0, 0)


def test_compare_names_winners_and_shows_what_was_kept(file: str) -> None:
    shown = run("compare", "aaaa", "bbbb", "--file", file)
    assert shown.exit_code == 0, shown.output
    assert "decodes one stream 1.1" in shown.output
    assert "vllm_cutlass on 0.33.0 (bbbb33) prefills 1." in shown.output
    assert "2400 MHz" in shown.output
    document = json.loads(run("compare", "aaaa", "bbbb", "--file", file, "--json").output)
    assert document["not_comparable"] is None
    assert {one["name"] for one in document["figures"]} == set(MARLIN)


def test_the_same_build_beside_itself_is_no_difference(file: str) -> None:
    shown = run("compare", "aaaa", "aaaa", "--file", file)
    assert shown.output.count("no difference") == 5
    assert "faster" not in shown.output


def test_an_unknown_build_is_answered_with_those_there_are(file: str) -> None:
    shown = run("compare", "aaaa", "cccc", "--file", file)
    assert shown.exit_code == 2
    assert "no build begins with cccc" in shown.output
    assert "bbbb3333  spark · vllm_cutlass" in shown.output


def test_a_file_without_any_build_says_what_is_kept_when(tmp_path: Path) -> None:
    shown = run("history", "m", "--file", written(tmp_path))
    assert "holds nothing of m yet" in shown.output
    assert run("compare", "a", "b", "--file", str(tmp_path / "history.sqlite")).exit_code == 2


def test_builds_without_anything_alike_get_no_verdict(tmp_path: Path) -> None:
    shown = run(
        "compare",
        "aaaa",
        "bbbb",
        "--file",
        written(tmp_path, A, B, *measured(A.id, MARLIN, range(1)), *hours(B.id, 0.02, 0.5, range(1))),
    )
    assert shown.exit_code == 0, shown.output
    assert "nothing was measured of both alike" in shown.output


@pytest.mark.parametrize("command", ["history", "compare"])
def test_help_has_an_example(command: str) -> None:
    assert f"router {command} " in CliRunner().invoke(app, [command, "--help"]).output.split("Example")[1]
