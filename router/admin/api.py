"""The admin API: what there is to see, and what the operator may say. Commands and the dashboard use nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Body, FastAPI, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from router import __version__
from router.admin import views
from router.admin.auth import Guard
from router.admin.bench_api import add_bench
from router.admin.pages import add_pages, sign_in_page
from router.admin.quality_api import add_quality
from router.admin.series import Series
from router.errors import ClientFault
from router.events import Event
from router.policy.facts import Grade, Intent

if TYPE_CHECKING:
    from router.app import App

_LATEST = 256  # events kept for one slow listener; older ones are dropped


def create_api(app: App, token: str, names: frozenset[str] = frozenset()) -> Any:
    """The guarded ASGI application over a running router."""
    api = FastAPI(title="spark-router admin", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    series = Series(app.outside.wall)
    app.bus.subscribe(series.on_event)
    _add_views(api, app, series)
    _add_orders(api, app)
    add_quality(api, app)
    add_bench(api, app)
    add_pages(api, app, token)
    _add_faults(api)
    return Guard(api, token, names, sign_in_page)


def _add_faults(api: FastAPI) -> None:
    """Every refusal has the one shape: {"error": {message, type, param, code}}."""

    def error(status: int, code: str, message: str, param: str | None = None) -> JSONResponse:
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        return JSONResponse(body, status_code=status)

    @api.exception_handler(ClientFault)
    async def client_fault(_: Any, fault: ClientFault) -> JSONResponse:
        return error(fault.status, fault.code, fault.message, fault.param)

    @api.exception_handler(RequestValidationError)
    async def not_valid(_: Any, fault: RequestValidationError) -> JSONResponse:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return error(422, "not_valid", f"{where}: {first['msg']}", where)

    @api.exception_handler(HTTPException)
    async def refused(_: Any, fault: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(fault.status_code, "refused")
        return error(fault.status_code, code, str(fault.detail))


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document, default=str), media_type="application/json")


def _add_views(api: FastAPI, app: App, series: Series) -> None:
    @api.get("/api/status")
    async def status() -> Response:
        return _json(views.status(app))

    @api.get("/api/backends/{name}")
    async def backend(name: str) -> Response:
        return _json(views.backend_view(app, _backend(app, name)))

    @api.get("/api/calls")
    async def calls(limit: Annotated[int, Query(ge=1, le=500)] = 100) -> Response:
        return _json([views.call_view(one) for one in list(app.front.recent)[-limit:]])

    @api.get("/api/history")
    async def history(since: Annotated[float, Query(ge=0)] = 0.0) -> Response:
        return _json(series.since(since))

    @api.get("/api/explain/{request_id}")
    async def explain(request_id: str) -> Response:
        kept = app.front.dispatch.explained.get(request_id)
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


def _backend(app: App, name: str) -> Any:
    backend = app.fleet.backends.get(name)
    if backend is None:
        known = ", ".join(app.fleet.backends) or "none"
        raise ClientFault(f"there is no backend {name}; known: {known}", status=404, code="backend_not_found")
    return backend
