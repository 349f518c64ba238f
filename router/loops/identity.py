"""Which kernel does a backend really run, and which build is it?

Looked at when a backend becomes healthy, after a restart (start time or counters fall) and when its
`system_fingerprint` changes. The label in the fleet file is only compared, never believed: where no log can be read,
the answer is "unknown, add this one line". A new build starts quality over; a restart under the same one keeps it but
asks for a quick check.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from router.backend import Backend
from router.events import BuildChanged, Bus, HealthChanged, KernelObserved, Notice
from router.fleet import Fleet
from router.helper import Helper
from router.history.rows import build_id
from router.loops.logsource import LogAccess, LogUnavailable
from router.policy.facts import Grade, Health
from router.vllm import logs
from router.vllm.findings import Weight
from router.vllm.identity import Identity, compare

log = logging.getLogger(__name__)

_PLACES = frozenset({"model", "model_tag", "host", "port"})  # where it is and what it serves stand elsewhere
_NOT_KNOWN = ("", "unknown", "[]")  # parts of a build that nobody has seen yet
_MOST_FLAGS = 1000  # characters kept of them, for a person
_AGAIN_S = 60.0  # between looks at a log that does not name a kernel yet: a start takes minutes


class IdentityLoop:
    """Looks at backends one at a time; asked by events, so that an idle fleet costs nothing."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        access: LogAccess,
        on_build: Callable[[Backend, str, bool], None],
        helper: Helper | None = None,
    ) -> None:
        self._fleet = fleet
        self._bus = bus
        self._access = access
        self._on_build = on_build
        self._helper = helper
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._parts: dict[str, tuple[str, ...]] = {}  # of each backend's build, as judged last
        self.identities: dict[str, Identity] = {}

    def on_event(self, event: object) -> None:
        """A backend that becomes healthy is looked at."""
        if isinstance(event, HealthChanged) and event.new == Health.HEALTHY.value:
            self.want(event.backend)

    def want(self, name: str) -> None:
        """Look at this backend soon."""
        if name not in self._queued:
            self._queued.add(name)
            self._wanted.put_nowait(name)

    def fingerprint_seen(self, backend: Backend, fingerprint: str) -> None:
        """An answer carried this fingerprint."""
        if backend.fingerprint is None:
            backend.fingerprint = fingerprint
            self.want(backend.name)
        elif fingerprint != backend.fingerprint:
            backend.fingerprint = fingerprint
            backend.version = None
            self.want(backend.name)

    def restarted(self, backend: Backend) -> None:
        """The backend started anew: people patch kernels under one version, so everything is looked at again."""
        self._bus.emit(BuildChanged(backend.name, backend.build, backend.build, restarted_only=True))
        self.want(backend.name)

    async def run(self) -> None:
        """Look at whoever is wanted, for ever."""
        while True:
            name = await self._wanted.get()
            self._queued.discard(name)
            backend = self._fleet.backends.get(name)
            if backend is None:
                continue
            try:
                await self._look(backend)
            except Exception:
                log.exception("looking at the identity of %s failed inside the router", name)

    async def _look(self, backend: Backend) -> None:
        identity, problem = await self._read(backend)
        verdict = compare(backend.config.kernel, identity)
        detail = problem if identity is None and problem else verdict.detail
        if identity is not None:
            self.identities[backend.name] = identity
            backend.version = identity.version or backend.version
            for finding in identity.findings:
                if finding.weight >= Weight.WARNING:
                    text = f"its log says {finding.kind.value.replace('_', ' ')} {finding.detail}".strip()
                    self._bus.emit(Notice(backend.name, text, alarm=finding.weight is Weight.FAULT))
        backend.kernel, backend.kernel_matches, backend.kernel_detail = verdict.observed, verdict.matches, detail
        declared = backend.config.kernel or ""
        self._bus.emit(KernelObserved(backend.name, declared, verdict.observed, verdict.matches, detail))
        self._judge_build(backend, identity)
        if identity is not None and verdict.observed == "unknown" and not identity.ready:
            asyncio.get_running_loop().call_later(_AGAIN_S, self.want, backend.name)

    async def _read(self, backend: Backend) -> tuple[Identity | None, str]:
        """What its log says, or why it could not be read."""
        source = backend.config.log
        if source is None:
            return None, ""
        found = await self._identify(source)
        if not isinstance(found, LogUnavailable):
            backend.image = await self._access.image(source)
            return found, ""
        return None, f"its log could not be read ({found.reason.value}): {found.detail}"

    async def _identify(self, source: str) -> Identity | LogUnavailable:
        """What a log says. Reading its words takes up to half a second, so the helper does it where there is one."""
        if self._helper is None:
            return await self._access.identify(source)
        text = await self._access.read(source)
        return text if isinstance(text, LogUnavailable) else await self._helper.run(logs.read, text.data)

    def _judge_build(self, backend: Backend, identity: Identity | None) -> None:
        checkpoint = next((card.root or "" for card in backend.cards), "")
        args = sorted((identity.args if identity is not None else {}).items())
        parts = (checkpoint, backend.kernel, backend.version or "", backend.fingerprint or "", repr(args))
        new = build_id(backend.name, *parts)
        old, before = backend.build, self._parts.get(backend.name, parts)
        self._parts[backend.name] = parts
        if new == old:
            return
        backend.build = new
        shown = " ".join(f"{name}={value}" for name, value in args if name not in _PLACES)
        backend.flags = " ".join(shown.split())[:_MOST_FLAGS]
        # A fingerprint or log that is read for the first time completes a build: what was learned of it still holds.
        is_change = any(was not in (*_NOT_KNOWN, now) for was, now in zip(before, parts, strict=True))
        self._on_build(backend, old, bool(old) and is_change)
        if old:
            for model, serving in backend.serving.items():
                if serving.grade is not Grade.UNKNOWN and serving.flagged_by != "operator":
                    self._fleet.set_grade(backend.name, model, Grade.UNKNOWN, "a new build, not checked yet")
            self._bus.emit(BuildChanged(backend.name, old, new, restarted_only=False, completed=not is_change))
