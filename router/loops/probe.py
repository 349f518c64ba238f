"""Does it live, what does it serve, how busy does it say it is? One round per backend and interval, spread out.

A round asks `/health`, `/v1/models` and `/metrics` (for `kind: openai` only `/v1/models`, and `/metrics` where there is
one). Refused is `off` or `starting`, never an alarm by itself; a timeout while the backend still hands out tokens is a
busy backend, not a dead one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from router import caps
from router.backend import Backend
from router.config import BackendConfig, FleetConfig
from router.errors import causes
from router.events import BackendLoading, Bus, Notice, Scraped
from router.fleet import Fleet
from router.policy.facts import Health
from router.policy.health import Evidence
from router.vllm import metrics
from router.vllm.models import ModelCard, parse_models, parse_version
from router.wire.client import Address

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

MakeClient = Callable[[BackendConfig, Address], "httpx.AsyncClient"]
Reach = Callable[[str], Awaitable[bool]]
"""Whether a machine answers at all, whatever runs on it."""

_ANY_PORT = 22  # of a machine that is up: an answer or a refusal will both do


async def is_reachable(host: str, within_s: float = 2.0) -> bool:
    """Whether a machine is up: it accepts or refuses a connection; a machine that is off does neither."""
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, _ANY_PORT)
        writer.close()
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    return True


def make_client(config: BackendConfig, address: Address) -> httpx.AsyncClient:
    """An HTTP client for one backend's control side."""
    import httpx  # here: the data port binds before this is imported

    headers = {"accept-encoding": "identity"}
    if config.api_key is not None:
        headers["authorization"] = f"Bearer {config.api_key.get_secret_value()}"
    verify: ssl.SSLContext | bool = address.tls if address.tls is not None else False
    transport = httpx.AsyncHTTPTransport(uds=address.path, verify=verify, retries=0)
    scheme = "https" if address.tls is not None else "http"
    host = "localhost" if address.path is not None else address.authority.decode()
    return httpx.AsyncClient(base_url=f"{scheme}://{host}", headers=headers, transport=transport, trust_env=False)


