"""The simulated vLLM over HTTP: uvicorn's protocol, vLLM's routes, and a listener that can go away and come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from router.sim import meta
from router.sim.asgi import Exchange, Receive, Send, read_body, until_gone
from router.sim.chat import chat, completion
from router.sim.faults import Faults
from router.sim.sabotage import Broken, refuse_early
from router.sim.state import Sim
from router.sim.vendors import count_tokens, messages, responses
from router.sim.wish import Refusal, bad

KEEP_ALIVE_S = 5  # vLLM's default (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)
_CORS_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
Looked = Callable[[Sim, Exchange], Awaitable[None]]
Answered = Callable[[Sim, Exchange, Faults, float], Awaitable[None]]

LOOKS: Mapping[str, tuple[tuple[str, ...], Looked]] = {
    "/health": (("GET",), meta.health),
    "/ping": (("GET", "POST"), meta.health),
    "/version": (("GET",), meta.version),
    "/load": (("GET",), meta.load),
    "/metrics": (("GET",), meta.metrics),
    "/v1/models": (("GET",), meta.models),
    "/tokenize": (("POST",), meta.tokenize),
    "/detokenize": (("POST",), meta.detokenize),
    "/v1/messages/count_tokens": (("POST",), count_tokens),
    "/sim/fault": (("POST", "DELETE"), meta.fault),
    "/sim/state": (("GET",), meta.state),
}
ANSWERS: Mapping[str, Answered] = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/messages": messages,
    "/v1/responses": responses,
}  # a model that generates has no /v1/embeddings: 404, as vLLM answers


def create_app(sim: Sim) -> Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]:
    """The ASGI application of one simulated server."""

    async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        if body is None:
            return
        exchange = Exchange(scope, send, body)
        with contextlib.suppress(Broken):
            await until_gone(_dispatch(sim, exchange), receive)

    return app


async def _dispatch(sim: Sim, exchange: Exchange) -> None:
    """Key, route, method; then the route, with refusals in its own words."""
    key = sim.build.api_key
    if key and exchange.path.startswith("/v1") and exchange.headers.get("authorization") != f"Bearer {key}":
        await exchange.answer(401, {"error": "Unauthorized"}, varies=False)
        return
    if exchange.method == "OPTIONS" and "access-control-request-method" in exchange.headers:
        await _refuse_preflight(exchange)
        return
    looked, answered = LOOKS.get(exchange.path), ANSWERS.get(exchange.path)
    methods = looked[0] if looked else ("POST",) if answered else ()
    if not methods:
        await exchange.answer(404, {"detail": "Not Found"})
    elif exchange.method not in methods:
        allow = [("allow", ", ".join(methods))]
        await exchange.answer(405, {"detail": "Method Not Allowed"}, headers=allow)
    else:
        try:
            if looked:
                await looked[1](sim, exchange)
            elif answered:
                await _answer(sim, exchange, answered)
        except Refusal as refusal:
            await exchange.answer(refusal.status, refusal.body)


async def _refuse_preflight(exchange: Exchange) -> None:
    """A browser on another origin is not let in (vLLM's default since 0.32)."""
    asked = ", ".join(f"Access-Control-Request-{name}" for name in ("Method", "Headers", "Private-Network"))
    headers = [("vary", f"Origin, {asked}"), ("access-control-allow-methods", _CORS_METHODS),
               ("access-control-max-age", "600"), ("content-length", "22"),
               ("content-type", "text/plain; charset=utf-8")]  # fmt: skip
    await exchange.head(400, headers, varies=False)
    await exchange.write(b"Disallowed CORS origin", more=False)


async def _answer(sim: Sim, exchange: Exchange, handler: Answered) -> None:
    """A call to the engine, under whatever faults it meets."""
    draw = sim.dice.random()
    try:
        faults = sim.faults.for_call(exchange.headers.get("x-sim-fault"))
    except (ValueError, TypeError) as error:
        raise bad(str(error), "x-sim-fault") from None
    sim.open_calls += 1
    try:
        await refuse_early(exchange, faults, draw)
        await handler(sim, exchange, faults, draw)
    finally:
        sim.open_calls -= 1


class SimProtocol(HttpToolsProtocol):
    """uvicorn's, which also shows the application the connection it is to break."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["sim.transport"] = self.transport  # type: ignore[typeddict-unknown-key]
        date = formatdate(usegmt=True).encode()
        self.server_state.default_headers = [(b"date", date), (b"server", b"uvicorn")]


class Listener:
    """One simulated server on its port."""

    def __init__(self, sim: Sim, host: str, port: int) -> None:
        self.sim = sim
        self.host = host
        self.port = port
        self._config = Config(
            create_app(sim),
            http=SimProtocol, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=KEEP_ALIVE_S,
            ws="none",
        )  # fmt: skip
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Listener {self.host}:{self.port} {'up' if self._server else 'down'}>"

    async def open(self) -> None:
        """Listen; with port 0, `port` says afterwards which it became."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, self.host, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and break every connection, as a killed process does."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self.sim.driver.stop()
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)

    async def serve(self, restarted: Callable[[], None] = lambda: None) -> None:
        """Serve until cancelled; go down and come back when a fault says so.

        Args:
            restarted: called when it comes back as a new process, before it listens.
        """
        sim = self.sim
        try:
            await self.open()
            while True:
                await sim.down.wait()
                sim.down.clear()
                fault = sim.down_for
                await asyncio.sleep(0.02)  # the answer that announces it goes out first
                await self.close()
                await asyncio.sleep(fault.seconds if fault else 0.0)
                if fault is None or fault.kind == "restart":
                    sim.faults.clear()
                    sim.start(sim.build if fault is None else sim.build.restarted_as(fault))
                    restarted()
                await self.open()
        finally:
            await self.close()

    def _protocol(self) -> asyncio.Protocol:
        return SimProtocol(self._config, self._state, {})
