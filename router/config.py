"""The fleet file as frozen models: every setting with its default, its unit and what it means; no side effects.

Loading a file (YAML, line numbers, the environment) is `router/fleetfile.py`; comparing two configs for a reload is
`router/configdiff.py`. Names end in their unit: `_s` seconds, `_bytes` bytes, `_per_s` per second.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

Policy = Literal["predictive", "least-in-flight", "round-robin", "prefix-hash"]
Flags = Literal["exclude", "last", "observe"]

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
MOST_PORTS = 1024  # a range wider than this is a typing mistake, and too many doors to knock at


def to_bytes(value: object) -> object:
    """Read `100 MiB` or `64KB` as a number of bytes; a number passes as it is."""
    if not isinstance(value, str):
        return value
    match = SIZE.fullmatch(value)
    if match is None or match[2].lower() not in UNITS:
        raise ValueError("a size is a number of bytes, or one with a unit: 64 KiB, 100 MiB, 1 GiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def to_tuple(value: object) -> object:
    """Let one value stand for a list of one."""
    return (value,) if isinstance(value, str | int) else value


def to_ports(value: object) -> object:
    """Read `8000`, `8000-8010`, or a list of either, as a tuple of ports."""
    if value is None:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    ports: list[int] = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", str(part))
        if match is None or isinstance(part, bool):
            raise ValueError("ports are a number, a range or a list of them: 8000, 8000-8010, [8000, 8004]")
        first = int(match[1])
        last = int(match[2] or first)
        if not 1 <= first <= last <= 65535 or last - first >= MOST_PORTS:
            raise ValueError(f"{part} is no range of ports from 1 to 65535 with at most {MOST_PORTS} of them")
        ports.extend(port for port in range(first, last + 1) if port not in ports)
    if not ports:
        raise ValueError("no port is given; leave the field out, or write 8000-8010")
    return tuple(ports)


Bytes = Annotated[int, BeforeValidator(to_bytes)]
Names = Annotated[tuple[str, ...], BeforeValidator(to_tuple)]
Ports = Annotated[tuple[int, ...], BeforeValidator(to_ports)]


class Section(BaseModel):
    """Base of every part of the fleet file: frozen, and a field it does not know is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class BackendConfig(Section):
    """One vLLM server (or another OpenAI-compatible one). It is its name; its address may move."""

    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", validate_default=False)
    """Name in metrics, logs and commands; history follows it. Default: host and port, as in `spark-1-8000`."""
    url: str | None = None
    """Address: `http://spark-1:8000`, `https://…` or `unix:/path`. Leave it out where `host` and `ports` are given."""
    host: Names = ()
    """Machine(s) it runs on; backends on one host share its bandwidth. A list for tensor parallel. Default: url's."""
    ports: Ports | None = None
    """Ports of `host` where it may answer, as in `8000-8010`; found again there by the model it serves."""
    kind: Literal["vllm", "openai"] = "vllm"
    """`vllm`, or `openai` for llama.cpp, SGLang, Ollama and others: what those lack is then not looked for."""
    kernel: str | None = None
    """NVFP4 kernel that you believe it runs (`marlin`, `flashinfer_cutlass`, …); compared with what it really runs."""
    log: str | None = None
    """Where its log is, to read the kernel from: `docker:NAME`, `docker:NAME:/path`, `file:/path`, `ssh://…`."""
    api_key: SecretStr | None = None
    """Key that the backend wants from us, from the environment: `${SPARK_1_KEY}`. Never leaves towards clients."""
    serves: Names = ()
    """Only these of its models get calls. Default: every model that it lists."""
    max_in_flight: int | None = Field(None, ge=1)
    """Most calls in flight there at once, in calls. Default: no limit of ours; the backend queues by itself."""
    tls_ca: str | None = None
    """File with the CA certificates (PEM) that its https certificate is checked against. Default: the system's."""
    tls_verify: bool = True
    """Check its https certificate. `false` only for a test: anybody on the way can then read along."""
    scheduling_priority: bool = False
    """It was started with `--scheduling-policy priority`: background calls are then marked as such."""
    scheme: Literal["w4a16", "w4a4"] | None = None
    """Checkpoint's scheme: weights 4 bit and activations 16 or 4 bit. Default: read from what it says of itself."""
    starts_within_s: float = Field(1200.0, gt=0)
    """Seconds that loading may take (10 to 18 minutes on a Spark) before an unreachable backend counts as down."""

    @model_validator(mode="before")
    @classmethod
    def fill_in(cls, raw: Any) -> Any:
        """Let a bare string be a url; take host and name from the address where they are not given."""
        if isinstance(raw, str):
            raw = {"url": raw}
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        if isinstance(raw.get("url"), str):
            raw["url"] = plain_url(raw["url"])
            raw.setdefault("host", (host_of(raw["url"]),))
        if not raw.get("name"):
            raw["name"] = default_name(raw)
        return raw

    @model_validator(mode="after")
    def has_one_address(self) -> Self:
        """Exactly one of `url` and `host` + `ports` says where it is."""
        if self.url is None and self.ports is None:
            raise ValueError("no address: give url: http://spark-1:8000, or host: spark-1 and ports: 8000-8010")
        if self.url is not None and self.ports is not None:
            raise ValueError("url and ports contradict each other: keep url, or host with ports")
        if not self.host:
            raise ValueError("ports need a host: host: spark-1")
        return self

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
    slo_ttft_s: float | None = Field(None, gt=0)
    """Promised seconds to the first content; counted as goodput and kept where possible. Default: no promise."""
    slo_tpot_s: float | None = Field(None, gt=0)
    """Promised seconds per output token. Default: no promise."""
    max_in_flight: int | None = Field(None, ge=1)
    """Most calls of this model in flight at once over all backends, in calls. Default: no limit."""
    queue_length: int = Field(64, ge=0)
    """Most calls of this model that wait in the router, in calls; the next one gets 429."""
    flags: Flags | None = None
    """A flagged backend is excluded, ranked last or only observed. Default: exclude with >= 2 usable, else observe."""
    canary: bool = True
    """Check this model's answers with canaries (needs `quality.canary` too)."""
    sticky: bool | None = None
    """Keep a conversation on its backend while the load allows. Default: `routing.sticky`."""


