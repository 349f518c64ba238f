"""What a bench measured is where the router's estimates begin: at once, and after a restart under the same build."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.admin.api import create_api
from router.app import App, Outside
from router.config import FleetConfig
from router.history.rows import BenchDay
from router.policy.facts import Estimate
from router.policy.speed import HostModel, SpeedModel
from tests.exchange.conftest import World
from tests.fakes import MODEL, control_client
from tests.loops.talker import Inline
from tests.memory import Network

TOKEN = "let-me-in"
PREFILL = {"p": 0.1, "q": 1 / 5000, "pp": 1e-4, "pq": 0.0, "qq": 1e-10, "noise": 0.05}
DECODE = {"p": 0.012, "q": 0.004, "pp": 1e-6, "pq": 0.0, "qq": 1e-7, "noise": 0.03}


class KeptWorld(World):
    """A router whose history outlives it."""

    file: Path | None = None

    async def start(self, config: FleetConfig | None = None, draw: Any = lambda: 0.5) -> App:
        outside = Outside(
            self.loop.time, draw, self.network.dial, control_client(self.backends), self.reaches, executor=Inline
        )
        self.app = App(config or self.config(), self.loop, outside, history_file=self.file)
        await self.app.start()
        await asyncio.sleep(5.0)
        assert all(one.build for one in self.app.fleet.backends.values())
        return self.app

    async def reaches(self, host: str) -> bool:
        return host not in self.off

    async def again(self) -> App:
        """Stop the router and start another over the same file."""
        await self.stop()
        self.network = Network()
        for name in list(self.backends):
            self.backend(name)
        return await self.start()

    def admin(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_api(self.app, TOKEN, frozenset()))
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081", headers=headers)

    def result(self, name: str = "marlin", **more: Any) -> dict[str, Any]:
        build = self.app.fleet.backends[name].build
        return {"backend": name, "model": MODEL, "build": build, "prefill": PREFILL, "decode": DECODE, **more}

    def estimates(self, name: str = "marlin") -> dict[str, Estimate]:
        return self.app.fleet.backends[name].serving[MODEL].speed.estimates(self.loop.time())


@pytest.fixture
def world(runner: asyncio.Runner, tmp_path: Path) -> Iterator[KeptWorld]:
    world = KeptWorld(runner.get_loop())
    world.file = tmp_path / "history.db"
    world.backend("marlin")
    yield world
    runner.run(world.stop())


async def told(world: KeptWorld, *results: dict[str, Any]) -> httpx.Response:
    async with world.admin() as admin:
        return await admin.post("/api/bench", json={"results": list(results)})


async def test_a_bench_is_in_force_at_once(world: KeptWorld) -> None:
    await world.start()
    assert world.estimates()["prefill_rate"].source != "bench"
    answer = await told(world, world.result(contention=0.4))
    assert answer.json()["results"] == [
        {"backend": "marlin", "model": MODEL, "in_force": True, "kept": True, "reason": ""}
    ]
    found = world.estimates()
    assert found["prefill_rate"].value == pytest.approx(5000)
    assert found["decode_rate"].value == pytest.approx(1 / 0.016)
    assert found["prefill_rate"].source == found["decode_rate"].source == "bench"
    assert world.app.fleet.backends["marlin"].hosts[0].model.c == pytest.approx(0.4)


async def test_a_bench_is_remembered_with_its_build(world: KeptWorld) -> None:
    await world.start()
    await told(world, world.result())
    await world.again()
    assert world.estimates()["prefill_rate"].source == "bench"
    assert world.estimates()["prefill_rate"].value == pytest.approx(5000)


async def test_what_was_learned_before_a_bench_gives_way_to_it(world: KeptWorld) -> None:
    app = await world.start()
    speed = app.fleet.backends["marlin"].serving[MODEL].speed
    for n in range(10):
        speed.observe_decode(world.loop.time() + n, 100, 10.0, 1.0, 0.0)
    assert app.memory is not None
    app.memory.save()
    await asyncio.sleep(5.0)
    await told(world, world.result())
    await world.again()
    assert world.estimates()["decode_rate"].source == "bench"
    assert world.estimates()["decode_rate"].value == pytest.approx(1 / 0.016)


async def test_what_traffic_taught_after_a_bench_is_not_forgotten(world: KeptWorld) -> None:
    app = await world.start()
    await told(world, world.result())
    speed = app.fleet.backends["marlin"].serving[MODEL].speed
    for n in range(20):
        speed.observe_decode(world.loop.time() + n, 100, 2.0, 1.0, 0.0)  # 50 tok/s, the bench said 62
    learned = speed.decode.predict(1.0)
    await asyncio.sleep(5.0)
    assert app.memory is not None
    app.memory.save()
    await world.again()
    again = world.app.fleet.backends["marlin"].serving[MODEL].speed
    assert again.decode.predict(1.0) == pytest.approx(learned)
    assert learned == pytest.approx(0.02, rel=0.05)


async def test_a_kernel_table_does_not_push_a_bench_aside(world: KeptWorld) -> None:
    app = await world.start()
    await told(world, world.result())
    assert app.memory is not None
    app.memory.build_known(app.fleet.backends["marlin"], "", False)
    assert world.estimates()["prefill_rate"].source == "bench"


async def test_a_fingerprint_seen_first_after_a_bench_takes_the_bench_along(world: KeptWorld) -> None:
    app = await world.start()
    await told(world, world.result())
    assert app.history is not None
    await asyncio.to_thread(app.history.settle)  # time is virtual here, the disk is not
    backend = app.fleet.backends["marlin"]
    before = backend.build
    app.identity.fingerprint_seen(backend, "vllm-0.33.0-aa")
    await asyncio.sleep(5.0)
    assert backend.build != before, "the build is known better"
    assert world.estimates()["prefill_rate"].source == "bench"
    app.identity.fingerprint_seen(backend, "vllm-0.33.1-bb")
    await asyncio.sleep(5.0)
    assert world.estimates()["prefill_rate"].source == "history", "another build: a wide guess from the old one"
    await asyncio.to_thread(app.history.settle)
    kept = {one.build for one in await app.history.rows(BenchDay)}
    assert len(kept) == 2
    assert backend.build not in kept


async def test_another_build_is_not_given_what_was_measured_of_this_one(world: KeptWorld) -> None:
    await world.start()
    before = world.estimates()["prefill_rate"]
    answer = await told(world, world.result(build="0123456789ab"))
    said = answer.json()["results"][0]
    assert (said["in_force"], said["kept"]) == (False, False)
    assert "0123456789ab was measured" in said["reason"]
    assert world.estimates()["prefill_rate"].value == before.value
    assert world.app.history is not None
    assert await world.app.history.rows(BenchDay) == []


async def test_a_backend_or_model_that_is_gone_is_said_and_the_others_are_taken(world: KeptWorld) -> None:
    await world.start()
    gone = {**world.result(), "backend": "who"}
    other = {**world.result(), "model": "what"}
    said = (await told(world, gone, other, world.result())).json()["results"]
    assert [one["in_force"] for one in said] == [False, False, True]
    assert "no backend who" in said[0]["reason"]
    assert "does not serve what" in said[1]["reason"]


@pytest.mark.parametrize(
    "line",
    [
        {**DECODE, "p": -1.0},
        {**DECODE, "p": 0.0, "q": 0.0},
        {**DECODE, "pp": 0.0},
        {**DECODE, "pq": 1.0},
        {**DECODE, "noise": 0.0},
        {name: value for name, value in DECODE.items() if name != "q"},
    ],
)
async def test_numbers_that_no_speed_has_are_refused(world: KeptWorld, line: dict[str, float]) -> None:
    await world.start()
    answer = await told(world, world.result(decode=line))
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "not_valid"
    assert world.estimates()["decode_rate"].source != "bench"


async def test_the_token_is_asked_for_as_everywhere(world: KeptWorld) -> None:
    await world.start()
    async with world.admin() as admin:
        admin.headers["authorization"] = "Bearer wrong"
        answer = await admin.post("/api/bench", json={"results": [world.result()]})
    assert answer.status_code == 401


async def test_a_router_without_history_still_uses_a_bench(world: KeptWorld) -> None:
    world.file = None
    await world.start()
    said = (await told(world, world.result())).json()["results"][0]
    assert (said["in_force"], said["kept"]) == (True, False)
    assert "no history" in said["reason"]


def test_what_siblings_cost_is_taken_only_where_traffic_has_not_taught_it() -> None:
    fresh, learned = HostModel(), HostModel(c=1.1, samples=50.0)
    fresh.begin_with(0.3)
    learned.begin_with(0.3)
    assert (fresh.c, learned.c) == (0.3, 1.1)


def test_a_line_that_is_not_finite_is_no_speed() -> None:
    with pytest.raises(ValueError, match="finite"):
        SpeedModel.from_bench({**PREFILL, "p": float("nan")}, DECODE)
