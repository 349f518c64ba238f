"""/v1/models and /version as real servers send them, and as none should."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.models import parse_models, parse_version

DATA = Path(__file__).parent / "data"


def test_a_vllm_card_keeps_everything_it_was_sent() -> None:
    (card,) = parse_models((DATA / "models-vllm-0.32.0.json").read_bytes())
    assert (card.id, card.max_model_len, card.owned_by) == ("smollm2-135m", 2048, "vllm")
    assert (card.root, card.parent) == ("/models/smollm2", None)
    assert card.raw["permission"][0]["allow_logprobs"] is True


def test_a_llama_cpp_card_has_its_context_elsewhere() -> None:
    (card,) = parse_models((DATA / "models-llamacpp.json").read_bytes())
    assert (card.id, card.max_model_len, card.owned_by) == ("smollm2-135m", 2048, "llamacpp")


def test_a_lora_adapter_names_its_parent_and_a_repeated_id_counts_once() -> None:
    cards = parse_models('{"data":[{"id":"base"},{"id":"lora","parent":"base"},{"id":"base"},{"no":"id"},7]}')
    assert [(card.id, card.parent) for card in cards] == [("base", None), ("lora", "base")]


def test_a_server_may_serve_nothing() -> None:
    assert parse_models('{"object":"list","data":[]}') == ()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"{}", "no list"),
        (b"7", "no list"),
        (b'{"error":{"message":"Loading model"}}', "Loading model"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"data":[{"name":"x"}]}', "none with an id"),
    ],
)
def test_what_is_no_list_of_models_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_models(body)


def test_a_version_is_read() -> None:
    assert parse_version(b'{"version":"0.32.0"}') == "0.32.0"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"version":null}', b'{"version":" "}', b'{"version":3}'])
def test_a_missing_version_says_so(body: bytes) -> None:
    with pytest.raises(ValueError, match="/version"):
        parse_version(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["data", "id", "meta", "n_ctx", "max_model_len", "error"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_models_with_ids_or_a_reason(value: object) -> None:
    try:
        cards = parse_models(orjson.dumps(value))
    except ValueError:
        return
    assert all(card.id for card in cards)
