"""The real app between fake backends and fake clients, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.app import App, Outside
from router.config import FleetConfig
from router.events import Event
from router.loops import command
from router.loops.gpu import Run
from tests.fakes import MODEL, Answer, FakeBackend, FakeClient, control_client, fleet_of
from tests.memory import Network, connect


class World:
    """A router in memory: `backend(name)` before `start`, `client()` after it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.network = Network()
        self.backends: dict[str, FakeBackend] = {}
        self.events: list[Event] = []
        self.off: set[str] = set()  # machines that are off
        self.run: Run = command.run  # programs, such as ssh
        self.app: App = None  # type: ignore[assignment]

    def backend(self, name: str, **options: Any) -> FakeBackend:
        self.backends[name] = FakeBackend(name, self.network, **options)
        return self.backends[name]

    def config(self, **settings: Any) -> FleetConfig:
        return fleet_of(*self.backends.values(), **settings)

    async def start(
        self,
        config: FleetConfig | None = None,
        draw: Callable[[], float] = lambda: 0.5,
        pragmas: tuple[str, ...] = (),
        **options: Any,
    ) -> App:
        """Build the router and start it; `options` are the app's own, such as `history_file`."""
        wall = self.loop.time

        async def reach(host: str) -> bool:
            return host not in self.off

        client = control_client(self.backends)
        outside = Outside(
            wall, draw, self.network.dial, client, reach, run=self.run, which=lambda _: None, pragmas=pragmas
        )
        self.app = App(config or self.config(), self.loop, outside, **options)
        self.app.bus.subscribe(self.events.append)
        await self.app.start()
        return self.app

    def client(self, address: str = "10.9.9.9") -> FakeClient:
        client = FakeClient()
        connect(self.loop, client, self.app.server.protocol(), (address, 5))
        return client

    def chat(self, client: FakeClient | None = None, *, headers: dict[str, str] | None = None, **body: Any) -> Answer:
        """A chat call on a new connection (or this one)."""
        message = {"role": "user", "content": "hi"}
        document = {"model": MODEL, "messages": [message], "stream": True, **body}
        return (client or self.client()).post("/v1/chat/completions", document, headers)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def stop(self) -> None:
        if self.app is not None:
            await self.app.stop(0.0)
        for transport in self.network.transports:
            transport.abort()
        await asyncio.sleep(0.01)

    def assert_idle(self) -> None:
        """What is taken is given back: at idle every count is 0."""
        for backend in self.app.fleet.backends.values():
            assert backend.in_flight == 0, backend.name
            assert backend.decoding.value == 0, backend.name
            assert backend.prefill_backlog == 0, backend.name
            assert all(host.active.value == 0 for host in backend.hosts), backend.name
            assert all(serving.in_flight == 0 for serving in backend.serving.values()), backend.name
        assert self.app.front.open == set()
        assert self.app.server.body_bytes == 0


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[World]:
    world = World(runner.get_loop())
    yield world
    runner.run(world.stop())


@asynccontextmanager
async def running(world: World, **settings: Any) -> AsyncIterator[App]:
    yield await world.start(world.config(**settings))
