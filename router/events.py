"""Everything that can happen, as frozen values, and the bus that hands them to whoever listens.

Metrics, log lines, the history, the dashboard and notifications listen; nobody reaches into the exchange for them.
Listeners are plain functions, called at once and in order of subscription; one that raises is dropped from this
event, counted, and never disturbs a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from router.errors import FailureKind, Phase


class Outcome(StrEnum):
    """How a call ended. Exactly one per call."""

    OK = "ok"
    CLIENT_ERROR = "client_error"  # the client's own 4xx, ours or the backend's
    CLIENT_LEFT = "client_left"  # hung up before the end (shown as status 499)
    SHED = "shed"  # we said 429 or 503 without trying
    FAILED = "failed"  # a clear error before any answer byte
    BROKEN = "broken"  # a visible failure after the commit


@dataclass(slots=True)  # one or more per call: freezing costs microseconds each; nobody changes it
class Attempt:
    """One try of a call on one backend.

    Times are seconds; `ttft_s` is from sending the attempt to its first content, None where none came.
    """

    backend: str
    kernel: str  # observed, or "unknown"
    reason: str  # why this backend
    duration_s: float
    ttft_s: float | None = None
    failure: FailureKind | None = None
    phase: Phase | None = None
    detail: str = ""
    resumed_at: int | None = None  # characters already with the client when a continuation began


@dataclass(slots=True)  # one per call, 27 fields: freezing it costs 4 µs; nobody changes it
class CallEnded:
    """A call is over, however it ended.

    `model` is a configured or discovered name or "other" (a label); `asked` is what the client wrote (never a label).
    Tokens are None where the backend did not say. `at` is Unix time of the call's arrival.
    """

    request_id: str
    at: float
    route: str
    model: str
    asked: str
    stream: bool
    outcome: Outcome
    status: int
    code: str  # "" where nothing went wrong
    attempts: tuple[Attempt, ...]
    duration_s: float
    queued_s: float
    ttft_s: float | None  # from the call's arrival to its first content
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    bytes_in: int
    bytes_out: int
    finish_reasons: tuple[str, ...] = ()
    session: bool = False
    background: bool = False
    predicted_ttft_s: float | None = None
    predicted_end_s: float | None = None
    client: str = ""  # address, for the log line only


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt failed and counts against its backend's health or not."""

    request_id: str
    backend: str
    model: str
    kind: FailureKind
    phase: Phase
    counts: bool
    retried: bool
    detail: str


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """What we saw of a backend changed its health."""

    backend: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class IntentChanged:
    """The operator said something about a backend."""

    backend: str
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True)
class QualityChanged:
    """Evidence or the operator changed what is thought of a backend's answers for one model."""

    backend: str
    model: str
    old: str
    new: str
    reason: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateChanged:
    """A new build began to wait for a check before its first calls, or gets calls now."""

    backend: str
    model: str
    closed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class KernelObserved:
    """Which kernel a backend really runs was read (or turned out to be unreadable)."""

    backend: str
    declared: str
    observed: str  # "unknown" where nothing says
    matches: bool | None  # None: unknown
    detail: str


@dataclass(frozen=True, slots=True)
class BuildChanged:
    """A backend came back as another build, or restarted under the same one; `completed`: only its id grew, as a
    fingerprint or log was read for the first time.
    """

    backend: str
    old: str
    new: str
    restarted_only: bool
    completed: bool = False


@dataclass(frozen=True, slots=True)
class BackendLoading:
    """A backend is starting; `eta_s` is from earlier loads, None where there were none."""

    backend: str
    since_s: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A reload ended: applied as `generation`, or refused with the reason."""

    generation: int
    ok: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Scraped:
    """A backend's own metrics were read; rates are per second since the last look, None on the first."""

    backend: str
    running: float | None
    waiting: float | None
    kv_usage: float | None
    generation_rate: float | None
    prompt_rate: float | None


@dataclass(frozen=True, slots=True)
class CanaryEnded:
    """A quality check ended; `score` is the paired distance per text (nats), None where it could not be taken."""

    backend: str
    model: str
    size: str  # "quick" or "full"
    verdict: str
    score: float | None
    texts: int
    duration_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the operator should know that fits no other event (history lost, file not readable, …)."""

    subject: str
    message: str
    alarm: bool = False


Event = (
    CallEnded
    | AttemptFailed
    | HealthChanged
    | IntentChanged
    | QualityChanged
    | GateChanged
    | KernelObserved
    | BuildChanged
    | BackendLoading
    | Reloaded
    | Scraped
    | CanaryEnded
    | Notice
)
Listener = Callable[[Event], None]


class Bus:
    """Hands each event to every listener of its kind, in order of subscription."""

    def __init__(self) -> None:
        self.lost = 0  # events that a listener failed on
        self._listeners: list[tuple[Listener, frozenset[type]]] = []
        self._by_kind: dict[type, tuple[Listener, ...]] = {}

    def subscribe(self, listener: Listener, *kinds: type) -> Callable[[], None]:
        """Listen from now on to these kinds of events, to all where none is named; the returned function ends it."""
        entry = (listener, frozenset(kinds))
        self._listeners.append(entry)
        self._by_kind.clear()

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)
                self._by_kind.clear()

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everyone. A listener's failure is counted, not raised: an observer must not end a call."""
        kind = type(event)
        listeners = self._by_kind.get(kind)
        if listeners is None:
            found = [listener for listener, kinds in self._listeners if not kinds or kind in kinds]
            listeners = self._by_kind[kind] = tuple(found)
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                self.lost += 1
