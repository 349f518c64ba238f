"""The client port's handler: answers from memory, or starts an exchange; and what all exchanges share."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from router import continuation, headers, samples
from router.backend import Backend, Lease
from router.continuation import Spliced
from router.dispatch import Dispatch
from router.errors import BackendFault, ClientFault, FailureKind, MethodNotAllowed, RouterError
from router.events import Bus, CallEnded, Notice
from router.exchange import Exchange
from router.fleet import Fleet
from router.openai import errors as shapes
from router.openai import models as listing
from router.openai.call import Call, edit
from router.openai.errors import ErrorKind
from router.openai.routes import Route, RouteKind, StreamTable, match, path_id
from router.openai.stream import EventStream, Folded
from router.policy.facts import CONTINUATION, MESSAGE_CONTINUATION, CallFacts, Health, Intent
from router.policy.lengths import LengthModel
from router.policy.prefix import hashes
from router.wire.head import Header, RequestHead
from router.wire.relay import Relay
from router.wire.server import ClientConnection, Request

log = logging.getLogger(__name__)

JSON: Header = (b"content-type", b"application/json")
TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")


# Forwarded pieces are folded into text between beats, half a microsecond each. A thousand streams that began together
# would all be due in one beat, 30 ms of it: so a beat folds only so many, and who was left out comes next.
_FOLD_FROM = 64  # pieces of one stream that are worth a look
_FOLD_PER_BEAT = 4096  # pieces of all streams: about 2 ms
_FOLD_AT_ONCE = 2048  # pieces of one stream that may not wait any longer (about 500 kB)


class Front:
    """See the module. Time, chance and the metrics page are handed in."""

    def __init__(
        self,
        fleet: Fleet,
        bus: Bus,
        loop: asyncio.AbstractEventLoop,
        *,
        wall: Callable[[], float],
        draw: Callable[[], float],
        metrics: Callable[[], Iterator[bytes]],
        version: str,
    ) -> None:
        self.fleet = fleet
        self.bus = bus
        self.loop = loop
        self.clock = loop.time
        self.wall = wall
        self.version = version
        self.open: set[Exchange] = set()
        self.ready = False  # the fleet file is in force and we are not shutting down
        self.lengths: dict[str, LengthModel] = {}
        self.recent: deque[CallEnded] = deque(maxlen=500)
        self.on_look_again: Callable[[Backend], object] | None = None
        self.on_fingerprint: Callable[[Backend, str], None] | None = None
        self.on_folded: Callable[[Exchange, continuation.Emitted, Folded], None] | None = None
        self.on_answer: Callable[[Exchange, Backend, bytes], None] | None = None
        self.on_end: Callable[[Exchange, CallEnded], None] | None = None
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._responses: OrderedDict[str, str] = OrderedDict()
        self._keys: frozenset[bytes] = frozenset()
        self._origins: frozenset[bytes] = frozenset()
        self._listing: dict[str, dict[str, Any]] | None = None
        self._prefix = os.urandom(6).hex()
        self._count = 0
        self.dispatch = Dispatch(fleet, loop, draw)
        self._idle: asyncio.Future[None] | None = None
        fleet.listeners.append(self._models_changed)

    # --- config ---

    def configured(self) -> None:
        """Take what the config in force says about access."""
        access = self.fleet.config.access
        self._keys = frozenset(bytes.fromhex(key.removeprefix("sha256:")) for key in access.client_keys)
        self._origins = frozenset(origin.encode() for origin in access.cors_origins)

    @property
    def keys_are_ours(self) -> bool:
        """Clients authenticate to the router, so their key is not for a backend."""
        return bool(self._keys)

    def key_is_clients(self, head: RequestHead, backend: Backend) -> bool:
        """Whether a 401 from a backend is about the client's own key, which we passed on."""
        return backend.config.api_key is None and not self._keys and headers.bearer(head) is not None

    # --- requests ---

    def handle(self, connection: ClientConnection, request: Request) -> None:
        """A whole request: answer from memory, or start an exchange."""
        self._count += 1
        request_id = headers.request_id(request.head, f"{self._prefix}{self._count:08x}")
        route: Route | None = None
        try:
            if self._origins and request.head.method == "OPTIONS" and self._preflight(connection, request):
                return
            route = match(request.head.method, request.head.target)
            self._authorize(request.head, route)
            if route.local:
                self._local(connection, request, route, request_id)
                return
        except RouterError as fault:
            self.respond_fault(connection, request, route, fault, request_id)
            return
        exchange = Exchange(self, connection, request, route, request_id)
        connection.on_leave = exchange.leave
        self.open.add(exchange)
        exchange.task = self.loop.create_task(exchange.run())

    def refuse(self, connection: ClientConnection, fault: RouterError) -> None:
        """A request that could not be read."""
        connection.respond(fault.status, self._fault_headers(fault, ""), shapes.error_body(None, fault))

    def respond_fault(
        self, connection: ClientConnection, request: Request, route: Route | None, fault: RouterError, request_id: str
    ) -> None:
        """An error in the shape of its route, where nothing was sent yet."""
        connection.respond(
            fault.status,
            self._fault_headers(fault, request_id) + self.cors(request.head),
            shapes.error_body(route, fault),
        )

    @staticmethod
    def _fault_headers(fault: RouterError, request_id: str) -> list[Header]:
        found = [JSON, *(headers.about(request_id) if request_id else [])]
        if fault.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % max(1, int(fault.retry_after_s + 0.999))))
        if isinstance(fault, MethodNotAllowed):
            found.append((b"allow", ", ".join(fault.allow).encode("ascii")))
        return found

    def _authorize(self, head: RequestHead, route: Route) -> None:
        if not self._keys or route.kind in (RouteKind.LIVEZ, RouteKind.READYZ, RouteKind.HEALTH):
            return
        key = headers.bearer(head)
        digest = hashlib.sha256(key or b"").digest()
        # Every stored hash is compared, in constant time: neither which key nor how much of it matched shows.
        known = False
        for stored in self._keys:
            known |= hmac.compare_digest(stored, digest)
        if not known:
            raise ClientFault(
                "a key of this router is needed: Authorization: Bearer KEY", status=401, code="invalid_api_key"
            )

    def _preflight(self, connection: ClientConnection, request: Request) -> bool:
        if request.head.get(b"access-control-request-method") is None:
            return False
        wanted = request.head.get(b"access-control-request-headers") or b"authorization, content-type"
        allowed = self.cors(request.head)
        if allowed:
            allowed += [
                (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", b"600"),
            ]
        connection.respond(204, allowed, b"")
        return True

    def cors(self, head: RequestHead) -> list[Header]:
        """What lets a web page of an allowed origin read the answer."""
        if not self._origins:
            return []
        origin = head.get(b"origin")
        if origin is None or not (origin in self._origins or b"*" in self._origins):
            return []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]

    # --- answers from memory ---

    def _local(self, connection: ClientConnection, request: Request, route: Route, request_id: str) -> None:
        found = [JSON, *headers.about(request_id), *self.cors(request.head)]
        match route.kind:
            case RouteKind.MODELS:
                connection.respond(200, found, listing.render_list(self.listing()))
            case RouteKind.MODEL:
                name = path_id(route, request.head.target)
                connection.respond(200, found, listing.render_one(self.listing(), name))
            case RouteKind.HEALTH:
                usable = any(self._usable(backend) for backend in self.fleet.backends.values())
                connection.respond(200 if usable else 503, found, b"")
            case RouteKind.LIVEZ:
                connection.respond(200, found, b'{"status":"alive"}')
            case RouteKind.READYZ:
                body = b'{"status":"ready"}' if self.ready else b'{"status":"not ready"}'
                connection.respond(200 if self.ready else 503, found, body)
            case RouteKind.VERSION:
                connection.respond(200, found, b'{"version":"%b"}' % self.version.encode())
            case RouteKind.LOAD:
                load = sum(backend.in_flight for backend in self.fleet.backends.values())
                connection.respond(200, found, b'{"server_load":%d}' % load)
            case RouteKind.METRICS:
                self._spawn(self._send_metrics(connection))
            case _:
                raise ClientFault(f"{route.name} is not served", status=404, code="unknown_url")

    async def _send_metrics(self, connection: ClientConnection) -> None:
        """The page in slices, so that a large fleet's does not hold the loop."""
        connection.start(200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])
        for part in self._metrics():
            connection.write(part)
            await asyncio.sleep(0)
            if connection.left:
                return
        connection.finish()

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def listing(self) -> dict[str, dict[str, Any]]:
        """What /v1/models shows, by name; worked out anew when something changed."""
        if self._listing is None:
            fleet = self.fleet
            cards = [
                dict(card.raw)
                for backend in fleet.backends.values()
                if backend.intent is not Intent.DISABLED
                for card in backend.cards
                if not backend.config.serves or card.id in backend.config.serves
            ]
            self._listing = listing.merge(cards, fleet.config.aliases)
        return self._listing

    def _models_changed(self) -> None:
        self._listing = None
        self.dispatch.freed("")

    def _usable(self, backend: Backend) -> bool:
        return backend.intent is Intent.ACTIVE and backend.health.health in (
            Health.HEALTHY,
            Health.SUSPECT,
            Health.PROBATION,
        )

    # --- what exchanges share ---

    def facts_of(self, exchange: Exchange, call: Call) -> tuple[str, CallFacts]:
        """What is known of a call before it is routed.

        Raises:
            ClientFault: 404, for a model or a response that nobody has.
        """
        fleet = self.fleet
        pinned: str | None = None
        if exchange.route.kind in (RouteKind.RESPONSES_GET, RouteKind.RESPONSES_CANCEL):
            pinned = self._response_backend(path_id(exchange.route, exchange.request.head.target))
            model = next(iter(fleet.backends[pinned].serving), "")
        elif call.model is None:
            # A real vLLM serves its default here; so do we where there is only one thing it can mean.
            if len(fleet.pools) != 1:
                raise ClientFault(
                    "name a model: this router serves " + (", ".join(sorted(fleet.pools)) or "none yet"),
                    code="model_required",
                    param="model",
                )
            model = next(iter(fleet.pools))
        else:
            model, pinned = fleet.resolve(call.model)
        if call.previous_response_id is not None:
            pinned = self._response_backend(call.previous_response_id)
        pinned = headers.pinned(exchange.request.head) or pinned
        if pinned is not None and pinned not in fleet.backends:
            raise ClientFault(f"there is no backend `{pinned[:100]}`", status=404, code="backend_not_found")
        lengths = self.lengths.get(model)
        if lengths is None:
            lengths = self.lengths[model] = LengthModel()
        prompt = lengths.prompt_tokens(call.prompt_bytes)
        prefix: list[int] = []
        if call.messages_at and len(fleet.pools.get(model, ())) > 1:
            prefix = hashes(call.body, call.messages_at, model.encode())
        return model, CallFacts(
            model=model,
            prompt_tokens=prompt,
            output_tokens=lengths.output_tokens(exchange.session, call.thinking, call.max_tokens),
            max_tokens=call.max_tokens,
            session=exchange.session,
            prefix=prefix,
            block_tokens=prompt / len(prefix) if prefix else 0.0,
            background=call.background is not None,
            needs=call.needs | _ROUTE_NEEDS.get(exchange.route.kind, _NOTHING),
            pinned=pinned,
        )

    def body_for(self, exchange: Exchange, call: Call, backend: Backend) -> bytes:
        """The request's body for this backend: the original bytes with named edits, or a continuation's."""
        if exchange.route.body == "none":
            return b""
        model = exchange.model if call.model is not None and call.model != exchange.model else None
        most = self._clamp(exchange, call, backend)
        if exchange.emitted is not None and exchange.emitted.resumed:
            return exchange.emitted.request(model=model, max_tokens=most, include_usage=_injects_usage(call))
        return edit(call, model=model, max_tokens=most, include_usage=_injects_usage(call))

    def _clamp(self, exchange: Exchange, call: Call, backend: Backend) -> int | None:
        """The most that the backend takes, where the client asks for more: opencode sends 32,000 to any server."""
        if not call.limits:
            return None
        most = backend.contexts.get(exchange.model)
        if most is None:
            return None
        if exchange.facts is not None and samples.rejects_sum(backend.version):
            # vLLM up to 0.18 rejects prompt + max_tokens beyond the context; later ones clamp to what is left.
            most = max(1, most - int(1.1 * exchange.facts.prompt_tokens) - 16)
        for _, limit in call.limits:
            if limit > most:
                return most
        return None

    def observer(self, exchange: Exchange, table: StreamTable, backend: Backend) -> EventStream | Spliced:
        """What watches an attempt's event stream."""
        call = exchange.call
        assert call is not None
        stream = EventStream(table, choices=call.choices, strip_usage=_injects_usage(call))
        if exchange.emitted is not None and exchange.emitted.resumed:
            # llama.cpp answers with the message that it continues in front, vLLM with the rest alone; a prompt that got
            # longer is repeated by nobody.
            repeats = exchange.route.kind is RouteKind.CHAT and bool(backend.repeats_message)
            return exchange.emitted.splice(stream, exchange.usage, repeats=repeats)
        return stream

    def keep_for_continuation(self, exchange: Exchange, relay: Relay) -> None:
        """Keep what the client gets, where it may have to be continued or is looked at by the sentinel."""
        call = exchange.call
        if relay.observer is None or call is None:
            return
        if exchange.emitted is None:
            exchange.emitted = continuation.Emitted(call, self.fleet.model_settings(exchange.model).continuation)
        relay.kept = exchange.emitted.pieces

    def unresumable(self, exchange: Exchange) -> str | None:
        """Why a broken answer cannot be continued; where it can, the next attempt resumes it."""
        emitted = exchange.emitted
        if emitted is None:
            return "nothing of it was kept"
        reason = emitted.prepare(exchange.stream)
        if emitted.characters and exchange.facts is not None:
            needs = {CONTINUATION, MESSAGE_CONTINUATION} if exchange.route.kind is RouteKind.CHAT else {CONTINUATION}
            exchange.facts = replace(exchange.facts, needs=exchange.facts.needs | needs)
        return reason

    def others_could(self, exchange: Exchange) -> bool:
        """Whether an untried backend could take the call."""
        assert exchange.facts is not None
        return any(one.barred is None for one in self.fleet.candidates(exchange.facts, exchange.tried))

    def learn(
        self, exchange: Exchange, call: Call, backend: Backend, fault: BackendFault, said: ErrorKind | None
    ) -> None:
        """What a refusal says about a backend beyond its health."""
        if fault.kind is FailureKind.BUSY:
            backend.busy_until = self.clock() + min(fault.retry_after_s or 1.0, 30.0)
        elif fault.kind is FailureKind.UNKNOWN_MODEL and self.on_look_again is not None:
            self.on_look_again(backend)
        elif fault.kind is FailureKind.CANNOT:
            samples.learn_inability(backend, exchange, call, said)
        elif fault.kind is FailureKind.AUTH:
            self.bus.emit(Notice(backend.name, f"{fault.message}: its api_key in the fleet file is not right", True))

    def remember_response(self, response_id: str, backend: str) -> None:
        """A /v1/responses answer lives on the backend that made it."""
        self._responses[response_id] = backend
        if len(self._responses) > self.fleet.config.limits.response_ids:
            self._responses.popitem(last=False)

    def _response_backend(self, response_id: str) -> str:
        backend = self._responses.get(response_id)
        if backend is None or backend not in self.fleet.backends:
            raise ClientFault(
                f"response `{response_id[:100]}` is not known here", status=404, code="response_not_found"
            )
        return backend

    def fingerprint_seen(self, backend: Backend, fingerprint: str) -> None:
        """A stream carried the backend's system_fingerprint; another one means another build."""
        if fingerprint != backend.fingerprint and self.on_fingerprint is not None:
            self.on_fingerprint(backend, fingerprint)

    def sampled(self, exchange: Exchange, lease: Lease, relay: Relay, failure: BackendFault | None) -> None:
        """An attempt is over: what it says about speed, lengths and health. To learn nothing must not end a call."""
        try:
            samples.take(self, exchange, lease, relay, failure)
        except Exception:
            log.exception("nothing was learned from call %s", exchange.request_id)

    def ended(self, exchange: Exchange, event: CallEnded) -> None:
        """A call is over."""
        self.open.discard(exchange)
        if not self.open and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self.dispatch.ended(exchange.request_id, event)
        self.recent.append(event)
        if self.on_end is not None:
            self.on_end(exchange, event)
        self.bus.emit(event)

    def sweep(self, now: float) -> None:
        """Look at every open call's deadlines, and at those who wait."""
        self.dispatch.sweep(now)
        left = _FOLD_PER_BEAT
        for exchange in tuple(self.open):
            exchange.sweep(now)
            emitted = exchange.emitted
            if emitted is None or emitted.unfolded < _FOLD_FROM:
                continue
            if left > 0 or emitted.unfolded >= _FOLD_AT_ONCE:
                left -= emitted.unfolded
                batch = emitted.fold()
                if self.on_folded is not None:
                    self.on_folded(exchange, emitted, batch)

    async def idle(self, within_s: float) -> None:
        """Wait until no call is open, for at most so long."""
        if self.open:
            self._idle = self.loop.create_future()
            await asyncio.wait({self._idle}, timeout=within_s)

    def stop_all(self, why: RouterError) -> None:
        """End every open call visibly."""
        for exchange in tuple(self.open):
            exchange.stop(why)


def _injects_usage(call: Call) -> bool:
    """Usage is asked for where the client does not ask itself and the route has a chunk for it (stripped again)."""
    return call.stream and not call.include_usage and call.route.kind in (RouteKind.CHAT, RouteKind.COMPLETIONS)


_NOTHING: frozenset[str] = frozenset()
# What every backend that generates can do needs no word; the rest is learned from a 404 for the path.
_ROUTE_NEEDS: dict[RouteKind, frozenset[str]] = {
    kind: frozenset({kind.value}) for kind in RouteKind if kind not in (RouteKind.CHAT, RouteKind.COMPLETIONS)
}
