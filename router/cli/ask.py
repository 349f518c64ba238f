"""Asking a running router: where its admin side is, the token, and errors a person can act on."""

from __future__ import annotations

import os
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console

from router.errors import ConfigFault
from router.settings import read_settings

AdminUrl = Annotated[
    str | None, typer.Option("--admin", envvar="ROUTER_ADMIN_URL", help="Admin side of the router to ask.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

NOT_REACHED, BAD_INPUT, REFUSED = 3, 2, 1


class Admin:
    """The admin API of one router.

    Ends the command with a sentence and an exit code where the router cannot be asked: 3 not reached, 2 not a URL,
    1 refused.
    """

    def __init__(self, url: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        try:
            settings = read_settings()
        except ConfigFault as fault:
            fail(fault.message, REFUSED)
        self.url = (url or os.environ.get("ROUTER_ADMIN_URL") or settings.admin_url).rstrip("/")
        given = settings.admin_token
        self._file = settings.token_file
        token = given.get_secret_value() if given is not None else self._kept()
        if not token.isascii():
            fail("the admin token has letters beyond ASCII: no router wrote it; set ROUTER_ADMIN_TOKEN anew", REFUSED)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx.Client(
                base_url=self.url, headers=headers, timeout=30.0, transport=transport, trust_env=False
            )
        except httpx.InvalidURL as exc:
            fail(f"{self.url} is no URL ({exc}); an admin side is given as http://HOST:PORT", BAD_INPUT)

    def _kept(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def get(self, path: str, **query: Any) -> Any:
        """GET, as parsed JSON."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, document: dict[str, Any], *, accept: tuple[int, ...] = ()) -> Any:
        """POST, as parsed JSON; statuses in `accept` are answers too."""
        return self._ask("POST", path, json=document, accept=accept)

    def _ask(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> Any:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.UnsupportedProtocol:
            fail(f"{self.url} is no URL of an admin side; it is given as http://HOST:PORT", BAD_INPUT)
        except (httpx.TransportError, httpx.DecodingError) as exc:
            fail(f"no router answers at {self.url} ({exc}); is `router serve` running? --admin URL asks another one")
        if answer.status_code == 401:
            fail(
                f"the router at {self.url} wants another token than the one in {self._file}; "
                "set ROUTER_ADMIN_TOKEN, or run this as the user that started the router",
                REFUSED,
            )
        if answer.status_code >= 400 and answer.status_code not in accept:
            fail(_message(answer), REFUSED)
        try:
            return answer.json()
        except ValueError:
            kind = answer.headers.get("content-type", "no type")
            fail(f"what answers at {self.url} is not the admin side of a router ({kind}); --admin URL asks another one")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the router answered {answer.status_code}: {answer.text[:300]}"


def fail(message: str, code: int = NOT_REACHED) -> NoReturn:
    """Say what is wrong on standard error and end the command."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)
