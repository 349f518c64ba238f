"""Whether another attempt is worth it: the failure table, the retry budget, and the step after a failure.

One row per kind of failure says whose fault it is; the phase says what can still be done about it. The table in the
docs is printed from here, and the tests walk it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from router.errors import FailureKind as Kind
from router.errors import Phase


class Remedy(StrEnum):
    """What is tried after a failure."""

    NONE = "none"  # the client gets this answer
    SAME = "same backend, free of charge"
    ELSEWHERE = "another backend"
    CONTINUE = "continue on another backend"  # the client has bytes already


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means.

    Attributes:
        counts: whether it moves the backend's health.
        remedy: what is tried next, budget and candidates permitting.
        status: what the client gets when nothing helps; None passes the backend's own answer on unchanged.
        meaning: one sentence for the docs.
    """

    counts: bool
    remedy: Remedy
    status: int | None
    meaning: str


@dataclass(frozen=True, slots=True)
class _Row:
    counts: bool
    elsewhere: bool
    status: int | None
    phases: tuple[Phase, ...]
    meaning: str


_C, _S, _H, _D = Phase.CONNECT, Phase.SENT, Phase.HEAD, Phase.COMMITTED
_ROWS: dict[Kind, _Row] = {
    Kind.REFUSED: _Row(True, True, 503, (_C,), "nobody listens: dead, or still loading its weights"),
    Kind.UNREACHABLE: _Row(True, True, 502, (_C,), "no route or no such name"),
    Kind.CONNECT_TIMEOUT: _Row(True, True, 504, (_C,), "the machine does not answer: off, or its network is"),
    Kind.TLS: _Row(True, True, 502, (_C,), "the TLS handshake failed: certificate or protocol"),
    Kind.STALE: _Row(False, True, 502, (_S,), "a kept connection died before any answer byte: the keep-alive race"),
    Kind.RESET: _Row(True, True, 502, (_C, _S, _H, _D), "the connection died under the call"),
    Kind.FIRST_BYTE_TIMEOUT: _Row(True, True, 504, (_S, _H), "no content within the first-byte timeout"),
    Kind.INTER_CHUNK_TIMEOUT: _Row(True, True, 504, (_H, _D), "an answer that had begun stopped coming"),
    Kind.HUNG: _Row(True, True, 504, (_S, _H, _D), "the engine makes no progress while it says it is healthy"),
    Kind.LOST: _Row(True, True, 504, (_S, _H), "the engine has nothing to do while the call waits: it never got there"),
    Kind.BAD_FRAMING: _Row(True, True, 502, (_S, _H, _D), "its bytes are not valid HTTP"),
    Kind.TRUNCATED: _Row(True, True, 502, (_H, _D), "the answer ended before its own end"),
    Kind.GARBAGE: _Row(True, True, 502, (_H, _D), "well framed, but not what this route answers"),
    Kind.ERROR_EVENT: _Row(True, True, 502, (_H, _D), "an error inside a 200: a vLLM whose engine died does this"),
    Kind.SERVER_ERROR: _Row(True, True, None, (_H,), "a 5xx without another meaning"),
    Kind.BUSY: _Row(False, True, None, (_H,), "408, 429 or 503: full or paused, not dead"),
    Kind.AUTH: _Row(False, True, 502, (_H,), "401 or 403 to our key: a fault in the fleet file, an alarm"),
    Kind.UNKNOWN_MODEL: _Row(False, True, None, (_H,), "404 for a model that it listed: look again"),
    Kind.CANNOT: _Row(False, True, None, (_H,), "400: too long, or a modality, parser or feature is missing there"),
    Kind.CLIENT: _Row(False, False, None, (_H,), "any other 4xx: the client's own mistake"),
    Kind.DRAINED: _Row(False, True, 503, (_S, _H, _D), "taken away by the operator past its drain deadline"),
}


def phases_of(kind: Kind) -> tuple[Phase, ...]:
    """The phases in which a kind of failure can be seen."""
    return _ROWS[kind].phases


def verdict(kind: Kind, phase: Phase) -> Verdict:
    """What a failure of this kind in this phase means."""
    row = _ROWS[kind]
    if kind is Kind.STALE:
        remedy = Remedy.SAME
    elif phase is Phase.COMMITTED:
        remedy = Remedy.CONTINUE if row.elsewhere else Remedy.NONE
    else:
        remedy = Remedy.ELSEWHERE if row.elsewhere else Remedy.NONE
    # After the commit the status is long sent: the client gets an error event, whatever the row says.
    status = 200 if phase is Phase.COMMITTED else row.status
    return Verdict(row.counts, remedy, status, row.meaning)


def failure_table() -> list[tuple[Kind, Phase, Verdict]]:
    """Every kind in every phase it can come in, in the order of the docs."""
    return [(kind, phase, verdict(kind, phase)) for kind, row in _ROWS.items() for phase in row.phases]


@dataclass(slots=True)
class RetryBudget:
    """Retries are paid for by traffic: each call deposits `share`, time deposits `floor_per_s`, up to `burst`.

    When everything fails, retries stay a share of the load instead of multiplying it (the idea of Finagle's and
    Tower's retry budgets). Fleet-wide.
    """

    share: float = 0.2
    floor_per_s: float = 0.5
    burst: float = 10.0
    balance: float = 10.0
    updated_at: float = 0.0

    def call(self) -> None:
        """A call has come in."""
        self.balance = min(self.burst, self.balance + self.share)

    def take(self, now: float) -> bool:
        """Pay for one retry; False where the budget is spent."""
        self.balance = min(self.burst, self.balance + (now - self.updated_at) * self.floor_per_s)
        self.updated_at = now
        if self.balance < 1.0:
            return False
        self.balance -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Step:
    """What to do after a failure, and why."""

    remedy: Remedy
    reason: str


def after(
    kind: Kind,
    phase: Phase,
    *,
    attempts: int,
    max_attempts: int,
    others: bool,
    unresumable: str | None,
    budget: RetryBudget,
    now: float,
) -> Step:
    """The step after a failed attempt.

    Args:
        attempts: tries made so far, this one included, stale connections left out.
        others: whether an untried backend could take the call.
        unresumable: why a committed answer cannot be continued; None where it can.
        budget: pays for the retry; nothing is taken where the step is not a retry.
    """
    remedy = verdict(kind, phase).remedy
    if remedy in (Remedy.NONE, Remedy.SAME):
        return Step(remedy, kind.value)
    if remedy is Remedy.CONTINUE and unresumable is not None:
        return Step(Remedy.NONE, f"cannot be continued: {unresumable}")
    if not others:
        return Step(Remedy.NONE, "no other backend could take it")
    if attempts >= max_attempts:
        return Step(Remedy.NONE, f"{attempts} attempts were made")
    # A busy backend, a missing ability or a drain costs no backend anything: moving on is routing, not a retry.
    if kind not in (Kind.CANNOT, Kind.UNKNOWN_MODEL, Kind.DRAINED) and not budget.take(now):
        return Step(Remedy.NONE, "the retry budget is spent")
    return Step(remedy, kind.value)
