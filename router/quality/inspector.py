"""Carries out one check beside the traffic: begins it, asks, gives way to calls, ends it and leaves a baseline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from router.backend import Backend
from router.events import Bus, CanaryEnded, Notice
from router.fleet import Fleet
from router.helper import Helper
from router.policy.facts import Grade
from router.policy.logprobs import Unscorable
from router.policy.quality import Family, Reference, leaves_open, meet_fault
from router.policy.scoring import Paired
from router.policy.sequential import Strictness
from router.probes.texts import ProbeText
from router.quality.ask import Asker
from router.quality.check import Check
from router.quality.guardian import Guardian
from router.quality.kept import COMPARED, KeptAsker, plan_of
from router.quality.ledger import Ledger
from router.quality.patience import SETTLE_S, Left, Patience
from router.quality.plan import Plan, Size, make_plan
from router.quality.record import Baseline
from router.quality.shelf import Shelf
from router.quality.subject import Subject, Want, scheme_of
from router.quality.trust import TRUSTED_GRADES, Chooser, Trust
from router.quality.verdicts import Verdicts
from router.vllm.identity import Identity

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a check needs of the world."""

    client: Callable[[Backend], httpx.AsyncClient]
    wall: Callable[[], float]
    draw: Callable[[], float]
    identity: Callable[[str], Identity | None]
    fingerprint: Callable[[Backend, str], None]


