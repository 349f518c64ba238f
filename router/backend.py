"""One backend as live state: who it is, what was seen and learned of it, and the leases that calls hold on it.

A lease is the only way to be counted: everything that a call adds to a backend and its hosts hangs on it and is given
back exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from router.config import BackendConfig
from router.errors import FailureKind
from router.policy.facts import CallFacts, Candidate, Grade, Intent
from router.policy.health import HealthState
from router.policy.knee import Knee
from router.policy.lengths import Calibration
from router.policy.prefix import PrefixIndex
from router.policy.speed import HostModel, SpeedModel
from router.vllm.metrics import Scrape
from router.vllm.models import ModelCard
from router.wire.client import Pool


@dataclass(slots=True)
class Gauge:
    """A count and its integral over time, so that its mean over any stretch is one subtraction."""

    value: int = 0
    area: float = 0.0  # count times seconds
    at: float = 0.0

    def add(self, change: int, now: float) -> None:
        """Change the count."""
        self.area += self.value * (now - self.at)
        self.at = now
        self.value += change

    def until(self, now: float) -> float:
        """The integral up to now."""
        return self.area + self.value * (now - self.at)


@dataclass(slots=True)
class Host:
    """One machine: who is busy on it, and what they cost each other."""

    name: str
    active: Gauge = field(default_factory=Gauge)  # leases on any backend of it
    busy: Gauge = field(default_factory=Gauge)  # backends of it that hold a lease
    model: HostModel = field(default_factory=HostModel)


@dataclass(slots=True)
class Serving:
    """One model on one backend."""

    speed: SpeedModel
    candidate: Candidate
    grade: Grade = Grade.UNKNOWN
    grade_reason: str = "not checked yet"
    evidence: tuple[str, ...] = ()
    flagged_by: str = ""  # "operator" or "canary"
    gate: str = ""  # why it waits for a check before its first calls; "" where it does not
    score: float | None = None
    checked_at: float | None = None
    in_flight: int = 0
    max_prompt: int | None = None  # prompts longer than this were refused as too long
    cannot: set[str] = field(default_factory=set)  # abilities that it was seen to lack
    ttft_calibration: Calibration = field(default_factory=Calibration)
    end_calibration: Calibration = field(default_factory=Calibration)


# Whether a server repeats the message that it continues, by the owner that it names in /v1/models. Seen with real ones;
# of any other server nothing is known, and one that began anew would say everything twice.
_REPEATS_BY_OWNER = {"vllm": False, "llamacpp": True}


@dataclass(slots=True, eq=False)
class Backend:
    """One backend, as live state. It is its name; its address may move."""

    config: BackendConfig
    pool: Pool
    hosts: tuple[Host, ...]
    intent: Intent = Intent.ACTIVE
    intent_reason: str = ""
    health: HealthState = field(default_factory=HealthState)
    good_calls: int = 0  # since health last changed; folded into it with the next evidence
    cards: tuple[ModelCard, ...] = ()
    serving: dict[str, Serving] = field(default_factory=dict)
    kernel: str = "unknown"
    kernel_matches: bool | None = None
    kernel_detail: str = "not looked at yet"
    contexts: dict[str, int] = field(default_factory=dict)  # max_model_len by served model
    version: str | None = None
    fingerprint: str | None = None
    build: str = ""
    image: str = ""  # of its container, with the beginning of its digest
    flags: str = ""  # arguments that its log says are not the default, `name=value`
    scrape: Scrape | None = None
    scraped_at: float | None = None
    progress_at: float = 0.0  # when its engine was last seen to move
    ran_dry_at: float | None = None  # after this moment it worked and then had nothing left to do: see health.lost
    loading_since: float | None = None
    load_eta_s: float | None = None
    leases: set[Lease] = field(default_factory=set)
    decoding: Gauge = field(default_factory=Gauge)  # leases past their first content
    busy: Gauge = field(default_factory=Gauge)  # 1 while it holds a lease
    prefill_backlog: float = 0.0
    expected_tokens: float = 0.0  # of all leases
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)
    drain_deadline: float | None = None
    busy_until: float = 0.0  # it said 429 or 503 with Retry-After
    generation: int = 0
    knee: Knee = field(default_factory=Knee)
    cap: int | None = None  # most calls in flight: the configured limit, or less where its knee was seen
    seen_load: tuple[float, float] | None = None  # at the last scrape, see caps.py
    spec_acceptance: float | None = None  # share of the drafted tokens accepted, last seen drafting; None: never

    def __post_init__(self) -> None:
        self.cap = self.config.max_in_flight

    @property
    def name(self) -> str:
        """Its name: what history, metrics and commands know it by."""
        return self.config.name

    @property
    def in_flight(self) -> int:
        """Leases that are not ended."""
        return len(self.leases)

    @property
    def repeats_message(self) -> bool | None:
        """Whether it repeats a message that it continues; None for a server that was not seen to continue any."""
        if self.config.kind == "vllm":
            return False
        owners = {card.owned_by or "" for card in self.cards}
        return _REPEATS_BY_OWNER.get(owners.pop()) if len(owners) == 1 else None


class Lease:
    """A call's hold on a backend: counts given back exactly once, however the call ends."""

    __slots__ = (
        "_areas",
        "_clock",
        "_on_end",
        "abort",
        "backend",
        "backlog_at_send",
        "call",
        "cold_tokens",
        "content_at",
        "ended",
        "serving",
        "since",
        "warm_tokens",
    )

    def __init__(
        self,
        backend: Backend,
        serving: Serving,
        call: CallFacts,
        clock: Callable[[], float],
        on_end: Callable[[Backend], None],
    ) -> None:
        self._clock = clock
        self._on_end = on_end
        now = clock()
        self.backend = backend
        self.serving = serving
        self.call = call
        self.since = now
        self.content_at: float | None = None
        self.ended = False
        self.abort: Callable[[FailureKind, str], None] | None = None
        self.backlog_at_send = backend.prefill_backlog
        self.warm_tokens = serving.candidate.warm_tokens
        self.cold_tokens = max(0.0, call.prompt_tokens - self.warm_tokens)
        self._areas = (0.0, 0.0)
        if not backend.leases:
            backend.busy.add(1, now)
            for host in backend.hosts:
                host.busy.add(1, now)
        backend.leases.add(self)
        serving.in_flight += 1
        backend.prefill_backlog += self.cold_tokens
        backend.expected_tokens += call.output_tokens
        for host in backend.hosts:
            host.active.add(1, now)

    def first_content(self) -> None:
        """Its first content has come: it decodes now."""
        if self.content_at is None and not self.ended:
            now = self.content_at = self._clock()
            self.backend.decoding.add(1, now)
            self.backend.prefill_backlog -= self.cold_tokens
            self._areas = self._load(now)

    def _load(self, now: float) -> tuple[float, float]:
        backend = self.backend
        busy = backend.busy.until(now)
        return backend.decoding.until(now), sum(host.busy.until(now) - busy for host in backend.hosts)

    def mean_load(self, until: float) -> tuple[float, float]:
        """Mean streams decoding there, and mean busy siblings on its hosts, from its first content to now."""
        if self.content_at is None or until <= self.content_at:
            return 1.0, 0.0
        (here, beside), (now_here, now_beside) = self._areas, self._load(until)
        seconds = until - self.content_at
        return max(1.0, (now_here - here) / seconds), max(0.0, (now_beside - beside) / seconds)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Give everything back; a second call does nothing."""
        if self.ended:
            return
        self.ended = True
        self.abort = None
        now = self._clock()
        backend = self.backend
        backend.leases.discard(self)
        self.serving.in_flight -= 1
        if self.content_at is None:
            backend.prefill_backlog -= self.cold_tokens
        else:
            backend.decoding.add(-1, now)
        backend.expected_tokens -= self.call.output_tokens
        for host in backend.hosts:
            host.active.add(-1, now)
        if not backend.leases:
            backend.busy.add(-1, now)
            for host in backend.hosts:
                host.busy.add(-1, now)
            # Sums of floats drift; at idle they are exactly nothing.
            backend.prefill_backlog = backend.expected_tokens = 0.0
        self._on_end(backend)
