"""Write a recipe down: a compose file, systemd units, and the fleet file that goes with either."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

from router.recipes.recipe import OUTSIDE_GIB, SYSTEM_GIB, VISIBLE_GIB, Recipe, Server
from router.recipes.yamltext import MERGE, dump, with_comments

INSIDE_PORT = 8000  # of every vLLM container
CLIENT_PORT, ADMIN_PORT, PROMETHEUS_PORT = 8080, 8081, 9090
STATE, ETC = "/var/lib/router", "/etc/router"  # in the router's image
LOGS = "/var/log/vllm"
WIDTH = 110  # of comments
LOGGING = {  # what vLLM prints goes to a file too, so that the router can read which kernel was chosen
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "vllm": {
            "class": "vllm.logging_utils.NewLineFormatter",
            "datefmt": "%m-%d %H:%M:%S",
            "format": "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s",
        }
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "vllm", "stream": "ext://sys.stdout"},
        "file": {"class": "logging.FileHandler", "formatter": "vllm", "filename": f"{LOGS}/server.log"},
    },
    "loggers": {
        "vllm": {"handlers": ["console", "file"], "level": "INFO", "propagate": False},
        "flashinfer": {"handlers": ["console", "file"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["console", "file"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": ["console"], "level": "INFO", "propagate": False},  # a line per call
    },
}


COMMON_ENVIRONMENT = {"HF_TOKEN": "${HF_TOKEN:-}", "VLLM_LOGGING_CONFIG_PATH": "/etc/vllm/logging.json"}


def compose(recipe: Recipe, *, inline: bool = False, prometheus: bool = False, build: str | None = None) -> str:
    """Write a compose file for a recipe and the router in front of it.

    Args:
        recipe: what runs.
        inline: put the fleet file into the compose file, instead of reading `./fleet/fleet.yaml`.
        prometheus: also run Prometheus, with `./prometheus.yml` and `./alerts.yml`.
        build: directory to build the router's image from, where there is one.
    """
    shared = vllm_settings(recipe)
    services: dict[object, Any] = {"router": router_service(recipe, inline=inline, build=build)}
    if prometheus:
        services["prometheus"] = prometheus_service()
    for one, before in zip(recipe.servers, [None, *recipe.servers], strict=False):
        services[one.name] = vllm_service(one, shared, before)
    configs = {"vllm-logging": {"content": json.dumps(LOGGING, indent=2) + "\n"}}
    if inline:
        configs["fleet"] = {"content": fleet(recipe, in_containers=True).replace("$", "$$")}
    volumes = ["router-state", *(["prometheus-data"] if prometheus else [])]
    volumes += [f"{one.name}-{kind}" for one in recipe.servers for kind in ("log", "cache")]
    parts = {"name": recipe.wish.model.short_name, "x-vllm": shared, "services": services, "configs": configs}
    text = dump({**parts, "volumes": dict.fromkeys(volumes)})
    return with_comments(text, compose_header(recipe), {one.name: server_comment(one) for one in recipe.servers})


def router_service(recipe: Recipe, *, inline: bool, build: str | None) -> dict[str, Any]:
    """Return the router's service: it starts at once, and says of each server that it is loading."""
    volumes = [f"router-state:{STATE}"]
    volumes += [f"{one.name}-log:{LOGS}/{one.name}:ro" for one in recipe.servers]
    service: dict[str, Any] = {"image": "${ROUTER_IMAGE:-spark-router:latest}"}
    if build is not None:
        service["build"] = {"context": build}
    service |= {
        "ports": [f"{CLIENT_PORT}:{CLIENT_PORT}", f"127.0.0.1:{ADMIN_PORT}:{ADMIN_PORT}"],
        "volumes": volumes,
        "restart": "unless-stopped",
        "stop_grace_period": "45s",
    }
    if inline:
        service["configs"] = [{"source": "fleet", "target": f"{ETC}/fleet.yaml"}]
    else:
        volumes.insert(0, f"./fleet:{ETC}:ro")
    return service