class Prober:
    """Asks every backend once an interval. One client per backend and address."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        loop: asyncio.AbstractEventLoop,
        find: Callable[[Backend], Address],
        addresses: Callable[[BackendConfig], Sequence[Address]],
        client: MakeClient = make_client,
        reach: Reach = is_reachable,
    ) -> None:
        self._reach = reach
        self._fleet = fleet
        self._bus = bus
        self._loop = loop
        self._find = find
        self._addresses = addresses
        self._make = client
        self._clients: dict[str, tuple[Address, httpx.AsyncClient]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.on_restart: Callable[[Backend], None] | None = None
        self.on_round: Callable[[Backend], None] | None = None

    async def run(self) -> None:
        """Probe for ever; cancelled at shutdown."""
        while True:
            backends = list(self._fleet.backends.values())
            interval = self._fleet.config.health.interval_s
            for backend in backends:
                self.ask(backend)
                await asyncio.sleep(interval / len(backends))
            if not backends:
                await asyncio.sleep(interval)
            await self._forget_removed()

    async def first_round(self, within_s: float) -> None:
        """Ask everybody at once, as at start and after a reload; return when all answered or time is up."""
        tasks = [self.ask(backend) for backend in self._fleet.backends.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    def ask(self, backend: Backend) -> asyncio.Task[None]:
        """Begin a round with one backend, unless one is under way: a slow backend delays nobody else."""
        task = self._running.get(backend.name)
        if task is None or task.done():
            task = self._running[backend.name] = self._loop.create_task(self._round(backend))
        return task

    async def ask_models(self, config: BackendConfig, fleet: FleetConfig) -> frozenset[str] | None:
        """What a backend that is not in the fleet yet serves, at any of its addresses; None: it does not answer."""
        import httpx

        for address in self._addresses(config):
            client = self._make(config, address)
            try:
                answer = await client.get("/v1/models", timeout=fleet.health.probe_timeout_s)
                if answer.status_code == 200:
                    models = frozenset(card.id for card in parse_models(answer.content))
                    return models & frozenset(config.serves) if config.serves else models
            except (httpx.TransportError, ValueError):
                continue
            finally:
                await client.aclose()
        return None

    async def close(self) -> None:
        """End what is under way and close the clients."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        for _, client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _forget_removed(self) -> None:
        for name in [name for name in self._clients if name not in self._fleet.backends]:
            await self._clients.pop(name)[1].aclose()
            self._running.pop(name, None)

    def client(self, backend: Backend) -> httpx.AsyncClient:
        """The client for a backend at its present address."""
        address = backend.pool.address
        known = self._clients.get(backend.name)
        if known is None or known[0] != address:
            if known is not None:
                closing = self._loop.create_task(known[1].aclose())
                closing.add_done_callback(_ignore)
            known = self._clients[backend.name] = (address, self._make(backend.config, address))
        return known[1]

    async def _round(self, backend: Backend) -> None:
        try:
            await self._probe(backend)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the probe of %s failed inside the router", backend.name)
        if self.on_round is not None:
            self.on_round(backend)

    async def _probe(self, backend: Backend) -> None:
        import httpx

        fleet = self._fleet
        timeout = httpx.Timeout(fleet.config.health.probe_timeout_s)
        try:
            if backend.config.kind == "vllm":
                answer = await self.client(backend).get("/health", timeout=timeout)
                if answer.status_code >= 500:
                    fleet.observe(backend, Evidence.PROBE_FAILED, f"/health answered {answer.status_code}")
                    return
            answer = await self.client(backend).get("/v1/models", timeout=timeout)
            if not self._take_models(backend, answer):
                return
            await self._scrape(backend, timeout)
        except httpx.ConnectError as exc:
            if "[SSL" in str(exc):
                self._failed(backend, _tls_failure(str(exc)))
                return
            self._refused(backend, await self._cause(backend) or no_connection(exc))
        except httpx.TransportError as exc:
            self._failed(backend, await self._cause(backend) or f"{type(exc).__name__} {exc}".strip())
        else:
            fleet.observe(backend, Evidence.PROBE_OK)

    async def _cause(self, backend: Backend) -> str | None:
        """A backend over several machines stands and falls with each: name the one that is not there."""
        hosts = backend.config.host
        if len(hosts) < 2:
            return None
        up = await asyncio.gather(*(self._reach(host) for host in hosts))
        away = [host for host, answers in zip(hosts, up, strict=True) if not answers]
        return f"{' and '.join(away)} unreachable" if away else None

    def _refused(self, backend: Backend, why: str) -> None:
        fleet = self._fleet
        fleet.observe(backend, Evidence.REFUSED, why)
        now = fleet.clock()
        if backend.health.health is Health.STARTING and backend.loading_since is not None:
            since = now - backend.loading_since
            self._bus.emit(BackendLoading(backend.name, since, backend.load_eta_s))
        backend.pool = backend.pool.moved(self._find(backend))

    def _failed(self, backend: Backend, why: str) -> None:
        """A timeout or a broken answer. While tokens come from it, it is busy: no evidence."""
        fleet = self._fleet
        moves = any(
            lease.content_at is not None or fleet.clock() - lease.since < fleet.config.health.probe_timeout_s
            for lease in backend.leases
        )
        if not moves:
            fleet.observe(backend, Evidence.PROBE_FAILED, why)

    def _take_models(self, backend: Backend, answer: httpx.Response) -> bool:
        fleet = self._fleet
        if answer.status_code in (401, 403):
            fleet.observe(
                backend, Evidence.PROBE_FAILED, f"/v1/models answered {answer.status_code}: check its api_key"
            )
            return False
        if answer.status_code != 200:
            fleet.observe(backend, Evidence.PROBE_FAILED, f"/v1/models answered {answer.status_code}")
            return False
        try:
            cards = parse_models(answer.content)
        except ValueError as exc:
            fleet.observe(backend, Evidence.PROBE_FAILED, str(exc))
            return False
        if len(backend.config.urls) > 1 and not self._is_it(backend, cards):
            backend.pool = backend.pool.moved(self._find(backend))
            return False
        if _differ(cards, backend.cards):
            backend.cards = cards
            fleet.models_changed()
        return True

    def _is_it(self, backend: Backend, cards: tuple[ModelCard, ...]) -> bool:
        """Whether what answers on this port of a range is this backend: nobody else's, and serving its models."""
        address = backend.pool.address
        for other in self._fleet.backends.values():
            if other is not backend and other.pool.address == address and other.cards:
                return False
        wanted = set(backend.config.serves) or {card.id for card in backend.cards}
        return not wanted or any(card.id in wanted for card in cards)

    async def _scrape(self, backend: Backend, timeout: Any) -> None:
        answer = await self.client(backend).get("/metrics", timeout=timeout)
        if answer.status_code != 200:
            return
        now = self._fleet.clock()
        scrape = metrics.parse(answer.content)
        if not scrape.says_load:
            return
        before, at = backend.scrape, backend.scraped_at
        backend.scrape, backend.scraped_at = scrape, now
        rates = None
        if before is None or at is None:
            backend.progress_at = now
            if scrape.kv_size_tokens:
                backend.prefixes.resize(int(scrape.kv_size_tokens))
        else:
            if _moved(before, scrape):
                backend.progress_at = now
            if _ran_dry(before, scrape):
                backend.ran_dry_at = at
            if metrics.restarted(before, scrape):
                self._restarted(backend, scrape)
            rates = metrics.delta(before, scrape, now - at)
            if rates.spec_acceptance is not None:
                backend.spec_acceptance = rates.spec_acceptance
            if not self._fleet.passive:
                caps.look(backend, before, scrape, rates, now)
        self._bus.emit(
            Scraped(
                backend.name,
                scrape.running,
                scrape.waiting,
                scrape.kv_usage,
                rates.generation_tokens if rates else None,
                rates.prompt_tokens if rates else None,
            )
        )
        if backend.version is None and backend.config.kind == "vllm":
            version = await self.client(backend).get("/version", timeout=timeout)
            if version.status_code == 200:
                try:
                    backend.version = parse_version(version.content)
                except ValueError as exc:
                    self._bus.emit(Notice(backend.name, str(exc)))

    def _restarted(self, backend: Backend, scrape: metrics.Scrape) -> None:
        backend.version = None
        backend.prefixes.clear()
        backend.spec_acceptance = None
        caps.forget(backend)
        for serving in backend.serving.values():
            serving.speed.restarted()
        if self.on_restart is not None:
            self.on_restart(backend)


