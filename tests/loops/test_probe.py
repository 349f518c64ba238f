"""What probes make of a backend: off, starting, healthy, busy, away."""

import asyncio
import errno
import socket

import httpx
import pytest

from router.config import BackendConfig, FleetConfig
from router.events import BackendLoading, BuildChanged, HealthChanged
from router.loops.probe import no_connection
from router.policy.facts import Health
from tests.exchange.conftest import World, world

__all__ = ["world"]

IDLE = """vllm:num_requests_running{engine="0",model_name="nemotron"} 0.0
vllm:num_requests_waiting{engine="0",model_name="nemotron"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="nemotron"} 0.25
process_start_time_seconds 1000.0
"""


async def test_a_backend_that_was_never_there_is_off_and_raises_no_alarm(world: World) -> None:
    world.backend("one").down()
    await world.start()
    await asyncio.sleep(60)
    assert world.app.fleet.backends["one"].health.health is Health.OFF
    assert world.of(HealthChanged) == []


async def test_one_that_goes_away_is_starting_and_comes_back(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    spark.down()
    await asyncio.sleep(20)
    assert world.app.fleet.backends["one"].health.health is Health.STARTING
    assert world.of(BackendLoading)
    spark.up()
    await asyncio.sleep(20)
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY


async def test_one_failed_probe_ejects_nobody(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    spark.health_status = 500
    await asyncio.sleep(5)
    spark.health_status = 200
    await asyncio.sleep(20)
    assert "ejected" not in [event.new for event in world.of(HealthChanged)]
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY


async def test_three_failed_probes_in_a_row_eject(world: World) -> None:
    spark = world.backend("one")
    await world.start()
    spark.health_status = 503
    await asyncio.sleep(20)
    assert world.app.fleet.backends["one"].health.health is Health.EJECTED


async def test_its_metrics_and_version_are_read(world: World) -> None:
    world.backend("one").metrics = IDLE
    await world.start()
    backend = world.app.fleet.backends["one"]
    assert backend.version == "0.33.0"
    assert backend.scrape is not None
    assert backend.scrape.kv_usage == 0.25


async def test_a_restart_is_seen_in_its_start_time(world: World) -> None:
    spark = world.backend("one")
    spark.metrics = IDLE
    await world.start()
    spark.metrics = IDLE.replace("1000.0", "2000.0")
    await asyncio.sleep(10)
    assert [event.restarted_only for event in world.of(BuildChanged)][:1] == [True]


async def test_the_machine_that_is_away_is_named_where_a_backend_spans_two(world: World) -> None:
    spark = world.backend("spark-1")
    config = FleetConfig(backends=(BackendConfig(name="big", url="http://spark-1:8000", host=("spark-1", "spark-2")),))
    await world.start(config)
    spark.down()
    world.off.add("spark-2")
    await asyncio.sleep(20)
    assert world.app.fleet.backends["big"].health.reason == "spark-2 unreachable"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), "refuses connections: nobody listens there"),
        (socket.gaierror(-2, "Name or service not known"), "its name is not known: Name or service not known"),
        (OSError(errno.EHOSTUNREACH, "as the loop words it"), "cannot be reached: No route to host"),
        (None, "refuses connections: All connection attempts failed"),
    ],
)
def test_no_connection_is_explained_by_the_systems_own_error(cause: OSError | None, words: str) -> None:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = cause
    assert no_connection(error) == words
