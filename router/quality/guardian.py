"""What must not be asked any more: a backend that died of one kind of probe gets no more of it until it is allowed."""

from __future__ import annotations

from collections.abc import Callable

from router.events import Bus, Notice
from router.history import History
from router.history.rows import Incident
from router.policy.quality import Family

_KILLED, _ALLOWED = "killed by a canary", "canary allowed"


class Guardian:
    """Remembers deaths over restarts of the router, where there is a history."""

    def __init__(self, bus: Bus, history: History | None, wall: Callable[[], float]) -> None:
        self._bus = bus
        self._history = history
        self._wall = wall
        self._blocked: set[tuple[str, Family]] = set()

    async def open(self) -> None:
        """Read what earlier runs met."""
        if self._history is None:
            return
        for row in await self._history.rows(Incident):
            if row.kind in (_KILLED, _ALLOWED) and row.detail in set(Family):
                key = (row.backend, Family(row.detail))
                (self._blocked.add if row.kind == _KILLED else self._blocked.discard)(key)

    def blocked(self, backend: str) -> frozenset[Family]:
        """Kinds of probes that this backend gets no more of."""
        return frozenset(family for name, family in self._blocked if name == backend)

    def died(self, backend: str, build: str, family: Family) -> None:
        """It went away while it was asked something of this kind."""
        self._blocked.add((backend, family))
        self._keep(backend, build, _KILLED, family)
        message = (
            f"went away while it was asked a {family.value} probe: no more of these until "
            f"`router canary allow {backend}`"
        )
        self._bus.emit(Notice(backend, message, alarm=True))

    def allow(self, backend: str) -> frozenset[Family]:
        """The operator allows everything again; returns what was blocked."""
        before = self.blocked(backend)
        for family in before:
            self._blocked.discard((backend, family))
            self._keep(backend, "", _ALLOWED, family)
        return before

    def _keep(self, backend: str, build: str, kind: str, family: Family) -> None:
        if self._history is not None:
            self._history.keep(Incident(backend, build, self._wall(), kind, family.value))
