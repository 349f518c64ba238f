"""What a browser or a monitor opens: the dashboard's files, signing in, `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from router.admin.auth import COOKIE

if TYPE_CHECKING:
    from router.app import App

DASHBOARD = Path(__file__).parent / "dashboard"
_STAYS_SIGNED_IN_S = 30 * 86400
_FORM_BYTES = 4096


def add_pages(api: FastAPI, app: App, token: str) -> None:
    """Everything that is no part of the API."""
    _add_looks(api, app)
    _add_login(api, token)
    api.mount("/", StaticFiles(directory=DASHBOARD, html=True), name="dashboard")


def _add_looks(api: FastAPI, app: App) -> None:
    @api.get("/livez")
    async def livez() -> Response:
        return Response(orjson.dumps({"status": "alive"}), media_type="application/json")

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


def _add_login(api: FastAPI, token: str) -> None:
    def answer(given: str) -> Response:
        if not hmac.compare_digest(given.strip().encode(), token.encode()):
            return sign_in_page(refused=bool(given))
        signed_in = RedirectResponse("/", status_code=303)
        signed_in.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=_STAYS_SIGNED_IN_S)
        return signed_in

    @api.get("/login")
    async def by_link(given: Annotated[str, Query(alias="token")] = "") -> Response:
        return answer(given)

    @api.post("/login")
    async def by_form(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _FORM_BYTES:
                return answer("")
        return answer(parse_qs(body.decode("latin-1")).get("token", [""])[0])


def sign_in_page(*, refused: bool) -> Response:
    """The page that asks for the token; status 401. Nothing that was sent is repeated in it."""
    name = "refused.html" if refused else "login.html"
    return Response((DASHBOARD / name).read_bytes(), status_code=401, media_type="text/html; charset=utf-8")
