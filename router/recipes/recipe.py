"""Plan servers for a model on one Spark: which switches, how much memory, in what order; or why it cannot be.

Memory of a Spark is one pool for CPU and GPU. What a server takes is its `--gpu-memory-utilization` (weights, working
memory, KV cache) and some GiB outside of it; all servers together must leave the system room. Public figures:

* 121.7 GiB are visible of the 128 GB (Spark owners' `free`, vLLM's start-up line).
* Nemotron-3-Nano, utilization 0.2: 32.1 GB used; 0.3 with CUDA graphs: 45.6 GB. So about 6 GiB lie outside.
  (Sggin1/DGX-SPARK nvfp4-guide)
* One server: at most 0.85 (vllm-project/recipes#632). Several: at most 0.8 together, started one after the other,
  with the KV cache pinned, because profiling reads what is free on the machine (v1/worker/gpu_worker.py:733).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from router.errors import ConfigFault
from router.recipes.models import Model
from router.vllm.kernels import FLAGS_SINCE, VARIABLES_GONE, Kernel, Version
from router.vllm.switches import Refusal, Switches, switches

T = TypeVar("T")

VISIBLE_GIB = 121.7
SYSTEM_GIB = 8.0  # the system, containers, the router and a desktop
OUTSIDE_GIB = 6.0  # of each server, beyond its utilization
WORKING_GIB = 4.0  # of each server, within its utilization: activations and graphs
LEAST_KV_GIB = 2.0  # enough for one call of 8192 tokens (Sggin1/DGX-SPARK nvfp4-guide)
MOST_ALONE = 0.85
MOST_TOGETHER = 0.80
COMFORTABLE_KV_GIB = 32.0  # more is better kept free: KV use of a few users stays below 5 % (vLLM's Spark blog)
TAKEN_PORTS = {8080: "the router's clients", 8081: "the router's admin side", 9090: "Prometheus"}
WITHOUT_FLAGS = Version(0, 19, 1)  # the release that old variables are shown for


class RecipeRefused(ConfigFault):
    """What was asked for cannot work; `reasons` says why, each with its source where it has one."""

    default_code = "recipe_refused"

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n".join(self.reasons))


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to run on one Spark.

    Attributes:
        model: the checkpoint.
        kernels: one server for each; None lets vLLM choose.
        version: the vLLM that will run.
        ports: one for each server, on the host.
        memory_gib: GiB that one server may take in all; None shares what there is.
        context: tokens of prompt and answer together; None takes the model's.
        host: the Spark's name.
    """

    model: Model
    kernels: tuple[Kernel | None, ...]
    version: Version
    ports: tuple[int, ...]
    memory_gib: float | None = None
    context: int | None = None
    host: str = "spark-1"


@dataclass(frozen=True, slots=True)
class Server:
    """One vLLM server of a recipe: everything that goes on its command line and into its environment.

    Attributes:
        name: of the compose service and the backend.
        kernel: declared kernel, None where vLLM chooses.
        port: on the host.
        arguments: words after `vllm serve`, without host and port.
        environment: variables and values.
        old: what a vLLM up to 0.21 needs instead of the kernel's flags, empty where there is nothing to say.
        notes: what to know, one sentence each.
    """

    name: str
    kernel: Kernel | None
    port: int
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    old: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """Its name among other containers and units: `vllm-marlin`."""
        return self.name if self.name.startswith("vllm-") else f"vllm-{self.name}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Servers that fit one Spark together, in the order in which they start."""

    wish: Wish
    servers: tuple[Server, ...]
    utilization: float
    kv_gib: float

    @property
    def total_gib(self) -> float:
        """GiB that all of it takes, the system's share left out."""
        return len(self.servers) * (self.utilization * VISIBLE_GIB + OUTSIDE_GIB)


def plan(wish: Wish) -> Recipe:
    """Work out a recipe.

    Raises:
        RecipeRefused: it cannot work; every reason at once.
    """
    reasons = [*wrong_ports(wish), *wrong_model(wish)]
    asked = [asked_for(kernel, wish.model, wish.version) for kernel in wish.kernels]
    reasons += [f"{one.reason} [{one.source}]" for one in asked if isinstance(one, Refusal)]
    utilization = utilization_of(wish)
    kv_gib = utilization * VISIBLE_GIB - wish.model.weights_gib - WORKING_GIB
    if kv_gib < LEAST_KV_GIB:
        reasons.append(too_big(wish))
    elif utilization * len(wish.kernels) > most(len(wish.kernels)) + 0.005:
        reasons.append(
            f"{len(wish.kernels)} servers of {wish.memory_gib:g} GiB do not fit: a Spark has "
            f"{VISIBLE_GIB} GiB for everything, and {room(len(wish.kernels)):.0f} GiB is the most for each of them"
        )
    if reasons:
        raise RecipeRefused(reasons)
    servers = tuple(
        server(wish, kernel, port, switch, utilization, kv_gib)
        for kernel, port, switch in zip(wish.kernels, wish.ports, asked, strict=True)
        if isinstance(switch, Switches)
    )
    return Recipe(wish, servers, utilization, kv_gib)