def prometheus_service() -> dict[str, Any]:
    """Return Prometheus, which scrapes the router."""
    return {
        "image": "${PROMETHEUS_IMAGE:-prom/prometheus:v3.5.0}",
        "volumes": [
            "./prometheus.yml:/etc/prometheus/prometheus.yml:ro",
            "./alerts.yml:/etc/prometheus/alerts.yml:ro",
            "prometheus-data:/prometheus",
        ],
        "ports": [f"127.0.0.1:{PROMETHEUS_PORT}:{PROMETHEUS_PORT}"],
        "depends_on": ["router"],
        "restart": "unless-stopped",
    }


def vllm_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what all vLLM services of a recipe have in common."""
    address = f"http://127.0.0.1:{INSIDE_PORT}/health"
    gpu = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    return {
        "image": image(recipe),
        "entrypoint": ["vllm", "serve"],
        "environment": COMMON_ENVIRONMENT,
        "configs": [{"source": "vllm-logging", "target": "/etc/vllm/logging.json"}],
        "ipc": "host",
        "deploy": {"resources": {"reservations": {"devices": [gpu]}}},
        "healthcheck": {
            "test": ["CMD", "python3", "-c", f"import urllib.request as u; u.urlopen('{address}', timeout=4)"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{recipe.wish.model.loads_in_s:.0f}s",
        },
        "restart": "on-failure",
        "stop_grace_period": "60s",
    }


def vllm_service(one: Server, shared: dict[str, Any], before: Server | None) -> dict[object, Any]:
    """Return one server's service; it waits until the one before it is ready."""
    options = [*one.arguments, "--host", "0.0.0.0", "--port", str(INSIDE_PORT)]
    service: dict[object, Any] = {
        MERGE: shared,
        "container_name": one.full_name,
        "command": "\n".join(by_option(options)) + "\n",
        "volumes": [
            "${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface",
            f"{one.name}-cache:/root/.cache/vllm",
            f"{one.name}-log:{LOGS}",
        ],
        "ports": [f"127.0.0.1:{one.port}:{INSIDE_PORT}"],
    }
    if one.environment:
        service["environment"] = {**COMMON_ENVIRONMENT, **dict(one.environment)}
    if before is not None:
        service["depends_on"] = {before.name: {"condition": "service_healthy"}}
    return service


def by_option(words: Sequence[str]) -> list[str]:
    """Return words of a command line as lines: each option with its values."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines


def image(recipe: Recipe) -> str:
    """Return vLLM's own image of the version that the recipe is for; `VLLM_IMAGE` names another."""
    return f"${{VLLM_IMAGE:-vllm/vllm-openai:v{recipe.wish.version}}}"


def fleet(recipe: Recipe, *, in_containers: bool) -> str:
    """Write the fleet file: one backend for each server, all on one host, so that their speeds are read together."""
    wish = recipe.wish
    backends = []
    for one in recipe.servers:
        url = f"http://{one.name}:{INSIDE_PORT}" if in_containers else f"http://127.0.0.1:{one.port}"
        log = f"file:{LOGS}/{one.name}/server.log" if in_containers else f"file:{LOGS}/{one.name}.log"
        backend: dict[str, Any] = {"name": one.name, "url": url, "host": wish.host}
        if one.kernel is not None:
            backend["kernel"] = one.kernel.value
        if wish.model.scheme is not None:
            backend["scheme"] = wish.model.scheme.value
        backends.append({**backend, "log": log, "starts_within_s": int(wish.model.loads_in_s)})
    header = [
        f"Fleet file for {wish.model.name} on {wish.host}.",
        "All settings, with defaults and meaning: config/fleet.yaml of the router. Check: router check FILE",
    ]
    return with_comments(dump({"backends": backends, "aliases": {"default": wish.model.name}}), header, {})


