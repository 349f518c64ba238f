"""The sections of the fleet file that hold for everything: time, bounds, retries, health, routing, quality, access.

Names end in their unit: `_s` seconds, `_bytes` bytes, `_per_s` per second. A string below a field is what it means;
it goes into the JSON Schema and the docs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from router.configtypes import Bytes, Count, CountOrNone, KeyHash, Names, NotNegative, Positive, Risk, Share, WebAddress

Policy = Literal["predictive", "least-in-flight", "round-robin", "prefix-hash"]


class Section(BaseModel):
    """Base of every part of the fleet file: frozen, and a field it does not know is a mistake."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # a mistake is often made in a line that holds a secret
    )


class Timeouts(Section):
    """Lengths of time, each with one name. There is no total timeout on an answer that still makes progress."""

    connect_s: Positive = 5.0
    """Seconds to reach a backend (TCP and TLS)."""
    first_byte_s: Annotated[float, Field(ge=120)] = 600.0
    """Seconds of silence before the first token; long prompts on a Spark take minutes, so never below 120."""
    inter_chunk_s: Positive = 120.0
    """Seconds of silence between two pieces of an answer."""
    queue_s: NotNegative = 60.0
    """Seconds that a call may wait in the router for a backend; then 503 with Retry-After."""
    drain_s: NotNegative = 300.0
    """Seconds that calls in flight may go on when a backend is drained; then they continue elsewhere or fail."""
    waiting_comment_s: Positive = 15.0
    """Seconds after which a streaming client gets its head and `: waiting` comments, so that it stays."""
    idle_keep_alive_s: Positive = 75.0
    """Seconds that a client's idle connection is kept."""
    backend_keep_alive_s: NotNegative = 3.0
    """Seconds that a backend's idle connection is kept; vLLM closes its own after 5."""
    slow_head_s: Positive = 15.0
    """Seconds that a client may take for a request's head; then 408."""
    slow_body_s: Positive = 60.0
    """Seconds without progress of a request's body; then 408."""
    linger_s: NotNegative = 2.0
    """Seconds that a refused upload is still read and dropped, so that the client gets to read why."""
    slow_reader_s: Positive = 120.0
    """Seconds that a client may leave an answer unread while its connection is full; then it is closed."""
    shutdown_s: NotNegative = 30.0
    """Seconds that calls in flight may go on after SIGTERM; then streams get an error event."""


class Limits(Section):
    """Bounds on memory and queues. Sizes are bytes and accept units: `64 KiB`, `100 MiB`."""

    header_bytes: Annotated[Bytes, Field(ge=1024)] = 32 * 2**10
    """Bytes of a request's head; beyond it 431."""
    header_count: Annotated[int, Field(ge=8)] = 100
    """Headers of a request; beyond it 431."""
    body_bytes: Annotated[Bytes, Field(ge=1024)] = 100 * 2**20
    """Bytes of one request's body; beyond it 413."""
    bodies_total_bytes: Annotated[Bytes, Field(ge=1024)] = 512 * 2**20
    """Bytes of all request bodies held at once; beyond it 503."""
    slow_body_rate: NotNegative = 500.0
    """Bytes per second that a request's body must have come at once `timeouts.slow_body_s` have passed; then 408."""
    held_answer_bytes: Annotated[Bytes, Field(ge=0)] = 2**20
    """Bytes of a JSON answer held whole before it is sent, so that half an answer can be retried."""
    pipelined_bytes: Annotated[Bytes, Field(ge=0)] = 64 * 2**10
    """Bytes kept of a client's next request while its call is open."""
    connections: Count = 8192
    """Client connections at once."""
    connections_per_address: Count = 4096
    """Client connections at once from one address."""
    queue_total: CountOrNone = 512
    """Calls of all models that wait in the router; the next one gets 503."""
    response_ids: CountOrNone = 65536
    """Answers of /v1/responses whose backend is remembered, in ids."""
    explain_calls: CountOrNone = 2000
    """Recent calls whose decisions `router explain` remembers, in calls."""


class RetryConfig(Section):
    """How much may be tried again, over the whole fleet: retries must not become the load that kills it."""

    share: Share = 0.2
    """Retries earned by each call: 0.2 lets one in five be tried again."""
    floor_per_s: NotNegative = 0.5
    """Retries per second that are always allowed, so that a quiet router can retry too."""
    burst: NotNegative = 10.0
    """Most retries saved up, in retries."""
    max_attempts: Count = 3
    """Most attempts of one call, the first included."""


