"""A real vLLM with damaged weights is found out, loses its traffic, and gets it back when its weights are whole again.

The second server of the stage serves from one folder whose weights change between its starts, so that nothing but the
answers tells one start from the other: same name, same path, same version, same log. Times are printed, never asserted.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.conftest import MODEL, ROOT, Stage
from tests.real.servers import RealRouter, VllmOptions

CHECK_LIMIT_S = 900.0  # a quick check takes about 20 s here; a slow machine may take long, it must only come about
LIFTING = ("clean_check", "within_tolerance", "as_before")


@dataclass(slots=True)
class Weights:
    """A folder that a server loads, and what lies in it now."""

    folder: Path

    def become(self, model: Path) -> None:
        """Put other weights there, under the same path."""
        self.folder.unlink(missing_ok=True)
        self.folder.symlink_to(model, target_is_directory=True)


@dataclass(slots=True)
class Watched:
    """A router with canaries, and what it thinks."""

    router: RealRouter
    file: Path

    def serve(self, stage: Stage, *names: str) -> None:
        """Write the fleet file."""
        servers = {"good": stage.good, "other": stage.other}
        entries = [f'  - {{name: {n}, url: "{servers[n].url}", log: "file:{servers[n].log}"}}\n' for n in names]
        # No other questions than canaries: a slow machine that is idle for minutes would be measured in between.
        speed = "speed: {check_after_s: 0, fixed_workload: false}\n"
        self.file.write_text("backends:\n" + "".join(entries) + speed)

    def subject(self, name: str) -> dict[str, Any]:
        """How a backend stands, with its evidence."""
        done = self.router.command("canary", "show", name, "--json")
        found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return found[0] if found else {"grade": "absent", "checks": 0, "evidence": [], "reason": done.stderr}

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a backend stands as it should; says how it stands where that never comes."""
        deadline = time.monotonic() + CHECK_LIMIT_S
        while not holds(found := self.subject(name)):
            assert time.monotonic() < deadline, f"{name} still stands at {found}"
            time.sleep(1.0)
        return found

    def backends_of(self, calls: int) -> list[str]:
        """Who answers so many calls, one after the other."""
        return [self.call().headers["x-router-backend"] for _ in range(calls)]

    def call(self, pinned: str | None = None) -> httpx.Response:
        ask = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        headers = {"x-router-backend": pinned} if pinned else {}
        answer = httpx.post(f"{self.router.url}/v1/chat/completions", json=ask, headers=headers, timeout=300)
        return answer.raise_for_status()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(tmp_path_factory.mktemp("weights") / "smollm2")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A router that remembers nothing and starts with the first test that needs it."""
    folder = tmp_path_factory.mktemp("watched")
    one = RealRouter(["--config", str(folder / "fleet.yaml")], ROOT, folder / "state")
    yield Watched(one, folder / "fleet.yaml")
    one.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Another router, with a memory of its own: it knows of one server only."""
    folder = tmp_path_factory.mktemp("alone")
    one = RealRouter(["--config", str(folder / "fleet.yaml")], ROOT, folder / "state")
    yield Watched(one, folder / "fleet.yaml")
    one.stop()


def start_other(stage: Stage, weights: Weights, model: Path) -> None:
    """Start the second server anew with these weights behind the same path."""
    stage.other.stop()
    weights.become(model)
    stage.replace(VllmOptions(weights.folder, cores=stage.other.options.cores))


def test_a_server_with_noisy_weights_is_flagged_and_its_traffic_moves(
    stage: Stage, weights: Weights, watched: Watched, note: Callable[[str], None]
) -> None:
    start_other(stage, weights, stage.installed.noisy)
    watched.serve(stage, "good", "other")
    watched.router.start()
    began = time.monotonic()
    found = watched.until("other", lambda one: one["grade"] == "flagged")
    note(f"5 % noise on the weights: {time.monotonic() - began:.0f} s from the router's start to the flag")
    note(f"  {found['reason']}")
    assert watched.subject("good")["grade"] != "flagged"
    assert found["evidence"][-1]["e_value"] > 100 or found["evidence"][-1]["kind"] != "damage"
    assert watched.backends_of(8) == ["good"] * 8


def test_a_clean_server_in_its_place_loses_the_flag_by_evidence(
    stage: Stage, weights: Weights, watched: Watched, note: Callable[[str], None]
) -> None:
    start_other(stage, weights, stage.installed.good)
    began = time.monotonic()
    assert watched.router.command("reload").returncode == 0
    found = watched.until("other", lambda one: one["grade"] not in ("flagged", "unknown", "absent"))
    note(f"clean weights again: {time.monotonic() - began:.0f} s from `router reload` to a lifted flag")
    note(f"  {found['grade']}: {found['reason']}")
    assert {one["kind"] for one in found["evidence"]} & set(LIFTING), "evidence lifted it, not a change of build"
    assert watched.call(pinned="other").headers["x-router-backend"] == "other"
    watched.router.stop()


def test_a_server_alone_is_held_against_its_own_past_and_serves_on_in_a_loud_state(
    stage: Stage, weights: Weights, alone: Watched, note: Callable[[str], None]
) -> None:
    alone.serve(stage, "other")
    alone.router.start()
    before = alone.until("other", lambda one: one["grade"] != "flagged" and one["baseline"] is not None)
    start_other(stage, weights, stage.installed.noisy)
    began = time.monotonic()
    found = alone.until("other", lambda one: one["grade"] in ("flagged", "suspect"))
    note(f"the only server, restarted with noisy weights: {time.monotonic() - began:.0f} s to {found['grade']}")
    note(f"  {found['reason']}")
    assert found["build"] == before["build"], "nothing but the answers has changed"
    assert alone.call().headers["x-router-backend"] == "other", "the only one serves whatever it stands at"
    shown = alone.router.command("status", "other").stdout
    assert found["grade"] in shown, shown
