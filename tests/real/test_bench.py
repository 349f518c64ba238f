"""`router bench` on the two real servers: it ends, counts right, and writes its page."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import router_command
from tests.real.conftest import Stage

LIMIT_S = 1500.0


def test_a_bench_of_two_real_servers_ends_with_its_page(
    stage: Stage, tmp_path: Path, note: Callable[[str], None]
) -> None:
    page = tmp_path / "bench.html"
    urls = [server.url for server in stage.servers]
    brief = ["--quick", "--concurrency", "1", "--siblings", "idle", "--max-minutes", "20"]
    done = subprocess.run(
        [router_command(), "bench", *urls, *brief, "--json", "--html", str(page)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env={**os.environ, "ROUTER_STATE_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found = json.loads(done.stdout)
    assert found["complete"] is True
    kept = [one for one in found["measurements"] if one["kept"]]
    assert len(kept) == 2 * 2 * 3
    for one in kept:
        shape, figures = one["condition"]["shape"], one["figures"]
        assert figures["prompt_tokens"] == pytest.approx(shape["prompt_tokens"], rel=0.1)
        assert figures["tokens"] == shape["answer_tokens"]  # ended by its length, not by the model's whim
        assert figures["cached_share"] < 0.02
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    for sentence in found["verdict"] + found["notes"]:
        note(f"router bench on two real vLLMs: {sentence}")
