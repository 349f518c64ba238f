"""FastAPI under uvicorn on the admin port, in the router's own loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.app import App
    from router.settings import Settings


class AdminServer:
    """The admin side of a running router."""


async def start_admin(app: App, settings: Settings) -> None:
    """Bind and serve the admin side."""
