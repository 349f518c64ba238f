"""What a candidate is held against: a baseline of its scheme, a third build to measure from, a running reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from router.backend import Backend
from router.fleet import Fleet
from router.policy.facts import Grade
from router.policy.quality import Family, Reference
from router.quality.ask import Asker
from router.quality.guardian import Guardian
from router.quality.record import Baseline
from router.quality.shelf import Shelf
from router.quality.subject import QUIET_S, Subject, hindrance, idle_s, scheme_of
from router.vllm.identity import Identity

TRUSTED_GRADES = (Grade.GOOD, Grade.PLAUSIBLE, Grade.UNKNOWN)  # best first


@dataclass(frozen=True, slots=True)
class Trust:
    """What a candidate is held against.

    Attributes:
        stored: a baseline of the same scheme, or of the very same build.
        same_build: whether it is the candidate's own.
        third: R, a baseline of another scheme, from which both are measured.
        living: a running backend of the same scheme that can score texts.
        reference: what evidence is told of the trusted build; None where there is none.
        vectors: embeddings that were answered under this name before, by text.
    """

    stored: Baseline | None = None
    same_build: bool = False
    third: Baseline | None = None
    living: Asker | None = None
    living_name: str = ""
    reference: Reference | None = None
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class Chooser:
    """Looks through what is stored and what runs. `affordable`: whether a backend has time left for our questions."""

    def __init__(
        self,
        fleet: Fleet,
        shelf: Shelf,
        guardian: Guardian,
        subjects: Mapping[tuple[str, str], Subject],
        identity: Callable[[str], Identity | None],
        affordable: Callable[[str], bool],
    ) -> None:
        self._fleet = fleet
        self._shelf = shelf
        self._guardian = guardian
        self._subjects = subjects
        self._identity = identity
        self._affordable = affordable

    def trust(
        self,
        subject: Subject,
        backend: Backend,
        scheme: str,
        asker: Callable[[Backend, Subject], Asker],
        *,
        own: bool = True,
    ) -> Trust:
        """The best there is at this moment, its own past included where `own`.

        `asker` makes the questions to a running reference.
        """
        tokenizer = subject.talents.tokenizer
        stored = self._shelf.trusted(subject.model, backend.build, scheme, tokenizer, own=own)
        third = self._shelf.third(subject.model, scheme, tokenizer)
        vectors = self._shelf.vectors(subject.model, backend.build)
        living = self._living(subject, backend, scheme)
        scorer = asker(*living) if living is not None else None
        name = living[0].name if living is not None else ""
        if stored is not None:
            same = stored.build == backend.build
            known = "unknown" not in (stored.kernels, backend.kernel)
            independent = not same and known and stored.kernels != backend.kernel
            reference = Reference(stored.build, stored.scheme, stored.grade, independent)
            return Trust(stored, same, third, scorer, name, reference, vectors)
        if living is not None:
            other, at = living
            known = "unknown" not in (other.kernel, backend.kernel)
            reference = Reference(other.name, scheme, at.quality.grade, known and other.kernel != backend.kernel)
            return Trust(None, False, third, scorer, name, reference, vectors)
        return Trust(third=third, vectors=vectors)

    def _living(self, subject: Subject, backend: Backend, scheme: str) -> tuple[Backend, Subject] | None:
        """A running backend of the same model, scheme and tokenizer that nobody uses: the best proven one.

        It pays for its answers out of its own budget.
        """
        if not scheme:
            return None
        found = []
        for other in self._fleet.pools.get(subject.model, ()):
            at = self._subjects.get((other.name, subject.model))
            if other is backend or at is None or at.quality.grade not in TRUSTED_GRADES:
                continue
            alike = scheme_of(other, self._identity(other.name)) == scheme
            same_tokens = at.talents.is_warm and at.talents.tokenizer == subject.talents.tokenizer
            idle = idle_s(other, self._fleet.clock()) >= QUIET_S and not hindrance(self._fleet, other, subject.model)
            blocked = Family.PREFILL in self._guardian.blocked(other.name) or at.talents.scores is False
            if alike and same_tokens and idle and not blocked and self._affordable(other.name):
                found.append((other, at))
        return min(found, key=lambda one: TRUSTED_GRADES.index(one[1].quality.grade), default=None)
