"""What a decision may look at: the call, the candidates, the limits. Values only.

Units: seconds, tokens, tokens per second. `None` always means "not known", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Intent(StrEnum):
    """What the operator said."""

    ACTIVE = "active"
    DRAINING = "draining"
    DISABLED = "disabled"


class Health(StrEnum):
    """What we saw. The first two are before a backend was ever ready; the design's four follow."""

    OFF = "off"  # configured, absent: grey, no alarm
    STARTING = "starting"  # refuses while it loads (10 to 18 minutes on a Spark)
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    EJECTED = "ejected"
    PROBATION = "probation"


class Grade(StrEnum):
    """What is thought of a backend's answers for one model."""

    UNKNOWN = "unknown"
    PLAUSIBLE = "plausible"  # known answers right, no reference to compare with
    GOOD = "good"
    SUSPECT = "suspect"
    FLAGGED = "flagged"


CONTINUATION = "continuation"  # the need of a call whose answer another backend began
MESSAGE_CONTINUATION = "continuing a message"  # the same for a chat, where only some servers take up a message


@dataclass(slots=True)  # one per call; nobody changes it
class CallFacts:
    """What is known of a call before it is routed.

    Attributes:
        model: the served name it resolved to.
        prompt_tokens: estimate from the body's length and what was learned of bytes per token.
        output_tokens: expectation per model, session and thinking, capped by `max_tokens`.
        max_tokens: what the client allows, None where it did not say.
        session: an opaque key of the conversation, None where the client sent none.
        prefix: chained hashes of the prompt's blocks, longest last; empty where not computed.
        block_tokens: how many tokens one block of `prefix` stands for.
        background: a title, tags or follow-up call that nobody watches.
        needs: abilities it asks for ("tools", "vision", …).
        pinned: the backend it names itself, None for a free choice.
    """

    model: str
    prompt_tokens: float = 0.0
    output_tokens: float = 256.0
    max_tokens: int | None = None
    session: str | None = None
    prefix: Sequence[int] = ()
    block_tokens: float = 0.0
    background: bool = False
    needs: frozenset[str] = frozenset()
    pinned: str | None = None


@dataclass(slots=True)
class Estimate:
    """One learned number: value, spread (one standard deviation), samples behind it, age of the newest (s)."""

    value: float
    spread: float
    samples: float
    age_s: float | None
    source: str = "prior"  # "learned", "bench", "history", "kernel table", "prior"


@dataclass(slots=True)
class Speed:
    """What is believed of a backend's speed for one model, as plain numbers for a decision.

    `ttft ≈ overhead_s + uncached / prefill_rate + wait`, `tpot(n) = (a + b·n)·(1 + c·busy siblings)`: a sibling takes
    its share of the host's bandwidth whether it decodes one stream or eight, and stretches every step by it.
    """

    overhead_s: float
    prefill_rate: float
    tpot_a: float
    tpot_b: float
    contention: float  # c of the host: by which share one busy sibling backend slows decoding
    spread: float  # relative standard deviation of the predicted end
    samples: float


@dataclass(slots=True)
class Candidate:
    """One backend of the pool within a decision.

    Attributes:
        name: the backend's name.
        hosts: the machines it runs on; shared names mean shared bandwidth.
        barred: why it cannot be chosen, None where it can.
        in_flight: our leases that are not ended.
        decoding: how many of them have had their first content.
        prefill_backlog: estimated prompt tokens of our leases still before their first content.
        waiting: calls waiting in its own queue as it said last, above what we leased ourselves.
        siblings: streams active on other backends that share a host with it.
        cap: most calls in flight at once, None for no limit.
        speed: what is believed of its speed.
        remaining: expected output tokens still to come of each stream there (their sum).
        warm_tokens: prompt tokens that it probably still holds of this very prefix.
        sticky: this session's last backend.
        ramp: share of a fair load it may have while it returns or is new (0 to 1).
        last_resort: barred in a milder way: usable only when nobody else is.
        busy_siblings: other backends of its hosts with a call in flight, None where only `siblings` is known.
    """

    name: str
    hosts: tuple[str, ...]
    barred: str | None
    in_flight: int
    decoding: int
    prefill_backlog: float
    waiting: float
    siblings: int
    cap: int | None
    speed: Speed
    remaining: float = 0.0
    warm_tokens: float = 0.0
    sticky: bool = False
    ramp: float = 1.0
    last_resort: bool = False
    busy_siblings: float | None = None


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """What the operator set for a decision."""

    policy: str = "predictive"
    exploration: float = 0.02
    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    sticky: bool = True


@dataclass(slots=True)  # one per attempt; nobody changes it
class Choice:
    """The backend chosen, why, and what was predicted (seconds from now), with the cost of each candidate."""

    name: str
    reason: str
    ttft_s: float | None = None
    end_s: float | None = None
    costs: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody can take it: the reason for each candidate."""

    reasons: Mapping[str, str]
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Everybody is full: the call should wait in its queue."""

    reason: str
