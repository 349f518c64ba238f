"""The admin API: what there is to see, and what the operator may say. Commands and the dashboard use nothing else."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Body, FastAPI, Query, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from router import __version__
from router.admin import views
from router.admin.auth import COOKIE, Guard
from router.admin.quality_api import add_quality
from router.errors import ClientFault
from router.events import Event
from router.policy.facts import Grade, Intent

if TYPE_CHECKING:
    from router.app import App

_STATIC = Path(__file__).parent / "dashboard"
_LATEST = 256  # events kept for one slow listener; older ones are dropped


def create_api(app: App, token: str, names: frozenset[str] = frozenset()) -> Any:
    """The guarded ASGI application over a running router."""
    api = FastAPI(title="spark-router admin", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    _add_views(api, app)
    _add_orders(api, app)
    add_quality(api, app)
    _add_pages(api, app, token)

    @api.exception_handler(ClientFault)
    async def client_fault(_: Any, fault: ClientFault) -> JSONResponse:
        error = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
        return JSONResponse({"error": error}, status_code=fault.status)

    return Guard(api, token, names)


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document, default=str), media_type="application/json")


def _add_views(api: FastAPI, app: App) -> None:
    @api.get("/api/status")
    async def status() -> Response:
        return _json(views.status(app))

    @api.get("/api/backends/{name}")
    async def backend(name: str) -> Response:
        return _json(views.backend_view(app, _backend(app, name)))

    @api.get("/api/calls")
    async def calls(limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Response:
        return _json([views.call_view(one) for one in list(app.front.recent)[-limit:]])

    @api.get("/api/explain/{request_id}")
    async def explain(request_id: str) -> Response:
        kept = app.front.explained.get(request_id)
        if kept is None:
            raise ClientFault(
                f"call {request_id} is not remembered: only the newest "
                f"{app.fleet.config.limits.explain_calls} are (limits.explain_calls)",
                status=404,
                code="call_not_found",
            )
        return _json(views.explained_view(request_id, kept))

    @api.get("/api/events")
    async def events() -> StreamingResponse:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(_events(app), media_type="text/event-stream", headers=headers)


async def _events(app: App) -> AsyncIterator[bytes]:
    """What happens, as it happens; a status first and every second. A slow listener loses the oldest events."""
    queue: asyncio.Queue[Event] = asyncio.Queue(_LATEST)

    def listen(event: Event) -> None:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(event)

    unsubscribe = app.bus.subscribe(listen)
    try:
        while True:
            yield b"event: status\ndata: " + orjson.dumps(views.status(app), default=str) + b"\n\n"
            until = app.loop.time() + 1.0
            while (left := until - app.loop.time()) > 0:
                try:
                    event = await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    break
                name = type(event).__name__.encode()
                yield b"event: " + name + b"\ndata: " + orjson.dumps(asdict(event), default=str) + b"\n\n"
    finally:
        unsubscribe()


def _add_orders(api: FastAPI, app: App) -> None:
    @api.post("/api/reload")
    async def reload(dry_run: Annotated[bool, Body()] = False, force: Annotated[bool, Body()] = False) -> Response:
        if app.reloader is None:
            raise ClientFault(
                "this router was started without a fleet file (--config), so there is nothing to reload",
                status=409,
                code="no_fleet_file",
            )
        result = await app.reloader.reload(dry_run=dry_run, force=force)
        document = {
            "applied": result.applied,
            "dry_run": dry_run,
            "generation": result.generation,
            "diff": str(result.diff) if result.diff is not None else "",
            "lost": result.lost,
            "swap": result.swap,
            "answers": result.answers,
            "reason": result.reason,
        }
        return Response(
            orjson.dumps(document), status_code=200 if not result.reason else 409, media_type="application/json"
        )

    @api.post("/api/backends/{name}/intent")
    async def intent(name: str, intent: Annotated[Intent, Body()], why: Annotated[str, Body()] = "") -> Response:
        _backend(app, name)
        app.fleet.set_intent(name, intent, why)
        return _json(views.backend_view(app, app.fleet.backends[name]))

    @api.post("/api/backends/{name}/health")
    async def health(name: str, up: Annotated[bool, Body()], why: Annotated[str, Body()] = "") -> Response:
        _backend(app, name)
        if up:
            app.fleet.readmit(name, why or "readmitted by the operator")
        else:
            app.fleet.eject(name, why or "no reason given")
        return _json(views.backend_view(app, app.fleet.backends[name]))

    @api.post("/api/backends/{name}/grade")
    async def grade(
        name: str,
        flagged: Annotated[bool, Body()],
        why: Annotated[str, Body()] = "",
        model: Annotated[str | None, Body()] = None,
    ) -> Response:
        backend = _backend(app, name)
        for served in [model] if model is not None else list(backend.serving):
            if served not in backend.serving:
                raise ClientFault(f"{name} does not serve {served}", status=404, code="model_not_found")
            if flagged:
                app.fleet.set_grade(name, served, Grade.FLAGGED, why or "flagged by the operator", by="operator")
            else:
                app.fleet.set_grade(name, served, Grade.UNKNOWN, why or "cleared by the operator", by="operator")
        return _json(views.backend_view(app, app.fleet.backends[name]))


def _add_pages(api: FastAPI, app: App, token: str) -> None:
    @api.get("/livez")
    async def livez() -> Response:
        return _json({"status": "alive"})

    @api.get("/readyz")
    async def readyz() -> Response:
        document = orjson.dumps({"status": "ready" if app.front.ready else "not ready"})
        return Response(document, status_code=200 if app.front.ready else 503, media_type="application/json")

    @api.get("/metrics")
    async def metrics() -> Response:
        parts = []
        for part in app.metrics.render_slices():
            parts.append(part)
            await asyncio.sleep(0)
        return Response(b"".join(parts), media_type="text/plain; version=0.0.4; charset=utf-8")

    @api.get("/login")
    async def login(given: Annotated[str, Query(alias="token")] = "") -> Response:
        if not hmac.compare_digest(given.encode(), token.encode()):
            message = "<p>This link's token is not this router's. Run <code>router status --link</code> for a new one."
            return Response(message, status_code=401, media_type="text/html")
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
        return answer

    if _STATIC.is_dir():
        api.mount("/", StaticFiles(directory=_STATIC, html=True), name="dashboard")


def _backend(app: App, name: str) -> Any:
    backend = app.fleet.backends.get(name)
    if backend is None:
        known = ", ".join(app.fleet.backends) or "none"
        raise ClientFault(f"there is no backend {name}; known: {known}", status=404, code="backend_not_found")
    return backend