class Timeouts(Section):
    """Lengths of time, each with one name. There is no total timeout on an answer that still makes progress."""

    connect_s: float = Field(5.0, gt=0)
    """Seconds to reach a backend (TCP and TLS)."""
    first_byte_s: float = Field(600.0, ge=120)
    """Seconds of silence before the first token; long prompts on a Spark take minutes, so never below 120."""
    inter_chunk_s: float = Field(120.0, gt=0)
    """Seconds of silence between two pieces of an answer."""
    queue_s: float = Field(60.0, ge=0)
    """Seconds that a call may wait in the router for a backend; then 503 with Retry-After."""
    drain_s: float = Field(300.0, ge=0)
    """Seconds that calls in flight may go on when a backend is drained; then they continue elsewhere or fail."""
    waiting_comment_s: float = Field(15.0, gt=0)
    """Seconds after which a streaming client gets its head and `: waiting` comments, so that it stays."""
    idle_keep_alive_s: float = Field(75.0, gt=0)
    """Seconds that a client's idle connection is kept."""
    backend_keep_alive_s: float = Field(3.0, ge=0)
    """Seconds that a backend's idle connection is kept; vLLM closes its own after 5."""
    slow_head_s: float = Field(15.0, gt=0)
    """Seconds that a client may take for a request's head; then 408."""
    slow_body_s: float = Field(60.0, gt=0)
    """Seconds without progress of a request's body; then 408."""
    slow_reader_s: float = Field(120.0, gt=0)
    """Seconds that a client may leave an answer unread while its connection is full; then it is closed."""
    shutdown_s: float = Field(30.0, ge=0)
    """Seconds that calls in flight may go on after SIGTERM; then streams get an error event."""


