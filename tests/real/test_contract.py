"""What a client may rely on, asked through the official SDKs: of a real vLLM itself, and of the router before two."""

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.real.conftest import CALL_LIMIT_S, MODEL, Stage
from tests.real.servers import RealRouter

USER = {"role": "user", "content": "Name three colours."}
STORY = {"role": "user", "content": "Write a very long story about the sea."}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
COLOUR = {
    "type": "object",
    "properties": {
        "colour": {"type": "string", "enum": ["red", "green", "blue"]},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "n"],
    "additionalProperties": False,
}
TO_GOOD = {"x-router-backend": "good"}  # where the noisy model's own nonsense would count; a vLLM takes no notice of it
CREATED = re.compile(rb'"created":\d+')
FINGERPRINT = re.compile(rb',"system_fingerprint":"[^"]*"')
CACHED = re.compile(rb'"(created_cache|cached)_tokens":\d+')
CONTENT = re.compile(rb'"content":"((?:[^"\\]|\\.)*)"')
LIMIT_S = 180.0  # for what never comes
TRIES = 3  # for what a slow machine may be too late to see
OF_AN_ENGINE = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:request_success_total",
    "vllm:generation_tokens_total",
)


def test_a_chat_is_answered_with_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[USER], max_tokens=16, temperature=0)
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_streamed_chat_says_the_same_as_a_whole_one(client: OpenAI) -> None:
    ask = {"model": MODEL, "messages": [USER], "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**ask, extra_headers=TO_GOOD)
    chunks = list(client.chat.completions.create(**ask, stream=True, extra_headers=TO_GOOD))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
    assert not any(chunk.usage for chunk in chunks), "nobody asked for usage"


def test_usage_comes_with_a_stream_only_when_asked_for(client: OpenAI) -> None:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[USER], max_tokens=5, stream=True, stream_options=options, extra_body={"seed": 1}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


def test_two_choices_come_back_apart(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[USER], max_tokens=8, n=2, temperature=0.9)
    assert [choice.index for choice in answer.choices] == [0, 1]
    stream = client.chat.completions.create(model=MODEL, messages=[USER], max_tokens=8, n=2, stream=True)
    finished = {choice.index for chunk in stream for choice in chunk.choices if choice.finish_reason}
    assert finished == {0, 1}


def test_logprobs_are_as_many_as_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[USER], max_tokens=6, logprobs=True, top_logprobs=20, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(token.top_logprobs) for token in logprobs.content] == [20] * 6


def test_prompt_logprobs_and_token_ids_pass_through(client: OpenAI) -> None:
    extra = {"prompt_logprobs": 2, "return_token_ids": True}
    answer = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=1, extra_body=extra)
    choice = answer.choices[0].model_dump()
    assert choice["prompt_logprobs"][0] is None
    assert len(choice["prompt_logprobs"]) == len(choice["prompt_token_ids"]) == 5


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_is_called(client: OpenAI, choice: object) -> None:
    question = [{"role": "user", "content": "Weather in Paris?"}]
    ask = {"model": MODEL, "messages": question, "max_tokens": 60, "temperature": 0}
    answer = client.chat.completions.create(**ask, tools=[WEATHER], tool_choice=choice, extra_headers=TO_GOOD)
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "get_weather"


def test_a_tool_call_can_be_streamed(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[USER],
        max_tokens=60,
        tools=[WEATHER],
        tool_choice="required",
        stream=True,
        extra_headers=TO_GOOD,
    )
    deltas = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert deltas[0].function is not None
    assert deltas[0].function.name == "get_weather"


def test_an_answer_keeps_to_a_json_schema(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": COLOUR}}
    answer = client.chat.completions.create(
        model=MODEL, messages=[USER], max_tokens=60, temperature=0, response_format=form, extra_headers=TO_GOOD
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"colour", "n"}


def test_completions_answer_and_stream(client: OpenAI) -> None:
    ask = {"model": MODEL, "prompt": ["Red is a", "Two plus two is"], "max_tokens": 4, "temperature": 0}
    assert [choice.index for choice in client.completions.create(**ask).choices] == [0, 1]
    finished = [
        c.index for part in client.completions.create(**ask, stream=True) for c in part.choices if c.finish_reason
    ]
    assert sorted(finished) == [0, 1]


def test_responses_answer_and_stream(client: OpenAI) -> None:
    ask = {"model": MODEL, "input": "Name three colours.", "max_output_tokens": 8, "temperature": 0}
    answer = client.responses.create(**ask)
    assert answer.output_text
    assert answer.status == "incomplete"
    events = [event.type for event in client.responses.create(**ask, stream=True)]
    assert events[0] == "response.created"
    assert events[-1] == "response.completed"
    assert "response.output_text.delta" in events


def test_messages_answer_and_stream(claude: Anthropic) -> None:
    ask = {"model": MODEL, "max_tokens": 8, "messages": [USER]}
    answer = claude.messages.create(**ask)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 8
    events = [event.type for event in claude.messages.create(**ask, stream=True)]
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"


def test_tokens_of_a_message_are_counted(claude: Anthropic) -> None:
    assert claude.messages.count_tokens(model=MODEL, messages=[USER]).input_tokens == 34


def test_the_model_is_listed_with_its_length(client: OpenAI) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert models[MODEL]["max_model_len"] == 8192
    assert models[MODEL]["owned_by"] == "vllm"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=[USER])
    assert caught.value.body["param"] == "model"
    assert MODEL in caught.value.body["message"], "the error lists what there is"


