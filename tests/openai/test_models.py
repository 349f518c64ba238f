import json

import pytest

from router.errors import ClientFault
from router.openai.models import context_of, merge, render_list, render_one, unknown_model
from tests.openai.captures import capture

VLLM = json.loads(capture("vllm", "get_models").body)["data"]
LLAMA = json.loads(capture("llamacpp", "get_models").body)["data"]


def test_a_recorded_card_keeps_every_field():
    shown = json.loads(render_list(merge(VLLM)))
    assert shown["object"] == "list"
    assert [card | VLLM[0] for card in shown["data"]] == shown["data"]
    assert shown["data"][0]["owned_by"] == "vllm"


@pytest.mark.parametrize("cards", [VLLM, LLAMA])
def test_the_context_is_named_as_each_client_wants_it(cards):
    (card,) = merge(cards).values()
    names = ("context_length", "context_window", "max_input_tokens", "max_output_tokens")
    assert {card[name] for name in names} == {2048}
    assert context_of(cards[0]) == 2048


def test_one_model_on_several_backends_is_listed_once_with_the_larger_context():
    cards = [{"id": "m", "max_model_len": 8192, "owned_by": "vllm"}, {"id": "m", "max_model_len": 32768, "x": 1}]
    assert merge(cards) == {
        "m": {
            "id": "m",
            "max_model_len": 32768,
            "owned_by": "vllm",
            "x": 1,
            "context_length": 32768,
            "context_window": 32768,
            "max_input_tokens": 32768,
            "max_output_tokens": 32768,
        }
    }


def test_merging_leaves_what_it_was_given_alone():
    cards = [{"id": "m", "max_model_len": 1}, {"id": "m", "max_model_len": 2}]
    merge(cards, {"a": ["m"]})
    assert cards == [{"id": "m", "max_model_len": 1}, {"id": "m", "max_model_len": 2}]


def test_an_alias_shows_the_first_model_that_is_there():
    models = merge(
        [{"id": "big", "max_model_len": 9}, {"id": "small", "max_model_len": 5}],
        {"chat": ["gone", "small", "big"], "one": "big", "nothing": ["gone"], "soon": ["loading"]},
        starting={"loading"},
    )
    assert list(models) == ["big", "small", "chat", "one", "soon"]
    assert (models["chat"]["id"], models["chat"]["root"], models["chat"]["max_model_len"]) == ("chat", "small", 5)
    assert models["soon"]["root"] == "loading"


def test_one_model_is_shown_by_its_name_and_an_unknown_one_lists_what_there_is():
    models = merge([{"id": "org/m"}, {"id": "b"}])
    assert json.loads(render_one(models, "org/m")) == {"id": "org/m"}
    with pytest.raises(ClientFault) as caught:
        render_one(models, "nope")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert caught.value.message == "The model `nope` does not exist. Available: b, org/m."


def test_an_unknown_model_is_answered_briefly_however_long_it_is():
    fault = unknown_model("x" * 10_000, (f"m{i}" for i in range(1000)))
    assert len(fault.message) < 1000
    assert "950 more" in fault.message
