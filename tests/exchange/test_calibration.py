"""Predictions are held against what came, per backend and model, and shown."""

import asyncio

from router.admin.views import status
from router.cli.status import calibrated
from tests.exchange.conftest import MODEL, World, world

__all__ = ["world"]


async def test_status_says_how_predictions_compare_with_what_came(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    shown = status(world.app)["backends"][0]["models"][0]["calibration"]
    assert shown == {"ttft": None, "end": None}
    assert calibrated(shown["ttft"]) == "not learned"
    answer = world.chat()
    call = await spark.call()
    await asyncio.sleep(2.0)
    predicted = next(iter(world.app.front.open)).predicted
    assert predicted is not None
    assert predicted.ttft_s is not None
    call.start()
    call.role()
    call.say("one")
    await answer.until(lambda answer: "one" in answer.text)
    await asyncio.sleep(3.0)
    call.end()
    await answer.whole()
    serving = world.app.fleet.backends["spark"].serving[MODEL]
    shown = status(world.app)["backends"][0]["models"][0]["calibration"]
    assert shown["ttft"]["samples"] == shown["end"]["samples"] == 1
    assert abs(shown["ttft"]["bias"] * predicted.ttft_s - 2.0) < 0.05
    assert serving.end_calibration.bias > 0.0


async def test_a_call_that_waited_behind_a_long_prompt_teaches_what_prompts_cost(world: World) -> None:
    spark = world.backend("spark")
    await world.start()
    speed = world.app.fleet.backends["spark"].serving[MODEL].speed
    overhead, per_token = speed.prefill.p, speed.prefill.q
    long = world.chat(messages=[{"role": "user", "content": "word " * 8000}])
    ahead = await spark.call()
    short = world.chat()
    behind = await spark.call()
    await asyncio.sleep(5.0)
    behind.stream("one", "two")
    await short.whole()
    assert speed.prefill.q > 1.1 * per_token, "the backend prefilled some thousand tokens before it"
    assert speed.prefill.p < 2.0 * overhead
    ahead.stream("one")
    await long.whole()