def systemd(recipe: Recipe, *, binary: str = "/opt/vllm/bin/vllm") -> dict[str, str]:
    """Write a unit for each server, by file name; each starts when the one before it is ready."""
    pairs = zip(recipe.servers, [None, *recipe.servers], strict=False)
    return {f"{one.full_name}.service": unit(recipe, one, before, binary) for one, before in pairs}


def unit(recipe: Recipe, one: Server, before: Server | None, binary: str) -> str:
    """Write one server's unit."""
    words = [binary, "serve", *one.arguments, "--host", "127.0.0.1", "--port", str(one.port)]
    command = " ".join(quoted(word) for word in words)
    ready = f"until curl -fsS -m 4 http://127.0.0.1:{one.port}/health >/dev/null 2>&1; do sleep 5; done"
    after = "network-online.target" + (f" {before.full_name}.service" if before else "")
    lines = [
        *(f"# {line}" for line in server_comment(one)),
        "[Unit]",
        f"Description={recipe.wish.model.name} on {one.name}",
        "Wants=network-online.target",
        f"After={after}",
        "",
        "[Service]",
        "Type=exec",
        "User=vllm",
        "EnvironmentFile=-/etc/spark-router/vllm.env",
        *(f"Environment={name}={value}" for name, value in one.environment),
        f"ExecStart={command}",
        "# The next server starts when this one is ready, not before: each measures what memory is free.",
        f"ExecStartPost=/bin/sh -c '{ready}'",
        f"TimeoutStartSec={recipe.wish.model.loads_in_s * 1.5:.0f}",
        "TimeoutStopSec=60",
        "Restart=on-failure",
        "RestartSec=15",
        "LogsDirectory=vllm",
        f"StandardOutput=append:{LOGS}/{one.name}.log",
        "StandardError=inherit",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def quoted(word: str) -> str:
    """Return a word as systemd reads it."""
    return shlex.quote(word.replace("%", "%%").replace("$", "$$"))


def compose_header(recipe: Recipe) -> list[str]:
    """Return what stands above a compose file."""
    wish, count = recipe.wish, len(recipe.servers)
    each = recipe.utilization * VISIBLE_GIB
    lines = [
        f"{wish.model.name} on one DGX Spark, vLLM {wish.version}, {count} server{'' if count == 1 else 's'}, "
        "the router in front.",
        "",
        "Start:    docker compose up -d       Clients: http://THIS-SPARK:8080/v1",
        "Needs:    Docker Compose 2.23.1 or newer, NVIDIA's container toolkit, the weights in ~/.cache/huggingface",
        "",
        f"Memory:   {count} x ({each:.1f} GiB + {OUTSIDE_GIB:.0f} GiB outside the utilization) = "
        f"{recipe.total_gib:.0f} GiB of {VISIBLE_GIB} GiB; {SYSTEM_GIB:.0f} GiB are",
        f"          for the rest. In each: weights {wish.model.weights_gib:g} GiB, KV cache about "
        f"{recipe.kv_gib:.1f} GiB.",
    ]
    if count > 1:
        lines += [
            "Order:    strictly one after the other: vLLM measures free memory while it loads, and two at once disturb",
            "          each other. So `restart: on-failure`, which does not start all of them at once after a reboot:",
            "          then `docker compose up -d` again. They share 273 GB/s: compare their speeds while one is busy.",
        ]
    lines += ["", "Sources:", *(f"  {source}" for source in wish.model.sources)]
    return [*lines, "", "Written by `router recipe`; change it as you like."]


def server_comment(one: Server) -> list[str]:
    """Return what stands above one server: notes, and what an old vLLM needs."""
    lines = list(one.notes)
    if one.old:
        lines.append(f"vLLM up to 0.21 knows no --linear-backend; there it was: {' '.join(one.old)}")
        lines.append("0.22 and 0.23 take the flags, and the old variables with a warning; from 0.24 those do nothing.")
    return [
        part for line in lines for part in textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
