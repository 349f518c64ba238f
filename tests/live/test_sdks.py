"""The official SDKs against the router: what their users rely on."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.live.processes import MODEL, Process, router, sim

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("sdks")
    with sim(folder, "a") as a, sim(folder, "b") as b, router(folder, "--backend", a.url, "--backend", b.url) as r:
        yield r


@pytest.fixture
def client(served: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as one:
        yield one


ASK: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "count to 12"}]
COUNTED = " ".join(str(number) for number in range(1, 13))


def test_chat_and_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=ASK)
    assert (whole.choices[0].message.content or "").strip() == COUNTED
    assert whole.usage is not None
    text = ""
    for chunk in client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
        assert chunk.usage is None
        text += chunk.choices[0].delta.content or ""
    assert text.strip() == COUNTED


def test_usage_comes_where_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def test_models_and_errors(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.chat.completions.create(model="nope", messages=ASK)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=-1)


def test_responses_and_their_retrieval(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="count to 5")
    assert answer.output_text.strip() == "1 2 3 4 5"


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="count to 5", max_tokens=8)
    assert answer.choices[0].text


def test_messages_with_an_anthropic_key(served: Process) -> None:
    with anthropic.Anthropic(base_url=served.url, api_key="any", max_retries=0) as client:
        message = client.messages.create(
            model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "count to 5"}]
        )
        assert message.content[0].type == "text"
        with client.messages.stream(
            model=MODEL, max_tokens=64, messages=[{"role": "user", "content": "count to 5"}]
        ) as stream:
            assert "".join(stream.text_stream).strip() == "1 2 3 4 5"
