"""What the router asks an idle backend for the sake of its speed, and when: a speed check, or the fixed workload.

Traffic teaches speed by itself, as long as there is some. After a long silence nobody knows whether a box still is what
it was (heat, clocks, a driver), so a tiny call asks. And figures that may be set beside those of another day or another
build must come from the same work on an idle machine: traffic never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Work(StrEnum):
    """What is asked. The fixed workload's name is kept with its figures: other work gets another number."""

    CHECK = "speed check"
    FIXED = "fixed workload 1"


@dataclass(frozen=True, slots=True)
class IdleLimits:
    """What the operator set.

    Attributes:
        check_after_s: silence before a speed check; 0 for never.
        fixed: whether the fixed workload is taken at all.
        idle_s: seconds that its machines must have been idle before the fixed workload begins.
    """

    check_after_s: float = 1800.0
    fixed: bool = True
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Stillness:
    """What is known of one backend and model while nobody uses it.

    Attributes:
        idle_s: for how long none of its machines had a call.
        sample_age_s: age of what was learned last of its speed, None where nothing was.
        proved: its answers were found right, or nothing speaks against them.
        taken: the fixed workload was taken of this build today.
        refused: it does not take such calls (an embedding model).
    """

    idle_s: float
    sample_age_s: float | None
    proved: bool
    taken: bool
    refused: bool = False


def due(one: Stillness, limits: IdleLimits) -> Work | None:
    """What it should be asked now, if anything. The fixed workload teaches all that a speed check would."""
    if one.refused:
        return None
    if limits.fixed and one.proved and not one.taken and one.idle_s >= limits.idle_s:
        return Work.FIXED
    silence = one.idle_s if one.sample_age_s is None else min(one.idle_s, one.sample_age_s)
    return Work.CHECK if 0 < limits.check_after_s <= silence else None
