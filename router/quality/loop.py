"""Is it still good? Decides which backend is checked when, and hears what asks for a check.

One check at a time over the whole fleet, and only on a backend that nobody uses: a call that comes in ends the question
that is being asked at once, and the rest of the check goes on later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from router.backend import Backend
from router.events import BuildChanged, Bus, CanaryEnded, Event, HealthChanged, KernelObserved, Notice, QualityChanged
from router.fleet import Fleet
from router.helper import Helper
from router.history import History
from router.policy import quality as policy
from router.policy.facts import Health
from router.policy.quality import Evidence, Kind
from router.policy.sentinel import Suspicion
from router.probes.texts import ProbeText, load_probes
from router.quality.ask import Talents
from router.quality.gate import Gates
from router.quality.guardian import Guardian
from router.quality.inspector import Inspector, Outside
from router.quality.ledger import Ledger
from router.quality.patience import Left
from router.quality.plan import Plan, Size
from router.quality.shelf import Shelf
from router.quality.subject import IDENTITY_S, QUIET_S, Subject, Want, Why, hindrance, idle_s
from router.quality.verdicts import Verdicts
from router.vllm.identity import Identity

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

ROUND_S = 1.0  # between looks at who is due
PAUSE_S = 5.0  # before an interrupted check goes on


class QualityLoop:
    """See the module.

    Args:
        client: an HTTP client for a backend's present address.
        helper: where texts are read and compared.
        wall: Unix time.
        draw: a number from 0 to 1, by chance.
        history: where baselines are kept; None for memory only.
        identity: what a backend's log said, None where it could not be read.
        fingerprint: told of the `system_fingerprint` that a backend answers with.
        probes: reads the probe texts; takes the operator's own file or folder.
        booked: hears how long a backend was asked something.
    """

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        client: Callable[[Backend], httpx.AsyncClient],
        helper: Helper,
        wall: Callable[[], float],
        draw: Callable[[], float],
        *,
        history: History | None = None,
        identity: Callable[[str], Identity | None] = lambda name: None,
        fingerprint: Callable[[Backend, str], None] = lambda backend, said: None,
        probes: Callable[[Path | None], tuple[ProbeText, ...]] = load_probes,
        booked: Callable[[str, float], None] = lambda backend, seconds: None,
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._wall = wall
        self._probes = probes
        self._identified: set[str] = set()  # backends whose log was looked at
        self.subjects: dict[tuple[str, str], Subject] = {}
        self.shelf = Shelf(history, helper)
        self.guardian = Guardian(bus, history, wall)
        self.verdicts = Verdicts(fleet, wall, history)
        self.gates = Gates(fleet, lambda: fleet.config.quality.gate_s)
        self.ledger = Ledger(fleet.clock, lambda: fleet.config.quality.budget_share, booked)
        self.inspector = Inspector(
            fleet,
            bus,
            helper,
            Outside(client, wall, draw, identity, fingerprint),
            self.shelf,
            self.guardian,
            self.verdicts,
            self.subjects,
            self.ledger,
        )

    # --- what happens around it ---

    def on_event(self, event: Event) -> None:
        """Something happened that asks for a check, or ends the meaning of the last one."""
        if isinstance(event, HealthChanged):
            back = event.old not in (Health.SUSPECT.value, Health.PROBATION.value)
            if event.new == Health.HEALTHY.value and back:
                self._want_all(event.backend, Why.HEALTHY)
        elif isinstance(event, KernelObserved):
            self._identified.add(event.backend)
        elif isinstance(event, BuildChanged):
            self._build_changed(event)
        elif isinstance(event, CanaryEnded):
            self.gates.open(event.backend, event.model, f"checked: {event.verdict}")
        elif isinstance(event, QualityChanged) and not self.verdicts.acts:
            subject = self.subject(event.backend, event.model)
            if self.verdicts.heard(subject, event.new, event.old, event.reason):
                subject.ask(Want(Size.QUICK, Why.OPERATOR, self._fleet.clock()))

    def _want_all(self, backend: str, why: Why) -> None:
        one = self._fleet.backends.get(backend)
        for model in one.serving if one is not None else ():
            self.subject(backend, model).ask(Want(Size.QUICK, why, self._fleet.clock()))

    def _build_changed(self, event: BuildChanged) -> None:
        now = self._wall()
        for subject in [s for s in self.subjects.values() if s.backend == event.backend]:
            if subject.checked_at is not None and not event.restarted_only and not event.completed:
                self.gates.close(subject.backend, subject.model, "another build")
            subject.rest = subject.record = None
            subject.open_checks, subject.kept_against = 0, ""
            subject.talents = Talents()
            if event.restarted_only:
                subject.quality = policy.restarted(subject.quality, now)
            elif subject.quality.held is None:
                subject.quality = policy.fresh(event.new, now)
            else:  # the operator's word is about the backend, whatever it runs
                subject.quality = replace(subject.quality, build=event.new)
        self._want_all(event.backend, Why.RESTART if event.restarted_only else Why.BUILD)

    def suspect(self, backend: str, model: str, suspicion: Suspicion) -> None:
        """Live answers look wrong: that makes suspect, and a check is due."""
        if self._fleet.passive or backend not in self._fleet.backends:
            return
        subject = self.subject(backend, model)
        found = Evidence(Kind.SENTINEL, self._wall(), suspicion.detail, e_value=suspicion.e_value)
        self.verdicts.take(subject, policy.judge(subject.quality, found))
        subject.ask(Want(Size.QUICK, Why.SENTINEL, self._fleet.clock()))

    # --- what the operator asks ---

    def ask(self, backend: str, model: str, size: Size, *, keep: bool = False, dry_run: bool = False) -> Plan:
        """The operator wants a check: it begins when the backend is idle. Returns what it will ask and cost.

        Args:
            backend: which one; it must serve the model.
            model: a served name.
            size: quick or full.
            keep: the operator vouches for the build: what it answers is a proven baseline.
            dry_run: only say what it would cost.
        """
        subject = self.subject(backend, model)
        plan = self.inspector.plan(subject, size)
        if not dry_run:
            subject.rest = None
            subject.want = Want(size, Why.OPERATOR, self._fleet.clock(), keep)
        return plan

    def subject(self, backend: str, model: str) -> Subject:
        """What is known of a model on a backend; made at the first question."""
        found = self.subjects.get((backend, model))
        if found is None:
            one = self._fleet.backends.get(backend)
            quality = policy.fresh(one.build if one is not None else "", self._wall())
            found = self.subjects[backend, model] = Subject(backend, model, quality)
        return found

    # --- the loop ---

    async def run(self) -> None:
        """Check whoever is due, for ever."""
        self.gates.at_start = False
        await self._open()
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self._round()
            except Exception:
                log.exception("a quality check failed inside the router")

    async def _open(self) -> None:
        own = self._fleet.config.quality.extra_probes
        try:
            self.inspector.texts = await asyncio.to_thread(self._probes, Path(own) if own else None)
        except (OSError, ValueError) as problem:
            self._bus.emit(Notice("quality.extra_probes", f"cannot be read: {problem}", alarm=True))
            self.inspector.texts = await asyncio.to_thread(self._probes, None)
        await self.guardian.open()
        await self.verdicts.open()
        await self.shelf.open()

    async def _round(self) -> None:
        chosen = self._next()
        if chosen is None:
            await self._score_kept()
            return
        subject, backend, want = chosen
        left = Left.CALLED
        try:
            async with self.ledger.turn():
                left = await self.inspector.run(subject, backend, want)
        finally:
            if left is not Left.DONE:
                subject.not_before = self._fleet.clock() + PAUSE_S

    async def _score_kept(self) -> None:
        """Nobody is due: look whether somebody who was checked alone can be held against a reference by now."""
        for subject in list(self.subjects.values()):
            backend = self._fleet.backends.get(subject.backend)
            if backend is None or subject.checked_at is None or subject.want is not None or subject.rest is not None:
                continue
            if self._fleet.passive or not self._fleet.model_settings(subject.model).canary:
                continue
            if await self.inspector.score_kept(subject, backend):
                return

    def _next(self) -> tuple[Subject, Backend, Want] | None:
        """Who is checked now: the most urgent of those that nothing hinders."""
        fleet, now = self._fleet, self._fleet.clock()
        for key in [k for k in self.subjects if k[0] not in fleet.backends]:
            del self.subjects[key]
        ready: list[tuple[int, float, tuple[Subject, Backend, Want]]] = []
        for backend in fleet.backends.values():
            for model in tuple(backend.serving):
                subject = self.subject(backend.name, model)
                if backend.build and self.verdicts.remember(subject, backend.build):
                    self.gates.open(backend.name, model, "this build was checked before")
                self.verdicts.keep(subject)
                want = subject.due(now, idle_s(backend, now), fleet.config.quality.idle_before_full_s)
                subject.waits_for = "" if want is None else self._waits_for(subject, backend, want, now)
                if want is not None and not subject.waits_for:
                    ready.append((list(Why).index(want.why), want.at, (subject, backend, want)))
        return min(ready, key=lambda one: one[:2])[2] if ready else None

    def _waits_for(self, subject: Subject, backend: Backend, want: Want, now: float) -> str:
        """What a due check still waits for, "" where it may begin."""
        reason = hindrance(self._fleet, backend, subject.model)
        if reason is not None:
            return reason
        if now < subject.not_before or idle_s(backend, now) < QUIET_S:
            return "an idle moment"
        scrape = backend.scrape
        if scrape is not None and (scrape.running or scrape.waiting):
            return "others than this router to be done with it"
        if backend.name not in self._identified and subject.checked_at is None and now - want.at < IDENTITY_S:
            return "its log to be read"
        limits = self._fleet.config.quality
        most_s = limits.quick_s if want.size is Size.QUICK else limits.full_s
        if want.why is not Why.OPERATOR and not self.ledger.allows(backend.name, most_s):
            return "its budget of time"
        if want.size is Size.FULL and any(host.active.value for host in backend.hosts):
            return "its host to be idle"
        return ""
