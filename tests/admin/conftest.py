"""The admin API over a real router in memory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.admin.api import create_api
from router.loops.reload import Reloader
from tests.exchange.conftest import World

TOKEN = "let-me-in"


class AdminWorld(World):
    """A router in memory with its admin side."""

    async def admin(self, *names: str, **options: Any) -> httpx.AsyncClient:
        """Start with these backends; a client that shows the token (`headers=` says otherwise)."""
        for name in names or ("marlin", "cutlass"):
            self.backend(name)
        app = await self.start()
        transport = httpx.ASGITransport(create_api(app, TOKEN, frozenset({"router.home"})))
        headers = options.pop("headers", {"authorization": f"Bearer {TOKEN}"})
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081", headers=headers)

    def reloads(self, *names: str) -> None:
        """From now on the fleet file names these backends."""
        config = self.config().model_copy(update={"backends": tuple(self.backends[name].config for name in names)})
        app = self.app
        app.reloader = Reloader(
            app.fleet, app.bus, lambda: config, app.apply, app.prober.ask_models, Path("fleet.yaml")
        )


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[AdminWorld]:
    world = AdminWorld(runner.get_loop())
    yield world
    runner.run(world.stop())
