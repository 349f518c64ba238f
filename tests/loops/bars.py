"""Whom quality keeps from routing, as values: the rule that the fleet follows, for tests to hold it against.

What a flag does is the operator's choice, per model. By default hard evidence excludes a backend and softer evidence
only shows. A model is never without a backend on account of quality: where the bars would leave none, all of them
serve, as a last resort and in a loud state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from router.policy.facts import Grade
from router.policy.quality import HARD, Quality


class Bar(StrEnum):
    """What a grade does to a backend's routing."""

    OBSERVE = "observe"  # it is shown, nothing else
    RANK_LAST = "rank_last"  # used only when nobody else can take the call
    EXCLUDE = "exclude"


@dataclass(frozen=True, slots=True)
class BarPolicy:
    """The operator's choice for one model.

    `flagged` acts on hard evidence (NaN, degenerate text, damage against the same scheme, known answers wrong, the
    operator's own flag), `suspect` on anything softer.
    """

    flagged: Bar = Bar.EXCLUDE
    suspect: Bar = Bar.OBSERVE


@dataclass(frozen=True, slots=True)
class Standing:
    """What routing is told of one backend.

    Attributes:
        barred: why it cannot be chosen, None where it can.
        last_resort: why it is chosen only when nobody else is left, None where it is a choice like any.
        alarm: why a person should look, None where all is well.
    """

    barred: str | None = None
    last_resort: str | None = None
    alarm: str | None = None


def standings(
    pool: Mapping[str, Quality], usable: Collection[str], policy: BarPolicy | None = None
) -> dict[str, Standing]:
    """How each backend of a model's pool stands. `usable` names those that could serve if quality did not ask."""
    policy = policy or BarPolicy()
    bars = {name: _bar_of(quality, policy) for name, quality in pool.items()}
    is_nobody_left = bool(usable) and all(bars.get(name) is Bar.EXCLUDE for name in usable)
    return {name: _standing(quality, bars[name], is_nobody_left) for name, quality in pool.items()}


def _bar_of(quality: Quality, policy: BarPolicy) -> Bar:
    if quality.grade is Grade.FLAGGED:
        is_hard = quality.held is not None or quality.cause is None or quality.cause.kind in HARD
        return policy.flagged if is_hard else policy.suspect
    return policy.suspect if quality.grade is Grade.SUSPECT else Bar.OBSERVE


def _standing(quality: Quality, bar: Bar, is_nobody_left: bool) -> Standing:
    alarm = f"{quality.grade}: {quality.reason}" if quality.grade is Grade.FLAGGED else None
    why = f"quality {quality.grade}: {quality.reason}"
    if bar is Bar.OBSERVE:
        return Standing(alarm=alarm)
    if bar is Bar.RANK_LAST:
        return Standing(last_resort=why, alarm=alarm)
    if is_nobody_left:
        return Standing(last_resort=why, alarm=f"serves although {why}: no other backend of the model can")
    return Standing(barred=why, alarm=alarm)
