"""The one clock of deadlines: a few times a second it looks at every open call, connection and backend.

No call and no connection owns a timer; a sweep over thousands of them costs less than arming and cancelling one each.
The same beat measures how late the loop is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from router.backend import Backend
from router.errors import FailureKind
from router.events import Bus, Notice
from router.fleet import Fleet
from router.front import Front
from router.policy.facts import Intent
from router.policy.health import Evidence, Progress, hung, lost
from router.wire.relay import Relay
from router.wire.server import Server

BEAT_S = 0.25
_SLOW_EVERY = 4  # beats between looks at connections


class Ticker:
    """Beats until it is stopped. `on_lag` gets the seconds by which a beat was late."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fleet: Fleet,
        front: Front,
        server: Server,
        on_lag: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._fleet = fleet
        self._front = front
        self._server = server
        self._on_lag = on_lag
        self._beats = 0
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self.extra: list[Callable[[], None]] = []  # further work of each slow beat

    def start(self) -> None:
        """Begin to beat."""
        self._due = self._loop.time() + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """Beat no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _beat(self) -> None:
        now = self._loop.time()
        self._on_lag(max(0.0, now - self._due))
        self._due = now + BEAT_S
        self._handle = self._loop.call_at(self._due, self._beat)
        self._beats += 1
        self._front.sweep(now)
        if self._beats % _SLOW_EVERY == 0:
            self._server.sweep(now)
            for backend in (*self._fleet.backends.values(), *self._fleet.leaving):
                backend.pool.expire(now)
                if backend.leases:
                    self._look_at(backend, now)
            for work in self.extra:
                work()

    def _look_at(self, backend: Backend, now: float) -> None:
        """Hangs, and drains past their deadline."""
        if backend.drain_deadline is not None and now >= backend.drain_deadline:
            for lease in tuple(backend.leases):
                if lease.abort is not None:
                    lease.abort(FailureKind.DRAINED, "was drained past its deadline")
            return
        if self._fleet.passive:
            return
        health = self._fleet.config.health
        for relay in lost_calls(self._front, backend, health.hang_s):
            relay.fail(FailureKind.LOST, "worked on and has nothing left to do, without an answer to this call")
        reason = hung(progress_of(self._front, backend, now), health.hang_s, health.stalled_streams_s)
        if reason is None:
            return
        self._fleet.observe(backend, Evidence.HUNG, reason)
        for lease in tuple(backend.leases):
            if lease.abort is not None:
                lease.abort(FailureKind.HUNG, f"hangs: {reason}")


def _calls_at(front: Front, backend: Backend) -> Iterator[tuple[Relay, float]]:
    """The calls that one backend has, and the seconds that its fastest prefill takes for each."""
    rate = max((one.candidate.speed.prefill_rate for one in backend.serving.values()), default=0.0)
    for exchange in front.open:
        relay = exchange.relay
        if relay is None or relay.connection is None or exchange.predicted is None:
            continue
        if exchange.predicted.name != backend.name or exchange.client.paused:
            continue
        tokens = exchange.facts.prompt_tokens if exchange.facts is not None else 0.0
        yield relay, tokens / rate if rate > 0 else 0.0


def lost_calls(front: Front, backend: Backend, hang_s: float) -> list[Relay]:
    """The calls that one backend no longer has, see `router.policy.health.lost`."""
    return [
        relay
        for relay, prefill_s in _calls_at(front, backend)
        if relay.content_at is None and lost(relay.last_at, backend.ran_dry_at, prefill_s, hang_s)
    ]


def progress_of(front: Front, backend: Backend, now: float) -> Progress:
    """What the hang rule looks at, from the open calls of one backend and its own metrics."""
    streams = 0
    silence = float("inf")
    waits = 0.0
    largest = 0.0
    for relay, prefill_s in _calls_at(front, backend):
        if relay.content_at is not None:
            streams += 1
            silence = min(silence, now - relay.last_at)
        else:
            waits = max(waits, now - relay.sent_at)
            largest = max(largest, prefill_s)
    still = now - backend.progress_at if backend.scrape is not None and backend.progress_at else None
    return Progress(
        streams=streams,
        silence_s=silence if streams else 0.0,
        oldest_wait_s=waits,
        engine_still_s=still,
        predicted_prefill_s=largest,
    )


def finish_drains(fleet: Fleet, bus: Bus) -> None:
    """A drained backend that holds nothing any more is disabled: the operator may take it down."""
    for backend in fleet.backends.values():
        if backend.intent is Intent.DRAINING and not backend.leases and backend.drain_deadline is not None:
            backend.drain_deadline = None
            bus.emit(Notice(backend.name, "is drained: nothing is in flight there"))
