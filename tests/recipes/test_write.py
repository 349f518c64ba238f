"""Compose files, units and fleet files: what is in them, and that those in `deploy/` are the written ones."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.fleetfile import load, parse
from router.recipes.models import MODELS
from router.recipes.recipe import Recipe, Wish, plan
from router.recipes.shipped import shipped
from router.recipes.write import LOGGING, compose, fleet, systemd
from router.vllm.kernels import Kernel, Version

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = shipped()
COMPOSE_FILES = [name for name in FILES if not name.startswith("fleet/")]
NANO, _, QWEN, _ = MODELS


def three() -> Recipe:
    kernels = (Kernel.MARLIN, Kernel.VLLM_CUTLASS, Kernel.FLASHINFER_CUTLASS)
    return plan(Wish(NANO, kernels, Version(0, 33), (8000, 8001, 8002)))


def read(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_lies_in_deploy_is_what_the_recipes_write(name: str) -> None:
    again = "write it again: python -m router.recipes.shipped deploy"
    assert (DEPLOY / name).read_text("utf-8") == FILES[name], again


def test_nothing_lies_in_deploy_that_no_recipe_writes() -> None:
    assert {f"recipes/{path.name}" for path in (DEPLOY / "recipes").iterdir()} == {
        name for name in FILES if name.startswith("recipes/")
    }


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_written_line_is_too_long_to_read(name: str) -> None:
    assert all(len(line) <= 120 for line in FILES[name].splitlines())


@pytest.mark.parametrize("name", sorted(COMPOSE_FILES))
def test_docker_compose_accepts_what_is_written(name: str) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("docker compose v2 is not installed here: compose files were only read as YAML")
    done = subprocess.run(
        [*command, "-f", str(DEPLOY / name), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run(
            [*command, "version", "--short"], capture_output=True, text=True, timeout=180, check=False
        )
        if asked.returncode == 0 and asked.stdout.strip().lstrip("v")[:2] in ("2.", "3.", "4.", "5."):
            return command
    return None


@pytest.mark.parametrize("name", sorted(COMPOSE_FILES))
def test_servers_start_strictly_one_after_the_other(name: str) -> None:
    services = {key: one for key, one in read(FILES[name])["services"].items() if "entrypoint" in one}
    before = None
    for key, one in services.items():
        assert one.get("depends_on") == ({before: {"condition": "service_healthy"}} if before else None)
        assert one["healthcheck"]["start_period"].endswith("s")
        assert one["restart"] == "on-failure"  # "always" would start all of them at once after a reboot
        before = key


@pytest.mark.parametrize("name", sorted(COMPOSE_FILES))
def test_everything_that_is_used_is_declared(name: str) -> None:
    document = read(FILES[name])
    for one in document["services"].values():
        sources = [volume.split(":")[0] for volume in one.get("volumes", ()) if not volume.startswith((".", "$"))]
        assert set(sources) <= set(document["volumes"])
        assert {part["source"] for part in one.get("configs", ())} <= set(document["configs"])
    ports = [port.rsplit(":", 1)[0] for one in document["services"].values() for port in one["ports"]]
    assert len(set(ports)) == len(ports)


def test_the_fleet_file_knows_each_server_by_its_service_on_one_host() -> None:
    config = parse(fleet(three(), in_containers=True), "fleet", {})
    services = read(compose(three()))["services"]
    for backend in config.backends:
        assert backend.url == f"http://{backend.name}:8000"
        assert backend.name in services
        assert backend.host == ("spark-1",)
    assert config.targets("default") == (NANO.name,)


def test_the_fleet_file_in_deploy_is_one_that_loads() -> None:
    assert len(load(DEPLOY / "fleet" / "fleet.yaml", {}).backends) == 3


def test_the_router_reads_each_log_where_its_server_writes_it() -> None:
    document = read(compose(three(), inline=True))
    mounts = dict(volume.split(":")[:2] for volume in document["services"]["router"]["volumes"])
    assert mounts["marlin-log"] == "/var/log/vllm/marlin"
    assert "marlin-log:/var/log/vllm" in document["services"]["marlin"]["volumes"]
    written = json.loads(document["configs"]["vllm-logging"]["content"])
    assert written == LOGGING
    assert written["handlers"]["file"]["filename"] == "/var/log/vllm/server.log"
    (first, *_) = parse(document["configs"]["fleet"]["content"].replace("$$", "$"), "fleet", {}).backends
    assert first.log == "file:/var/log/vllm/marlin/server.log"


def test_the_router_finds_its_file_and_keeps_its_state_where_its_image_has_them() -> None:
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text("utf-8")
    router = read(FILES["compose.yaml"])["services"]["router"]
    assert "VOLUME /var/lib/router" in dockerfile
    assert "/etc/router/fleet.yaml" in dockerfile
    assert {"router-state:/var/lib/router", "./fleet:/etc/router:ro"} <= set(router["volumes"])
    (inline,) = read(FILES["recipes/qwen3.6-35b-marlin.yaml"])["services"]["router"]["configs"]
    assert inline["target"] == "/etc/router/fleet.yaml"


def test_a_command_is_the_servers_arguments() -> None:
    recipe = three()
    services = read(compose(recipe))["services"]
    for one in recipe.servers:
        assert tuple(shlex.split(services[one.name]["command"]))[: len(one.arguments)] == one.arguments


def test_a_variable_of_one_server_does_not_drop_those_of_all() -> None:
    recipe = plan(Wish(QWEN, (Kernel.B12X_W4A16,), Version(0, 33), (8000,)))
    environment = read(compose(recipe))["services"]["b12x-w4a16"]["environment"]
    assert set(environment) == {"VLLM_B12X_MOE_FP4_FORCE_A16", "HF_TOKEN", "VLLM_LOGGING_CONFIG_PATH"}


def test_old_switches_stand_in_a_comment_and_nowhere_else() -> None:
    text = FILES["compose.yaml"]
    assert "#" in next(line for line in text.splitlines() if "VLLM_NVFP4_GEMM_BACKEND=marlin" in line)
    assert "VLLM_NVFP4_GEMM_BACKEND" not in json.dumps(read(text))


def test_units_wait_for_each_other_and_for_readiness() -> None:
    units = systemd(three())
    assert list(units) == ["vllm-marlin.service", "vllm-cutlass.service", "vllm-flashinfer-cutlass.service"]
    assert "After=network-online.target vllm-cutlass.service" in units["vllm-flashinfer-cutlass.service"]
    assert "http://127.0.0.1:8002/health" in units["vllm-flashinfer-cutlass.service"]


def test_systemd_accepts_what_is_written(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here: units were only read as text")
    for name, text in systemd(three(), binary=shutil.which("true") or "/bin/true").items():
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.stderr == ""
