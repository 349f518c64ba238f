"""`router canary` as an operator types it: what a check will cost, a baseline carried from one router to another."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.processes import LIMIT_S, MODEL, TOKEN, Process, router, sim

NAME = "spark"


@contextmanager
def routed(folder: Path, *faults: str) -> Iterator[Process]:
    """A router before one simulated server whose scheme is known."""
    folder.mkdir()
    fleet = folder / "fleet.yaml"
    with sim(folder, "sim", *faults) as server:
        fleet.write_text(f"backends:\n  - name: {NAME}\n    url: {server.url}\n    scheme: w4a16\n")
        with router(folder, "--config", str(fleet)) as one:
            yield one


def canary(one: Process, *words: str) -> subprocess.CompletedProcess[str]:
    admin = {"ROUTER_ADMIN_URL": f"http://127.0.0.1:{one.admin_port}", "ROUTER_ADMIN_TOKEN": TOKEN, "COLUMNS": "200"}
    command = [sys.executable, "-m", "router", "canary", *words]
    environ = {**os.environ, **admin}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environ)


def test_a_baseline_is_carried_to_another_router_and_speaks_there(tmp_path: Path) -> None:
    file, again = tmp_path / "nano.baseline", tmp_path / "again.baseline"
    with routed(tmp_path / "one") as one:
        nothing = canary(one, "export", "no-such-model", str(file))
        assert (nothing.returncode, file.exists()) == (1, False)
        assert "no-such-model" in nothing.stderr
        planned = canary(one, "run", NAME, "--dry-run")
        assert (planned.returncode, "steps (" in planned.stdout, ", about " in planned.stdout) == (0, True, True)
        checked = canary(one, "run", NAME)
        cost, _, found = checked.stdout.partition("\n")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert cost.startswith(f"{NAME} {MODEL}: ")
        assert ", about " in cost
        assert "plausible" in found
        assert canary(one, "show").stdout.split("\n")[1].startswith(NAME)
        exported = canary(one, "export", MODEL, str(file))
        assert (exported.returncode, " texts of " in exported.stdout) == (0, True)
        build = exported.stdout.replace("\n", " ").partition(", build ")[2].partition(",")[0].strip()
    with routed(tmp_path / "two", "--damage", "1.0") as two:
        broken = tmp_path / "broken.baseline"
        broken.write_bytes(file.read_bytes()[:-100])
        assert canary(two, "import", str(broken)).returncode == 1
        taken = canary(two, "import", str(file))
        assert (taken.returncode, MODEL in taken.stdout) == (0, True)
        assert canary(two, "export", MODEL, str(again), "--build", build).returncode == 0
        assert again.read_bytes() == file.read_bytes()
        flagged = canary(two, "run", NAME)
        assert flagged.returncode == 1, flagged.stdout + flagged.stderr
        assert "flagged" in flagged.stdout
        assert "damage" in flagged.stdout
        assert "flagged" in canary(two, "show", NAME, "--json").stdout


def test_a_canary_command_without_a_router_says_so(tmp_path: Path) -> None:
    environ = {**os.environ, "ROUTER_ADMIN_URL": "http://127.0.0.1:9", "ROUTER_STATE_DIR": str(tmp_path)}
    for words in (("show",), ("export", MODEL, str(tmp_path / "x")), ("allow", NAME), ("run", NAME)):
        command = [sys.executable, "-m", "router", "canary", *words]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environ)
        assert asked.returncode == 3
        assert "is `router serve` running?" in asked.stderr
    assert not (tmp_path / "x").exists()
