"""What the client port answers from memory, who may come in, and where a call is sent by name."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from router.config import ModelConfig
from router.events import CallEnded, Outcome
from router.policy.facts import Grade, Health, Intent
from tests.exchange.conftest import World
from tests.fakes import MODEL, FakeCall

CLIENTS = Path(__file__).parents[3] / "shared" / "captures" / "clients"


async def test_models_are_merged_from_memory_with_their_context(world: World) -> None:
    world.backend("one")
    world.backend("two", models=("other",))
    await world.start(world.config(aliases={"chat": ("nemotron",)}))
    answer = await world.client().get("/v1/models").whole()
    cards = {card["id"]: card for card in answer.json["data"]}
    assert set(cards) == {"nemotron", "other", "chat"}
    assert cards["nemotron"]["max_model_len"] == 4096
    assert cards["nemotron"]["owned_by"] == "vllm"
    assert cards["nemotron"]["context_length"] == 4096
    assert all(backend.calls == [] for backend in world.backends.values())
    one = await world.client().get("/v1/models/nemotron").whole()
    assert one.json["id"] == "nemotron"
    missing = await world.client().get("/v1/models/nope").whole()
    assert missing.status == 404
    assert missing.json["error"]["code"] == "model_not_found"


async def test_health_livez_readyz_and_metrics_answer_on_the_client_port(world: World) -> None:
    world.backend("one")
    await world.start()
    for path in ("/health", "/livez", "/readyz", "/metrics", "/version"):
        assert (await world.client().get(path).whole()).status == 200, path
    head = world.client().post("/health", None, method="HEAD")
    await head.until(lambda answer: answer.status)
    assert head.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("POST", "/sleep", 404),
        ("POST", "/collective_rpc", 404),
        ("GET", "/server_info", 404),
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
    ],
)
async def test_unknown_paths_never_pass(world: World, method: str, path: str, status: int) -> None:
    spark = world.backend("one")
    await world.start()
    answer = await world.client().post(path, {} if method == "POST" else None, method=method).whole()
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert spark.calls == []


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "invalid JSON": (b'{"model": ', 400),
    "not an object": (b"[1, 2]", 400),
    "bad UTF-8": (b'{"model": "\xff\xfe"}', 400),
    "deep nesting": (b'{"model": "nemotron", "messages": ' + b"[" * 100_000, 400),
    "no model": (b'{"messages": []}', 400),
    "a wrong type": (b'{"model": 7, "messages": []}', 400),
    "an unknown model": (b'{"model": "nope", "messages": []}', 404),
    "empty": (b"", 400),
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_input_gets_a_clear_error_and_touches_no_backend(world: World, name: str) -> None:
    body, status = BAD_BODIES[name]
    spark = world.backend("one")
    await world.start()
    answer = await world.client().post("/v1/chat/completions", body).whole()
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.json["error"]["message"]
    assert spark.calls == []
    assert world.app.fleet.backends["one"].health.health is Health.HEALTHY
    assert (await world.client().get("/health").whole()).status == 200
    world.assert_idle()


async def test_client_keys_close_everything_but_liveness(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.chat()
    key = "sk-one"
    stored = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
    await world.start(world.config(access={"client_keys": (stored,)}))
    assert (await world.chat(stream=False).whole()).status == 401
    assert (await world.chat(stream=False, headers={"authorization": "Bearer wrong"}).whole()).status == 401
    assert (await world.client().get("/metrics").whole()).status == 401
    assert (await world.client().get("/livez").whole()).status == 200
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert (await world.chat(stream=False, headers=headers).whole()).status == 200
    assert all(call.header("authorization") is None and call.header("x-api-key") is None for call in spark.calls)


async def test_a_clients_key_passes_where_the_router_has_none_and_ours_wins_where_it_has(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.chat()
    await world.start()
    await world.chat(stream=False, headers={"x-api-key": "sk-client"}).whole()
    assert spark.calls[0].header("authorization") == "Bearer sk-client"


async def test_cors_is_off_and_one_setting_turns_it_on(world: World) -> None:
    world.backend("one")
    await world.start(world.config(access={"cors_origins": ("https://chat.home",)}))
    preflight = {"origin": "https://chat.home", "access-control-request-method": "POST"}
    answer = world.client().post("/v1/chat/completions", None, preflight, method="OPTIONS")
    await answer.until(lambda answer: answer.status)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://chat.home"
    other = world.client().get("/v1/models", {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in (await other.whole()).headers


async def test_an_alias_means_the_first_model_that_is_serving(world: World) -> None:
    world.backend("one", models=("big",)).script = lambda call: call.chat("big")
    world.backend("two", models=("small",)).script = lambda call: call.chat("small")
    await world.start(world.config(aliases={"chat": ("big", "small")}))
    assert (await world.chat(model="chat", stream=False).whole()).headers["x-router-backend"] == "one"
    assert world.backends["one"].calls[0].json["model"] == "big"
    world.app.fleet.set_intent("one", Intent.DRAINING)
    assert (await world.chat(model="chat", stream=False).whole()).headers["x-router-backend"] == "two"


async def test_a_call_can_be_pinned_to_a_backend(world: World) -> None:
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.chat()
    await world.start()
    for _ in range(3):
        answer = await world.chat(model=f"{MODEL}@two", stream=False).whole()
        assert answer.headers["x-router-backend"] == "two"
        assert world.backends["two"].calls[-1].json["model"] == MODEL
        by_header = await world.chat(stream=False, headers={"x-router-backend": "one"}).whole()
        assert by_header.headers["x-router-backend"] == "one"
    assert (await world.chat(stream=False, headers={"x-router-backend": "nope"}).whole()).status == 404


async def test_a_session_stays_on_its_backend(world: World) -> None:
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.chat()
    draws = iter(range(1000))
    await world.start(draw=lambda: (next(draws) * 0.37) % 1)
    seen = {
        (await world.chat(stream=False, headers={"x-session-affinity": "ses_1"}).whole()).headers["x-router-backend"]
        for _ in range(10)
    }
    assert len(seen) == 1


async def test_a_response_is_found_where_it_was_made(world: World) -> None:
    for name in ("one", "two"):
        backend = world.backend(name)
        backend.script = lambda call: call.answer(200, {"id": "resp_1", "object": "response", "output": []})
    await world.start()
    made = await world.client().post("/v1/responses", {"model": MODEL, "input": "hi"}).whole()
    maker = made.headers["x-router-backend"]
    got = await world.client().get("/v1/responses/resp_1").whole()
    assert got.headers["x-router-backend"] == maker
    cancelled = await world.client().post("/v1/responses/resp_1/cancel", {}).whole()
    assert cancelled.headers["x-router-backend"] == maker
    following = {"model": MODEL, "input": "more", "previous_response_id": "resp_1"}
    again = await world.client().post("/v1/responses", following).whole()
    assert again.headers["x-router-backend"] == maker
    assert (await world.client().get("/v1/responses/resp_2").whole()).status == 404


async def test_a_flag_moves_traffic_and_the_only_backend_still_serves(world: World) -> None:
    for name in ("one", "two"):
        world.backend(name).script = lambda call: call.chat()
    await world.start()
    fleet = world.app.fleet
    fleet.set_grade("one", MODEL, Grade.FLAGGED, "repeats itself", by="operator")
    names = {(await world.chat(stream=False).whole()).headers["x-router-backend"] for _ in range(6)}
    assert names == {"two"}
    fleet.set_intent("two", Intent.DISABLED)
    assert (await world.chat(stream=False).whole()).headers["x-router-backend"] == "one"


async def test_max_tokens_is_clamped_to_what_the_backend_takes(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.chat()
    await world.start()
    await world.chat(stream=False, max_tokens=32000).whole()
    assert spark.calls[0].json["max_tokens"] == 4096
    await world.chat(stream=False, max_tokens=100).whole()
    assert spark.calls[1].json["max_tokens"] == 100


async def test_hop_by_hop_headers_and_those_that_connection_names_stay_here(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.chat()
    await world.start()
    sent = {"connection": "keep-alive, x-secret", "x-secret": "1", "te": "trailers", "traceparent": "00-ab", "x-a": "b"}
    await world.chat(stream=False, headers=sent).whole()
    names = {name for name, _ in spark.calls[0].headers}
    assert names.isdisjoint({"connection", "x-secret", "te", "keep-alive"})
    assert {"traceparent", "x-a", "x-request-id"} <= names
    assert spark.calls[0].header("accept-encoding") == "identity"
    assert spark.calls[0].header("host") == "one:8000"


async def test_a_request_id_is_kept_echoed_and_forwarded(world: World) -> None:
    spark = world.backend("one")
    spark.script = lambda call: call.chat()
    await world.start()
    answer = await world.chat(stream=False, headers={"x-request-id": "mine-1"}).whole()
    assert answer.headers["x-request-id"] == "mine-1"
    assert spark.calls[0].header("x-request-id") == "mine-1"
    made = (await world.chat(stream=False).whole()).headers["x-request-id"]
    assert made
    assert spark.calls[1].header("x-request-id") == made


async def test_calls_wait_for_a_place_interactive_first_and_leave_with_their_client(world: World) -> None:
    spark = world.backend("one")
    config = world.config()
    capped = config.backends[0].model_copy(update={"max_in_flight": 1})
    await world.start(config.model_copy(update={"backends": (capped,)}))
    first = world.chat(stream=False)
    running = await spark.call()
    title = [{"role": "system", "content": "You are a title generator. You output ONLY a thread title."}]
    background = world.chat(stream=False, messages=title)
    await asyncio.sleep(0.1)
    leaver = world.client()
    world.chat(leaver, stream=False)
    interactive = world.chat(stream=False, user="me")
    await asyncio.sleep(0.1)
    assert world.app.front.dispatch.queued() == 3
    leaver.leave()
    await asyncio.sleep(0.1)
    assert world.app.front.dispatch.queued() == 2
    running.chat("first")
    second = await spark.call()
    assert second.json.get("user") == "me"
    second.chat("second")
    (await spark.call()).chat("third")
    for answer in (first, interactive, background):
        assert (await answer.whole()).status == 200
    assert world.app.front.dispatch.queued() == 0
    world.assert_idle()


async def test_waiting_ends_with_a_503_that_says_when_to_come_back(world: World) -> None:
    spark = world.backend("one")
    config = world.config(timeouts={"queue_s": 5})
    capped = config.backends[0].model_copy(update={"max_in_flight": 1})
    await world.start(config.model_copy(update={"backends": (capped,)}))
    world.chat(stream=False)
    await spark.call()
    answer = await world.chat(stream=False).whole()
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert world.of(CallEnded)[-1].outcome is Outcome.SHED


async def test_ten_thousand_unknown_models_add_at_most_one_series(world: World) -> None:
    world.backend("one")
    await world.start()
    client = world.client()
    await world.chat(client, model="nope", stream=False).whole()
    before = world.app.metrics.render().count(b"\n")
    for number in range(500):
        await world.chat(client, model=f"nope-{number}", stream=False).whole()
    assert world.app.metrics.render().count(b"\n") <= before + 1


async def test_a_model_that_loads_says_so_with_its_eta(world: World) -> None:
    spark = world.backend("one")
    await world.start(world.config(timeouts={"queue_s": 0}, models={MODEL: ModelConfig()}))
    spark.down()
    await asyncio.sleep(60)
    backend = world.app.fleet.backends["one"]
    backend.load_eta_s = 720
    answer = await world.chat(stream=False).whole()
    assert answer.status == 503
    assert "is loading on one" in answer.json["error"]["message"]
    assert "of 12 min" in answer.json["error"]["message"]
    assert int(answer.headers["retry-after"]) > 60


def recorded() -> list[Any]:
    """Bodies and headers that Open WebUI and opencode really sent."""
    found = sorted(CLIENTS.rglob("*-POST-*.json")) if CLIENTS.is_dir() else []
    return [pytest.param(json.loads(path.read_text()), id=f"{path.parent.name}-{path.stem}") for path in found]


@pytest.mark.skipif(not CLIENTS.is_dir(), reason="the recorded requests of real clients are not here")
@pytest.mark.parametrize("record", recorded())
async def test_recorded_requests_of_real_clients_are_answered(world: World, record: Any) -> None:
    document = record["body"]
    spark = world.backend("one", models=(document["model"],))

    def script(call: FakeCall) -> None:
        call.stream("one", " two") if call.json.get("stream") else call.chat("one two")

    spark.script = script
    await world.start()
    skip = {"host", "content-length", "connection", "transfer-encoding"}
    headers = {name.lower(): value for name, value in record["headers"] if name.lower() not in skip}
    answer = await world.client().post("/v1/chat/completions", document, headers).whole()
    assert answer.status == 200
    assert answer.complete
    text = answer.text if document.get("stream") else answer.json["choices"][0]["message"]["content"]
    assert text == "one two"
    asked = bool(document.get("stream_options", {}).get("include_usage"))
    if document.get("stream"):
        assert any(isinstance(event, dict) and "usage" in event for event in answer.events) is asked
