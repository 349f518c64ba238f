"""The simulated server knows what a canary asks, and forgets it where a fault says so."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from router.policy.answers import Answer, is_right
from router.probes.questions import MAKERS, Question, needle
from router.probes.texts import load_probes
from router.sim.state import Build
from tests.sim.served import FAST, MODEL, Served, served

LONG = Build(MODEL, replace(FAST, max_model_len=16_384))
ASKED = [kind for kind in MAKERS if kind != "image"]  # it has no eyes, and says so


async def ask(server: Served, question: Question, fault: str | None = None) -> Answer:
    body: dict[str, Any] = {"messages": question.messages, "max_tokens": question.max_tokens}
    body |= {"tools": question.tools} if question.tools else {}
    message = (await server.chat("", fault, **body)).json()["choices"][0]["message"]
    calls = tuple((c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls") or ())
    return Answer(message["content"] or "", calls)


@pytest.mark.realtime
@pytest.mark.parametrize("kind", ASKED)
async def test_every_known_answer_is_known(kind: str) -> None:
    async with served(LONG) as server:
        for number in (1, 68, 348):
            question = MAKERS[kind](number)
            answer = await ask(server, question)
            assert is_right(question.check, question.expected, answer), answer


@pytest.mark.realtime
async def test_a_code_is_found_in_eight_thousand_tokens() -> None:
    async with served(LONG) as server:
        question = needle(5, load_probes())
        answer = await ask(server, question)
        assert is_right(question.check, question.expected, answer), answer


@pytest.mark.realtime
@pytest.mark.parametrize("kind", ASKED)
async def test_an_ignorant_server_knows_none_and_still_scores_right(kind: str) -> None:
    async with served(LONG) as server:
        question = MAKERS[kind](68)
        assert not is_right(question.check, question.expected, await ask(server, question, "ignorant"))
        scored = {"model": MODEL, "prompt": [400, 500, 600, 700], "max_tokens": 1, "prompt_logprobs": 3}
        both = [
            (await server.client.post("/v1/completions", json=scored, headers=headers)).json()
            for headers in ({}, {"x-sim-fault": "ignorant"})
        ]
        assert both[0]["choices"][0]["prompt_logprobs"] == both[1]["choices"][0]["prompt_logprobs"]


@pytest.mark.realtime
async def test_tokens_are_named_by_id_where_that_was_asked_for() -> None:
    asked = {"model": MODEL, "prompt": "The sea", "max_tokens": 3, "logprobs": 2, "temperature": 0}
    async with served(LONG) as server:
        named = {**asked, "return_tokens_as_token_ids": True, "return_token_ids": True}
        choice = orjson.loads((await server.client.post("/v1/completions", json=named)).content)["choices"][0]
        plain = (await server.client.post("/v1/completions", json=asked)).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{one}" for one in choice["token_ids"]]
    assert all(name.startswith("token_id:") for top in choice["logprobs"]["top_logprobs"] for name in top)
    assert choice["text"] == plain["text"]
    assert choice["logprobs"]["token_logprobs"] == plain["logprobs"]["token_logprobs"]
    assert not any(name.startswith("token_id:") for name in plain["logprobs"]["tokens"])