class HealthConfig(Section):
    """When a backend is thought dead, hung or failing, and how it comes back."""

    interval_s: Positive = 5.0
    """Seconds between two probes of a backend."""
    probe_timeout_s: Positive = 5.0
    """Seconds that a probe may take."""
    unhealthy_after: Count = 3
    """Failed probes in a row that eject, in probes."""
    healthy_after: Count = 2
    """Good probes in a row that readmit, in probes."""
    hang_s: Positive = 60.0
    """Seconds without a token or a change in KV use that make a hang (never below 3 x the predicted prefill)."""
    stalled_streams_s: Positive = 30.0
    """Seconds of silence of all streams that already had tokens that make a hang."""
    ejection_s: Positive = 10.0
    """Seconds of the first ejection; it doubles with each one that follows soon."""
    ejection_max_s: Positive = 300.0
    """Longest ejection in seconds."""
    failures_to_eject: Count = 3
    """Failed calls in a row that eject, in calls."""
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of recent calls failing that ejects."""
    failure_rate_min_calls: Count = 8
    """Fewest recent calls for the share to mean anything, in calls."""
    trial_calls: Count = 2
    """Calls at once that a backend on probation may have."""
    ramp_s: NotNegative = 30.0
    """Seconds in which a returned or new backend grows to its full share."""


class RoutingConfig(Section):
    """How a backend is chosen."""

    policy: Policy = "predictive"
    """`predictive` (soonest expected end), `least-in-flight`, `round-robin` or `prefix-hash`."""
    sticky: bool = True
    """Keep a conversation on its backend while the load allows."""
    exploration: Annotated[float, Field(ge=0, le=0.2)] = 0.02
    """Share of calls sent to a backend of which too little is known."""


class SpeedConfig(Section):
    """What the router asks of idle backends, to know their speed."""

    check_after_s: NotNegative = 1800.0
    """Seconds without a call before a tiny one asks whether a backend is still as fast; 0: never."""
    fixed_workload: bool = True
    """Measure each build that proved itself once a day, for `router history` and `router compare` (about a minute)."""
    idle_s: Positive = 300.0
    """Seconds without a call on its machine before that begins. The first call ends it at once."""


class QualityConfig(Section):
    """Whether answers are still right: canaries and the sentinel on live streams."""

    canary: bool = True
    """Ask known questions and score the answers."""
    budget_share: Share = 0.01
    """Share of a backend's time that canaries may take."""
    quick_s: Positive = 60.0
    """Most seconds that a quick check may take: after each start, and once a day."""
    full_s: Positive = 600.0
    """Most seconds that a full check may take: once per build, in idle time."""
    idle_before_full_s: NotNegative = 900.0
    """Seconds without a call before a full check begins."""
    alpha: Risk = 0.01
    """Chance a week that a right build is flagged by a test; less needs more texts before damage is flagged."""
    tolerance: Positive = 1.0
    """What a right kernel may differ by, in measured tolerances; 2 lets it differ by twice as much."""
    gate_s: NotNegative = 180.0
    """Most seconds that a new build waits for its first check while others serve its model; 0: no wait."""
    sentinel: bool = True
    """Watch live answers for garbage (one character filling the answer, null logprobs, broken UTF-8)."""
    extra_probes: str | None = None
    """File or folder with texts of your own, scored beside those that ship (format: router/probes/texts)."""


class AccessConfig(Section):
    """Who may use the client port."""

    client_keys: tuple[KeyHash, ...] = ()
    """SHA-256 of the keys that clients must send, as `sha256:<64 hex digits>`. Default: no key is asked for."""
    cors_origins: Names = ()
    """Web pages that may call from a browser, as in `https://chat.home`. Default: none."""
    tls_cert: str | None = None
    """Certificate chain (PEM) to serve clients over https. Default: plain http."""
    tls_key: Annotated[str | None, Field(validate_default=True)] = None
    """Private key (PEM) of `tls_cert`."""

    @field_validator("tls_key")
    @classmethod
    def is_a_pair(cls, key: str | None, info: ValidationInfo) -> str | None:
        """A certificate has its key."""
        if (info.data.get("tls_cert") is None) != (key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or neither")
        return key


class NotifyConfig(Section):
    """One line to your phone when something happens: flag, kernel mismatch, last backend down."""

    url: WebAddress | None = None
    """Where to send it: an ntfy topic, a Discord webhook or any url that takes JSON. Default: nowhere."""
    kind: Literal["auto", "ntfy", "discord", "webhook"] = "auto"
    """What listens there; `auto` tells by the url."""
    min_interval_s: NotNegative = 60.0
    """Seconds between two messages about the same thing."""
