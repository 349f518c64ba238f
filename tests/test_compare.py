"""Builds of different days, set beside each other."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli.main import app
from router.compare import DAY_S, compare, not_comparable, summarize
from router.history import History
from router.history.rows import Build, Hour

START = 1_790_000_000.0 // DAY_S * DAY_S


def build(name: str, kernels: str = "marlin") -> Build:
    return Build(name, "spark", "ckpt", kernels, "0.33.0", "", "", first_seen=START, last_seen=START + DAY_S)


def days(name: str, tpot_s: float, ttft_s: float, first_day: int, count: int = 3, seed: int = 1) -> list[Hour]:
    """Hours of a build: each day has its own factor of about 3 %."""
    dice = random.Random(seed + first_day)
    found = []
    for day in range(first_day, first_day + count):
        factor = dice.gauss(1.0, 0.03)
        at = START + day * DAY_S + 3600.0
        found.append(
            Hour("spark", "m", name, at, 50, 0, 5000, 5000, 0, 50 * ttft_s * factor, 50, 50 * tpot_s * factor, 50)
        )
    return found


def test_a_faster_build_of_another_day_is_found() -> None:
    hours = days("old", 0.020, 0.5, 0) + days("new", 0.014, 0.5, 10)
    a, b = (summarize(build(name), hours, [], []) for name in ("old", "new"))
    decode, ttft = compare(a, b)
    assert decode.low < 0.020 / 0.014 < decode.high
    assert "faster" in decode.words
    assert "no difference" in ttft.words


def test_the_same_build_twice_is_no_difference_in_most_seeds() -> None:
    wrong = 0
    for seed in range(100):
        hours = days("old", 0.02, 0.5, 0, seed=seed) + days("new", 0.02, 0.5, 10, seed=seed)
        a, b = (summarize(build(name), hours, [], []) for name in ("old", "new"))
        wrong += any("faster" in one.words for one in compare(a, b))
    assert wrong <= 25  # two figures of three days each, at 95 %


def test_one_day_each_needs_more_than_the_spread_between_days() -> None:
    hours = days("old", 0.020, 0.5, 0, 1) + days("new", 0.0185, 0.5, 1, 1)
    a, b = (summarize(build(name), hours, [], []) for name in ("old", "new"))
    assert "no difference" in compare(a, b)[0].words


def test_a_throttled_box_is_named_and_not_compared() -> None:
    hours = days("old", 0.020, 0.5, 0) + days("new", 0.030, 0.75, 10)
    a, b = (summarize(build(name), hours, [], []) for name in ("old", "new"))
    assert "clock-capped" in (not_comparable(a, b) or "")
    other = summarize(build("new", "vllm_cutlass"), hours, [], [])
    assert not_comparable(a, other) is None


def test_both_commands_read_the_history_file(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    kept = History(file, lambda notice: None, lambda: START)
    for name, tpot in (("aaaa11112222", 0.02), ("bbbb11112222", 0.012)):
        kept.keep(build(name))
        for hour in days(name, tpot, 0.5, 0 if name[0] == "a" else 10):
            kept.keep(hour)
    assert kept.settle()
    kept.close()
    runner = CliRunner()
    shown = runner.invoke(app, ["history", "m", "--file", str(file)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "aaaa1111" in shown.output
    verdict = runner.invoke(app, ["compare", "aaaa", "bbbb", "--file", str(file)], env={"COLUMNS": "200"})
    assert "faster" in verdict.output
    assert runner.invoke(app, ["compare", "cccc", "bbbb", "--file", str(file)]).exit_code == 2


@pytest.mark.parametrize("command", ["history", "compare"])
def test_help_has_an_example(command: str) -> None:
    assert "Example" in CliRunner().invoke(app, [command, "--help"]).output