class Limits(Section):
    """Bounds on memory and queues. Sizes are bytes and accept units: `64 KiB`, `100 MiB`."""

    header_bytes: Bytes = Field(32 * 2**10, ge=1024)
    """Bytes of a request's head; beyond it 431."""
    header_count: int = Field(100, ge=8)
    """Headers of a request; beyond it 431."""
    body_bytes: Bytes = Field(100 * 2**20, ge=1024)
    """Bytes of one request's body; beyond it 413."""
    bodies_total_bytes: Bytes = Field(512 * 2**20, ge=1024)
    """Bytes of all request bodies held at once; beyond it 503."""
    held_answer_bytes: Bytes = Field(2**20, ge=0)
    """Bytes of a JSON answer held whole before it is sent, so that half an answer can be retried."""
    held_event_bytes: Bytes = Field(64 * 2**10, ge=1024)
    """Bytes of an unfinished event held back; a longer one passes through and ends the chance to continue."""
    pipelined_bytes: Bytes = Field(64 * 2**10, ge=0)
    """Bytes kept of a client's next request while its call is open."""
    connections: int = Field(8192, ge=1)
    """Client connections at once."""
    connections_per_address: int = Field(4096, ge=1)
    """Client connections at once from one address."""
    queue_total: int = Field(512, ge=0)
    """Calls of all models that wait in the router; the next one gets 503."""
    response_ids: int = Field(65536, ge=0)
    """Answers of /v1/responses whose backend is remembered, in ids."""
    explain_calls: int = Field(2000, ge=0)
    """Recent calls whose decisions `router explain` remembers, in calls."""


class RetryConfig(Section):
    """How much may be tried again, over the whole fleet: retries must not become the load that kills it."""

    share: float = Field(0.2, ge=0, le=1)
    """Retries earned by each call: 0.2 lets one in five be tried again."""
    floor_per_s: float = Field(0.5, ge=0)
    """Retries per second that are always allowed, so that a quiet router can retry too."""
    burst: float = Field(10.0, ge=0)
    """Most retries saved up, in retries."""
    max_attempts: int = Field(3, ge=1)
    """Most attempts of one call, the first included."""


class HealthConfig(Section):
    """When a backend is thought dead, hung or failing, and how it comes back."""

    interval_s: float = Field(5.0, gt=0)
    """Seconds between two probes of a backend."""
    probe_timeout_s: float = Field(5.0, gt=0)
    """Seconds that a probe may take."""
    unhealthy_after: int = Field(3, ge=1)
    """Failed probes in a row that eject, in probes."""
    healthy_after: int = Field(2, ge=1)
    """Good probes in a row that readmit, in probes."""
    hang_s: float = Field(60.0, gt=0)
    """Seconds without a token or a change in KV use that make a hang (never below 3 x the predicted prefill)."""
    stalled_streams_s: float = Field(30.0, gt=0)
    """Seconds of silence of all streams that already had tokens that make a hang."""
    ejection_s: float = Field(10.0, gt=0)
    """Seconds of the first ejection; it doubles with each one that follows soon."""
    ejection_max_s: float = Field(300.0, gt=0)
    """Longest ejection in seconds."""
    failures_to_eject: int = Field(3, ge=1)
    """Failed calls in a row that eject, in calls."""
    failure_rate: float = Field(0.5, gt=0, le=1)
    """Share of recent calls failing that ejects."""
    failure_rate_min_calls: int = Field(8, ge=1)
    """Fewest recent calls for the share to mean anything, in calls."""
    trial_calls: int = Field(2, ge=1)
    """Calls at once that a backend on probation may have."""
    ramp_s: float = Field(30.0, ge=0)
    """Seconds in which a returned or new backend grows to its full share."""


class RoutingConfig(Section):
    """How a backend is chosen."""

    policy: Policy = "predictive"
    """`predictive` (soonest expected end), `least-in-flight`, `round-robin` or `prefix-hash`."""
    sticky: bool = True
    """Keep a conversation on its backend while the load allows."""
    exploration: float = Field(0.02, ge=0, le=0.2)
    """Share of calls sent to a backend of which too little is known."""
    off_on_shared_host: bool = True
    """No exploration between backends that share a host: each would slow the other."""


class QualityConfig(Section):
    """Whether answers are still right: canaries and the sentinel on live streams."""

    canary: bool = True
    """Ask known questions and score the answers."""
    alpha_per_week: float = Field(0.01, gt=0, lt=1)
    """Chance of a false flag per backend and week."""
    delta: float = Field(0.03, gt=0)
    """Smallest distance worth a flag, in nats per token against a trusted build."""
    budget_share: float = Field(0.01, ge=0, le=1)
    """Share of a backend's time that canaries may take."""
    quick_s: float = Field(60.0, gt=0)
    """Seconds between two quick checks of a backend."""
    full_s: float = Field(600.0, gt=0)
    """Seconds between two full checks of a backend."""
    idle_before_full_s: float = Field(900.0, ge=0)
    """Seconds without a call after which full checks may take the idle box."""
    sentinel: bool = True
    """Watch live answers for garbage (one character filling the answer, null logprobs, broken UTF-8)."""
    extra_probes: str | None = None
    """File with your own known questions (JSON lines), asked beside the built-in ones."""


