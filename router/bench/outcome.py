"""How a bench behaves, how far it is, what it brought; and whether somebody else was there meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from router.bench.measured import Measurement, Stream


class CallFailed(Exception):
    """A call did not come to its end. `is_refusal`: the server is well and does not want it (4xx)."""

    def __init__(self, message: str, *, is_refusal: bool = False, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal
        self.is_busy = is_busy


@dataclass(frozen=True, slots=True)
class Load:
    """What a backend counts of itself. None: it does not say."""

    active: float | None = None  # in its batch or its queue
    finished: float | None = None  # calls, since it started
    generated: float | None = None  # tokens, since it started
    kv_tokens: float | None = None
    started: float | None = None  # Unix time of its process's start


class Target(Protocol):
    """A backend as the runner asks it; see `client.HttpTarget`."""

    async def call(self, prompt: str, answer_tokens: int, limit_s: float) -> Stream:
        """One answer. Raises CallFailed."""

    async def load(self) -> Load:
        """What it counts now."""

    async def is_alive(self) -> bool:
        """Whether it answers at all."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a bench behaves towards what it measures.

    Attributes:
        force: measure although somebody else is served there, and keep what was measured.
        idle_wait_s: how long to wait for idle before giving up.
        most_s: how long all of it may take.
    """

    force: bool = False
    idle_wait_s: float = 300.0
    most_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a bench stands: measurements done of all, seconds that are left by what was measured so far.

    `round` is 0 while it warms up.
    """

    round: int
    done: int
    steps: int
    left_s: float
    now: str


@dataclass(slots=True)
class Outcome:
    """What a bench brought, complete or not.

    Attributes:
        stopped: why it ended early, "" where it did not.
        gone: backends that were given up, and why.
        processes: when the process of each began (Unix time), where it says; another one is given up.
        notes: what was out of the ordinary.
    """

    measurements: list[Measurement] = field(default_factory=list)
    stopped: str = ""
    gone: dict[str, str] = field(default_factory=dict)
    processes: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say a thing once."""
        if text not in self.notes:
            self.notes.append(text)


def strangers(before: Load, after: Load, own_calls: int, own_tokens: int) -> float:
    """How many calls that are not ours a backend served in between; 0 where it does not say."""
    count = 0.0
    if before.finished is not None and after.finished is not None:
        count = after.finished - before.finished - own_calls
    elif before.generated is not None and after.generated is not None:
        # Servers without a count of calls: more tokens than ours, beyond one that a stop may cost each.
        count = float(after.generated - before.generated > 1.02 * own_tokens + 2 * own_calls)
    return max(0.0, count, (before.active or 0.0), (after.active or 0.0))