def test_an_unknown_model_is_not_found_by_messages_either(claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="nope", max_tokens=4, messages=[USER])


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_a_bad_request(client: OpenAI, stream: bool) -> None:
    long = {"role": "user", "content": "word " * 9000}
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model=MODEL, messages=[long], max_tokens=4, stream=stream)


def test_a_wrong_value_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model=MODEL, messages=[USER], temperature=-1)


def test_embeddings_of_a_chat_model_fail_with_a_4xx(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model=MODEL, input="hello")
    assert 400 <= caught.value.status_code < 500


def test_an_image_for_a_text_model_fails_with_a_4xx(client: OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [image]}], max_tokens=1)
    assert 400 <= caught.value.status_code < 500


BODIES: dict[str, dict[str, object]] = {
    "whole": {},
    "streamed": {"stream": True},
    "streamed with usage": {"stream": True, "stream_options": {"include_usage": True}},
}


@pytest.mark.parametrize("kind", BODIES)
def test_the_router_hands_on_the_very_bytes(stage: Stage, router: RealRouter, kind: str) -> None:
    ask = {"model": MODEL, "messages": [USER], "max_tokens": 24, "temperature": 0, **BODIES[kind]}
    headers = {"x-request-id": f"same-{kind.replace(' ', '-')}", **TO_GOOD}
    bodies = []
    for url in (stage.good.url, router.url):
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask, headers=headers, timeout=CALL_LIMIT_S)
        bodies.append(CREATED.sub(b"", answer.content))
    if kind == "streamed":  # a vLLM that is asked for usage says its fingerprint beside it, in the event we strip
        bodies = [FINGERPRINT.sub(b"", body) for body in bodies]
    if "usage" in bodies[0].decode():  # the second time, the prompt may come from the prefix cache
        bodies = [CACHED.sub(b"", body) for body in bodies]
    if kind != "whole" and bodies[0].count(b"\n\n") != bodies[1].count(b"\n\n"):
        bodies = [as_if_unhurried(body) for body in bodies]
    assert bodies[0] == bodies[1]


def as_if_unhurried(body: bytes) -> bytes:
    """Bring a stream's text together: a vLLM that is behind puts several tokens into one event, another time not."""
    shapes = [CONTENT.sub(b'"content":""', event) for event in body.split(b"\n\n")]
    kept = [shape for shape, before in zip(shapes, [b"", *shapes], strict=False) if shape != before]
    return b"\n\n".join([*kept, b"".join(CONTENT.findall(body))])


WINDOWS: dict[str, dict[str, object]] = {
    "before the answer": {"stream": False, "max_tokens": 7000, "messages": [STORY]},
    "during prefill": {
        "stream": True,
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": "The sea was calm. " * 1000}],
    },
    "mid-stream": {"stream": True, "max_tokens": 7000, "messages": [STORY]},
}


@dataclass(frozen=True, slots=True)
class Work:
    """What both engines say of themselves: calls they hold now; calls they finished and tokens they made so far.

    A call that is aborted does not count as finished: no label of vLLM's counter goes up for it.
    """

    calls: float
    finished: float
    tokens: float


@pytest.mark.parametrize("window", WINDOWS)
def test_a_client_that_leaves_frees_the_engine(
    stage: Stage, url: str, window: str, request: pytest.FixtureRequest, note: Callable[[str], None]
) -> None:
    """An engine that goes idle without having finished the call was freed.

    How late its own numbers are says nothing: a scrape of an API server that shares two slow cores with two spinning
    engines was seen to take longer than thousands of tokens. So a call that was over before we left is made again.
    """
    ask = {"model": MODEL, "ignore_eos": True, **WINDOWS[window]}
    before = idle(stage)
    for _ in range(TRIES):
        began = time.monotonic()
        after = left_early(stage, url, ask, before, window == "mid-stream")
        made = after.tokens - before.tokens
        note(
            f"a client left {request.node.callspec.id}: {made:.0f} of {ask['max_tokens']} tokens were made, "
            f"{time.monotonic() - began:.2f} s from the call to an idle engine"
        )
        if after.finished == before.finished:
            return
        before = after
    pytest.fail("the engine went on for nobody")


def left_early(stage: Stage, url: str, ask: dict[str, object], before: Work, awaits_content: bool) -> Work:
    """Make a call, leave once an engine has it (or had it already); what they say when they are idle again."""
    with sent(f"{url}/v1/chat/completions", ask) as connection:
        while awaits_content and b"content" not in connection.recv(65536):
            continue
        assert until(lambda: (now := work(stage)).calls >= 1 or now.finished > before.finished), "it never began"
    return idle(stage)


def sent(url: str, ask: dict[str, object]) -> socket.socket:
    """Return a connection on which a call was sent; closing it is what a client does that leaves."""
    where, body = urlsplit(url), json.dumps(ask).encode()
    connection = socket.create_connection((where.hostname or "", where.port or 80), timeout=LIMIT_S)
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def idle(stage: Stage) -> Work:
    """Wait until neither engine has a call; return what they say then."""
    assert until(lambda: work(stage).calls == 0), f"an engine never became idle: {work(stage)}"
    return work(stage)


def work(stage: Stage) -> Work:
    told = [server.metrics(*OF_AN_ENGINE) for server in stage.servers]
    running, waiting, finished, tokens = (sum(numbers) for numbers in zip(*told, strict=True))
    return Work(running + waiting, finished, tokens)


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Wait for something; say whether it came."""
    deadline = time.monotonic() + limit_s
    while not (came := true()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return came
