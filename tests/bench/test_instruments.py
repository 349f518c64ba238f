"""The instruments measure what is there: the C programs against each other, without anything between them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import measure
from tests.bench.measure import Bench, Load
from tests.bench.targets import MODEL, Target
from tests.processes import Process, answers, free_ports

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here: deploy/debian.sh bench"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    first = free_ports(2)
    command = [str(measure.build(HERE / "fake_backend.c", folder)), str(first), "2", MODEL]
    backends = Process(command, folder / "backends.log", os.environ)
    backends.wait_until(lambda: answers(f"http://127.0.0.1:{first}/health"), 10, every_s=0.02)
    yield Bench(measure.build(HERE / "load.c", folder), backends.pid, first, min(os.sched_getaffinity(0)))
    backends.stop()


@pytest.fixture
def direct(bench: Bench) -> Target:
    return Target("direct", bench.backend_port)


def test_every_call_is_answered_and_timed(bench: Bench, direct: Target) -> None:
    sample = bench.run(direct, Load(8, 0.2, warm_s=0.1))
    assert sample.errors == 0
    assert sample.calls == sample.quantiles["latency"]["n"] > 0
    assert 0 < sample.us("latency") <= sample.us("latency", "p99")


def test_fast_streams_are_whole(bench: Bench, direct: Target) -> None:
    sample = bench.run(direct, Load(4, 0.3, warm_s=0.1, stream=True, tokens=50))
    assert sample.errors == 0
    assert sample.events >= 50 * (sample.calls - 4)
    assert sample.us("ttft") > 0


def test_paced_streams_keep_their_pace_and_their_end_is_told(bench: Bench, direct: Target) -> None:
    sample = bench.run(direct, Load(10, 0.5, warm_s=0.1, stream=True, tokens=1000, pace_ms=50))
    assert sample.events == pytest.approx(100, abs=12)
    assert sample.told_s < measure.TOLD_LIMIT_S
    assert bench.state()["running"] == 0
