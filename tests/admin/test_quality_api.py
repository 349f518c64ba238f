"""Quality over the admin API, and what `router canary` prints of it."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from rich.console import Console, RenderableType

from router.admin.api import create_api
from router.admin.views import status
from router.cli.canary import details, overview
from router.cli.status import attention
from router.cli.status import details as backend_details
from router.policy.facts import Grade
from tests.fakes import MODEL
from tests.loops.talker import CanaryWorld, table


@pytest.fixture
def world(runner: asyncio.Runner) -> Iterator[CanaryWorld]:
    world = CanaryWorld(runner.get_loop())
    yield world
    runner.run(world.stop())


def admin(world: CanaryWorld) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_api(world.app, "secret"))
    headers = {"authorization": "Bearer secret"}
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


def printed(what: RenderableType) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


async def test_a_check_says_its_cost_before_it_starts(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    asked = len(spark.asked)
    async with admin(world) as client:
        answer = await client.post("/api/quality/run", json={"backend": "spark", "size": "full", "dry_run": True})
        (plan,) = answer.json()["checks"]
        assert plan["model"] == MODEL
        assert 0 < plan["cost_s"] <= 600
        assert sum(plan["of"].values()) == plan["steps"]
        await asyncio.sleep(60)
        assert len(spark.asked) == asked
        await client.post("/api/quality/run", json={"backend": "spark"})
    await world.checked("spark", 2)


async def test_progress_is_seen_while_a_check_runs(world: CanaryWorld) -> None:
    world.spark("spark").token_s = 0.1
    await world.open()
    await world.until(lambda: world.app.quality.inspector.running)
    async with admin(world) as client:
        running = (await client.get("/api/quality")).json()["running"]
    assert running["backend"] == "spark"
    assert 0 < running["left"] <= running["steps"]
    await world.checked("spark")


async def test_a_flag_shows_its_evidence(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    await world.open()
    await world.checked("spark")
    spark.prefill = spark.decode = table(1.0, 5)
    world.restart("spark")
    await world.checked("spark", 2)
    async with admin(world) as client:
        (one,) = (await client.get("/api/quality")).json()["backends"]
    assert one["grade"] == "flagged"
    assert any(found["kind"] == "damage" and found["probes"] and found["e_value"] > 100 for found in one["evidence"])
    assert "damage" in printed(details(one))
    assert "flagged" in printed(overview([one]))
    document = status(world.app)
    assert any("is flagged" in line for line in attention(document))
    (backend,) = document["backends"]
    (model,) = backend["models"]
    assert any("e=" in line for line in model["evidence"])
    said = printed(backend_details(backend))
    assert all(line.split(" (")[0] in said for line in model["evidence"])


async def test_a_baseline_goes_out_and_into_another_router(world: CanaryWorld) -> None:
    world.spark("spark")
    await world.open()
    await world.checked("spark")
    async with admin(world) as client:
        kept = (await client.get("/api/quality/baseline", params={"model": MODEL})).json()
    assert kept["texts"] == 12
    other = CanaryWorld(world.loop)
    other.spark("elsewhere").prefill = table(1.0, 5)
    await other.open()
    async with admin(other) as client:
        assert (await client.post("/api/quality/baseline", json={"data": kept["data"]})).status_code == 200
    await other.checked("elsewhere")
    assert other.grade("elsewhere") is Grade.FLAGGED
    await other.stop()


@pytest.mark.parametrize("data", ["", "not base64!", "aGVsbG8="])
async def test_a_file_that_is_no_baseline_is_refused(world: CanaryWorld, data: str) -> None:
    world.spark("spark")
    await world.open()
    async with admin(world) as client:
        answer = await client.post("/api/quality/baseline", json={"data": data})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_baseline"


async def test_what_is_not_there_is_said(world: CanaryWorld) -> None:
    world.spark("spark")
    await world.open()
    async with admin(world) as client:
        nobody = await client.post("/api/quality/run", json={"backend": "nobody"})
        assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "backend_not_found")
        model = await client.post("/api/quality/run", json={"backend": "spark", "model": "x"})
        assert model.json()["error"]["code"] == "model_not_found"
        none = await client.get("/api/quality/baseline", params={"model": MODEL})
        assert none.json()["error"]["code"] == "baseline_not_found"


async def test_the_operator_allows_what_a_backend_died_of(world: CanaryWorld) -> None:
    spark = world.spark("spark")
    spark.dies_of = "prompt_logprobs"
    await world.open()
    await world.until(lambda: world.app.quality.guardian.blocked("spark"))
    async with admin(world) as client:
        answer = await client.post("/api/quality/allow", json={"backend": "spark"})
    assert answer.json()["allowed"] == ["prefill"]
    assert not world.app.quality.guardian.blocked("spark")
