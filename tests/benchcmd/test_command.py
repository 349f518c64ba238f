"""`router bench` as a person runs it: real servers, real sockets, a real Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.vllm.metrics import parse
from tests.processes import Process, answers, free_port, router_command

pytestmark = pytest.mark.live
TOKEN = "bench-test-token"
BRIEF = ("--quick", "--concurrency", "1,2", "--siblings", "idle")


@dataclass(slots=True)
class Stage:
    """Simulated servers and perhaps a router, in a folder of their own."""

    folder: Path
    running: list[Process]

    def start(self, *command: str, name: str, ready: str, **environ: str) -> Process:
        process = Process(
            [router_command(), *command], self.folder / f"{name}.log", {**os.environ, **self.environ, **environ}
        )
        self.running.append(process)
        process.wait_until(lambda: answers(ready), 60.0)
        return process

    @property
    def environ(self) -> dict[str, str]:
        return {"ROUTER_STATE_DIR": str(self.folder / "state"), "ROUTER_ADMIN_TOKEN": TOKEN, "COLUMNS": "160"}

    def sim(self, name: str, profile: str = "fast") -> str:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = ("sim", "--port", str(port), "--model", "nano", "--profile", profile)
        self.start(*command, name=name, ready=f"{url}/health")
        return url

    def bench(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [router_command(), "bench", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environ, **environ},
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, [])
    yield stage
    for process in reversed(stage.running):
        process.stop()


def finished(process: subprocess.Popen[str], within_s: float = 240.0) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=within_s)
    return process.returncode, out, err


def test_two_urls_are_compared_without_a_router_and_a_page_is_written(stage: Stage) -> None:
    a, b = stage.sim("a"), stage.sim("b", "b12x")
    page = stage.folder / "bench.html"
    brief = ("--quick", "--concurrency", "1", "--siblings", "idle")
    code, out, err = finished(stage.bench(a, b, *brief, "--json", "--html", str(page)))
    assert code == 0, err
    found = json.loads(out)
    assert found["complete"] is True
    main = next(one for one in found["comparisons"] if one["what"] == "decode after a short prompt, c=1")
    assert main["winner"] == a.removeprefix("http://")  # a toy that is many times faster than any real engine
    assert len([one for one in found["measurements"] if one["kept"]]) == 2 * 2 * 3
    assert re.search(r"\d+ calls, about \d+", err)  # the cost was said before it began
    assert "round 3 of 3" in err
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_dead_url_is_reported_and_the_other_is_measured(stage: Stage) -> None:
    alive, dead = stage.sim("a"), f"http://127.0.0.1:{free_port()}"
    code, out, err = finished(stage.bench(alive, dead, *BRIEF))
    assert code == 1, err
    name = dead.removeprefix("http://")
    assert f"{name} was not measured to the end, which makes it no loser" in out
    assert "incomplete: not every backend could be asked" in out
    assert "prefill, c=1" in out


def test_ctrl_c_keeps_what_was_measured(stage: Stage) -> None:
    a, b = stage.sim("a"), stage.sim("b")
    process = stage.bench(a, b, "--quick", "--repeats", "50", "--concurrency", "1", "--siblings", "idle", "--json")
    until = time.monotonic() + 120
    while served(a) < 15 and time.monotonic() < until:  # warm-ups are four to eight of them
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert code == 1, err
    found = json.loads(out)
    assert (found["complete"], found["stopped"]) == (False, "interrupted")
    assert 2 <= len(found["measurements"]) < 200
    for url in (a, b):  # and the servers are left in peace
        assert httpx.get(f"{url}/sim/state", timeout=120).json()["running"] == 0


def served(url: str) -> float:
    """Calls that a server finished."""
    return sum(parse(httpx.get(f"{url}/metrics", timeout=120).content).success_by_reason.values())


def fleet(folder: Path, **urls: str) -> Path:
    file = folder / "fleet.yaml"
    lines = [f"  - {{name: {name}, url: '{url}', host: {name}}}" for name, url in urls.items()]
    file.write_text("\n".join(["backends:", *lines]) + "\n", encoding="utf-8")
    return file


def test_backends_of_a_router_begin_from_what_was_measured(stage: Stage) -> None:
    file = fleet(stage.folder, a=stage.sim("a"), b=stage.sim("b"))
    port, admin = free_port(), free_port()
    url = f"http://127.0.0.1:{admin}"
    where = {"ROUTER_PORT": str(port), "ROUTER_ADMIN_PORT": str(admin), "ROUTER_ADMIN_URL": url}
    stage.start("serve", "--config", str(file), name="router", ready=f"{url}/readyz", **where)
    code, out, err = finished(stage.bench(*BRIEF, ROUTER_ADMIN_URL=url))
    assert code == 0, out + err
    assert "a: the router's estimate begins from this bench, kept with its build" in out
    status: dict[str, Any] = httpx.get(
        f"{url}/api/status", headers={"authorization": f"Bearer {TOKEN}"}, timeout=120
    ).json()
    for backend in status["backends"]:
        speed = backend["models"][0]["speed"]
        assert speed["prefill_rate"]["source"] in ("bench", "learned")
        assert speed["decode_rate"]["value"] > 100  # of the toy, beyond any prior


def test_what_cannot_be_measured_is_refused_with_a_reason(stage: Stage) -> None:
    alive, dead = stage.sim("a"), f"http://127.0.0.1:{free_port()}"
    cases = {
        (dead, "--yes"): (2, "nobody can be measured"),
        (alive, f"{alive}/", "--yes"): (2, "stands there twice"),
        (alive, "a-name"): (2, "not both"),
        (alive, "--concurrency", "1,64"): (2, "from 1 to 16"),
        (alive, "--model", "huge"): (2, "does not serve huge; it serves nano"),
        (alive,): (1, "Begin?"),
    }
    for arguments, (code, said) in cases.items():
        found = finished(stage.bench(*arguments), 60.0)
        assert found[0] == code, found
        assert said in found[1] + found[2]
    code, _, err = finished(stage.bench(ROUTER_ADMIN_URL=dead), 60.0)
    assert (code, "no router answers" in err) == (3, True)
    code, out, _ = finished(stage.bench(alive, "--dry-run"), 60.0)
    assert (code, "calls, about" in out) == (0, True)
