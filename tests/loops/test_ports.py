"""A backend that is a host and a range of ports is found where it answers, and found again after it moved."""

import asyncio

from router.config import BackendConfig, FleetConfig
from tests.exchange.conftest import World, world
from tests.fakes import FakeBackend

__all__ = ["world"]


async def test_a_backend_is_found_within_its_ports_by_the_model_it_serves(world: World) -> None:
    world.backends["other"] = FakeBackend("spark-1", world.network, port=8000, models=("other",))
    wanted = world.backends["wanted"] = FakeBackend("spark-1", world.network, port=8002, models=("wanted",))
    wanted.script = lambda call: call.chat()
    config = FleetConfig(
        backends=(BackendConfig(name="a", host=("spark-1",), ports=(8000, 8001, 8002), serves=("wanted",)),)
    )
    await world.start(config)
    await asyncio.sleep(30)
    assert world.app.fleet.backends["a"].pool.address.port == 8002
    assert (await world.chat(model="wanted", stream=False).whole()).status == 200


async def test_a_backend_that_moved_is_found_again(world: World) -> None:
    old = world.backends["old"] = FakeBackend("spark-1", world.network, port=8000)
    config = FleetConfig(backends=(BackendConfig(name="a", host=("spark-1",), ports=(8000, 8001)),))
    await world.start(config)
    old.down()
    world.backends["new"] = FakeBackend("spark-1", world.network, port=8001)
    world.backends["new"].script = lambda call: call.chat()
    await asyncio.sleep(30)
    assert world.app.fleet.backends["a"].pool.address.port == 8001
    assert (await world.chat(stream=False).whole()).status == 200
