"""Read a sparkrun recipe into a fleet file: sparkrun goes on starting the server, the router goes in front."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from router.errors import ConfigFault
from router.recipes.imports import Imported, named, opened, rest
from router.vllm.kernels import VARIABLES_GONE, Kernel, Version, kernel_of, requested_from_env

WHY = dict.fromkeys(
    ("container", "containers", "env", "command", "runtime_config", "runtime_cache", "mods", "build_args", "builder"),
    "how the server is started: sparkrun goes on doing that",
) | dict.fromkeys(("metadata", "benchmark", "description", "recipe_version"), "says nothing about routing")
KNOWN = frozenset(
    {"model", "name", "runtime", "defaults", "solo_only", "cluster_only", "min_nodes", "max_nodes", "mode"}
)
DEFAULTS = frozenset({"port", "host", "served_model_name", "tensor_parallel", "pipeline_parallel", "moe_backend"})
OTHERS = ("sglang", "llama-cpp", "trtllm", "atlas", "modular-max")
DEFAULT_PORT = 8000


def from_sparkrun(text: str, source: str, hosts: Sequence[str]) -> Imported:
    """Read a sparkrun recipe.

    Args:
        text: the recipe.
        source: its name, for messages.
        hosts: the Sparks that it runs on, the head first; as many as it is parallel over.

    Raises:
        FleetFault: it is no recipe.
        ConfigFault: it needs more hosts than are named, or its model is no name.
    """
    raw = opened(text, source, "model")
    if not isinstance(raw["model"], str) or not raw["model"].strip():
        raise ConfigFault(f"{source}: its model is no name: {raw['model']!r}")
    out = Imported(source)
    defaults = raw["defaults"] if isinstance(raw.get("defaults"), dict) else {}
    options = options_of(str(raw.get("command") or ""), {**defaults, "model": raw["model"]})
    nodes = number(defaults.get("tensor_parallel"), 1) * number(defaults.get("pipeline_parallel"), 1)
    if len(hosts) < nodes:
        raise ConfigFault(
            f"{source} runs over {nodes} Sparks; named: {', '.join(hosts) or 'none'}. Name each with --host"
        )
    model = str(options.get("served-model-name") or defaults.get("served_model_name") or raw["model"]).split()[0]
    port = number(options.get("port") or defaults.get("port"), DEFAULT_PORT)
    backend: dict[str, Any] = {"name": str(raw.get("name") or model.split("/")[-1]).lower()}
    backend |= {"url": f"http://{hosts[0]}:{port}", "host": hosts[0] if nodes == 1 else list(hosts[:nodes])}
    backend["serves"] = model
    runtime = str(raw.get("runtime") or "")
    if runtime.startswith(OTHERS) or str(raw.get("command") or "").lstrip().startswith(("sglang", "llama-server")):
        backend["kind"] = "openai"
    kernel = kernel_in(options, defaults, raw.get("env"), out)
    if kernel is not None:
        backend["kernel"] = kernel.value
    out.raw["backends"] = named([backend])
    if model != raw["model"]:
        out.raw["aliases"] = {str(raw["model"]): model}
    out.to_do.append("to have the kernel read from the server's log, add log: docker:CONTAINER (docker ps names it)")
    rest(raw, "", WHY, out, KNOWN)
    flags = "a flag of the server: sparkrun goes on setting it"
    rest(defaults, "defaults", dict.fromkeys(map(str, defaults), flags), out, DEFAULTS)
    return out


def number(value: object, default: int) -> int:
    """Return a whole number as it may stand in a recipe."""
    return int(str(value)) if str(value).isdigit() else default


def options_of(command: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a command template, its placeholders filled in."""
    filled = re.sub(r"\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), command)
    try:
        words = shlex.split(filled.replace("\\\n", " "))
    except ValueError:
        return {}
    options: dict[str, str] = {}
    for word, after in pairwise([*words, ""]):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            options[name.replace("_", "-")] = value or ("" if after.startswith("-") else after)
    return options


def kernel_in(options: Mapping[str, str], defaults: Mapping[str, Any], env: object, out: Imported) -> Kernel | None:
    """Return the kernel that a recipe asks for, as far as today's vLLM heeds it."""
    asked = options.get("moe-backend") or str(defaults.get("moe_backend") or "") or options.get("linear-backend", "")
    kernel = kernel_of(asked) if asked else None
    old = requested_from_env(env, Version(0, 19)) if isinstance(env, dict) else None
    by_variable = (old.moe or old.linear) if old else None
    if by_variable is not None and kernel is None:
        out.to_do.append(
            f"the recipe asks for {by_variable} by variables, which vLLM {VARIABLES_GONE} and newer ignore: "
            "the kernel is left undeclared, the server's log says which one runs"
        )
    return kernel