class AccessConfig(Section):
    """Who may use the client port."""

    client_keys: tuple[str, ...] = ()
    """SHA-256 of the keys that clients must send, as `sha256:<64 hex digits>`. Default: no key is asked for."""
    cors_origins: Names = ()
    """Web pages that may call from a browser, as in `https://chat.home`. Default: none."""
    tls_cert: str | None = None
    """Certificate chain (PEM) to serve clients over https. Default: plain http."""
    tls_key: str | None = None
    """Private key (PEM) of `tls_cert`."""

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        """Hashes look like hashes, and a certificate has its key."""
        for key in self.client_keys:
            if not re.fullmatch(r"(sha256:)?[0-9a-fA-F]{64}", key):
                raise ValueError("client_keys holds sha256:<64 hex digits>: printf %s KEY | sha256sum")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self


class NotifyConfig(Section):
    """One line to your phone when something happens: flag, kernel mismatch, last backend down."""

    url: str | None = None
    """Where to send it: an ntfy topic, a Discord webhook or any url that takes JSON. Default: nowhere."""
    kind: Literal["auto", "ntfy", "discord", "webhook"] = "auto"
    """What listens there; `auto` tells by the url."""
    min_interval_s: float = Field(60.0, ge=0)
    """Seconds between two messages about the same thing."""


class FleetConfig(Section):
    """A whole fleet file, checked. One value: a reload swaps it for another."""

    backends: tuple[BackendConfig, ...] = ()
    """The servers. A bare url will do for each; names and addresses are unique."""
    models: dict[str, ModelConfig] = {}
    """Settings per served model, by the name that backends list."""
    aliases: dict[str, Names] = {}
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
    quality: QualityConfig = QualityConfig()
    """Whether answers are right."""
    access: AccessConfig = AccessConfig()
    """Who may come in."""
    notify: NotifyConfig = NotifyConfig()
    """Who is told."""
    passive: bool = False
    """Observe, never act: no ejection, no flag that bars, no exploration, no canary."""

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


def plain_url(url: str) -> str:
    """Return an address without a trailing slash or `/v1`, which people paste along.

    Raises:
        ValueError: it is no http, https or unix address, or has a path, a query, or a name and password.
    """
    url = url.strip()
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("a unix socket is written with its whole path: unix:/run/vllm.sock")
        return f"unix:{path}"
    if "://" not in url:
        raise ValueError(f"a url starts with http://, https:// or unix:/ (meant: http://{url}?)")
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"{parts.scheme}:// is not spoken here: http://, https:// or unix:/")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user name or password in a url: a key goes to api_key: ${NAME}")
    if not parts.hostname or parts.query or parts.fragment or parts.path.rstrip("/") not in ("", "/v1"):
        raise ValueError("a url is a server's root, without path or query: http://spark-1:8000")
    if parts.port == 0:  # reading .port also refuses what is no port
        raise ValueError("port 0 is no address: http://spark-1:8000")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}"


def host_of(url: str) -> str:
    """Return the machine in an address; this machine has one name, however it is written."""
    host = "localhost" if url.startswith("unix:") else urlsplit(url).hostname or ""
    return "localhost" if host in ("127.0.0.1", "::1") else host


def bracketed(host: str) -> str:
    """Return a host as it stands in a url: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def default_name(raw: dict[str, Any]) -> str:
    """Return host and port as a name, as in `spark-1-8000`; "backend" where there is no address to take it from."""
    url = raw.get("url")
    if isinstance(url, str) and url.startswith("unix:"):
        return re.sub(r"[^A-Za-z0-9._-]+", "-", url.rsplit("/", 1)[-1]).strip("-.") or "backend"
    if isinstance(url, str):
        parts = urlsplit(url)
        host, port = parts.hostname or "backend", parts.port or (443 if parts.scheme == "https" else 80)
        return f"{host.replace(':', '-').strip('-')}-{port}"
    hosts = to_tuple(raw.get("host") or "backend")
    try:
        ports = to_ports(raw.get("ports"))
    except ValueError:
        ports = None
    first = str(hosts[0]) if isinstance(hosts, tuple | list) and hosts else "backend"
    return f"{first}-{ports[0]}" if isinstance(ports, tuple) else first
