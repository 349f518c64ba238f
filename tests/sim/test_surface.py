"""The simulated server against recorded answers of vLLM 0.32: the same fields in the same order, statuses, errors."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.sim.profiles import PROFILES
from router.sim.state import Build
from tests.sim.served import FAST, MODEL, content, events, served

CAPTURES = Path(__file__).parents[3] / "shared/captures/vllm"
FEW = Path(__file__).parents[1] / "openai/data/vllm"  # some of them, in the repository
ELSEWHERE = ("auth_", "engine_", "get_metrics", "get_openapi", "get_server_info", "get_is_sleeping", "get_load_after")
FREE_TEXT = ("chat_n2_stream", "chat_stop", "chat_n2")  # what the model happens to say decides their shape


def recorded() -> list[Path]:
    folder = CAPTURES if CAPTURES.is_dir() else FEW
    return [one for one in sorted(folder.glob("*.http")) if not one.name.startswith(ELSEWHERE)]


def shape(value: Any) -> Any:
    """Names, order and types."""
    if isinstance(value, dict):
        return [(key, shape(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def shapes_of(text: str) -> list[str]:
    """The shapes of a stream's events, each run of equal ones once."""
    seen: list[str] = []
    for one in events(text):
        told = json.dumps(shape(one))
        if told not in seen:
            seen.append(told)
    return seen


@pytest.mark.realtime
@pytest.mark.parametrize(("name", "raw"), [pytest.param(one.stem, one.read_bytes(), id=one.stem) for one in recorded()])
async def test_an_answer_looks_like_the_recorded_one(name: str, raw: bytes) -> None:
    raw = raw.replace(b"\r\n", b"\n")
    asked, answered = re.split(rb"### answer[^\n]*\n", raw, maxsplit=1)
    head, _, body = asked.removeprefix(b"### request\n").partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    headers = dict(line.split(": ", 1) for line in lines if not line.startswith(("Host", "Connection", "Content-L")))
    answer_head, _, answer_body = answered.partition(b"\n\n")
    status = int(answer_head.split()[1])
    method, target, _ = first.split(" ")
    async with served() as server:
        answer = await server.client.request(method, target, content=body.strip() or None, headers=headers)
    assert answer.status_code == status
    names = [line.partition(":")[0] for line in answer_head.decode().split("\n")[1:]]
    assert [name for name in answer.headers if name != "connection"] == [n for n in names if n != "connection"]
    if name in FREE_TEXT:
        return
    if b"event-stream" in answer_head:
        assert shapes_of(answer.text) == shapes_of(answer_body.decode())
    elif b"json" in answer_head and answer_body.strip():
        wanted, got = orjson.loads(answer_body), answer.json()
        assert (got == wanted) if status >= 400 else (shape(got) == shape(wanted))


@pytest.mark.realtime
async def test_a_key_guards_v1_and_nothing_else() -> None:
    async with served(Build(MODEL, FAST, api_key="sk-test")) as server:
        refused = await server.chat("hi")
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        assert "vary" not in refused.headers
        assert (await server.client.get("/health")).status_code == 200
        assert (await server.client.post("/tokenize", json={"prompt": "hi"})).status_code == 200
        server.client.headers["authorization"] = "Bearer sk-test"
        assert (await server.chat("hi", max_tokens=2)).status_code == 200


@pytest.mark.realtime
async def test_counting_brings_one_number_a_token() -> None:
    async with served() as server:
        answer = await server.chat("count to 30", stream=True, return_token_ids=True)
    assert content(answer.text) == "".join(f"{n} " for n in range(1, 31))
    numbers = [one["choices"][0] for one in events(answer.text)[1:-2]]
    assert [one["delta"]["content"] for one in numbers] == [f"{n} " for n in range(1, 31)]


@pytest.mark.realtime
async def test_a_continued_answer_returns_only_what_was_missing() -> None:
    messages = [{"role": "user", "content": "count to 9"}, {"role": "assistant", "content": "1 2 3 4 "}]
    body = {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
    async with served() as server:
        answer = await server.client.post("/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == "5 6 7 8 9 "


@pytest.mark.realtime
async def test_a_generated_tokens_logprob_is_the_one_it_scores_in_a_prompt() -> None:
    async with served() as server:
        said = (await server.chat("Tell me of the sea.", logprobs=True, top_logprobs=3, max_tokens=20,
                                  return_token_ids=True)).json()  # fmt: skip
        written = said["choices"][0]["token_ids"]
        body = {"prompt": said["prompt_token_ids"] + written, "max_tokens": 1, "prompt_logprobs": 1}
        scored = (await server.client.post("/v1/completions", json=body)).json()["choices"][0]["prompt_logprobs"]
    own = [entry["logprob"] for entry in said["choices"][0]["logprobs"]["content"]]
    again = [row[str(token)]["logprob"] for row, token in zip(scored[-len(written) :], written, strict=True)]
    assert again == pytest.approx(own)


@pytest.mark.realtime
async def test_a_thinking_model_thinks_unless_told_not_to() -> None:
    async with served() as server:
        switched = {"chat_template_kwargs": {"enable_thinking": True}}
        thinking = (await server.chat("What is 17 + 25?", **switched)).json()["choices"][0]["message"]
        plain = (await server.chat("What is 17 + 25?")).json()["choices"][0]["message"]
    assert thinking["reasoning"]
    assert (thinking["content"], plain["content"], plain["reasoning"]) == ("42", "42", None)


@pytest.mark.realtime
async def test_the_metrics_count_what_was_done() -> None:
    async with served() as server:
        await server.chat("count to 10")
        text = (await server.client.get("/metrics")).text
    assert re.search(r'vllm:generation_tokens_total\{engine="0",model_name="smollm2-135m"\} 11\.0', text)
    assert "process_start_time_seconds" in text
    assert "vllm:iteration_tokens_total_count" in text


@pytest.mark.realtime
async def test_two_schemes_say_the_same_of_a_known_answer() -> None:
    for profile in ("marlin", "vllm-cutlass"):
        numbers = replace(FAST, scheme=PROFILES[profile].scheme)
        async with served(Build(MODEL, numbers)) as server:
            assert (await server.chat("What is 12 times 9?")).json()["choices"][0]["message"]["content"] == "108"