class Inspector:
    """See the module. One check at a time: `running` is the one that is being asked."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        helper: Helper,
        outside: Outside,
        shelf: Shelf,
        guardian: Guardian,
        verdicts: Verdicts,
        subjects: dict[tuple[str, str], Subject],
        ledger: Ledger,
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._helper = helper
        self._outside = outside
        self._shelf = shelf
        self._guardian = guardian
        self._verdicts = verdicts
        self._subjects = subjects
        self._ledger = ledger
        self._patience = Patience(fleet, guardian)
        self._chooser = Chooser(fleet, shelf, guardian, subjects, outside.identity, self._is_affordable)
        self._tokens: dict[tuple[str, str], tuple[int, ...]] = {}
        self.texts: tuple[ProbeText, ...] = ()
        self.running: tuple[Subject, Check] | None = None

    # --- before ---

    def plan(self, subject: Subject, size: Size, stored: Baseline | None = None) -> Plan:
        """What a check would ask now, and what it would cost."""
        limits = self._fleet.config.quality
        backend = self._fleet.backends[subject.backend]
        doubt = subject.quality.doubt
        return make_plan(
            size,
            backend.serving[subject.model].speed.predict(self._fleet.clock()),
            limits.quick_s if size is Size.QUICK else limits.full_s,
            self.texts,
            self._outside.draw(),
            seen={f: {n.removesuffix(" gap") for n in test.seen} for f, test in subject.quality.tests.items()},
            known=self._known(subject, backend, stored),
            known_answers=stored.right if stored is not None else (),
            without=self._guardian.blocked(subject.backend),
            first=doubt.family if doubt is not None else None,
        )

    def _known(self, subject: Subject, backend: Backend, stored: Baseline | None) -> set[str]:
        """Texts whose answers can be compared with what is kept."""
        return {*(stored.texts if stored is not None else ()), *self._shelf.vectors(subject.model, backend.build)}

    async def run(self, subject: Subject, backend: Backend, want: Want) -> Left:
        """Begin a check or go on with its rest, until it is done or must be left."""
        asker = self._asker(backend, subject)
        left = await self._warm_up(subject, backend, asker)
        if left is not Left.DONE:
            return left
        check = subject.rest
        if check is None:
            check = subject.rest = self._begin(subject, backend, want, asker)
        else:  # what it was held against may be busy by now, or gone; what it may be asked may have become less
            check.asker = asker
            check.trust = self._trust(subject, backend, check.declared_scheme)
        self.running = (subject, check)
        try:
            left = await self._steps(subject, backend, check)
            if left in (Left.DONE, Left.GONE):
                await self._end(subject, backend, want, check, left)
            return left
        finally:
            self.running = None

    def _begin(self, subject: Subject, backend: Backend, want: Want, asker: Asker) -> Check:
        if subject.quality.build != backend.build:
            subject.quality = replace(subject.quality, build=backend.build)
        scheme = scheme_of(backend, self._outside.identity(backend.name))
        trust = self._trust(subject, backend, scheme)
        plan = self.plan(subject, want.size, trust.stored)
        about = f"about {plan.cost_s:.0f} s in {len(plan.items)} steps"
        self._bus.emit(Notice(backend.name, f"{want.size} check of {subject.model} begins, {about}: {want.why}"))
        return self._check(subject, plan, asker, trust, scheme)

    def _check(self, subject: Subject, plan: Plan, asker: Asker | KeptAsker, trust: Trust, scheme: str) -> Check:
        settings = self._fleet.model_settings(subject.model)
        limits = self._fleet.config.quality
        strictness = Strictness(settings.alpha or limits.alpha, settings.tolerance or limits.tolerance)
        return Check(
            subject.quality, plan, asker, trust, self._helper, scheme, self._outside.wall, self._blame, strictness
        )

    def _asker(self, backend: Backend, subject: Subject) -> Asker:
        subject.talents.context = backend.contexts.get(subject.model, subject.talents.context)
        return Asker(
            self._outside.client(backend),
            subject.model,
            self._helper,
            subject.talents,
            self._tokens,
            asking=partial(self._ledger.asking, backend.name),
            is_vllm=backend.config.kind == "vllm",
            priority=backend.config.scheduling_priority,
            may_score=Family.PREFILL not in self._guardian.blocked(backend.name),
        )

    # --- what it is held against ---

    def _is_affordable(self, backend: str) -> bool:
        return self._ledger.allows(backend, self._fleet.config.quality.quick_s)

    def _trust(self, subject: Subject, backend: Backend, scheme: str) -> Trust:
        return self._chooser.trust(subject, backend, scheme, self._asker)

    def _blame(self, trust: Trust, family: Family, pairs: list[Paired], candidate: Check) -> None:
        """A comparison of two unproven builds spoke against the reference."""
        quality = candidate.quality
        other = self._subjects.get((trust.living_name, self._model_of(candidate)))
        if trust.stored is not None:
            other = self._owner(trust.stored)
            candidate.distrusted = candidate.distrusted or candidate.far_off(pairs)
        if other is not None:
            told = Reference(quality.build, candidate.scheme, quality.grade)
            self._verdicts.blame(other, family, pairs, told, candidate.scheme, candidate.strictness)

    def _owner(self, stored: Baseline) -> Subject | None:
        """Who runs the build that left this baseline, if anybody still does."""
        for subject in self._subjects.values():
            backend = self._fleet.backends.get(subject.backend)
            if subject.model == stored.model and backend is not None and backend.build == stored.build:
                return subject
        return None

    def _model_of(self, check: Check) -> str:
        return self.running[0].model if self.running is not None and self.running[1] is check else ""

    # --- asking ---

    async def _warm_up(self, subject: Subject, backend: Backend, asker: Asker) -> Left:
        """Learn its tokenizer and let it compile; what it is held against depends on the first."""
        if subject.talents.is_warm:
            return Left.DONE
        faults: list[Unscorable] = []

        async def warm() -> None:
            fault = await asker.warm_up()
            if fault is not None:
                faults.append(fault)

        left = await self._patience.ask(warm(), [backend], subject, asker)
        for fault in faults:
            found = meet_fault(subject.quality, Family.PREFILL, "warm-up", fault, self._outside.wall())
            self._verdicts.take(subject, found)
        if left is Left.GONE:
            self._guardian.died(backend.name, backend.build, Family.PREFILL)
        said = subject.talents.fingerprint
        if left is Left.DONE and said is not None and said != backend.fingerprint:
            self._outside.fingerprint(backend, said)  # it belongs to the build: settled before anything is judged
            return Left.CALLED
        return left

    async def _steps(self, subject: Subject, backend: Backend, check: Check) -> Left:
        clock, limits = self._fleet.clock, self._fleet.config.quality
        limit_s = limits.quick_s if check.plan.size is Size.QUICK else limits.full_s
        while check.left and check.spent_s < limit_s:
            if subject.rest is not check:  # another build, or another check was asked for
                return Left.CALLED
            living = self._fleet.backends.get(check.trust.living_name)
            watched = [backend] if living is None else [backend, living]
            begun, family = clock(), check.left[0].family
            check.quality = subject.quality
            left = await self._patience.ask(check.step(), watched, subject, check.asker)
            check.spent_s += clock() - begun
            if left is Left.DONE and check.is_shaken:
                check.is_shaken = False
                await asyncio.sleep(SETTLE_S)
                left = left if await check.asker.is_alive() else Left.GONE
            self._verdicts.take(subject, check.quality)
            self._raise_alarm(subject, check)
            if left in (Left.FAILED, Left.CALLED):
                await self._patience.mourn(check)
            if left is Left.FAILED:
                check.give_up("it did not answer in time")
                check.trust = self._trust(subject, backend, check.declared_scheme)
            elif left is Left.GONE:
                self._guardian.died(backend.name, backend.build, family)
            if left in (Left.CALLED, Left.GONE):
                return left
        return Left.DONE

    async def score_kept(self, subject: Subject, backend: Backend) -> bool:
        """Hold what a build answered alone against a reference that is there now; returns whether there was one.

        The build itself is asked nothing. Once per reference, and only while nothing else was compared.
        """
        own, clock = subject.record, self._fleet.clock
        if own is None or own.build != backend.build or subject.quality.tests.keys() & COMPARED:
            return False
        scheme = scheme_of(backend, self._outside.identity(backend.name))
        trust = self._chooser.trust(subject, backend, scheme, self._asker, own=False)
        if trust.reference is None or trust.reference.build == subject.kept_against:
            return False
        tokens = trust.living or self._asker(backend, subject)
        kept = KeptAsker(own, tokens, replace(subject.talents), self._helper)
        check = self._check(subject, plan_of(own, self.texts), kept, trust, scheme)
        begun, living = clock(), self._fleet.backends.get(trust.living_name)
        left = Left.DONE
        self.running = (subject, check)
        try:
            while left is Left.DONE and check.left and clock() - begun < self._fleet.config.quality.quick_s:
                check.quality = subject.quality
                left = await self._patience.ask(check.step(), [living] if living is not None else [], subject, kept)
                self._verdicts.take(subject, check.quality)
        finally:
            self.running = None
        if left is not Left.DONE:
            await self._patience.mourn(check)
        if left is not Left.CALLED:  # else it goes on when the reference is idle again
            subject.kept_against = trust.reference.build
        check.spent_s, check.quality = clock() - begun, subject.quality
        self._verdicts.take(subject, check.finish())
        if check.quality.tests.keys() & COMPARED:
            self._tell(subject, check, check.quality.grade.value)
        return True

    def _raise_alarm(self, subject: Subject, check: Check) -> None:
        """Say once a check what cannot wait for its end."""
        if check.alarm and not check.is_alarm_raised:
            check.is_alarm_raised = True
            self._bus.emit(Notice(subject.backend, f"{subject.model}: {check.alarm}", alarm=True))

    # --- after ---

    async def _end(self, subject: Subject, backend: Backend, want: Want, check: Check, left: Left) -> None:
        subject.rest = None
        if subject.want is want:  # another one may have been asked for meanwhile
            subject.want = None
        check.quality = subject.quality
        quality = check.finish()
        subject.note = f"checked, nothing speaks against it; {check.measured()}"
        self._verdicts.take(subject, quality)
        subject.checked_at = self._fleet.clock()
        subject.checks += 1
        subject.open_checks = subject.open_checks + 1 if leaves_open(check.before, quality) else 0
        if left is Left.DONE and want.size is Size.FULL:
            subject.full_of = quality.build
        if check.distrusted and check.trust.stored is not None:
            await self._shelf.distrust(check.trust.stored)
        if left is Left.DONE:
            subject.record = self._record(subject, backend, check, Grade.GOOD if want.keep else quality.grade)
            if subject.record.grade in TRUSTED_GRADES and not subject.record.is_empty:
                await self._shelf.keep(subject.record)
        serving = backend.serving.get(subject.model)
        if serving is not None:
            serving.score, serving.checked_at = check.score, subject.checked_at
        self._tell(subject, check, "died" if left is Left.GONE else quality.grade.value)

    def _tell(self, subject: Subject, check: Check, verdict: str) -> None:
        size, texts = check.plan.size.value, len(check.differences)
        self._bus.emit(
            CanaryEnded(
                subject.backend, subject.model, size, verdict, check.score, texts, check.spent_s, check.summary()
            )
        )

    def _record(self, subject: Subject, backend: Backend, check: Check, grade: Grade) -> Baseline:
        """What the check left, whatever came of it: a reference may come that it can be held against."""
        kept = check.kept
        return Baseline(
            model=subject.model,
            backend=backend.name,
            build=backend.build,
            scheme=check.declared_scheme,
            checkpoint=next((card.root or "" for card in backend.cards if card.id == subject.model), ""),
            tokenizer=subject.talents.tokenizer or "",
            kernels=backend.kernel,
            version=backend.version or "",
            at=self._outside.wall(),
            grade=grade,
            texts=kept.texts,
            decoded=kept.decoded,
            right=frozenset(kept.right),
            vectors=kept.vectors,
        )
