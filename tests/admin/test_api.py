"""What the admin API shows, and what its orders do."""

import pytest

from router.events import IntentChanged, QualityChanged, Reloaded
from router.vllm.gpu import GpuReading
from tests.admin.conftest import AdminWorld
from tests.fakes import MODEL


async def called(world: AdminWorld, backend: str = "marlin") -> str:
    """One call that ends well; its id."""
    world.backends[backend].script = lambda call: call.stream("hello")
    answer = await world.chat().whole()
    return answer.headers["x-request-id"]


async def test_the_status_names_every_backend_and_model(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        status = (await admin.get("/api/status")).json()
    assert [one["name"] for one in status["backends"]] == ["marlin", "cutlass"]
    assert status["models"][0]["usable"] == ["marlin", "cutlass"]
    speed = status["backends"][0]["models"][0]["speed"]
    assert speed["decode_rate"]["samples"] == 0


async def test_a_backend_shows_the_gpu_of_its_machine_or_why_not(world: AdminWorld) -> None:
    async with await world.admin("marlin") as admin:
        host = world.app.fleet.backends["marlin"].hosts[0].name
        await world.app.gpus.look()
        unread = (await admin.get("/api/backends/marlin")).json()["gpus"]
        world.app.gpus.readings[host] = GpuReading(1400.0, None, 88.0, 30.0, ("power cap",))
        read = (await admin.get("/api/backends/marlin")).json()["gpus"]
    assert unread[0]["reading"] is None
    assert unread[0]["detail"].startswith("not read:")
    assert read[0]["reading"]["temperature_c"] == 88.0
    assert read[0]["reading"]["capped_by"] == ["power cap"]


async def test_a_call_is_listed_and_explained(world: AdminWorld) -> None:
    async with await world.admin("marlin") as admin:
        request_id = await called(world)
        calls = (await admin.get("/api/calls", params={"limit": 1})).json()
        explained = (await admin.get(f"/api/explain/{request_id}")).json()
    assert calls[0]["request_id"] == request_id
    assert explained["decisions"][0]["chosen"] == "marlin"
    assert explained["decisions"][0]["candidates"][0]["name"] == "marlin"
    assert explained["call"]["outcome"] == "ok"


async def test_the_history_has_the_tokens_and_the_marks(world: AdminWorld) -> None:
    async with await world.admin("marlin") as admin:
        await called(world)
        await admin.post("/api/backends/marlin/grade", json={"flagged": True, "why": "repeats itself"})
        found = (await admin.get("/api/history")).json()
        newest = (await admin.get("/api/history", params={"since": found["first"] + 5 * found["step_s"]})).json()
    assert found["count"] == len(found["backends"]["marlin"]["tokens_per_s"])
    assert found["marks"][-1]["kind"] == "flag"
    assert "repeats itself" in found["marks"][-1]["text"]
    assert newest["count"] < found["count"] or found["count"] <= 5


async def test_drain_and_resume_change_the_intent_with_the_reason(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        drained = await admin.post("/api/backends/marlin/intent", json={"intent": "draining", "why": "new nightly"})
        resumed = await admin.post("/api/backends/marlin/intent", json={"intent": "active"})
    assert (drained.json()["intent"], drained.json()["intent_reason"]) == ("draining", "new nightly")
    assert resumed.json()["intent"] == "active"
    assert [event.new for event in world.of(IntentChanged)] == ["draining", "active"]


async def test_eject_and_readmit_change_the_health(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        ejected = await admin.post("/api/backends/marlin/health", json={"up": False, "why": "smells burnt"})
        readmitted = await admin.post("/api/backends/marlin/health", json={"up": True})
    assert ejected.json()["health"] == "ejected"
    assert "smells burnt" in ejected.json()["health_reason"]
    assert readmitted.json()["health"] == "healthy"


async def test_flag_and_clear_change_the_grade(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        flagged = await admin.post("/api/backends/marlin/grade", json={"flagged": True, "model": MODEL})
        usable = (await admin.get("/api/status")).json()["models"][0]["usable"]
        cleared = await admin.post("/api/backends/marlin/grade", json={"flagged": False})
    assert flagged.json()["models"][0]["flagged_by"] == "operator"
    assert usable == ["cutlass"]
    assert cleared.json()["models"][0]["grade"] == "unknown"
    assert [event.new for event in world.of(QualityChanged)] == ["flagged", "unknown"]


async def test_a_dry_run_shows_the_change_and_makes_none(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        world.reloads("marlin")
        shown = (await admin.post("/api/reload", json={"dry_run": True})).json()
        names = list(world.app.fleet.backends)
        done = (await admin.post("/api/reload", json={})).json()
    assert shown["diff"] == "- backend cutlass"
    assert names == ["marlin", "cutlass"]
    assert done["applied"]
    assert list(world.app.fleet.backends) == ["marlin"]


async def test_a_reload_that_would_lose_a_model_is_refused_unless_forced(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        world.backend("empty", models=())
        world.reloads("empty")
        refused = await admin.post("/api/reload", json={})
        forced = await admin.post("/api/reload", json={"force": True})
    assert refused.status_code == 409
    assert refused.json()["lost"] == [MODEL]
    assert forced.json()["applied"]
    assert [event.ok for event in world.of(Reloaded)][-2:] == [False, True]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/api/backends/nobody", None, 404, "backend_not_found"),
        ("POST", "/api/backends/nobody/intent", {"intent": "active"}, 404, "backend_not_found"),
        ("POST", "/api/backends/marlin/intent", {"intent": "asleep"}, 422, "not_valid"),
        ("POST", "/api/backends/marlin/intent", {}, 422, "not_valid"),
        ("POST", "/api/backends/marlin/grade", {"flagged": True, "model": "gpt-9"}, 404, "model_not_found"),
        ("POST", "/api/reload", {}, 409, "no_fleet_file"),
        ("GET", "/api/explain/unheard-of", None, 404, "call_not_found"),
        ("GET", "/api/calls?limit=501", None, 422, "not_valid"),
        ("GET", "/api/history?since=yesterday", None, 422, "not_valid"),
        ("GET", "/api/nonsense", None, 404, "not_found"),
        ("PUT", "/api/reload", {}, 405, "method_not_allowed"),
    ],
)
async def test_every_refusal_has_the_one_shape(
    world: AdminWorld, method: str, path: str, body: dict[str, object] | None, status: int, code: str
) -> None:
    async with await world.admin() as admin:
        answer = await admin.request(method, path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}


async def test_metrics_and_readiness_answer(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        assert "router_" in (await admin.get("/metrics")).text
        assert (await admin.get("/readyz")).json() == {"status": "ready"}
