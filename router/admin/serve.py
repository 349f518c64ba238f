"""FastAPI under uvicorn on the admin port, in the router's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from router.admin.api import create_api
from router.admin.auth import keep_token

if TYPE_CHECKING:
    from router.app import App
    from router.settings import Settings

log = logging.getLogger("router")


class _Quiet(uvicorn.Server):
    """uvicorn without its own signal handlers: the router decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave signals alone."""
        yield


class AdminServer:
    """The admin side of a running router."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, token: str) -> None:
        self._server = server
        self._listener = listener
        self.token = token
        self.port = int(listener.getsockname()[1])
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listener]))

    async def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = self._server.force_exit = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=2)
        self._listener.close()


def start_admin(app: App, settings: Settings, listener: socket.socket) -> AdminServer:
    """Serve the admin side on a bound socket."""
    given = settings.admin_token.get_secret_value() if settings.admin_token is not None else None
    token = keep_token(given, settings.token_file)
    api = create_api(app, token, frozenset(settings.allowed_hosts))
    config = uvicorn.Config(
        api, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, server_header=False
    )
    server = AdminServer(_Quiet(config), listener, token)
    server.start()
    return server
