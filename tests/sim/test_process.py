"""`router sim` as a process: it listens, restarts as another build when told to, shows its log, ends on SIGTERM."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from router.vllm.kernels import Kernel
from router.vllm.logs import LogReader
from tests.processes import Process, answers, free_port, router_command

pytestmark = pytest.mark.live


def test_a_simulated_server_restarts_as_another_build_and_ends_when_told(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "vllm.log"
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--model", "nano", "--profile", "fast", "--declared", "cutlass", "--log", str(log)]
    process = Process([router_command(), "sim", *options], tmp_path / "out.log", os.environ)
    try:
        process.wait_until(lambda: answers(f"{url}/health"), 20.0)
        before = httpx.get(f"{url}/sim/state", trust_env=False).json()
        fault = {"kind": "restart", "seconds": 0.2, "profile": "vllm-cutlass"}
        httpx.post(f"{url}/sim/fault", json=fault, trust_env=False)
        process.wait_until(lambda: b"CutlassNvFp4LinearKernel" in log.read_bytes(), 20.0)
        process.wait_until(lambda: answers(f"{url}/health"), 20.0)
        after = httpx.get(f"{url}/sim/state", trust_env=False).json()
    finally:
        process.stop()
    assert (before["kernel"], after["kernel"]) == ("MARLIN", "VLLM_CUTLASS")
    assert before["fingerprint"] != after["fingerprint"]
    assert after["started"] > before["started"]
    reader = LogReader()
    reader.feed(log.read_text().splitlines())
    assert reader.identity.moe == Kernel.VLLM_CUTLASS  # of the last start
    assert not process.is_running


def test_the_demo_finds_the_server_that_is_not_what_it_is_believed_to_be(tmp_path: Path) -> None:
    options = ["--once", "--seconds", "3", "--port", str(free_port()), "--admin-port", str(free_port())]
    environ = {**os.environ, "COLUMNS": "160"}
    process = Process([router_command(), "demo", *options], tmp_path / "demo.log", environ)
    try:
        process.wait_until(lambda: "sample traffic:" in process.tail(20_000), 60.0)
    finally:
        process.stop()
    text = process.tail(20_000)
    assert "declared flashinfer_cutlass, runs MARLIN" in text
    assert " 0 failures" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_from_outside_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    command = [router_command(), "demo", "--port", str(port), "--admin-port", str(free_port())]
    process = Process(command, tmp_path / "demo.log", {**os.environ, "TMPDIR": str(tmp_path)})
    try:
        process.wait_until(lambda: "dashboard:" in process.tail(20_000), 60.0)
        assert answers(f"http://127.0.0.1:{port}/health")
        os.kill(process.pid, number)
        deadline = time.monotonic() + 60.0
        while process.is_running and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not process.is_running
    finally:
        process.stop()
    assert list(tmp_path.glob("router-demo-*")) == []
    assert not answers(f"http://127.0.0.1:{port}/health")
