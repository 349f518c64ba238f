"""Build every object once, in order, and hand them to each other; start and stop the loops.

The data port binds first and answers before the admin side is even imported: a router that restarts should not be
missed. Whoever wants to know what depends on what reads `App.__init__`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from router import __version__
from router.backend import Backend
from router.config import BackendConfig, FleetConfig, NotifyConfig
from router.errors import Overloaded
from router.events import (
    BuildChanged,
    Bus,
    CanaryEnded,
    HealthChanged,
    IntentChanged,
    KernelObserved,
    Notice,
    QualityChanged,
    Reloaded,
)
from router.fleet import Fleet
from router.front import Front
from router.gauges import names_of, snapshot_of
from router.helper import Helper, one_process
from router.history import History
from router.loops.command import run as run_program
from router.loops.gpu import GpuLoop, Run
from router.loops.identity import IdentityLoop
from router.loops.idlework import IdleWork
from router.loops.logsource import LogAccess
from router.loops.outliers import OutlierNews
from router.loops.probe import MakeClient, Prober, Reach, is_reachable, make_client
from router.loops.reload import Reloader
from router.loops.tick import Ticker, finish_drains
from router.metrics import Metrics
from router.openai.routes import ROUTES
from router.quality.loop import QualityLoop
from router.quality.watch import LiveSentinel
from router.remember import Memory
from router.tls import Certificates
from router.wire.client import Address, Dial, Pool, dial_socket
from router.wire.server import Server, ServerLimits

if TYPE_CHECKING:
    from router.admin.serve import AdminServer
    from router.logs import Logs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything that tests hand in instead of the world."""

    wall: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random
    dial: Dial = dial_socket
    client: MakeClient = make_client
    reach: Reach = is_reachable
    executor: Callable[[], Executor] = one_process
    run: Run = run_program
    which: Callable[[str], str | None] = shutil.which
    pragmas: tuple[str, ...] = ()  # of the history file, such as "max_page_count = 1": a disk that is full


