"""What the simulated vLLM says about itself, its tokenizer, and the levers under `/sim`."""

from __future__ import annotations

from router.sim import chat
from router.sim.asgi import Exchange
from router.sim.exposition import exposition
from router.sim.faults import Fault
from router.sim.profiles import PROFILES
from router.sim.state import Sim
from router.sim.tokens import decode, encode, token_string
from router.sim.wish import bad, invalid

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


async def health(sim: Sim, exchange: Exchange) -> None:
    """200 without a body, as long as the engine is not known to be dead; a hung one is not."""
    await exchange.answer(200, b"")


async def version(sim: Sim, exchange: Exchange) -> None:
    """The version."""
    await exchange.answer(200, {"version": sim.build.profile.vllm_version})


async def load(sim: Sim, exchange: Exchange) -> None:
    """Calls that are open."""
    await exchange.answer(200, {"server_load": sim.open_calls})


async def metrics(sim: Sim, exchange: Exchange) -> None:
    """Prometheus text."""
    text = exposition(sim.engine, sim.build.model, sim.started, sim.finished, sim.seen)
    await exchange.answer(200, text.encode(), METRICS_TYPE)


async def models(sim: Sim, exchange: Exchange) -> None:
    """The one model; `created` is now at every call."""
    now = int(sim.now())
    permission = {
        "id": f"modelperm-{sim.new_id()}", "object": "model_permission", "created": now,
        "allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False,
        "allow_view": True, "allow_fine_tuning": False, "organization": "*", "group": None, "is_blocking": False,
    }  # fmt: skip
    card = {
        "id": sim.build.model, "object": "model", "created": now, "owned_by": "vllm",
        "root": sim.build.profile.checkpoint, "parent": None, "max_model_len": sim.build.profile.max_model_len,
        "permission": [permission],
    }  # fmt: skip
    await exchange.answer(200, {"object": "list", "data": [card]})


async def tokenize(sim: Sim, exchange: Exchange) -> None:
    """Token ids of a text or of a chat."""
    body = exchange.json()
    chat.check_model(sim, body)
    ids = chat.chat_ids(sim, body) if "messages" in body else encode(str(body.get("prompt", "")))
    strings = [token_string(token) for token in ids] if body.get("return_token_strs") else None
    longest = sim.build.profile.max_model_len
    await exchange.answer(200, {"count": len(ids), "max_model_len": longest, "tokens": ids, "token_strs": strings})


async def detokenize(sim: Sim, exchange: Exchange) -> None:
    """The text of token ids."""
    body = exchange.json()
    chat.check_model(sim, body)
    tokens = body.get("tokens")
    if not isinstance(tokens, list):
        raise invalid("missing", "body.tokens", "Field required", body)
    await exchange.answer(200, {"prompt": decode(tokens)})


async def fault(sim: Sim, exchange: Exchange) -> None:
    """Put a fault in force, or lift one (`?kind=`-less DELETE lifts all)."""
    if exchange.method == "DELETE":
        body = exchange.json() if exchange.body else {}
        sim.faults.clear(body.get("kind"))
        sim.driver.poke()
        await exchange.answer(200, {"faults": list(sim.faults.active)})
        return
    try:
        wanted = Fault.read(exchange.json())
    except (ValueError, TypeError) as error:
        raise bad(str(error), "kind") from None
    if wanted.kind in ("refuse", "restart"):
        if wanted.profile is not None and wanted.profile not in PROFILES:
            raise bad(f"profile must be one of {', '.join(PROFILES)}", "profile")
        await exchange.answer(200, {"faults": [wanted.kind]})
        sim.go_down(wanted)
        return
    sim.faults.set(wanted)
    sim.driver.poke()
    await exchange.answer(200, {"faults": list(sim.faults.active)})


async def state(sim: Sim, exchange: Exchange) -> None:
    """What it is and does, faults included."""
    build, engine = sim.build, sim.engine
    await exchange.answer(
        200,
        {
            "model": build.model, "profile": build.profile.name, "kernel": build.profile.moe_kernel,
            "declared": build.declared, "fingerprint": build.fingerprint, "started": sim.started,
            "running": engine.running, "waiting": engine.waiting, "kv_usage": engine.kv_usage,
            "aborted": engine.counters.aborted, "open_calls": sim.open_calls,
            "faults": {kind: fault.sizes() for kind, fault in sim.faults.active.items()},
        },
    )  # fmt: skip
