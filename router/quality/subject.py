"""What is known of one model on one backend beyond its standing: when it was checked, and whether it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from router.backend import Backend
from router.fleet import Fleet
from router.policy.facts import Health, Intent
from router.policy.quality import Quality
from router.quality.ask import Talents
from router.quality.plan import DAY_S, Size
from router.vllm.identity import Identity
from router.vllm.kernels import kernel_of

if TYPE_CHECKING:
    from router.quality.check import Check
    from router.quality.record import Baseline

QUIET_S = 2.0  # without a call before a check begins, and before an interrupted one goes on
IDENTITY_S = 15.0  # that a log may take to be read before a check begins without it
AGAIN_S = 60.0  # after a check that left a doubt open; twice as long after each further one, a day at most


class Why(StrEnum):
    """What asks for a check, most urgent first."""

    OPERATOR = "the operator asked"
    SENTINEL = "live answers look wrong"
    BUILD = "another build"
    RESTART = "restarted"
    HEALTHY = "became healthy"
    DOUBT = "the last check could not settle what stands against it"
    DAILY = "a day has passed"
    IDLE = "new build, and time to look closely"


@dataclass(frozen=True, slots=True)
class Want:
    """A check that is due. `keep`: the operator vouches for the build, so it leaves a baseline as proven."""

    size: Size
    why: Why
    at: float
    keep: bool = False


@dataclass(slots=True)
class Subject:
    """See the module. Times are the loop's."""

    backend: str
    model: str
    quality: Quality
    talents: Talents = field(default_factory=Talents)
    want: Want | None = None
    rest: Check | None = None  # an interrupted check
    not_before: float = 0.0
    checked_at: float | None = None
    checks: int = 0  # that ended
    open_checks: int = 0  # in a row that left open what stands against it
    record: Baseline | None = None  # what this process answered in its last check
    kept_against: str = ""  # the build that the record was last held against
    full_of: str = ""  # the build that had its full check
    note: str = ""  # what the last check found where it moved nothing
    waits_for: str = ""  # why a due check does not begin, for a person

    @property
    def reason(self) -> str:
        """Why it stands where it stands, in one sentence."""
        moved = self.quality.cause is not None or self.quality.held is not None
        return self.quality.reason if moved else self.note or self.quality.reason

    def ask(self, want: Want) -> None:
        """A check is due; a more urgent one that is due already stays."""
        order = list(Why)
        if self.want is None or order.index(want.why) <= order.index(self.want.why):
            self.want = want

    def due(self, now: float, idle_s: float, idle_before_full_s: float) -> Want | None:
        """What it should be asked now, if anything."""
        if self.want is not None:
            return self.want
        if self.checked_at is None:
            return Want(Size.QUICK, Why.HEALTHY, now)
        if self.open_checks and now - self.checked_at >= min(DAY_S, AGAIN_S * 2.0 ** (self.open_checks - 1)):
            return Want(Size.QUICK, Why.DOUBT, now)
        if self.full_of != self.quality.build and idle_s >= idle_before_full_s:
            return Want(Size.FULL, Why.IDLE, now)
        if now - self.checked_at >= DAY_S:
            return Want(Size.QUICK, Why.DAILY, now)
        return None


def hindrance(fleet: Fleet, backend: Backend, model: str) -> str | None:
    """Why a backend must not be asked anything now, whatever is due; None where it may."""
    if fleet.passive:
        return "the router only observes (passive)"
    if not fleet.model_settings(model).canary:
        return "canaries are off for this model"
    return absence(backend, model)


def absence(backend: Backend, model: str) -> str | None:
    """Why a backend cannot be asked anything of our own now; None where it can."""
    if model not in backend.serving:
        return "it does not serve the model"
    if backend.intent is not Intent.ACTIVE:
        return f"{backend.intent.value} by the operator"
    if backend.health.health is not Health.HEALTHY:
        return f"it is {backend.health.health.value}"
    if backend.scrape is not None and backend.scrape.sleeping:
        return "it sleeps"
    return None


def idle_s(backend: Backend, now: float) -> float:
    """For how long it has been ready and had no call of ours, 0 while it has one."""
    return 0.0 if backend.leases else now - max(backend.busy.at, backend.health.since)


def scheme_of(backend: Backend, identity: Identity | None) -> str:
    """What its checkpoint and kernels compute in, as far as anybody knows: declared, observed, or read in its log."""
    if backend.config.scheme is not None:
        return backend.config.scheme
    if identity is not None and identity.checkpoint is not None:
        return identity.checkpoint.value
    if identity is not None and identity.ready and not identity.quantization:
        return "w16a16"
    kernel = kernel_of(backend.kernel)
    return kernel.scheme.value if kernel is not None else ""