def no_connection(error: BaseException) -> str:
    """Why there is no connection, from the system's own error at the end of the chain: its wrappers say less."""
    *_, found = causes(error)
    if isinstance(found, ConnectionRefusedError):
        return "refuses connections: nobody listens there"
    if isinstance(found, socket.gaierror):
        return f"its name is not known: {found.strerror}"
    if isinstance(found, OSError) and found.errno:
        return f"cannot be reached: {os.strerror(found.errno)}"
    return f"refuses connections: {error}"


def _tls_failure(said: str) -> str:
    """Somebody listens, so it is neither off nor loading: what to do about it."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"TLS fails: {said}. Give its authority's file as tls_ca, or set tls_verify: false"
    return f"TLS fails: {said}. Does it speak https? If not, its url begins with http://"


def _differ(new: tuple[ModelCard, ...], old: tuple[ModelCard, ...]) -> bool:
    """Whether two lists of models differ in what counts: vLLM writes a new `created` on every look."""
    return [(one.id, one.max_model_len, one.root, one.owned_by) for one in new] != [
        (one.id, one.max_model_len, one.root, one.owned_by) for one in old
    ]


def _moved(before: metrics.Scrape, after: metrics.Scrape) -> bool:
    """Whether the engine did anything in between, or has nothing to do."""
    return not after.running or _worked(before, after)


def _worked(before: metrics.Scrape, after: metrics.Scrape) -> bool:
    return any(
        getattr(before, name) != getattr(after, name)
        for name in ("generation_tokens", "prompt_tokens", "iterations", "kv_usage")
    )


def _ran_dry(before: metrics.Scrape, after: metrics.Scrape) -> bool:
    """Whether the engine worked in between and has nothing left to do.

    To have nothing to do is not enough: vLLM writes its gauges after a step, so all through the first one they say 0.
    """
    return not after.running and not after.waiting and _worked(before, after)


def _ignore(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
