"""The fleet file as frozen models: backends, models and the rest, each setting with default, unit and meaning.

No side effects. The sections that hold for everything are in `router/configsections.py`; loading a file (YAML, line
numbers, the environment) is `router/fleetfile.py`; comparing two configs for a reload is `router/configdiff.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from router.configsections import (
    AccessConfig,
    HealthConfig,
    Limits,
    NotifyConfig,
    Policy,
    QualityConfig,
    RetryConfig,
    RoutingConfig,
    Section,
    SpeedConfig,
    Timeouts,
)
from router.configtypes import (
    Address,
    Count,
    CountOrNone,
    GpuSource,
    LogSource,
    Machines,
    Names,
    Ports,
    Positive,
    Risk,
    bracketed,
    default_name,
    host_of,
)

__all__ = [
    "AccessConfig",
    "BackendConfig",
    "Conflict",
    "Flags",
    "FleetConfig",
    "HealthConfig",
    "Limits",
    "Location",
    "ModelConfig",
    "NotifyConfig",
    "Policy",
    "QualityConfig",
    "RetryConfig",
    "RoutingConfig",
    "Section",
    "Timeouts",
    "conflicts",
]

Flags = Literal["exclude", "last", "observe"]
Location = tuple[str | int, ...]  # where in the file: ("backends", 0, "url")


class BackendConfig(Section):
    """One vLLM server (or another OpenAI-compatible one). It is its name; its address may move."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", validate_default=False)] = ""
    """Name in metrics, logs and commands; history follows it. Default: host and port, as in `spark-1-8000`."""
    url: Address | None = None
    """Address: `http://spark-1:8000`, `https://…` or `unix:/path`. Leave it out where `host` and `ports` are given."""
    host: Machines = ()
    """Machine(s) it runs on; backends on one host share its bandwidth. A list for tensor parallel. Default: url's."""
    ports: Annotated[Ports | None, Field(validate_default=True)] = None
    """Ports of `host` where it may answer, as in `8000-8010`; found again there by the model it serves."""
    kind: Literal["vllm", "openai"] = "vllm"
    """`vllm`, or `openai` for llama.cpp, SGLang, Ollama and others: what those lack is then not looked for."""
    kernel: str | None = None
    """NVFP4 kernel that you believe it runs (`marlin`, `flashinfer_cutlass`, …); compared with what it really runs."""
    log: LogSource | None = None
    """Its log, which names the kernel: `docker:NAME`, `docker:NAME:/path`, `file:/path`, `ssh://HOST/path`."""
    gpu: GpuSource = "auto"
    """Its GPU's clock, heat and power: `auto` (nvidia-smi, if it is on this machine), `ssh://HOST` or `off`."""
    api_key: SecretStr | None = None
    """Key that the backend wants from us, from the environment: `${SPARK_1_KEY}`. Never leaves towards clients."""
    serves: Names = ()
    """Only these of its models get calls. Default: every model that it lists."""
    max_in_flight: Count | None = None
    """Most calls in flight there at once, in calls. Default: no limit of ours; the backend queues by itself."""
    tls_ca: str | None = None
    """File with the CA certificates (PEM) that its https certificate is checked against. Default: the system's."""
    tls_verify: bool = True
    """Check its https certificate. `false` only for a test: anybody on the way can then read along."""
    scheduling_priority: bool = False
    """It was started with `--scheduling-policy priority`: background calls are then marked as such."""
    scheme: Literal["w4a16", "w4a4"] | None = None
    """Checkpoint's scheme: weights 4 bit and activations 16 or 4 bit. Default: read from what it says of itself."""
    starts_within_s: Positive = 1200.0
    """Seconds that loading may take (10 to 18 minutes on a Spark) before an unreachable backend counts as down."""

    @model_validator(mode="before")
    @classmethod
    def fill_in(cls, raw: Any) -> Any:
        """Let a bare string be a url; take host and name from the address where they are not given."""
        if isinstance(raw, str):
            raw = {"url": raw}
        if not isinstance(raw, Mapping):
            return raw
        host = raw.get("host") or host_of(raw.get("url"))
        return {**raw, "host": host or (), "name": raw.get("name") or default_name(raw)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Tell editors that a bare url will do."""
        whole = handler.resolve_ref_schema(handler(core))
        whole["type"] = ["object", "string"]
        return whole

    @field_validator("ports")
    @classmethod
    def has_one_address(cls, ports: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        """Exactly one of `url` and `host` + `ports` says where it is."""
        if "url" not in info.data or "host" not in info.data:  # wrong themselves: enough said
            return ports
        url, host = info.data["url"], info.data["host"]
        if url is None and ports is None:
            raise ValueError("no address: give url: http://spark-1:8000, or host: spark-1 and ports: 8000-8010")
        if url is not None and ports is not None:
            raise ValueError("url and ports contradict each other: keep url, or host with ports")
        if not host:
            raise ValueError("ports need a host: host: spark-1")
        return ports

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address where it may be: the url, or its (first) host at each port, in order."""
        if self.url is not None:
            return (self.url,)
        return tuple(f"http://{bracketed(self.host[0])}:{port}" for port in self.ports or ())


class ModelConfig(Section):
    """What holds for one served model; what is left out comes from the sections for all."""

    continuation: bool = True
    """Continue a broken answer on another backend, in the same stream."""
    policy: Policy | None = None
    """How a backend is chosen for this model. Default: `routing.policy`."""
    slo_ttft_s: Positive | None = None
    """Promised seconds to the first content; counted as goodput and kept where possible. Default: no promise."""
    slo_tpot_s: Positive | None = None
    """Promised seconds per output token. Default: no promise."""
    queue_length: CountOrNone = 64
    """Most calls of this model that wait in the router, in calls; the next one gets 429."""
    flags: Flags | None = None
    """A flagged backend is excluded, ranked last or only observed. Default: exclude with >= 2 usable, else observe."""
    suspects: Flags = "observe"
    """What a suspect backend is: only shown, ranked last, or excluded while another can serve."""
    alpha: Risk | None = None
    """Chance a week that a right build is flagged. Default: `quality.alpha`."""
    tolerance: Positive | None = None
    """What a right kernel may differ by. Default: `quality.tolerance`."""
    canary: bool = True
    """Check this model's answers with canaries (needs `quality.canary` too)."""
    sticky: bool | None = None
    """Keep a conversation on its backend while the load allows. Default: `routing.sticky`."""


class FleetConfig(Section):
    """A whole fleet file, checked. One value: a reload swaps it for another."""

    backends: tuple[BackendConfig, ...] = ()
    """The servers. A bare url will do for each; names and addresses are unique."""
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    """Settings per served model, by the name that backends list."""
    aliases: dict[str, Names] = Field(default_factory=dict)
    """Other names for models. Several models in order mean the first that is serving."""
    timeouts: Timeouts = Timeouts()
    """How long to wait, in seconds."""
    limits: Limits = Limits()
    """How much to hold."""
    retry: RetryConfig = RetryConfig()
    """How much to try again."""
    health: HealthConfig = HealthConfig()
    """What counts as dead."""
    routing: RoutingConfig = RoutingConfig()
    """Who gets the call."""
    speed: SpeedConfig = SpeedConfig()
    """How fast idle backends are."""
    quality: QualityConfig = QualityConfig()
    """Whether answers are right."""
    access: AccessConfig = AccessConfig()
    """Who may come in."""
    notify: NotifyConfig = NotifyConfig()
    """Who is told."""
    passive: bool = False
    """Observe, never act: no ejection, no flag that bars, no exploration, no canary."""

    @model_validator(mode="after")
    def is_consistent(self) -> Self:
        """No two parts contradict each other."""
        found = [conflict.message for conflict in conflicts(self.backends, self.aliases, self.models)]
        if found:
            raise PydanticCustomError("conflicts", "{found}", {"found": "; ".join(found)})
        return self

    def for_model(self, name: str) -> ModelConfig:
        """Return what holds for a served model, with the sections for all filled in."""
        own = self.models.get(name, ModelConfig())
        return own.model_copy(
            update={
                "policy": own.policy or self.routing.policy,
                "sticky": self.routing.sticky if own.sticky is None else own.sticky,
                "canary": own.canary and self.quality.canary,
            }
        )

    def backend(self, name: str) -> BackendConfig | None:
        """Return the backend of that name, None where there is none."""
        return next((one for one in self.backends if one.name == name), None)

    def targets(self, asked: str) -> tuple[str, ...]:
        """Return the served models that a name stands for, in order: an alias' own, else the name itself."""
        if asked not in self.aliases:
            return (asked,)
        found = (target for name in self.aliases[asked] for target in self.targets(name))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two parts of a fleet that contradict each other; `other` is where the second one stands, if it has a place."""

    location: Location
    message: str
    other: Location | None = None


def conflicts(
    backends: Sequence[BackendConfig | None], aliases: Mapping[str, Sequence[str]], models: Mapping[str, object]
) -> Iterator[Conflict]:
    """Find names and addresses given twice, and aliases that hide a model or lead in a circle.

    A backend that could not be read is None: its place counts, nothing is said of it.
    """
    for j, two in enumerate(backends):
        for i, one in enumerate(backends[:j]):
            if one is not None and two is not None and (found := clash(i, one, j, two)):
                yield found
                break
    served = {model for one in backends if one is not None for model in one.serves}
    for alias, targets in aliases.items():
        yield from alias_conflicts(alias, targets, aliases, served, models)


def clash(i: int, one: BackendConfig, j: int, two: BackendConfig) -> Conflict | None:
    """Say why two backends cannot both be, or None."""
    if one.url is not None and one.url == two.url:
        return Conflict(("backends", j, "url"), f"{one.name} has the same address", ("backends", i, "url"))
    if one.name == two.name:
        message = f"another backend is called {two.name} too: give each its own name"
        return Conflict(("backends", j, "name"), message, ("backends", i, "name"))
    if indistinguishable(one, two):
        message = f"shares ports of {two.host[0]} with {one.name}: tell them apart by serves, or by a port each"
        return Conflict(("backends", j, "ports"), message, ("backends", i, "ports"))
    return None


def indistinguishable(one: BackendConfig, two: BackendConfig) -> bool:
    """Say whether what answers on a port could be either of two backends."""
    if one.ports is None or two.ports is None or one.host[0] != two.host[0] or not set(one.ports) & set(two.ports):
        return False
    return not one.serves or not two.serves or bool(set(one.serves) & set(two.serves))


def alias_conflicts(
    alias: str,
    targets: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    served: set[str],
    models: Mapping[str, object],
) -> Iterator[Conflict]:
    """Find what is wrong with one alias."""
    here = ("aliases", alias)
    if not targets:
        yield Conflict(here, "stands for no model: name at least one")
    if "@" in alias:
        yield Conflict(here, "an alias has no @: MODEL@BACKEND is how a client pins a backend")
    if alias in served:
        yield Conflict(here, f"{alias} is the name of a served model: an alias would hide it")
    if alias in models:
        yield Conflict(here, f"{alias} has settings under models: they belong to a served model", ("models", alias))
    seen, ahead = set[str](), list(targets)
    while ahead:
        name = ahead.pop()
        if name == alias:
            yield Conflict(here, f"leads back to {alias} itself")
            return
        if name not in seen:
            seen.add(name)
            ahead.extend(aliases.get(name, ()))