class App:
    """One router process.

    Args:
        config: the fleet as it starts.
        loop: the loop that everything runs on.
        outside: time, chance and network.
        logs: where lines go; None for none.
        history_file: what survives a restart; None for nothing.
    """

    def __init__(
        self,
        config: FleetConfig,
        loop: asyncio.AbstractEventLoop,
        outside: Outside | None = None,
        logs: Logs | None = None,
        history_file: Path | None = None,
    ) -> None:
        self.outside = outside or Outside()
        self.loop = loop
        self.logs = logs
        self.bus = Bus()
        self.fleet = Fleet(loop.time, self.bus, self._make_pool)
        self.metrics = Metrics(names_of(self.fleet, _ROUTE_NAMES), self._snapshot, self.outside.wall, __version__)
        self.front = Front(
            self.fleet,
            self.bus,
            loop,
            wall=self.outside.wall,
            draw=self.outside.draw,
            metrics=self.metrics.render_slices,
            version=__version__,
        )
        self.server = Server(self.front, server_limits(config), loop)
        self.prober = Prober(
            self.fleet, self.bus, loop, self._find, self._addresses, self.outside.client, self.outside.reach
        )
        self.ticker = Ticker(loop, self.fleet, self.front, self.server, self.metrics.loop_lag)
        self.ticker.extra.append(lambda: finish_drains(self.fleet, self.bus))
        self.ticker.extra.append(OutlierNews(self.fleet, self.bus, self.outside.wall, self.metrics.outliers).look)
        self.started_at = self.outside.wall()
        self._config = config
        self.certificates = Certificates()
        self._ports: dict[str, int] = {}
        self._listener: asyncio.Server | None = None
        self._loops: list[asyncio.Task[Any]] = []
        self._notified = NotifyConfig()
        self._stop_notifying: Callable[[], None] | None = None
        self.admin: AdminServer | None = None
        self.reloader: Reloader | None = None
        self.history: History | None = None
        self.memory: Memory | None = None
        if history_file is not None:
            self.history = History(
                history_file, self._notice_from_thread, self.outside.wall, pragmas=self.outside.pragmas
            )
            self.memory = Memory(self.fleet, self.history, self.outside.wall)
        self.helper = Helper(self.outside.executor)
        self.identity = IdentityLoop(self.fleet, self.bus, LogAccess(), self._build_known, self.helper)
        self.gpus = GpuLoop(self.fleet, self.outside.run, self.outside.which)
        self.quality = QualityLoop(
            self.fleet,
            self.bus,
            self.prober.client,
            self.helper,
            self.outside.wall,
            self.outside.draw,
            history=self.history,
            identity=self.identity.identities.get,
            fingerprint=self.identity.fingerprint_seen,
            booked=self.metrics.canary_time,
        )
        self.idle_work = IdleWork(
            self.fleet,
            self.bus,
            self.prober.client,
            self.quality.ledger,
            self.outside.wall,
            self.gpus.read_now,
            self.history,
        )
        self.sentinel = LiveSentinel(self.fleet, self.outside.wall, self.quality.suspect, self.metrics.suspicion)
        self._connect()

    def _connect(self) -> None:
        """Who hears of what. The history comes first: what others do about an event is kept after it."""
        if self.history is not None and self.memory is not None:
            self.bus.subscribe(self.history.on_event)
            self.bus.subscribe(self.memory.on_event, HealthChanged, IntentChanged)
        self.bus.subscribe(self.identity.on_event, HealthChanged)
        checks = (HealthChanged, KernelObserved, BuildChanged, QualityChanged, CanaryEnded)
        self.bus.subscribe(self.quality.on_event, *checks)
        self.bus.subscribe(self.sentinel.on_event, BuildChanged)
        self.ticker.extra.append(self.quality.gates.look)
        self.front.on_folded = self.sentinel.folded
        self.front.on_answer = self.sentinel.answered
        self.front.on_end = self.sentinel.ended
        self.front.on_fingerprint = self.identity.fingerprint_seen
        self.front.on_look_again = self.prober.ask
        self.prober.on_restart = self.identity.restarted
        self.fleet.listeners.append(self._models_changed)
        self.bus.subscribe(self.metrics.on_event)
        if self.logs is not None:
            self.bus.subscribe(self.logs.on_event)

    # --- life ---

    async def listen(self, host: str, port: int) -> int:
        """Bind the client port; returns the port taken.

        Raises:
            OSError: it cannot be bound.
        """
        self._listener = await self.loop.create_server(
            self.server.protocol, host, port, backlog=4096, ssl=self.certificates.for_clients(self._config.access)
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def start(self, first_round_s: float = 2.0) -> None:
        """Put the fleet in force, ask everybody once, begin the loops."""
        self.apply(self._config)
        if self.memory is not None:
            self.memory.at_start()
        self.ticker.start()
        self.background(self.identity.run())
        await self.prober.first_round(first_round_s)
        self.front.ready = True
        self.background(self.prober.run())
        self.background(self.quality.run())
        self.background(self.gpus.run())
        self.background(self.idle_work.run())
        if self.memory is not None:
            self.background(_every(60.0, self.memory.save))
        if self.history is not None:
            self.background(_every(10.0, self.history.flush))
        if self.logs is not None:
            self.background(self.logs.run())

    def background(self, work: Any) -> asyncio.Task[Any]:
        """Run something until shutdown."""
        task = self.loop.create_task(work)
        self._loops.append(task)
        return task

    async def stop(self, drain_s: float) -> None:
        """Readiness off, no new connections, finish what is in flight to the deadline, then end the rest visibly."""
        self.front.ready = False
        if self._listener is not None:
            self._listener.close()
        self.server.stop_keep_alive()
        await self.front.idle(drain_s)
        if self.front.open:
            self.front.stop_all(
                Overloaded("the router is shutting down", code="shutting_down", status=503, retry_after_s=5)
            )
            await asyncio.sleep(0.1)
        self.ticker.stop()
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.prober.close()
        if self.admin is not None:
            await self.admin.stop()
        for connection in tuple(self.server.connections):
            connection.close_when_idle()
        self.fleet.close()
        self.helper.close()
        if self.memory is not None:
            self.memory.save()
        if self.history is not None:
            await asyncio.to_thread(self.history.close)
        if self.logs is not None:
            self.logs.close()

    def reloads_from(self, path: Path, read: Callable[[], FleetConfig], *, watch: bool) -> None:
        """From now on the fleet can be reloaded from this file."""
        self.reloader = Reloader(self.fleet, self.bus, read, self.apply, self.prober.ask_models, path)
        if watch:
            self.background(self.reloader.watch())

    def reload_soon(self, logs: Logs) -> None:
        """SIGHUP: read the fleet file again, and write to a fresh log file."""
        logs.reopen()
        if self.reloader is not None:
            self.background(self.reloader.reload())

    # --- config ---

    def apply(self, config: FleetConfig) -> Reloaded:
        """Make a checked config the one in force."""
        added, removed, changed = self.fleet.apply(config)
        self._config = config
        self._renew_certificates(config)
        self.server.limits = server_limits(config)
        self.front.configured()
        self.metrics.allow(names_of(self.fleet, _ROUTE_NAMES))
        self._notify(config.notify)
        event = Reloaded(self.fleet.generation, True, tuple(added), tuple(removed), tuple(changed))
        self.bus.emit(event)
        if added or changed:
            # Asked at once: a new backend should not wait for its turn in the round.
            for name in (*added, *changed):
                self.prober.ask(self.fleet.backends[name])
        return event

    def _renew_certificates(self, config: FleetConfig) -> None:
        """A file may hold another certificate by now, under the same name: new connections go by that one."""
        if not self.certificates.renew(config.access):
            self.bus.emit(
                Notice("access.tls_cert", "turning https on or off takes a restart of the router", alarm=True)
            )
        for backend in self.fleet.backends.values():
            address = backend.pool.address
            if address.tls is not None:
                tls = self.certificates.to_backend(backend.config.tls_ca, backend.config.tls_verify)
                backend.pool = backend.pool.moved(replace(address, tls=tls))

    def _notify(self, config: NotifyConfig) -> None:
        """Tell the operator's phone, where the fleet file says so; a reload may say otherwise."""
        if config == self._notified:
            return
        self._notified = config
        if self._stop_notifying is not None:
            self._stop_notifying()
            self._stop_notifying = None
        if config.url is None:
            return
        import httpx  # here and not at the top: the data port answers before this is imported

        from router.notify import Notifier, Sender

        client = httpx.AsyncClient(timeout=10.0, trust_env=False)
        notifier = Notifier(
            Sender(config.url, client, None if config.kind == "auto" else config.kind),
            self.loop.time,
            lambda: snapshot_of(self).usable,
            min_interval_s=config.min_interval_s,
            tell=self.bus.emit,
        )
        unsubscribe = self.bus.subscribe(notifier.on_event)

        async def tell() -> None:
            async with client:
                await notifier.run()

        task = self.background(tell())

        def stop() -> None:
            unsubscribe()
            task.cancel()

        self._stop_notifying = stop

    @property
    def history_ok(self) -> bool:
        """Whether what is learned is being kept."""
        return self.history is None or self.history.ok

    def _notice_from_thread(self, notice: Notice) -> None:
        self.loop.call_soon_threadsafe(self.bus.emit, notice)

    def _build_known(self, backend: Backend, old: str, changed: bool) -> None:
        if self.memory is not None:
            self.memory.build_known(backend, old, changed)

    def _models_changed(self) -> None:
        """Labels follow what is served."""
        self.metrics.allow(names_of(self.fleet, _ROUTE_NAMES))

    def _snapshot(self) -> Any:
        return snapshot_of(self)

    def _make_pool(self, config: BackendConfig, fleet: FleetConfig) -> Pool:
        return Pool(
            config.name,
            self._address(config, config.urls[0]),
            self.loop.time,
            self.outside.dial,
            fleet.timeouts.backend_keep_alive_s,
            fleet.timeouts.connect_s,
        )

    def _find(self, backend: Backend) -> Address:
        """Where to look for a backend that refuses: the next of its addresses, in turn."""
        urls = backend.config.urls
        if len(urls) == 1:
            return backend.pool.address
        turn = self._ports[backend.name] = (self._ports.get(backend.name, 0) + 1) % len(urls)
        return self._address(backend.config, urls[turn])

    def _addresses(self, config: BackendConfig) -> list[Address]:
        return [self._address(config, url) for url in config.urls]

    def _address(self, config: BackendConfig, url: str) -> Address:
        if url.startswith("unix:"):
            return Address(path=url.removeprefix("unix:"))
        parts = urlsplit(url)
        is_https = parts.scheme == "https"
        tls = self.certificates.to_backend(config.tls_ca, config.tls_verify) if is_https else None
        return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls=tls)


async def _every(seconds: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        work()


def server_limits(config: FleetConfig) -> ServerLimits:
    """Return what one client may use, as the fleet file says it."""
    limits, timeouts = config.limits, config.timeouts
    return ServerLimits(
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_bytes=limits.body_bytes,
        bodies_total_bytes=limits.bodies_total_bytes,
        pipelined_bytes=limits.pipelined_bytes,
        connections=limits.connections,
        connections_per_address=limits.connections_per_address,
        idle_s=timeouts.idle_keep_alive_s,
        slow_head_s=timeouts.slow_head_s,
        slow_body_s=timeouts.slow_body_s,
        slow_body_rate=limits.slow_body_rate,
        linger_s=timeouts.linger_s,
        slow_reader_s=timeouts.slow_reader_s,
    )


_ROUTE_NAMES = frozenset(route.name for route in ROUTES)
