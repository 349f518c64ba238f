"""Who may use the admin side: a token always, and only pages of its own (Host and Origin are checked).

The token comes as `Authorization: Bearer` from commands, or as a cookie that the dashboard link sets. Host is checked
against DNS rebinding, Origin and JSON bodies against requests that another site's page sends.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

COOKIE = "router_admin"
OPEN_PATHS = frozenset({"/livez", "/readyz", "/login", "/style.css", "/icon.svg"})
SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (
        b"referrer-policy",
        b"same-origin",
    ),  # the sign-in link carries the token; "no-referrer" makes a form's Origin null
    (b"cross-origin-opener-policy", b"same-origin"),
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


def keep_token(given: str | None, file: Path) -> str:
    """The token: the one given, else the one kept, else a new one, kept readable for its owner alone.

    Raises:
        OSError: the file can neither be read nor made.
    """
    if given:
        return given
    try:
        kept = file.read_text(encoding="ascii").strip()
        if kept:
            return kept
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(24)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(token + "\n")
    return token


class Guard:
    """ASGI middleware: no request reaches the admin side unless it may.

    Args:
        app: what is guarded.
        token: what callers must show.
        names: host names, beside addresses and `localhost`, under which the admin side may be opened.
        sign_in: makes the page that a browser without a token gets instead of JSON.
    """

    def __init__(
        self, app: Asgi, token: str, names: frozenset[str] = frozenset(), sign_in: Callable[..., Asgi] | None = None
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._names = names | {"localhost"}
        self._sign_in = sign_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _secured(send, scope["path"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._problem(scope, headers)
        if problem is None:
            await self._app(scope, receive, send)
            return
        status, code, message = problem
        if status == 401 and self._sign_in is not None and _is_page(scope, headers):
            await self._sign_in(refused=COOKIE in headers.get("cookie", ""))(scope, receive, send)
            return
        body = orjson.dumps({"error": {"message": message, "type": "admin_error", "param": None, "code": code}})
        kind = (b"content-type", b"application/json")
        await send({"type": "http.response.start", "status": status, "headers": [kind]})
        await send({"type": "http.response.body", "body": body})

    def _problem(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "bad_host", f"this is not the admin side of {host[:100]!r}; set ROUTER_ALLOW_HOSTS to allow it"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "bad_origin", "requests from other sites' pages are refused"
        if scope["path"] in OPEN_PATHS:
            return None
        if not self._knows(headers):
            return 401, "bad_token", "the admin token is needed; `router serve` printed the link that carries it"
        if scope["method"] not in ("GET", "HEAD") and not headers.get("content-type", "").startswith(
            "application/json"
        ):
            return 415, "json_wanted", "send application/json"
        return None

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _knows(self, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not given:
            try:
                cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            except CookieError:
                return False
            given = cookie.value if cookie is not None else ""
        return hmac.compare_digest(given.encode(), self._token)


def _is_page(scope: Scope, headers: dict[str, str]) -> bool:
    """A person opened this in a browser; scripts, and the page's own requests, want JSON."""
    return scope["method"] == "GET" and "text/html" in headers.get("accept", "")


def _secured(send: Send, path: str) -> Send:
    """Add what every answer of the admin side carries."""

    async def secured(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = [name for name, _ in message.get("headers", [])]
            added = [*SECURITY_HEADERS]
            if (
                b"cache-control" not in given
            ):  # files are asked for again, so that an upgraded router shows its own page
                added.append((b"cache-control", b"no-store" if path.startswith("/api/") else b"no-cache"))
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return secured
