"""The toy tokenizer and language model: reversible, self-consistent, with noise in the shape of NVFP4's."""

import math

from hypothesis import given
from hypothesis import strategies as st

from router.sim.language import Flavour, LanguageModel
from router.sim.tokens import VOCABULARY, Detokenizer, decode, encode

TEXT = encode("The old harbor keeps a quiet lantern beyond the river and the village. " * 6)


@given(st.text(max_size=200))
def test_a_text_survives_being_tokens(text: str) -> None:
    ids = encode(text, specials=False)
    assert decode(ids) == text
    streamed = Detokenizer()
    assert "".join(map(streamed.push, ids)) == text


def test_english_takes_about_four_characters_a_token() -> None:
    text = "What is the name of the old village beyond the river, and who keeps the lantern there?"
    assert 3.0 < len(text) / len(encode(text)) < 5.5


def divergence(one: Flavour, other: Flavour) -> float:
    """Mean KL over the positions of a text."""
    pairs = zip(LanguageModel(one).score(TEXT), LanguageModel(other).score(TEXT), strict=True)
    values = [sum(math.exp(lp) * (lp - q.of(token)[0]) for token, lp in p.ranked) for p, q in pairs]
    return sum(values) / len(values)


def test_probabilities_add_up_to_one() -> None:
    for place in LanguageModel(Flavour("w4a4", "VLLM_CUTLASS")).score(TEXT)[:20]:
        listed = sum(math.exp(logprob) for _, logprob in place.ranked)
        rest = (len(VOCABULARY) - len(place.ranked)) * math.exp(place.tail)
        assert math.isclose(listed + rest, 1.0)


def test_two_w4a4_kernels_differ_from_each_other_more_than_in_their_distance_to_a_reference() -> None:
    reference = Flavour("bf16", "none")
    cutlass, flashinfer = Flavour("w4a4", "VLLM_CUTLASS"), Flavour("w4a4", "FLASHINFER_CUTLASS")
    near, far = divergence(reference, cutlass), divergence(reference, flashinfer)
    assert divergence(cutlass, flashinfer) > 3 * abs(near - far)
    assert divergence(reference, Flavour("w4a16", "MARLIN")) < near


def test_damage_moves_the_distance_and_decode_damage_hides_from_scoring() -> None:
    reference, sound = Flavour("bf16", "none"), Flavour("w4a16", "MARLIN")
    assert divergence(reference, Flavour("w4a16", "MARLIN", damage=0.5)) > 2 * divergence(reference, sound)
    assert divergence(sound, Flavour("w4a16", "MARLIN", decode_damage=3.0)) == 0.0
