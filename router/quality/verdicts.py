"""Where evidence becomes a grade that routing sees. The operator's word stands: no evidence moves what it flagged."""

from __future__ import annotations

from collections.abc import Callable

from router.fleet import Fleet
from router.history import History
from router.history.rows import Standing
from router.policy import quality as policy
from router.policy.facts import Grade
from router.policy.quality import Evidence, Family, Quality, Reference
from router.policy.quality_record import dump, restore
from router.policy.scoring import Paired
from router.policy.sequential import Strictness
from router.quality.subject import Subject


class Verdicts:
    """Carries standings into the fleet, and over restarts of the router.

    `acts` is true while it gives a grade, so that nobody takes it for the operator.
    """

    def __init__(self, fleet: Fleet, wall: Callable[[], float], history: History | None = None) -> None:
        self._fleet = fleet
        self._wall = wall
        self._history = history
        self._remembered: dict[tuple[str, str], Quality] = {}
        self._kept: dict[tuple[str, str], Quality] = {}
        self.acts = False

    async def open(self) -> None:
        """Read where everybody stood when the router stopped."""
        if self._history is None:
            return
        for row in await self._history.rows(Standing):
            quality = restore(row.state)
            if quality is not None:
                self._remembered[row.backend, row.model] = quality

    def remember(self, subject: Subject, build: str) -> bool:
        """Where this build stood before counts again, and then it is true.

        A build is known bit by bit (its log, its fingerprint), so what was remembered waits until evidence replaces it.
        """
        key = (subject.backend, subject.model)
        quality = self._remembered.get(key)
        if quality is None:
            return False
        if subject.quality.cause is not None:
            del self._remembered[key]
            return False
        if quality.build != build:
            return False
        del self._remembered[key]
        self.take(subject, quality)
        return True

    def keep(self, subject: Subject) -> None:
        """Write down where it stands, if that has changed."""
        key, quality = (subject.backend, subject.model), subject.quality
        if self._history is None or self._kept.get(key) is quality or not quality.evidence:
            return
        self._kept[key] = quality
        self._history.keep(Standing(*key, quality.build, self._wall(), dump(quality)))

    def take(self, subject: Subject, quality: Quality) -> None:
        """A subject's standing has changed, or may have."""
        subject.quality = quality
        backend = self._fleet.backends.get(subject.backend)
        serving = backend.serving.get(subject.model) if backend is not None else None
        if serving is None or serving.flagged_by == "operator":
            return
        told = tuple(tell(one) for one in quality.evidence)
        if (serving.grade, serving.grade_reason, serving.evidence) == (quality.grade, subject.reason, told):
            return
        self.acts = True
        try:
            by = "canary" if quality.held is None else "operator"
            self._fleet.set_grade(subject.backend, subject.model, quality.grade, subject.reason, told, by)
        finally:
            self.acts = False

    def heard(self, subject: Subject, grade: str, was: str, reason: str) -> bool:
        """The operator gave a grade; true where that lifted a flag, so that the backend should be looked at again."""
        now = self._wall()
        if grade == Grade.FLAGGED.value:
            subject.quality = policy.flag(subject.quality, reason, now)
        elif was == Grade.FLAGGED.value:
            subject.quality = policy.clear(subject.quality, reason, now)
            return True
        return False

    def blame(
        self,
        reference: Subject,
        family: Family,
        pairs: list[Paired],
        candidate: Reference,
        scheme: str,
        strictness: Strictness,
    ) -> None:
        """A comparison spoke against an unproven reference: it counts as evidence about the reference."""
        quality = policy.score_texts(reference.quality, family, pairs, candidate, scheme, self._wall(), strictness)
        self.take(reference, quality)


def tell(evidence: Evidence) -> str:
    """One piece of evidence as a line for a person."""
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in evidence.numbers.items())
    probes = ", ".join(evidence.probes[:6]) + (
        f" and {len(evidence.probes) - 6} more" if len(evidence.probes) > 6 else ""
    )
    test = f"; e={evidence.e_value:.3g}" if evidence.e_value is not None else ""
    more = "; ".join(part for part in (numbers, probes) if part)
    return f"{evidence.kind.value}: {evidence.detail}{test}" + (f" ({more})" if more else "")