def asked_for(kernel: Kernel | None, model: Model, version: Version) -> Switches | Refusal:
    """Return the switches of a kernel for a model; None needs none."""
    if kernel is None:
        return Switches(())
    return switches(version, kernel, model.scheme, moe=model.moe, squared_relu=model.squared_relu)


def wrong_ports(wish: Wish) -> list[str]:
    """Say what is wrong with the ports and with what they are for."""
    reasons = []
    if not wish.kernels:
        reasons.append("No kernel is named: --kernel marlin, or --kernel auto to let vLLM choose.")
    names = [name_of(kernel) for kernel in wish.kernels]
    reasons += [f"{name} is named twice: one server of a kernel says all." for name in sorted(twice(names))]
    if len(wish.ports) != len(wish.kernels):
        reasons.append(f"{len(wish.kernels)} servers need as many ports; given: {len(wish.ports)}.")
    reasons += [f"Port {port} is given twice." for port in sorted(twice(wish.ports))]
    reasons += [f"Port {port} belongs to {owner}." for port, owner in TAKEN_PORTS.items() if port in wish.ports]
    reasons += [f"{port} is no port from 1 to 65535." for port in wish.ports if not 0 < port < 65536]
    return reasons


def twice(values: Sequence[T]) -> set[T]:
    """Return what is in there more than once."""
    return {value for value in values if values.count(value) > 1}


def wrong_model(wish: Wish) -> list[str]:
    """Say what is wrong with model, version and context."""
    reasons = []
    if wish.version < wish.model.since:
        reasons.append(f"{wish.model.name} needs vLLM {wish.model.since} on a Spark; this is {wish.version}.")
    if wish.context is not None and wish.context < 1024:
        reasons.append(f"A context of {wish.context} tokens is too short for anything: 8192 or more.")
    return reasons


def most(count: int) -> float:
    """Return the utilization that `count` servers may have together."""
    free = (VISIBLE_GIB - SYSTEM_GIB - count * OUTSIDE_GIB) / VISIBLE_GIB
    return min(MOST_ALONE if count == 1 else MOST_TOGETHER, free)


def room(count: int) -> float:
    """Return the GiB that each of `count` servers may take in all."""
    return most(count) / max(count, 1) * VISIBLE_GIB + OUTSIDE_GIB


def utilization_of(wish: Wish) -> float:
    """Return the utilization of each server, to two places: what was asked for, or a share that is enough."""
    count = max(len(wish.kernels), 1)
    if wish.memory_gib is not None:
        share = (wish.memory_gib - OUTSIDE_GIB) / VISIBLE_GIB
    else:
        comfortable = (wish.model.weights_gib + WORKING_GIB + COMFORTABLE_KV_GIB) / VISIBLE_GIB
        share = min(most(count) / count, max(comfortable, 0.0))
    return int(share * 100 + 1e-9) / 100


def too_big(wish: Wish) -> str:
    """Say that it does not fit, and what would."""
    needs = wish.model.weights_gib + WORKING_GIB + LEAST_KV_GIB + OUTSIDE_GIB
    fits = max((count for count in range(1, 9) if room(count) >= needs), default=0)
    count = len(wish.kernels)
    if wish.memory_gib is not None and room(count) >= needs:
        return f"{wish.memory_gib:g} GiB are too few: {wish.model.name} needs {needs:.0f} GiB at the least."
    if fits == 0:
        return f"{wish.model.name} needs {needs:.0f} GiB, a Spark has room for {room(1):.0f}: it takes two of them."
    return (
        f"{count} servers of {wish.model.name} need {needs:.0f} GiB each, and {count} on one Spark can have "
        f"{room(count):.0f} GiB each. {fits} fit{'s' if fits == 1 else ''}: run them one after the other; the router "
        "keeps what it learned of each build, so that days can be compared."
    )


def server(wish: Wish, kernel: Kernel | None, port: int, switch: Switches, utilization: float, kv_gib: float) -> Server:
    """Write down one server."""
    arguments = [wish.model.name, *wish.model.flags, *switch.flags]
    arguments += ["--max-model-len", str(wish.context or wish.model.context)]
    arguments += ["--max-num-seqs", str(wish.model.sequences)]
    arguments += ["--gpu-memory-utilization", f"{utilization:.2f}"]
    if len(wish.kernels) > 1:
        arguments += ["--kv-cache-memory-bytes", str(int(kv_gib * 2**30))]
    return Server(
        name=name_of(kernel),
        kernel=kernel,
        port=port,
        arguments=tuple(arguments),
        environment=switch.env,
        old=old_switches(kernel, wish),
        notes=switch.notes,
    )


def old_switches(kernel: Kernel | None, wish: Wish) -> tuple[str, ...]:
    """Return how an old vLLM was asked for this kernel, as one line each; empty where it could not be."""
    if kernel is None or wish.version < FLAGS_SINCE or wish.model.since >= VARIABLES_GONE:
        return ()
    old = asked_for(kernel, wish.model, WITHOUT_FLAGS)
    if isinstance(old, Refusal):
        return ()
    return (*(f"{name}={value}" for name, value in old.env), *([" ".join(old.flags)] if old.flags else []))


def name_of(kernel: Kernel | None) -> str:
    """Return the name of a kernel's server: `vllm-cutlass`."""
    return "auto" if kernel is None else kernel.value.replace("_", "-")
