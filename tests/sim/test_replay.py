"""Replaying: every call ends once, the same seed gives the same run, and the outcome says what it should."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from router.cli.simulate import simulate
from router.policy.choose import POLICIES
from router.sim.described import read_fleet
from router.sim.oracle import oracle
from router.sim.replay import Change, Ended, Replay
from router.sim.report import page, summarise
from router.sim.trace import Arrival, at_rate, read, slice_of, synthetic, with_models

FLEETS = sorted((Path(__file__).parents[2] / "config" / "fleets").glob("*.yaml"))
ONE_SPARK = next(path for path in FLEETS if path.stem == "one-spark-three-kernels")


def run(path: Path, policy: str, calls: int = 40, per_s: float = 0.3, **more: object) -> list[Ended]:
    fleet = read_fleet(path)
    arrivals = with_models(at_rate(synthetic(calls, 1), per_s), dict(fleet.traffic), 1)
    return Replay(fleet, arrivals, policy, **more).finish()  # type: ignore[arg-type]


@pytest.mark.parametrize("path", FLEETS, ids=lambda path: path.stem)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_call_ends_once_on_every_fleet_under_every_policy(path: Path, policy: str) -> None:
    ended = run(path, policy)
    assert len(ended) == 40
    assert len({one.at for one in ended}) == 40
    for one in ended:
        assert 0.0 < one.ttft_s <= one.end_s
    assert sum(one.output_tokens for one in ended) == sum(one.output_tokens for one in synthetic(40, 1))


def test_the_same_seed_gives_the_same_run() -> None:
    assert run(ONE_SPARK, "predictive", seed=7) == run(ONE_SPARK, "predictive", seed=7)


def test_on_one_spark_the_predicted_end_beats_spreading() -> None:
    def end(policy: str) -> float:
        return mean(one.end_s for one in run(ONE_SPARK, policy, calls=80))

    assert end("predictive") < 0.9 * min(end("least-in-flight"), end("round-robin"))


def test_the_oracle_is_hard_to_beat() -> None:
    best = mean(one.end_s for one in run(ONE_SPARK, "predictive", calls=80, oracle=oracle))
    assert best < 1.1 * mean(one.end_s for one in run(ONE_SPARK, "predictive", calls=80))


def test_a_backend_that_becomes_slow_loses_its_calls() -> None:
    fleet = next(path for path in FLEETS if path.stem == "two-sparks-two-kernels")
    steady = run(fleet, "predictive", calls=150)
    changed = run(fleet, "predictive", calls=150, changes=[Change(50, "b12x-2", 3.0)])

    def share(ended: list[Ended]) -> float:
        late = sorted(ended, key=lambda one: one.at)[75:]
        return sum(one.backend == "b12x-2" for one in late) / len(late)

    assert share(changed) < 0.5 * share(steady)


def test_a_shared_prefix_is_found_warm() -> None:
    fleet = read_fleet(ONE_SPARK)
    arrivals = [Arrival(20.0 * n, 4096 + n, 20, tuple(range(8))) for n in range(10)]
    ended = Replay(fleet, arrivals).finish()
    assert ended[0].cached_tokens == 0
    assert all(one.cached_tokens >= 4000 for one in ended[2:])
    assert len({one.backend for one in ended}) == 1


# --- traces ---


def test_both_public_kinds_of_trace_are_read(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    lines = tmp_path / "b.jsonl"
    lines.write_text('{"timestamp": 1000, "input_length": 600, "output_length": 0, "hash_ids": [4, 5]}\n')
    first, second = read(table)
    assert (first.at, first.prompt_tokens, first.output_tokens) == (0.0, 374, 44)
    assert second.at == pytest.approx(4.314579)
    assert read(lines) == [Arrival(0.0, 600, 1, (4, 5))]


@pytest.mark.parametrize("text", ["", "when,what\n1,2\n", "TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,2\n"])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line 2|no calls"):
        read(path)


@given(st.integers(2, 200), st.integers(0, 1000), st.floats(0.01, 10.0), st.booleans())
def test_a_slice_keeps_its_order_at_whatever_rate(count: int, seed: int, per_s: float, poisson: bool) -> None:
    calls = at_rate(slice_of(synthetic(300, 3), count, seed, 2000), per_s, seed if poisson else None)
    assert len(calls) == count
    assert poisson or calls[-1].at == pytest.approx((count - 1) / per_s)
    assert all(one.at <= later.at for one, later in pairwise(calls))
    assert max(one.prompt_tokens for one in calls) <= 2000


# --- fleets ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hosts: {}", "needs `backends`"),
        ("backends: {a: {host: x, profile: marlin, model: m}}", "no host x"),
        ("hosts: {x: {}}\nbackends: {a: {host: x, profile: none, model: m}}", "profiles: marlin"),
        ("hosts: {x: {}}\nbackends: {a: {host: x, profile: marlin, model: m, speed: 1}}", "backend a"),
        ("hosts: {x: {}}\nbackends: {a: {host: x, profile: marlin, model: m}}\ntraffic: {n: 1}", "no backend serves"),
        ("hosts: {x: {}}\nbackends: {a: {host: x, profile: marlin, model: m}}\npromise: {soon: 1}", "promise"),
        ("{", "not YAML"),
    ],
)
def test_a_fleet_that_cannot_be_simulated_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_fleet(path)


# --- reports ---


def test_a_summary_counts_broken_promises_and_refusals() -> None:
    fleet = read_fleet(ONE_SPARK)
    ended = run(ONE_SPARK, "predictive")
    one = summarise("predictive", ended, 0, fleet.promise)
    assert one.calls == 36
    assert sum(one.shares.values()) == pytest.approx(1.0)
    assert summarise("predictive", ended, 36, fleet.promise).goodput == pytest.approx(one.goodput / 2)
    assert one.end_p50_s <= one.end_p99_s
    assert one.ttft_error is not None


def test_the_page_needs_nothing_from_elsewhere() -> None:
    fleet = read_fleet(ONE_SPARK)
    ended = run(ONE_SPARK, "predictive")
    text = page("<title>", "about", [summarise("predictive", ended, 0, fleet.promise)], {"predictive": ended})
    assert text.count("<svg") == 3
    assert "http" not in text
    assert "&lt;title&gt;" in text


def command(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(simulate)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout


def test_the_command_prints_json_and_writes_the_page(tmp_path: Path) -> None:
    html = tmp_path / "out.html"
    code, out = command(
        str(ONE_SPARK), "--calls", "40", "--policy", "predictive", "--policy", "oracle", "--json", "--html", str(html)
    )
    assert code == 0
    assert [one["policy"] for one in json.loads(out)["runs"]] == ["predictive", "oracle"]
    assert "</html>" in html.read_text()


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert command(str(ONE_SPARK), "--policy", "best")[0] == 2
    assert command(str(tmp_path / "none.yaml"))[0] == 2
