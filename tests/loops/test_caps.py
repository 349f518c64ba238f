"""The cap on calls in flight, end to end: scrapes in, what choice and status read out."""

import asyncio
from pathlib import Path

from router import caps
from router.admin.views import status
from router.backend import Backend
from router.policy.facts import CallFacts
from tests.exchange.conftest import World, world

__all__ = ["world"]

PAGE = """vllm:num_requests_running{{engine="0",model_name="nemotron"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="nemotron"}} {waiting}
vllm:prompt_tokens_total{{engine="0",model_name="nemotron"}} 0.0
vllm:generation_tokens_total{{engine="0",model_name="nemotron"}} {tokens}
vllm:spec_decode_num_draft_tokens_total{{engine="0",model_name="nemotron"}} {drafted}
vllm:spec_decode_num_accepted_tokens_total{{engine="0",model_name="nemotron"}} {accepted}
process_start_time_seconds {start}
"""


class Decoding:
    """A backend whose counters run as if so many streams decoded at this rate, and as if they were ours."""

    def __init__(self, world: World, name: str) -> None:
        self.fake = world.backend(name)
        self.tokens = 0.0
        self.start = 1000.0

    def show(self, running: int, waiting: int = 0) -> None:
        self.fake.metrics = PAGE.format(
            running=running,
            waiting=waiting,
            tokens=self.tokens,
            drafted=2 * self.tokens,
            accepted=1.5 * self.tokens,
            start=self.start,
        )

    async def run(self, backend: Backend, streams: int, rate: float, seconds: int) -> None:
        loop = asyncio.get_running_loop()
        backend.decoding.add(streams, loop.time())
        for _ in range(seconds):
            self.tokens += rate
            self.show(streams)
            await asyncio.sleep(1.0)
        backend.decoding.add(-streams, loop.time())


def cap_in_choice(world: World) -> int | None:
    return world.app.fleet.candidates(CallFacts("nemotron"))[0].cap


async def learned(world: World, rates: dict[int, float]) -> tuple[Decoding, Backend]:
    spark = Decoding(world, "one")
    spark.show(0)
    await world.start()
    backend = world.app.fleet.backends["one"]
    backend.leases = _Count()  # type: ignore[assignment]  # whose calls they are is not what is looked at here
    for _ in range(3):
        for streams, rate in rates.items():
            await spark.run(backend, streams, rate, 60)
    return spark, backend


class _Count(set[object]):
    """Leases of as many calls as ever run there."""

    def __len__(self) -> int:
        return 8


async def test_a_backend_that_falls_past_its_knee_gets_fewer_calls_and_status_says_so(world: World) -> None:
    _, backend = await learned(world, {2: 80.0, 4: 150.0, 6: 90.0})
    assert backend.cap == cap_in_choice(world) == 5
    shown = status(world.app)["backends"][0]
    assert shown["in_flight_cap"] == 5
    assert shown["in_flight_limit"] is None
    assert shown["spec_acceptance"] == 0.75
    assert b'router_in_flight_cap{backend="one"} 5' in world.app.metrics.render()
    backend.leases = set()


async def test_a_backend_that_gains_by_more_streams_keeps_no_cap(world: World) -> None:
    _, backend = await learned(world, {2: 80.0, 4: 150.0, 6: 150.0})
    assert backend.cap is None
    assert cap_in_choice(world) is None
    backend.leases = set()


async def test_a_restart_forgets_the_cap(world: World) -> None:
    spark, backend = await learned(world, {2: 80.0, 4: 150.0, 6: 90.0})
    backend.leases = set()
    spark.start, spark.tokens = 5000.0, 0.0
    spark.show(0)
    await asyncio.sleep(15.0)
    assert backend.cap is None


async def reload(world: World, passive: bool) -> None:
    world.app.reloads_from(Path("fleet.yaml"), lambda: world.config(passive=passive), watch=False)
    assert world.app.reloader is not None
    assert (await world.app.reloader.reload()).applied


async def test_a_reload_to_passive_lifts_a_learned_cap_and_one_back_brings_it_again(world: World) -> None:
    _, backend = await learned(world, {2: 80.0, 4: 150.0, 6: 90.0})
    backend.leases = set()
    knee = backend.knee
    assert cap_in_choice(world) == 5
    await reload(world, passive=True)
    assert cap_in_choice(world) is None
    assert b"router_in_flight_cap{" not in world.app.metrics.render()
    await asyncio.sleep(20.0)
    assert backend.seen_load is None, "nobody looks while passive, and nothing old is compared afterwards"
    await reload(world, passive=False)
    assert backend.knee is knee
    assert cap_in_choice(world) == 5


async def test_a_passive_router_keeps_to_the_configured_limit(world: World) -> None:
    _, backend = await learned(world, {2: 80.0, 4: 150.0, 6: 90.0})
    backend.leases = set()
    backend.config = backend.config.model_copy(update={"max_in_flight": 7})
    caps.refresh(backend, world.loop.time())
    assert cap_in_choice(world) == 5
    caps.lift(backend)
    assert cap_in_choice(world) == 7
